//! Rolling back to an older version of the truth: of one account, and of everything.
//!
//! Each older version was honest once, and all of its parts fit each other. Only that it is not the
//! newest is wrong with it: the state tree in memory says so while the daemon runs, the anchor in
//! the token when it starts.

use custodyd_tests::app::said;
use custodyd_tests::postgres::TABLES;
use custodyd_tests::token::copy_tokens;
use custodyd_tests::{Device, MailServer, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

use crate::{Version, refused, served, uncached, uncached_with, victim};

const TAMPERED: &str = "500 record-tampered";
const TWO_ATTEMPTS: &str = "[[pin.rounds]]\nattempts = 2\n";

async fn exhaust(device: &mut Device) {
    for _ in 0..2 {
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    }
}

#[tokio::test]
async fn an_old_envelope_wins_no_pin_attempts_back() {
    let app = uncached_with(Setup::notes(TWO_ATTEMPTS)).await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let old = Version::of(&mut admin, &row).await;
    exhaust(&mut device).await;
    let exhausted = "403 pin-exhausted";
    device.try_pin("830517", &[]).await.refused(exhausted);
    let newest = Version::of(&mut admin, &row).await;
    // The row alone does not fit the list; the list with it does not fit the state.
    old.row.restore(&mut admin).await;
    device.try_pin("830517", &[]).await.refused(TAMPERED);
    old.put_back(&mut admin).await;
    device.try_pin("830517", &[]).await.refused(TAMPERED);
    // Control: the same restore of the newest version is served, and nothing was won.
    newest.put_back(&mut admin).await;
    device.try_pin("830517", &[]).await.refused(exhausted);
}

#[tokio::test]
async fn a_consumed_ceremony_does_not_come_back_with_its_old_envelope() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    let mut admin = app.admin().await;
    let old = Version::of(&mut admin, &row).await;
    let login = device.assertion(&mut authenticator, None).await;
    device.finish_passkey(login.clone()).await.expect(201);
    let session = device.token.take();
    assert_eq!(device.finish_passkey(login.clone()).await.status, 401);
    let newest = Version::of(&mut admin, &row).await;
    old.put_back(&mut admin).await;
    device.finish_passkey(login.clone()).await.refused(TAMPERED);
    // Control: with the newest version it is still spent, and its session stands.
    newest.put_back(&mut admin).await;
    assert_eq!(device.finish_passkey(login).await.status, 401);
    device.token = session;
    served(&mut device).await;
}

#[tokio::test]
async fn an_erased_account_does_not_come_back_with_its_old_list() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let old = Version::of(&mut admin, &row).await;
    let confirm = json!({"confirm": device.account});
    device
        .call("DELETE", "/v1/account", Some(confirm))
        .await
        .expect(204);
    let stone = Version::of(&mut admin, &row).await;
    old.row.restore(&mut admin).await;
    device.try_pin("830517", &[]).await.refused(TAMPERED);
    old.put_back(&mut admin).await;
    device.try_pin("830517", &[]).await.refused(TAMPERED);
    // Control: with its tombstone it is answered like nobody's.
    stone.put_back(&mut admin).await;
    device
        .try_pin("830517", &[])
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn a_used_code_does_not_come_back_with_its_old_envelope() {
    let mail = MailServer::start();
    let app = uncached_with(Setup {
        config: mail.config(),
        ..Setup::default()
    })
    .await;
    let code = |mail: &custodyd_tests::mail::Mail| mail.body.lines().next().unwrap().to_owned();
    let mut device = app.device("notes");
    device.enrol().await;
    let contact = json!({"email": "ann@example.com"});
    let claim = device
        .call("PUT", "/v1/account/contact", Some(contact))
        .await
        .expect(202);
    let first = code(&mail.wait_for(1).await[0]);
    let body = json!({"id": claim.body["id"], "code": first});
    device
        .call("POST", "/v1/account/contact/confirm", Some(body))
        .await
        .expect(204);
    device.token = None;
    let whom = json!({"account": device.account});
    device
        .call("POST", "/v1/apps/{app}/otp", Some(whom))
        .await
        .expect(202);
    let second = code(&mail.wait_for(2).await[1]);
    let login = json!({"account": device.account, "code": second});
    let path = "/v1/apps/{app}/sessions/otp";
    let mut admin = app.admin().await;
    // The alias has a row of its own: the account's is the longest.
    let accounts = admin.accounts().await;
    let longest = accounts.into_iter().max_by_key(|(.., sealed)| sealed.len());
    let old = Version::of(&mut admin, &longest.unwrap().into()).await;
    device
        .call("POST", path, Some(login.clone()))
        .await
        .expect(201);
    let used = "401 code-wrong";
    let again = device.call("POST", path, Some(login.clone())).await;
    again.refused(used);
    let newest = Version::of(&mut admin, &old.row).await;
    old.put_back(&mut admin).await;
    let again = device.call("POST", path, Some(login.clone())).await;
    again.refused(TAMPERED);
    // Control: the newest version is served, and there it is used.
    newest.put_back(&mut admin).await;
    device.call("POST", path, Some(login)).await.refused(used);
}

/// A daemon that does not start, and says which two states it compared.
fn does_not_start(app: &TestApp, why: &str) {
    let output = app.command("serve").output().unwrap();
    assert!(!output.status.success(), "it started");
    assert!(said(&output).contains(why), "{}", said(&output));
}

