//! The TPM's own word for what it remembers of this realm, for an auditor who does not believe this host.
//!
//! Made for the operator's socket and `custodyd ledger anchor --evidence`; checked by `--verify`, on any machine and
//! with neither token nor database. Link by link: the attestation key signs nonce and value of the NV index, the
//! value commits to a record, the record holds the anchor, the anchor names the head, and the head
//! the size and root of the log, which the auditor compares with a checkpoint of theirs. The anchor's own tag
//! needs the realm's key and is not checked: what stands in the record is what the TPM was told.

use custodyd_hsm::anchor::{self, Anchor};
use custodyd_hsm::backend::tpm::{self, Attested};
use custodyd_hsm::{Evidence, Pool, RealmName};
use serde::{Deserialize, Serialize};

use super::{Head, Ledger, LedgerError};

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

impl AnchorEvidence {
    /// # Errors
    /// The token's: above all where it is no TPM.
    pub(crate) async fn make(
        pool: &Pool,
        realm: &RealmName,
        head: Option<Head>,
        nonce: Vec<u8>,
    ) -> Result<Self, LedgerError> {
        let with = nonce.clone();
        let evidence = pool
            .call("certify-anchors", move |custody| {
                custody.certify_anchors(&with)
            })
            .await?;
        let attested = tpm::verify(&evidence, &nonce)?;
        let anchored = newest(&attested, realm).map(|anchor| anchor.head);
        let head = head.filter(|head| head.hash().ok() == anchored);
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
        let (head, _) = self.reader.memory().in_token();
        AnchorEvidence::make(self.pool(), self.realm(), Some(head), nonce).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_is_refused_and_nothing_panics(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(AnchorEvidence::read(text.as_bytes()).is_err());
            let hex = hex::encode(&bytes);
            let near = format!(
                r#"{{"format":"{FORMAT}","realm":"r","nonce":"{hex}","evidence":{{"nv_index":1,"key":"{hex}",
                "attest":"{hex}","signature":"{hex}","record":"{hex}"}},"head":{}}}"#,
                serde_json::to_string(&text).unwrap()
            );
            let read = AnchorEvidence::read(near.as_bytes()).unwrap();
            prop_assert!(read.verify(&[1; 16]).is_err());
        }
    }
}
