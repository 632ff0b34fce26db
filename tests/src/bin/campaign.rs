//! `target/release/campaign`: real daemons under steady load while nodes, database, network and token fail. docs/FAULTS.md.
//!
//! Run by a person, with the daemon's own program beside it. It ends with failure where anything was found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a campaign that cannot go on stops"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use custodyd_tests::campaign::{self, Fault, Lasting, Pace, Plan, State, Until};

const USAGE: &str = "campaign [--for 10m] [--faults kill,restart,...] [--nodes N] [--clients N] [--pace steady|quick] [--state DIR] [--seed N]";

struct Asked {
    plan: Plan,
    folder: PathBuf,
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = match asked(&arguments) {
        Ok(asked) => asked,
        Err(what) => {
            let all: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            eprintln!("{what}\nusage: {USAGE}\nfaults: {}", all.join(","));
            return ExitCode::FAILURE;
        }
    };
    match conducted(asked) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was found, in this run and those before.
fn conducted(asked: Asked) -> Result<bool, String> {
    let mut state = State::load(&asked.folder, asked.seed)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let stop = async {
        // Without a handler nobody interrupts, and the time runs out.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        println!("stopping: what runs is finished and checked");
    };
    runtime.block_on(campaign::run(&asked.plan, &mut state, stop))?;
    println!("\n{}", state.table());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/campaign");
    let figures = state.figures(&folder).map_err(|error| error.to_string())?;
    println!(
        "written: {}, state: {}",
        figures.display(),
        asked.folder.display()
    );
    Ok(state.violations.is_empty())
}

fn asked(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        plan: Plan {
            faults: Fault::ALL.to_vec(),
            until: Until::Over(Duration::from_secs(600)),
            nodes: 3,
            clients: 8,
            rest: Duration::from_millis(40),
            calm: lasting(1000, 4000),
            lasting: lasting(300, 4000),
            pace: Pace::Steady,
            state: None,
        },
        folder: "target/campaign".into(),
        seed: 1,
    };
    let mut named = false;
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let value = rest
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        let number = || {
            let number = value.parse::<usize>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("{option} {value}: expected a number above zero"))
        };
        match option.as_str() {
            "--for" => asked.plan.until = Until::Over(time(value)?),
            "--faults" => {
                asked.plan.faults = value.split(',').map(fault).collect::<Result<_, _>>()?;
                named = true;
            }
            "--nodes" => asked.plan.nodes = number()?,
            "--pace" => match value.as_str() {
                "steady" => {}
                "quick" => {
                    asked.plan.pace = Pace::Quick;
                    asked.plan.rest = Duration::from_millis(10);
                    asked.plan.calm = lasting(0, 200);
                    asked.plan.lasting = lasting(200, 1500);
                }
                _ => return Err(format!("--pace {value}: expected steady or quick")),
            },
            "--clients" => asked.plan.clients = number()?,
            "--state" => asked.folder = value.into(),
            "--seed" => asked.seed = number()? as u64,
            _ => return Err(format!("{option} is nothing that it knows")),
        }
    }
    if asked.plan.nodes == 1 && !named {
        asked.plan.faults.retain(|fault| !fault.needs_several());
    }
    if asked.plan.faults.contains(&Fault::Silence) {
        campaign::enter_own_network();
    }
    for fault in &asked.plan.faults {
        if asked.plan.nodes == 1 && fault.needs_several() {
            return Err(format!("{}: it needs several nodes", fault.name()));
        }
        if let Some(what) = fault.lacks() {
            return Err(format!("{}: {what}; --faults leaves it out", fault.name()));
        }
    }
    asked.plan.state = Some(asked.folder.clone());
    Ok(asked)
}

fn lasting(least: u64, most: u64) -> Lasting {
    Lasting {
        least: Duration::from_millis(least),
        most: Duration::from_millis(most),
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| format!("{name} is no fault"))
}

/// Such as 90s, 10m or 2h.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("--for {text}: expected such as 90s, 10m or 2h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}
