//! The two ceremonies on the realm's host: making its keys, and bringing them back.
//!
//! Called by the parent. What is true after a crash: files are written before the token is changed, so keys that
//! are in a token are in an escrow. Where an import was cut off the token holds some of them and no realm;
//! it is initialised anew, and the ceremony repeated. Everything that can be refused is refused before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use custodyd_hsm::escrow::{self as ceremony, Escrow, Manifest, Plan, Recipient};
use custodyd_hsm::{Backend, Imported, RootKeys};
use serde_json::json;

use super::super::token::tpm;
use super::{CeremonyError, Done, identity, share, write};
use crate::backend;
use crate::clock::Clock;
use crate::config::{Config, Database, PRIMARY, Token, TokenKind, read_token_pin};
use crate::escrow;

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// How many custodians it takes to bring the keys back
    #[arg(long, value_name = "K")]
    needed: usize,
    /// A custodian and their age recipient; once for each
    #[arg(long, value_name = "NAME=RECIPIENT", required = true)]
    custodian: Vec<String>,
    #[command(flatten)]
    how: How,
    /// A new directory for the shares
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    /// The identity that `escrow receive` made
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// The token to bring them into, by its name among several
    #[arg(long, value_name = "NAME", default_value = PRIMARY)]
    token: String,
    /// Make the recovery key anew, in a file that is not there: the one that was kept approves nothing for this TPM then
    #[arg(long, requires = "recovery_key")]
    new_recovery_key: bool,
    #[command(flatten)]
    how: How,
    /// The custodians' shares, re-encrypted to that identity
    #[arg(required = true)]
    shares: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct How {
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
    /// A file with the password of the TPM's owner, where it has one
    #[arg(long, value_name = "FILE")]
    owner_password_file: Option<PathBuf>,
    /// With token.pcrs: a file with the recovery key; that of a new realm is made where it is not there
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
}

pub(super) fn create(config: &Config, wanted: &Create) -> Result<Done, CeremonyError> {
    let place = place(config)?;
    // Whether a server has a realm already, `init` finds: it refuses then, and the token is a new one.
    if let Database::Sqlite(file) = &config.store.database
        && file.exists()
    {
        return Err(CeremonyError::Refused(format!(
            "there is a realm in {} already. Keys that were made in a token never leave it, so a realm cannot be \
             escrowed afterwards: make a new one, on another token",
            file.display()
        )));
    }
    for path in [place, &wanted.directory] {
        if path.exists() {
            return Err(CeremonyError::Refused(format!(
                "{} is there already, perhaps of an earlier ceremony; nothing was changed. Name another, or remove \
                 it if no token holds its keys",
                path.display()
            )));
        }
    }
    let custodians = wanted.custodian.iter().map(|text| custodian(text));
    let custodians: Vec<_> = custodians.collect::<Result<_, _>>()?;
    let new = wanted
        .how
        .recovery_key
        .as_ref()
        .is_some_and(|path| !path.exists());
    let tokens = tokens(config, (&wanted.how, Recovery::MayBeNew), None)?;
    let Some((_, first)) = tokens.first() else {
        return Err(CeremonyError::Refused("there is no token".to_owned()));
    };
    let keys = RootKeys::make(&first.entropy()?)?;
    let plan = Plan {
        realm: &config.realm.name,
        needed: wanted.needed,
        custodians: &custodians,
        made: Clock::default().now().0,
    };
    let made = ceremony::create(&plan, &keys)?;
    for (_, backend) in &tokens {
        backend.import(&keys, true)?;
    }
    if wanted.how.dry_run {
        return Ok(would(&made.manifest, "make these keys and escrow them"));
    }
    write_all(&made, place, &wanted.directory)?;
    let (imported, mut lines) = bring_into_all(tokens, &keys, &made.manifest)?;
    lines.extend(keep_apart(&wanted.how, new));
    lines.push(format!(
        "{} holds a share for each custodian and the manifest; give each their own file and a copy of the manifest, \
         then remove the directory from this host",
        wanted.directory.display()
    ));
    lines.push("now: custodyd init".to_owned());
    Ok(done(&imported, &made.manifest, lines))
}

