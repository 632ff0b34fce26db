//! The plain sections of a policy file: sessions, passkeys, devices, secrets.
//!
//! Called by the parser. Each function asks for its settings, then for what they must be to each other, then
//! finishes its section. Must never leave a section unfinished: unknown settings would pass.

use super::budget;
use super::section::Section;
use crate::app::{Devices, Passkeys, Secrets, ServerSlot, Sessions, UnknownDevice};
use crate::bounds;

pub(super) fn sessions(root: &mut Section<'_, '_>) -> Sessions {
    let mut section = root.section("sessions");
    let default = Sessions::default();
    let sessions = Sessions {
        idle: section.duration("idle", default.idle, &bounds::SESSION_IDLE),
        absolute: section.duration("absolute", default.absolute, &bounds::SESSION_ABSOLUTE),
        fresh: section.duration("fresh", default.fresh, &bounds::FRESH),
        read_only_idle: section.duration(
            "read_only_idle",
            default.read_only_idle,
            &bounds::READ_ONLY_IDLE,
        ),
        read_only_absolute: section.duration(
            "read_only_absolute",
            default.read_only_absolute,
            &bounds::READ_ONLY_ABSOLUTE,
        ),
    };
    let limits = [
        ("idle", sessions.idle, "absolute", sessions.absolute),
        ("fresh", sessions.fresh, "absolute", sessions.absolute),
        (
            "read_only_idle",
            sessions.read_only_idle,
            "read_only_absolute",
            sessions.read_only_absolute,
        ),
    ];
    if section.sound() {
        for (key, value, limit_key, limit) in limits {
            at_most(&mut section, key, value, limit_key, limit);
        }
    }
    section.finish();
    sessions
}

pub(super) fn passkeys(root: &mut Section<'_, '_>) -> Passkeys {
    let mut section = root.section("passkeys");
    let default = Passkeys::default();
    let passkeys = Passkeys {
        allowed: section.boolean("allowed", default.allowed),
        max_age: section.duration("max_age", default.max_age, &bounds::PASSKEY_AGE),
        max_idle: section.duration("max_idle", default.max_idle, &bounds::PASSKEY_IDLE),
        max_per_account: section.number(
            "max_per_account",
            default.max_per_account,
            &bounds::PASSKEYS,
        ),
        ceremony: section.duration("ceremony", default.ceremony, &bounds::CEREMONY),
    };
    if section.sound() {
        let (idle, age) = (passkeys.max_idle, passkeys.max_age);
        at_most(&mut section, "max_idle", idle, "max_age", age);
    }
    section.finish();
    passkeys
}

/// Refuses a limit that the other one makes meaningless.
fn at_most(
    section: &mut Section<'_, '_>,
    key: &str,
    value: std::time::Duration,
    limit_key: &str,
    limit: std::time::Duration,
) {
    if value > limit {
        let (value, limit) = (
            humantime::format_duration(value),
            humantime::format_duration(limit),
        );
        section.flaw(
            key,
            format_args!("expected at most {limit_key}, which is {limit}, found {value}"),
        );
    }
}

/// `pin`, `codes`: whether the app allows PINs and delivered codes at all.
pub(super) fn devices(root: &mut Section<'_, '_>, pin: bool, codes: bool) -> Devices {
    const WORDS: [(&str, UnknownDevice); 3] = [
        ("then-pin", UnknownDevice::ThenPin),
        ("suffices", UnknownDevice::Full),
        ("no", UnknownDevice::Refused),
    ];
    let mut section = root.section("devices");
    let default = Devices::default();
    let devices = Devices {
        code: section.word("code", default.code, &WORDS),
        stranger_pin: budget::rounds(&mut section, "stranger_pin"),
        max_per_account: section.number(
            "max_per_account",
            default.max_per_account,
            &bounds::DEVICES,
        ),
    };
    if !codes && section.written("code") && devices.code != UnknownDevice::Refused {
        let message = "expected \"no\", or leave it out: delivered_codes.allowed is false";
        section.flaw("code", message);
    }
    if let Some(rounds) = &devices.stranger_pin {
        stranger_pin(&mut section, pin, rounds.total());
    }
    section.finish();
    devices
}

fn stranger_pin(section: &mut Section<'_, '_>, pin: bool, attempts: u32) {
    const KEY: &str = "stranger_pin";
    let most = bounds::STRANGER_ATTEMPTS;
    if !pin {
        section.flaw(KEY, "leave it out: pin.allowed is false");
    }
    if attempts > most {
        section.flaw(
            KEY,
            format_args!(
                "the rounds grant {attempts} attempts together, expected at most {most}: \
                 anybody may spend them"
            ),
        );
    }
}

pub(super) fn secrets(root: &mut Section<'_, '_>) -> Secrets {
    let mut section = root.section("secrets");
    let default = Secrets::default();
    let slots = [
        ServerSlot::Allowed,
        ServerSlot::Ending,
        ServerSlot::Forbidden,
    ];
    let slots = slots.map(|slot| (slot.name(), slot));
    let secrets = Secrets {
        server_slot: section.word("server_slot", default.server_slot, &slots),
        max_count: section.number("max_count", default.max_count, &bounds::SECRETS),
        max_bytes: section.number("max_bytes", default.max_bytes, &bounds::SECRET_BYTES),
    };
    let together = secrets.max_count.saturating_mul(secrets.max_bytes);
    if section.sound() && together > bounds::ALL_SECRETS_BYTES {
        let most = bounds::ALL_SECRETS_BYTES;
        section.flaw(
            "max_bytes",
            format_args!(
                "max_count times max_bytes is {together}, expected at most {most}: \
                 all secrets of an account share one sealed record"
            ),
        );
    }
    section.finish();
    secrets
}
