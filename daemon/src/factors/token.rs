//! Sealed tokens: what a client carries for us without reading or changing it.
//!
//! Called by `service/` for session tokens and ceremony tokens. There is no
//! table of sessions: a token opens because this realm's security token made
//! the key of its day, so a row inserted into the database is no session. It
//! must never be the last word: what it says is compared with the envelope.
//!
//! The outside text is `cs1.` (session) or `cc1.` (ceremony), the epoch in
//! decimal, a dot, and the sealed bytes in base64url. Behind the epoch stands `k` and the version of
//! the MAC key that made the day's key, where that is not the first. The adversary writes every
//! byte of it. They choose the epoch and the version, so both are bounded before the security
//! token is asked, and each key is fetched once, however many ask for it at the
//! same time: a stranger can cause at most one token operation for each day that is still accepted.
//!
//! A rotation of the MAC key ends every token. Nothing in a token says when it was made that its maker could not
//! choose, so who knows an older key, which is why keys are rotated, could make one for today, of any account.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custodyd_hsm::mac::{self, EpochUse};
use custodyd_hsm::seal::{LocalKey, Pad, open_local, seal_local};
use custodyd_hsm::{Error, KeyId, KeyPurpose, Lane, Pool, RealmName};
use custodyd_policies::Timestamp;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{b64, unb64};
use crate::clock::APART;
use crate::era::Era;

/// Days for which a session token opens, the day of its sealing included. A
/// session is sealed anew at each renewal, so this bounds idle time, not age.
pub const SESSION_EPOCH_DAYS: u64 = 92;
/// Days for which a ceremony token opens. Ceremonies last minutes; the second
/// and third day are for those that begin before midnight, and for clocks.
pub const CEREMONY_EPOCH_DAYS: u64 = 3;
/// Longest token text that is looked at: 64 KiB of sealed bytes in base64url.
pub const MAX_TOKEN: usize = 90_000;

const DAY: u64 = 86_400;
/// Plaintexts grow to a multiple of this, so that the length of a token does not
/// tell the factor or the scope.
const PADDING: usize = 256;

/// Why a token was not opened, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not the text of such a token.
    #[error("this is not a token of this service: send it as it was received")]
    Malformed,
    /// Sealed so long ago that its key is no longer used.
    #[error("the token has expired")]
    Expired,
    /// Sealed on a day that has not come, by more than clocks may differ: not by us, or a clock went back.
    #[error("the token is of a day that has not come yet")]
    UnknownEpoch,
    /// Not sealed by this realm for this use, or changed since.
    #[error("the token was not made by this service, or was changed")]
    Forged,
    /// The security token is not there. Says nothing about the token at hand.
    #[error("the key of this token cannot be had at the moment")]
    Unavailable(#[source] Error),
}

impl TokenError {
    /// The stable code of the problem document.
    pub fn code(&self) -> &'static str {
        match self {
            TokenError::Malformed | TokenError::Forged => "token-invalid",
            TokenError::Expired | TokenError::UnknownEpoch => "token-expired",
            TokenError::Unavailable(_) => "token-unavailable",
        }
    }
}

/// The day keys of one realm, for sealing and opening tokens on this host.
pub struct EpochKeys {
    pool: Pool,
    realm: RealmName,
    era: Era,
    sessions: Arc<Cache>,
    ceremonies: Arc<Cache>,
}

/// One day under one version of the MAC key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    day: u64,
    mac_key: u16,
}

/// What is known of the days of one use.
#[derive(Default)]
struct Cache(Mutex<Days>);

/// Both maps are bounded by the days that are accepted.
#[derive(Default)]
struct Days {
    keys: BTreeMap<Epoch, Arc<LocalKey>>,
    /// Questions that the token has not answered yet. Those who wait keep them alive, and nobody else.
    asked: BTreeMap<Epoch, WeakShared<Question>>,
}

/// One question to the token, whose answer all get who wait for it.
type Question = BoxFuture<'static, Result<Arc<LocalKey>, Error>>;

