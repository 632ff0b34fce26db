//! Receipts: what an owner can keep of an event, and check without believing the daemon.
//!
//! Called by `service` after a commit, so after the anchor. A proof is made against a checkpoint
//! and checked here first; a tile that was altered makes an error, never a wrong proof. An answer
//! that only carries a receipt does not wait for what is broken: the change has happened, and its
//! proof can be fetched later.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::journal::{self, EventKind};
use super::log::Prover;
use super::trail::LogEntry;
use super::tree::Digest;
use super::{Ledger, LedgerError, Loaded};
use crate::store::BodyRow;

/// Events that are read to find the creation of an account again.
const TO_THE_CREATION: usize = 256;

/// An event in the log, as the committer has put it there.
#[derive(Clone, Debug)]
pub struct Noted {
    pub(super) index: u64,
    pub(super) leaf: Vec<u8>,
    pub(super) kind: EventKind,
}

/// What an answer says about the event that it is the answer to.
#[derive(Debug)]
pub struct Receipt {
    pub index: u64,
    pub leaf: Vec<u8>,
    /// C2SP tlog-proof, if the entry is anchored in the token already.
    pub proof: Option<String>,
}

/// Log entries with their proofs against one checkpoint.
#[derive(Debug)]
pub struct Proven {
    pub checkpoint: Arc<Checkpoint>,
    /// In the order of the entries; none for what the checkpoint does not cover yet.
    pub proofs: Vec<Option<Vec<Digest>>>,
    /// That the log continues the one of the size that was asked about.
    pub consistency: Option<Vec<Digest>>,
}

/// An event's log entry and the body that it commits to.
#[derive(Debug)]
pub struct EventEntry {
    pub index: u64,
    pub salt: Vec<u8>,
    pub body: Vec<u8>,
}

impl EventEntry {
    pub(super) fn new(index: u64, row: BodyRow) -> Self {
        Self {
            index,
            salt: row.salt,
            body: row.body,
        }
    }

    pub(super) fn leaf(&self) -> Vec<u8> {
        journal::event_leaf(&self.salt, &self.body)
    }
}

/// Which of its events an answer gives the receipt of: the creation or the sign-in, else the last.
pub(super) fn of_a_change(noted: &[Noted]) -> Option<Noted> {
    let main = |one: &&Noted| {
        matches!(
            one.kind,
            EventKind::AccountCreated | EventKind::SessionStarted
        )
    };
    noted.iter().find(main).or(noted.last()).cloned()
}

impl Ledger {
    /// The receipt of the change that this state came from; none where it was only read. What
    /// keeps the proof from being made is logged.
    pub async fn receipt(&self, loaded: &Loaded) -> Option<Receipt> {
        let noted = loaded.noted.as_ref()?;
        let proof = match self.tlog_proof(noted).await {
            Ok(proof) => proof,
            Err(error) => {
                tracing::error!(%error, index = noted.index, "a receipt goes out without its proof");
                if matches!(error, LedgerError::Tampered(_)) {
                    metrics::counter!("custodyd_tampered_total").increment(1);
                }
                None
            }
        };
        let given = if proof.is_some() { "given" } else { "missing" };
        metrics::counter!("custodyd_receipts_total", "proof" => given).increment(1);
        Some(Receipt {
            index: noted.index,
            leaf: noted.leaf.clone(),
            proof,
        })
    }

    /// The receipt of the account's creation, for who did not get it then. None where its event
    /// is not at hand.
    pub async fn receipt_of_creation(&self, loaded: &Loaded) -> Option<Receipt> {
        let page = self.events_with_bodies(loaded, None, TO_THE_CREATION).await;
        let entry = page.ok().and_then(|mut page| {
            let first = page.events.last().is_some_and(|event| event.number == 1);
            page.bodies.pop().filter(|_| first)
        })?;
        let noted = Noted {
            index: entry.index,
            leaf: entry.leaf(),
            kind: EventKind::AccountCreated,
        };
        let loaded = Loaded {
            noted: Some(noted),
            ..loaded.clone()
        };
        self.receipt(&loaded).await
    }

