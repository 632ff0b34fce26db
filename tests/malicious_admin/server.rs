//! Whoever administers a PostgreSQL server: rows, code hung on tables, and whole databases put in place of
//! one another. That rows are refused as a file's are is tried by the modules beside this one, which run on a
//! server, too (`scripts/test-on-postgres`), but for those about the file, the token, or a server anyway.

use std::time::Duration;

use custodyd_tests::app::{DATABASE, said};
use custodyd_tests::postgres::USER;
use custodyd_tests::{Device, PostgresServer, Setup, TestApp};
use serde_json::json;

use crate::{Version, ready, uncached_with, unready, victim};

const PIN: &str = "830517";
const WRONG: &str = "830518";
const ROUNDS: &str = "[[pin.rounds]]\nattempts = 20\n";

async fn on_a_server() -> TestApp {
    uncached_with(Setup::notes(ROUNDS).on_postgres()).await
}

async fn left(device: &mut Device) -> u64 {
    let wrong = device.try_pin(WRONG, &[]).await;
    wrong.refused("401 pin-wrong");
    wrong.body["attempts_left"].as_u64().unwrap()
}

#[tokio::test]
async fn an_old_row_with_its_list_wins_no_guess_back() {
    let app = on_a_server().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let old = Version::of(&mut admin, &row).await;
    let before = left(&mut device).await;
    let newest = Version::of(&mut admin, &row).await;
    old.row.restore(&mut admin).await;
    device
        .try_pin(PIN, &[])
        .await
        .refused("500 record-tampered");
    old.put_back(&mut admin).await;
    device
        .try_pin(PIN, &[])
        .await
        .refused("500 record-tampered");
    // Control: the newest version, written back by the same hand, is served, and nothing was won.
    newest.put_back(&mut admin).await;
    assert_eq!(left(&mut device).await, before - 1);
    device.try_pin(PIN, &[]).await.expect(201);
}

/// A trigger that keeps every row as it was.
const REVERT: &str = "CREATE FUNCTION public.revert() RETURNS trigger LANGUAGE plpgsql AS \
                      'BEGIN NEW.sealed := OLD.sealed; NEW.generation := OLD.generation; RETURN NEW; END'; \
                      CREATE TRIGGER revert BEFORE UPDATE ON custodyd.records FOR EACH ROW \
                      EXECUTE FUNCTION public.revert()";
const NO_REVERT: &str = "DROP TRIGGER revert ON custodyd.records; DROP FUNCTION public.revert";

#[tokio::test]
async fn code_that_is_hung_on_a_table_never_acts_in_a_commit_and_is_named() {
    let mut app = on_a_server().await;
    let (mut device, row) = victim(&app, "notes").await;
    let before = left(&mut device).await;
    let sql = |app: &TestApp, sql: &str| app.postgres.as_ref().unwrap().sql(DATABASE, sql);
    for (attack, mend, what) in [
        (REVERT, NO_REVERT, "trigger revert"),
        (
            "CREATE RULE nothing AS ON UPDATE TO custodyd.bucket_members DO INSTEAD NOTHING",
            "DROP RULE nothing ON custodyd.bucket_members",
            "rule nothing",
        ),
        (
            "ALTER TABLE custodyd.head RENAME TO kept; CREATE VIEW custodyd.head AS SELECT * FROM custodyd.kept",
            "DROP VIEW custodyd.head; ALTER TABLE custodyd.kept RENAME TO head",
            "other rule _RETURN",
        ),
    ] {
        sql(&app, attack);
        let guess = device.try_pin(WRONG, &[]).await;
        guess.refused("503 store-unavailable");
        assert!(guess.headers.contains_key("retry-after"));
        assert!(app.stop());
        let output = app.command("serve").output().unwrap();
        let text = said(&output);
        assert!(
            !output.status.success() && text.contains(what),
            "{attack}: {text}"
        );
        sql(&app, mend);
        app.launch().await;
    }
    // Control: the trigger acts for whoever writes without looking.
    let mut admin = app.admin().await;
    let now = Version::of(&mut admin, &row).await;
    assert!(app.stop());
    sql(&app, REVERT);
    row.set_sealed(&mut admin, b"another").await;
    let after = Version::of(&mut admin, &row).await;
    assert_eq!(after.row, now.row, "the trigger does not act");
    sql(&app, NO_REVERT);
    app.launch().await;
    assert_eq!(left(&mut device).await, before - 1);
}

/// Who holds a lock takes no row and breaks no statement that reads: the daemon says itself that it writes nothing.
#[tokio::test]
async fn a_lock_that_nobody_lets_go_is_no_readiness() {
    let app = on_a_server().await;
    let (mut device, _) = victim(&app, "notes").await;
    let before = left(&mut device).await;
    let mut admin = app.admin().await;
    admin.run("BEGIN").await;
    admin.run("LOCK TABLE records IN SHARE MODE").await;
    let (guess, ()) = tokio::join!(device.try_pin(WRONG, &[]), unready(&app, ""));
    assert_eq!(guess.status, 503, "{}", guess.body);
    let (_, metrics) = app.operator("/metrics").await;
    for line in [
        "custodyd_ready{check=\"store\"} 1",
        "custodyd_ready{check=\"writes\"} 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    admin.run("ROLLBACK").await;
    ready(&app).await;
    // What was refused had charged nothing.
    assert_eq!(left(&mut device).await, before - 1);
}

#[tokio::test]
async fn last_nights_database_is_refused_at_the_start() {
    let mut app = on_a_server().await;
    let (mut device, _) = victim(&app, "notes").await;
    let before = left(&mut device).await;
    assert!(app.stop());
    app.keep_database("older");
    app.launch().await;
    assert_eq!(left(&mut device).await, before - 1);
    assert!(app.stop());
    app.keep_database("newest");
    app.put_database("older");
    let output = app.command("serve").output().unwrap();
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains("rolled back"),
        "{text}"
    );
    // Control: the newest one, put in place by the same hand, is served.
    app.put_database("newest");
    app.launch().await;
    assert_eq!(left(&mut device).await, before - 2);
}

