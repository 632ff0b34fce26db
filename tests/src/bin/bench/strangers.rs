//! Strangers: what they see by the clock, and what their flood does to others.
//!
//! Each asks again as soon as it is answered. Whether the account that it names exists is drawn
//! at random for each request, so that a slow moment of the machine hits both kinds alike. The
//! proof is made before the clock starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::{Device, TestApp};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::load::Crowd;
use crate::statistics::Compared;

/// The app whose policy lets strangers try a PIN.
pub(crate) const OPEN: &str = "open";
/// Tries of strangers that its policy grants each account.
const TRIES: usize = 10;
const SAMPLES: usize = 10_000;
const AT_ONCE: usize = 40;
/// Those of the app where each is an evaluation of Argon2id.
const OPEN_ACCOUNTS: usize = 30;
const OPEN_AT_ONCE: usize = 12;
const FLOODERS: usize = 32;
/// Requests share a connection, as those of one office do.
const EACH_CONNECTION: usize = 5;

/// A sign-in with a PIN, from a device that is bound to no account, for accounts that exist and
/// accounts that do not.
pub(crate) fn timing(runtime: &Runtime, app: &TestApp, crowd: &Crowd) -> Compared {
    let draw = Draw::new(crowd.accounts(), SAMPLES / 2, usize::MAX);
    runtime.block_on(compared(app, "notes", AT_ONCE, draw))
}

/// The same where the PINs of strangers are evaluated.
pub(crate) fn pin_timing(runtime: &Runtime, app: &TestApp) -> Compared {
    runtime.block_on(async {
        let mut accounts = Vec::with_capacity(OPEN_ACCOUNTS);
        for _ in 0..OPEN_ACCOUNTS {
            let mut owner = app.device(OPEN);
            owner.enrol().await;
            owner.set_pin("583926").await.expect(200);
            accounts.push(owner.account);
        }
        let draw = Draw::new(accounts, OPEN_ACCOUNTS * TRIES, TRIES);
        compared(app, OPEN, OPEN_AT_ONCE, draw).await
    })
}

/// Floods the app with PINs for accounts that do not exist; returns how many were evaluated.
pub(crate) fn flood(runtime: &Runtime, app: &TestApp, lasting: Duration) -> usize {
    runtime.block_on(async {
        let end = Instant::now() + lasting;
        let mut running = JoinSet::new();
        for mut stranger in devices(app, OPEN, FLOODERS).await {
            running.spawn(async move {
                let mut evaluated = 0;
                while Instant::now() < end {
                    let (status, _) = ask(&mut stranger, &nobody()).await;
                    evaluated += usize::from(status == 401);
                }
                evaluated
            });
        }
        running.join_all().await.into_iter().sum()
    })
}

/// Which account comes next, until both kinds were named often enough.
struct Draw {
    accounts: Vec<String>,
    /// How often each account may be named, all in turn.
    each: usize,
    of_each_kind: usize,
    known: AtomicUsize,
    unknown: AtomicUsize,
}

impl Draw {
    fn new(accounts: Vec<String>, of_each_kind: usize, each: usize) -> Self {
        Self {
            accounts,
            each,
            of_each_kind,
            known: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
        }
    }

    /// The account, and whether it exists.
    fn next(&self) -> Option<(String, bool)> {
        let take = |count: &AtomicUsize| {
            let taken = count.fetch_add(1, Ordering::Relaxed);
            (taken < self.of_each_kind).then_some(taken)
        };
        let known = || {
            let turn = take(&self.known)?;
            assert!(
                turn / self.accounts.len() < self.each,
                "all tries are spent"
            );
            Some((self.accounts[turn % self.accounts.len()].clone(), true))
        };
        let unknown = || take(&self.unknown).map(|_| (nobody(), false));
        match random::<1>()[0] & 1 {
            0 => known().or_else(unknown),
            _ => unknown().or_else(known),
        }
    }
}

async fn compared(app: &TestApp, of: &str, at_once: usize, draw: Draw) -> Compared {
    let draw = Arc::new(draw);
    let mut running = JoinSet::new();
    for mut stranger in devices(app, of, at_once).await {
        let draw = Arc::clone(&draw);
        running.spawn(async move {
            let mut times = [Vec::new(), Vec::new()];
            while let Some((account, known)) = draw.next() {
                let (status, took) = ask(&mut stranger, &account).await;
                assert_eq!(status, 401);
                times[usize::from(known)].push(took.as_secs_f64() * 1e3);
            }
            times
        });
    }
    let (mut unknown, mut known) = (Vec::new(), Vec::new());
    for [of_unknown, of_known] in running.join_all().await {
        unknown.extend(of_unknown);
        known.extend(of_known);
    }
    Compared::of(known, unknown)
}

async fn devices(app: &TestApp, of: &str, count: usize) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::with_capacity(count);
    for number in 0..count {
        let mut device = app.device(of);
        if let Some(shared) = devices.get(number / EACH_CONNECTION * EACH_CONNECTION) {
            device.http = shared.http.clone();
        }
        device.meet().await;
        devices.push(device);
    }
    devices
}

async fn ask(stranger: &mut Device, account: &str) -> (u16, Duration) {
    let body = json!({"account": account, "pin": "000000"});
    let mut call = stranger.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
    call.proof = Some(stranger.proof(&call));
    let began = Instant::now();
    let answer = stranger.send(&call).await;
    (answer.status, began.elapsed())
}

/// An identifier of the right form, which nobody has.
fn nobody() -> String {
    let hex = hex::encode(random::<16>());
    let part = |from: usize, to: usize| &hex[from..to];
    format!(
        "{}-{}-4{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}
