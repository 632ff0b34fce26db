//! All tokens of the realm: reading and moving the anchors of each, and one that comes in.
//!
//! Called by the parent. With one token each function does what there was before there were several.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::{self, Anchor};
use custodyd_hsm::{Error, Member, Pool, RealmName};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::each::{Each, Lost};
use super::{Anchoring, LedgerError, anchor_of, descent};
use crate::ledger::head::Head;
use crate::ledger::log::LogEnd;
use crate::ledger::memory::Believed;
use crate::store::Store;

/// How often the committer looks whether all tokens are there, where no batch tells.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Reads what each token has anchored, and refuses a database that does not descend from every one of them.
///
/// # Errors
/// `Refused` where one holds no anchor; `Tampered` as `descent::check`.
pub(super) async fn begin(
    pool: &Pool,
    realm: &RealmName,
    store: &Arc<dyn Store>,
    found: &Believed,
) -> Result<Vec<Each>, LedgerError> {
    let mut all = Vec::new();
    for (mut each, there) in Each::of_all(pool, realm).await? {
        let anchor = there.then(|| each.last.clone());
        #[cfg(test)]
        let anchor = store.weakness().anchor(anchor, &found.head);
        let Some(last) = anchor else {
            return Err(LedgerError::Refused(format!(
                "{} holds no anchor of this realm, so nobody can say whether the database is \
                 the newest; is it the right token?",
                each.called()
            )));
        };
        descent::check(&each.called(), &last, store, (&found.head, &found.end)).await?;
        each.last = last;
        all.push(each);
    }
    Ok(all)
}

/// A token that an operator has said to be lost, and that is there all the same, may know better than the others:
/// a database that does not descend from its anchor is refused. One that says nothing is lost indeed.
///
/// # Errors
/// `Tampered` as `descent::check`.
pub(super) async fn ask_the_lost(
    pool: &Pool,
    realm: &RealmName,
    store: &Arc<dyn Store>,
    found: &Believed,
) -> Result<(), LedgerError> {
    let Some(set) = pool.set() else {
        return Ok(());
    };
    for id in set.lost() {
        let Some(member) = set.of_id(&id) else {
            continue;
        };
        match Each::newcomer(member, set.patience(), realm).await {
            Ok((each, true)) => {
                let newest = (&found.head, &found.end);
                descent::check(&each.called(), &each.last, store, newest).await?;
            }
            Ok((_, false)) => {}
            Err(error) => {
                tracing::warn!(token = member.name(), %error, "a lost token says nothing")
            }
        }
    }
    Ok(())
}

/// What the tokens say together. They differ only where a daemon ended between two of them; then the more
/// cautious of two that name one head counts.
pub(super) fn newest(all: &[Each]) -> Result<Anchor, LedgerError> {
    let order = |anchor: &Anchor| {
        let Anchor {
            log_epoch,
            seq,
            boot_epoch,
            clean,
            dirty,
            ..
        } = *anchor;
        (log_epoch, seq, boot_epoch, dirty, !clean)
    };
    let newest = all.iter().map(|each| &each.last);
    let newest = newest.max_by_key(|anchor| order(anchor)).cloned();
    newest.ok_or(LedgerError::internal("find a token to anchor in"))
}

/// Moves all of them at once. One that failed is lost only where another did not.
///
/// # Errors
/// `Stopped` where somebody else has moved one; `Token` where none was moved, or one may not be written so often.
pub(super) async fn advance(
    all: &mut [Each],
    (to, keys): (&Anchor, &[u16]),
) -> Result<Vec<Lost>, LedgerError> {
    let done = join_all(all.iter_mut().map(|each| each.advance((to, keys)))).await;
    sort_out(all, done)
}

fn sort_out(all: &[Each], done: Vec<Result<(), LedgerError>>) -> Result<Vec<Lost>, LedgerError> {
    let any = done.iter().any(Result::is_ok);
    let mut lost = Vec::new();
    for (each, done) in all.iter().zip(done) {
        match done {
            Ok(()) => {}
            // Nobody's fault: it is told later, or somebody else is serving.
            Err(error @ (LedgerError::Stopped | LedgerError::Token(Error::Worn { .. }))) => {
                return Err(error);
            }
            Err(error) if !any => return Err(error),
            Err(error) => lost.push(each.lost(error)),
        }
    }
    Ok(lost)
}

/// At a start nobody is given up.
pub(super) fn none(lost: Vec<Lost>) -> Result<(), LedgerError> {
    match lost.into_iter().next() {
        None => Ok(()),
        Some(Lost { name, error, .. }) => Err(LedgerError::Refused(format!(
            "the token {name} can not be anchored in: {error}"
        ))),
    }
}

/// Each token of the realm, or of a realm that is about to be.
fn pools(pool: &Pool) -> Result<Vec<Pool>, LedgerError> {
    let all = named_pools(pool)?.into_iter();
    Ok(all.map(|(_, pool)| pool).collect())
}

/// The same, by their names in the configuration where there are several.
pub(super) fn named_pools(pool: &Pool) -> Result<Vec<(Option<String>, Pool)>, LedgerError> {
    match pool.set() {
        None => Ok(vec![(None, pool.clone())]),
        Some(set) => {
            let pools = set
                .serving()
                .map(|member| Ok((Some(member.name().to_owned()), member.pool()?)));
            Ok(pools.collect::<Result<_, Error>>()?)
        }
    }
}

