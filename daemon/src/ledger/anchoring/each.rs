//! One token's anchor, as this process knows it; of a realm with several tokens there is one of these for each.
//!
//! Used by the parent alone. A token that fails is asked again within the patience of its set: at least
//! twice, since a host that was stopped for a moment finds every deadline passed.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::{self, Advanced, Anchor};
use custodyd_hsm::{Error, Member, Pool, RealmName};
use tokio::time::Instant;

use super::LedgerError;

/// Between two tries on one token.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(in crate::ledger) struct Each {
    pool: Pool,
    realm: RealmName,
    /// The newest in this token.
    pub(super) last: Anchor,
    /// What was tried since, by which MAC keys, and nobody knows how it ended.
    unsure: Vec<(Anchor, Vec<u16>)>,
    among: Option<Among>,
}

/// The token as one of several.
#[derive(Clone, Debug)]
struct Among {
    member: Arc<Member>,
    id: String,
    patience: Duration,
}

/// A token that was not there, or not as it was left.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) error: LedgerError,
}

impl Each {
    /// Every token that has to be anchored in, with what it remembers of the realm.
    ///
    /// # Errors
    /// `Token` where one does not answer, or not with an anchor.
    pub(super) async fn of_all(
        pool: &Pool,
        realm: &RealmName,
    ) -> Result<Vec<(Self, bool)>, LedgerError> {
        let Some(set) = pool.set() else {
            return Ok(vec![Self::read(pool.clone(), realm, None).await?]);
        };
        let mut all = Vec::new();
        for member in set.serving() {
            let among = Among {
                member: Arc::clone(member),
                id: member.id()?,
                patience: set.patience(),
            };
            all.push(Self::read(member.pool()?, realm, Some(among)).await?);
        }
        Ok(all)
    }

    /// A token that is none of the set yet.
    ///
    /// # Errors
    /// As `of_all`.
    pub(super) async fn newcomer(
        member: &Arc<Member>,
        patience: Duration,
        realm: &RealmName,
    ) -> Result<(Self, bool), LedgerError> {
        let among = Among {
            member: Arc::clone(member),
            id: member.id()?,
            patience,
        };
        Self::read(member.pool()?, realm, Some(among)).await
    }

    /// With whether there is an anchor at all.
    async fn read(
        pool: Pool,
        realm: &RealmName,
        among: Option<Among>,
    ) -> Result<(Self, bool), LedgerError> {
        let of = realm.clone();
        let newest = pool
            .call("read-anchor", move |custody| anchor::newest(custody, &of))
            .await?;
        let there = newest.is_some();
        let each = Self {
            pool,
            realm: realm.clone(),
            last: newest.unwrap_or(NONE),
            unsure: Vec::new(),
            among,
        };
        Ok((each, there))
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.among.as_ref().map(|among| among.id.as_str())
    }

    /// As people know it; nothing where there is only one.
    pub(super) fn called(&self) -> String {
        match &self.among {
            Some(among) => format!("the token {} ({})", among.member.name(), among.id),
            None => "the token".to_owned(),
        }
    }

    pub(super) fn lost(&self, error: LedgerError) -> Lost {
        let (id, name) = match &self.among {
            Some(among) => (among.id.clone(), among.member.name().to_owned()),
            None => (String::new(), String::new()),
        };
        Lost { id, name, error }
    }

