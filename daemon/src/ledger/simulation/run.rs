//! One seed: some lives of the daemon among faults, and then peace, in which everything must be served.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor;
use tokio::sync::mpsc;

use super::client::Client;
use super::disk::Disk;
use super::history::NAMES;
use super::node::{Life, Serving};
use super::token;
use super::world::World;
use crate::ledger::LedgerError;
use crate::ledger::anchoring::BOOT;
use crate::ledger::faults::rig::realm_name;
use crate::ledger::faults::truth::Ask;
use crate::ledger::weakness::Weakness;

/// A realm that holds nothing yet, from which every run begins.
pub(super) struct Template {
    pub(super) disk: Disk,
    pub(super) anchors: Vec<Vec<u8>>,
    pub(super) people: Vec<custodyd_hsm::AccountId>,
}

/// What came of a seed.
pub(super) struct Outcome {
    pub(super) hash: u64,
    pub(super) violation: Option<String>,
    pub(super) lines: Vec<String>,
    /// How often what happened.
    pub(super) counts: std::collections::BTreeMap<String, u64>,
}

/// The states that the token remembers, and in bounded mode the host.
pub(super) fn anchored(world: &World) -> Vec<usize> {
    let mut anchors = Vec::new();
    match token::newest(world) {
        Ok(Some(anchor)) => anchors.push(anchor),
        other => world.violated(format!("the token remembers nothing: {other:?}")),
    }
    if let Some(bytes) = world.shelf.contents() {
        let mut custody = world.custody();
        let warm = anchor::open_warm(&mut *custody, &realm_name(), BOOT, &bytes);
        anchors.extend(warm.ok().flatten());
    }
    let disk = &world.state().disk;
    let states = anchors.iter().map(|anchor| disk.with_head(&anchor.head));
    let states: Option<Vec<_>> = states.collect();
    states.unwrap_or_default()
}

struct Run {
    world: Arc<World>,
    weakness: Weakness,
    lives: u64,
}

pub(super) async fn play(
    seed: u64,
    weakness: Weakness,
    template: &Template,
    keep: bool,
) -> Outcome {
    let world = World::new(seed, &template.people, template.disk.clone(), keep);
    world.anchors.put_back(&template.anchors);
    let mut run = Run {
        world: Arc::clone(&world),
        weakness,
        lives: 0,
    };
    run.all().await;
    let hash = world.hash();
    let mut state = world.state();
    Outcome {
        hash,
        violation: state.violation.take().map(|violation| violation.0),
        lines: state.trace.lines.take().unwrap_or_default(),
        counts: std::mem::take(&mut state.counts),
    }
}

impl Run {
    fn is_over(&self) -> bool {
        self.world.state().violation.is_some()
    }

    async fn all(&mut self) {
        for _ in 0..=self.world.below(4) {
            if self.is_over() {
                return;
            }
            self.life().await;
        }
        self.peace().await;
    }

    fn begin(&mut self, steps: Option<usize>) -> Arc<Life> {
        self.lives += 1;
        let number = self.lives;
        self.world.note(format_args!("life {number}: {steps:?}"));
        Life::begin(&self.world, number, steps)
    }

    async fn life(&mut self) {
        let world = Arc::clone(&self.world);
        let most = [60, 400, 2000][world.below(3)];
        let steps = world.chance(60).then(|| 1 + world.below(most));
        let life = self.begin(steps);
        if world.setup.lies && world.chance(25) {
            trouble(&world);
        }
        match life.start(self.weakness).await {
            None => {}
            Some(Err(error)) => self.refuses(&error),
            Some(Ok(serving)) => {
                let gremlin = tokio::spawn(gremlin(Arc::clone(&world)));
                self.serve(&life, serving).await;
                gremlin.abort();
                let _ = gremlin.await;
            }
        }
        if world.state().in_flight > 0 {
            world.blame("a commit outlives its daemon");
        }
        self.ends(&life).await;
        if world.is_blamed() && world.chance(50) {
            self.heal().await;
        }
    }

    fn refuses(&self, error: &LedgerError) {
        self.world.count("refused start");
        if !self.world.is_blamed() {
            self.world.violated(format!(
                "a start was refused, and nothing had failed: {error:?}"
            ));
        }
    }

    async fn ends(&self, life: &Arc<Life>) {
        life.end().await;
        let judged = self.world.state().history.ends();
        self.world.judge(judged);
    }

    /// The clients' requests, and one of the ends that a daemon may have.
    async fn serve(&self, life: &Arc<Life>, mut serving: Serving) {
        let world = &self.world;
        let clients = 1 + world.below(4);
        let most = 1 + world.below(8);
        self.ask_all(life, &serving, clients, most).await;
        if life.is_dead() {
            return;
        }
        if serving.has_stopped() {
            world.count("stopped");
            world.note(format_args!("the committer has stopped"));
            if !world.is_blamed() {
                world.violated("the committer stopped, and nothing had failed".to_owned());
            }
            return;
        }
        if !world.setup.lies && world.chance(30) {
            self.recovers(life, &mut serving).await;
        }
        if !life.is_dead() && world.chance(40) {
            world.note(format_args!("clean stop"));
            let stopped = serving.stop(life).await;
            if !stopped && !life.is_dead() && !world.is_blamed() {
                world.violated("a clean stop failed, and nothing else had".to_owned());
            }
        }
    }

