//! Properties of the parser over arbitrary and mutated files, and the fixtures that several test modules share.
//! Called by the test harness only; must never be compiled into a build.
#![allow(clippy::expect_used)] // a fixture that does not parse must stop the test that uses it

use std::ops::RangeInclusive;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;

use crate::app::{AppPolicy, LinkTemplate};
use crate::bounds;
use crate::factor::Factor;
use crate::origin;
use crate::parse::{PolicyError, parse};
use crate::release::is_secret_name;
use crate::rounds::Rounds;

pub(crate) const DEMO: &str = include_str!("../apps/demo.toml");
pub(crate) const STRICT: &str = include_str!("../apps/strict.toml");

/// Only what has no default; six lines, the last one empty.
pub(crate) const MINIMAL: &str =
    "app = \"demo\"\norigins = [\"https://app.example\"]\nrelying_party.id = \"app.example\"\n\n\n";

pub(crate) fn minimal_policy() -> AppPolicy {
    parse("minimal.toml", MINIMAL).expect("the minimal policy is right")
}

/// One change to a file: what the mutations below are made of.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, String),
    Delete(Index, usize),
    SwapLines(Index, Index),
    Value(Index, String),
}

fn edit() -> impl Strategy<Value = Edit> {
    let value = prop_oneof![
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("\"*\"".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        (0..100_000_u64).prop_map(|number| number.to_string()),
        (0..200_u32, "[smhdwMy]|ms").prop_map(|(number, unit)| format!("\"{number}{unit}\"")),
        "\"\\PC{0,8}\"",
        "\\[\\{ attempts = [0-9]{1,3} \\}, \\{ attempts = [0-9]{1,2}, wait = \"[0-9]{1,3}m\" \\}\\]",
    ];
    prop_oneof![
        (any::<Index>(), ".{0,4}").prop_map(|(at, text)| Edit::Replace(at, text)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Edit::Delete(at, length)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Edit::SwapLines(one, other)),
        (any::<Index>(), value.clone()).prop_map(|(line, value)| Edit::Value(line, value)),
        (any::<Index>(), value).prop_map(|(line, value)| Edit::Value(line, value)),
    ]
}

fn mutated(text: &str, edits: &[Edit]) -> String {
    let mut text = text.to_owned();
    for edit in edits {
        text = apply(&text, edit);
    }
    text
}

fn apply(text: &str, edit: &Edit) -> String {
    let chars: Vec<char> = text.chars().collect();
    // Comments are most of a shipped file; lines are counted without them, so that an edit hits a setting.
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    match edit {
        Edit::Replace(at, with) => {
            let at = at.index(chars.len() + 1);
            let (before, after) = chars.split_at(at);
            let after = after.get(1..).unwrap_or_default();
            before
                .iter()
                .chain(&with.chars().collect::<Vec<_>>())
                .chain(after)
                .collect()
        }
        Edit::Delete(at, length) => {
            let at = at.index(chars.len() + 1);
            let kept = chars.iter().enumerate();
            kept.filter(|(i, _)| *i < at || *i >= at + length)
                .map(|(_, c)| c)
                .collect()
        }
        Edit::SwapLines(one, other) if !lines.is_empty() => {
            let length = lines.len();
            lines.swap(one.index(length), other.index(length));
            lines.join("\n")
        }
        Edit::Value(line, value) => {
            let settings = lines.iter().enumerate().filter(|(_, l)| l.contains(" = "));
            let settings: Vec<usize> = settings.map(|(number, _)| number).collect();
            let chosen = (!settings.is_empty()).then(|| settings.get(line.index(settings.len())));
            let changed = lines
                .iter()
                .enumerate()
                .map(|(number, l)| match l.split_once(" = ") {
                    Some((key, _)) if chosen == Some(Some(&number)) => format!("{key} = {value}"),
                    _ => (*l).to_owned(),
                });
            changed.collect::<Vec<_>>().join("\n")
        }
        Edit::SwapLines(..) => text.to_owned(),
    }
}

fn held<T: PartialOrd + std::fmt::Debug>(
    what: &str,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<(), TestCaseError> {
    prop_assert!(
        bounds.contains(&value),
        "{what}: {value:?} not in {bounds:?}"
    );
    Ok(())
}

/// Everything that a caller may rely on in a policy that came through the parser.
fn within_bounds(policy: &AppPolicy) -> Result<(), TestCaseError> {
    let (s, p, k) = (&policy.sessions, &policy.pin, &policy.passkeys);
    held("idle", s.idle, &bounds::SESSION_IDLE)?;
    held("absolute", s.absolute, &bounds::SESSION_ABSOLUTE)?;
    held("fresh", s.fresh, &bounds::FRESH)?;
    held("read_only_idle", s.read_only_idle, &bounds::READ_ONLY_IDLE)?;
    held(
        "read_only_absolute",
        s.read_only_absolute,
        &bounds::READ_ONLY_ABSOLUTE,
    )?;
    prop_assert!(s.idle <= s.absolute && s.fresh <= s.absolute);
    prop_assert!(s.read_only_idle <= s.read_only_absolute);
    held("min_length", p.min_length, &bounds::PIN_LENGTH)?;
    held("memory_kib", p.memory_kib, &bounds::PIN_MEMORY_KIB)?;
    held("passes", p.passes, &bounds::PIN_PASSES)?;
    held("lanes", p.lanes, &bounds::PIN_LANES)?;
    let cost = u64::from(p.memory_kib) * u64::from(p.passes);
    prop_assert!(cost >= bounds::PIN_MEMORY_TIMES_PASSES);
    prop_assert!(p.opaque || p.argon2id || !p.allowed);
    prop_assert_eq!(p.ksf.accepts(&p.ksf), Ok(()));
    held("ceremony", p.ceremony, &bounds::CEREMONY)?;
    held("max_age", k.max_age, &bounds::PASSKEY_AGE)?;
    held("max_idle", k.max_idle, &bounds::PASSKEY_IDLE)?;
    prop_assert!(k.max_idle <= k.max_age);
    held("passkeys", k.max_per_account, &bounds::PASSKEYS)?;
    held("ceremony", k.ceremony, &bounds::CEREMONY)?;
    held("devices", policy.devices.max_per_account, &bounds::DEVICES)?;
    held("max_count", policy.secrets.max_count, &bounds::SECRETS)?;
    held("max_bytes", policy.secrets.max_bytes, &bounds::SECRET_BYTES)?;
    prop_assert!(policy.secrets.max_count * policy.secrets.max_bytes <= bounds::ALL_SECRETS_BYTES);
    budgets(policy)?;
    codes_and_people(policy)?;
    release_and_identity(policy)
}

fn budgets(policy: &AppPolicy) -> Result<(), TestCaseError> {
    let strangers = policy.devices.stranger_pin.as_ref();
    let all = [
        &policy.pin.rounds,
        &policy.totp.rounds,
        &policy.delivered_codes.rounds,
        &policy.recovery_codes.rounds,
    ];
    for rounds in all.into_iter().chain(strangers) {
        let checked = Rounds::new(rounds.as_slice().to_vec());
        prop_assert_eq!(checked.as_ref(), Ok(rounds));
        for round in rounds.as_slice().iter().skip(1) {
            held("wait", round.wait, &bounds::ROUND_WAIT)?;
        }
    }
    if let Some(rounds) = strangers {
        prop_assert!(policy.pin.allowed);
        held(
            "strangers",
            rounds.total(),
            &(1..=bounds::STRANGER_ATTEMPTS),
        )?;
    }
    Ok(())
}

fn codes_and_people(policy: &AppPolicy) -> Result<(), TestCaseError> {
    let (t, d, r) = (&policy.totp, &policy.delivered_codes, &policy.retention);
    held("totp digits", t.digits, &bounds::TOTP_DIGITS)?;
    held("period", t.period, &bounds::TOTP_PERIOD)?;
    held("window", t.window, &bounds::TOTP_WINDOW)?;
    held("expiry", d.expiry, &bounds::CODE_EXPIRY)?;
    held("digits", d.digits, &bounds::CODE_DIGITS)?;
    held("interval", d.interval, &bounds::CODE_INTERVAL)?;
    held("per_day", d.per_day, &bounds::CODES_PER_DAY)?;
    if let Some(link) = &d.link {
        let (place, filled) = (LinkTemplate::PLACE, link.with("1"));
        prop_assert_eq!(link.as_str().matches(place).count(), 1);
        let on_app = |origin: &String| filled.starts_with(origin.as_str());
        prop_assert!(policy.origins.iter().any(on_app));
    }
    let c = &policy.contacts;
    held("contacts", c.max_per_account, &bounds::CONTACTS)?;
    prop_assert!(!d.allowed || !c.channels.is_empty());
    held("aliases", policy.aliases.max_per_account, &bounds::ALIASES)?;
    held("delay", policy.recover.delay, &bounds::RECOVER_DELAY)?;
    let recover = policy.recover.by.iter();
    prop_assert!(recover.clone().all(|f| policy.allows(*f)));
    prop_assert!(recover.clone().all(|f| Factor::LOGINS.contains(f)));
    let e = &policy.enrolment;
    held("quota", e.quota_per_hour, &bounds::ENROLMENT_QUOTA)?;
    held("tickets", e.tickets.len(), &bounds::TICKET_KEYS)?;
    prop_assert!(
        e.tickets
            .iter()
            .all(|key| key.x.len() == 43 && key.y.len() == 43)
    );
    let credentials = policy.backend.credentials.len();
    held("credentials", credentials, &bounds::BACKEND_CREDENTIALS)?;
    held("events", r.events, &bounds::EVENTS)?;
    held(
        "inactive",
        r.inactive.unwrap_or(r.events),
        &bounds::INACTIVE,
    )?;
    prop_assert!(Factor::LOGINS.iter().any(|f| policy.allows(*f)));
    Ok(())
}

fn release_and_identity(policy: &AppPolicy) -> Result<(), TestCaseError> {
    prop_assert!(policy.release.0.contains_key("*"));
    for (name, factors) in &policy.release.0 {
        prop_assert!(name == "*" || is_secret_name(name));
        prop_assert!(!factors.contains(&Factor::Creation));
        prop_assert!(factors.iter().all(|f| policy.allows(*f)));
        let weak = |f: &Factor| matches!(f, Factor::Totp | Factor::DeliveredCode);
        let slot = policy.secrets.server_slot.is_released();
        prop_assert!(slot || !factors.iter().any(weak));
    }
    held("app", policy.app.len(), &(1..=32))?;
    for name in [&policy.display_name, &policy.relying_party.name] {
        held("name", name.chars().count(), &bounds::NAME_CHARS)?;
    }
    held("origins", policy.origins.len(), &bounds::ORIGINS)?;
    let party = &policy.relying_party;
    for origin in &policy.origins {
        let related = party.related_origins.contains(origin);
        let host = origin::host_of_origin(origin);
        prop_assert!(host.is_ok_and(|host| origin::covers(&party.id, host) != related));
    }
    Ok(())
}

fn check(text: &str, parsed: Result<AppPolicy, Vec<PolicyError>>) -> Result<(), TestCaseError> {
    let errors = match parsed {
        Ok(policy) => return within_bounds(&policy),
        Err(errors) => errors,
    };
    prop_assert!(!errors.is_empty());
    let lines = text.split('\n').count();
    for error in &errors {
        prop_assert!(error.line >= 1 && error.line <= lines);
        prop_assert!(error.column >= 1);
        prop_assert!(!error.to_string().contains(char::is_control));
    }
    prop_assert!(
        errors
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.line <= b.line))
    );
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,400}") {
        check(&text, parse("any.toml", &text))?;
    }

    #[test]
    fn text_that_looks_like_toml_never_panics(text in "([a-z\"'.=\\[\\]{}0-9#, \n]|rounds|pin|\"15m\"){0,120}") {
        check(&text, parse("any.toml", &text))?;
    }

    #[test]
    fn mutated_files_are_refused_or_within_bounds(
        strict in any::<bool>(),
        edits in prop::collection::vec(edit(), 1..4),
    ) {
        let text = mutated(if strict { STRICT } else { DEMO }, &edits);
        check(&text, parse("mutated.toml", &text))?;
    }
}

/// The property above says something only if a good share of the mutated files still parses.
#[test]
fn some_mutated_values_are_accepted_and_some_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..400 {
        let tree = edit()
            .new_tree(&mut runner)
            .expect("the strategy never rejects");
        let text = mutated(DEMO, &[tree.current()]);
        match parse("mutated.toml", &text) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        accepted > 20 && refused > 20,
        "{accepted} accepted, {refused} refused"
    );
}
