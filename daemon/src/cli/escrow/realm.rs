//! The ceremony that makes a realm's keys, and what it has in common with those that follow.
//!
//! Called by the parent, and by the other two ceremonies on the realm's host. What is true after a crash: files are written before the token is changed, so keys that
//! are in a token are in an escrow. Where an import was cut off the token holds some of them and no realm;
//! it is initialised anew, and the ceremony repeated. Everything that can be refused is refused before; where a token refuses
//! all the same, and holds none of them, the files go again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use custodyd_hsm::escrow::{self as ceremony, Manifest, Manifests, Plan, Recipient};
use custodyd_hsm::{Backend, Imported, KeyId, RootKeys};
use serde_json::json;

use super::super::token::tpm;
use super::{CeremonyError, Done, files};
use crate::backend;
use crate::clock::Clock;
use crate::config::{Config, Database, Token, TokenKind, read_token_pin};
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
pub(super) struct How {
    /// Check everything and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// A file with the password of the TPM's owner, where it has one
    #[arg(long, value_name = "FILE")]
    pub(super) owner_password_file: Option<PathBuf>,
    /// With token.pcrs: a file with the recovery key; that of a new realm is made where it is not there
    #[arg(long, value_name = "FILE")]
    pub(super) recovery_key: Option<PathBuf>,
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
        after: None,
        needed: wanted.needed,
        custodians: &custodians,
        made: Clock::default().now().0,
    };
    let made = ceremony::create(&plan, &keys)?;
    for (_, backend) in &tokens {
        backend.import(&keys, true)?;
    }
    let manifests = Manifests::begin(made.manifest.clone())?;
    if wanted.how.dry_run {
        return Ok(would(&manifests, "make these keys and escrow them"));
    }
    let tokens = in_earnest(tokens, &wanted.how)?;
    files::shares(&wanted.directory, &manifests, &made, None)?;
    let brought =
        files::publish(place, &manifests).and_then(|()| bring_into_all(tokens, &keys, &manifests));
    let (imported, mut lines) = brought.map_err(|error| {
        let untouched = holds_none(config, &wanted.how, &keys);
        files::taken_back(untouched, error, [place, &wanted.directory])
    })?;
    lines.extend(keep_apart(&wanted.how, new));
    lines.push(format!(
        "{} holds a share for each custodian and the manifest; give each their own file and a copy of the manifest, \
         then remove the directory from this host",
        wanted.directory.display()
    ));
    lines.push("now: custodyd init".to_owned());
    Ok(done(&imported, &manifests, lines))
}

/// How keys come into a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Which has none.
    Empty,
    /// Which has others of the same realm, or a part of these.
    Beside,
}

impl Way {
    pub(super) fn of(held: &[KeyId], keys: &RootKeys) -> Result<Self, CeremonyError> {
        match (held.is_empty(), keys.is_whole()) {
            (false, _) => Ok(Self::Beside),
            (true, true) => Ok(Self::Empty),
            (true, false) => Err(CeremonyError::Refused(
                "what --without leaves has no key of one purpose: a key that is in use is not left out".to_owned(),
            )),
        }
    }

    pub(super) fn import(
        self,
        backend: &dyn Backend,
        keys: &RootKeys,
        dry_run: bool,
    ) -> Result<Imported, CeremonyError> {
        Ok(match self {
            Self::Empty => backend.import(keys, dry_run)?,
            Self::Beside => backend.import_missing(keys, dry_run)?,
        })
    }
}

/// Where the configuration says that the manifest is.
pub(super) fn place(config: &Config) -> Result<&Path, CeremonyError> {
    config.token.escrow.as_deref().ok_or_else(|| {
        CeremonyError::Refused(
            "token.escrow is not set: it names the manifest, and says that this realm's keys are made outside of its \
             token. A realm that was made without it stays so: its keys never leave the token"
                .to_owned(),
        )
    })
}

pub(super) fn custodian(text: &str) -> Result<(String, Recipient), CeremonyError> {
    let (name, recipient) = text
        .split_once('=')
        .ok_or_else(|| CeremonyError::Refused(format!("\"{text}\": expected NAME=age1...")))?;
    Ok((name.to_owned(), Recipient::parse(recipient)?))
}

/// Which recovery key a token's keys are bound to be approved with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recovery {
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

pub(super) type Tokens = Vec<((String, Token), Arc<dyn Backend>)>;

/// Every token of the configuration, or the one of this name, with what only a provisioning needs, to be looked at: no file
/// is made before everything that can refuse has been asked.
pub(super) fn tokens(
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
            let backend = self::token(&token, how, false)?;
            Ok(((name, token), backend))
        })
        .collect()
}

/// The same tokens for what changes them: the secrets that TPMs lack are made now.
pub(super) fn in_earnest(looked_at: Tokens, how: &How) -> Result<Tokens, CeremonyError> {
    let each = looked_at.into_iter().map(|((name, token), backend)| {
        let backend = match token.kind {
            TokenKind::Pkcs11 { .. } => backend,
            TokenKind::Tpm(_) => {
                // The first has the state directory to itself.
                drop(backend);
                self::token(&token, how, true)?
            }
        };
        Ok(((name, token), backend))
    });
    each.collect()
}