/// Its control is what only the owner of the token can do: with the token put back as well, the old
/// database is the newest again and guesses are won back. So it is the token's anchor that refuses.
#[tokio::test]
async fn a_whole_old_database_is_refused_and_the_anchor_is_what_refuses_it() {
    let mut app = uncached_with(Setup::notes(TWO_ATTEMPTS)).await;
    let (mut device, _) = victim(&app, "notes").await;
    assert!(app.stop());
    app.keep_database("old");
    let kept = tempfile::tempdir().unwrap();
    copy_tokens(&app.token.tokens(), kept.path()).unwrap();
    app.launch().await;
    exhaust(&mut device).await;
    assert!(app.stop());
    app.keep_database("newest");
    app.put_database("old");
    does_not_start(&app, "it was rolled back");
    // The newest one is served, with nothing won back.
    app.put_database("newest");
    app.launch().await;
    device
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
    assert!(app.stop());
    // Control: the token's directory of then with the database of then.
    app.put_database("old");
    std::fs::remove_dir_all(app.token.tokens()).unwrap();
    copy_tokens(kept.path(), &app.token.tokens()).unwrap();
    app.launch().await;
    device.try_pin("830517", &[]).await.expect(201);
}

/// The realm goes on from the newest database alone; every one that was anchored before is refused.
#[tokio::test]
async fn two_copies_alternated_win_nothing() {
    let mut app = uncached_with(Setup::notes(TWO_ATTEMPTS)).await;
    let (mut device, _) = victim(&app, "notes").await;
    assert!(app.stop());
    app.keep_database("copy0");
    for newest in 1..=2 {
        app.launch().await;
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
        assert!(app.stop());
        app.keep_database(&format!("copy{newest}"));
        for older in 0..newest {
            app.put_database(&format!("copy{older}"));
            does_not_start(&app, "it was rolled back");
        }
        app.put_database(&format!("copy{newest}"));
    }
    app.launch().await;
    device
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
}

/// Every row put back behind a daemon that runs: nothing of it is served, and nothing is written
/// upon it.
#[tokio::test]
async fn a_whole_old_database_behind_a_running_daemon_is_refused() {
    let app = uncached_with(Setup::notes(TWO_ATTEMPTS)).await;
    let (mut device, _) = victim(&app, "notes").await;
    let (mut other, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    // The other account's list is the same before and after: it is one of the newest state.
    let keep = |into: &str| {
        let tables = TABLES
            .iter()
            .map(|table| format!("CREATE TEMP TABLE {into}_{table} AS SELECT * FROM {table};"));
        tables.collect::<String>()
    };
    let put = |from: &str| {
        let tables = TABLES.iter().map(|table| {
            format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {from}_{table};")
        });
        format!("BEGIN IMMEDIATE; {} COMMIT", tables.collect::<String>())
    };
    admin.run(&keep("old")).await;
    let session = device.token.clone();
    exhaust(&mut device).await;
    device.token = session;
    admin.run(&keep("new")).await;
    admin.run(&put("old")).await;
    refused(&mut device).await;
    // Who has not changed since is read rightly, and nobody can write.
    served(&mut other).await;
    device.try_pin("830517", &[]).await.refused(TAMPERED);
    assert_ne!(other.try_pin("830517", &[]).await.status, 201);
    admin.run(&put("new")).await;
    // Control: with the newest rows a daemon serves, and nothing was won.
    let mut app = app;
    app.kill();
    app.launch().await;
    device
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
    other.try_pin("830517", &[]).await.expect(201);
}

/// Bounded anchoring, with the runtime directory beside the configuration.
const BOUNDED: &str =
    "[ledger]\nanchor = \"bounded\"\nanchor_interval = \"1h\"\nruntime_directory = \".\"\n";

/// The database as it is, while nothing is written.
fn database(app: &TestApp) -> [Vec<u8>; 2] {
    ["custodyd.sqlite", "custodyd.sqlite-wal"]
        .map(|file| std::fs::read(app.path(file)).unwrap_or_default())
}

fn put_back(app: &TestApp, [file, log]: &[Vec<u8>; 2]) {
    let _ = std::fs::remove_file(app.path("custodyd.sqlite-shm"));
    std::fs::write(app.path("custodyd.sqlite"), file).unwrap();
    std::fs::write(app.path("custodyd.sqlite-wal"), log).unwrap();
}

#[tokio::test]
async fn under_bounded_anchoring_no_guess_is_won_back_by_a_kill_or_a_loss_of_power() {
    let mut app = uncached_with(Setup {
        config: BOUNDED.into(),
        ..Setup::notes("[[pin.rounds]]\nattempts = 6\n").in_a_file()
    })
    .await;
    let (mut device, _) = victim(&app, "notes").await;
    let left = |answer: custodyd_tests::device::Answer| {
        answer.refused("401 pin-wrong");
        answer.body["attempts_left"].as_u64().unwrap()
    };
    // Of the first guess the token is told, of the second it is not.
    assert_eq!(left(device.try_pin("830518", &[]).await), 5);
    let old = database(&app);
    assert_eq!(left(device.try_pin("830518", &[]).await), 4);
    app.kill();
    let newest = database(&app);
    // After a kill, what the kernel has kept refuses the older one.
    put_back(&app, &old);
    does_not_start(&app, "it was rolled back");
    // Control: the newest is served.
    put_back(&app, &newest);
    app.launch().await;
    assert_eq!(left(device.try_pin("830518", &[]).await), 3);
    let old = database(&app);
    assert_eq!(left(device.try_pin("830518", &[]).await), 2);
    app.kill();
    // After a loss of power the older one is all that the token knows of. The guess that it has
    // forgotten is paid for all the same: the fifth leaves one of six.
    std::fs::remove_file(app.path("custodyd.anchor")).unwrap();
    put_back(&app, &old);
    app.launch().await;
    assert_eq!(left(device.try_pin("830518", &[]).await), 1);
}
