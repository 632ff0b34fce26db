//! Catching up: from what a node believes to a newer head that the database shows.
//!
//! Called by the committer of a realm that several nodes serve, when it has its turn, when a batch of its
//! own has an unknown outcome, and when its readers want to know whether they read the newest. The database
//! may show any head that was ever sealed. So: this token has made it, for this realm and log epoch, by the newest MAC
//! key that we believe in; the log that it names goes on from ours; the last entry says of the state what the head says; and the
//! digests that have changed fold into its state root. Nothing is installed here, and nothing that is found
//! here may be told to anybody: whether a fork can still take the head back, the token says (`anchoring::nodes`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use custodyd_hsm::{KeyId, KeyPurpose, Pool, RealmName};

use super::head::Head;
use super::log::{LogEnd, StateLeaf};
use super::memory::Memory;
use super::tree::{Digest, StateTree, Update};
use super::{LedgerError, start};
use crate::store::{HeadRow, Store};

/// Entries that are read at a time.
const CHUNK: u64 = 4096;

/// What the database shows, against what a node believes.
#[derive(Debug)]
pub(crate) enum Shown {
    /// The same head.
    Same,
    /// One that descends from it.
    Newer(Box<Newer>),
    /// One with a smaller number.
    Older(Box<Head>),
    /// One of another line.
    Other(Box<Head>),
}

/// A head that descends from what is believed, with its log.
#[derive(Debug)]
pub(crate) struct Newer {
    pub(crate) head: Head,
    pub(crate) row: HeadRow,
    pub(crate) end: LogEnd,
    /// The heads after the one that is believed, by their numbers, this one last.
    pub(crate) line: Vec<(u64, Digest)>,
}

/// What the database holds, to a node that asks.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pool: Pool,
    pub(crate) realm: RealmName,
}

impl Source {
    /// The head that the database shows, against another one and its log.
    ///
    /// # Errors
    /// `Store` and `Token` where they do not answer; `Refused` and `Tampered` where what is shown is no head of
    /// this realm, or the entries before it are not there; `Outgrown` where it is, and says that no custodyd of this age serves it.
    pub(crate) async fn look(&self, head: &Head, end: &LogEnd) -> Result<Shown, LedgerError> {
        let row = self.store.head().await?.examine();
        self.judge(row, head, end).await
    }

    /// The same of a row that was shown already.
    ///
    /// # Errors
    /// As `look`.
    pub(crate) async fn judge(
        &self,
        row: Option<HeadRow>,
        head: &Head,
        end: &LogEnd,
    ) -> Result<Shown, LedgerError> {
        let row = row.ok_or_else(|| LedgerError::Tampered("the head's row is gone".into()))?;
        let encoding = |_| LedgerError::internal("encode a head");
        if row.seq == head.state.seq && row.body == head.encode().map_err(encoding)? {
            return Ok(Shown::Same);
        }
        let shown = match Head::parse(&row, &self.realm) {
            Ok(shown) => shown,
            Err(why) => {
                let outgrown = Head::outgrows_us(&self.pool, &self.realm, &row).await?;
                return Err(outgrown.map_or(LedgerError::Refused(why), LedgerError::Outgrown));
            }
        };
        Head::authentic(&self.pool, &self.realm, &row).await?;
        if shown.state.log_epoch != head.state.log_epoch || shown.state.seq == head.state.seq {
            return Ok(Shown::Other(Box::new(shown)));
        }
        if shown.state.seq < head.state.seq {
            return Ok(Shown::Older(Box::new(shown)));
        }
        self.is_by_the_newest_key(head, &shown)?;
        let Some((end, line)) = self.follow((head, end), &shown).await? else {
            return Ok(Shown::Other(Box::new(shown)));
        };
        Ok(Shown::Newer(Box::new(Newer {
            head: shown,
            row,
            end,
            line,
        })))
    }

