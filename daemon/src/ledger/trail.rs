//! Reading an account's trail: from its newest event down, each by the log that is believed.
//!
//! Called for an owner's or an operator's page of events, by an erasure and by retention. The adversary answers every query, and
//! may hold bodies that open as this account's event of this number and never counted: of a history that was given up. Which
//! entry stands at a place, the log's root alone says. So each is looked for in the log before anybody is told of it, before
//! its body is deleted, and before the account's mark is set to it. There is one of each number in the log: what leads to an
//! entry that is found there, and opens as the account's event of its number, need not be found itself.

use super::LedgerError;
use super::journal::{self, Event};
use super::log::Prover;
use super::receipts::EventEntry;
use super::record::{Loaded, Reader};
use crate::account::Mark;
use crate::store::BodyRow;

/// Entries that are looked for in the log together: tiles that they share are read once. More would hold up the runtime.
const TOGETHER: usize = 16;

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

/// An event that opens as the account's one of its number. Whether it ever counted, the log says.
struct Opened {
    place: Place,
    event: Event,
    body: BodyRow,
}

impl Opened {
    fn entry(&self) -> LogEntry {
        LogEntry {
            index: self.place.index,
            leaf: journal::event_leaf(&self.body.salt, &self.body.body),
        }
    }
}

impl From<&EventEntry> for LogEntry {
    fn from(entry: &EventEntry) -> Self {
        Self {
            index: entry.index,
            leaf: entry.leaf(),
        }
    }
}

/// What the log has to have at a place.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub(super) index: u64,
    leaf: Vec<u8>,
}

/// On the way down a trail.
struct Descent {
    /// The place below, if an event is kept there.
    next: Option<Place>,
    /// Where it ends.
    known: Option<u64>,
    /// Why it can not go on.
    broken: Option<LedgerError>,
}

impl Descent {
    fn from(next: Option<Place>) -> Self {
        Self {
            next,
            known: None,
            broken: None,
        }
    }

    fn ahead(&self) -> Option<Place> {
        let next = self.next.filter(|place| Some(place.index) != self.known);
        next.filter(|_| self.broken.is_none())
    }
}

impl Reader {
    /// A page of events; with their bodies if `keep` says so, for whoever proves each of them by the checkpoint that goes along.
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
        let mut descent = Descent::from(from);
        let (mut events, mut bodies) = (Vec::new(), Vec::new());
        while events.len() < limit && descent.ahead().is_some() {
            let most = TOGETHER.min(limit - events.len());
            let opened = self.open_some(loaded, &mut descent, most).await?;
            if let Some(broken) = descent.broken {
                return Err(broken);
            }
            if !keep {
                let entries: Vec<LogEntry> = opened.iter().map(Opened::entry).collect();
                self.are_in_the_log(&entries).await?;
            }
            for Opened { place, event, body } in opened {
                events.push(event);
                if keep {
                    bodies.push(EventEntry::new(place.index, body));
                }
            }
        }
        Ok(Page {
            events,
            bodies,
            next: descent.next,
            complete_from: trail.complete_from(),
        })
    }

    /// The log entries of the account's events, newest first, down to one that is known already, or to where the trail
    /// breaks off; and what keeps some of them away, if anything does.
    pub(super) async fn trail(
        &self,
        loaded: &Loaded,
        known: Option<u64>,
    ) -> Result<(Vec<u64>, Option<LedgerError>), LedgerError> {
        let mut descent = Descent {
            known,
            ..Descent::from(newest(loaded))
        };
        let (mut entries, mut missed) = (Vec::new(), None);
        while descent.ahead().is_some() {
            let opened = self.open_some(loaded, &mut descent, TOGETHER).await?;
            let group: Vec<LogEntry> = opened.iter().map(Opened::entry).collect();
            let mut strange = self.strange(&group).await?;
            // One row that was altered keeps its neighbours from being proven: what lies below them is reached all the same.
            let proven = group
                .iter()
                .filter(|entry| !strange.iter().any(|(index, _)| *index == entry.index));
            entries.extend(proven.map(|entry| entry.index));
            missed = missed.or(strange.pop().map(|(_, error)| error));
        }
        Ok((entries, missed.or(descent.broken)))
    }

    /// The events that have their bodies, oldest first, from `above` down, or from the newest. Not yet looked for in the log.
    pub(super) async fn walk(
        &self,
        loaded: &Loaded,
        above: Option<Mark>,
    ) -> Result<Vec<(Mark, LogEntry)>, LedgerError> {
        let place = |mark: Mark| Place {
            number: mark.number,
            index: mark.index,
        };
        let mut descent = Descent::from(above.map(place).or_else(|| newest(loaded)));
        let mut walked = Vec::new();
        while descent.ahead().is_some() {
            let opened = self.open_some(loaded, &mut descent, TOGETHER).await?;
            walked.extend(opened.iter().map(|one| {
                let Place { number, index } = one.place;
                let at = one.event.at;
                (Mark { number, index, at }, one.entry())
            }));
        }
        if let Some(broken) = descent.broken {
            return Err(broken);
        }
        walked.reverse();
        Ok(walked)
    }

    /// Goes down some events: to the end, or to what does not open.
    ///
    /// # Errors
    /// Where the database does not answer. What it answers wrongly breaks the descent.
    async fn open_some(
        &self,
        loaded: &Loaded,
        descent: &mut Descent,
        most: usize,
    ) -> Result<Vec<Opened>, LedgerError> {
        let mut opened = Vec::new();
        while let Some(place) = descent.ahead().filter(|_| opened.len() < most) {
            match self.event(loaded, place).await {
                Ok((event, body, before)) => {
                    opened.push(Opened { place, event, body });
                    descent.next = before;
                }
                Err(error @ LedgerError::Tampered(_)) => descent.broken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// # Errors
    /// `Tampered` where the log that is believed does not hold one of these entries; `Store` where it can not be read.
    pub(super) async fn are_in_the_log(&self, entries: &[LogEntry]) -> Result<(), LedgerError> {
        for group in entries.chunks(TOGETHER) {
            match self.strange(group).await?.pop() {
                Some((_, error)) => return Err(error),
                None => tokio::task::yield_now().await,
            }
        }
        Ok(())
    }

    /// Those of a group that the log does not show to be its own, and why.
    async fn strange(&self, group: &[LogEntry]) -> Result<Vec<(u64, LedgerError)>, LedgerError> {
        #[cfg(test)]
        if self.store().weakness().any_event {
            return Ok(Vec::new());
        }
        let end = self.memory().read().end.clone();
        let prover = Prover {
            store: self.store(),
            end: &end,
        };
        let all: Vec<(u64, &[u8])> = group.iter().map(|one| (one.index, &*one.leaf)).collect();
        match prover.inclusions(&all).await {
            Ok(_) => return Ok(Vec::new()),
            Err(LedgerError::Tampered(_)) => {}
            Err(error) => return Err(error),
        }
        let mut strange = Vec::new();
        for (index, leaf) in all {
            match prover.inclusion(index, leaf).await {
                Ok(_) => {}
                Err(error @ LedgerError::Tampered(_)) => strange.push((index, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(strange)
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
