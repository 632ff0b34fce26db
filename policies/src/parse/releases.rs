//! The sections of a policy file that say which factor gets what: release rules, and the exception to step-up.
//!
//! Called by the parser. A rule that releases to more than was meant is refused here or nowhere. Must never accept a
//! factor that could not be used.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::{Section, Text};
use super::shown::{quoted, shorten};
use crate::app::{Recover, Release, ServerSlot};
use crate::bounds;
use crate::factor::{Factor, Strength};
use crate::release::{ANY_SECRET, is_secret_name};

/// The release rules. `"*"` is filled in where it is not written: every login factor that the app allows and that
/// is at least as strong as a PIN. What a mailbox or the server's own copy of a TOTP secret opens, an operator
/// has to write down.
pub(super) fn release(root: &mut Section<'_, '_>, logins: &[Factor], slot: ServerSlot) -> Release {
    if logins.is_empty() {
        let message = "no factor is allowed, neither pin nor any other: nobody could log in";
        root.flaw("pin", message);
    }
    let mut section = root.section("release");
    let strong = |factor: &Factor| factor.strength() >= Strength::Pin;
    let general: Vec<Factor> = logins.iter().copied().filter(strong).collect();
    if general.is_empty() && !logins.is_empty() && !section.written(ANY_SECRET) {
        let message = "missing, expected a list: its default holds pin, passkey and recovery-code, \
                       and none of them is allowed";
        section.flaw(ANY_SECRET, message);
    }
    let mut rules = BTreeMap::from([(ANY_SECRET.to_owned(), general)]);
    for name in section.names() {
        if name.value != ANY_SECRET && !is_secret_name(name.value) {
            let shown = shorten(name.value);
            let message = "expected the name of a secret (1 to 64 of a-z, 0-9 and -; \
                           recover is reserved, it has a section of its own) or \"*\", found";
            section.flaw_at(name.at, name.value, format_args!("{message} {shown}"));
        }
        let factors = list(&mut section, name.value, |factor| {
            releases(factor, logins, slot)
        });
        rules.insert(name.value.to_owned(), factors.unwrap_or_default());
    }
    section.finish();
    Release(rules)
}

fn releases(factor: Factor, logins: &[Factor], slot: ServerSlot) -> Result<(), &'static str> {
    if factor != Factor::Device && !logins.contains(&factor) {
        return Err("can never release anything, as the app does not allow it");
    }
    let opens_no_slot = matches!(factor, Factor::Totp | Factor::DeliveredCode);
    if opens_no_slot && !slot.is_released() {
        return Err(
            "recovers only what has a server slot, and secrets.server_slot is \"forbidden\"",
        );
    }
    Ok(())
}

/// The exception to step-up. Default: every login factor that the app allows, at once.
pub(super) fn recover(root: &mut Section<'_, '_>, logins: &[Factor]) -> Recover {
    let mut section = root.section("recover");
    let by = list(&mut section, "by", |factor| match factor {
        Factor::Device => Err("may not recover: whoever steals a device has its key"),
        factor if !logins.contains(&factor) => {
            Err("can never recover anything, as the app does not allow it")
        }
        _ => Ok(()),
    });
    let delay = section.duration("delay", Duration::ZERO, &bounds::RECOVER_DELAY);
    section.finish();
    Recover {
        by: by.unwrap_or_else(|| logins.to_vec()),
        delay,
    }
}

/// A list of factors, where it is written. `check` says why one may not stand in it.
fn list<'t>(
    section: &mut Section<'t, '_>,
    key: &'t str,
    check: impl Fn(Factor) -> Result<(), &'static str>,
) -> Option<Vec<Factor>> {
    let texts = section.texts(key)?;
    let mut factors = Vec::new();
    for text in texts {
        match factor(text, &factors, &check) {
            Ok(factor) => factors.push(factor),
            Err(sentence) => section.flaw_at(text.at, key, sentence),
        }
    }
    Some(factors)
}

fn factor(
    text: Text<'_>,
    before: &[Factor],
    check: impl Fn(Factor) -> Result<(), &'static str>,
) -> Result<Factor, String> {
    if text.value == Factor::Creation.name() {
        return Err(
            "\"creation\" is never written: the session of account creation \
                    counts as a passkey for its first ten minutes by itself"
                .to_owned(),
        );
    }
    let known = || Factor::LOGINS.into_iter().chain([Factor::Device]);
    let Some(factor) = known().find(|factor| factor.name() == text.value) else {
        let (expected, found) = (quoted(known().map(Factor::name)), shorten(text.value));
        return Err(format!("expected {expected}, found {found}"));
    };
    if before.contains(&factor) {
        return Err(format!("\"{factor}\" is listed twice"));
    }
    match check(factor) {
        Ok(()) => Ok(factor),
        Err(why) => Err(format!("\"{factor}\" {why}")),
    }
}
