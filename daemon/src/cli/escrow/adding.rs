//! `custodyd escrow add-version`: the next version of keys, made on the host, shared anew, brought into every token.
//!
//! Called by the parent. It has a secret of its own, so nobody brings shares of an earlier ceremony. The order of the
//! steps is what is true after a crash: shares, manifest and the sealed keys are on the disk before a token is changed;
//! every token has the keys, and has proven them, before the manifest that the daemon reads names them. So a rotation
//! never finds a part, and the same command goes on where it was stopped, with the same keys.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum as _};
use custodyd_hsm::escrow::{self as ceremony, Escrow, MAX_UNFINISHED, Manifests, Plan, Recipient};
use custodyd_hsm::{Backend, KeyId, KeyPurpose, RootKeys};
use serde_json::json;

use super::super::key::Purpose;
use super::realm::{self, How, Recovery, Tokens, Way};
use super::{CeremonyError, Done, files};
use crate::clock::Clock;
use crate::config::{Config, read_token_pin};
use crate::escrow::{self, ManifestError};
use crate::private_file::{self, Access};

#[derive(Debug, Args)]
pub(in crate::cli) struct AddVersion {
    /// Of which keys, with commas between them: wrap, bind, checkpoint, webhook
    #[arg(value_name = "KEYS", value_parser = purposes)]
    keys: Purposes,
    /// A new directory for the shares, or that of the same command where it was stopped
    directory: PathBuf,
    /// How many custodians it takes to bring these versions back
    #[arg(long, value_name = "K")]
    needed: usize,
    /// A custodian and their age recipient; once for each. They need not be those of the ceremonies before
    #[arg(long, value_name = "NAME=RECIPIENT", required = true)]
    custodian: Vec<String>,
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
    /// A file with the password of the TPM's owner, where it has one
    #[arg(long, value_name = "FILE")]
    owner_password_file: Option<PathBuf>,
}

/// Of which keys there is to be a newer version, each once.
#[derive(Clone, Debug)]
struct Purposes(Vec<KeyPurpose>);

/// What was asked for, read.
struct Asked {
    before: Manifests,
    purposes: Vec<KeyPurpose>,
    custodians: Vec<(String, Recipient)>,
    needed: usize,
}

/// A ceremony with its keys at hand.
struct Begun {
    /// With the new one.
    manifests: Manifests,
    keys: RootKeys,
    /// Where it was begun by this command, what is to be written down.
    made: Option<Escrow>,
}

pub(super) fn run(config: &Config, wanted: &AddVersion) -> Result<Done, CeremonyError> {
    let place = realm::place(config)?;
    let custodians = wanted.custodian.iter();
    let custodians = custodians.map(|text| realm::custodian(text));
    let asked = Asked {
        before: escrow::read(place, &config.realm.name)?,
        purposes: wanted.keys.0.clone(),
        custodians: custodians.collect::<Result<_, _>>()?,
        needed: wanted.needed,
    };
    let earlier = match wanted.directory.exists() {
        true => Some(earlier(config, &wanted.directory, &asked)?),
        false => None,
    };
    let how = How {
        // Nothing that a token needs is made here: it has served.
        dry_run: true,
        owner_password_file: wanted.owner_password_file.clone(),
        recovery_key: None,
    };
    for (_, token) in config.token.each() {
        read_token_pin(&token)?;
    }
    let tokens = realm::tokens(config, (&how, Recovery::Kept), None)?;
    let known = earlier.as_ref().map_or(&asked.before, |(all, _)| all);
    // All of them are there, and hold nothing else, before anything is made.
    each(&tokens, |_, backend| {
        escrow::holds_in(backend, known)?;
        Ok(())
    })?;
    let begun = match earlier {
        Some((manifests, Some(kept))) => go_on(first(&tokens)?, manifests, &kept)?,
        Some((manifests, None)) => return end(&tokens, place, &manifests, wanted),
        None => begin(first(&tokens)?, &asked)?,
    };
    each(&tokens, |_, backend| {
        Way::Beside.import(backend, &begun.keys, true)?;
        Ok(())
    })?;
    if wanted.dry_run {
        let keys = begun.manifests.newest().key_names();
        let what = format!("bring {keys} into {}", names(&tokens));
        return Ok(realm::would(&begun.manifests, &what));
    }
    if let Some(made) = &begun.made {
        let manifest = begun.manifests.newest();
        let kept = ceremony::keep(first(&tokens)?.open()?.as_mut(), manifest, &begun.keys)?;
        files::shares(&wanted.directory, &begun.manifests, made, Some(&kept))?;
    }
    let mut lines = Vec::new();
    each(&tokens, |name, backend| {
        let line = bring_in(backend, &begun)?;
        lines.push(match tokens.len() {
            1 => line,
            _ => format!("{name}: {line}"),
        });
        Ok(())
    })?;
    files::publish(place, &begun.manifests)?;
    files::finish(&wanted.directory)?;
    told(&begun.manifests, &wanted.directory, lines)
}

