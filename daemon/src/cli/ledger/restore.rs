//! `custodyd ledger propose-restore` and `accept-restore`: the two ends of the ceremony.
//!
//! Between them people sign, away from this host. Both need the database for themselves; only
//! the second writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::super::output::Output;
use super::super::{block_on, chain};
use crate::clock::{Clock, shown};
use crate::config::Config;
use crate::ledger::LedgerError;
use crate::ledger::restore::{Accepted, Ceremony, Claim, NAMESPACE, Statement, Wishes};
use crate::private_file;
use crate::startup::{self, StartError};
use crate::store::Held;
use crate::witness::{self, AskError};

/// Larger than any statement, approval or checkpoint.
const MOST: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct Propose {
    /// A new file for the statement that the approvers sign
    statement: PathBuf,
    /// Guesses that each factor of every account keeps until its owner has signed in; 0 shuts
    /// out accounts that have no passkey
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    guesses_left: u32,
    /// A checkpoint that an auditor or a witness holds; may be given several times
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Give up entries of the log that the holders of those checkpoints, or the configured witnesses, have
    #[arg(long)]
    lose_known_entries: bool,
    /// The token has lost its anchor, and is the right token all the same
    #[arg(long)]
    without_anchor: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Accept {
    /// The statement that was proposed
    statement: PathBuf,
    /// An approver's signature over it (ssh-keygen -Y sign); once for each
    #[arg(long, value_name = "FILE", required = true)]
    approval: Vec<PathBuf>,
}

pub(super) fn propose(output: &Output, config: &Config, wanted: &Propose) -> ExitCode {
    const COMMAND: &str = "ledger propose-restore";
    let checkpoints = match read_all(&wanted.checkpoint) {
        Ok(checkpoints) => checkpoints,
        Err(problem) => return output.failure(COMMAND, &problem),
    };
    let mut wishes = Wishes {
        guesses_left: wanted.guesses_left,
        checkpoints,
        claims: Vec::new(),
        answered: Vec::new(),
        silent: Vec::new(),
        lose_known_entries: wanted.lose_known_entries,
        without_anchor: wanted.without_anchor,
    };
    let mut silent = Vec::new();
    let proposed = alone(config, async |ceremony| {
        ask_witnesses(config, ceremony, &mut wishes, &mut silent).await?;
        ceremony.propose(&wishes, Clock::default().now()).await
    });
    let written = proposed.map_err(|error| chain(&error)).and_then(|made| {
        let text = made.encode().map_err(|error| chain(&error))?;
        let file = private_file::create(&wanted.statement).map_err(|error| error.to_string())?;
        write(file, &text).map_err(|error| format!("{}: {error}", wanted.statement.display()))?;
        Ok(made)
    });
    match written {
        Ok(made) => {
            let mut lines = proposal(&made, &wanted.statement);
            let without_anchor = made.token_remembers.is_none() && made.token_holds.is_empty();
            if (without_anchor || is_contradicted(&made))
                && wishes.checkpoints.is_empty()
                && wishes.claims.is_empty()
            {
                lines.push(
                    match without_anchor {
                        true => {
                            "no checkpoint of an auditor or witness bounds it: an older database would pass just as well; \
                             say so to the approvers"
                        }
                        false => {
                            "no checkpoint of an auditor or witness says which side was told of; say so to the approvers"
                        }
                    }
                    .into(),
                );
            }
            if !made.realm_tokens.is_empty() {
                lines.push(format!(
                    "the realm has the tokens {}, and this one alone was asked: say to the approvers where the others are",
                    made.realm_tokens.join(", ")
                ));
            }
            lines.extend(
                silent
                    .iter()
                    .map(|witness| format!("has not answered, as the statement says: {witness}")),
            );
            let answer =
                json!({ "statement": made, "file": wanted.statement, "not_answered": silent });
            output.done(COMMAND, &answer, &lines)
        }
        Err(problem) => output.failure(COMMAND, &problem),
    }
}

pub(super) fn accept(output: &Output, config: &Config, wanted: &Accept) -> ExitCode {
    const COMMAND: &str = "ledger accept-restore";
    let read = read(&wanted.statement).and_then(|text| Ok((text, read_all(&wanted.approval)?)));
    let (text, approvals) = match read {
        Ok(read) => read,
        Err(problem) => return output.failure(COMMAND, &problem),
    };
    let accepted = alone(config, async |ceremony| {
        let now = Clock::default().now();
        ceremony.accept(&text, &approvals, now).await
    });
    match accepted {
        Ok(Accepted {
            statement,
            repaired,
        }) => {
            let mut lines = vec![format!(
                "the realm goes on from batch {} in log epoch {}; the token remembers it. Start the \
                 daemon, and put this database into no backup rotation that replaces the evidence",
                statement.adopt.batch, statement.new_log_epoch
            )];
            if !repaired.is_empty() {
                lines.push(format!("built anew: {}", repaired.join(", ")));
            }
            let answer = json!({ "statement": statement, "repaired": repaired });
            output.done(COMMAND, &answer, &lines)
        }
        Err(error) => output.failure(COMMAND, &chain(&error)),
    }
}

/// Adds what the configured witnesses know of the log. One that does not answer is named.
async fn ask_witnesses(
    config: &Config,
    ceremony: Ceremony<'_>,
    wishes: &mut Wishes,
    silent: &mut Vec<String>,
) -> Result<(), LedgerError> {
    let (epoch, keys) = ceremony.log().await?;
    let (pool, realm) = (ceremony.pool, ceremony.realm);
    let asked = witness::newest_known(&config.witnesses, pool, &keys, realm, epoch).await;
    let known = asked.map_err(|error| match error {
        AskError::Ledger(error) => error,
        AskError::Setup(error) => LedgerError::Refused(error.to_string()),
    })?;
    for one in known {
        match (one.shown, one.size) {
            (Some(shown), size) => {
                wishes.checkpoints.push(shown.note);
                wishes.claims.extend(size.ok().map(|size| (epoch, size)));
            }
            (None, Ok(size)) => wishes.claims.push((epoch, size)),
            (None, Err(why)) => {
                silent.push(format!("{}: {why}", one.witness));
                wishes.silent.push(one.witness);
                continue;
            }
        }
        wishes.answered.push(one.witness);
    }
    Ok(())
}

/// Runs a step of the ceremony on the database of a stopped daemon.
fn alone<T>(
    config: &Config,
    step: impl AsyncFnOnce(Ceremony<'_>) -> Result<T, LedgerError>,
) -> Result<T, StartError> {
    block_on(async {
        let store = Held::take(&config.store.database).await?.open().await?;
        let pool = startup::token(config)?;
        let stepped = step(Ceremony {
            store: &store,
            pool: &pool,
            realm: &config.realm.name,
            approvers: &config.ledger.restore,
            mode: config.ledger.mode_to_look(),
        })
        .await;
        store.close().await;
        pool.shutdown();
        Ok(stepped?)
    })
}

/// What the operator tells the approvers, and what they do.
fn proposal(made: &Statement, file: &Path) -> Vec<String> {
    let adopt = &made.adopt;
    let mut lines = vec![format!(
        "adopts batch {} of log epoch {}, written {}, with {} log entries",
        adopt.batch,
        adopt.log_epoch,
        shown(adopt.time.0),
        adopt.log_entries
    )];
    lines.push(match (&made.token_remembers, made.lost_batches) {
        (Some(_), Some(lost)) => {
            let who = made.host_remembers.as_ref().map_or("the token has", |_| "this host has");
            format!("gives up {lost} batches that {who} seen")
        }
        (Some(anchor), None) => format!(
            "is of another history than the token remembers: gives up what led to batch {} of log \
             epoch {}",
            anchor.batch, anchor.log_epoch
        ),
        (None, _) if is_contradicted(made) => {
            "the token contradicts itself, and nobody can say which of its anchors counted; gives up each that is not in \
             the adopted database:"
                .into()
        }
        (None, _) => "nobody can say how much is given up: the token has lost its anchor".into(),
    });
    lines.extend(
        made.token_holds
            .iter()
            .map(|claim| format!("  {}", told(claim))),
    );
    if !made.under_older_keys.is_empty() {
        lines.push(format!(
            "is vouched for by {} alone, and the MAC key was rotated since: whoever knows such a key, and has had the \
             database, can have made this state. It is in use again after the restore: rotate the MAC key then",
            made.under_older_keys.join(" and ")
        ));
    }
    if let Some(held) = &made.auditors_hold {
        lines.push(format!(
            "auditors hold a log of {} entries in log epoch {}, and will miss some of them",
            held.log_entries, held.log_epoch
        ));
    }
    lines.push(match made.guesses_left {
        0 => "leaves no guess: accounts without a passkey stay shut".into(),
        left => format!("leaves {left} guesses at each factor of every account"),
    });
    lines.push(format!(
        "{} of {} approvers sign {}:",
        made.approvals_needed,
        made.approvers.len(),
        file.display()
    ));
    lines.push(format!(
        "  ssh-keygen -Y sign -n {NAMESPACE} -f ~/.ssh/id_ed25519 {}",
        file.display()
    ));
    lines
}

/// The token holds anchors that exclude each other.
fn is_contradicted(made: &Statement) -> bool {
    made.token_remembers.is_none() && !made.token_holds.is_empty()
}

/// One of several anchors, for people.
pub(super) fn told(claim: &Claim) -> String {
    let anchor = &claim.anchor;
    let named = format!(
        "anchor {}, of batch {} of log epoch {}, head {}",
        anchor.serial,
        anchor.batch,
        anchor.log_epoch,
        hex::encode(anchor.head)
    );
    match &claim.in_database {
        Some(place) => format!(
            "{named}: in this database, written {}, with {} log entries, state root {}",
            shown(place.time.0),
            place.log_entries,
            hex::encode(place.state_root)
        ),
        None => format!("{named}: not in this database"),
    }
}

fn write(mut file: std::fs::File, text: &str) -> std::io::Result<()> {
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<String>, String> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(told)?;
    let mut bounded = std::io::Read::take(file, MOST);
    std::io::Read::read_to_string(&mut bounded, &mut text).map_err(told)?;
    Ok(text)
}
