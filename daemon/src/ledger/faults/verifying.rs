//! Verification of a whole database, stopped and serving: whatever was altered is named, and what
//! was not is clean, also while batches are written.

use std::sync::Arc;
use std::time::Duration;

use super::erasing::erase;
use super::names::claim;
use super::rig::{Rig, app};
use crate::ledger::verify::{Counts, Findings, Progress, Report, export, verify};
use crate::store::{Exclusive, Sqlite, Store};

/// A realm with more than a tile of entries, a tombstone, an alias, and bodies that are gone; it
/// rests.
async fn base() -> Rig {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    claim(&rig, b, "bob").await.unwrap();
    for _ in 0..10 {
        rig.burst(&[b; 28]).await;
    }
    rig.burst(&[a; 3]).await;
    erase(&rig, a).await.unwrap();
    rig.restart_without(a).await;
    rig.stop().await;
    rig
}

/// A copy that has stopped, with this done to its database; what a verification says of it, which is the same whether it
/// opens records or hashes them only.
async fn verified(base: &Rig, attack: &str) -> Report {
    let mut rig = base.copy().await;
    let (pool, realm) = (rig.ledger().pool().clone(), rig.ledger().realm().clone());
    rig.stop().await;
    if !attack.is_empty() {
        assert!(rig.admin().await.run(attack, &[]).await >= 1, "{attack}");
    }
    let lock = Exclusive::take(&rig.file()).unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::look(&rig.file(), Some(lock)).await.unwrap());
    let progress = Arc::new(Progress::default());
    let apps = Some(vec![app()]);
    let report = verify(&store, &pool, (&realm, rig.mode()), apps, &progress)
        .await
        .unwrap();
    let unopened = verify(&store, &pool, (&realm, rig.mode()), None, &progress)
        .await
        .unwrap();
    assert_eq!(unopened.findings, report.findings, "{attack}");
    let counts = Counts {
        opened: 0,
        unopened: 0,
        ..report.counts
    };
    assert_eq!(unopened.counts, counts, "{attack}");
    store.close().await;
    report
}

fn says(findings: &Findings, table: &str, what: &str) -> bool {
    let mut listed = findings.listed().iter();
    listed.any(|found| found.table == table && found.evidence.contains(what))
}

const STATE: &str =
    "(SELECT min(idx) FROM log_entries WHERE substr(leaf, 1, 1) = x'02' AND idx > 9)";
const GONE: &str = "(SELECT min(e.idx) FROM log_entries e LEFT JOIN log_bodies b USING (idx) \
     WHERE substr(leaf, 1, 1) = x'01' AND b.idx IS NULL)";
const ERASURE: &str = "(SELECT idx FROM log_entries WHERE substr(leaf, 1, 1) = x'03')";

