//! The daemons, their database with its standby and the way to it, and their one token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use serde_json::json;
use tokio::task::block_in_place;

use super::client::ATTEMPTS;
use super::notebook::{Door, Notebook};
use super::wire::Wire;
use crate::app::{DATABASE, Database, SEVERAL, said};
use crate::postgres::USER;
use crate::shim::Clock;
use crate::token::SoftToken;
use crate::{Device, PostgresServer, Setup, TestApp, log};

/// How long a realm may take to serve again before that is a violation.
pub(super) const SERVES_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: Vec<TestApp>,
    /// Which of them are meant to serve.
    pub(super) serving: Vec<bool>,
    /// Of each node, its own way to the database.
    pub(super) wires: Vec<Wire>,
    pub(super) primary: PostgresServer,
    pub(super) standby: Option<PostgresServer>,
    pub(super) notebook: Arc<Notebook>,
    /// Signs in to see whether changes are taken.
    pub(super) probe: Device,
    /// Of each node, where they are to be moved.
    pub(super) clocks: Vec<Clock>,
    /// How often some of them were cut off: it says how many are the next time.
    pub(super) partitions: usize,
    /// The file that SoftHSM2 writes in place at each login.
    object: Vec<u8>,
}

fn setup() -> Setup {
    Setup {
        config: log::section(),
        database: Database::Sqlite,
        ..Setup::notes(&format!("[[pin.rounds]]\nattempts = {ATTEMPTS}\n"))
    }
}

fn socket(server: &PostgresServer) -> PathBuf {
    server.folder().join(format!(".s.PGSQL.{}", server.port()))
}

/// The realm's database behind the wire, in place of the one that the configuration names, for so many nodes.
fn behind(wire: &Wire, configuration: &Path, count: usize) {
    let text = std::fs::read_to_string(configuration).unwrap();
    let (before, rest) = text.split_once("[store]").unwrap();
    let (_, after) = rest.split_once("[policies]").unwrap();
    let port = wire.port();
    let store = format!(
        "[store]\n[store.postgres]\nurl = \"postgres://{USER}@127.0.0.1:{port}/{DATABASE}?sslmode=disable\"\n\
         state_directory = \".\"\n{}",
        if count > 1 { SEVERAL } else { "" }
    );
    std::fs::write(configuration, format!("{before}{store}[policies]{after}")).unwrap();
}

impl Cluster {
    /// So many nodes that serve; one more that stands by, cold, where there is one.
    pub(super) async fn founded(count: usize, clocks: bool) -> Self {
        let (primary, standby) = block_in_place(|| {
            let primary = match geteuid().is_root() {
                true => PostgresServer::on_a_disk(),
                false => PostgresServer::start(),
            };
            primary.create(DATABASE, "template0");
            let standby = primary.standby();
            (primary, standby)
        });
        let mut wires = Vec::new();
        for _ in 0..count.max(2) {
            wires.push(Wire::to(socket(&primary)).await);
        }
        let first = TestApp::prepared(setup(), SoftToken::fresh());
        behind(&wires[0], &first.path("custodyd.toml"), count);
        let others = wires[1..].iter().map(|wire| {
            let other = first.another(setup(), DATABASE);
            behind(wire, &other.path("custodyd.toml"), count);
            other
        });
        let mut nodes: Vec<TestApp> = others.collect();
        nodes.insert(0, first);
        let mut moved = Vec::new();
        if clocks {
            for node in &mut nodes {
                let clock = Clock::new(node.dir.path());
                node.environment = clock.environment();
                moved.push(clock);
            }
        }
        nodes[0].found().await;
        for node in &mut nodes[1..count] {
            node.launch().await;
        }
        let mut probe = nodes[0].device("notes");
        probe.enrol().await;
        let serving: Vec<bool> = (0..nodes.len()).map(|at| at < count).collect();
        let doors = nodes.iter().zip(&serving).map(|(node, &open)| Door {
            url: node.url.clone(),
            open,
            life: 0,
        });
        let notebook = Arc::new(Notebook::new(doors.collect()));
        let object = std::fs::read(object(&nodes[0])).unwrap();
        Self {
            nodes,
            serving,
            wires,
            primary,
            standby: Some(standby),
            notebook,
            probe,
            clocks: moved,
            partitions: 0,
            object,
        }
    }