    /// As `anchoring::mac_keys` has it of a start. Who knows an older key alone makes heads whose log names what they like:
    /// what another line has anchored would be taken for what comes after this one.
    fn is_by_the_newest_key(&self, believed: &Head, shown: &Head) -> Result<(), LedgerError> {
        #[cfg(test)]
        if self.store.weakness().older_mac_keys {
            return Ok(());
        }
        match believed.tagged_by().last() {
            Some(newest) if !shown.tagged_by().contains(newest) => {
                let key = KeyId::new(KeyPurpose::Mac, *newest);
                Err(LedgerError::Tampered(format!(
                    "{key} has tagged batch {}, and not batch {} that the database shows: it was made by who knows an older \
                     MAC key and not this one",
                    believed.state.seq, shown.state.seq
                )))
            }
            _ => Ok(()),
        }
    }

    /// The log of a newer head, if it continues this one, and the heads on the way.
    async fn follow(
        &self,
        (head, end): (&Head, &LogEnd),
        to: &Head,
    ) -> Result<Option<(LogEnd, Vec<(u64, Digest)>)>, LedgerError> {
        let encoding = |_| LedgerError::internal("encode a head");
        let mut end = end.clone();
        if to.size <= end.size() {
            return Ok(None);
        }
        let mut line = Vec::new();
        let mut before = (head.state.seq, head.hash().map_err(encoding)?);
        let mut last = None;
        while end.size() < to.size {
            let count = CHUNK.min(to.size - end.size());
            for leaf in start::leaves(&self.store, end.size(), count).await? {
                let at = end.size();
                end.append(&leaf);
                last = StateLeaf::parse(&leaf).filter(|leaf| leaf.size == at);
                let Some(leaf) = &last else { continue };
                if leaf.state.seq == before.0 + 1 {
                    // The head of this batch is known by what the next one says of it.
                    if leaf.state.previous != before.1 && line.is_empty() {
                        return Ok(None);
                    }
                    line.push((leaf.state.seq, leaf.state.previous));
                    before.0 = leaf.state.seq;
                }
            }
        }
        // The other node has written the tiles.
        end.take_rows();
        let ends = last.is_some_and(|leaf| leaf.state == to.state);
        if end.root() != to.log_root || before.0 != to.state.seq || !ends {
            return Ok(None);
        }
        Ok(Some((end, after(line, to.hash().map_err(encoding)?))))
    }

    /// What makes the state that is believed the one that the head names, and the buckets that are others in it.
    ///
    /// # Errors
    /// `Overtaken` where the database shows another head by now; `Tampered` where it shows this one, and not its state;
    /// `Store` where it does not answer.
    pub(crate) async fn state(
        &self,
        memory: &Memory,
        newer: &Newer,
    ) -> Result<(Update, BTreeSet<u32>), LedgerError> {
        let seq = memory.head().state.seq;
        // The numbers beside the digests are there for speed only: where they lie, all are read.
        for after in [Some(seq), None] {
            let shown = self.store.newer(after).await?.examine();
            let digests: BTreeMap<u32, Digest> = shown
                .digests
                .into_iter()
                .filter_map(|(bucket, digest)| Some((bucket, digest.try_into().ok()?)))
                .collect();
            let (update, changed) = {
                let believed = memory.read();
                let changed = match after {
                    Some(_) => believed.tree.changed_by(digests),
                    None => believed.tree.changed_to(&StateTree::fold(&digests)),
                };
                (believed.tree.with(&changed), changed)
            };
            if update.root() == newer.head.state.state_root {
                return Ok((update, changed.into_keys().collect()));
            }
            if shown.head.as_ref() != Some(&newer.row) {
                return Err(LedgerError::Overtaken);
            }
        }
        Err(LedgerError::Tampered(format!(
            "the digests of buckets are not those that batch {} names",
            newer.head.state.seq
        )))
    }
}

/// Each state leaf names the head before its own: with the last head's hash after them, they name them all.
fn after(line: Vec<(u64, Digest)>, last: Digest) -> Vec<(u64, Digest)> {
    let hashes = line.iter().skip(1).map(|(_, previous)| *previous);
    let hashes: Vec<Digest> = hashes.chain([last]).collect();
    let numbers = line.into_iter().map(|(seq, _)| seq);
    numbers.zip(hashes).collect()
}
