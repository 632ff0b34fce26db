//! Nodes of one realm that were configured differently: a start is refused beside nodes that have something else, and names it.
//!
//! Called by `startup`, before the ledger is opened and writes anything, and while several nodes serve. A change that goes
//! from node to node needs a permission (`store.postgres.rollout`), at the node that differs or at that from which it does: so
//! one that was left behind with the old file may come back as well. A node that serves is ended by no difference: it says so
//! when it begins and when it ends, and the metric stays up as long as it lasts.
//!
//! What the others have is the database's word. Whoever administers it can make up a difference, and so refuse a start, which
//! they can do anyway; or hide one, and then it is as if nobody had compared. What nodes must never differ in (realm, keys, anchoring,
//! schema, what the token remembers) a start refuses by itself, and of the policies the log says under which of them each batch was
//! decided. Two tokens with the same keys are told apart here, too, where each has a serial number of its own, as a maker's
//! clones have, and the server hides nothing: they may keep in step, and look alike otherwise.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::Notify;
use tokio::time::Instant;

use custodyd_hsm::Pool;

use crate::config::{Agreed, Config, Database};
use crate::service::Service;
use crate::store::{Declared, Store, StoreError};

const EVERY: Duration = Duration::from_secs(5);
/// How long a start waits for a node that ends, or that has ended and that the server has not missed yet.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);

/// What this node has, as the others were told.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    store: Arc<dyn Store>,
    declared: Vec<Declared>,
    reloaded: Arc<Notify>,
}

impl Agreement {
    /// Compares, and then tells the others. Nothing else is written; what is told is gone with the connection.
    ///
    /// # Errors
    /// `Refused` names each setting in which a node that serves has something else; else when the server does not answer.
    pub(super) async fn reach(
        config: &Config,
        pool: &Pool,
        policies: [u8; 32],
        store: &Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        // One that tells no number is like every other such.
        let has = has(config, pool.identity().unwrap_or_default(), policies);
        let agreement = Self {
            store: Arc::clone(store),
            declared: has.iter().map(|one| one.declared(config)).collect(),
            reloaded: Arc::default(),
        };
        if store.is_shared() {
            let until = Instant::now() + PATIENCE;
            while let Err(refused) = agreement.stands(&has).await {
                if Instant::now() >= until {
                    return Err(refused);
                }
                tokio::time::sleep(AGAIN).await;
            }
            store.declare(agreement.declared.clone()).await?;
            // Of two that start at one moment each may have looked before the other told: one of them looks again after both have.
            agreement.stands(&has).await?;
            agreement.tells_of_permissions();
        }
        Ok(agreement)
    }

    async fn stands(&self, has: &[Has]) -> Result<(), StoreError> {
        let theirs = self.store.differing(&self.declared).await?;
        let each = has.iter().zip(&self.declared);
        let refused: Vec<String> = each
            .filter(|(has, ours)| has.setting.is_demanded() && !ours.may_differ)
            .filter_map(|(has, _)| {
                let mut theirs = theirs.iter().filter(|one| !one.may_differ);
                let theirs = theirs.find(|one| one.setting == has.setting)?;
                Some(has.refused(theirs.value))
            })
            .collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Refused {
                operation: "compare with the nodes that serve this realm",
                problem: refused.join("\n"),
            }),
        }
    }

    fn tells_of_permissions(&self) {
        let permitted = self.declared.iter().filter(|one| one.may_differ);
        let permitted: Vec<_> = permitted.map(|one| one.setting.name()).collect();
        if !permitted.is_empty() {
            tracing::warn!(
                settings = ?permitted,
                "store.postgres.rollout: this node may differ from the others in these, and they from it; take them out there once \
                 all nodes have the same"
            );
        }
    }

    /// To be told of a reload.
    pub(super) fn reloaded(&self) -> Arc<Notify> {
        Arc::clone(&self.reloaded)
    }

    /// Compares, and tells the others what was reloaded, until it is dropped. One that serves alone has nothing to do.
    pub(super) async fn watch(mut self, service: Arc<Service>) {
        let mut before = Vec::new();
        while self.store.is_shared() {
            self.decides_under(service.ledger.configuration()).await;
            if let Ok(theirs) = self.store.differing(&self.declared).await {
                let now: Vec<_> = theirs.into_iter().map(|one| one.setting).collect();
                for declared in &self.declared {
                    let setting = declared.setting;
                    tell(setting, before.contains(&setting), now.contains(&setting));
                }
                before = now;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.reloaded.notified() => {}
            }
        }
    }

    /// A reload has put these policies in place, or none has. What the server did not hear it is told with the next connection.
    async fn decides_under(&mut self, policies: [u8; 32]) {
        let value = of_policies(policies);
        let mut declared = self.declared.iter_mut();
        let Some(ours) = declared.find(|one| one.setting == Agreed::Policies) else {
            return;
        };
        if std::mem::replace(&mut ours.value, value) == value {
            return;
        }
        if let Err(error) = self.store.declare(self.declared.clone()).await {
            tracing::warn!(%error, "the other nodes are told with the next change that this one has other policies");
        }
    }
}

