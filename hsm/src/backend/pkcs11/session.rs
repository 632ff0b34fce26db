//! A worker's custody: one session, thrown away after any error.
//!
//! Opened by the pool, one per thread. An operation that a session left active
//! would make its next one fail, so a session that ever failed is never used
//! again. Operations that change nothing in the token are repeated once on a
//! fresh session; those on anchors that do are not, because nobody knows whether
//! the first one was done.

use std::sync::Arc;

use cryptoki::session::Session;

use super::{
    anchor,
    epoch::{Epoch, Shared},
    keys::Scan,
    mechanism::{self, Attempt, Trouble},
    provision,
};
use crate::{
    backend::origin as origins,
    custody::{AnchorObject, Custody, check_anchor, check_message, not_there},
    ed25519::Ed25519Key,
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::Secret,
};

pub(super) struct Pkcs11Custody {
    shared: Arc<Shared>,
    session: Option<Open>,
}

/// A session, with the epoch that it is of. After the module was finalised its handle means nothing,
/// or worse, somebody else's session.
struct Open {
    epoch: u64,
    /// Of the module.
    life: u64,
    session: Session,
}

impl Open {
    /// Closes what is of an earlier epoch, if the module was not finalised since: another token needs it.
    fn forget(self, now: &Epoch) {
        if self.life == now.connection.life() {
            let _ = self.session.close();
        }
    }
}

impl Pkcs11Custody {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            session: None,
        }
    }

    /// Runs an operation; after a failure once more on a fresh session that
    /// gave the known answer; after a failure there, recovery.
    fn run<T>(
        &mut self,
        operation: &'static str,
        mut call: impl FnMut(&Session, &Epoch) -> Attempt<T>,
    ) -> Result<T> {
        self.settle(operation, |custody, epoch| custody.twice(epoch, &mut call))
    }

    /// Runs an operation that must not be done twice. After a failure the known
    /// answer decides whether the token is sick or only refused this.
    fn run_once<T>(
        &mut self,
        operation: &'static str,
        mut call: impl FnMut(&Session, &Epoch) -> Attempt<T>,
    ) -> Result<T> {
        self.settle(operation, |custody, epoch| {
            let outcome = custody.once(epoch, &mut call);
            let Err(Trouble::Sick(reason)) = outcome else {
                return outcome;
            };
            custody.once(epoch, &mut |session, epoch| epoch.probe(session))?;
            Err(Trouble::Final(Error::Unavailable { operation, reason }))
        })
    }

    /// Does the work within the epoch; where the token is sick, recovery begins.
    fn settle<T>(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&mut Self, &Epoch) -> Attempt<T>,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let (epoch, reason) = match shared.with_epoch(operation, |epoch| {
            work(self, epoch).map_err(|trouble| (epoch.number, trouble))
        }) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err((_, Trouble::Final(error)))) => return Err(error),
            Ok(Err((epoch, Trouble::Sick(reason)))) => (epoch, reason),
            Err(error) => {
                if shared.lies_idle() {
                    shared.recover(shared.epoch(), "no epoch");
                }
                return Err(error);
            }
        };
        shared.recover(epoch, &reason);
        Err(Error::Unavailable { operation, reason })
    }

    fn twice<T>(
        &mut self,
        epoch: &Epoch,
        call: &mut impl FnMut(&Session, &Epoch) -> Attempt<T>,
    ) -> Attempt<T> {
        match self.once(epoch, call) {
            Err(Trouble::Sick(reason)) => {
                tracing::debug!(reason, "one operation failed; trying a fresh session");
                self.once(epoch, &mut |session, epoch| epoch.probe(session))?;
                self.once(epoch, call)
            }
            settled => settled,
        }
    }

    /// One attempt on the session at hand, or a new one. A sick one is closed. Where there is no room for one, on the spare.
    fn once<T>(
        &mut self,
        epoch: &Epoch,
        call: &mut impl FnMut(&Session, &Epoch) -> Attempt<T>,
    ) -> Attempt<T> {
        let session = match self.session.take() {
            Some(open) if open.epoch == epoch.number => open.session,
            earlier => {
                if let Some(open) = earlier {
                    open.forget(epoch);
                }
                match epoch.connection.open_if_there_is_room()? {
                    Ok(session) => session,
                    Err(reason) => {
                        return epoch.on_the_spare(&reason, |session| call(session, epoch));
                    }
                }
            }
        };
        let outcome = call(&session, epoch);
        if matches!(outcome, Err(Trouble::Sick(_))) {
            let _ = session.close();
        } else {
            self.session = Some(Open {
                epoch: epoch.number,
                life: epoch.connection.life(),
                session,
            });
        }
        outcome
    }
}

