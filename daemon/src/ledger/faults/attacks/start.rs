//! Databases that are prepared while the daemon is stopped: heads, logs, caches, files.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use custodyd_hsm::anchor::{self, Anchor};

use super::{BUDGET, Rig, Weakness, is_exhausted, says, strong};
use crate::clock::Clock;
use crate::ledger::faults::broken::Script;
use crate::ledger::faults::rig::realm_name;
use crate::ledger::faults::tables::{
    DIGESTS, ENTRIES, HEAD, MEMBERS, RECORDS, Row, TABLES, TILES, Tables,
};
use crate::ledger::head::Head;
use crate::store::admin::{Cell, Value};
use crate::store::{Batch, HeadRow, MAX_MEMBERS, MAX_PART};

const HEAD_IS_NOT_OURS: &str = "was not made by this token";

/// A realm with a guess made, and its backup; then all guesses are made, and it rests.
async fn scene() -> (Rig, Tables, Tables) {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    rig.guess(a).await.unwrap();
    let old = rig.tables().await;
    for _ in 1..BUDGET {
        rig.guess(a).await.unwrap();
    }
    let newest = rig.tables().await;
    (rig, old, newest)
}

/// The control of all: the newest database starts, and no guess is left.
async fn serves(rig: &mut Rig, newest: &Tables) {
    let [a, _] = rig.accounts;
    rig.start_upon(newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
    rig.crash().await;
}

fn bytes(cell: &Cell) -> Vec<u8> {
    match cell {
        Cell::Bytes(bytes) => bytes.to_vec(),
        Cell::Number(number) => panic!("{number}"),
    }
}

fn head_row(tables: &Tables) -> Row {
    tables.rows(HEAD).next().unwrap().clone()
}

fn with_head(mut tables: Tables, row: Row) -> Tables {
    tables.put(HEAD, row);
    tables
}

/// The next batch, made by somebody who knows the format and has not the token: it puts records
/// and lists of the backup back into the newest state.
fn forged(rig: &Rig, old: &Tables, newest: &Tables) -> Tables {
    let memory = rig.ledger().reader.memory();
    let believed = memory.read();
    let mut batch = Batch::after(believed.head.state.seq);
    for row in old.rows(MEMBERS) {
        let Cell::Number(bucket) = row[0] else {
            panic!()
        };
        batch
            .members
            .push((u32::try_from(bucket).unwrap(), bytes(&row[1])));
    }
    let next = believed.next(believed.head.clone(), &mut batch).unwrap();
    batch.head = HeadRow {
        seq: next.head.state.seq,
        body: next.head.encode().unwrap(),
        mac: vec![7; 32],
    };
    let mut tables = newest.with(old, &[RECORDS]);
    tables.apply(&batch);
    tables
}

#[tokio::test]
async fn a_forged_head_is_refused() {
    let (mut rig, old, newest) = scene().await;
    let [a, _] = rig.accounts;
    let forged = forged(&rig, &old, &newest);
    says(&rig.start_upon(&forged, strong()).await, HEAD_IS_NOT_OURS);
    // The MAC of an honest head is nothing for another one.
    let honest = head_row(&newest);
    let mut row = head_row(&forged);
    row[3] = honest[3].clone();
    let tables = with_head(forged.clone(), row);
    says(&rig.start_upon(&tables, strong()).await, HEAD_IS_NOT_OURS);
    for mac in [&[][..], &[0; 31], &[0; 32], &[0; 33]] {
        let mut row = honest.clone();
        row[3] = Cell::Bytes(mac.into());
        let tables = with_head(newest.clone(), row);
        says(&rig.start_upon(&tables, strong()).await, HEAD_IS_NOT_OURS);
    }
    for at in (0..bytes(&honest[2]).len()).step_by(37) {
        let mut row = honest.clone();
        let mut body = bytes(&row[2]);
        body[at] ^= 1;
        row[2] = Cell::Bytes(body.into());
        let started = rig
            .start_upon(&with_head(newest.clone(), row), strong())
            .await;
        assert!(started.is_err(), "{at}");
    }
    let mut none = newest.clone();
    none.remove(HEAD, &[Cell::Number(1)]);
    says(&rig.start_upon(&none, strong()).await, "holds no realm");
    serves(&mut rig, &newest).await;
    // Control: for who does not check it, the forged head is the next one of this history.
    let any_head = Weakness {
        any_head: true,
        ..strong()
    };
    let (mut rig, old, newest) = scene().await;
    let forged = self::forged(&rig, &old, &newest);
    rig.start_upon(&forged, any_head).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}

/// A head that the token did make, of another realm, epoch or history.
async fn authentic(rig: &Rig, newest: &Tables, change: impl FnOnce(&mut Head)) -> Tables {
    let mut row = head_row(newest);
    let mut head: Head = serde_json::from_slice(&bytes(&row[2])).unwrap();
    change(&mut head);
    let made = head.authenticate(rig.pool()).await.unwrap();
    row[1] = Cell::Number(i64::try_from(made.seq).unwrap());
    row[2] = Cell::Bytes(made.body.into());
    row[3] = Cell::Bytes(made.mac.into());
    with_head(newest.clone(), row)
}

#[tokio::test]
async fn a_head_of_another_realm_epoch_or_history_is_refused() {
    let (mut rig, _, newest) = scene().await;
    let foreign = authentic(&rig, &newest, |head| {
        head.state.realm = custodyd_hsm::RealmName::parse("other.example").unwrap();
    })
    .await;
    says(
        &rig.start_upon(&foreign, strong()).await,
        "belongs to realm other.example",
    );
    // Its MAC is none of this realm's, whatever name is written over it.
    let mut row = head_row(&newest);
    row[3] = head_row(&foreign)[3].clone();
    let renamed = with_head(newest.clone(), row);
    says(&rig.start_upon(&renamed, strong()).await, HEAD_IS_NOT_OURS);
    let epoch = authentic(&rig, &newest, |head| head.state.log_epoch += 1).await;
    assert!(rig.start_upon(&epoch, strong()).await.is_err());
    let schema = authentic(&rig, &newest, |head| head.state.schema += 2).await;
    says(&rig.start_upon(&schema, strong()).await, "schema");
    let fork = authentic(&rig, &newest, |head| head.state.time.0 += 1).await;
    assert!(rig.start_upon(&fork, strong()).await.is_err());
    serves(&mut rig, &newest).await;
}

/// Whole databases that the token has made, with whole logs: only the anchor tells them apart.
#[tokio::test]
async fn a_whole_database_of_another_epoch_or_history_is_refused() {
    for (epoch, why) in [
        (true, "before, or after, a restore"),
        (false, "two histories"),
    ] {
        let (mut rig, _, newest) = scene().await;
        let (old, memory) = (rig.ledger().reader.memory(), newest.clone());
        let (batch, head) = {
            let believed = old.read();
            let mut batch = Batch::after(believed.head.state.seq);
            let mut head = believed.head.clone();
            head.state.log_epoch += u64::from(epoch);
            let next = believed.next(head, &mut batch).unwrap();
            (batch, next.head)
        };
        let mut batch = batch;
        batch.head = head.authenticate(rig.pool()).await.unwrap();
        let mut other = memory;
        other.apply(&batch);
        if !epoch {
            // The honest history goes on for two batches: the other is older, and not its ancestor.
            rig.succeed(rig.accounts[0]).await.unwrap();
        }
        says(&rig.start_upon(&other, strong()).await, why);
        // Control: not compared with the anchor, it is served.
        let weakness = Weakness {
            any_anchor: true,
            lazy: true,
            ..strong()
        };
        rig.start_upon(&other, weakness).await.unwrap();
        assert_eq!(rig.charged(rig.accounts[0]).await.unwrap(), Some(BUDGET));
    }
}

#[tokio::test]
async fn tables_of_different_moments_are_refused() {
    let (mut rig, old, newest) = scene().await;
    let [a, _] = rig.accounts;
    let state = [RECORDS, MEMBERS, DIGESTS];
    says(
        &rig.start_upon(&newest.with(&old, &state), strong()).await,
        "not those that the head names",
    );
    says(
        &rig.start_upon(&newest.with(&old, &[ENTRIES]), strong())
            .await,
        "is missing",
    );
    says(
        &rig.start_upon(&newest.with(&old, &[HEAD]), strong()).await,
        "not those that the head names",
    );
    serves(&mut rig, &newest).await;
    // Control: for who believes the digests, the guesses are back.
    let any_state = Weakness {
        any_state: true,
        ..strong()
    };
    let (mut rig, old, newest) = scene().await;
    rig.start_upon(&newest.with(&old, &state), any_state)
        .await
        .unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 2);
    // Lists alone: the digests are right, so it starts, and each list is refused when it is read.
    let (mut rig, old, newest) = scene().await;
    rig.start_upon(&newest.with(&old, &[MEMBERS]), strong())
        .await
        .unwrap();
    assert!(super::is_tampered(&rig.guess(a).await));
}

