//! The daemon on a PostgreSQL server: how it comes in, what it says when the server goes away, and that
//! nothing is lost or charged twice whatever becomes of the connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agreement;
mod campaign;
mod hopping;
mod nodes;
mod retiring;
mod standby;
mod upgrade;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::app::{DATABASE, certificates, free_port, said};
use custodyd_tests::postgres::USER;
use custodyd_tests::token::SoftToken;
use custodyd_tests::wire::{Cut, Wire};
use custodyd_tests::{Device, PostgresServer, Setup, TestApp};

const PIN: &str = "830517";
const WRONG: &str = "830518";
const ROUNDS: &str = "[[pin.rounds]]\nattempts = 100\n";

async fn enrolled(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    device.back_up("device-secret", b"kept").await.expect(200);
    device
}

fn run(app: &TestApp, arguments: &str) -> (bool, String) {
    let output = app.command(arguments).output().unwrap();
    (output.status.success(), said(&output))
}

/// Another section `[store.postgres]`.
fn configure(app: &TestApp, section: &str) {
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("[store.postgres]\n").unwrap();
    let (_, after) = after.split_once("[policies]").unwrap();
    let text =
        format!("{before}[store.postgres]\n{section}\nstate_directory = \".\"\n[policies]{after}");
    std::fs::write(file, text).unwrap();
}

#[tokio::test]
async fn a_realm_lives_on_a_server_and_every_command_finds_it() {
    let mut app = TestApp::with(Setup::default().on_postgres()).await;
    let mut device = enrolled(&app).await;
    let again = run(&app, "init");
    assert!(
        !again.0 && again.1.contains("held by another custodyd"),
        "{again:?}"
    );
    app.restart().await;
    device.try_pin(PIN, &["device-secret"]).await.expect(201);
    for (command, what) in [
        ("ledger tail -n 50", "event"),
        ("ledger anchor", "a daemon starts"),
    ] {
        let (good, text) = run(&app, command);
        assert!(good && text.contains(what), "{command}: {text}");
    }
    let (_, text) = run(&app, "doctor");
    assert!(text.contains("(PostgreSQL)"), "{text}");
    let file = app.path("log.export");
    let (good, text) = run(&app, &format!("ledger export {}", file.display()));
    assert!(good, "{text}");
    let (good, text) = run(&app, "ledger verify");
    assert!(!good && text.contains("custodyd_scrub_findings"), "{text}");
    assert!(app.stop());
    let (good, text) = run(&app, "ledger verify --open");
    assert!(good && text.contains("records"), "{text}");
    let (good, text) = run(&app, &format!("ledger verify --from {}", file.display()));
    assert!(good, "{text}");
    let (good, text) = run(&app, "init");
    assert!(good && text.contains("nothing was changed"), "{text}");
    app.launch().await;
    device.try_pin(PIN, &["device-secret"]).await.expect(201);
    let (status, text) = app.operator("/readyz").await;
    assert!(status == 200 && text.contains("store"), "{text}");
    let mut admin = app.admin().await;
    let view = "CREATE VIEW custodyd.v AS SELECT * FROM custodyd.records";
    admin.run(view).await;
    let (good, text) = run(&app, "ledger tail");
    assert!(!good && text.contains("custodyd did not make"), "{text}");
    admin.run("DROP VIEW custodyd.v").await;
}

