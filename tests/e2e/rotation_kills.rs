//! A rotation and a retirement are cut off at each step towards their durable state, and the same command ends them.
//!
//! As in `kills`: each step is once the last one that was done, and once the first one that was not. Between the key in
//! the token and the head that names it, between the head that does not accept a key any more and its end in the token, and
//! within each of these, the daemon starts again without an operator, and serves.

use std::process::Child;
use std::time::{Duration, Instant};

use custodyd_tests::TestApp;

use crate::kills::{Killer, MOST, lives};
use crate::rotation::{begun, done, owners};

/// What is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Rotation,
    Retirement,
}

/// The key of a purpose that is used for what is new.
pub(crate) fn current(app: &TestApp, purpose: &str) -> String {
    let listed = done(app, "key list");
    let begins = format!("custodyd-{purpose}-");
    let line = listed
        .lines()
        .find(|line| line.starts_with(&begins) && line.contains("used for what is new"));
    let name = line.unwrap_or_else(|| panic!("{listed}")).split(' ').next();
    name.unwrap().to_owned()
}

/// Whether the command came to its end and was told so.
async fn answered(mut asked: Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = asked.try_wait().unwrap() {
            return status.success();
        }
        assert!(Instant::now() < deadline, "the command waits for nobody");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs a command with the daemon killed at the n-th such call of a thread of it, and starts it anew where it was.
pub(crate) async fn killed(app: &mut TestApp, arguments: &str, call: &str, nth: u32) -> bool {
    let killer = Killer::attach(app, call, nth);
    let answered = answered(begun(app, arguments)).await;
    killer.detach();
    if lives(app, answered) {
        assert!(answered, "{arguments}: {}", app.log());
        return false;
    }
    app.kill();
    app.launch().await;
    true
}

async fn killed_at(cut: Cut, call: &str, step: u32, at_least: u32) {
    let mut app = TestApp::start().await;
    let mut owner = owners(&app, 1).await.remove(0);
    let mut kills = 0;
    for nth in (1..=MOST).step_by(step as usize) {
        let old = current(&app, "wrap");
        let retire = format!("key retire {old} --destroy --yes");
        let was_killed;
        if cut == Cut::Rotation {
            was_killed = killed(&mut app, "key rotate wrap", call, nth).await;
            owner.recover("device-secret").await.expect(200);
            // It has happened, or it has not and what is in the token is used for nothing.
            if was_killed && current(&app, "wrap") == old {
                done(&app, "key rotate wrap");
            }
            assert_ne!(current(&app, "wrap"), old, "{call} {nth}");
            done(&app, "key rewrap --share 100");
            done(&app, &retire);
        } else {
            done(&app, "key rotate wrap");
            done(&app, "key rewrap --share 100");
            was_killed = killed(&mut app, &retire, call, nth).await;
            owner.recover("device-secret").await.expect(200);
            let told = done(&app, &retire);
            assert!(told.contains("is destroyed in the token"), "{told}");
        }
        let listed = done(&app, "key list");
        assert!(!listed.contains(&format!("{old} ")), "{listed}");
        owner.recover("device-secret").await.expect(200);
        if !was_killed {
            break;
        }
        kills += 1;
        assert!(nth + step <= MOST, "more calls of {call} than are tried");
    }
    eprintln!("killed at {kills} calls of {call}");
    assert!(kills >= at_least, "killed at {kills} calls of {call} only");
    app.verified();
}

#[tokio::test]
async fn a_retirement_at_each_write_to_the_database() {
    killed_at(Cut::Retirement, "pwrite64", 1, 3).await;
}

#[tokio::test]
async fn a_retirement_at_each_sync() {
    killed_at(Cut::Retirement, "fdatasync", 1, 1).await;
}

#[tokio::test]
async fn a_retirement_at_each_write_to_the_token() {
    killed_at(Cut::Retirement, "write", 2, 3).await;
}

#[tokio::test]
async fn a_retirement_at_each_file_that_goes() {
    killed_at(Cut::Retirement, "unlink", 1, 2).await;
}

#[tokio::test]
async fn a_retirement_at_its_answer() {
    killed_at(Cut::Retirement, "writev", 1, 1).await;
}

#[tokio::test]
async fn a_rotation_at_each_write_to_the_database() {
    killed_at(Cut::Rotation, "pwrite64", 1, 3).await;
}

#[tokio::test]
async fn a_rotation_at_each_write_to_the_token() {
    killed_at(Cut::Rotation, "write", 4, 3).await;
}
