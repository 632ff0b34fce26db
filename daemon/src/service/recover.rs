//! The exception to step-up: replacing a forgotten PIN, or binding the device at hand, by a
//! factor that is not strong enough by itself.
//!
//! Called by the two changes that it covers. The adversary has a weak factor, such as the
//! owner's mailbox. What they get is the policy's to say ([`may_recover`]); where it sets a
//! delay, the first request only leaves a mark in the envelope, the owner is told, and any of
//! the owner's sessions cancels it. The device that asked comes back when it is due, with a
//! fresh login. A mark belongs to one device: nobody can put off another's by asking too. Must
//! never change anything itself: it says whether the caller may.

use custodyd_policies::{Recovery, Timestamp, may_recover};

use super::error::Later;
use super::{Caller, Refused, Service, quarantine};
use crate::account::{Account, PendingRecovery};
use crate::api::WaitingChange;
use crate::delivery::Notice;
use crate::factors::session::Scope;
use crate::ledger::{EventKind, Journal, NewEvent};

/// Most changes that wait for one account; the owner cancels them all at once.
const MAX_WAITING: usize = 4;

/// Where a change stands in one state of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The session is strong enough by itself.
    Strong,
    /// The exception allows it now.
    Now,
    /// It was asked for and is not due yet.
    Waits { due: Timestamp },
    /// It has to be asked for.
    Ask { delay_seconds: u64 },
}

/// A change that may be made, and what the owner is told of it.
#[derive(Debug)]
pub(super) struct Granted(Option<Notice>);

impl Caller {
    fn recovery(
        &self,
        account: &Account,
        change: Recovery,
        now: Timestamp,
    ) -> Result<Standing, Refused> {
        // Half a sign-in may do this too: it is for those who forgot the PIN that comes next.
        if self.session.scope == Scope::Read {
            return Err(Refused::ReadOnly);
        }
        // Whoever may replace the PIN by a code would else open the account with it.
        quarantine::admits(account, &self.device(), self.session.factor, now)?;
        let held = self.held(account, now);
        let (by, fresh) = (self.session.factor, self.fresh(now));
        let grant = may_recover(&self.app.policy, change, &held, by, fresh)?;
        if !grant.by_exception {
            // Not by half a sign-in: where the account holds nothing stronger, that would set a
            // first PIN and pass the step that asks for it.
            self.writes()?;
            return Ok(Standing::Strong);
        }
        Ok(match self.waiting(account, change, now) {
            Some(waits) if now >= waits.due_at() => Standing::Now,
            Some(waits) => Standing::Waits {
                due: waits.due_at(),
            },
            None if grant.delay.is_zero() => Standing::Now,
            None => Standing::Ask {
                delay_seconds: grant.delay.as_secs(),
            },
        })
    }

    fn waiting<'a>(
        &self,
        account: &'a Account,
        change: Recovery,
        now: Timestamp,
    ) -> Option<&'a PendingRecovery> {
        account.recoveries.iter().find(|waits| {
            waits.change == change && waits.device == self.key.thumbprint && now < waits.expires()
        })
    }

    /// May the change be made? Asked inside its commit, of the newest state, from which it
    /// takes the mark of a change that has become due.
    pub(super) fn recovers(
        &self,
        account: &mut Account,
        change: Recovery,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<Granted, Refused> {
        let standing = self.recovery(account, change, now)?;
        match standing {
            Standing::Strong | Standing::Now => {}
            Standing::Waits { due } => return Err(not_before(due, now)),
            Standing::Ask { .. } => return Err(not_before(now, now)),
        }
        account.recoveries.retain(|waits| {
            // A PIN that was replaced is no longer the one that others forgot.
            let done = change == Recovery::ReplacePin || waits.device == self.key.thumbprint;
            !(waits.change == change && done)
        });
        if standing == Standing::Strong {
            return Ok(Granted(None));
        }
        journal.note(
            NewEvent::new(EventKind::RecoverUsed)
                .by(self.session.factor)
                .on(&self.key.thumbprint)
                .about(word(change)),
        );
        Ok(Granted(Some(match change {
            Recovery::ReplacePin => Notice::PinReplaced,
            Recovery::BindDevice => Notice::DeviceAdded,
        })))
    }
}

