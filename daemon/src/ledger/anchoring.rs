//! Anchoring: what is told to anybody was first made the newest.
//!
//! Called by the committer after each durable batch, before it answers. *Strict*: in the token,
//! every time. *Bounded*, for tokens that wear out or are slow: in the runtime directory every
//! time, and in the token at an interval, at once where something is taken away or used up for
//! good, and before any account has two charges that the token does not know of. Once a head is
//! anchored, no older database is served again: `descent` refuses it at the next start.
//!
//! After a crash here: the batch is durable and nobody was told. The next start finds a head that
//! descends from the anchor, believes it, and anchors it. After a loss of power in bounded mode
//! the token may remember an older head than was told; then its dirty flag says that guesses may
//! be forgotten, the boot epoch rises, and every account pays for it (`account::forgotten`).
//!
//! With several tokens "in the token" means in each of them (`each`). Those that fail are named to the
//! committer, which gives them up before it tells anybody anything (`ledger::tokens`).

pub(in crate::ledger) mod descent;
mod each;
pub(in crate::ledger) mod mac_keys;
mod nodes;
mod several;
mod warm;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::{self, Advanced, Anchor};
use custodyd_hsm::{Error, Pool, RealmName, RecordId};
use tokio::time::Instant;

use self::each::Each;
pub(crate) use self::each::Lost;
use self::nodes::Nodes;
pub(crate) use self::nodes::Ruling;
pub(in crate::ledger) use self::several::{found_in, remembered, some_lack};
#[cfg(test)]
pub(in crate::ledger) use self::warm::BOOT;
#[cfg(test)]
pub use self::warm::Shelf;
use self::warm::Warm;
use super::LedgerError;
use super::head::Head;
use super::log::LogEnd;
use super::memory::Believed;
use super::newer::Source;
use super::tokens;
use crate::store::Store;

/// When the token is told.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    Strict,
    Bounded {
        runtime_directory: &'a Path,
        interval: Duration,
    },
    /// Bounded, and what the runtime directory keeps is kept in memory.
    #[cfg(test)]
    InMemory {
        shelf: &'a Shelf,
        interval: Duration,
    },
}

impl Mode<'_> {
    fn interval(self) -> Duration {
        match self {
            Self::Strict => Duration::ZERO,
            Self::Bounded { interval, .. } => interval,
            #[cfg(test)]
            Self::InMemory { interval, .. } => interval,
        }
    }
}

/// What this boot of the kernel remembers beyond the token's newest anchor, where the mode has it remember anything.
///
/// # Errors
/// `Token` where it does not answer; `Refused` where the runtime directory can not be read.
pub(in crate::ledger) async fn remembered_here(
    mode: Mode<'_>,
    pool: &Pool,
    realm: &RealmName,
    last: &Anchor,
) -> Result<Option<Anchor>, LedgerError> {
    let Some(warm) = Warm::of(mode)? else {
        return Ok(None);
    };
    let warm = warm.since(pool, realm, last).await?;
    Ok(warm.filter(|warm| (warm.log_epoch, warm.seq) > (last.log_epoch, last.seq)))
}

/// When an anchor that failed is tried again, if no other batch does it before.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// What a batch demands of its anchor.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Something is taken away, or used up for good: the token must know at once.
    pub(crate) at_once: bool,
    /// Something is used up that a raised boot epoch makes worthless.
    pub(crate) uses_up: bool,
    /// Accounts that were charged for a guess.
    pub(crate) charged: Vec<RecordId>,
}

/// What became of a head that was to be anchored.
#[derive(Debug)]
pub(crate) enum Covered {
    InToken,
    /// By a warm anchor.
    Here,
    /// Not in these; nothing may be told before the realm has given them up.
    Except(Vec<Lost>),
}

/// Keeps the token's anchor up with the database.
#[derive(Debug)]
pub(crate) struct Anchoring {
    pool: Pool,
    realm: RealmName,
    /// The newest in the token.
    last: Anchor,
    /// Every token that has to know.
    each: Vec<Each>,
    /// When all of several tokens were last seen to be there.
    looked: Instant,
    bounded: Option<Bounded>,
    /// Where other nodes anchor in the one token as well; then none of `each` is.
    nodes: Option<Nodes>,
}

