//! The last messages of logins by OPAQUE that were let in as such: how many of each login, and with which proofs.
//!
//! Called by `http::door` with a sealed token that has opened, and by `http::request` with a proof that has verified.
//! The adversary has tokens of their own: a stranger one for each beginning that the rates let in, whose account they
//! may have invented, and the owner of an account one for each guess that was charged to it. They send each as often as they
//! like, from as many addresses as they have. So each login has a few ends, which no rate of an address refuses, among
//! places that nobody finds full who has no such token; what is past these, and what finds no room here, is any
//! stranger's request, with the rates and places of those. So nothing here ever refuses: an honest end that is repeated more often than
//! that still comes through where nobody floods. Strangers' logins have room of their own, and no number of them
//! takes any from what was charged to a bound device.
//!
//! Proofs are remembered with their login and until it expires. One of them is for the body that has this token in
//! it, and from then on the token ends nothing; so that is as complete as a memory for all the lifetime of a nonce, and nobody
//! fills it for others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custodyd_policies::Timestamp;

use super::door::Way;
use crate::places::{Place, Places};

/// Ends of one login: the first, one more with a new nonce, and the same again where an answer was lost.
const EACH: usize = 4;
/// Logins of which an end has come and that have not expired. Alone, a way may have half: what the rate of an app (1,000
/// a second, where the operator sets no other) begins within two minutes, which a login lasts where the policy says nothing.
const LOGINS: usize = 262_144;

/// A login that its token names, which has opened and can still end.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub(super) login: [u8; 16],
    pub(super) expires: Timestamp,
    /// Whether it was charged to a bound device or to a session, or is a stranger's, decoys among them.
    pub by_stranger: bool,
}

/// What came with a token that opened. Goes beside its request.
#[derive(Clone, Copy, Debug)]
pub struct End {
    ending: Ending,
    /// Whether it was let in as one; or is any stranger's request.
    pub let_in: bool,
}

#[derive(Debug)]
pub struct Ends {
    room: Arc<Places<Way>>,
    /// By the second in which they expire.
    logins: Mutex<BTreeMap<u64, HashMap<[u8; 16], Login>>>,
}

#[derive(Debug)]
struct Login {
    came: usize,
    /// Hashes of the proofs that were accepted, each for another message.
    proofs: Vec<[u8; 16]>,
    /// Held for its Drop.
    _room: Place<Way>,
}

impl Default for Ends {
    fn default() -> Self {
        Self::with_room(LOGINS)
    }
}

impl Ends {
    fn with_room(logins: usize) -> Self {
        Self {
            room: Places::new(logins, 0),
            logins: Mutex::default(),
        }
    }

    /// Lets an end in as one, counted among those of its way: or not, and it is any stranger's request.
    #[must_use]
    pub fn admit(&self, ending: Ending, way: Way, now: Timestamp) -> End {
        let let_in = self.lets_in(ending, way, now);
        End { ending, let_in }
    }

    fn lets_in(&self, ending: Ending, way: Way, now: Timestamp) -> bool {
        let mut logins = self.locked();
        while let Some(second) = logins.first_entry()
            && *second.key() < now.0
        {
            second.remove();
        }
        let known = logins
            .get_mut(&ending.expires.0)
            .and_then(|second| second.get_mut(&ending.login));
        match known {
            Some(login) => {
                let one_more = login.came < EACH;
                login.came += usize::from(one_more);
                one_more
            }
            None => {
                let Some(room) = self.room.take(way, 1) else {
                    return false;
                };
                let login = Login {
                    came: 1,
                    proofs: Vec::new(),
                    _room: room,
                };
                let second = logins.entry(ending.expires.0).or_default();
                second.insert(ending.login, login);
                true
            }
        }
    }

    /// It found no place, and counts for nothing.
    pub fn withdraw(&self, end: End) {
        let mut logins = self.locked();
        let login = logins
            .get_mut(&end.ending.expires.0)
            .and_then(|second| second.get_mut(&end.ending.login));
        if let Some(login) = login.filter(|_| end.let_in) {
            login.came = login.came.saturating_sub(1);
        }
    }

