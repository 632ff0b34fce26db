//! The head: the newest state of the whole realm, one row, authenticated by the token.
//!
//! It names the log by size and root and the state by its root, so whoever believes a head
//! believes exactly one content of every table. That it is one of ours says its MAC; that it is
//! the newest says the anchor in the token, never the database. The next one is made in `memory`.

use std::sync::Arc;

use aws_lc_rs::digest;
use custodyd_hsm::{Error, KeyId, KeyPurpose, KeyVersions, Pool, RealmName, RecordId, mac};
use custodyd_policies::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::tree::Digest;
use super::{LedgerError, keys, tokens};
use crate::account::{History, Restored};
use crate::store::{HeadRow, Store, steps};

const DOMAIN: &[u8] = b"custodyd/head/v1";
/// The version of the tables and of what is in them. A database says in its head which it has, and the oldest that
/// serves it: a newer custodyd may have added what an older one need not know of.
pub(crate) const SCHEMA: u32 = 4;
/// The same tables, once the MAC key was rotated: heads and anchors are tagged by several keys, and a name is looked for under
/// each. Who does not know of that would find nobody, so nobody older serves it. The realm says it from its first
/// rotation on: until then there is a way back to a custodyd of before.
pub(crate) const ROTATED_MAC: u32 = 5;

/// What this build makes of them: with the steps that it knows.
pub(crate) fn newest_schema() -> u32 {
    steps::all().last().map_or(ROTATED_MAC, |step| step.schema)
}

/// What a head and the state leaf of its batch both say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) realm: RealmName,
    /// Raised by every restore.
    pub(crate) log_epoch: u64,
    /// The restore that began this log epoch.
    pub(crate) restored: Option<Restored>,
    /// Counts the batches of the realm.
    pub(crate) seq: u64,
    #[serde(with = "hex::serde")]
    pub(crate) state_root: Digest,
    /// Hash of the head before.
    #[serde(with = "hex::serde")]
    pub(crate) previous: Digest,
    pub(crate) time: Timestamp,
    /// Raised by a start after which guesses may have been forgotten.
    pub(crate) boot_epoch: u64,
    pub(crate) schema: u32,
    /// The oldest schema whose custodyd serves this one; of none other than itself, where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) least_schema: Option<u32>,
    /// Digest of the policies that the batch was decided under.
    #[serde(with = "hex::serde")]
    pub(crate) configuration: Digest,
    /// The versions of the token's keys that are in use. A batch that changes them says so in the log.
    pub(crate) keys: KeyVersions,
    /// The tokens that hold those keys, where there are several: all are anchored in before anything
    /// is released. None is named where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tokens: Vec<String>,
    /// The identifier of the realm's record, since a MAC key was retired. Until then the oldest one makes it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_record",
        deserialize_with = "read_record"
    )]
    pub(crate) realm_record: Option<RecordId>,
}

fn write_record<S: Serializer>(record: &Option<RecordId>, to: S) -> Result<S::Ok, S::Error> {
    record.map(|id| hex::encode(id.as_bytes())).serialize(to)
}

fn read_record<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RecordId>, D::Error> {
    let bytes: [u8; 32] = hex::serde::deserialize(from)?;
    Ok(Some(RecordId(bytes)))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub(crate) state: State,
    /// Number of log entries.
    pub(crate) size: u64,
    #[serde(with = "hex::serde")]
    pub(crate) log_root: Digest,
}

/// Of a head that has more than this version knows: whether a newer one says so.
#[derive(Deserialize)]
struct Glance {
    state: Schemas,
}

#[derive(Deserialize)]
struct Schemas {
    schema: u32,
    least_schema: Option<u32>,
    /// Those that tag it, if they are written as they were.
    keys: Option<serde_json::Value>,
}

/// Whether a custodyd of this schema serves a database with that one.
///
/// # Errors
/// Which does instead.
fn suits((theirs, least): (u32, Option<u32>), ours: u32) -> Result<(), String> {
    let least = least.unwrap_or(theirs);
    match theirs {
        theirs if theirs == ours => Ok(()),
        theirs if theirs > ours && least <= ours => Ok(()),
        theirs if theirs > ours => Err(format!(
            "the database has schema {theirs}, which takes a custodyd of schema {least} or later; this one knows \
             {ours}: install the newer version here as well"
        )),
        // It is extended before anything is written.
        theirs if theirs >= SCHEMA => Ok(()),
        theirs => Err(format!(
            "the database has schema {theirs}, this custodyd reads {ours}"
        )),
    }
}

impl State {
    /// Whether a newer custodyd has added something that this one does not know.
    pub(crate) fn is_extended(&self) -> bool {
        self.schema > newest_schema()
    }