#[derive(Debug)]
struct Bounded {
    warm: Warm,
    interval: Duration,
    anchored: Instant,
    /// Not before this the token is asked again for the interval's sake: it may be away, or spent.
    not_before: Instant,
    /// Batches were told of that the token does not know.
    ahead: bool,
    /// Accounts with a charge that the token does not know.
    charged: HashSet<RecordId>,
}

impl Bounded {
    fn new(warm: Warm, interval: Duration) -> Self {
        Self {
            warm,
            interval,
            anchored: Instant::now(),
            not_before: Instant::now(),
            ahead: false,
            charged: HashSet::new(),
        }
    }
}

impl Anchoring {
    /// Reads what is anchored, and refuses a database that does not descend from it.
    ///
    /// # Errors
    /// `Refused` where the token holds no anchor; `Tampered` as `descent::check`.
    pub(super) async fn begin(
        pool: &Pool,
        realm: &RealmName,
        mode: Mode<'_>,
        store: &Arc<dyn Store>,
        found: &Believed,
    ) -> Result<Self, LedgerError> {
        tokens::hold(pool, &found.head).await?;
        // Before the log of this head disproves any anchor.
        let checked = mac_keys::check(pool, realm, store, &found.head).await;
        checked.map_err(|error| mac_keys::told(error, &found.head))?;
        if store.is_shared() {
            let begun = Nodes::begin(pool, realm, store, found).await;
            let (nodes, last) = begun.map_err(|error| mac_keys::told(error, &found.head))?;
            return Ok(Self {
                pool: pool.clone(),
                realm: realm.clone(),
                last,
                each: Vec::new(),
                looked: Instant::now(),
                bounded: None,
                nodes: Some(nodes),
            });
        }
        several::ask_the_lost(pool, realm, store, found).await?;
        let each = several::begin(pool, realm, store, found).await;
        let each = each.map_err(|error| mac_keys::told(error, &found.head))?;
        let last = several::newest(&each)?;
        let bounded = Warm::of(mode)?.map(|warm| Bounded::new(warm, mode.interval()));
        Ok(Self {
            pool: pool.clone(),
            realm: realm.clone(),
            last,
            each,
            looked: Instant::now(),
            bounded,
            nodes: None,
        })
    }

    /// The boot epoch that this start serves in: the anchored one, or the next where guesses may
    /// be forgotten. Takes the clean flag back, so that a crash of this start does not leave it.
    ///
    /// # Errors
    /// `Tampered` where the database is older than the warm anchor; `Token` as `advance`.
    pub(super) async fn boot_epoch(
        &mut self,
        store: &Arc<dyn Store>,
        found: &Believed,
    ) -> Result<u64, LedgerError> {
        let warm = self.warm(store, found).await?;
        let forgotten = self.last.dirty && warm.is_none();
        if self.each.iter().any(|each| each.last.clean) {
            let mut open = self.next(&found.head, self.last.boot_epoch)?;
            open.dirty = false;
            several::none(self.advance(open, &found.head).await?)?;
        }
        if forgotten {
            tracing::warn!(
                boot_epoch = self.last.boot_epoch.saturating_add(1),
                "the host stopped while guesses were not anchored in the token: every account is charged one"
            );
            metrics::counter!("custodyd_boot_epochs_total").increment(1);
        }
        Ok(self.last.boot_epoch.saturating_add(u64::from(forgotten)))
    }

    /// What this boot of the kernel remembers that the token may not know yet. The database is that, or descends from it.
    ///
    /// # Errors
    /// `Tampered` where it is older; `Token` where that does not answer.
    pub(super) async fn warm(
        &self,
        store: &Arc<dyn Store>,
        found: &Believed,
    ) -> Result<Option<Anchor>, LedgerError> {
        let Some(bounded) = &self.bounded else {
            return Ok(None);
        };
        let warm = bounded.warm.since(&self.pool, &self.realm, &self.last);
        let warm = warm.await?;
        if let Some(warm) = &warm {
            let head = (&found.head, &found.end);
            descent::check("this host", warm, store, head).await?;
        }
        Ok(warm)
    }

