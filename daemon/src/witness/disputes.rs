//! Which witnesses say that this log is another one than they have cosigned: over the end of the process, too.
//!
//! Written by `follow`; shown in the metrics. A dispute stands until the witness cosigns: one that can not be reached
//! after a restart has taken nothing back. Whoever can write the file can raise an alarm or put one out, and could
//! put out the daemon; nothing is decided by it. After a crash: the file is the one before or the one after, whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::cosigned::{read, replace};
use crate::config;

/// What was kept of cosignatures, as if it were a witness: no witness of the configuration has such a name.
pub(super) const KEPT: &str = "(kept)";

#[derive(Debug)]
pub(super) struct Disputes {
    file: PathBuf,
    /// By the names of the configuration. Held while the file is written, so that it is of the last change.
    standing: Mutex<BTreeSet<String>>,
}

impl Disputes {
    /// With those that stood when the process before this one ended, as far as their witnesses are configured still.
    pub(super) fn open(config: &config::Witnesses, file: PathBuf) -> Self {
        let known = |name: &&str| *name == KEPT || config.known.iter().any(|one| one.name == *name);
        let standing: BTreeSet<String> = match config.known.is_empty() {
            true => BTreeSet::new(),
            false => {
                let names = read(&file).unwrap_or_default();
                names.lines().filter(known).map(str::to_owned).collect()
            }
        };
        for witness in &standing {
            show(witness, true);
            tracing::error!(
                witness,
                file = %file.display(),
                "it was said before this start that another log than this one was cosigned, and nothing was taken back; see docs/LOG.md"
            );
        }
        Self {
            file,
            standing: Mutex::new(standing),
        }
    }

    pub(super) async fn set(&self, witness: &str, disputes: bool) {
        show(witness, disputes);
        let mut standing = self.standing.lock().await;
        let changed = match disputes {
            true => standing.insert(witness.to_owned()),
            false => standing.remove(witness),
        };
        if !changed {
            return;
        }
        let names: String = standing.iter().map(|name| format!("{name}\n")).collect();
        if let Err(error) = replace(&self.file, &names).await {
            tracing::warn!(file = %self.file.display(), %error, "it could not be kept which witnesses disagree");
        }
    }

    /// Beside the cosignatures.
    pub(super) fn file_of(cosignatures: &Path) -> PathBuf {
        let mut name = cosignatures.as_os_str().to_owned();
        name.push("-disputed");
        name.into()
    }
}

fn show(witness: &str, disputes: bool) {
    let witness = witness.to_owned();
    metrics::gauge!("custodyd_witness_disputed", "witness" => witness).set(match disputes {
        true => 1.0,
        false => 0.0,
    });
}
