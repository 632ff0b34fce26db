//! Recoveries with a PIN by OPAQUE, beside what the protocol costs by itself and beside PINs that the server hashes.
//!
//! The clients do everything but stretch the PIN: that is their own work, 25 ms of it, and would leave the server nothing
//! to do on cores that it shares with them. The server can not tell.

use std::thread;
use std::time::{Duration, Instant};

use custodyd_tests::opaque::{LoggingIn, Protocol};
use custodyd_tests::{Device, TestApp};
use tokio::runtime::{Builder, Runtime};

use crate::cpu::{Sample, cores, on_all_cores, sample};
use crate::load::{Crowd, SECRET, check};
use crate::report::Figure;
use crate::statistics::quantile;

/// Names this part, to be measured alone.
pub(crate) const OPAQUE: &str = "opaque";
/// As many as there are in the other parts, and a busy server's: what a commit costs is shared by those who are in it.
const WORKERS: usize = 16;
const BUSY: usize = 64;
const EACH: usize = 4;
const TURNS: usize = 5;
const RECOVERIES: Duration = Duration::from_millis(2500);
const PART: Duration = Duration::from_millis(700);
const PIN: &str = "583926";

struct Worker {
    runtime: Runtime,
    members: Vec<Device>,
}

impl Worker {
    fn enrolled(app: &TestApp) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut members: Vec<Device> = Vec::with_capacity(EACH);
        for _ in 0..EACH {
            let mut device = app.device("notes");
            if let Some(first) = members.first() {
                device.http = first.http.clone();
            }
            runtime.block_on(enrol(&mut device));
            members.push(device);
        }
        Self { runtime, members }
    }

    /// Milliseconds of each recovery, both calls of it.
    fn repeat(&mut self, end: Instant) -> Vec<f64> {
        let mut latencies = Vec::new();
        for at in 0.. {
            if at > 0 && Instant::now() >= end {
                break;
            }
            let device = &mut self.members[at % EACH];
            latencies.push(self.runtime.block_on(recover(device)));
        }
        latencies
    }
}

/// An account with a PIN by OPAQUE, on the connection of its worker.
pub(crate) async fn enrol(device: &mut Device) {
    device.enrol().await;
    device.register_unstretched_pin(PIN).await;
    device.back_up(SECRET, &[7; 32]).await.expect(200);
}

/// Milliseconds of both calls.
pub(crate) async fn recover(device: &mut Device) -> f64 {
    let login = LoggingIn::start(PIN);
    let began = Instant::now();
    let started = device.start_opaque(&login).await.expect(200).body;
    let asked = began.elapsed();
    let ke3 = login.finish_unstretched(&started).unwrap().ke3;
    let began = Instant::now();
    let answer = device
        .finish_opaque(&started["login"], &ke3, &[SECRET])
        .await
        .expect(201);
    let took = asked + began.elapsed();
    check(&answer.body);
    took.as_secs_f64() * 1e3
}

/// Recoveries of these workers without a pause; their latencies.
fn recoveries(workers: &mut [Worker], server: u32, latencies: &mut Vec<f64>) -> Sample {
    sample(server, || {
        let end = Instant::now() + RECOVERIES;
        let took: Vec<f64> = thread::scope(|scope| {
            let running: Vec<_> = (workers.iter_mut())
                .map(|worker| scope.spawn(move || worker.repeat(end)))
                .collect();
            running
                .into_iter()
                .flat_map(|one| one.join().unwrap())
                .collect()
        });
        let count = took.len() as f64;
        latencies.extend(took);
        count
    })
}

/// What one turn measured.
struct Turn {
    recovered: Sample,
    busy: Sample,
    hashed: Sample,
    alone: Sample,
}

/// The server's part of one login, by the library alone: no key from a token, no DPoP, nothing durable.
fn protocol(protocols: &[Protocol]) -> Sample {
    on_all_cores(PART, usize::MAX, |worker, _| protocols[worker].serve())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In turns, so that a slow moment of the machine hits all alike. `crowd` has PINs that the server hashes.
pub(crate) fn figures(app: &TestApp, server: u32, crowd: &mut Crowd) -> Vec<Figure> {
    println!("PINs by OPAQUE ...");
    let mut workers: Vec<Worker> = thread::scope(|scope| {
        let made: Vec<_> = (0..BUSY)
            .map(|_| scope.spawn(|| Worker::enrolled(app)))
            .collect();
        made.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let protocols: Vec<_> = (0..cores()).map(|_| Protocol::new(PIN)).collect();
    let (mut latencies, mut turns) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        turns.push(Turn {
            recovered: recoveries(&mut workers[..WORKERS], server, &mut latencies),
            busy: recoveries(&mut workers, server, &mut Vec::new()),
            hashed: crowd.pins(server, RECOVERIES).sample,
            alone: protocol(&protocols),
        });
    }
    latencies.sort_by(f64::total_cmp);
    let of = |value: fn(&Turn) -> f64| median(turns.iter().map(value).collect());
    let over_protocol = of(|turn| turn.recovered.micros() / turn.alone.micros());
    let busy_over_protocol = of(|turn| turn.busy.micros() / turn.alone.micros());
    let over_argon2 = of(|turn| turn.recovered.per_cpu_second() / turn.hashed.per_cpu_second());
    let rate = "1/CPU-s";
    vec![
        Figure::new(
            "opaque_over_protocol",
            over_protocol,
            "ratio",
            "aim: at most 3.5",
        )
        .beside("opaque_protocol_cpu", over_protocol),
        Figure::new(
            "opaque_over_protocol_busy",
            busy_over_protocol,
            "ratio",
            "of 64 clients; aim: at most 3.5",
        )
        .beside("opaque_protocol_cpu", busy_over_protocol),
        Figure::new(
            "opaque_over_argon2",
            over_argon2,
            "ratio",
            "aim: at least 12",
        )
        .beside("pin_per_cpu_second", over_argon2),
        Figure::new(
            "opaque_cpu",
            of(|turn| turn.recovered.micros()),
            "us CPU",
            "of the server, both calls",
        ),
        Figure::new(
            "opaque_protocol_cpu",
            of(|turn| turn.alone.micros()),
            "us CPU",
            "the server's part by the library alone",
        ),
        Figure::new(
            "opaque_per_cpu_second",
            of(|turn| turn.recovered.per_cpu_second()),
            rate,
            "of the server",
        ),
        Figure::new(
            "opaque_per_second",
            of(|turn| turn.recovered.per_second()),
            "1/s",
            "clients on the same cores, not stretching",
        ),
        Figure::new(
            "opaque_latency_p50",
            quantile(&latencies, 0.5),
            "ms",
            "16 clients",
        ),
        Figure::new(
            "opaque_latency_p99",
            quantile(&latencies, 0.99),
            "ms",
            "16 clients",
        ),
    ]
}