    /// Makes this the newest in the token, tagged by the MAC keys of its head; its serial number is the token's next.
    ///
    /// # Errors
    /// `Stopped` where somebody else has moved the anchor; else the token's.
    pub(super) async fn advance(
        &mut self,
        (to, keys): (&Anchor, &[u16]),
    ) -> Result<(), LedgerError> {
        let Some(among) = self.among.clone() else {
            return self.once(to, keys).await;
        };
        // A token that waits for another one is not worn out by it. But it is asked: that it knew this when it was told
        // says nothing of whether somebody else has gone on since, and what comes of this is taken for its word of now.
        let same = Anchor {
            serial: self.last.serial,
            ..to.clone()
        };
        if self.unsure.is_empty() && same == self.last {
            return self.look().await;
        }
        let mut tries = Tries::begin();
        loop {
            let done = self.once(to, keys).await;
            if !among.again("anchor", &mut tries, &done) {
                return done;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&mut self, to: &Anchor, keys: &[u16]) -> Result<(), LedgerError> {
        let mut to = self.after_last(to);
        // A try of before may still be on its way into the token. Another anchor of its number beside it would be one
        // too many for ever; so it is made the last one first, and then it may come as often as it likes.
        let mut unsure = self.unsure.iter();
        let same_number = unsure.find(|(earlier, _)| earlier.serial == to.serial && *earlier != to);
        if let Some((earlier, its_keys)) = same_number.cloned() {
            self.settle(earlier, &its_keys).await?;
            to = self.after_last(&to);
        }
        self.settle(to, keys).await
    }

    /// One anchor, until it is known to be the newest.
    async fn settle(&mut self, mut to: Anchor, keys: &[u16]) -> Result<(), LedgerError> {
        let mut advanced = self.step(&to, keys).await?;
        if let Advanced::Raced(other) = &advanced
            && self.may_be_there(other)
        {
            // A try of ours whose answer was lost: it is there, and this one comes after it.
            self.last = other.clone();
            to = self.after_last(&to);
            advanced = self.step(&to, keys).await?;
        }
        match advanced {
            Advanced::Anchored => {
                self.last = to;
                self.unsure.clear();
                Ok(())
            }
            Advanced::Raced(other) => {
                metrics::counter!("custodyd_anchor_failures_total", "why" => "raced").increment(1);
                tracing::error!(ours = ?to, theirs = ?other, "somebody else has moved the anchor");
                Err(LedgerError::Stopped)
            }
        }
    }

    /// Whether it was tried, and may have come to be.
    fn may_be_there(&self, anchor: &Anchor) -> bool {
        self.unsure.iter().any(|(tried, _)| tried == anchor)
    }

    fn after_last(&self, to: &Anchor) -> Anchor {
        Anchor {
            serial: Anchor::serial_after(self.before()),
            ..to.clone()
        }
    }

    /// Nothing is anchored before the first.
    fn before(&self) -> Option<&Anchor> {
        (self.last.serial > 0).then_some(&self.last)
    }

    async fn step(&mut self, to: &Anchor, keys: &[u16]) -> Result<Advanced, LedgerError> {
        let (of, from, next) = (self.realm.clone(), self.before().cloned(), to.clone());
        let by = keys.to_vec();
        let sure = self.unsure.is_empty();
        let advanced = self
            .pool
            .call("anchor", move |custody| match &from {
                Some(from) if sure => anchor::go_on(custody, &of, from, (&next, &by)),
                from => anchor::advance_by(custody, &of, from.as_ref(), (&next, &by)),
            })
            .await;
        if let Err(error) = &advanced {
            let why = match error {
                Error::Worn { .. } => "worn",
                _ => "token",
            };
            metrics::counter!("custodyd_anchor_failures_total", "why" => why).increment(1);
            // A token that may not be written has not begun.
            if !matches!(error, Error::Worn { .. }) && !self.may_be_there(to) {
                self.unsure.push((to.clone(), keys.to_vec()));
            }
        }
        Ok(advanced?)
    }

    /// Whether the token is there, and remembers what it was told last.
    ///
    /// # Errors
    /// `Refused` where it remembers something else; `Stopped` where that is newer, so that somebody else serves; else
    /// the token's.
    pub(super) async fn look(&self) -> Result<(), LedgerError> {
        let several = self.among.is_some();
        let mut tries = Tries::begin();
        let newest = loop {
            let of = self.realm.clone();
            let seen = self.pool.call("look-at-anchor", move |custody| {
                if several {
                    custody.probe()?;
                }
                anchor::newest(custody, &of)
            });
            let seen = seen.await.map_err(LedgerError::from);
            let mut among = self.among.iter();
            if !among.any(|among| among.again("look", &mut tries, &seen)) {
                break seen?;
            }
            tokio::time::sleep(PAUSE).await;
        };
        let ours = newest
            .as_ref()
            .is_some_and(|newest| self.before() == Some(newest) || self.may_be_there(newest));
        match ours {
            true => Ok(()),
            false if newest.is_some_and(|newest| newest.serial > self.last.serial) => {
                metrics::counter!("custodyd_anchor_failures_total", "why" => "raced").increment(1);
                tracing::error!(
                    ours = ?self.last,
                    "{} remembers what somebody else has anchored: another daemon serves this realm",
                    self.called()
                );
                Err(LedgerError::Stopped)
            }
            false => Err(LedgerError::Refused(
                "it does not remember what it was told last".into(),
            )),
        }
    }
}

impl Among {
    /// Whether to ask again what fails in passing: twice at least, and within the patience of the set. Notes how the
    /// token stands.
    fn again<T>(
        &self,
        operation: &'static str,
        tries: &mut Tries,
        answer: &Result<T, LedgerError>,
    ) -> bool {
        tries.made += 1;
        match answer {
            Ok(_) => {
                self.member.is_well();
                false
            }
            Err(LedgerError::Token(error)) => {
                self.member.is_sick(operation, error);
                passes(error) && (tries.made < 2 || tries.begun.elapsed() < self.patience)
            }
            Err(_) => false,
        }
    }
}

/// How long, and how often, a token was asked.
#[derive(Debug)]
struct Tries {
    begun: Instant,
    made: u32,
}

impl Tries {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            made: 0,
        }
    }
}

