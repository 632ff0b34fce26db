//! `custodyd ledger anchor --evidence` and `--verify`: the TPM's own word for what it remembers.
//!
//! Called by the parent. Beside a running daemon it is the daemon that asks the TPM. Verifying needs neither
//! token nor database and believes nothing of the file but what follows from the key that the auditor knows.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use custodyd_hsm::evidence::NONCE;
use serde_json::{Value, json};

use super::super::output::{Line, Output};
use super::super::socket::ask;
use super::super::{block_on, chain};
use super::look;
use crate::config::Config;
use crate::ledger::LedgerError;
use crate::ledger::evidence::{AnchorEvidence, Heads, LONGEST, Told};
use crate::private_file;
use crate::startup;

const COMMAND: &str = "ledger anchor";

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Wanted {
    /// Have the TPM sign what it remembers, with an auditor's nonce of 32 to 64 hexadecimal digits
    #[arg(long, value_name = "NONCE", value_parser = nonce, requires = "out")]
    evidence: Option<Nonce>,
    /// A new file for it
    #[arg(long, value_name = "FILE", requires = "evidence")]
    out: Option<PathBuf>,
    /// Check such a file, anywhere
    #[arg(
        long,
        value_name = "FILE",
        requires = "nonce",
        conflicts_with = "evidence"
    )]
    verify: Option<PathBuf>,
    /// The nonce that it was asked for with
    #[arg(long, value_name = "NONCE", value_parser = nonce, requires = "verify")]
    nonce: Option<Nonce>,
    /// The name of the attestation key, as it was noted when the realm was made
    #[arg(long, value_name = "NAME", requires = "verify")]
    key: Option<String>,
}

#[derive(Clone, Debug)]
struct Nonce(Vec<u8>);

fn nonce(text: &str) -> Result<Nonce, String> {
    let bytes = hex::decode(text)
        .ok()
        .filter(|bytes| NONCE.contains(&bytes.len()));
    let refused = "expected 32 to 64 hexadecimal digits that nobody could know before, such as of: openssl rand -hex 32";
    bytes.map(Nonce).ok_or_else(|| refused.to_owned())
}

/// Where a file is to be checked.
pub(super) fn verify(output: &Output, wanted: &Wanted) -> Option<ExitCode> {
    let (file, Nonce(nonce)) = wanted.verify.as_ref().zip(wanted.nonce.as_ref())?;
    Some(told(output, verified(file, nonce, wanted.key.as_deref())))
}

/// Where one is to be made.
pub(super) fn run(output: &Output, config: &Config, wanted: &Wanted) -> Option<ExitCode> {
    let (Nonce(nonce), file) = wanted.evidence.as_ref().zip(wanted.out.as_ref())?;
    Some(told(output, made(config, nonce, file)))
}

fn told(output: &Output, lines: Result<Vec<Line>, String>) -> ExitCode {
    match lines {
        Ok(lines) => output.checks(COMMAND, &lines),
        Err(error) => output.failure(COMMAND, &error),
    }
}

fn made(config: &Config, nonce: &[u8], path: &Path) -> Result<Vec<Line>, String> {
    let evidence = asked(config, nonce)?;
    let told = evidence.verify(nonce)?;
    let text = serde_json::to_string_pretty(&evidence).map_err(|error| error.to_string())?;
    let mut file = private_file::create(path).map_err(|error| error.to_string())?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lines = vec![Line::ok(
        "evidence",
        format!("written to {}", path.display()),
    )];
    lines.extend(shown(&told));
    Ok(lines)
}

fn asked(config: &Config, nonce: &[u8]) -> Result<AnchorEvidence, String> {
    let socket = config.operator.socket.as_deref();
    if socket.is_some_and(|path| UnixStream::connect(path).is_ok()) {
        let path = format!("/anchor/evidence?nonce={}", hex::encode(nonce));
        let answer = ask(config, "GET", &path)?;
        return AnchorEvidence::read(answer.to_string().as_bytes());
    }
    let made = block_on(async {
        let store = look(config, None).await?;
        let pool = startup::token(config)?;
        let realm = &config.realm.name;
        let heads = Heads::Stored(&store);
        let made = AnchorEvidence::make(&pool, realm, &heads, nonce.to_vec()).await;
        store.close().await;
        pool.shutdown();
        Ok::<Result<AnchorEvidence, LedgerError>, _>(made)
    });
    let made = made.map_err(|error| chain(&error))?;
    made.map_err(|error| chain(&error))
}

fn verified(path: &Path, nonce: &[u8], key: Option<&str>) -> Result<Vec<Line>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    let evidence = AnchorEvidence::read(&bytes);
    let told = evidence.and_then(|evidence| evidence.verify(nonce));
    let told = told.map_err(|error| format!("{}: {error}", path.display()))?;
    let is = &told.attested.key;
    let signer = match key {
        Some(key) if key.eq_ignore_ascii_case(is) => {
            Line::ok("signer", "the attestation key that was named")
        }
        Some(_) => Line::red(
            "signer",
            format!("another attestation key than the one that was named: {is}"),
            "whoever made it may have made all of it; ask how the realm came to another key",
        ),
        None => Line::warn(
            "signer",
            "nobody has said whose attestation key it is: anybody with a TPM, or a program in its place, can make \
             such a file",
            "give --key NAME, as it was noted when the realm was made",
        ),
    };
    let mut lines = vec![signer];
    lines.extend(shown(&told));
    Ok(lines)
}

fn shown(told: &Told) -> Vec<Line> {
    let (attested, anchor) = (&told.attested, &told.anchor);
    let mut lines = vec![
        Line::ok(
            "key",
            format!(
                "attestation key {}, below the storage key {}{}",
                attested.key,
                attested.storage_key,
                match attested.bound {
                    true => "; it signs, and anchors are written, in approved boots alone",
                    false => "",
                }
            ),
        )
        .with_data(json!({
            "name": attested.key,
            "storage_key": attested.storage_key,
            "bound": attested.bound,
        })),
        Line::ok(
            "tpm",
            format!(
                "its index was written {} times; {} resets, {} restarts, clock {} s{}, firmware {:016x}",
                attested.writes,
                attested.resets,
                attested.restarts,
                attested.clock / 1000,
                if attested.clock_is_safe {
                    ""
                } else {
                    " (may have gone back)"
                },
                attested.firmware
            ),
        ),
        Line::ok(
            "anchor",
            format!("{}: {anchor}, boot epoch {}", told.realm, anchor.boot_epoch),
        )
        .with_data(json!({
            "realm": told.realm,
            "serial": anchor.serial,
            "log_epoch": anchor.log_epoch,
            "seq": anchor.seq,
            "head": hex::encode(anchor.head),
        })),
    ];
    lines.push(match &told.log {
        Some((size, root)) => Line::ok(
            "log",
            format!(
                "{size} entries with the root {}; compare it with a checkpoint of that size",
                hex::encode(root)
            ),
        )
        .with_data(json!({ "size": size, "root": hex::encode(root) })),
        None => Line::warn(
            "log",
            "the head that the TPM remembers is not in the file, since a newer one stood in the database",
            "ask again after a clean stop, or compare batch and head with the exported log",
        )
        .with_data(Value::Null),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_long_enough() {
        assert!(nonce(&"0f".repeat(16)).is_ok() && nonce(&"0F".repeat(32)).is_ok());
        for bad in ["", "0", "zz", &"0f".repeat(15), &"0f".repeat(33)] {
            assert!(nonce(bad).is_err(), "{bad}");
        }
    }
}
