//! Load from outside, at times that are fixed beforehand: what a recovery takes at half of the highest rate, what is left
//! of that rate at three times it, what a second core adds, and what the daemon does when nobody asks.
//!
//! The load is open: an arrival has its moment whether the one before it is done or not, and its latency counts from
//! that moment, so that a slow answer does not hold back those that would have come meanwhile. The daemon has a core
//! to itself and the clients have the others, as far as there are any, by taskset(1).

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use custodyd_tests::app::LIMITS;
use custodyd_tests::{Setup, TestApp};
use tokio::runtime::Runtime;

use crate::cpu::{self, Sample, cores, sample};
use crate::load::{Crowd, Outcome};
use crate::report::Figure;
use crate::statistics::quantile;

/// Names what measures this alone.
pub(crate) const LOAD: &str = "load";

/// Connections, with some accounts each: more than the daemon takes in at once.
const CLIENTS: usize = 256;
/// Of these, those that find the highest rate: enough to keep the daemon busy, too few to be refused.
const BUSY: usize = 48;
const TURNS: usize = 3;
const ALONE: Duration = Duration::from_millis(1500);
const MAX: Duration = Duration::from_secs(3);
const HALF: Duration = Duration::from_secs(5);
const THRICE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(10);

/// When requests come: so many a second on average, at random, the same for each run.
fn arrivals(rate: f64, lasting: Duration, seed: u64) -> Vec<Duration> {
    let (mut state, mut at, mut all) = (seed | 1, 0.0_f64, Vec::new());
    while at < lasting.as_secs_f64() {
        all.push(Duration::from_secs_f64(at));
        // xorshift64*: times need no better randomness than that.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let uniform = (bits as f64 + 1.0) / (1_u64 << 53) as f64;
        at -= uniform.ln() / rate;
    }
    all
}

/// What came of an open load: milliseconds of those that were served, and how many were refused.
#[derive(Debug)]
struct Opened {
    served: Vec<f64>,
    refused: usize,
}