/// Whether one of the realm's tokens remembers nothing of it.
///
/// # Errors
/// `Token` where one does not answer.
pub(in crate::ledger) async fn some_lack(
    pool: &Pool,
    realm: &RealmName,
) -> Result<bool, LedgerError> {
    for pool in pools(pool)? {
        let of = realm.clone();
        let read = pool.call("read-anchor", move |custody| anchor::newest(custody, &of));
        if read.await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Anchoring {
    /// Refuses a token that is further behind the others than a daemon that ended between two of them leaves it:
    /// somebody has put it back, or it was away. Under bounded anchoring nothing tells the two apart; the token
    /// is brought up there, which gives nothing away, since the one that knows better is there as well.
    ///
    /// # Errors
    /// `Refused` names it.
    pub(in crate::ledger) fn refuse_laggards(&self) -> Result<(), LedgerError> {
        if self.bounded.is_some() {
            return Ok(());
        }
        for each in &self.each {
            if self.last.seq.saturating_sub(each.last.seq) > 1 {
                return Err(LedgerError::Refused(format!(
                    "{} remembers batch {}, and another token of the realm batch {}: it was put back to an older state. \
                     Find out by whom; to go on without it: custodyd token expel {} (docs/handbook/lose-hsm.md)",
                    each.called(),
                    each.last.seq,
                    self.last.seq,
                    each.id().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    /// Whether all of several tokens are there, and remember what they were told. Says which do not.
    ///
    /// # Errors
    /// `Token` where none is there.
    pub(super) async fn look(&mut self) -> Result<Vec<Lost>, LedgerError> {
        if self.each.len() < 2 || self.looked.elapsed() < LOOK {
            return Ok(Vec::new());
        }
        self.look_at_all().await
    }

    /// The same, of every token and at once.
    ///
    /// # Errors
    /// As `look`; `Stopped` where one remembers what somebody else has anchored.
    pub(in crate::ledger) async fn look_at_all(&mut self) -> Result<Vec<Lost>, LedgerError> {
        if self.nodes.is_some() {
            return Err(LedgerError::internal("look at one daemon's anchors"));
        }
        let seen = join_all(self.each.iter().map(Each::look)).await;
        self.looked = Instant::now();
        sort_out(&self.each, seen)
    }

    /// These are anchored in no longer.
    pub(in crate::ledger) fn without(&mut self, ids: &[String]) {
        self.each.retain(|each| {
            each.id()
                .is_none_or(|id| !ids.iter().any(|gone| gone == id))
        });
    }

    /// Brings the anchor of a token that is not in the set up to this head, which all that are in it have
    /// anchored. What it remembers must still be what [`found_in`] has found: this head follows the one of then.
    ///
    /// # Errors
    /// `Refused` where it remembers something else; `Token` where it does not answer.
    pub(in crate::ledger) async fn bring_up(
        &self,
        member: &Arc<Member>,
        found: Option<&Anchor>,
        head: &Head,
    ) -> Result<Newcomer, LedgerError> {
        let patience = self.pool.set().map_or(Duration::ZERO, |set| set.patience());
        let (mut each, there) = Each::newcomer(member, patience, &self.realm).await?;
        if there.then_some(&each.last) != found {
            return Err(LedgerError::Refused(format!(
                "{} remembers something else than a moment ago: is another daemon anchoring in it? Nothing was changed; \
                 stop that one, then try again",
                each.called()
            )));
        }
        let mut to = anchor_of(head, Some(&each.last))?;
        to.dirty = self.last.dirty;
        each.advance((&to, &head.tagged_by())).await?;
        Ok(Newcomer(each))
    }

    /// It is anchored in from now on, like every other.
    pub(in crate::ledger) fn with(&mut self, newcomer: Newcomer) {
        self.each.push(newcomer.0);
    }
}

/// What a token remembers that is not in the set: nothing, or something older of the same history. The way back to
/// it through the log may be long.
///
/// # Errors
/// `Tampered` where it remembers what this history has not; `Token` where it does not answer.
pub(in crate::ledger) async fn found_in(
    member: &Arc<Member>,
    realm: &RealmName,
    store: &Arc<dyn Store>,
    (head, end): (&Head, &LogEnd),
) -> Result<Option<Anchor>, LedgerError> {
    let (each, there) = Each::newcomer(member, Duration::ZERO, realm).await?;
    if !there {
        return Ok(None);
    }
    // Of an earlier log epoch it is older in any case: the restore has given that history up.
    if each.last.log_epoch >= head.state.log_epoch {
        let last = Anchor {
            clean: false,
            ..each.last.clone()
        };
        descent::check(&each.called(), &last, store, (head, end)).await?;
    }
    Ok(Some(each.last))
}

/// A token whose anchor is up to date, and that no head names yet.
#[derive(Debug)]
pub(in crate::ledger) struct Newcomer(Each);

/// The newest anchor that the realm's tokens remember, each by its name; for people.
///
/// # Errors
/// `Token` where one does not answer.
pub(in crate::ledger) async fn remembered(
    pool: &Pool,
    realm: &RealmName,
) -> Result<Option<Anchor>, LedgerError> {
    let mut newest: Option<Anchor> = None;
    for pool in pools(pool)? {
        let of = realm.clone();
        let read = pool
            .call("read-anchor", move |custody| anchor::newest(custody, &of))
            .await?;
        let Some(read) = read else { continue };
        let place = |anchor: &Anchor| (anchor.log_epoch, anchor.seq, anchor.serial);
        if newest
            .as_ref()
            .is_none_or(|known| place(known) < place(&read))
        {
            newest = Some(read);
        }
    }
    Ok(newest)
}
