//! Nodes that do not reach the database, or only late: one of them, then all, then two, by turns; which, the dice say.
//!
//! Whoever else serves goes on, and refuses nobody: neither a change nor what is only read. There is one exception, of whoever was cut
//! off without a word to the server in its turn at writing: that one keeps it until the server ends it.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::block_in_place;

use super::cluster::Cluster;
use super::dice::Dice;
use super::faults::Gone;
use super::kills::{probe_at, serves_after};
use super::notebook::Refused;
use super::packets::Lost;
use super::wire::State;
use crate::app::DATABASE;

/// The others take changes within that time, each of them. An aim: machines differ.
pub(super) const OTHERS_WITHIN: u64 = 1000;
/// And this long it is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a node that was cut off has its turn.
const LOOK: Duration = Duration::from_millis(100);

/// How many of so many are cut off, by turns.
fn reach(turn: usize, serving: usize) -> usize {
    match turn % 3 {
        0 => 1,
        1 => serving,
        _ => serving.min(2),
    }
}

/// Until when the others may have to wait, in the notebook's time, since a node that was cut off has kept its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Nobody,
    /// Somebody who is cut off has it.
    Kept,
    /// The server has ended it by then.
    Ended(u64),
}

impl Turn {
    fn look(&mut self, kept: bool, now: u64) {
        *self = match (*self, kept) {
            (_, true) => Self::Kept,
            (Self::Kept, false) => Self::Ended(now),
            (before, false) => before,
        };
    }

    /// Whether what was asked for then may have been refused.
    fn excuses(self, at: u64) -> bool {
        match self {
            Self::Nobody => false,
            Self::Kept => true,
            Self::Ended(by) => at <= by,
        }
    }
}

/// What of that must not have been.
fn unexcused(refused: Vec<Refused>, turn: Turn) -> Vec<Refused> {
    let unexcused = refused.into_iter().filter(|one| !turn.excuses(one.at));
    unexcused.collect()
}

pub(super) async fn some(
    cluster: &mut Cluster,
    dice: &mut Dice,
    state: State,
    lasts: Duration,
) -> Gone {
    let mut hit = cluster.those_that_serve();
    dice.shuffle(&mut hit);
    let others = hit.split_off(reach(cluster.partitions, hit.len()));
    cluster.partitions += 1;
    cluster.notebook.watch(&others);
    for &node in &hit {
        cluster.wires[node].set(state.clone());
    }
    let lost = (state == State::Lost).then(|| {
        let ports: Vec<u16> = hit.iter().map(|&node| cluster.wires[node].port()).collect();
        block_in_place(|| Lost::at(&ports))
    });
    let silent = lost.is_some() || state == State::Held;
    let begun = Instant::now();
    let probes = others
        .iter()
        .map(|&node| serves_after(begun, probe_at(cluster, node)));
    let mut probes = pin!(join_all(probes));
    let (mut served, mut turn) = (None, Turn::Nobody);
    let over = |served: bool, turn: Turn| {
        let waits = !served && turn == Turn::Nobody && begun.elapsed() < PATIENCE;
        begun.elapsed() >= lasts && !waits
    };
    while !over(served.is_some(), turn) {
        let next = lasts.saturating_sub(begun.elapsed()).min(LOOK);
        tokio::select! {
            times = &mut probes, if served.is_none() => served = Some(times),
            () = tokio::time::sleep(next.max(Duration::from_millis(5))) => {}
        }
        // Of a connection that was reset the server has learnt; of a late one it will.
        if silent && !others.is_empty() {
            turn.look(keep_their_turn(cluster, &hit), cluster.notebook.now());
        }
    }
    for &node in &hit {
        cluster.wires[node].set(State::Open);
    }
    if let Some(lost) = lost {
        let packets = block_in_place(|| lost.found());
        println!("{packets} packets were lost");
        if packets == 0 {
            cluster.violated(format!("no packet of nodes {hit:?} was there to be lost"));
        }
    }
    let at = Instant::now();
    let refused = unexcused(cluster.notebook.unwatch(), turn);
    println!(
        "nodes {hit:?} were cut off ({state:?}), the others served after {served:?} ms; a turn: {turn:?}"
    );
    if let Some(Refused { node, what, .. }) = refused.first() {
        cluster.violated(format!(
            "{} refusals while nodes {hit:?} were cut off ({state:?}), the first by node {node}: {what}",
            refused.len()
        ));
    }
    if served.is_none() && turn == Turn::Nobody {
        cluster.violated(format!(
            "one of nodes {others:?} took no change in {PATIENCE:?} while nodes {hit:?} were cut off ({state:?})"
        ));
    }
    // What the server's patience has cost is no figure of the nodes'.
    let times = served.filter(|_| turn == Turn::Nobody).unwrap_or_default();
    Gone {
        at,
        others: times.into_iter().flatten().collect(),
    }
}

/// Whether one of these has the head's row locked, or will have as soon as it is its turn, and can not say that it is done.
fn keep_their_turn(cluster: &Cluster, nodes: &[usize]) -> bool {
    let processes = nodes
        .iter()
        .flat_map(|&node| cluster.wires[node].served_by());
    let processes: Vec<String> = processes.map(|process| process.to_string()).collect();
    if processes.is_empty() {
        return false;
    }
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = 'custodyd.head'::regclass \
         AND mode IN ('RowShareLock', 'RowExclusiveLock') AND pid IN ({})",
        processes.join(", ")
    );
    block_in_place(|| cluster.primary.sql(DATABASE, &locks)).trim() != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_then_all_then_two_are_cut_off() {
        let of = |serving| [0, 1, 2, 3].map(|turn| reach(turn, serving));
        assert_eq!(of(3), [1, 3, 2, 1]);
        assert_eq!(of(2), [1, 2, 2, 1]);
        assert_eq!(of(1), [1; 4]);
    }

    /// Control: where nobody keeps a turn nothing is excused.
    #[test]
    fn what_is_refused_is_excused_as_long_as_a_turn_is_kept_and_no_longer() {
        let refused = |at| Refused {
            node: 1,
            at,
            what: String::new(),
        };
        let all = || vec![refused(10), refused(30)];
        let mut turn = Turn::Nobody;
        turn.look(false, 5);
        assert_eq!(unexcused(all(), turn), all());
        turn.look(true, 10);
        assert!(unexcused(all(), turn).is_empty());
        turn.look(false, 20);
        assert_eq!(unexcused(all(), turn), [refused(30)]);
        turn.look(false, 40);
        assert_eq!(unexcused(all(), turn), [refused(30)]);
    }
}