    pub(super) fn those_that_serve(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&at| self.serving[at])
            .collect()
    }

    pub(super) fn those_that_wait(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&at| !self.serving[at])
            .collect()
    }

    /// Without a word to anybody. Never before it has said that it is ready: its one login is before that.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
        self.serving[node] = false;
        self.notebook.closed(node);
    }

    /// In the place of `dead`, which may be the same.
    pub(super) async fn start(&mut self, node: usize, dead: usize) {
        let started = started(&mut self.nodes[node], &self.notebook, &self.object).await;
        self.serving[node] = started;
        if started {
            self.notebook.outlived(dead);
            self.notebook.opened(node);
        }
    }

    /// Whether a login that was cut off had lost it.
    pub(super) fn put_token_back(&self) -> bool {
        put_token_back(&self.nodes[0], &self.object)
    }

    /// Each node to its own use, with what is to be put back in the token where a login was cut off.
    pub(super) fn each(&mut self) -> (impl Iterator<Item = &mut TestApp>, &[u8]) {
        (self.nodes.iter_mut(), &self.object)
    }

    /// Leads everything to the standby, which becomes the server; the old one does not come back. The number of the batch
    /// that it shows before anybody has come there.
    pub(super) fn fail_over(&mut self) -> u64 {
        let standby = self.standby.take().unwrap();
        standby.promote();
        let shown = newest(&standby);
        for wire in &self.wires {
            wire.lead(socket(&standby));
        }
        self.primary = standby;
        shown
    }

    /// Gives the server a new standby.
    pub(super) fn protect(&mut self) {
        self.standby = Some(self.primary.standby());
    }

    /// What the nodes have said lately, beside the violations of this run.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn keep_logs(&self, folder: &Path, run: u64) -> Result<(), String> {
        for (number, node) in self.nodes.iter().enumerate() {
            let path = folder.join(format!("violation-{run}-node-{number}.log"));
            let lines = last_lines(&node.log(), 4000);
            std::fs::write(&path, lines).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn token(&self) -> PathBuf {
        self.nodes[0].token.tokens()
    }

    pub(super) fn violated(&self, what: String) {
        self.notebook.violated(what, &[]);
    }

    /// Waits until each node takes changes. One that has ended is started again; whether it may end is the caller's to say.
    pub(super) async fn recover(&mut self, may_end: bool) {
        for node in self.those_that_serve() {
            let give_up = Instant::now() + SERVES_AGAIN;
            loop {
                if self.nodes[node].process().is_none() {
                    let tail = last_lines(&self.nodes[node].log(), 12);
                    if !may_end {
                        self.violated(format!("node {node} has ended: {tail}"));
                    }
                    self.kill(node);
                    self.start(node, node).await;
                }
                self.revive();
                if self.takes_changes(node).await {
                    break;
                }
                if Instant::now() > give_up {
                    let tail = last_lines(&self.nodes[node].log(), 12);
                    self.violated(format!("node {node} does not serve again: {tail}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// The database's server, where it has ended by what was done to it.
    pub(super) fn revive(&mut self) -> bool {
        block_in_place(|| {
            let ended = self.primary.process().is_none();
            if ended {
                self.primary.stop();
                self.primary.launch();
            }
            ended
        })
    }

    async fn takes_changes(&mut self, node: usize) -> bool {
        self.probe.url.clone_from(&self.nodes[node].url);
        takes_changes(&mut self.probe).await
    }

    /// In order, and in time: one that waits for a commit would wait for ever.
    fn stops(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        if node.process().is_some() {
            node.signal(Signal::TERM);
        }
        let give_up = Instant::now() + SERVES_AGAIN;
        while node.process().is_some() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(20));
        }
        let stopped = node.process().is_none();
        if !stopped {
            node.kill();
        }
        stopped && node.stop()
    }

    /// Stops everybody, and has the whole database verified against the token.
    pub(super) fn verify(&mut self) {
        for node in self.those_that_serve() {
            self.notebook.closed(node);
            if !self.stops(node) {
                let tail = last_lines(&self.nodes[node].log(), 12);
                self.violated(format!("node {node} did not stop in order: {tail}"));
            }
        }
        let verified = self.nodes[0].command("ledger verify --open").output();
        let verified = verified.unwrap();
        if !verified.status.success() {
            self.violated(format!("ledger verify: {}", said(&verified)));
        }
    }
}

/// The number of the batch that it shows.
pub(super) fn newest(server: &PostgresServer) -> u64 {
    let said = server.sql(DATABASE, "SELECT seq FROM custodyd.head");
    said.trim().parse().unwrap()
}

/// Whether its node does.
pub(super) async fn takes_changes(probe: &mut Device) -> bool {
    probe.token = None;
    let body = json!({"account": probe.account, "release": []});
    let call = ("POST", "/v1/apps/{app}/sessions/device");
    let call = probe.prepare(call.0, call.1, Some(body));
    // What hangs is not waited for: the next one may come through.
    let answer = tokio::time::timeout(Duration::from_secs(1), probe.attempt(&call)).await;
    answer.is_ok_and(|answer| answer.is_some_and(|answer| answer.status == 201))
}

/// Whether it serves; what became of it instead is a violation.
pub(super) async fn started(node: &mut TestApp, notebook: &Notebook, object: &[u8]) -> bool {
    let mut started = node.try_launch().await;
    if started.is_err() && put_token_back(node, object) {
        node.kill();
        started = node.try_launch().await;
    }
    if let Err(what) = started {
        let tail = last_lines(&node.log(), 12);
        let what = format!("a start that does not serve: {what}: {tail}");
        notebook.violated(what, &[]);
        // Else it comes in later, and nobody counts with it.
        node.kill();
    }
    started.is_ok()
}

/// SoftHSM2's weakness, and a backup's use: a login truncates the file before it writes it.
fn put_token_back(node: &TestApp, kept: &[u8]) -> bool {
    let object = object(node);
    let lost = std::fs::metadata(&object).map_or(0, |file| file.len()) < kept.len() as u64;
    if lost {
        eprintln!("token.object was lost in a login, and is put back");
        std::fs::write(object, kept).unwrap();
    }
    lost
}

fn object(node: &TestApp) -> PathBuf {
    only_folder(&node.token.tokens()).join("token.object")
}

pub(super) fn only_folder(of: &Path) -> PathBuf {
    let entries = std::fs::read_dir(of).unwrap().flatten();
    let mut folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    let only = folders.next().unwrap();
    assert!(folders.next().is_none(), "more than one token");
    only
}

fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().rev().take(count).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    lines.join("\n  ")
}