#[tokio::test]
async fn a_log_that_is_cut_edited_or_reordered_is_refused() {
    let (mut rig, _, newest) = scene().await;
    let rows: Vec<Row> = newest.rows(ENTRIES).cloned().collect();
    let last = rows.len() - 1;
    let why = "not those that the head names";
    let with = |at: usize, leaf: &Cell| {
        let mut tables = newest.clone();
        tables.put(ENTRIES, vec![rows[at][0].clone(), leaf.clone()]);
        tables
    };
    for at in 0..=last {
        // An older state leaf, an event of another, rubbish.
        let other = &rows[(at + 2) % rows.len()][1];
        says(&rig.start_upon(&with(at, other), strong()).await, why);
        let mut cut = newest.clone();
        cut.remove(ENTRIES, &rows[at][..1]);
        says(&rig.start_upon(&cut, strong()).await, "is missing");
    }
    serves(&mut rig, &newest).await;
    // Control: not compared with the head, the log is what the administrator has written.
    let any_log = Weakness {
        any_log: true,
        ..strong()
    };
    let (mut rig, _, newest) = scene().await;
    let row = newest.rows(ENTRIES).nth(last - 2).unwrap();
    let mut tables = newest.clone();
    let leaf = Cell::Bytes(Arc::from(&b"never happened"[..]));
    tables.put(ENTRIES, vec![row[0].clone(), leaf]);
    rig.start_upon(&tables, any_log).await.unwrap();
    let rewritten = "SELECT count(*) FROM log_entries WHERE leaf = x'6e657665722068617070656e6564'";
    assert_eq!(rig.number(rewritten).await, 1);
}

