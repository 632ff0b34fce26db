//! Tests of the policy parser: each setting, wrong in each way, and the words that say so.
//! Called by the test harness only; must never be compiled into a build.

use super::tests::refused;
use super::*;
use crate::factor::Factor;
use crate::properties::MINIMAL;

/// The one mistake in the minimal policy followed by `more`, without its file and place.
pub(super) fn mistake(more: &str) -> String {
    let errors = parse("demo.toml", &format!("{MINIMAL}\n{more}")).err();
    let mut messages = errors.into_iter().flatten().map(|error| error.message);
    let first = messages
        .next()
        .unwrap_or_else(|| format!("accepted: {more}"));
    assert_eq!(messages.next(), None, "more than one mistake: {more}");
    first
}

#[test]
fn unknown_settings_are_refused_everywhere() {
    for (more, expected) in [
        (
            "[sessions]\nidel = \"5m\"",
            "sessions: unknown setting \"idel\", expected one of",
        ),
        ("[pni]", "unknown setting \"pni\", expected one of \"app\""),
        (
            "[enrolment]\nticket = true",
            "enrolment: unknown setting \"ticket\", expected one of \"open\"",
        ),
        (
            "[pin]\nrounds = [{ attempts = 3, pause = \"1m\" }]",
            "pin.rounds[0]: unknown setting \"pause\"",
        ),
    ] {
        let found = mistake(more);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn wrong_types_are_named() {
    for (more, expected) in [
        ("[sessions]\nidle = 15", "found 15"),
        (
            "[pin]\nmin_length = \"6\"",
            "a number from 4 to 64, found \"6\"",
        ),
        (
            "[pin]\nmin_length = 6.0",
            "a number from 4 to 64, found 6.0",
        ),
        ("[pin]\nallowed = 1", "true or false, found 1"),
        ("[pin]\nrounds = 3", "a list of tables"),
        ("[pin]\nrounds = [3]", "a table such as { ... }, found 3"),
        ("[release]\napp-key = \"pin\"", "a list of texts"),
        ("[release]\napp-key = [1]", "a text in quotes, found 1"),
        (
            "[secrets]\nserver_slot = false",
            "a text in quotes, found false",
        ),
        ("[passkeys]\nceremony = 2020-01-01", "found a datetime"),
    ] {
        let found = mistake(more);
        assert!(found.contains(expected), "{found}");
    }
    assert!(mistake("sessions = 3").contains("expected a table, found 3"));
}

#[test]
fn values_out_of_bounds_name_the_bounds() {
    for (more, expected) in [
        (
            "[sessions]\nidle = \"5s\"",
            "from 1m to 30days, found \"5s\"",
        ),
        ("[sessions]\nidle = \"1m 500ms\"", "whole seconds"),
        (
            "[sessions]\nidle = \"20h\"",
            "at most absolute, which is 12h, found 20h",
        ),
        (
            "[sessions]\nread_only_idle = \"100d\"",
            "at most read_only_absolute",
        ),
        ("[passkeys]\nmax_idle = \"400d\"", "at most max_age"),
        ("[passkeys]\nceremony = \"16m\"", "from 30s to 15m"),
        ("[passkeys]\nmax_per_account = 33", "from 1 to 32, found 33"),
        ("[devices]\nmax_per_account = -1", "from 1 to 64, found -1"),
        ("[secrets]\nmax_count = 17", "from 1 to 16"),
        ("[secrets]\nmax_bytes = 0x10000", "from 256 to 16384"),
        ("[secrets]\nmax_bytes = 16384", "expected at most 98304"),
        ("[pin]\nmemory_kib = 4096", "from 8192 to 1048576"),
        (
            "[pin]\nmemory_kib = 19455",
            "memory_kib times passes is 38910, expected at least 38912",
        ),
        ("[pin]\npasses = 1", "as OWASP recommends for Argon2id"),
        ("[pin]\nlanes = 99999999999999999999", "from 1 to 4"),
        ("[pin]\nksf_memory_kib = 4096", "from 8192 to 2097152"),
        ("[pin]\nksf_passes = 65", "from 1 to 64"),
        ("[pin]\nksf_lanes = 0", "from 1 to 16"),
        (
            "[pin]\nksf_passes = 1",
            "ksf_memory_kib times ksf_passes is 19456, expected at least 38912",
        ),
        ("[pin]\nceremony = \"16m\"", "from 30s to 15m"),
        (
            "[pin]\nopaque = false\nargon2id = false",
            "pin.opaque: expected opaque or argon2id to be true",
        ),
        (
            "[devices]\ncode = \"yes\"",
            "expected one of \"then-pin\", \"suffices\", \"no\", found \"yes\"",
        ),
        (
            "[secrets]\nserver_slot = \"maybe\"",
            "one of \"allowed\", \"ending\", \"forbidden\"",
        ),
    ] {
        let found = mistake(more);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn argon2_may_trade_memory_for_passes() {
    let text = format!("{MINIMAL}\n[pin]\nmemory_kib = 9728\npasses = 4");
    assert_eq!(refused(&text), [""; 0]);
}

#[test]
fn without_pins_there_need_be_no_way_to_check_one() {
    let none = "[pin]\nallowed = false\nopaque = false\nargon2id = false";
    assert_eq!(refused(&format!("{MINIMAL}\n{none}")), [""; 0]);
}

#[test]
fn rounds_are_checked() {
    for (rounds, expected) in [
        ("[]", "pin.rounds: expected at least one round"),
        (
            "[{ attempts = 0 }]",
            "pin.rounds[0].attempts: expected a number from 1 to 100",
        ),
        ("[{ wait = \"0s\" }]", "pin.rounds[0].attempts: missing"),
        (
            "[{ attempts = 1, wait = \"1s\" }]",
            "pin.rounds: the first round has a wait",
        ),
        (
            "[{ attempts = 1 }, { attempts = 1 }]",
            "pin.rounds[1].wait: missing",
        ),
        (
            "[{ attempts = 99 }, { attempts = 2, wait = \"1m\" }]",
            "pin.rounds: the rounds grant 101",
        ),
        (
            "[{ attempts = 1 }, { attempts = 2, wait = \"31d\" }]",
            "pin.rounds[1].wait: expected a dur",
        ),
    ] {
        let found = mistake(&format!("[pin]\nrounds = {rounds}"));
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn release_rules_are_checked() {
    for (rule, expected) in [
        ("app-key = [\"creation\"]", "\"creation\" is never written"),
        (
            "app-key = [\"otp\"]",
            "expected one of \"pin\", \"passkey\", \"recovery-code\", \"totp\", \
             \"delivered-code\", \"device\", found \"otp\"",
        ),
        ("app-key = [\"pin\", \"pin\"]", "\"pin\" is listed twice"),
        ("App = [\"pin\"]", "expected the name of a secret"),
        ("recover = [\"pin\"]", "recover is reserved"),
        ("\"**\" = [\"pin\"]", "expected the name of a secret"),
    ] {
        let found = mistake(&format!("[release]\n{rule}"));
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn a_rule_for_a_factor_that_is_not_allowed_is_refused() {
    let found = mistake("[pin]\nallowed = false\n[release]\napp-key = [\"pin\"]");
    assert!(
        found.contains("\"pin\" can never release anything"),
        "{found}"
    );
    let all_off = [
        "pin",
        "passkeys",
        "totp",
        "delivered_codes",
        "recovery_codes",
    ]
    .map(|section| format!("[{section}]\nallowed = false\n"))
    .concat();
    let found = mistake(&all_off);
    assert!(found.contains("nobody could log in"), "{found}");
}

#[test]
fn the_general_rule_follows_what_is_allowed_unless_it_is_written() -> Result<(), Vec<PolicyError>> {
    let general = |more: &str| {
        parse("demo.toml", &format!("{MINIMAL}\n{more}"))
            .map(|policy| policy.release.0.get("*").cloned())
    };
    let no_pin = "[pin]\nallowed = false";
    let without = vec![Factor::Passkey, Factor::RecoveryCode];
    assert_eq!(general(no_pin)?, Some(without));
    assert_eq!(general("[release]\n\"*\" = []")?, Some(vec![]));
    assert_eq!(
        general("[release]\nnotes = [\"device\"]")?,
        Some(vec![Factor::Pin, Factor::Passkey, Factor::RecoveryCode])
    );
    Ok(())
}

#[test]
fn the_relying_party_covers_every_origin() {
    let policy = |origins: &str, id: &str| {
        refused(&format!(
            "app = \"demo\"\norigins = {origins}\n[relying_party]\nid = \"{id}\""
        ))
    };
    let two = "[\"https://a.bank.example\", \"https://b.bank.example\"]";
    assert_eq!(policy(two, "bank.example"), [""; 0]);
    for (id, expected) in [
        ("a.bank.example", "does not cover \"b.bank.example\""),
        ("example", "does not cover"),
        ("k.example", "does not cover"),
        ("https://bank.example", "expected a host name"),
        ("10.0.0.1", "an IP address"),
    ] {
        let found = policy(two, id).join("\n");
        assert!(found.contains(expected), "{found}");
    }
    let twice = "[\"https://a.bank.example\", \"https://a.bank.example\"]";
    assert!(
        policy(twice, "bank.example")
            .join("")
            .contains("listed twice")
    );
    assert!(
        policy("[]", "bank.example")
            .join("")
            .contains("1 to 16, found 0")
    );
}

#[test]
fn names_are_checked() {
    for (bad, expected) in [
        ("app = \"\"", "expected 1 to 32"),
        ("app = \"-a\"", "expected 1 to 32"),
        ("app = \"a_b\"", "expected 1 to 32"),
        (
            "app = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
            "expected 1 to 32",
        ),
        ("app = \"a\"\ndisplay_name = \"\"", "expected 1 to 64"),
        ("app = \"a\"\ndisplay_name = \" a\"", "expected 1 to 64"),
        (
            "app = \"a\"\ndisplay_name = \"a\\u202eb\"",
            "expected 1 to 64",
        ),
        ("app = \"a\"\ndisplay_name = \"a\\nb\"", "found \"a\\nb\""),
    ] {
        let text = MINIMAL.replace("app = \"demo\"", bad);
        let found = refused(&text).join("\n");
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn what_is_not_toml_is_said_to_be_so() {
    for text in [
        "app = ",
        "app = \"a\"\napp = \"b\"",
        "[[",
        "\u{0}",
        "a = 1 2",
    ] {
        let found = refused(text);
        assert!(!found.is_empty());
        for error in found {
            assert!(error.contains("not TOML: "), "{error}");
        }
    }
}

#[test]
fn a_file_out_of_size_is_refused_unread() {
    let text = format!("{MINIMAL}\n#{}", "x".repeat(bounds::FILE_BYTES));
    assert_eq!(
        refused(&text),
        ["demo.toml:1:1: expected a file of at most 65536 bytes"]
    );
}

#[test]
fn an_error_is_one_short_line_without_control_characters() {
    let escape = "\\u001b[31m".repeat(400);
    let text = format!(
        "{MINIMAL}\n[sessions]\nidle = \"{escape}\"\n\"{escape}\" = 1\n[release]\n\"{escape}\" = [\"{escape}\"]"
    );
    let found = refused(&text);
    assert!(found.len() >= 4, "{found:?}");
    for error in found {
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(error.len() < 1200, "{error}");
    }
}
