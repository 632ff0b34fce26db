//! Several tokens with the same keys, of which any one may be lost while the daemon serves.
//!
//! Built by [`Pool::start_set`](crate::Pool::start_set), asked by the workers of that pool and by the
//! ledger. Each token has a pool of its own, so that one that hangs holds up its own threads and nobody
//! else's. An operation goes to the first token that is in the set and well; where that one fails or does
//! not answer in time it goes to the next, for all of these may be repeated. Anchors are not of this kind:
//! each token has its own, and the ledger moves every one of them (`daemon/src/ledger/anchoring`).
//!
//! Which tokens are *in the set* is the head's word, never the configuration's: see
//! `daemon/src/ledger/tokens.rs` for the argument. A token outside of it is asked for nothing but what
//! brings it in.

mod custody;
mod member;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub(crate) use self::custody::SetBackend;
pub use self::member::{Member, Standing};
pub(crate) use self::member::{Observer, identity};
use crate::{
    custody::{Backend, Custody},
    error::{Error, Result},
    pool::PoolOptions,
};

/// The tokens of a realm, in the order in which they are asked.
#[derive(Debug)]
pub struct TokenSet {
    members: Vec<Arc<Member>>,
    /// How long a token may leave everybody without an answer.
    patience: Duration,
    /// Tokens that an operator has said to be lost, by what the head calls them.
    lost: Mutex<Vec<String>>,
}

impl TokenSet {
    /// Opens all tokens at once. One that does not open is left for later, as long as another does.
    ///
    /// # Errors
    /// The first token's, where none opens; [`Error::Misconfigured`] where two are one.
    pub(crate) fn open(
        tokens: Vec<(String, Arc<dyn Backend>)>,
        options: &PoolOptions,
        patience: Duration,
    ) -> Result<Arc<Self>> {
        let options = PoolOptions {
            // Twice within the patience: one answer that is late is no reason to give a token up.
            deadline: patience / 2,
            ..options.clone()
        };
        let members: Vec<Arc<Member>> = tokens
            .into_iter()
            .map(|(name, backend)| Arc::new(Member::new(name, backend, options.clone())))
            .collect();
        let set = Arc::new(Self {
            members,
            patience,
            lost: Mutex::default(),
        });
        set.reach_all(OPENING.max(patience))?;
        Ok(set)
    }

    fn reach_all(&self, within: Duration) -> Result<()> {
        let begun: Vec<_> = self.members.iter().map(Member::begin_to_reach).collect();
        let until = Instant::now() + within;
        let mut first = None;
        let mut reached = false;
        for (member, opening) in self.members.iter().zip(begun) {
            match opening.outcome(until) {
                Ok(()) => reached = true,
                Err(error) => {
                    tracing::warn!(token = member.name(), %error, "a token does not open");
                    first.get_or_insert(error);
                }
            }
        }
        self.refuse_twins()?;
        match (reached, first) {
            (false, Some(error)) => Err(error),
            (false, None) => Err(Error::Misconfigured("a set of no tokens".to_owned())),
            (true, _) => Ok(()),
        }
    }

    /// Two names for one token would be lost together, and overwrite each other's anchors.
    fn refuse_twins(&self) -> Result<()> {
        let mut known: Vec<(String, &str)> = Vec::new();
        for member in self.members.iter().filter(|member| member.is_open()) {
            let id = member.id()?;
            if let Some((_, other)) = known.iter().find(|(known, _)| *known == id) {
                return Err(Error::Misconfigured(format!(
                    "{} and {other} are one token, of serial number {id}: several tokens are of use \
                     only where each can be lost without the other",
                    member.name()
                )));
            }
            known.push((id, member.name()));
        }
        Ok(())
    }

    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The token of this identifier, if it was reached.
    #[must_use]
    pub fn of_id(&self, id: &str) -> Option<&Arc<Member>> {
        let named = |member: &&Arc<Member>| member.id().is_ok_and(|known| known == id);
        self.members.iter().find(named)
    }

    /// The token that an operator means by its name in the configuration or by its identifier.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&Arc<Member>> {
        let named = |member: &&Arc<Member>| member.name() == name;
        self.of_id(name).or_else(|| self.members.iter().find(named))
    }

    /// The tokens of the set, in the order of the configuration.
    pub fn serving(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members
            .iter()
            .filter(|member| member.standing() != Standing::Outside)
    }

    /// From now on these tokens are the set. Before this is said for the first time, all are.
    pub fn is_of(&self, ids: &[String]) {
        for member in &self.members {
            let named = member.id().is_ok_and(|id| ids.contains(&id));
            match (named, member.standing()) {
                (false, _) => member.leaves(),
                (true, Standing::Outside) => member.joins(),
                (true, _) => {}
            }
        }
    }

    /// An operator says that this token is lost, by its name or identifier: the next start goes on without it.
    pub fn is_lost(&self, called: String) {
        self.known_lost().push(called);
    }

    /// What was said is understood to mean these, by their identifiers.
    pub fn are_lost(&self, ids: Vec<String>) {
        *self.known_lost() = ids;
    }

    /// What operators have said to be lost.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.known_lost().clone()
    }

    fn known_lost(&self) -> MutexGuard<'_, Vec<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a token outside of the set opened, so that it can be asked what it holds.
    ///
    /// # Errors
    /// The token's; [`Error::Misconfigured`] where it is one that is here under another name.
    pub fn reach(&self, member: &Arc<Member>) -> Result<()> {
        let until = Instant::now() + OPENING.max(self.patience);
        Member::begin_to_reach(member).outcome(until)?;
        self.refuse_twins()
    }

    /// Asks the tokens of the set one after another until one has answered: those that are well first.
    /// What the answer says of stored or received bytes is an answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl Fn(&mut dyn Custody) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let mut last = None;
        for wanted in [Standing::Well, Standing::Sick] {
            for member in &self.members {
                if member.standing() != wanted {
                    continue;
                }
                match member.ask(operation, job.clone()) {
                    Err(error) if is_the_tokens(&error) => {
                        member.is_sick(operation, &error);
                        last = Some(error);
                    }
                    answered => return answered,
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::unavailable(operation, "no token of the set is there")))
    }

    pub(crate) fn shutdown(&self) {
        self.members.iter().for_each(|member| member.shutdown());
    }
}

/// Logins, with some patience, and a look at every key: as long as the CLI waits for a token.
const OPENING: Duration = Duration::from_secs(15);

/// Whether another token may do better.
fn is_the_tokens(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable { .. }
            | Error::Deadline { .. }
            | Error::Busy { .. }
            | Error::PinRefused { .. }
            | Error::Misconfigured(_)
            | Error::Bug { .. }
    )
}
