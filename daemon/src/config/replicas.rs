//! `[token.replicas.NAME]`: further tokens with the same keys, of which any may be lost while the daemon serves.
//!
//! Called by `token` only. Names are for people; the realm's head knows each token by its serial number.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::auditors::is_name;
use super::check::duration;
use super::reader::{Document, Table};
use super::token::{kind_of, pin_of};
use super::{Token, TokenKind};

/// What the token of `[token]` itself is called among several.
pub const PRIMARY: &str = "primary";
const DEFAULT_PATIENCE: Duration = Duration::from_secs(2);
/// Where a TPM is among them: an anchor is a dozen commands of it, and each call has half of the patience.
const WITH_TPM: Duration = Duration::from_secs(4);
/// Each is anchored in before anything is released: more would make everything wait for the slowest.
const MOST: usize = 4;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replicas {
    /// After so long without an answer a token is given up, where another has answered.
    pub patience: Duration,
    pub known: Vec<Replica>,
}

/// One of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replica {
    pub name: String,
    pub kind: TokenKind,
    pub pin_file: Option<PathBuf>,
    pub pin_credential: Option<String>,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            patience: DEFAULT_PATIENCE,
            known: Vec::new(),
        }
    }
}

impl Token {
    /// Every token by its name, each as if it were the only one.
    #[must_use]
    pub fn each(&self) -> Vec<(String, Self)> {
        let alone = |kind: &TokenKind, file: &Option<PathBuf>, credential: &Option<String>| Self {
            kind: kind.clone(),
            pin_file: file.clone(),
            pin_credential: credential.clone(),
            replicas: Replicas::default(),
            ..self.clone()
        };
        let first = alone(&self.kind, &self.pin_file, &self.pin_credential);
        let mut all = vec![(PRIMARY.to_owned(), first)];
        for replica in &self.replicas.known {
            let token = alone(&replica.kind, &replica.pin_file, &replica.pin_credential);
            all.push((replica.name.clone(), token));
        }
        all
    }
}

pub(super) fn replicas<'i>(
    doc: &mut Document<'i>,
    token: &mut Table<'i>,
    (base, first): (&Path, Option<&TokenKind>),
    deadline: Duration,
) -> Replicas {
    let patience = doc.optional(token, "failover_after", |value| {
        duration(value, Duration::from_millis(100)..=Duration::from_secs(30))
    });
    if let Some(given) = patience.as_ref().filter(|given| given.value >= deadline) {
        doc.error(
            given.at,
            "token.failover_after: not shorter than token.deadline, so that a call would fail before another token \
             is asked"
                .to_owned(),
        );
    }
    let given = patience.map(|given| given.value);
    let known = known(doc, token, base);
    let kinds = known.iter().map(|replica| &replica.kind);
    let patience = given.unwrap_or_else(|| usual(kinds.chain(first), deadline));
    Replicas { patience, known }
}

/// Where the configuration does not say.
fn usual<'k>(mut kinds: impl Iterator<Item = &'k TokenKind>, deadline: Duration) -> Duration {
    match kinds.any(|kind| matches!(kind, TokenKind::Tpm(_))) {
        true => WITH_TPM.min(deadline * 4 / 5),
        // A short deadline needs no second line in the configuration.
        false => DEFAULT_PATIENCE.min(deadline / 2),
    }
}

fn known<'i>(doc: &mut Document<'i>, token: &mut Table<'i>, base: &Path) -> Vec<Replica> {
    let mut known = Vec::new();
    let Some(mut table) = doc.optional_table(token, "replicas") else {
        return known;
    };
    let at = table.at();
    for (name, mut table) in doc.every_table(&mut table) {
        let at = table.at();
        let path = table.name_of("");
        if !is_name(&name) || name == PRIMARY {
            doc.error(
                at,
                format!(
                    "{path} a name has 1 to 64 of a-z, 0-9, dot, hyphen and underscore, and is not \"{PRIMARY}\", which \
                     the token of [token] itself is called"
                ),
            );
        }
        let kind = kind_of(doc, &mut table, base);
        let (pin_file, pin_credential) = pin_of(doc, &mut table, base);
        doc.finish(table);
        if let Some(kind) = kind {
            known.push(Replica {
                name,
                kind,
                pin_file,
                pin_credential,
            });
        }
    }
    if known.len() > MOST {
        doc.error(at, format!("token.replicas: at most {MOST} are listed"));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tpm;

    #[test]
    fn a_slow_token_among_them_is_waited_for_longer() {
        use custodyd_hsm::backend::tpm::{
            DEFAULT_HANDLES, DEFAULT_NV_INDEX, DEFAULT_NV_WRITES_PER_DAY,
        };
        let soft = TokenKind::Pkcs11 {
            module: "m".into(),
            label: "l".to_owned(),
            serial: None,
        };
        let tpm = TokenKind::Tpm(Tpm {
            tcti: "device:/dev/tpmrm0".to_owned(),
            storage_key: None,
            state_directory: "s".into(),
            handles: DEFAULT_HANDLES,
            nv_index: DEFAULT_NV_INDEX,
            per_operation: true,
            pcrs: None,
            nv_writes_per_day: DEFAULT_NV_WRITES_PER_DAY,
        });
        let millis = |kinds: &[&TokenKind], deadline| {
            let deadline = Duration::from_secs(deadline);
            let patience = usual(kinds.iter().copied(), deadline);
            assert!(patience < deadline);
            patience.as_millis()
        };
        assert_eq!(millis(&[&soft, &soft], 5), 2000);
        assert_eq!(millis(&[&soft, &tpm], 5), 4000);
        assert_eq!(millis(&[&tpm, &soft], 60), 4000);
        assert_eq!(millis(&[&soft, &tpm], 1), 800);
        assert_eq!(millis(&[&soft], 1), 500);
    }
}
