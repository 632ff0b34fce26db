//! Authenticator apps (TOTP): enrolment, confirmation, removal, and signing in.
//!
//! The adversary reads codes over a shoulder, replays them, guesses, and sends many at once.
//! Only a bound device's code is evaluated; it is charged before it is looked at, and its step
//! is taken in the commit that opens the session, so each opens one at most. The secret is
//! shown once, to a session that may add the factor; it counts once a code has confirmed it.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::SecretBytes;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{Budget, Factor, Timestamp, Totp};

use super::authenticate::{Opened, open_session};
use super::guess::{self, Charged, Guess};
use super::{App, Caller, Device, Refused, Service, secrets, sessions};
use crate::account::{Account, BoundTotp, PendingTotp};
use crate::api::{
    Bound, ConfirmTotp, EnrolTotp, SecretText, SessionStarted, SessionToken, TotpEnrolment,
    TotpSession,
};
use crate::bytes::SharedSecret;
use crate::delivery::Notice;
use crate::factors::totp::{MAX_LABEL, QrCode, QrError, TotpError, TotpRecord};
use crate::ledger::{EventKind, NewEvent};

/// How long an enrolment waits for the code that confirms it.
const CONFIRMATION: Duration = Duration::from_secs(15 * 60);

impl Service {
    /// Makes a secret for an authenticator app and shows it, this once.
    ///
    /// # Errors
    /// `NotAllowed`, `StepUp`, `Malformed` for a label.
    pub async fn enrol_totp(
        &self,
        caller: Caller,
        request: EnrolTotp,
    ) -> Result<TotpEnrolment, Refused> {
        let now = self.now();
        allowed(&caller.app)?;
        caller.step_up(caller.account(), Factor::Totp, now)?;
        let policy = &caller.app.policy.totp;
        let digits = u8::try_from(policy.digits).unwrap_or(u8::MAX);
        let record = TotpRecord::new(digits, policy.period.as_secs())?;
        let label = request
            .label
            .unwrap_or_else(|| caller.account().id.to_string());
        let otpauth = record.otpauth_uri(&issuer(&caller.app), &label)?;
        let picture = QrCode::new(&otpauth)?;
        let (svg, png) = (picture.svg()?, picture.png()?);
        let device_id = record.device_id();
        let [binding] = self
            .bindings
            .sign(
                &caller.app.id,
                caller.account().id,
                [(BindingKind::Totp, device_id.clone())],
                now,
            )
            .await?;
        let totp = Bound {
            device_id: device_id.clone(),
            binding: binding.clone(),
        };
        let loaded = caller.loaded.clone();
        let (expires, _) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Totp, moment.now)?;
                let expires = moment.now.plus(CONFIRMATION);
                journal.note(NewEvent::new(EventKind::TotpEnrolled).on(&device_id));
                account.pending_totp = Some(PendingTotp {
                    record,
                    device_id,
                    binding,
                    expires,
                    budget: Budget::default(),
                });
                Ok(expires)
            })
            .await?;
        Ok(TotpEnrolment {
            totp,
            otpauth: SecretText(otpauth),
            svg: SecretText(svg),
            png: SharedSecret::new(SecretBytes::from(png.to_vec())),
            expires,
        })
    }

    /// A right code puts the enrolled app into use, in place of the one before: sessions that
    /// that one opened end; the one that asks goes on with the token in the answer.
    ///
    /// # Errors
    /// `StepUp`; `Wrong`, `Wait`, `Exhausted`, `NotSet` as for a sign-in; those of rewrapped
    /// secrets, which cost an attempt: the code was looked at.
    pub async fn confirm_totp(
        &self,
        caller: Caller,
        request: ConfirmTotp,
    ) -> Result<(Bound, SessionToken), Refused> {
        let now = self.now();
        allowed(&caller.app)?;
        caller.step_up(caller.account(), Factor::Totp, now)?;
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        if let Some(pending) = &caller.account().pending_totp {
            let (id, jws) = (&pending.device_id, &pending.binding);
            self.bindings
                .check(caller.account(), BindingKind::Totp, id, jws)?;
        }
        let (app, device, session) = (caller.app.clone(), caller.device(), caller.session.clone());
        let (charged, record, loaded) = self
            .charge(
                Guess::TotpConfirmation,
                &device,
                caller.loaded.clone(),
                move |account| {
                    sessions::stands(&session, account)?;
                    let pending = account.pending_totp.as_ref();
                    let record = pending.map(|pending| pending.record.clone());
                    record.ok_or(Refused::NotSet(Guess::TotpConfirmation))
                },
            )
            .await?;
        let policy = &app.policy.totp;
        let Some(step) = matched(&record, request.code.expose(), policy, self.now())? else {
            return Err(self.record_wrong(&device, loaded, charged).await);
        };
        let ((answer, session), loaded) = self
            .ledger
            .record_outcome::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Totp, moment.now)?;
                writes.admitted(&caller, account, None, moment.now)?;
                charged.succeed(account, moment.now)?;
                let answer = put_into_use(account, step, moment.now)?;
                let mut session = caller.session.clone();
                if session.factor == Factor::Totp {
                    session.factor_id = Some(answer.device_id.clone());
                }
                journal.note(NewEvent::new(EventKind::TotpAdded).on(&answer.device_id));
                writes.apply(account, moment.now, journal)?;
                Ok((answer, session))
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorAdded);
        let token = self.session_token(&app, &session, now).await?;
        Ok((answer, token))
    }

    /// Removes the app in use and one that waits to be confirmed.
    ///
    /// # Errors
    /// `StepUp`, `NotSet`.
    pub async fn remove_totp(&self, caller: Caller) -> Result<(), Refused> {
        let loaded = caller.loaded.clone();
        let ((), loaded) = self
            .ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Totp, moment.now)?;
                let pending = account.pending_totp.take().map(|pending| pending.device_id);
                let used = account.totp.take().map(|totp| totp.device_id);
                let removed = used.or(pending).ok_or(Refused::NotSet(Guess::Totp))?;
                journal.note(NewEvent::new(EventKind::TotpRemoved).on(&removed));
                Ok(())
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorRemoved);
        Ok(())
    }

    /// # Errors
    /// `AuthenticationFailed` for everybody but a bound device, which learns `Wrong` (also for
    /// a step that was used), `Wait`, `Exhausted`, `NotSet`.
    pub async fn sign_in_with_totp(
        &self,
        device: Device,
        request: TotpSession,
    ) -> Result<SessionStarted, Refused> {
        allowed(&device.app)?;
        let loaded = self.bound(&device, request.account).await?;
        let totp = loaded.account.totp.as_ref();
        let totp = totp.ok_or(Refused::NotSet(Guess::Totp))?;
        self.bindings.check(
            &loaded.account,
            BindingKind::Totp,
            &totp.device_id,
            &totp.binding,
        )?;
        let releases = secrets::Releases::new(&device.app, Factor::Totp, true, request.release)?;
        releases.exist_in(&loaded.account)?;

        let (charged, record, loaded) = self
            .charge(Guess::Totp, &device, loaded, |account| {
                let record = account.totp.as_ref().map(|totp| totp.record.clone());
                record.ok_or(Refused::NotSet(Guess::Totp))
            })
            .await?;
        let policy = &device.app.policy.totp;
        let step = matched(&record, request.code.expose(), policy, self.now())?;
        let Some(step) = step.filter(|step| record.accepts(*step)) else {
            return Err(self.record_wrong(&device, loaded, charged).await);
        };

        let asks = device.clone();
        let (outcome, loaded) = self
            .ledger
            .record_outcome::<Result<Opened, Refused>, Refused>(
                loaded,
                move |account, moment, journal| {
                    if !took_step(account, &charged, step) {
                        // Another request took this step meanwhile: the code is a used one.
                        let rounds = Guess::Totp.rounds(&asks.app.policy);
                        let standing = charged.fail(&rounds, account, moment.now, journal)?;
                        return Ok(Err(charged.wrong(&standing)));
                    }
                    charged.succeed(account, moment.now)?;
                    guess::vouch(account, &asks, Factor::Totp, moment.now);
                    let proven = charged.proven();
                    open_session(&asks, account, proven, &releases, moment, journal).map(Ok)
                },
            )
            .await?;
        let opened = outcome?;
        self.started(&device, &opened.0, &loaded, opened.1).await
    }
}

