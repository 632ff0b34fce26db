//! Sessions: made after a factor, checked on every call, ended through the envelope.
//!
//! A session is a sealed token in the client's hands, bound to its device key; the daemon
//! keeps none. What ends one is an epoch in the account's envelope that has moved on, so no
//! database row can mint, prolong or revive a session.

use std::time::Duration;

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::mac::EpochUse;
use custodyd_policies::{Factor, Timestamp, expiry};

use super::{App, Apps, Caller, Device, Refused, Service, StandingSession, code_sign_in, counted};
use crate::account::{Account, RemovedDevice, Spent};
use crate::api::{SessionStarted, SessionToken};
use crate::bytes::Bytes;
use crate::factors::dpop::DeviceKey;
use crate::factors::session::{self, Scope, Session};
use crate::ledger::{EventKind, Loaded, NewEvent};

/// Ended sessions of unbound devices that are remembered one by one; past it everything of
/// the account is signed out, which is the safe side.
const MAX_ENDED: usize = 64;
/// No policy lets a session of an unbound device last longer: `bounds::SESSION_ABSOLUTE`.
const LONGEST_SESSION: Duration = Duration::from_secs(366 * 86_400);

/// What a client has just proven.
#[derive(Clone, Debug)]
pub(super) struct Proven {
    factor: Factor,
    factor_id: Option<String>,
}

impl Proven {
    /// By the device's own key: the factor of a new account, and of reading.
    pub(super) fn by_device(factor: Factor) -> Self {
        Self {
            factor,
            factor_id: None,
        }
    }

    pub(super) fn factor(&self) -> Factor {
        self.factor
    }

    /// What it opens to this device.
    pub(super) fn scope(&self, device: &Device, account: &Account) -> Scope {
        match self.factor {
            Factor::Device => Scope::Read,
            Factor::DeliveredCode if code_sign_in::is_limited(account, device) => Scope::PinOnly,
            _ => Scope::Full,
        }
    }

    /// By a credential of the account: what it opens ends with it.
    pub(super) fn with(factor: Factor, factor_id: String) -> Self {
        Self {
            factor,
            factor_id: Some(factor_id),
        }
    }
}

/// A session for the device that asks, as the account stands now.
pub(super) fn start(
    device: &Device,
    account: &Account,
    proven: Proven,
    now: Timestamp,
) -> Result<Session, Refused> {
    let scope = proven.scope(device, account);
    let ends = session::limits(scope, &device.app.policy.sessions, now, now);
    Ok(Session {
        id: session::new_id()?,
        realm: account.realm.clone(),
        app: account.app.clone(),
        account: account.id,
        device_thumbprint: device.key.thumbprint.clone(),
        account_epoch: account.session_epoch,
        device_epoch: account
            .device(&device.key.thumbprint)
            .map(|bound| bound.session_epoch),
        began_epoch: account.next_device_epoch,
        factor: proven.factor,
        factor_id: proven.factor_id,
        scope,
        started: now,
        authenticated: now,
        idle_until: ends.idle_until,
        absolute_until: ends.absolute_until,
    })
}

/// Does the session stand in this state of its account?
pub(super) fn stands(session: &Session, account: &Account) -> Result<(), Refused> {
    let device = account.device(&session.device_thumbprint);
    let current = match (session.device_epoch, device) {
        (Some(epoch), device) => device.is_some_and(|device| device.session_epoch == epoch),
        // Made before its device was bound: from then on only sessions of the bound device
        // stand, so that signing out on it and removing it end them all.
        (None, Some(_)) => false,
        (None, None) => {
            let signed_out = &account.ended_sessions;
            let removed = &account.removed_devices;
            !signed_out.iter().any(|ended| ended.id.0 == session.id)
                && !removed.iter().any(|mark| ends(mark, session))
        }
    };
    let factor = match (session.factor, session.factor_id.as_deref()) {
        (Factor::Passkey, Some(id)) => account.passkey(id).is_some(),
        (Factor::Pin, Some(id)) => account.pin.as_ref().is_some_and(|pin| pin.device_id == id),
        (Factor::DeliveredCode, Some(id)) => account.contacts.by_device_id(id).is_some(),
        (Factor::Totp, Some(id)) => account.totp.as_ref().is_some_and(|t| t.device_id == id),
        // Also when its last code has been spent: the set is what the session stands on.
        (Factor::RecoveryCode, Some(id)) => {
            let set = account.recovery_codes.as_ref();
            set.is_some_and(|set| set.device_id == id)
        }
        (Factor::Creation | Factor::Device, None) => true,
        // A credential without a name, or a name without a credential: not made here.
        _ => false,
    };
    if current && factor && account.session_epoch == session.account_epoch {
        Ok(())
    } else {
        Err(Refused::SessionEnded)
    }
}

fn ends(mark: &RemovedDevice, session: &Session) -> bool {
    mark.thumbprint == session.device_thumbprint && mark.epoch >= session.began_epoch
}

/// Ends one session in the account's state.
pub(super) fn end(session: &Session, account: &mut Account) {
    if session.device_epoch.is_some() {
        let epoch = account.take_device_epoch();
        if let Some(device) = account.device_mut(&session.device_thumbprint) {
            device.session_epoch = epoch;
        }
    } else {
        end_one(session, account);
    }
}

/// Ends every session that a device has, for good: it is being removed.
pub(super) fn end_removed(thumbprint: &str, account: &mut Account, now: Timestamp) {
    let epoch = account.take_device_epoch();
    account
        .removed_devices
        .retain(|mark| mark.thumbprint != thumbprint);
    if account.removed_devices.len() < MAX_ENDED {
        account.removed_devices.push(RemovedDevice {
            thumbprint: thumbprint.to_owned(),
            epoch,
            expires: now.plus(LONGEST_SESSION),
        });
    } else {
        account.session_epoch += 1;
    }
}

