//! An asynchronous standby that lacks the newest commits is promoted under two nodes: those that wrote what is missing
//! write it again, byte for byte, or nobody is served until the newest database is back.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use custodyd_tests::app::{DATABASE, SEVERAL, said};
use custodyd_tests::postgres::USER;
use custodyd_tests::token::SoftToken;
use custodyd_tests::wire::{Cut, Wire};
use custodyd_tests::{Device, PostgresServer, TestApp};
use rustix::process::Signal;
use tempfile::TempDir;

use super::nodes::{at, budget, until, verified};
use super::{WRONG, again, configure, enrolled, left};

/// Where the nodes look for their server, whichever it is.
struct Address(TempDir);

impl Address {
    fn of(server: &PostgresServer) -> Self {
        let address = Self(tempfile::tempdir_in("/dev/shm").unwrap());
        symlink(server.folder(), address.path()).unwrap();
        address
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("now")
    }

    fn moves_to(&self, server: &PostgresServer) {
        std::fs::remove_file(self.path()).unwrap();
        symlink(server.folder(), self.path()).unwrap();
    }
}

fn set(server: &PostgresServer, setting: &str) {
    server.sql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    server.sql("postgres", "SELECT pg_reload_conf()");
}

fn wait_for(server: &PostgresServer, sql: &str, answer: &str) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while server.sql("postgres", sql).trim() != answer {
        assert!(Instant::now() < give_up, "{sql}: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The number of the batch that it shows.
fn newest(server: &PostgresServer) -> u64 {
    let said = server.sql(DATABASE, "SELECT seq FROM custodyd.head");
    said.trim().parse().unwrap()
}

struct Replicated {
    one: TestApp,
    other: TestApp,
    here: Device,
    there: Device,
    address: Address,
    standby: PostgresServer,
    /// Guesses that are left.
    left: u64,
    /// Who reads with it costs nothing.
    session: Option<String>,
    /// Each node's way to its server.
    wires: [Wire; 2],
}

impl Replicated {
    /// Two nodes, and a standby that has everything until now and gets nothing more.
    async fn new() -> Self {
        let mut one = TestApp::prepared(budget(100).on_postgres(), SoftToken::fresh());
        let server = one.postgres.as_ref().unwrap();
        let address = Address::of(server);
        let wires = [0, 1].map(|_| Wire::to(&address.path(), server.port()));
        let port = server.port();
        let section = |wire: &Wire| {
            format!(
                "url = \"postgres://{USER}@:{}/{DATABASE}?host={}\"\n{SEVERAL}",
                port,
                wire.folder().display()
            )
        };
        configure(&one, &section(&wires[0]));
        one.found().await;
        let mut other = one.another(budget(100), DATABASE);
        configure(&other, &section(&wires[1]));
        other.launch().await;
        let mut here = enrolled(&one).await;
        let there = at(&here, &other);
        let session = here.token.clone();
        let left = left(&mut here).await;
        let server = one.postgres.as_ref().unwrap();
        let standby = server.standby();
        set(server, "synchronous_standby_names = ''");
        let seq = newest(server).to_string();
        let has_all = Instant::now() + Duration::from_secs(30);
        while newest(&standby).to_string() != seq {
            assert!(Instant::now() < has_all);
            std::thread::sleep(Duration::from_millis(20));
        }
        set(&standby, "primary_conninfo = ''");
        wait_for(&standby, "SELECT count(*) FROM pg_stat_wal_receiver", "0");
        Self {
            one,
            other,
            here,
            there,
            address,
            standby,
            left,
            session,
            wires,
        }
    }

    /// Reads at the second node until it answers so.
    async fn reads(&mut self, status: u16) {
        self.there.token.clone_from(&self.session);
        until(&mut self.there, status).await;
    }

    /// The primary is lost, and the standby takes its place. It lacks something.
    fn fail_over(&mut self) {
        let primary = self.one.postgres.as_mut().unwrap();
        let told = newest(primary);
        primary.kill();
        self.standby.promote();
        assert!(newest(&self.standby) < told, "nothing was lost");
        self.address.moves_to(&self.standby);
    }
}

#[tokio::test]
async fn what_a_promoted_standby_lacks_the_nodes_write_again() {
    let mut pair = Replicated::new().await;
    // By turns, so that neither node has written all of it.
    for at_one in [true, false, true] {
        let device = match at_one {
            true => &mut pair.here,
            false => &mut pair.there,
        };
        let after = left(device).await;
        assert_eq!(after, pair.left - 1);
        pair.left = after;
    }
    pair.fail_over();
    pair.reads(200).await;
    pair.here.token.clone_from(&pair.session);
    until(&mut pair.here, 200).await;
    // A node may have to find its server once more; none of the guesses of before is won back.
    for device in [&mut pair.there, &mut pair.here] {
        let wrong = again(device, WRONG).await;
        wrong.refused("401 pin-wrong");
        let after = wrong.body["attempts_left"].as_u64().unwrap();
        assert!(after < pair.left, "{after} of {}", pair.left);
        pair.left = after;
    }
    let logs = [pair.one.log(), pair.other.log()];
    assert!(
        logs.iter()
            .any(|log| log.contains("has written them again")),
        "{logs:?}"
    );
    verified(&mut [&mut pair.one, &mut pair.other]);
}

#[tokio::test]
async fn what_nobody_can_write_again_stops_everybody_until_it_is_back() {
    let mut pair = Replicated::new().await;
    assert_eq!(left(&mut pair.there).await, pair.left - 1);
    assert_eq!(left(&mut pair.here).await, pair.left - 2);
    // Who wrote the newest is gone, before the primary is.
    pair.one.kill();
    pair.fail_over();
    pair.reads(503).await;
    let refused = pair.there.try_pin(WRONG, &[]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let log = pair.other.log();
    assert!(log.contains("it was rolled back"), "{log}");
    let start = pair.one.command("serve").output().unwrap();
    let why = said(&start);
    assert!(
        !start.status.success() && why.contains("the token has anchored batch"),
        "{why}"
    );
    // The newest database in place again: nothing is lost, and nothing was won back.
    pair.standby.kill();
    let primary = pair.one.postgres.as_mut().unwrap();
    primary.launch();
    pair.address.moves_to(primary);
    pair.reads(200).await;
    // Any connection to the server of before that was used a moment ago fails once.
    let told = again(&mut pair.there, WRONG).await;
    told.refused("401 pin-wrong");
    let after = told.body["attempts_left"].as_u64().unwrap();
    assert!(after <= pair.left - 3, "{after} of {}", pair.left);
    pair.one.launch().await;
    pair.here.url.clone_from(&pair.one.url);
    pair.here.nonce.clear();
    assert_eq!(left(&mut pair.here).await, after - 1);
    verified(&mut [&mut pair.one, &mut pair.other]);
}

/// One node's batch has won over the other's, and is lost with the primary and with the node before anybody was told. The
/// other one has made a head of that number already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_was_lost_to_another_node_and_then_lost_with_it_is_written_by_its_own_batch()
{
    let mut pair = Replicated::new().await;
    let asks = |mut device: Device| {
        tokio::spawn(async move {
            let answer = device.try_pin(WRONG, &[]).await;
            (device, answer)
        })
    };
    let has_cut = |wire: &Wire| {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !wire.has_cut() {
            assert!(Instant::now() < give_up);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let stood = newest(&pair.standby);
    pair.wires[0].refuse(true);
    pair.wires[0].cut_next(Cut::BeforeCommit);
    let here = asks(at(&pair.here, &pair.one));
    tokio::task::block_in_place(|| has_cut(&pair.wires[0]));
    pair.wires[1].refuse(true);
    pair.wires[1].cut_next(Cut::AfterCommit);
    let there = asks(at(&pair.here, &pair.other));
    tokio::task::block_in_place(|| has_cut(&pair.wires[1]));
    let primary = pair.one.postgres.as_ref().unwrap();
    wait_for_seq(primary, stood + 1);
    // It has not anchored: it does not know that it has committed.
    pair.other.kill();
    assert!(there.await.is_err(), "it was answered");
    pair.wires[0].refuse(false);
    // Before it has a look at what it was beaten by: that would be told of, by the token.
    tokio::task::block_in_place(|| {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !pair.one.log().contains("another node has written first") {
            assert!(Instant::now() < give_up, "{}", pair.one.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        pair.one.signal(Signal::STOP);
    });
    pair.fail_over();
    pair.one.signal(Signal::CONT);
    let (mut here, answer) = here.await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    // It heals by itself; nothing is won back, and the guess that was charged by its batch stays charged.
    let wrong = again(&mut here, WRONG).await;
    wrong.refused("401 pin-wrong");
    assert_eq!(wrong.body["attempts_left"], pair.left - 2, "{wrong:?}");
    let log = pair.one.log();
    assert!(log.contains("another node has written first"), "{log}");
    assert!(log.contains("written in its place"), "{log}");
    pair.wires[1].refuse(false);
    pair.other.launch().await;
    let mut there = at(&here, &pair.other);
    assert_eq!(left(&mut there).await, pair.left - 3);
    assert_eq!(left(&mut here).await, pair.left - 4);
    verified(&mut [&mut pair.one, &mut pair.other]);
}

fn wait_for_seq(server: &PostgresServer, seq: u64) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while newest(server) != seq {
        assert!(Instant::now() < give_up, "{}", newest(server));
        std::thread::sleep(Duration::from_millis(5));
    }
}
