//! The database: every state that was ever committed, and the one that it shows.
//!
//! The states are a tree, for a batch that was never anchored may be dropped, and another written in its place. What is
//! shown is one of them, unless somebody has altered it.

use std::collections::BTreeMap;

use crate::ledger::faults::dice::Dice;
use crate::ledger::faults::rig::realm_name;
use crate::ledger::faults::tables::{DIGESTS, HEAD, MEMBERS, RECORDS, Row, TABLES, Tables};
use crate::ledger::head::Head;
use crate::ledger::tree::Digest;
use crate::store::admin::Cell;
use crate::store::{Batch, CommitError, HeadRow, StoreError};

#[derive(Clone, Debug)]
struct Version {
    tables: Tables,
    parent: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    versions: Vec<Version>,
    by_head: BTreeMap<Digest, usize>,
    pub(super) shown: Tables,
    /// The state that is shown, as long as nobody has altered it.
    pristine: Option<usize>,
    /// Heads that the database has seen, by the daemon's life and their number.
    seen: BTreeMap<(u64, u64), Vec<u8>>,
}

/// The head of these tables, as its row.
pub(super) fn head_row(tables: &Tables) -> Option<Result<HeadRow, StoreError>> {
    let row = tables.rows(HEAD).next()?;
    let [_, Cell::Number(seq), Cell::Bytes(body), Cell::Bytes(mac)] = row.as_slice() else {
        return Some(Err(malformed("the head")));
    };
    let row = u64::try_from(*seq).map(|seq| HeadRow {
        seq,
        body: body.to_vec(),
        mac: mac.to_vec(),
    });
    Some(row.map_err(|_| malformed("the head's number")))
}

pub(super) fn malformed(problem: &str) -> StoreError {
    StoreError::Malformed {
        operation: "read",
        problem: problem.to_owned(),
    }
}

fn refused(problem: &str) -> StoreError {
    StoreError::Refused {
        operation: "write",
        problem: problem.to_owned(),
    }
}

impl Disk {
    /// Writes a batch, as a transaction that demands its parent; `shown` is whether it is there afterwards.
    pub(super) fn take(&mut self, batch: &Batch, shown: bool) -> Result<(), CommitError> {
        let there = head_row(&self.shown).and_then(Result::ok);
        if there.map_or(0, |head| head.seq) != batch.parent {
            return Err(CommitError::LostRace);
        }
        let version = self.version(batch);
        let version = version.map_err(|what| CommitError::NotWritten(refused(what)));
        let (hash, parent) = version?;
        let before = parent.map(|parent| self.versions[parent].tables.clone());
        let mut tables = before.unwrap_or_default();
        tables.apply(batch);
        // The identical batch, written twice, is one state: a late commit may land where an older state is shown.
        let known = self.by_head.get(&hash).copied();
        let at = known.unwrap_or(self.versions.len());
        if shown && self.pristine == parent {
            self.shown = tables.clone();
            self.pristine = Some(at);
        } else if shown {
            self.shown.apply(batch);
            self.pristine = None;
        }
        if known.is_none() {
            self.by_head.insert(hash, at);
            self.versions.push(Version { tables, parent });
        }
        Ok(())
    }

