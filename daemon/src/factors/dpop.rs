//! DPoP proofs (RFC 9449): the caller holds a device key, for this one request.
//!
//! Called by the HTTP layer on every request but the public ones, before a body
//! is looked at, and by account creation for the proof of the app key. A proof
//! says which key spoke, and nothing else: whether that key is bound to an
//! account is read from the envelope. It must never be accepted twice.
//!
//! The adversary writes every byte of a proof, may replay what they saw on the
//! wire, and may restart us. Against replay across a restart each proof carries
//! a nonce of this very process; against replay within it there is a cache that
//! is complete for as long as such a nonce lives.

mod claims;
mod nonce;
mod replay;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custodyd_hsm::Lane;
use custodyd_policies::Timestamp;

use self::claims::{AppKeyClaims, Claims, check_app_key_claims, check_claims};
use self::nonce::Nonces;
use self::replay::{ReplayCache, Seen};
use super::jwk::PublicJwk;
use super::{RandomFailed, jws, sha256_fields};
use crate::clock::Reading;

/// How long a nonce is accepted, and so how long a proof is remembered.
pub const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// How far the clock of a device may be off, on top of the nonce's lifetime.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// Proofs remembered at most of strangers, and as many of sessions. Of either an app has as many as stay free; past
/// that its requests are refused with `busy`. Alone it has half: what its rate of strangers (1,000 a second, where the
/// operator sets no other) brings in twice a nonce's lifetime. What a rate refuses is not remembered, so no device
/// brings more than its own rate, however fast it asks.
pub const REPLAY_CAPACITY: usize = 1_250_000;

const PROOF_TYP: &str = "dpop+jwt";
const APP_KEY_TYP: &str = "custodyd-app-key+jwt";

/// What the proof has to say about the request at hand.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// The URL the client was told to use, without query and fragment, built
    /// from configuration and never from the `Host` header.
    pub uri: &'a str,
    /// The session token of the request. `Some` demands `ath`, `None` forbids it.
    pub session_token: Option<&'a str>,
    /// The body of a write, possibly empty. `Some` demands `body_sha256`.
    pub body: Option<&'a [u8]>,
}

/// The key that signed a proof which was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    /// The public key.
    pub jwk: PublicJwk,
    /// Its RFC 7638 thumbprint: the `jkt` of sessions, the id of the device.
    pub thumbprint: String,
}

/// What an app-key proof has to say.
#[derive(Debug, Clone, Copy)]
pub struct AppKeyExpected<'a> {
    /// This realm.
    pub realm: &'a str,
    /// The app of the request path.
    pub app: &'a str,
    /// Thumbprint of the device key that signed the request's DPoP proof.
    pub device_thumbprint: &'a str,
}

/// The app key whose possession was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppKey {
    /// The public key.
    pub jwk: PublicJwk,
    /// Its RFC 7638 thumbprint: the device identifier of its binding.
    pub thumbprint: String,
}

/// Why a proof was not accepted. `Display` is written for the developer of the
/// client; [`ProofError::code`] is stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No proof came.
    #[error("this request needs a DPoP proof (RFC 9449): send one in the DPoP header")]
    Missing,
    /// The proof is wrong, and will be wrong if it is sent again.
    #[error("DPoP proof: {0}")]
    Invalid(String),
    /// A statement by the app key is wrong.
    #[error("app key proof: {0}")]
    AppKeyInvalid(String),
    /// No nonce, an old one, or one of another process. Try again with the new one.
    #[error(
        "the proof needs the claim nonce: take it from the DPoP-Nonce header of this answer, make a new proof and try again"
    )]
    NonceNeeded,
    /// By another key than the one that the session was made for.
    #[error("this session belongs to another key than the one that signed the proof")]
    OtherKey,
    /// The same proof was accepted before.
    #[error("this proof was used already: make a new one, with a new jti, for each request")]
    Replayed,
    /// Too many proofs within the lifetime of a nonce.
    #[error("too many requests at the moment: try again in a minute")]
    Busy,
}

