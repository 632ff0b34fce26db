//! Who may approve a restore, and whether enough of them have.
//!
//! An approval is an OpenSSH signature (PROTOCOL.sshsig) over the statement's bytes, so that a
//! person signs with the key, agent or security key that they have already:
//!
//! ```text
//! ssh-keygen -Y sign -n custodyd-restore -f ~/.ssh/id_ed25519 statement.json
//! ```
//!
//! The namespace is part of what is signed: no other signature of the same key is an approval.

use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PublicKey, SshSig};

use crate::ledger::LedgerError;

pub const NAMESPACE: &str = "custodyd-restore";
/// So many keys may be listed, and so many approvals demanded: they all stand in one log entry.
pub const MAX_APPROVERS: usize = 16;
pub const MAX_NEEDED: usize = 5;
/// An approval in its armour. One of a security key is the longest.
const MAX_APPROVAL: usize = 1024;

/// The keys that may approve, and how many of them must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvers {
    keys: Vec<PublicKey>,
    needed: usize,
}

impl Approvers {
    /// # Errors
    /// What is wrong with the list, for the one who wrote it.
    pub fn new(keys: Vec<PublicKey>, needed: usize) -> Result<Self, String> {
        if keys.len() > MAX_APPROVERS {
            return Err(format!("at most {MAX_APPROVERS} approvers are listed"));
        }
        for (at, key) in keys.iter().enumerate() {
            let earlier = keys.get(..at).unwrap_or_default();
            if earlier.iter().any(|one| one.key_data() == key.key_data()) {
                return Err(format!("the key {} is listed twice", fingerprint(key)));
            }
        }
        if needed == 0 || needed > MAX_NEEDED || needed > keys.len() {
            let most = MAX_NEEDED.min(keys.len());
            return Err(format!("{needed} approvals: expected 1 to {most}"));
        }
        Ok(Self { keys, needed })
    }

    /// A line of an OpenSSH public key file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn key(line: &str) -> Result<PublicKey, String> {
        let key = PublicKey::from_openssh(line).map_err(|_| {
            "expected a line of an OpenSSH public key file, such as \"ssh-ed25519 AAAA... ann\""
                .to_owned()
        })?;
        match key.algorithm() {
            Algorithm::Ed25519
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
            | Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            } => Ok(key),
            other => Err(format!(
                "a key of type {other} can not approve: use ssh-ed25519, ecdsa-sha2-nistp256, or a \
                 security key of one of the two"
            )),
        }
    }

    #[must_use]
    pub fn needed(&self) -> usize {
        self.needed
    }

    pub(super) fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(fingerprint).collect()
    }

    /// The approvals, as the log keeps them, if they are enough.
    ///
    /// # Errors
    /// `Refused` says which approval is none, or how many are missing.
    pub(super) fn check(
        &self,
        statement: &str,
        approvals: &[String],
    ) -> Result<Vec<String>, LedgerError> {
        if self.keys.is_empty() {
            return Err(LedgerError::Refused(
                "nobody may approve a restore: list approvers in [ledger.restore] of the \
                 configuration"
                    .into(),
            ));
        }
        let mut by: Vec<&PublicKey> = Vec::new();
        let mut kept = Vec::new();
        for (number, text) in (1..).zip(approvals) {
            let refused = |what: &str| {
                LedgerError::Refused(format!("approval {number} does not count: {what}"))
            };
            if text.len() > MAX_APPROVAL {
                return Err(refused("it is longer than any signature of these keys"));
            }
            let signature = SshSig::from_pem(text.trim())
                .map_err(|_| refused("it is no OpenSSH signature (ssh-keygen -Y sign)"))?;
            let mut listed = self.keys.iter();
            let key = listed
                .find(|key| key.key_data() == signature.public_key())
                .ok_or_else(|| refused("its key is not one of the approvers'"))?;
            if signature.namespace() != NAMESPACE {
                let what = format!("its namespace is not {NAMESPACE} (ssh-keygen -n)");
                return Err(refused(&what));
            }
            key.verify(NAMESPACE, statement.as_bytes(), &signature)
                .map_err(|_| refused("it is not over this statement, byte for byte"))?;
            if !was_touched(&signature) {
                return Err(refused("its security key was not touched for it"));
            }
            if by.contains(&key) {
                return Err(refused("the same approver has signed another one"));
            }
            kept.push(text.trim().to_owned());
            by.push(key);
        }
        if by.len() < self.needed {
            return Err(LedgerError::Refused(format!(
                "{} of {} approvals are there",
                by.len(),
                self.needed
            )));
        }
        kept.truncate(self.needed);
        Ok(kept)
    }
}