    /// Whether it is of before the steps that this one knows.
    pub(crate) fn is_older(&self) -> bool {
        self.schema < newest_schema()
    }

    /// What it becomes by those.
    pub(super) fn extended(&mut self) {
        if let Some(step) = steps::all().last().filter(|_| self.is_older()) {
            self.takes(step.schema, step.least);
        }
    }

    /// Nobody serves it any more who could not before.
    fn takes(&mut self, schema: u32, least: u32) {
        let known = self.least_schema.unwrap_or(self.schema);
        self.least_schema = Some(known.max(least));
        self.schema = self.schema.max(schema);
    }

    /// What it becomes by other keys. The realm's record stands under `realm_record`.
    pub(super) fn goes_over_to(&mut self, keys: KeyVersions, realm_record: RecordId) {
        let before = self.keys.of(KeyPurpose::Mac).accepted();
        let after = keys.of(KeyPurpose::Mac).accepted();
        let (rotated, retired) = (
            after.iter().any(|version| !before.contains(version)),
            before.iter().any(|version| !after.contains(version)),
        );
        if rotated {
            self.takes(ROTATED_MAC, ROTATED_MAC);
        }
        if retired && self.realm_record.is_none() {
            // The key that makes it may be the one that goes.
            self.realm_record = Some(realm_record);
        }
        self.keys = keys;
    }

    pub(crate) fn history(&self) -> History {
        History {
            log_epoch: self.log_epoch,
            restored: self.restored,
        }
    }
}

impl Head {
    /// # Errors
    /// What is wrong with the row, for the operator.
    pub(crate) fn parse(row: &HeadRow, realm: &RealmName) -> Result<Self, String> {
        let head: Self = match serde_json::from_slice(&row.body) {
            Ok(head) => head,
            // What a newer version has added to the head is no damage.
            Err(_) => {
                if let Ok(Glance { state }) = serde_json::from_slice(&row.body) {
                    suits((state.schema, state.least_schema), newest_schema())?;
                }
                return Err("the head row does not parse: it is damaged, or of a version that this custodyd can \
                     not read (there is no upgrade from a database older than the ledger; make a new realm)"
                    .to_owned());
            }
        };
        if head.state.realm != *realm {
            return Err(format!(
                "the database belongs to realm {}, this daemon is configured for {realm}",
                head.state.realm
            ));
        }
        let schemas = (head.state.schema, head.state.least_schema);
        suits(schemas, newest_schema())?;
        if head.state.seq != row.seq {
            return Err("the head row contradicts itself".to_owned());
        }
        Ok(head)
    }

    /// # Errors
    /// Never for the fields above; the signature is serde's.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The versions of the MAC key that make its tag together.
    pub(crate) fn tagged_by(&self) -> Vec<u16> {
        self.state.keys.of(KeyPurpose::Mac).accepted().to_vec()
    }

