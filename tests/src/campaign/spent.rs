//! How many attempts at a PIN are spent, as far as a history allows to say.
//!
//! Between `low` and `high` and as many more as charges are open. What may give them back without having said so, a right
//! guess without an answer or a passkey's, is remembered until it is over; then a smaller count is a guess won back.
//!
//! A login by OPAQUE is charged by its beginning, and that charge waits for its end: until then nothing gives it back, neither
//! another login nor a passkey nor a new PIN, and nothing charges it again.

use super::history::Sent;

/// As the policy has it where it says nothing, in milliseconds: a login or a registration by OPAQUE between its two calls.
pub(super) const LOGIN: u64 = 120_000;

/// Milliseconds after which a charge without an outcome counts as a failure, and the time in which it may still be made: a
/// daemon's time goes at half its pace while its host's clock is behind.
pub(super) const FORGOTTEN: u64 = 300_000;

#[derive(Clone, Debug)]
pub(super) struct Spent {
    most: u64,
    low: u64,
    high: u64,
    /// Guesses that may have been charged, or may be yet, beyond those that were seen to be.
    open: Vec<Sent>,
    /// All guesses without an outcome: while one is pending, a success does not clear it.
    pending: Vec<Sent>,
    /// Logins that were charged for certain, and whose outcome is not known.
    waiting: Vec<Waiting>,
    /// What may have given attempts back, or may yet.
    givers: Vec<Sent>,
}

#[derive(Clone, Debug)]
struct Waiting {
    login: u32,
    begun: Sent,
    /// No end of it has been sent of which it is not known what came.
    for_certain: bool,
}

impl Spent {
    pub(super) fn none_of(most: u64) -> Self {
        Self {
            most,
            low: 0,
            high: 0,
            open: Vec::new(),
            pending: Vec::new(),
            waiting: Vec::new(),
            givers: Vec::new(),
        }
    }

    /// Attempts that are left at the most, where nothing is given back.
    pub(super) fn left(&self) -> u64 {
        self.most.saturating_sub(self.low)
    }

    pub(super) fn may_be_charged(&mut self, sent: &Sent) {
        self.open.push(sent.clone());
        self.pending.push(sent.clone());
    }

    pub(super) fn may_be_given_back(&mut self, sent: &Sent) {
        self.givers.push(sent.clone());
    }

    /// Logins that wait for their end, as far as anybody knows.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Of those, how many charges are certainly there until this is answered.
    fn held(&self, sent: &Sent) -> u64 {
        let held = |one: &&Waiting| one.for_certain && !sent.may_find_past(one.begun.at, LOGIN);
        self.waiting.iter().filter(held).count() as u64
    }

    /// Logins that have begun at once, each with what is left if it was wrong.
    pub(super) fn begun(&mut self, sent: &Sent, logins: &[(u32, u64)]) -> Result<(), String> {
        if logins.is_empty() {
            return Ok(());
        }
        if self.low >= self.most && self.givers.is_empty() {
            return Err(format!("begun beyond the budget: {} were spent", self.low));
        }
        let lefts: Vec<u64> = logins.iter().map(|(_, left)| *left).collect();
        self.wrong(sent, &lefts)?;
        self.waiting.extend(logins.iter().map(|(login, _)| Waiting {
            login: *login,
            begun: sent.clone(),
            for_certain: true,
        }));
        self.low = self.low.max(self.held(sent));
        Ok(())
    }

    /// An end of it has no answer.
    pub(super) fn may_have_ended(&mut self, login: u32) {
        let ended = self.waiting.iter_mut().filter(|one| one.login == login);
        ended.for_each(|one| one.for_certain = false);
    }

    /// A right end was let in.
    pub(super) fn ended_right(&mut self, sent: &Sent, login: u32) {
        self.settled(login);
        self.given_back(sent);
    }

    /// A wrong one came first, and is told what is left: it was charged already.
    pub(super) fn ended_wrong(&mut self, sent: &Sent, login: u32, left: u64) -> Result<(), String> {
        self.told(sent, &[left], 0)?;
        self.settled(login);
        Ok(())
    }

