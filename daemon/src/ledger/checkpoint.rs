//! Checkpoints: what the realm says in public that its log is, signed in the token.
//!
//! Called by `receipts`, `auditing` and `witnessing`. A checkpoint is a C2SP signed note (c2sp.org/signed-note,
//! c2sp.org/tlog-checkpoint) over origin, size and root. It is signed only when somebody asks,
//! once at the most for a head, and only for a head that the token itself remembers: two
//! checkpoints of which neither log continues the other then prove that the realm misbehaved. So
//! nothing here may ever sign what is only durable, only pending, or only remembered by this host.
//!
//! The note is written here and not by the crate `signed_note`: its signers and verifiers are
//! Ed25519 and its key ids hash name and type byte, while every PKCS#11 token in use signs with P-256,
//! whose type (0x02) has DER signatures and a key id over the SubjectPublicKeyInfo. A public log's
//! checkpoints have an Ed25519 line (type 0x01) below that one, for those who know no other.
//!
//! After a crash here: nothing was written. The next life signs the same text again, or a later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custodyd_hsm::{KeyPurpose, Pool, RealmName, checkpoint};
use tokio::sync::watch;

use super::LedgerError;
use super::head::Head;
use super::log::LogEnd;
use super::memory::Memory;
use super::tree::Digest;

/// A signed statement of what the log is, and the edge that proofs against it are made from.
#[derive(Debug)]
pub struct Checkpoint {
    /// The whole note, with the realm's own signature.
    note: String,
    pub(super) end: LogEnd,
    /// What witnesses have added, each verified: a line by the name of the witness.
    cosignatures: Mutex<BTreeMap<String, String>>,
}

impl Checkpoint {
    /// As the realm signed it.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// With what witnesses have added until now.
    #[must_use]
    pub fn cosigned_note(&self) -> String {
        let mut note = self.note.clone();
        let added = self
            .cosignatures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for line in added.values() {
            note.push_str(line);
            note.push('\n');
        }
        note
    }

    /// What is signed, with the newline at its end.
    #[must_use]
    pub fn text(&self) -> &str {
        let blank = self.note.rfind("\n\n");
        blank.and_then(|at| self.note.get(..=at)).unwrap_or("")
    }

    /// Adds the line of a witness, in place of an earlier one of the same. Whoever adds it has
    /// verified it.
    pub(crate) fn add_cosignature(&self, witness: &str, line: &str) {
        self.cosignatures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(witness.to_owned(), line.to_owned());
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.end.size()
    }
}

/// The newest checkpoint of this process.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Whether the Ed25519 key signs as well, where the realm has one.
    pub(super) public: bool,
    newest: watch::Sender<Option<Arc<Checkpoint>>>,
    /// Held while the token signs.
    signing: tokio::sync::Mutex<()>,
}

/// The first line of a checkpoint, and the name of the key that signs it: the realm and the log
/// epoch. A restore begins another epoch, whose log need not continue this one.
pub(super) fn origin(realm: &RealmName, log_epoch: u64) -> String {
    format!("{realm}/custodyd/log/{log_epoch}")
}

/// The text that is signed.
fn text(head: &Head) -> String {
    let name = origin(&head.state.realm, head.state.log_epoch);
    lines(&name, head.size, &head.log_root)
}

fn lines(origin: &str, size: u64, root: &Digest) -> String {
    format!("{origin}\n{size}\n{}\n", STANDARD.encode(root))
}

impl Checkpoints {
    /// A checkpoint of the newest head that is anchored in the token.
    ///
    /// # Errors
    /// `Token` where it does not sign.
    pub(super) async fn newest(
        &self,
        memory: &Memory,
        pool: &Pool,
    ) -> Result<Arc<Checkpoint>, LedgerError> {
        let _turn = self.signing.lock().await;
        self.signed(memory, pool).await
    }