/// When a difference begins, and when it ends.
fn tell(setting: Agreed, before: bool, now: bool) {
    let name = setting.name();
    metrics::gauge!("custodyd_nodes_differ", "setting" => name).set(f64::from(u8::from(now)));
    match (before, now) {
        (false, true) if setting == Agreed::Token => tracing::error!(
            setting = name,
            "another node that serves this realm has a token with another serial number: unless it is one token that \
             tells each host another, what one node anchors the other does not see, and guesses may be won. Stop one \
             of them, and give both the same"
        ),
        (false, true) => tracing::warn!(
            setting = name,
            "another node that serves this realm has something else here: clients meet either. Unless a change \
             is going from node to node just now, make them the same"
        ),
        (true, false) => tracing::info!(setting = name, "all nodes have the same here again"),
        _ => {}
    }
}

/// What this node has of one setting.
struct Has {
    setting: Agreed,
    /// What is compared.
    text: String,
    value: [u8; 4],
}

/// What clients see of a node, whichever one they meet, and its token.
fn has(config: &Config, token: String, policies: [u8; 32]) -> Vec<Has> {
    let has = |setting: Agreed| {
        let text = match setting {
            Agreed::Url => config.listen.url.clone(),
            Agreed::Limits => config.limits.set(),
            Agreed::PublicLog => config.ledger.public_log.to_string(),
            Agreed::Escrow => config.token.escrow.is_some().to_string(),
            Agreed::Policies => hex::encode(policies),
            Agreed::Token => token.clone(),
            Agreed::Version => env!("CARGO_PKG_VERSION").to_owned(),
        };
        let value = match setting {
            Agreed::Policies => of_policies(policies),
            _ => hash(setting, &text),
        };
        Has {
            setting,
            text,
            value,
        }
    };
    Agreed::ALL.into_iter().map(has).collect()
}

/// Of a hash that says nothing of the value.
fn hash(setting: Agreed, text: &str) -> [u8; 4] {
    let hash = digest(&SHA256, format!("{}={text}", setting.name()).as_bytes());
    first(hash.as_ref())
}

/// It is a hash already, and stands in every head.
fn of_policies(digest: [u8; 32]) -> [u8; 4] {
    first(&digest)
}

fn first(hash: &[u8]) -> [u8; 4] {
    hash.first_chunk().copied().unwrap_or_default()
}

impl Has {
    fn declared(&self, config: &Config) -> Declared {
        let rollout = match &config.store.database {
            Database::Postgres(place) => place.rollout.as_slice(),
            Database::Sqlite(_) => &[],
        };
        Declared {
            setting: self.setting,
            value: self.value,
            may_differ: rollout.contains(&self.setting),
        }
    }

