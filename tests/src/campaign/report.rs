//! A campaign's figures: a table for people, a file for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::state::{State, Tally};

/// Of milliseconds that were measured.
fn quantile(times: &[u64], share: f64) -> Option<u64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().checked_sub(1)?);
    Some(sorted[at])
}

impl State {
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<13}{:>7}{:>16}{:>16}{:>10}{:>8}{:>12}\n",
            "fault", "count", "recovery p50", "recovery max", "refused", "lost", "violations"
        );
        for (name, tally) in &self.faults {
            let time = |share| match quantile(&tally.recoveries, share) {
                Some(time) => format!("{time} ms"),
                None => "-".to_owned(),
            };
            let Tally {
                count,
                refused,
                lost,
                violations,
                ..
            } = tally;
            let (p50, max) = (time(0.5), time(1.0));
            let _ = writeln!(
                text,
                "{name:<13}{count:>7}{p50:>16}{max:>16}{refused:>10}{lost:>8}{violations:>12}"
            );
        }
        let kills = self.faults.get("kill").map_or(0, |tally| tally.count);
        let _ = writeln!(
            text,
            "\nseed {}, {} runs, {} s: {kills} kills, {} faults of the database, {} answers and {} receipts checked, {} violations",
            self.seed,
            self.runs,
            self.seconds,
            self.database_faults(),
            self.answered,
            self.receipts,
            self.violations.len()
        );
        for what in &self.violations {
            let _ = writeln!(text, "VIOLATION {what}");
        }
        text
    }

    /// Writes `figures.json` into the folder, in the form that `make bench` gives its own.
    ///
    /// # Errors
    /// Of the file system.
    pub fn figures(&self, folder: &Path) -> std::io::Result<PathBuf> {
        let figure = |name: String, value: u64, unit: &str| -> Value {
            json!({"name": name, "value": value, "unit": unit, "reference": null, "ratio": null})
        };
        let mut figures = vec![
            figure("campaign_answers".into(), self.answered, "answers"),
            figure(
                "campaign_violations".into(),
                self.violations.len() as u64,
                "violations",
            ),
        ];
        for (name, tally) in self.faults.iter().filter(|(_, tally)| tally.count > 0) {
            let name = |what: &str| format!("campaign_{}_{what}", name.replace('-', "_"));
            figures.push(figure(name("count"), tally.count, "faults"));
            for (what, share) in [("recovery_p50", 0.5), ("recovery_max", 1.0)] {
                if let Some(time) = quantile(&tally.recoveries, share) {
                    figures.push(figure(name(what), time, "ms"));
                }
            }
        }
        std::fs::create_dir_all(folder)?;
        let path = folder.join("figures.json");
        std::fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
        Ok(path)
    }
}
