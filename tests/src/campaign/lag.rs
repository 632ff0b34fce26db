//! A standby that nobody waits for takes the place of a server that is lost, and lacks the newest batches.
//!
//! All nodes live through it, so each writes again what it wrote last, and nothing that was acknowledged is missing. Must never let
//! more be missing than a node keeps, or kill a node: what only that one can write again would be gone for good.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::cluster::{Cluster, SERVES_AGAIN, newest};
use super::dice::Dice;
use crate::PostgresServer;

/// Batches that may be missing: a node keeps the 1,024 that it wrote last, and some more may come while this one looks.
const MOST: u64 = 400;
/// How long it is given for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the standby was there in place of the server.
pub(super) async fn behind(cluster: &mut Cluster, dice: &mut Dice, lasts: Duration) -> Instant {
    let wanted = 1 + dice.below(MOST / 2);
    let before = written_again(cluster).await;
    let acknowledged = loop {
        if let Some(newest) = block_in_place(|| lets_go(cluster, wanted)) {
            break newest;
        }
    };
    block_in_place(|| cluster.primary.kill());
    tokio::time::sleep(lasts).await;
    let shown = block_in_place(|| cluster.fail_over());
    let promoted = Instant::now();
    let lacks = acknowledged.saturating_sub(shown);
    // Whoever does not serve again is found by who waits for the recovery.
    let mut again = 0;
    while again == 0 && promoted.elapsed() < SERVES_AGAIN {
        tokio::time::sleep(Duration::from_millis(20)).await;
        again = written_again(cluster).await.saturating_sub(before);
    }
    println!("the standby lacked {lacks} batches at least; {again} were written again by then");
    if lacks == 0 || again == 0 {
        cluster.violated(format!(
            "the standby that was promoted lacked {lacks} batches, and {again} were written again"
        ));
    }
    promoted
}

/// Nobody waits for the standby any more, and it gets nothing more, until so many batches are missing in it: the number of the
/// newest by then. `None` where too many are, after it has all of them again.
fn lets_go(cluster: &Cluster, wanted: u64) -> Option<u64> {
    let (primary, standby) = (&cluster.primary, cluster.standby.as_ref().unwrap());
    let source = standby.sql("postgres", "SHOW primary_conninfo");
    set(primary, "synchronous_standby_names = ''");
    set(standby, "primary_conninfo = ''");
    wait_for(standby, "SELECT count(*) = 0 FROM pg_stat_wal_receiver");
    // It replays what it has got.
    std::thread::sleep(Duration::from_millis(100));
    let stood = newest(standby);
    let give_up = Instant::now() + PATIENCE;
    let mut seq = newest(primary);
    while seq < stood + wanted && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(10));
        seq = newest(primary);
    }
    if seq <= stood + MOST {
        return Some(seq);
    }
    let source = source.trim().replace('\'', "''");
    set(standby, &format!("primary_conninfo = '{source}'"));
    set(primary, "synchronous_standby_names = '*'");
    wait_for(
        primary,
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'",
    );
    None
}

fn set(server: &PostgresServer, setting: &str) {
    server.sql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    server.sql("postgres", "SELECT pg_reload_conf()");
}

fn wait_for(server: &PostgresServer, sql: &str) {
    let give_up = Instant::now() + PATIENCE;
    while server.sql("postgres", sql).trim() != "t" {
        assert!(Instant::now() < give_up, "{sql}: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many batches all nodes together have, as each says of itself.
async fn written_again(cluster: &Cluster) -> u64 {
    let mut all = 0;
    for node in cluster.those_that_serve() {
        let metrics = reqwest::get(format!("{}/metrics", cluster.nodes[node].operator)).await;
        if let Ok(metrics) = metrics
            && let Ok(text) = metrics.text().await
        {
            all += counter(&text, "custodyd_batches_replayed_total");
        }
    }
    all
}

fn counter(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    });
    line.unwrap_or(0)
}
