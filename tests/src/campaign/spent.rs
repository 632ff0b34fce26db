//! How many attempts at a PIN are spent, as far as a history allows to say.
//!
//! Between `low` and `high` and as many more as charges are open. What may give them back without having said so, a right
//! guess without an answer or a passkey's, is remembered until it is over; then a smaller count is a guess won back.

use super::history::Sent;

/// Milliseconds after which a charge without an outcome counts as a failure, and the time in which it may still be made: a
/// daemon's time goes at half its pace while its host's clock is behind.
const FORGOTTEN: u64 = 300_000;

#[derive(Clone, Debug)]
pub(super) struct Spent {
    most: u64,
    low: u64,
    high: u64,
    /// Guesses that may have been charged, or may be yet, beyond those that were seen to be.
    open: Vec<Sent>,
    /// All guesses without an outcome: while one is pending, a success does not clear it.
    pending: Vec<Sent>,
    /// What may have given attempts back, or may yet.
    givers: Vec<Sent>,
}

impl Spent {
    pub(super) fn none_of(most: u64) -> Self {
        Self {
            most,
            low: 0,
            high: 0,
            open: Vec::new(),
            pending: Vec::new(),
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

    /// Wrong guesses that were made at once, by what each was told to be left. Whatever else there was of them is open already.
    pub(super) fn wrong(&mut self, sent: &Sent, lefts: &[u64]) -> Result<(), String> {
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
        let count = lefts.len() as u64;
        let open = self.open.len() as u64;
        let (low, high) = (self.low, self.high);
        if highest > high + count + open {
            return Err(format!(
                "counted more than once: {highest} are spent, where {high} were, {open} are open and {count} came"
            ));
        }
        if least < low + 1 || highest < low + count {
            if self.givers.is_empty() {
                return Err(format!(
                    "a guess was won back: {least} to {highest} are spent, where {low} were and {count} came"
                ));
            }
            // It came before this guess, or between two of them.
            self.low = if count == 1 { highest } else { 0 };
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
        (self.low, self.high) = (0, 0);
        self.pending.retain(|one| sent.at < one.at + FORGOTTEN);
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
