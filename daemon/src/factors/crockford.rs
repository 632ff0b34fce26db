//! Base 32 in Crockford's letters: the text of every code that a person reads
//! off one screen or sheet and types into another.
//!
//! Called by `delivered_code` and `recovery_code`. The bits are RFC 4648's,
//! written by `data-encoding`; only the letters differ: no I, L, O or U, and
//! what looks alike is read alike. It must never accept two codes for one text,
//! nor take a text for a code whose last bits it would drop.

use custodyd_hsm::SecretBytes;
use data_encoding::BASE32HEX_NOPAD;
use zeroize::Zeroizing;

/// A symbol's place is its value.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// The same values as RFC 4648 section 7 writes them.
const HEX_LETTERS: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
/// Symbols between two hyphens.
const GROUP: usize = 4;
/// Longest typed text that is looked at, in bytes: no code is half as long.
pub(crate) const MAX_TYPED: usize = 128;

/// `bytes` in groups of four: `2F7K-9QXM-...`.
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let symbols = BASE32HEX_NOPAD.encode_len(bytes.len());
    let mut hex_letters = Zeroizing::new(vec![0u8; symbols]);
    BASE32HEX_NOPAD.encode_mut(bytes, &mut hex_letters);
    // All of its capacity at once: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(symbols + symbols / GROUP));
    for (place, letter) in hex_letters.iter().enumerate() {
        if place > 0 && place % GROUP == 0 {
            text.push('-');
        }
        text.extend(exchange(*letter, HEX_LETTERS, LETTERS).map(char::from));
    }
    text
}

/// The bytes that were typed: in either case, with blanks and hyphens anywhere,
/// I and L read as 1, O as 0. `None` for anything else, and for a text whose
/// last bits are not those that [`encode`] writes.
pub(crate) fn decode(text: &str) -> Option<SecretBytes> {
    let hex_letters = symbols(text)?
        .iter()
        .map(|letter| exchange(alike(*letter), LETTERS, HEX_LETTERS))
        .collect::<Option<Vec<u8>>>()
        .map(Zeroizing::new)?;
    BASE32HEX_NOPAD
        .decode(&hex_letters)
        .ok()
        .map(SecretBytes::from)
}

/// What was typed without its blanks and hyphens, or `None` if it is too long
/// to be a code.
pub(crate) fn symbols(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    (text.len() <= MAX_TYPED).then(|| {
        let mut symbols = Zeroizing::new(Vec::with_capacity(text.len()));
        let typed = text.bytes();
        symbols.extend(typed.filter(|byte| !matches!(byte, b' ' | b'-' | b'\t' | b'\r' | b'\n')));
        symbols
    })
}

fn alike(letter: u8) -> u8 {
    match letter.to_ascii_uppercase() {
        b'I' | b'L' => b'1',
        b'O' => b'0',
        other => other,
    }
}

fn exchange(letter: u8, from: &[u8; 32], to: &[u8; 32]) -> Option<u8> {
    let value = from.iter().position(|known| *known == letter)?;
    to.get(value).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on must stop
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text).map(|bytes| bytes.expose().to_vec())
    }

    #[test]
    fn each_symbol_has_its_value() {
        // Five bytes that count: the values 0 to 31, in order.
        let counting = BASE32HEX_NOPAD.decode(HEX_LETTERS).unwrap();
        assert_eq!(
            *encode(&counting),
            "0123-4567-89AB-CDEF-GHJK-MNPQ-RSTV-WXYZ"
        );
    }

    #[test]
    fn what_looks_alike_is_read_alike() {
        let meant = decoded("1100-ABCD").unwrap();
        for typed in ["iloO-abcd", "IL0o abcd", " 1-1-0-0-A-B-C-D\r\n", "11OOABCD"] {
            assert_eq!(decoded(typed).as_ref(), Some(&meant), "{typed:?}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for typed in [
            "1100-ABCU",
            "1100-ABC",
            "1100-ABC=",
            "1100\u{a0}ABCD",
            "é",
            "0",
        ] {
            assert_eq!(decoded(typed), None, "{typed:?}");
        }
        assert_eq!(
            decoded("01").map(|bytes| bytes.len()),
            None,
            "bits left over"
        );
        assert_eq!(decoded("04"), Some(vec![1]));
        assert_eq!(decoded(&"0".repeat(MAX_TYPED)).unwrap().len(), 80);
        assert_eq!(decoded(&"0".repeat(MAX_TYPED + 8)), None);
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decoded(&encode(&bytes)), Some(bytes));
        }

        /// One value has one text, up to the liberties that typing has.
        #[test]
        fn typed_texts_are_canonical(text in "[ 0-9A-Za-z-]{0,24}") {
            if let Some(bytes) = decoded(&text) {
                let plain = |text: &str| -> Vec<u8> {
                    symbols(text).unwrap().iter().map(|letter| alike(*letter)).collect()
                };
                prop_assert_eq!(plain(&encode(&bytes)), plain(&text));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = decode(&text);
        }
    }
}