fn token(token: &Token, how: &How, make: bool) -> Result<Arc<dyn Backend>, CeremonyError> {
    let TokenKind::Tpm(settings) = &token.kind else {
        return Ok(backend::configured(token)?);
    };
    if make {
        tpm::ensure_secret(token)?;
    }
    let recovery = how
        .recovery_key
        .as_deref()
        .filter(|_| settings.pcrs.is_some());
    if let Some(path) = recovery.filter(|_| make) {
        tpm::ensure_recovery_key(path)?;
    }
    let there = recovery.filter(|path| path.exists());
    let apart = tpm::apart(how.owner_password_file.as_deref(), there)?;
    let passing = match make {
        true => None,
        false => tpm::passing_secret(token)?,
    };
    let secret = match passing {
        Some(secret) => secret,
        None => read_token_pin(token)?,
    };
    let origin = backend::origin(token);
    Ok(Arc::new(backend::tpm(settings, secret, apart, origin)))
}

/// What becomes of a recovery key, made now or by an attempt before, that is on this host.
pub(super) fn keep_apart(how: &How, made: bool) -> Option<String> {
    let path = how.recovery_key.as_ref()?;
    let what = match made {
        true => format!("made {}", path.display()),
        false => format!("{} is on this machine", path.display()),
    };
    Some(format!(
        "{what}: whoever has it approves what this machine may boot, and without it a change of firmware loses the \
         keys. Keep it off this machine, such as encrypted to a custodian (age -r), then remove it here"
    ))
}

/// Into one after another; what was imported into the last, and what to say of all.
fn bring_into_all(
    tokens: Tokens,
    keys: &RootKeys,
    manifests: &Manifests,
) -> Result<(Imported, Vec<String>), CeremonyError> {
    let several = tokens.len() > 1;
    let (mut last, mut lines) = (Imported::default(), Vec::new());
    for ((name, token), backend) in tokens {
        last = bring_in(&token, backend, (keys, Way::Empty), manifests, &[])?;
        let told = told(&last, manifests, keys).into_iter();
        lines.extend(told.map(|line| match several {
            true => format!("{name}: {line}"),
            false => line,
        }));
    }
    Ok((last, lines))
}

/// Whether an import that failed has left every token as it was, but for a TPM's storage key and index. One that does not answer may hold some.
fn holds_none(config: &Config, how: &How, keys: &RootKeys) -> bool {
    let empty = |(_, token): (String, Token)| {
        let backend = self::token(&token, how, false);
        backend.is_ok_and(|backend| backend.import(keys, true).is_ok())
    };
    config.token.each().into_iter().all(empty)
}

/// Imports, and asks the token for what only the holder of these keys can say.
pub(super) fn bring_in(
    token: &Token,
    backend: Arc<dyn Backend>,
    (keys, way): (&RootKeys, Way),
    manifests: &Manifests,
    without: &[KeyId],
) -> Result<Imported, CeremonyError> {
    let imported = way.import(backend.as_ref(), keys, false)?;
    let mut token = token.clone();
    let lacking =
        if let (TokenKind::Tpm(tpm), Some(name)) = (&mut token.kind, &imported.storage_key) {
            tpm.storage_key = Some(name.clone());
            // The first has the state directory to itself.
            drop(backend);
            escrow::holds_in(backend::configured(&token)?.as_ref(), manifests)?
        } else {
            escrow::holds_in(backend.as_ref(), manifests)?
        };
    let gap: Vec<KeyId> = lacking
        .into_iter()
        .filter(|key| !without.contains(key))
        .collect();
    match gap.is_empty() {
        true => Ok(imported),
        false => Err(escrow::ManifestError::Lacks(escrow::names(&gap)).into()),
    }
}

pub(super) fn told(imported: &Imported, manifests: &Manifests, keys: &RootKeys) -> Vec<String> {
    let has = |of: &&Manifest| {
        let mut of = of.keys.iter();
        of.any(|check| keys.iter().any(|key| key.id == check.key))
    };
    let ceremonies = manifests.iter().filter(has).map(|of| {
        format!(
            "{} ({} of {} custodians)",
            of.ceremony_name(),
            of.needed,
            of.custodians.len()
        )
    });
    let mut lines = vec![format!(
        "imported {} of the escrow {}; the token gives the answers that only these keys give",
        imported.report.created.join(", "),
        ceremonies.collect::<Vec<_>>().join(", ")
    )];
    if let Some(name) = &imported.storage_key {
        lines.push(format!(
            "put this line into [token]: storage_key = \"{name}\""
        ));
    }
    lines
}

pub(super) fn done(imported: &Imported, manifests: &Manifests, lines: Vec<String>) -> Done {
    Done {
        value: json!({
            "ceremony": manifests.newest().ceremony_name(),
            "imported": imported.report.created,
            "storage_key": imported.storage_key,
        }),
        lines,
    }
}

pub(super) fn would(manifests: &Manifests, what: &str) -> Done {
    let line = format!("nothing stands in the way; would {what}. Nothing was changed");
    Done {
        value: json!({ "realm": manifests.first().realm, "dry_run": true }),
        lines: vec![line],
    }
}