#[tokio::test]
async fn over_a_network_the_server_shows_a_certificate_and_the_daemon_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let ca = certificates(dir.path());
    let port = free_port();
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let mut server = PostgresServer::with(port, &["listen_addresses=127.0.0.1", "ssl=off"]);
    let certificate = server.keep("server.pem", &text("certificate.pem"));
    let key = server.keep("server.key", &text("private-key.pem"));
    server.create(DATABASE, "template0");
    server.sql("postgres", &format!("ALTER ROLE {USER} PASSWORD 'hunter2'"));
    server.stop();
    server.admit("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
    server.set("ssl=on");
    server.set("ssl_min_protocol_version=TLSv1.3");
    server.set(&format!("ssl_cert_file={}", certificate.display()));
    server.set(&format!("ssl_key_file={}", key.display()));
    server.launch();

    let mut app = TestApp::prepared(Setup::default().on_postgres(), SoftToken::fresh());
    std::fs::write(app.path("database-ca.pem"), &ca).unwrap();
    let password = app.path("database-password");
    let set = |word: &str| {
        std::fs::write(&password, word).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let section = |url: &str, ca: &str| {
        format!("url = \"{url}\"\npassword_file = \"database-password\"\n{ca}")
    };
    let url = format!("postgres://{USER}@localhost:{port}/{DATABASE}");
    let trusted = "ca = \"database-ca.pem\"";
    for (word, url, ca, what) in [
        ("hunter2", url.clone(), "", "UnknownIssuer"),
        (
            "hunter2",
            url.replace("localhost", "127.0.0.1"),
            trusted,
            "certificate",
        ),
        (
            "hunter2",
            format!("{url}?sslmode=disable"),
            trusted,
            "no encryption",
        ),
        (
            "hunter3",
            url.clone(),
            trusted,
            "password authentication failed",
        ),
        (
            "hunter2",
            url.replace("realm", "other"),
            trusted,
            "does not exist",
        ),
    ] {
        set(word);
        configure(&app, &section(&url, ca));
        let (good, text) = run(&app, "init");
        assert!(!good && text.contains(what), "{what}: {text}");
        assert!(!text.contains("hunter"), "{text}");
    }
    // Control: with all of them right. A line break at the end is none of the password's.
    set("hunter2\n");
    configure(&app, &section(&url, trusted));
    app.found().await;
    let mut device = enrolled(&app).await;
    device.try_pin(PIN, &["device-secret"]).await.expect(201);
    let tls = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl \
               JOIN pg_stat_activity USING (pid) WHERE application_name = 'custodyd'";
    let shown = server.sql("postgres", tls);
    let (with, without) = shown.trim().split_once('|').unwrap();
    assert!(
        with.parse::<u32>().unwrap() >= 2 && without == "0",
        "{shown}"
    );
    assert!(!app.log().contains("hunter"), "{}", app.log());
    assert!(app.stop());
}

/// What came of all guesses until now.
#[derive(Debug, Default)]
struct Tally {
    told: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    /// Returns once there are so many more of these, however long that takes here.
    async fn more(&self, of: impl Fn(&Self) -> &AtomicU64, many: u64) {
        let wanted = of(self).load(Ordering::SeqCst) + many;
        let give_up = Instant::now() + Duration::from_secs(120);
        while of(self).load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < give_up, "{wanted}: {self:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Guesses, until told to stop; how many were told, how many refused, and how long one took at most.
async fn guessing(mut device: Device, tally: Arc<Tally>) -> (Device, u64, u64, Duration) {
    let (mut told, mut refused, mut longest) = (0, 0, Duration::ZERO);
    while !tally.stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let answer = device.try_pin(WRONG, &[]).await;
        longest = longest.max(begun.elapsed());
        match answer.status {
            401 => {
                told += 1;
                tally.told.fetch_add(1, Ordering::SeqCst);
            }
            503 => {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                refused += 1;
                tally.refused.fetch_add(1, Ordering::SeqCst);
            }
            _ => panic!("{answer:?}"),
        }
        // The budget has to last until the end.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    (device, told, refused, longest)
}

async fn left(device: &mut Device) -> u64 {
    let wrong = device.try_pin(WRONG, &[]).await;
    wrong.refused("401 pin-wrong");
    wrong.body["attempts_left"].as_u64().unwrap()
}

/// As often as the server is away for a moment.
async fn again(device: &mut Device, pin: &str) -> custodyd_tests::Answer {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = device.try_pin(pin, &[]).await;
        if answer.status != 503 {
            return answer;
        }
        assert!(Instant::now() < give_up, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_under_load_costs_refusals_and_nothing_else() {
    let mut app = TestApp::with(Setup::notes(ROUNDS).on_postgres()).await;
    let mut devices = Vec::new();
    for _ in 0..4 {
        devices.push(enrolled(&app).await);
    }
    let mut before = Vec::new();
    for device in &mut devices {
        before.push(left(device).await);
    }
    let process = app.id();
    let tally = Arc::new(Tally::default());
    let load: Vec<_> = devices
        .into_iter()
        .map(|device| tokio::spawn(guessing(device, Arc::clone(&tally))))
        .collect();
    for _ in 0..3 {
        // Under load when it dies, missed while it is away, and found again.
        tally.more(|tally| &tally.told, 6).await;
        app.postgres.as_mut().unwrap().kill();
        tally.more(|tally| &tally.refused, 1).await;
        app.postgres.as_mut().unwrap().launch();
        tally.more(|tally| &tally.told, 1).await;
    }
    tally.stop.store(true, Ordering::SeqCst);
    for (guesses, before) in load.into_iter().zip(before) {
        let (mut device, told, refused, longest) = guesses.await.unwrap();
        assert!(longest < Duration::from_secs(60), "{longest:?}");
        let answer = again(&mut device, WRONG).await;
        let charged = before - answer.body["attempts_left"].as_u64().unwrap() - 1;
        // A guess that was refused may have been charged before its outcome could be written, never won back.
        assert!(
            (told..=told + refused).contains(&charged),
            "{charged} of {told} and {refused}"
        );
        again(&mut device, PIN).await.expect(201);
    }
    assert_eq!(app.process(), Some(process), "it ended: {}", app.log());
    assert!(app.stop());
    let (good, text) = run(&app, "ledger verify --open");
    assert!(good, "{text}");
}

/// A daemon whose way to its server can be cut at a word.
async fn wired() -> (TestApp, Wire) {
    let mut app = TestApp::prepared(Setup::notes(ROUNDS).on_postgres(), SoftToken::fresh());
    let server = app.postgres.as_ref().unwrap();
    let wire = Wire::to(server.folder(), server.port());
    let url = format!(
        "url = \"postgres://{USER}@:{}/{DATABASE}?host={}\"",
        server.port(),
        wire.folder().display()
    );
    configure(&app, &url);
    app.found().await;
    (app, wire)
}

#[tokio::test]
async fn a_commit_whose_answer_is_cut_off_is_found_and_one_that_never_came_is_sent_again() {
    let (mut app, wire) = wired().await;
    let mut device = enrolled(&app).await;
    let mut expected = left(&mut device).await;
    for cut in [Cut::AfterCommit, Cut::BeforeCommit] {
        for _ in 0..3 {
            wire.cut_next(cut);
            let guess = device.try_pin(WRONG, &[]).await;
            guess.refused("401 pin-wrong");
            expected -= 1;
            assert_eq!(guess.body["attempts_left"], expected, "{cut:?}");
            assert!(wire.has_cut(), "{cut:?} did not happen");
        }
    }
    device.try_pin(PIN, &["device-secret"]).await.expect(201);
    assert!(app.stop());
    let (good, text) = run(&app, "ledger verify --open");
    assert!(good, "{text}");
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_waits_for_the_server_and_is_charged_once() {
    let (mut app, wire) = wired().await;
    let mut device = enrolled(&app).await;
    let before = left(&mut device).await;
    let process = app.id();
    for cut in [Cut::AfterCommit, Cut::BeforeCommit] {
        wire.cut_next(cut);
        wire.refuse(true);
        let asked = tokio::spawn(async move {
            let answer = device.try_pin(WRONG, &[]).await;
            (device, answer)
        });
        // Longer than the committer's own tries.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(wire.has_cut());
        let (status, text) = app.operator("/readyz").await;
        assert!(status == 503 && text.contains("store"), "{text}");
        assert!(!asked.is_finished(), "answered without its commit");
        wire.refuse(false);
        let answer;
        (device, answer) = asked.await.unwrap();
        answer.refused("401 pin-wrong");
    }
    let answer = again(&mut device, WRONG).await;
    // Two guesses, and this one.
    assert_eq!(answer.body["attempts_left"], before - 3);
    assert_eq!(app.process(), Some(process), "{}", app.log());
}

/// Which accounts there are, and were used lately, is not told by what the daemon has in memory.
#[tokio::test]
async fn a_server_that_is_away_tells_no_stranger_which_accounts_there_are() {
    let mut app = TestApp::with(Setup::notes(ROUNDS).on_postgres()).await;
    let mut owner = enrolled(&app).await;
    let mut stranger = app.device("notes");
    stranger.meet().await;
    let asks = async |stranger: &mut Device, account: &str| {
        stranger.account = account.to_owned();
        stranger.try_pin(WRONG, &[]).await.refusal()
    };
    let known = owner.account.clone();
    let unknown = "9e3a5a94-6d21-4f5e-8f56-0d0f7a4f0b11";
    let both =
        async |stranger: &mut Device| [asks(stranger, &known).await, asks(stranger, unknown).await];
    // Control: they are told the same while it is there.
    let told = both(&mut stranger).await;
    assert_eq!(told, ["401 authentication-failed"; 2]);
    owner.try_pin(PIN, &[]).await.expect(201);
    app.postgres.as_mut().unwrap().kill();
    let told = both(&mut stranger).await;
    assert_eq!(told, ["503 store-unavailable"; 2]);
}

#[tokio::test]
async fn two_daemons_on_one_database_are_one_too_many() {
    let app = TestApp::with(Setup::default().on_postgres()).await;
    let output = app.command("serve").output().unwrap();
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("held by another custodyd") && text.contains("nodes = \"several\""),
        "{text}"
    );
}

#[tokio::test]
async fn what_the_environment_would_add_to_the_configuration_is_refused() {
    let mut app = TestApp::with(Setup::default().on_postgres()).await;
    assert!(app.stop());
    for name in ["PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGOPTIONS"] {
        let output = app
            .command("ledger verify")
            .env(name, "/else")
            .output()
            .unwrap();
        let text = said(&output);
        assert!(!output.status.success(), "{name}: {text}");
        assert!(
            text.contains(&format!("{name} is set in the environment")),
            "{text}"
        );
    }
    // Control: without them it is done, and what counts for nothing does no harm.
    let output = app
        .command("ledger verify")
        .env("PGSSLMODE", "allow")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test]
async fn another_realm_in_the_database_is_refused_and_named() {
    let mut app = TestApp::with(Setup::default().on_postgres()).await;
    assert!(app.stop());
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = text.replace("name = \"test.example\"", "name = \"other.example\"");
    assert_ne!(text, other);
    std::fs::write(&file, other).unwrap();
    for command in ["serve", "init"] {
        let (good, said) = run(&app, command);
        assert!(!good && said.contains("test.example"), "{command}: {said}");
    }
    // Control: of its own name it starts.
    std::fs::write(&file, text).unwrap();
    app.launch().await;
}
