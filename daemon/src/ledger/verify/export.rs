//! The whole log in a file, and the check of one that needs no database.
//!
//! A file is one line of JSON with the head as it stands in the database (`head` and its `mac`,
//! in hexadecimal), then all entries as C2SP tlog-tiles entry bundles, one after another: a 16-bit
//! big-endian length and the entry. No entry holds anything about a person. Called by `custodyd
//! ledger export` and `ledger verify --from`.

use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use custodyd_hsm::{Pool, RealmName};
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Link};
use super::{Counts, Findings, Progress, Report, evidence};
use crate::ledger::{Head, LedgerError, start};
use crate::store::{HeadRow, MAX_HEAD, Store};

const FORMAT: &str = "custodyd-log/v1";
const CHUNK: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    format: String,
    seq: u64,
    #[serde(with = "hex::serde")]
    head: Vec<u8>,
    #[serde(with = "hex::serde")]
    mac: Vec<u8>,
}

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("it is not the export of a log ({0})")]
    Format(String),
}

/// Writes the log that the database shows; returns how many entries that were. Nothing is verified
/// but that none is missing: whoever reads the file does that.
///
/// # Errors
/// `Tampered` where the head does not parse or an entry is missing; the file's.
pub async fn export(
    store: &Arc<dyn Store>,
    realm: &RealmName,
    file: &mut (impl Write + Send),
    progress: &Progress,
) -> Result<u64, ExportError> {
    let row = store
        .head()
        .await
        .map_err(LedgerError::from)?
        .examine()
        .ok_or_else(|| LedgerError::Refused("the database holds no realm".into()))?;
    let head = Head::parse(&row, realm).map_err(LedgerError::Refused)?;
    let first = First {
        format: FORMAT.into(),
        seq: row.seq,
        head: row.body,
        mac: row.mac,
    };
    serde_json::to_writer(&mut *file, &first).map_err(std::io::Error::from)?;
    file.write_all(b"\n")?;
    progress.begin(head.size);
    let mut from = 0;
    while from < head.size {
        let count = CHUNK.min(head.size - from);
        for leaf in start::leaves(store, from, count).await? {
            let length = u16::try_from(leaf.len())
                .map_err(|_| LedgerError::Tampered("an entry is larger than any".into()))?;
            file.write_all(&length.to_be_bytes())?;
            file.write_all(&leaf)?;
        }
        from += count;
        progress.advance(count);
    }
    Ok(head.size)
}

/// Verifies an exported log: its chain of heads, its root, and with a token the head's MAC.
///
/// # Errors
/// Where the file is no export; what is wrong with the log is in the report.
pub async fn verify_file(
    file: &mut (impl BufRead + Send),
    token: Option<&Pool>,
    realm: &RealmName,
    progress: &Progress,
) -> Result<Report, ExportError> {
    let mut line = String::new();
    let most = 4 * MAX_HEAD as u64;
    Read::take(&mut *file, most).read_line(&mut line)?;
    let first: First =
        serde_json::from_str(&line).map_err(|error| ExportError::Format(error.to_string()))?;
    if first.format != FORMAT {
        return Err(ExportError::Format(format!("format {}", first.format)));
    }
    let row = HeadRow {
        seq: first.seq,
        body: first.head,
        mac: first.mac,
    };
    let mut findings = Findings::default();
    let head = Head::parse(&row, realm).map_err(ExportError::Format)?;
    if let Some(pool) = token
        && let Err(error) = Head::authentic(pool, realm, &row).await
    {
        findings.note("head", evidence(error)?);
    }
    progress.begin(head.size);
    let mut chain = Chain::new(realm);
    let mut leaf = Vec::new();
    while chain.size() < head.size {
        let mut length = [0; 2];
        let read = file.read_exact(&mut length).and_then(|()| {
            leaf.resize(usize::from(u16::from_be_bytes(length)), 0);
            file.read_exact(&mut leaf)
        });
        match read {
            Ok(()) => chain.take(Link::read(&leaf), None, &mut findings),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                findings.entry(chain.size(), "the file ends before it");
                break;
            }
            Err(error) => return Err(error.into()),
        }
        chain.full_tiles();
        progress.advance(1);
    }
    if chain.size() == head.size {
        chain.finish(&head, &mut findings);
        if !file.fill_buf()?.is_empty() {
            findings.entry(head.size, "the file goes on behind the log");
        }
    }
    Ok(Report {
        head: Some((head.state.seq, head.size)),
        refused: None,
        counts: Counts {
            entries: chain.size(),
            batches: chain.batches(),
            ..Counts::default()
        },
        findings,
    })
}