impl Custody for Pkcs11Custody {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        let newest = |epoch: &Epoch| epoch.keys().newest(purpose);
        self.shared.with_epoch("current", newest)?.ok_or_else(|| {
            let name = purpose.name();
            Error::Misconfigured(format!("the token holds no {name} key"))
        })
    }

    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        self.shared
            .with_epoch("newest", |epoch| epoch.keys().newest(purpose))
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        self.shared
            .with_epoch("holds", |epoch| epoch.keys().holds(key))
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        check_message(message)?;
        self.run("hmac", |session, epoch| {
            mechanism::hmac(session, epoch.at_work(key).secret(key)?, message)
        })
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.run("sign", |session, epoch| {
            let (handle, _) = epoch.at_work(key).pair(key)?;
            mechanism::ecdsa(session, handle, digest)
        })
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.shared
            .with_epoch("public key", |epoch| epoch.keys().pair(key))?
            .map(|(_, public)| public)
    }

    fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> Result<[u8; 64]> {
        check_message(message)?;
        self.run("sign", |session, epoch| {
            let (handle, _) = epoch.at_work(key).edwards(key)?;
            mechanism::eddsa(session, handle, message)
        })
    }

    fn ed25519_key(&mut self, key: KeyId) -> Result<Ed25519Key> {
        self.shared
            .with_epoch("public key", |epoch| epoch.keys().edwards(key))?
            .map(|(_, public)| public)
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let origin = shared.options.origin;
        origins::refuse_unescrowed(origin, key)?;
        self.run_once("make a key", |session, epoch| {
            // Whatever stands under this label, whole or half: a second one would be worse.
            if !Scan::of(session, origin)?.objects_of(key).is_empty() {
                let there = Error::invalid("key version", format!("{key} is in the token already"));
                return Err(Trouble::Final(there));
            }
            provision::make(session, key)?;
            shared.look_again(session, epoch, None)
        })
    }

    fn take_up_key(&mut self, key: KeyId) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.run_once("take up a key", |session, epoch| {
            if !epoch.keys().holds(key) {
                shared.look_again(session, epoch, None)?;
            }
            match epoch.keys().holds(key) {
                true => Ok(()),
                false => Err(Trouble::Final(not_there(key))),
            }
        })
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let origin = shared.options.origin;
        self.run_once("destroy a key", |session, epoch| {
            let others = Scan::of(session, origin)?.table()?.but(key);
            if others == 0 {
                let only = format!("{key} is the only key of its purpose");
                return Err(Trouble::Final(Error::invalid("key version", only)));
            }
            for object in Scan::of(session, origin)?.objects_of(key) {
                session.destroy_object(object)?;
            }
            shared.look_again(session, epoch, Some(key))
        })
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.run("random", |session, _| mechanism::random(session, out))
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        let origin = self.shared.options.origin;
        self.run("inventory", |session, _| {
            Ok(Scan::of(session, origin)?.reports())
        })
    }

    fn probe(&mut self) -> Result<()> {
        self.run("probe", |session, epoch| epoch.probe(session))
    }

    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.run("list anchors", |session, epoch| {
            let listed = anchor::list(session, epoch.place(), epoch.number)?;
            let seen = epoch.seen_anchors();
            if epoch.is_in_files() && anchor::some_are_missed(&seen, &listed) {
                // An object whose file was away when the module looked at it is gone for the module as long as that is in use,
                // however well the keys answer. One that is initialised anew is believed, whatever it shows.
                let reason = "a realm's anchors are not shown any more, which is known of a token that was away for a moment";
                return Err(Trouble::Sick(reason.to_owned()));
            }
            let objects = listed.iter().map(|(_, object)| object.clone()).collect();
            epoch.saw_anchors(listed);
            Ok(objects)
        })
    }

    fn anchor_stands(&mut self, content: &[u8]) -> Result<bool> {
        self.run("look at an anchor", |session, epoch| {
            let seen = epoch.seen_anchors();
            let mut alike = seen.iter().filter(|(_, object)| object.content == content);
            Ok(alike
                .any(|(handle, object)| anchor::is_still(session, epoch.place(), *handle, object)))
        })
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        check_anchor(content)?;
        self.run_once("create an anchor", |session, epoch| {
            anchor::create(session, epoch.place(), epoch.is_in_files(), content)
        })
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        const OPERATION: &str = "destroy an anchor";
        self.run_once(OPERATION, |session, epoch| {
            if object.handle.epoch != epoch.number {
                let reason = "it was listed before the token was recovered";
                return Err(Trouble::Final(Error::unavailable(OPERATION, reason)));
            }
            anchor::destroy(session, epoch.place(), (object, &epoch.seen_anchors()))?;
            epoch.destroyed_anchor(object);
            Ok(())
        })
    }
}

impl Drop for Pkcs11Custody {
    /// Closes the session if its handle still means it. The epoch that
    /// [`Shared::with_epoch`] has keeps that so meanwhile.
    fn drop(&mut self) {
        let Some(open) = self.session.take() else {
            return;
        };
        let _ = self.shared.with_epoch("close", |epoch| open.forget(epoch));
    }
}
