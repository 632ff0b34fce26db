//! How many requests are under way at once, and whose: the one place where load is refused.
//!
//! Called by `http::door` for every request, once its body is here and before anything of it is believed.
//! Whoever gets a place is carried through: every queue behind the door (the token's, the committer's) has room
//! for as many as there are places, so that nothing is refused half-way, when a guess is charged and its
//! outcome is not recorded. Whoever gets none was charged nothing. Of the places each app may hold as many as
//! stay free, counted apart for those who sign in, those who finish what was charged, strangers who finish, and those with a
//! session: so the flood of one leaves as many for each of the others as it holds itself. It must never wait.
//!
//! What a request ends is in its body, so the bodies of ends are read before anybody can tell whose they are. They have
//! room by connection: each has some for itself, whoever holds what elsewhere, and from the same address too.

use std::net::{IpAddr, SocketAddr};
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
/// And so many at the most: an app's share of bodies takes sixteen addresses that send slowly.
const BODIES_MOST: usize = BODIES / 32;
/// Bytes of large answers that wait to be taken, and what one address may leave lying at the most before it asks for more.
const ANSWERS: usize = 64 << 20;
const ANSWERS_MOST: usize = ANSWERS / 32;
/// What is held for one that is being made.
const ANSWER: usize = 32 << 10;
/// Smaller answers are not counted: what a connection may ask for at once, and how long it may leave them, bounds those.
const LARGE: usize = 16 << 10;
/// The largest body of what ends a sign-in: a sealed token of 2 KiB, 64 bytes, and the names of what is released.
pub const END: usize = 16 << 10;
/// So many bytes of such bodies a connection may have under way: one of the largest, and several of the usual ones.
const ENDS_EACH: usize = END;
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
    /// The last message of a sign-in that was charged with its first, to a bound device or a session.
    Finish,
    /// That of a stranger's, whether anything was charged or not.
    StrangersFinish,
    /// Comes with a session that opens.
    Session,
    /// Keys, documents and the log: no account's.
    Public,
}

/// A place among the requests under way; given back when dropped.
#[derive(Debug)]
pub struct Entered {
    /// Held for its Drop.
    _place: Place<Way>,
}

/// The right to have a body of some size here; given back when dropped.
#[derive(Debug)]
pub struct BodyPlace {
    /// Held for their Drop.
    _of_address: Place<Option<IpAddr>>,
    _of_way: Place<Way>,
}

/// Room for bodies, counted twice: many addresses that send slowly leave as much for another way as theirs has, and one
/// address on many ways as much for another address.
#[derive(Debug)]
struct Bodies {
    of_addresses: Arc<Places<Option<IpAddr>>>,
    of_ways: Arc<Places<Way>>,
}

impl Bodies {
    fn new() -> Self {
        Self {
            of_addresses: Places::new(BODIES, BODIES_LEAST),
            of_ways: Places::new(BODIES, BODIES_LEAST),
        }
    }

    fn take(&self, address: Option<IpAddr>, way: Way, bytes: usize) -> Option<BodyPlace> {
        Some(BodyPlace {
            _of_way: self.of_ways.take(way, bytes)?,
            _of_address: self.of_addresses.take_if(address, bytes, |own, _, free| {
                own <= BODIES_LEAST || own <= free.min(BODIES_MOST)
            })?,
        })
    }
}

#[derive(Debug)]
pub struct Door {
    requests: Arc<Places<Way>>,
    bodies: Bodies,
    ends: Arc<Places<Option<SocketAddr>>>,
    answers: Arc<Places<Option<IpAddr>>>,
    stirred: Notify,
}

/// The right to have a large answer lie here until it is taken; given back when dropped.
#[derive(Debug)]
pub struct AnswerPlace {
    place: Place<Option<IpAddr>>,
}

impl AnswerPlace {
    /// For an answer that was made, until it is taken; none where it is small. It is never refused: what it is about was done.
    #[must_use]
    pub fn of(mut self, bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.place.resize(bytes);
        (bytes > LARGE).then_some(self)
    }
}

