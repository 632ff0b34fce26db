//! Each sync, write and rename of the daemon's files fails once, the first one, the second one, and so on.
//!
//! A library in C is loaded before the daemon's own (`tests/src/shims/disk.c`) and lets the n-th call of a kind fail that
//! reaches a file of the database, of the token or the warm anchor, while an owner asks: until a turn passes in which there
//! were not so many. Afterwards nothing that was acknowledged is missing and no guess is won back. The daemon serves rightly
//! or refuses, or has ended because it does not know what is written; every other time it is killed as well, and then what
//! failed is all that the next start has. No start needs an operator.

use std::time::{Duration, Instant};

use custodyd_tests::shim::{Call, Disk};
use custodyd_tests::{Setup, TestApp};

use crate::acknowledged::{LEFT, Owner};

/// More calls of a kind than there are in one turn.
const MOST: u32 = 400;
/// With the token's health probed and its session begun anew between.
const SERVES_AGAIN: Duration = Duration::from_secs(60);

async fn fails_at_each(call: Call, at_least: u32) {
    let rounds = format!("[[pin.rounds]]\nattempts = {LEFT}\n");
    let setup = Setup {
        database: custodyd_tests::app::Database::Sqlite,
        config: "[ledger]\nanchor = \"bounded\"\nanchor_interval = \"1s\"\nruntime_directory = \"run\"\n"
            .into(),
        ..Setup::notes(&rounds)
    };
    let mut app = TestApp::prepared(setup, custodyd_tests::token::SoftToken::fresh());
    std::fs::create_dir(app.path("run")).unwrap();
    let files = [
        app.path("custodyd.sqlite"),
        app.path("run"),
        app.token.tokens(),
    ];
    let disk = Disk::new(app.dir.path(), &files);
    app.environment = disk.environment();
    app.found().await;
    let mut owner = Owner::enrolled(&app).await;
    let (mut failures, mut ends, mut refusals) = (0, 0, 0);
    let mut passed = false;
    for nth in 1..=MOST {
        disk.fails_at(call, nth);
        let asked = owner.ask(nth).await;
        // What follows an answer is waited for as well: anchors at their interval.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let failed = disk.is_well();
        failures += u32::from(failed);
        let answers = [&asked.guess, &asked.stored];
        let refused = |answer: &&Option<_>| {
            let answer: &Option<custodyd_tests::Answer> = answer;
            answer.as_ref().is_some_and(|answer| answer.status >= 500)
        };
        refusals += u32::from(answers.iter().any(refused));
        let ended = app.process().is_none();
        ends += u32::from(ended);
        if !ended {
            // Not in the login that a token's failure may bring.
            ready(&mut app).await;
        }
        if ended || nth.is_multiple_of(2) {
            app.kill();
            app.launch().await;
            ready(&mut app).await;
        }
        owner.check(&asked).await;
        passed = !failed;
        if passed {
            break;
        }
    }
    eprintln!(
        "{failures} calls of {call:?} failed: {refusals} turns were refused, {ends} times the daemon ended"
    );
    assert!(passed, "there is always one more to fail");
    assert!(failures >= at_least, "only {failures} calls failed");
    app.verified();
}

/// By itself; whoever does not come back so has needed an operator.
async fn ready(app: &mut TestApp) {
    let give_up = Instant::now() + SERVES_AGAIN;
    while app.operator("/readyz").await.0 != 200 {
        assert!(Instant::now() < give_up, "not ready again: {}", app.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn at_each_sync() {
    fails_at_each(Call::Sync, 3).await;
}

#[tokio::test]
async fn at_each_write() {
    fails_at_each(Call::Write, 6).await;
}

#[tokio::test]
async fn at_each_rename() {
    fails_at_each(Call::Rename, 2).await;
}
