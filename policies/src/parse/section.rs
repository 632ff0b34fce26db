//! Typed reading of one TOML table: each setting is asked for by name, and what nobody asked for is a mistake.
//!
//! Called by the other files of the parser. A mistake is noted with its place and the default stands in, so that
//! reading goes on and finds the next one. Must never turn a value of one type into another.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::shown::{describe, quoted, shorten};

/// Mistakes so far: byte offset and message.
#[derive(Debug, Default)]
pub(super) struct Flaws(Vec<(usize, String)>);

impl Flaws {
    pub(super) fn add(&mut self, at: usize, message: String) {
        self.0.push((at, message));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<(usize, String)> {
        self.0.sort_by_key(|(at, _)| *at);
        self.0
    }
}

/// A text and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t> {
    pub(super) at: usize,
    pub(super) value: &'t str,
}

/// One table of the file; also one that is not there, whose settings all have their defaults.
#[derive(Debug)]
pub(super) struct Section<'t, 'f> {
    path: String,
    at: usize,
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'t str>,
    flaws: &'f mut Flaws,
    flaws_before: usize,
}

impl<'t, 'f> Section<'t, 'f> {
    pub(super) fn root(table: &'t DeTable<'t>, flaws: &'f mut Flaws) -> Self {
        Self::new(String::new(), 0, Some(table), flaws)
    }

    fn new(path: String, at: usize, table: Option<&'t DeTable<'t>>, flaws: &'f mut Flaws) -> Self {
        let flaws_before = flaws.0.len();
        Self {
            path,
            at,
            table,
            known: Vec::new(),
            flaws,
            flaws_before,
        }
    }

