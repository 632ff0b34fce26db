//! What a realm of a million accounts costs beside one of a thousand.
//!
//! The thousand are enrolled as anybody is; the others are copies of one of them, written by the
//! ledger itself into the stopped daemon's database. In both realms each of the thousand recovers
//! once after a start, when nothing of it is in memory, and once more from the daemon's cache.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use custodyd::ledger::{EventKind, LedgerError, NewEvent};
use custodyd_hsm::AccountId;
use custodyd_tests::{Setup, TestApp};
use tokio::runtime::Runtime;

use crate::cpu;
use crate::load::{A_THOUSAND, Crowd};
use crate::realm::{self, Realm, alike, notes};
use crate::report::Figure;
use crate::statistics::quantile;
use crate::verification;

pub(crate) const MILLION: usize = 1_000_000;
/// Names what measures this alone, for a realm of any size.
pub(crate) const SCALE: &str = "scale";
/// Names the job that fills a realm.
pub(crate) const FILL: &str = "fill";
/// Accounts that the ledger is given at once: the token's queue holds no more.
const IN_FLIGHT: usize = 240;
/// Starts, each followed by one recovery from each of the thousand.
const TURNS: usize = 3;

/// Makes the realm of a stopped daemon hold `count` accounts more, all like `template`.
pub(crate) fn fill(app: &Path, token: &Path, template: &str, count: usize) {
    Runtime::new().unwrap().block_on(async {
        let realm = Realm::open(app, token).await;
        let id = AccountId::parse(template).unwrap();
        let template = realm.ledger.load(&notes(), id).await.unwrap().unwrap();
        let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (ledger, template) = (realm.ledger.clone(), Arc::clone(&template.account));
            let next = Arc::clone(&next);
            tasks.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    if index > 0 && index.is_multiple_of(100_000) {
                        let seconds = started.elapsed().as_secs();
                        eprintln!("{index} of {count} accounts after {seconds} s");
                    }
                    let account = alike(&template, &ledger);
                    let created = ledger.create::<(), LedgerError>(account, |_, _, journal| {
                        journal.note(NewEvent::new(EventKind::AccountCreated));
                        journal.note(NewEvent::new(EventKind::DeviceBound));
                        Ok(())
                    });
                    created.await.unwrap();
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        drop(template);
        realm.close().await;
    });
}

/// What a realm of some size costs.
#[derive(Debug)]
struct Scale {
    /// From the start of the program until it serves.
    start: f64,
    /// Microseconds of the server's CPU for the first recovery of each account after a start,
    /// and for one that comes soon again.
    first: f64,
    again: f64,
}

impl Scale {
    fn measured(runtime: &Runtime, app: &mut TestApp, crowd: &mut Crowd) -> Self {
        let (mut starts, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            assert!(app.stop(), "{}", app.log());
            let started = Instant::now();
            runtime.block_on(app.launch());
            starts.push(started.elapsed().as_secs_f64());
            let server = cpu::child("custodyd");
            first.push(crowd.passkeys_once(server).sample.micros());
            again.push(crowd.passkeys_once(server).sample.micros());
        }
        for values in [&mut starts, &mut first, &mut again] {
            values.sort_by(f64::total_cmp);
        }
        Self {
            start: quantile(&starts, 0.5),
            first: quantile(&first, 0.5),
            again: quantile(&again, 0.5),
        }
    }
}

/// With a daemon of its own. `accounts` is a million, but where somebody has less time.
pub(crate) fn figures(runtime: &Runtime, accounts: usize) -> Vec<Figure> {
    println!("a realm of {A_THOUSAND} accounts ...");
    let quota = "[enrolment]\nquota_per_hour = 10000\n";
    let mut app = runtime.block_on(TestApp::with(Setup::notes(quota)));
    let mut crowd = Crowd::of_a_thousand(&app);
    let small = Scale::measured(runtime, &mut app, &mut crowd);
    assert!(app.stop(), "{}", app.log());
    println!("a realm of {accounts} accounts ...");
    let count = accounts.saturating_sub(A_THOUSAND).to_string();
    let template = crowd.accounts().swap_remove(0);
    realm::job(&app, FILL, &[&template, &count]);
    runtime.block_on(app.launch());
    let large = Scale::measured(runtime, &mut app, &mut crowd);
    let rate = verification::rate(&mut app);
    let bytes = std::fs::metadata(app.path("custodyd.sqlite"))
        .unwrap()
        .len();
    let ratio = large.first / small.first;
    let again = large.again / small.again;
    let (cpu, aim) = ("us CPU", "aim: at most 1.25");
    vec![
        Figure::new("cost_1e6_over_1e3", ratio, "ratio", aim).beside("cost_1e3_first", ratio),
        Figure::new("cost_1e6_over_1e3_again", again, "ratio", "from the cache")
            .beside("cost_1e3_again", again),
        Figure::new(
            "cost_1e3_again",
            small.again,
            cpu,
            "a recovery of an account in the cache",
        ),
        Figure::new(
            "cost_1e3_first",
            small.first,
            cpu,
            "the first one after a start",
        ),
        Figure::new(
            "cost_1e6_first",
            large.first,
            cpu,
            "the first one after a start",
        ),
        Figure::new(
            "cost_1e6_again",
            large.again,
            cpu,
            "of an account in the cache",
        ),
        Figure::new(
            "startup_1e6_seconds",
            large.start,
            "s",
            "until ready, aim: below 1",
        ),
        Figure::new("startup_1e3_seconds", small.start, "s", "until ready"),
        Figure::new("verify_1e6_rate", rate, "rows/s", "log entries and records"),
        Figure::new(
            "bytes_per_account",
            bytes as f64 / accounts as f64,
            "bytes",
            "of the database",
        ),
    ]
}
