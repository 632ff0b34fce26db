//! What is kept of a campaign between its runs, in a folder: the seed, what has happened so far, and what must not have.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::faults::Fault;
use super::notebook::{Count, Counts, Violation};

/// What one kind of fault has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: u64,
    /// Milliseconds from the end of the cause until changes were taken again.
    pub recoveries: Vec<u64>,
    /// Milliseconds from when some node died, or was cut off, until each of the others took changes.
    pub others: Vec<u64>,
    pub refused: u64,
    pub lost: u64,
    pub violations: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub seed: u64,
    pub runs: u64,
    pub seconds: u64,
    pub answered: u64,
    pub receipts: u64,
    /// By the fault's name; "none" is between them.
    pub faults: BTreeMap<String, Tally>,
    pub violations: Vec<String>,
}

const FILE: &str = "campaign.json";
/// Between faults.
pub(super) const CALM: &str = "none";

impl State {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// As the folder has it, or from the beginning.
    ///
    /// # Errors
    /// When what stands there cannot be read.
    pub fn load(folder: &Path, seed: u64) -> Result<Self, String> {
        let path = folder.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or_else(|| {
                format!(
                    "{} is not the state of a campaign: move it away to begin anew",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::new(seed)),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Whole or not at all.
    ///
    /// # Errors
    /// Of the file system.
    pub fn save(&self, folder: &Path) -> Result<(), String> {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let beside = folder.join("campaign.json.new");
            let text = serde_json::to_string_pretty(&self.object())?;
            fs::write(&beside, text + "\n")?;
            fs::rename(beside, folder.join(FILE))
        };
        write().map_err(|error| format!("{}: {error}", folder.display()))
    }

    /// The history behind each violation, beside the state. The first has the number `from`.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn keep(&self, folder: &Path, from: usize, new: &[Violation]) -> Result<(), String> {
        let keep = |number: usize, violation: &Violation| -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let path = folder.join(format!("violation-{}-{number}.txt", self.runs));
            let lines = violation.history.iter().map(|entry| format!("{entry}\n"));
            let text = format!("{} ms: {}\n", violation.at, violation.what);
            fs::write(&path, text + &lines.collect::<String>())
        };
        let mut all = (from..).zip(new);
        all.try_for_each(|(number, violation)| keep(number, violation))
            .map_err(|error| format!("{}: {error}", folder.display()))
    }

    #[must_use]
    pub fn of(&self, fault: Fault) -> Tally {
        self.faults.get(fault.name()).cloned().unwrap_or_default()
    }

    /// How often something happened to the database.
    #[must_use]
    pub fn database_faults(&self) -> u64 {
        let all = Fault::ALL.into_iter().filter(|one| one.is_the_databases());
        all.map(|fault| self.of(fault).count).sum()
    }

    /// Adds what was counted between two moments.
    pub(super) fn add(&mut self, name: &str, before: Counts, after: Counts) {
        let more = |what: Count| after[what as usize] - before[what as usize];
        let tally = self.faults.entry(name.to_owned()).or_default();
        tally.refused += more(Count::Refused);
        tally.lost += more(Count::Lost);
        self.answered += more(Count::Answered);
        self.receipts += more(Count::Receipts);
    }

    pub(super) fn violated(&mut self, name: &str, violations: &[Violation]) {
        let tally = self.faults.entry(name.to_owned()).or_default();
        tally.violations += violations.len() as u64;
        let what = violations.iter().map(|one| format!("{name}: {}", one.what));
        self.violations.extend(what);
    }

    fn object(&self) -> Value {
        let faults: serde_json::Map<String, Value> = (self.faults.iter())
            .map(|(name, tally)| {
                let object = json!({"count": tally.count, "recoveries_ms": tally.recoveries,
                    "others_ms": tally.others, "refused": tally.refused, "lost": tally.lost, "violations": tally.violations});
                (name.clone(), object)
            })
            .collect();
        json!({"seed": self.seed, "runs": self.runs, "seconds": self.seconds, "answered": self.answered,
            "receipts": self.receipts, "faults": faults, "violations": self.violations})
    }
}

fn parse(text: &str) -> Option<State> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut faults = BTreeMap::new();
    for (name, tally) in value["faults"].as_object()? {
        let times = |name: &str| -> Option<Vec<u64>> {
            tally[name].as_array()?.iter().map(Value::as_u64).collect()
        };
        let tally = Tally {
            count: tally["count"].as_u64()?,
            recoveries: times("recoveries_ms")?,
            others: times("others_ms")?,
            refused: tally["refused"].as_u64()?,
            lost: tally["lost"].as_u64()?,
            violations: tally["violations"].as_u64()?,
        };
        faults.insert(name.clone(), tally);
    }
    let violations = value["violations"].as_array()?.iter();
    let violations = violations.map(|what| what.as_str().map(str::to_owned));
    Some(State {
        seed: value["seed"].as_u64()?,
        runs: value["runs"].as_u64()?,
        seconds: value["seconds"].as_u64()?,
        answered: value["answered"].as_u64()?,
        receipts: value["receipts"].as_u64()?,
        faults,
        violations: violations.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::load(folder.path(), 7).unwrap(), State::new(7));
        let mut state = State::new(7);
        state.add("kill", [0; 5], [9, 2, 1, 4, 3]);
        state.violations.push("kill: a guess was won back".into());
        state.save(folder.path()).unwrap();
        assert_eq!(State::load(folder.path(), 8).unwrap(), state);
        fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(
            State::load(folder.path(), 8)
                .unwrap_err()
                .contains("move it away")
        );
    }
}
