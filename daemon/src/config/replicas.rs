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
    base: &Path,
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
    // A short deadline needs no second line in the configuration.
    let default = DEFAULT_PATIENCE.min(deadline / 2);
    let mut replicas = Replicas {
        patience: patience.map_or(default, |given| given.value),
        known: Vec::new(),
    };
    let Some(mut table) = doc.optional_table(token, "replicas") else {
        return replicas;
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
            replicas.known.push(Replica {
                name,
                kind,
                pin_file,
                pin_credential,
            });
        }
    }
    if replicas.known.len() > MOST {
        doc.error(at, format!("token.replicas: at most {MOST} are listed"));
    }
    replicas
}
