//! The rig for the TPM backend: swtpm, whose power is cut, and tpm2-tools, another program than
//! the one under test, which knows only FORMAT.md.

pub(crate) mod anchored;
pub(crate) mod booted;
mod bus;
pub(crate) mod cases;
pub(crate) mod evidence;
pub(crate) mod hanging;
pub(crate) mod importing;
pub(crate) mod wycheproof;

use std::{env, fs, path::PathBuf, sync::Arc};

use aws_lc_rs::digest;
use custodyd_hsm::{
    Backend, KeyId, KeyPurpose, SecretBytes,
    backend::tpm::{Mode, Options, TpmBackend},
};
use custodyd_tests::tpm::{HANDLES, NV_INDEX, SwTpm};

use crate::rig::{Counted, Prepared, Rig, Store};

const DIR: &str = "CUSTODYD_CONFORMANCE_TPM";

/// A TPM in one of the two modes.
pub(crate) struct Tpm<const PER_OPERATION: bool>(pub(crate) SwTpm);

pub(crate) type PerStart = Tpm<false>;
pub(crate) type PerOperation = Tpm<true>;

impl<const PER_OPERATION: bool> Tpm<PER_OPERATION> {
    const MODE: Mode = match PER_OPERATION {
        true => Mode::PerOperation,
        false => Mode::PerStart,
    };

    pub(crate) fn options(&self) -> Options {
        self.0.options(Self::MODE)
    }

    /// Everything that makes this TPM the one that it is, put aside and back.
    fn exchange(&self, from: &str, to: &str) {
        for name in ["state", "anchors", "storage-key"] {
            let at = |kind: &str| self.0.dir().join(format!("{name}{kind}"));
            fs::rename(at(from), at(to)).unwrap();
        }
    }
}

/// Changes the objects in the record that is true, after FORMAT.md, section 10. The number is for a new one.
pub(crate) fn rewrite(tpm: &SwTpm, change: impl FnOnce(&mut Vec<(u64, Vec<u8>)>, u64)) {
    let digest = written(tpm, change);
    extend(tpm, &digest);
}

/// Writes that record; it is true once the index is extended by what is returned.
pub(crate) fn written(tpm: &SwTpm, change: impl FnOnce(&mut Vec<(u64, Vec<u8>)>, u64)) -> [u8; 32] {
    let value = nv_value(tpm);
    let (file, bytes) = ["anchors-a", "anchors-b"]
        .map(|name| tpm.anchors().join(name))
        .into_iter()
        .filter_map(|path| Some((path.clone(), fs::read(path).ok()?)))
        .find(|(_, bytes)| leads_to(bytes, &value))
        .expect("a record that is true");
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut contents = Vec::new();
    let mut at = 36 + 5 * 8;
    for _ in 0..number(36 + 4 * 8) {
        let length = usize::try_from(number(at + 8)).unwrap();
        let content = bytes[at + 16..at + 16 + length].to_vec();
        contents.push((number(at), content));
        at += 16 + length;
    }
    let next_id = number(36 + 3 * 8);
    change(&mut contents, next_id);
    let mut next = value.to_vec();
    next.extend_from_slice(&bytes[32..36 + 3 * 8]);
    for number in [next_id + 1, u64::try_from(contents.len()).unwrap()] {
        next.extend_from_slice(&number.to_be_bytes());
    }
    for (id, content) in contents {
        next.extend_from_slice(&id.to_be_bytes());
        next.extend_from_slice(&u64::try_from(content.len()).unwrap().to_be_bytes());
        next.extend_from_slice(&content);
    }
    fs::write(file, &next).unwrap();
    record_digest(&next)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().try_into().unwrap()
}

fn record_digest(record: &[u8]) -> [u8; 32] {
    sha256(&[b"custodyd/tpm-anchors/v1", &record[32..]].concat())
}

fn leads_to(record: &[u8], value: &[u8]) -> bool {
    record.len() > 36 && sha256(&[&record[..32], &record_digest(record)].concat()) == value
}

fn nv_value(tpm: &SwTpm) -> Vec<u8> {
    let (index, auth) = (format!("0x{NV_INDEX:x}"), tpm.auth("custodyd-anchor-v1"));
    tpm.tool(
        "tpm2_nvread",
        &["-C", &index, "-P", &auth, "-o", "nv", &index],
    );
    fs::read(tpm.dir().join("nv")).unwrap()
}

/// As whoever knows the secret can.
pub(crate) fn extend(tpm: &SwTpm, by: &[u8]) {
    let (index, auth) = (format!("0x{NV_INDEX:x}"), tpm.auth("custodyd-anchor-v1"));
    fs::write(tpm.dir().join("by"), by).unwrap();
    tpm.tool(
        "tpm2_nvextend",
        &["-C", &index, "-P", &auth, "-i", "by", &index],
    );
}

