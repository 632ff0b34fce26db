//! How text of a policy file is shown in an error: quoted, escaped, cut.
//!
//! Called by the other files of the parser. An operator may read the errors of a file that somebody else wrote, on a
//! terminal or in a log. Must never pass on a control character, or a text of any length.

use toml::de::DeValue;

/// What stands in the file, short enough for a line.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shorten(text),
        DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(found) => found.to_string(),
        other => format!("{} {}", article(other.type_str()), other.type_str()),
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// A text from the file, quoted, escaped and cut: it goes to a terminal and into a log.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    let mut start: String = text.chars().take(MOST).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

pub(super) fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    match words.as_slice() {
        [only] => only.clone(),
        _ => format!("one of {}", words.join(", ")),
    }
}

/// Replaces control characters: an error is one line, and a file cannot steer the terminal that shows it.
pub(super) fn one_line(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
