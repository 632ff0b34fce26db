//! Witnesses: others who remember how long the realm's log was, and sign it.
//!
//! Started by `startup`, read by `service` for auditors. The newest checkpoint is shown to each
//! witness of the configuration (c2sp.org/tlog-witness); who finds that it continues what they saw
//! before adds a cosignature. That helps against two things that nothing on this host can see: a
//! token that was put back together with its database, and a log that is shown to some in one form
//! and to others in another. Nothing waits for a witness, and none can stop the daemon: what one
//! says in dispute is logged, counted and shown in the metrics, and people decide.
//!
//! | file | does | may never |
//! |---|---|---|
//! | `note` | parses notes, verifies cosignatures | believe what no configured key has signed |
//! | `exchange` | calls a witness | follow a redirect; read without bounds |
//! | `failure` | says why there is no cosignature | repeat what a witness wrote |
//! | `follow` | shows each witness the newest checkpoint, again and again | show it one that the token has not anchored, or a smaller one |
//! | `cosigned` | keeps the newest checkpoint that enough have cosigned | let a smaller one replace it; trust its own file |
//! | `disputes` | keeps which witnesses disagree, until they cosign | let a restart end a dispute |
//! | `known` | asks what witnesses know of a log | sign a head for that |

mod cosigned;
mod disputes;
mod exchange;
mod failure;
mod follow;
mod known;
mod note;

use std::sync::Arc;

pub use self::cosigned::Cosigned;
use self::exchange::Witness;
pub(crate) use self::follow::run;
pub use self::known::{AskError, Known, Shown, newest_known};
pub use self::note::VerifierKey;
use crate::config;
use crate::delivery::SetupError;
use crate::delivery::by_courier::Client;

/// The witnesses of the configuration, not called yet.
#[derive(Debug, Default)]
pub(crate) struct Witnesses(Vec<Arc<Witness>>);

impl Witnesses {
    /// Reads the files that the configuration names. Connects nowhere.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should.
    pub(crate) fn new(config: &config::Witnesses) -> Result<Self, SetupError> {
        let ca_file = config.ca_file.as_deref();
        let known = config.known.iter();
        let courier = config.courier.as_deref();
        let made = known.map(|one| Witness::new(one, courier, ca_file).map(Arc::new));
        Ok(Self(made.collect::<Result<_, _>>()?))
    }
}

/// Everything about `[witnesses]` that can be judged without connecting, in a few words.
///
/// # Errors
/// As for a start.
pub(crate) fn check(config: &config::Witnesses) -> Result<String, SetupError> {
    Witnesses::new(config)?;
    let names: Vec<&str> = config.known.iter().map(|one| one.name.as_str()).collect();
    Ok(match names.as_slice() {
        [] => "none is configured: nobody outside notices a token that was put back".to_owned(),
        names => {
            if let Some(path) = &config.courier {
                Client::new(path).is_there()?;
            }
            format!("{} of {}", config.quorum, names.join(", "))
        }
    })
}
