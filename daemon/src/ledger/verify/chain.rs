//! The log as a chain of heads: every entry goes into the root, and every state leaf must say
//! what the entries before it say.
//!
//! Fed entry by entry by whoever reads a log: from the database, from memory's side of it, or
//! from an exported file. Each head is reconstructed from its batch's state leaf and the root after
//! it, so `previous` is checked for all of them. Where an entry was altered, the cached tile that
//! still holds its hash tells which one, if the state leaf that follows agrees with the tile: a tile
//! alone is never believed. Pure: no I/O.

use custodyd_hsm::RealmName;
use tlog_tiles::{Hash, record_hash};

use super::findings::Findings;
use crate::ledger::head::{Head, State};
use crate::ledger::log::{
    BootLeaf, KeyChange, LEAF_BOOT, LEAF_RESTORE, LEAF_STATE, LogEnd, RestoreLeaf, StateLeaf, TILE,
    TileRow, TokenChange,
};
use crate::ledger::memory::Believed;
use crate::ledger::restore::Statement;
use crate::ledger::tree::Digest;

/// Entries after which what was verified is not kept for a second look any more.
const KEPT: usize = 4096;
/// A batch has no more entries than this; without a state leaf by then, there is none.
const LONGEST: usize = 1 << 18;

/// The newest head that was reconstructed.
#[derive(Debug)]
enum Last {
    /// No batch yet.
    Nothing,
    Head(Box<Head>),
    /// The next one can not be compared with it.
    Unknown,
}

/// What a restore allows, where that parses.
#[derive(Debug)]
struct Restore(Option<Statement>);

impl Restore {
    fn read(leaf: &[u8]) -> Self {
        let leaf = RestoreLeaf::parse(leaf);
        Self(leaf.and_then(|leaf| Statement::parse(&leaf.statement).ok()))
    }

    fn begins(&self, state: &State) -> bool {
        self.0
            .as_ref()
            .is_some_and(|statement| statement.begins(state))
    }
}

/// An entry by itself: its hash, and what it says. Taken from its bytes alone, so entries can be read in any order, on all
/// cores, before the chain takes them in theirs.
#[derive(Debug)]
pub(crate) struct Link {
    own: Hash,
    said: Said,
}

/// What an entry says, where it is for the chain; nothing where that does not parse.
#[derive(Debug)]
enum Said {
    State(Option<Box<StateLeaf>>),
    Boot(Option<Box<BootLeaf>>),
    Restore(Box<Restore>),
    /// Of an account, or of a kind that nobody writes.
    Other,
}