    /// Makes a head the newest that a start has found before the tokens knew of it, before anything is written upon it.
    /// Without that, two daemons that end one after the other leave two tokens as far apart as one that was put
    /// back. Under bounded anchoring nothing is told of from that.
    ///
    /// # Errors
    /// As `advance`.
    pub(crate) async fn adopt(&mut self, head: &Head, end: &LogEnd) -> Result<(), LedgerError> {
        if let Some(nodes) = &mut self.nodes {
            return match nodes.cover(head, end).await? {
                Ruling::Covered { .. } => Ok(()),
                // In its turn: whoever writes all the same does not keep to it.
                Ruling::Outrun => Err(LedgerError::Refused(
                    "other nodes anchor newer batches faster than this one finds the place of its own, though it is its \
                     turn: is the token much slower for this node, or does somebody write who takes no turns?"
                        .into(),
                )),
                Ruling::Contradicted { theirs } => Err(contradicted(head, &theirs)),
            };
        }
        let behind = self.each.iter().any(|each| each.last.seq < head.state.seq);
        if self.bounded.is_some() || !behind {
            return Ok(());
        }
        let mut to = self.next(head, head.state.boot_epoch.max(self.last.boot_epoch))?;
        // What a bounded life of before has left stays to be paid for.
        to.dirty = self.last.dirty;
        several::none(self.advance(to, head).await?)
    }