impl Service {
    /// Before any work for the change: a change that has to wait is asked for here, durably,
    /// and the caller gets `RecoveryWaits`.
    pub(super) async fn ready_to_recover(
        &self,
        caller: &Caller,
        change: Recovery,
    ) -> Result<(), Refused> {
        let now = self.now();
        match caller.recovery(caller.account(), change, now)? {
            Standing::Strong | Standing::Now => return Ok(()),
            Standing::Waits { due } => return Err(not_before(due, now)),
            Standing::Ask { .. } => {}
        }
        let asks = caller.clone();
        let (due, loaded) = self
            .ledger
            .commit::<_, Refused>(caller.loaded.clone(), move |account, moment, journal| {
                asks.still_stands(account)?;
                match asks.recovery(account, change, moment.now)? {
                    Standing::Strong | Standing::Now => Ok(moment.now),
                    Standing::Waits { due } => Ok(due),
                    Standing::Ask { delay_seconds } => {
                        let waits = PendingRecovery {
                            change,
                            device: asks.key.thumbprint.clone(),
                            by: asks.session.factor,
                            requested: moment.now,
                            delay_seconds,
                        };
                        ask(account, waits, journal)
                    }
                }
            })
            .await?;
        let now = self.now();
        let seconds = due.0.saturating_sub(now.0);
        let hours = u32::try_from(seconds.div_ceil(3600)).unwrap_or(u32::MAX);
        self.tell(&loaded.account, Notice::ChangeWaiting { hours });
        Err(not_before(due, now))
    }

    /// After the commit of a change that was granted; `usual` is told where no exception was
    /// needed.
    pub(super) fn recovered(&self, account: &Account, granted: Granted, usual: Option<Notice>) {
        if let Some(notice) = granted.0.or(usual) {
            self.tell(account, notice);
        }
    }

    /// Cancels every change that waits. Any session may: what it undoes is not yet done.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn cancel_recoveries(&self, caller: Caller) -> Result<(), Refused> {
        let loaded = caller.loaded.clone();
        self.ledger
            .commit::<(), Refused>(loaded, move |account, _, journal| {
                caller.still_stands(account)?;
                if account.recoveries.is_empty() {
                    return Err(Refused::NotFound("waiting change"));
                }
                for waits in std::mem::take(&mut account.recoveries) {
                    journal.note(
                        NewEvent::new(EventKind::RecoverCancelled)
                            .by(caller.session.factor)
                            .on(&waits.device)
                            .about(word(waits.change)),
                    );
                }
                Ok(())
            })
            .await?;
        Ok(())
    }
}

fn not_before(due: Timestamp, now: Timestamp) -> Refused {
    let due = Later::than(now, due);
    Refused::RecoveryWaits { due }
}

fn ask(
    account: &mut Account,
    waits: PendingRecovery,
    journal: &mut Journal,
) -> Result<Timestamp, Refused> {
    if account.recoveries.len() >= MAX_WAITING {
        return Err(Refused::TooMany {
            what: "waiting changes",
            limit: MAX_WAITING,
        });
    }
    journal.note(
        NewEvent::new(EventKind::RecoverRequested)
            .by(waits.by)
            .on(&waits.device)
            .about(word(waits.change)),
    );
    let due = waits.due_at();
    account.recoveries.push(waits);
    Ok(due)
}

/// The changes that wait, for their owner's eyes.
pub(super) fn views(account: &Account, now: Timestamp) -> Vec<WaitingChange> {
    let live = account.recoveries.iter().filter(|w| now < w.expires());
    live.map(|waits| WaitingChange {
        change: waits.change,
        device_id: waits.device.clone(),
        factor: waits.by,
        requested: waits.requested,
        due: waits.due_at(),
        expires: waits.expires(),
    })
    .collect()
}

fn word(change: Recovery) -> &'static str {
    match change {
        Recovery::ReplacePin => "replace-pin",
        Recovery::BindDevice => "bind-device",
    }
}
