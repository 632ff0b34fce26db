//! Steps from one version of the tables to the next, while nodes of the version before serve.
//!
//! Called by a start whose token has found the head to be of an older schema than this build's. A step adds, and
//! changes nothing: who does not know of what it adds can write beside it (docs/POSTGRESQL.md, "One version after the
//! other"). This version has none. The program that the tests take for the next one says its own before it starts
//! (`are`); no configuration and no environment of a daemon reaches that.

use std::sync::OnceLock;

use super::StoreError;

/// From the schema before to this one.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What the database has once this is done.
    pub schema: u32,
    /// The oldest schema whose custodyd serves it then.
    pub least: u32,
    /// The tables that it alters, which it takes first and all at once: in the order in which a commit takes them.
    pub alters: &'static [&'static str],
    /// One transaction.
    pub sql: &'static str,
    /// Each table that it makes or alters, as the server's catalogue describes it afterwards.
    pub tables: &'static [(&'static str, &'static str)],
}

static STEPS: OnceLock<&'static [Step]> = OnceLock::new();

/// Of a program that is another version than this one. Before anything else, and once.
pub fn are(steps: &'static [Step]) {
    let _ = STEPS.set(steps);
}

pub(crate) fn all() -> &'static [Step] {
    STEPS.get().copied().unwrap_or_default()
}

/// A table as a step leaves it.
pub(crate) fn described(table: &str) -> Option<&'static str> {
    let mut made = all().iter().rev().flat_map(|step| step.tables);
    made.find(|(name, _)| *name == table)
        .map(|(_, content)| *content)
}

impl Step {
    /// Whether the tables that were found are as this step leaves them.
    ///
    /// # Errors
    /// `Refused` where some are and some are not: a step is one transaction, so somebody else has made them.
    pub(crate) fn is_done(&self, found: &[(String, String)]) -> Result<bool, StoreError> {
        let stands = |(name, content): &&(&str, &str)| {
            found.iter().any(|(n, c)| n == *name && c == *content)
        };
        let standing: Vec<&str> = self.tables.iter().filter(stands).map(|(n, _)| *n).collect();
        let altered = |name: &&str| self.alters.contains(name);
        let in_the_way = self.tables.iter().map(|(name, _)| *name).find(|name| {
            !altered(name) && !standing.contains(name) && found.iter().any(|(n, _)| n == name)
        });
        match (standing.len(), in_the_way) {
            (all, _) if all == self.tables.len() => Ok(true),
            (0, None) => Ok(false),
            (_, of) => Err(StoreError::Refused {
                operation: "extend the tables",
                problem: format!(
                    "schema {} adds {}, and only some of that stands there, or something else of its name ({}): custodyd \
                     adds all of it at once, so somebody else has made it. Look for who did, take it away, and start again",
                    self.schema,
                    self.tables
                        .iter()
                        .map(|(name, _)| *name)
                        .collect::<Vec<_>>()
                        .join(", "),
                    of.map_or_else(|| standing.join(", "), str::to_owned),
                ),
            }),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;

    const STEP: Step = Step {
        schema: 5,
        least: 4,
        alters: &["records"],
        sql: "",
        tables: &[("notes", "id bigint"), ("records", "id bytea, hint")],
    };

    fn found(tables: &[(&str, &str)]) -> Vec<(String, String)> {
        let tables = tables.iter();
        tables.map(|(n, c)| ((*n).into(), (*c).into())).collect()
    }

    #[test]
    fn a_step_is_done_or_not_and_what_is_neither_is_somebody_elses() {
        let before = ("records", "id bytea");
        assert!(!STEP.is_done(&found(&[before])).unwrap());
        assert!(STEP.is_done(&found(STEP.tables)).unwrap());
        for odd in [
            found(&[before, ("notes", "id bigint")]),
            found(&[before, ("notes", "id text")]),
            found(&[STEP.tables[1]]),
        ] {
            let why = STEP.is_done(&odd).unwrap_err().to_string();
            assert!(why.contains("somebody else has made it"), "{why}");
        }
    }
}