    /// Makes the first head of a new realm the newest in every token. May be called again where one of them failed:
    /// those that have it keep it.
    ///
    /// # Errors
    /// The token's; `Refused` where one of them remembers another head, or is the one of several that failed.
    pub(crate) async fn begin_realm(pool: &Pool, head: &Head) -> Result<(), LedgerError> {
        let first = anchor_of(head, None)?;
        for (name, pool) in several::named_pools(pool)? {
            let (of, to) = (head.state.realm.clone(), first.clone());
            let keys = head.tagged_by();
            let begun = pool.call("anchor", move |custody| {
                match anchor::newest(custody, &of)? {
                    Some(there) if there == to => Ok(Advanced::Anchored),
                    _ => anchor::advance_by(custody, &of, None, (&to, &keys)),
                }
            });
            match (begun.await, name) {
                (Ok(Advanced::Anchored), _) => {}
                (Ok(Advanced::Raced(_)), _) => return Err(LedgerError::Stopped),
                // What it remembers contradicts the database: no mending helps.
                (Err(error @ Error::Anchors { .. }), _) | (Err(error), None) => {
                    return Err(error.into());
                }
                (Err(error), Some(name)) => {
                    return Err(LedgerError::Refused(format!(
                        "the token {name} can not be anchored in, so the realm is not whole yet: {error}. Nothing is lost, \
                         and nothing is in it: mend that token, then run `custodyd init` again, which goes on from here"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The anchor of the first head of a log epoch, which comes after all of these (by rising serial).
    ///
    /// # Errors
    /// Never for heads that were parsed.
    pub(crate) fn first_of(head: &Head, from: &[Anchor]) -> Result<Anchor, LedgerError> {
        anchor_of(head, from.last())
    }

    /// Makes it the newest, in the place of all of `from`: of a realm that was restored.
    ///
    /// # Errors
    /// `Stopped` where the token holds another than these; its refusal where it does not hold them all.
    pub(crate) async fn supersede(
        pool: &Pool,
        realm: &RealmName,
        from: Vec<Anchor>,
        (first, keys): (Anchor, Vec<u16>),
    ) -> Result<(), LedgerError> {
        let of = realm.clone();
        let superseded = pool.call("anchor", move |custody| {
            anchor::supersede(custody, &of, &from, (&first, &keys))
        });
        match superseded.await? {
            Advanced::Anchored => Ok(()),
            Advanced::Raced(_) => Err(LedgerError::Stopped),
        }
    }

    /// Makes this head the newest, as the mode and the batch demand; says who knows
    /// it now. May be called again after an error, with the same head: what an earlier try has
    /// done is found.
    ///
    /// # Errors
    /// `Token` where it does not answer, `Refused` where the warm anchor can not be written:
    /// nothing of the batch may be told. `Stopped` where somebody else has moved the anchor: this
    /// process is not the one that writes.
    pub(crate) async fn cover(
        &mut self,
        head: &Head,
        demand: &Demand,
    ) -> Result<Covered, LedgerError> {
        let mut to = self.next(head, head.state.boot_epoch)?;
        let Some(bounded) = &mut self.bounded else {
            return self.advance(to, head).await.map(Covered::in_token);
        };
        let uses_up = demand.uses_up || !demand.charged.is_empty();
        let mut here = HashSet::new();
        let twice = demand
            .charged
            .iter()
            .any(|account| bounded.charged.contains(account) || !here.insert(account));
        // A flag counts that every token has: any of them may be the one that is left.
        let unflagged = uses_up && !self.each.iter().all(|each| each.last.dirty);
        let raised = head.state.boot_epoch != self.last.boot_epoch;
        let due =
            bounded.anchored.elapsed() >= bounded.interval && Instant::now() >= bounded.not_before;
        let must = demand.at_once || twice || unflagged || raised;
        if must || due {
            // Where one is charged, others follow, without another word to the token.
            to.dirty = uses_up;
            match self.advance(to.clone(), head).await {
                // What only the interval wants can wait until the token may be written again.
                Err(LedgerError::Token(Error::Worn { .. })) if !must => {}
                told => return told.map(Covered::in_token),
            }
        }
        let Some(bounded) = &mut self.bounded else {
            return Err(LedgerError::internal("anchor what is bounded"));
        };
        if due {
            bounded.not_before = Instant::now() + AGAIN;
        }
        // It stands for the same place in the token's own order.
        to.serial = self.last.serial;
        to.dirty = self.last.dirty;
        let keys = head.tagged_by();
        let warm = (&to, keys.as_slice());
        bounded.warm.write(&self.pool, &self.realm, warm).await?;
        bounded.ahead = true;
        bounded.charged.extend(&demand.charged);
        Ok(Covered::Here)
    }

    /// When the token has to be told of what it does not know yet, if there is anything.
    pub(crate) fn due(&self) -> Option<Instant> {
        let others = self.each.len() > 1 || self.nodes.is_some();
        let look = others.then(|| self.looked + several::LOOK);
        let owed = self.owed();
        look.into_iter().chain(owed).min()
    }

    fn owed(&self) -> Option<Instant> {
        let bounded = self.bounded.as_ref()?;
        let waits = bounded.ahead || self.last.dirty;
        waits.then(|| (bounded.anchored + bounded.interval).max(bounded.not_before))
    }

    /// Tells the token of what it does not know, while nothing is under way; looks whether all of
    /// several tokens are there. Says which are not, and whether the token knows everything now.
    ///
    /// # Errors
    /// As `cover`.
    pub(crate) async fn catch_up(&mut self, head: &Head) -> Result<Covered, LedgerError> {
        if self.owed().is_none_or(|owed| owed > Instant::now()) {
            return self.look().await.map(Covered::but_for);
        }
        if let Some(bounded) = &mut self.bounded {
            bounded.not_before = Instant::now() + AGAIN;
        }
        let to = self.next(head, head.state.boot_epoch)?;
        self.advance(to, head).await.map(Covered::in_token)
    }

    /// The last word of a daemon that stops: nothing follows. Strict mode has said everything.
    ///
    /// # Errors
    /// As `cover`.
    pub(crate) async fn rest(&mut self, head: &Head) -> Result<Vec<Lost>, LedgerError> {
        if self.bounded.is_none() {
            return Ok(Vec::new());
        }
        let mut to = self.next(head, head.state.boot_epoch)?;
        to.clean = true;
        self.advance(to, head).await
    }

    fn among(&mut self) -> Result<&mut Nodes, LedgerError> {
        let nodes = self.nodes.as_mut();
        nodes.ok_or(LedgerError::internal("find the other nodes' anchors"))
    }

    /// Others are looked after now.
    pub(crate) fn looks(&mut self) {
        self.looked = Instant::now();
    }

    /// What a node of several catches up from.
    ///
    /// # Errors
    /// Where there are no others; so with all that follow.
    pub(crate) fn source(&mut self) -> Result<Source, LedgerError> {
        Ok(self.among()?.source().clone())
    }

    /// Anchors a head of this node among those of the others. May be called again after an error, with the same head.
    ///
    /// # Errors
    /// `Token` and `Store` where they do not answer.
    pub(crate) async fn cover_among(
        &mut self,
        head: &Head,
        end: &LogEnd,
    ) -> Result<Ruling, LedgerError> {
        self.among()?.cover(head, end).await
    }

    /// The same of a head that another node has written, and the line that leads to it.
    ///
    /// # Errors
    /// As `cover_among`.
    pub(crate) async fn cover_anothers(
        &mut self,
        (head, end): (&Head, &LogEnd),
        line: &[(u64, [u8; 32])],
    ) -> Result<Ruling, LedgerError> {
        let nodes = self.among()?;
        nodes.knows(line);
        nodes.cover_anothers(head, end).await
    }

    /// Takes back a head that nobody was told of; what is believed is batch `believed`.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub(crate) async fn withdraw(&mut self, head: &Head, believed: u64) -> Result<(), LedgerError> {
        self.among()?.withdraw(head, believed).await
    }

    /// Whether this node is known to have made the anchor of a head, which nobody was told of.
    ///
    /// # Errors
    /// Where there are no other nodes.
    pub(crate) fn has_made(&mut self, head: &Head) -> Result<bool, LedgerError> {
        self.among()?.has_made(head)
    }

    /// Another anchor of a head's number that the token holds.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub(crate) async fn rival(&mut self, head: &Head) -> Result<Option<Anchor>, LedgerError> {
        self.among()?.rival(head).await
    }

    /// The head that this number has in the line of what is believed, if it is remembered.
    ///
    /// # Errors
    /// Where there are no other nodes.
    pub(crate) fn head_at(&mut self, seq: u64) -> Result<Option<[u8; 32]>, LedgerError> {
        Ok(self.among()?.at(seq))
    }

    /// Whether other nodes are known to have written after this number.
    ///
    /// # Errors
    /// Where there are no other nodes.
    pub(crate) fn knows_after(&mut self, seq: u64) -> Result<bool, LedgerError> {
        Ok(self.among()?.knows_after(seq))
    }

    fn next(&self, head: &Head, boot_epoch: u64) -> Result<Anchor, LedgerError> {
        let mut next = anchor_of(head, Some(&self.last))?;
        next.boot_epoch = boot_epoch;
        Ok(next)
    }

    /// Makes this anchor of a head the newest in every token; says in which it did not, where it did in others.
    async fn advance(&mut self, to: Anchor, head: &Head) -> Result<Vec<Lost>, LedgerError> {
        let (started, keys) = (Instant::now(), head.tagged_by());
        let advanced = several::advance(&mut self.each, (&to, &keys)).await;
        metrics::histogram!("custodyd_anchor_seconds").record(started.elapsed().as_secs_f64());
        // Where one of them failed, too: what another has taken is what the next start goes by.
        self.last = several::newest(&self.each)?;
        let lost = advanced?;
        if !lost.is_empty() {
            return Ok(lost);
        }
        self.looked = Instant::now();
        if let Some(bounded) = &mut self.bounded {
            // By it the next start knows that the kernel has not been started since.
            bounded
                .warm
                .write(&self.pool, &self.realm, (&self.last, &keys))
                .await?;
            bounded.anchored = Instant::now();
            bounded.ahead = false;
            bounded.charged.clear();
        }
        Ok(lost)
    }
}

impl Covered {
    fn in_token(lost: Vec<Lost>) -> Self {
        match lost.is_empty() {
            true => Self::InToken,
            false => Self::Except(lost),
        }
    }

    /// Nothing was anchored; these are gone.
    fn but_for(lost: Vec<Lost>) -> Self {
        match lost.is_empty() {
            true => Self::Here,
            false => Self::Except(lost),
        }
    }
}

/// Evidence against this node's line, or for a database that shows it less than it shows others.
pub(crate) fn contradicted(head: &Head, theirs: &Anchor) -> LedgerError {
    LedgerError::Refused(format!(
        "the token remembers batch {} of another node, which the database does not show as a successor of batch \
         {}: it was rolled back, or shows each node something else",
        theirs.seq, head.state.seq
    ))
}

fn anchor_of(head: &Head, last: Option<&Anchor>) -> Result<Anchor, LedgerError> {
    Ok(Anchor {
        serial: Anchor::serial_after(last),
        log_epoch: head.state.log_epoch,
        seq: head.state.seq,
        head: hash(head)?,
        boot_epoch: head.state.boot_epoch,
        clean: false,
        dirty: false,
    })
}

fn hash(head: &Head) -> Result<[u8; 32], LedgerError> {
    head.hash()
        .map_err(|_| LedgerError::internal("encode a head"))
}
