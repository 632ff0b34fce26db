//! `[auditors]`: who may read the log, each by the hash of a credential of theirs.
//!
//! Called by `check` only. The credential itself is never written here, so that a copy of the
//! file opens nothing.

use toml::de::DeValue;

use super::check::string;
use super::reader::{Document, Table};

/// Somebody who may read the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Auditor {
    /// For our own log and metrics.
    pub name: String,
    /// SHA-256 of the bearer credential.
    pub credential: [u8; 32],
}

const MOST: usize = 64;

pub(super) fn auditors<'i>(doc: &mut Document<'i>, top: &mut Table<'i>) -> Vec<Auditor> {
    let mut table = doc.table(top, "auditors");
    let at = table.at();
    let mut found: Vec<Auditor> = Vec::new();
    for (name, placed) in doc.every(&mut table, hash) {
        if !is_name(&name) {
            let message = "auditors: a name has 1 to 64 of a-z, 0-9, dot, hyphen and underscore";
            doc.error(placed.at, message.to_owned());
        } else if found.iter().any(|one| one.credential == placed.value) {
            // With one credential for two, nobody could say who has read.
            doc.error(
                placed.at,
                format!("auditors.{name}: a hash is listed twice"),
            );
        } else {
            let credential = placed.value;
            found.push(Auditor { name, credential });
        }
    }
    if found.len() > MOST {
        doc.error(at, format!("auditors: at most {MOST} are listed"));
    }
    found
}

/// Names that stand in logs and metrics.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// What was found is not shown: it may be the credential.
fn hash(value: &DeValue<'_>) -> Result<[u8; 32], String> {
    const WHAT: &str = "expected a SHA-256 hash, which is 64 hexadecimal digits";
    let text = string(value).map_err(|_| WHAT.to_owned())?;
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| WHAT.to_owned())?;
    Ok(hash)
}
