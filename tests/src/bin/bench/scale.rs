//! What a realm of a million accounts costs beside one of a thousand.
//!
//! The thousand are enrolled as anybody is; the others are copies of one of them, written by the
//! ledger itself into the stopped daemon's database. In both realms each of the thousand recovers
//! once after a start, when nothing of it is in memory, and once more from the daemon's cache. The same is measured
//! at every power of ten in between, for the plot.

use std::time::Instant;

use custodyd::ledger::BUCKET_BITS;
use custodyd_tests::{Setup, TestApp};
use tokio::runtime::Runtime;

use crate::cpu;
use crate::filling::{fill, fill_beside};
use crate::load::{A_THOUSAND, Crowd};
use crate::plot::{Axis, Chart, Series};
use crate::report::Figure;
use crate::statistics::quantile;
use crate::verification;

pub(crate) const MILLION: usize = 1_000_000;
/// Names what measures this alone, for a realm of any size.
pub(crate) const SCALE: &str = "scale";
/// Names what measures the thousand in lists as long as those of a realm of any size.
pub(crate) const LISTS: &str = "lists";
/// More than an account takes of a disk, its part of the write-ahead log included.
const BYTES: u64 = 12 * 1024;
/// Starts, each followed by one recovery from each of the thousand.
const TURNS: usize = 3;

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

/// A daemon that serves the thousand while its realm grows, and what it has cost so far.
struct Growing<'a> {
    runtime: &'a Runtime,
    app: TestApp,
    crowd: Crowd,
    steps: Vec<Step>,
}

impl<'a> Growing<'a> {
    /// `filled` accounts more are about to come.
    fn from_a_thousand(runtime: &'a Runtime, filled: usize) -> Self {
        println!("a realm of {A_THOUSAND} accounts ...");
        let quota = "[enrolment]\nquota_per_hour = 10000\n";
        let app = runtime.block_on(TestApp::with(Setup::notes(quota)));
        check_space(&app, filled);
        let crowd = Crowd::of_a_thousand(&app);
        let mut growing = Self {
            runtime,
            app,
            crowd,
            steps: Vec::new(),
        };
        growing.measure(A_THOUSAND);
        growing
    }

    /// `fill` is told the account to copy, and how many are missing.
    fn to<T>(&mut self, accounts: usize, fill: impl FnOnce(&Self, &str, usize) -> T) -> T {
        println!("a realm of {accounts} accounts ...");
        assert!(self.app.stop(), "{}", self.app.log());
        let template = self.crowd.accounts().swap_remove(0);
        let missing = accounts - self.steps.last().unwrap().accounts;
        let filled = fill(self, &template, missing);
        self.runtime.block_on(self.app.launch());
        self.measure(accounts);
        filled
    }

    fn measure(&mut self, accounts: usize) {
        let scale = Scale::measured(self.runtime, &mut self.app, &mut self.crowd);
        self.steps.push(Step { accounts, scale });
    }
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
    let mut growing = Growing::from_a_thousand(runtime, accounts);
    for size in sizes(accounts) {
        growing.to(size, |of, template, missing| {
            fill(&of.app, template, missing);
        });
    }
    let Growing { mut app, steps, .. } = growing;
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

/// With a daemon of its own: ten thousand accounts, of which the thousand then get as many neighbours in their lists as
/// `accounts` would give them. What else grows with a realm, the depth of an index and a database that no memory holds,
/// stays as it is.
pub(crate) fn lists(runtime: &Runtime, accounts: usize) -> Vec<Figure> {
    let ten_thousand = 10_000;
    assert!(accounts > ten_thousand, "more than {ten_thousand} accounts");
    let lists = 1_usize << BUCKET_BITS;
    let neighbours = accounts.div_ceil(lists) * A_THOUSAND;
    let mut growing = Growing::from_a_thousand(runtime, ten_thousand + neighbours);
    growing.to(ten_thousand, |of, template, missing| {
        fill(&of.app, template, missing);
    });
    let made = growing.to(accounts, |of, template, missing| {
        fill_beside(&of.app, template, missing, &of.crowd.accounts())
    });
    let [_, small, large] = growing.steps.as_slice() else {
        unreachable!("three sizes");
    };
    let word = word(accounts);
    let first = large.scale.first / small.scale.first;
    let again = large.scale.again / small.scale.again;
    let figure = |name, value, unit, note| Figure::new(name, value, unit, note);
    vec![
        figure(
            format!("lists_{word}_over_1e4"),
            first,
            "ratio",
            "each account's first after a start, in lists of that length",
        )
        .beside("lists_1e4_first", first),
        figure(
            format!("lists_{word}_over_1e4_again"),
            again,
            "ratio",
            "from the cache",
        )
        .beside("lists_1e4_again", again),
        figure(
            "lists_1e4_first".into(),
            small.scale.first,
            "us CPU",
            "a recovery",
        ),
        figure(
            "lists_1e4_again".into(),
            small.scale.again,
            "us CPU",
            "from the cache",
        ),
        figure(
            format!("lists_{word}_first"),
            large.scale.first,
            "us CPU",
            "a recovery",
        ),
        figure(
            format!("lists_{word}_again"),
            large.scale.again,
            "us CPU",
            "from the cache",
        ),
        figure(
            format!("lists_{word}_made"),
            made as f64,
            "accounts",
            "beside the thousand, in about as many lists",
        ),
    ]
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