/// What is done to a row, the table that must be named, and part of what must be said. These are
/// noticed in a database that is stopped and in one that serves.
async fn attacks(base: &Rig) -> Vec<(String, &'static str, String)> {
    let events = "SELECT min(b.idx) FROM log_bodies b JOIN log_entries e USING (idx) \
         WHERE b.idx > 20 AND substr(e.leaf, 1, 1) = x'01'";
    let victim = base.number(events).await.to_string();
    let fixed = [
        (
            "UPDATE log_entries SET leaf = CAST(x'01' || zeroblob(32) AS BLOB) WHERE idx = VICTIM",
            "log_entries",
            "log entry VICTIM: it is not the one",
        ),
        (
            "UPDATE log_entries SET leaf = zeroblob(20000) WHERE idx = VICTIM",
            "log_entries",
            "log entry VICTIM: it is larger",
        ),
        (
            "UPDATE log_entries SET leaf = CAST(x'77' || zeroblob(32) AS BLOB) WHERE idx = VICTIM",
            "log_entries",
            "log entry VICTIM: it is of a kind",
        ),
        (
            "DELETE FROM log_entries WHERE idx = VICTIM",
            "log_entries",
            "log entry VICTIM: is missing",
        ),
        (
            "UPDATE log_bodies SET body = zeroblob(length(body)) WHERE idx = VICTIM",
            "log_bodies",
            "log entry VICTIM: its body does not match",
        ),
        (
            "UPDATE log_bodies SET salt = zeroblob(32) WHERE idx = VICTIM",
            "log_bodies",
            "log entry VICTIM: its body does not match",
        ),
        (
            "UPDATE log_bodies SET body = zeroblob(70000) WHERE idx = VICTIM",
            "log_bodies",
            "log entry VICTIM: its body is larger",
        ),
        (
            "DELETE FROM log_bodies WHERE idx = VICTIM",
            "log_bodies",
            "log entry VICTIM: has no body, and no leaf",
        ),
        (
            "UPDATE bucket_members SET members = zeroblob(length(members))",
            "bucket_members",
            "its member list is not the newest",
        ),
        (
            "DELETE FROM bucket_members WHERE bucket = (SELECT min(bucket) FROM bucket_members)",
            "bucket_members",
            "its member list is not the newest",
        ),
        (
            "UPDATE bucket_digests SET digest = zeroblob(32) WHERE bucket = (SELECT min(bucket) FROM bucket_members)",
            "bucket_digests",
            "its cached digest",
        ),
        (
            "DELETE FROM bucket_digests WHERE bucket = (SELECT min(bucket) FROM bucket_members)",
            "bucket_digests",
            "its cached digest",
        ),
        (
            "INSERT INTO bucket_members VALUES (70000, x'00')",
            "bucket_members",
            "1 rows of bucket_members",
        ),
        (
            "UPDATE log_tiles SET data = zeroblob(length(data)) WHERE level = 0",
            "log_tiles",
            "tile 0 of level 0",
        ),
        (
            "UPDATE log_tiles SET data = zeroblob(length(data)) WHERE level = 1",
            "log_tiles",
            "tile 0 of level 1",
        ),
        (
            "DELETE FROM log_tiles WHERE level = 0",
            "log_tiles",
            "tile 0 of level 0",
        ),
        (
            "UPDATE records SET sealed = zeroblob(length(sealed)) WHERE rowid = (SELECT max(rowid) FROM records)",
            "records",
            "its content differs",
        ),
        (
            "UPDATE records SET sealed = zeroblob(2000000) WHERE rowid = (SELECT max(rowid) FROM records)",
            "records",
            "larger than",
        ),
        (
            "UPDATE records SET generation = generation + 1 WHERE rowid = (SELECT max(rowid) FROM records)",
            "records",
            "its generation differs",
        ),
        (
            "UPDATE records SET generation = -1 WHERE rowid = (SELECT max(rowid) FROM records)",
            "records",
            "",
        ),
        (
            "DELETE FROM records WHERE rowid = (SELECT max(rowid) FROM records)",
            "records",
            "the row is missing",
        ),
        (
            "INSERT INTO records VALUES (zeroblob(32), 1, x'00')",
            "records",
            "the bucket's member list does not name it",
        ),
        (
            "INSERT INTO records VALUES (zeroblob(31), 1, x'00')",
            "records",
            "1 rows of records",
        ),
        (
            "UPDATE head SET mac = zeroblob(32)",
            "head",
            "was not made by this token",
        ),
        ("UPDATE head SET body = x'00'", "head", "does not parse"),
    ];
    let mut attacks: Vec<_> = fixed
        .map(|(sql, table, what)| {
            let named = |text: &str| text.replace("VICTIM", &victim);
            (named(sql), table, named(what))
        })
        .into();
    for (sql, table, what) in [
        (
            format!(
                "UPDATE log_entries SET leaf = CAST(substr(leaf, 1, length(leaf) - 1) AS BLOB) WHERE idx = {STATE}"
            ),
            "log_entries",
            "it is not the one",
        ),
        (
            format!("INSERT INTO log_bodies SELECT {STATE}, zeroblob(32), x'00'"),
            "log_bodies",
            "it has a body",
        ),
        (
            format!("INSERT INTO log_bodies SELECT {GONE}, zeroblob(32), x'00'"),
            "log_bodies",
            "is there again",
        ),
        (
            format!("DELETE FROM log_bodies WHERE idx = {ERASURE}"),
            "log_bodies",
            "its own body is missing",
        ),
        (
            format!("UPDATE log_bodies SET salt = zeroblob(32) WHERE idx = {ERASURE}"),
            "log_bodies",
            "does not match",
        ),
    ] {
        attacks.push((sql, table, what.to_owned()));
    }
    attacks
}