impl std::fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpochKeys")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl EpochKeys {
    /// No key is fetched before it is needed.
    pub fn new(pool: Pool, realm: RealmName, era: Era) -> Self {
        EpochKeys {
            pool,
            realm,
            era,
            sessions: Arc::default(),
            ceremonies: Arc::default(),
        }
    }

    /// Today's number and key.
    pub async fn current(
        &self,
        use_: EpochUse,
        now: Timestamp,
    ) -> Result<(Epoch, Arc<LocalKey>), TokenError> {
        let epoch = Epoch {
            day: epoch_number(now),
            mac_key: self.mac_key(),
        };
        Ok((epoch, self.by_number(use_, now, epoch).await?))
    }

    /// The version of the MAC key that is used for what is new.
    fn mac_key(&self) -> u16 {
        let versions = self.pool.versions();
        let current = versions.map(|versions| versions.current(KeyPurpose::Mac));
        current.unwrap_or(mac::ROOT_MAC).version
    }

    /// The key of a day that is still accepted, under the current MAC key.
    pub async fn by_number(
        &self,
        use_: EpochUse,
        now: Timestamp,
        epoch: Epoch,
    ) -> Result<Arc<LocalKey>, TokenError> {
        let today = epoch_number(now);
        // Another node's clock may have come to the next day. Who has a token of that has it from there: the day's key
        // is made in the token alone, a minute sooner or later.
        let newest = epoch_number(Timestamp(now.0.saturating_add(APART)));
        let number = epoch.day;
        // Also of keys that were fetched before a rotation.
        let mac_key = self.mac_key();
        if epoch.mac_key != mac_key {
            return Err(TokenError::Expired);
        }
        if number > newest {
            return Err(TokenError::UnknownEpoch);
        }
        let oldest = (today + 1).saturating_sub(days(use_));
        if number < oldest {
            return Err(TokenError::Expired);
        }
        let cache = self.cache(use_);
        let question = {
            let mut days = cache.locked();
            if let Some(key) = days.keys.get(&epoch) {
                return Ok(Arc::clone(key));
            }
            // No lock is held over the wait. All who come meanwhile wait for the one answer, a failure
            // too: else each of them would wait out a deadline of its own while the token is away.
            let accepted =
                |epoch: &Epoch| epoch.mac_key == mac_key && (oldest..=newest).contains(&epoch.day);
            days.keys.retain(|epoch, _| accepted(epoch));
            days.asked.retain(|epoch, _| accepted(epoch));
            match days.asked.get(&epoch).and_then(WeakShared::upgrade) {
                Some(question) => question,
                None => {
                    // All apps wait for today's, and soon for tomorrow's, so it is no single one's call that finds no room. A text is
                    // enough to ask for each older one: those come behind whoever was let in.
                    let lane = match number >= today {
                        true => Lane::First,
                        false => Lane::Behind,
                    };
                    let question = self.question(use_, epoch, lane);
                    if let Some(weak) = question.downgrade() {
                        days.asked.insert(epoch, weak);
                    }
                    question
                }
            }
        };
        question.await.map_err(TokenError::Unavailable)
    }

    /// Seal `value` under today's key.
    pub async fn seal<T: Serialize>(
        &self,
        use_: EpochUse,
        now: Timestamp,
        value: &T,
    ) -> Result<String, TokenError> {
        let (epoch, key) = self.current(use_, now).await?;
        let plaintext = serde_json::to_vec(value).map_err(|_| TokenError::Malformed)?;
        let header = format!("{}{epoch}", prefix(use_));
        let sealed = seal_local(
            &key,
            &[self.realm.as_str().as_bytes(), &self.era_of(use_)],
            header.as_bytes(),
            Pad::Multiple(PADDING),
            &plaintext,
        )
        .map_err(TokenError::Unavailable)?;
        Ok(format!("{header}.{}", b64(&sealed)))
    }

    /// Open a token that [`EpochKeys::seal`] made in this realm for this use.
    pub async fn open<T: DeserializeOwned>(
        &self,
        use_: EpochUse,
        now: Timestamp,
        token: &str,
    ) -> Result<T, TokenError> {
        let parts = parse(use_, token)?;
        let key = self.by_number(use_, now, parts.epoch).await?;
        let opened = open_local(
            &key,
            &[self.realm.as_str().as_bytes(), &self.era_of(use_)],
            parts.header.as_bytes(),
            &parts.sealed,
        )
        .map_err(|_| TokenError::Forged)?;
        // Authentic, so only another version of this program can have made it
        // in a shape that does not parse.
        serde_json::from_slice(opened.expose()).map_err(|_| TokenError::Malformed)
    }

    fn era_of(&self, use_: EpochUse) -> [u8; 16] {
        let boot_epoch = match use_ {
            EpochUse::Session => 0,
            EpochUse::Ceremony => self.era.boot_epoch,
        };
        let mut era = [0; 16];
        let (log, boot) = era.split_at_mut(8);
        log.copy_from_slice(&self.era.log_epoch.to_be_bytes());
        boot.copy_from_slice(&boot_epoch.to_be_bytes());
        era
    }

    /// It puts the key into its place before it is answered: so whoever finds neither a key nor a
    /// question asks for the first time.
    fn question(&self, use_: EpochUse, epoch: Epoch, lane: Lane) -> Shared<Question> {
        let (pool, realm) = (self.pool.clone(), self.realm.clone());
        let cache = Arc::clone(self.cache(use_));
        let under = KeyId::new(KeyPurpose::Mac, epoch.mac_key);
        let asking = async move {
            let secret = pool.call("epoch key", move |custody| {
                mac::epoch_key(custody, under, &realm, use_, epoch.day)
            });
            let secret = secret.await;
            let mut days = cache.locked();
            days.asked.remove(&epoch);
            let key = Arc::new(LocalKey::new(secret?, domain(use_)));
            days.keys.insert(epoch, Arc::clone(&key));
            Ok(key)
        };
        lane.during(asking).boxed().shared()
    }

    fn cache(&self, use_: EpochUse) -> &Arc<Cache> {
        match use_ {
            EpochUse::Session => &self.sessions,
            EpochUse::Ceremony => &self.ceremonies,
        }
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mac_key == mac::ROOT_MAC.version {
            true => write!(f, "{}", self.day),
            false => write!(f, "{}k{}", self.day, self.mac_key),
        }
    }
}

