//! One to three daemons on one PostgreSQL and one token: whether a second and a third take away from what one does, and
//! how much of the time the nodes stand in line.
//!
//! All of them run all the time, and the same number of clients is spread over one, two or three of them, in turns.
//! They share the cores with each other, the database and the clients: nothing here can become faster by a node, it
//! can only lose. docs/BENCH.md says what the serial share is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use custodyd_tests::app::DATABASE;
use custodyd_tests::token::SoftToken;
use custodyd_tests::{Setup, TestApp};
use tokio::runtime::Runtime;

use crate::cpu::{Sample, sample_trees};
use crate::load::Member;
use crate::peers::{QUOTA, members};
use crate::plot::{Axis, Chart, Series};
use crate::report::Figure;
use crate::workers::Workers;

/// Names this part, to be measured alone.
pub(crate) const NODES: &str = "nodes";
const MOST: usize = 3;
const CLIENTS: usize = 24;
/// Accounts of each client: what one answers in five minutes is bounded.
const EACH: usize = 16;
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(2500);
/// Before the clock runs.
const AHEAD: Duration = Duration::from_millis(300);

/// What one turn gave, over so many nodes.
struct Turn {
    sample: Sample,
    /// Seconds in which one of them kept the others from writing.
    held: f64,
}

pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    let mut nodes = runtime.block_on(started());
    let database = nodes[0]
        .postgres
        .as_mut()
        .and_then(|server| server.process());
    let mut processes: Vec<u32> = nodes.iter().map(TestApp::id).collect();
    processes.extend(database);
    let mut crowds: Vec<_> = (1..=MOST).map(|count| spread(&nodes[..count])).collect();
    let mut turns: [Vec<Turn>; MOST] = [const { Vec::new() }; MOST];
    for turn in 1..=TURNS {
        println!("nodes, turn {turn} of {TURNS} ...");
        for (crowd, turns) in crowds.iter_mut().zip(&mut turns) {
            crowd.wake();
            crowd.repeat(AHEAD, Member::passkey);
            let before = runtime.block_on(held(&nodes));
            let sample = sample_trees(&processes, || {
                crowd.repeat(TURN, Member::passkey).len() as f64
            });
            let held = runtime.block_on(held(&nodes)) - before;
            turns.push(Turn { sample, held });
        }
    }
    let rates = turns
        .each_ref()
        .map(|turns| median(turns, Sample::per_second));
    let cpu = turns
        .each_ref()
        .map(|turns| median(turns, Sample::per_cpu_second));
    let mut shares: Vec<f64> = turns[MOST - 1]
        .iter()
        .map(|turn| turn.held / turn.sample.wall)
        .collect();
    shares.sort_by(f64::total_cmp);
    plot(&rates, &cpu);
    told(rates, cpu, shares[TURNS / 2])
}

/// The daemons of one realm, of which the first has the server.
async fn started() -> Vec<TestApp> {
    let setup = Setup::notes(QUOTA);
    let mut first = TestApp::prepared(setup.clone().on_postgres(), SoftToken::fresh());
    first.share_database();
    first.found().await;
    let mut nodes = vec![first];
    while nodes.len() < MOST {
        let mut node = nodes[0].another(setup.clone(), DATABASE);
        node.launch().await;
        nodes.push(node);
    }
    nodes
}

/// Clients of these nodes, as many of each as of any other.
fn spread(nodes: &[TestApp]) -> Workers<Member> {
    let next = AtomicUsize::new(0);
    Workers::enrolled(CLIENTS, async || {
        let client = next.fetch_add(1, Ordering::Relaxed);
        members(&nodes[client % nodes.len()], EACH, None).await
    })
}

/// Seconds in which any of them has had the turn, since it was started.
async fn held(nodes: &[TestApp]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        let (status, text) = node.operator("/metrics").await;
        assert_eq!(status, 200, "{text}");
        let of = |line: &str| {
            line.strip_prefix("custodyd_turn_seconds_sum ")?
                .parse()
                .ok()
        };
        let held: Option<f64> = text.lines().find_map(of);
        sum += held.expect("how long it had the turn");
    }
    sum
}

fn median(turns: &[Turn], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(|turn| of(&turn.sample)).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn told(rates: [f64; MOST], cpu: [f64; MOST], serial: f64) -> Vec<Figure> {
    let [one, two, three] = rates;
    let first = "nodes_1_per_second";
    let with_cpu = |name, value, note| Figure::new(name, value, "1/CPU-s", note);
    vec![
        Figure::new("nodes_3_over_1", three / one, "ratio", "aim: at least 1")
            .beside(first, three / one),
        Figure::new("nodes_2_over_1", two / one, "ratio", "").beside(first, two / one),
        Figure::new(
            "nodes_serial_share",
            serial,
            "ratio",
            "of the time some node kept the others from writing; of three",
        ),
        Figure::new(
            first,
            one,
            "1/s",
            "passkey, all clients at one of three nodes",
        ),
        Figure::new("nodes_2_per_second", two, "1/s", "at two"),
        Figure::new("nodes_3_per_second", three, "1/s", "at all three"),
        with_cpu(
            "nodes_1_per_cpu_second",
            cpu[0],
            "of all nodes and PostgreSQL",
        ),
        with_cpu("nodes_3_per_cpu_second", cpu[2], "the same"),
    ]
}

fn plot(rates: &[f64; MOST], cpu: &[f64; MOST]) {
    let line = |name, values: &[f64; MOST]| Series {
        name,
        points: (1..=MOST)
            .map(|nodes| nodes as f64)
            .zip(values.iter().copied())
            .collect(),
    };
    Chart {
        title: "Passkey recoveries by number of nodes, on the same cores",
        x: Axis {
            label: "nodes that are asked",
            logarithmic: false,
        },
        y: Axis {
            label: "recoveries",
            logarithmic: false,
        },
        series: vec![
            line("per second", rates),
            line("per second of CPU, nodes and PostgreSQL", cpu),
        ],
    }
    .write("nodes");
}