fn allowed(app: &Arc<App>) -> Result<(), Refused> {
    if app.policy.totp.allowed {
        Ok(())
    } else {
        Err(Refused::NotAllowed("TOTP"))
    }
}

/// The step whose code was sent, within the policy's window.
fn matched(
    record: &TotpRecord,
    code: &str,
    policy: &Totp,
    now: Timestamp,
) -> Result<Option<u64>, Refused> {
    Ok(record.matched_step(code, now, policy.window)?)
}

/// Takes the step, if the app that was charged is still in use and the step still unused.
fn took_step(account: &mut Account, charged: &Charged, step: u64) -> bool {
    account
        .totp
        .as_mut()
        .filter(|totp| totp.device_id == charged.credential)
        .is_some_and(|totp| totp.record.take(step).is_ok())
}

/// The pending app, confirmed by the code of `step`, which is thereby used up.
fn put_into_use(account: &mut Account, step: u64, now: Timestamp) -> Result<Bound, Refused> {
    let mut pending = account
        .pending_totp
        .take()
        .ok_or(Refused::NotSet(Guess::TotpConfirmation))?;
    pending.record.take(step)?;
    // Guesses that are being evaluated were made at the old app: they keep counting and can
    // not settle anything any more.
    let old = account.totp.take();
    let mut budget = old.map(|totp| totp.budget).unwrap_or_default();
    budget.secret_replaced(now);
    let bound = Bound {
        device_id: pending.device_id.clone(),
        binding: pending.binding.clone(),
    };
    account.totp = Some(BoundTotp {
        record: pending.record,
        device_id: pending.device_id,
        binding: pending.binding,
        added: now,
        budget,
    });
    Ok(bound)
}

/// The app's display name, as far as an `otpauth` URI has room for it.
fn issuer(app: &App) -> String {
    let mut name = String::new();
    for c in app.policy.display_name.chars() {
        let c = if c == ':' || c.is_control() { ' ' } else { c };
        if name.len() + c.len_utf8() > MAX_LABEL {
            break;
        }
        name.push(c);
    }
    name
}

impl From<TotpError> for Refused {
    fn from(error: TotpError) -> Self {
        match error {
            TotpError::Label(_) => Self::Malformed(error.to_string()),
            error => {
                tracing::error!(%error, "TOTP");
                Self::Internal("compute a TOTP code")
            }
        }
    }
}

impl From<QrError> for Refused {
    fn from(error: QrError) -> Self {
        match error {
            QrError::TooLong => Self::Malformed(error.to_string()),
            error => {
                tracing::error!(%error, "QR code");
                Self::Internal("draw a QR code")
            }
        }
    }
}
