//! What an operator may see of an account: that things happened, when, and in which order.
//!
//! Called by the operator's socket. Whoever runs the daemon is asked for help with an account
//! whose number its owner names; that takes no name of a device, no address, no secret's name,
//! so none is shown. The app need not be served any more: a retired one still has accounts.
//! More is shown only where an owner wants to know what is held about them (`privacy`), and then
//! it is an event in their trail.

use custodyd_hsm::{AccountId, AppId};
use custodyd_policies::Timestamp;
use serde::Serialize;

use super::overview::{bad_cursor, parse_place};
use super::{Refused, Service};
use crate::api::OperatorExport;
use crate::ledger::{Event, EventKind, LedgerError};

const PAGE: usize = 200;

/// An event without what is personal about it.
#[derive(Debug, Serialize)]
pub struct TrailEvent {
    pub number: u64,
    /// Seconds since the Unix epoch.
    pub at: Timestamp,
    pub kind: EventKind,
}

impl From<Event> for TrailEvent {
    fn from(event: Event) -> Self {
        Self {
            number: event.number,
            at: event.at,
            kind: event.kind,
        }
    }
}

/// Newest first.
#[derive(Debug, Serialize)]
pub struct TrailPage {
    pub events: Vec<TrailEvent>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
    /// The number of the oldest event that is kept.
    pub complete_from: u64,
}

/// The account that an operator names.
fn named(app: &str, account: &str) -> Result<(AppId, AccountId), Refused> {
    let app = AppId::parse(app).map_err(|error| Refused::Malformed(error.to_string()))?;
    let account =
        AccountId::parse(account).map_err(|error| Refused::Malformed(error.to_string()))?;
    Ok((app, account))
}

impl Service {
    /// Erases an account for an operator who has made sure who asks.
    ///
    /// # Errors
    /// `Malformed` for names that can not be; `NotFound`; those of an erasure.
    pub async fn erase_named(&self, app: &str, account: &str) -> Result<(), Refused> {
        let (app, account) = named(app, account)?;
        self.erase_as_operator(&app, account).await
    }

    /// Everything held about an owner, without secrets' contents, for an operator who has made
    /// sure who asks.
    ///
    /// # Errors
    /// `Malformed` for names that can not be; `NotFound`; `UnknownApp`; those of a commit.
    pub async fn export_named(&self, app: &str, account: &str) -> Result<OperatorExport, Refused> {
        let (app, account) = named(app, account)?;
        self.export_as_operator(&app, account).await
    }

    /// # Errors
    /// `Malformed` for names that can not be; `NotFound`; `Tampered` where the trail is broken.
    pub async fn trail(
        &self,
        app: &str,
        account: &str,
        from: Option<&str>,
    ) -> Result<TrailPage, Refused> {
        let (app, account) = named(app, account)?;
        let from = from.map(parse_place).transpose()?;
        let loaded = self
            .ledger
            .load(&app, account)
            .await?
            .ok_or(Refused::NotFound("account"))?;
        let page = match self.ledger.events(&loaded, from, PAGE).await {
            // With a cursor of the caller's own making, a mismatch is the caller's.
            Err(LedgerError::Tampered(_)) if from.is_some() => {
                self.ledger.events(&loaded, None, PAGE).await?;
                return Err(bad_cursor());
            }
            page => page?,
        };
        Ok(TrailPage {
            events: page.events.into_iter().map(TrailEvent::from).collect(),
            next: page
                .next
                .map(|place| format!("{}.{}", place.number, place.index)),
            complete_from: page.complete_from,
        })
    }
}
