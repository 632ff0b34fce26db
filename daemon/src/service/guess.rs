//! What can be guessed: reserved for, charged, evaluated, recorded, for every such factor alike.
//!
//! Called by the sign-ins, between loading the account and opening a session. The adversary
//! chooses guesses, their order and how many run at once, and may cut the power, the database
//! or the connection at any point. So a guess is charged durably before it is looked at, its
//! outcome goes into the same commit as the session it opens, and a guess at a credential that
//! was replaced meanwhile opens nothing. Must never evaluate anything itself, nor tell a
//! stranger how many attempts are left.

mod kind;
#[cfg(test)]
mod tests;

use std::time::Duration;

use custodyd_policies::{Budget, ChargeId, Factor, Rounds, Standing, Timestamp, release};
use serde::{Deserialize, Serialize};

pub use self::kind::Guess;
use super::unfinished::Began;
use super::{Device, Refused, Service, counted, held, quarantine, sessions, standing};
use crate::account::Account;
use crate::ledger::{Journal, Loaded, NewEvent};

/// A charge whose outcome was never recorded counts as failed from then on.
const EVALUATION: Duration = Duration::from_secs(60);
/// As long as a device identifier, and none: that of a PIN is a hash.
const NO_CREDENTIAL: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A guess that has been paid for. A login in several messages may keep it meanwhile, where
/// nobody else can change it: in the envelope or in a sealed token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Charged {
    guess: Guess,
    charge: ChargeId,
    /// Device identifier of the credential that is guessed at.
    pub(super) credential: String,
    /// Thumbprint of the device that guesses.
    thumbprint: String,
    /// The outcome has to be recorded before.
    pub(super) expires: Timestamp,
}

/// How the outcome of a guess comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the request that guesses.
    AtOnce,
    /// With a later one, or never. It may be sent twice: the second time nothing is recorded.
    Later(Began),
}

impl Outcome {
    /// Records that the guess was right.
    pub(super) fn succeed(
        self,
        charged: &Charged,
        account: &mut Account,
        now: Timestamp,
    ) -> Result<(), Refused> {
        match self {
            Self::AtOnce => charged.succeed(account, now),
            Self::Later(_) => charged.succeed_once(account, now),
        }
    }
}

impl Charged {
    /// What a stranger who was charged nothing is given, where others get a charge: nothing in any account is like it.
    pub(super) fn nothing(device: &Device, expires: Timestamp) -> Self {
        Self {
            guess: Guess::StrangerPin,
            charge: ChargeId(0),
            credential: NO_CREDENTIAL.to_owned(),
            thumbprint: device.key.thumbprint.clone(),
            expires,
        }
    }

    /// A guess at some PIN by a bound device.
    #[cfg(test)]
    pub(super) fn at_a_pin(expires: Timestamp) -> Self {
        Self {
            guess: Guess::Pin,
            charge: ChargeId(1),
            credential: NO_CREDENTIAL.to_owned(),
            thumbprint: String::new(),
            expires,
        }
    }

    pub(super) fn guess(&self) -> Guess {
        self.guess
    }

    /// Whether the credential that was guessed at is still the account's PIN.
    pub(super) fn is_at(&self, account: &Account) -> bool {
        let pin = account.pin.as_ref();
        pin.is_some_and(|pin| pin.device_id == self.credential)
    }

    /// How many digits its number has, of the most that there can be.
    pub(super) fn digits(&self) -> (usize, usize) {
        (self.charge.0.to_string().len(), 20)
    }

    /// Charges one guess in the account's state. To be committed before it is evaluated, which
    /// has to be done before `expires`.
    pub(super) fn new(
        guess: Guess,
        device: &Device,
        account: &mut Account,
        now: Timestamp,
        expires: Timestamp,
        journal: &mut Journal,
    ) -> Result<Self, Refused> {
        let thumbprint = &device.key.thumbprint;
        if guess.by_bound_device() && account.device(thumbprint).is_none() {
            return Err(Refused::AuthenticationFailed);
        }
        quarantine::admits(account, device, guess.factor(), now)
            .map_err(|refused| guess.told(refused))?;
        let rounds = guess.rounds(&device.app.policy);
        let (credential, budget) = guess
            .target(account)
            .ok_or_else(|| guess.told(Refused::NotSet(guess)))?;
        let charge = budget
            .charge(&rounds, now, expires)
            .map_err(|refused| guess.told(Refused::budget(guess, refused, now)))?;
        let charged = Self {
            guess,
            charge,
            credential: credential.to_owned(),
            thumbprint: thumbprint.clone(),
            expires,
        };
        let (kind, _) = guess.events();
        journal.note(NewEvent::new(kind).by(guess.factor()).on(thumbprint));
        Ok(charged)
    }

