//! Whether the answers that one account's client was given can all be true: the invariants of a ledger, from outside.
//!
//! Knows nothing of the daemon but what it promises. Acknowledged changes are there and in their order, what was revoked or
//! replaced opens nothing, a version has one content, and attempts are never given back but by a success. Where an answer
//! is missing both are allowed, until one has been seen: docs/FAULTS.md.

mod logins;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::logins::{Begun, OTHER_WAY};
use super::history::{Asked, Came, Entry, Kept, NOBODYS, Pin, Refusal, Sent, Told};
use super::register::Register;
use super::spent::Spent;

const STRANGER: &str = "401 authentication-failed";
const NOT_FOUND: &str = "404 not-found";

#[derive(Clone, Debug)]
pub struct Checker {
    /// Whether there is the account.
    account: Register<bool>,
    pin: Register<Pin>,
    /// Those PINs that are checked by OPAQUE, as they were asked to be.
    by_opaque: BTreeSet<Pin>,
    spent: Spent,
    /// Those that were answered, by number.
    logins: BTreeMap<u32, Begun>,
    /// Which there are, by number.
    passkeys: BTreeMap<u32, Register<bool>>,
    secret: Register<Kept>,
    /// When the newest ceremony was asked for.
    ceremony: Option<u64>,
    /// And the newest registration of a PIN.
    registration: Option<u64>,
    history: Vec<Entry>,
}

impl Checker {
    /// Of an account that was just made, with so many attempts at a PIN.
    #[must_use]
    pub fn new(attempts: u64) -> Self {
        Self {
            account: Register::of(true),
            pin: Register::of(NOBODYS),
            by_opaque: BTreeSet::new(),
            spent: Spent::none_of(attempts),
            logins: BTreeMap::new(),
            passkeys: BTreeMap::new(),
            secret: Register::of(Kept::nothing()),
            ceremony: None,
            registration: None,
            history: Vec::new(),
        }
    }

    #[must_use]
    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// A whole history again.
    ///
    /// # Errors
    /// At the first answer that cannot be true.
    pub fn replay(attempts: u64, history: &[Entry]) -> Result<(), String> {
        let mut checker = Self::new(attempts);
        history
            .iter()
            .try_for_each(|entry| checker.take(entry.clone()))
    }

    /// PINs that may be the right one, the likeliest first.
    pub fn pins(&self) -> impl Iterator<Item = Pin> {
        self.pin.possible().copied()
    }

    pub fn versions(&self) -> impl Iterator<Item = u64> {
        self.secret.possible().map(|kept| kept.version)
    }

    /// Whether the passkey is there for certain.
    #[must_use]
    pub fn has_passkey(&self, number: u32) -> bool {
        let known = self.passkeys.get(&number);
        known.is_some_and(|known| known.has_to_be(&true))
    }

    #[must_use]
    pub fn attempts_left(&self) -> u64 {
        self.spent.left()
    }

    /// Whether somebody may still find the account.
    #[must_use]
    pub fn may_exist(&self) -> bool {
        self.account.possible().any(|&there| there)
    }

    /// # Errors
    /// Why the answers cannot be true.
    pub fn take(&mut self, entry: Entry) -> Result<(), String> {
        let by = &entry.sent;
        self.account.settle(by);
        self.pin.settle(by);
        self.secret.settle(by);
        self.passkeys.values_mut().for_each(|one| one.settle(by));
        let checked = self.check(&entry);
        self.history.push(entry);
        checked
    }

    fn check(&mut self, entry: &Entry) -> Result<(), String> {
        let sent = &entry.sent;
        match &entry.asked {
            Asked::Guess(pins) => return self.guessed(sent, pins, &entry.came),
            Asked::Begin(logins) => return self.begun(sent, logins, &entry.came),
            Asked::End { login, right } => {
                return self.ended_login(sent, *login, right, &entry.came);
            }
            Asked::RegisterPin(pin) => {
                self.by_opaque.insert(*pin);
            }
            _ => {}
        }
        let [came] = &entry.came[..] else {
            return Err("one question, and not one answer".into());
        };
        match (&entry.asked, came) {
            (Asked::Challenge, came) => self.challenged(sent, came),
            (asked, Came::Done(told)) => {
                self.there()?;
                if asked.needs_a_session() {
                    self.let_in(entry)?;
                }
                self.done(sent, asked, told)
            }
            (asked, Came::Lost | Came::Open(_)) => {
                self.left_open(sent, asked);
                Ok(())
            }
            (_, Came::Refused(refusal)) => self.refused(entry, refusal),
        }
    }

    /// Whoever asks is given one, and it says of nobody whether they are there.
    fn challenged(&mut self, sent: &Sent, came: &Came) -> Result<(), String> {
        match came {
            Came::Done(_) => self.ceremony = Some(sent.at),
            Came::Lost | Came::Open(_) => {}
            Came::Refused(refusal) => return Err(format!("{} is no answer to that", refusal.code)),
        }
        Ok(())
    }

