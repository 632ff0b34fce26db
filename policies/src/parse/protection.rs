//! The sections of a policy file that carry most of the protection: PINs with their guess budget, and release rules.
//!
//! Called by the parser. A weak hash, an endless budget or a rule that releases to more than was meant is refused
//! here or nowhere. Must never accept a word that does nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::{Section, Text};
use super::shown::shorten;
use crate::app::{PinPolicy, Release};
use crate::bounds;
use crate::factor::Factor;
use crate::release::{ANY_SECRET, is_secret_name};
use crate::rounds::{Round, Rounds};

pub(super) fn pin(root: &mut Section<'_, '_>) -> PinPolicy {
    let mut section = root.section("pin");
    let default = PinPolicy::default();
    let pin = PinPolicy {
        allowed: section.boolean("allowed", default.allowed),
        min_length: section.number("min_length", default.min_length, &bounds::PIN_LENGTH),
        refuse_trivial: section.boolean("refuse_trivial", default.refuse_trivial),
        memory_kib: section.number("memory_kib", default.memory_kib, &bounds::PIN_MEMORY_KIB),
        passes: section.number("passes", default.passes, &bounds::PIN_PASSES),
        lanes: section.number("lanes", default.lanes, &bounds::PIN_LANES),
        rounds: rounds(&mut section).unwrap_or(default.rounds),
    };
    let cost = u64::from(pin.memory_kib) * u64::from(pin.passes);
    if section.sound() && cost < bounds::PIN_MEMORY_TIMES_PASSES {
        let least = bounds::PIN_MEMORY_TIMES_PASSES;
        section.flaw(
            "memory_kib",
            format_args!(
                "memory_kib times passes is {cost}, expected at least {least} \
                 (19 MiB with 2 passes, as OWASP recommends for Argon2id)"
            ),
        );
    }
    section.finish();
    pin
}

fn rounds(pin: &mut Section<'_, '_>) -> Option<Rounds> {
    let list = pin.tables("rounds", |index, section| Round {
        attempts: attempts(section),
        wait: wait(index, section),
    })?;
    if !pin.sound() {
        return None;
    }
    Rounds::new(list)
        .map_err(|error| pin.flaw("rounds", error))
        .ok()
}

fn attempts(round: &mut Section<'_, '_>) -> u32 {
    if !round.written("attempts") {
        round.flaw(
            "attempts",
            "missing, expected how many guesses the round grants",
        );
    }
    round.number("attempts", 1, &bounds::ROUND_ATTEMPTS)
}

fn wait(index: usize, round: &mut Section<'_, '_>) -> Duration {
    if index == 0 {
        // Any length is read here, so that the refusal of the first wait can say why.
        return round.duration("wait", Duration::ZERO, &(Duration::ZERO..=Duration::MAX));
    }
    if !round.written("wait") {
        round.flaw(
            "wait",
            "missing, expected how long the round waits after the last attempt, such as \"5m\"",
        );
    }
    round.duration("wait", Duration::ZERO, &bounds::ROUND_WAIT)
}

/// The release rules. `"*"` is filled in where it is not written: every login factor that the app allows.
pub(super) fn release(root: &mut Section<'_, '_>, pin: bool, passkeys: bool) -> Release {
    let allowed = |factor| match factor {
        Factor::Pin => pin,
        Factor::Passkey => passkeys,
        Factor::Device => true,
        Factor::Creation => false,
    };
    let logins = [Factor::Pin, Factor::Passkey]
        .into_iter()
        .filter(|f| allowed(*f));
    let general: Vec<Factor> = logins.collect();
    if general.is_empty() {
        let message = "both pin.allowed and passkeys.allowed are false: nobody could log in";
        root.flaw("pin", message);
    }
    let mut section = root.section("release");
    let mut rules = BTreeMap::from([(ANY_SECRET.to_owned(), general)]);
    for name in section.names() {
        if name.value != ANY_SECRET && !is_secret_name(name.value) {
            let shown = shorten(name.value);
            let message = "expected the name of a secret (1 to 64 of a-z, 0-9 and -; \
                           recover is reserved) or \"*\", found";
            section.flaw_at(name.at, name.value, format_args!("{message} {shown}"));
        }
        let factors = rule(&mut section, name.value, &allowed);
        rules.insert(name.value.to_owned(), factors);
    }
    section.finish();
    Release(rules)
}

fn rule<'t>(
    section: &mut Section<'t, '_>,
    name: &'t str,
    allowed: &impl Fn(Factor) -> bool,
) -> Vec<Factor> {
    let mut factors = Vec::new();
    for text in section.texts(name).unwrap_or_default() {
        match factor(text, &factors, allowed) {
            Ok(factor) => factors.push(factor),
            Err(sentence) => section.flaw_at(text.at, name, sentence),
        }
    }
    factors
}

fn factor(
    text: Text<'_>,
    before: &[Factor],
    allowed: &impl Fn(Factor) -> bool,
) -> Result<Factor, String> {
    let factor = match text.value {
        "pin" => Factor::Pin,
        "passkey" => Factor::Passkey,
        "device" => Factor::Device,
        "creation" => {
            return Err(
                "\"creation\" is never written: the session of account creation \
                        counts as a passkey for its first ten minutes by itself"
                    .to_owned(),
            );
        }
        other => {
            let found = shorten(other);
            return Err(format!(
                "expected \"pin\", \"passkey\" or \"device\", found {found}"
            ));
        }
    };
    if before.contains(&factor) {
        return Err(format!("\"{factor}\" is listed twice"));
    }
    if !allowed(factor) {
        return Err(format!(
            "\"{factor}\" can never release anything, as the app does not allow it"
        ));
    }
    Ok(factor)
}
