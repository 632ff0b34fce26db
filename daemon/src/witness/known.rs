//! Asking the witnesses what they know of a log, before an older copy of it is taken for the newest.
//!
//! Called by the restore ceremony, with the daemon stopped. A witness that is shown the empty log
//! says how many entries it has cosigned; for that the token signs a checkpoint of no entry at all,
//! which says nothing and which every log continues. Such a size is the witness's word. Where it
//! shows the checkpoint, too, that was signed by this realm: then its size and its root are proven,
//! and what is restored must have had that root at that size.

use custodyd_hsm::{Pool, PublicKey, RealmName};
use futures_util::future::join_all;

use super::Witnesses;
use super::exchange::{Answer, Witness, request};
use super::note::{Note, Statement, signatures};
use crate::config;
use crate::delivery::SetupError;
use crate::ledger::{LedgerError, empty_checkpoint, origin};

/// What one witness says.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// As the configuration names it.
    pub witness: String,
    /// Entries of the log that it has cosigned, by its own word; zero for a log that it follows and
    /// has seen nothing of. Or why it does not say.
    pub size: Result<u64, String>,
    /// The newest checkpoint that it shows, if this realm signed it and this witness cosigned it.
    pub shown: Option<Shown>,
}

/// A checkpoint that is proven to have been signed by this realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub size: u64,
    pub root: [u8; 32],
    /// With its signatures.
    pub note: String,
}

impl Known {
    /// The greatest size that this witness names or shows.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        let said = self.size.as_ref().ok().copied();
        said.max(self.shown.as_ref().map(|shown| shown.size))
    }
}

/// Asks every witness of the configuration, in its order, what it knows of the realm's log in this
/// epoch. `log_keys` are the realm's checkpoint keys, from the token.
///
/// # Errors
/// `Setup` for a `ca_file` that can not be read, `Ledger` where the token does not sign.
pub async fn newest_known(
    config: &config::Witnesses,
    pool: &Pool,
    log_keys: &[PublicKey],
    realm: &RealmName,
    log_epoch: u64,
) -> Result<Vec<Known>, AskError> {
    // The courier could deny that a witness knows anything, and an old backup would look right.
    let directly = config::Witnesses {
        courier: None,
        ..config.clone()
    };
    let witnesses = Witnesses::new(&directly)?;
    if witnesses.0.is_empty() {
        return Ok(Vec::new());
    }
    let nothing = empty_checkpoint(pool, realm, log_epoch).await?;
    let origin = origin(realm, log_epoch);
    let asked = witnesses.0.iter().map(|witness| async {
        Known {
            witness: witness.name.clone(),
            size: size(witness, &nothing).await,
            shown: shown(witness, &origin, log_keys).await,
        }
    });
    Ok(join_all(asked).await)
}

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Setup(#[from] SetupError),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
}

async fn size(witness: &Witness, nothing: &str) -> Result<u64, String> {
    match witness.add_checkpoint(request(0, &[], nothing)).await {
        Answer::Size(size) => Ok(size),
        Answer::Lines(lines) => {
            // Only of who is who we asked.
            let text = Note::parse(nothing).map_or("", |note| note.text);
            let found = signatures(&lines).map(|lines| witness.key.cosignature(text, &lines));
            match found {
                Some(Ok(Some(_))) => Ok(0),
                _ => Err("it returned no cosignature by its key".to_owned()),
            }
        }
        Answer::Inconsistent => Err("it takes the empty log for inconsistent".to_owned()),
        Answer::Refused(what) | Answer::Away(what) => Err(what),
    }
}

async fn shown(witness: &Witness, origin: &str, log_keys: &[PublicKey]) -> Option<Shown> {
    let note = witness.shown(origin).await?;
    let parsed = Note::parse(&note)?;
    let statement = Statement::parse(parsed.text)?;
    let cosigned = witness.key.cosignature(parsed.text, &parsed.signatures);
    let good = statement.origin == origin
        && parsed.is_signed_by(origin, log_keys)
        && matches!(cosigned, Ok(Some(_)));
    let (size, root) = (statement.size, statement.root);
    good.then_some(Shown { size, root, note })
}
