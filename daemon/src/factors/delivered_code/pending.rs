//! The codes of one contact that were sent and may still be redeemed.
//!
//! Kept in the envelope, beside the contact's secret. Every change is a pure
//! function of state and time. It must never hold more than [`MAX_PENDING`]
//! codes, nor turn a requester away when it is full: whoever can not have a
//! code of their own is attached to one that is already under way, so that
//! nobody can keep an owner out by asking first.

use std::collections::VecDeque;
use std::time::Duration;

use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::code::DIGITS;
use super::{Code, Form, OtpSecret};

/// Most codes that may be redeemed at the same time.
pub const MAX_PENDING: usize = 8;
/// Most devices that are remembered for one code. One more opens it to any
/// device: to turn somebody away, or to forget who asked before, would let
/// anybody with enough keys keep the owner out. It costs little, since whoever
/// asks while a code is under way may redeem it anyhow; what protects it is
/// its length, and that it lies in the owner's mailbox.
pub const MAX_REQUESTERS: usize = 16;

/// Who asked for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester<'a> {
    /// RFC 7638 thumbprint of the device key that signed the request.
    pub thumbprint: &'a str,
    /// Whether that device is bound to the account.
    pub bound: bool,
}

/// One code that was sent. The code itself is computed from this and the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Its number among the codes of this contact; never used again.
    pub counter: u64,
    /// The time step of its making; a step is as long as a code was good for then.
    pub step: u64,
    /// What it looks like.
    pub form: Form,
    /// When it was asked for.
    pub issued: Timestamp,
    /// From when on it is worth nothing.
    pub expires: Timestamp,
    /// Thumbprints of the devices that may redeem it, the latest one last.
    pub requesters: VecDeque<String>,
    /// More asked than are remembered. Only of a long code: short ones are for
    /// bound devices, of which the account remembers all.
    pub crowded: bool,
}

impl Pending {
    /// Whether `thumbprint` may redeem it now.
    pub fn open_to(&self, thumbprint: &str, now: Timestamp) -> bool {
        let asked = || self.requesters.iter().any(|known| known == thumbprint);
        now < self.expires && (self.crowded || asked())
    }

    /// Short codes are for bound devices only.
    fn suits(&self, requester: Requester<'_>) -> bool {
        requester.bound || self.form == Form::Long
    }
}

/// Why there is no new code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The list is full; attaching is possible.
    #[error("eight codes are under way already: attach this device to the latest one")]
    Full,
    /// A short code would be within reach of guessing.
    #[error("a device that is not bound to the account gets a long code only")]
    ShortForStranger,
    /// No such form.
    #[error("codes of {0} digits are not supported: choose 6 to 10")]
    Digits(u8),
    /// A code must be good for a second at least.
    #[error("a code that is good for less than one second can not be redeemed")]
    NoTime,
    /// The last number was used.
    #[error("this contact has had all its codes: remove it and add it again")]
    Counter,
}

/// The pending codes of one contact, the latest one last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingCodes {
    /// The number that the next code gets.
    next: u64,
    codes: Vec<Pending>,
}

impl PendingCodes {
    /// The codes, the latest one last; some may have expired.
    pub fn codes(&self) -> &[Pending] {
        &self.codes
    }

    /// Add a code for `requester`, good for `valid_for` from `now` on.
    ///
    /// Where the list is full, a long code takes the place of the oldest short
    /// one: a bound device has other ways to its account, a stranger may not.
    /// So a refusal as [`IssueError::Full`] means that [`PendingCodes::attach`]
    /// will find a code.
    pub fn issue(
        &mut self,
        requester: Requester<'_>,
        form: Form,
        valid_for: Duration,
        now: Timestamp,
    ) -> Result<Pending, IssueError> {
        match form {
            Form::Digits(count) if !DIGITS.contains(&count) => {
                return Err(IssueError::Digits(count));
            }
            Form::Digits(_) if !requester.bound => return Err(IssueError::ShortForStranger),
            Form::Digits(_) | Form::Long => {}
        }
        let step = now.0.checked_div(valid_for.as_secs());
        let step = step.ok_or(IssueError::NoTime)?;
        let next = self.next.checked_add(1).ok_or(IssueError::Counter)?;
        self.expire(now);
        self.make_room(form)?;
        let pending = Pending {
            counter: self.next,
            step,
            form,
            issued: now,
            expires: now.plus(valid_for),
            requesters: VecDeque::from([requester.thumbprint.to_owned()]),
            crowded: false,
        };
        self.next = next;
        self.codes.push(pending.clone());
        Ok(pending)
    }

    fn make_room(&mut self, form: Form) -> Result<(), IssueError> {
        if self.codes.len() < MAX_PENDING {
            return Ok(());
        }
        let short = |code: &Pending| code.form != Form::Long;
        match self.codes.iter().position(short) {
            Some(oldest) if form == Form::Long => {
                self.codes.remove(oldest);
                Ok(())
            }
            _ => Err(IssueError::Full),
        }
    }

    /// Let `requester` redeem the latest code that suits it, instead of sending
    /// one more. `None` where no such code is under way.
    pub fn attach(&mut self, requester: Requester<'_>, now: Timestamp) -> Option<Pending> {
        self.expire(now);
        let mut latest_first = self.codes.iter_mut().rev();
        let pending = latest_first.find(|pending| pending.suits(requester))?;
        let known = &mut pending.requesters;
        known.retain(|thumbprint| thumbprint != requester.thumbprint);
        if known.len() < MAX_REQUESTERS {
            known.push_back(requester.thumbprint.to_owned());
        } else if pending.form == Form::Long {
            pending.crowded = true;
        } else {
            known.pop_front();
            known.push_back(requester.thumbprint.to_owned());
        }
        Some(pending.clone())
    }

    /// The number of the code that `code` is, if `thumbprint` may redeem it now.
    /// All codes open to that device are compared, each in constant time.
    pub fn find(
        &self,
        secret: &OtpSecret,
        thumbprint: &str,
        code: &Code,
        now: Timestamp,
    ) -> Option<u64> {
        let open = self.codes.iter();
        let open = open.filter(|pending| pending.open_to(thumbprint, now));
        open.fold(None, |found, pending| {
            let matches = secret.matches(pending, code);
            matches.then_some(pending.counter).or(found)
        })
    }

    /// Use the code with that number up. `None` where it is not there any more,
    /// not `thumbprint`'s, or expired since it was found: then nothing changes
    /// and nothing may be granted.
    pub fn redeem(&mut self, counter: u64, thumbprint: &str, now: Timestamp) -> Option<Pending> {
        let redeemable = |code: &Pending| code.counter == counter && code.open_to(thumbprint, now);
        let place = self.codes.iter().position(redeemable)?;
        Some(self.codes.remove(place))
    }

    /// Forget the codes that have expired.
    pub fn expire(&mut self, now: Timestamp) {
        self.codes.retain(|code| now < code.expires);
    }

    /// Forget the code that was asked for first: another contact of the account needs room.
    pub fn forget_oldest(&mut self) {
        if !self.codes.is_empty() {
            self.codes.remove(0);
        }
    }

    /// Let `thumbprint` redeem nothing any more: its device is not what it was when it asked.
    pub fn forget_requester(&mut self, thumbprint: &str) {
        for code in &mut self.codes {
            code.requesters.retain(|known| known != thumbprint);
        }
        self.codes
            .retain(|code| !code.requesters.is_empty() && !code.crowded);
    }

    /// Make every code worthless, as a restore has to. Numbers go on.
    pub fn void(&mut self) {
        self.codes.clear();
    }
}