pub(super) fn restore(config: &Config, wanted: &Restore) -> Result<Done, CeremonyError> {
    let manifest = escrow::read(place(config)?, &config.realm.name)?;
    let receiver = identity(&wanted.identity)?;
    let shares = wanted.shares.iter().map(|path| share(path, &receiver));
    let keys = ceremony::open(&manifest, shares.collect::<Result<_, _>>()?)?;
    let recovery = match wanted.new_recovery_key {
        true => Recovery::New,
        false => Recovery::Kept,
    };
    let tokens = tokens(config, (&wanted.how, recovery), Some(wanted.token.as_str()))?;
    for (_, backend) in &tokens {
        backend.import(&keys, true)?;
    }
    if wanted.how.dry_run {
        let mut would = would(&manifest, "import the keys, which these shares open");
        let fingerprint = manifest.fingerprint()?;
        would.lines.push(format!(
            "the manifest is {fingerprint}: each custodian must have seen the same one; whoever could exchange \
             manifest and shares could bring in keys of their own"
        ));
        return Ok(would);
    }
    let (imported, mut lines) = bring_into_all(tokens, &keys, &manifest)?;
    lines.extend(keep_apart(&wanted.how, wanted.new_recovery_key));
    match std::fs::remove_file(&wanted.identity) {
        Ok(()) => lines.push(format!(
            "removed {}: the re-encrypted shares open no more",
            wanted.identity.display()
        )),
        Err(error) => lines.push(format!(
            "remove {} ({error}): with it the re-encrypted shares open",
            wanted.identity.display()
        )),
    }
    lines.push(match config.token.replicas.known.is_empty() {
        true => {
            "the token holds the keys and remembers nothing. Put the newest database in place, then: custodyd ledger \
             propose-restore --without-anchor (docs/handbook/lose-hsm.md). Destroy the lost token if it turns up: it has the same \
             keys and an older memory"
                .to_owned()
        }
        false => format!(
            "the token holds the keys and remembers nothing. With another token of the realm serving: custodyd token \
             readmit {}. Destroy the lost token if it turns up: it has the same keys",
            wanted.token
        ),
    });
    Ok(done(&imported, &manifest, lines))
}

/// Where the configuration says that the manifest is.
fn place(config: &Config) -> Result<&Path, CeremonyError> {
    config.token.escrow.as_deref().ok_or_else(|| {
        CeremonyError::Refused(
            "token.escrow is not set: it names the manifest, and says that this realm's keys are made outside of its \
             token. A realm that was made without it stays so: its keys never leave the token"
                .to_owned(),
        )
    })
}

fn custodian(text: &str) -> Result<(String, Recipient), CeremonyError> {
    let (name, recipient) = text
        .split_once('=')
        .ok_or_else(|| CeremonyError::Refused(format!("\"{text}\": expected NAME=age1...")))?;
    Ok((name.to_owned(), Recipient::parse(recipient)?))
}

/// Which recovery key a token's keys are bound to be approved with.
#[derive(Clone, Copy, Debug)]
enum Recovery {
    /// Of a realm that is made: a key that is there, or a new one.
    MayBeNew,
    /// The one that somebody has kept. A path with a slip in it would make another, which nobody keeps.
    Kept,
    /// One that is made now.
    New,
}

impl Recovery {
    /// Refuses a file that is not there, or is and must not be; before anything is made.
    fn check(self, path: &Path) -> Result<(), CeremonyError> {
        let why = match (self, path.exists()) {
            (Self::Kept, false) => {
                "it is not there. Name the file with the recovery key that was kept; where it was lost, or the \
                 new TPM shall have another one: --new-recovery-key, and keep it off this machine"
            }
            (Self::New, true) => {
                "it is there already. Leave --new-recovery-key out to bind the keys to it, or name another file"
            }
            _ => return Ok(()),
        };
        let path = path.display();
        Err(CeremonyError::Refused(format!(
            "nothing was changed: --recovery-key {path}: {why}"
        )))
    }
}

type Tokens = Vec<((String, Token), Arc<dyn Backend>)>;

/// Every token of the configuration, or the one of this name, with what only a provisioning needs.
fn tokens(
    config: &Config,
    (how, recovery): (&How, Recovery),
    only: Option<&str>,
) -> Result<Tokens, CeremonyError> {
    let each = config.token.each().into_iter();
    let wanted: Vec<_> = each
        .filter(|(name, _)| only.is_none_or(|only| only == name))
        .collect();
    if wanted.is_empty() {
        return Err(CeremonyError::Refused(format!(
            "no token of the configuration is called {:?}",
            only.unwrap_or_default()
        )));
    }
    // With several TPMs one key is for all; it is judged before any of them has it made.
    let bound = |token: &Token| matches!(&token.kind, TokenKind::Tpm(tpm) if tpm.pcrs.is_some());
    if let Some(path) = &how.recovery_key {
        if !wanted.iter().any(|(_, token)| bound(token)) {
            return Err(CeremonyError::Refused(
                "--recovery-key goes with token.pcrs: without them every boot may use the keys"
                    .to_owned(),
            ));
        }
        recovery.check(path)?;
    }
    wanted
        .into_iter()
        .map(|(name, token)| {
            let backend = self::token(&token, how)?;
            Ok(((name, token), backend))
        })
        .collect()
}

