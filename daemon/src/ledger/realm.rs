//! The realm's own record: proof that this token, this database and this configuration belong
//! together.
//!
//! `init` seals it as the first record; every start opens it. A database of another realm, a
//! token with other keys or a changed realm name does not get past it. It also keeps what the realm's
//! OPAQUE keys are made from: the one secret that is of no account.

use std::sync::Arc;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{
    AppId, KeyId, KeyPurpose, KeyVersions, Pool, RealmName, RecordId, RecordKind, SecretBytes, mac,
};
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::anchoring::{self, Anchoring};
use super::members::{Member, MemberList};
use super::memory::Believed;
use super::record::Reader;
use super::rewrap::Resealed;
use super::{BUCKET_BITS, Head, Ledger, LedgerError, tokens};
use crate::bytes::SharedSecret;
use crate::escrow::Escrowed;
use crate::store::{Batch, CommitError, Store};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RealmRecord {
    format: u8,
    realm: RealmName,
    created: Timestamp,
    /// Absent where the token has made the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow: Option<Escrowed>,
    /// What the realm's OPAQUE keys are derived from. Absent in realms that were made before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opaque_seed: Option<SharedSecret>,
}

/// Seconds within which a realm without an anchor is one that `init` has only begun.
const LATELY: u64 = 3600;

/// Bytes of the seed of the OPAQUE keys.
const OPAQUE_SEED: usize = 32;

/// Writes the first batch of an empty database: the realm's record, and the head over it. The
/// realm is whole once `anchor_first` has made the token remember it.
///
/// # Errors
/// When the database is not empty, or token or store fail.
pub async fn create(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
    escrow: Option<Escrowed>,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let record = RealmRecord {
        format: 1,
        realm: realm.clone(),
        created: now,
        escrow,
        opaque_seed: Some(new_seed()?),
    };
    let plaintext = encode(&record)?;
    let of = realm.clone();
    let (id, sealed, keys) = pool
        .call("seal-realm", move |custody| {
            let key = custody.current(KeyPurpose::Mac)?;
            let id = mac::realm_record_id(custody, key, &of)?;
            let sealed = seal::seal(custody, &context(&of, &id), &plaintext)?;
            Ok((id, sealed, KeyVersions::newest_of(custody)?))
        })
        .await?;
    let mut list = MemberList::default();
    list.put(Member {
        kind: RecordKind::Realm,
        id,
        generation: 1,
        digest: seal::digest(&sealed),
    });
    let nothing = Believed::nothing(realm, now);
    let mut batch = Batch::after(nothing.head.state.seq);
    batch.members = vec![(id.bucket(BUCKET_BITS), list.encode())];
    batch.records = vec![(id, 1, sealed)];
    let mut head = nothing.head.clone();
    head.state.tokens = tokens::of_new(pool, &keys).await?;
    head.state.keys = keys;
    let next = nothing.next(head, &mut batch)?;
    batch.head = next.head.authenticate(pool).await?;
    store.commit(&batch).await.map_err(|error| match error {
        CommitError::NotWritten(error)
        | CommitError::Declined(error)
        | CommitError::Unknown(error) => error.into(),
        CommitError::LostRace => LedgerError::Refused("the database is not empty".into()),
    })
}

/// Whether the token remembers a realm of this name already: then an empty database is not a new
/// realm but a lost one.
///
/// # Errors
/// The token's.
pub async fn is_anchored(pool: &Pool, realm: &RealmName) -> Result<bool, LedgerError> {
    Ok(anchoring::remembered(pool, realm).await?.is_some())
}

/// Whether a database holds a realm that some token of it does not remember yet: `init` was stopped before. One that is
/// in use is not, whatever tokens have forgotten.
///
/// # Errors
/// As `Head::read`; the token's.
pub async fn is_begun(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
) -> Result<bool, LedgerError> {
    // Also says which tokens are the realm's.
    let head = Head::read(store, pool, realm).await?;
    match head.state.seq {
        1 => anchoring::some_lack(pool, realm).await,
        _ => Ok(anchoring::remembered(pool, realm).await?.is_none()),
    }
}

/// Makes the tokens remember the first head of a realm that they do not know yet; those that do are left as they are.
/// Refused for any other head: a token that has forgotten is no reason to believe a database.
///
/// # Errors
/// As `Head::read`; `Refused` as above.
pub async fn anchor_first(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
) -> Result<(), LedgerError> {
    let head = Head::read(store, pool, realm).await?;
    if head.state.seq != 1 {
        return Err(LedgerError::Refused(
            "the database is in use, and the token remembers nothing of it".into(),
        ));
    }
    Anchoring::begin_realm(pool, &head).await
}

/// As `anchor_first`, of a realm that was begun a moment ago. One of long ago looks the same as a database that was put back
/// to its first batch, beside a token that has lost its anchor: a new one would hide everything since.
///
/// # Errors
/// As `anchor_first`; `Refused` where it was begun more than an hour ago, or after now.
pub async fn finish(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let begun = Head::read(store, pool, realm).await?.state.time;
    match now.0.checked_sub(begun.0) {
        Some(since) if since <= LATELY => anchor_first(store, pool, realm).await,
        _ => Err(LedgerError::Refused(
            "the database holds a realm of more than an hour ago with nothing in it, and a token that does not remember \
             it. If an `init` was stopped then and no daemon has served it since: custodyd init --finish. If one has, \
             the database was put back and the token has lost its anchor: put the newest database in place, then the \
             restore ceremony with --without-anchor (docs/handbook/backup.md)"
                .into(),
        )),
    }
}

