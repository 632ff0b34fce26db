//! Old tiles of leaves go, and everything that they proved is proven as before: also after a crash between any two
//! batches, and by a verification of the whole database.

use std::sync::Arc;

use tlog_tiles::record_hash;

use super::broken::Script;
use super::rig::{Rig, app};
use crate::ledger::LedgerError;
use crate::ledger::verify::{Progress, verify};
use crate::store::admin::Value;
use crate::store::{Exclusive, Sqlite, Store};

const TILES: &str = "SELECT count(*) FROM log_tiles WHERE level = 0";

/// Twelve full tiles of leaves, of which the newest eight are kept.
async fn long(rig: &mut Rig) {
    let [a, b] = rig.accounts;
    for turn in 0..14 {
        let id = [a, b][turn % 2];
        assert_eq!(rig.burst(&[id; 220]).await, 220);
    }
}

#[tokio::test]
async fn old_tiles_go_and_everything_is_proven_as_before() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    assert_eq!(rig.burst(&[a; 200]).await, 200);
    assert_eq!(rig.burst(&[b; 200]).await, 200);
    let early = rig.ledger().checkpoint().await.unwrap();
    let first = rig.ledger().tile(0, 0, 256).await.unwrap().unwrap();
    assert_eq!(rig.number(TILES).await, 1);
    long(&mut rig).await;
    assert_eq!(rig.number(TILES).await, 8, "the oldest are gone");
    let kept = "SELECT min(idx) FROM log_tiles WHERE level = 0";
    assert!(rig.number(kept).await >= 4);
    // Once more from the database, and not from what this process has in memory.
    rig.restart().await;
    let ledger = rig.ledger();
    assert_eq!(ledger.tile(0, 0, 256).await.unwrap().unwrap(), first);
    assert_eq!(
        ledger.tile(0, 0, 9).await.unwrap().unwrap(),
        first[..9 * 32]
    );
    assert!(ledger.entries(1, 256).await.unwrap().is_some());
    let loaded = ledger.load(&app(), a).await.unwrap().unwrap();
    let page = ledger.events_with_bodies(&loaded, None, 5000).await;
    let oldest = page.unwrap().bodies.pop().unwrap();
    assert!(oldest.index < 256);
    let proven = ledger.prove(&[oldest], Some(early.size())).await.unwrap();
    assert!(proven.consistency.is_some());
    // An entry that is not the one is noticed by the tile that is made of it.
    let mut admin = rig.admin().await;
    let sql = "UPDATE log_entries SET leaf = ? WHERE idx = 7";
    let (_, leaf) = admin
        .row("SELECT idx, leaf FROM log_entries WHERE idx = 7", &[])
        .await;
    assert_eq!(record_hash(&leaf).0, first[7 * 32..8 * 32]);
    admin.run(sql, &[Value::Bytes(&[1; 33])]).await;
    let refused = rig.ledger().tile(0, 0, 256).await;
    assert!(
        matches!(refused, Err(LedgerError::Tampered(_))),
        "{refused:?}"
    );
    admin.run(sql, &[Value::Bytes(&leaf)]).await;
    rig.check().await;
}

#[tokio::test]
async fn a_database_without_its_old_tiles_verifies_and_one_without_a_new_one_does_not() {
    let mut rig = Rig::new().await;
    long(&mut rig).await;
    rig.crash().await;
    rig.try_serve(Script::default()).await.unwrap();
    for (attack, finds) in [
        ("", 0),
        // The newest full tile has no reason to be missing.
        (
            "DELETE FROM log_tiles WHERE level = 0 AND idx = (SELECT max(idx) FROM log_tiles WHERE level = 0)",
            1,
        ),
        // An old one may be there; then it must be right.
        ("INSERT INTO log_tiles VALUES (0, 0, zeroblob(8192))", 1),
        // Also one that nobody reads, because it is larger than any tile.
        ("INSERT INTO log_tiles VALUES (0, 0, zeroblob(8193))", 1),
    ] {
        let mut copy = rig.copy().await;
        let (pool, realm) = (copy.ledger().pool().clone(), copy.ledger().realm().clone());
        copy.stop().await;
        if !attack.is_empty() {
            assert_eq!(copy.admin().await.run(attack, &[]).await, 1);
        }
        let lock = Exclusive::take(&copy.file()).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::look(&copy.file(), Some(lock)).await.unwrap());
        let progress = Arc::new(Progress::default());
        let report = verify(
            &store,
            &pool,
            (&realm, rig.mode()),
            Some(vec![app()]),
            &progress,
        );
        let report = report.await.unwrap();
        assert_eq!(report.findings.count(), finds, "{attack}: {report:?}");
        store.close().await;
    }
}
