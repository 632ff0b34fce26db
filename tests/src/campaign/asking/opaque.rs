//! The account's PIN by OPAQUE: registered in two calls, and signed in with in two, each at a node that the dice choose.
//!
//! The client does not stretch the PIN: that would be most of what the machine does, and the server can not tell. Ends of a
//! login are sent once, again, twice at once, late, or never.

use serde_json::{Value, json};

use super::super::history::{Asked, Came, Login, Pin, Told};
use super::{Owned, SECRET, came, digits, released, yes};
use crate::device::b64;
use crate::opaque::{LoggingIn, Registering};

/// Logins that are kept, to be ended once more or at last.
const KEPT: usize = 8;
/// Charges that are left without an end at a time. They stay for two minutes, whoever signs in.
const WAITING: usize = 6;

/// What a client holds of the logins that it has begun.
#[derive(Default)]
pub(super) struct Logins {
    count: u32,
    kept: Vec<Begun>,
}

struct Begun {
    number: u32,
    pin: Pin,
    token: Value,
    /// The right end, where the PIN is right.
    ke3: Option<String>,
}

/// No login's.
fn wrong_end() -> String {
    b64(&[7; 64])
}

impl Owned {
    pub(super) async fn register_pin(&mut self) -> Option<()> {
        let pin = self.next_pin();
        let (state, body) = Registering::start(&digits(pin));
        let call = ("POST", "/v1/account/opaque/start");
        let started = self.asked(Asked::Registration, call, Some(body), &[], yes);
        let Some((_, started)) = started.await else {
            return Some(());
        };
        let body = state.finish_unstretched(&digits(pin), &started.body).body;
        let call = ("POST", "/v1/account/opaque/finish");
        self.replaced_pin(pin, Asked::RegisterPin(pin), call, body)
            .await
    }

    /// As many at once as there are PINs, each at the next node; the numbers of those that were answered.
    async fn begin(&mut self, pins: &[Pin]) -> Option<Vec<u32>> {
        let asked: Vec<(Login, LoggingIn)> = pins
            .iter()
            .map(|&pin| {
                self.logins.count += 1;
                let number = self.logins.count;
                (Login { number, pin }, LoggingIn::start(&digits(pin)))
            })
            .collect();
        let body =
            |(_, login): &(_, LoggingIn)| json!({"account": self.device.account, "ke1": login.ke1});
        let bodies = asked.iter().map(body).collect();
        let (sent, reached) = self
            .at_once("/v1/apps/{app}/sessions/opaque/start", bodies)
            .await?;
        let (mut logins, mut all, mut begun) = (Vec::new(), Vec::new(), Vec::new());
        for one in &reached {
            let (login, state) = &asked[one.which];
            let answer = one.answer.as_ref();
            let mut ke3 = None;
            let came = came(answer, |answer| {
                ke3 = state.finish_unstretched(&answer.body).map(|end| end.ke3);
                Told::Begun {
                    left: answer.body["attempts_left"].as_u64(),
                    right: ke3.is_some(),
                }
            });
            if let (Came::Done(_), Some(answer)) = (&came, answer) {
                begun.push(login.number);
                self.logins.kept.push(Begun {
                    number: login.number,
                    pin: login.pin,
                    token: answer.body["login"].clone(),
                    ke3,
                });
            }
            logins.push(*login);
            all.push(came);
        }
        let too_many = self.logins.kept.len().saturating_sub(KEPT);
        self.logins.kept.drain(..too_many);
        self.note_all(&sent, Asked::Begin(logins), all);
        Some(begun)
    }

    /// Ends of one login at once, each at the next node, right ones or wrong ones; whether it opened a session.
    async fn end(&mut self, number: u32, right: &[bool]) -> Option<bool> {
        let kept = self.logins.kept.iter();
        let Some(login) = kept.rev().find(|login| login.number == number) else {
            return Some(false);
        };
        let pin = login.pin;
        let body = |&right: &bool| {
            let ke3 = login.ke3.clone().filter(|_| right);
            let ke3 = ke3.unwrap_or_else(wrong_end);
            json!({"login": login.token, "ke3": ke3, "release": [SECRET]})
        };
        let bodies = right.iter().map(body).collect();
        let right: Vec<bool> = right
            .iter()
            .map(|&right| right && login.ke3.is_some())
            .collect();
        let (sent, reached) = self
            .at_once("/v1/apps/{app}/sessions/opaque/finish", bodies)
            .await?;
        let asked = Asked::End {
            login: number,
            right: reached.iter().map(|one| right[one.which]).collect(),
        };
        let came = reached
            .iter()
            .map(|one| came(one.answer.as_ref(), released))
            .collect();
        self.note_all(&sent, asked, came);
        Some(self.take_one(sent, reached, |_| pin))
    }

    fn is_right(&self, number: u32) -> bool {
        let mut kept = self.logins.kept.iter();
        kept.any(|login| login.number == number && login.ke3.is_some())
    }

    /// Whether one more charge may be left to itself.
    fn may_leave_one(&self) -> bool {
        self.checker.waiting() < WAITING
    }

    /// With a PIN that may be the right one.
    pub(super) async fn sign_in_by_opaque(&mut self, pin: Pin) -> Option<bool> {
        let begun = self.begin(&[pin]).await?;
        let [number] = begun[..] else {
            return Some(false);
        };
        if !self.is_right(number) {
            self.wrong_ends(number).await?;
            return Some(false);
        }
        match self.dice.below(16) {
            0 if self.may_leave_one() => Some(false),
            1..4 => self.end(number, &[true, true]).await,
            4 => self.end(number, &[false, true]).await,
            // Whatever came of the first, there is nothing left to open.
            5 => {
                let first = self.end(number, &[false]).await?;
                Some(self.end(number, &[true]).await? || first)
            }
            6..9 => {
                let first = self.end(number, &[true]).await?;
                Some(self.end(number, &[true]).await? || first)
            }
            _ => self.end(number, &[true]).await,
        }
    }

    /// With PINs that are wrong, at once.
    pub(super) async fn guess_by_opaque(&mut self, pins: &[Pin]) -> Option<()> {
        for number in self.begin(pins).await? {
            self.wrong_ends(number).await?;
        }
        Some(())
    }

    /// What a client sends who does not know that the PIN is wrong; an honest one knows, and sends nothing.
    async fn wrong_ends(&mut self, number: u32) -> Option<()> {
        match self.dice.below(6) {
            0..2 if self.may_leave_one() => {}
            2 => {
                self.end(number, &[false, false]).await?;
            }
            _ => {
                self.end(number, &[false]).await?;
            }
        }
        Some(())
    }

    /// One that began a while ago and may have ended since.
    pub(in super::super) async fn end_an_old_login(&mut self, chance: u64) -> Option<()> {
        let Some(at) = chance.checked_rem(self.logins.kept.len() as u64) else {
            return Some(());
        };
        let login = &self.logins.kept[usize::try_from(at).unwrap()];
        let (number, right) = (login.number, login.ke3.is_some());
        let ends = match self.dice.below(4) {
            0 => vec![right; 2],
            1 => vec![false],
            _ => vec![right],
        };
        self.end(number, &ends).await.map(drop)
    }
}
