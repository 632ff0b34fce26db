//! What the approvers of a restore sign: one document that says all that follows from it.
//!
//! Made by `propose` from what the token and the database say, and compared by `accept` with what
//! they say then. It names the token's newest anchor, whose serial is never used twice, and every other that is there:
//! once a restore is done the token holds another one alone, and no approval serves again.

use std::time::Duration;

use custodyd_hsm::RealmName;
use custodyd_hsm::anchor::Anchor;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::known::Known;
use super::token::{Claim, Token};
use super::{Approvers, Wishes};
use crate::ledger::LedgerError;
use crate::ledger::head::{Head, State};
use crate::ledger::tree::Digest;

/// Says what a signature over the document means, to whoever is asked for one.
const PURPOSE: &str = "custodyd restore, version 1: who signs this lets the realm go on from the \
                       state in `adopt`, and gives up everything that came after it";
/// No policy grants more.
pub const MAX_GUESSES: u32 = custodyd_policies::MAX_ATTEMPTS;
/// So long an approval holds where the token has no anchor that could say that it was used.
const VALID: Duration = Duration::from_secs(7 * 86_400);
/// No statement is longer.
pub(super) const MAX_STATEMENT: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    purpose: String,
    pub realm: RealmName,
    /// Tells two proposals of the same restore apart.
    #[serde(with = "hex::serde")]
    nonce: [u8; 16],
    /// What the token knows to have been the newest; absent where it has lost that, or holds what contradicts itself.
    pub token_remembers: Option<Remembered>,
    /// Every anchor of a token that holds several. All are given up, and what the adopted state has of each is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_holds: Vec<Claim>,
    /// What the host remembers beyond the token, under bounded anchoring: until it is started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_remembers: Option<Remembered>,
    /// Tokens that the adopted state names, where it names several. The one of the ceremony is asked, and no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub realm_tokens: Vec<String>,
    pub adopt: Adopted,
    /// The MAC keys that vouch for it, where the one that tags the newest anchor is none of them: they were rotated since,
    /// and whoever knows all of them can have made it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_older_keys: Vec<String>,
    /// Batches between the two, where the one is older than the other and nothing else.
    pub lost_batches: Option<u64>,
    /// A log that auditors hold, and that has entries which the adopted one has not.
    pub auditors_hold: Option<Held>,
    /// Witnesses that were asked and have said what they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses_asked: Vec<String>,
    /// Witnesses that were asked and have not answered: what they hold is not in `auditors_hold`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses_silent: Vec<String>,
    pub new_log_epoch: u64,
    /// Guesses at each factor of every account, until its owner has signed in.
    pub guesses_left: u32,
    pub approvals_needed: usize,
    /// The SHA-256 fingerprints of the keys that may approve.
    pub approvers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    pub serial: u64,
    pub log_epoch: u64,
    pub batch: u64,
    #[serde(with = "hex::serde")]
    pub head: Digest,
    pub boot_epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopted {
    pub log_epoch: u64,
    pub batch: u64,
    /// Hash of the head: it names the whole log and every record.
    #[serde(with = "hex::serde")]
    pub head: Digest,
    pub log_entries: u64,
    /// When it was written, in seconds since the Unix epoch.
    pub time: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub log_epoch: u64,
    pub log_entries: u64,
}

impl Remembered {
    pub(super) fn of(anchor: &Anchor) -> Self {
        Self {
            serial: anchor.serial,
            log_epoch: anchor.log_epoch,
            batch: anchor.seq,
            head: anchor.head,
            boot_epoch: anchor.boot_epoch,
        }
    }
}

impl Adopted {
    fn of(head: &Head) -> Result<Self, LedgerError> {
        let hash = head.hash();
        Ok(Self {
            log_epoch: head.state.log_epoch,
            batch: head.state.seq,
            head: hash.map_err(|_| LedgerError::internal("encode a head"))?,
            log_entries: head.size,
            time: head.state.time,
        })
    }
}

impl Statement {
    /// The document over a restore from what the token remembers to what the database shows.
    pub(super) fn new(
        (token, claims): (&Token, &[Claim]),
        head: &Head,
        wishes: &Wishes,
        known: &[Known],
        approvers: &Approvers,
        (nonce, now): ([u8; 16], Timestamp),
    ) -> Result<Self, LedgerError> {
        let state = &head.state;
        let newest = token.newest();
        let ours = Held {
            log_epoch: state.log_epoch,
            log_entries: head.size,
        };
        let held = known.iter().map(|known| Held {
            log_epoch: known.log_epoch,
            log_entries: known.size,
        });
        Ok(Self {
            purpose: PURPOSE.into(),
            realm: state.realm.clone(),
            nonce,
            token_remembers: newest.map(Remembered::of),
            token_holds: claims.to_vec(),
            host_remembers: token.here().map(Remembered::of),
            realm_tokens: match state.tokens.as_slice() {
                [] | [_] => Vec::new(),
                several => several.to_vec(),
            },
            adopt: Adopted::of(head)?,
            under_older_keys: token.older_keys(head),
            lost_batches: lost(newest_of(token), state),
            auditors_hold: held.max().filter(|held| *held > ours),
            witnesses_asked: wishes.answered.clone(),
            witnesses_silent: wishes.silent.clone(),
            new_log_epoch: match token.log_epoch() {
                Some(epoch) => epoch.max(state.log_epoch).saturating_add(1),
                // Nobody knows which epochs there were. None was as high as the time.
                None => now.0.max(state.log_epoch.saturating_add(1)),
            },
            guesses_left: wishes.guesses_left,
            approvals_needed: approvers.needed(),
            approvers: approvers.fingerprints(),
        })
    }