fn token(token: &Token, how: &How) -> Result<Arc<dyn Backend>, CeremonyError> {
    let TokenKind::Tpm(settings) = &token.kind else {
        return Ok(backend::configured(token)?);
    };
    if !how.dry_run {
        tpm::ensure_secret(token)?;
    }
    let recovery = how
        .recovery_key
        .as_deref()
        .filter(|_| settings.pcrs.is_some());
    if let Some(path) = recovery.filter(|_| !how.dry_run) {
        tpm::ensure_recovery_key(path)?;
    }
    let there = recovery.filter(|path| path.exists());
    let apart = tpm::apart(how.owner_password_file.as_deref(), there)?;
    let secret = read_token_pin(token)?;
    let origin = backend::origin(token);
    Ok(Arc::new(backend::tpm(settings, secret, apart, origin)))
}

/// What becomes of a recovery key that was made.
fn keep_apart(how: &How, made: bool) -> Option<String> {
    let path = how.recovery_key.as_ref().filter(|_| made)?;
    Some(format!(
        "made {}: whoever has it approves what this machine may boot, and without it a change of firmware loses the \
         keys. Keep it off this machine, such as encrypted to a custodian (age -r), then remove it here",
        path.display()
    ))
}

/// Into one after another; what was imported into the last, and what to say of all.
fn bring_into_all(
    tokens: Tokens,
    keys: &RootKeys,
    manifest: &Manifest,
) -> Result<(Imported, Vec<String>), CeremonyError> {
    let several = tokens.len() > 1;
    let (mut last, mut lines) = (Imported::default(), Vec::new());
    for ((name, token), backend) in tokens {
        last = bring_in(&token, backend, keys, manifest)?;
        let told = told(&last, manifest).into_iter();
        lines.extend(told.map(|line| match several {
            true => format!("{name}: {line}"),
            false => line,
        }));
    }
    Ok((last, lines))
}

/// Everything that the custodians get, durable before the token is changed.
fn write_all(made: &Escrow, place: &Path, directory: &Path) -> Result<(), CeremonyError> {
    let io = |source| CeremonyError::Io {
        path: directory.to_owned(),
        source,
    };
    std::fs::create_dir(directory).map_err(io)?;
    let manifest = made.manifest.encode()?;
    write(&directory.join("manifest.json"), manifest.as_bytes())?;
    for (custodian, file) in made.manifest.custodians.iter().zip(&made.files) {
        let path = directory.join(format!("{}.age", custodian.name));
        write(&path, file.as_bytes())?;
    }
    write(place, manifest.as_bytes())?;
    // Also the folders that now name them.
    let folders = [Some(directory), directory.parent(), place.parent()];
    for folder in folders.into_iter().flatten() {
        let here = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let synced = std::fs::File::open(here).and_then(|folder| folder.sync_all());
        synced.map_err(io)?;
    }
    Ok(())
}

/// Imports, and asks the token for what only the holder of these keys can say.
fn bring_in(
    token: &Token,
    backend: Arc<dyn Backend>,
    keys: &RootKeys,
    manifest: &Manifest,
) -> Result<Imported, CeremonyError> {
    let imported = backend.import(keys, false)?;
    let mut token = token.clone();
    if let (TokenKind::Tpm(tpm), Some(name)) = (&mut token.kind, &imported.storage_key) {
        tpm.storage_key = Some(name.clone());
        // The first has the state directory to itself.
        drop(backend);
        escrow::holds_in(backend::configured(&token)?.as_ref(), manifest)?;
    } else {
        escrow::holds_in(backend.as_ref(), manifest)?;
    }
    Ok(imported)
}

fn told(imported: &Imported, manifest: &Manifest) -> Vec<String> {
    let mut lines = vec![format!(
        "imported {} of the escrow {} ({} of {} custodians); the token gives the answers that only these keys give",
        imported.report.created.join(", "),
        manifest.ceremony_name(),
        manifest.needed,
        manifest.custodians.len()
    )];
    if let Some(name) = &imported.storage_key {
        lines.push(format!(
            "put this line into [token]: storage_key = \"{name}\""
        ));
    }
    lines
}

fn done(imported: &Imported, manifest: &Manifest, lines: Vec<String>) -> Done {
    Done {
        value: json!({
            "ceremony": manifest.ceremony_name(),
            "imported": imported.report.created,
            "storage_key": imported.storage_key,
        }),
        lines,
    }
}

fn would(manifest: &Manifest, what: &str) -> Done {
    let line = format!("nothing stands in the way; would {what}. Nothing was changed");
    Done {
        value: json!({ "realm": manifest.realm, "dry_run": true }),
        lines: vec![line],
    }
}
