//! What a client with OPAQUE must have spent on a PIN before it may be registered.
//!
//! Called by the daemon when a PIN is registered. With OPAQUE the stretching is the client's work, and the server only
//! hears what was spent: a client that lies weakens its own PIN, against whoever has both the database and the token.
//! So this keeps honest clients from using a weak setting; it proves nothing. Must never accept a cost that no client could repeat.

use crate::app::Ksf;
use crate::bounds;

/// Why a key stretching function is refused. Its text tells a developer what to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KsfRefused {
    /// Cheaper than the policy asks for.
    #[error(
        "the PIN was stretched too little: Argon2id with at least {} KiB, and memory times passes at least that of {} \
         passes over them (lanes as you like)",
        least.memory_kib, least.passes
    )]
    Weak {
        /// The policy's minimum.
        least: Ksf,
    },
    /// No Argon2id, or none that every device of the owner could repeat.
    #[error(
        "the parameters of Argon2id are out of range: memory {} to {} KiB, passes {} to {}, lanes {} to {}",
        bounds::KSF_MEMORY_KIB.start(), bounds::KSF_MEMORY_KIB.end(), bounds::KSF_PASSES.start(),
        bounds::KSF_PASSES.end(), bounds::KSF_LANES.start(), bounds::KSF_LANES.end()
    )]
    OutOfRange,
}

impl Ksf {
    /// Whether a PIN that was stretched by `spent` may be registered where this is the minimum. Memory has to be the
    /// policy's, since that is what guessing machines lack; beyond it, memory and passes may be traded.
    ///
    /// # Errors
    /// [`KsfRefused`].
    pub fn accepts(&self, spent: &Self) -> Result<(), KsfRefused> {
        let in_range = bounds::KSF_MEMORY_KIB.contains(&spent.memory_kib)
            && bounds::KSF_PASSES.contains(&spent.passes)
            && bounds::KSF_LANES.contains(&spent.lanes);
        if !in_range {
            return Err(KsfRefused::OutOfRange);
        }
        if spent.memory_kib < self.memory_kib || spent.cost() < self.cost() {
            return Err(KsfRefused::Weak { least: *self });
        }
        Ok(())
    }

    fn cost(&self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ksf(memory_kib: u32, passes: u32, lanes: u32) -> Ksf {
        Ksf {
            memory_kib,
            passes,
            lanes,
        }
    }

    #[test]
    fn what_the_field_recommends_is_enough_for_the_default() {
        let least = Ksf::default();
        // RFC 9106 section 4: both recommended options; the first as browsers can have it.
        assert_eq!(least.accepts(&ksf(2_097_151, 1, 4)), Ok(()));
        assert_eq!(least.accepts(&ksf(65_536, 3, 4)), Ok(()));
        assert_eq!(least.accepts(&least), Ok(()));
    }

    #[test]
    fn less_memory_or_less_work_is_refused() {
        let least = ksf(19_456, 2, 1);
        let weak = Err(KsfRefused::Weak { least });
        assert_eq!(least.accepts(&ksf(19_455, 64, 1)), weak);
        assert_eq!(least.accepts(&ksf(19_456, 1, 16)), weak);
        assert_eq!(least.accepts(&ksf(38_911, 1, 1)), weak);
        assert_eq!(least.accepts(&ksf(38_912, 1, 1)), Ok(()));
    }

    #[test]
    fn what_no_client_could_repeat_is_refused() {
        let least = Ksf::default();
        for spent in [
            ksf(2_097_153, 2, 1),
            ksf(u32::MAX, u32::MAX, u32::MAX),
            ksf(19_456, 65, 1),
            ksf(19_456, 2, 17),
            ksf(19_456, 2, 0),
            ksf(0, 0, 0),
        ] {
            assert_eq!(least.accepts(&spent), Err(KsfRefused::OutOfRange));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_numbers_are_judged(memory_kib: u32, passes: u32, lanes: u32) {
            let spent = ksf(memory_kib, passes, lanes);
            if Ksf::default().accepts(&spent).is_ok() {
                proptest::prop_assert_eq!(spent.accepts(&spent), Ok(()));
            }
        }
    }
}
