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

use custodyd_tests::device::b64;
use custodyd_tests::{Answer, Device, Setup, TestApp};
use serde_json::json;

const PIN: &str = "830517";
const SECRET: &str = "device-secret";
const LEFT: u64 = 100;
/// More calls of a kind than one thread makes in one turn: past them there is nothing to kill.
const MOST: u32 = 200;

/// What the owner knows: nothing of it may become untrue.
struct Owner {
    device: Device,
    /// Attempts at the PIN that the last answer left.
    left: u64,
    /// Charges of guesses that were cut off.
    in_flight: u64,
    /// The entity tag and content of the secret that were acknowledged last.
    kept: (String, Vec<u8>),
}

/// What was asked in one turn, and whether an answer came.
struct Asked {
    guess: Option<Answer>,
    content: Vec<u8>,
    stored: Option<Answer>,
}

impl Owner {
    async fn enrolled(app: &TestApp) -> Self {
        let mut device = app.device("notes");
        device.enrol().await;
        device.set_pin(PIN).await.expect(200);
        let content = b"first".to_vec();
        let stored = device.back_up(SECRET, &content).await.expect(200);
        Self {
            device,
            left: LEFT,
            in_flight: 0,
            kept: (stored.header("etag").to_owned(), content),
        }
    }

    /// A guess, and a new content of the secret.
    async fn ask(&mut self, turn: u32) -> Asked {
        let session = self.device.token.take();
        let body = json!({"account": self.device.account, "pin": "111111", "release": []});
        let guess = (self.device).prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
        let guess = self.device.attempt(&guess).await;
        self.device.token = session;
        let content = format!("content {turn}").into_bytes();
        let path = format!("/v1/account/secrets/{SECRET}");
        let body = json!({"server_slot": b64(&content)});
        let mut put = self.device.prepare("PUT", &path, Some(body));
        put.headers.push(("If-Match".into(), self.kept.0.clone()));
        let stored = self.device.attempt(&put).await;
        Asked {
            guess,
            content,
            stored,
        }
    }

    /// What was told must hold; what was not told may have happened or not.
    async fn check(&mut self, asked: Asked) {
        let told = asked.guess.map(|answer| {
            answer.refused("401 pin-wrong");
            answer.body["attempts_left"].as_u64().unwrap()
        });
        assert!(told.is_none_or(|left| left == self.left - 1));
        let stored = asked.stored.map(|answer| {
            let answer = answer.expect(200);
            answer.header("etag").to_owned()
        });
        let secret = self.device.recover(SECRET).await.expect(200);
        let shown = (
            secret.header("etag").to_owned(),
            secret.body["server_slot"].as_str().unwrap().to_owned(),
        );
        let new = shown.1 == b64(&asked.content);
        match &stored {
            Some(etag) => assert!(new && *etag == shown.0, "acknowledged and not there"),
            None => assert!(new || (shown.0 == self.kept.0 && shown.1 == b64(&self.kept.1))),
        }
        if new {
            self.kept = (shown.0, asked.content);
        }
        let session = self.device.token.clone();
        let next = self.device.try_pin("111111", &[]).await;
        next.refused("401 pin-wrong");
        let left = next.body["attempts_left"].as_u64().unwrap();
        let charged = self.left - 1 - left;
        match told {
            Some(_) => assert_eq!(charged, 1, "a guess that was told"),
            None => assert!(charged <= 1, "{charged} of one guess"),
        }
        self.left = left;
        self.in_flight += u64::from(told.is_none()) * charged;
        if left < 5 {
            self.start_over().await;
        }
        self.device.token = session;
    }

    /// With the right PIN. Charges without an outcome stay: somebody may still hold the guess.
    async fn start_over(&mut self) {
        self.device.try_pin(PIN, &[]).await.expect(201);
        let next = self.device.try_pin("111111", &[]).await;
        next.refused("401 pin-wrong");
        self.left = next.body["attempts_left"].as_u64().unwrap();
        assert!(LEFT - 1 - self.left <= self.in_flight);
    }
}

/// Kills the daemon at the n-th such call of a thread of it.
struct Killer(Child);

impl Killer {
    fn attach(app: &mut TestApp, call: &str, nth: u32) -> Self {
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
    fn detach(mut self) {
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
fn lives(app: &mut TestApp, answered: bool) -> bool {
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
        owner.check(asked).await;
        if lives {
            break;
        }
    }
    eprintln!("killed at {kills} calls of {call}");
    assert!(kills >= at_least, "killed at {kills} calls of {call} only");
    assert!(app.stop(), "{}", app.log());
    let verified = app.command("ledger verify --open").output().unwrap();
    assert!(
        verified.status.success(),
        "{}",
        custodyd_tests::app::said(&verified)
    );
}

#[tokio::test]
async fn at_each_write_to_the_database() {
    killed_at("pwrite64", 4, 8).await;
}

#[tokio::test]
async fn at_each_write_to_the_token() {
    killed_at("write", 4, 4).await;
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
