//! Setting and removing the PIN, whichever way it is checked.
//!
//! By Argon2id, the PIN is hashed with the account's own salt and a pepper that only the token can make;
//! by OPAQUE (`opaque_enrol`), the client makes a record under a key that only the token can make. What is
//! stored can not be guessed at without the token. An account has one PIN: setting it one way replaces one of the other.
//! A new PIN starts with a new budget: whoever may set one has just proven something at least as strong.

use std::sync::Arc;

use custodyd_hsm::SecretBytes;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{Factor, PinPolicy, Recovery, pin};

use super::guess::Guess;
use super::passkeys::Consumed;
use super::{Caller, Refused, Service, secrets};
use crate::account::{Account, Pin, PinWay};
use crate::api::{Bound, RemoveFactor, SessionToken, SetPin};
use crate::delivery::Notice;
use crate::factors::pin_argon2::PinRecord;
use crate::ledger::{EventKind, NewEvent};

/// By which way a PIN is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PinCheck {
    Argon2id,
    Opaque,
}

impl PinCheck {
    /// # Errors
    /// `NotAllowed`.
    pub(super) fn allowed(self, policy: &PinPolicy) -> Result<(), Refused> {
        let (way, what) = match self {
            Self::Argon2id => (policy.argon2id, "PIN that the server checks by Argon2id"),
            Self::Opaque => (policy.opaque, "PIN by OPAQUE"),
        };
        match (policy.allowed, way) {
            (true, true) => Ok(()),
            (true, false) => Err(Refused::NotAllowed(what)),
            (false, _) => Err(Refused::NotAllowed("PIN")),
        }
    }

    pub(super) fn is_of(self, way: &PinWay) -> bool {
        match way {
            PinWay::Argon2id(_) => self == Self::Argon2id,
            PinWay::Opaque(_) => self == Self::Opaque,
        }
    }

    /// The refusal where the account has no PIN that is checked this way.
    pub(super) fn missing(self, account: &Account) -> Refused {
        match (self, &account.pin) {
            (_, None) => Refused::NotSet(Guess::Pin),
            (Self::Argon2id, Some(_)) => Refused::PinOtherWay("OPAQUE"),
            (Self::Opaque, Some(_)) => Refused::PinOtherWay("Argon2id on the server"),
        }
    }
}

impl Service {
    /// The account's PIN, which has to be of this kind, and its binding whole.
    pub(super) fn check_pin(&self, account: &Account, check: PinCheck) -> Result<(), Refused> {
        let pin = account.pin.as_ref().filter(|pin| check.is_of(&pin.way));
        let pin = pin.ok_or_else(|| check.missing(account))?;
        let device_id = pin.way.device_id();
        self.bindings
            .check(account, BindingKind::Pin, &device_id, &pin.binding)
    }

    /// Sessions that the old PIN opened end with it, on every device; the one that asks goes on
    /// with the token in the answer.
    ///
    /// # Errors
    /// `StepUp`, `RecoveryWaits`, `PinWeak`, `NotAllowed`, `Busy`, those of rewrapped secrets.
    pub async fn set_pin(
        &self,
        caller: Caller,
        request: SetPin,
    ) -> Result<(Bound, SessionToken), Refused> {
        let policy = &caller.app.policy.pin;
        PinCheck::Argon2id.allowed(policy)?;
        pin::acceptable(policy, request.pin.expose())
            .map_err(|weakness| Refused::PinWeak(weakness.to_string()))?;
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        self.ready_to_recover(&caller, Recovery::ReplacePin).await?;
        let capacity = self.hasher.reserve()?;
        let (mac_key, pepper) = self.newest_pepper(&caller.loaded).await?;
        let secret = SecretBytes::from(request.pin.expose().as_bytes().to_vec());
        let enrolled = self.hasher.enrol(capacity, secret, pepper, policy);
        let record = PinRecord {
            mac_key,
            ..enrolled.await?
        };
        self.replace_pin(caller, PinWay::Argon2id(Arc::new(record)), writes, None)
            .await
    }

    /// Puts a new PIN in the place of one of before, whichever way that was checked. `used` is used up by it.
    pub(super) async fn replace_pin(
        &self,
        caller: Caller,
        way: PinWay,
        writes: secrets::Writes,
        used: Option<Consumed>,
    ) -> Result<(Bound, SessionToken), Refused> {
        let now = self.now();
        let device_id = way.device_id();
        let [binding] = self
            .bindings
            .sign(
                &caller.app.id,
                caller.account().id,
                [(BindingKind::Pin, device_id.clone())],
                now,
            )
            .await?;
        let answer = Bound {
            device_id: device_id.clone(),
            binding: binding.clone(),
        };
        let (app, loaded) = (caller.app.clone(), caller.loaded.clone());
        let ((session, replaced, granted), loaded) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                let now = moment.now;
                if let Some(used) = used {
                    used.once(account, now)?;
                }
                let granted = caller.recovers(account, Recovery::ReplacePin, now, journal)?;
                // A forgotten PIN's own slots may go with it; those of stronger factors are not the weaker one's to touch.
                writes.admitted(&caller, account, Some(Factor::Pin), now)?;
                let mut session = caller.session.clone();
                if session.factor == Factor::Pin {
                    session.factor_id = Some(device_id.clone());
                }
                journal.note(NewEvent::new(EventKind::PinSet).on(&device_id));
                let replaced = account.pin.is_some();
                // Guesses that are being evaluated were made at the old PIN: they keep
                // counting and can not settle anything any more.
                let old = account.pin.take();
                let old = old.map(|old| (old.budget, old.strangers, old.after_code));
                let (mut budget, mut strangers, mut after_code) = old.unwrap_or_default();
                budget.secret_replaced(moment.now);
                strangers.secret_replaced(moment.now);
                after_code.secret_replaced(moment.now);
                account.pin = Some(Pin {
                    way,
                    device_id,
                    binding,
                    set: moment.now,
                    budget,
                    strangers,
                    after_code,
                });
                writes.apply(account, moment.now, journal)?;
                Ok((session, replaced, granted))
            })
            .await?;
        let usual = if replaced {
            Notice::PinReplaced
        } else {
            Notice::FactorAdded
        };
        self.recovered(&loaded.account, granted, Some(usual));
        let token = self.session_token(&app, &session, now).await?;
        Ok((answer, token))
    }

    /// # Errors
    /// `StepUp`, `NotSet`, those of rewrapped secrets, `LastSlot`.
    pub async fn remove_pin(&self, caller: Caller, request: RemoveFactor) -> Result<(), Refused> {
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        let loaded = caller.loaded.clone();
        let ((), loaded) = self
            .ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Pin, moment.now)?;
                writes.admitted(&caller, account, Some(Factor::Pin), moment.now)?;
                let pin = account.pin.take().ok_or(Refused::NotSet(Guess::Pin))?;
                journal.note(NewEvent::new(EventKind::PinRemoved).on(&pin.device_id));
                writes.apply(account, moment.now, journal)
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorRemoved);
        Ok(())
    }
}
