//! A checkpoint that an auditor or a witness holds: how far the log is known to others.
//!
//! Called by `propose` with files that the operator was given. Believed only under a signature of
//! this token, which signs no checkpoint of a head that it did not remember.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custodyd_hsm::{PublicKey, RealmName, checkpoint as signed};

use crate::ledger::LedgerError;
use crate::ledger::checkpoint;
use crate::ledger::tree::Digest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) log_epoch: u64,
    pub(super) size: u64,
    /// Absent where it is the holder's word alone.
    pub(super) root: Option<Digest>,
}

impl Known {
    /// What a witness says that it has cosigned, without showing it.
    pub(super) fn claimed(log_epoch: u64, size: u64) -> Self {
        Self {
            log_epoch,
            size,
            root: None,
        }
    }

    /// # Errors
    /// `Refused` where it is no checkpoint of this realm, or not signed by this token.
    pub(super) fn read(
        note: &str,
        realm: &RealmName,
        keys: &[PublicKey],
    ) -> Result<Self, LedgerError> {
        let refused = |what| LedgerError::Refused(format!("a checkpoint does not count: {what}"));
        let parsed = Self::parse(note, realm);
        let (known, text) = parsed.ok_or_else(|| {
            refused("it is not one of this realm's log (c2sp.org/tlog-checkpoint)")
        })?;
        let signatures = note.get(text.len()..).unwrap_or_default();
        if signatures
            .lines()
            .any(|line| is_signed(line, text.as_bytes(), keys))
        {
            Ok(known)
        } else {
            Err(refused("no signature on it is this token's"))
        }
    }

    /// What it says, and the text that is signed.
    fn parse<'n>(note: &'n str, realm: &RealmName) -> Option<(Self, &'n str)> {
        let end = note.find("\n\n")?;
        let text = note.get(..=end)?;
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let log_epoch = origin.rsplit('/').next()?.parse().ok()?;
        if origin != checkpoint::origin(realm, log_epoch) {
            return None;
        }
        let known = Self {
            log_epoch,
            size: size.parse().ok()?,
            root: Some(STANDARD.decode(root).ok()?.try_into().ok()?),
        };
        Some((known, text))
    }
}

/// Whether a line is a signature of one of the keys.
fn is_signed(line: &str, text: &[u8], keys: &[PublicKey]) -> bool {
    let Some(encoded) = line
        .strip_prefix("\u{2014} ")
        .and_then(|rest| rest.split(' ').nth(1))
    else {
        return false;
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let Some((id, der)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    keys.iter()
        .filter(|key| signed::key_id(key) == *id)
        .any(|key| {
            let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_point());
            verifier.verify(text, der).is_ok()
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use custodyd_hsm::software::SoftCustody;
    use proptest::prelude::*;

    use super::*;

    fn note(text: &str) -> (String, PublicKey) {
        let mut custody = SoftCustody::new();
        let (signature, key) = signed::sign(&mut custody, text.as_bytes()).unwrap();
        let line = STANDARD.encode(signed::note_signature(&key, &signature));
        (format!("{text}\n\u{2014} name {line}\n"), key)
    }

    #[test]
    fn only_what_the_token_has_signed_counts() {
        let realm = RealmName::parse("realm.example").unwrap();
        let root = STANDARD.encode([7; 32]);
        let text = format!("realm.example/custodyd/log/3\n9\n{root}\n");
        let (good, key) = note(&text);
        let known = Known::read(&good, &realm, &[key]).unwrap();
        assert_eq!(
            (known.log_epoch, known.size, known.root),
            (3, 9, Some([7; 32]))
        );
        let refused = |note: &str, keys: &[PublicKey], what: &str| {
            let said = Known::read(note, &realm, keys).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        };
        refused(&good, &[], "no signature");
        refused(&good.replace("\n9\n", "\n8\n"), &[key], "no signature");
        let (other, key) = note(&text.replace("realm.example", "other.example"));
        refused(&other, &[key], "not one of this realm's");
        refused("", &[key], "not one of this realm's");
    }

    proptest! {
        #[test]
        fn no_note_panics(note in "[\\PC\n\u{2014} /0-9]{0,200}") {
            let realm = RealmName::parse("realm.example").unwrap();
            let _ = Known::read(&note, &realm, &[]);
        }
    }
}
