//! Auditors: machines of somebody who checks that the log only grows.
//!
//! Called by the routes below `/log`. The adversary has no credential and wants to read how often
//! something happens here, or has the database and wants an auditor to see another log. What is
//! read is verified below, in the ledger; here it is decided who may ask.

use std::sync::{Arc, PoisonError, RwLock};

use custodyd_hsm::{PublicKey, checkpoint};
use serde_json::{Value, json};
use subtle::{Choice, ConstantTimeEq as _};

use super::{Refused, Service};
use crate::config::Auditor;
use crate::factors::sha256;
use crate::ledger::{Checkpoint, LedgerError};

/// Who may read the log, and the keys that sign its checkpoints.
#[derive(Debug)]
pub struct Auditors {
    known: Vec<Auditor>,
    /// The newest last. A rotation changes them.
    keys: RwLock<Vec<PublicKey>>,
}

impl Auditors {
    #[must_use]
    pub fn new(known: Vec<Auditor>, keys: Vec<PublicKey>) -> Self {
        Self {
            known,
            keys: RwLock::new(keys),
        }
    }

    /// The keys that sign checkpoints, the newest last.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// From now on these keys are known and no others.
    pub(super) fn know(&self, keys: Vec<PublicKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The auditor who has this credential.
    fn by_credential(&self, credential: Option<&str>) -> Option<&str> {
        let hash = sha256(&[credential?.as_bytes()]);
        let mut found = None;
        // Every hash is compared, so time does not tell which one was nearly right.
        for one in &self.known {
            let same: Choice = one.credential.ct_eq(&hash);
            if bool::from(same) {
                found = Some(one.name.as_str());
            }
        }
        found
    }

    /// The keys of checkpoints as JWK (RFC 7517). Their `use` is one of our own: libraries that
    /// look for a key to verify a JWS with take only those for `sig`.
    pub(super) fn jwks(&self) -> Vec<Value> {
        let keys = self.keys();
        let newest_first = keys.iter().rev();
        let jwk = |key: &PublicKey| {
            let mut jwk = key.jwk();
            if let Some(members) = jwk.as_object_mut() {
                members.insert("use".into(), json!("custodyd-checkpoint"));
                let id = hex::encode(checkpoint::key_id(key));
                members.insert("note_key_id".into(), json!(id));
            }
            jwk
        };
        newest_first.map(jwk).collect()
    }
}

/// What was altered is the log, and no account's record.
pub(super) fn of_the_log(error: LedgerError) -> Refused {
    match Refused::from(error) {
        Refused::Tampered(evidence) => Refused::LogTampered(evidence),
        refused => refused,
    }
}

/// A part of the log that an auditor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Hashes of a level.
    Tile { level: u8 },
    /// The entries themselves.
    Entries,
}

impl Service {
    /// The realm's public keys (RFC 7517), for everybody who verifies what it signed.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let mut set = self.bindings.jwks();
        if let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) {
            keys.extend(self.auditors.jwks());
        }
        set
    }

    /// The auditor who holds this credential.
    ///
    /// # Errors
    /// `AuditorInvalid`.
    pub fn auditor(&self, credential: Option<&str>) -> Result<&str, Refused> {
        let found = self.auditors.by_credential(credential);
        found.ok_or(Refused::AuditorInvalid)
    }

    /// # Errors
    /// `TokenUnavailable`.
    pub async fn log_checkpoint(&self, auditor: &str) -> Result<Arc<Checkpoint>, Refused> {
        count(auditor, "checkpoint");
        self.ledger.checkpoint().await.map_err(of_the_log)
    }

    /// The newest checkpoint that enough witnesses have cosigned, with their lines.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub fn witnessed_checkpoint(&self, auditor: &str) -> Result<String, Refused> {
        count(auditor, "witnessed-checkpoint");
        let note = self.cosigned.note();
        note.ok_or(Refused::NotFound(
            "checkpoint that enough witnesses have cosigned",
        ))
    }

    /// The first `width` hashes of a tile, or entries of a bundle, within the newest checkpoint.
    ///
    /// # Errors
    /// `NotFound` where the checkpoint does not cover them; `LogTampered`.
    pub async fn log_part(
        &self,
        auditor: &str,
        part: LogPart,
        index: u64,
        width: usize,
    ) -> Result<Vec<u8>, Refused> {
        let read = match part {
            LogPart::Tile { level } => {
                count(auditor, "tile");
                self.ledger.tile(level, index, width).await
            }
            LogPart::Entries => {
                count(auditor, "entries");
                self.ledger.entries(index, width).await
            }
        };
        read.map_err(of_the_log)?
            .ok_or(Refused::NotFound("part of the log"))
    }
}

/// Names come from the configuration, so they are few.
fn count(auditor: &str, what: &'static str) {
    let auditor = auditor.to_owned();
    metrics::counter!("custodyd_log_reads_total", "auditor" => auditor, "what" => what)
        .increment(1);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_auditor_is_found_by_the_whole_credential_only() {
        let known = ["first", "second"].map(|name| Auditor {
            name: name.into(),
            credential: sha256(&[b"credential of the ", name.as_bytes()]),
        });
        let auditors = Auditors::new(known.into(), Vec::new());
        let by = |credential| auditors.by_credential(credential);
        assert_eq!(by(Some("credential of the first")), Some("first"));
        assert_eq!(by(Some("credential of the second")), Some("second"));
        for wrong in [
            None,
            Some(""),
            Some("credential of the firs"),
            Some("first"),
        ] {
            assert_eq!(by(wrong), None, "{wrong:?}");
        }
        let nobody = Auditors::new(Vec::new(), Vec::new());
        assert_eq!(nobody.by_credential(Some("")), None);
    }
}
