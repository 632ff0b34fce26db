//! Signing in with a PIN by OPAQUE, and going on with one after a code.
//!
//! The adversary learns from the answer to the first message whether a PIN was right, and need not send
//! the last one. So the first message is the guess: it is charged, durably, before its answer is computed, and the
//! charge is the pending login, in the envelope, counted against the budget until its end is recorded. A right end takes it
//! back, once; a wrong one, none, or one that comes too late leaves it spent. What the end must be is known after the
//! charge only, so it travels in a sealed token: for one app, device, account and purpose, worth nothing
//! without the charge, and void after a restore like every ceremony. No capacity is reserved: an answer is a
//! third of a millisecond on the thread that has the request, as for a passkey.
//!
//! Whoever may not try gets the decoy: an answer from a record that nobody registered, under a key that is of no
//! record, in the same sizes, by the same steps. Nothing is written for it, and its end is refused like a wrong one.
//! It is the same for one account identifier while the MAC key is. Where the policy lets strangers try a PIN three things
//! tell: a rotation of that key changes the decoys and no record; whoever uses up an account's tries sees the evaluation change to the decoy's; to hide that, a
//! stranger's guesses beyond the budget would have to be evaluated. And a record says what its own PIN was stretched by,
//! where the decoy says what the policy asks for now: to hide that, nobody could sign in who has registered before
//! the policy was raised.

use std::sync::Arc;

use custodyd_hsm::mac::{self, EpochUse};
use custodyd_hsm::{AccountId, KeyId, KeyPurpose, Lane, Secret};
use custodyd_policies::{Factor, Ksf, Standing, Timestamp};
use serde::{Deserialize, Serialize};

use super::code_sign_in::{Next, half_signed_in};
use super::guess::{Charged, Guess, Outcome};
use super::pin::PinCheck;
use super::{Caller, Device, Ending, Refused, Service, secrets, standing};
use crate::account::Account;
use crate::api::{
    FinishOpaqueAfterCode, FinishOpaqueSession, OpaqueLoginStarted, SessionStarted,
    StartOpaqueAfterCode, StartOpaqueSession,
};
use crate::bytes::Bytes;
use crate::factors::ceremony::{self, Ceremony, Purpose};
use crate::factors::pin_opaque::{Awaited, LoginAnswer, LoginFinish, LoginRequest, OpaqueRecord};
use crate::ledger::Loaded;

/// A login that waits for its end, as it travels in the token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    charged: Charged,
    awaited: Awaited,
    /// So that the length does not tell how often an account's PIN was tried.
    filler: String,
}

type PendingLogin = Ceremony<Login>;

const CHECK: PinCheck = PinCheck::Opaque;

impl Service {
    /// # Errors
    /// `Malformed`, `NotAllowed`; a bound device learns `Wait`, `Exhausted`, `NotSet`, `PinOtherWay`.
    pub async fn start_opaque_sign_in(
        &self,
        device: Device,
        request: StartOpaqueSession,
    ) -> Result<OpaqueLoginStarted, Refused> {
        CHECK.allowed(&device.app.policy.pin)?;
        let ke1 = LoginRequest::parse(&request.ke1.0)?;
        let (guess, found) = match self.may_try_pin(&device, request.account, CHECK).await {
            Err(Refused::AuthenticationFailed) => (Guess::StrangerPin, None),
            other => other?,
        };
        let Some(loaded) = found else {
            return self.decoy_login(&device, request.account, &ke1).await;
        };
        match self
            .begin(guess, &device, loaded, Purpose::SignInByOpaque, &ke1)
            .await
        {
            // Their last try was spent a moment ago.
            Err(Refused::AuthenticationFailed) if guess == Guess::StrangerPin => {
                self.decoy_login(&device, request.account, &ke1).await
            }
            begun => begun,
        }
    }

