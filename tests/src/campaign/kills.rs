//! Nodes that are killed: one, with the times until the others and itself take changes, or many in a row at random moments.
//!
//! Never before a node has said that it is ready, since its one login is before that. Its start takes the head after it was
//! killed: what it had in hand is over then, whoever else serves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::cluster::{Cluster, SERVES_AGAIN, started, takes_changes};
use super::dice::Dice;
use super::faults::Gone;
use crate::Device;

/// So many in a row where kills are to be quick.
pub(super) const IN_A_ROW: u64 = 50;
/// A node lives so long at the most, then.
const LIVES: Duration = Duration::from_millis(300);
/// After a node's death the others serve within the one, and itself within the other. An aim: machines differ.
pub(super) const OTHERS_WITHIN: u64 = 1000;
pub(super) const ITSELF_WITHIN: u64 = 2000;

/// One that serves; it is started again, or one that stands by cold in its place.
pub(super) async fn one(cluster: &mut Cluster, dice: &mut Dice) -> Gone {
    let dead = *dice.one_of(&cluster.those_that_serve());
    cluster.kill(dead);
    let at = Instant::now();
    let waiting = cluster.those_that_wait();
    let next = *dice.one_of(&waiting);
    let others = cluster.those_that_serve().into_iter();
    let others: Vec<_> = others
        .map(|node| serves_after(at, probe_at(cluster, node)))
        .collect();
    let (others, ()) = tokio::join!(join_all(others), cluster.start(next, dead));
    // Whoever never does is found by who waits for the recovery.
    let others = others.into_iter().flatten().collect();
    Gone { at, others }
}

/// So many, of every node that serves, each whenever it is its turn by the dice. Milliseconds until each served again.
pub(super) async fn in_a_row(cluster: &mut Cluster, dice: &mut Dice, count: u64) -> Vec<u64> {
    match cluster.those_that_wait().is_empty() {
        true => all_at_once(cluster, dice, count).await,
        false => one_after_another(cluster, dice, count).await,
    }
}

async fn one_after_another(cluster: &mut Cluster, dice: &mut Dice, count: u64) -> Vec<u64> {
    let mut times = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(dice.between(Duration::ZERO, LIVES)).await;
        let gone = one(cluster, dice).await;
        let Some(&node) = cluster.those_that_serve().first() else {
            break;
        };
        times.extend(serves_after(gone.at, probe_at(cluster, node)).await);
    }
    times
}

/// Nobody waits for another: at times nobody is there.
async fn all_at_once(cluster: &mut Cluster, dice: &mut Dice, count: u64) -> Vec<u64> {
    let left = AtomicU64::new(count);
    let notebook = cluster.notebook.clone();
    let probes: Vec<Device> = (0..cluster.nodes.len())
        .map(|node| probe_at(cluster, node))
        .collect();
    let (nodes, object) = cluster.each();
    let lives = nodes
        .zip(probes)
        .enumerate()
        .map(|(number, (node, probe))| {
            let (left, notebook, mut dice) = (&left, &notebook, dice.fork());
            async move {
                let mut times = Vec::new();
                let one_less = |left: u64| left.checked_sub(1);
                while (left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)).is_ok() {
                    tokio::time::sleep(dice.between(Duration::ZERO, LIVES)).await;
                    node.kill();
                    notebook.closed(number);
                    let killed = Instant::now();
                    if !started(node, notebook, object).await {
                        return (times, false);
                    }
                    notebook.opened(number);
                    times.extend(serves_after(killed, probe.clone()).await);
                }
                (times, true)
            }
        });
    let lives = join_all(lives).await;
    cluster.serving = lives.iter().map(|(_, serves)| *serves).collect();
    lives.into_iter().flat_map(|(times, _)| times).collect()
}

pub(super) fn probe_at(cluster: &Cluster, node: usize) -> Device {
    let mut probe = cluster.probe.clone();
    probe.url.clone_from(&cluster.nodes[node].url);
    probe
}

/// Milliseconds since then when it takes changes.
pub(super) async fn serves_after(then: Instant, mut probe: Device) -> Option<u64> {
    while then.elapsed() < SERVES_AGAIN {
        if takes_changes(&mut probe).await {
            return u64::try_from(then.elapsed().as_millis()).ok();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}
