//! The command line: arguments, exit codes, and which use case each command calls.
//!
//! Called by `main` only. It decides nothing of its own: every command is a use case that
//! start-up, the configuration or a check provides. A secret is never an argument, for
//! other users of the host can read those.
//!
//! Exit codes: 0 done or all checks passed, 1 failed or a check is red, 2 wrong usage.

mod doctor;
mod escrow;
mod key;
mod ledger;
mod live;
pub mod output;
mod socket;
mod token;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use self::output::{Line, Output};
use crate::config::{self, Config};
use crate::courier::{self, CourierError};
use crate::handed::Handed;
use crate::startup::{self, StartError};
use crate::{hardening, telemetry};

const DEFAULT_CONFIG: &str = "/etc/custodyd/custodyd.toml";

/// Key custody daemon for Progressive Web Apps
#[derive(Debug, Parser)]
#[command(name = "custodyd", version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "CUSTODYD_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Answer in JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT, then finish the answers under way
    Serve,
    /// Carry mail, text messages and checkpoints for a daemon that has no network, until SIGTERM
    Courier,
    /// Make the missing keys in the token and the database of a new realm; repeating it changes nothing
    Init {
        /// Finish a realm that an `init` has begun more than an hour ago: it says that no daemon has served it
        #[arg(long)]
        finish: bool,
    },
    /// Find, provision and check tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Have the running daemon read certificate, key and policies again
    Reload,
    /// Look at an account of the running daemon
    #[command(subcommand)]
    Account(live::AccountCommand),
    /// Hold the database against the token
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Keys that some of several custodians can bring back
    #[command(subcommand)]
    Escrow(escrow::EscrowCommand),
    /// Rotate the token's keys, move records to a newer one, retire older ones
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Check everything a working daemon needs, one line each, with what to do where it is red
    Doctor {
        /// A daemon runs: red where none answers, and the token is left to it
        #[arg(long)]
        running: bool,
    },
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    // A usage error ends here, with exit code 2 and a message from clap.
    let arguments = Arguments::parse();
    // While there is one thread.
    let handed = Handed::from_environment();
    // Before any secret is read.
    let hardening = hardening::apply();
    // Whatever this process creates is for its own user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let output = Output::new(arguments.json);
    match &arguments.command {
        Command::Doctor { running } => {
            let lines = doctor::run(&arguments.config, *running, &hardening);
            output.checks("doctor", &lines)
        }
        Command::Token(command) => token::run(&output, &arguments.config, command),
        Command::Init { finish } => with_config(&output, "init", &arguments, |config| {
            let done =
                log_quietly(&config).and_then(|()| block_on(startup::init(&config, *finish)));
            report(&output, "init", done)
        }),
        Command::Reload => with_config(&output, "reload", &arguments, |config| {
            live::reload(&output, &config)
        }),
        Command::Account(command) => with_config(&output, "account", &arguments, |config| {
            live::account(&output, &config, command)
        }),
        Command::Ledger(command) => match ledger::of_auditor(&output, command) {
            Some(done) => done,
            None => with_config(&output, "ledger", &arguments, |config| {
                ledger::run(&output, &config, command)
            }),
        },
        Command::Escrow(command) => match escrow::of_custodian(&output, command) {
            Some(done) => done,
            None => with_config(&output, "escrow", &arguments, |config| {
                escrow::of_realm(&output, &config, command)
            }),
        },
        Command::Key(command) => with_config(&output, "key", &arguments, |config| {
            key::run(&output, &config, command)
        }),
        Command::Courier => with_config(&output, "courier", &arguments, |config| {
            courier(&output, &config, handed)
        }),
        Command::Serve => with_config(&output, "serve", &arguments, |config| {
            let served = telemetry::start_logging(&config.log)
                .map_err(StartError::from)
                .inspect(|()| hardening.tell())
                .and_then(|()| block_on(startup::serve(&config, handed)));
            match served {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => output.failure("serve", &chain(&error)),
            }
        }),
    }
}

/// The commands that cannot begin without a configuration.
fn with_config(
    output: &Output,
    command: &str,
    arguments: &Arguments,
    run: impl FnOnce(Config) -> ExitCode,
) -> ExitCode {
    match config::load(&arguments.config) {
        Ok(config) => run(config),
        Err(errors) => output.failure(command, &errors.to_string()),
    }
}

fn courier(output: &Output, config: &Config, handed: Handed) -> ExitCode {
    let ran = telemetry::start_logging(&config.log)
        .map_err(StartError::from)
        .map_err(CourierError::from)
        .and_then(|()| {
            let runtime = Runtime::new().map_err(startup::system("start the runtime"))?;
            runtime.block_on(courier::run(config, handed))
        });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure("courier", &chain(&error)),
    }
}

fn report(output: &Output, command: &str, done: Result<Vec<String>, StartError>) -> ExitCode {
    match done {
        Ok(steps) => {
            let lines: Vec<Line> = steps
                .into_iter()
                .map(|step| Line::ok(command, step))
                .collect();
            output.checks(command, &lines)
        }
        Err(error) => output.failure(command, &chain(&error)),
    }
}

/// Short commands tell their result on standard output; the log has only what is worth a warning.
fn log_quietly(config: &Config) -> Result<(), StartError> {
    let mut log = config.log.clone();
    log.filter = "warn".to_owned();
    Ok(telemetry::start_logging(&log)?)
}

fn block_on<T>(work: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    let runtime = Runtime::new().map_err(|source| StartError::System {
        what: "start the runtime".to_owned(),
        source,
    })?;
    runtime.block_on(work)
}

/// An error and its causes in one line; a cause that the text before it repeats is left out.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_behind_the_command() {
        for line in [
            "custodyd --json --config x token check",
            "custodyd token check --config x --json",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(arguments.json);
            assert_eq!(arguments.config, PathBuf::from("x"));
        }
    }

    #[test]
    fn wrong_usage_has_exit_code_2() {
        for line in [
            "custodyd",
            "custodyd fly",
            "custodyd token",
            "custodyd serve --pin 1234",
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer (inner)")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner(#[source] std::fmt::Error);
        let text = chain(&Outer(Inner(std::fmt::Error)));
        assert!(text.starts_with("outer (inner): an error"), "{text}");
    }
}
