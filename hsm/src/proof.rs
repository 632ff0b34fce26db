//! Proof that a token does what custodyd builds on: seal and open, refuse what was altered, sign,
//! give random bytes, keep anchors; and what an anchor costs.
//!
//! Called by `token provision` and `token check`. It leaves the token as it was: the only thing it makes
//! is a scratch anchor, of a realm that nobody has, and it removes that. It never reads or writes a
//! realm's own anchor.

use std::time::{Duration, Instant};

use crate::{
    anchor::{Scratch, first_refusal},
    custody::Custody,
    encoding,
    error::{Error, Result},
    id::{AppId, KeyId, KeyPurpose, RealmName, RecordId, RecordKind, SCRATCH_REALMS},
    seal::{self, Context},
};

const PLAINTEXT: &[u8] = b"custodyd proves its token";

/// Seals a record and opens it, and sees that what was altered or moved does not open. Says how many
/// such attempts were refused.
///
/// # Errors
/// [`Error::Misconfigured`] where the token fails the proof; else its own.
pub fn records(custody: &mut dyn Custody) -> Result<usize> {
    derivation(custody)?;
    let realm = RealmName::parse(&format!("{SCRATCH_REALMS}records"))?;
    let other_realm = RealmName::parse(&format!("{SCRATCH_REALMS}other"))?;
    let app = AppId::parse("scratch")?;
    let mut record = RecordId([0; 32]);
    custody.random(&mut record.0)?;
    let own = Context {
        realm: &realm,
        app: &app,
        kind: RecordKind::Account,
        record: &record,
        generation: 2,
    };
    let sealed = seal::seal(custody, &own, PLAINTEXT)?;
    let opened = seal::open(custody, &own, &sealed);
    if !opened.is_ok_and(|opened| opened.expose() == PLAINTEXT) {
        return Err(failed("a record that was sealed does not open again"));
    }
    let moved = [
        Context {
            realm: &other_realm,
            ..own
        },
        Context {
            kind: RecordKind::Alias,
            ..own
        },
        Context {
            generation: 1,
            ..own
        },
    ];
    let mut refused = 0;
    for context in moved {
        refused += refuses(custody, &context, &sealed)?;
    }
    // Salt, first and last byte of the ciphertext, the tag.
    let last = sealed.len().saturating_sub(1);
    for at in [6, 22, last.saturating_sub(16), last] {
        let mut altered = sealed.clone();
        altered.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
        refused += refuses(custody, &own, &altered)?;
    }
    Ok(refused)
}

/// A key follows from its root, its label and its context, from each of them, and from nothing else. What is altered or
/// moved would be refused by the host's cipher alone; this is the token's part.
fn derivation(custody: &mut dyn Custody) -> Result<()> {
    let wrap = custody.current(KeyPurpose::Wrap)?;
    let mac = custody.current(KeyPurpose::Mac)?;
    let (one, two) = (seal::sha256(&[b"one"]), seal::sha256(&[b"two"]));
    let key = custody.derive(wrap, b"custodyd/scratch", &one)?;
    let again = custody.derive(wrap, b"custodyd/scratch", &one)?;
    if !key.ct_eq(&again) {
        return Err(failed(
            "the same derivation gives another key the second time",
        ));
    }
    let others = [
        custody.derive(wrap, b"custodyd/scratch", &two)?,
        custody.derive(wrap, b"custodyd/scratch2", &one)?,
        custody.mac(mac, &encoding::kdf_block(b"custodyd/scratch", &one))?,
    ];
    match others.iter().any(|other| other.ct_eq(&key)) {
        true => Err(failed("different derivations give the same key")),
        false => Ok(()),
    }
}

fn refuses(custody: &mut dyn Custody, context: &Context<'_>, sealed: &[u8]) -> Result<usize> {
    match seal::open(custody, context, sealed) {
        Err(Error::Tampered { .. }) => Ok(1),
        Ok(_) => Err(failed("a record that was altered or moved opens")),
        Err(other) => Err(other),
    }
}

