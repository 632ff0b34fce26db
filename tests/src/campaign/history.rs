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

/// When something was sent, in milliseconds since the campaign began, to which node, and which of its lives each node was in.
///
/// Even is a node that serves or could, odd one that was killed and that nobody has outlived yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: u64,
    pub node: usize,
    pub lives: Vec<u64>,
    /// The life that its node was in when the answer came, or when it was known that none will: no later one has had the request.
    pub last: u64,
}

impl Sent {
    /// Whether nothing of this request can happen after `later` was sent.
    #[must_use]
    pub fn is_over(&self, later: &Self) -> bool {
        // A node that is being started may have had it before anybody was told that it serves.
        let had = self.last.next_multiple_of(2);
        let life = later.lives.get(self.node).copied();
        life.is_some_and(|life| life >= had + 2) || later.at > self.at + OVER
    }
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Sign-ins by PIN, at once where there are several.
    Guess(Vec<Pin>),
    SetPin(Pin),
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
}

/// One line of a history. As many answers as there were guesses; else one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sent: Sent,
    pub asked: Asked,
    pub came: Vec<Came>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { at, node, last, .. } = &self.sent;
        let life = last / 2;
        write!(
            f,
            "{at:>8} ms  node {node}.{life}  {:?} -> {:?}",
            self.asked, self.came
        )
    }
}