    /// The row, with the MAC that only the token makes. Called once for each number: two heads
    /// of one number would be two histories.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub(crate) async fn authenticate(&self, pool: &Pool) -> Result<HeadRow, LedgerError> {
        let body = self
            .encode()
            .map_err(|_| LedgerError::internal("encode a head"))?;
        let (realm, covered) = (self.state.realm.clone(), body.clone());
        let versions = self.tagged_by();
        let mac = pool
            .call("authenticate-head", move |custody| {
                mac::head(custody, &realm, &versions, &covered)
            })
            .await?;
        Ok(HeadRow {
            seq: self.state.seq,
            body,
            mac: mac.to_vec(),
        })
    }

    /// The head that the database shows, if this token has made it. Whether it is the newest
    /// says nothing here.
    ///
    /// # Errors
    /// `Refused` where there is none, or it is another realm's; `Tampered` where its MAC is wrong.
    pub(crate) async fn read(
        store: &Arc<dyn Store>,
        pool: &Pool,
        realm: &RealmName,
    ) -> Result<Self, LedgerError> {
        let row = store.head().await?.examine().ok_or_else(|| {
            LedgerError::Refused(
                "the database holds no realm. `custodyd init` makes a new one; where there was one, its newest database \
                 has to come back (docs/handbook/backup.md)"
                    .into(),
            )
        })?;
        let head = Self::parse(&row, realm).map_err(LedgerError::Refused)?;
        #[cfg(test)]
        if store.weakness().any_head {
            return Ok(head);
        }
        tokens::prefer(pool, &head);
        Self::authentic(pool, realm, &row).await?;
        Ok(head)
    }

    /// Whether this token has made the row.
    ///
    /// # Errors
    /// `Tampered` where it has not.
    pub(crate) async fn authentic(
        pool: &Pool,
        realm: &RealmName,
        row: &HeadRow,
    ) -> Result<(), LedgerError> {
        let versions = Self::parse(row, realm).map(|head| head.tagged_by());
        let versions = versions.map_err(LedgerError::Refused)?;
        if made(pool, realm, &versions, row).await? {
            return Ok(());
        }
        let lacking = lacking(pool, &versions).await?;
        let took_up = !lacking.is_empty() && takes_up(pool, lacking.clone()).await?;
        match took_up && made(pool, realm, &versions, row).await? {
            true => Ok(()),
            false => Err(not_ours(if took_up { &[] } else { &lacking })),
        }
    }

    /// Which custodyd serves the realm, where this token has made a head that this one may not serve. To whoever can make
    /// rows alone a node of this age says nothing of the kind.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub(crate) async fn outgrows_us(
        pool: &Pool,
        realm: &RealmName,
        row: &HeadRow,
    ) -> Result<Option<String>, LedgerError> {
        let Ok(Glance { state }) = serde_json::from_slice(&row.body) else {
            return Ok(None);
        };
        let Err(which) = suits((state.schema, state.least_schema), newest_schema()) else {
            return Ok(None);
        };
        let keys = state.keys.map(serde_json::from_value::<KeyVersions>);
        let Some(Ok(keys)) = keys.filter(|_| state.schema > newest_schema()) else {
            return Ok(None);
        };
        let versions = keys.of(KeyPurpose::Mac).accepted().to_vec();
        let ours = made(pool, realm, &versions, row).await?;
        Ok(ours.then_some(which))
    }

    /// What an anchor names, and the next head as its `previous`.
    pub(crate) fn hash(&self) -> Result<Digest, serde_json::Error> {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(DOMAIN);
        context.update(&self.encode()?);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Ok(hash)
    }
}