    /// # Errors
    /// `AuthenticationFailed` for strangers; a bound device learns `Wrong` and `CeremonyConsumed`; `Ceremony*`.
    pub async fn finish_opaque_sign_in(
        &self,
        device: Device,
        request: FinishOpaqueSession,
    ) -> Result<SessionStarted, Refused> {
        // What becomes of a guess that has begun is counted where that is recorded, or once its time is over: not by the
        // answer to this, which may be sent twice, or come late.
        standing::is_counted();
        CHECK.allowed(&device.app.policy.pin)?;
        let releases = secrets::Releases::new(&device.app, Factor::Pin, true, request.release)?;
        let ke3 = LoginFinish::parse(&request.ke3.0)?;
        let pending = self
            .pending(&device, &request.login, Purpose::SignInByOpaque)
            .await?;
        let began = self.unfinished.whose(&pending.id);
        let account = pending.account.ok_or(Refused::AuthenticationFailed)?;
        let Login {
            charged, awaited, ..
        } = pending.state;
        let found = match self.known(&device, account).await {
            Ok(loaded) => Some(loaded),
            Err(Refused::AuthenticationFailed) => None,
            Err(refused) => return Err(refused),
        };
        self.strangers_wait_later(charged.guess());
        let right = awaited.is_answered_by(&ke3);
        self.strangers_wait_later(charged.guess());
        let loaded = found
            .filter(|loaded| charged.is_at(&loaded.account))
            // A decoy's end is here, too.
            .ok_or(Refused::AuthenticationFailed)?;
        if charged.guess() == Guess::Pin {
            releases.exist_in(&loaded.account)?;
        }
        self.check_pin(&loaded.account, CHECK)?;
        if !right {
            return Err(self
                .record_wrong_once(&device, loaded, charged, began)
                .await);
        }
        self.open_by_pin(device, loaded, (charged, Outcome::Later(began)), releases)
            .await
    }

    /// # Errors
    /// `SessionComplete`, `PinOtherWay`; `AuthenticationFailed` for no PIN, and where no attempt is left now.
    pub async fn start_opaque_after_code(
        &self,
        caller: Caller,
        request: StartOpaqueAfterCode,
    ) -> Result<OpaqueLoginStarted, Refused> {
        half_signed_in(&caller, CHECK)?;
        let ke1 = LoginRequest::parse(&request.ke1.0)?;
        let (device, loaded) = (caller.device(), caller.loaded);
        self.begin(
            Guess::PinAfterCode,
            &device,
            loaded,
            Purpose::GoOnByOpaque,
            &ke1,
        )
        .await
    }

    /// # Errors
    /// `AuthenticationFailed` for a wrong PIN; `SessionComplete`, `Ceremony*`.
    pub async fn finish_opaque_after_code(
        &self,
        caller: Caller,
        request: FinishOpaqueAfterCode,
    ) -> Result<SessionStarted, Refused> {
        let next = Next::of(&caller, CHECK, request.bind_device, request.release)?;
        let ke3 = LoginFinish::parse(&request.ke3.0)?;
        let device = caller.device();
        let pending = self
            .pending(&device, &request.login, Purpose::GoOnByOpaque)
            .await?;
        let began = self.unfinished.whose(&pending.id);
        let Login {
            charged, awaited, ..
        } = pending.state;
        if pending.account != Some(caller.account().id) {
            return Err(ceremony::CeremonyError::OtherAccount.into());
        }
        self.check_pin(caller.account(), CHECK)
            .map_err(|refused| charged.guess().told(refused))?;
        let loaded = caller.loaded.clone();
        if !awaited.is_answered_by(&ke3) {
            return Err(self
                .record_wrong_once(&device, loaded, charged, began)
                .await);
        }
        self.complete(caller, loaded, (charged, Outcome::Later(began)), next)
            .await
    }

    /// Charges the guess, and only then answers it.
    async fn begin(
        &self,
        guess: Guess,
        device: &Device,
        loaded: Loaded,
        purpose: Purpose,
        ke1: &LoginRequest,
    ) -> Result<OpaqueLoginStarted, Refused> {
        self.check_pin(&loaded.account, CHECK)
            .map_err(|refused| guess.told(refused))?;
        let record = opaque_record(&loaded.account, guess)?;
        let salt = record.salt;
        let under = KeyId::new(KeyPurpose::Mac, record.mac_key);
        let key = self
            .opaque_key(&loaded.account.app, *loaded.record(), salt, under)
            .await?;
        let lasts = device.app.policy.pin.ceremony;
        let (charged, record, loaded) = self
            .charge_for(guess, lasts, device, loaded, move |account| {
                // The key that was made is that of the record which was read.
                let newest = opaque_record(account, guess)?;
                match newest.salt == salt {
                    true => Ok(newest),
                    false => Err(Refused::AuthenticationFailed),
                }
            })
            .await?;
        let account = loaded.account.id;
        self.unfinished.began(&charged);
        if guess == Guess::StrangerPin {
            // Who has guessed right does not end it elsewhere; the others need not end it at all.
            self.strangers.failed(self.now());
        }
        self.strangers_wait(guess).await;
        let answer = self.opaque.login(&key, &record, ke1)?;
        self.strangers_wait(guess).await;
        let told = (guess == Guess::Pin).then(|| stands(&loaded.account, device, self.now()));
        let begun = Begun {
            account,
            purpose,
            charged,
            answer,
            ksf: record.ksf(),
            told: told.flatten(),
        };
        self.hand_out(device, begun).await
    }

