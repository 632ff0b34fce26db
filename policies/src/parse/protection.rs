//! The section of a policy file about PINs: what one costs to check, and its guess budget.
//!
//! Called by the parser. A weak hash or an endless budget is refused here or nowhere. Must never accept a word that
//! does nothing.

use super::budget;
use super::section::Section;
use crate::app::{Ksf, PinPolicy};
use crate::bounds;

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
        argon2id: section.boolean("argon2id", default.argon2id),
        opaque: section.boolean("opaque", default.opaque),
        ksf: ksf(&mut section, default.ksf),
        ceremony: section.duration("ceremony", default.ceremony, &bounds::CEREMONY),
        rounds: budget::rounds(&mut section, "rounds").unwrap_or(default.rounds),
    };
    let ksf = pin.ksf;
    costs_enough(&mut section, "", pin.memory_kib, pin.passes);
    costs_enough(&mut section, "ksf_", ksf.memory_kib, ksf.passes);
    if section.sound() && pin.allowed && !pin.argon2id && !pin.opaque {
        section.flaw(
            "opaque",
            "expected opaque or argon2id to be true: a PIN has to be checked somehow; to have none, say allowed = false",
        );
    }
    section.finish();
    pin
}

fn ksf(section: &mut Section<'_, '_>, default: Ksf) -> Ksf {
    Ksf {
        memory_kib: section.number(
            "ksf_memory_kib",
            default.memory_kib,
            &bounds::KSF_MEMORY_KIB,
        ),
        passes: section.number("ksf_passes", default.passes, &bounds::KSF_PASSES),
        lanes: section.number("ksf_lanes", default.lanes, &bounds::KSF_LANES),
    }
}

/// A weak hash is refused, whoever computes it.
fn costs_enough(section: &mut Section<'_, '_>, prefix: &str, memory_kib: u32, passes: u32) {
    let (cost, least) = (
        u64::from(memory_kib) * u64::from(passes),
        bounds::PIN_MEMORY_TIMES_PASSES,
    );
    if section.sound() && cost < least {
        section.flaw(
            &format!("{prefix}memory_kib"),
            format_args!(
                "{prefix}memory_kib times {prefix}passes is {cost}, expected at least {least} \
                 (19 MiB with 2 passes, as OWASP recommends for Argon2id)"
            ),
        );
    }
}