impl ProofError {
    /// The stable code of the problem document.
    pub fn code(&self) -> &'static str {
        match self {
            ProofError::Missing => "dpop-missing",
            ProofError::Invalid(_) | ProofError::AppKeyInvalid(_) => "dpop-invalid",
            ProofError::NonceNeeded => "use-dpop-nonce",
            ProofError::OtherKey => "session-invalid",
            ProofError::Replayed => "dpop-replayed",
            ProofError::Busy => "busy",
        }
    }
}

/// Where a proof is remembered, and as whose.
struct Memory<'a> {
    of: &'static str,
    accepted: &'a Mutex<ReplayCache<Lane>>,
    app: Lane,
}

/// Nonces and memory of accepted proofs, one per process.
///
/// Strangers, who make keys and proofs as they like, have one memory and sessions another, each shared by the apps. What
/// ends a sign-in is remembered with it (`service::Ends`), because an attempt was charged as that began.
///
/// A proof is only ever good for one of them: it names the session token it was made for, or none, and a token opens
/// always or never. For what ends a sign-in, both are looked into.
pub struct Proofs {
    nonces: Nonces,
    strangers: Mutex<ReplayCache<Lane>>,
    sessions: Mutex<ReplayCache<Lane>>,
    latest: AtomicU64,
}

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proofs").finish_non_exhaustive()
    }
}

/// A proof that is its key's, of this request, and by whom it has to be, and what is remembered of it. It may have been
/// accepted before.
#[derive(Debug)]
pub struct Spoken {
    key: DeviceKey,
    short: [u8; 16],
    nonce: Option<String>,
}

