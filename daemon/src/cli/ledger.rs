//! `custodyd ledger`: the database against the token, for whoever is called when they disagree.
//!
//! Called by the command line's table. None of these commands writes to the database but the last
//! step of a restore, and none needs a daemon: they are for the hour in which it refuses to start.
//! What they say names rows, entries and batches, never people.

mod evidence;
mod restore;

use std::io::{BufReader, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use custodyd_hsm::AppId;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::output::{Line, Output};
use super::{block_on, chain};
use crate::clock;
use crate::config::{self, Config, Database};
use crate::ledger::LedgerError;
use crate::ledger::verify::{self, Entry, Progress, Report, Standing, export};
use crate::private_file;
use crate::startup::{self, StartError};
use crate::store::{self, Held, Store};

const PAGE: &str = "see docs/handbook/disagree.md, \"The database and the token disagree\"";
const FOLLOWED: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Hold every row of the database of a stopped daemon against the token
    Verify(Verify),
    /// Show the newest entries of the log, as the database has them
    Tail(Tail),
    /// Show what the token remembers, what the database shows, and whether the two agree; or have a TPM sign it
    Anchor(evidence::Wanted),
    /// Write the whole log into a file that `verify --from` checks without the database
    Export(Export),
    /// Write the statement by which approvers let the realm go on from an older database
    ProposeRestore(restore::Propose),
    /// Go on from the older database, as enough approvers have signed
    AcceptRestore(restore::Accept),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Open each record in the token, too: one token operation for each
    #[arg(long, conflicts_with = "from")]
    open: bool,
    /// Verify an exported log instead of the database
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Without a token, an exported log's head is taken as it is
    #[arg(long, requires = "from")]
    without_token: bool,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// How many entries
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    entries: u64,
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// A new file
    file: PathBuf,
}

/// What an auditor runs, without a configuration.
pub(super) fn of_auditor(output: &Output, command: &LedgerCommand) -> Option<ExitCode> {
    match command {
        LedgerCommand::Anchor(wanted) => evidence::verify(output, wanted),
        _ => None,
    }
}

pub(super) fn run(output: &Output, config: &Config, command: &LedgerCommand) -> ExitCode {
    if let Err(error) = super::log_quietly(config) {
        return output.failure("ledger", &chain(&error));
    }
    match command {
        LedgerCommand::Verify(verify) => match &verify.from {
            Some(file) => verify_file(output, config, file, verify.without_token),
            None => verify_database(output, config, verify.open),
        },
        LedgerCommand::Tail(tail) => show_tail(output, config, tail),
        LedgerCommand::Anchor(wanted) => {
            evidence::run(output, config, wanted).unwrap_or_else(|| show_anchor(output, config))
        }
        LedgerCommand::Export(Export { file }) => write_export(output, config, file),
        LedgerCommand::ProposeRestore(wanted) => restore::propose(output, config, wanted),
        LedgerCommand::AcceptRestore(wanted) => restore::accept(output, config, wanted),
    }
}

/// The database, to look at; with the lock where nobody may write meanwhile.
async fn look(config: &Config, held: Option<Held<'_>>) -> Result<Arc<dyn Store>, StartError> {
    Ok(store::look(&config.store.database, held).await?)
}