    /// # Errors
    /// `Refused` where it is no statement.
    pub(in crate::ledger) fn parse(text: &str) -> Result<Self, LedgerError> {
        let refused = |what: String| {
            LedgerError::Refused(format!("this is no statement of a restore: {what}"))
        };
        if text.len() > MAX_STATEMENT {
            return Err(refused(format!("it has more than {MAX_STATEMENT} bytes")));
        }
        let statement: Self =
            serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        if statement.purpose != PURPOSE {
            return Err(refused("its purpose is another one".into()));
        }
        // In one form only: what an approver reads is what is read here, and nothing hides in it.
        if statement.encode()? != text {
            return Err(refused(
                "it is not in the form that propose-restore writes".into(),
            ));
        }
        if statement.guesses_left > MAX_GUESSES {
            return Err(refused(format!("more than {MAX_GUESSES} guesses")));
        }
        Ok(statement)
    }

    /// Whether this is the state after the batch that the statement allows.
    pub(in crate::ledger) fn begins(&self, state: &State) -> bool {
        let left = state.restored.map(|restored| restored.guesses_left);
        state.previous == self.adopt.head
            && Some(state.seq) == self.adopt.batch.checked_add(1)
            && state.log_epoch == self.new_log_epoch
            && left == Some(self.guesses_left)
    }

    /// The text to sign.
    ///
    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub fn encode(&self) -> Result<String, LedgerError> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|_| LedgerError::internal("encode a statement"))?;
        Ok(text + "\n")
    }

    /// What the statement would say if approvals were not over the token's anchor.
    #[cfg(test)]
    pub(super) fn of_any(mut self, (token, claims): (&Token, &[Claim]), head: &Head) -> Self {
        self.token_remembers = token.newest().map(Remembered::of);
        self.token_holds = claims.to_vec();
        self.host_remembers = token.here().map(Remembered::of);
        self.lost_batches = lost(newest_of(token), &head.state);
        self.new_log_epoch = token.log_epoch().unwrap_or(0) + 1;
        self
    }

    /// Whether the token holds what the statement says that it does, and nothing else.
    pub(super) fn names(&self, token: &Token, claims: &[Claim]) -> bool {
        self.token_remembers == token.newest().map(Remembered::of) && self.token_holds == claims
    }

    /// Why this is not what the token and the database say now.
    ///
    /// # Errors
    /// `Refused` names the first difference.
    pub(super) fn describes(
        &self,
        (token, claims): (&Token, &[Claim]),
        head: &Head,
        approvers: &Approvers,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let differs = |what: &str| Err(LedgerError::Refused(format!("{what}; propose it anew")));
        if self.realm != head.state.realm {
            return differs("the statement is about another realm");
        }
        if self.token_remembers != token.newest().map(Remembered::of) {
            return differs("the token remembers another batch than the statement says");
        }
        if !self.names(token, claims) {
            return differs("the token holds other anchors than the statement says");
        }
        let here = token.here().map(Remembered::of);
        if here.is_some() && self.host_remembers != here {
            return differs("this host remembers another batch than the statement says");
        }
        if let (None, Some(said)) = (&here, &self.host_remembers) {
            // It was started anew meanwhile, and what it remembered then is signed, where it can have remembered that.
            let follows = self.token_remembers.as_ref().is_some_and(|last| {
                let of = |known: &Remembered| (known.serial, known.log_epoch, known.boot_epoch);
                of(said) == of(last) && said.batch > last.batch
            });
            if !follows {
                return differs(
                    "the host can not have remembered what the statement says beyond this token",
                );
            }
        }
        if self.adopt != Adopted::of(head)? {
            return differs("the database shows another state than the one to adopt");
        }
        if self.approvals_needed != approvers.needed() || self.approvers != approvers.fingerprints()
        {
            return differs("the configuration names other approvers than the statement");
        }
        let wishes = Wishes {
            guesses_left: self.guesses_left,
            ..Wishes::default()
        };
        let of = (self.nonce, now);
        let mut made = Self::new((token, claims), head, &wishes, &[], approvers, of)?;
        // What auditors hold is known to who proposed it.
        made.auditors_hold = self.auditors_hold.clone();
        made.witnesses_asked.clone_from(&self.witnesses_asked);
        made.witnesses_silent.clone_from(&self.witnesses_silent);
        if here.is_none() {
            made.host_remembers.clone_from(&self.host_remembers);
            let newest = made
                .host_remembers
                .as_ref()
                .or(made.token_remembers.as_ref());
            made.lost_batches = lost(newest.cloned(), &head.state);
        }
        let recent = self.new_log_epoch..=self.new_log_epoch.saturating_add(VALID.as_secs());
        if token.is_empty() && self.new_log_epoch > head.state.log_epoch && recent.contains(&now.0)
        {
            made.new_log_epoch = self.new_log_epoch;
        }
        if *self != made {
            return differs("the statement says what does not follow from token and database");
        }
        Ok(())
    }
}

/// The newest that token or host remember.
fn newest_of(token: &Token) -> Option<Remembered> {
    token.here().or(token.newest()).map(Remembered::of)
}

/// Batches that were anchored after this state, if it is one of the same history.
fn lost(known: Option<Remembered>, state: &State) -> Option<u64> {
    let known = known.filter(|known| known.log_epoch == state.log_epoch)?;
    known.batch.checked_sub(state.seq).filter(|lost| *lost > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,400}") {
            let _ = Statement::parse(&text);
        }
    }

    #[test]
    fn what_is_no_statement_is_said() {
        let said = |text: &str| Statement::parse(text).unwrap_err().to_string();
        assert!(said("{}").contains("missing field"));
        assert!(said(&" ".repeat(MAX_STATEMENT + 1)).contains("bytes"));
    }
}
