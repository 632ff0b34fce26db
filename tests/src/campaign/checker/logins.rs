//! Sign-ins by OPAQUE: the beginning is the guess and is charged, at whichever node; one end decides it, at whichever node, and
//! no other does anything.
//!
//! Its charge is given back by a right end, within its time, and by nothing else before that. A wrong end, or none, leaves it.
//! Who has no answer to an end does not know whether that was the one.

use super::super::history::{Came, Kept, Login, NOBODYS, Pin, Refusal, Sent, Told};
use super::super::spent::{FORGOTTEN, LOGIN};
use super::{Checker, NOT_FOUND, STRANGER};

const WRONG: &str = "401 pin-wrong";
const CONSUMED: &str = "401 ceremony-consumed";
/// The account's PIN is checked the other way: said before anything is charged.
pub(super) const OTHER_WAY: &str = "409 pin-other-way";

/// A login that was answered.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    sent: Sent,
    /// What the account's PIN can have been by then; nothing where there was no account.
    at: Vec<Pin>,
    /// Ends without an answer: one of them may have decided it.
    open: Vec<Sent>,
    decided: bool,
}

impl Begun {
    fn of(sent: &Sent, at: Vec<Pin>) -> Self {
        Self {
            sent: sent.clone(),
            at,
            open: Vec::new(),
            decided: false,
        }
    }
}

/// Of answers at once, which tells of the earlier moment: what is not there yet, the one that decides, those that find it
/// decided, and what has been replaced or erased since.
fn order(came: &Came) -> u8 {
    match came {
        Came::Lost | Came::Open(_) => 0,
        Came::Refused(refusal) => match refusal.code.as_str() {
            WRONG => 2,
            CONSUMED => 3,
            STRANGER => 4,
            _ => 1,
        },
        Came::Done(_) => 2,
    }
}

impl Checker {
    /// Whether this PIN was registered by OPAQUE, or may have been.
    #[must_use]
    pub fn is_by_opaque(&self, pin: Pin) -> bool {
        self.by_opaque.contains(&pin)
    }

