//! What happens to the daemons, the database, the way between them and the token.
//!
//! One at a time, and the next only when everybody is served again: so each has its own time to recover, and a kill never
//! meets a login (SoftHSM2 would lose the token). Kills in a row: `kills.rs`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::cluster::{Cluster, only_folder};
use super::dice::Dice;
use super::injector::{self, Hits, Injector};
use super::wire::State;
use super::{kills, lag, packets, partition};
use crate::shim;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node, by SIGKILL; it is started again, or one that stands by cold in its place.
    Kill,
    /// The database in order, connections cut.
    Restart,
    /// The database without a word to anybody; it reads its log when it starts.
    Immediate,
    /// The database's processes that serve the daemons.
    Terminate,
    /// The database is gone, and its synchronous standby goes on.
    Failover,
    /// The database is gone, and a standby goes on that nobody had waited for, and that lacks the newest batches.
    Lag,
    /// The database's disk is full.
    Disk,
    /// The token's files are away.
    Token,
    /// Some nodes' way to the database is cut.
    Cut,
    /// Nothing comes through there, and nobody is told.
    Hold,
    /// Packets there are lost.
    Silence,
    /// Everything comes late there.
    Slow,
    /// Each n-th sync, write or rename of the database's fails.
    DatabaseIo,
    /// Each n-th removal, write or cut of a token's file by a node fails.
    NodeIo,
    /// A node's host is set forward or back, and right again.
    Clock,
}

use Fault::{
    Clock, Cut, DatabaseIo, Disk, Failover, Hold, Immediate, Kill, Lag, NodeIo, Restart, Silence,
    Slow, Terminate, Token,
};

impl Fault {
    pub const ALL: [Self; 15] = [
        Kill, Restart, Immediate, Terminate, Failover, Lag, Disk, Token, Cut, Hold, Silence, Slow,
        DatabaseIo, NodeIo, Clock,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kill => "kill",
            Restart => "restart",
            Immediate => "immediate",
            Terminate => "terminate",
            Failover => "failover",
            Lag => "lag",
            Disk => "disk",
            Token => "token",
            Cut => "cut",
            Hold => "hold",
            Silence => "silence",
            Slow => "slow",
            DatabaseIo => "database-io",
            NodeIo => "node-io",
            Clock => "clock",
        }
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    #[must_use]
    pub fn is_the_databases(self) -> bool {
        !matches!(self, Kill | Token | NodeIo | Clock)
    }

    /// Whether it is nothing that one node alone goes through: what its database has lost, nobody else has.
    #[must_use]
    pub fn needs_several(self) -> bool {
        self == Lag
    }

    /// Whether a node may end by it. What is not known to be written may have been, so it stops and is started.
    pub(super) fn may_end_a_node(self) -> bool {
        self == NodeIo
    }

    /// What this machine lacks for it.
    #[must_use]
    pub fn lacks(self) -> Option<&'static str> {
        let root = rustix::process::geteuid().is_root();
        match self {
            Disk if !root => Some("a disk that fills up is mounted, and that needs root"),
            Silence => packets::lacks(),
            DatabaseIo | NodeIo if !root => Some("it attaches strace to others, which needs root"),
            DatabaseIo | NodeIo if !injector::is_there() => {
                Some("strace is missing: apt install strace")
            }
            Clock if !shim::can_be_built() => {
                Some("a C compiler is missing: apt install gcc libc6-dev")
            }
            _ => None,
        }
    }
}

/// How long a fault lasts, where it is the campaign that ends it.
#[derive(Clone, Copy, Debug)]
pub struct Lasting {
    pub least: Duration,
    pub most: Duration,
}

/// How long a fault is given until it has hit something.
const SOME: Duration = Duration::from_secs(20);

/// When its cause was gone.
pub(super) struct Gone {
    pub(super) at: Instant,
    /// Milliseconds until each node that was left took changes, where it was some node that died or was cut off.
    pub(super) others: Vec<u64>,
}