    fn guessed(&mut self, sent: &Sent, pins: &[Pin], came: &[Came]) -> Result<(), String> {
        for (pin, came) in pins.iter().zip(came) {
            if matches!(came, Came::Lost | Came::Open(_)) {
                self.spent.may_be_charged(sent);
                // Nobody's opens nothing, nor does one that is checked the other way.
                if *pin != NOBODYS && !self.is_by_opaque(*pin) && self.pin.can_be(pin) {
                    self.spent.may_be_given_back(sent);
                }
            }
        }
        let alone = pins.len() == 1;
        let (mut lefts, mut exhausted, mut strange) = (Vec::new(), false, 0);
        for (pin, came) in pins.iter().zip(came) {
            match came {
                Came::Lost | Came::Open(_) => {}
                Came::Done(told) => {
                    self.spent.right(sent)?;
                    self.signed_in(told)?;
                    if self.is_by_opaque(*pin) || !self.pin.is(pin) {
                        return Err(format!("PIN {pin} was replaced, and opens"));
                    }
                }
                Came::Refused(refusal) if refusal.code == "401 pin-wrong" => {
                    self.there()?;
                    lefts.push(refusal.left.ok_or("it is not said how many are left")?);
                    let another =
                        |now: Pin, by_opaque: bool| now != NOBODYS && !by_opaque && now != *pin;
                    if !self.pin_is(alone, another) {
                        return Err(format!("PIN {pin} was acknowledged, and is wrong"));
                    }
                }
                Came::Refused(refusal) if refusal.code == "403 pin-exhausted" => {
                    self.there()?;
                    exhausted = true;
                }
                Came::Refused(refusal) if refusal.code == "409 pin-not-set" => {
                    self.has_no_pin(alone)?;
                }
                Came::Refused(refusal) if refusal.code == OTHER_WAY => {
                    self.is_the_other_way(alone, false)?;
                }
                // Looked at before anything is charged: there is nothing to release.
                Came::Refused(refusal) if refusal.code == NOT_FOUND => {
                    self.there()?;
                    self.read(&Kept::nothing())?;
                }
                Came::Refused(refusal) if refusal.code == STRANGER => strange += 1,
                Came::Refused(refusal) => self.turned_away(refusal)?,
            }
        }
        if strange > 0 {
            self.strange(sent, pins, strange)?;
        }
        self.spent.wrong(sent, &lefts)?;
        // Of those that were made at once it came after them, whichever answer came first.
        match exhausted {
            true => self.spent.exhausted(sent),
            false => Ok(()),
        }
    }

    /// So many guesses were answered as a stranger's are. Of an account that is there only where its PIN was replaced between the
    /// charge and what came of it; or where that charge was too old by then.
    fn strange(&mut self, sent: &Sent, pins: &[Pin], count: usize) -> Result<(), String> {
        let gone = self.account.can_be(&false);
        let right = pins.iter().any(|pin| self.pin.can_be(pin));
        let expired = right && sent.has_a_clock_been_off_since(sent.at);
        if !expired && !self.pin.may_change() {
            return self.gone("an account that was acknowledged is not known");
        }
        // They were charged, and nothing settles that.
        (0..count).for_each(|_| self.spent.may_be_charged(sent));
        match gone || expired || self.pin.came_late() {
            true => Ok(()),
            false => Err("an account that was acknowledged is not known".into()),
        }
    }

    /// The account answers as one that is there.
    fn there(&mut self) -> Result<(), String> {
        match self.account.is(&true) {
            true => Ok(()),
            false => Err("an account that was erased is served".into()),
        }
    }

    /// Or as one that was erased.
    fn gone(&mut self, else_wrong: &str) -> Result<(), String> {
        match self.account.is(&false) {
            true => Ok(()),
            false => Err(else_wrong.to_owned()),
        }
    }

    fn signed_in(&mut self, told: &Told) -> Result<(), String> {
        self.there()?;
        match told {
            Told::Secret(kept) => self.read(kept),
            _ => Ok(()),
        }
    }

    fn read(&mut self, kept: &Kept) -> Result<(), String> {
        let before: Vec<Kept> = self.secret.possible().cloned().collect();
        self.secret
            .forget(|late| late.version <= kept.version && late != kept);
        match self.secret.is(kept) {
            true => Ok(()),
            false => Err(format!("the secret is {kept:?}, and can be {before:?}")),
        }
    }

    /// As a stranger is.
    fn turned_away(&mut self, refusal: &Refusal) -> Result<(), String> {
        match refusal.code.as_str() {
            STRANGER => self.gone("an account that was acknowledged is not known"),
            code => Err(format!("{code} is no answer to that")),
        }
    }