    /// The table `key` within this one.
    pub(super) fn section(&mut self, key: &'t str) -> Section<'t, '_> {
        let path = self.path_of(key);
        let (at, table) = match self.value(key) {
            None => (self.at, None),
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => (self.place(key), Some(table)),
                other => {
                    self.wrong_type(value.span().start, key, "a table", other);
                    (value.span().start, None)
                }
            },
        };
        Section::new(path, at, table, self.flaws)
    }

    /// Whether this table has had no mistake so far: only then do its values mean anything together.
    pub(super) fn sound(&self) -> bool {
        self.flaws.0.len() == self.flaws_before
    }

    /// Notes a mistake in the setting `key`.
    pub(super) fn flaw(&mut self, key: &str, message: impl Display) {
        self.flaw_at(self.place(key), key, message);
    }

    pub(super) fn flaw_at(&mut self, at: usize, key: &str, message: impl Display) {
        let path = self.path_of(key);
        self.flaws.add(at, format!("{path}: {message}"));
    }

    /// Where the value of `key` begins; where it is not written, the table it would stand in.
    fn place(&self, key: &str) -> usize {
        self.entry(key).map_or(self.at, |value| value.span().start)
    }

    fn entry(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        let mut entries = self.table?.iter();
        entries.find_map(|(name, value)| (name.get_ref() == key).then_some(value))
    }

    /// Whether `key` is in the file at all.
    pub(super) fn written(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    fn value(&mut self, key: &'t str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.entry(key)
    }

    fn path_of(&self, key: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*');
        let key = if key.len() <= 64 && key.chars().all(plain) {
            key.to_owned()
        } else {
            shorten(key)
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong_type(&mut self, at: usize, key: &str, expected: &str, found: &DeValue<'_>) {
        let found = describe(found);
        self.flaw_at(at, key, format_args!("expected {expected}, found {found}"));
    }

    pub(super) fn boolean(&mut self, key: &'t str, default: bool) -> bool {
        let Some(value) = self.value(key) else {
            return default;
        };
        match value.get_ref() {
            DeValue::Boolean(found) => *found,
            other => {
                self.wrong_type(value.span().start, key, "true or false", other);
                default
            }
        }
    }

    /// A whole number within `bounds`.
    pub(super) fn number<T>(&mut self, key: &'t str, default: T, bounds: &RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let Some(value) = self.value(key) else {
            return default;
        };
        let number = match value.get_ref() {
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        if let Some(number) = number.filter(|number| bounds.contains(number)) {
            return number;
        }
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        self.wrong_type(value.span().start, key, &expected, value.get_ref());
        default
    }

    /// A duration in whole seconds within `bounds`.
    pub(super) fn duration(
        &mut self,
        key: &'t str,
        default: Duration,
        bounds: &RangeInclusive<Duration>,
    ) -> Duration {
        let Some(value) = self.value(key) else {
            return default;
        };
        let at = value.span().start;
        let written = match value.get_ref() {
            DeValue::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        let expected = match written {
            None => "a duration such as \"15m\"".to_owned(),
            Some(found) if found.subsec_nanos() > 0 => "whole seconds".to_owned(),
            Some(found) if bounds.contains(&found) => return found,
            Some(_) => format!(
                "a duration from {} to {}",
                humantime::format_duration(*bounds.start()),
                humantime::format_duration(*bounds.end())
            ),
        };
        self.wrong_type(at, key, &expected, value.get_ref());
        default
    }

    /// A text, where it is written.
    pub(super) fn text(&mut self, key: &'t str) -> Option<Text<'t>> {
        let value = self.value(key)?;
        let text = self.as_text(key, value);
        text.map(|value_text| Text {
            at: value.span().start,
            value: value_text,
        })
    }

    fn as_text(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<&'t str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            other => {
                self.wrong_type(value.span().start, key, "a text in quotes", other);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'t str, default: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.text(key) else {
            return default;
        };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
            return *meaning;
        }
        let known = quoted(words.iter().map(|(word, _)| *word));
        let found = shorten(text.value);
        self.flaw_at(
            text.at,
            key,
            format_args!("expected {known}, found {found}"),
        );
        default
    }

    /// A list of texts, where it is written.
    pub(super) fn texts(&mut self, key: &'t str) -> Option<Vec<Text<'t>>> {
        let items = self.array(key, "a list of texts such as [\"...\"]")?;
        let mut texts = Vec::new();
        for item in items {
            if let Some(value) = self.as_text(key, item) {
                let at = item.span().start;
                texts.push(Text { at, value });
            }
        }
        Some(texts)
    }

    /// A list of tables, each read by `read`, where it is written.
    pub(super) fn tables<T>(
        &mut self,
        key: &'t str,
        mut read: impl FnMut(usize, &mut Section<'t, '_>) -> T,
    ) -> Option<Vec<T>> {
        let items = self.array(key, "a list of tables such as [{ ... }]")?;
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                self.wrong_type(at, key, "a table such as { ... }", item.get_ref());
                continue;
            };
            let path = format!("{}[{index}]", self.path_of(key));
            let mut section = Section::new(path, at, Some(table), self.flaws);
            all.push(read(index, &mut section));
            section.finish();
        }
        Some(all)
    }

    fn array(&mut self, key: &'t str, expected: &str) -> Option<&'t [Spanned<DeValue<'t>>]> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Array(items) => Some(items),
            other => {
                self.wrong_type(value.span().start, key, expected, other);
                None
            }
        }
    }

    /// The names of all settings of this table, for a table whose names are the operator's.
    pub(super) fn names(&self) -> Vec<Text<'t>> {
        let entries = self.table.into_iter().flat_map(|table| table.iter());
        entries
            .map(|(name, _)| Text {
                at: name.span().start,
                value: name.get_ref(),
            })
            .collect()
    }

    /// Notes every setting that nobody asked for.
    pub(super) fn finish(mut self) {
        for name in self.names() {
            if !self.known.contains(&name.value) {
                let known = quoted(self.known.iter().copied());
                let shown = shorten(name.value);
                let place = if self.path.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", self.path)
                };
                let message = format!("{place}unknown setting {shown}, expected {known}");
                self.flaws.add(name.at, message);
            }
        }
        self.known.clear();
    }
}