/// Lets it happen.
pub(super) async fn inflict(
    fault: Fault,
    cluster: &mut Cluster,
    dice: &mut Dice,
    lasting: Lasting,
) -> Gone {
    let lasts = dice.between(lasting.least, lasting.most);
    let at = match fault {
        Kill => return kills::one(cluster, dice).await,
        Restart => {
            block_in_place(|| cluster.primary.stop());
            again(cluster)
        }
        Immediate => {
            block_in_place(|| cluster.primary.kill());
            tokio::time::sleep(lasts).await;
            again(cluster)
        }
        Terminate => {
            for _ in 0..3 {
                block_in_place(|| terminate(cluster));
                tokio::time::sleep(lasts / 3).await;
            }
            Instant::now()
        }
        Failover => {
            block_in_place(|| cluster.primary.kill());
            tokio::time::sleep(lasts).await;
            block_in_place(|| cluster.fail_over());
            Instant::now()
        }
        Lag => lag::behind(cluster, dice, lasts).await,
        Disk => disk(cluster, lasts).await,
        Token => {
            let token = Away::take(cluster.token());
            tokio::time::sleep(lasts).await;
            drop(token);
            Instant::now()
        }
        Cut => return partition::some(cluster, dice, State::Cut, lasts).await,
        // Longer than the daemon waits for an answer, now and then.
        Hold => return partition::some(cluster, dice, State::Held, lasts * 3).await,
        Silence => return partition::some(cluster, dice, State::Lost, lasts * 3).await,
        Slow => {
            let by = dice.between(Duration::from_millis(10), Duration::from_millis(60));
            return partition::some(cluster, dice, State::Slow(by), lasts).await;
        }
        DatabaseIo => database_io(cluster, dice, lasts).await,
        NodeIo => node_io(cluster, dice, lasts).await,
        Clock => clock(cluster, dice, lasts).await,
    };
    Gone {
        at,
        others: Vec::new(),
    }
}

fn again(cluster: &mut Cluster) -> Instant {
    block_in_place(|| cluster.primary.launch());
    Instant::now()
}

fn terminate(cluster: &Cluster) {
    let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'custodyd'";
    cluster.primary.sql("postgres", ours);
}

/// Full until the server has noticed, and then as long as it lasts.
async fn disk(cluster: &mut Cluster, lasts: Duration) -> Instant {
    let full = |cluster: &Cluster| cluster.primary.log().matches("No space left").count();
    let before = full(cluster);
    let disk = cluster.primary.disk().unwrap();
    disk.fill(64 << 10);
    let give_up = Instant::now() + Duration::from_secs(30);
    while full(cluster) == before && Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if full(cluster) == before {
        cluster.violated("a full disk that the database does not notice".into());
    }
    tokio::time::sleep(lasts).await;
    cluster.primary.disk().unwrap().clear();
    revive(cluster).await
}

/// The server may have ended: it is started where it has. One that ends later is found by who waits for the recovery.
async fn revive(cluster: &mut Cluster) -> Instant {
    let cleared = Instant::now();
    tokio::time::sleep(Duration::from_millis(200)).await;
    match cluster.revive() {
        true => Instant::now(),
        false => cleared,
    }
}

/// The token's directory somewhere else, until this is dropped.
struct Away {
    place: PathBuf,
    away: PathBuf,
}

impl Away {
    fn take(place: PathBuf) -> Self {
        let away = place.with_extension("away");
        fs::rename(&place, &away).unwrap();
        Self { place, away }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // SoftHSM2 makes an empty directory where it looks for one.
        let _ = fs::remove_dir(&self.place);
        fs::rename(&self.away, &self.place).unwrap();
    }
}