#[tokio::test]
async fn a_stopped_database_that_nobody_touched_is_clean() {
    let report = verified(&base().await, "").await;
    assert!(report.is_clean(), "{report:?}");
    let counts = &report.counts;
    assert_eq!(Some((report.head.unwrap().0, counts.entries)), report.head);
    assert_eq!(counts.batches, report.head.unwrap().0);
    assert!(counts.entries > 300 && counts.bodies > 280, "{counts:?}");
    assert!(counts.deleted_bodies >= 4, "{counts:?}");
    // The realm's record, one account, its alias, and a tombstone.
    assert_eq!((counts.records, counts.opened), (4, 4), "{counts:?}");
    assert_eq!((counts.unopened, counts.unjudged), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn whatever_is_altered_in_a_stopped_database_is_named() {
    let base = base().await;
    let behind = [
        (
            "INSERT INTO log_entries VALUES (100000, x'01')",
            "log_entries",
            "1 rows of log_entries",
        ),
        (
            "INSERT INTO log_bodies VALUES (-1, x'01', x'01')",
            "log_bodies",
            "1 rows of log_bodies",
        ),
        (
            "INSERT INTO log_tiles VALUES (0, 9, x'01')",
            "log_tiles",
            "1 rows of log_tiles",
        ),
        // The last entry is in no full tile.
        (
            "UPDATE log_entries SET leaf = CAST(x'01' || zeroblob(32) AS BLOB) WHERE idx = (SELECT max(idx) FROM log_entries)",
            "log_entries",
            "one of them, or the state that follows",
        ),
        ("DELETE FROM head", "head", "no realm"),
    ];
    let behind = behind.map(|(sql, table, what)| (sql.to_owned(), table, what.to_owned()));
    for (attack, table, what) in attacks(&base).await.into_iter().chain(behind) {
        let report = verified(&base, &attack).await;
        assert!(
            says(&report.findings, table, &what),
            "{attack}: {report:#?}"
        );
    }
}

/// A page of the file is spoiled. What stands on others is gone over all the same, by a verification and by the scrub.
#[tokio::test]
async fn a_page_that_can_not_be_read_hides_nothing_else() {
    let base = base().await;
    for (table, named, said) in [
        ("log_bodies", "log_entries", "they can not be read"),
        ("log_tiles", "log_tiles", "malformed"),
        ("records", "records", "not all of their rows"),
    ] {
        let mut rig = base.copy().await;
        let mut admin = rig.admin().await;
        let attack = "UPDATE bucket_digests SET digest = zeroblob(32) WHERE bucket = (SELECT min(bucket) FROM bucket_digests)";
        // The oldest rows': a daemon that starts writes beyond them.
        let page = format!(
            "SELECT pageno FROM dbstat WHERE name = '{table}' AND pagetype = 'leaf' ORDER BY path LIMIT 1"
        );
        let page = u64::try_from(admin.number(&page).await).unwrap();
        drop(admin);
        rig.stop().await;
        assert!(rig.admin().await.run(attack, &[]).await >= 1);
        rig.admin()
            .await
            .script("PRAGMA wal_checkpoint(TRUNCATE)")
            .await;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(rig.file())
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4096], (page - 1) * 4096).unwrap();
        let (pool, realm) = (rig.pool().clone(), crate::ledger::faults::rig::realm_name());
        let lock = Exclusive::take(&rig.file()).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::look(&rig.file(), Some(lock)).await.unwrap());
        let progress = Arc::new(Progress::default());
        let report = verify(&store, &pool, (&realm, rig.mode()), None, &progress).await;
        let report = report.unwrap();
        store.close().await;
        assert!(report.findings.count() > 1, "{table}: {report:#?}");
        assert!(
            says(&report.findings, "bucket_digests", "its cached digest"),
            "{table}: {report:#?}"
        );
        assert!(says(&report.findings, named, said), "{table}: {report:#?}");
        drop(store);
        if table == "log_bodies" {
            rig.try_serve(super::broken::Script::default())
                .await
                .unwrap();
            let scrubbed = rig.ledger().scrub(7, Duration::ZERO).await.unwrap();
            assert!(says(&scrubbed.findings, named, said), "{scrubbed:#?}");
            assert!(scrubbed.counts.records > 2, "{scrubbed:#?}");
        }
    }
}

