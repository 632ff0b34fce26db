//! The policy files of a folder, one for each app.
//!
//! Called by start-up, by a reload and by `doctor`. It finds and reads the files; what a
//! policy means is decided in the crate `custodyd-policies`, which does no I/O. One thing is left
//! to check here, because it needs cryptography: that the keys of tickets are points of P-256.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use custodyd_hsm::AppId;
use custodyd_policies::{AppPolicy, PolicyError};

use crate::factors::ticket;

/// A policy is a page of text; anything larger is another file put there by mistake.
const MAX_FILE: u64 = 256 * 1024;

/// The policies of a folder, read and judged.
#[derive(Debug)]
pub struct Loaded {
    pub apps: BTreeMap<AppId, AppPolicy>,
    /// Of their texts: the log names it, so that an auditor sees when they changed.
    pub digest: [u8; 32],
}

/// Reads every `*.toml` file of a folder. All errors of all files are reported together;
/// an empty folder and two files for one app are errors too.
pub fn load_policies(directory: &Path) -> Result<Loaded, Vec<PolicyError>> {
    let files = list(directory).map_err(|error| vec![error])?;
    let mut errors = Vec::new();
    let mut apps: BTreeMap<AppId, (PathBuf, AppPolicy, String)> = BTreeMap::new();
    for file in files {
        match read(&file) {
            Err(found) => errors.extend(found),
            Ok((app, policy, text)) => {
                if let Some((first, ..)) = apps.get(&app) {
                    let message =
                        format!("app {app:?} has a policy already, in {}", first.display());
                    errors.push(error(&file, message));
                } else {
                    apps.insert(app, (file, policy, text));
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let digest = digest(apps.iter().map(|(app, (.., text))| (app, text.as_str())));
    let apps = apps
        .into_iter()
        .map(|(app, (_, policy, _))| (app, policy))
        .collect();
    Ok(Loaded { apps, digest })
}

fn digest<'a>(texts: impl Iterator<Item = (&'a AppId, &'a str)>) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"custodyd/policies/v1");
    for (app, text) in texts {
        for field in [app.as_str(), text] {
            hash.update(&(field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

/// In the order of their names, so that messages do not depend on the file system.
fn list(directory: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let unreadable = |cause: std::io::Error| error(directory, format!("cannot be read ({cause})"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let message = "expected at least one policy file named APP.toml, found none";
        return Err(error(directory, message.to_owned()));
    }
    Ok(files)
}

fn read(file: &Path) -> Result<(AppId, AppPolicy, String), Vec<PolicyError>> {
    let unreadable = |cause: std::io::Error| vec![error(file, format!("cannot be read ({cause})"))];
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        let message = format!("expected a file of at most {MAX_FILE} bytes");
        return Err(vec![error(file, message)]);
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let policy = custodyd_policies::parse(&file.display().to_string(), &text)?;
    // Both crates state the same rule for names; this is where they meet.
    let app =
        AppId::parse(&policy.app).map_err(|cause| vec![error(file, format!("app: {cause}"))])?;
    let errors: Vec<PolicyError> = policy
        .enrolment
        .tickets
        .iter()
        .filter_map(|listed| {
            let cause = ticket::key(listed).err()?;
            let message = format!("enrolment.tickets: the key {:?}: {cause}", listed.kid);
            Some(error(file, message))
        })
        .collect();
    if errors.is_empty() {
        Ok((app, policy, text))
    } else {
        Err(errors)
    }
}

fn error(path: &Path, message: String) -> PolicyError {
    PolicyError {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        message,
    }
}
