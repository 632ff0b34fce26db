//! A campaign's figures: a table for people, a file for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::faults::Fault;
use super::kills::{ITSELF_WITHIN, OTHERS_WITHIN};
use super::partition;
use super::state::{State, Tally};

/// Who takes changes again, or still, after so many milliseconds each time, and how many are aimed at.
struct Aimed<'a> {
    who: &'static str,
    name: &'static str,
    times: &'a [u64],
    aim: u64,
}

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
        for Aimed {
            who, times, aim, ..
        } in self.aimed()
        {
            if let (Some(p50), Some(p99)) = (quantile(times, 0.5), quantile(times, 0.99)) {
                let within = times.iter().filter(|time| **time <= aim).count();
                let _ = writeln!(
                    text,
                    "{who} took changes in {p50} ms (p50), {p99} ms (p99); within the {aim} ms aimed at: {within} of {}",
                    times.len()
                );
            }
        }
        let _ = writeln!(
            text,
            "\ntotals: seed {}, {} runs, {} s: {} kills, {} faults of the database, {} answers and {} receipts checked, {} violations",
            self.seed,
            self.runs,
            self.seconds,
            self.of(Fault::Kill).count,
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

    /// What has an aim.
    fn aimed(&self) -> Vec<Aimed<'_>> {
        let tally = |fault: Fault| self.faults.get(fault.name());
        let others = |fault| tally(fault).map_or(&[][..], |tally| &tally.others[..]);
        let recoveries = |fault| tally(fault).map_or(&[][..], |tally| &tally.recoveries[..]);
        let of = |who, name, times, aim| Aimed {
            who,
            name,
            times,
            aim,
        };
        let cut_off = partition::OTHERS_WITHIN;
        vec![
            of(
                "after a node's death the others",
                "death_others",
                others(Fault::Kill),
                OTHERS_WITHIN,
            ),
            of(
                "after a node's death itself",
                "death_itself",
                recoveries(Fault::Kill),
                ITSELF_WITHIN,
            ),
            of(
                "while nodes were cut off the others",
                "cut_others",
                others(Fault::Cut),
                cut_off,
            ),
            of(
                "while nodes were held the others",
                "hold_others",
                others(Fault::Hold),
                cut_off,
            ),
            of(
                "while nodes heard nothing the others",
                "silence_others",
                others(Fault::Silence),
                cut_off,
            ),
            of(
                "while nodes were slow the others",
                "slow_others",
                others(Fault::Slow),
                cut_off,
            ),
        ]
    }

    /// Writes `figures.json` into the folder, in the form that `make bench` gives its own.
    ///
    /// # Errors
    /// Of the file system.
    pub fn figures(&self, folder: &Path) -> std::io::Result<PathBuf> {
        let figure = |name: String, value: u64, unit: &str| -> Value {
            json!({"name": name, "value": value, "unit": unit, "reference": null, "ratio": null})
        };
        let totals = [
            ("answers", self.answered, "answers"),
            ("receipts", self.receipts, "receipts"),
            ("kills", self.of(Fault::Kill).count, "faults"),
            ("database_faults", self.database_faults(), "faults"),
            ("runs", self.runs, "runs"),
            ("time", self.seconds, "s"),
            ("violations", self.violations.len() as u64, "violations"),
        ];
        let totals = totals.into_iter();
        let mut figures: Vec<Value> = totals
            .map(|(name, value, unit)| figure(format!("campaign_{name}"), value, unit))
            .collect();
        for Aimed {
            name, times, aim, ..
        } in self.aimed()
        {
            for (what, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
                if let Some(time) = quantile(times, share) {
                    let mut figure = figure(format!("campaign_{name}_{what}"), time, "ms");
                    figure["aim"] = json!(aim);
                    figures.push(figure);
                }
            }
        }
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