impl Proofs {
    /// A new boot id, a new nonce key and an empty memory.
    pub fn new() -> Result<Self, RandomFailed> {
        Self::with_capacity(REPLAY_CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Result<Self, RandomFailed> {
        Ok(Proofs {
            nonces: Nonces::new()?,
            strangers: Mutex::new(ReplayCache::new(capacity)),
            sessions: Mutex::new(ReplayCache::new(capacity)),
            latest: AtomicU64::new(0),
        })
    }

    /// A nonce for the `DPoP-Nonce` header, good for [`NONCE_LIFETIME`].
    pub fn nonce(&self, now: Timestamp) -> String {
        self.nonces.make(self.monotonic(now))
    }

    /// Check a stranger's DPoP proof, and remember it. See [`Proofs::verify_in`].
    pub fn verify(
        &self,
        clock: impl Into<Reading>,
        expected: &Expected<'_>,
        proof: &str,
    ) -> Result<DeviceKey, ProofError> {
        self.verify_in(Lane::Behind, clock, expected, proof)
    }

    /// Check a DPoP proof against the request it came with, and remember it among those of the app's strangers.
    ///
    /// The claims are compared first, because that is cheap and tells the
    /// developer most; the signature is checked before anything is remembered.
    pub fn verify_in(
        &self,
        app: Lane,
        clock: impl Into<Reading>,
        expected: &Expected<'_>,
        proof: &str,
    ) -> Result<DeviceKey, ProofError> {
        let (key, _) = self.verified_in(app, clock.into(), expected, proof)?;
        Ok(key)
    }

    /// The key, and what is remembered of the proof from now on.
    fn verified_in(
        &self,
        app: Lane,
        clock: Reading,
        expected: &Expected<'_>,
        proof: &str,
    ) -> Result<(DeviceKey, [u8; 16]), ProofError> {
        let Spoken { key, short, .. } = self.verified(None, clock, expected, proof)?;
        let memory = Memory {
            of: "strangers",
            accepted: &self.strangers,
            app,
        };
        self.remember::<ProofError>(memory, clock.now, short, || Ok(()))?;
        Ok((key, short))
    }

    /// The same of one that a login's ends remember: it was `let_in` as one of them, and `is_new` remembers it; or it was
    /// one too many, and is remembered here. Each looks into the other's memory after its own, so that of two copies
    /// at once at most one is accepted.
    ///
    /// # Errors
    /// Those of any proof.
    pub fn verify_end(
        &self,
        (app, let_in): (Lane, bool),
        clock: impl Into<Reading>,
        expected: &Expected<'_>,
        proof: &str,
        is_new: impl FnOnce([u8; 16]) -> bool,
    ) -> Result<DeviceKey, ProofError> {
        let clock = clock.into();
        if !let_in {
            let (key, short) = self.verified_in(app, clock, expected, proof)?;
            return is_new(short).then_some(key).ok_or(ProofError::Replayed);
        }
        let Spoken { key, short, .. } = self.verified(None, clock, expected, proof)?;
        let accepted = is_new(short) && !locked(&self.strangers).contains(&short);
        accepted.then_some(key).ok_or(ProofError::Replayed)
    }

    /// The proof of a request that brings a session, by the session's holder. It is not accepted yet: [`Proofs::accept_of`],
    /// or [`Proofs::accept_end_of`].
    ///
    /// # Errors
    /// `OtherKey`, and those of any proof.
    pub fn speaks(
        &self,
        holder: &str,
        clock: impl Into<Reading>,
        expected: &Expected<'_>,
        proof: &str,
    ) -> Result<Spoken, ProofError> {
        self.verified(Some(holder), clock.into(), expected, proof)
    }

    /// Accepts it once. `admit` asks the rates of its holder: once it is shown that
    /// they speak, so that nobody else uses these up, and before the proof takes a place, so that what they refuse
    /// takes none. Of two copies of a proof at once one is accepted, and one takes from the rates.
    ///
    /// # Errors
    /// `NonceNeeded`, `Replayed`, `Busy`; those of `admit`.
    pub fn accept_of<E: From<ProofError>>(
        &self,
        app: Lane,
        clock: impl Into<Reading>,
        Spoken { key, short, nonce }: Spoken,
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<DeviceKey, E> {
        // Also where the account took long to be read: what is remembered lasts no longer than nonces do.
        let now = clock.into().now;
        self.demand_nonce(now, nonce.as_deref())?;
        let memory = Memory {
            of: "sessions",
            accepted: &self.sessions,
            app,
        };
        self.remember(memory, now, short, admit)?;
        Ok(key)
    }

    /// What [`Proofs::verify_end`] is to a stranger's proof, of a login that was charged to a session. One that was
    /// `let_in` is asked for no rate.
    ///
    /// # Errors
    /// As [`Proofs::accept_of`].
    pub fn accept_end_of<E: From<ProofError>>(
        &self,
        (app, let_in): (Lane, bool),
        clock: impl Into<Reading>,
        spoken: Spoken,
        (is_new, admit): (
            impl FnOnce([u8; 16]) -> bool,
            impl FnOnce() -> Result<(), E>,
        ),
    ) -> Result<DeviceKey, E> {
        let short = spoken.short;
        let (key, accepted) = match let_in {
            true => {
                let accepted = is_new(short) && !locked(&self.sessions).contains(&short);
                (spoken.key, accepted)
            }
            false => (self.accept_of(app, clock, spoken, admit)?, is_new(short)),
        };
        accepted.then_some(key).ok_or(ProofError::Replayed.into())
    }

    /// A proof that was never accepted, perhaps. Where its key is known before, another one does not cost us a
    /// signature.
    fn verified(
        &self,
        by: Option<&str>,
        clock: Reading,
        expected: &Expected<'_>,
        proof: &str,
    ) -> Result<Spoken, ProofError> {
        let unverified = jws::parse::<Claims>(proof, PROOF_TYP).map_err(ProofError::Invalid)?;
        check_claims(clock, expected, &unverified.claims).map_err(ProofError::Invalid)?;
        self.demand_nonce(clock.now, unverified.claims.nonce.as_deref())?;
        let thumbprint = unverified.claimed_key().thumbprint();
        if by.is_some_and(|by| by != thumbprint) {
            return Err(ProofError::OtherKey);
        }
        let (claims, jwk) = unverified.verify().map_err(ProofError::Invalid)?;
        let key = DeviceKey { jwk, thumbprint };
        let short = short(&key, &claims.jti);
        let nonce = claims.nonce;
        Ok(Spoken { key, short, nonce })
    }

    /// Check that the app key agreed to be bound by this device, here and now.
    ///
    /// It needs no memory of its own: it travels in the body of a request whose
    /// DPoP proof covers that body, and names that request's device key.
    pub fn verify_app_key_proof(
        &self,
        clock: impl Into<Reading>,
        jws: &str,
        expected: &AppKeyExpected<'_>,
    ) -> Result<AppKey, ProofError> {
        let clock = clock.into();
        let unverified =
            jws::parse::<AppKeyClaims>(jws, APP_KEY_TYP).map_err(ProofError::AppKeyInvalid)?;
        check_app_key_claims(clock, expected, &unverified.claims)
            .map_err(ProofError::AppKeyInvalid)?;
        self.demand_nonce(clock.now, unverified.claims.nonce.as_deref())?;
        let (_, jwk) = unverified.verify().map_err(ProofError::AppKeyInvalid)?;
        let thumbprint = jwk.thumbprint();
        // Both are device identifiers of bindings: one key in both roles could
        // not be revoked in one of them.
        if thumbprint == expected.device_thumbprint {
            return Err(ProofError::AppKeyInvalid(
                "the app key is the device key; make two keys".into(),
            ));
        }
        Ok(AppKey { jwk, thumbprint })
    }

    fn demand_nonce(&self, now: Timestamp, nonce: Option<&str>) -> Result<(), ProofError> {
        let now = self.monotonic(now);
        match nonce {
            Some(nonce) if self.nonces.is_current(now, nonce) => Ok(()),
            _ => Err(ProofError::NonceNeeded),
        }
    }

    /// Under one lock: a look whether it is known, `admit`, and its place.
    fn remember<E: From<ProofError>>(
        &self,
        memory: Memory<'_>,
        now: Timestamp,
        short: [u8; 16],
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let now = self.monotonic(now);
        let mut accepted = locked(memory.accepted);
        match accepted.insert(now, memory.app, short, admit)? {
            Seen::New => {
                metrics::gauge!("custodyd_proofs_remembered", "of" => memory.of)
                    .set(accepted.len() as f64);
                Ok(())
            }
            Seen::Before => Err(ProofError::Replayed.into()),
            Seen::Full => {
                metrics::counter!("custodyd_busy_total", "at" => "proofs").increment(1);
                Err(ProofError::Busy.into())
            }
        }
    }

    /// The latest time this process has seen. A clock that jumps ahead and back
    /// again empties the memory by rotation; without this, nonces from before
    /// the jump would then be good a second time.
    fn monotonic(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.latest.fetch_max(now.0, Ordering::SeqCst).max(now.0))
    }
}

/// A poisoned lock means a panic inside a set insertion; the set is still a set, and forgetting it would let proofs
/// be replayed.
fn locked(memory: &Mutex<ReplayCache<Lane>>) -> MutexGuard<'_, ReplayCache<Lane>> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is remembered of a proof.
fn short(key: &DeviceKey, jti: &str) -> [u8; 16] {
    let hash = sha256_fields(
        "custodyd/dpop-replay/v1",
        &[key.thumbprint.as_bytes(), jti.as_bytes()],
    );
    // 128 bits: a collision would need two proofs by the same caller, and
    // would only refuse the second of them.
    let mut short = [0u8; 16];
    for (to, from) in short.iter_mut().zip(hash) {
        *to = from;
    }
    short
}
