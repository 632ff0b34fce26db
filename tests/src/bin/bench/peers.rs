//! The daemon beside what people would use in its place: a server in Node that a team would write itself, and Tang.
//!
//! Every peer has the very same clients on the same cores, in turns with a daemon that serves nobody else, and what is
//! compared is what one second of the server's CPU gives. docs/BENCH.md says what each does for it. A peer that is not
//! installed is left out.

pub(crate) mod fresh;
pub(crate) mod node;
mod tang;

use std::time::Duration;

use custodyd_tests::{Device, Setup, TestApp};
use tokio::runtime::Runtime;

use self::fresh::{Caller, Fresh};
use self::node::{NodeAccount, NodeServer};
use self::tang::{Machine, Tang};
use crate::commit::{Seen, Shape};
use crate::cpu::{self, Sample, sample, sample_trees};
use crate::limits;
use crate::load::{Member, PIN};
use crate::opaque;
use crate::report::Figure;
use crate::workers::{Connected, Workers};

/// Names this part, to be measured alone.
pub(crate) const PEERS: &str = "peers";
const CLIENTS: usize = 16;
/// Of each client. An account of the daemon answers 64 ceremonies in five minutes.
const EACH: usize = 24;
const EACH_PIN: usize = 4;
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(2500);
/// Until memory is read after the load: what either server keeps for the next request only is gone by then.
const AFTER: Duration = Duration::from_secs(5);
/// A quota that nobody reaches.
pub(crate) const QUOTA: &str = "[enrolment]\nquota_per_hour = 100000\n";

/// What one turn gave.
struct Turn {
    passkey: Sample,
    opaque: Sample,
    argon2: Sample,
    ecdsa: Sample,
    commits: [Sample; 2],
    node: Option<NodeTurn>,
    tang: Option<TangTurn>,
}

struct NodeTurn {
    passkey: Sample,
    opaque: Sample,
    argon2: Sample,
}

/// Of Tang and of the daemon, in the same way.
struct TangTurn {
    fresh: Sample,
    kept: Sample,
    passkey_fresh: Sample,
    device_fresh: Sample,
    device_kept: Sample,
}

/// A daemon for this part alone.
pub(crate) fn daemon(runtime: &Runtime) -> TestApp {
    runtime.block_on(TestApp::with(Setup::notes(QUOTA)))
}

/// Accounts with a passkey, and perhaps a PIN, on one connection.
pub(crate) async fn members(app: &TestApp, count: usize, pin: Option<&str>) -> Vec<Member> {
    let http = app.device("notes").http;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let mut device = app.device("notes");
        device.http = http.clone();
        members.push(Member::enrolled(device, pin).await);
    }
    members
}

/// The daemon's clients.
struct Ours {
    passkeys: Workers<Member>,
    opaque: Workers<Device>,
    pins: Workers<Member>,
    callers: Workers<Caller>,
}

impl Ours {
    fn enrolled(app: &TestApp) -> Self {
        let fresh = Fresh::new(&app.ca);
        Self {
            passkeys: Workers::enrolled(CLIENTS, async || members(app, EACH, None).await),
            pins: Workers::enrolled(CLIENTS, async || members(app, EACH_PIN, Some(PIN)).await),
            opaque: Workers::enrolled(CLIENTS, async || {
                let http = app.device("notes").http;
                let mut devices = Vec::with_capacity(EACH_PIN);
                for _ in 0..EACH_PIN {
                    let mut device = app.device("notes");
                    device.http = http.clone();
                    opaque::enrol(&mut device).await;
                    devices.push(device);
                }
                devices
            }),
            callers: Workers::enrolled(CLIENTS, async || {
                let kept = fresh.client();
                let mut callers = Vec::with_capacity(EACH);
                for _ in 0..EACH {
                    callers.push(Caller::enrolled(app, &fresh, &kept).await);
                }
                callers
            }),
        }
    }
}

impl Connected for Member {
    fn connection(&self) -> (reqwest::Client, String) {
        self.device.connection()
    }
}

impl Connected for Device {
    fn connection(&self) -> (reqwest::Client, String) {
        let url = format!("{}/.well-known/jwks.json", self.url);
        (self.http.clone(), url)
    }
}

/// A load on one server.
fn load<M: Send + Connected>(
    server: u32,
    workers: &mut Workers<M>,
    ask: impl AsyncFn(&mut M) -> Duration + Sync,
) -> Sample {
    workers.wake();
    sample(server, || workers.repeat(TURN, &ask).len() as f64)
}

