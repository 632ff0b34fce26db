//! The restore ceremony: a realm goes on from an older database, because enough approvers say so.
//!
//! Called by the command line while no daemon runs. Everything else refuses a database that the
//! token has seen a newer one of; this is the one way past that, for the day on which the newest
//! is lost. The adversary may have brought that day about: they own every database, and would
//! like guesses, revocations and used codes forgotten. So the older state must be one that this
//! token has authenticated; the approvers sign what exactly is adopted and what is given up
//! (`statement`, `approvers`); and what is adopted begins another log epoch, in which no session
//! or ceremony of before lives on, every account is put back as `account::restored` says, and the
//! log itself holds the statement with its approvals for every auditor.
//!
//! Where the token contradicts itself, because it holds two anchors of one number, the same ceremony is the way on
//! (`token`): the approvers sign which side is adopted, and that all of the anchors are given up.
//!
//! A database of before a MAC key was retired is under that key. While the token holds it, the ceremony goes on from there;
//! the statement says so, since whoever knows that key could have made the database. What the ceremony anchors is tagged
//! by the keys that are adopted.
//!
//! After a crash here: the batch that begins the epoch is durable or it is not. If it is, no
//! daemon starts on it before the token has anchored it, and the same command does that when it is
//! run again with the same statement.

mod approvers;
mod known;
mod statement;
mod token;

use std::sync::Arc;

use custodyd_hsm::{Error, Pool, PublicKey, RealmName, checkpoint};
use custodyd_policies::Timestamp;

#[cfg(test)]
pub(super) use self::approvers::tests as testing;
pub use self::approvers::{Approvers, MAX_APPROVERS, MAX_NEEDED, NAMESPACE};
use self::known::Known;
pub use self::statement::{Adopted, Held, MAX_GUESSES, Remembered, Statement};
pub(in crate::ledger) use self::token::Token;
pub use self::token::{Claim, Place};
use super::LedgerError;
use super::anchoring::{Anchoring, Mode};
use super::head::Head;
use super::log::{Prover, RestoreLeaf};
use super::memory::Believed;
use super::start::{self, Found};
use crate::account::Restored;
use crate::store::{Batch, CommitError, Store};

/// What the operator wants of a restore, besides the state that is in place.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Guesses at each factor that every account keeps.
    pub guesses_left: u32,
    /// Checkpoints that auditors or witnesses hold.
    pub checkpoints: Vec<String>,
    /// Entries that witnesses say they have cosigned in a log epoch, without showing a checkpoint.
    pub claims: Vec<(u64, u64)>,
    /// Witnesses that have said what they hold, and those that were asked in vain, by name.
    pub answered: Vec<String>,
    pub silent: Vec<String>,
    /// Entries that they hold may be lost.
    pub lose_known_entries: bool,
    /// The token may have lost its anchor.
    pub without_anchor: bool,
}

/// A restore that was accepted.
#[derive(Debug)]
pub struct Accepted {
    pub statement: Statement,
    /// Caches that were built anew on the way.
    pub repaired: Vec<String>,
}

/// Token and database, as the ceremony needs them.
#[derive(Clone, Copy, Debug)]
pub struct Ceremony<'a> {
    pub store: &'a Arc<dyn Store>,
    pub pool: &'a Pool,
    pub realm: &'a RealmName,
    pub approvers: &'a Approvers,
    /// Under bounded anchoring this host may remember more than the token.
    pub mode: Mode<'a>,
}