impl Link {
    pub(crate) fn read(leaf: &[u8]) -> Self {
        let said = match leaf.first() {
            Some(&LEAF_STATE) => Said::State(StateLeaf::parse(leaf).map(Box::new)),
            Some(&LEAF_BOOT) => Said::Boot(BootLeaf::parse(leaf).map(Box::new)),
            Some(&LEAF_RESTORE) => Said::Restore(Box::new(Restore::read(leaf))),
            _ => Said::Other,
        };
        Self {
            own: record_hash(leaf),
            said,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Chain {
    realm: RealmName,
    end: LogEnd,
    /// The edge before the entries that are kept, and these: their hashes, and what tiles say.
    before: LogEnd,
    kept: Vec<(Hash, Option<Hash>)>,
    /// How many of those a root has confirmed.
    confirmed: usize,
    last: Last,
    /// A restore stands since the last state: the next one must be the one that it allows.
    restored: Option<Restore>,
    /// The key versions that a boot leaf since the last state has changed.
    keys: Option<KeyChange>,
    /// The same of the tokens.
    tokens: Option<TokenChange>,
    /// Roots do not fit any more, and that has been said.
    broken: bool,
    batches: u64,
    /// Tiles that became full, as confirmed entries make them.
    full: Vec<TileRow>,
}

impl Chain {
    pub(crate) fn new(realm: &RealmName) -> Self {
        Self {
            realm: realm.clone(),
            end: LogEnd::default(),
            before: LogEnd::default(),
            kept: Vec::new(),
            confirmed: 0,
            last: Last::Nothing,
            restored: None,
            keys: None,
            tokens: None,
            broken: false,
            batches: 0,
            full: Vec::new(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.end.size()
    }

    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Takes the place of an entry that is not there.
    pub(crate) fn skip(&mut self, tile: Option<Hash>) {
        let own = tile.unwrap_or_default();
        self.last = Last::Unknown;
        self.end.append_hash(own);
        self.kept.push((own, tile));
    }

    /// Takes the next entry, and the hash that a cached tile has in its place.
    pub(crate) fn take(&mut self, link: Link, tile: Option<Hash>, findings: &mut Findings) {
        let Link { own, said } = link;
        let doubtful = tile.is_some_and(|tile| tile != own);
        let state = match said {
            Said::State(_) if doubtful => {
                // Named by the next root. Until then nothing in it is a reason to doubt others.
                self.last = Last::Unknown;
                None
            }
            Said::State(state) => {
                if state.is_none() {
                    self.last = Last::Unknown;
                    findings.entry(self.size(), "its state does not parse");
                }
                state
            }
            Said::Boot(boot) if !doubtful => {
                match boot {
                    Some(boot) => {
                        self.keys = boot.keys.or(self.keys.take());
                        self.tokens = boot.tokens.or(self.tokens.take());
                    }
                    None => findings.entry(self.size(), "what it says of a start does not parse"),
                }
                None
            }
            Said::Restore(restore) if !doubtful => {
                if matches!(*restore, Restore(None)) {
                    findings.entry(self.size(), "what it says of a restore does not parse");
                }
                self.restored = Some(*restore);
                None
            }
            Said::Boot(_) | Said::Restore(_) | Said::Other => None,
        };
        if let Some(state) = &state {
            self.judge(state, findings);
        }
        self.end.append_hash(own);
        self.kept.push((own, tile));
        if self.kept.len() > LONGEST {
            self.give_up("no batch is so long", findings);
        }
        let Some(state) = state else { return };
        self.batches += 1;
        self.restored = None;
        self.keys = None;
        self.tokens = None;
        self.last = Last::Head(Box::new(Head {
            state: state.state,
            size: self.end.size(),
            log_root: self.end.root(),
        }));
    }

    /// A state leaf that is about to be appended, against all before it.
    fn judge(&mut self, leaf: &StateLeaf, findings: &mut Findings) {
        let at = self.size();
        if leaf.size == at {
            self.confirm(leaf.log_root, findings);
        } else {
            findings.entry(
                at,
                &format!("it says that {} entries precede it", leaf.size),
            );
        }
        let state = &leaf.state;
        if state.realm != self.realm {
            findings.entry(at, &format!("it belongs to realm {}", state.realm));
        }
        let before = match &self.last {
            Last::Head(head) => head,
            Last::Nothing => &Believed::nothing(&self.realm, state.time).head,
            Last::Unknown => return,
        };
        if let Some(what) = follows(before, state, self.restored.as_ref(), self.broken) {
            findings.entry(at, &what);
        }
        // The first state may begin with newer keys: then the token had them before the realm.
        let first = matches!(self.last, Last::Nothing);
        let (was, is) = (&before.state.keys, &state.keys);
        let logged = match &self.keys {
            Some(change) => change.before == *was && change.after == *is,
            None => was == is,
        };
        if !first && !logged {
            findings.entry(at, "its key versions are not those that the log has led to");
        }
        let (was, is) = (&before.state.tokens, &state.tokens);
        let logged = match &self.tokens {
            Some(change) => change.before == *was && change.after == *is,
            None => was == is,
        };
        // A restore is of one token, which its approvers have before them.
        if !first && !logged && self.restored.is_none() {
            findings.entry(at, "its tokens are not those that the log has led to");
        }
    }

    /// All entries so far must have this root. Where they do not, tiles may tell which differ.
    fn confirm(&mut self, root: Digest, findings: &mut Findings) {
        if self.broken {
            return;
        }
        if self.end.root() != root {
            let (mended, altered) = self.by_the_tiles();
            if mended.root() != root {
                let fit = self.before.size() + self.confirmed as u64;
                let last = self.size().saturating_sub(1);
                findings.note(
                    "log_entries",
                    format!(
                        "log entries {fit} to {last}: one of them, or the state that follows, is \
                         not the one that was written"
                    ),
                );
                self.broken = true;
                return;
            }
            for index in altered {
                findings.entry(index, "it is not the one that the log's root names");
            }
            for (own, tile) in self.kept.iter_mut().skip(self.confirmed) {
                *own = tile.unwrap_or(*own);
            }
            self.end = mended;
        }
        self.confirmed = self.kept.len();
        if self.kept.len() >= KEPT {
            self.advance();
        }
    }

    /// The edge as it is where unconfirmed entries are what the tiles say, and which differ.
    fn by_the_tiles(&self) -> (LogEnd, Vec<u64>) {
        let (mut end, mut altered) = (self.before.clone(), Vec::new());
        for (at, (own, tile)) in self.kept.iter().enumerate() {
            let tile = tile.filter(|tile| at >= self.confirmed && tile != own);
            if tile.is_some() {
                altered.push(end.size());
            }
            end.append_hash(tile.unwrap_or(*own));
        }
        (end, altered)
    }

    fn give_up(&mut self, why: &str, findings: &mut Findings) {
        if !self.broken {
            let fit = self.before.size() + self.confirmed as u64;
            findings.entry(fit, &format!("no state of a batch follows it ({why})"));
        }
        self.broken = true;
        self.last = Last::Unknown;
        self.kept.clear();
        self.confirmed = 0;
        self.before = self.end.clone();
    }

    /// Tiles that became full and that a root has confirmed since this was asked last.
    pub(crate) fn full_tiles(&mut self) -> Vec<TileRow> {
        std::mem::take(&mut self.full)
    }

    /// What was confirmed is not looked at again.
    fn advance(&mut self) {
        let rows = self.end.take_rows();
        let full = rows.into_iter().filter(|row| row.data.len() == TILE * 32);
        self.full.extend(full);
        self.before = self.end.clone();
        self.kept.clear();
        self.confirmed = 0;
    }

    /// The end of the log: it must be the one that the head names. Returns the tiles that are
    /// still to be compared, those above the leaves that are not full among them.
    pub(crate) fn finish(&mut self, head: &Head, findings: &mut Findings) -> Vec<TileRow> {
        self.confirm(head.log_root, findings);
        match &self.last {
            Last::Head(last) if last.state != head.state => {
                let at = self.size().saturating_sub(1);
                findings.entry(at, "it is not the state that the head names");
            }
            Last::Nothing => {
                findings.entry(0, "no entry of the log says what the state is");
            }
            _ => {}
        }
        if self.broken {
            return Vec::new();
        }
        self.advance();
        let mut rows = self.full_tiles();
        for level in 1u8..8 {
            let count = self.size().checked_shr(8 * u32::from(level)).unwrap_or(0);
            let index = count / TILE as u64;
            let open = self.end.open_tile(level, index);
            if let Some(data) = open.filter(|data| !data.is_empty()) {
                rows.push(TileRow { level, index, data });
            }
        }
        rows
    }
}

/// Why a state does not follow a head, if it does not.
fn follows(
    before: &Head,
    state: &State,
    restored: Option<&Restore>,
    broken: bool,
) -> Option<String> {
    let (was, is) = (&before.state, state);
    if is.seq != was.seq + 1 {
        return Some(format!("batch {} follows batch {}", is.seq, was.seq));
    }
    // Where a root does not fit, neither do the hashes of the heads after it.
    if !broken && before.hash().ok() != Some(is.previous) {
        return Some("the head before it is another one".into());
    }
    if is.log_epoch < was.log_epoch || is.boot_epoch < was.boot_epoch {
        return Some("an epoch falls".into());
    }
    let as_approved = match restored {
        None => is.log_epoch == was.log_epoch && is.restored == was.restored,
        Some(restore) => is.log_epoch > was.log_epoch && restore.begins(is),
    };
    if !as_approved {
        return Some("its log epoch is not the one that a restore has begun".into());
    }
    (is.time < was.time).then(|| "its time is before that of the batch before".into())
}