fn node_turn(server: &NodeServer, workers: &mut Workers<NodeAccount>) -> NodeTurn {
    let id = server.id();
    NodeTurn {
        passkey: load(id, workers, NodeAccount::by_passkey),
        opaque: load(id, workers, NodeAccount::by_opaque),
        argon2: load(id, workers, NodeAccount::by_pin),
    }
}

fn tang_turn(
    tang: &Tang,
    machines: &mut Workers<Machine>,
    app: &TestApp,
    callers: &mut Workers<Caller>,
) -> TangTurn {
    let ids = tang.ids();
    let fresh = sample_trees(&ids, || {
        machines.repeat(TURN, Machine::recover).len() as f64
    });
    machines.wake();
    let kept = sample_trees(&ids, || {
        machines.repeat(TURN, Machine::recover_again).len() as f64
    });
    TangTurn {
        fresh,
        kept,
        passkey_fresh: load(app.id(), callers, Caller::by_passkey),
        device_fresh: load(app.id(), callers, Caller::by_device),
        device_kept: load(app.id(), callers, Caller::by_device_again),
    }
}

/// Starts a daemon and all peers, and takes turns. No other daemon need rest meanwhile, but it should.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    println!("peers ...");
    let app = daemon(runtime);
    let mut ours = Ours::enrolled(&app);
    let mut node = NodeServer::start().map(|server| {
        runtime.block_on(server.proves_itself());
        let enrol = async || server.accounts(EACH_PIN).await;
        let workers = Workers::enrolled(CLIENTS, enrol);
        (server, workers)
    });
    let mut tang = runtime.block_on(Tang::start()).map(|tang| {
        let machines = Workers::enrolled(CLIENTS, async || vec![tang.machine()]);
        (tang, machines)
    });
    for (missing, what) in [(node.is_none(), "Node"), (tang.is_none(), "Tang")] {
        if missing {
            println!("{what} is left out: scripts/ensure-tools bench installs it");
        }
    }
    let mut turns = Vec::with_capacity(TURNS);
    for number in 1..=TURNS {
        println!("peers, turn {number} of {TURNS} ...");
        let before = runtime.block_on(Seen::now(&app));
        let passkey = load(app.id(), &mut ours.passkeys, Member::passkey);
        let after = runtime.block_on(Seen::now(&app));
        let shape = Shape::between(&before, &after, passkey.count);
        turns.push(Turn {
            passkey,
            opaque: load(app.id(), &mut ours.opaque, opaque_recovery),
            argon2: load(app.id(), &mut ours.pins, Member::pin),
            node: node
                .as_mut()
                .map(|(server, workers)| node_turn(server, workers)),
            tang: tang
                .as_mut()
                .map(|(tang, machines)| tang_turn(tang, machines, &app, &mut ours.callers)),
            ecdsa: limits::ecdsa(),
            commits: limits::commits(&shape),
        });
    }
    std::thread::sleep(AFTER);
    let memory = [Some(app.id()), node.as_ref().map(|(server, _)| server.id())]
        .map(|process| process.map(cpu::memory));
    compared(&turns, memory)
}