impl<const PER_OPERATION: bool> Store for Tpm<PER_OPERATION> {
    fn prepare() -> Prepared {
        let tpm = SwTpm::fresh(Self::MODE);
        let environment = vec![
            (DIR, tpm.dir().to_owned()),
            ("TSS2_LOG", PathBuf::from("all+none")),
        ];
        Prepared {
            keep: Box::new(tpm),
            environment,
        }
    }

    fn attach() -> Self {
        let tpm = SwTpm::attach(env::var_os(DIR).unwrap());
        tpm.power_on();
        Self(tpm)
    }

    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(TpmBackend::new(self.options()))
    }

    fn plant(&self, content: &[u8]) {
        rewrite(&self.0, |objects, id| objects.push((id, content.to_vec())));
    }

    fn clear(&self) {
        rewrite(&self.0, |objects, _| objects.clear());
    }

    /// Its list is a read of one index and one file.
    fn tells_of_one(&self) -> bool {
        false
    }

    fn plant_beside(&self, content: &[u8]) {
        fs::write(self.0.anchors().join("anchors-c"), content).unwrap();
        self.0.tool(
            "tpm2_nvdefine",
            &[
                "-C",
                "o",
                "-s",
                "32",
                "-a",
                "ownerwrite|ownerread",
                "0x1818101",
            ],
        );
    }
}

impl<const PER_OPERATION: bool> Rig for Tpm<PER_OPERATION> {
    fn backend_with_wrong_pin(&self) -> Counted {
        let backend = Arc::new(TpmBackend::new(Options {
            secret: SecretBytes::from(vec![b'x'; 64]),
            ..self.options()
        }));
        let counted = Arc::clone(&backend);
        (backend, Box::new(move || counted.login_attempts()))
    }

    fn is_software(&self) -> bool {
        true
    }

    fn objects_of_a_pair(&self) -> usize {
        1
    }

    fn kept(&self) -> [(&'static str, &'static str); 2] {
        [("fixedTPM", "true"), ("fixedParent", "true")]
    }

    fn take_away(&self) {
        self.0.power_off();
        self.exchange("", ".away");
    }

    fn bring_back(&self) {
        self.exchange(".away", "");
        self.0.power_on();
    }

    /// With the same secret, and its own records and storage key.
    fn put_impostor(&self) {
        fs::create_dir(self.0.state()).unwrap();
        self.0.power_on();
        self.0.provision(Self::MODE);
    }

    fn remove_impostor(&self) {
        self.0.power_off();
        fs::remove_dir_all(self.0.state()).unwrap();
        fs::remove_dir_all(self.0.anchors()).unwrap();
        fs::remove_file(self.0.dir().join("storage-key")).unwrap();
    }

    fn delete(&self, key: KeyId) {
        let handle = handle(key);
        self.0
            .tool("tpm2_evictcontrol", &["-C", "o", "-c", &handle]);
    }

    fn gives_secrets_out(&self) -> bool {
        !PER_OPERATION
    }

    fn make_extractable(&self, key: KeyId) {
        self.delete(key);
        let (tpm, auth, parent) = (&self.0, self.0.auth(&key.label()), format!("0x{HANDLES:x}"));
        let new = |kind: &[&str]| {
            let usual = ["-C", &parent, "-u", "pub", "-r", "priv", "-p", &auth];
            tpm.tool("tpm2_create", &[&usual[..], kind].concat());
        };
        fs::write(tpm.dir().join("known"), [7; 32]).unwrap();
        match PER_OPERATION {
            true => new(&[
                "-G",
                "hmac:sha256",
                "-a",
                "userwithauth|noda|sign|sensitivedataorigin",
            ]),
            false => new(&["-i", "known", "-a", "userwithauth|noda"]),
        }
        tpm.tool(
            "tpm2_load",
            &["-C", &parent, "-u", "pub", "-r", "priv", "-c", "new"],
        );
        tpm.tool("tpm2_evictcontrol", &["-C", "o", "-c", "new", &handle(key)]);
        tpm.flush();
    }
}

/// After FORMAT.md, section 10.
fn handle(key: KeyId) -> String {
    let place = KeyPurpose::REQUIRED
        .iter()
        .position(|p| *p == key.purpose)
        .unwrap();
    let offset = (u32::try_from(place).unwrap() + 1) * 16 + u32::from(key.version);
    format!("0x{:x}", HANDLES + offset)
}
