//! How many requests are under way at once, and whose: the one place where load is refused.
//!
//! Called by `http::door` for every request, once its body is here and before anything of it is believed.
//! Whoever gets a place is carried through: every queue behind the door (the token's, the committer's) has room
//! for as many as there are places, so that nothing is refused half-way, when a guess is charged and its
//! outcome is not recorded. Whoever gets none was charged nothing. Of the places each app may hold as many as
//! stay free, counted apart for those who sign in, those who finish what was charged, and those with a session: so the
//! flood of one leaves as many for each of the others as it holds itself. It must never wait.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::Lane;
use tokio::sync::Notify;

use super::Refused;
use super::rates::network;
use crate::config::Limits;
use crate::places::{Place, Places};

/// Bytes of bodies that are being read or worked on.
const BODIES: usize = 64 << 20;
/// So many bytes of bodies one address may have under way whatever stays free: some requests.
const BODIES_LEAST: usize = 256 << 10;
/// When to come back. The queues behind the door are short: in a second all of it has changed.
const AGAIN: Duration = Duration::from_secs(1);

/// Whose places are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    pub lane: Lane,
    pub kind: Kind,
}

/// What a request is about, as its path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Comes without a session.
    Open,
    /// The last message of a sign-in that was charged with its first.
    Finish,
    /// Comes with a session that opens.
    Session,
}

/// A place among the requests under way; given back when dropped.
#[derive(Debug)]
pub struct Entered {
    /// Held for their Drop.
    _place: Place<Way>,
    _body: Option<BodyPlace>,
}

/// The right to have a body of some size here; given back when dropped.
#[derive(Debug)]
pub struct BodyPlace {
    _place: Place<Option<IpAddr>>,
}

#[derive(Debug)]
pub struct Door {
    requests: Arc<Places<Way>>,
    bodies: Arc<Places<Option<IpAddr>>>,
    stirred: Notify,
}

impl Door {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            requests: Places::new(limits.requests_at_once, 0),
            bodies: Places::new(BODIES, BODIES_LEAST),
            stirred: Notify::new(),
        }
    }

    /// Room for a body of `bytes`, for the address that sends it.
    ///
    /// # Errors
    /// `Busy`: nothing of it was read.
    pub fn body(
        &self,
        address: Option<IpAddr>,
        bytes: usize,
    ) -> Result<Option<BodyPlace>, Refused> {
        if bytes == 0 {
            return Ok(None);
        }
        let place = self.bodies.take(address.map(network), bytes);
        place
            .map(|place| Some(BodyPlace { _place: place }))
            .ok_or_else(|| busy("bodies", AGAIN))
    }

    /// A place for a request whose body is here.
    ///
    /// # Errors
    /// `Busy`: nothing of it was looked at.
    pub fn enter(&self, way: Way, body: Option<BodyPlace>) -> Result<Entered, Refused> {
        self.stirred.notify_one();
        let place = self.requests.take(way, 1);
        place
            .map(|place| Entered {
                _place: place,
                _body: body,
            })
            .ok_or_else(|| busy("door", AGAIN))
    }

    /// Requests under way, for metrics.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.requests.taken()
    }

    /// Bytes of bodies, for metrics.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bodies.taken()
    }

    /// Resolves once somebody has come since this was last asked.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }
}

/// Counts and makes the refusal of what found no room, by where.
pub(super) fn busy(at: &'static str, retry_after: Duration) -> Refused {
    metrics::counter!("custodyd_busy_total", "at" => at).increment(1);
    Refused::Busy { retry_after }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use custodyd_hsm::AppId;

    use super::*;

    fn door(requests: usize) -> Door {
        Door {
            requests: Places::new(requests, 0),
            bodies: Places::new(BODIES, BODIES_LEAST),
            stirred: Notify::new(),
        }
    }

    fn way(app: &str, kind: Kind) -> Way {
        let lane = Lane::of(&AppId::parse(app).unwrap());
        Way { lane, kind }
    }

    #[test]
    fn a_flood_leaves_a_place_to_another_app_to_sessions_and_to_what_was_charged() {
        let door = door(16);
        let flood = way("notes", Kind::Open);
        let inside: Vec<_> = std::iter::from_fn(|| door.enter(flood, None).ok()).collect();
        assert_eq!(inside.len(), 8);
        assert!(matches!(door.enter(flood, None), Err(Refused::Busy { .. })));
        let others = [
            way("notes", Kind::Session),
            way("notes", Kind::Finish),
            way("wallet", Kind::Open),
        ];
        let held: Vec<_> = others.map(|other| door.enter(other, None).unwrap()).into();
        assert_eq!(door.taken(), 11);
        drop((inside, held));
        assert_eq!(door.taken(), 0);
    }

    #[test]
    fn bodies_of_one_address_leave_room_for_another() {
        let door = door(1);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().ok());
        let large = 64 << 10;
        let held: Vec<_> = std::iter::from_fn(|| door.body(one, large).ok()).collect();
        assert_eq!(held.len(), BODIES / large / 2);
        assert!(door.body(other, large).unwrap().is_some());
        assert!(
            door.body(one, 0).unwrap().is_none(),
            "nothing needs no room"
        );
        drop(held);
        assert_eq!(door.bytes(), 0);
    }

    /// What the argument at the top of this file rests on.
    #[test]
    fn the_queues_behind_the_door_hold_everybody_inside() {
        const { assert!(crate::config::MOST_REQUESTS * 2 <= crate::ledger::QUEUE) }
    }
}