async fn opaque_recovery(device: &mut Device) -> Duration {
    Duration::from_secs_f64(opaque::recover(device).await / 1e3)
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = turns.iter().filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

type Of = fn(&Turn) -> Option<f64>;

const CPU_RATE: &str = "1/CPU-s";

/// Name, what it is in one turn, and a word on it.
const RATES: [(&str, Of, &str); 15] = [
    (
        "peers_passkey_per_cpu_second",
        |t| Some(t.passkey.per_cpu_second()),
        "the daemon, beside its peers",
    ),
    (
        "peers_opaque_per_cpu_second",
        |t| Some(t.opaque.per_cpu_second()),
        "the daemon, beside its peers",
    ),
    (
        "node_passkey_per_cpu_second",
        |t| Some(t.node.as_ref()?.passkey.per_cpu_second()),
        "of the server in Node",
    ),
    (
        "node_opaque_per_cpu_second",
        |t| Some(t.node.as_ref()?.opaque.per_cpu_second()),
        "of the server in Node",
    ),
    (
        "node_argon2_per_cpu_second",
        |t| Some(t.node.as_ref()?.argon2.per_cpu_second()),
        "PINs that it hashes",
    ),
    (
        "tang_per_cpu_second",
        |t| Some(t.tang.as_ref()?.fresh.per_cpu_second()),
        "nginx and tangd, a connection for each",
    ),
    (
        "tang_kept_per_cpu_second",
        |t| Some(t.tang.as_ref()?.kept.per_cpu_second()),
        "nginx and tangd, connections that stay",
    ),
    (
        "fresh_passkey_per_cpu_second",
        |t| Some(t.tang.as_ref()?.passkey_fresh.per_cpu_second()),
        "the daemon, a connection for each",
    ),
    (
        "fresh_device_per_cpu_second",
        |t| Some(t.tang.as_ref()?.device_fresh.per_cpu_second()),
        "by the device key alone",
    ),
    (
        "device_per_cpu_second",
        |t| Some(t.tang.as_ref()?.device_kept.per_cpu_second()),
        "the same, connections that stay",
    ),
    (
        "limit_ecdsa_per_cpu_second",
        |t| Some(t.ecdsa.per_cpu_second()),
        "P-256 verifications, bare",
    ),
    (
        "limit_commit_per_cpu_second",
        |t| Some(t.commits[0].per_cpu_second()),
        "durable commits of one recovery each",
    ),
    (
        "limit_commit_per_second",
        |t| Some(t.commits[0].per_second()),
        "the same, a store on each core",
    ),
    (
        "limit_batched_per_cpu_second",
        |t| Some(t.commits[1].per_cpu_second()),
        "recoveries in durable commits like the daemon's",
    ),
    (
        "peers_argon2_per_cpu_second",
        |t| Some(t.argon2.per_cpu_second()),
        "PINs that the daemon hashes",
    ),
];

/// Ratios within one turn: name, the figure beside which it stands, both, and the aim.
const RATIOS: [(&str, &str, Of, Of, &str); 8] = [
    (
        "passkey_over_node",
        "node_passkey_per_cpu_second",
        RATES[0].1,
        RATES[2].1,
        "aim: at least 2",
    ),
    (
        "opaque_over_node",
        "node_opaque_per_cpu_second",
        RATES[1].1,
        RATES[3].1,
        "aim: at least 2.5",
    ),
    (
        "opaque_over_node_argon2",
        "node_argon2_per_cpu_second",
        RATES[1].1,
        RATES[4].1,
        "aim: at least 15",
    ),
    (
        "argon2_over_node",
        "node_argon2_per_cpu_second",
        RATES[14].1,
        RATES[4].1,
        "both hash the PIN",
    ),
    (
        "tang_ratio",
        "tang_per_cpu_second",
        RATES[8].1,
        RATES[5].1,
        "by the device key; aim: at least 4",
    ),
    (
        "tang_passkey_ratio",
        "tang_per_cpu_second",
        RATES[7].1,
        RATES[5].1,
        "by passkey, two requests",
    ),
    (
        "tang_kept_ratio",
        "tang_kept_per_cpu_second",
        RATES[9].1,
        RATES[6].1,
        "by the device key, connections that stay",
    ),
    (
        "passkey_over_ecdsa",
        "limit_ecdsa_per_cpu_second",
        RATES[0].1,
        RATES[10].1,
        "",
    ),
];

fn compared(turns: &[Turn], memory: [Option<[f64; 2]>; 2]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, reference, one, other, note) in RATIOS {
        let ratio = median(turns, |turn| Some(one(turn)? / other(turn)?));
        if let Some(ratio) = ratio {
            figures.push(Figure::new(name, ratio, "ratio", note).beside(reference, ratio));
        }
    }
    if let [Some(ours), Some(theirs)] = memory {
        let ratio = ours[0] / theirs[0];
        let note = "5 s after the load; aim: at most 0.25";
        figures.push(
            Figure::new("memory_over_node", ratio, "ratio", note)
                .beside("node_memory_bytes", ratio),
        );
    }
    for (name, of, note) in RATES {
        if let Some(rate) = median(turns, of) {
            let unit = if name.ends_with("_cpu_second") {
                CPU_RATE
            } else {
                "1/s"
            };
            figures.push(Figure::new(name, rate, unit, note));
        }
    }
    let names = [
        ["memory_bytes", "memory_peak_bytes"],
        ["node_memory_bytes", "node_memory_peak_bytes"],
    ];
    for (names, memory) in names.into_iter().zip(memory) {
        let notes = ["resident 5 s after the load", "resident at most"];
        for ((name, note), bytes) in names.into_iter().zip(notes).zip(memory.iter().flatten()) {
            figures.push(Figure::new(name, *bytes, "bytes", note));
        }
    }
    figures
}
