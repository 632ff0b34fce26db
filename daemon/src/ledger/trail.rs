//! Reading an account's trail: from its newest event down, each by the log that is believed.
//!
//! Called for an owner's or an operator's page of events, by an erasure and by retention. The adversary answers every query, and
//! may hold bodies that open as this account's event of this number and never counted: of a history that was given up. Which
//! entry stands at a place, the log's root alone says. So each is looked for in the log before anybody is told of it, and before
//! its body, or the one before it, is deleted. Must never lead from an entry that was not found there to another.

use super::LedgerError;
use super::journal::{self, Event};
use super::log::Prover;
use super::receipts::EventEntry;
use super::record::{Loaded, Reader};
use crate::account::Mark;
use crate::store::BodyRow;

/// Entries that are looked for in the log together: tiles that they share are read once.
const TOGETHER: usize = 256;

/// A place in an account's trail: an event's number and its log entry. May come from outside:
/// an entry opens only as the event of this account with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub number: u64,
    pub index: u64,
}

#[derive(Debug)]
pub struct Page {
    pub events: Vec<Event>,
    /// What the events' log entries commit to, in the same order, where that was asked for.
    pub bodies: Vec<EventEntry>,
    pub next: Option<Place>,
    /// The number of the oldest event that is kept: after it, the last page ends.
    pub complete_from: u64,
}

/// An event that is in the log.
struct Passed {
    place: Place,
    event: Event,
    body: BodyRow,
}

/// Events from a place down, newest first.
struct Descent {
    passed: Vec<Passed>,
    /// The place below, if an event is kept there.
    next: Option<Place>,
    /// Why it ends above `next`, where that is not the database's right.
    broken: Option<LedgerError>,
}

impl Descent {
    fn whole(self) -> Result<(Vec<Passed>, Option<Place>), LedgerError> {
        match self.broken {
            Some(error) => Err(error),
            None => Ok((self.passed, self.next)),
        }
    }
}

impl Reader {
    /// A page of events, with their bodies if `keep` says so.
    pub(super) async fn events(
        &self,
        loaded: &Loaded,
        from: Option<Place>,
        limit: usize,
        keep: bool,
    ) -> Result<Page, LedgerError> {
        let trail = &loaded.account.trail;
        // A cursor from before retention moved on leads to the end.
        let from = from
            .or_else(|| newest(loaded))
            .filter(|place| trail.keeps(place.number));
        let (passed, next) = self.descend(loaded, from, None, limit).await?.whole()?;
        let (mut events, mut bodies) = (Vec::new(), Vec::new());
        for Passed { place, event, body } in passed {
            events.push(event);
            if keep {
                bodies.push(EventEntry::new(place.index, body));
            }
        }
        Ok(Page {
            events,
            bodies,
            next,
            complete_from: trail.complete_from(),
        })
    }

    /// The log entries of the account's events, newest first, down to one that is known already, or to where the trail
    /// breaks off, and why it does.
    pub(super) async fn trail(
        &self,
        loaded: &Loaded,
        known: Option<u64>,
    ) -> Result<(Vec<u64>, Option<LedgerError>), LedgerError> {
        let descent = self.descend(loaded, newest(loaded), known, usize::MAX);
        let Descent { passed, broken, .. } = descent.await?;
        let entries = passed.into_iter().map(|passed| passed.place.index);
        Ok((entries.collect(), broken))
    }

    /// The events that have their bodies, oldest first, from `above` down, or from the newest.
    pub(super) async fn walk(
        &self,
        loaded: &Loaded,
        above: Option<Mark>,
    ) -> Result<Vec<Mark>, LedgerError> {
        let place = |mark: Mark| Place {
            number: mark.number,
            index: mark.index,
        };
        let from = above.map(place).or_else(|| newest(loaded));
        let descent = self.descend(loaded, from, None, usize::MAX).await?;
        let marks = descent.whole()?.0.into_iter().rev().map(|passed| Mark {
            number: passed.place.number,
            index: passed.place.index,
            at: passed.event.at,
        });
        Ok(marks.collect())
    }