impl Ceremony<'_> {
    /// The statement for the approvers. Nothing is written.
    ///
    /// # Errors
    /// `Refused` where there is nothing to restore, or where more would be lost than was said;
    /// `Tampered` where the database is not one that this token has authenticated.
    pub async fn propose(&self, wishes: &Wishes, now: Timestamp) -> Result<Statement, LedgerError> {
        if self.approvers.needed() == 0 {
            self.approvers.check("", &[])?;
        }
        let found = start::find(self.store, self.pool, self.realm).await?;
        let token = self.token().await?;
        self.may_be_adopted(&token, &found, wishes).await?;
        let claims = token.claims(self.store, &found.believed).await?;
        let known = self.known(&found.believed, wishes).await?;
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| LedgerError::internal("draw a nonce"))?;
        let head = &found.believed.head;
        let of = (nonce, now);
        let holds = (&token, claims.as_slice());
        let made = Statement::new(holds, head, wishes, &known, self.approvers, of)?;
        // What can not be accepted is not put before anybody.
        Statement::parse(&made.encode()?)
    }

    /// Whether there is something to restore, and it can be what is in place.
    async fn may_be_adopted(
        &self,
        token: &Token,
        found: &Found,
        wishes: &Wishes,
    ) -> Result<(), LedgerError> {
        let refused = |what: &str| Err(LedgerError::Refused(what.to_owned()));
        let Some(log_epoch) = token.log_epoch() else {
            return match wishes.without_anchor {
                true => Ok(()),
                false => refused(
                    "the token holds no anchor of this realm: if it is the right token and has \
                     lost it, propose with --without-anchor",
                ),
            };
        };
        if found.believed.head.state.log_epoch > log_epoch {
            return refused(
                "a restore was begun on this database and is not anchored: run accept-restore with \
                 its statement again, or put another database in place",
            );
        }
        match start::believe(self.store, self.pool, self.realm, self.mode).await {
            Ok(_) => refused("a daemon starts on this database: there is nothing to restore"),
            Err(LedgerError::Tampered(_)) => Ok(()),
            // It names tokens that are lost: the restored realm has this one.
            Err(LedgerError::Refused(_)) if !found.believed.head.state.tokens.is_empty() => Ok(()),
            // No daemon, and no node alone, starts on anchors that exclude each other, or are under keys that were not known yet.
            Err(LedgerError::Token(Error::Anchors { .. }))
                if token.contradicts_itself() || token.is_by_other_keys() =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What others know of the log. It must be the log that is to be adopted.
    ///
    /// A checkpoint counts by any key that the token holds, not by those alone that this head names: the one to be held
    /// against an older database may be signed by a key that was rotated to since. Who has put a key of theirs into
    /// the token can with it claim a longer log, and hinder a restore; it makes nobody believe an older one.
    async fn known(&self, found: &Believed, wishes: &Wishes) -> Result<Vec<Known>, LedgerError> {
        let keys = self
            .pool
            .call("load-public-keys", |custody| checkpoint::keys(custody))
            .await?;
        let notes = wishes.checkpoints.iter();
        let known = notes.map(|note| Known::read(note, self.realm, &keys));
        let mut known = known.collect::<Result<Vec<_>, _>>()?;
        let claims = wishes.claims.iter();
        known.extend(claims.map(|(log_epoch, size)| Known::claimed(*log_epoch, *size)));
        let head = &found.head;
        for known in &known {
            let beyond = known.log_epoch > head.state.log_epoch
                || (known.log_epoch == head.state.log_epoch && known.size > head.size);
            if beyond && !wishes.lose_known_entries {
                return Err(LedgerError::Refused(format!(
                    "auditors hold a log of {} entries in log epoch {}, the database has {} in \
                     {}: find a newer database; if there is none, propose with --lose-known-entries, \
                     and the approvers sign that",
                    known.size, known.log_epoch, head.size, head.state.log_epoch
                )));
            }
            if known.log_epoch == head.state.log_epoch && known.size <= head.size {
                let prover = Prover {
                    store: self.store,
                    end: &found.end,
                };
                let ours = prover.root_at(known.size).await?;
                if known.root.is_some_and(|root| root != ours) {
                    return Err(LedgerError::Tampered(format!(
                        "auditors hold another log of {} entries: the database is of another \
                         history than the one that was shown to them",
                        known.size
                    )));
                }
            }
        }
        Ok(known)
    }

    /// The log epoch of which others may hold checkpoints, and the keys that they are signed with.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub async fn log(&self) -> Result<(u64, Vec<PublicKey>), LedgerError> {
        let keys = self.pool.call("load-public-keys", checkpoint::keys).await?;
        let epoch = match self.token().await?.log_epoch() {
            Some(epoch) => epoch,
            None => {
                Head::read(self.store, self.pool, self.realm)
                    .await?
                    .state
                    .log_epoch
            }
        };
        Ok((epoch, keys))
    }

    async fn token(&self) -> Result<Token, LedgerError> {
        if self.pool.set().is_some() {
            return Err(LedgerError::Refused(
                "a restore is of one token: leave one in the configuration, without [token.replicas]; once the \
                 daemon serves on it, `custodyd token readmit` takes the others in"
                    .into(),
            ));
        }
        Token::read(self.pool, self.realm, self.mode).await
    }

    /// Adopts what the statement says, if it describes what is there and is approved.
    ///
    /// # Errors
    /// `Refused` says what is missing; `Tampered` as `propose`; `Store` and `Token` where they do
    /// not answer: then it is to be run again.
    pub async fn accept(
        &self,
        text: &str,
        approvals: &[String],
        now: Timestamp,
    ) -> Result<Accepted, LedgerError> {
        let statement = Statement::parse(text)?;
        let of = (&statement, text);
        let approvals = self.approvers.check(text, approvals)?;
        let found = start::find(self.store, self.pool, self.realm).await?;
        let token = self.token().await?;
        let claims = token.claims(self.store, &found.believed).await?;
        let holds = (&token, claims.as_slice());
        if self.is_begun(&found.believed, of).await? {
            // The batch is there. Only the token has not been told, or has and could not say so.
            let head = found.believed.head;
            return self.anchored(holds, head, statement, Vec::new()).await;
        }
        let head = &found.believed.head;
        #[cfg(test)]
        let statement = match self.store.weakness().any_approval {
            true => statement.of_any(holds, head),
            false => statement,
        };
        statement.describes(holds, head, self.approvers, now)?;
        let leaf = RestoreLeaf {
            version: env!("CARGO_PKG_VERSION").into(),
            statement: text.to_owned(),
            approvals,
        };
        let (head, repaired) = self
            .begin_epoch(found, token.boot_epoch(), &statement, (&leaf, now))
            .await?;
        self.anchored(holds, head, statement, repaired).await
    }

    /// Whether the last batch is the one of this statement: the entry, which the log's root must
    /// name, and the head, which says what became of it.
    async fn is_begun(
        &self,
        found: &Believed,
        (statement, text): (&Statement, &str),
    ) -> Result<bool, LedgerError> {
        let head = &found.head;
        let Some(at) = head.size.checked_sub(2) else {
            return Ok(false);
        };
        let leaves = start::leaves(self.store, at, 1).await?;
        let Some(leaf) = leaves.first() else {
            return Ok(false);
        };
        if RestoreLeaf::parse(leaf).is_none_or(|leaf| leaf.statement != text) {
            return Ok(false);
        }
        #[cfg(test)]
        if self.store.weakness().any_approval {
            return Ok(true);
        }
        let prover = Prover {
            store: self.store,
            end: &found.end,
        };
        prover.inclusion(at, leaf).await?;
        Ok(statement.begins(&head.state))
    }

    /// Writes the batch that begins the log epoch, in the boot epoch that was anchored at the least.
    async fn begin_epoch(
        &self,
        found: Found,
        anchored: u64,
        statement: &Statement,
        (leaf, now): (&RestoreLeaf, Timestamp),
    ) -> Result<(Head, Vec<String>), LedgerError> {
        let Found { believed, repairs } = found;
        let mut head = believed.head.clone();
        let mut batch = Batch::after(head.state.seq);
        let leaf = leaf.encode();
        let leaf = leaf.map_err(|_| LedgerError::internal("encode a log entry"))?;
        batch.entries.push((head.size, leaf));
        batch.digests = repairs.digests;
        batch.tiles = repairs.tiles;
        let state = &mut head.state;
        state.time = state.time.max(now);
        state.log_epoch = statement.new_log_epoch;
        state.boot_epoch = state.boot_epoch.max(anchored);
        state.restored = Some(Restored {
            at: state.time,
            guesses_left: statement.guesses_left,
            boot_epoch: state.boot_epoch,
        });
        if !state.tokens.is_empty() {
            state.tokens = vec![self.pool.identity()?];
        }
        let next = believed.next(head, &mut batch)?;
        batch.head = next.head.authenticate(self.pool).await?;
        self.store
            .commit(&batch)
            .await
            .map_err(|error| match error {
                CommitError::NotWritten(error)
                | CommitError::Declined(error)
                | CommitError::Unknown(error) => error.into(),
                CommitError::LostRace => {
                    LedgerError::Refused("somebody else writes to the database".into())
                }
            })?;
        Ok((next.head, repairs.what))
    }

    async fn anchored(
        &self,
        (token, claims): (&Token, &[Claim]),
        head: Head,
        statement: Statement,
        repaired: Vec<String>,
    ) -> Result<Accepted, LedgerError> {
        let given_up = token.all_but(&head)?;
        let first = match token.anchor_of(&head)? {
            // It may have been cut off before what it replaced was gone.
            Some(there) => there.clone(),
            None if statement.names(token, claims) => Anchoring::first_of(&head, &given_up)?,
            None => {
                return Err(LedgerError::Refused(
                    "the token remembers another batch than the statement says: another restore \
                     was accepted meanwhile; propose it anew"
                        .into(),
                ));
            }
        };
        let by = (first, head.tagged_by());
        Anchoring::supersede(self.pool, self.realm, given_up, by).await?;
        Ok(Accepted {
            statement,
            repaired,
        })
    }
}
