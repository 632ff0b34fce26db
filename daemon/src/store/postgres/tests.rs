//! The store on a real server: what it writes, what it refuses, and what it finds out when it is cut off.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod declared;
mod rude;
mod silent;
mod standby;

use std::sync::Arc;

use super::answers::ANSWER;
use super::server::PostgresServer;
use super::*;
use crate::store::Asker;
use crate::store::admin::Place;
use crate::store::batches::{batch, id};

struct Scene {
    server: Arc<PostgresServer>,
    place: config::Postgres,
}

impl Scene {
    /// A server with a database of its own, and no tables.
    fn new() -> Self {
        let server = Arc::new(PostgresServer::start());
        match Place::on(Arc::clone(&server)) {
            Place::Server(_, place) => Self {
                server,
                place: *place,
            },
            Place::File(_) => unreachable!(),
        }
    }

    async fn made(&self) -> Postgres {
        let mut held = Postgres::hold(&self.place, Share::Alone).await.unwrap();
        held.make().await.unwrap();
        Postgres::open(held, &self.place).await.unwrap()
    }

    async fn open(&self) -> Result<Postgres, StoreError> {
        let held = Held::take(
            Server::new(&self.place).unwrap(),
            Share::Alone,
            super::PREDECESSOR,
        )
        .await?;
        Postgres::open(held, &self.place).await
    }

    fn sql(&self, sql: &str) -> String {
        let sql = format!("SET search_path = custodyd; {sql}");
        self.server.sql(&self.place.database, &sql)
    }

    fn number(&self, sql: &str) -> u64 {
        self.sql(sql).trim().parse().unwrap()
    }
}

