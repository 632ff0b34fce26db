//! From the rounds to figures: medians, a table for people, a file for programs.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Round;
use crate::load::Measured;
use crate::plot::Bars;

/// One object of `figures.json`.
#[derive(Debug)]
pub(crate) struct Figure {
    name: Cow<'static, str>,
    value: f64,
    unit: &'static str,
    /// The figure of the same file that this one is compared with, and what that gives.
    beside: Option<(Cow<'static, str>, f64)>,
    note: &'static str,
}

impl Figure {
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        value: f64,
        unit: &'static str,
        note: &'static str,
    ) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            beside: None,
            note,
        }
    }

    pub(crate) fn beside(self, reference: impl Into<Cow<'static, str>>, ratio: f64) -> Self {
        Self {
            beside: Some((reference.into(), ratio)),
            ..self
        }
    }
}

type Of = fn(&Round) -> f64;

/// The necessary parts of a passkey recovery, in microseconds of CPU, and how often each is
/// in it. The times are counted from the code. Token: the record's identifier, one derivation
/// to open it, one to seal it (keys of ceremonies and sessions are kept for a day). TLS and
/// DPoP: options and login.
const PARTS: [(&str, f64, Of); 5] = [
    ("part_assertion_cpu", 1.0, |r| r.assertion.micros()),
    ("part_token_cpu", 3.0, |r| r.token.micros()),
    ("part_tls_cpu", 2.0, |r| r.tls.micros()),
    ("part_dpop_cpu", 2.0, |r| r.dpop.micros()),
    ("part_commit_cpu", 1.0, |r| r.commit.micros()),
];

const MICROS: &str = "us CPU";
const RATE: &str = "1/s";
const CPU_RATE: &str = "1/CPU-s";

/// Name, unit, what it is in one round, and a word on it.
const FIGURES: [(&str, &str, Of, &str); 20] = [
    (
        "passkey_over_parts",
        "ratio",
        passkey_over_parts,
        "aim: at most 1.6",
    ),
    (
        "argon2_pin_over_bare",
        "ratio",
        pin_over_bare,
        "aim: at least 0.95",
    ),
    (
        "passkey_per_second",
        RATE,
        |r| r.passkey.sample.per_second(),
        "clients on the same cores",
    ),
    (
        "passkey_per_cpu_second",
        CPU_RATE,
        |r| r.passkey.sample.per_cpu_second(),
        "of the server",
    ),
    (
        "pin_per_second",
        RATE,
        |r| r.pin.sample.per_second(),
        "clients on the same cores",
    ),
    (
        "pin_per_cpu_second",
        CPU_RATE,
        |r| r.pin.sample.per_cpu_second(),
        "of the server",
    ),
    (
        "totp_per_cpu_second",
        CPU_RATE,
        |r| r.totp.sample.per_cpu_second(),
        "of the server",
    ),
    (
        "code_per_cpu_second",
        CPU_RATE,
        |r| r.code.sample.per_cpu_second(),
        "of the server",
    ),
    (
        "totp_cpu",
        MICROS,
        |r| r.totp.sample.micros(),
        "of the server",
    ),
    (
        "code_cpu",
        MICROS,
        |r| r.code.sample.micros(),
        "of the server, asking and sending included",
    ),
    (
        "token_per_second",
        RATE,
        |r| r.token.per_second(),
        "HMAC in the token, all cores",
    ),
    (
        "token_per_cpu_second",
        CPU_RATE,
        |r| r.token.per_cpu_second(),
        "",
    ),
    (
        "token_pool_per_cpu_second",
        CPU_RATE,
        |r| r.pool.per_cpu_second(),
        "through the pool",
    ),
    (
        "tls_per_second",
        RATE,
        |r| r.tls.per_second(),
        "GET jwks.json, kept alive",
    ),
    (
        "tls_per_cpu_second",
        CPU_RATE,
        |r| r.tls.per_cpu_second(),
        "of the server",
    ),
    (
        "argon2_per_second",
        RATE,
        |r| r.argon2.per_second(),
        "bare, all cores",
    ),
    (
        "argon2_per_cpu_second",
        CPU_RATE,
        |r| r.argon2.per_cpu_second(),
        "bare",
    ),
    (
        "commit_batch",
        "changes",
        |r| r.batch,
        "per transaction, passkey load",
    ),
    (
        "passkey_cpu",
        MICROS,
        |r| r.passkey.sample.micros(),
        "of the server, options included",
    ),
    (
        "passkey_parts_cpu",
        MICROS,
        sum_of_parts,
        "sum of the parts below, times as noted",
    ),
];

/// Which figure is compared with which, and how.
const BESIDE: [(&str, &str, Of); 6] = [
    (
        "passkey_over_parts",
        "passkey_parts_cpu",
        passkey_over_parts,
    ),
    (
        "argon2_pin_over_bare",
        "argon2_per_cpu_second",
        pin_over_bare,
    ),
    ("passkey_cpu", "passkey_parts_cpu", passkey_over_parts),
    ("pin_per_cpu_second", "argon2_per_cpu_second", pin_over_bare),
    ("passkey_per_cpu_second", "tls_per_cpu_second", |r| {
        r.passkey.sample.per_cpu_second() / r.tls.per_cpu_second()
    }),
    ("token_pool_per_cpu_second", "token_per_cpu_second", |r| {
        r.pool.per_cpu_second() / r.token.per_cpu_second()
    }),
];

