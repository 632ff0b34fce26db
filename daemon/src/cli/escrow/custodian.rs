//! What custodians do, and the address they send to.
//!
//! Called by the parent. A share passes through this process from one age file to another; it is neither
//! printed nor written in clear. The fingerprint that is shown is that of the share's own ceremony, and never of one that
//! somebody has added behind it: for that a custodian can not speak. Plain `age -d | age -r` does the same, without the checks.

use std::path::PathBuf;

use clap::Args;
use custodyd_hsm::escrow::{Custodian, Identity, Recipient};
use serde_json::json;

use super::{CeremonyError, Done, identity, share, write};
use crate::escrow;

#[derive(Debug, Args)]
pub(in crate::cli) struct Receive {
    /// A new file for the identity; in /run or another place that forgets
    identity: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Reencrypt {
    /// Your identity, as age-keygen wrote it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// The recipient that the host of the restore has made; hear it from somebody whose voice you know
    #[arg(long, value_name = "RECIPIENT")]
    to: String,
    /// The manifest of the ceremony
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Your share
    share: PathBuf,
    /// A new file
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// Your identity, as age-keygen wrote it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// The manifest of the ceremony
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Your share
    share: PathBuf,
}

pub(super) fn receive(wanted: &Receive) -> Result<Done, CeremonyError> {
    let identity = Identity::generate();
    let recipient = identity.recipient().to_string();
    write(&wanted.identity, identity.to_file().expose())?;
    let lines = vec![
        recipient.clone(),
        "tell this recipient to the custodians by a way that nobody can change on its way, such as a call: whoever \
         gives them another one in its place gets their shares"
            .to_owned(),
        format!(
            "each runs, with their share of every ceremony: custodyd escrow reencrypt --identity KEY --manifest MANIFEST \
             --to {recipient} SHARE OUT"
        ),
        format!(
            "then: custodyd escrow restore --identity {} OUT OUT ...",
            wanted.identity.display()
        ),
    ];
    Ok(Done {
        value: json!({ "recipient": recipient, "identity": wanted.identity }),
        lines,
    })
}

pub(super) fn reencrypt(wanted: &Reencrypt) -> Result<Done, CeremonyError> {
    let to = Recipient::parse(&wanted.to)?;
    let manifests = escrow::read_any(&wanted.manifest)?;
    let share = share(&wanted.share, &identity(&wanted.identity)?)?;
    let (manifest, owner) = manifests.owner(&share)?;
    write(&wanted.out, share.encrypt(&to)?.as_bytes())?;
    let line = format!(
        "the share of {} in the escrow of {} (ceremony {}) is in {}, for {to} alone",
        owner.name,
        manifest.realm,
        manifest.ceremony_name(),
        wanted.out.display()
    );
    let fingerprint = manifest.fingerprint()?;
    let compare = format!(
        "the manifest is {fingerprint}: tell it to whoever restores, by voice, before the import"
    );
    Ok(Done {
        value: json!({
            "custodian": owner.name,
            "realm": manifest.realm,
            "ceremony": manifest.ceremony_name(),
            "manifest": fingerprint,
            "file": wanted.out,
        }),
        lines: vec![line, compare],
    })
}

pub(super) fn verify(wanted: &Verify) -> Result<Done, CeremonyError> {
    let manifests = escrow::read_any(&wanted.manifest)?;
    let share = share(&wanted.share, &identity(&wanted.identity)?)?;
    let (manifest, owner) = manifests.owner(&share)?;
    let mut lines = vec![format!(
        "the share of {} opens, and is the one that was made for the escrow of {} (ceremony {}, {} of {} \
         custodians)",
        owner.name,
        manifest.realm,
        manifest.ceremony_name(),
        manifest.needed,
        manifest.custodians.len()
    )];
    let fingerprint = manifest.fingerprint()?;
    if !manifests.further().is_empty() {
        lines.push(format!(
            "it is of {}; the manifest is {fingerprint}: tell it by voice to whoever rotates to a key of it",
            manifest.key_names()
        ));
    }
    let others = manifests.iter().filter(|of| {
        let theirs = |one: &Custodian| one.recipient == owner.recipient;
        of.ceremony_name() != manifest.ceremony_name() && of.custodians.iter().any(theirs)
    });
    let others: Vec<String> = others
        .map(|of| format!("{} ({})", of.ceremony_name(), of.key_names()))
        .collect();
    if !others.is_empty() {
        lines.push(format!(
            "{} has shares of other ceremonies as well, which this one does not replace: {}",
            owner.name,
            others.join("; ")
        ));
    }
    Ok(Done {
        value: json!({
            "custodian": owner.name,
            "realm": manifest.realm,
            "ceremony": manifest.ceremony_name(),
            "manifest": fingerprint,
        }),
        lines,
    })
}
