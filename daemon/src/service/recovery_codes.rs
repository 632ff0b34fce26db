//! Recovery codes: a set of ten, and signing in with one, from any device.
//!
//! Whoever knows an account's name may send codes for it, from anywhere. A code has 128 random
//! bits: a thousand tries a second for a century find one of ten with a chance of 2^-83. A
//! count of strangers' tries would so protect nothing, and would let any stranger use it up and
//! shut out the owner who has lost everything else. Therefore a stranger's code is not charged:
//! a wrong one changes nothing and gets the decoy's answer, a right one is spent in the commit
//! that opens its session, and nothing is told before that commit is durable. So no evaluation
//! can be repeated by cutting us off between it and its record, which is what charging first is
//! for. A bound device is charged first like for any other guess, on a budget that strangers
//! can not touch, so that its owner sees tries made on it.

use custodyd_hsm::binding::BindingKind;
use custodyd_policies::Factor;

use super::authenticate::{Opened, open_session};
use super::guess::{self, Charged, Guess};
use super::{Caller, Device, Refused, Service, counted, devices, secrets, sessions};
use crate::account::{Account, BoundRecoveryCodes};
use crate::api::{
    Bound, RecoveryCodeSession, RemoveFactor, SessionStarted, SessionToken, SetRecoveryCodes,
};
use crate::bytes::SharedSecret;
use crate::delivery::Notice;
use crate::factors::recovery_code::{PART_BYTES, RecoveryCodes, RecoveryCodesError};
use crate::ledger::{EventKind, Journal, Loaded, NewEvent};