fn verify_database(output: &Output, config: &Config, open: bool) -> ExitCode {
    const COMMAND: &str = "ledger verify";
    let database = &config.store.database;
    let mode = config.ledger.mode_to_look();
    if let Database::Sqlite(file) = database
        && !file.exists()
    {
        let problem = format!("there is no database in {}", file.display());
        return output.failure(COMMAND, &problem);
    }
    let verified = block_on(async {
        let held = Held::take(database).await?;
        let apps = if open { Some(apps(config)?) } else { None };
        let store = look(config, Some(held)).await?;
        let pool = startup::token(config)?;
        let progress = Arc::new(Progress::default());
        let bar = Bar::show(output, &progress);
        let begun = std::time::Instant::now();
        let report =
            verify::verify(&store, &pool, (&config.realm.name, mode), apps, &progress).await;
        let lasted = begun.elapsed();
        bar.done();
        store.close().await;
        pool.shutdown();
        Ok((report?, lasted))
    });
    match verified {
        Ok((report, lasted)) => output.checks(COMMAND, &lines(&report, lasted)),
        Err(StartError::Store(error)) if error.is_held() => {
            let hint = "a daemon that runs verifies its database itself, over and over: see \
                        custodyd_scrub_findings and custodyd_scrub_clean_time_seconds in its metrics, \
                        and its log; to verify it here, stop the daemon first";
            output.failure(COMMAND, &format!("{}\n{hint}", chain(&error)))
        }
        Err(error) => output.failure(COMMAND, &chain(&error)),
    }
}

fn apps(config: &Config) -> Result<Vec<AppId>, StartError> {
    let policies =
        config::load_policies(&config.policies.directory).map_err(StartError::Policies)?;
    let apps = crate::service::Apps::new(&config.realm.name, policies.apps)?;
    Ok(apps.retention().into_iter().map(|(app, _)| app).collect())
}

fn verify_file(output: &Output, config: &Config, file: &Path, without_token: bool) -> ExitCode {
    const COMMAND: &str = "ledger verify";
    let begun = std::time::Instant::now();
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) => return output.failure(COMMAND, &format!("{}: {error}", file.display())),
    };
    let verified = block_on(async {
        let pool = if without_token {
            None
        } else {
            Some(startup::token(config)?)
        };
        let progress = Arc::new(Progress::default());
        let bar = Bar::show(output, &progress);
        let mut reader = BufReader::with_capacity(1 << 20, opened);
        let report =
            export::verify_file(&mut reader, pool.as_ref(), &config.realm.name, &progress).await;
        bar.done();
        if let Some(pool) = pool {
            pool.shutdown();
        }
        Ok(report)
    });
    match verified {
        Ok(Ok(report)) => {
            let mut lines = lines(&report, begun.elapsed());
            if without_token {
                let what = "nobody has said whether this realm's token made the head";
                lines.push(Line::warn("token", what, "leave out --without-token"));
            }
            output.checks(COMMAND, &lines)
        }
        Ok(Err(error)) => output.failure(COMMAND, &format!("{}: {error}", file.display())),
        Err(error) => output.failure(COMMAND, &chain(&error)),
    }
}

/// What a verification found, the first of it in front, and a summary.
fn lines(report: &Report, lasted: Duration) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(why) = &report.refused {
        lines.push(Line::red(
            "start",
            format!("a daemon would not start on it: {why}"),
            PAGE,
        ));
    }
    let findings = report.findings.listed().iter();
    lines.extend(findings.map(|found| Line::red(found.table, found.evidence.clone(), PAGE)));
    let counts = &report.counts;
    if counts.unopened > 0 {
        lines.push(Line::warn(
            "records",
            format!("no served app opens {} records", counts.unopened),
            "is their app retired, or its policy file missing?",
        ));
    }
    let (seq, size) = report.head.unwrap_or_default();
    let data = json!({
        "seq": seq,
        "size": size,
        "clean": report.is_clean(),
        "findings": report.findings.count(),
        "first": report.first(),
        "counts": counts,
        "seconds": lasted.as_secs_f64(),
    });
    let gone_over = format!(
        "batch {seq}: {} of {size} entries in {} batches, {} bodies ({} rightly deleted), {} records \
         in {} buckets, {} opened, in {:.1} s",
        counts.entries,
        counts.batches,
        counts.bodies,
        counts.deleted_bodies,
        counts.records,
        counts.buckets,
        counts.opened,
        lasted.as_secs_f64()
    );
    let line = match report.first() {
        None => Line::ok("verified", gone_over),
        Some(first) => Line::red_told(
            "verified",
            format!(
                "{} findings, the first: {first} ({gone_over})",
                report.findings.count()
            ),
        ),
    };
    lines.push(line.with_data(data));
    lines
}