#[tokio::test]
async fn a_database_that_was_rolled_back_whole_is_refused_and_otherwise_in_order() {
    let mut rig = base().await;
    let older = rig.copy().await;
    let (a, contents) = (rig.accounts[1], rig.anchors.contents());
    // The same realm goes on elsewhere, and its token remembers that.
    let mut newer = rig.copy().await;
    for _ in 0..3 {
        newer.one(a).await.unwrap();
    }
    let newest = newer.anchors.contents();
    assert_ne!(contents, newest);
    newer.stop().await;
    older.anchors.put_back(&newest);
    rig = older;
    let (pool, realm) = (rig.ledger().pool().clone(), rig.ledger().realm().clone());
    rig.stop().await;
    let store: Arc<dyn Store> = Arc::new(Sqlite::look(&rig.file(), None).await.unwrap());
    let progress = Arc::new(Progress::default());
    let report = verify(&store, &pool, (&realm, rig.mode()), None, &progress)
        .await
        .unwrap();
    store.close().await;
    assert!(!report.is_clean());
    assert!(report.first().unwrap().contains("the token has anchored"));
    assert_eq!(report.findings.count(), 0, "{report:?}");
}

#[tokio::test]
async fn a_scrub_names_what_was_altered_while_it_serves() {
    let base = base().await;
    let mut rig = base.copy().await;
    let clean = rig.ledger().scrub(7, Duration::ZERO).await.unwrap();
    assert_eq!(clean.findings.count(), 0, "{:?}", clean.findings);
    assert_eq!(clean.counts.records, 4);
    rig.stop().await;
    for (attack, table, what) in attacks(&base).await {
        let mut rig = base.copy().await;
        assert!(rig.admin().await.run(&attack, &[]).await >= 1, "{attack}");
        let found = rig.ledger().scrub(7, Duration::ZERO).await.unwrap();
        let findings = &found.findings;
        assert!(says(findings, table, &what), "{attack}: {findings:#?}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_scrub_takes_no_batch_for_damage() {
    let mut rig = base().await.copy().await;
    let b = rig.accounts[1];
    let ledger = rig.ledger().clone();
    let scrubbing = tokio::spawn(async move {
        let mut entries = 0;
        for first in 0..2 {
            let scrubbed = ledger.scrub(first, Duration::from_millis(300)).await;
            let scrubbed = scrubbed.unwrap();
            assert_eq!(scrubbed.findings.count(), 0, "{:?}", scrubbed.findings);
            entries = scrubbed.counts.entries;
        }
        entries
    });
    let mut charges = 0;
    while !scrubbing.is_finished() {
        charges += rig.burst(&[b; 4]).await;
    }
    let entries = scrubbing.await.unwrap();
    assert!(entries > 400 && charges > 50, "{entries} {charges}");
    rig.stop().await;
}

#[tokio::test]
async fn an_exported_log_is_verified_without_the_database() {
    let mut rig = base().await.copy().await;
    let (pool, realm) = (rig.ledger().pool().clone(), rig.ledger().realm().clone());
    rig.stop().await;
    let store: Arc<dyn Store> = Arc::new(Sqlite::look(&rig.file(), None).await.unwrap());
    let mut file = Vec::new();
    let progress = Progress::default();
    let entries = export::export(&store, &realm, &mut file, &progress)
        .await
        .unwrap();
    store.close().await;
    let check = async |file: &[u8]| {
        let mut reader = file;
        export::verify_file(&mut reader, Some(&pool), &realm, &Progress::default()).await
    };
    let report = check(&file).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.counts.entries, entries);
    // Every byte of the log counts, and so does its end.
    let begin = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for at in (begin + 2..file.len()).step_by(701) {
        let mut altered = file.clone();
        altered[at] ^= 1;
        let report = check(&altered).await.unwrap();
        assert!(!report.is_clean(), "byte {at}");
    }
    assert!(!check(&file[..file.len() - 1]).await.unwrap().is_clean());
    assert!(!check(&[&file[..], b"x"].concat()).await.unwrap().is_clean());
    assert!(check(b"{}\n").await.is_err());
    let mac = file.windows(7).position(|part| part == b"\"mac\":\"");
    let mac = mac.unwrap() + 7;
    let mut forged = file.clone();
    forged[mac] = if forged[mac] == b'0' { b'1' } else { b'0' };
    let report = check(&forged).await.unwrap();
    assert!(says(&report.findings, "head", "was not made by this token"));
}