/// Of these there can be a newer version, and an escrow can have it.
fn purposes(text: &str) -> Result<Purposes, String> {
    let each = text.split(',').map(|name| Purpose::from_str(name, false));
    let mut purposes = Vec::new();
    for purpose in each {
        let purpose = KeyPurpose::from(purpose?);
        if purpose.is_ed25519() {
            return Err("an escrow has no Ed25519 keys: only a token can make one".to_owned());
        }
        purposes.push(purpose);
    }
    purposes.sort_unstable();
    purposes.dedup();
    Ok(Purposes(purposes))
}

/// A ceremony that was stopped, and its sealed keys; none where they were being wiped.
type Earlier = (Manifests, Option<zeroize::Zeroizing<Vec<u8>>>);

/// The ceremony that the same command has begun here.
fn earlier(config: &Config, directory: &Path, asked: &Asked) -> Result<Earlier, CeremonyError> {
    let refused = |why: &str| {
        let directory = directory.display();
        Err(CeremonyError::Refused(format!(
            "{directory} is there already, {why}; nothing was changed"
        )))
    };
    let unfinished = files::unfinished_of(directory);
    let over = files::wiped_of(directory).exists();
    if !unfinished.exists() && !over {
        return refused("and no ceremony in it is unfinished: name another");
    }
    let manifests = escrow::read(&files::manifest_of(directory), &config.realm.name)?;
    let newest = manifests.newest();
    let follows = manifests.further().len() == asked.before.further().len() + 1;
    if !manifests.begin_with(&asked.before) || !(follows || manifests == asked.before) {
        return refused(
            "and its ceremony does not follow the manifest of token.escrow: another one was held since. Begin anew, in \
             another directory",
        );
    }
    let of = |check: &custodyd_hsm::KeyCheck| check.key.purpose;
    let same = newest.needed == asked.needed
        && newest
            .keys
            .iter()
            .map(of)
            .eq(asked.purposes.iter().copied())
        && newest.custodians.len() == asked.custodians.len()
        && newest
            .custodians
            .iter()
            .zip(&asked.custodians)
            .all(|(one, (name, recipient))| one.name == *name && one.recipient == *recipient);
    if !same {
        return refused(
            "and its ceremony was begun with other keys or custodians: ask for the same, or begin anew, in another \
             directory",
        );
    }
    let kept = match over {
        true => None,
        false => Some(private_file::read(
            &unfinished,
            Access::Owner,
            MAX_UNFINISHED,
        )?),
    };
    Ok((manifests, kept))
}

/// A ceremony that was stopped at its last step: every token has the keys, which nobody needs from the folder any more.
fn end(
    tokens: &Tokens,
    place: &Path,
    manifests: &Manifests,
    wanted: &AddVersion,
) -> Result<Done, CeremonyError> {
    let mut lines = Vec::new();
    each(tokens, |name, backend| {
        has_all(backend, manifests)?;
        let line = "the keys were brought in before, and answer";
        lines.push(match tokens.len() {
            1 => line.to_owned(),
            _ => format!("{name}: {line}"),
        });
        Ok(())
    })?;
    let what = "wipe the sealed copy of the keys, which every token has";
    if wanted.dry_run {
        return Ok(realm::would(manifests, what));
    }
    files::publish(place, manifests)?;
    files::finish(&wanted.directory)?;
    lines.push(format!(
        "the ceremony was over, and was stopped while it began to {what}: that is done now"
    ));
    told(manifests, &wanted.directory, lines)
}

fn go_on(token: &dyn Backend, manifests: Manifests, kept: &[u8]) -> Result<Begun, CeremonyError> {
    let keys = ceremony::take_up(token.open()?.as_mut(), manifests.newest(), kept)?;
    Ok(Begun {
        manifests,
        keys,
        made: None,
    })
}