fn show_anchor(output: &Output, config: &Config) -> ExitCode {
    const COMMAND: &str = "ledger anchor";
    let mode = config.ledger.mode_to_look();
    let asked = block_on(async {
        let store = look(config, None).await?;
        let pool = startup::token(config)?;
        let standing = verify::standing(&store, &pool, &config.realm.name, mode).await;
        store.close().await;
        pool.shutdown();
        Ok(standing)
    });
    match asked {
        Ok(standing) => output.checks(COMMAND, &anchor_lines(&standing)),
        Err(error) => output.failure(COMMAND, &chain(&error)),
    }
}

fn anchor_lines(standing: &Standing) -> Vec<Line> {
    let token = match &standing.token {
        Ok(Some(anchor)) => {
            let state = match (anchor.clean, anchor.dirty) {
                (true, _) => ", after a clean stop",
                (_, true) => ", and guesses may have been charged after it",
                _ => "",
            };
            let detail = format!("{anchor}, boot epoch {}{state}", anchor.boot_epoch);
            Line::ok("token", detail).with_data(json!({
                "serial": anchor.serial,
                "log_epoch": anchor.log_epoch,
                "seq": anchor.seq,
                "head": hex::encode(anchor.head),
                "boot_epoch": anchor.boot_epoch,
                "clean": anchor.clean,
                "dirty": anchor.dirty,
            }))
        }
        Ok(None) => Line::red("token", "it holds no anchor of this realm", PAGE),
        Err(error) => Line::red("token", error.to_string(), PAGE),
    };
    let host = match &standing.host {
        Ok(None) => None,
        Ok(Some(anchor)) => Some(
            Line::ok(
                "host",
                format!("until it is started anew it remembers more: {anchor}"),
            )
            .with_data(json!({
                "log_epoch": anchor.log_epoch,
                "seq": anchor.seq,
                "head": hex::encode(anchor.head),
            })),
        ),
        Err(error) => Some(Line::red("host", error.to_string(), PAGE)),
    };
    let database = match &standing.database {
        Ok((seq, log_epoch, size)) => Line::ok(
            "database",
            format!("its head is batch {seq} of log epoch {log_epoch}, with {size} log entries"),
        )
        .with_data(json!({ "seq": seq, "log_epoch": log_epoch, "size": size })),
        Err(error) => Line::red("database", error.to_string(), PAGE),
    };
    let relation = match &standing.relation {
        Ok(()) => Line::ok(
            "relation",
            "the database is what is remembered, or descends from it: a daemon starts",
        ),
        Err(LedgerError::Store(error)) => Line::red(
            "relation",
            error.to_string(),
            "see whether the database can be read",
        ),
        Err(error) => Line::red("relation", error.to_string(), PAGE),
    };
    let claims = standing.claims.iter().map(|claim| {
        let detail = restore::told(claim);
        Line::ok("anchor", detail).with_data(json!(claim))
    });
    [token]
        .into_iter()
        .chain(claims)
        .chain(host)
        .chain([database, relation])
        .collect()
}

fn show_tail(output: &Output, config: &Config, tail: &Tail) -> ExitCode {
    const COMMAND: &str = "ledger tail";
    let shown = block_on(async {
        let store = look(config, None).await?;
        let size = verify::size(&store, &config.realm.name).await?;
        let mut next = size.saturating_sub(tail.entries);
        let entries = verify::tail(&store, next, size - next).await?;
        next = size;
        if !tail.follow {
            store.close().await;
            return Ok(entries);
        }
        entries.iter().for_each(|entry| told(output, entry));
        loop {
            for entry in verify::tail(&store, next, 1024).await? {
                told(output, &entry);
                next = entry.index + 1;
            }
            tokio::time::sleep(FOLLOWED).await;
        }
    });
    match shown {
        Ok(entries) => {
            let mut lines: Vec<String> = entries.iter().map(line).collect();
            lines.push("as the database has them; `custodyd ledger verify` verifies them".into());
            output.done(COMMAND, &json!({ "entries": entries }), &lines)
        }
        Err(error) => output.failure(COMMAND, &chain(&error)),
    }
}