    /// Whether the proof was not remembered here; of an end that was let in it is from now on. Not of a login whose time
    /// is over by now.
    #[must_use]
    pub fn is_new(&self, end: End, proof: [u8; 16]) -> bool {
        let mut logins = self.locked();
        let login = logins
            .get_mut(&end.ending.expires.0)
            .and_then(|second| second.get_mut(&end.ending.login));
        match login {
            Some(login) => {
                let new = !login.proofs.contains(&proof);
                // No more of them than were let in.
                if new && end.let_in {
                    login.proofs.push(proof);
                }
                new
            }
            None => !end.let_in,
        }
    }

    /// Whole at every moment, whatever panicked elsewhere.
    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, HashMap<[u8; 16], Login>>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use custodyd_hsm::{AppId, Lane};

    use super::*;
    use crate::service::Kind;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn way(kind: Kind) -> Way {
        let lane = Lane::of(&AppId::parse("notes").unwrap());
        Way { lane, kind }
    }

    fn ending(login: u32, by_stranger: bool) -> Ending {
        let mut id = [0; 16];
        let (start, _) = id.split_at_mut(4);
        start.copy_from_slice(&login.to_be_bytes());
        Ending {
            login: id,
            expires: NOW.plus(std::time::Duration::from_secs(120)),
            by_stranger,
        }
    }

    #[test]
    fn a_login_has_a_few_ends_and_each_proof_is_good_once() {
        let ends = Ends::default();
        let (mine, own) = (ending(1, false), way(Kind::Finish));
        let came: Vec<_> = (0..20).map(|_| ends.admit(mine, own, NOW)).collect();
        assert_eq!(came.iter().filter(|end| end.let_in).count(), EACH);
        let (end, past) = (*came.first().unwrap(), *came.last().unwrap());
        assert!(ends.is_new(end, [1; 16]));
        assert!(!ends.is_new(end, [1; 16]));
        assert!(ends.is_new(end, [2; 16]));
        // What is one too many does not bring one of those again, and is not remembered here.
        assert!(!ends.is_new(past, [1; 16]));
        assert!(ends.is_new(past, [3; 16]) && ends.is_new(past, [3; 16]));
        // Who found no place may come once more.
        ends.withdraw(end);
        assert!(ends.admit(mine, own, NOW).let_in);
        assert!(!ends.admit(mine, own, NOW).let_in);
        // Another login's are its own.
        let other = ends.admit(ending(2, false), own, NOW);
        assert!(ends.is_new(other, [1; 16]));
        // Past its time it is forgotten, and nothing of it is new.
        let later = Timestamp(mine.expires.0 + 1);
        assert!(ends.admit(ending(3, false), own, later).let_in);
        assert!(!ends.is_new(end, [4; 16]));
    }

    #[test]
    fn strangers_logins_take_no_room_from_what_was_charged_to_a_bound_device() {
        let ends = Ends::with_room(16);
        let flood = way(Kind::StrangersFinish);
        let let_in = (0..100).filter(|login| ends.admit(ending(*login, true), flood, NOW).let_in);
        assert_eq!(let_in.count(), 8);
        // The control: another stranger's finds no room.
        assert!(!ends.admit(ending(200, true), flood, NOW).let_in);
        let own = way(Kind::Finish);
        let end = ends.admit(ending(300, false), own, NOW);
        assert!(end.let_in && ends.is_new(end, [1; 16]));
        // Those that have come before have theirs, until they expire.
        assert!(ends.admit(ending(0, true), flood, NOW).let_in);
        let later = Timestamp(NOW.0 + 121);
        let next = Ending {
            expires: Timestamp(later.0 + 120),
            ..ending(400, true)
        };
        assert!(ends.admit(next, flood, later).let_in);
        assert_eq!(ends.room.taken(), 1);
    }
}
