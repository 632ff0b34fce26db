//! The process is killed at each step towards its durable state, from outside.
//!
//! strace(1) attaches to the serving daemon, after its login, and kills it when one of its threads
//! is about to make the n-th system call of a kind: write to a file of the database or the token,
//! sync one, make, rename or remove one, or answer. So each step is once the last one that was
//! done, and once the first one that was not. The daemon then starts without an operator; nothing
//! that was acknowledged is missing, and no guess is won back. Of the many writes every fourth has
//! its turn; `CUSTODYD_KILLS=all` takes each of them.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use custodyd_tests::{Setup, TestApp};

use crate::acknowledged::{LEFT, Owner};

/// More calls of a kind than one thread makes in one turn: past them there is nothing to kill.
pub(crate) const MOST: u32 = 200;

/// Kills the daemon at the n-th such call of a thread of it.
pub(crate) struct Killer(Child);

impl Killer {
    pub(crate) fn attach(app: &mut TestApp, call: &str, nth: u32) -> Self {
        let process = app.process().unwrap().to_string();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &process])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_traced(&process) {
            assert!(Instant::now() < deadline, "strace did not attach");
            std::thread::sleep(Duration::from_millis(2));
        }
        Self(strace)
    }

    /// Not in order: while its threads die, strace waits for the process, which waits for them.
    pub(crate) fn detach(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether every thread has its tracer.
fn is_traced(process: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}

/// Whether the daemon has survived. Where an answer did not come, it has not: it may take a moment to
/// be gone.
pub(crate) fn lives(app: &mut TestApp, answered: bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while app.process().is_some() {
        let dying = is_dying(app);
        if !dying && answered {
            return true;
        }
        assert!(
            Instant::now() < deadline,
            "no answer, and nobody was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

fn is_dying(app: &mut TestApp) -> bool {
    let Some(process) = app.process() else {
        return true;
    };
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    !status.contains("State:\tS") && !status.contains("State:\tR")
}

async fn killed_at(call: &str, step: u32, at_least: u32) {
    let step = match std::env::var("CUSTODYD_KILLS") {
        Ok(which) if which == "all" => 1,
        _ => step,
    };
    let rounds = format!("[[pin.rounds]]\nattempts = {LEFT}\n");
    let mut app = TestApp::with(Setup::notes(&rounds)).await;
    let mut owner = Owner::enrolled(&app).await;
    let mut kills = 0;
    for nth in (1..=MOST).step_by(step as usize) {
        let killer = Killer::attach(&mut app, call, nth);
        let asked = owner.ask(nth).await;
        let answered = asked.guess.is_some() && asked.stored.is_some();
        // What follows an answer is waited for as well: anchors that are cleaned away.
        if answered {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        killer.detach();
        let lives = lives(&mut app, answered);
        if !lives {
            kills += 1;
            app.kill();
            app.launch().await;
        }
        owner.check(&asked).await;
        if lives {
            break;
        }
    }
    eprintln!("killed at {kills} calls of {call}");
    assert!(kills >= at_least, "killed at {kills} calls of {call} only");
    app.verified();
}

#[tokio::test]
async fn at_each_write_to_the_database() {
    // Where what is asked shares a batch there are fewer.
    killed_at("pwrite64", 4, 5).await;
}

#[tokio::test]
async fn at_each_write_to_the_token() {
    killed_at("write", 2, 4).await;
}

#[tokio::test]
async fn at_each_sync() {
    killed_at("fdatasync", 1, 2).await;
}

#[tokio::test]
async fn at_each_file_that_goes() {
    killed_at("unlink", 1, 2).await;
}

#[tokio::test]
async fn at_each_answer() {
    killed_at("writev", 1, 1).await;
}
