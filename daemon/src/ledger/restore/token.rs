//! What the token holds of a realm, each anchor against the history that a database shows.
//!
//! Read anew by `propose` and by `accept`, and by `ledger anchor` for people. Mostly it is one anchor, or one beside what
//! a crash has left of before. Two that exclude each other are there where a writer ended before it took its own
//! back: then one of them at the most was told of, and neither the token nor the database can say which. An administrator
//! can bring that about (with a fork, a copy, a kill), and chooses what the database shows. So nothing is decided here.
//! The approvers see every anchor; whichever side they go on from, the restore charges and voids what any restore does,
//! so that whoever had the other side gains what a rollback with an approval would have given them, and no more.

use std::sync::Arc;

use custodyd_hsm::anchor::{self, Anchor};
use custodyd_hsm::{AnchorFault, Error, KeyId, KeyPurpose, Pool, RealmName};
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::statement::Remembered;
use crate::ledger::anchoring::{Mode, descent, mac_keys, remembered_here};
use crate::ledger::head::Head;
use crate::ledger::memory::Believed;
use crate::ledger::tree::Digest;
use crate::ledger::{LedgerError, keys};
use crate::store::Store;

/// So many anchors stand in one statement: people have to read it.
const MOST: usize = 8;

/// One of the token's anchors, where it holds several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    pub anchor: Remembered,
    /// What it stands for, where the database has that; else it is of another history, or of a later state.
    pub in_database: Option<Place>,
}

/// A batch of the database's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub log_entries: u64,
    /// When it was written, in seconds since the Unix epoch.
    pub time: Timestamp,
    #[serde(with = "hex::serde")]
    pub state_root: Digest,
}

#[derive(Debug)]
pub(in crate::ledger) struct Token {
    /// By rising serial.
    anchors: Vec<Anchor>,
    /// The one that counts; none where they exclude each other.
    newest: Option<Anchor>,
    /// What this boot of the kernel remembers beyond it: batches that were told of and that the token does not know.
    here: Option<Anchor>,
    /// The newest MAC key that tags any of them, where there are several.
    newest_key: Option<u16>,
    /// The keys that the database's head accepts are none of them.
    by_other_keys: bool,
}

impl Token {
    /// Anchors count by any MAC key that the token holds: those of after a rotation are under keys that a database of before
    /// does not name.
    ///
    /// # Errors
    /// `Token` where it does not answer, or holds what is no anchor.
    pub(in crate::ledger) async fn read(
        pool: &Pool,
        realm: &RealmName,
        mode: Mode<'_>,
    ) -> Result<Self, LedgerError> {
        let read = || {
            let of = realm.clone();
            pool.call("read-anchor", move |custody| anchor::all(custody, &of))
        };
        let (anchors, by_other_keys) = match read().await {
            Err(Error::Anchors {
                fault: AnchorFault::Forged,
                ..
            }) => {
                keys::believe_held(pool).await?;
                (read().await?, true)
            }
            read => (read?, false),
        };
        let newest = anchor::newest_of(&anchors).ok().flatten().cloned();
        let here = match &newest {
            Some(last) => remembered_here(mode, pool, realm, last).await?,
            None => None,
        };
        // One that was lost took its anchors along: what it held is what somebody may have rotated to.
        let newest_key = match anchors.is_empty() {
            true => mac_keys::newest_held(pool).await?,
            false => mac_keys::newest(pool, realm).await?,
        };
        Ok(Self {
            anchors,
            newest,
            here,
            newest_key,
            by_other_keys,
        })
    }

    /// Whether nobody starts on the database by the keys that its head accepts.
    pub(super) fn is_by_other_keys(&self) -> bool {
        self.by_other_keys
    }

    /// The MAC keys that this head is tagged by, if the newest that tags an anchor is none of them.
    pub(super) fn older_keys(&self, head: &Head) -> Vec<String> {
        let tagged_by = head.tagged_by();
        if self.newest_key.is_none_or(|key| tagged_by.contains(&key)) {
            return Vec::new();
        }
        let named = |version: &u16| KeyId::new(KeyPurpose::Mac, *version).to_string();
        tagged_by.iter().map(named).collect()
    }

    pub(super) fn newest(&self) -> Option<&Anchor> {
        self.newest.as_ref()
    }

    pub(super) fn here(&self) -> Option<&Anchor> {
        self.here.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Whether nobody can say which of its anchors counts.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.newest.is_none() && !self.is_empty()
    }

    /// The greatest that any of them names, whichever counted.
    pub(super) fn log_epoch(&self) -> Option<u64> {
        self.anchors.iter().map(|anchor| anchor.log_epoch).max()
    }

    /// As `log_epoch`.
    pub(super) fn boot_epoch(&self) -> u64 {
        let all = self.anchors.iter().map(|anchor| anchor.boot_epoch);
        all.max().unwrap_or(0)
    }

    /// The newest anchor, if it is this head's.
    ///
    /// # Errors
    /// Never for heads that were parsed.
    pub(super) fn anchor_of(&self, head: &Head) -> Result<Option<&Anchor>, LedgerError> {
        let (log_epoch, hash) = (head.state.log_epoch, hash(head)?);
        let newest = self.newest.as_ref();
        Ok(newest.filter(|anchor| anchor.log_epoch == log_epoch && anchor.head == hash))
    }

    /// What it holds besides the anchor of this head.
    ///
    /// # Errors
    /// As `anchor_of`.
    pub(super) fn all_but(&self, head: &Head) -> Result<Vec<Anchor>, LedgerError> {
        let hash = hash(head)?;
        let others = self.anchors.iter().filter(|anchor| anchor.head != hash);
        Ok(others.cloned().collect())
    }

    /// Each of several anchors, and what the database has of it. One alone is the newest, and needs no second word.
    ///
    /// # Errors
    /// `Refused` where they are too many to be read by people; `Tampered` and `Store` where the log can not be read.
    pub(in crate::ledger) async fn claims(
        &self,
        store: &Arc<dyn Store>,
        found: &Believed,
    ) -> Result<Vec<Claim>, LedgerError> {
        if self.anchors.len() < 2 {
            return Ok(Vec::new());
        }
        if self.anchors.len() > MOST {
            return Err(LedgerError::Refused(format!(
                "the token holds {} anchors of this realm, and approvers are shown {MOST} at the most: a token that is \
                 written by nobody has one or two, so find out who writes to it and stop that first",
                self.anchors.len()
            )));
        }
        let mut claims = Vec::new();
        for anchor in &self.anchors {
            claims.push(Claim {
                anchor: Remembered::of(anchor),
                in_database: place(anchor, store, found).await?,
            });
        }
        Ok(claims)
    }
}

fn hash(head: &Head) -> Result<Digest, LedgerError> {
    let hash = head.hash();
    hash.map_err(|_| LedgerError::internal("encode a head"))
}

/// The batch that an anchor stands for, if this database's history has it.
async fn place(
    anchor: &Anchor,
    store: &Arc<dyn Store>,
    found: &Believed,
) -> Result<Option<Place>, LedgerError> {
    let (head, end) = (&found.head, &found.end);
    if anchor.seq > head.state.seq {
        return Ok(None);
    }
    let shown = match anchor.seq == head.state.seq {
        true => hash(head)?,
        false => descent::successor(store, (head.size, end), anchor.seq).await?,
    };
    if shown != anchor.head {
        return Ok(None);
    }
    let leaf = descent::batch(store, (head.size, end), anchor.seq).await?;
    Ok(Some(Place {
        log_entries: leaf.size.saturating_add(1),
        time: leaf.state.time,
        state_root: leaf.state.state_root,
    }))
}
