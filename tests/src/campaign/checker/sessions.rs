//! What a session may be refused for, and what it must be: it ends with its factor, its account and its time, and with
//! nothing else that this campaign does.
//!
//! Nobody signs out, no device is removed, no key is rotated. So who was let in a moment ago at one node is let in at each of
//! the others. Where a clock was off meanwhile the realm's time may have jumped, and a session be as old as it likes.

use super::super::history::{Asked, By, Came, Entry, Refusal, Sent, Session};
use super::super::spent::LOGIN;
use super::Checker;

/// As the policy has it where it says nothing, in milliseconds: a session that is not used, one that may change factors,
/// the same after the account was made, and a ceremony.
pub(super) const IDLE: u64 = 15 * 60_000;
pub(super) const FRESH: u64 = 5 * 60_000;
pub(super) const CREATION_FRESH: u64 = 10 * 60_000;
pub(super) const CEREMONY: u64 = 5 * 60_000;
/// So many passkeys has an account at the most, and so many ceremonies are remembered until they would have expired.
pub(super) const PASSKEYS: usize = 8;
pub(super) const CEREMONIES: usize = 64;
/// A ceremony is remembered for as long: a daemon's time goes at half its pace after a clock was off, and who had no answer
/// may have been served later.
const REMEMBERED: u64 = 2 * CEREMONY + 60_000;

impl Session {
    fn may_be_stale(&self, sent: &Sent) -> bool {
        let limit = match self.by {
            By::Creation => CREATION_FRESH,
            By::Pin(_) | By::Passkey(_) => FRESH,
        };
        sent.may_find_past(self.at, limit)
    }
}

/// What is worth a passkey, where there is one.
fn needs_the_strongest(asked: &Asked) -> bool {
    matches!(
        asked,
        Asked::Options | Asked::AddPasskey(_) | Asked::RemovePasskey(_) | Asked::Erase
    )
}

impl Checker {
    /// It was let in: there is a session, what it was opened with is there, and that is strong enough.
    pub(super) fn let_in(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(session) = &entry.with else {
            return Err("it is served without a session".into());
        };
        self.stands(session)?;
        let weak = matches!(session.by, By::Pin(_)) && needs_the_strongest(&entry.asked);
        let passkey = self.passkeys.values().any(|there| there.has_to_be(&true));
        match weak && passkey {
            true => Err("a PIN suffices for what is worth a passkey".into()),
            false => Ok(()),
        }
    }

    /// What it was opened with was seen to be there.
    fn stands(&mut self, session: &Session) -> Result<(), String> {
        self.there()?;
        let there = match session.by {
            By::Creation => true,
            By::Pin(pin) => self.pin.is(&pin),
            By::Passkey(number) => {
                let known = self.passkeys.get_mut(&number);
                known.is_some_and(|known| known.is(&true))
            }
        };
        match there {
            true => Ok(()),
            false => Err(format!(
                "a session by {:?}, which is gone, is served",
                session.by
            )),
        }
    }

    /// What came with a session, or should have, was refused. Nothing is left to say about it where that was for the session.
    pub(super) fn refused_with(
        &mut self,
        entry: &Entry,
        refusal: &Refusal,
    ) -> Result<bool, String> {
        let (sent, code) = (&entry.sent, refusal.code.as_str());
        let Some(session) = &entry.with else {
            return match code {
                "401 session-missing" => Ok(true),
                _ => Err(format!("{code}, and there is no session")),
            };
        };
        match code {
            "401 session-ended" => self.ended(session).map(|()| true),
            "401 session-expired" if sent.may_find_past(session.at, IDLE) => Ok(true),
            // Made on a day that has not come where it is used.
            "401 session-invalid" if sent.has_a_clock_been_off_since(session.at) => Ok(true),
            code if code.starts_with("401 session-") => Err(format!("{code}, and it stands")),
            _ => {
                self.stands(session)?;
                self.not_enough(entry, session, code)
            }
        }
    }

