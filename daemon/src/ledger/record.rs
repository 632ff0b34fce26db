//! Reading a record: from rows that the database claims, or from what this process committed
//! last, to a state that is believed.
//!
//! The adversary answers every query. So: the identifier is computed in the token; the member
//! list must be the newest one by the state tree in memory, is parsed strictly, and says which
//! content the record must have; the sealed bytes must
//! have that digest, and open under exactly this realm, app, account and generation; the
//! envelope inside must say the same once more.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{
    AccountId, AppId, KeyPurpose, Pool, RealmName, RecordId, RecordKind, SecretBytes, mac,
};

use super::cache::{Cache, Committed};
use super::checkpoint::Checkpoints;
use super::erasure;
use super::freshness::Freshness;
use super::head::Head;
use super::looks::Looks;
use super::members::{Member, MemberList};
use super::memory::{Memory, Shown};
use super::receipts::Noted;
use super::writes::Writes;
use super::{BUCKET_BITS, LedgerError};
use crate::account::Account;
use crate::clock::Clock;
use crate::store::{HeadRow, RecordRow, Store};

/// How often a row is read whose member list is neither believed nor pending although neither has changed
/// meanwhile, and the pause after.
const READS: u32 = 5;
const BETWEEN_READS: Duration = Duration::from_millis(20);
/// How often it is read at all: a list that changes faster than it can be read is busy, and proves nothing.
const TURNS: u32 = 100;
/// How long a reader waits for a batch to be anchored.
const PATIENCE: Duration = Duration::from_secs(10);
const ANCHORING: LedgerError = LedgerError::Late("to anchor the batch before");

/// A verified account, and exactly which version of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub account: Arc<Account>,
    pub(super) record: RecordId,
    pub(super) digest: [u8; 32],
    /// How long the plaintext is.
    pub(super) size: usize,
    /// The event of the change that made it, where one did and this is its answer.
    pub(super) noted: Option<Noted>,
}

/// What stands under an account's identifier.
pub(super) enum Standing {
    Absent,
    /// There was one, and there will be none again.
    Erased,
    Account(Loaded),
}

impl Standing {
    pub(super) fn account(self) -> Option<Loaded> {
        match self {
            Self::Account(loaded) => Some(loaded),
            Self::Absent | Self::Erased => None,
        }
    }
}

impl Loaded {
    #[must_use]
    pub fn record(&self) -> &RecordId {
        &self.record
    }
}

#[derive(Debug)]
pub struct Reader {
    store: Arc<dyn Store>,
    pool: Pool,
    realm: RealmName,
    cache: Arc<Cache>,
    memory: Memory,
    clock: Arc<Clock>,
    checkpoints: Checkpoints,
    freshness: Freshness,
    looks: Looks,
    writes: Writes,
}

/// The newest batch that the database shows.
enum Newest {
    Believed,
    /// This node's own, which is pending: who reads what it changes waits for it.
    Own,
    /// Another node's, by its number.
    Anothers(u64),
    /// The server does not say.
    Unknown,
}

/// What the first visit to the token found.
enum Found {
    /// Opened from memory.
    Here(Arc<Committed>, SecretBytes),
    /// To be looked for in the database, under each MAC key that is accepted, the current one first.
    NotHere(Vec<RecordId>),
}