impl Cache {
    fn locked(&self) -> MutexGuard<'_, Days> {
        // A panic cannot leave a map of keys half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epoch of a moment: its day since the Unix epoch.
fn epoch_number(now: Timestamp) -> u64 {
    now.0 / DAY
}

fn days(use_: EpochUse) -> u64 {
    match use_ {
        EpochUse::Session => SESSION_EPOCH_DAYS,
        EpochUse::Ceremony => CEREMONY_EPOCH_DAYS,
    }
}

fn prefix(use_: EpochUse) -> &'static str {
    match use_ {
        EpochUse::Session => "cs1.",
        EpochUse::Ceremony => "cc1.",
    }
}

fn domain(use_: EpochUse) -> &'static str {
    match use_ {
        EpochUse::Session => "custodyd/session-token/v1",
        EpochUse::Ceremony => "custodyd/ceremony-token/v1",
    }
}

/// The parts of a token's text, of which nothing is believed yet.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    /// Prefix and number, as they stand: they are authenticated by the seal.
    header: &'a str,
    epoch: Epoch,
    sealed: Vec<u8>,
}

/// Strict: one token has one text.
fn parse(use_: EpochUse, token: &str) -> Result<Parts<'_>, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let (header, sealed) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let digits = header
        .strip_prefix(prefix(use_))
        .ok_or(TokenError::Malformed)?;
    let (day, version) = match digits.split_once('k') {
        Some((day, version)) => (day, version.parse()),
        None => (digits, Ok(mac::ROOT_MAC.version)),
    };
    let epoch = Epoch {
        day: day.parse().map_err(|_| TokenError::Malformed)?,
        mac_key: version.map_err(|_| TokenError::Malformed)?,
    };
    if epoch.to_string() != digits {
        return Err(TokenError::Malformed);
    }
    let sealed = unb64(sealed).ok_or(TokenError::Malformed)?;
    Ok(Parts {
        header,
        epoch,
        sealed,
    })
}
