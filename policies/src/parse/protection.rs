//! The section of a policy file about PINs: what one costs to check, and its guess budget.
//!
//! Called by the parser. A weak hash or an endless budget is refused here or nowhere. Must never accept a word that
//! does nothing.

use super::budget;
use super::section::Section;
use crate::app::PinPolicy;
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
        rounds: budget::rounds(&mut section, "rounds").unwrap_or(default.rounds),
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
