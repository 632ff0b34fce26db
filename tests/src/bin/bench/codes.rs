//! Recoveries with codes: of an authenticator app, and delivered.
//!
//! A code works once: an authenticator app has a new one every fifteen seconds, and an account is
//! sent one every ten. So each account recovers once a round, and the number of accounts is the
//! number of recoveries. Delivered codes are read from the daemon's outbox file; the time until
//! they are there is nobody's, their cost to the server is in its CPU time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use custodyd_tests::codes::Authenticator;
use custodyd_tests::{Device, TestApp};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::cpu::sample;
use crate::load::{Measured, SECRET, check};

pub(crate) const APP: &str = "codes";
/// Below the folder of the daemon.
pub(crate) const OUTBOX: &str = "outbox.jsonl";
/// As in the app's policy, and a second more.
const INTERVAL: Duration = Duration::from_secs(11);
const WINDOW: u64 = 2;
const WORKERS: usize = 16;
const EACH: usize = 16;

#[derive(Debug)]
struct Member {
    device: Device,
    authenticator: Authenticator,
    address: String,
    took: Duration,
}

#[derive(Debug)]
struct Worker {
    runtime: Runtime,
    members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct CodeCrowd {
    workers: Vec<Worker>,
    outbox: PathBuf,
    asked: Option<Instant>,
}

impl CodeCrowd {
    pub(crate) fn enrolled(app: &TestApp) -> Self {
        let mut workers: Vec<Worker> = (0..WORKERS)
            .map(|number| Worker::new(app, number))
            .collect();
        let outbox = app.path(OUTBOX);
        each(&mut workers, async |member| {
            let claim = member.enrol().await;
            member.confirm(&claim, &outbox).await;
        });
        Self {
            workers,
            outbox,
            asked: None,
        }
    }

    /// One recovery of each account, with a code of its authenticator app.
    pub(crate) fn totp(&mut self, server: u32) -> Measured {
        let sample = sample(server, || {
            each(&mut self.workers, async |member| member.totp().await);
            (WORKERS * EACH) as f64
        });
        self.measured(sample)
    }

    /// One recovery of each account, with a code that was delivered.
    pub(crate) fn delivered(&mut self, server: u32) -> Measured {
        if let Some(asked) = self.asked {
            thread::sleep(INTERVAL.saturating_sub(asked.elapsed()));
        }
        let outbox = self.outbox.clone();
        let sample = sample(server, || {
            let before = codes(&outbox).1;
            each(&mut self.workers, async |member| member.ask().await);
            self.asked = Some(Instant::now());
            let newest = until(|| {
                let (newest, count) = codes(&outbox);
                (count >= before + WORKERS * EACH).then_some(newest)
            });
            each(&mut self.workers, async |member| {
                member.enter(&newest[&member.address]).await;
            });
            (WORKERS * EACH) as f64
        });
        self.measured(sample)
    }

    fn measured(&self, sample: crate::cpu::Sample) -> Measured {
        let members = self.workers.iter().flat_map(|worker| &worker.members);
        Measured {
            sample,
            latencies: members
                .map(|member| member.took.as_secs_f64() * 1e3)
                .collect(),
        }
    }
}

/// Runs `work` for each account, as many at once as there are workers.
fn each(workers: &mut [Worker], work: impl AsyncFn(&mut Member) + Sync) {
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| {
                for member in &mut worker.members {
                    worker.runtime.block_on(work(member));
                }
            });
        }
    });
}

impl Worker {
    fn new(app: &TestApp, number: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut members: Vec<Member> = Vec::with_capacity(EACH);
        for place in 0..EACH {
            let mut device = app.device(APP);
            if let Some(first) = members.first() {
                device.http = first.device.http.clone();
            }
            members.push(Member {
                device,
                // Until it has enrolled one.
                authenticator: Authenticator::scan("otpauth://totp/none?secret=AAAA"),
                address: format!("person{}@example.com", number * EACH + place),
                took: Duration::ZERO,
            });
        }
        Self { runtime, members }
    }
}

impl Member {
    /// An account with an authenticator app and a secret, and a claim to an address.
    async fn enrol(&mut self) -> String {
        self.device.enrol().await;
        let body = Some(json!({"email": self.address}));
        let claimed = self.device.call("PUT", "/v1/account/contact", body).await;
        self.authenticator = self.device.add_totp().await;
        self.device.back_up(SECRET, &[7; 32]).await.expect(200);
        claimed.expect(202).body["id"].as_str().unwrap().to_owned()
    }

    async fn confirm(&mut self, claim: &str, outbox: &PathBuf) {
        let code = until(|| codes(outbox).0.remove(&self.address));
        let body = Some(json!({"id": claim, "code": code}));
        let path = "/v1/account/contact/confirm";
        self.device.call("POST", path, body).await.expect(204);
    }

    async fn totp(&mut self) {
        self.authenticator.skip_old(WINDOW);
        assert!(self.authenticator.may_show(WINDOW), "rounds are too short");
        let code = self.authenticator.show();
        let began = Instant::now();
        let answer = self.device.try_totp(&code, &[SECRET]).await.expect(201);
        self.took = began.elapsed();
        check(&answer.body);
    }

    async fn ask(&mut self) {
        self.device.token = None;
        let body = Some(json!({"account": self.device.account}));
        let began = Instant::now();
        let answer = self.device.call("POST", "/v1/apps/{app}/otp", body).await;
        self.took = began.elapsed();
        answer.expect(202);
    }

    async fn enter(&mut self, code: &str) {
        let body = json!({"account": self.device.account, "code": code, "release": [SECRET]});
        let path = "/v1/apps/{app}/sessions/otp";
        let began = Instant::now();
        let answer = self.device.call("POST", path, Some(body)).await.expect(201);
        self.took += began.elapsed();
        check(&answer.body);
    }
}

/// The newest code to each address, and how many there were in all.
fn codes(outbox: &PathBuf) -> (HashMap<String, String>, usize) {
    let text = std::fs::read_to_string(outbox).unwrap();
    // The last line may be half written.
    let lines = text
        .lines()
        .map_while(|line| serde_json::from_str(line).ok());
    let codes: Vec<Value> = lines
        .filter(|line: &Value| line["kind"] == "code")
        .collect();
    let word = |of: &Value| of.as_str().unwrap().lines().next().unwrap().to_owned();
    let count = codes.len();
    let newest = codes
        .iter()
        .map(|line| (word(&line["to"]), word(&line["body"])));
    (newest.collect(), count)
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "a code did not come");
        thread::sleep(Duration::from_millis(20));
    }
}