/// Whether the token has made the row's tag, by these MAC keys.
async fn made(
    pool: &Pool,
    realm: &RealmName,
    by: &[u16],
    row: &HeadRow,
) -> Result<bool, LedgerError> {
    let (of, body, by) = (realm.clone(), row.body.clone(), by.to_vec());
    // A tag of another length fits nothing.
    let tag = <[u8; 32]>::try_from(row.mac.as_slice()).unwrap_or_default();
    let checked = pool.call("check-head", move |custody| {
        mac::check_head(custody, &of, &by, &body, &tag)
    });
    match checked.await {
        Ok(()) => Ok(true),
        Err(Error::Tampered { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The keys of a head that the token does not hold, as far as this process knows.
async fn lacking(pool: &Pool, by: &[u16]) -> Result<Vec<KeyId>, LedgerError> {
    let held = pool.call("check-keys", |custody| custody.versions(KeyPurpose::Mac));
    let held = held.await?;
    let lacking = by.iter().filter(|version| !held.contains(version));
    Ok(lacking
        .map(|version| KeyId::new(KeyPurpose::Mac, *version))
        .collect())
}

/// Another node may have made them in the token since this one has looked. That they are there makes none of them believed:
/// a key that is has to have tagged the head beside them. Whoever sees by it that the realm's keys are others ends.
async fn takes_up(pool: &Pool, keys: Vec<KeyId>) -> Result<bool, LedgerError> {
    let took_up = pool.call("take-up-key", move |custody| {
        // The head is nobody's yet: it costs one look at the token, whatever it names.
        keys.iter().try_for_each(|key| custody.take_up_key(*key))
    });
    match took_up.await {
        Ok(()) => Ok(true),
        Err(error) if error.is_retryable() => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Why a head is none of this token's: it may lack the keys that it names.
fn not_ours(lacking: &[KeyId]) -> LedgerError {
    LedgerError::Tampered(match lacking.is_empty() {
        true => "the head was not made by this token under keys that are accepted; is the database another realm's, \
                 or the token another one?"
            .into(),
        false => format!(
            "the head is tagged by {}, which the token does not hold: the head was not made by this token, or that key \
             was destroyed after it was retired, and then nobody believes this database any more",
            keys::names(lacking)
        ),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn head() -> Head {
        Head {
            state: State {
                realm: RealmName::parse("realm.example").unwrap(),
                log_epoch: 1,
                restored: None,
                seq: 3,
                state_root: [1; 32],
                previous: [2; 32],
                time: Timestamp(7),
                boot_epoch: 0,
                schema: SCHEMA,
                least_schema: None,
                configuration: [4; 32],
                keys: KeyVersions::first(),
                tokens: Vec::new(),
                realm_record: None,
            },
            size: 9,
            log_root: [3; 32],
        }
    }

    fn row(head: &Head) -> HeadRow {
        HeadRow {
            seq: 3,
            body: head.encode().unwrap(),
            mac: Vec::new(),
        }
    }

    #[test]
    fn a_head_is_read_back_as_it_was_written() {
        let realm = RealmName::parse("realm.example").unwrap();
        let again = Head::parse(&row(&head()), &realm).unwrap();
        assert_eq!(again, head());
        assert_eq!(again.encode().unwrap(), head().encode().unwrap());
        assert_eq!(again.hash().unwrap(), head().hash().unwrap());
    }

    #[test]
    fn a_newer_schema_is_read_as_far_as_it_says_that_it_can_be() {
        let realm = RealmName::parse("realm.example").unwrap();
        // What does not say it has the bytes that it always had.
        assert!(!head().encode().unwrap().windows(5).any(|at| at == b"least"));
        let newer = newest_schema() + 1;
        for (schema, least, extended) in [
            (SCHEMA, None, false),
            (ROTATED_MAC, Some(ROTATED_MAC), false),
            (newer, Some(SCHEMA), true),
        ] {
            let mut head = head();
            (head.state.schema, head.state.least_schema) = (schema, least);
            let again = Head::parse(&row(&head), &realm).unwrap();
            assert_eq!(again, head);
            assert_eq!(again.state.is_extended(), extended);
        }
    }

    #[test]
    fn what_is_wrong_with_a_head_is_said() {
        let realm = RealmName::parse("realm.example").unwrap();
        let refused = |change: &dyn Fn(&mut Head), what: &str| {
            let mut head = head();
            change(&mut head);
            let said = Head::parse(&row(&head), &realm).unwrap_err();
            assert!(said.contains(what), "{said}");
        };
        refused(&|head| head.state.schema += 2, "schema 6 or later");
        refused(&|head| head.state.schema -= 1, "schema 3");
        refused(
            &|head| (head.state.schema, head.state.least_schema) = (7, Some(6)),
            "schema 7, which takes a custodyd of schema 6 or later; this one knows 5",
        );
        refused(&|head| head.state.seq += 1, "contradicts");
        refused(
            &|head| head.state.realm = RealmName::parse("other.example").unwrap(),
            "other.example",
        );
        let rubbish = HeadRow {
            seq: 3,
            body: b"{}".to_vec(),
            mac: Vec::new(),
        };
        assert!(Head::parse(&rubbish, &realm).unwrap_err().contains("parse"));
    }

    /// What a newer version has added to a head is no damage, and what has no version is.
    #[test]
    fn a_head_of_a_newer_version_says_so_whatever_else_is_in_it() {
        let realm = RealmName::parse("realm.example").unwrap();
        let mut newer = head();
        newer.state.schema = newest_schema() + 1;
        for (head, what) in [(newer, "schema 6 or later"), (head(), "does not parse")] {
            let text = String::from_utf8(head.encode().unwrap()).unwrap();
            let body = text.replace(r#""boot_epoch""#, r#""colour":"blue","boot_epoch""#);
            let row = HeadRow {
                body: body.into_bytes(),
                ..row(&head)
            };
            let said = Head::parse(&row, &realm).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    /// A custodyd of before reads such a head as far as to its schema, and says which serves it.
    #[test]
    fn a_realm_whose_mac_key_was_rotated_takes_a_custodyd_that_knows_of_it() {
        let mac = |version| custodyd_hsm::KeyId::new(KeyPurpose::Mac, version);
        let mut state = head().state;
        let (first, record) = (state.keys.clone(), RecordId([7; 32]));
        let wrap = custodyd_hsm::KeyId::new(KeyPurpose::Wrap, 2);
        state.goes_over_to(first.with_newer(wrap).unwrap(), record);
        assert_eq!((state.schema, state.least_schema), (SCHEMA, None));
        let second = state.keys.with_newer(mac(2)).unwrap();
        state.goes_over_to(second.clone(), record);
        assert_eq!((state.schema, state.least_schema), (5, Some(5)));
        let why = suits((state.schema, state.least_schema), SCHEMA).unwrap_err();
        assert!(why.contains("schema 5 or later; this one knows 4"), "{why}");
        suits((state.schema, state.least_schema), newest_schema()).unwrap();
        // It has no field yet that a custodyd of before does not know.
        assert_eq!(state.realm_record, None);
        state.goes_over_to(second.without(mac(1)).unwrap(), record);
        assert_eq!(state.realm_record, Some(record));
        state.takes(6, SCHEMA);
        assert_eq!((state.schema, state.least_schema), (6, Some(5)));
    }
}