impl Service {
    /// Takes a set over in place of the one before, whose sessions end; the one that asks goes
    /// on with the token in the answer.
    ///
    /// # Errors
    /// `NotAllowed`, `StepUp`, `Malformed`, those of rewrapped secrets.
    pub async fn set_recovery_codes(
        &self,
        caller: Caller,
        request: SetRecoveryCodes,
    ) -> Result<(Bound, SessionToken), Refused> {
        let now = self.now();
        if !caller.app.policy.recovery_codes.allowed {
            return Err(Refused::NotAllowed("recovery code"));
        }
        caller.step_up(caller.account(), Factor::RecoveryCode, now)?;
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        let codes = RecoveryCodes::enrol(&request.codes)?;
        let device_id = codes.device_id();
        let [binding] = self
            .bindings
            .sign(
                &caller.app.id,
                caller.account().id,
                [(BindingKind::RecoveryCodes, device_id.clone())],
                now,
            )
            .await?;
        let answer = Bound {
            device_id: device_id.clone(),
            binding: binding.clone(),
        };
        let (app, loaded) = (caller.app.clone(), caller.loaded.clone());
        let (session, loaded) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::RecoveryCode, moment.now)?;
                writes.admitted(&caller, account, Some(Factor::RecoveryCode), moment.now)?;
                let mut session = caller.session.clone();
                if session.factor == Factor::RecoveryCode {
                    session.factor_id = Some(device_id.clone());
                }
                journal.note(NewEvent::new(EventKind::RecoveryCodesSet).on(&device_id));
                let old = account.recovery_codes.take();
                let mut budget = old.map(|set| set.budget).unwrap_or_default();
                budget.secret_replaced(moment.now);
                account.recovery_codes = Some(BoundRecoveryCodes {
                    codes,
                    device_id,
                    binding,
                    added: moment.now,
                    budget,
                });
                writes.apply(account, moment.now, journal)?;
                Ok(session)
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorAdded);
        let token = self.session_token(&app, &session, now).await?;
        Ok((answer, token))
    }

    /// # Errors
    /// `StepUp`, `NotSet`, those of rewrapped secrets, `LastSlot`.
    pub async fn remove_recovery_codes(
        &self,
        caller: Caller,
        request: RemoveFactor,
    ) -> Result<(), Refused> {
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        let loaded = caller.loaded.clone();
        let ((), loaded) = self
            .ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::RecoveryCode, moment.now)?;
                writes.admitted(&caller, account, Some(Factor::RecoveryCode), moment.now)?;
                let set = account.recovery_codes.take();
                let set = set.ok_or(Refused::NotSet(Guess::RecoveryCode))?;
                journal.note(NewEvent::new(EventKind::RecoveryCodesRemoved).on(&set.device_id));
                writes.apply(account, moment.now, journal)
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorRemoved);
        Ok(())
    }

    /// # Errors
    /// `AuthenticationFailed` for strangers; a bound device learns `Wrong` (also for a code
    /// that was used), `Wait`, `Exhausted`, `NotSet`.
    pub async fn sign_in_with_recovery_code(
        &self,
        device: Device,
        request: RecoveryCodeSession,
    ) -> Result<SessionStarted, Refused> {
        if !device.app.policy.recovery_codes.allowed {
            return Err(Refused::NotAllowed("recovery code"));
        }
        if request.code.len() != PART_BYTES {
            return Err(Refused::Malformed(format!(
                "the auth part of a recovery code has {PART_BYTES} bytes"
            )));
        }
        let bind = request.bind_device.map(devices::wanted).transpose()?;
        let by = Factor::RecoveryCode;
        let releases = secrets::Releases::new(&device.app, by, true, request.release)?;
        let loaded = self.known(&device, request.account).await?;
        let bound = self.is_bound(&device, &loaded)?;
        let set = loaded.account.recovery_codes.as_ref().ok_or(if bound {
            Refused::NotSet(Guess::RecoveryCode)
        } else {
            Refused::AuthenticationFailed
        })?;
        self.bindings.check(
            &loaded.account,
            BindingKind::RecoveryCodes,
            &set.device_id,
            &set.binding,
        )?;
        let (charged, loaded) = if bound {
            releases.exist_in(&loaded.account)?;
            self.charged_code(&device, loaded, &request.code).await?
        } else if set.codes.find(request.code.expose()).is_some() {
            (None, loaded)
        } else {
            counted::wrong(Factor::RecoveryCode);
            return Err(Refused::AuthenticationFailed);
        };

        let binding = match &bind {
            Some(_) => Some(self.sign_charged(&device, loaded.account.id).await?),
            None => None,
        };
        let asks = device.clone();
        let before = loaded.account.devices.len();
        let (outcome, loaded) = self
            .ledger
            .record_outcome::<Result<Opened, Refused>, Refused>(
                loaded,
                move |account, moment, journal| {
                    let Some(set) = spent(account, charged.as_ref(), &request.code, journal) else {
                        // Another request spent this code meanwhile, or the set was replaced.
                        let charged = charged.ok_or(Refused::AuthenticationFailed)?;
                        let rounds = Guess::RecoveryCode.rounds(&asks.app.policy);
                        let standing = charged.fail(&rounds, account, moment.now, journal)?;
                        return Ok(Err(charged.wrong(&standing)));
                    };
                    match &charged {
                        Some(charged) => charged.succeed(account, moment.now)?,
                        None => Guess::RecoveryCode.reset(account, moment.now),
                    }
                    guess::vouch(account, &asks, by, moment.now);
                    if let (Some(wanted), Some(binding)) = (bind, binding) {
                        devices::bind(account, &asks, wanted, binding, moment.now, journal)?;
                    }
                    let proven = sessions::Proven::with(by, set);
                    open_session(&asks, account, proven, &releases, moment, journal).map(Ok)
                },
            )
            .await?;
        let opened = outcome?;
        if loaded.account.devices.len() > before {
            self.tell(&loaded.account, Notice::DeviceAdded);
        }
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    /// A bound device's code: charged, then looked at; a wrong one ends here.
    async fn charged_code(
        &self,
        device: &Device,
        loaded: Loaded,
        code: &SharedSecret,
    ) -> Result<(Option<Charged>, Loaded), Refused> {
        let (charged, codes, loaded) = self
            .charge(Guess::RecoveryCode, device, loaded, |account| {
                let set = account.recovery_codes.as_ref();
                let codes = set.map(|set| set.codes.clone());
                codes.ok_or(Refused::NotSet(Guess::RecoveryCode))
            })
            .await?;
        if codes.find(code.expose()).is_none() {
            return Err(self.record_wrong(device, loaded, charged).await);
        }
        Ok((Some(charged), loaded))
    }
}

/// Spends the code in the newest state and names its set. None where it was spent before, or
/// where the set that was charged is not the account's any more.
fn spent(
    account: &mut Account,
    charged: Option<&Charged>,
    code: &SharedSecret,
    journal: &mut Journal,
) -> Option<String> {
    let set = account
        .recovery_codes
        .as_mut()
        .filter(|set| charged.is_none_or(|charged| charged.credential == set.device_id))?;
    let index = set.codes.find(code.expose())?;
    set.codes.spend(index).ok()?;
    let left = format!("{} left", set.codes.left());
    journal.note(
        NewEvent::new(EventKind::RecoveryCodeSpent)
            .by(Factor::RecoveryCode)
            .on(&set.device_id)
            .about(&left),
    );
    Some(set.device_id.clone())
}

impl From<RecoveryCodesError> for Refused {
    fn from(error: RecoveryCodesError) -> Self {
        match error {
            RecoveryCodesError::Random(failed) => failed.into(),
            error => Self::Malformed(error.to_string()),
        }
    }
}