    /// The batch's head, and the state that it was made upon.
    fn version(&self, batch: &Batch) -> Result<(Digest, Option<usize>), &'static str> {
        let head = Head::parse(&batch.head, &realm_name());
        let head = head.map_err(|_| "the batch's head does not parse")?;
        let parent = self.with_head(&head.state.previous);
        if parent.is_none() && !self.versions.is_empty() {
            return Err("nothing that it could follow was ever written");
        }
        Ok((head.hash().map_err(|_| "the head does not encode")?, parent))
    }

    /// Somebody sees the head of this batch; whether it is the only one of its number in this life.
    pub(super) fn sees(&mut self, life: u64, batch: &Batch) -> bool {
        let head = &batch.head;
        let seen = self.seen.entry((life, head.seq));
        *seen.or_insert_with(|| head.body.clone()) == head.body
    }

    /// The state that has this head, if there ever was one.
    pub(super) fn with_head(&self, hash: &Digest) -> Option<usize> {
        self.by_head.get(hash).copied()
    }

    /// Whether one state is another, or made upon it.
    pub(super) fn descends(&self, of: usize, from: usize) -> bool {
        let mut at = Some(of);
        while let Some(now) = at {
            if now == from {
                return true;
            }
            at = self.versions[now].parent;
        }
        false
    }

    /// Shows an older state, of the newest ones mostly.
    pub(super) fn rolls_back(&mut self, dice: &mut Dice) -> usize {
        let count = self.versions.len();
        let within = if dice.chance(70) { count.min(4) } else { count };
        let back = dice.below(within);
        let at = count - 1 - back;
        self.shown = self.versions[at].tables.clone();
        self.pristine = Some(at);
        at
    }

    /// Shows the newest state that descends from all of these.
    pub(super) fn heals(&mut self, anchored: &[usize]) -> bool {
        let fits = |at: &usize| anchored.iter().all(|from| self.descends(*at, *from));
        let newest = (0..self.versions.len()).rev().find(fits);
        if let Some(at) = newest {
            self.shown = self.versions[at].tables.clone();
            self.pristine = Some(at);
        }
        newest.is_some()
    }

    /// A record as it was once, with the list that vouched for it and that list's digest.
    pub(super) fn puts_back(&mut self, dice: &mut Dice) -> usize {
        let at = dice.below(self.versions.len());
        let then = &self.versions[at].tables;
        let count = then.rows(RECORDS).count();
        let Some(row) = then.rows(RECORDS).nth(dice.below(count.max(1))) else {
            return at;
        };
        if let Some(Cell::Bytes(id)) = row.first() {
            let bucket = Cell::Number(i64::from(id[0]) << 8 | i64::from(id[1]));
            self.shown.put(RECORDS, row.clone());
            for table in [MEMBERS, DIGESTS] {
                if let Some(row) = then.row(table, std::slice::from_ref(&bucket)) {
                    self.shown.put(table, row.clone());
                }
            }
            self.pristine = None;
        }
        at
    }

    /// A row is deleted, put back as it was once, or changed; says what was done.
    pub(super) fn alters(&mut self, dice: &mut Dice) -> (usize, &'static str) {
        let table = dice.below(TABLES.len());
        let count = self.shown.rows(table).count();
        if count == 0 {
            return (table, "nothing");
        }
        let row = self.shown.rows(table).nth(dice.below(count));
        let row = row.cloned().unwrap_or_default();
        self.pristine = None;
        let keys = TABLES[table].key;
        match dice.below(4) {
            0 => {
                self.shown.remove(table, &row[..keys]);
                (table, "delete")
            }
            1 => {
                let at = dice.below(self.versions.len());
                match self.versions[at].tables.row(table, &row[..keys]) {
                    Some(old) => {
                        let old = old.clone();
                        self.shown.put(table, old);
                        (table, "put back")
                    }
                    None => (table, "nothing"),
                }
            }
            _ => {
                let column = dice.below(row.len() - keys) + keys;
                let altered = altered(row, column, dice);
                self.shown.put(table, altered);
                (table, "change")
            }
        }
    }
}

fn altered(mut row: Row, column: usize, dice: &mut Dice) -> Row {
    let cell = match &row[column] {
        Cell::Number(number) => Cell::Number(match dice.below(3) {
            0 => number.saturating_add(1),
            1 => number.saturating_sub(1),
            _ => -1,
        }),
        Cell::Bytes(bytes) => {
            let mut bytes = bytes.to_vec();
            match (dice.below(3), bytes.len()) {
                (0, length) => bytes.truncate(length / 2),
                (_, 0) => bytes.push(1),
                // All bits of it: whether a letter of a hash is one still after a bit's change, no seed says.
                (_, length) => bytes[dice.below(length)] ^= 0xff,
            }
            Cell::Bytes(bytes.into())
        }
    };
    row[column] = cell;
    row
}