    /// Records that the guess was right: only a charge that is still pending, at a credential
    /// that is still the account's, by a device that is still what it was.
    pub(super) fn succeed(&self, account: &mut Account, now: Timestamp) -> Result<(), Refused> {
        // A charge that expired meanwhile has become a failure and opens nothing.
        self.budget(account)?
            .succeed(self.charge, now)
            .map_err(|_| Refused::AuthenticationFailed)
    }

    /// Records that the guess was wrong, and how the budget stands then.
    pub(super) fn fail(
        &self,
        rounds: &Rounds,
        account: &mut Account,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<Standing, Refused> {
        let budget = self.budget(account)?;
        // A charge that expired meanwhile counts as this failure already.
        let _ = budget.fail(self.charge, now);
        let standing = budget.standing(rounds, now);
        let (_, kind) = self.guess.events();
        journal.note(
            NewEvent::new(kind)
                .by(self.guess.factor())
                .on(&self.thumbprint),
        );
        Ok(standing)
    }

    /// As `fail`, of a guess whose outcome may be sent twice: the second time nothing is recorded.
    fn fail_once(
        &self,
        rounds: &Rounds,
        account: &mut Account,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<Standing, Refused> {
        let pending = self.budget(account)?.is_pending(self.charge, now);
        match pending {
            true => self.fail(rounds, account, now, journal),
            false => Err(self.guess.told(Refused::CeremonyConsumed)),
        }
    }

    /// As `succeed`, of a guess whose outcome may be sent twice.
    fn succeed_once(&self, account: &mut Account, now: Timestamp) -> Result<(), Refused> {
        let budget = self.budget(account)?;
        budget
            .succeed(self.charge, now)
            .map_err(|_| self.guess.told(Refused::CeremonyConsumed))
    }

    /// The refusal for a wrong guess, as the one who guessed may see it.
    pub(super) fn wrong(&self, standing: &Standing) -> Refused {
        self.guess.told(Refused::Wrong {
            guess: self.guess,
            left: standing.left,
            wait_until: standing.wait_until,
            exhausted: standing.exhausted,
        })
    }

    /// What the session names as its factor.
    pub(super) fn proven(&self) -> sessions::Proven {
        sessions::Proven::with(self.guess.factor(), self.credential.clone())
    }

    /// The budget of the credential that was charged, if that is still the account's and the
    /// device still bound.
    fn budget<'a>(&self, account: &'a mut Account) -> Result<&'a mut Budget, Refused> {
        if self.guess.by_bound_device() && account.device(&self.thumbprint).is_none() {
            return Err(Refused::AuthenticationFailed);
        }
        self.guess
            .target(account)
            .filter(|(credential, _)| *credential == self.credential)
            .map(|(_, budget)| budget)
            .ok_or(Refused::AuthenticationFailed)
    }
}

/// `by` has just shown who the owner is: what it could replace may be tried again. To be
/// asked before the device is bound.
///
/// Whoever may replace a credential gains nothing by guessing at it; whoever may not must run out
/// of guesses. So a weaker factor resets nothing: else a thief of the device, on which the mail
/// and the authenticator app are at hand too, would never run out of PINs. And the authenticator
/// app, although it is stronger than a code, resets no codes unless it may also change the
/// contact that they go to: a policy may let codes do what the app may not. Strangers get their
/// tries back only when the owner comes in from a device that is not bound, where they matter:
/// else each ordinary sign-in would buy everybody more guesses.
pub(super) fn vouch(account: &mut Account, device: &Device, by: Factor, now: Timestamp) {
    let bound = account.device(&device.key.thumbprint).is_some();
    let mut held = held(account, &device.app, now);
    if !held.contains(&by) {
        // The last recovery code, which has just been used.
        held.push(by);
    }
    for guess in Guess::ALL {
        let may_replace = release::step_up(guess.worth(), &held, by, true).is_ok();
        let weaker = guess.factor() != by && guess.factor().strength() <= by.strength();
        if weaker && may_replace && !(bound && guess.by_stranger()) {
            guess.reset(account, now);
        }
    }
}