/// Each arrival is taken by the next client that is free.
fn open(crowd: &mut Crowd, arrivals: &[Duration]) -> Opened {
    let (next, start) = (
        AtomicUsize::new(0),
        Instant::now() + Duration::from_millis(50),
    );
    let outcomes: Vec<(Outcome, f64)> = thread::scope(|scope| {
        let threads: Vec<_> = (crowd.clients())
            .map(|client| {
                let next = &next;
                scope.spawn(move || {
                    let mut own = Vec::new();
                    while let Some(after) = arrivals.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let due = start + *after;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        let outcome = client.attempt();
                        own.push((outcome, due.elapsed().as_secs_f64() * 1e3));
                    }
                    own
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    let refused = outcomes
        .iter()
        .filter(|(outcome, _)| *outcome == Outcome::Refused);
    let refused = refused.count();
    let served = outcomes
        .into_iter()
        .filter(|(outcome, _)| *outcome == Outcome::Served);
    let mut served: Vec<f64> = served.map(|(_, took)| took).collect();
    served.sort_by(f64::total_cmp);
    Opened { served, refused }
}

/// One recovery after another, of each client in turn; milliseconds of each.
fn alone(crowd: &mut Crowd) -> Vec<f64> {
    let (mut latencies, end) = (Vec::new(), Instant::now() + ALONE);
    while Instant::now() < end {
        for client in crowd.clients().take_while(|_| Instant::now() < end) {
            let begun = Instant::now();
            assert_eq!(client.attempt(), Outcome::Served);
            latencies.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// As fast as some clients can that wait for their answers: others in each run, since an account answers few
/// ceremonies within minutes.
fn closed(crowd: &mut Crowd, server: u32, run: usize) -> Sample {
    let first = run % (CLIENTS / BUSY) * BUSY;
    sample(server, || {
        let end = Instant::now() + MAX;
        let served: usize = thread::scope(|scope| {
            let threads: Vec<_> = (crowd.clients().skip(first).take(BUSY))
                .map(|client| {
                    scope.spawn(move || {
                        let mut served = 0;
                        while Instant::now() < end {
                            served += usize::from(client.attempt() == Outcome::Served);
                        }
                        served
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        served as f64
    })
}

/// Binds all threads of a process to these cores.
fn pin(process: u32, cores: &str) {
    let process = process.to_string();
    let done = Command::new("taskset")
        .args(["-a", "-c", "-p", cores, &process])
        .output()
        .unwrap();
    assert!(done.status.success(), "taskset: {}", done.status);
}

/// The daemon on the first cores, this program on the others; where there are none it shares them.
fn share(server: u32, of_server: usize) {
    let last = cores_there() - 1;
    pin(server, &format!("0-{}", (of_server - 1).min(last)));
    let clients = if of_server <= last {
        format!("{of_server}-{last}")
    } else {
        format!("0-{last}")
    };
    pin(std::process::id(), &clients);
}

/// Asked before anything is bound to fewer.
fn cores_there() -> usize {
    static THERE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *THERE.get_or_init(cores)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// With a daemon of its own.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    println!("load: {CLIENTS} clients ...");
    cores_there();
    let quota = "[enrolment]\nquota_per_hour = 10000\n";
    // As a daemon has it without a setting; rates stay out of the way, for all clients have one address.
    let app = runtime.block_on(TestApp::with(Setup {
        limits: LIMITS.replace("at_once = 1024", "at_once = 256"),
        ..Setup::notes(quota)
    }));
    let server = cpu::child("custodyd");
    let mut figures = idle(server);
    let mut crowd = Crowd::of_many(&app, CLIENTS);
    figures.extend(pressed(&mut crowd, server));
    figures.extend(scaling(&mut crowd, server));
    pin(std::process::id(), &format!("0-{}", cores_there() - 1));
    figures
}

fn idle(server: u32) -> Vec<Figure> {
    thread::sleep(Duration::from_secs(3));
    let before = cpu::switches(server);
    let rest = sample(server, || {
        thread::sleep(IDLE);
        1.0
    });
    let wakes = cpu::woken(&before, &cpu::switches(server)) as f64 / rest.wall;
    vec![
        Figure::new(
            "idle_wakes",
            wakes,
            "1/s",
            "threads woken while nobody asks",
        ),
        Figure::new(
            "idle_cpu",
            rest.cpu / rest.wall * 100.0,
            "%",
            "of a core, by ticks of 10 ms",
        ),
    ]
}

fn pressed(crowd: &mut Crowd, server: u32) -> Vec<Figure> {
    share(server, 1);
    let (mut ratios, mut kept, mut p50s, mut halves) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut rates, mut refusals) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let p50 = quantile(&alone(crowd), 0.5);
        let rate = closed(crowd, server, turn).per_second();
        let half = open(crowd, &arrivals(rate / 2.0, HALF, 11 + turn as u64));
        assert_eq!(half.refused, 0, "refused at half of the rate");
        let p99 = quantile(&half.served, 0.99);
        let begun = Instant::now();
        let thrice = open(crowd, &arrivals(rate * 3.0, THRICE, 17 + turn as u64));
        let throughput = thrice.served.len() as f64 / begun.elapsed().as_secs_f64();
        println!(
            "alone p50 {p50:.1} ms; at most {rate:.0} a second; at half of that p99 {p99:.1} ms; at three times \
             {throughput:.0} served and {} refused",
            thrice.refused
        );
        ratios.push(p99 / p50);
        kept.push(throughput / rate);
        p50s.push(p50);
        halves.push(p99);
        rates.push(rate);
        refusals.push(thrice.refused as f64 / THRICE.as_secs_f64());
    }
    let half = median(ratios);
    let kept = median(kept);
    vec![
        Figure::new(
            "p99_at_half_over_p50_alone",
            half,
            "ratio",
            "aim: at most 10",
        )
        .beside("load_p50_alone", half),
        Figure::new(
            "throughput_at_three_times_over_max",
            kept,
            "ratio",
            "aim: above 0.8",
        )
        .beside("load_max", kept),
        Figure::new("load_max", median(rates), "1/s", "the daemon on one core"),
        Figure::new("load_p50_alone", median(p50s), "ms", "one client"),
        Figure::new(
            "load_p99_at_half",
            median(halves),
            "ms",
            "from the intended start",
        ),
        Figure::new(
            "load_refused_at_three_times",
            median(refusals),
            "1/s",
            "503 with Retry-After",
        ),
    ]
}

/// Where there are cores for the clients besides, by throughput; else by what a recovery takes of the processor, which
/// does not show threads that wait for each other: `two_core_busy` does.
fn scaling(crowd: &mut Crowd, server: u32) -> Vec<Figure> {
    let apart = cores_there() >= 4;
    let (mut scaled, mut busy) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        share(server, 1);
        let one = closed(crowd, server, 2 * turn);
        share(server, 2);
        let mut two = one;
        let clients = sample(std::process::id(), || {
            two = closed(crowd, server, 2 * turn + 1);
            1.0
        });
        scaled.push(match apart {
            true => two.per_second() / one.per_second(),
            false => 2.0 * two.per_cpu_second() / one.per_cpu_second(),
        });
        let used = if apart {
            two.cpu
        } else {
            two.cpu + clients.cpu
        };
        busy.push(used / two.wall / 2.0);
    }
    let how = match apart {
        true => "aim: at least 1.6; by throughput",
        false => "aim: at least 1.6; by CPU time, see BENCH.md",
    };
    vec![
        Figure::new("two_core_scaling", median(scaled), "ratio", how),
        Figure::new(
            "two_core_busy",
            median(busy),
            "share",
            "of the two cores' time",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_fixed_and_come_at_the_rate() {
        let all = arrivals(200.0, Duration::from_secs(50), 11);
        assert!((9_600..10_400).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted());
        assert_eq!(all, arrivals(200.0, Duration::from_secs(50), 11));
        // At random: as many gaps above the mean as an exponential distribution has, 37 %.
        let gaps = all.windows(2).map(|pair| pair[1] - pair[0]);
        let long = gaps.filter(|gap| *gap > Duration::from_millis(5)).count();
        let share = long as f64 / all.len() as f64;
        assert!((0.34..0.40).contains(&share), "{share}");
    }
}