    /// Proves entries against one checkpoint, and that its log continues the one that had
    /// `since` entries, where it has as many.
    ///
    /// # Errors
    /// `Tampered` where an entry is not in the log or a tile was altered; `Token`, `Store`.
    pub async fn prove(
        &self,
        entries: &[EventEntry],
        since: Option<u64>,
    ) -> Result<Proven, LedgerError> {
        let size = entries.iter().map(|entry| entry.index.saturating_add(1));
        let size = size.max().unwrap_or(0).max(since.unwrap_or(0));
        let (checkpoints, memory) = (self.reader.checkpoints(), self.reader.memory());
        let covering = match checkpoints.covering(size, memory, self.pool()).await? {
            // Somebody may have seen more of the log at another node: a shorter one would look like a lie to them.
            None => {
                self.reader.has_the_whole_log().await?;
                checkpoints.covering(size, memory, self.pool()).await?
            }
            covering => covering,
        };
        let checkpoint = match covering {
            Some(checkpoint) => checkpoint,
            None => checkpoints.published(memory, self.pool()).await?,
        };
        let prover = self.prover(&checkpoint);
        let covered = |index: u64| index < checkpoint.size();
        let leaves: Vec<(u64, Vec<u8>)> = entries
            .iter()
            .filter(|entry| covered(entry.index))
            .map(|entry| (entry.index, entry.leaf()))
            .collect();
        let leaves: Vec<(u64, &[u8])> = leaves.iter().map(|(at, leaf)| (*at, &**leaf)).collect();
        let mut proofs = prover.inclusions(&leaves).await?.into_iter();
        // What the checkpoint does not cover yet goes out without a proof, and is of the log that is believed all the same.
        let beyond = entries.iter().filter(|entry| !covered(entry.index));
        let beyond: Vec<LogEntry> = beyond.map(LogEntry::from).collect();
        self.reader.are_in_the_log(&beyond).await?;
        let proofs = entries
            .iter()
            .map(|entry| covered(entry.index).then(|| proofs.next()).flatten())
            .collect();
        let consistency = match since {
            Some(since) if (1..=checkpoint.size()).contains(&since) => {
                Some(prover.consistency(since).await?)
            }
            _ => None,
        };
        Ok(Proven {
            checkpoint,
            proofs,
            consistency,
        })
    }

    /// The proof of one entry as C2SP tlog-proof has it, with the entry as its extra data.
    async fn tlog_proof(&self, noted: &Noted) -> Result<Option<String>, LedgerError> {
        let size = noted.index.saturating_add(1);
        let (checkpoints, memory) = (self.reader.checkpoints(), self.reader.memory());
        let covering = checkpoints.covering(size, memory, self.pool()).await?;
        let Some(checkpoint) = covering else {
            return Ok(None);
        };
        let prover = self.prover(&checkpoint);
        let path = prover.inclusion(noted.index, &noted.leaf).await?;
        Ok(Some(tlog_proof(noted, &path, &checkpoint.cosigned_note())))
    }

    pub(super) fn prover<'a>(&'a self, checkpoint: &'a Checkpoint) -> Prover<'a> {
        Prover {
            store: self.store(),
            end: &checkpoint.end,
        }
    }
}

fn tlog_proof(noted: &Noted, path: &[Digest], checkpoint: &str) -> String {
    let mut proof = format!(
        "c2sp.org/tlog-proof@v1\nextra {}\nindex {}\n",
        STANDARD.encode(&noted.leaf),
        noted.index
    );
    for hash in path {
        proof.push_str(&STANDARD.encode(hash));
        proof.push('\n');
    }
    proof.push('\n');
    proof.push_str(checkpoint);
    proof
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn noted(kind: EventKind, index: u64) -> Noted {
        Noted {
            index,
            leaf: vec![1; 33],
            kind,
        }
    }

    #[test]
    fn a_proof_has_the_lines_of_the_specification() {
        let proof = tlog_proof(
            &noted(EventKind::AccountCreated, 7),
            &[[0; 32], [255; 32]],
            "o\n9\nAAAA\n\n\u{2014} o AAAA\n",
        );
        assert_eq!(
            proof,
            "c2sp.org/tlog-proof@v1\n\
             extra AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n\
             index 7\n\
             AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
             //////////////////////////////////////////8=\n\
             \n\
             o\n9\nAAAA\n\n\u{2014} o AAAA\n"
        );
    }

    #[test]
    fn the_receipt_of_a_sign_in_is_of_the_session_and_else_of_the_last_event() {
        let index = |kinds: &[EventKind]| {
            let noted: Vec<Noted> = (0..)
                .zip(kinds)
                .map(|(at, kind)| noted(*kind, at))
                .collect();
            of_a_change(&noted).map(|one| one.index)
        };
        use EventKind as E;
        let sign_in = [E::DeviceBound, E::SessionStarted, E::SecretReleased];
        assert_eq!(index(&sign_in), Some(1));
        assert_eq!(index(&[E::AccountCreated, E::DeviceBound]), Some(0));
        assert_eq!(index(&[E::PinCharged, E::PinRefused]), Some(1));
        assert_eq!(index(&[]), None);
    }
}