/// The right to have the body of an end here; given back when dropped.
#[derive(Debug)]
pub struct EndPlace {
    /// Held for its Drop.
    _of_connection: Place<Option<SocketAddr>>,
}

impl Door {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            requests: Places::new(limits.requests_at_once, 0),
            bodies: Bodies::new(),
            ends: Places::new(usize::MAX, 0),
            answers: Places::new(ANSWERS, 0),
            stirred: Notify::new(),
        }
    }

    /// Room for a body of `bytes`, for the address that sends it and the way it goes.
    ///
    /// # Errors
    /// `Busy`: nothing of it was read.
    pub fn body(
        &self,
        address: Option<IpAddr>,
        way: Way,
        bytes: usize,
    ) -> Result<Option<BodyPlace>, Refused> {
        if bytes == 0 {
            return Ok(None);
        }
        let place = self.bodies.take(address.map(network), way, bytes);
        place.map(Some).ok_or_else(|| busy("bodies", AGAIN))
    }

    /// Room for the body of an end, for the connection that it comes by. There are so many of these, each with its own,
    /// that all together need no bound besides.
    ///
    /// # Errors
    /// `Busy`: nothing of it was read.
    pub fn end(&self, connection: Option<SocketAddr>, bytes: usize) -> Result<EndPlace, Refused> {
        let own = |own, _, _| own <= ENDS_EACH;
        let place = self.ends.take_if(connection, bytes, own);
        place
            .map(|place| EndPlace {
                _of_connection: place,
            })
            .ok_or_else(|| busy("bodies", AGAIN))
    }

    /// Room for what may become a large answer: where the address has taken what it asked for before, most of it, or has
    /// asked for nothing. Nobody else's keeps it from having one.
    ///
    /// # Errors
    /// `Busy`: nothing was done.
    pub fn may_read(&self, address: Option<IpAddr>) -> Result<AnswerPlace, Refused> {
        let address = address.map(network);
        let place = self.answers.hold_if(address, ANSWER, |own, free| {
            own == 0 || own < free.min(ANSWERS_MOST)
        });
        place
            .map(|place| AnswerPlace { place })
            .ok_or_else(|| busy("answers", AGAIN))
    }

    /// A place for a request whose body is here.
    ///
    /// # Errors
    /// `Busy`: nothing of it was looked at.
    pub fn enter(&self, way: Way) -> Result<Entered, Refused> {
        self.stirred.notify_one();
        let place = self.requests.take(way, 1);
        place
            .map(|place| Entered { _place: place })
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
        self.bodies.of_ways.taken() + self.ends.taken()
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
            bodies: Bodies::new(),
            ends: Places::new(usize::MAX, 0),
            answers: Places::new(ANSWERS, 0),
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
        let inside: Vec<_> = std::iter::from_fn(|| door.enter(flood).ok()).collect();
        assert_eq!(inside.len(), 8);
        assert!(matches!(door.enter(flood), Err(Refused::Busy { .. })));
        let others = [
            way("notes", Kind::Session),
            way("notes", Kind::StrangersFinish),
            way("notes", Kind::Finish),
            way("wallet", Kind::Open),
        ];
        let held: Vec<_> = others.map(|other| door.enter(other).unwrap()).into();
        assert_eq!(door.taken(), 12);
        drop((inside, held));
        assert_eq!(door.taken(), 0);
    }

    #[test]
    fn bodies_of_one_address_leave_room_for_another() {
        let door = door(1);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().ok());
        let large = 64 << 10;
        let (open, ended) = (way("notes", Kind::Open), way("notes", Kind::Session));
        let held: Vec<_> = std::iter::from_fn(|| door.body(one, open, large).ok()).collect();
        assert_eq!(held.len(), BODIES_MOST / large);
        assert!(door.body(other, ended, large).unwrap().is_some());
        assert!(
            door.body(one, open, 0).unwrap().is_none(),
            "nothing needs no room"
        );
        drop(held);
        assert_eq!(door.bytes(), 0);
    }

    #[test]
    fn strangers_who_finish_leave_a_place_to_what_was_charged() {
        let door = door(16);
        let flood = way("notes", Kind::StrangersFinish);
        let inside: Vec<_> = std::iter::from_fn(|| door.enter(flood).ok()).collect();
        assert_eq!(inside.len(), 8);
        assert!(door.enter(way("notes", Kind::Finish)).is_ok());
        assert!(door.enter(flood).is_err(), "the control");
    }

    /// By as many connections and addresses as they like, to the same path, without a token that opens.
    #[test]
    fn slow_bodies_leave_each_connection_room_for_an_end() {
        let door = door(1);
        let connection = |number: u16| {
            let [high, low] = number.to_be_bytes();
            Some(SocketAddr::from(([192, 0, high, low], 4000)))
        };
        let held: Vec<_> = (0..5000)
            .map(|number| door.end(connection(number), END).unwrap())
            .collect();
        assert!(
            door.end(connection(7), 1).is_err(),
            "one has no more than its own"
        );
        // Also from an address that sends slowly by another connection.
        let same = Some(SocketAddr::from(([192, 0, 0, 7], 4001)));
        let usual: Vec<_> = (0..5).map(|_| door.end(same, 3 << 10).unwrap()).collect();
        // The control: counted together with them, none finds room.
        let (large, flood) = (64 << 10, way("notes", Kind::Finish));
        let address = |number: u16| connection(number).map(|peer| peer.ip());
        let together: Vec<_> = (0..5000)
            .filter_map(|number| door.body(address(number), flood, large).ok())
            .collect();
        assert!(door.body(address(5000), flood, 3 << 10).is_err());
        drop((held, usual, together));
        assert_eq!(door.bytes(), 0);
    }

    #[test]
    fn slow_bodies_from_many_addresses_leave_room_for_sessions() {
        let door = door(1);
        let (flood, large) = (way("notes", Kind::Open), 64 << 10);
        let mut held = Vec::new();
        for number in 0..=255u8 {
            let address = Some(IpAddr::from([192, 0, 2, number]));
            held.extend(std::iter::from_fn(|| door.body(address, flood, large).ok()));
        }
        assert_eq!(held.len(), BODIES / large / 2);
        let honest = Some(IpAddr::from([198, 51, 100, 1]));
        for kind in [Kind::Session, Kind::Public] {
            let place = door.body(honest, way("notes", kind), large);
            assert!(place.unwrap().is_some(), "{kind:?}");
        }
    }

    #[test]
    fn answers_that_one_address_does_not_take_leave_room_for_another() {
        let door = door(1);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().ok());
        let asks = |address| {
            let place = door.may_read(address).ok()?;
            place.of(500 << 10)
        };
        // As many at once, before any of them is there, are not more than that.
        let at_once: Vec<_> = std::iter::from_fn(|| door.may_read(one).ok())
            .take(1000)
            .collect();
        assert_eq!(at_once.len(), ANSWERS_MOST / ANSWER);
        drop(at_once);
        let held: Vec<_> = std::iter::from_fn(|| asks(one)).take(1000).collect();
        assert_eq!(held.len(), 5, "the last one begins below its share");
        assert!(door.may_read(one).is_err());
        let others: Vec<_> = (0..=255u8)
            .flat_map(|last| {
                let address = Some(IpAddr::from([198, 51, 100, last]));
                std::iter::from_fn(move || asks(address)).take(1000)
            })
            .collect();
        assert!(door.answers.taken() >= ANSWERS, "{}", others.len());
        // However much they leave lying: who has nothing gets one.
        let one_answer = asks(other).unwrap();
        assert!(asks(other).is_none());
        drop(one_answer);
        let small = LARGE.try_into().unwrap();
        assert!(
            door.may_read(Some(IpAddr::from([203, 0, 113, 1])))
                .unwrap()
                .of(small)
                .is_none(),
            "what is small is not counted"
        );
        drop((held, others));
        assert_eq!(door.answers.taken(), 0);
        drop(door.may_read(one).unwrap());
    }

    /// What the argument at the top of this file rests on.
    #[test]
    fn the_queues_behind_the_door_hold_everybody_inside() {
        const { assert!(crate::config::MOST_REQUESTS * 2 <= crate::ledger::QUEUE) }
    }
}
