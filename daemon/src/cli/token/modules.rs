//! Where PKCS#11 modules are: what p11-kit is told of, and where their makers put them.
//!
//! Called by `token list`. It reads folders that only root writes to, and loads nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where p11-kit reads one file for each module; the later ones are the administrator's.
const REGISTERED: [&str; 2] = ["usr/share/p11-kit/modules", "etc/pkcs11/modules"];
/// p11-kit's own: one that forwards to all others, and the list of trusted authorities. No token of either
/// holds a key.
const NO_TOKENS: [&str; 2] = ["p11-kit-proxy.so", "p11-kit-trust.so"];
/// Below the folders of libraries: SoftHSM2, kryoptic, YubiHSM 2.
const IN_LIBRARIES: [&str; 6] = [
    "softhsm/libsofthsm2.so",
    "pkcs11/libsofthsm2.so",
    "pkcs11/libkryoptic_pkcs11.so",
    "kryoptic/libkryoptic_pkcs11.so",
    "pkcs11/yubihsm_pkcs11.so",
    "yubihsm_pkcs11.so",
];
/// CloudHSM, Luna, nShield.
const BY_MAKERS: [&str; 5] = [
    "opt/cloudhsm/lib/libcloudhsm_pkcs11.so",
    "usr/safenet/lunaclient/lib/libCryptoki2_64.so",
    "usr/safenet/lunaclient/lib/libCryptoki2.so",
    "usr/lunasa/lib/libCryptoki2_64.so",
    "opt/nfast/toolkits/pkcs11/libcknfast.so",
];

/// Every module below a root folder, each once, however many names lead to it.
pub(super) fn find(root: &Path) -> Vec<PathBuf> {
    let libraries = libraries(root);
    let known = libraries
        .iter()
        .flat_map(|folder| IN_LIBRARIES.iter().map(|name| folder.join(name)))
        .chain(BY_MAKERS.iter().map(|path| root.join(path)));
    let mut seen = BTreeSet::new();
    registered(root, &libraries)
        .into_iter()
        .chain(known)
        .filter(|path| {
            let whole = fs::canonicalize(path);
            whole.is_ok_and(|whole| seen.insert(whole))
        })
        .collect()
}

fn libraries(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["usr/lib", "usr/lib64", "usr/local/lib"]
        .map(|folder| root.join(folder))
        .to_vec();
    // Debian's folders for each architecture, such as x86_64-linux-gnu.
    for entry in entries(&root.join("usr/lib")) {
        let name = entry.file_name();
        if name.is_some_and(|name| name.to_string_lossy().contains("-linux-")) {
            folders.push(entry);
        }
    }
    folders
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries
}

fn registered(root: &Path, libraries: &[PathBuf]) -> Vec<PathBuf> {
    let files = REGISTERED
        .iter()
        .flat_map(|folder| entries(&root.join(folder)));
    files
        .filter(|file| file.extension().is_some_and(|kind| kind == "module"))
        .filter_map(|file| module_of(&fs::read_to_string(file).ok()?))
        .filter(|module| !NO_TOKENS.iter().any(|name| module.ends_with(name)))
        .flat_map(|module| {
            let relative = module.strip_prefix("/").is_err();
            match relative {
                // p11-kit looks for these in a folder fixed when it was built.
                true => libraries
                    .iter()
                    .map(|folder| folder.join("pkcs11").join(&module))
                    .collect(),
                false => vec![root.join(module.strip_prefix("/").unwrap_or(&module))],
            }
        })
        .collect()
}

/// The value of `module:` in a file of p11-kit.
fn module_of(text: &str) -> Option<PathBuf> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let mut pairs = lines.filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == "module")?;
    let value = value.trim();
    (!value.is_empty()).then(|| PathBuf::from(value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn root_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(root: &tempfile::TempDir) -> Vec<String> {
        find(root.path())
            .iter()
            .map(|path| {
                path.strip_prefix(root.path())
                    .unwrap()
                    .display()
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn registered_modules_and_makers_folders_are_found_once_each() {
        let root = root_with(&[
            (
                "usr/share/p11-kit/modules/a.module",
                "# module: no.so\n module: own.so\n",
            ),
            (
                "usr/share/p11-kit/modules/softhsm2.module",
                "module: /usr/lib/softhsm/libsofthsm2.so",
            ),
            (
                "usr/share/p11-kit/modules/p11-kit-trust.module",
                "module: p11-kit-trust.so",
            ),
            ("etc/pkcs11/modules/gone.module", "module: /opt/gone.so"),
            (
                "etc/pkcs11/modules/readme.txt",
                "module: /opt/cloudhsm/readme.so",
            ),
            ("usr/lib/x86_64-linux-gnu/pkcs11/own.so", ""),
            ("usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so", ""),
            ("usr/lib/softhsm/libsofthsm2.so", ""),
            ("opt/cloudhsm/lib/libcloudhsm_pkcs11.so", ""),
        ]);
        assert_eq!(
            found(&root),
            [
                "usr/lib/x86_64-linux-gnu/pkcs11/own.so",
                "usr/lib/softhsm/libsofthsm2.so",
                "opt/cloudhsm/lib/libcloudhsm_pkcs11.so",
            ]
        );
        assert!(found(&root_with(&[])).is_empty());
    }

    #[test]
    fn a_module_file_is_read_as_p11_kit_reads_it() {
        assert_eq!(
            module_of("priority: 3\nmodule : x.so \n"),
            Some("x.so".into())
        );
        for text in ["", "module:", "# module: x.so", "remote: |x"] {
            assert_eq!(module_of(text), None, "{text}");
        }
    }
}
