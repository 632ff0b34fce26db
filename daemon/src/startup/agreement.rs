//! Nodes of one realm that were configured differently: what clients would notice is compared, and a difference is named.
//!
//! Called by `startup` where several nodes serve. A change that goes from node to node is a difference for a while, so
//! nothing is refused for one: it is said when it begins and when it ends, and the metric stays up as long as it
//! lasts. What nodes must never differ in (realm, keys, anchoring, schema, what the token remembers) a start refuses by itself, and of the
//! policies the log says under which of them each batch was decided. Two tokens with the same keys are told apart here, too, where each has a
//! serial number of its own, as a maker's clones have, and the server hides nothing: they may keep in step, and look alike otherwise.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::task::JoinHandle;

use custodyd_hsm::Pool;

use crate::config::Config;
use crate::store::{Declared, Store};

const EVERY: Duration = Duration::from_secs(5);
const TOKEN: &str = "token";

/// Tells the other nodes, and compares until it is aborted. One that serves alone has none.
pub(super) async fn begin(config: &Config, pool: &Pool, store: &Arc<dyn Store>) -> JoinHandle<()> {
    // One that tells no number is like every other such.
    let declared = of(config, pool.identity().unwrap_or_default());
    if store.is_shared() {
        if let Err(error) = store.declare(declared.clone()).await {
            tracing::warn!(%error, "the other nodes are not told how this one was configured");
        }
        return tokio::spawn(watch(Arc::clone(store), declared));
    }
    tokio::spawn(std::future::ready(()))
}

/// What clients see of a node, whichever one they meet, and its token, each in a hash that says nothing of it.
fn of(config: &Config, token: String) -> Declared {
    let settings = [
        ("listen.url", config.listen.url.clone()),
        ("limits", format!("{:?}", config.limits)),
        ("ledger.public_log", config.ledger.public_log.to_string()),
        ("token.escrow", config.token.escrow.is_some().to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        (TOKEN, token),
    ];
    let hash = |(name, value): (&'static str, String)| {
        let hash = digest(&SHA256, format!("{name}={value}").as_bytes());
        let mut first = [0; 4];
        first.copy_from_slice(hash.as_ref().get(..4).unwrap_or(&[0; 4]));
        (name, first)
    };
    settings.into_iter().map(hash).collect()
}

/// Compares until it is dropped.
async fn watch(store: Arc<dyn Store>, declared: Declared) {
    let mut before = Vec::new();
    loop {
        if let Ok(now) = store.differing().await {
            for (setting, _) in &declared {
                let differs = now.contains(setting);
                metrics::gauge!("custodyd_nodes_differ", "setting" => *setting)
                    .set(f64::from(u8::from(differs)));
                match (before.contains(setting), differs) {
                    (false, true) if *setting == TOKEN => tracing::error!(
                        setting,
                        "another node that serves this realm has a token with another serial number: unless it is one token that \
                         tells each host another, what one node anchors the other does not see, and guesses may be won. Stop one \
                         of them, and give both the same"
                    ),
                    (false, true) => tracing::warn!(
                        setting,
                        "another node that serves this realm has something else here: clients meet either. Unless a change \
                         is going from node to node just now, make them the same"
                    ),
                    (true, false) => tracing::info!(setting, "all nodes have the same here again"),
                    _ => {}
                }
            }
            before = now;
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_setting_has_a_hash_of_its_own_name_and_value() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/custodyd.example.toml");
        let config = crate::config::load(Path::new(example)).unwrap();
        let declared = of(&config, "1".into());
        let mut other = config.clone();
        other.listen.url.push_str(":8443");
        for (token, expected) in [("1", &["listen.url"][..]), ("2", &["listen.url", TOKEN])] {
            let differing: Vec<_> = declared
                .iter()
                .zip(of(&other, token.into()))
                .filter(|(ours, theirs)| *ours != theirs)
                .map(|(ours, _)| ours.0)
                .collect();
            assert_eq!(differing, expected);
        }
    }
}
