//! A file instead of a mail server, for development: one JSON object a line.
//!
//! The configuration accepts it beside a development listener only, because whoever reads
//! the file reads every code. It is made with mode 0600 and refused where others could read it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::OFlags;
use serde_json::json;
use zeroize::Zeroizing;

use super::message::Message;
use super::{DeliveryError, Transport};

#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("delivery.outbox {}: cannot be written ({source})", path.display())]
    Unwritable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "delivery.outbox {}: expected a regular file of this user that nobody else can read; remove it", path.display()
    )]
    NotPrivate { path: PathBuf },
}

#[derive(Debug)]
pub(super) struct Outbox(PathBuf);

impl Outbox {
    /// Makes the file where it is missing, so that its readers find one.
    pub(super) fn open(path: &Path) -> Result<Self, OutboxError> {
        file(path)?;
        Ok(Self(path.to_owned()))
    }
}

fn file(path: &Path) -> Result<File, OutboxError> {
    let unwritable = |source| OutboxError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(unwritable)?;
    let found = file.metadata().map_err(unwritable)?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if !found.is_file() || !ours || found.mode() & 0o077 != 0 {
        return Err(OutboxError::NotPrivate {
            path: path.to_owned(),
        });
    }
    Ok(file)
}

#[async_trait]
impl Transport for Outbox {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        let words = message.mail();
        let line = Zeroizing::new(format!(
            "{}\n",
            json!({
                "channel": message.to().channel().name(),
                "kind": message.kind(),
                "to": message.to().expose(),
                "subject": words.subject,
                "body": words.body.as_str(),
            })
        ));
        let path = self.0.clone();
        // One write for one line: lines of several messages never mix.
        let write = move || -> Result<(), String> {
            let mut file = file(&path).map_err(|error| error.to_string())?;
            file.write_all(line.as_bytes())
                .map_err(|error| error.to_string())
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| DeliveryError::Temporary("the outbox was not written".to_owned()))?
            .map_err(DeliveryError::Misconfigured)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Address, Notice};
    use super::*;

    #[tokio::test]
    async fn each_message_is_a_line_that_only_the_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let outbox = Outbox::open(&path).unwrap();
        for _ in 0..2 {
            let to = Address::email("ann@example.com").unwrap();
            let message = Message::notice("Notes", to, Notice::PinReplaced).unwrap();
            outbox.send(&message).await.unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        let first = lines.first().unwrap();
        assert_eq!(first.get("to").unwrap(), "ann@example.com");
        assert_eq!(first.get("channel").unwrap(), "email");
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_that_others_read_or_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Outbox::open(&path),
            Err(OutboxError::NotPrivate { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Outbox::open(&path).is_ok());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Outbox::open(&link).is_err());
    }
}
