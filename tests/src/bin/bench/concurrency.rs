//! One client to 512: what a passkey recovery takes of the server and of its clients' patience, of the daemon and, where
//! it is installed, of the server in Node.
//!
//! Each number of clients has accounts of its own, and both servers take turns at it. The clients share the cores with
//! them, so that the rate stops to grow where the cores are full, not where the server is.

use std::time::Duration;

use custodyd_tests::TestApp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

use crate::cpu::{Sample, sample};
use crate::load::Member;
use crate::peers::node::{NodeAccount, NodeServer};
use crate::peers::{daemon, members};
use crate::plot::{Axis, Chart, Series};
use crate::report::Figure;
use crate::statistics::quantile;
use crate::workers::{Connected, Workers};

/// Names this part, to be measured alone.
pub(crate) const CONCURRENCY: &str = "concurrency";
const CLIENTS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const TURN: Duration = Duration::from_secs(3);
/// Before the clock runs.
const AHEAD: Duration = Duration::from_millis(300);
/// Accounts of all clients together, where each can have more than one: what one account answers in five minutes is
/// bounded.
const ACCOUNTS: usize = 64;

/// What so many clients saw.
struct Step {
    clients: usize,
    sample: Sample,
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Step {
    fn measured<M: Send + Connected>(
        clients: usize,
        server: u32,
        mut workers: Workers<M>,
        ask: impl AsyncFn(&mut M) -> Duration + Sync,
    ) -> Self {
        workers.wake();
        workers.repeat(AHEAD, &ask);
        let mut latencies = Vec::new();
        let sample = sample(server, || {
            latencies = workers.repeat(TURN, &ask);
            latencies.len() as f64
        });
        latencies.sort_by(f64::total_cmp);
        Self {
            clients,
            sample,
            latencies,
        }
    }

    fn ms(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }
}

/// A connection is a file, on both sides.
fn allow_connections() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}

/// Starts both servers. No other daemon need rest meanwhile, but it should.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    allow_connections();
    let app = daemon(runtime);
    let node = NodeServer::start();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for clients in CLIENTS {
        println!("concurrency of {clients} ...");
        let each = (ACCOUNTS / clients).max(1);
        ours.push(daemon_step(&app, clients, each));
        if let Some(server) = &node {
            let workers = Workers::enrolled(clients, async || server.passkeys(each).await);
            let ask = NodeAccount::by_passkey;
            theirs.push(Step::measured(clients, server.id(), workers, ask));
        }
    }
    write(&ours, &theirs);
    told(&ours)
}

fn daemon_step(app: &TestApp, clients: usize, each: usize) -> Step {
    let workers = Workers::enrolled(clients, async || members(app, each, None).await);
    Step::measured(clients, app.id(), workers, Member::passkey)
}

fn told(ours: &[Step]) -> Vec<Figure> {
    let of = |clients| ours.iter().find(|step| step.clients == clients).unwrap();
    let [one, some, many] = [of(1), of(16), of(512)];
    let ratio = many.sample.per_cpu_second() / some.sample.per_cpu_second();
    let ms = |name, value, note| Figure::new(name, value, "ms", note);
    let rate =
        |name, step: &Step, note| Figure::new(name, step.sample.per_cpu_second(), "1/CPU-s", note);
    let reference = "concurrency_16_per_cpu_second";
    vec![
        rate("concurrency_1_per_cpu_second", one, "passkey, 1 client"),
        rate(reference, some, "16 clients"),
        rate("concurrency_512_per_cpu_second", many, "512 clients").beside(reference, ratio),
        ms("concurrency_1_p50", one.ms(0.5), "1 client"),
        ms("concurrency_1_p99", one.ms(0.99), "1 client"),
        ms("concurrency_512_p50", many.ms(0.5), "512 clients"),
        ms("concurrency_512_p99", many.ms(0.99), "512 clients"),
    ]
}

fn write(ours: &[Step], theirs: &[Step]) {
    let line = |name, steps: &[Step], of: fn(&Step) -> f64| Series {
        name,
        points: steps
            .iter()
            .map(|step| (step.clients as f64, of(step)))
            .collect(),
    };
    let x = || Axis {
        label: "clients that wait for their answers",
        logarithmic: true,
    };
    let rate: fn(&Step) -> f64 = |step| step.sample.per_cpu_second();
    Chart {
        title: "Passkey recoveries by concurrency",
        x: x(),
        y: Axis {
            label: "recoveries per second of the server's CPU",
            logarithmic: false,
        },
        series: vec![
            line("custodyd", ours, rate),
            line("server in Node", theirs, rate),
        ],
    }
    .write("concurrency");
    Chart {
        title: "Latency by concurrency",
        x: x(),
        y: Axis {
            label: "milliseconds",
            logarithmic: true,
        },
        series: vec![
            line("custodyd, median", ours, |step| step.ms(0.5)),
            line("custodyd, p99", ours, |step| step.ms(0.99)),
            line("server in Node, median", theirs, |step| step.ms(0.5)),
            line("server in Node, p99", theirs, |step| step.ms(0.99)),
        ],
    }
    .write("latency");
}
