//! One account in the middle of a batch: the decisions that ran on it, and whom to answer.
//!
//! Called by the committer only. What a decision proposes stands here or is refused here, by
//! itself: nothing that one account does may fail the batch of all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use custodyd_hsm::{RecordId, RecordKind, SecretBytes, seal};
use custodyd_policies::Timestamp;
use tokio::sync::oneshot;

use crate::account::{Account, Alias, Mark};
use crate::ledger::anchoring::Demand;
use crate::ledger::deletions::Why;
use crate::ledger::erasure;
use crate::ledger::journal::{self, Haste, NewEvent};
use crate::ledger::members::Member;
use crate::ledger::receipts::{self, Noted};
use crate::ledger::{Decide, Journal, LedgerError, Loaded, Moment};
use crate::store::Batch;

/// Events of one change.
pub(crate) const MAX_EVENTS: usize = 64;
/// No change makes an account grow by more: a body has at most 64 KiB, and what the daemon adds
/// to it, bindings and numbers, is short.
const GROWTH: usize = 96 << 10;
/// What the ledger itself still writes into an envelope: three numbers, and the trail's marks.
const NUMBERS: usize = 384;
/// No account is larger.
pub(crate) const HARD_LIMIT: usize = seal::MAX_PLAINTEXT - NUMBERS;
/// No account becomes larger by something that it keeps. The room above is for what passes: an
/// owner whose account is full can still sign in, be charged for guesses, and remove things.
pub(crate) const SOFT_LIMIT: usize = seal::MAX_PLAINTEXT - (16 << 10);

pub(super) type Reply = oneshot::Sender<Result<Option<Loaded>, Arc<LedgerError>>>;

pub(super) struct Working {
    pub(super) account: Account,
    /// How long its plaintext is at most.
    size: usize,
    /// Generation, events and last log entry of the state that the batch began with.
    began: (u64, u64, Option<u64>),
    /// The oldest event that is kept, before the batch's own events.
    oldest: Option<Mark>,
    events: Vec<NewEvent>,
    /// The entries whose bodies retention takes.
    retired: Vec<u64>,
    /// Its aliases of then: their records are there.
    names: Vec<Alias>,
    /// The MAC keys that something of it was under then.
    mac_keys: BTreeSet<u16>,
    /// The entries whose bodies go, where the account does.
    erased: Option<Vec<u64>>,
    /// The log entries that say so.
    leaves: Vec<u64>,
    /// Where its events stand, once they are numbered.
    noted: Vec<Noted>,
    /// The changes of the batch that this account's commit answers, and the events of each.
    replies: Vec<(Reply, Range<usize>)>,
    /// Those who were refused because of what this account does in the batch, each with the error or their decision's
    /// own refusal: it is not true before the batch is.
    refused: Vec<(Reply, Option<Arc<LedgerError>>)>,
}

/// A decision that the limits allow, before it stands.
pub(super) struct Proposal {
    pub(super) account: Account,
    size: usize,
    events: Vec<NewEvent>,
    retired: Vec<u64>,
    erased: Option<Vec<u64>>,
}

/// How soon the token must know of what these accounts did.
pub(super) fn demand(working: &BTreeMap<RecordId, Working>) -> Demand {
    let mut demand = Demand::default();
    for (record, entry) in working {
        demand.at_once |= entry.is_erased();
        for event in &entry.events {
            match event.haste() {
                Haste::AtOnce => demand.at_once = true,
                Haste::Charged => demand.charged.push(*record),
                Haste::UsesUp => demand.uses_up = true,
                Haste::None => {}
            }
        }
    }
    demand
}

impl Working {
    pub(super) fn new(account: Account, size: usize) -> Self {
        let trail = &account.trail;
        // What a new account lists has no records yet.
        let (names, mac_keys) = match account.generation {
            0 => (Vec::new(), BTreeSet::new()),
            _ => (account.aliases.clone(), account.mac_keys()),
        };
        Self {
            size,
            began: (account.generation, trail.count, trail.last_index),
            oldest: trail.oldest,
            names,
            mac_keys,
            account,
            events: Vec::new(),
            retired: Vec::new(),
            erased: None,
            leaves: Vec::new(),
            noted: Vec::new(),
            replies: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn is_changed(&self) -> bool {
        !self.replies.is_empty()
    }

    pub(super) fn is_erased(&self) -> bool {
        self.erased.is_some()
    }

    /// Runs a decision on a copy, and proposes the copy if both the decision and the limits say
    /// so. `None` is the decision's own refusal, which its author gets.
    pub(super) fn decide(
        &self,
        decide: Decide,
        now: Timestamp,
    ) -> Result<Option<Proposal>, LedgerError> {
        let mut account = self.account.clone();
        let mut noted = Journal::default();
        if !decide(&mut account, Moment { now }, &mut noted) {
            return Ok(None);
        }
        let erased = match noted.erasure {
            // An event that is not in the list would keep its body.
            Some(listed) if listed.count != self.began.1 || !self.events.is_empty() => {
                return Err(LedgerError::Stale);
            }
            // One in the list has lost its body to retention.
            Some(listed) if listed.oldest != self.oldest => return Err(LedgerError::Stale),
            Some(listed) => Some(listed.entries),
            None => None,
        };
        if erased.is_some() {
            account.aliases.clear();
            noted.events.clear();
        }
        let retired = match noted.retirement {
            Some(step) => step.take_from(&mut account.trail)?,
            None => Vec::new(),
        };
        account.forget_expired(now);
        let size = self.within_limits(&account, &noted.events)?;
        Ok(Some(Proposal {
            account,
            size,
            events: noted.events,
            retired,
            erased,
        }))
    }

    pub(super) fn accept(&mut self, mut proposal: Proposal, reply: Reply) {
        self.account = proposal.account;
        self.oldest = self.account.trail.oldest;
        self.retired.append(&mut proposal.retired);
        self.size = proposal.size;
        let first = self.events.len();
        self.events.append(&mut proposal.events);
        self.erased = proposal.erased;
        self.replies.push((reply, first..self.events.len()));
    }

    /// Refuses somebody because of what this account does in the batch, once that is done.
    pub(super) fn refuse_with(&mut self, reply: Reply, why: Option<LedgerError>) {
        self.refused.push((reply, why.map(Arc::new)));
    }

    /// The aliases that `account` has and the state that the batch began with has not.
    pub(super) fn claims<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = &'a Alias> {
        let had = |alias: &Alias| {
            self.names
                .iter()
                .any(|name| name.record() == alias.record())
        };
        account.aliases.iter().filter(move |alias| !had(alias))
    }

    /// Whether what `account` has and that state has not is under this MAC key. What was made under another, before
    /// a rotation, was looked for under too few keys, and may be under one that nobody is counted under any more.
    pub(super) fn is_made_under(&self, mac_key: u16, account: &Account) -> bool {
        let mut claims = self.claims(account);
        claims.all(|alias| alias.mac_key() == mac_key)
            && account
                .mac_keys()
                .difference(&self.mac_keys)
                .all(|made| *made == mac_key)
    }

    /// The aliases that the state that the batch began with has, and `account` has not.
    pub(super) fn releases<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = &'a Alias> {
        let kept = |name: &Alias| {
            let mut aliases = account.aliases.iter();
            aliases.any(|alias| alias.record() == name.record())
        };
        self.names.iter().filter(move |name| !kept(name))
    }