fn sum_of_parts(round: &Round) -> f64 {
    PARTS.iter().map(|(_, times, of)| times * of(round)).sum()
}

fn passkey_over_parts(round: &Round) -> f64 {
    round.passkey.sample.micros() / sum_of_parts(round)
}

fn pin_over_bare(round: &Round) -> f64 {
    round.pin.sample.per_cpu_second() / round.argon2.per_cpu_second()
}

pub(crate) fn figures(rounds: &[Round]) -> Vec<Figure> {
    let figure = |name: &'static str, unit, value, note| Figure {
        name: name.into(),
        value,
        unit,
        beside: BESIDE
            .iter()
            .find(|(of, ..)| *of == name)
            .map(|(_, reference, ratio)| ((*reference).into(), median(rounds, *ratio))),
        note,
    };
    let mut figures: Vec<Figure> = FIGURES
        .iter()
        .map(|(name, unit, of, note)| figure(name, unit, median(rounds, *of), note))
        .collect();
    for (name, _, of) in &PARTS {
        figures.push(figure(name, MICROS, median(rounds, *of), "one of them"));
    }
    let note = "16 clients, client time included";
    for (name, share, of) in [
        (
            "passkey_latency_p50",
            0.50,
            passkeys as fn(&Round) -> &Measured,
        ),
        ("passkey_latency_p99", 0.99, passkeys),
        ("pin_latency_p50", 0.50, pins),
        ("pin_latency_p99", 0.99, pins),
        ("totp_latency_p50", 0.50, |r: &Round| &r.totp),
        ("totp_latency_p99", 0.99, |r: &Round| &r.totp),
        // Asking waits for the strangers' deadline: it is answered alike to everybody.
        ("code_latency_p50", 0.50, |r: &Round| &r.code),
        ("code_latency_p99", 0.99, |r: &Round| &r.code),
    ] {
        let mut all: Vec<f64> = rounds
            .iter()
            .flat_map(|round| of(round).latencies.iter().copied())
            .collect();
        all.sort_by(f64::total_cmp);
        let at = (all.len() as f64 * share) as usize;
        figures.push(figure(name, "ms", all[at.min(all.len() - 1)], note));
    }
    figures
}

fn passkeys(round: &Round) -> &Measured {
    &round.passkey
}

fn pins(round: &Round) -> &Measured {
    &round.pin
}

pub(crate) fn median(rounds: &[Round], of: Of) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn list(figures: &[Figure]) {
    println!(
        "\n{:<34}{:>10} {:<8} {:<40}",
        "figure", "median", "unit", "note"
    );
    for figure in figures {
        let ratio = match &figure.beside {
            Some((reference, ratio)) => format!("  [{ratio:.2} of {reference}]"),
            None => String::new(),
        };
        let (name, value, unit, note) = (&figure.name, figure.value, figure.unit, figure.note);
        println!("{name:<34}{value:>10.2} {unit:<8} {note}{ratio}");
    }
}

pub(crate) fn table(rounds: &[Round], figures: &[Figure]) {
    list(figures);
    println!("\nServer CPU of one passkey recovery, in microseconds (medians):");
    for (name, times, of) in &PARTS {
        let each = median(rounds, *of);
        println!("{name:<27}{each:>10.1} x {times} = {:>8.1}", each * times);
    }
    let rest = |round: &Round| round.passkey.sample.micros() - sum_of_parts(round);
    println!("{:<27}{:>25.1}", "everything else", median(rounds, rest));
    println!(
        "{:<27}{:>25.1}",
        "together",
        median(rounds, |r| r.passkey.sample.micros())
    );
    println!("\nBy round:   passkey_over_parts   argon2_pin_over_bare");
    for round in rounds {
        println!(
            "{:>30.2}{:>23.3}",
            passkey_over_parts(round),
            pin_over_bare(round)
        );
    }
}

/// The same as bars: the parts as often as they are in a recovery, and the rest.
pub(crate) fn plot(rounds: &[Round]) {
    const WORDS: [&str; PARTS.len()] = [
        "verifying the assertion",
        "the token, three times",
        "TLS and HTTP, twice",
        "DPoP, twice",
        "its share of a commit",
    ];
    let mut rows: Vec<(String, f64)> = (PARTS.iter().zip(WORDS))
        .map(|((_, times, of), word)| (word.to_owned(), times * median(rounds, *of)))
        .collect();
    let rest = |round: &Round| round.passkey.sample.micros() - sum_of_parts(round);
    rows.push(("everything else".to_owned(), median(rounds, rest)));
    let bars = Bars {
        title: "A passkey recovery by part",
        unit: "µs of the server's CPU",
        rows,
    };
    bars.write("parts");
}

/// Writes `target/bench/figures.json` of the checkout and returns where that is.
pub(crate) fn write(figures: &[Figure]) -> PathBuf {
    let path = directory().join("figures.json");
    let objects: Vec<Value> = figures.iter().map(object).collect();
    let text = serde_json::to_string_pretty(&objects).unwrap();
    std::fs::write(&path, text + "\n").unwrap();
    path
}

/// Where figures, tables and plots go.
pub(crate) fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&directory).unwrap();
    directory.canonicalize().unwrap()
}

fn object(figure: &Figure) -> Value {
    json!({
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "reference": figure.beside.as_ref().map(|(reference, _)| reference),
        "ratio": figure.beside.as_ref().map(|(_, ratio)| ratio),
    })
}
