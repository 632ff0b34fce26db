//! The fault campaign: daemons under steady load while everything around them fails, and a history that may contain no lie.
//!
//! Called by the program `campaign`, for as long as somebody wants, and by a test, for half a minute. docs/FAULTS.md says what is
//! done and what is checked.

mod asking;
mod auditor;
pub mod checker;
mod client;
mod cluster;
mod dice;
mod faults;
pub mod history;
mod injector;
mod kills;
mod lag;
mod notebook;
mod packets;
mod partition;
mod register;
mod report;
mod spent;
mod state;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, block_in_place};

use self::auditor::Follower;
pub use self::client::ATTEMPTS;
use self::client::{Client, Place};
use self::cluster::Cluster;
pub use self::dice::Dice;
pub use self::faults::{Fault, Lasting};
use self::history::Entry;
pub use self::packets::enter_own_network;
use self::state::CALM;
pub use self::state::{State, Tally};
use crate::log::Verifier;

#[derive(Clone, Debug)]
pub struct Plan {
    /// Each in turn, in another order each time; or in this one and once.
    pub faults: Vec<Fault>,
    pub until: Until,
    pub nodes: usize,
    pub clients: usize,
    /// How long a client rests between two things.
    pub rest: Duration,
    /// Between faults.
    pub calm: Lasting,
    pub lasting: Lasting,
    pub pace: Pace,
    /// Where the state is kept after each fault.
    pub state: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Steady,
    /// Many kills in a row in place of one, and after each other fault.
    Quick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Over(Duration),
    EachOnce,
}

/// Runs it until its time is over or `stop` is ready; returns what its clients wrote down.
///
/// # Errors
/// When the state cannot be kept.
pub async fn run(
    plan: &Plan,
    state: &mut State,
    stop: impl Future<Output = ()>,
) -> Result<Vec<Vec<Entry>>, String> {
    state.runs += 1;
    let mut dice = Dice::new(state.seed.wrapping_add(state.runs));
    let mut cluster = Cluster::founded(plan.nodes, plan.faults.contains(&Fault::Clock)).await;
    let notebook = Arc::clone(&cluster.notebook);
    let mut clients = JoinSet::new();
    for _ in 0..plan.clients {
        let place = Place {
            url: cluster.nodes[0].url.clone(),
            ca: cluster.nodes[0].ca.clone(),
            rest: plan.rest,
        };
        clients.spawn(Client::new(Arc::clone(&notebook), place, dice.fork()).live());
    }
    let mut visitor = cluster.nodes[0].device("notes");
    let jwks = visitor.call("GET", "/.well-known/jwks.json", None).await;
    let verifier = Verifier::new(&jwks.expect(200).body);
    let follower = Follower::new(
        Arc::clone(&notebook),
        verifier,
        visitor.http.clone(),
        dice.fork(),
    );
    let follower = tokio::spawn(follower.follow());

    let mut run = Run {
        plan,
        before: state.seconds,
        state,
        dice,
        begun: Instant::now(),
        noted: 0,
    };
    let faults = run.faults(&mut cluster, stop).await;
    let before = notebook.counts();
    notebook.stop();
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            notebook.violated(format!("a client failed: {error}"), &[]);
        }
    }
    match follower.await {
        Ok(mut follower) => {
            let nodes = cluster.those_that_serve().into_iter();
            let nodes: Vec<_> = nodes
                .map(|node| (node, cluster.nodes[node].url.clone()))
                .collect();
            if !nodes.is_empty()
                && let Err(what) = follower.finish(&nodes).await
            {
                notebook.violated(what, &[]);
            }
        }
        Err(error) => notebook.violated(format!("the auditor failed: {error}"), &[]),
    }
    block_in_place(|| cluster.verify());
    run.state.add(CALM, before, notebook.counts());
    run.note(CALM, &cluster)?;
    faults?;
    Ok(notebook.histories())
}

