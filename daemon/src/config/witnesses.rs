//! `[witnesses]`: who else is shown the log's checkpoints, and by which keys they are believed.
//!
//! Called by `check` only. A witness's key is public; whoever can change it here can make a witness
//! of their own, and owns the daemon anyway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::auditors::is_name;
use super::check::{duration, expected, number, path, string};
use super::delivery::https_url;
use super::reader::{Document, Table};
use crate::witness::VerifierKey;

/// `[witnesses]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Witnesses {
    /// So many of them are to cosign; zero where none is listed.
    pub quorum: usize,
    /// How often each is shown the newest checkpoint.
    pub period: Duration,
    /// The last time that enough have cosigned may be so long ago.
    pub alert_after: Duration,
    /// PEM: authorities that are trusted beside those of the host.
    pub ca_file: Option<PathBuf>,
    pub known: Vec<Witness>,
    /// The socket of the courier that calls them for us.
    pub courier: Option<PathBuf>,
}

/// `[witnesses.NAME]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Witness {
    /// For our own log and metrics.
    pub name: String,
    /// What stands before `/add-checkpoint`, without a slash at the end.
    pub url: String,
    pub key: VerifierKey,
}

const MOST: usize = 16;

pub(super) fn witnesses<'i>(doc: &mut Document<'i>, top: &mut Table<'i>, base: &Path) -> Witnesses {
    let mut table = doc.table(top, "witnesses");
    let at = table.at();
    // One that was there but wrong has been reported already.
    let has_quorum = table.has("quorum");
    let quorum = doc.optional(&mut table, "quorum", |value| number(value, 1..=MOST));
    let periods = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let period = doc.or(&mut table, "period", Duration::from_secs(60), |value| {
        duration(value, periods)
    });
    let ages = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
    let alert = doc.optional(&mut table, "alert_after", |value| duration(value, ages));
    let ca_file = doc.optional(&mut table, "ca_file", |value| path(value, base));
    let tables = doc.every_table(&mut table);
    let listed = tables.len();
    let mut known = Vec::new();
    for (name, table) in tables {
        witness(doc, name, table, &mut known);
    }
    if listed > MOST {
        doc.error(at, format!("witnesses: at most {MOST} are listed"));
    }
    let wrong_quorum = match &quorum {
        Some(given) if listed == 0 => Some((given.at, "no witness is listed".to_owned())),
        Some(given) if given.value > listed => {
            Some((given.at, format!("more than the {listed} that are listed")))
        }
        None if listed > 0 && !has_quorum => {
            Some((at, "missing: how many of them are to cosign".to_owned()))
        }
        _ => None,
    };
    if let Some((at, what)) = wrong_quorum {
        doc.error(at, format!("witnesses.quorum: {what}"));
    }
    if let Some(alert) = alert.as_ref().filter(|alert| alert.value < period) {
        let message =
            "witnesses.alert_after: shorter than witnesses.period, so it would always alert";
        doc.error(alert.at, message.to_owned());
    }
    Witnesses {
        quorum: quorum.map_or(0, |placed| placed.value),
        period,
        alert_after: alert.map_or(Duration::from_secs(3600).max(period * 2), |one| one.value),
        ca_file: ca_file.map(|placed| placed.value),
        known,
        courier: None,
    }
}

fn witness<'i>(
    doc: &mut Document<'i>,
    name: String,
    mut table: Table<'i>,
    known: &mut Vec<Witness>,
) {
    let at = table.at();
    let named = table.name_of("vkey");
    let url = doc.required(
        &mut table,
        "url",
        "what stands before /add-checkpoint, such as \"https://witness.example\"",
        url,
    );
    let key = doc.required(
        &mut table,
        "vkey",
        "the verifier key of its cosignatures, as its operator publishes it",
        |value| {
            let text = string(value)?;
            VerifierKey::parse(text).map_err(str::to_owned)
        },
    );
    doc.finish(table);
    if !is_name(&name) {
        let message = "witnesses: a name has 1 to 64 of a-z, 0-9, dot, hyphen and underscore";
        doc.error(at, message.to_owned());
        return;
    }
    let (Some(url), Some(key)) = (url, key) else {
        return;
    };
    let (url, at, key) = (url.value, key.at, key.value);
    // One witness under two names would count twice for the quorum.
    if let Some(same) = known.iter().find(|one| one.key.is_by_the_key_of(&key)) {
        doc.error(at, format!("{named}: {} has the same key", same.name));
        return;
    }
    known.push(Witness { name, url, key });
}

fn url(value: &DeValue<'_>) -> Result<String, String> {
    let wanted = "an https URL such as \"https://witness.example\" (lower case host, no user, no query; http \
                  only to this machine)";
    let text = https_url(value, wanted)?;
    if text.contains('?') {
        return Err(expected(wanted, value));
    }
    Ok(text.trim_end_matches('/').to_owned())
}
