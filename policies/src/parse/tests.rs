//! Tests of the policy parser: what is accepted, and the exact words and places of what is not.
//! Called by the test harness only; must never be compiled into a build.

use std::time::Duration;

use super::*;
use crate::app::{
    Backend, Contacts, DeliveredCodes, Enrolment, PinPolicy, RecoveryCodes, Release, Retention,
    ServerSlot, Sessions, Totp, UnknownDevice,
};
use crate::factor::Factor;
use crate::properties::{DEMO, MINIMAL, STRICT, minimal_policy};

/// All mistakes in `text`, as shown.
pub(super) fn refused(text: &str) -> Vec<String> {
    match parse("demo.toml", text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_minimal_file_gives_every_default() {
    let policy = minimal_policy();
    assert_eq!(policy.app, "demo");
    assert_eq!(policy.display_name, "demo");
    assert_eq!(policy.relying_party.name, "demo");
    assert_eq!(policy.sessions, Sessions::default());
    assert_eq!(policy.pin, PinPolicy::default());
    let strong = vec![Factor::Pin, Factor::Passkey, Factor::RecoveryCode];
    assert_eq!(policy.release, Release([("*".to_owned(), strong)].into()));
    assert_eq!(policy.recover.by, Factor::LOGINS);
    assert_eq!(policy.recover.delay, Duration::ZERO);
    assert_eq!(policy.totp, Totp::default());
    assert_eq!(policy.delivered_codes, DeliveredCodes::default());
    assert_eq!(policy.recovery_codes, RecoveryCodes::default());
    assert_eq!(policy.contacts, Contacts::default());
    assert_eq!(policy.devices.code, UnknownDevice::ThenPin);
    assert_eq!(policy.devices.stranger_pin, None);
    assert_eq!(policy.enrolment, Enrolment::default());
    assert_eq!(policy.backend, Backend::default());
    assert_eq!(policy.retention, Retention::default());
}

#[test]
fn the_demo_file_stands_at_the_defaults_as_it_says() -> Result<(), Vec<PolicyError>> {
    let demo = parse("demo.toml", DEMO)?;
    let plain = minimal_policy();
    assert_eq!(demo.sessions, plain.sessions);
    assert_eq!(demo.pin, plain.pin);
    assert_eq!(demo.passkeys, plain.passkeys);
    assert_eq!(demo.totp, plain.totp);
    assert_eq!(demo.delivered_codes, plain.delivered_codes);
    assert_eq!(demo.recovery_codes, plain.recovery_codes);
    assert_eq!(demo.contacts, plain.contacts);
    assert_eq!(demo.aliases, plain.aliases);
    assert_eq!(demo.devices, plain.devices);
    assert_eq!(demo.recover, plain.recover);
    assert_eq!(demo.backend, plain.backend);
    assert_eq!(demo.retention, plain.retention);
    assert_eq!(demo.release.0.get("*"), plain.release.0.get("*"));
    assert_eq!(demo.secrets, plain.secrets);
    assert_eq!(demo.enrolment, plain.enrolment);
    assert_eq!(
        demo.origins,
        ["https://localhost:8443", "http://localhost:8080"]
    );
    let names: Vec<_> = demo.release.0.keys().map(String::as_str).collect();
    assert_eq!(names, ["*", "app-key", "device-secret"]);
    Ok(())
}

#[test]
fn the_strict_file_is_stricter_throughout() -> Result<(), Vec<PolicyError>> {
    let (strict, demo) = (parse("strict.toml", STRICT)?, parse("demo.toml", DEMO)?);
    assert_eq!(strict.secrets.server_slot, ServerSlot::Forbidden);
    assert_eq!(strict.devices.code, UnknownDevice::Refused);
    assert!(!strict.enrolment.open && !strict.enrolment.tickets.is_empty());
    assert!(strict.recover.delay > demo.recover.delay);
    assert!(strict.delivered_codes.expiry < demo.delivered_codes.expiry);
    assert!(strict.delivered_codes.per_day < demo.delivered_codes.per_day);
    assert_eq!(strict.passkeys.max_idle, Duration::from_secs(30 * 86_400));
    assert!(strict.sessions.absolute < demo.sessions.absolute);
    assert!(strict.sessions.read_only_absolute < demo.sessions.read_only_absolute);
    assert!(strict.pin.rounds.total() < demo.pin.rounds.total());
    assert!(strict.pin.min_length > demo.pin.min_length);
    assert!(strict.pin.opaque && !strict.pin.argon2id);
    assert_eq!(demo.pin.ksf.accepts(&strict.pin.ksf), Ok(()));
    assert!(strict.pin.ksf.accepts(&demo.pin.ksf).is_err());
    Ok(())
}

#[test]
fn a_mistake_is_shown_with_its_place() {
    let text = format!("{MINIMAL}\n[sessions]\n  idle = \"quarter\"\n");
    assert_eq!(
        refused(&text),
        ["demo.toml:8:10: sessions.idle: expected a duration such as \"15m\", found \"quarter\""]
    );
}

#[test]
fn columns_count_characters() {
    let text = "app = 'é' ; x";
    let place = parse("p", text).map_err(|errors| errors.first().map(|e| (e.line, e.column)));
    assert_eq!(place.err(), Some(Some((1, 11))));
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let text = "app = \"Demo\"\norigins = [\"https://a.example/\", \"https://b.example\"]\n\
                colour = 1\n[pin]\nmin_length = 3\npasses = true\n[relying_party]\nid = \"c.example\"\n";
    let found = refused(text);
    let places: Vec<_> = found
        .iter()
        .map(|error| error.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        places,
        [
            "demo.toml:1:7",
            "demo.toml:2:12",
            "demo.toml:3:1",
            "demo.toml:5:14",
            "demo.toml:6:10",
            "demo.toml:8:6"
        ]
    );
}

#[test]
fn an_empty_file_says_what_is_needed() {
    assert_eq!(
        refused(""),
        [
            "demo.toml:1:1: app: missing, expected the identifier of the app, such as \"demo\"",
            "demo.toml:1:1: origins: missing, expected the exact origins of the app, such as \
             [\"https://app.example\"]",
            "demo.toml:1:1: relying_party.id: missing, expected the domain that passkeys belong to, \
             such as \"app.example\""
        ]
    );
}

/// The lines that the reference file shows as comments are right ones: an operator will take them as they are.
#[test]
fn what_the_demo_file_shows_as_comments_is_accepted() {
    for start in ["link = ", "stranger_pin = ", "inactive = "] {
        let shown = DEMO.replace(&format!("#{start}"), start);
        assert_ne!(shown, DEMO, "{start}");
        assert_eq!(refused(&shown), [""; 0]);
    }
    let commented = "#tickets = [\n#  {";
    assert!(DEMO.contains(commented));
    let shown = DEMO
        .replace(commented, "tickets = [\n  {")
        .replace("#]\ntickets = []", "]");
    assert_eq!(refused(&shown), [""; 0]);
}

#[test]
fn hashes_and_keys_come_through() -> Result<(), Vec<PolicyError>> {
    let strict = parse("strict.toml", STRICT)?;
    let kids: Vec<_> = strict
        .enrolment
        .tickets
        .iter()
        .map(|key| key.kid.as_str())
        .collect();
    assert_eq!(kids, ["2026-01"]);
    let digits = "000102030405060708090a0b0c0d0e0fF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF";
    let text = format!("{MINIMAL}\n[backend]\ncredentials_sha256 = [\"{digits}\"]");
    let credentials = parse("demo.toml", &text)?.backend.credentials;
    let expected: [u8; 32] = std::array::from_fn(|at| {
        let byte = u8::try_from(at).unwrap_or_default();
        if byte < 16 { byte } else { 0xe0 + byte }
    });
    assert_eq!(credentials, [expected]);
    Ok(())
}

#[test]
fn a_link_is_filled_in() -> Result<(), Vec<PolicyError>> {
    let link = parse("strict.toml", STRICT)?.delivered_codes.link;
    let filled = link.map(|template| template.with("K7QF-1"));
    let expected = "https://bank.example/recover#code=K7QF-1";
    assert_eq!(filled.as_deref(), Some(expected));
    Ok(())
}

#[test]
fn what_is_exactly_at_a_bound_is_accepted() {
    let mut file = format!("{MINIMAL}\n#");
    file.push_str(&"x".repeat(bounds::FILE_BYTES - file.len()));
    assert_eq!(refused(&file), [""; 0]);
    file.push('x');
    assert_eq!(refused(&file).len(), 1);
    let secrets = |count: usize| {
        let bytes = bounds::ALL_SECRETS_BYTES / 6;
        refused(&format!(
            "{MINIMAL}\n[secrets]\nmax_count = {count}\nmax_bytes = {bytes}"
        ))
    };
    assert_eq!(secrets(6), [""; 0]);
    assert_eq!(secrets(7).len(), 1);
}

#[test]
fn a_mistake_is_shown_where_its_value_begins() {
    let lines = MINIMAL.lines().count();
    let shown = refused(&format!(
        "{MINIMAL}\n[secrets]\nmax_count = 64\nmax_bytes = 65536"
    ));
    let line = lines + if MINIMAL.ends_with('\n') { 4 } else { 3 };
    assert!(
        shown
            .iter()
            .any(|text| text.starts_with(&format!("demo.toml:{line}:13:"))),
        "{shown:?}, expected line {line}"
    );
}