impl Reader {
    #[must_use]
    pub(super) fn new(
        store: Arc<dyn Store>,
        pool: Pool,
        realm: RealmName,
        cache: Cache,
        memory: Memory,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            freshness: Freshness::new(store.comes_back() || store.is_shared(), Arc::clone(&clock)),
            store,
            pool,
            realm,
            cache: Arc::new(cache),
            memory,
            clock,
            checkpoints: Checkpoints::default(),
            looks: Looks::default(),
            writes: Writes::default(),
        }
    }

    /// The same of a log whose checkpoints are signed with Ed25519, too.
    pub(super) fn of_a_public_log(mut self, public: bool) -> Self {
        self.checkpoints.public = public;
        self
    }

    pub(super) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// What is believed.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What is believed may be read for somebody once this holds.
    pub(super) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether what is believed can be written upon.
    pub(super) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Among other nodes: what they have written until now is believed once this returns, if the token says so. For
    /// whoever compares all of the database with it; what is odd still was altered.
    pub(super) async fn catches_up(&self) {
        if self.store.is_shared() {
            let _ = self.freshness.answered(None).await;
        }
    }

    /// Returns once what other nodes have written until now is believed. The server's word begins it: one that lies leaves
    /// what the token has confirmed, and that for a second at the most. One that says nothing has lost a connection, or
    /// more: then the token's word of before is not enough either.
    ///
    /// # Errors
    /// As for any read, where the server shows something newer or nothing.
    pub(super) async fn follows_others(&self) -> Result<(), LedgerError> {
        let newest = self.newest_shown().await;
        self.goes_over_to(&newest).await
    }

    /// Returns once the log that is believed here has all that anybody was shown of it elsewhere. An own batch is waited for
    /// as well: another node may have read it, anchored it and told of it, while this one does not know that it stands. A server
    /// that shows nothing newer may have lost it, as a standby has that was promoted, or hide it: that takes the token's word.
    ///
    /// # Errors
    /// As `follows_others`; `Late` where an own batch is not anchored in time; `Unconfirmed` where the token does not say it.
    pub(super) async fn has_the_whole_log(&self) -> Result<(), LedgerError> {
        match self.newest_shown().await {
            Newest::Own => self.until_settled().await?,
            newest => self.goes_over_to(&newest).await?,
        }
        match self.store.is_shared() {
            true => self.freshness.confirmed().await,
            false => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn looks_begun(&self) -> u64 {
        self.looks.many()
    }

    async fn goes_over_to(&self, newest: &Newest) -> Result<(), LedgerError> {
        match newest {
            Newest::Believed | Newest::Own => Ok(()),
            Newest::Anothers(number) => self.freshness.answered(Some(*number)).await,
            Newest::Unknown => {
                self.freshness.doubt();
                self.freshness.answered(None).await
            }
        }
    }

    async fn newest_shown(&self) -> Newest {
        if !self.store.is_shared() {
            return Newest::Believed;
        }
        match self.looks.look(&*self.store).await {
            Some(row) => self.whose(&row),
            #[cfg(test)]
            None if self.store.weakness().unseen => Newest::Believed,
            None => Newest::Unknown,
        }
    }

    /// Another node's batch may have the number of an own one, where that is not written.
    fn whose(&self, row: &HeadRow) -> Newest {
        if row.seq <= self.memory.head().state.seq {
            return Newest::Believed;
        }
        let is_shown = |own: &Head| {
            let same = own.encode().is_ok_and(|body| body == row.body);
            #[cfg(test)]
            let same = same || self.store.weakness().any_pending;
            own.state.seq == row.seq && same
        };
        match self.memory.pending().as_ref().is_some_and(is_shown) {
            true => Newest::Own,
            false => Newest::Anothers(row.seq),
        }
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    #[must_use]
    pub fn realm(&self) -> &RealmName {
        &self.realm
    }

    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What stands under an account's identifier. It is at most one record, whichever key made its identifier: a
    /// creation looks under all of them (`committer`). Under each where there is none its absence is proven. An account
    /// that is found under an older key has cost the proofs for the newer ones, and a stranger's name costs all: what
    /// tells them apart in time is the reading of a list, and strangers' answers leave at a fixed deadline.
    pub(super) async fn load(
        &self,
        app: &AppId,
        account: AccountId,
    ) -> Result<Standing, LedgerError> {
        self.freshness.confirmed().await?;
        let (realm, of, cache) = (self.realm.clone(), app.clone(), Arc::clone(&self.cache));
        let kept = self.cache.record(app, account);
        // One visit where the envelope is at hand: the token makes the identifier, unless it has before, and the key.
        let found = self
            .pool
            .call("load-account", move |custody| {
                let natural = account.as_bytes();
                let mut records: Vec<RecordId> = kept.into_iter().collect();
                if kept.is_none() {
                    for key in mac::accepted(custody)? {
                        let kind = RecordKind::Account;
                        let id = mac::record_id_under(custody, key, &realm, &of, kind, natural)?;
                        records.push(id);
                    }
                }
                let Some(known) = records.iter().find_map(|record| cache.envelope(record)) else {
                    return Ok(Found::NotHere(records));
                };
                let context = context(&realm, &of, &known.member);
                let plaintext = seal::open(custody, &context, &known.sealed)?;
                Ok(Found::Here(known, plaintext))
            })
            .await?;
        let standing = match found {
            Found::Here(known, plaintext) => {
                Standing::Account(self.loaded(app, &known.member, &plaintext)?)
            }
            Found::NotHere(records) => self.open_any(app, &records).await?,
        };
        match standing {
            Standing::Account(loaded) if loaded.account.id != account => Err(tampered(
                &loaded.record,
                "the envelope names another account",
            )),
            Standing::Account(loaded) => {
                if kept.is_none() {
                    self.cache.knows(app, account, loaded.record);
                }
                Ok(Standing::Account(loaded))
            }
            standing => Ok(standing),
        }
    }

    /// The first of these that is not proven absent.
    async fn open_any(&self, app: &AppId, records: &[RecordId]) -> Result<Standing, LedgerError> {
        for record in records {
            match self.open(app, *record).await? {
                Standing::Absent => {}
                standing => return Ok(standing),
            }
        }
        Ok(Standing::Absent)
    }

    /// Verifies and opens what stands under one identifier of an account, from memory or from the
    /// database. An erased account costs the token what a living one does.
    pub(super) async fn open(
        &self,
        app: &AppId,
        record: RecordId,
    ) -> Result<Standing, LedgerError> {
        let known = match self.cache.envelope(&record) {
            Some(known) => known,
            None => match self.read(&record).await? {
                Some(read) => Arc::new(read),
                None => return Ok(Standing::Absent),
            },
        };
        let member = known.member;
        match member.kind {
            RecordKind::Account => {
                let plaintext = self.unseal(app, known).await?;
                let loaded = self.loaded(app, &member, &plaintext)?;
                Ok(Standing::Account(loaded))
            }
            RecordKind::Tombstone => {
                let plaintext = self.unseal(app, known).await?;
                erasure::check(plaintext.expose()).map_err(|what| tampered(&record, what))?;
                Ok(Standing::Erased)
            }
            RecordKind::Realm | RecordKind::Alias => Err(tampered(&record, "it is not an account")),
        }
    }

    /// The record's row as its bucket's member list has it; not opened yet.
    pub(super) async fn read(&self, record: &RecordId) -> Result<Option<Committed>, LedgerError> {
        let bucket = record.bucket(BUCKET_BITS);
        let (members, row) = self.newest_row(record, bucket).await?;
        let (member, row) = match (members.get(record), row.sealed) {
            (None, None) => return Ok(None),
            (Some(member), Some(row)) => (*member, row),
            (Some(_), None) => return Err(tampered(record, "the row is missing")),
            (None, Some(_)) => {
                return Err(tampered(
                    record,
                    "the bucket's member list does not name it",
                ));
            }
        };
        if member.generation != row.generation {
            return Err(tampered(
                record,
                "its generation differs from the member list",
            ));
        }
        let differs = seal::digest(&row.sealed) != member.digest;
        #[cfg(test)]
        let differs = differs && !self.store.weakness().any_content;
        if differs {
            return Err(tampered(record, "its content differs from the member list"));
        }
        Ok(Some(Committed {
            member,
            sealed: row.sealed,
        }))
    }

    /// The record's row, of one moment with a member list that is the one in memory. A row that
    /// was read while a batch came between may be one batch apart: that is evidence of nothing, and it is read again.
    ///
    /// # Errors
    /// `Tampered` where the database shows again and again what no honest one could have shown then; `Overtaken` where
    /// the list changes faster than it can be read; `Late` where a batch is not anchored in time.
    pub(super) async fn newest_row(
        &self,
        record: &RecordId,
        bucket: u32,
    ) -> Result<(MemberList, RecordRow), LedgerError> {
        let (between, patience) = self.patience();
        let (mut odd, mut turns) = (0, 0);
        let mut settled = self.memory.settled();
        while odd < READS {
            let ended = settled.borrow_and_update().ended;
            let moves = self.memory.moves(bucket);
            let row = self.store.record(record, bucket).await?.examine();
            #[cfg(test)]
            if self.store.weakness().any_list {
                let list = row.members.as_deref().unwrap_or(MemberList::EMPTY);
                let list =
                    MemberList::parse(list).map_err(|what| LedgerError::Tampered(what.into()))?;
                return Ok((list, row));
            }
            match self
                .memory
                .judge(&self.realm, bucket, row.members.as_deref())?
            {
                Shown::Newest(list) => return Ok((list, row)),
                Shown::Pending if ended => return Err(LedgerError::Stopped),
                Shown::Pending => {
                    // The token has until then to anchor it; else nobody may be told of it.
                    let anchored = tokio::time::timeout(patience, settled.changed()).await;
                    anchored.map_err(|_| ANCHORING)?.ok();
                }
                Shown::Odd => {
                    if self.store.is_shared() {
                        // Another node's, unless nothing has moved once this one has caught up.
                        self.freshness.answered(None).await?;
                    }
                    let moved = self.memory.moves(bucket) != moves;
                    #[cfg(test)]
                    let moved = moved && !self.store.weakness().any_read;
                    odd += u32::from(!moved);
                    turns += 1;
                    if turns == TURNS && odd < READS {
                        return Err(LedgerError::Overtaken);
                    }
                    if !self.store.is_shared() {
                        tokio::time::sleep(between).await;
                    }
                }
            }
        }
        Err(LedgerError::Tampered(format!(
            "bucket {bucket}: its member list is not the newest one"
        )))
    }

    /// Returns once the batch that is durable now is anchored as well, if there is one.
    ///
    /// # Errors
    /// `Late` where that takes too long; `Stopped` where it never will be.
    pub(super) async fn until_settled(&self) -> Result<(), LedgerError> {
        let mut settled = self.memory.settled();
        let ended = settled.borrow_and_update().ended;
        if self.memory.pending().is_none() {
            return Ok(());
        }
        if ended {
            return Err(LedgerError::Stopped);
        }
        let anchored = tokio::time::timeout(self.patience().1, settled.changed()).await;
        anchored.map_err(|_| ANCHORING)?.ok();
        Ok(())
    }

    /// The pause between two reads, and how long a reader waits for an anchor.
    fn patience(&self) -> (Duration, Duration) {
        let patience = (BETWEEN_READS, PATIENCE);
        #[cfg(test)]
        let patience = self.store.weakness().patience.unwrap_or(patience);
        patience
    }

    /// The token operation that opening an account costs, for an account that is not there:
    /// absence is not told by time. What AES adds to it is a thousandth.
    pub(super) async fn decoy(&self) -> Result<(), LedgerError> {
        self.pool
            .call("open-account", move |custody| {
                let key = custody.current(KeyPurpose::Wrap)?;
                custody.derive(key, b"custodyd/decoy/v1", &[0; 32])?;
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Opens a record as what its bucket's member list says it is.
    pub(super) async fn unseal(
        &self,
        app: &AppId,
        known: Arc<Committed>,
    ) -> Result<SecretBytes, LedgerError> {
        let (realm, of, member) = (self.realm.clone(), app.clone(), known.member);
        let opened = self
            .pool
            .call("open-record", move |custody| {
                seal::open(custody, &context(&realm, &of, &member), &known.sealed)
            })
            .await;
        match opened {
            // A version that no custodyd has written into this database is damage as well.
            Err(
                error @ (custodyd_hsm::Error::Tampered { .. }
                | custodyd_hsm::Error::UnsupportedVersion { .. }),
            ) => Err(tampered(&member.id, &error.to_string())),
            opened => Ok(opened?),
        }
    }

    /// The account in an opened envelope, which must say of itself what its seal says of it.
    pub(super) fn loaded(
        &self,
        app: &AppId,
        member: &Member,
        plaintext: &SecretBytes,
    ) -> Result<Loaded, LedgerError> {
        let mut account =
            Account::decode(plaintext.expose()).map_err(|what| tampered(&member.id, &what))?;
        let ours = account.realm == self.realm
            && account.app == *app
            && account.generation == member.generation;
        if !ours {
            return Err(tampered(&member.id, "the envelope contradicts its seal"));
        }
        let memory = &self.memory;
        account.catch_up(memory.history(), memory.boot_epoch(), self.clock.now());
        Ok(Loaded {
            account: Arc::new(account),
            record: member.id,
            digest: member.digest,
            size: plaintext.expose().len(),
            noted: None,
        })
    }
}

fn context<'a>(realm: &'a RealmName, app: &'a AppId, member: &'a Member) -> Context<'a> {
    Context {
        realm,
        app,
        kind: member.kind,
        record: &member.id,
        generation: member.generation,
    }
}

/// Names the record by the start of its identifier, which tells nobody whose it is.
pub(super) fn tampered(record: &RecordId, what: &str) -> LedgerError {
    let prefix: String = hex::encode(record.as_bytes()).chars().take(16).collect();
    LedgerError::Tampered(format!("record {prefix}: {what}"))
}