    /// Logins that wait for their end, as far as anybody knows.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.spent.waiting()
    }

    /// The PIN was seen to be one of those that `fit`; whether it can be. Of answers at once it is not known which
    /// came before a change that is under way.
    pub(super) fn pin_is(&mut self, alone: bool, fit: impl Fn(Pin, bool) -> bool) -> bool {
        let Self { pin, by_opaque, .. } = self;
        let fit = |now: &Pin| fit(*now, by_opaque.contains(now));
        match alone || !pin.may_change() {
            true => pin.is_among(fit),
            false => pin.possible().any(fit),
        }
    }

    pub(super) fn begun(
        &mut self,
        sent: &Sent,
        logins: &[Login],
        came: &[Came],
    ) -> Result<(), String> {
        let alone = logins.len() == 1;
        let (mut charged, mut decoys) = (Vec::new(), Vec::new());
        let (mut exhausted, mut strange) = (false, false);
        for (login, came) in logins.iter().zip(came) {
            match came {
                // Without its answer nobody can end it.
                Came::Lost | Came::Open(_) => self.spent.may_be_charged(sent),
                Came::Done(Told::Begun { left, right }) => match left {
                    Some(left) => {
                        let at = self.begun_at(login.pin, *right, alone)?;
                        charged.push((login.number, *left));
                        self.logins.insert(login.number, Begun::of(sent, at));
                    }
                    None if *right => return Err("an answer fits the PIN, and is a decoy".into()),
                    None => decoys.push(login.number),
                },
                Came::Done(_) => return Err("a login begins without an answer".into()),
                Came::Refused(refusal) => match refusal.code.as_str() {
                    "403 pin-exhausted" => {
                        self.there()?;
                        exhausted = true;
                    }
                    "409 pin-not-set" => self.has_no_pin(alone)?,
                    OTHER_WAY => self.is_the_other_way(alone, true)?,
                    STRANGER => strange = true,
                    _ => self.turned_away(refusal)?,
                },
            }
        }
        if strange {
            self.replaced_before_it_was_charged()?;
        }
        for number in decoys {
            self.gone("a login of an account that was acknowledged is a decoy")?;
            let decoy = Begun::of(sent, Vec::new());
            self.logins.insert(number, decoy);
        }
        self.spent.begun(sent, &charged)?;
        match exhausted {
            true => self.spent.exhausted(sent),
            false => Ok(()),
        }
    }

    /// What the PIN can be that an answer is of, which fits the one that was typed or does not.
    fn begun_at(&mut self, typed: Pin, right: bool, alone: bool) -> Result<Vec<Pin>, String> {
        self.there()?;
        let fits = |now: Pin, by_opaque: bool| by_opaque && (now == typed) == right;
        if !self.pin_is(alone, fits) {
            return Err(match right {
                true => format!("PIN {typed} was replaced, and fits"),
                false => format!("PIN {typed} was acknowledged, and does not fit"),
            });
        }
        let possible = self.pin.possible().copied();
        Ok(possible
            .filter(|now| fits(*now, self.is_by_opaque(*now)))
            .collect())
    }

    /// What is known of the account was not that any more when it was to be charged.
    fn replaced_before_it_was_charged(&mut self) -> Result<(), String> {
        let wrong = "an account that was acknowledged is not known";
        if !self.pin.may_change() {
            return self.gone(wrong);
        }
        match self.account.can_be(&false) || self.pin.came_late() {
            true => Ok(()),
            false => Err(wrong.into()),
        }
    }

    pub(super) fn has_no_pin(&mut self, alone: bool) -> Result<(), String> {
        self.there()?;
        match self.pin_is(alone, |now, _| now == NOBODYS) {
            true => Ok(()),
            false => Err("the PIN was acknowledged, and there is none".into()),
        }
    }

    /// It was asked for this way, and is checked the other.
    pub(super) fn is_the_other_way(&mut self, alone: bool, by_opaque: bool) -> Result<(), String> {
        self.there()?;
        match self.pin_is(alone, |now, way| now != NOBODYS && way != by_opaque) {
            true => Ok(()),
            false => Err("the PIN is said to be checked the other way".into()),
        }
    }

    pub(super) fn ended_login(
        &mut self,
        sent: &Sent,
        number: u32,
        right: &[bool],
        came: &[Came],
    ) -> Result<(), String> {
        let Some(mut login) = self.logins.remove(&number) else {
            return Err(format!("login {number} has an end, and was never answered"));
        };
        let mut ends: Vec<(bool, &Came)> = right.iter().copied().zip(came).collect();
        ends.sort_by_key(|(_, came)| order(came));
        let alone = ends.len() == 1;
        let checked = ends
            .into_iter()
            .try_for_each(|(right, came)| match came {
                Came::Lost | Came::Open(_) => {
                    self.may_decide(sent, number, &mut login, right);
                    Ok(())
                }
                Came::Done(told) => self.opens(sent, number, &mut login, right, told),
                Came::Refused(refusal) => {
                    self.end_refused(sent, number, &mut login, (right, alone), refusal)
                }
            })
            .map_err(|what| format!("login {number}: {what}"));
        self.logins.insert(number, login);
        checked
    }

    fn may_decide(&mut self, sent: &Sent, number: u32, login: &mut Begun, right: bool) {
        if login.decided {
            return;
        }
        login.open.push(sent.clone());
        self.spent.may_have_ended(number);
        if right {
            self.spent.may_be_given_back(sent);
        }
    }

    fn opens(
        &mut self,
        sent: &Sent,
        number: u32,
        login: &mut Begun,
        right: bool,
        told: &Told,
    ) -> Result<(), String> {
        if !right {
            return Err("a wrong end opens".into());
        }
        self.decides(sent, login)?;
        self.spent.ended_right(sent, number);
        self.signed_in(told)?;
        match self.pin_is(true, |now, _| login.at.contains(&now)) {
            true => Ok(()),
            false => Err("the PIN was replaced, and its end opens".into()),
        }
    }

    /// This end does, so that no other has or will.
    fn decides(&mut self, sent: &Sent, login: &mut Begun) -> Result<(), String> {
        if login.decided {
            return Err("it has ended, and ends again".into());
        }
        if sent.at >= login.sent.at + FORGOTTEN {
            return Err("its time is over, and it ends".into());
        }
        login.decided = true;
        self.spent.give_nothing(&std::mem::take(&mut login.open));
        Ok(())
    }

    fn end_refused(
        &mut self,
        sent: &Sent,
        number: u32,
        login: &mut Begun,
        (right, alone): (bool, bool),
        refusal: &Refusal,
    ) -> Result<(), String> {
        let code = refusal.code.as_str();
        let begun = login.sent.at;
        match code {
            // Before anything of the account is looked at.
            "401 ceremony-expired" => match sent.may_find_past(begun, LOGIN) {
                true => Ok(()),
                false => Err(format!("{code}, and it had just begun")),
            },
            "401 ceremony-invalid" => match sent.has_a_clock_been_off_since(begun) {
                true => Ok(()),
                false => Err(format!("{code}, and it was answered")),
            },
            STRANGER => self.end_is_strange(login, alone),
            WRONG | CONSUMED | NOT_FOUND => {
                self.there()?;
                if !self.pin_is(alone, |now, _| login.at.contains(&now)) {
                    return Err(format!("{code}, and its PIN was replaced"));
                }
                match code {
                    WRONG if right => Err("the right end is wrong".into()),
                    WRONG => {
                        let left = refusal.left.ok_or("it is not said how many are left")?;
                        self.decides(sent, login)?;
                        self.spent.ended_wrong(sent, number, left)
                    }
                    CONSUMED => self.was_decided(sent, number, login),
                    // There is nothing to release, and it may end yet.
                    _ => self.read(&Kept::nothing()),
                }
            }
            _ => self.turned_away(refusal),
        }
    }

    /// By an end of before, or one that was sent at the same time; or its time was over when it came to be recorded.
    fn was_decided(&mut self, sent: &Sent, number: u32, login: &mut Begun) -> Result<(), String> {
        let expired = sent.may_find_past(login.sent.at, LOGIN);
        match (login.decided, expired, login.open.is_empty()) {
            (true, _, _) | (_, true, _) => Ok(()),
            (false, false, true) => Err("it is said to have ended, and no end was sent".into()),
            (false, false, false) => {
                login.decided = true;
                let ends = std::mem::take(&mut login.open);
                self.spent.ended_somehow(sent, number, &ends);
                Ok(())
            }
        }
    }

    /// The account is gone, or its PIN was replaced since it began.
    fn end_is_strange(&mut self, login: &Begun, alone: bool) -> Result<(), String> {
        let gone = self.account.can_be(&false);
        // Which of several it was is not known, so any of them may have been replaced.
        let [at] = login.at[..] else {
            return match gone || !login.at.is_empty() {
                true => Ok(()),
                false => Err("an account that was erased is there".into()),
            };
        };
        let replaced = self.pin.possible().any(|now| *now != at);
        let wrong = "its PIN was not replaced, and it is a stranger's";
        match (replaced, gone) {
            // By whichever.
            (true, true) => Ok(()),
            (false, _) => self.gone(wrong),
            (true, false) => match self.pin_is(alone, |now, _| now != at) {
                true => Ok(()),
                false => Err(wrong.into()),
            },
        }
    }
}
