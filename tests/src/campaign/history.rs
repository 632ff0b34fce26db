//! What a client wrote down: what it sent, when and to whom, and what it was answered or that no answer came.
//!
//! A request without an answer, or with one that leaves it open (5xx), may have been carried out, may be so later, or never.
//! It is over once the node that had it was killed and somebody serves again, whose start has taken the head; or a
//! minute later, which is twice as long as a request may take.

use std::fmt;

/// Milliseconds after which no daemon still works at a request.
const OVER: u64 = 60_000;

/// A PIN by its number; an account's own count from 1.
pub type Pin = u32;
/// That no account ever has.
pub const NOBODYS: Pin = 0;

/// Milliseconds in which somebody may still be told of a clock that was off: as long as a request may take.
pub(super) const CLOCK_FORGIVEN: u64 = 30_000;
/// A daemon's times are whole seconds.
const ROUNDED: u64 = 2_000;

/// A node that a request went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    pub node: usize,
    /// The life that it was in when the answer came, or when it was known that none will: no later one has had the request.
    pub last: u64,
}

/// When something was sent, in milliseconds since the campaign began, to whom, and which of its lives each node was in.
///
/// Even is a node that serves or could, odd one that was killed and that nobody has outlived yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: u64,
    pub lives: Vec<u64>,
    /// One for each question that was asked at once.
    pub to: Vec<Visit>,
    /// When the last answer came, or when it was known that none will.
    pub until: u64,
    /// When the clock that was off last was right again, as it was known at `until`: none was at 0, one is at the end of time.
    pub clock_off: u64,
}

impl Sent {
    /// Whether nothing of this can happen after `later` was sent, at any node that it went to.
    #[must_use]
    pub fn is_over(&self, later: &Self) -> bool {
        let outlived = |visit: &Visit| {
            // A node that is being started may have had it before anybody was told that it serves.
            let had = visit.last.next_multiple_of(2);
            let life = later.lives.get(visit.node).copied();
            life.is_some_and(|life| life >= had + 2)
        };
        self.to.iter().all(outlived) || later.at > self.at + OVER
    }

    /// Whether the realm's time may have jumped between `then` and the answer.
    #[must_use]
    pub fn has_a_clock_been_off_since(&self, then: u64) -> bool {
        self.clock_off > 0 && self.clock_off.saturating_add(CLOCK_FORGIVEN) > then
    }

    /// Whether what is good for `limit` from `then` on may have been too old when the answer came.
    #[must_use]
    pub fn may_find_past(&self, then: u64, limit: u64) -> bool {
        self.until.saturating_sub(then) + ROUNDED >= limit || self.has_a_clock_been_off_since(then)
    }
}

/// What a session was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// With the account.
    Creation,
    Pin(Pin),
    Passkey(u32),
}

/// A session that a request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub by: By,
    /// When the request was sent that opened it; it is no older than that.
    pub at: u64,
    /// Who gave it.
    pub node: usize,
}

/// The newest secret of an account, or the want of one: version 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub version: u64,
    pub content: String,
}

impl Kept {
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            version: 0,
            content: String::new(),
        }
    }
}

/// The first message of a sign-in by OPAQUE, which is the guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// An account's own count from 1.
    pub number: u32,
    pub pin: Pin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Sign-ins by a PIN that the server checks, at once where there are several, each at another node as far as there are others.
    Guess(Vec<Pin>),
    /// Beginnings of sign-ins by OPAQUE, likewise.
    Begin(Vec<Login>),
    /// Last messages of one of them, likewise, and whether each is the right one.
    End {
        login: u32,
        right: Vec<bool>,
    },
    /// What a passkey has to sign to sign in: nobody's, and without a session.
    Challenge,
    /// What a new passkey is made of.
    Options,
    /// One that the server checks.
    SetPin(Pin),
    /// What a client makes a PIN's record of.
    Registration,
    /// A PIN by OPAQUE.
    RegisterPin(Pin),
    AddPasskey(u32),
    RemovePasskey(u32),
    /// A sign-in.
    Passkey(u32),
    /// Which passkeys there are.
    List,
    /// Onto this version.
    Put {
        base: u64,
        content: String,
    },
    Get,
    Erase,
}

impl Asked {
    /// Whether it is nothing without a session.
    #[must_use]
    pub fn needs_a_session(&self) -> bool {
        !matches!(
            self,
            Self::Guess(_) | Self::Begin(_) | Self::End { .. } | Self::Challenge | Self::Passkey(_)
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// No answer.
    Lost,
    /// 5xx: who answered does not say what has become of it.
    Open(String),
    /// Nothing was done.
    Refused(Refusal),
    Done(Told),
}

/// Status and code, and the numbers that some bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: String,
    pub left: Option<u64>,
    pub current: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Yes,
    /// What there is of the secret, released with a session or written.
    Secret(Kept),
    Passkeys(Vec<u32>),
    /// How many attempts are left if this one was wrong, which no stranger is told; and whether the answer fits the PIN.
    Begun {
        left: Option<u64>,
        right: bool,
    },
}

/// One line of a history. As many answers, and nodes, as there were guesses, beginnings or ends; else one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sent: Sent,
    /// The session that it came with.
    pub with: Option<Session>,
    pub asked: Asked,
    pub came: Vec<Came>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { at, until, to, .. } = &self.sent;
        write!(f, "{at:>8} to {until} ms  node")?;
        for Visit { node, last } in to {
            write!(f, " {node}.{}", last / 2)?;
        }
        if let Some(Session { by, at, node }) = self.with {
            write!(f, "  with {by:?} of {at} ms by node {node}")?;
        }
        write!(f, "  {:?} -> {:?}", self.asked, self.came)
    }
}
