//! The warm anchor: what bounded mode remembers of the newest head outside the token.
//!
//! A file in the runtime directory, a tmpfs: it outlives the process and not the kernel, whose
//! boot it names. Authenticated by the token, so a file from elsewhere says nothing. Whoever owns
//! the database does not own this directory.
//!
//! After a crash here: the file is the old one or the new one. The old one names a head that the
//! database descends from, and nothing of the new one's batch was told.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use custodyd_hsm::anchor::{self, Anchor};
use custodyd_hsm::{Error, Pool, RealmName};

use super::{LedgerError, Mode};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// No warm anchor is as long.
const MOST: u64 = 4096;

#[derive(Debug)]
pub(super) struct Warm {
    place: Place,
    boot_id: String,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    #[cfg(test)]
    Memory(Shelf),
}

/// For tests: a runtime directory that is no file. Clones share it, as the starts of one boot of the kernel do.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub struct Shelf(std::sync::Arc<std::sync::Mutex<Option<Vec<u8>>>>);

/// The kernel's boot that a shelf is of.
#[cfg(test)]
pub(in crate::ledger) const BOOT: &str = "simulated";

#[cfg(test)]
impl Shelf {
    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        let kept = self.0.lock();
        kept.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(in crate::ledger) fn contents(&self) -> Option<Vec<u8>> {
        self.locked().clone()
    }
}

impl Warm {
    /// Where this mode keeps it; nowhere under strict anchoring.
    ///
    /// # Errors
    /// As `in_directory`.
    pub(super) fn of(mode: Mode<'_>) -> Result<Option<Self>, LedgerError> {
        match mode {
            Mode::Strict => Ok(None),
            Mode::Bounded {
                runtime_directory, ..
            } => Self::in_directory(runtime_directory).map(Some),
            #[cfg(test)]
            Mode::InMemory { shelf, .. } => Ok(Some(Self::on_shelf(shelf))),
        }
    }

    /// # Errors
    /// `Refused` where the directory can not be used or the kernel does not say which boot it is.
    fn in_directory(directory: &Path) -> Result<Self, LedgerError> {
        let refused = |what: &Path, error: &std::io::Error| {
            LedgerError::Refused(format!(
                "bounded anchoring needs {}: {error}; make the directory (systemd: \
                 RuntimeDirectory=custodyd with RuntimeDirectoryPreserve=yes) or set ledger.runtime_directory",
                what.display()
            ))
        };
        let boot_id = std::fs::read_to_string(BOOT_ID)
            .map_err(|error| refused(Path::new(BOOT_ID), &error))?;
        std::fs::metadata(directory).map_err(|error| refused(directory, &error))?;
        Ok(Self {
            place: Place::File(directory.join("custodyd.anchor")),
            boot_id: boot_id.trim().to_owned(),
        })
    }

    #[cfg(test)]
    fn on_shelf(shelf: &Shelf) -> Self {
        Self {
            place: Place::Memory(shelf.clone()),
            boot_id: BOOT.to_owned(),
        }
    }

    /// The anchor that this boot of the kernel has left, where it is of this realm and no older than the token's.
    pub(super) async fn since(
        &self,
        pool: &Pool,
        realm: &RealmName,
        last: &Anchor,
    ) -> Result<Option<Anchor>, LedgerError> {
        let newer = |warm: &Anchor| {
            (warm.log_epoch, warm.seq) >= (last.log_epoch, last.seq)
                && warm.boot_epoch == last.boot_epoch
        };
        let warm = self.read(pool, realm).await?.filter(newer);
        Ok(warm.map(|warm| Anchor {
            // The token alone says whether the stop was clean: a start that was cut off has taken the flag back there,
            // and not here yet; what the next one wrote would contradict it.
            clean: false,
            ..warm
        }))
    }

    async fn read(&self, pool: &Pool, realm: &RealmName) -> Result<Option<Anchor>, LedgerError> {
        let shown = self.place.read().map_err(|problem| {
            LedgerError::Refused(format!(
                "{}, which says what was told of and the token does not know yet, can not be read: {problem}; run this as \
                 the daemon's own user (`as-custodyd`)",
                self.place
            ))
        })?;
        let Some(bytes) = shown else {
            return Ok(None);
        };
        let (of, boot_id) = (realm.clone(), self.boot_id.clone());
        let opened = pool
            .call("read-warm-anchor", move |custody| {
                anchor::open_warm(custody, &of, &boot_id, &bytes)
            })
            .await;
        match opened {
            // It says nothing then, as if it was not there.
            Err(error @ (Error::Tampered { .. } | Error::UnsupportedVersion { .. })) => {
                tracing::warn!(%error, file = %self.place, "the warm anchor is not one of this realm");
                Ok(None)
            }
            opened => Ok(opened?),
        }
    }

    /// Puts a new one in the place of the last, by the MAC keys of its head.
    pub(super) async fn write(
        &self,
        pool: &Pool,
        realm: &RealmName,
        (anchor, keys): (&Anchor, &[u16]),
    ) -> Result<(), LedgerError> {
        let (of, boot_id) = (realm.clone(), self.boot_id.clone());
        let (anchor, keys) = (anchor.clone(), keys.to_vec());
        let bytes = pool
            .call("seal-warm-anchor", move |custody| {
                anchor::seal_warm(custody, &of, &boot_id, (&anchor, &keys))
            })
            .await?;
        self.place.replace(&bytes).map_err(|error| {
            tracing::error!(%error, file = %self.place, "the warm anchor can not be written");
            LedgerError::Refused("the warm anchor can not be written".into())
        })
    }
}

impl Place {
    /// None where there is none. One that is there and can not be read is no licence to forget what it says.
    fn read(&self) -> std::io::Result<Option<Vec<u8>>> {
        let path = match self {
            Self::File(path) => path,
            #[cfg(test)]
            Self::Memory(shelf) => return Ok(shelf.locked().clone()),
        };
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// A tmpfs needs no sync: what it loses, it loses with the boot that it names.
    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let path = match self {
            Self::File(path) => path,
            #[cfg(test)]
            Self::Memory(shelf) => {
                *shelf.locked() = Some(bytes.to_vec());
                return Ok(());
            }
        };
        let draft = path.with_extension("anchor-new");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(bytes)?;
        drop(file);
        std::fs::rename(&draft, path)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            #[cfg(test)]
            Self::Memory(_) => f.write_str("memory"),
        }
    }
}