/// The seed of the realm's OPAQUE keys, sealed in its record under the wrap key. A realm that has none
/// gets one here, in a batch of its own: it stays, or no PIN of before could be used.
///
/// # Errors
/// As `check`; `Stale` where somebody else has changed the record meanwhile, which nobody does.
pub(super) async fn opaque_seed(ledger: &Ledger) -> Result<SharedSecret, LedgerError> {
    let (before, mut record) = read(&ledger.reader).await?;
    if let Some(seed) = record.opaque_seed {
        return Ok(seed);
    }
    let seed = new_seed()?;
    record.opaque_seed = Some(seed.clone());
    let plaintext = encode(&record)?;
    let realm = ledger.reader.realm().clone();
    let resealed = ledger.pool().call("seal-realm", move |custody| {
        let version = custody.current(KeyPurpose::Wrap)?.version;
        let sealed = seal::seal(custody, &context(&realm, &before.id), &plaintext)?;
        let after = Member {
            digest: seal::digest(&sealed),
            ..before
        };
        Ok(Resealed {
            before,
            list: None,
            after,
            version,
            sealed,
        })
    });
    let resealed = Arc::new(vec![resealed.await?]);
    match ledger.put_back(resealed).await?.moved {
        1 => Ok(seed),
        _ => Err(LedgerError::Stale),
    }
}

fn new_seed() -> Result<SharedSecret, LedgerError> {
    let mut drawn = Ok(());
    let seed = SecretBytes::init(OPAQUE_SEED, |bytes| drawn = aws_lc_rs::rand::fill(bytes));
    drawn.map_err(|_| LedgerError::internal("draw a seed"))?;
    Ok(SharedSecret::new(seed))
}

fn encode(record: &RealmRecord) -> Result<Zeroizing<Vec<u8>>, LedgerError> {
    // Larger than any record: a vector that grows would leave the seed behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(4096));
    serde_json::to_writer(&mut *plaintext, record)
        .map_err(|_| LedgerError::internal("encode the realm record"))?;
    Ok(plaintext)
}

/// The identifier of the realm's record: the head says it since a MAC key was retired. Until then it is by the oldest, which
/// the realm began with.
pub(super) async fn record(reader: &Reader) -> Result<RecordId, LedgerError> {
    let (named, oldest) = {
        let believed = reader.memory().read();
        let state = &believed.head.state;
        let versions = state.keys.of(KeyPurpose::Mac).accepted();
        (state.realm_record, versions.first().copied())
    };
    if let Some(id) = named {
        return Ok(id);
    }
    let oldest = oldest.ok_or(LedgerError::internal("name the realm's record"))?;
    let key = KeyId::new(KeyPurpose::Mac, oldest);
    let realm = reader.realm().clone();
    let id = reader.pool().call("realm-id", move |custody| {
        mac::realm_record_id(custody, key, &realm)
    });
    Ok(id.await?)
}

/// The realm's record, opened, and where it stands.
async fn read(reader: &Reader) -> Result<(Member, RealmRecord), LedgerError> {
    let id = record(reader).await?;
    let found = reader.read(&id).await?;
    let Some(found) = found.filter(|found| found.member.kind == RecordKind::Realm) else {
        return Err(LedgerError::Tampered(
            "the database has no realm record of this token".into(),
        ));
    };
    let member = found.member;
    let plaintext = reader.unseal(&AppId::REALM, Arc::new(found)).await?;
    let record: RealmRecord = serde_json::from_slice(plaintext.expose())
        .map_err(|_| LedgerError::Tampered("the realm record does not parse".into()))?;
    if record.realm != *reader.realm() {
        return Err(LedgerError::Tampered(
            "the realm record names another realm".into(),
        ));
    }
    Ok((member, record))
}

/// Opens the realm's record, as proof that the wrap key is the one that the accounts are under. It says, too,
/// which kind of keys the realm was made with: a configuration that accepts the other kind is refused.
///
/// # Errors
/// `Tampered` where it does not open, or is another realm's; `Refused` for the other kind.
pub(super) async fn check(reader: &Reader, escrowed: Option<bool>) -> Result<(), LedgerError> {
    let (_, record) = read(reader).await?;
    match (escrowed, record.escrow) {
        (Some(false), Some(escrow)) => Err(LedgerError::Refused(format!(
            "the realm was made with keys that {} of {} custodians can bring back (ceremony {}), and token.escrow is not \
             set: name its manifest there",
            escrow.needed, escrow.custodians, escrow.ceremony
        ))),
        (Some(true), None) => Err(LedgerError::Refused(
            "the realm was made with keys that its token has made and nobody else ever had; token.escrow would let \
             imported ones pass for them: remove it"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// The escrow that the realm was made with, as its record says.
pub(super) async fn escrow(reader: &Reader) -> Result<Option<Escrowed>, LedgerError> {
    Ok(read(reader).await?.1.escrow)
}

/// As `check`, of a database by its own head alone.
#[cfg(test)]
pub(super) async fn kind_of(
    store: &Arc<dyn Store>,
    pool: &Pool,
    name: &RealmName,
    escrowed: bool,
) -> Result<(), LedgerError> {
    let found = super::start::find(store, pool, name).await?;
    let memory = super::memory::Memory::new(found.believed, 0);
    let reader = Reader::new(
        Arc::clone(store),
        pool.clone(),
        name.clone(),
        super::Cache::new(0),
        memory,
        Arc::default(),
    );
    check(&reader, Some(escrowed)).await
}

fn context<'a>(realm: &'a RealmName, record: &'a RecordId) -> Context<'a> {
    Context {
        realm,
        app: &AppId::REALM,
        kind: RecordKind::Realm,
        record,
        generation: 1,
    }
}
