//! Finding an account by an alias, checked both ways.
//!
//! The alias's record names an account, and that account's envelope must list the record: an old
//! record that is put back, or moved to another name, leads nowhere. Called by `service` with
//! names that strangers write, so an unknown name costs the token what a known one does.

use std::sync::Arc;

use custodyd_hsm::{AccountId, AppId, RecordId, RecordKind, mac};
use serde::{Deserialize, Serialize};

use super::record::{Loaded, Reader, Standing, tampered};
use super::{BUCKET_BITS, LedgerError};
use crate::account::{Alias, AliasName};

const FORMAT: u8 = 1;
/// How often an alias leads to an account that does not list it, although neither has moved meanwhile.
const READS: u32 = 2;
/// How often it is followed at all: one that is given and taken faster than that is busy, and proves nothing.
const TURNS: u32 = 16;

/// The sealed body of an alias's record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    format: u8,
    name: AliasName,
    account: AccountId,
}

/// The plaintext of an alias's record.
pub(super) fn body(alias: &Alias, account: AccountId) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Body {
        format: FORMAT,
        name: alias.name.clone(),
        account,
    })
}

impl Reader {
    /// The identifiers that the record of an alias of this name can have: under each MAC key that is accepted, the
    /// current one first.
    pub(super) async fn alias_ids(
        &self,
        app: &AppId,
        name: &AliasName,
    ) -> Result<Vec<(u16, RecordId)>, LedgerError> {
        let (realm, app, name) = (self.realm().clone(), app.clone(), name.clone());
        let ids = self.pool().call("record-id", move |custody| {
            let natural = name.expose().as_bytes();
            let mut ids = Vec::new();
            for key in mac::accepted(custody)? {
                let kind = RecordKind::Alias;
                let id = mac::record_id_under(custody, key, &realm, &app, kind, natural)?;
                ids.push((key.version, id));
            }
            Ok(ids)
        });
        Ok(ids.await?)
    }

    /// The identifier that the record of a new alias would have.
    #[cfg(test)]
    pub(super) async fn alias_id(
        &self,
        app: &AppId,
        name: &AliasName,
    ) -> Result<RecordId, LedgerError> {
        let ids = self.alias_ids(app, name).await?;
        let current = ids.first().map(|(_, id)| *id);
        current.ok_or(LedgerError::internal("name a record"))
    }

    /// The account that has this alias; `None` if nobody is proven to have it.
    pub(super) async fn by_alias(
        &self,
        app: &AppId,
        name: &AliasName,
    ) -> Result<Option<Loaded>, LedgerError> {
        self.freshness().confirmed().await?;
        let mut astray = 0;
        for _ in 0..TURNS {
            match self.follow(app, name).await? {
                Followed::Owner(owner) => return Ok(Some(owner)),
                Followed::Nobody => return Ok(None),
                // A commit came between reading the alias and reading its account.
                Followed::Astray { moved: true, .. } => {}
                Followed::Astray {
                    moved: false,
                    record,
                } => {
                    astray += 1;
                    if astray == READS {
                        return Err(tampered(
                            &record,
                            "the account that the alias names does not list it",
                        ));
                    }
                }
            }
        }
        Err(LedgerError::Overtaken)
    }

    async fn follow(&self, app: &AppId, name: &AliasName) -> Result<Followed, LedgerError> {
        let mut found = None;
        for (_, record) in self.alias_ids(app, name).await? {
            let bucket = record.bucket(BUCKET_BITS);
            let moves = self.memory().moves(bucket);
            if let Some(read) = self.read(&record).await? {
                found = Some((record, bucket, moves, read));
                break;
            }
        }
        let Some((record, bucket, moves, read)) = found else {
            // What opening the record, and the account it names, would have cost.
            self.decoy().await?;
            if let Standing::Absent = self.load(app, nobody()?).await? {
                self.decoy().await?;
            }
            return Ok(Followed::Nobody);
        };
        if read.member.kind != RecordKind::Alias {
            return Err(tampered(&record, "it is not an alias"));
        }
        let plaintext = self.unseal(app, Arc::new(read)).await?;
        let body: Body = serde_json::from_slice(plaintext.expose())
            .map_err(|_| tampered(&record, "the alias does not parse"))?;
        if body.format != FORMAT || body.name != *name {
            return Err(tampered(&record, "the alias contradicts its identifier"));
        }
        let owner = self.load(app, body.account).await?;
        // One batch changes both. If the alias's list was the same all the time, it stood beside this account.
        let moved = self.memory().moves(bucket) != moves;
        #[cfg(test)]
        let moved = moved && !self.store().weakness().any_read;
        Ok(match owner {
            Standing::Account(owner) if lists(&owner, name, &record) => Followed::Owner(owner),
            _ => Followed::Astray { moved, record },
        })
    }
}

/// Where an alias led.
enum Followed {
    Nobody,
    Owner(Loaded),
    /// To an account that does not list it; `moved` where that may have been so at no moment.
    Astray {
        moved: bool,
        record: RecordId,
    },
}

fn lists(owner: &Loaded, name: &AliasName, record: &RecordId) -> bool {
    let listed = owner.account.alias(name);
    listed.is_some_and(|alias| alias.record() == record)
}

/// An identifier that no account has.
fn nobody() -> Result<AccountId, LedgerError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LedgerError::internal("draw an identifier"))?;
    Ok(AccountId(bytes))
}
