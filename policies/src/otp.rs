//! Which time steps a TOTP code may belong to, and which of them are spent.
//!
//! Called by the daemon's TOTP factor, which computes the codes; the last accepted step lies in the sealed envelope.
//! The adversary reads a code over the owner's shoulder and replays it. Must never accept a step twice.

use std::ops::RangeInclusive;

use crate::app::Totp;
use crate::time::Timestamp;

/// The steps whose code may be entered at `now` (RFC 6238, section 5.2): the current one, and `window` on each side.
#[must_use]
pub fn steps(policy: &Totp, now: Timestamp) -> RangeInclusive<u64> {
    // The parser bounds the period; a policy made by hand must not divide by zero.
    let current = now.0 / policy.period.as_secs().max(1);
    let window = u64::from(policy.window);
    current.saturating_sub(window)..=current.saturating_add(window)
}

/// Whether a right code of `step` may be accepted after `last`, the step of the code accepted before it. What lies
/// between them is spent too: a code seen but not used would otherwise stay good beside its successor.
#[must_use]
pub fn accept_step(last: Option<u64>, step: u64) -> bool {
    last.is_none_or(|last| step > last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn totp(period: u64, window: u8) -> Totp {
        Totp {
            period: Duration::from_secs(period),
            window,
            ..Totp::default()
        }
    }

    /// The time and the step (T) of the test vectors in RFC 6238, appendix B.
    #[test]
    fn steps_are_those_of_the_rfc() {
        for (time, step) in [
            (59, 0x1),
            (1_111_111_109, 0x0235_23EC),
            (1_111_111_111, 0x0235_23ED),
            (1_234_567_890, 0x0273_EF07),
            (2_000_000_000, 0x03F9_40AA),
            (20_000_000_000, 0x27BC_86AA),
        ] {
            assert_eq!(steps(&totp(30, 0), Timestamp(time)), step..=step);
        }
    }

    #[test]
    fn the_window_lies_on_both_sides() {
        assert_eq!(steps(&totp(30, 2), Timestamp(300)), 8..=12);
        assert_eq!(steps(&totp(30, 1), Timestamp(0)), 0..=1);
        let end = steps(&totp(0, 2), Timestamp(u64::MAX));
        assert_eq!(end, u64::MAX - 2..=u64::MAX);
    }

    #[test]
    fn a_step_is_accepted_once_and_none_before_it() {
        assert!(accept_step(None, 0));
        assert!(accept_step(Some(7), 8));
        assert!(!accept_step(Some(7), 7));
        assert!(!accept_step(Some(7), 6));
        assert!(!accept_step(Some(u64::MAX), u64::MAX));
    }
}