/// An entry that no head names: nothing reads it, and the next batch does not write over it.
#[tokio::test]
async fn an_entry_ahead_of_the_head_is_never_believed() {
    let (mut rig, _, newest) = scene().await;
    let next = i64::try_from(newest.rows(ENTRIES).count()).unwrap();
    let mut tables = newest.clone();
    let leaf = newest.rows(ENTRIES).last().unwrap()[1].clone();
    tables.put(ENTRIES, vec![Cell::Number(next), leaf]);
    assert!(rig.start_upon(&tables, strong()).await.is_err());
    serves(&mut rig, &newest).await;
}

/// After a clean stop the token knows that nothing was written any more.
#[tokio::test]
async fn a_batch_after_a_clean_stop_is_refused() {
    let (mut rig, _, newest) = scene().await;
    rig.start(strong()).await.unwrap();
    let stopped = rig.tables().await;
    rig.crash().await;
    let of = realm_name();
    let clean = rig.pool().call("stop", move |custody| {
        let last = anchor::newest(custody, &of)?.unwrap();
        let clean = Anchor {
            serial: last.serial + 1,
            clean: true,
            ..last.clone()
        };
        anchor::advance(custody, &of, Some(&last), &clean)?;
        Ok(())
    });
    clean.await.unwrap();
    let objects = rig.anchors.contents();
    // What comes after: a boot batch that was written, and whose anchor is not there.
    rig.start_upon(&stopped, strong()).await.unwrap();
    let ahead = rig.tables().await;
    rig.crash().await;
    rig.anchors.put_back(&objects);
    says(
        &rig.start_upon(&ahead, strong()).await,
        "after the clean stop",
    );
    says(
        &rig.start_upon(&newest, strong()).await,
        "it was rolled back",
    );
    // Control: exactly what was stopped.
    rig.start_upon(&stopped, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(rig.accounts[0]).await));
}

/// Caches are mended, and nothing that they say is believed.
#[tokio::test]
async fn caches_that_were_altered_are_built_anew() {
    let (mut rig, old, newest) = scene().await;
    let [a, b] = rig.accounts;
    let mut cases = vec![newest.with(&old, &[DIGESTS]), newest.with(&old, &[TILES])];
    for table in [DIGESTS, TILES] {
        let mut gone = newest.clone();
        let mut zeros = newest.clone();
        let mut one = true;
        for row in newest.rows(table) {
            let keys = if table == TILES { 2 } else { 1 };
            gone.remove(table, &row[..keys]);
            let mut row = row.clone();
            let at = TABLES[table]
                .columns
                .iter()
                .position(|(_, kind)| *kind == b'b');
            row[at.unwrap()] = Cell::Bytes(vec![u8::from(one); 32].into());
            zeros.put(table, row);
            one = !one;
        }
        cases.extend([gone, zeros]);
    }
    // A digest of a bucket that nothing is in.
    let mut more = newest.clone();
    more.put(
        DIGESTS,
        vec![
            Cell::Number(77),
            Cell::Bytes(vec![7; 32].into()),
            Cell::Number(1),
        ],
    );
    cases.push(more);
    let mut newest = newest;
    for case in cases {
        // The case upon what stands now: each start adds a batch of its own.
        let tables = newest.with(&case, &[DIGESTS]);
        rig.start_upon(&tables, strong()).await.unwrap();
        assert!(is_exhausted(&rig.guess(a).await));
        assert_eq!(rig.charged(b).await.unwrap(), Some(0));
        newest = rig.tables().await;
        // It was mended: a start that believes the digests finds the same.
        let any_state = Weakness {
            any_state: true,
            ..strong()
        };
        rig.start(any_state).await.unwrap();
        assert!(is_exhausted(&rig.guess(a).await));
        newest = newest.with(&rig.tables().await, &super::super::tables::ALL);
    }
}