/// Signs with each key pair; the signature is good for its message, and for no other message or key.
/// Says how many keys did.
///
/// # Errors
/// As for [`records`].
pub fn signatures(custody: &mut dyn Custody) -> Result<usize> {
    let pairs = KeyPurpose::REQUIRED
        .into_iter()
        .filter(|p| !p.is_symmetric());
    let keys = pairs
        .map(|purpose| custody.current(purpose))
        .collect::<Result<Vec<KeyId>>>()?;
    let digest = seal::sha256(&[PLAINTEXT]);
    for key in &keys {
        let signature = custody.sign(*key, &digest)?;
        for verifier in &keys {
            let public = custody.public_key(*verifier)?;
            let good = public.verifies(PLAINTEXT, &signature);
            if good != (verifier == key) || public.verifies(b"another", &signature) {
                return Err(failed(&format!(
                    "a signature of {key} is not what it should be"
                )));
            }
        }
    }
    Ok(keys.len() + ed25519_signatures(custody)?)
}

fn ed25519_signatures(custody: &mut dyn Custody) -> Result<usize> {
    let Some(key) = custody.newest(KeyPurpose::CheckpointEd25519)? else {
        return Ok(0);
    };
    let signature = custody.sign_ed25519(key, PLAINTEXT)?;
    let public = custody.ed25519_key(key)?;
    match public.verifies(PLAINTEXT, &signature) && !public.verifies(b"another", &signature) {
        true => Ok(1),
        false => Err(failed(&format!(
            "a signature of {key} is not what it should be"
        ))),
    }
}

/// Draws twice, which must differ.
///
/// # Errors
/// As for [`records`].
pub fn random(custody: &mut dyn Custody) -> Result<()> {
    let (mut one, mut two) = ([0; 32], [0; 32]);
    custody.random(&mut one)?;
    custody.random(&mut two)?;
    match one == two {
        false => Ok(()),
        true => Err(failed("it gives the same random bytes twice")),
    }
}

/// What anchors cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorCost {
    /// Of each write, by rising duration; never empty.
    pub writes: Vec<Duration>,
}

impl AnchorCost {
    #[must_use]
    pub fn median(&self) -> Duration {
        let middle = self.writes.get(self.writes.len() / 2);
        middle.copied().unwrap_or_default()
    }

    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.writes.last().copied().unwrap_or_default()
    }
}

/// Creates a scratch anchor, moves it on `writes` times as a realm's is moved, and removes it. `now` in
/// seconds since 1970.
///
/// # Errors
/// [`Error::Misconfigured`] for a token that keeps no anchors; [`Error::Anchors`] for one that
/// says it did and did not; else its own. The scratch anchor is removed after an error, too, where the
/// token lets it.
pub fn anchors(custody: &mut dyn Custody, now: u64, writes: u32) -> Result<AnchorCost> {
    let mut scratch = Scratch::begin(custody, now)?;
    let measured = measure(custody, &mut scratch, writes.max(1));
    let ended = scratch.end(custody);
    let mut writes = measured?;
    ended?;
    writes.sort_unstable();
    Ok(AnchorCost { writes })
}

fn measure(custody: &mut dyn Custody, scratch: &mut Scratch, writes: u32) -> Result<Vec<Duration>> {
    let mut lasted = Vec::new();
    for number in 0..writes {
        let begun = Instant::now();
        let done = scratch.step(custody);
        match (done, number) {
            (Ok(_), _) => lasted.push(begun.elapsed()),
            (Err(error), 0) => return Err(first_refusal(custody, error)),
            (Err(error), _) => return Err(error),
        }
    }
    Ok(lasted)
}

