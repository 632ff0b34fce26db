//! The TPM's own word for what it remembers of this realm, for an auditor who does not believe this host.
//!
//! Made for the operator's socket and `custodyd ledger anchor --evidence`; checked by `--verify`, on any machine and
//! with neither token nor database. Link by link: the attestation key signs nonce and value of the NV index, the
//! value commits to a record, the record holds the anchor, the anchor names the head, and the head
//! the size and root of the log, which the auditor compares with a checkpoint of theirs. The anchor's own tag
//! needs the realm's key and is not checked: what stands in the record is what the TPM was told.

use std::ops::ControlFlow;
use std::sync::Arc;

use custodyd_hsm::anchor::{self, Anchor};
use custodyd_hsm::backend::tpm::{self, Attested};
use custodyd_hsm::{Evidence, Pool, RealmName};
use serde::{Deserialize, Serialize};

use super::{Head, Ledger, LedgerError, Reader};
use crate::store::Store;

const FORMAT: &str = "custodyd-anchor-evidence/1";
/// No evidence is longer.
pub(crate) const LONGEST: usize = 1 << 20;

/// A file of evidence.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorEvidence {
    format: String,
    realm: RealmName,
    #[serde(with = "hex::serde")]
    nonce: Vec<u8>,
    evidence: Evidence,
    /// The head that the anchor names, as it was hashed; none where a newer one stood in the database.
    head: Option<String>,
}

/// What evidence says, each link checked.
#[derive(Debug)]
pub struct Told {
    pub attested: Attested,
    pub realm: RealmName,
    pub anchor: Anchor,
    /// Entries and root of the log at the anchored head.
    pub log: Option<(u64, [u8; 32])>,
}

/// How often the TPM is asked where it was told of another head meanwhile.
const TRIES: u32 = 4;

/// Where the newest head stands.
#[derive(Debug)]
pub(crate) enum Heads<'a> {
    /// In a daemon's memory: the newest that the token knows.
    Read(&'a Reader),
    /// In the database, where no daemon runs.
    Stored(&'a Arc<dyn Store>),
}

impl Heads<'_> {
    async fn newest(&self, pool: &Pool, realm: &RealmName) -> Option<Head> {
        match self {
            Self::Read(reader) => Some(reader.memory().in_token().0),
            Self::Stored(store) => Head::read(store, pool, realm).await.ok(),
        }
    }
}

/// Looks for the head that the TPM names, among those that were newest before it was asked and after. One that was
/// read only before may be older than what the TPM says, and one that was read only after newer.
#[derive(Debug)]
struct Search {
    before: Option<Head>,
    tries: u32,
}

impl Search {
    /// The head, or that there is none to be had; else the TPM is to be asked again.
    fn ends(&mut self, named: Option<[u8; 32]>, after: Option<Head>) -> ControlFlow<Option<Head>> {
        self.tries += 1;
        let known = [self.before.take(), after.clone()].into_iter().flatten();
        let mut fitting = known.filter(|head| named.is_some() && head.hash().ok() == named);
        match fitting.next() {
            None if after.is_some() && self.tries < TRIES => {}
            head => return ControlFlow::Break(head),
        }
        self.before = after;
        ControlFlow::Continue(())
    }
}

impl AnchorEvidence {
    /// With the head that the TPM names, if it is one that was newest around then.
    ///
    /// # Errors
    /// The token's: above all where it is no TPM.
    pub(crate) async fn make(
        pool: &Pool,
        realm: &RealmName,
        heads: &Heads<'_>,
        nonce: Vec<u8>,
    ) -> Result<Self, LedgerError> {
        let mut search = Search {
            before: heads.newest(pool, realm).await,
            tries: 0,
        };
        let (evidence, head) = loop {
            let with = nonce.clone();
            let evidence = pool
                .call("certify-anchors", move |custody| {
                    custody.certify_anchors(&with)
                })
                .await?;
            let attested = tpm::verify(&evidence, &nonce)?;
            let named = newest(&attested, realm).map(|anchor| anchor.head);
            let after = heads.newest(pool, realm).await;
            if let ControlFlow::Break(head) = search.ends(named, after) {
                break (evidence, head);
            }
        };
        let head = head.and_then(|head| String::from_utf8(head.encode().ok()?).ok());
        Ok(Self {
            format: FORMAT.to_owned(),
            realm: realm.clone(),
            nonce,
            evidence,
            head,
        })
    }