/// A host clock that was set back, also while the daemon was stopped, opens nothing again.
#[tokio::test]
async fn a_clock_that_is_set_back_stays_where_it_was() {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    let day = 86_400;
    rig.later(day);
    rig.guess(a).await.unwrap();
    rig.host.set(rig.host.wall() - day);
    rig.start(strong()).await.unwrap();
    // Control: the host's own clock says that it is a day earlier.
    let host = Clock::default().now();
    assert!(rig.ledger().now().0 > host.0 + day - 600);
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}

/// Pages of the file that are rubbish: nothing wrong is answered, and the start says so or serves.
#[tokio::test]
async fn a_file_with_a_malformed_page_gives_no_wrong_answer() {
    let (mut rig, _, newest) = scene().await;
    let [a, b] = rig.accounts;
    serves(&mut rig, &newest).await;
    let file = rig.file();
    for suffix in ["sqlite-wal", "sqlite-shm"] {
        let _ = std::fs::remove_file(file.with_extension(suffix));
    }
    let whole = std::fs::read(&file).unwrap();
    let objects = rig.anchors.contents();
    let mut refused = 0;
    for page in 0..whole.len() / 4096 {
        let mut spoiled = whole.clone();
        spoiled[page * 4096 + 2..(page + 1) * 4096].fill(0x5a);
        for suffix in ["sqlite-wal", "sqlite-shm"] {
            let _ = std::fs::remove_file(file.with_extension(suffix));
        }
        std::fs::write(&file, &spoiled).unwrap();
        rig.anchors.put_back(&objects);
        match rig.start(strong()).await {
            Ok(()) => {
                let guessed = rig.guess(a).await;
                assert!(guessed.is_err(), "{guessed:?}");
                assert!(matches!(rig.charged(a).await, Ok(Some(BUDGET)) | Err(_)));
                assert!(matches!(rig.charged(b).await, Ok(Some(0)) | Err(_)));
            }
            Err(_) => refused += 1,
        }
        rig.crash().await;
    }
    assert!(refused > 3, "{refused}");
    for suffix in ["sqlite-wal", "sqlite-shm"] {
        let _ = std::fs::remove_file(file.with_extension(suffix));
    }
    std::fs::write(&file, &whole).unwrap();
    rig.anchors.put_back(&objects);
    rig.start(strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
}

/// Whoever has the database makes lists as large as they may be, and the cache of no use. A start reads all of them, and
/// holds a part of them at a time.
#[tokio::test]
async fn a_start_holds_a_part_of_the_lists_however_large_they_are() {
    const LISTS: u32 = 12;
    let (mut rig, _, _) = scene().await;
    rig.crash().await;
    let mut admin = rig.admin().await;
    admin.run("DELETE FROM bucket_digests", &[]).await;
    let large = vec![0; MAX_MEMBERS];
    for bucket in 0..LISTS {
        let bucket = Value::Number(i64::from(bucket));
        let gone = "DELETE FROM bucket_members WHERE bucket = ?";
        admin.run(gone, std::slice::from_ref(&bucket)).await;
        let sql = "INSERT INTO bucket_members (bucket, members) VALUES (?, ?)";
        admin.run(sql, &[bucket, Value::Bytes(&large)]).await;
    }
    drop(admin);
    rig.largest.store(0, Ordering::SeqCst);
    says(&rig.try_serve(Script::default()).await, "does not parse");
    let held = rig.largest.load(Ordering::SeqCst);
    assert!(
        (MAX_MEMBERS..=MAX_PART + MAX_MEMBERS).contains(&held),
        "{held}"
    );
    // Control: one answer with all of them is what it would hold.
    let store = rig.place.open().await.unwrap();
    let all: Vec<u32> = (0..LISTS).collect();
    let lists = store.members(&all).await.unwrap().of_a_test();
    let size: usize = lists.iter().map(|(_, list)| list.len()).sum();
    assert!(size > MAX_PART + MAX_MEMBERS);
    store.close().await;
}