    /// All that a stranger's start costs, but for the writing.
    async fn decoy_login(
        &self,
        device: &Device,
        account: AccountId,
        ke1: &LoginRequest,
    ) -> Result<OpaqueLoginStarted, Refused> {
        let seed = self.decoy_seed(device, account).await?;
        let policy = &device.app.policy.pin;
        let charged = Charged::nothing(device, self.now().plus(policy.ceremony));
        self.strangers.failed(self.now());
        self.strangers_wait(Guess::StrangerPin).await;
        let answer = self.opaque.decoy(&seed, ke1)?;
        self.strangers_wait(Guess::StrangerPin).await;
        let begun = Begun {
            account,
            purpose: Purpose::SignInByOpaque,
            charged,
            answer,
            ksf: policy.ksf,
            told: None,
        };
        self.hand_out(device, begun).await
    }

    async fn decoy_seed(&self, device: &Device, account: AccountId) -> Result<Secret<32>, Refused> {
        let (realm, app) = (self.realm().clone(), device.app.id.clone());
        Ok(self
            .ledger
            .pool()
            .call("opaque-key", move |custody| {
                mac::opaque_decoy(custody, &realm, &app, &account)
            })
            .await?)
    }

    /// The answer, and beside it the login's end in a token.
    async fn hand_out(&self, device: &Device, begun: Begun) -> Result<OpaqueLoginStarted, Refused> {
        let (digits, most) = begun.charged.digits();
        let LoginAnswer { ke2, awaited } = begun.answer;
        let expires = begun.charged.expires;
        let pending = PendingLogin {
            id: self.unfinished.new_id()?,
            app: device.app.id.clone(),
            device_thumbprint: device.key.thumbprint.clone(),
            account: Some(begun.account),
            purpose: begun.purpose,
            expires,
            state: Login {
                charged: begun.charged,
                awaited,
                filler: "0".repeat(most.saturating_sub(digits)),
            },
        };
        // Charged already, or as if: where the day's key is still to be had, it waits behind nobody who is not.
        let sealing = self.keys.seal(EpochUse::Ceremony, self.now(), &pending);
        let login = Lane::First.during(sealing).await;
        Ok(OpaqueLoginStarted {
            login: login.map_err(Refused::ceremony)?,
            ke2: Bytes(ke2),
            key_stretching: begun.ksf.into(),
            expires,
            attempts_left: begun.told.map(|standing| standing.left),
            wait_until: begun.told.and_then(|standing| standing.wait_until),
            exhausted: begun.told.map(|standing| standing.exhausted),
        })
    }

    /// Which login a token is of, where it can still end by a request that comes on this path to this app. Asked before
    /// anything else of that request is looked at: the adversary has written all of it, and whoever begins a login has
    /// such a token. So nothing is decided by it but what the request is counted among.
    pub async fn ending(&self, token: &str, app: Lane, with_session: bool) -> Option<Ending> {
        let now = self.now();
        let opened = self.keys.open(EpochUse::Ceremony, now, token).await;
        let pending: PendingLogin = opened.ok()?;
        let purpose = match with_session {
            true => Purpose::GoOnByOpaque,
            false => Purpose::SignInByOpaque,
        };
        let can_end = pending.purpose == purpose && Lane::of(&pending.app) == app;
        (can_end && now < pending.expires).then(|| Ending {
            login: pending.id,
            expires: pending.expires,
            by_stranger: pending.state.charged.guess() == Guess::StrangerPin,
        })
    }

    /// The login that a token names, which has to be this device's, begun here for this.
    async fn pending(
        &self,
        device: &Device,
        token: &str,
        purpose: Purpose,
    ) -> Result<PendingLogin, Refused> {
        let now = self.now();
        let pending: PendingLogin = self
            .keys
            .open(EpochUse::Ceremony, now, token)
            .await
            .map_err(Refused::ceremony)?;
        let (app, jkt) = (&device.app.id, &device.key.thumbprint);
        pending.check(app, jkt, pending.account, purpose, now)?;
        Ok(pending)
    }
}

/// A login whose first message was answered.
struct Begun {
    account: AccountId,
    purpose: Purpose,
    charged: Charged,
    answer: LoginAnswer,
    ksf: Ksf,
    told: Option<Standing>,
}

fn opaque_record(account: &Account, guess: Guess) -> Result<Arc<OpaqueRecord>, Refused> {
    let pin = account.pin.as_ref();
    let record = pin.and_then(|pin| pin.way.opaque());
    record
        .map(Arc::clone)
        .ok_or_else(|| guess.told(CHECK.missing(account)))
}

/// How the budget stands, this guess counted as wrong.
fn stands(account: &Account, device: &Device, now: Timestamp) -> Option<Standing> {
    let rounds = Guess::Pin.rounds(&device.app.policy);
    let pin = account.pin.as_ref()?;
    Some(pin.budget.standing(&rounds, now))
}