    /// For the operator. Of another node's value there are four bytes: what they are of can be said where few values are possible.
    fn refused(&self, theirs: [u8; 4]) -> String {
        let Self { setting, text, .. } = self;
        let name = setting.name();
        let (ours, theirs) = match setting {
            Agreed::Policies => (
                format!("policies of the digest {text:.16}"),
                format!("some whose digest begins {}", hex::encode(theirs)),
            ),
            Agreed::PublicLog | Agreed::Escrow => {
                let mut each = ["true", "false"].into_iter();
                let known = each.find(|one| hash(*setting, one) == theirs);
                (text.clone(), known.unwrap_or("something else").to_owned())
            }
            Agreed::Limits if text.is_empty() => {
                ("every one by default".to_owned(), "others".to_owned())
            }
            Agreed::Limits => (format!("{text}, the rest by default"), "others".to_owned()),
            Agreed::Token => (
                format!("one with the serial number {text:?}"),
                "one with another number".to_owned(),
            ),
            Agreed::Url | Agreed::Version => (format!("{text:?}"), "something else".to_owned()),
        };
        let so = match setting {
            Agreed::Token => {
                "what one token anchors the other does not see, and guesses may be won: give all nodes the same token. Only \
                 where it is one that tells each host another number, list \"token\""
                    .to_owned()
            }
            Agreed::Escrow => {
                "make them the same: one with token.escrow in its configuration knows that custodians can bring the keys back. \
                 While a change goes from node to node, list \"token.escrow\""
                    .to_owned()
            }
            _ => format!(
                "make them the same. While a change goes from node to node, list \"{name}\""
            ),
        };
        format!(
            "{name}: this node has {ours}, and another node that serves this realm has {theirs}; {so} in store.postgres.rollout"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    fn example() -> Config {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/custodyd.example.toml");
        crate::config::load(Path::new(example)).unwrap()
    }

    #[test]
    fn a_setting_has_a_hash_of_its_own_name_and_value() {
        let config = example();
        let ours = has(&config, "1".into(), [1; 32]);
        let mut other = config.clone();
        other.listen.url.push_str(":8443");
        for (token, policies, expected) in [
            ("1", [1; 32], &[Agreed::Url][..]),
            ("2", [1; 32], &[Agreed::Url, Agreed::Token]),
            ("1", [2; 32], &[Agreed::Url, Agreed::Policies]),
        ] {
            let differing: Vec<_> = ours
                .iter()
                .zip(has(&other, token.into(), policies))
                .filter(|(ours, theirs)| ours.value != theirs.value)
                .map(|(ours, _)| ours.setting)
                .collect();
            assert_eq!(differing, expected);
        }
    }

    #[test]
    fn a_refusal_names_the_setting_both_values_as_far_as_they_are_known_and_what_to_do() {
        let config = example();
        let mut other = config.clone();
        other.ledger.public_log = !config.ledger.public_log;
        other.limits.slow_factor = std::num::NonZeroU32::MIN;
        let ours = has(&config, "0a1b".into(), [0xab; 32]);
        let theirs = has(&other, "0c2d".into(), [0xcd; 32]);
        let said = |setting| {
            let ours = ours.iter().find(|one| one.setting == setting).unwrap();
            let theirs = theirs.iter().find(|one| one.setting == setting).unwrap();
            ours.refused(theirs.value)
        };
        let log = said(Agreed::PublicLog);
        assert!(
            log.contains("has false") && log.contains("has true"),
            "{log}"
        );
        let policies = said(Agreed::Policies);
        assert!(
            policies.contains("abababababababab,") && policies.contains("begins cdcdcdcd"),
            "{policies}"
        );
        let limits = said(Agreed::Limits);
        assert!(limits.contains("every one by default"), "{limits}");
        let token = said(Agreed::Token);
        assert!(
            token.contains("0a1b") && token.contains("guesses may be won"),
            "{token}"
        );
        for setting in Agreed::ALL {
            let said = said(setting);
            assert!(said.starts_with(&format!("{}: ", setting.name())), "{said}");
            assert!(said.contains("store.postgres.rollout"), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