    /// Gives the account its generation, and its events their numbers and their places in the
    /// log. May be run again for another place: it begins with what the batch began with.
    pub(super) fn number(
        &mut self,
        record: &RecordId,
        size: &mut u64,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Result<(), LedgerError> {
        let (generation, count, last_index) = self.began;
        self.account.generation = generation + 1;
        self.account.trail.count = count;
        self.account.trail.last_index = last_index;
        self.account.trail.oldest = self.oldest;
        self.noted.clear();
        for event in &self.events {
            let made = journal::append(&mut self.account, record, *size, now, event.clone())?;
            self.noted.push(Noted {
                index: *size,
                leaf: made.leaf.clone(),
                kind: event.kind,
            });
            batch.entries.push((*size, made.leaf));
            batch.bodies.push((*size, made.body));
            *size += 1;
        }
        for made in Why::Retention.leaves(&self.retired)? {
            batch.entries.push((*size, made.leaf));
            batch.bodies.push((*size, made.body));
            *size += 1;
        }
        batch.erased.extend_from_slice(&self.retired);
        self.leaves.clear();
        if let Some(entries) = &self.erased {
            for made in Why::Erasure.leaves(entries)? {
                batch.entries.push((*size, made.leaf));
                batch.bodies.push((*size, made.body));
                self.leaves.push(*size);
                *size += 1;
            }
            batch.erased.extend_from_slice(entries);
        }
        Ok(())
    }

    /// What takes the account's place: its kind and the plaintext to seal.
    pub(super) fn encode(
        &mut self,
        now: Timestamp,
    ) -> Result<(RecordKind, SecretBytes), serde_json::Error> {
        if self.is_erased() {
            let plaintext = erasure::tombstone(now, &self.leaves)?;
            return Ok((RecordKind::Tombstone, SecretBytes::from(plaintext)));
        }
        let plaintext = self.account.encode()?;
        self.size = plaintext.len();
        Ok((RecordKind::Account, plaintext))
    }

    pub(super) fn answer(self, member: &Member) {
        let loaded = Loaded {
            account: Arc::new(self.account),
            record: member.id,
            digest: member.digest,
            size: self.size,
            noted: None,
        };
        for (reply, events) in self.replies {
            let mut loaded = loaded.clone();
            loaded.noted = self.noted.get(events).and_then(receipts::of_a_change);
            let _ = reply.send(Ok(Some(loaded)));
        }
        for (reply, why) in self.refused {
            let _ = reply.send(why.map_or(Ok(None), Err));
        }
    }

    pub(super) fn refuse(self, error: &Arc<LedgerError>) {
        let refused = self.refused.into_iter().map(|(reply, _)| reply);
        for reply in self
            .replies
            .into_iter()
            .map(|(reply, _)| reply)
            .chain(refused)
        {
            let _ = reply.send(Err(Arc::clone(error)));
        }
    }

    /// How long the proposed account is at most, if it may be that long. It is measured only
    /// where it could matter: most accounts are far from full.
    fn within_limits(&self, proposed: &Account, events: &[NewEvent]) -> Result<usize, LedgerError> {
        let size = |account: &Account| {
            let size = account.encoded_len();
            size.map_err(|_| LedgerError::internal("encode an envelope"))
        };
        if events.len() > MAX_EVENTS {
            return Err(LedgerError::TooManyEvents { limit: MAX_EVENTS });
        }
        let keeps = events.iter().any(|event| event.kind.keeps_something());
        let limit = if keeps { SOFT_LIMIT } else { HARD_LIMIT };
        let at_most = self.size.saturating_add(GROWTH);
        if at_most <= limit {
            return Ok(at_most);
        }
        let exactly = size(proposed)?;
        if exactly > limit && exactly > size(&self.account)? {
            return Err(LedgerError::TooLarge);
        }
        Ok(exactly)
    }
}
