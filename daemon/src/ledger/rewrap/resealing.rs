//! A turn in the token: records are opened under whatever key they are, and sealed under the newest.
//!
//! Called by the pass beside it, outside of the committer. What was sealed here counts for nothing until the committer has put it
//! in its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{AppId, Custody, Error, KeyPurpose, RealmName, RecordKind};

use super::{Listed, Resealed};
use crate::ledger::LedgerError;
use crate::ledger::cache::Committed;
use crate::ledger::members::Member;
use crate::ledger::record::Reader;

/// What a turn in the token gave.
pub(super) struct Turned {
    pub(super) resealed: Vec<Resealed>,
    /// The app that opened the last record first.
    pub(super) apps: Vec<AppId>,
    pub(super) unopened: u64,
    /// Those that opened any.
    pub(super) opening: BTreeSet<AppId>,
}

impl Reader {
    /// Opens records under whatever key they are, and seals them under the newest.
    pub(super) async fn reseal(
        &self,
        records: Vec<Arc<Listed>>,
        mut apps: Vec<AppId>,
    ) -> Result<Turned, LedgerError> {
        let realm = self.realm().clone();
        let turned = self.pool().call("rewrap", move |custody| {
            let version = custody.current(KeyPurpose::Wrap)?.version;
            let (mut resealed, mut unopened) = (Vec::with_capacity(records.len()), 0);
            let mut opening = BTreeSet::new();
            for listed in records {
                let before = listed.record.member;
                let again = again(custody, &realm, &mut apps, &listed.record)?;
                if again.is_some()
                    && before.kind != RecordKind::Realm
                    && let Some(app) = apps.first()
                    && !opening.contains(app)
                {
                    opening.insert(app.clone());
                }
                match again {
                    Some(sealed) => resealed.push(Resealed {
                        before,
                        list: Some(Arc::clone(&listed.list)),
                        after: Member {
                            digest: seal::digest(&sealed),
                            ..before
                        },
                        version,
                        sealed,
                    }),
                    None => unopened += 1,
                }
            }
            Ok(Turned {
                resealed,
                apps,
                unopened,
                opening,
            })
        });
        Ok(turned.await?)
    }
}

/// The same record under the newest key, if it is one of these apps' or the realm's.
fn again(
    custody: &mut dyn Custody,
    realm: &RealmName,
    apps: &mut [AppId],
    record: &Committed,
) -> custodyd_hsm::Result<Option<Vec<u8>>> {
    let member = &record.member;
    let context = |app| Context {
        realm,
        app,
        kind: member.kind,
        record: &member.id,
        generation: member.generation,
    };
    if member.kind == RecordKind::Realm {
        let plaintext = seal::open(custody, &context(&AppId::REALM), &record.sealed)?;
        return seal::seal(custody, &context(&AppId::REALM), plaintext.expose()).map(Some);
    }
    for at in 0..apps.len() {
        let Some(app) = apps.get(at) else { break };
        match seal::open(custody, &context(app), &record.sealed) {
            Ok(plaintext) => {
                let sealed = seal::seal(custody, &context(app), plaintext.expose())?;
                apps.swap(0, at);
                return Ok(Some(sealed));
            }
            // Another app's.
            Err(Error::Tampered { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
