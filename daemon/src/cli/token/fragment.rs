//! The part of a configuration that belongs to a token: printed, or written to a new file.
//!
//! Called by `token provision` at its end. It never writes over a file, and holds no secret.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use custodyd_hsm::backend::tpm;

use super::proof::Proposal;
use crate::config::{DEFAULT_STATE, Token, TokenKind, Tpm};

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FragmentError {
    #[error(
        "{}: it is there already, and is not written over; nothing was changed. Give another name, or move it away",
        .0.display()
    )]
    Exists(PathBuf),
    #[error("{}: cannot be written ({source})", path.display())]
    Unwritten { path: PathBuf, source: io::Error },
}

/// The sections `[token]` and `[ledger]`.
pub(super) fn text(token: &Token, proposal: Proposal) -> String {
    let mut text = String::from("# From `custodyd token provision`.\n[token]\n");
    match &token.kind {
        TokenKind::Pkcs11 {
            module,
            label,
            serial,
        } => {
            line(&mut text, "module", &module.display().to_string());
            line(&mut text, "label", label);
            if let Some(serial) = serial {
                line(&mut text, "serial", serial);
            }
        }
        TokenKind::Tpm(tpm) => of_tpm(&mut text, tpm),
    }
    match (&token.pin_file, &token.pin_credential) {
        (Some(file), _) => line(&mut text, "pin_file", &file.display().to_string()),
        (None, Some(name)) => line(&mut text, "pin_credential", name),
        (None, None) => text.push_str(
            "pin_file = \"token-pin\"    # put the PIN into this file, mode 0600, beside the configuration\n",
        ),
    }
    if let Some(escrow) = &token.escrow {
        line(&mut text, "escrow", &escrow.display().to_string());
    }
    text.push_str("\n[ledger]\n");
    match proposal {
        Proposal::Strict => line(&mut text, "anchor", "strict"),
        Proposal::Bounded(interval) => {
            line(&mut text, "anchor", "bounded");
            line(&mut text, "anchor_interval", interval);
        }
    }
    text
}

fn of_tpm(text: &mut String, tpm: &Tpm) {
    line(text, "kind", "tpm");
    line(text, "tcti", &tpm.tcti);
    if let Some(name) = &tpm.storage_key {
        line(text, "storage_key", name);
    }
    if tpm.state_directory != Path::new(DEFAULT_STATE) {
        line(
            text,
            "state_directory",
            &tpm.state_directory.display().to_string(),
        );
    }
    // Writing to a string cannot fail.
    if tpm.handles != tpm::DEFAULT_HANDLES {
        let _ = writeln!(text, "handles = {:#010x}", tpm.handles);
    }
    if tpm.nv_index != tpm::DEFAULT_NV_INDEX {
        let _ = writeln!(text, "nv_index = {:#010x}", tpm.nv_index);
    }
    if tpm.per_operation {
        text.push_str("per_operation = true\n");
    }
    if let Some(pcrs) = &tpm.pcrs {
        let _ = writeln!(text, "pcrs = [{pcrs}]");
    }
    if tpm.nv_writes_per_day != tpm::DEFAULT_NV_WRITES_PER_DAY {
        let _ = writeln!(text, "nv_writes_per_day = {}", tpm.nv_writes_per_day);
    }
}

/// A string in TOML, whatever it holds.
fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {}", toml::Value::from(value));
}

/// Before anything is changed: whether [`write`] would refuse.
pub(super) fn check_free(path: &Path) -> Result<(), FragmentError> {
    match path.symlink_metadata() {
        Ok(_) => Err(FragmentError::Exists(path.to_owned())),
        Err(_) => Ok(()),
    }
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), FragmentError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => FragmentError::Exists(path.to_owned()),
        _ => FragmentError::Unwritten {
            path: path.to_owned(),
            source,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn token(kind: TokenKind) -> Token {
        Token {
            kind,
            pin_file: Some("/etc/custodyd/pin \"of\" the token".into()),
            pin_credential: None,
            escrow: None,
            threads: 2,
            queue: 1024,
            deadline: Duration::from_secs(5),
            replicas: config::Replicas::default(),
        }
    }

    /// What is printed is read back as the token that it was printed for.
    fn read_back(token: &Token, proposal: Proposal) -> config::Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("custodyd.toml");
        let rest = "[realm]\nname = \"r\"\n[listen]\npublic = \"127.0.0.1:1\"\nurl = \"https://r.example\"\n\
                    certificate = \"c\"\nprivate_key = \"k\"\n";
        std::fs::write(&path, format!("{rest}{}", text(token, proposal))).unwrap();
        config::load(&path).unwrap()
    }

    #[test]
    fn a_fragment_is_read_back_as_what_it_was_made_for() {
        let odd = token(TokenKind::Pkcs11 {
            module: "/opt/a \\ b/m.so".into(),
            label: "l\"a'b]\u{e9}".into(),
            serial: Some("00=1".into()),
        });
        let read = read_back(&odd, Proposal::Strict);
        assert_eq!(read.token, odd);
        assert_eq!(read.ledger.anchor, config::Anchor::Strict);
        let mut tpm = token(TokenKind::Tpm(Tpm {
            tcti: "device:/dev/tpmrm0".into(),
            storage_key: Some(format!("000b{}", "0f".repeat(32))),
            state_directory: "/srv/tpm".into(),
            handles: 0x8102_0000,
            nv_index: 0x0180_0001,
            per_operation: true,
            pcrs: Some(tpm::Pcrs::parse("0,7").unwrap()),
            nv_writes_per_day: 2000,
        }));
        // What nobody has set: a TPM is waited for longer.
        tpm.replicas.patience = Duration::from_secs(4);
        let read = read_back(&tpm, Proposal::Bounded("10m"));
        assert_eq!(read.token, tpm);
        assert_eq!(read.ledger.anchor_interval, Duration::from_secs(600));
    }

    #[test]
    fn no_file_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.toml");
        check_free(&path).unwrap();
        write(&path, "one").unwrap();
        assert!(matches!(check_free(&path), Err(FragmentError::Exists(_))));
        assert!(matches!(write(&path, "two"), Err(FragmentError::Exists(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        // A link that leads nowhere is somebody's, too.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(check_free(&link).is_err());
    }
}
