//! Nodes of two versions, and keys that one of them changes.

use custodyd_hsm::{KeyId, KeyPurpose};

use super::super::broken::Script;
use super::super::rig::{Rig, app};
use super::super::rotating::V2;
use super::super::tables;
use super::{charge, ends_with, stops, two};
use crate::ledger::LedgerError;
use crate::ledger::head::newest_schema;

/// What a newer version may do to the tables while this one serves.
const ADDED: &str = "CREATE TABLE custodyd.notes (id bigint PRIMARY KEY, note bytea NOT NULL); \
                     ALTER TABLE custodyd.records ADD COLUMN hint bytea";

async fn script(rig: &Rig, sql: &str) {
    rig.admin().await.script(sql).await;
}

/// Every connection of every node is opened anew, and looks at the schema.
async fn cut(rig: &Rig) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'custodyd'";
    script(rig, sql).await;
}

fn schema(rig: &Rig) -> (u32, Option<u32>) {
    let state = rig.ledger().reader.memory().head().state;
    (state.schema, state.least_schema)
}

async fn refused(rig: &mut Rig, what: &str) {
    match rig.try_serve(Script::default()).await {
        Err(LedgerError::Refused(why)) if why.contains(what) => {}
        started => panic!("{what}: {started:?}"),
    }
}

#[tokio::test]
async fn a_node_serves_beside_the_next_version_as_long_as_that_says_so() {
    let [one, mut next] = two().await;
    let mut one = one;
    next.crash().await;
    script(&one, ADDED).await;
    cut(&one).await;
    assert_eq!(charge(&one).await, 1);
    // By no head's word: a start names it.
    refused(&mut next, "table notes; records has the column hint bytea").await;
    // The next version, which has made it, serves beside this one.
    next.weakness.schema = Some((newest_schema() + 1, newest_schema()));
    next.try_serve(Script::default()).await.unwrap();
    assert_eq!(charge(&one).await, 2);
    assert_eq!(charge(&next).await, 3);
    // What it wrote, this one goes on from, and takes nothing back of it.
    next.crash().await;
    cut(&one).await;
    assert_eq!(charge(&one).await, 4);
    let newer = (newest_schema() + 1, Some(newest_schema()));
    assert_eq!(schema(&one), newer);
    one.crash().await;
    one.try_serve(Script::default()).await.unwrap();
    assert_eq!(charge(&one).await, 5);
    assert_eq!(schema(&one), newer);
    ends_with([one, next], 5).await;
}

#[tokio::test]
async fn a_node_neither_serves_nor_starts_where_the_next_version_says_so() {
    let [one, mut next] = two().await;
    let mut one = one;
    next.crash().await;
    next.weakness.schema = Some((newest_schema() + 1, newest_schema() + 1));
    next.try_serve(Script::default()).await.unwrap();
    let what = format!(
        "takes a custodyd of schema {} or later",
        newest_schema() + 1
    );
    let is_told = |error: LedgerError| {
        let told = matches!(&error, LedgerError::Outgrown(why) if why.contains(&what));
        assert!(told, "{error:?}");
    };
    let [a, _] = one.accounts;
    is_told(one.charge_only(a).await.unwrap_err());
    // Who only reads is told the same, once the word of before is over, and so is an operator.
    let fresh = one.ledger().reader.freshness();
    fresh.doubt();
    is_told(one.ledger().load(&app(), a).await.unwrap_err());
    is_told(one.ledger().is_newest().await.unwrap_err());
    // Whoever can make rows and nothing else says it to nobody.
    let honest = one.tables().await;
    script(&one, "UPDATE custodyd.head SET mac = sha256(mac)").await;
    fresh.doubt();
    let told = one.ledger().load(&app(), a).await;
    assert!(matches!(told, Err(LedgerError::Unconfirmed)), "{told:?}");
    let told = one.charge_only(a).await;
    assert!(
        matches!(
            told,
            Err(LedgerError::Unconfirmed | LedgerError::Refused(_))
        ),
        "{told:?}"
    );
    one.put(&honest, &tables::ALL).await;
    one.crash().await;
    refused(&mut one, &what).await;
    // The control: that one serves.
    assert_eq!(charge(&next).await, 1);
    next.crash().await;
}

#[tokio::test]
async fn what_acts_is_refused_whatever_the_head_says() {
    let [mut one, mut next] = two().await;
    next.crash().await;
    next.weakness.schema = Some((newest_schema() + 1, newest_schema()));
    next.try_serve(Script::default()).await.unwrap();
    one.crash().await;
    for (add, remove, what) in [
        (
            "ALTER TABLE custodyd.records ADD COLUMN hint bigint DEFAULT 1",
            "ALTER TABLE custodyd.records DROP COLUMN hint",
            "custodyd.records is not as custodyd made it",
        ),
        (
            "CREATE DOMAIN public.d AS bytea DEFAULT x'00'; ALTER TABLE custodyd.records ADD COLUMN hint public.d",
            "ALTER TABLE custodyd.records DROP COLUMN hint; DROP DOMAIN public.d",
            "hint public.d nullable of-a-made-type",
        ),
        (
            "ALTER TABLE custodyd.records ALTER COLUMN generation DROP NOT NULL",
            "ALTER TABLE custodyd.records ALTER COLUMN generation SET NOT NULL",
            "generation bigint nullable",
        ),
        (
            "CREATE VIEW custodyd.v AS SELECT 1",
            "DROP VIEW custodyd.v",
            "did not make",
        ),
    ] {
        script(&one, add).await;
        let started = one.try_serve(Script::default()).await;
        let said = format!("{started:?}");
        assert!(started.is_err() && said.contains(what), "{said}");
        script(&one, remove).await;
        // The control.
        one.try_serve(Script::default()).await.unwrap();
        one.crash().await;
    }
    next.crash().await;
}

#[tokio::test]
async fn a_node_that_changes_keys_goes_over_and_the_others_end() {
    goes_over_to(V2).await;
}

#[tokio::test]
async fn a_node_that_rotates_the_mac_key_goes_over_and_the_others_end() {
    goes_over_to(KeyId::new(KeyPurpose::Mac, 2)).await;
}

async fn goes_over_to(key: KeyId) {
    let [one, mut other] = two().await;
    // In the token; the other node has looked into it before.
    one.make(key).await;
    assert_eq!(charge(&one).await, 1);
    one.rotate(key).await.unwrap();
    let current = |rig: &Rig| {
        let versions = rig.pool().versions().unwrap();
        versions.current(key.purpose)
    };
    // What it seals from now on is under the new one, and what the other one sealed before is read.
    assert_eq!(current(&one), key);
    assert_eq!(charge(&one).await, 2);
    let told = other.charge_only(other.accounts[0]).await;
    assert!(told.is_err(), "{told:?}");
    assert!(stops(&other).await);
    // The control: it knows nothing of them until it starts again.
    assert_ne!(current(&other), key);
    other.crash().await;
    other.take_up(key).await;
    other.try_serve(Script::default()).await.unwrap();
    assert_eq!(current(&other), key);
    assert_eq!(charge(&other).await, 3);
    assert_eq!(charge(&one).await, 4);
    ends_with([one, other], 4).await;
}