/// Nobody may be connected to a database that gets another name, or is copied; whoever comes again finds the other one.
fn between_connections(server: &PostgresServer, first: &str, second: &str) {
    for _ in 0..100 {
        let cut = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('{DATABASE}', 'older', 'newest')"
        );
        server.sql("postgres", &cut);
        let done = server
            .program("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER])
            .args(["-d", "postgres", "-p", &server.port().to_string(), "-h"])
            .arg(server.folder())
            .args(["-c", first, "-c", second])
            .output()
            .unwrap();
        if done.status.success() {
            return;
        }
    }
    panic!("the databases could not be swapped");
}

async fn account(device: &mut Device) -> Option<u16> {
    let read = device.prepare("GET", "/v1/account", None);
    device.attempt(&read).await.map(|answer| answer.status)
}

/// A daemon that the database's administrator has cut off, and a second one that they have let in. Whoever signs out
/// there is signed out here: no lock of the server's says who is the one.
async fn who_is_cut_off_reads_for_nobody(
    setup: Setup,
    attack: impl Fn(&PostgresServer) -> &'static str,
) {
    let mut app = TestApp::with(setup.clone().on_postgres()).await;
    let (mut device, _) = victim(&app, "notes").await;
    let token = device.token.clone();
    let server = app.postgres.as_ref().unwrap();
    let newest = attack(server);
    for _ in 0..50 {
        if account(&mut device).await == Some(200) {
            break;
        }
        // Its connections were cut.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Control: as long as there is no second one it reads, by what the token says, whatever was done to it.
    for _ in 0..2 {
        assert_eq!(account(&mut device).await, Some(200), "{}", app.log());
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let mut second = app.another(setup, newest);
    second.launch().await;
    device.url.clone_from(&second.url);
    assert_eq!(account(&mut device).await, Some(200));
    device.call("DELETE", "/v1/session", None).await.expect(204);
    device.token.clone_from(&token);
    assert_eq!(account(&mut device).await, Some(401));
    // Of a look of before: it holds for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    device.url.clone_from(&app.url);
    let shown = account(&mut device).await;
    assert!(
        matches!(shown, None | Some(503)),
        "{shown:?}: {}",
        app.log()
    );
    let ready = reqwest::get(format!("{}/readyz", app.operator)).await;
    assert!(ready.is_err() || ready.is_ok_and(|ready| ready.status() == 503));
    assert!(
        app.log().contains("another daemon serves this realm"),
        "{}",
        app.log()
    );
    // The second one serves all the while.
    device.url.clone_from(&second.url);
    device.try_pin(PIN, &["device-secret"]).await.expect(201);
    let _ = app.stop();
    assert!(second.stop(), "{}", second.log());
}

#[tokio::test]
async fn a_daemon_whose_lock_was_taken_away_shows_nobody_what_another_has_changed() {
    // From its memory, where it has no need of the database.
    who_is_cut_off_reads_for_nobody(Setup::notes(ROUNDS), |server| {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted";
        server.sql("postgres", cut);
        DATABASE
    })
    .await;
}

#[tokio::test]
async fn a_daemon_on_a_copy_shows_nobody_what_another_has_changed() {
    let cache_mib = 0;
    let setup = Setup {
        cache_mib,
        ..Setup::notes(ROUNDS)
    };
    who_is_cut_off_reads_for_nobody(setup, |server| {
        between_connections(
            server,
            &format!("ALTER DATABASE {DATABASE} RENAME TO newest"),
            &format!("CREATE DATABASE {DATABASE} TEMPLATE newest"),
        );
        "newest"
    })
    .await;
}

#[tokio::test]
async fn last_nights_database_beneath_a_running_daemon_wins_nothing() {
    let mut app = on_a_server().await;
    let (mut device, _) = victim(&app, "notes").await;
    let before = left(&mut device).await;
    assert!(app.stop());
    app.keep_database("older");
    app.launch().await;
    for spent in 1..=3 {
        assert_eq!(left(&mut device).await, before - spent);
    }
    between_connections(
        app.postgres.as_ref().unwrap(),
        &format!("ALTER DATABASE {DATABASE} RENAME TO newest"),
        &format!("ALTER DATABASE older RENAME TO {DATABASE}"),
    );
    // Nothing is served from it: what is read is not the newest, and no batch finds its parent.
    for _ in 0..3 {
        let body = json!({"account": device.account, "pin": WRONG, "release": []});
        let guess = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
        // It may have ended by now, and answer nobody.
        if let Some(answer) = device.attempt(&guess).await {
            assert!(answer.status >= 500, "{answer:?}");
        }
    }
    let _ = app.stop();
    let output = app.command("serve").output().unwrap();
    assert!(said(&output).contains("rolled back"), "{}", said(&output));
    // Control: with the newest one back it is served, and remembers every guess.
    let server = app.postgres.as_ref().unwrap();
    server.sql(
        "postgres",
        &format!("ALTER DATABASE {DATABASE} RENAME TO older"),
    );
    server.sql(
        "postgres",
        &format!("ALTER DATABASE newest RENAME TO {DATABASE}"),
    );
    app.launch().await;
    assert_eq!(left(&mut device).await, before - 4);
}
