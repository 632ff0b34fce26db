//! A small typed reader over a TOML document that keeps going after an error.
//!
//! Called by `check` only. It knows TOML and positions, and nothing about custodyd.
//! A derived deserializer would stop at the first wrong value; this one takes each key
//! out of its table by name, notes what is wrong with its place, and at the end calls
//! every key that nobody took unknown. It never repeats the value of an unknown key:
//! somebody may have put a secret there.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// A file under examination: its text for positions, and what was found wrong so far.
#[derive(Debug)]
pub(super) struct Document<'i> {
    file: String,
    text: &'i str,
    errors: Vec<ConfigError>,
}

/// One TOML table, whose keys are taken out one by one.
#[derive(Debug)]
pub(super) struct Table<'i> {
    /// Dotted path, empty at the top.
    path: String,
    /// Where its header stands; missing keys are reported there.
    at: usize,
    entries: BTreeMap<String, Entry<'i>>,
    /// Keys that were asked for, to name them beside an unknown one.
    known: Vec<&'static str>,
}

#[derive(Debug)]
struct Entry<'i> {
    key_at: usize,
    value_at: usize,
    value: DeValue<'i>,
}

/// A value together with its place, for checks that need more than one key.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<'i> Document<'i> {
    pub(super) fn new(file: &str, text: &'i str) -> Self {
        Self {
            file: file.to_owned(),
            text,
            errors: Vec::new(),
        }
    }

    /// The top table, or every syntax error. A file with broken syntax is not read any
    /// further: what the recovery guesses would only add misleading lines.
    pub(super) fn top(&mut self) -> Option<Table<'i>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let at = error.span().map_or(self.text.len(), |span| span.start);
            self.error(at, error.message().to_owned());
        }
        errors
            .is_empty()
            .then(|| Table::new(String::new(), 0, table.into_inner()))
    }

    pub(super) fn error(&mut self, at: usize, message: String) {
        let (line, column) = position(self.text, at);
        self.errors.push(ConfigError {
            file: self.file.clone(),
            line,
            column,
            message,
        });
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// A subtable; an absent one counts as empty, so that its missing keys are named.
    pub(super) fn table(&mut self, parent: &mut Table<'i>, key: &'static str) -> Table<'i> {
        let empty_at = parent.at;
        let path = parent.name_of(key);
        self.optional_table(parent, key)
            .unwrap_or_else(|| Table::new(path, empty_at, DeTable::new()))
    }

    pub(super) fn optional_table(
        &mut self,
        parent: &mut Table<'i>,
        key: &'static str,
    ) -> Option<Table<'i>> {
        let entry = parent.take(key)?;
        let path = parent.name_of(key);
        match entry.value {
            DeValue::Table(table) => Some(Table::new(path, entry.key_at, table)),
            other => {
                let found = describe(&other);
                self.error(
                    entry.value_at,
                    format!("{path}: expected a table, found {found}"),
                );
                None
            }
        }
    }

    /// A key that may be absent. `read` says what it expected when it cannot use the value.
    pub(super) fn optional<T>(
        &mut self,
        table: &mut Table<'i>,
        key: &'static str,
        read: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let entry = table.take(key)?;
        match read(&entry.value) {
            Ok(value) => Some(Placed {
                value,
                at: entry.value_at,
            }),
            Err(message) => {
                self.error(entry.value_at, format!("{}: {message}", table.name_of(key)));
                None
            }
        }
    }

    /// A key with a default. A wrong value is noted, and the default stands in until the end.
    pub(super) fn or<T>(
        &mut self,
        table: &mut Table<'i>,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> T {
        self.optional(table, key, read)
            .map_or(default, |placed| placed.value)
    }

    /// A key without a default; `why` completes the sentence "... is missing: ".
    pub(super) fn required<T>(
        &mut self,
        table: &mut Table<'i>,
        key: &'static str,
        why: &str,
        read: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        if !table.entries.contains_key(key) {
            table.known.push(key);
            self.error(
                table.at,
                format!("{} is missing: {why}", table.name_of(key)),
            );
            return None;
        }
        self.optional(table, key, read)
    }

    /// All keys of a table whose names are the operator's own.
    pub(super) fn every<T>(
        &mut self,
        table: &mut Table<'i>,
        read: impl Fn(&DeValue<'i>) -> Result<T, String>,
    ) -> Vec<(String, Placed<T>)> {
        let mut found = Vec::new();
        for (key, entry) in std::mem::take(&mut table.entries) {
            let name = table.name_of(&key);
            let at = entry.value_at;
            match read(&entry.value) {
                Ok(value) => found.push((key, Placed { value, at })),
                Err(message) => self.error(at, format!("{name}: {message}")),
            }
        }
        found
    }

    /// All subtables of a table whose names are the operator's own: what is left once its other
    /// keys were taken.
    pub(super) fn every_table(&mut self, table: &mut Table<'i>) -> Vec<(String, Table<'i>)> {
        let mut found = Vec::new();
        for (key, entry) in std::mem::take(&mut table.entries) {
            let path = table.name_of(&key);
            match entry.value {
                DeValue::Table(inner) => found.push((key, Table::new(path, entry.key_at, inner))),
                _ => self.error(
                    entry.key_at,
                    format!(
                        "{path}: unknown key, and not a table; known here: {}",
                        table.known.join(", ")
                    ),
                ),
            }
        }
        found
    }

    /// Refuses whatever nobody asked for.
    pub(super) fn finish(&mut self, table: Table<'i>) {
        for (key, entry) in &table.entries {
            let name = table.name_of(key);
            self.error(
                entry.key_at,
                format!(
                    "{name}: unknown key; known here: {}",
                    table.known.join(", ")
                ),
            );
        }
    }
}

impl<'i> Table<'i> {
    fn new(path: String, at: usize, table: DeTable<'i>) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| {
                let Range { start: key_at, .. } = key.span();
                let Range {
                    start: value_at, ..
                } = value.span();
                let entry = Entry {
                    key_at,
                    value_at,
                    value: value.into_inner(),
                };
                (key.into_inner().into_owned(), entry)
            })
            .collect();
        Self {
            path,
            at,
            entries,
            known: Vec::new(),
        }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn name_of(&self, key: &str) -> String {
        // A key may hold any character; escaped, it cannot draw on the operator's terminal.
        let key = key.escape_debug();
        match self.path.as_str() {
            "" => key.to_string(),
            path => format!("{path}.{key}"),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Entry<'i>> {
        self.known.push(key);
        self.entries.remove(key)
    }
}

/// Line and column of a byte offset, both from 1; an offset past the end counts as the end.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before
        .get(line_start..)
        .map_or(0, |rest| rest.chars().count())
        + 1;
    (line, column)
}

/// What a value is, for "expected ..., found ...". Long strings are cut.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let mut shown: String = text.chars().take(60).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            format!("{shown:?}")
        }
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