fn named(tokens: &[String]) -> String {
    match tokens.is_empty() {
        true => "one without a name".to_owned(),
        false => tokens.join(" and "),
    }
}

/// One entry at once, for whoever follows.
fn told(output: &Output, entry: &Entry) {
    output.entry(&json!(entry), &line(entry));
}

fn line(entry: &Entry) -> String {
    let mut line = format!("{:>8}  {:<9}", entry.index, entry.kind);
    if let (Some(seq), Some(time)) = (entry.seq, entry.time) {
        line.push_str(&format!("  batch {seq}  {}", clock::shown(time)));
    }
    if let (Some(version), Some(configuration)) = (&entry.version, &entry.configuration) {
        line.push_str(&format!(
            "  custodyd {version}, configuration {configuration:.16}"
        ));
    }
    if let Some(change) = &entry.tokens {
        line.push_str(&format!(
            ", tokens from {} to {}",
            named(&change.before),
            named(&change.after)
        ));
    }
    if let Some(change) = &entry.keys {
        let before = change.before.accepted().map(|key| key.to_string());
        let after = change.after.accepted().map(|key| key.to_string());
        let (before, after): (Vec<String>, Vec<String>) = (before.collect(), after.collect());
        for key in after.iter().filter(|key| !before.contains(key)) {
            line.push_str(&format!(", {key} is in use"));
        }
        for key in before.iter().filter(|key| !after.contains(key)) {
            line.push_str(&format!(", {key} is retired"));
        }
    }
    if let Some(statement) = &entry.statement {
        let approvals = entry.approvals.len();
        line.push_str(&format!("  {approvals} approvals of\n{statement}"));
    }
    if !entry.repaired.is_empty() {
        line.push_str(&format!(", repaired: {}", entry.repaired.join(", ")));
    }
    line.trim_end().to_owned()
}

fn write_export(output: &Output, config: &Config, path: &Path) -> ExitCode {
    const COMMAND: &str = "ledger export";
    let file = match private_file::create(path) {
        Ok(file) => file,
        Err(error) => return output.failure(COMMAND, &error.to_string()),
    };
    let written = block_on(async {
        let store = look(config, None).await?;
        let progress = Arc::new(Progress::default());
        let bar = Bar::show(output, &progress);
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let written = export::export(&store, &config.realm.name, &mut writer, &progress).await;
        bar.done();
        store.close().await;
        Ok(written.and_then(|entries| {
            writer.flush()?;
            writer.get_ref().sync_all()?;
            Ok(entries)
        }))
    });
    let problem = match written {
        Ok(Ok(entries)) => {
            let line = format!("{entries} log entries are in {}", path.display());
            let answer = json!({ "entries": entries, "file": path });
            return output.done(COMMAND, &answer, &[line]);
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => chain(&error),
    };
    let _ = std::fs::remove_file(path);
    output.failure(COMMAND, &problem)
}

/// How far it is, on a terminal.
struct Bar(Option<(ProgressBar, tokio::task::JoinHandle<()>)>);

impl Bar {
    fn show(output: &Output, progress: &Arc<Progress>) -> Self {
        if output.is_json() || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} %  {eta} left") {
            bar.set_style(style);
        }
        let task = tokio::spawn({
            let (bar, progress) = (bar.clone(), Arc::clone(progress));
            async move {
                loop {
                    let (done, total) = progress.seen();
                    bar.set_length(total);
                    bar.set_position(done);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        Self(Some((bar, task)))
    }

    fn done(self) {
        if let Some((bar, task)) = self.0 {
            task.abort();
            bar.finish_and_clear();
        }
    }
}