fn failed(what: &str) -> Error {
    Error::Misconfigured(format!(
        "the token failed its proof: {what}. Do not use it; what it holds is not lost by that"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        custody::AnchorObject,
        public_key::PublicKey,
        report::KeyReport,
        secret::Secret,
        software::{SoftAnchors, SoftCustody},
    };

    /// What a token may get wrong.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        ConstantMac,
        ConstantRandom,
        OneKeyForAll,
        NoAnchors,
        AnchorsForgotten,
        AnchorsStay,
    }

    struct Faulty(SoftCustody, Fault);

    impl Custody for Faulty {
        fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
            self.0.current(purpose)
        }
        fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
            self.0.newest(purpose)
        }
        fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> Result<[u8; 64]> {
            self.0.sign_ed25519(key, message)
        }
        fn ed25519_key(&mut self, key: KeyId) -> Result<crate::Ed25519Key> {
            self.0.ed25519_key(key)
        }
        fn holds(&self, key: KeyId) -> Result<bool> {
            self.0.holds(key)
        }
        fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
            match self.1 {
                Fault::ConstantMac => Ok(Secret::init(|_| {})),
                _ => self.0.hmac(key, message),
            }
        }
        fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
            self.0.sign(self.one(key), digest)
        }
        fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
            self.0.public_key(self.one(key))
        }
        fn random(&mut self, out: &mut [u8]) -> Result<()> {
            match self.1 {
                Fault::ConstantRandom => {
                    out.fill(7);
                    Ok(())
                }
                _ => self.0.random(out),
            }
        }
        fn inventory(&mut self) -> Result<Vec<KeyReport>> {
            self.0.inventory()
        }
        fn probe(&mut self) -> Result<()> {
            self.0.probe()
        }
        fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
            self.0.anchors()
        }
        fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
            match self.1 {
                Fault::NoAnchors => Err(Error::unavailable("create", "FunctionNotSupported")),
                Fault::AnchorsForgotten => Ok(()),
                _ => self.0.create_anchor(content),
            }
        }
        fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
            match self.1 {
                Fault::AnchorsStay => Ok(()),
                _ => self.0.destroy_anchor(object),
            }
        }
    }

    impl Faulty {
        fn one(&self, key: KeyId) -> KeyId {
            match self.1 {
                Fault::OneKeyForAll => KeyId::new(KeyPurpose::Bind, 1),
                _ => key,
            }
        }
    }

    fn custody(fault: Fault) -> Faulty {
        Faulty(SoftCustody::with_anchors(SoftAnchors::default()), fault)
    }

    fn said<T: std::fmt::Debug>(outcome: Result<T>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn a_good_token_passes_and_is_left_as_it_was() {
        let mut custody = custody(Fault::None);
        assert_eq!(records(&mut custody).unwrap(), 7);
        assert_eq!(signatures(&mut custody).unwrap(), 3);
        custody.0.add_version(KeyPurpose::CheckpointEd25519, 1);
        assert_eq!(signatures(&mut custody).unwrap(), 4);
        random(&mut custody).unwrap();
        let cost = anchors(&mut custody, 1_800_000_000, 5).unwrap();
        assert_eq!(cost.writes.len(), 5);
        assert!(cost.median() <= cost.slowest());
        assert!(custody.anchors().unwrap().is_empty());
    }

    #[test]
    fn a_mac_that_does_not_depend_on_its_message_is_found() {
        let text = said(records(&mut custody(Fault::ConstantMac)));
        assert!(text.contains("different derivations"), "{text}");
    }

    #[test]
    fn one_key_under_three_names_is_found() {
        assert!(said(signatures(&mut custody(Fault::OneKeyForAll))).contains("failed its proof"));
    }

    #[test]
    fn random_bytes_that_repeat_are_found() {
        assert!(said(random(&mut custody(Fault::ConstantRandom))).contains("same random bytes"));
    }

    #[test]
    fn a_token_without_data_objects_is_told_as_one() {
        let text = said(anchors(&mut custody(Fault::NoAnchors), 1, 3));
        assert!(
            text.contains("CKO_DATA") && text.contains("TOKENS.md"),
            "{text}"
        );
    }

    #[test]
    fn an_anchor_that_is_not_kept_or_does_not_go_is_found() {
        for fault in [Fault::AnchorsForgotten, Fault::AnchorsStay] {
            let error = anchors(&mut custody(fault), 1, 3).unwrap_err();
            assert!(matches!(error, Error::Anchors { .. }), "{error}");
        }
    }
}