/// Whether the same may succeed in a moment.
fn passes(error: &Error) -> bool {
    error.is_retryable() && !matches!(error, Error::Worn { .. })
}

/// Stands for no anchor: serial numbers begin with 1.
const NONE: Anchor = Anchor {
    serial: 0,
    log_epoch: 0,
    seq: 0,
    head: [0; 32],
    boot_epoch: 0,
    clean: false,
    dirty: false,
};

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::ledger::faults::several::tokens::{Soft, pool};

    fn at(seq: u8, dirty: bool) -> Anchor {
        Anchor {
            serial: 0,
            log_epoch: 1,
            seq: u64::from(seq),
            head: [seq; 32],
            boot_epoch: 1,
            clean: false,
            dirty,
        }
    }

    #[tokio::test]
    async fn a_token_that_has_been_told_is_asked_again_and_not_written_again() {
        let tokens = Soft::pair();
        let pool = pool(&[&tokens[0], &tokens[1]]);
        let realm = RealmName::parse("realm.example").unwrap();
        let mut each = Each::of_all(&pool, &realm).await.unwrap().remove(0).0;
        each.advance((&at(1, false), &[1])).await.unwrap();
        // It is there: nothing is written, and what it was told it knows.
        each.advance((&at(1, false), &[1])).await.unwrap();
        assert_eq!(tokens[0].written.load(Ordering::SeqCst), 1);
        // It is away: nobody can say what it knows by now.
        tokens[0].goes();
        let away = each.advance((&at(1, false), &[1])).await;
        assert!(matches!(away, Err(LedgerError::Token(_))), "{away:?}");
        tokens[0].comes_back();
        // Another daemon has gone on.
        let mut other = Each::of_all(&pool, &realm).await.unwrap().remove(0).0;
        other.advance((&at(2, false), &[1])).await.unwrap();
        let raced = each.advance((&at(1, false), &[1])).await;
        assert!(matches!(raced, Err(LedgerError::Stopped)), "{raced:?}");
    }

    #[tokio::test]
    async fn an_anchor_that_comes_late_is_no_second_one_of_its_number() {
        let tokens = Soft::pair();
        let pool = pool(&[&tokens[0], &tokens[1]]);
        let realm = RealmName::parse("realm.example").unwrap();
        let first = Each::of_all(&pool, &realm).await.unwrap().remove(0);
        let mut each = first.0;
        each.advance((&at(1, false), &[1])).await.unwrap();
        tokens[0].holds_back.store(true, Ordering::SeqCst);
        each.advance((&at(2, true), &[1])).await.unwrap_err();
        // It answers again, and is told of something newer; then comes what it was told before, many times.
        tokens[0].holds_back.store(false, Ordering::SeqCst);
        each.advance((&at(3, false), &[1])).await.unwrap();
        tokens[0].makes_late();
        let again = Each::of_all(&pool, &realm).await.unwrap().remove(0);
        assert!(again.1 && again.0.last == each.last);
        assert_eq!(again.0.last.seq, 3);
        each.advance((&at(4, false), &[1])).await.unwrap();
        assert_eq!(tokens[0].anchors.contents().len(), 1);
    }
}