fn begin(token: &dyn Backend, asked: &Asked) -> Result<Begun, CeremonyError> {
    let next = |purpose: &KeyPurpose| {
        let newest = asked.before.newest_of(*purpose);
        let version = newest.map_or(0, |check| check.key.version);
        KeyId::new(*purpose, version.saturating_add(1))
    };
    let ids: Vec<KeyId> = asked.purposes.iter().map(next).collect();
    let keys = RootKeys::make_further(&ids, &token.entropy()?)?;
    let plan = Plan {
        realm: &asked.before.first().realm,
        after: Some(&asked.before),
        needed: asked.needed,
        custodians: &asked.custodians,
        made: Clock::default().now().0,
    };
    let made = ceremony::create(&plan, &keys)?;
    Ok(Begun {
        manifests: asked.before.clone().with(made.manifest.clone())?,
        keys,
        made: Some(made),
    })
}

/// The keys that a token lacks; afterwards it must give the answers of all.
fn bring_in(backend: &dyn Backend, begun: &Begun) -> Result<String, CeremonyError> {
    let imported = Way::Beside.import(backend, &begun.keys, false)?;
    has_all(backend, &begun.manifests)?;
    Ok(match imported.report.created.is_empty() {
        true => "the keys were brought in before, and answer".to_owned(),
        false => format!(
            "imported {}; the token gives the answers that only these keys give",
            imported.report.created.join(", ")
        ),
    })
}

/// Whether a token gives the answers of all keys of the newest ceremony.
fn has_all(backend: &dyn Backend, manifests: &Manifests) -> Result<(), CeremonyError> {
    let lacking = escrow::holds_in(backend, manifests)?;
    let newest = &manifests.newest().keys;
    let new = |key: &&KeyId| newest.iter().any(|check| check.key == **key);
    let gap: Vec<KeyId> = lacking.iter().filter(new).copied().collect();
    match gap.is_empty() {
        true => Ok(()),
        false => Err(ManifestError::Lacks(escrow::names(&gap)).into()),
    }
}

fn told(
    manifests: &Manifests,
    directory: &Path,
    mut lines: Vec<String>,
) -> Result<Done, CeremonyError> {
    let (newest, fingerprint) = (manifests.newest(), manifests.fingerprint()?);
    lines.push(format!(
        "{} holds a share for each custodian and the manifest of all ceremonies; give each their own file and a copy of \
         the manifest, then remove the directory from this host",
        directory.display()
    ));
    lines.push(
        "nothing is under these keys yet. Have the custodians run `custodyd escrow verify` and read the manifest's \
         fingerprint out to you; it must be this one:"
            .to_owned(),
    );
    lines.push(fingerprint.clone());
    for check in &newest.keys {
        lines.push(format!(
            "then: custodyd key rotate {} --manifest FINGERPRINT",
            check.key.purpose.name()
        ));
    }
    let keys = newest.keys.iter().map(|check| check.key.to_string());
    Ok(Done {
        value: json!({
            "ceremony": newest.ceremony_name(),
            "manifest": fingerprint,
            "keys": keys.collect::<Vec<_>>(),
        }),
        lines,
    })
}

fn first(tokens: &Tokens) -> Result<&dyn Backend, CeremonyError> {
    let first = tokens.first().map(|(_, backend)| backend.as_ref());
    first.ok_or_else(|| CeremonyError::Refused("there is no token".to_owned()))
}

fn names(tokens: &Tokens) -> String {
    let names: Vec<&str> = tokens.iter().map(|((name, _), _)| name.as_str()).collect();
    names.join(", ")
}

/// Something with one token after the other; what fails names it.
fn each(
    tokens: &Tokens,
    mut work: impl FnMut(&str, &dyn Backend) -> Result<(), CeremonyError>,
) -> Result<(), CeremonyError> {
    for ((name, _), backend) in tokens {
        work(name, backend.as_ref()).map_err(|source| CeremonyError::Stopped {
            token: name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_with_commas_between_them() {
        let two = [KeyPurpose::Wrap, KeyPurpose::Bind];
        assert_eq!(purposes("bind,wrap,bind").unwrap().0, two);
        assert_eq!(purposes("wrap").unwrap().0, two[..1]);
        assert_eq!(purposes("mac").unwrap().0, [KeyPurpose::Mac]);
        for bad in ["", "wrap,", "wrap bind", "wrap-v2"] {
            assert!(purposes(bad).is_err(), "{bad}");
        }
        let told = purposes("checkpoint-ed25519").unwrap_err();
        assert!(told.contains("no Ed25519 keys"), "{told}");
    }
}