    /// Goes down from a place: to the end, to an entry that is `known`, to so many events, or to what is not as it must be.
    ///
    /// # Errors
    /// Where the database does not answer. What it answers wrongly breaks the descent.
    async fn descend(
        &self,
        loaded: &Loaded,
        from: Option<Place>,
        known: Option<u64>,
        limit: usize,
    ) -> Result<Descent, LedgerError> {
        let mut descent = Descent {
            passed: Vec::new(),
            next: from,
            broken: None,
        };
        while descent.broken.is_none() {
            let goes_on = |place: &Place| Some(place.index) != known;
            let room = (limit - descent.passed.len()).min(TOGETHER);
            let mut read = Vec::new();
            let mut next = descent.next;
            while let Some(place) = next.filter(|at| read.len() < room && goes_on(at)) {
                match self.event(loaded, place).await {
                    Ok((event, body, before)) => {
                        read.push(Passed { place, event, body });
                        next = before;
                    }
                    Err(error @ LedgerError::Tampered(_)) => {
                        descent.broken = Some(error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if read.is_empty() {
                break;
            }
            match self.are_in_the_log(&read).await {
                Ok(()) => {
                    descent.next = next;
                    descent.passed.append(&mut read);
                }
                Err(error @ LedgerError::Tampered(_)) => {
                    descent.broken = Some(error);
                    self.down_to_the_first_that_is_not(read, &mut descent)
                        .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(descent)
    }

    /// What lies above a false entry is true all the same.
    async fn down_to_the_first_that_is_not(
        &self,
        read: Vec<Passed>,
        descent: &mut Descent,
    ) -> Result<(), LedgerError> {
        for passed in read {
            let place = passed.place;
            match self.are_in_the_log(std::slice::from_ref(&passed)).await {
                Ok(()) => descent.passed.push(passed),
                Err(LedgerError::Tampered(_)) => {
                    descent.next = Some(place);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the log that is believed holds these entries at their places.
    async fn are_in_the_log(&self, passed: &[Passed]) -> Result<(), LedgerError> {
        #[cfg(test)]
        if self.store().weakness().any_event {
            return Ok(());
        }
        let leaves: Vec<(u64, Vec<u8>)> = passed
            .iter()
            .map(|one| {
                let leaf = journal::event_leaf(&one.body.salt, &one.body.body);
                (one.place.index, leaf)
            })
            .collect();
        let leaves: Vec<(u64, &[u8])> = leaves.iter().map(|(at, leaf)| (*at, &**leaf)).collect();
        let end = self.memory().read().end.clone();
        let prover = Prover {
            store: self.store(),
            end: &end,
        };
        prover.inclusions(&leaves).await.map(drop)
    }

    /// What the database has for the event at a place, and the place of the one before it, if that one is kept.
    async fn event(
        &self,
        loaded: &Loaded,
        place: Place,
    ) -> Result<(Event, BodyRow, Option<Place>), LedgerError> {
        let row = self.store().event(place.index).await?.examine();
        let trail = &loaded.account.trail;
        let (event, body) = journal::open(trail, &loaded.record, place.index, place.number, row)?;
        let before = match (event.previous, place.number) {
            (None, 1) => None,
            (Some(index), number) if number > 1 && index < place.index => {
                let number = number - 1;
                trail.keeps(number).then_some(Place { number, index })
            }
            _ => {
                return Err(LedgerError::Tampered(format!(
                    "log entry {}: it does not continue its account's trail",
                    place.index
                )));
            }
        };
        Ok((event, body, before))
    }
}

/// The newest event, if it is kept.
fn newest(loaded: &Loaded) -> Option<Place> {
    let trail = &loaded.account.trail;
    let kept = trail.last_index.filter(|_| trail.keeps(trail.count));
    kept.map(|index| Place {
        number: trail.count,
        index,
    })
}
