//! Which PINs are good enough to be set.
//!
//! Called by the daemon when a PIN is set or changed, never when one is tried. The guess budget is what protects a
//! PIN; this keeps out those that the first few guesses of any attacker would hit. Must never copy the PIN,
//! not even for a comparison: the caller owns the only copy and wipes it. Nothing here may put it into a text.

use crate::app::PinPolicy;

/// The longest PIN in bytes of UTF-8. Bounds the work of hashing and of the checks below.
pub const MAX_BYTES: usize = 256;

/// Why a PIN is refused. Its text tells a person what to do and never repeats the PIN.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinWeakness {
    /// Fewer Unicode scalar values than the policy asks for.
    #[error("Choose a longer PIN: at least {min} characters.")]
    TooShort {
        /// The policy's minimum.
        min: usize,
    },
    /// More than [`MAX_BYTES`].
    #[error("Choose a shorter PIN: at most {max} bytes.")]
    TooLong {
        /// [`MAX_BYTES`].
        max: usize,
    },
    /// One character over and over, or a short piece repeated.
    #[error("Choose a PIN that does not repeat one character or one short group of characters.")]
    Repetition,
    /// Neighbours in order, up or down.
    #[error("Choose a PIN whose characters do not simply follow one another.")]
    Sequence,
    /// Among those that people choose most often.
    #[error("Choose another PIN: this one is among the most common, and the first to be guessed.")]
    Common,
}

/// Choices that come to many people: years, columns and shapes on the keypad, pairs, first words of every list. Short on
/// purpose, and without what the other rules refuse. Compared without regard to ASCII case.
const COMMON: &str = "\
    0007 0852 1001 1004 1007 1122 1221 1225 1230 1245 1357 1379 1470 1478 1590 1701 1812 1945 1969 \
    1980 1981 1982 1983 1984 1985 1986 1987 1988 1989 1990 1991 1992 1993 1994 1995 1996 1997 1998 \
    1999 2000 2001 2002 2003 2004 2005 2006 2007 2008 2009 2010 2112 2244 2468 2580 3690 4200 5683 \
    7410 8520 9630 12321 13579 14789 24680 25800 54320 000007 001122 010203 102030 110011 111222 \
    112211 112233 112358 115599 121314 123321 123654 123789 131415 134679 135790 135791 142536 \
    147258 147852 147896 159357 159753 159951 192837 200000 246800 246810 258000 258456 314159 \
    321456 332211 445566 456852 520131 654123 753951 778899 789456 852456 963852 987456 \
    1472583 3141592 7758521 11223344 12344321 12345679 14725836 31415926 147258369 159357456 \
    741852963 789456123 963852741 1029384756 1q2w3e 1q2w3e4r 1qaz2wsx a1b2c3 aa123456 abc123 admin \
    baseball dragon football iloveyou letmein master monkey passw0rd password password1 princess \
    qazwsx qwert qwerty qwerty123 qwertyuiop shadow sunshine welcome zxcvbn zxcvbnm";

/// Whether the policy accepts `pin` as a new PIN. The caller has checked `policy.allowed`.
///
/// Length counts Unicode scalar values as they come; nothing is normalised, because what is hashed later is exactly
/// these bytes. Without [`PinPolicy::refuse_trivial`] only the two length rules hold.
///
/// # Errors
/// [`PinWeakness`]: the first rule that the PIN breaks.
pub fn acceptable(policy: &PinPolicy, pin: &str) -> Result<(), PinWeakness> {
    if pin.len() > MAX_BYTES {
        return Err(PinWeakness::TooLong { max: MAX_BYTES });
    }
    if pin.chars().count() < policy.min_length {
        return Err(PinWeakness::TooShort {
            min: policy.min_length,
        });
    }
    if policy.refuse_trivial {
        not_trivial(pin, policy.min_length)?;
    }
    Ok(())
}

fn not_trivial(pin: &str, min_length: usize) -> Result<(), PinWeakness> {
    if runs(pin) {
        return Err(PinWeakness::Sequence);
    }
    if common().any(|known| known.eq_ignore_ascii_case(pin)) {
        return Err(PinWeakness::Common);
    }
    // A repeated piece is worth no more than the piece, so it is judged like a PIN of its own.
    let Some(piece) = repeated_piece(pin) else {
        return Ok(());
    };
    if piece.chars().count() < min_length || not_trivial(piece, min_length).is_err() {
        return Err(PinWeakness::Repetition);
    }
    Ok(())
}

fn common() -> impl Iterator<Item = &'static str> {
    COMMON.split_ascii_whitespace()
}

