//! A PIN from a device that is not bound, where the policy has a budget for such tries.
//!
//! Called by the sign-in with a PIN. The adversary names accounts, and looks whether a try takes
//! the time of an evaluation, and whether it is refused because too many wait. So whoever names
//! an account that does not exist, has no PIN or has no such try left gets the same place in
//! the same queue and an evaluation of the same cost, and only then the refusal of a wrong PIN.
//! What a commit takes beside it is hidden by a wait before and after the evaluation, each to the
//! next multiple of the strangers' deadline. Nothing is written for a decoy. (By OPAQUE the same is done in
//! `opaque_sign_in`.)

use custodyd_hsm::{AccountId, RecordId, SecretBytes};
use custodyd_policies::{Factor, UnknownDevice, unknown_device};

use super::guess::Guess;
use super::pin::PinCheck;
use super::{Device, Refused, Service};
use crate::factors::pin_argon2::Reservation;
use crate::ledger::Loaded;

/// No account has this identifier: it would be the token's MAC over its name.
const NOBODY: RecordId = RecordId([0; 32]);

impl Service {
    /// Whose budget a PIN from this device costs: that of the bound devices, or where the policy
    /// has one, that of all others. For those, no account is returned where no try would be
    /// charged: what follows must look the same.
    pub(super) async fn may_try_pin(
        &self,
        device: &Device,
        account: AccountId,
        check: PinCheck,
    ) -> Result<(Guess, Option<Loaded>), Refused> {
        let found = match self.known(device, account).await {
            Ok(loaded) if self.is_bound(device, &loaded)? => {
                return Ok((Guess::Pin, Some(loaded)));
            }
            Ok(loaded) => Some(loaded),
            Err(Refused::AuthenticationFailed) => None,
            Err(refused) => return Err(refused),
        };
        match unknown_device(&device.app.policy, Factor::Pin) {
            UnknownDevice::Full => {
                let guess = Guess::StrangerPin;
                let rounds = guess.rounds(&device.app.policy);
                let may_try = |loaded: &Loaded| {
                    let pin = loaded.account.pin.as_ref();
                    let pin = pin.filter(|pin| check.is_of(&pin.way));
                    pin.is_some_and(|pin| pin.strangers.standing(&rounds, self.now()).left > 0)
                };
                Ok((guess, found.filter(may_try)))
            }
            UnknownDevice::ThenPin | UnknownDevice::Refused => Err(Refused::AuthenticationFailed),
        }
    }

    /// A place for the evaluation, asked for before it shows whether there is anything to try.
    pub(super) fn place_for(&self, guess: Guess) -> Result<Reservation, Refused> {
        Ok(match guess {
            Guess::StrangerPin => self.hasher.reserve_for_stranger()?,
            _ => self.hasher.reserve()?,
        })
    }

    /// All that a stranger's wrong PIN costs, but for the writing.
    pub(super) async fn decoy_pin(
        &self,
        device: &Device,
        capacity: Reservation,
        pin: SecretBytes,
    ) -> Refused {
        let pepper = match self.pepper_of(&device.app.id, NOBODY, None).await {
            Ok((_, pepper)) => pepper,
            Err(refused) => return refused,
        };
        self.strangers_wait(Guess::StrangerPin).await;
        let policy = &device.app.policy.pin;
        let evaluated = self.hasher.decoy(capacity, pin, pepper, policy).await;
        self.strangers_wait(Guess::StrangerPin).await;
        match evaluated {
            Ok(()) => Refused::AuthenticationFailed,
            Err(error) => error.into(),
        }
    }

    /// Before and after an evaluation: what was done until now is done by everybody.
    pub(super) async fn strangers_wait(&self, guess: Guess) {
        if guess == Guess::StrangerPin {
            self.strangers.wait().await;
        }
    }

    /// The same where nothing is held that is scarce but the request's place: that is not slept in.
    pub(super) fn strangers_wait_later(&self, guess: Guess) {
        if guess == Guess::StrangerPin {
            self.strangers.wait_later();
        }
    }
}
