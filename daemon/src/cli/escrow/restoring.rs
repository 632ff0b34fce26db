//! The keys come back: into another token, or into one that lacks some of them.
//!
//! Called by the parent. Everything that can be refused is refused before the token is changed. Which ceremonies' shares are
//! needed says the token: those that have a key which it lacks, but for keys that were destroyed on purpose.

use std::path::PathBuf;

use clap::Args;
use custodyd_hsm::escrow::Manifests;
use custodyd_hsm::{KeyId, KeyKind, KeyReport};

use super::super::key::key;
use super::realm::{
    How, Recovery, Way, bring_in, done, in_earnest, keep_apart, place, tokens, told, would,
};
use super::{CeremonyError, Done, files, identity, share};
use crate::config::{Config, PRIMARY};
use crate::escrow;

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
    /// A key that was retired and destroyed, such as wrap-v1: it is not brought back, and shares of a ceremony with no
    /// others are not needed; may be repeated
    #[arg(long, value_name = "KEY", value_parser = key)]
    without: Vec<KeyId>,
    #[command(flatten)]
    how: How,
    /// The custodians' shares, re-encrypted to that identity
    #[arg(required = true)]
    shares: Vec<PathBuf>,
}

pub(super) fn restore(config: &Config, wanted: &Restore) -> Result<Done, CeremonyError> {
    let manifests = escrow::read(place(config)?, &config.realm.name)?;
    let receiver = identity(&wanted.identity)?;
    let shares = wanted.shares.iter().map(|path| share(path, &receiver));
    let shares = shares.collect::<Result<Vec<_>, _>>()?;
    let recovery = match wanted.new_recovery_key {
        true => Recovery::New,
        false => Recovery::Kept,
    };
    let tokens = tokens(config, (&wanted.how, recovery), Some(wanted.token.as_str()))?;
    let Some((_, backend)) = tokens.first() else {
        return Err(CeremonyError::Refused("there is no token".to_owned()));
    };
    // An empty TPM, and a token that is not there, are told about by the import.
    let held = backend.inspect().map(|keys| whole(&keys));
    let held = held.unwrap_or_default();
    let keys = manifests.open(shares, &held, &wanted.without)?;
    let way = Way::of(&held, &keys)?;
    let imported = way.import(backend.as_ref(), &keys, true)?;
    if imported.report.created.is_empty() {
        return Err(CeremonyError::Refused(format!(
            "the token holds {} already: there is nothing to bring in",
            imported.report.existing.join(", ")
        )));
    }
    if wanted.how.dry_run {
        let mut would = would(&manifests, "import the keys, which these shares open");
        would.lines.extend(fingerprints(&manifests)?);
        return Ok(would);
    }
    let Some(((_, token), backend)) = in_earnest(tokens, &wanted.how)?.into_iter().next() else {
        return Err(CeremonyError::Refused("there is no token".to_owned()));
    };
    let imported = bring_in(&token, backend, (&keys, way), &manifests, &wanted.without)?;
    let mut lines = told(&imported, &manifests, &keys);
    lines.extend(keep_apart(&wanted.how, wanted.new_recovery_key));
    lines.push(match files::wipe(&wanted.identity) {
        Ok(()) => format!(
            "overwrote and removed {}: the re-encrypted shares open no more",
            wanted.identity.display()
        ),
        Err(error) => format!(
            "overwrite and remove {} (shred -u; {error}): with it the re-encrypted shares open",
            wanted.identity.display()
        ),
    });
    lines.push(after_a_restore(config, &wanted.token, way));
    Ok(done(&imported, &manifests, lines))
}

/// What to do next with a token that has the keys now.
fn after_a_restore(config: &Config, token: &str, way: Way) -> String {
    let several = !config.token.replicas.known.is_empty();
    match (way, several) {
        (Way::Empty, false) => {
            "the token holds the keys and remembers nothing. Put the newest database in place, then: custodyd ledger \
             propose-restore --without-anchor (docs/handbook/lose-hsm.md). Destroy the lost token if it turns up: it has the same \
             keys and an older memory"
                .to_owned()
        }
        (Way::Empty, true) => format!(
            "the token holds the keys and remembers nothing. With another token of the realm serving: custodyd token \
             readmit {token}. Destroy the lost token if it turns up: it has the same keys"
        ),
        (Way::Beside, true) => format!(
            "the token holds what it lacked. Where the realm has given it up: custodyd token readmit {token}"
        ),
        (Way::Beside, false) => "the token holds what it lacked".to_owned(),
    }
}

/// The keys of a token of which no half is missing.
fn whole(reports: &[KeyReport]) -> Vec<KeyId> {
    let halves = |kind| move |report: &&KeyReport| report.kind == kind;
    // A TPM shows its pairs by their private halves alone.
    let publics = reports.iter().any(|report| report.kind == KeyKind::Public);
    let kind = match publics {
        true => KeyKind::Public,
        false => KeyKind::Private,
    };
    let secrets = reports.iter().filter(halves(KeyKind::Secret));
    let pairs = reports.iter().filter(halves(kind));
    secrets.chain(pairs).map(|report| report.id).collect()
}

/// What is compared by voice, with the custodians of each ceremony.
fn fingerprints(manifests: &Manifests) -> Result<Vec<String>, CeremonyError> {
    let mut lines = vec![format!(
        "the manifest is {}: each custodian must have seen the same one; whoever could exchange \
         manifest and shares could bring in keys of their own",
        manifests.fingerprint()?
    )];
    let newest = manifests.newest().ceremony_name();
    for earlier in manifests.iter().filter(|of| of.ceremony_name() != newest) {
        lines.push(format!(
            "and that of the ceremony before, of {}, is {}: by the shares of that one",
            earlier.key_names(),
            earlier.fingerprint()?
        ));
    }
    Ok(lines)
}