/// Whether each character is the successor, or each the predecessor, of the one before; 9 and 0 are neighbours.
fn runs(pin: &str) -> bool {
    let pairs = || pin.chars().zip(pin.chars().skip(1));
    let many = pairs().next().is_some();
    many && (pairs().all(|(a, b)| follows(a, b)) || pairs().all(|(a, b)| follows(b, a)))
}

fn follows(one: char, next: char) -> bool {
    let (one_lower, next_lower) = (one.to_ascii_lowercase(), next.to_ascii_lowercase());
    u32::from(one_lower) + 1 == u32::from(next_lower) || (one, next) == ('9', '0')
}

/// The shortest piece that the PIN repeats from start to end, at least twice (a last, cut-off repetition counts).
fn repeated_piece(pin: &str) -> Option<&str> {
    let length = pin.chars().count();
    let mut starts = pin.char_indices().skip(1).take(length / 2);
    let (end, _) = starts.find(|(end, _)| {
        let shifted = pin.get(*end..).unwrap_or_default();
        pin.starts_with(shifted)
    })?;
    pin.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(min_length: usize, pin: &str) -> Result<(), PinWeakness> {
        let policy = PinPolicy {
            min_length,
            ..PinPolicy::default()
        };
        acceptable(&policy, pin)
    }

    #[test]
    fn length_counts_characters_and_not_bytes() {
        assert_eq!(judge(6, "äöüßéè"), Ok(()));
        assert_eq!(judge(7, "äöüßéè"), Err(PinWeakness::TooShort { min: 7 }));
        assert_eq!(judge(4, ""), Err(PinWeakness::TooShort { min: 4 }));
    }

    #[test]
    fn length_is_bounded_in_bytes() {
        let words = "correct horse battery staple ".repeat(9);
        let just = words.get(..256).unwrap_or_default();
        let over = words.get(..257).unwrap_or_default();
        assert_eq!(judge(6, just), Ok(()));
        assert_eq!(judge(6, over), Err(PinWeakness::TooLong { max: 256 }));
    }

    #[test]
    fn sequences_are_refused() {
        for pin in [
            "123456",
            "987654",
            "abcdef",
            "FEDCBA",
            "aBcDeF",
            "890123",
            "210987",
            "αβγδεζ",
        ] {
            assert_eq!(judge(4, pin), Err(PinWeakness::Sequence), "{pin}");
        }
    }

    #[test]
    fn repetitions_are_refused() {
        for pin in [
            "000000",
            "zzzzzz",
            "121212",
            "12121",
            "123123",
            "4747474",
            "123456123456",
            "ßxßxßx",
        ] {
            assert_eq!(judge(5, pin), Err(PinWeakness::Repetition), "{pin}");
        }
    }

    #[test]
    fn a_repetition_is_worth_what_it_repeats() {
        assert_eq!(judge(4, "48294829"), Ok(()));
        assert_eq!(judge(6, "48294829"), Err(PinWeakness::Repetition));
    }

    #[test]
    fn common_ones_are_refused_in_any_case() {
        for pin in ["2580", "159753", "Password", "QWERTY"] {
            assert_eq!(judge(4, pin), Err(PinWeakness::Common), "{pin}");
        }
    }

    #[test]
    fn ordinary_ones_pass() {
        for pin in [
            "482915",
            "902746",
            "135792",
            "12349876",
            "tr0ub4dor",
            "a b c d",
            "🐟🐠🐡🦈🐙🦑",
        ] {
            assert_eq!(judge(6, pin), Ok(()), "{pin}");
        }
    }

    #[test]
    fn the_switch_leaves_the_length_rules_on() {
        let policy = PinPolicy {
            min_length: 6,
            refuse_trivial: false,
            ..PinPolicy::default()
        };
        assert_eq!(acceptable(&policy, "111111"), Ok(()));
        assert_eq!(
            acceptable(&policy, "11111"),
            Err(PinWeakness::TooShort { min: 6 })
        );
    }

    #[test]
    fn each_common_pin_earns_its_line() {
        for pin in common() {
            assert!(!runs(pin), "{pin} is a sequence already");
            assert_eq!(repeated_piece(pin), None, "{pin} is a repetition already");
            assert!(pin.is_ascii() && pin.len() >= 4, "{pin}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(pin in ".{0,300}", min_length in 0..70_usize) {
            let _ = judge(min_length, &pin);
        }

        #[test]
        fn what_a_person_is_told_never_contains_the_pin(pin in "[0-9A-Z]{3,12}") {
            if let Err(weakness) = judge(12, &pin) {
                proptest::prop_assert!(!weakness.to_string().contains(&pin));
                let debugged = format!("{weakness:?}");
                proptest::prop_assert!(!debugged.contains(&pin));
            }
        }
    }
}