    fn done(&mut self, sent: &Sent, asked: &Asked, told: &Told) -> Result<(), String> {
        match asked {
            Asked::Guess(_) | Asked::Begin(_) | Asked::End { .. } | Asked::Challenge => {}
            Asked::Options => self.ceremony = Some(sent.at),
            Asked::Registration => self.registration = Some(sent.at),
            Asked::SetPin(pin) | Asked::RegisterPin(pin) => {
                self.pin.wrote(*pin);
                self.spent.given_back(sent);
            }
            Asked::AddPasskey(number) => {
                self.passkeys.insert(*number, Register::of(true));
            }
            Asked::RemovePasskey(number) => {
                self.passkeys.insert(*number, Register::of(false));
            }
            Asked::Passkey(number) => {
                self.spent.given_back(sent);
                self.signed_in(told)?;
                return self.passkey(*number, true);
            }
            Asked::List => {
                let Told::Passkeys(listed) = told else {
                    return Err("a list without a list".into());
                };
                let known: Vec<u32> = self.passkeys.keys().copied().collect();
                for number in known {
                    self.passkey(number, listed.contains(&number))?;
                }
            }
            Asked::Put { base, content } => return self.put(*base, content, told),
            Asked::Get => return self.signed_in(told),
            Asked::Erase => self.account.wrote(false),
        }
        Ok(())
    }

    fn put(&mut self, base: u64, content: &str, told: &Told) -> Result<(), String> {
        let Told::Secret(Kept { version, .. }) = told else {
            return Err("written without a version".into());
        };
        if !self.versions().any(|possible| possible == base) {
            return Err(format!(
                "written over version {base}, which is not the newest"
            ));
        }
        if *version != base + 1 {
            return Err(format!("version {version} upon {base}"));
        }
        self.secret.forget(|late| late.version <= *version);
        self.secret.wrote(Kept {
            version: *version,
            content: content.to_owned(),
        });
        Ok(())
    }

    fn passkey(&mut self, number: u32, there: bool) -> Result<(), String> {
        let known = self.passkeys.get_mut(&number);
        let known = known.ok_or_else(|| format!("passkey {number} was never added"))?;
        match (known.is(&there), there) {
            (true, _) => Ok(()),
            (false, true) => Err(format!("passkey {number} was removed, and is accepted")),
            (false, false) => Err(format!("passkey {number} was acknowledged, and is gone")),
        }
    }

    fn left_open(&mut self, sent: &Sent, asked: &Asked) {
        let sent = sent.clone();
        match asked {
            Asked::Guess(_) | Asked::Begin(_) | Asked::End { .. } | Asked::Challenge => {}
            Asked::Options | Asked::Registration | Asked::Get | Asked::List => {}
            Asked::SetPin(pin) | Asked::RegisterPin(pin) => {
                self.spent.may_be_given_back(&sent);
                self.pin.may_write(sent, *pin);
            }
            Asked::AddPasskey(number) => {
                let known = self.passkeys.entry(*number);
                let known = known.or_insert_with(|| Register::of(false));
                known.may_write(sent, true);
            }
            Asked::RemovePasskey(number) => {
                if let Some(known) = self.passkeys.get_mut(number) {
                    known.may_write(sent, false);
                }
            }
            Asked::Passkey(_) => self.spent.may_be_given_back(&sent),
            Asked::Put { base, content } => {
                let kept = Kept {
                    version: base + 1,
                    content: content.clone(),
                };
                self.secret.may_write(sent, kept);
            }
            Asked::Erase => self.account.may_write(sent, false),
        }
    }

    /// Nothing was done; some refusals say what is there.
    fn refused(&mut self, entry: &Entry, refusal: &Refusal) -> Result<(), String> {
        let (sent, asked, code) = (&entry.sent, &entry.asked, refusal.code.as_str());
        if let Asked::AddPasskey(number) = asked {
            self.passkeys.insert(*number, Register::of(false));
        }
        if asked.needs_a_session() && self.refused_with(entry, refusal)? {
            return Ok(());
        }
        if let Some(checked) = self.ceremony_refused(sent, asked, code) {
            return checked;
        }
        match asked {
            Asked::Options | Asked::AddPasskey(_)
                if code == "409 too-many" && self.may_be_full() =>
            {
                Ok(())
            }
            Asked::Passkey(number) if code == STRANGER => {
                let known = self.passkeys.get(number);
                let removed = known.is_some_and(|known| known.can_be(&false));
                match (removed, self.account.can_be(&false)) {
                    // By whichever.
                    (true, true) => return Ok(()),
                    (true, false) => return self.passkey(*number, false),
                    (false, _) => {}
                }
                self.gone(&format!(
                    "passkey {number} was acknowledged, and is refused"
                ))
            }
            Asked::Put { base, .. } if code == "412 precondition-failed" => {
                let current = refusal.current.unwrap_or_default();
                self.secret.forget(|late| late.version < current);
                match current != *base && self.secret.is_one(|kept| kept.version == current) {
                    true => Ok(()),
                    false => Err(format!("the newest version is said to be {current}")),
                }
            }
            Asked::Get | Asked::Passkey(_) if code == NOT_FOUND => self.read(&Kept::nothing()),
            Asked::RemovePasskey(number) if code == NOT_FOUND => self.passkey(*number, false),
            _ => self.turned_away(refusal),
        }
    }
}
