//! `make bench`: what a recovery costs the server, beside what its parts cost by themselves.
//!
//! Run by a person, in a release build, with the daemon's own program beside it. It starts a
//! real daemon on loopback with a SoftHSM2 token and measures, in rounds that take each part
//! in turn: recoveries by passkey, by PIN and with codes, and the raw parts they are made of.
//! Each figure is the median of the rounds, so a slow moment of the machine hits all parts
//! alike. After the rounds: what strangers see by the clock, and what their flood does to
//! others. docs/BENCH.md explains each figure. It must never decide whether a test passes:
//! figures differ between machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot go on stops"
)]

mod anchoring;
mod backends;
mod client;
mod codes;
mod commit;
mod concurrency;
mod cpu;
mod extra;
mod failover;
mod filling;
mod ledgerless;
mod limits;
mod load;
mod nodes;
mod opaque;
mod parts;
mod peers;
mod plot;
mod pressure;
mod realm;
mod report;
mod rewrapping;
mod scale;
mod sizes;
mod statistics;
mod strangers;
mod token_keys;
mod verification;
mod workers;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use custodyd_tests::app::{LIMITS, policy};
use custodyd_tests::token::SoftToken;
use custodyd_tests::{Setup, TestApp};

use self::codes::CodeCrowd;
use self::commit::Shape;
use self::cpu::Sample;
use self::extra::Extra;
use self::load::{Crowd, Measured};
use self::parts::Parts;

const ROUNDS: usize = 5;
const RECOVERIES: Duration = Duration::from_millis(2500);
const PART: Duration = Duration::from_millis(700);
/// Names the half of this program that measures.
const MEASURE: &str = "measure";

/// Everything that one round measured.
#[derive(Debug)]
struct Round {
    passkey: Measured,
    pin: Measured,
    totp: Measured,
    code: Measured,
    tls: Sample,
    token: Sample,
    pool: Sample,
    dpop: Sample,
    assertion: Sample,
    /// Counted in changes, not in transactions.
    commit: Sample,
    argon2: Sample,
    /// Changes per transaction of the daemon during the passkey recoveries.
    batch: f64,
}