/// PostgreSQL writes files by calls that it uses for nothing else. Beside the load it makes a checkpoint and a new part of its log, so
/// that there is each of them.
async fn database_io(cluster: &mut Cluster, dice: &mut Dice, lasts: Duration) -> Instant {
    let calls = *dice.one_of(&[
        "fsync,fdatasync",
        "pwrite64,pwritev",
        "rename,renameat,renameat2",
    ]);
    let every = 1 + dice.below(8);
    let server = block_in_place(|| cluster.primary.process()).unwrap();
    let family = injector::family(server);
    let injector = block_in_place(|| Injector::attach(&family, calls, every, &[]));
    let begun = Instant::now();
    while begun.elapsed() < lasts || nothing_yet(&injector, begun) {
        // Whoever is told of a failure is this session, too.
        let work = "SELECT pg_switch_wal(); CHECKPOINT";
        let _ = block_in_place(|| cluster.primary.try_sql("postgres", work));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let hits = block_in_place(|| injector.detach());
    must_have_failed(cluster, calls, &hits);
    revive(cluster).await
}

/// Only calls that reach nothing but the token's files, and one file of them that each change writes.
async fn node_io(cluster: &mut Cluster, dice: &mut Dice, lasts: Duration) -> Instant {
    let node = *dice.one_of(&cluster.those_that_serve());
    let token = only_folder(&cluster.token());
    let generation = token.join("generation");
    let ways: [(&str, &[PathBuf]); 3] = [
        ("unlink,unlinkat", &[]),
        ("ftruncate", &[]),
        ("write", std::slice::from_ref(&generation)),
    ];
    let (calls, of) = *dice.one_of(&ways);
    let every = 1 + dice.below(5);
    if let Some(process) = cluster.nodes[node].process() {
        let injector = block_in_place(|| Injector::attach(&[process], calls, every, of));
        let begun = Instant::now();
        tokio::time::sleep(lasts).await;
        while nothing_yet(&injector, begun) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let hits = block_in_place(|| injector.detach());
        must_have_failed(cluster, calls, &hits);
    }
    // A login that the daemon tried meanwhile may have been cut off.
    cluster.put_token_back();
    Instant::now()
}

/// An hour forward, an hour back, or to before anything that this realm has seen; every other time it is started in between. A start is
/// refused that far from the database's clock, which is right: then it serves once its own is.
async fn clock(cluster: &mut Cluster, dice: &mut Dice, lasts: Duration) -> Instant {
    let node = *dice.one_of(&cluster.those_that_serve());
    let seconds = *dice.one_of(&[3600, -3600, -2 * 86_400]);
    cluster.notebook.a_clock_is_off(true);
    let before = cluster.clocks[node].told();
    cluster.clocks[node].is_off_by(seconds);
    tokio::time::sleep(lasts / 2).await;
    let most = match cluster.those_that_serve().len() {
        1 => 86_400,
        _ => 60,
    };
    let mut outside = false;
    if dice.below(2) == 0 {
        cluster.kill(node);
        outside = seconds.unsigned_abs() > most;
        match outside {
            true => is_refused(cluster, node).await,
            false => cluster.start(node, node).await,
        }
    }
    tokio::time::sleep(lasts / 2).await;
    let begun = Instant::now();
    while cluster.clocks[node].told() == before && begun.elapsed() < SOME {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.clocks[node].is_off_by(0);
    if outside {
        cluster.start(node, node).await;
    }
    let told = cluster.clocks[node].told() - before;
    println!("{told} times a clock was told that was off by {seconds} s");
    if told == 0 {
        cluster.violated(format!(
            "nobody asked for the clock of node {node} while it was off"
        ));
    }
    Instant::now()
}

/// Before its login.
async fn is_refused(cluster: &mut Cluster, node: usize) {
    const WHY: &str = "compare the clocks: this host's says";
    let app = &mut cluster.nodes[node];
    let before = app.log().matches(WHY).count();
    let started = app.try_launch().await;
    if started.is_ok() || app.log().matches(WHY).count() == before {
        cluster.violated(format!(
            "node {node} was started while its clock was off, and not refused for it: {started:?}"
        ));
    }
    // Else it serves, and nobody counts with it.
    cluster.kill(node);
}

/// A machine that does much else may take its time until there is a call to fail.
fn nothing_yet(injector: &Injector, begun: Instant) -> bool {
    injector.failed() == 0 && begun.elapsed() < SOME
}

/// A campaign that does not do what it says has failed.
fn must_have_failed(cluster: &Cluster, calls: &str, hits: &Hits) {
    let Hits { failed, seen, .. } = hits;
    println!("{failed} of {seen} calls of {calls} failed");
    if *failed == 0 {
        let why = hits.complaints.trim();
        cluster.violated(format!(
            "none of {seen} calls of {calls} was there to fail; strace said: {why:?}"
        ));
    }
}
