//! The realm's own record: proof that this token, this database and this configuration belong
//! together.
//!
//! `init` seals it as the first record; every start opens it. A database of another realm, a
//! token with other keys or a changed realm name does not get past it.

use std::sync::Arc;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{AppId, Pool, RealmName, RecordId, RecordKind, mac};
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::members::{Member, MemberList};
use super::{BUCKET_BITS, Head, LedgerError};
use crate::store::{Batch, CommitError, Store, StoreError};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RealmRecord {
    format: u8,
    realm: RealmName,
    created: Timestamp,
}

/// Writes the first batch of an empty database: the head and the realm's record.
///
/// # Errors
/// When the database is not empty, or token or store fail.
pub async fn create(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let record = RealmRecord {
        format: 1,
        realm: realm.clone(),
        created: now,
    };
    let plaintext = serde_json::to_vec(&record)
        .map_err(|_| LedgerError::internal("encode the realm record"))?;
    let of = realm.clone();
    let (id, sealed) = pool
        .call("seal-realm", move |custody| {
            let id = mac::realm_record_id(custody, &of)?;
            let sealed = seal::seal(custody, &context(&of, &id), &plaintext)?;
            Ok((id, sealed))
        })
        .await?;
    let mut list = MemberList::default();
    list.put(Member {
        kind: RecordKind::Realm,
        id,
        generation: 1,
        digest: seal::digest(&sealed),
    });
    let mut batch = Batch::after(0);
    batch.members = vec![(id.bucket(BUCKET_BITS), list.encode())];
    batch.records = vec![(id, 1, sealed)];
    batch.head = Head::first(realm.clone(), now)
        .row_over(&batch)
        .map_err(|_| LedgerError::internal("encode the head"))?;
    store.commit(&batch).await.map_err(|error| match error {
        CommitError::NotWritten(error) | CommitError::Unknown(error) => error.into(),
        CommitError::LostRace => LedgerError::Store(StoreError::Refused {
            operation: "create the realm",
            problem: "the database is not empty".into(),
        }),
    })
}

/// Reads the head and opens the realm's record.
///
/// # Errors
/// `Tampered`, or a refusal that names which of token, database and configuration is another
/// realm's.
pub async fn verify(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
) -> Result<Head, LedgerError> {
    let refused = |problem: String| {
        LedgerError::Store(StoreError::Refused {
            operation: "open the realm",
            problem,
        })
    };
    let row = store
        .head()
        .await?
        .examine()
        .ok_or_else(|| refused("the database holds no realm; run `custodyd init`".into()))?;
    let head = Head::parse(&row, realm).map_err(refused)?;
    let of = realm.clone();
    let id = pool
        .call("realm-id", move |custody| {
            mac::realm_record_id(custody, &of)
        })
        .await?;
    let row = store.record(&id, id.bucket(BUCKET_BITS)).await?.examine();
    let sealed = row
        .sealed
        .ok_or_else(|| {
            refused("the database has no realm record of this token: is it another realm's, or another token?".into())
        })?
        .sealed;
    let of = realm.clone();
    let opened = pool
        .call("open-realm", move |custody| {
            seal::open(custody, &context(&of, &id), &sealed)
        })
        .await;
    match opened {
        Ok(plaintext) => {
            let record: RealmRecord = serde_json::from_slice(plaintext.expose())
                .map_err(|_| LedgerError::Tampered("the realm record does not parse".into()))?;
            if record.realm == *realm {
                Ok(head)
            } else {
                Err(LedgerError::Tampered(
                    "the realm record names another realm".into(),
                ))
            }
        }
        Err(custodyd_hsm::Error::Tampered { .. }) => Err(LedgerError::Tampered(
            "the realm record does not open with this token's keys".into(),
        )),
        Err(error @ custodyd_hsm::Error::UnsupportedVersion { .. }) => {
            Err(LedgerError::Tampered(format!("the realm record: {error}")))
        }
        Err(error) => Err(error.into()),
    }
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