    /// The same, in one's turn at the token: what was anchored while this waited is in it.
    async fn signed(&self, memory: &Memory, pool: &Pool) -> Result<Arc<Checkpoint>, LedgerError> {
        let (head, end) = memory.in_token();
        if let Some(known) = self.kept().filter(|known| known.size() == end.size()) {
            return Ok(known);
        }
        let name = origin(&head.state.realm, head.state.log_epoch);
        let note = sign(pool, &name, text(&head), self.public).await?;
        let made = Arc::new(Checkpoint {
            note,
            end,
            cosignatures: Mutex::default(),
        });
        self.newest.send_replace(Some(Arc::clone(&made)));
        Ok(made)
    }

    /// A checkpoint of a log with at least so many entries, the kept one if it will do. `None`
    /// while so many are not anchored in the token.
    ///
    /// Whoever waits takes the first one that will do, all at once. By turns each would have a newer one signed while
    /// others are committed, and who came last and is covered already would pass those who have waited for long.
    ///
    /// # Errors
    /// As `newest`.
    pub(super) async fn covering(
        &self,
        size: u64,
        memory: &Memory,
        pool: &Pool,
    ) -> Result<Option<Arc<Checkpoint>>, LedgerError> {
        let covers = |one: &Arc<Checkpoint>| one.size() >= size;
        let mut newest = self.newest.subscribe();
        let signed = async {
            let _turn = self.signing.lock().await;
            self.signed(memory, pool).await
        };
        tokio::select! {
            biased;
            // The sender is `self`'s, and does not end.
            Ok(known) = newest.wait_for(|known| known.as_ref().is_some_and(covers)) => Ok(known.clone()),
            signed = signed => Ok(Some(signed?).filter(covers)),
        }
    }

    /// The newest one that was signed, or else one of now: what auditors read is no further
    /// than what they can check it by.
    ///
    /// # Errors
    /// As `newest`.
    pub(super) async fn published(
        &self,
        memory: &Memory,
        pool: &Pool,
    ) -> Result<Arc<Checkpoint>, LedgerError> {
        match self.kept() {
            Some(known) => Ok(known),
            None => self.newest(memory, pool).await,
        }
    }

    fn kept(&self) -> Option<Arc<Checkpoint>> {
        self.newest.borrow().clone()
    }
}

/// A checkpoint that says nothing: of the log before its first entry, which every log of this
/// origin continues. So it may be signed whatever is anchored. It is for whoever has to be asked
/// what they know of the log, and answers nobody but who can prove to be it.
pub(super) async fn empty(
    pool: &Pool,
    realm: &RealmName,
    log_epoch: u64,
) -> Result<String, LedgerError> {
    let name = origin(realm, log_epoch);
    let nothing = LogEnd::default();
    let text = lines(&name, nothing.size(), &nothing.root());
    // By every key there is: each witness knows one of them.
    sign(pool, &name, text, true).await
}

/// Signs the statement of an anchored head, or of no entry at all; where `ed25519` and the realm has
/// such a key, by that as well.
async fn sign(pool: &Pool, name: &str, text: String, ed25519: bool) -> Result<String, LedgerError> {
    let signed = text.clone();
    let ((signature, key), second) = pool
        .call("sign-checkpoint", move |custody| {
            let first = checkpoint::sign(custody, signed.as_bytes())?;
            let has_another = custody.newest(KeyPurpose::CheckpointEd25519)?.is_some();
            let second = match ed25519 && has_another {
                true => Some(checkpoint::sign_ed25519(custody, signed.as_bytes())?),
                false => None,
            };
            Ok((first, second))
        })
        .await?;
    // A statement that nobody can verify would look like one of somebody else.
    let first_good = key.verifies(text.as_bytes(), &signature);
    let second_good = second
        .as_ref()
        .is_none_or(|(signature, key)| key.verifies(text.as_bytes(), signature));
    if !first_good || !second_good {
        return Err(LedgerError::internal("verify a signature of the token"));
    }
    metrics::counter!("custodyd_checkpoints_signed_total").increment(1);
    let mut note = format!("{text}\n");
    note.push_str(&line(name, &checkpoint::note_signature(&key, &signature)));
    if let Some((signature, key)) = second {
        let signed = checkpoint::ed25519_signature(name, &key, &signature);
        note.push_str(&line(name, &signed));
    }
    Ok(note)
}