/// SoftHSM2 finds its token through the environment, which a process may not change for
/// itself: so this program starts itself again, with a token of its own in sight.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => start_with_a_token(MEASURE),
        [rewrapping::REWRAP] => start_with_a_token(rewrapping::ALONE),
        [rewrapping::ALONE, token] => rewrapping::alone(Path::new(token)),
        [backends::ALONE] => {
            start_again(Command::new(std::env::current_exe().unwrap()).arg(backends::BACKENDS))
        }
        [MEASURE, token] => measure(Path::new(token)),
        [filling::FILL, app, token, template, count, beside @ ..] => {
            let count = count.parse().unwrap();
            filling::job(Path::new(app), Path::new(token), template, count, beside);
        }
        [ledgerless::COMPARE, app, token, batch, accounts @ ..] => {
            let batch = batch.parse().unwrap();
            ledgerless::compare(Path::new(app), Path::new(token), batch, accounts);
        }
        [sizes::RETIRE, app, token, accounts @ ..] => {
            sizes::retire(Path::new(app), Path::new(token), accounts);
        }
        [pressure::LOAD] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&pressure::figures(&runtime));
        }
        [sizes::SIZES] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&sizes::figures(&runtime));
        }
        [ledgerless::LEDGER] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&ledgerless::alone(&runtime, setup()));
        }
        [backends::BACKENDS] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&backends::figures(&runtime));
        }
        [failover::FAILOVER] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&failover::figures(&runtime));
        }
        [opaque::OPAQUE] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let app = runtime.block_on(TestApp::with(setup()));
            let mut crowd = Crowd::enrolled(&app);
            report::list(&opaque::figures(&app, cpu::child("custodyd"), &mut crowd));
        }
        [client::CLIENT] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&client::figures(&runtime));
        }
        [peers::PEERS] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&peers::figures(&runtime));
        }
        [concurrency::CONCURRENCY] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&concurrency::figures(&runtime));
        }
        [nodes::NODES] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&nodes::figures(&runtime));
        }
        [scale::SCALE, accounts] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&scale::figures(&runtime, accounts.parse().unwrap()));
        }
        [scale::LISTS, accounts] => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            report::list(&scale::lists(&runtime, accounts.parse().unwrap()));
        }
        other => {
            eprintln!(
                "`bench` alone measures everything, `bench scale N` a realm of N accounts, `bench lists N` \
                 accounts among as many neighbours as in such a realm, `bench ledger` what \
                 the ledger takes of a recovery, `bench backends` recoveries by kind of token, `bench failover` \
                 the loss of one of two tokens, `bench rewrap` a realm that moves to another key, `bench opaque` PINs by OPAQUE, `bench load` more than can be done, \
                 `bench sizes` what a recovery leaves in the database, `bench client` what the SDK weighs \
                 and unlocks in a browser, `bench peers` what others do on the same cores, `bench concurrency` 1 to \
                 512 clients, `bench nodes` one to three daemons on one database; {other:?} is nothing that it does"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn start_with_a_token(measure: &str) {
    let token = SoftToken::fresh();
    let (name, value) = token.environment();
    start_again(
        Command::new(std::env::current_exe().unwrap())
            .arg(measure)
            .arg(token.dir())
            .env(name, value),
    );
}

/// kryoptic finds its token in the same way.
fn start_again(command: &mut Command) {
    let kryoptic = backends::kryoptic();
    let environment = kryoptic.as_ref().map(|token| token.environment());
    let status = command.envs(environment).status().unwrap();
    assert!(status.success(), "{status}");
}

/// The crowd's app, one whose accounts have codes, and one that lets strangers try a PIN.
fn setup() -> Setup {
    let codes = r#"app = "codes"
origins = ["https://codes.example.com"]
relying_party = { id = "codes.example.com" }
[totp]
period = "15s"
window = 2
[delivered_codes]
interval = "10s"
per_day = 200
[release]
"*" = ["pin", "passkey", "recovery-code", "totp", "delivered-code"]
"#;
    let open = policy(
        strangers::OPEN,
        "[devices]\nstranger_pin = [{ attempts = 10 }]",
    );
    let port = custodyd_tests::app::free_port();
    Setup {
        policies: vec![
            ("notes".into(), policy("notes", "")),
            (codes::APP.into(), codes.into()),
            (strangers::OPEN.into(), open),
        ],
        // An outbox is accepted beside a development listener only.
        config: format!(
            "[delivery]\noutbox = \"{}\"\n[listen.development]\nlisten = \"127.0.0.1:{port}\"\n\
             url = \"http://localhost:{port}\"\n",
            codes::OUTBOX
        ),
        // Strangers wait as long as they do without a setting.
        limits: LIMITS.replace("20ms", "100ms"),
        ..Setup::default()
    }
}

fn measure(token: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut app = runtime.block_on(TestApp::with(setup()));
    let server = cpu::child("custodyd");
    println!("making {} accounts ...", load::ACCOUNTS);
    let mut crowd = Crowd::enrolled(&app);
    let mut codes = CodeCrowd::enrolled(&app);
    let parts = Parts::new(token);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for number in 1..=ROUNDS {
        println!("round {number} of {ROUNDS} ...");
        rounds.push(round(
            &runtime, &app, server, &mut crowd, &mut codes, &parts,
        ));
    }
    let seen = ledgerless::Seen {
        batch: report::median(&rounds, |round| round.batch),
        micros: report::median(&rounds, |round| round.passkey.sample.micros()),
    };
    let opaque = opaque::figures(&app, server, &mut crowd);
    let extra = Extra::measured(&runtime, &app, &mut crowd);
    let mut figures = report::figures(&rounds);
    figures.extend(opaque);
    figures.extend(extra.figures());
    figures.extend(rewrapping::figures(&runtime, &parts));
    figures.extend(verification::figures(&mut app));
    figures.extend(ledgerless::figures(&app, &crowd, &seen));
    figures.extend(anchoring::figures(&runtime));
    figures.extend(backends::figures(&runtime));
    figures.extend(failover::figures(&runtime));
    figures.extend(pressure::figures(&runtime));
    figures.extend(sizes::figures(&runtime));
    figures.extend(client::figures(&runtime));
    figures.extend(peers::figures(&runtime));
    figures.extend(concurrency::figures(&runtime));
    figures.extend(nodes::figures(&runtime));
    figures.extend(scale::figures(&runtime, scale::MILLION));
    report::table(&rounds, &figures);
    extra.table();
    report::plot(&rounds);
    let path = report::write(&figures);
    println!("written: {}", path.display());
}

fn round(
    runtime: &tokio::runtime::Runtime,
    app: &TestApp,
    server: u32,
    crowd: &mut Crowd,
    codes: &mut CodeCrowd,
    parts: &Parts,
) -> Round {
    let before = runtime.block_on(commit::Seen::now(app));
    let passkey = crowd.passkeys(server, RECOVERIES);
    let after = runtime.block_on(commit::Seen::now(app));
    let shape = Shape::between(&before, &after, passkey.sample.count);
    Round {
        token: parts.token(PART),
        tls: crowd.tls(server, PART),
        dpop: parts.dpop(PART, app.device("notes")),
        assertion: parts.assertion(PART),
        commit: commit::commits(&shape, PART),
        pool: parts.pool(PART),
        pin: crowd.pins(server, RECOVERIES),
        argon2: parts.argon2(PART),
        totp: codes.totp(server),
        code: codes.delivered(server),
        batch: shape.changes,
        passkey,
    }
}
