//! `make bench`: what a recovery costs the server, beside what its parts cost by themselves.
//!
//! Run by a person, in a release build, with the daemon's own program beside it. It starts a
//! real daemon on loopback with a SoftHSM2 token and measures, in rounds that take each part
//! in turn: recoveries by passkey and by PIN, and the raw parts they are made of. Each figure
//! is the median of the rounds, so a slow moment of the machine hits all parts alike. It must
//! never decide whether a test passes: figures differ between machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot go on stops"
)]

mod commit;
mod cpu;
mod load;
mod parts;
mod report;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use custodyd_tests::TestApp;
use custodyd_tests::token::SoftToken;

use self::commit::Shape;
use self::cpu::Sample;
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
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(MEASURE) {
        measure(Path::new(&arguments.next().unwrap()));
        return ExitCode::SUCCESS;
    }
    let token = SoftToken::fresh();
    let (name, value) = token.environment();
    let status = Command::new(std::env::current_exe().unwrap())
        .arg(MEASURE)
        .arg(token.dir())
        .env(name, value)
        .status()
        .unwrap();
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn measure(token: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::start());
    let server = cpu::child("custodyd");
    println!("making {} accounts ...", load::ACCOUNTS);
    let mut crowd = Crowd::enrolled(&app);
    let parts = Parts::new(token);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for number in 1..=ROUNDS {
        println!("round {number} of {ROUNDS} ...");
        rounds.push(round(&runtime, &app, server, &mut crowd, &parts));
    }
    let figures = report::figures(&rounds);
    report::table(&rounds, &figures);
    let path = report::write(&figures);
    println!("written: {}", path.display());
}

fn round(
    runtime: &tokio::runtime::Runtime,
    app: &TestApp,
    server: u32,
    crowd: &mut Crowd,
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
        batch: shape.changes,
        passkey,
    }
}
