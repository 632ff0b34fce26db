//! The two files that records are in, and the lock that makes their writer the only one.
//!
//! Called by the parent and by `provision`. Who can write here can make the realm refuse to serve, and, after
//! a clock that was ahead, have a day's writes come at once (`wear`); nothing else. Two processes would extend one index in turns,
//! and no record would lead to it:
//! so the lock is held as long as the backend lives.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::record::{LONGEST, Record};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        tpm::files,
    },
    error::{Error, Result},
};

const FILES: [&str; 2] = ["anchors-a", "anchors-b"];
const LOCK: &str = "lock";

#[derive(Debug)]
pub(in crate::backend::tpm) struct Store {
    directory: PathBuf,
    /// Held while it is open; none where there is nothing yet to be the only one at.
    _lock: Option<File>,
}

/// Which of the two files.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend::tpm) struct Slot(usize);

impl Store {
    /// Takes the directory for this process; `make` where provisioning may make it.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] where it is not there, or another process has it.
    pub(in crate::backend::tpm) fn take(directory: &Path, make: bool) -> Result<Self> {
        let refused = |error: &io::Error, hint: &str| {
            Error::Misconfigured(format!(
                "token.state_directory {}: {error}{hint}",
                directory.display()
            ))
        };
        if make {
            let mut maker = DirBuilder::new();
            maker.recursive(true).mode(0o700);
            maker
                .create(directory)
                .map_err(|error| refused(&error, ""))?;
        }
        let hint = "; `custodyd token provision` makes it. In an existing realm it was lost or is \
                    elsewhere: it holds the anchors";
        let path = directory.join(LOCK);
        let lock = match files::made(directory, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                files::regular(OpenOptions::new().write(true), &path)
            }
            made => made,
        };
        let lock = lock.map_err(|error| refused(&error, hint))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory: directory.to_owned(),
                _lock: Some(lock),
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Misconfigured(format!(
                "the TPM is in use: another process, or another backend of this one, holds {}",
                directory.join(LOCK).display()
            ))),
            Err(TryLockError::Error(error)) => Err(refused(&error, "")),
        }
    }

    /// The same for a look, which leaves nothing behind where nothing was.
    ///
    /// # Errors
    /// As [`Store::take`].
    pub(in crate::backend::tpm) fn look(directory: &Path) -> Result<Self> {
        match directory.join(LOCK).exists() {
            true => Self::take(directory, false),
            false => Ok(Self {
                directory: directory.to_owned(),
                _lock: None,
            }),
        }
    }

    pub(in crate::backend::tpm) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every record that can be read.
    pub(in crate::backend::tpm) fn records(&self) -> Attempt<Vec<Record>> {
        let mut found = Vec::new();
        for slot in [Slot(0), Slot(1)] {
            found.extend(self.read(slot)?);
        }
        Ok(found)
    }

    /// Whether there is any file of records, readable or not.
    pub(in crate::backend::tpm) fn is_empty(&self) -> bool {
        FILES.iter().all(|name| !self.directory.join(name).exists())
    }

    fn path(&self, slot: Slot) -> PathBuf {
        let name = FILES.get(slot.0).copied().unwrap_or_default();
        self.directory.join(name)
    }

    fn read(&self, slot: Slot) -> Attempt<Option<Record>> {
        let path = self.path(slot);
        let failed = |error: io::Error| {
            Trouble::Final(Error::unavailable(
                "read the anchors",
                format!("{}: {error}", path.display()),
            ))
        };
        let Some(bytes) = files::read(&path, LONGEST).map_err(failed)? else {
            return Ok(None);
        };
        let record = Record::decode(&bytes);
        if record.is_none() {
            tracing::warn!(file = %path.display(), "a file of anchors cannot be read");
        }
        Ok(record)
    }

    /// Writes a record beside the true one, durably. The file that is written over is not the one
    /// that holds the record that `next` follows.
    pub(in crate::backend::tpm) fn write(&self, next: &Record) -> Attempt<Slot> {
        let is_before = |slot| {
            let record = self.read(slot);
            record.map(|record| record.is_some_and(|record| record.leads_to(&next.before)))
        };
        let slot = match is_before(Slot(0))? {
            true => Slot(1),
            false => Slot(0),
        };
        files::write(&self.directory, &self.path(slot), &next.encode()).map_err(|error| {
            Trouble::Final(Error::unavailable(
                "write an anchor",
                format!("{}: {error}", self.path(slot).display()),
            ))
        })?;
        Ok(slot)
    }

    /// Forgets the record that was true before. Where it stays it leads nowhere.
    pub(in crate::backend::tpm) fn remove_other(&self, slot: Slot) {
        let other = self.path(Slot(1 - slot.0.min(1)));
        match fs::remove_file(&other) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %other.display(), "an old record of anchors stays");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{extended, wear::Budget},
        *,
    };

    fn record(before: [u8; 32]) -> Record {
        Record::first(before, Budget { left: 1, since: 1 })
    }

    #[test]
    fn the_record_that_is_followed_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::take(dir.path(), true).unwrap();
        assert!(store.is_empty());
        let mut value = [0; 32];
        let mut last: Option<Record> = None;
        for step in 0..6 {
            let next = record(value);
            let slot = store.write(&next).unwrap();
            let found = store.records().unwrap();
            assert!(found.contains(&next));
            assert!(last.is_none_or(|last| found.contains(&last)));
            // Where the old one stays, as after a crash, the next write still finds its place.
            if step % 2 == 0 {
                store.remove_other(slot);
                assert_eq!(store.records().unwrap(), std::slice::from_ref(&next));
            }
            value = extended(&value, &next.digest());
            last = Some(next);
        }
        assert!(!store.is_empty());
    }

    #[test]
    fn rubbish_is_no_record_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::take(dir.path(), true).unwrap();
        std::fs::write(dir.path().join("anchors-a"), vec![0; 100_000]).unwrap();
        assert_eq!(store.records().unwrap(), []);
        assert!(!store.is_empty());
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("tpm");
        let missing = Store::take(&place, false).unwrap_err().to_string();
        assert!(missing.contains("token provision"), "{missing}");
        let held = Store::take(&place, true).unwrap();
        assert!(
            Store::take(&place, false)
                .unwrap_err()
                .to_string()
                .contains("in use")
        );
        drop(held);
        Store::take(&place, false).unwrap();
    }
}