    /// # Errors
    /// Why it is no such file.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match read.format == FORMAT {
            true => Ok(read),
            false => Err(format!(
                "its format is \"{}\", expected \"{FORMAT}\"",
                read.format
            )),
        }
    }

    /// Every link, with the nonce that the caller has chosen, not the one that the file tells.
    ///
    /// # Errors
    /// Which link does not hold.
    pub fn verify(&self, nonce: &[u8]) -> Result<Told, String> {
        let attested = tpm::verify(&self.evidence, nonce).map_err(|error| error.to_string())?;
        let anchor = newest(&attested, &self.realm)
            .ok_or_else(|| format!("the TPM remembers nothing of the realm {}", self.realm))?;
        let log = match &self.head {
            Some(head) => Some(log_of(head, &anchor, &self.realm)?),
            None => None,
        };
        Ok(Told {
            attested,
            realm: self.realm.clone(),
            anchor,
            log,
        })
    }
}

fn newest(attested: &Attested, realm: &RealmName) -> Option<Anchor> {
    let all = attested.anchors.iter();
    let read = all.filter_map(|bytes| anchor::unverified(bytes).ok());
    let own = read.filter(|(of, _)| of == realm).map(|(_, anchor)| anchor);
    own.max_by_key(|anchor| anchor.serial)
}

fn log_of(body: &str, anchor: &Anchor, realm: &RealmName) -> Result<(u64, [u8; 32]), String> {
    let refused = || "its head is not the one that the TPM remembers".to_owned();
    let head: Head = serde_json::from_str(body).map_err(|_| refused())?;
    let same = head.encode().is_ok_and(|bytes| bytes == body.as_bytes())
        && head.hash().is_ok_and(|hash| hash == anchor.head)
        && head.state.realm == *realm;
    match same {
        true => Ok((head.size, head.log_root)),
        false => Err(refused()),
    }
}

impl Ledger {
    /// What the TPM says now of what it remembers.
    ///
    /// # Errors
    /// As [`AnchorEvidence::make`].
    pub(crate) async fn anchor_evidence(
        &self,
        nonce: Vec<u8>,
    ) -> Result<AnchorEvidence, LedgerError> {
        let heads = Heads::Read(&self.reader);
        AnchorEvidence::make(self.pool(), self.realm(), &heads, nonce).await
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Heads that are newest one after another, and what the TPM names each time that it is asked. Returns how often it
    /// was, and the head.
    fn found(newest: &[u64], named: &[u64]) -> (u32, Option<u64>) {
        let at = |seq: &u64| {
            let mut head = crate::ledger::head::tests::head();
            head.state.seq = *seq;
            head
        };
        let mut newest = newest.iter().map(at);
        let mut search = Search {
            before: newest.next(),
            tries: 0,
        };
        for seq in named {
            if let ControlFlow::Break(head) = search.ends(at(seq).hash().ok(), newest.next()) {
                return (search.tries, head.map(|head| head.state.seq));
            }
        }
        panic!("asked too often");
    }

    #[test]
    fn a_head_is_shown_although_anchors_move_meanwhile() {
        // The control: nothing moves.
        assert_eq!(found(&[7, 7], &[7]), (1, Some(7)));
        // Anchored after the head was read, and before the TPM was asked.
        assert_eq!(found(&[7, 8], &[8]), (1, Some(8)));
        // And after it.
        assert_eq!(found(&[7, 8], &[7]), (1, Some(7)));
        // Twice in between: it is asked again.
        assert_eq!(found(&[7, 9, 9], &[8, 9]), (2, Some(9)));
        // Not for ever, and not where there is no head at all.
        assert_eq!(found(&[1, 3, 5, 7, 9], &[2, 4, 6, 8]), (4, None));
        assert_eq!(found(&[], &[8]), (1, None));
    }

    proptest! {
        #[test]
        fn any_file_is_refused_and_nothing_panics(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(AnchorEvidence::read(text.as_bytes()).is_err());
            let hex = hex::encode(&bytes);
            let near = format!(
                r#"{{"format":"{FORMAT}","realm":"r","nonce":"{hex}","evidence":{{"nv_index":1,"storage_key":"{hex}","key":"{hex}",
                "attest":"{hex}","signature":"{hex}","record":"{hex}"}},"head":{}}}"#,
                serde_json::to_string(&text).unwrap()
            );
            let read = AnchorEvidence::read(near.as_bytes()).unwrap();
            prop_assert!(read.verify(&[1; 16]).is_err());
        }
    }
}