/// A security key says in its signature whether a person was there (bit 0 of the flags, which stand
/// before a counter of four bytes). Other keys say nothing of the kind.
fn was_touched(signature: &SshSig) -> bool {
    let bytes = signature.signature().as_bytes();
    match signature.algorithm() {
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            let flags = bytes.len().checked_sub(5).and_then(|at| bytes.get(at));
            flags.is_some_and(|flags| flags & 1 == 1)
        }
        _ => true,
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(in crate::ledger) mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use proptest::prelude::*;
    use ssh_key::private::Ed25519Keypair;
    use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
    use ssh_key::{LineEnding, PrivateKey, Signature};

    use super::*;

    pub(in crate::ledger) fn key(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    pub(in crate::ledger) fn approvers(seeds: &[u8], needed: usize) -> Approvers {
        let keys = seeds.iter().map(|seed| key(*seed).public_key().clone());
        Approvers::new(keys.collect(), needed).unwrap()
    }

    pub(in crate::ledger) fn approve(seed: u8, namespace: &str, text: &str) -> String {
        let signed = key(seed).sign(namespace, HashAlg::Sha512, text.as_bytes());
        signed.unwrap().to_pem(LineEnding::LF).unwrap()
    }

    #[test]
    fn enough_different_approvers_have_to_sign_exactly_this() {
        let two_of_three = approvers(&[1, 2, 3], 2);
        let ours = |seed| approve(seed, NAMESPACE, "text");
        let kept = two_of_three.check("text", &[ours(3), ours(1), ours(2)]);
        assert_eq!(kept.unwrap().len(), 2);
        let refused = |approvals: &[String], what: &str| {
            let said = two_of_three.check("text", approvals).unwrap_err();
            assert!(said.to_string().contains(what), "{said}");
        };
        refused(&[ours(1)], "1 of 2");
        refused(&[ours(1), ours(1)], "same approver");
        refused(&[ours(1), ours(9)], "not one of the approvers");
        refused(&[ours(1), approve(2, "file", "text")], "namespace");
        refused(&[ours(1), approve(2, NAMESPACE, "text ")], "byte for byte");
        refused(&[ours(1), "text".into()], "no OpenSSH signature");
        refused(&[ours(1), "x".repeat(9999)], "longer");
        let nobody = Approvers::default().check("text", &[]).unwrap_err();
        assert!(nobody.to_string().contains("[ledger.restore]"));
    }

    /// What a security key signs (OpenSSH, PROTOCOL.u2f), by a key in memory.
    fn by_security_key(text: &str, flags: u8) -> (PublicKey, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let public = Ed25519PublicKey::try_from(pair.public_key().as_ref()).unwrap();
        let key = KeyData::SkEd25519(SkEd25519::new(public, "ssh:"));
        let trailer = [&[flags][..], &7u32.to_be_bytes()].concat();
        let namespace = NAMESPACE;
        let signed = SshSig::signed_data(namespace, HashAlg::Sha512, text.as_bytes()).unwrap();
        let sha256 = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
        let message = [sha256(b"ssh:"), trailer.clone(), sha256(&signed)].concat();
        let data = [pair.sign(&message).as_ref(), &trailer].concat();
        let signature = Signature::new(Algorithm::SkEd25519, data).unwrap();
        let all = SshSig::new(key.clone(), namespace, HashAlg::Sha512, signature).unwrap();
        (
            PublicKey::new(key, "sk"),
            all.to_pem(LineEnding::LF).unwrap(),
        )
    }

    #[test]
    fn a_security_key_counts_if_it_was_touched() {
        let (key, touched) = by_security_key("text", 1);
        let approvers = Approvers::new(vec![key], 1).unwrap();
        let kept = approvers.check("text", &[touched]).unwrap();
        // What the log keeps can be checked again.
        approvers.check("text", &kept).unwrap();
        let (_, silent) = by_security_key("text", 0);
        let said = approvers.check("text", &[silent]).unwrap_err();
        assert!(said.to_string().contains("not touched"), "{said}");
    }

    #[test]
    fn a_list_that_can_not_work_is_refused() {
        let public = |seed: u8| key(seed).public_key().clone();
        let refused = |keys: Vec<PublicKey>, needed| Approvers::new(keys, needed).unwrap_err();
        assert!(refused(vec![public(1)], 2).contains("1 to 1"));
        assert!(refused(vec![public(1)], 0).contains("1 to 1"));
        assert!(refused(vec![public(1), public(1)], 1).contains("twice"));
        assert!(Approvers::key("ssh-rsa AAAA").is_err());
    }

    proptest! {
        #[test]
        fn no_approval_panics(text in ".{0,300}") {
            let _ = approvers(&[1], 1).check("text", &[text]);
        }
    }
}
