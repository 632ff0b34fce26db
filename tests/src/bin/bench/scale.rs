//! What a realm of a million accounts costs beside one of a thousand.
//!
//! The thousand are enrolled as anybody is; the others are copies of one of them, written by the
//! ledger itself into the stopped daemon's database. In both realms each of the thousand recovers
//! once after a start, when nothing of it is in memory, and once more from the daemon's cache. The same is measured
//! at every power of ten in between, for the plot.

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
use crate::plot::{Axis, Chart, Series};
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
/// More than an account takes of a disk, its part of the write-ahead log included.
const BYTES: u64 = 12 * 1024;
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
                    let created =
                        ledger.create::<(), LedgerError>(account, &[], |_, _, journal| {
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

/// What a realm of so many accounts has cost.
struct Step {
    accounts: usize,
    scale: Scale,
}

/// Sizes between a thousand and the last, each ten times the one before.
fn sizes(last: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = std::iter::successors(Some(10_000), |size| Some(size * 10))
        .take_while(|size| *size < last)
        .collect();
    sizes.push(last);
    sizes
}

/// As figures are named: 1e6, where the number is a power of ten.
fn word(accounts: usize) -> String {
    let power = accounts.ilog10();
    if accounts == 10_usize.pow(power) {
        format!("1e{power}")
    } else {
        accounts.to_string()
    }
}

/// A disk that fills up would be noticed by the daemon after an hour.
fn check_space(app: &TestApp, accounts: usize) {
    let disk = rustix::fs::statvfs(app.dir.path()).unwrap();
    let (free, needed) = (disk.f_bavail * disk.f_frsize, accounts as u64 * BYTES);
    assert!(
        free >= needed,
        "a realm of {accounts} accounts takes up to {} GB, and there are {} GB free in {}: set TMPDIR",
        needed >> 30,
        free >> 30,
        app.dir.path().display()
    );
}

/// With a daemon of its own. `accounts` is a million, but where somebody has less time, or more.
pub(crate) fn figures(runtime: &Runtime, accounts: usize) -> Vec<Figure> {
    assert!(accounts > A_THOUSAND, "more than {A_THOUSAND} accounts");
    println!("a realm of {A_THOUSAND} accounts ...");
    let quota = "[enrolment]\nquota_per_hour = 10000\n";
    let mut app = runtime.block_on(TestApp::with(Setup::notes(quota)));
    check_space(&app, accounts);
    let mut crowd = Crowd::of_a_thousand(&app);
    let mut steps = vec![Step {
        accounts: A_THOUSAND,
        scale: Scale::measured(runtime, &mut app, &mut crowd),
    }];
    let template = crowd.accounts().swap_remove(0);
    for size in sizes(accounts) {
        println!("a realm of {size} accounts ...");
        assert!(app.stop(), "{}", app.log());
        let missing = size - steps.last().unwrap().accounts;
        realm::job(&app, FILL, &[&template, &missing.to_string()]);
        runtime.block_on(app.launch());
        steps.push(Step {
            accounts: size,
            scale: Scale::measured(runtime, &mut app, &mut crowd),
        });
    }
    plot(&steps);
    let rate = verification::rate(&mut app);
    let bytes = std::fs::metadata(app.path("custodyd.sqlite"))
        .unwrap()
        .len();
    let mut figures = compared(&steps);
    let word = word(accounts);
    figures.extend([
        Figure::new(
            format!("verify_{word}_rate"),
            rate,
            "rows/s",
            "log entries and records",
        ),
        Figure::new(
            "bytes_per_account",
            bytes as f64 / accounts as f64,
            "bytes",
            "of the database",
        ),
    ]);
    figures
}

/// Every size by itself, and the last one beside the first.
fn compared(steps: &[Step]) -> Vec<Figure> {
    let (small, large) = (&steps[0].scale, &steps[steps.len() - 1]);
    let (word_of_large, large) = (word(large.accounts), &large.scale);
    let name = format!("cost_{word_of_large}_over_1e3");
    let ratio = large.first / small.first;
    let again = large.again / small.again;
    let mut figures = vec![
        Figure::new(name.clone(), ratio, "ratio", "of a million: at most 1.25")
            .beside("cost_1e3_first", ratio),
        Figure::new(format!("{name}_again"), again, "ratio", "from the cache")
            .beside("cost_1e3_again", again),
    ];
    if let Some(ten_thousand) = steps.iter().find(|step| step.accounts == 10_000) {
        let ratio = large.first / ten_thousand.scale.first;
        let name = format!("cost_{word_of_large}_over_1e4");
        let aim = "of ten million: at most 1.3";
        figures.push(Figure::new(name, ratio, "ratio", aim).beside("cost_1e4_first", ratio));
    }
    for step in steps {
        let word = match step.accounts {
            A_THOUSAND => "1e3".to_owned(),
            accounts => word(accounts),
        };
        let scale = &step.scale;
        figures.extend([
            Figure::new(
                format!("cost_{word}_first"),
                scale.first,
                "us CPU",
                "a recovery, the first one after a start",
            ),
            Figure::new(
                format!("cost_{word}_again"),
                scale.again,
                "us CPU",
                "of an account in the cache",
            ),
            Figure::new(
                format!("startup_{word}_seconds"),
                scale.start,
                "s",
                "until ready; of a million: below 1",
            ),
        ]);
    }
    figures
}

fn plot(steps: &[Step]) {
    let line = |name, of: fn(&Scale) -> f64| Series {
        name,
        points: steps
            .iter()
            .map(|step| (step.accounts as f64, of(&step.scale)))
            .collect(),
    };
    let x = Axis {
        label: "accounts in the realm",
        logarithmic: true,
    };
    Chart {
        title: "A passkey recovery by the size of the realm",
        x,
        y: Axis {
            label: "µs of the server's CPU",
            logarithmic: false,
        },
        series: vec![
            line("the first after a start, from the database", |scale| {
                scale.first
            }),
            line("again, from the daemon's cache", |scale| scale.again),
        ],
    }
    .write("accounts");
    Chart {
        title: "A start by the size of the realm",
        x,
        y: Axis {
            label: "seconds until the daemon serves",
            logarithmic: false,
        },
        series: vec![line("custodyd", |scale| scale.start)],
    }
    .write("startup");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_up_to_the_one_that_was_asked_for() {
        assert_eq!(sizes(MILLION), [10_000, 100_000, 1_000_000]);
        assert_eq!(sizes(25_000), [10_000, 25_000]);
        assert_eq!(sizes(5_000), [5_000]);
        assert_eq!([10_000, 25_000].map(word), ["1e4", "25000"]);
    }
}
