//! Tests of the policy parser: what is accepted, and the exact words and places of what is not.
//! Called by the test harness only; must never be compiled into a build.

use std::time::Duration;

use super::*;
use crate::app::{PinPolicy, Release, ServerSlot, Sessions, UnknownDevice};
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
    let general = ("*".to_owned(), vec![Factor::Pin, Factor::Passkey]);
    assert_eq!(policy.release, Release([general].into()));
}

#[test]
fn the_demo_file_stands_at_the_defaults_as_it_says() -> Result<(), Vec<PolicyError>> {
    let demo = parse("demo.toml", DEMO)?;
    let plain = minimal_policy();
    assert_eq!(demo.sessions, plain.sessions);
    assert_eq!(demo.pin, plain.pin);
    assert_eq!(demo.passkeys, plain.passkeys);
    assert_eq!(demo.devices, plain.devices);
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
    assert_eq!(strict.devices.unknown, UnknownDevice::Passkey);
    assert_eq!(strict.passkeys.max_idle, Duration::from_secs(30 * 86_400));
    assert!(strict.sessions.absolute < demo.sessions.absolute);
    assert!(strict.sessions.read_only_absolute < demo.sessions.read_only_absolute);
    assert!(strict.pin.rounds.total() < demo.pin.rounds.total());
    assert!(strict.pin.min_length > demo.pin.min_length);
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