struct Run<'a> {
    plan: &'a Plan,
    state: &'a mut State,
    dice: Dice,
    begun: Instant,
    /// Seconds of the runs before.
    before: u64,
    /// Violations that stand in the state already.
    noted: usize,
}

impl Run<'_> {
    async fn faults(
        &mut self,
        cluster: &mut Cluster,
        stop: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let mut stop = std::pin::pin!(stop);
        let mut deck: Vec<Fault> = Vec::new();
        let mut dealt = false;
        loop {
            let before = cluster.notebook.counts();
            let calm = self.dice.between(self.plan.calm.least, self.plan.calm.most);
            let stopped = tokio::select! {
                () = tokio::time::sleep(calm) => false,
                () = &mut stop => true,
            };
            self.state.add(CALM, before, cluster.notebook.counts());
            self.note(CALM, cluster)?;
            let over = match self.plan.until {
                Until::Over(time) => self.begun.elapsed() >= time,
                Until::EachOnce => dealt && deck.is_empty(),
            };
            if over || stopped || cluster.those_that_serve().is_empty() {
                return Ok(());
            }
            if deck.is_empty() {
                deck.clone_from(&self.plan.faults);
                match self.plan.until {
                    Until::Over(_) => self.dice.shuffle(&mut deck),
                    Until::EachOnce => deck.reverse(),
                }
                dealt = true;
            }
            let Some(fault) = deck.pop() else {
                return Ok(());
            };
            let quick = self.plan.pace == Pace::Quick;
            if !quick || fault != Fault::Kill {
                self.one(fault, cluster).await?;
            }
            if quick && !cluster.those_that_serve().is_empty() {
                self.kills_in_a_row(cluster).await?;
            }
        }
    }

    async fn kills_in_a_row(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let before = cluster.notebook.counts();
        let begun = Instant::now();
        let times = kills::in_a_row(cluster, &mut self.dice, kills::IN_A_ROW).await;
        cluster.recover(false).await;
        println!(
            "{:>6} s  {} kills in {} ms",
            self.begun.elapsed().as_secs(),
            times.len(),
            begun.elapsed().as_millis()
        );
        let name = Fault::Kill.name();
        self.state.add(name, before, cluster.notebook.counts());
        let tally = self.state.faults.entry(name.to_owned()).or_default();
        tally.count += times.len() as u64;
        tally.recoveries.extend(times);
        self.note(name, cluster)
    }

    async fn one(&mut self, fault: Fault, cluster: &mut Cluster) -> Result<(), String> {
        let before = cluster.notebook.counts();
        let gone = faults::inflict(fault, cluster, &mut self.dice, self.plan.lasting).await;
        cluster.recover(fault.may_end_a_node()).await;
        cluster.notebook.a_clock_is_off(false);
        let recovery = u64::try_from(gone.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        println!(
            "{:>6} s  {:<12} recovered in {recovery} ms",
            self.begun.elapsed().as_secs(),
            fault.name()
        );
        if cluster.standby.is_none() {
            block_in_place(|| cluster.protect());
        }
        let after = cluster.notebook.counts();
        self.state.add(fault.name(), before, after);
        let tally = self
            .state
            .faults
            .entry(fault.name().to_owned())
            .or_default();
        tally.count += 1;
        tally.recoveries.push(recovery);
        tally.others.extend(gone.others);
        self.note(fault.name(), cluster)
    }

    /// What was found since the last time is put down to `name`, and everything is kept.
    fn note(&mut self, name: &str, cluster: &Cluster) -> Result<(), String> {
        let all = cluster.notebook.violations();
        let new = &all[self.noted..];
        self.state.violated(name, new);
        self.state.seconds = self.before + self.begun.elapsed().as_secs();
        let Some(folder) = &self.plan.state else {
            self.noted = all.len();
            return Ok(());
        };
        self.state.keep(folder, self.noted, new)?;
        if !new.is_empty() {
            cluster.keep_logs(folder, self.state.runs)?;
        }
        self.noted = all.len();
        self.state.save(folder)
    }
}