    /// One of these ends it was: it may have given back what was spent, since that was last told.
    pub(super) fn ended_somehow(&mut self, sent: &Sent, login: u32, ends: &[Sent]) {
        self.settled(login);
        let givers = self.givers.len();
        self.give_nothing(ends);
        if self.givers.len() < givers {
            self.low = self.low.min(self.held(sent));
        }
    }

    fn settled(&mut self, login: u32) {
        self.waiting.retain(|one| one.login != login);
    }

    /// What was sent then gives nothing back from now on.
    pub(super) fn give_nothing(&mut self, ends: &[Sent]) {
        self.givers.retain(|giver| !ends.contains(giver));
    }

    /// Wrong guesses that were made at once, by what each was told to be left. Whatever else there was of them is open already.
    pub(super) fn wrong(&mut self, sent: &Sent, lefts: &[u64]) -> Result<(), String> {
        self.told(sent, lefts, lefts.len() as u64)
    }

    /// What was told to be left by so many at once, of which so many were charged since the last time.
    fn told(&mut self, sent: &Sent, lefts: &[u64], count: u64) -> Result<(), String> {
        let spent = |left: &u64| self.most.checked_sub(*left);
        let Some(spent) = lefts.iter().map(spent).collect::<Option<Vec<_>>>() else {
            return Err(format!("{lefts:?} left of {}", self.most));
        };
        let (Some(&least), Some(&highest)) = (spent.iter().min(), spent.iter().max()) else {
            return Ok(());
        };
        if least == 0 {
            return Err("a guess was won back: it is told that none is spent".into());
        }
        let open = self.open.len() as u64;
        let (low, high) = (self.low, self.high);
        let own = count.min(1);
        if highest > high + count + open {
            return Err(format!(
                "counted more than once: {highest} are spent, where {high} were, {open} are open and {count} came"
            ));
        }
        if least < low + own || highest < low + count {
            let held = self.held(sent);
            if self.givers.is_empty() || least < held + own {
                return Err(format!(
                    "a guess was won back: {least} to {highest} are spent, where {low} were, {held} wait for their \
                     end and {count} came"
                ));
            }
            // It came before this guess, or between two of them.
            self.low = if lefts.len() == 1 { highest } else { held };
        } else {
            if self.givers.is_empty() {
                let charged = highest.saturating_sub(high + count).min(open);
                self.open.drain(..usize::try_from(charged).unwrap_or(0));
            }
            self.low = highest;
        }
        self.high = highest;
        self.givers.retain(|giver| !giver.is_over(sent));
        Ok(())
    }

    /// A right guess was let in.
    pub(super) fn right(&mut self, sent: &Sent) -> Result<(), String> {
        let spent = self.low;
        let beyond = spent >= self.most && self.givers.is_empty();
        self.given_back(sent);
        match beyond {
            true => Err(format!("evaluated beyond the budget: {spent} were spent")),
            false => Ok(()),
        }
    }

    /// By another factor, or because the PIN is another. Charges without an outcome stay until they expire.
    pub(super) fn given_back(&mut self, sent: &Sent) {
        self.pending.retain(|one| sent.at < one.at + FORGOTTEN);
        self.waiting
            .retain(|one| sent.at < one.begun.at + FORGOTTEN);
        (self.low, self.high) = (self.held(sent), self.waiting.len() as u64);
        self.open.clone_from(&self.pending);
        self.givers.retain(|giver| !giver.is_over(sent));
    }

    pub(super) fn exhausted(&mut self, sent: &Sent) -> Result<(), String> {
        let possible = self.high + self.open.len() as u64;
        if possible < self.most {
            return Err(format!(
                "counted more than once: nothing is left of {}, where {possible} can be spent",
                self.most
            ));
        }
        (self.low, self.high) = (self.most, self.most);
        self.givers.retain(|giver| !giver.is_over(sent));
        Ok(())
    }
}
