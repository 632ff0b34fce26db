//! One code, made or typed, and its two forms.
//!
//! Made by `OtpSecret::code` for the message, and by [`Code::parse`] from a
//! request. It must never print itself; comparing is in constant time.

use std::fmt;

use custodyd_hsm::SecretBytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::LONG_BYTES;
use crate::factors::crockford;

/// Digits that a short code may have.
pub(super) const DIGITS: std::ops::RangeInclusive<u8> = 6..=10;
/// Symbols of a long code.
const LONG_SYMBOLS: usize = 16;

/// What a code looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// So many decimal digits, six to ten; for bound devices only.
    Digits(u8),
    /// 80 bits in Crockford's base 32, four groups of four.
    Long,
}

impl Form {
    /// As it enters the HMAC: a tag and the number of symbols.
    pub(super) fn encoded(self) -> [u8; 2] {
        match self {
            Form::Digits(count) => [1, count],
            Form::Long => [2, 16],
        }
    }
}

/// What was typed has the shape of no code. Nothing was charged for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a code: expected 6 to 10 digits, or 16 letters and digits as they were sent")]
pub struct CodeFormat;

/// A code; which code, only its holder knows.
pub struct Code {
    form: Form,
    /// Of a short code the ASCII digits, of a long one the ten bytes.
    value: SecretBytes,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:?}, redacted)", self.form)
    }
}

impl Code {
    /// Read what was typed or pasted: blanks and hyphens do not matter, nor does
    /// case, nor I and L for 1 and O for 0 in a long code.
    pub fn parse(text: &str) -> Result<Self, CodeFormat> {
        let symbols = crockford::symbols(text).ok_or(CodeFormat)?;
        if symbols.len() == LONG_SYMBOLS {
            let value = crockford::decode(text).ok_or(CodeFormat)?;
            return Ok(Self::of_bytes(value));
        }
        let count = u8::try_from(symbols.len()).map_err(|_| CodeFormat)?;
        if !DIGITS.contains(&count) || !symbols.iter().all(u8::is_ascii_digit) {
            return Err(CodeFormat);
        }
        Ok(Self {
            form: Form::Digits(count),
            value: SecretBytes::from(symbols.to_vec()),
        })
    }

    pub(super) fn of_bytes(value: SecretBytes) -> Self {
        debug_assert_eq!(value.len(), LONG_BYTES);
        Self {
            form: Form::Long,
            value,
        }
    }

    /// The last `count` decimal digits of `number`.
    pub(super) fn of_digits(mut number: u128, count: u8) -> Self {
        let value = SecretBytes::init(usize::from(count), |digits| {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or(0); // below ten
                number /= 10;
            }
        });
        Self {
            form: Form::Digits(count),
            value,
        }
    }

    /// Its form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The text for the message.
    pub fn text(&self) -> Zeroizing<String> {
        match self.form {
            Form::Long => crockford::encode(self.value.expose()),
            Form::Digits(count) => {
                let mut text = Zeroizing::new(String::with_capacity(usize::from(count)));
                text.extend(self.value.expose().iter().map(|digit| char::from(*digit)));
                text
            }
        }
    }

    /// Compares in constant time; the form is no secret.
    pub(super) fn ct_eq(&self, other: &Code) -> bool {
        self.form == other.form && self.value.ct_eq(&other.value)
    }
}