impl Service {
    /// Charges a guess, durable before it is looked at, and hands out what it is evaluated
    /// against: `pick` takes that from the very state that was charged.
    ///
    /// # Errors
    /// As [`Charged::new`], and those of a commit.
    pub(super) async fn charge<C: Send + 'static>(
        &self,
        guess: Guess,
        device: &Device,
        loaded: Loaded,
        pick: impl FnOnce(&Account) -> Result<C, Refused> + Send + 'static,
    ) -> Result<(Charged, C, Loaded), Refused> {
        self.charge_for(guess, EVALUATION, device, loaded, pick)
            .await
    }

    /// As `charge`, of a guess whose outcome is known within `lasts`.
    pub(super) async fn charge_for<C: Send + 'static>(
        &self,
        guess: Guess,
        lasts: Duration,
        device: &Device,
        loaded: Loaded,
        pick: impl FnOnce(&Account) -> Result<C, Refused> + Send + 'static,
    ) -> Result<(Charged, C, Loaded), Refused> {
        let device = device.clone();
        let ((charged, picked), loaded) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                let expires = moment.now.plus(lasts);
                let charged = Charged::new(guess, &device, account, moment.now, expires, journal)?;
                Ok((charged, pick(account)?))
            })
            .await?;
        Ok((charged, picked, loaded))
    }

    /// Records a wrong guess, and returns the refusal that it gets.
    pub(super) async fn record_wrong(
        &self,
        device: &Device,
        loaded: Loaded,
        charged: Charged,
    ) -> Refused {
        self.wrong(device, loaded, charged, Outcome::AtOnce).await
    }

    /// The same of a guess whose outcome may be sent twice.
    pub(super) async fn record_wrong_once(
        &self,
        device: &Device,
        loaded: Loaded,
        charged: Charged,
        began: Began,
    ) -> Refused {
        self.wrong(device, loaded, charged, Outcome::Later(began))
            .await
    }

    async fn wrong(
        &self,
        device: &Device,
        loaded: Loaded,
        charged: Charged,
        comes: Outcome,
    ) -> Refused {
        // The charge stands in any case: an unrecorded outcome counts as a failure. So it is counted before it is recorded,
        // which may take for longer than a request has. One that may yet come is counted once its time is over.
        if comes == Outcome::AtOnce {
            // Here, because its answer may be another one than that it was wrong.
            self.count_wrong(charged.guess, |guess| {
                guess.is_counted_here() || standing::is_counted()
            });
        }
        let recorded = self.record(device, loaded, &charged, comes).await;
        if recorded.is_ok() && comes != Outcome::AtOnce {
            // A stranger's was as it began.
            self.count_wrong(charged.guess, |guess| guess != Guess::StrangerPin);
        }
        match recorded {
            Ok(standing) => {
                counted::stands(charged.guess.factor(), &standing);
                charged.wrong(&standing)
            }
            Err(refused) => refused,
        }
    }

    fn count_wrong(&self, guess: Guess, is_the_realms: impl FnOnce(Guess) -> bool) {
        counted::wrong(guess.factor());
        if is_the_realms(guess) {
            self.strangers.failed(self.now());
        }
    }

    async fn record(
        &self,
        device: &Device,
        loaded: Loaded,
        charged: &Charged,
        comes: Outcome,
    ) -> Result<Standing, Refused> {
        let rounds = charged.guess.rounds(&device.app.policy);
        let wrong = charged.clone();
        let (standing, _) = self
            .ledger
            .record_outcome::<_, Refused>(loaded, move |account, moment, journal| {
                let fail = match comes {
                    Outcome::AtOnce => Charged::fail,
                    Outcome::Later(_) => Charged::fail_once,
                };
                fail(&wrong, &rounds, account, moment.now, journal)
            })
            .await?;
        self.is_recorded(charged, comes);
        Ok(standing)
    }

    /// The guess's outcome is durable, and only now nobody waits for it any more: one that is cut off before is
    /// counted as a failure once its time is over.
    pub(super) fn is_recorded(&self, charged: &Charged, comes: Outcome) {
        if let Outcome::Later(began) = comes {
            self.unfinished.ended(charged, began);
        }
    }
}