/// What a batch is decided upon, what ends a charged guess and where the head stands is read, whatever requests do.
#[tokio::test]
async fn what_may_not_wait_waits_for_no_connection_of_a_request() {
    let mut scene = Scene::new();
    scene.place.connections = 1;
    let store = scene.made().await;
    store.commit(&batch(0, 2)).await.unwrap();
    let taken = store.readers.requests.acquire().await.unwrap();
    for asker in [Asker::Committer, Asker::End, Asker::Look] {
        let read = asker.during(store.members(&[1])).await;
        assert_eq!(read.unwrap().of_a_test().len(), 1, "{asker:?}");
    }
    // Control: another request finds none.
    assert!(store.members(&[1]).await.is_err());
    drop(taken);
    store.members(&[1]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_batch_is_written_whole_and_read_back_and_a_second_one_upon_it() {
    let scene = Scene::new();
    let store = scene.made().await;
    assert!(store.head().await.unwrap().of_a_test().is_none());
    let rows = 3000;
    store.commit(&batch(0, rows)).await.unwrap();
    store.commit(&batch(1, rows)).await.unwrap();
    assert_eq!(store.head().await.unwrap().of_a_test().unwrap().seq, 2);
    assert_eq!(
        scene.number("SELECT count(*) FROM records WHERE generation = 2"),
        rows
    );
    // Each row holds its own values.
    let torn =
        "SELECT count(*) FROM log_entries e JOIN log_bodies b USING (idx) WHERE e.leaf <> b.salt";
    assert_eq!(scene.number(torn), 0);
    assert_eq!(
        scene.number("SELECT count(DISTINCT idx) FROM log_bodies"),
        2 * rows
    );
    let row = store.record(&id(5), 5).await.unwrap().of_a_test();
    let sealed = row.sealed.unwrap();
    assert_eq!((sealed.generation, sealed.sealed), (2, vec![2; 8]));
    assert_eq!(row.members.unwrap(), [3; 8]);
    let none = store
        .record(&id(1 << 20), 70_000)
        .await
        .unwrap()
        .of_a_test();
    assert!(none.sealed.is_none() && none.members.is_none());
    let leaves = store.leaves(2, 3).await.unwrap().of_a_test();
    let places: Vec<u64> = leaves.iter().map(|(index, _)| *index).collect();
    assert_eq!(places, [2, 3, 4]);
    let found = store.tiles(&[(0, 1), (0, 9999), (1, 1)]).await.unwrap();
    assert_eq!(found.of_a_test().len(), 1);
    assert_eq!(store.digests().await.unwrap().of_a_test().len(), 3000);
    // What goes, goes; what is not named stays; of what goes and comes at once the coming one stays.
    let mut last = batch(2, 1);
    last.entries = vec![(2 * rows, vec![1])];
    last.bodies = Vec::new();
    last.removed = (0..rows).map(id).collect();
    last.erased = (1..2 * rows).collect();
    store.commit(&last).await.unwrap();
    for (table, left) in [
        ("records", 1),
        ("log_bodies", 1),
        ("log_entries", 2 * rows + 1),
    ] {
        assert_eq!(
            scene.number(&format!("SELECT count(*) FROM {table}")),
            left,
            "{table}"
        );
    }
    // Old tiles of leaves go, the oldest first and so many at once.
    let mut pruning = batch(3, 1);
    pruning.entries = vec![(2 * rows + 1, vec![1])];
    pruning.bodies = Vec::new();
    pruning.tiles = Vec::new();
    pruning.tiles_before = Some(20);
    store.commit(&pruning).await.unwrap();
    let tiles = "SELECT count(*) FROM log_tiles";
    assert_eq!(scene.number(tiles), rows - 16);
    assert_eq!(scene.number("SELECT min(idx) FROM log_tiles"), 16);
}

#[tokio::test]
async fn whole_tables_are_read_in_parts_and_what_is_beyond_its_bound_is_named() {
    let scene = Scene::new();
    let store = scene.made().await;
    store.commit(&batch(0, 600)).await.unwrap();
    let first = store.entries(0, 600).await.unwrap().of_a_test();
    assert_eq!(first.len(), 512);
    assert!(matches!(&first[7].body, Some(Some(body)) if body.body == [7; 8]));
    assert_eq!(store.entries(512, 600).await.unwrap().of_a_test().len(), 88);
    // Rows of three MiB: a part ends when it holds enough, and holds one at least.
    scene.sql(
        "UPDATE bucket_members SET members = decode(repeat('00', 3 << 20), 'hex') WHERE bucket < 5",
    );
    let part = store.lists(0, 600).await.unwrap().of_a_test();
    assert_eq!(part.len(), 3);
    assert!(
        part.iter()
            .all(|(_, list)| list.as_ref().unwrap().len() == 3 << 20)
    );
    scene.sql(
        "UPDATE bucket_members SET members = decode(repeat('00', 5 << 20), 'hex') WHERE bucket = 0",
    );
    let part = store.lists(0, 600).await.unwrap().of_a_test();
    assert_eq!((part[0].0, part[0].1.is_none()), (0, true));
    scene.sql("UPDATE records SET sealed = decode(repeat('00', 2 << 20), 'hex'), generation = -1 WHERE id = (SELECT id FROM records ORDER BY id LIMIT 1)");
    let part = store
        .records(&[0; 32], &[255; 32])
        .await
        .unwrap()
        .of_a_test();
    assert_eq!(part.len(), 600);
    assert!(part[0].sealed.is_none() && part[0].generation.is_none());
    assert!(matches!(
        store.record(&id(0), 1).await,
        Err(StoreError::Oversized { .. } | StoreError::Malformed { .. })
    ));
    assert!(
        store
            .strays(600)
            .await
            .unwrap()
            .of_a_test()
            .iter()
            .all(|(table, _)| *table == "log_tiles")
    );
    scene.sql("INSERT INTO log_bodies VALUES (-1, '', ''); INSERT INTO records VALUES ('\\x01', 1, ''); INSERT INTO log_tiles VALUES (9, 0, '')");
    let strays = store.strays(1 << 24).await.unwrap().of_a_test();
    assert_eq!(
        strays,
        [("log_bodies", 1), ("log_tiles", 1), ("records", 1)]
    );
}

#[tokio::test]
async fn of_two_that_write_one_loses_and_nothing_of_it_is_written() {
    let scene = Scene::new();
    let store = scene.made().await;
    store.commit(&batch(0, 2)).await.unwrap();
    for stale in [batch(0, 3), batch(2, 3)] {
        let lost = store.commit(&stale).await;
        assert!(matches!(lost, Err(CommitError::LostRace)), "{lost:?}");
    }
    assert_eq!(scene.number("SELECT count(*) FROM records"), 2);
    // Control: upon the head it is written.
    store.commit(&batch(1, 3)).await.unwrap();
    // A second process has no right to write, and says who has it.
    let Err(refused) = scene.open().await else {
        panic!("two hold the database");
    };
    assert!(refused.is_held(), "{refused}");
    assert!(refused.to_string().contains("for itself"), "{refused}");
    // The right is not what keeps them apart: one who does without it loses by the head alone.
    scene.sql("UPDATE head SET seq = 7");
    let lost = store.commit(&batch(2, 3)).await;
    assert!(matches!(lost, Err(CommitError::LostRace)), "{lost:?}");
    scene.sql("UPDATE head SET seq = 2");
    store.commit(&batch(2, 3)).await.unwrap();
    store.close().await;
    scene.open().await.unwrap();
}

/// What an administrator may hang on our tables, how it goes, and what is said of it.
const ALTERED: [(&str, &str, &str); 9] = [
    (
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER evil BEFORE UPDATE ON head FOR EACH ROW EXECUTE FUNCTION public.f()",
        "DROP TRIGGER evil ON head; DROP FUNCTION public.f",
        "trigger evil",
    ),
    (
        "CREATE RULE evil AS ON INSERT TO records DO INSTEAD NOTHING",
        "DROP RULE evil ON records",
        "rule evil",
    ),
    (
        "ALTER TABLE records RENAME TO kept; CREATE VIEW records AS SELECT * FROM kept",
        "DROP VIEW records; ALTER TABLE kept RENAME TO records",
        "rule _RETURN",
    ),
    (
        "ALTER TABLE records ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE records DISABLE ROW LEVEL SECURITY",
        "row-security",
    ),
    (
        "CREATE INDEX other ON records (generation)",
        "DROP INDEX other",
        "index of another kind",
    ),
    (
        "CREATE UNLOGGED TABLE sessions (token text)",
        "DROP TABLE sessions",
        "sessions",
    ),
    (
        "ALTER TABLE records ALTER COLUMN generation SET DEFAULT 9",
        "ALTER TABLE records ALTER COLUMN generation DROP DEFAULT",
        "generated",
    ),
    (
        "CREATE TABLE child () INHERITS (log_entries)",
        "DROP TABLE child",
        "child",
    ),
    (
        "ALTER TABLE log_tiles RENAME TO gone",
        "ALTER TABLE gone RENAME TO log_tiles",
        "log_tiles is missing",
    ),
];

#[tokio::test]
async fn what_custodyd_did_not_make_is_refused_at_open() {
    let scene = Scene::new();
    scene.made().await.close().await;
    for (attack, mend, what) in ALTERED {
        scene.sql(attack);
        let Err(refused) = scene.open().await else {
            panic!("accepted: {attack}");
        };
        assert!(refused.to_string().contains(what), "{attack}: {refused}");
        scene.sql(mend);
        // Control: mended, it opens.
        scene.open().await.unwrap().close().await;
    }
}

#[tokio::test]
async fn what_is_hung_on_our_tables_while_we_run_never_acts_in_a_commit() {
    let scene = Scene::new();
    let store = scene.made().await;
    store.commit(&batch(0, 2)).await.unwrap();
    // Those that act on what a commit does.
    for (parent, (attack, mend, what)) in (1..).zip(&ALTERED[..4]) {
        scene.sql(attack);
        for _ in 0..2 {
            let refused = store.commit(&batch(parent, 2)).await;
            let (Err(CommitError::NotWritten(refused)) | Err(CommitError::Declined(refused))) =
                refused
            else {
                panic!("{attack}: {refused:?}");
            };
            let said = refused.to_string();
            assert!(
                said.contains(what) || said.contains("not a table") || said.contains("\"records\""),
                "{attack}: {said}"
            );
        }
        assert_eq!(scene.number("SELECT seq FROM head"), parent);
        scene.sql(mend);
        // Control: the same batch is written then.
        store.commit(&batch(parent, 2)).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_within_a_commit_is_opened_again() {
    let scene = Scene::new();
    let store = scene.made().await;
    store.commit(&batch(0, 2)).await.unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for parent in 1..4 {
        assert!(scene.number(cut) > 0);
        let cut = store.commit(&batch(parent, 2)).await;
        assert!(matches!(cut, Err(CommitError::NotWritten(_))), "{cut:?}");
        let mut tries = 0;
        // The server may not have missed the connection yet that had the right to write.
        while let Err(error) = store.commit(&batch(parent, 2)).await {
            assert!(matches!(error, CommitError::NotWritten(_)), "{error}");
            tries += 1;
            assert!(tries < 50, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_head_that_is_locked_for_ever_holds_nobody_for_ever() {
    let scene = Scene::new();
    let store = scene.made().await;
    store.commit(&batch(0, 2)).await.unwrap();
    let mut child = scene
        .server
        .program("psql")
        .args([
            "-X",
            "-U",
            super::server::USER,
            "-d",
            &scene.place.database,
            "-h",
        ])
        .arg(scene.server.folder())
        .args([
            "-c",
            "BEGIN; SELECT 1 FROM custodyd.head FOR UPDATE; SELECT pg_sleep(60)",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while scene.number(locked) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = std::time::Instant::now();
    let refused = store.commit(&batch(1, 2)).await;
    assert!(
        matches!(refused, Err(CommitError::Declined(_))),
        "{refused:?}"
    );
    assert!(begun.elapsed() < ANSWER, "{:?}", begun.elapsed());
    // Reading goes on.
    assert_eq!(store.head().await.unwrap().of_a_test().unwrap().seq, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    scene
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    let mut again = store.commit(&batch(1, 2)).await;
    for _ in 0..20 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        again = store.commit(&batch(1, 2)).await;
    }
    again.unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_has_what_it_answered_and_is_found_again() {
    let mut scene = Scene::new();
    let store = scene.made().await;
    for parent in 0..20 {
        store.commit(&batch(parent, 2)).await.unwrap();
    }
    Arc::get_mut(&mut scene.server).unwrap().kill();
    let refused = store.commit(&batch(20, 2)).await;
    assert!(
        matches!(refused, Err(CommitError::NotWritten(_))),
        "{refused:?}"
    );
    assert!(matches!(
        store.head().await,
        Err(StoreError::Unavailable { .. })
    ));
    Arc::get_mut(&mut scene.server).unwrap().launch();
    assert_eq!(store.head().await.unwrap().of_a_test().unwrap().seq, 20);
    store.commit(&batch(20, 2)).await.unwrap();
}

#[test]
fn neither_a_store_nor_an_error_shows_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::io::Write::write_all(
        &mut crate::private_file::create(&file).unwrap(),
        b"hunter2\n",
    )
    .unwrap();
    let place = config::Postgres {
        server: config::Server::Host {
            host: "127.0.0.1".into(),
            port: 1,
            tls: false,
        },
        user: "custodyd".into(),
        database: "realm".into(),
        password: Some(crate::private_file::Place::File(file)),
        ca: None,
        several_nodes: false,
        rollout: Vec::new(),
        connections: 1,
        state_directory: dir.path().to_owned(),
    };
    let server = Server::new(&place).unwrap();
    assert!(
        format!("{:?}", server.reading()).contains("hunter2"),
        "the driver hides it now"
    );
    assert!(!format!("{server:?}").contains("hunter2"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime
        .block_on(Postgres::hold(&place, Share::Alone))
        .unwrap_err();
    assert!(
        !format!("{error:?} {error}").contains("hunter2"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_schema_under_our_name_is_not_ours_though_our_tables_are_there() {
    let scene = Scene::new();
    let store = scene.made().await;
    store.commit(&batch(0, 2)).await.unwrap();
    let copies = [
        "head",
        "records",
        "bucket_members",
        "bucket_digests",
        "log_entries",
        "log_bodies",
        "log_tiles",
    ];
    let copies = copies.map(|name| {
        format!(
            "CREATE TABLE custodyd.{name} (LIKE kept.{name} INCLUDING ALL); \
             INSERT INTO custodyd.{name} SELECT * FROM kept.{name};"
        )
    });
    scene.sql(&format!(
        "ALTER SCHEMA custodyd RENAME TO kept; CREATE SCHEMA custodyd; {}",
        copies.concat()
    ));
    let refused = store.commit(&batch(1, 2)).await;
    assert!(
        matches!(refused, Err(CommitError::Declined(_))),
        "{refused:?}"
    );
    for schema in ["kept", "custodyd"] {
        assert_eq!(scene.number(&format!("SELECT seq FROM {schema}.head")), 1);
    }
    // Control: with ours under its name again the same batch is written.
    scene.sql("DROP SCHEMA custodyd CASCADE; ALTER SCHEMA kept RENAME TO custodyd");
    store.commit(&batch(1, 2)).await.unwrap();
}