    fn ended(&mut self, session: &Session) -> Result<(), String> {
        let stands = format!("a session by {:?} has ended, and it stands", session.by);
        let factor = match session.by {
            By::Creation => false,
            By::Pin(pin) => !self.pin.has_to_be(&pin),
            By::Passkey(number) => {
                let known = self.passkeys.get(&number);
                known.is_none_or(|known| known.can_be(&false))
            }
        };
        match (factor, self.account.can_be(&false)) {
            // By whichever.
            (true, true) => Ok(()),
            (false, _) => self.gone(&stands),
            (true, false) => {
                let gone = match session.by {
                    By::Creation => false,
                    By::Pin(pin) => self.pin.is_not(&pin),
                    By::Passkey(number) => {
                        let known = self.passkeys.get_mut(&number);
                        known.is_none_or(|known| known.is(&false))
                    }
                };
                match gone {
                    true => Ok(()),
                    false => Err(stands),
                }
            }
        }
    }

    /// Whether it was refused because more is needed than this session.
    fn not_enough(&self, entry: &Entry, session: &Session, code: &str) -> Result<bool, String> {
        let stale = session.may_be_stale(&entry.sent);
        let passkey = self.passkeys.values().any(|there| there.can_be(&true));
        let creation = session.by == By::Creation;
        let refuses = match (code, &entry.asked) {
            ("403 release-forbidden", Asked::Get) => creation && stale,
            // Whoever may read it may change it, however long ago they came.
            ("403 step-up-required", Asked::Put { .. }) => creation && stale,
            (
                "403 step-up-required",
                Asked::SetPin(_) | Asked::Registration | Asked::RegisterPin(_),
            ) => stale,
            ("403 step-up-required", asked) if needs_the_strongest(asked) => {
                let by_pin = matches!(session.by, By::Pin(_));
                stale || (by_pin && passkey)
            }
            ("403 step-up-required" | "403 release-forbidden", _) => false,
            _ => return Ok(false),
        };
        match refuses {
            true => Ok(true),
            false => Err(format!("{code}, and the session is enough")),
        }
    }

    /// Whether there may be as many passkeys as may be.
    pub(super) fn may_be_full(&self) -> bool {
        let there = self.passkeys.values().filter(|there| there.can_be(&true));
        there.count() >= PASSKEYS
    }

    /// Whether a ceremony may be refused for its age, or its day; `None` where it was for something else.
    pub(super) fn ceremony_refused(
        &self,
        sent: &Sent,
        asked: &Asked,
        code: &str,
    ) -> Option<Result<(), String>> {
        let (begun, limit) = match asked {
            Asked::AddPasskey(_) | Asked::Passkey(_) => (self.ceremony, CEREMONY),
            Asked::RegisterPin(_) => (self.registration, LOGIN),
            _ => return None,
        };
        let begun = begun.unwrap_or(sent.at);
        let may = match code {
            "401 ceremony-expired" => sent.may_find_past(begun, limit),
            "401 ceremony-invalid" => sent.has_a_clock_been_off_since(begun),
            "429 rate-limited" => self.ceremonies_since(sent) >= CEREMONIES,
            _ => return None,
        };
        Some(match may {
            true => Ok(()),
            false => Err(format!("{code}, of one that had just begun")),
        })
    }

    /// Those that may have been used up and be remembered yet.
    fn ceremonies_since(&self, sent: &Sent) -> usize {
        let lately = |entry: &&Entry| entry.sent.until + REMEMBERED > sent.at;
        let used = |entry: &&Entry| {
            let asked = &entry.asked;
            matches!(
                asked,
                Asked::Passkey(_) | Asked::AddPasskey(_) | Asked::RegisterPin(_)
            ) && !matches!(entry.came[..], [Came::Refused(_)])
        };
        let entries = self.history.iter().rev();
        entries.take_while(lately).filter(used).count()
    }
}
