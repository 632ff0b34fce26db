//! One to three daemons on one PostgreSQL and one token: whether a second and a third take away from what one does, and
//! how much of the time the nodes stand in line.
//!
//! All of them run all the time, and the same clients are spread over one, two or three of them, in turns: as few as
//! leave a node with small batches where there are three, and as many as fill them. They share the cores with each other,
//! the database and the clients: nothing here can become faster by a node, it can only lose. docs/BENCH.md says what the
//! serial share is.

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
/// How many ask at once.
struct Load {
    clients: usize,
    /// Accounts of each client: what one answers in five minutes is bounded.
    each: usize,
}

const FEW: Load = Load {
    clients: 24,
    each: 16,
};
const MANY: Load = Load {
    clients: 192,
    each: 4,
};
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

/// What the turns of a load came to, over one, two and three nodes.
struct Medians {
    rates: [f64; MOST],
    cpu: [f64; MOST],
    /// Of the time, with all of them asked.
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
    let few = measured(runtime, &nodes, &processes, &FEW);
    let many = measured(runtime, &nodes, &processes, &MANY);
    plot(&few, &many);
    told(&few, &many)
}

fn measured(runtime: &Runtime, nodes: &[TestApp], processes: &[u32], load: &Load) -> Medians {
    let mut crowds: Vec<_> = (1..=MOST)
        .map(|count| spread(&nodes[..count], load))
        .collect();
    let mut turns: [Vec<Turn>; MOST] = [const { Vec::new() }; MOST];
    for turn in 1..=TURNS {
        println!(
            "nodes, {} clients, turn {turn} of {TURNS} ...",
            load.clients
        );
        for (crowd, turns) in crowds.iter_mut().zip(&mut turns) {
            crowd.wake();
            crowd.repeat(AHEAD, Member::passkey);
            let before = runtime.block_on(held(nodes));
            let sample = sample_trees(processes, || {
                crowd.repeat(TURN, Member::passkey).len() as f64
            });
            let held = runtime.block_on(held(nodes)) - before;
            turns.push(Turn { sample, held });
        }
    }
    let of = |of: fn(&Turn) -> f64| turns.each_ref().map(|turns| median(turns, of));
    let [.., held] = of(|turn| turn.held / turn.sample.wall);
    Medians {
        rates: of(|turn| turn.sample.per_second()),
        cpu: of(|turn| turn.sample.per_cpu_second()),
        held,
    }
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
fn spread(nodes: &[TestApp], load: &Load) -> Workers<Member> {
    let next = AtomicUsize::new(0);
    Workers::enrolled(load.clients, async || {
        let client = next.fetch_add(1, Ordering::Relaxed);
        members(&nodes[client % nodes.len()], load.each, None).await
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

fn median(turns: &[Turn], of: fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn told(few: &Medians, many: &Medians) -> Vec<Figure> {
    let [one, two, three] = few.rates;
    let [one_of_many, _, three_of_many] = many.rates;
    let first = "nodes_1_per_second";
    let first_of_many = "nodes_1_per_second_full";
    let with_cpu = |name, value, note| Figure::new(name, value, "1/CPU-s", note);
    vec![
        Figure::new("nodes_3_over_1", three / one, "ratio", "aim: at least 1")
            .beside(first, three / one),
        Figure::new("nodes_2_over_1", two / one, "ratio", "").beside(first, two / one),
        Figure::new(
            "nodes_3_over_1_full",
            three_of_many / one_of_many,
            "ratio",
            "the same with as many clients as fill each node's batches",
        )
        .beside(first_of_many, three_of_many / one_of_many),
        Figure::new(
            "nodes_serial_share",
            few.held,
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
        Figure::new(first_of_many, one_of_many, "1/s", "many clients at one"),
        Figure::new(
            "nodes_3_per_second_full",
            three_of_many,
            "1/s",
            "at all three",
        ),
        with_cpu(
            "nodes_1_per_cpu_second",
            few.cpu[0],
            "of all nodes and PostgreSQL",
        ),
        with_cpu("nodes_3_per_cpu_second", few.cpu[2], "the same"),
    ]
}

fn plot(few: &Medians, many: &Medians) {
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
            line("per second, of many clients", &many.rates),
            line("per second, of few", &few.rates),
            line("per second of CPU, nodes and PostgreSQL", &few.cpu),
        ],
    }
    .write("nodes");
}