    /// Clients that ask at once, each so many things at the most.
    async fn ask_all(&self, life: &Arc<Life>, serving: &Serving, clients: usize, most: usize) {
        let (done, mut all_done) = mpsc::channel::<()>(1);
        for number in 0..clients {
            let client = Client {
                world: Arc::clone(&self.world),
                ledger: serving.ledger.clone(),
                number,
            };
            let count = 1 + self.world.below(most);
            let done = done.clone();
            life.spawn(async move {
                client.asks(count).await;
                drop(done);
            });
        }
        drop(done);
        life.live(async move { all_done.recv().await }).await;
    }

    /// Nothing fails any more, and without a start everything is served again.
    async fn recovers(&self, life: &Arc<Life>, serving: &mut Serving) {
        let world = &self.world;
        world.calms(true);
        tokio::time::sleep(Duration::from_secs(30)).await;
        self.settles().await;
        if !life.is_dead() && !serving.has_stopped() {
            world.note(format_args!("it goes on by itself"));
            world.count("recovered");
            world.healed();
            self.ask_all(life, serving, 2, 3).await;
        }
        world.calms(false);
    }

    /// What the server was sent is done, or never will be.
    async fn settles(&self) {
        while self.world.state().in_flight > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The operator puts the newest database in place, while no daemon runs.
    async fn heal(&self) {
        self.settles().await;
        let anchored = anchored(&self.world);
        let mut state = self.world.state();
        let healed = !anchored.is_empty() && state.disk.heals(&anchored);
        drop(state);
        self.world.healed();
        if !healed {
            self.world
                .violated("no state that was written is what is anchored".to_owned());
        }
    }

    /// Everything as it should be, for ever: then everything is served, and a start after it finds the same.
    async fn peace(&mut self) {
        self.world.note(format_args!("peace"));
        self.world.calms(true);
        self.heal().await;
        for stops in [true, false] {
            if self.is_over() {
                return;
            }
            let life = self.begin(None);
            match life.start(self.weakness).await {
                Some(Ok(serving)) => {
                    if stops {
                        self.ask_all(&life, &serving, 2, 4).await;
                    }
                    self.look_at_all(&life, &serving).await;
                    if stops && !serving.stop(&life).await {
                        self.world
                            .violated("a clean stop failed in peace".to_owned());
                    }
                }
                Some(Err(error)) => self.refuses(&error),
                None => self.world.violated("nobody killed it".to_owned()),
            }
            self.ends(&life).await;
        }
    }

    async fn look_at_all(&self, life: &Arc<Life>, serving: &Serving) {
        let client = Client {
            world: Arc::clone(&self.world),
            ledger: serving.ledger.clone(),
            number: 0,
        };
        let people = self.world.people.len();
        let looks = async move {
            for who in 0..people {
                client.ask(who, Ask::Read).await;
                client.ask(who, Ask::Events).await;
            }
            for name in NAMES {
                client.ask(0, Ask::Find(name)).await;
            }
        };
        life.live_within(Duration::from_secs(3600), "looking", looks)
            .await;
    }
}

/// A lie of the database.
fn trouble(world: &World) {
    let mut state = world.state();
    let state = &mut *state;
    state.blamed = true;
    match state.dice.below(3) {
        0 => {
            let at = state.disk.rolls_back(&mut state.dice);
            state.note(format_args!("state {at} is shown"));
            state.count("rolled back");
        }
        1 => {
            let at = state.disk.puts_back(&mut state.dice);
            state.note(format_args!("a record of state {at} is put back"));
            state.count("put back");
        }
        _ => {
            let (table, what) = state.disk.alters(&mut state.dice);
            state.note(format_args!("table {table}: {what}"));
            state.count("altered");
        }
    }
}

/// What happens to a daemon that runs, at any time.
async fn gremlin(world: Arc<World>) {
    for _ in 0..world.below(12) {
        let most = [5, 60, 1500][world.below(3)];
        let pause = 1 + world.below(most) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match world.below(12) {
            0 => {
                let wall = world.host.wall() + world.below(90_000) as u64;
                world.host.set(wall);
                world.note(format_args!("the clock is set to {wall}"));
            }
            1 => {
                let wall = world.host.wall().saturating_sub(world.below(90_000) as u64);
                world.host.set(wall);
                world.note(format_args!("the clock is set back to {wall}"));
            }
            2 => {
                let millis = world.below(8000) as u64;
                world.host.sleeps(millis);
                world.note(format_args!("the host slept for {millis} ms"));
            }
            3 if !world.is_quiet() => {
                let millis = 1 + world.below(30_000) as u64;
                world.goes_away(Duration::from_millis(millis));
            }
            4 | 5 if world.setup.lies => trouble(&world),
            _ => {}
        }
    }
}
