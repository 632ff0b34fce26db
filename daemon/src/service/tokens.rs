//! The realm's tokens, where there are several: how each stands, taking one in, taking one out.
//!
//! Called by the operator's socket, and by the command line where no daemon runs. What a token must be to
//! come in, `ledger::tokens` says; here it is found by its name and opened.

use std::sync::Arc;

use custodyd_hsm::{Member, Pool, Standing, TokenSet};
use serde_json::{Value, json};

use super::Service;
use super::rotation::KeyError;

/// How each token of a set stands; nothing where there is one token.
#[must_use]
pub fn shown(pool: &Pool) -> Option<Value> {
    let set = pool.set()?;
    let each = set.members().iter().map(|member| {
        json!({
            "name": member.name(),
            "serial": member.id().ok(),
            "state": member.standing().name(),
            "reason": member.reason(),
            "unheard": member.is_unheard(),
        })
    });
    Some(each.collect())
}

/// How many of them stand so, for metrics.
#[must_use]
pub fn count(set: &TokenSet, standing: Standing) -> usize {
    let members = set.members().iter();
    members
        .filter(|member| member.standing() == standing)
        .count()
}

/// How many have not said what they remember, and are not in the set.
#[must_use]
pub fn unheard(set: &TokenSet) -> usize {
    let members = set.members().iter();
    members.filter(|member| member.is_unheard()).count()
}

impl Service {
    /// How each configured token stands, and which the newest head names.
    #[must_use]
    pub fn tokens(&self) -> Value {
        json!({
            "named": self.ledger.tokens(),
            "tokens": shown(self.ledger.pool()),
        })
    }

    /// Takes a configured token into the set: one that was given up, or a new one with the same keys.
    ///
    /// # Errors
    /// `Refused` and `Ledger` say why not; then it is asked for nothing, as before.
    pub async fn readmit_token(&self, name: &str) -> Result<Value, KeyError> {
        let (set, member) = self.called(name)?;
        if member.standing() != Standing::Outside {
            return Err(KeyError::Refused(format!(
                "the token {} is one of the realm's already",
                member.name()
            )));
        }
        let opening = Arc::clone(&member);
        let opened = tokio::task::spawn_blocking(move || set.reach(&opening)).await;
        opened.map_err(|_| KeyError::Refused("the token could not be opened".to_owned()))??;
        // Its keys are compared with those in use, which must stay these until it is named.
        let _keys = self.rotation.paused().await;
        self.ledger.readmit(Arc::clone(&member)).await?;
        Ok(json!({ "name": member.name(), "serial": member.id()?, "named": self.ledger.tokens() }))
    }

    /// Takes a token out of the set, for good or until it is taken in again.
    ///
    /// # Errors
    /// `Refused` where it is none of the realm's, or no other one answers.
    pub async fn expel_token(&self, name: &str) -> Result<Value, KeyError> {
        let (_, member) = self.called(name)?;
        if member.standing() == Standing::Outside {
            return Err(KeyError::Refused(format!(
                "the token {} is none of the realm's",
                member.name()
            )));
        }
        self.ledger.expel(&member).await?;
        Ok(json!({ "name": member.name(), "serial": member.id()?, "named": self.ledger.tokens() }))
    }

    fn called(&self, name: &str) -> Result<(Arc<TokenSet>, Arc<Member>), KeyError> {
        let set = self.ledger.pool().set().ok_or_else(|| {
            KeyError::Refused(
                "the configuration names one token: name the other as [token.replicas.NAME], and restart".to_owned(),
            )
        })?;
        let member = set.called(name).ok_or_else(|| {
            let names: Vec<&str> = set.members().iter().map(|member| member.name()).collect();
            KeyError::Refused(format!(
                "no token of the configuration is called {name:?}, or has that serial number; there are {}",
                names.join(", ")
            ))
        })?;
        Ok((Arc::clone(set), Arc::clone(member)))
    }
}
