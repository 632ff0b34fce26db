//! What may be true of an account, and what each request makes of that: the book-keeping that the random adversary and
//! the simulation share.

use std::collections::BTreeSet;

use super::attacks::{BUDGET, guess, succeed};
use super::names::name;
use super::rig::app;
use crate::account::Account;
use crate::ledger::{EventKind, Ledger, LedgerError, Loaded, NewEvent};

/// What must never happen, and did.
#[derive(Debug)]
pub(in crate::ledger) struct Violation(pub(in crate::ledger) String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Ask {
    Create,
    Guess,
    Succeed,
    Erase,
    Claim(&'static str),
    Release(&'static str),
    Read,
    Events,
    Find(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Truth {
    Absent,
    Erased,
    Living(Life),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Life {
    pub(in crate::ledger) charged: u64,
    pub(in crate::ledger) events: Vec<EventKind>,
    pub(in crate::ledger) aliases: BTreeSet<&'static str>,
}

/// What a change makes of a truth; `None` where it can not happen to it.
pub(in crate::ledger) fn after(truth: &Truth, ask: Ask) -> Option<Truth> {
    let (life, event) = match (truth, ask) {
        (Truth::Absent, Ask::Create) => (Life::default(), Some(EventKind::AccountCreated)),
        (Truth::Living(_), Ask::Erase) => return Some(Truth::Erased),
        (Truth::Living(life), _) => {
            let mut life = life.clone();
            let event = match ask {
                Ask::Guess if life.charged < BUDGET => {
                    life.charged += 1;
                    EventKind::PinCharged
                }
                Ask::Succeed => {
                    life.charged = 0;
                    EventKind::SessionStarted
                }
                Ask::Claim(alias) => {
                    life.aliases.insert(alias);
                    EventKind::AliasConfirmed
                }
                Ask::Release(alias) => {
                    life.aliases.remove(alias);
                    EventKind::AliasRemoved
                }
                _ => return None,
            };
            (life, Some(event))
        }
        _ => return None,
    };
    let mut life = life;
    life.events.extend(event);
    Some(Truth::Living(life))
}

pub(in crate::ledger) fn has(alias: &'static str) -> impl Fn(&Truth) -> bool {
    move |truth| matches!(truth, Truth::Living(life) if life.aliases.contains(alias))
}

/// Whether the account, as somebody was shown it, is this truth's.
pub(in crate::ledger) fn shows(truth: &Truth, account: &Account) -> bool {
    match truth {
        Truth::Living(life) => {
            life.charged == account.session_epoch
                && life.events.len() as u64 == account.trail.count
                && life.aliases.len() == account.aliases.len()
                && life
                    .aliases
                    .iter()
                    .all(|alias| account.alias(&name(alias)).is_some())
        }
        Truth::Absent | Truth::Erased => false,
    }
}

/// A change of an account that was loaded.
pub(in crate::ledger) async fn change(
    ledger: &Ledger,
    loaded: Loaded,
    ask: Ask,
) -> Result<u64, LedgerError> {
    match ask {
        Ask::Guess => Ok(ledger.commit(loaded, guess).await?.0),
        Ask::Succeed => Ok(ledger.commit(loaded, succeed).await?.0),
        Ask::Erase => {
            let erased = ledger.erase(loaded, |_, _| Ok::<_, LedgerError>(()));
            erased.await.map(|_| 0)
        }
        Ask::Claim(alias) => {
            let alias = ledger.alias(&app(), name(alias)).await?;
            let claimed = ledger.commit(loaded, move |account, _, journal| {
                account.add_alias(alias);
                journal.note(NewEvent::new(EventKind::AliasConfirmed));
                Ok::<_, LedgerError>(0)
            });
            Ok(claimed.await?.0)
        }
        Ask::Release(alias) => {
            let released = ledger.commit(loaded, move |account, _, journal| {
                account.drop_alias(&name(alias));
                journal.note(NewEvent::new(EventKind::AliasRemoved));
                Ok::<_, LedgerError>(0)
            });
            Ok(released.await?.0)
        }
        _ => Ok(0),
    }
}

/// What a refusal says for certain: the change is not made, and will not be.
pub(in crate::ledger) fn never_happened(error: &LedgerError) -> bool {
    matches!(
        error,
        LedgerError::Tampered(_)
            | LedgerError::Stale
            | LedgerError::Exists
            | LedgerError::Erased
            | LedgerError::AliasTaken
            | LedgerError::Busy
            | LedgerError::Overtaken
            | LedgerError::Late(_)
    )
}