/// Ends one session of a device that is not bound.
pub(super) fn end_one(session: &Session, account: &mut Account) {
    if account.ended_sessions.len() < MAX_ENDED {
        account.ended_sessions.push(Spent {
            id: Bytes(session.id.to_vec()),
            expires: session.absolute_until,
        });
    } else {
        account.session_epoch += 1;
    }
}

impl Service {
    /// Opens a session token. Says that it was made here and nothing more: whether its holder
    /// has its key, and whether it still stands, is `authorize`'s to find out.
    ///
    /// # Errors
    /// `SessionInvalid`.
    pub async fn open_session(&self, token: &str) -> Result<Session, Refused> {
        self.keys
            .open(EpochUse::Session, self.now(), token)
            .await
            .map_err(Refused::session)
    }

    /// The account in whose newest state a session stands, which is ours and live. Who speaks is not known yet: they may
    /// have the token without its key.
    ///
    /// # Errors
    /// `SessionInvalid`, `SessionExpired`, `SessionEnded`.
    pub async fn standing_session(&self, session: &Session) -> Result<StandingSession, Refused> {
        if session.realm != *self.realm() {
            return Err(Refused::SessionInvalid);
        }
        session
            .live(self.now())
            .map_err(|_| Refused::SessionExpired)?;
        let app = self
            .apps
            .get(session.app.as_str())
            .map_err(|_| Refused::SessionEnded)?;
        let loaded = self
            .ledger
            .load(&session.app, session.account)
            .await?
            .ok_or(Refused::SessionEnded)?;
        stands(session, &loaded.account)?;
        Ok(StandingSession { app, loaded })
    }

    /// Whoever holds the key of such a session's device, with a binding that is whole.
    ///
    /// # Errors
    /// `SessionInvalid`; `Damaged` where the binding is none.
    pub fn authorize(
        &self,
        session: Session,
        StandingSession { app, loaded }: StandingSession,
        key: DeviceKey,
    ) -> Result<Caller, Refused> {
        if session.device_thumbprint != key.thumbprint {
            return Err(Refused::SessionInvalid);
        }
        if let Some(device) = loaded.account.device(&key.thumbprint) {
            self.bindings.check(
                &loaded.account,
                BindingKind::DeviceKey,
                &device.key.thumbprint,
                &device.key.binding,
            )?;
        }
        Ok(Caller {
            app,
            key,
            session,
            loaded,
        })
    }

    /// A new token for the same session, idle again from now on.
    ///
    /// # Errors
    /// When the token can not be sealed.
    pub async fn refresh_session(&self, caller: &Caller) -> Result<SessionToken, Refused> {
        let now = self.now();
        let renewed = caller
            .session
            .renewed(now, &caller.app.policy.sessions)
            .map_err(|_| Refused::SessionExpired)?;
        self.session_token(&caller.app, &renewed, now).await
    }

    /// Ends this device's sessions (an unbound device: this one session).
    ///
    /// # Errors
    /// Those of a commit.
    pub async fn end_session(&self, caller: Caller) -> Result<(), Refused> {
        let session = caller.session;
        self.ledger
            .commit::<(), Refused>(caller.loaded, move |account, _, journal| {
                stands(&session, account)?;
                end(&session, account);
                journal.note(NewEvent::new(EventKind::SessionEnded).on(&session.device_thumbprint));
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Ends every session of the account, on all devices.
    ///
    /// # Errors
    /// Those of a commit; `ReadOnly`: a device key alone must not sign everybody out.
    pub async fn end_all_sessions(&self, caller: Caller) -> Result<(), Refused> {
        caller.writes()?;
        let session = caller.session;
        self.ledger
            .commit::<(), Refused>(caller.loaded, move |account, _, journal| {
                stands(&session, account)?;
                account.session_epoch += 1;
                account.ended_sessions.clear();
                journal
                    .note(NewEvent::new(EventKind::SessionsEnded).on(&session.device_thumbprint));
                Ok(())
            })
            .await?;
        Ok(())
    }

    pub(super) async fn session_token(
        &self,
        app: &App,
        session: &Session,
        now: Timestamp,
    ) -> Result<SessionToken, Refused> {
        let token = self
            .keys
            .seal(EpochUse::Session, now, session)
            .await
            .map_err(Refused::session)?;
        Ok(SessionToken {
            token,
            scope: session.scope,
            factor: session.factor,
            idle_until: session.idle_until,
            absolute_until: session.absolute_until,
            fresh_until: expiry::fresh_until(
                &app.policy.sessions,
                session.authenticated,
                session.factor,
            ),
        })
    }

    /// The answer of every sign-in.
    pub(super) async fn started(
        &self,
        device: &Device,
        session: &Session,
        loaded: &Loaded,
        secrets: std::collections::BTreeMap<String, crate::api::Secret>,
    ) -> Result<SessionStarted, Refused> {
        counted::right(session.factor);
        Ok(SessionStarted {
            account: session.account,
            device_id: device.key.thumbprint.clone(),
            device_bound: loaded.account.device(&device.key.thumbprint).is_some(),
            credential: session.factor_id.clone(),
            session: self
                .session_token(&device.app, session, session.started)
                .await?,
            secrets,
            server_slots: device.app.policy.secrets.server_slot.into(),
            log: self.ledger.receipt(loaded).await.map(Into::into),
        })
    }
}

impl Service {
    #[must_use]
    pub fn apps(&self) -> &Apps {
        &self.apps
    }
}