fn line(name: &str, signature: &[u8]) -> String {
    format!("\u{2014} {name} {}\n", STANDARD.encode(signature))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use custodyd_hsm::PoolOptions;
    use custodyd_policies::Timestamp;
    use tokio::task::JoinSet;

    use super::*;
    use crate::ledger::faults::several::tokens::Soft;
    use crate::ledger::memory::Believed;
    use crate::store::Batch;

    /// Makes the next batch pending, and returns its head.
    fn pend(memory: &Memory) -> Head {
        let next = {
            let believed = memory.read();
            let mut batch = Batch::after(believed.head.state.seq);
            believed.next(believed.head.clone(), &mut batch).unwrap()
        };
        let head = next.head.clone();
        memory.pend(next);
        head
    }

    #[test]
    fn a_batch_that_the_token_does_not_know_is_not_signed() {
        let realm = RealmName::parse("realm.example").unwrap();
        let memory = Memory::new(Believed::nothing(&realm, Timestamp(1)), 0);
        let first = pend(&memory);
        assert_eq!(memory.in_token().0.size, 0);
        memory.settle(true);
        let (head, end) = memory.in_token();
        assert_eq!((&head, end.size()), (&first, 1));
        // Bounded: believed by a warm anchor only.
        for _ in 0..2 {
            pend(&memory);
            memory.settle(false);
            assert_eq!(memory.in_token().0, first);
        }
        let fourth = pend(&memory);
        memory.settle(true);
        assert_eq!(memory.in_token().0, fourth);
        let fifth = pend(&memory);
        memory.settle(false);
        memory.token_knows_all();
        assert_eq!(memory.in_token().0, fifth);
    }

    /// Batches are committed all the while: who waits for the token's word takes the first that will do.
    #[tokio::test(start_paused = true)]
    async fn one_signature_serves_all_who_wait_for_it_though_the_log_has_grown_meanwhile() {
        let [token, _] = Soft::pair();
        let (pool, mut hands) = Pool::by_hand(Arc::new(token), &PoolOptions::default()).unwrap();
        let hand = hands.first_mut().unwrap();
        let realm = RealmName::parse("realm.example").unwrap();
        let memory = Arc::new(Memory::new(Believed::nothing(&realm, Timestamp(1)), 0));
        let grow = || {
            pend(&memory);
            memory.settle(true);
        };
        let checkpoints = Arc::new(Checkpoints::default());
        let mut waiting = JoinSet::new();
        let mut ask = |size: u64| {
            let (checkpoints, memory, pool) =
                (Arc::clone(&checkpoints), Arc::clone(&memory), pool.clone());
            waiting.spawn(async move {
                let covering = checkpoints.covering(size, &memory, &pool).await;
                covering.unwrap().map(|one| one.size())
            });
        };
        grow();
        (0..20).for_each(|_| ask(1));
        let first = hand.take().await;
        grow();
        // One more needs more than what is being signed.
        ask(2);
        tokio::task::yield_now().await;
        hand.run(first);
        let mut answers = Vec::new();
        for _ in 0..20 {
            answers.push(waiting.join_next().await.unwrap().unwrap());
        }
        assert_eq!(answers, vec![Some(1); 20]);
        // The control: it is not given what does not cover it, and has the second signature.
        let second = hand.take().await;
        hand.run(second);
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), Some(2));
        let third = tokio::time::timeout(Duration::from_secs(1), hand.take()).await;
        assert!(third.is_err(), "another signature than two");
    }

    #[test]
    fn the_text_is_origin_size_and_root() {
        let realm = RealmName::parse("realm.example").unwrap();
        let mut head = Believed::nothing(&realm, Timestamp(1)).head;
        assert_eq!(
            text(&head),
            // SHA-256 of nothing (RFC 6962, section 2.1).
            "realm.example/custodyd/log/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        );
        head.state.log_epoch = 2;
        head.size = 70_000;
        assert!(text(&head).starts_with("realm.example/custodyd/log/2\n70000\n"));
    }
}
