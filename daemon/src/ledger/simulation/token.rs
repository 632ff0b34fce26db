//! The token: one object store for all lives, and for each life two sessions that work at it.
//!
//! A job may not be begun, break off after any of its operations (done, or not), or be done when nobody waits for it any
//! more. After each change of the object store the newest anchor is read, and may not have gone back.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::{self, Anchor};
use custodyd_hsm::pool::Hand;
use custodyd_hsm::software::SoftCustody;
use custodyd_hsm::{
    AnchorObject, Backend, Custody, Error, KeyId, KeyPurpose, KeyReport, ProvisionReport,
    PublicKey, Result as TokenResult, Secret, TokenDescription,
};

use super::world::{Fault, World};
use crate::ledger::faults::rig::realm_name;

/// Where a job breaks off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    /// So many operations go well.
    after: usize,
    /// The next one is done, and its answer lost.
    done: bool,
}

fn away() -> Error {
    Error::Unavailable {
        operation: "simulated",
        reason: "the token is away".to_owned(),
    }
}

/// What the token remembers, asked directly.
pub(super) fn newest(world: &World) -> TokenResult<Option<Anchor>> {
    anchor::newest(&mut *world.custody(), &realm_name())
}

struct Session {
    inner: SoftCustody,
    world: Arc<World>,
    last: Option<Anchor>,
}

impl Session {
    /// Whether the next operation's answer is lost.
    fn operation(&self) -> TokenResult<bool> {
        let mut state = self.world.state();
        let Some(breaks) = &mut state.breaks else {
            return Ok(false);
        };
        match breaks.after {
            0 if breaks.done => {
                breaks.done = false;
                Ok(true)
            }
            0 => Err(away()),
            _ => {
                breaks.after -= 1;
                Ok(false)
            }
        }
    }

    fn answer<T>(
        &mut self,
        work: impl FnOnce(&mut SoftCustody) -> TokenResult<T>,
    ) -> TokenResult<T> {
        let lost = self.operation()?;
        let answer = work(&mut self.inner);
        match lost {
            true => Err(away()),
            false => answer,
        }
    }

    /// The object store was changed.
    fn changed(&mut self) {
        let newest = anchor::newest(&mut self.inner, &realm_name());
        let before = self.last.take();
        match newest {
            Ok(Some(now)) => {
                if let Some(before) = before {
                    self.compare(&before, &now);
                }
                self.last = Some(now);
            }
            other => self
                .world
                .violated(format!("the token remembers nothing: {other:?}")),
        }
    }

    fn compare(&self, before: &Anchor, now: &Anchor) {
        let goes_on = {
            let disk = &self.world.state().disk;
            let states = (disk.with_head(&before.head), disk.with_head(&now.head));
            matches!(states, (Some(before), Some(now)) if disk.descends(now, before))
        };
        if !goes_on || now.boot_epoch < before.boot_epoch {
            self.world
                .violated(format!("the anchor went back from {before} to {now}"));
        }
    }
}

impl Custody for Session {
    fn current(&self, purpose: KeyPurpose) -> TokenResult<KeyId> {
        self.inner.current(purpose)
    }
    fn newest(&self, purpose: KeyPurpose) -> TokenResult<Option<KeyId>> {
        self.inner.newest(purpose)
    }
    fn holds(&self, key: KeyId) -> TokenResult<bool> {
        self.inner.holds(key)
    }
    fn hmac(&mut self, key: KeyId, message: &[u8]) -> TokenResult<Secret<32>> {
        self.answer(|custody| custody.hmac(key, message))
    }
    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> TokenResult<[u8; 64]> {
        self.answer(|custody| custody.sign(key, digest))
    }
    fn public_key(&mut self, key: KeyId) -> TokenResult<PublicKey> {
        self.answer(|custody| custody.public_key(key))
    }
    fn random(&mut self, out: &mut [u8]) -> TokenResult<()> {
        self.answer(|custody| custody.random(out))
    }
    fn inventory(&mut self) -> TokenResult<Vec<KeyReport>> {
        self.answer(Custody::inventory)
    }
    fn probe(&mut self) -> TokenResult<()> {
        self.answer(Custody::probe)
    }
    fn anchors(&mut self) -> TokenResult<Vec<AnchorObject>> {
        self.answer(Custody::anchors)
    }
    fn anchor_stands(&mut self, content: &[u8]) -> TokenResult<bool> {
        let stands = self.answer(|custody| custody.anchor_stands(content))?;
        // A token knows it by a list of before, and has forgotten that once it was recovered.
        if !stands || self.world.strikes(Fault::Unseen) {
            return Ok(false);
        }
        self.world.count("stands");
        Ok(true)
    }
    fn create_anchor(&mut self, content: &[u8]) -> TokenResult<()> {
        if self.world.strikes(Fault::Worn) {
            return Err(Error::Worn {
                operation: "simulated",
                reason: "for now".to_owned(),
            });
        }
        self.last = newest(&self.world)?;
        let created = self.answer(|custody| custody.create_anchor(content));
        self.changed();
        created
    }
    fn destroy_anchor(&mut self, object: &AnchorObject) -> TokenResult<()> {
        self.last = newest(&self.world)?;
        let destroyed = self.answer(|custody| custody.destroy_anchor(object));
        self.changed();
        destroyed
    }
}

/// The token, as each life opens it.
pub(super) struct Token(pub(super) Arc<World>);

impl Backend for Token {
    fn open(&self) -> TokenResult<Box<dyn Custody>> {
        Ok(Box::new(Session {
            inner: SoftCustody::with_anchors(self.0.anchors.clone()),
            world: Arc::clone(&self.0),
            last: None,
        }))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }
    fn inspect(&self) -> TokenResult<Vec<KeyReport>> {
        Ok(Vec::new())
    }
    fn provision(&self, _dry_run: bool) -> TokenResult<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}

/// One session's work, until its life ends.
pub(super) async fn work(world: Arc<World>, life: u64, mut hand: Hand) {
    loop {
        let taken = hand.take().await;
        let operation = taken.operation();
        world.note(format_args!("{life} token {operation}"));
        if world.chance(30) {
            world.passes().await;
        }
        if world.strikes(Fault::Hang) {
            let millis = 4000 + world.below(6000) as u64;
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        let breaks = if world.strikes(Fault::Token) {
            Some(Break {
                after: 0,
                done: false,
            })
        } else if world.strikes(Fault::Break) {
            Some(Break {
                after: world.below(10),
                done: world.chance(50),
            })
        } else {
            None
        };
        world.state().breaks = breaks;
        hand.run(taken);
        world.state().breaks = None;
        if breaks.is_some() {
            world.note(format_args!("{life} token {operation} broke: {breaks:?}"));
        }
    }
}
