//! The path of a tile or of an entry bundle, as C2SP tlog-tiles writes it.
//!
//! Called by `routes::log` with the path as it came, still percent-encoded: each part of a log has
//! one spelling, so that a cache in between keeps it once. (The crate `tlog_tiles` panics on a
//! width of zero and takes other spellings.)

use std::fmt;
use std::num::NonZeroU8;

use crate::service::LogPart;

/// Hashes of a full tile.
const FULL: usize = 256;
/// The specification's highest level; no log has so many.
const HIGHEST: u8 = 63;

/// `<L>/<N>[.p/<W>]`, with `entries` in place of a level for a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TilePath {
    pub(super) part: LogPart,
    pub(super) index: u64,
    /// None for a full one.
    partial: Option<NonZeroU8>,
}

impl TilePath {
    /// The part that a path names; `None` for anything but its one spelling.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.split_once('/')?;
        let part = match level {
            "entries" => LogPart::Entries,
            level => LogPart::Tile {
                level: level.parse().ok().filter(|level| *level <= HIGHEST)?,
            },
        };
        let (groups, partial) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, Some(width.parse().ok()?)),
            None => (rest, None),
        };
        let mut index: u64 = 0;
        for group in groups.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let number: u64 = digits.parse().ok().filter(|_| digits.len() == 3)?;
            index = index.checked_mul(1000)?.checked_add(number)?;
        }
        let parsed = Self {
            part,
            index,
            partial,
        };
        // What is left are signs, zeros in front, and an `x` at another place than all but last.
        (parsed.to_string() == path).then_some(parsed)
    }

    pub(super) fn width(&self) -> usize {
        self.partial.map_or(FULL, |width| usize::from(width.get()))
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            LogPart::Tile { level } => write!(f, "{level}/")?,
            LogPart::Entries => write!(f, "entries/")?,
        }
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut above = self.index / 1000;
        while above > 0 {
            groups.push(format!("x{:03}", above % 1000));
            above /= 1000;
        }
        groups.reverse();
        write!(f, "{}", groups.join("/"))?;
        match self.partial {
            Some(width) => write!(f, ".p/{width}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(path: &str) -> Option<(LogPart, u64, usize)> {
        TilePath::parse(path).map(|parsed| (parsed.part, parsed.index, parsed.width()))
    }

    #[test]
    fn the_specifications_examples_are_read() {
        let tile = |level| LogPart::Tile { level };
        assert_eq!(seen("0/x001/x234/067"), Some((tile(0), 1_234_067, 256)));
        assert_eq!(seen("0/273.p/112"), Some((tile(0), 273, 112)));
        assert_eq!(seen("63/000.p/1"), Some((tile(63), 0, 1)));
        assert_eq!(seen("entries/000"), Some((LogPart::Entries, 0, 256)));
        assert_eq!(
            seen("entries/x001/000.p/255"),
            Some((LogPart::Entries, 1000, 255))
        );
        let most = "0/x018/x446/x744/x073/x709/x551/615";
        assert_eq!(seen(most), Some((tile(0), u64::MAX, 256)));
    }

    #[test]
    fn no_other_spelling_is_read() {
        for path in [
            "",
            "/",
            "0",
            "0/",
            "0//000",
            "/0/000",
            "0/000/",
            "00/000",
            "+0/000",
            "-0/000",
            "64/000",
            "256/000",
            "0/0",
            "0/00",
            "0/0000",
            "0/+00",
            "0/x000",
            "0/x000/000",
            "0/x000/x001/067",
            "0/x001",
            "0/001/000",
            "0/x001/x000",
            "0/xx01/000",
            "0/X001/000",
            "0/000.p",
            "0/000.p/",
            "0/000.p/0",
            "0/000.p/00",
            "0/000.p/01",
            "0/000.p/+1",
            "0/000.p/256",
            "0/000.p/1/",
            "0/000.p/1.p/1",
            "0/000.P/1",
            "0/%30%30%30",
            "0/000?",
            "0/٠٠٠",
            "data/000",
            "entries",
            "entries/",
            "Entries/000",
            "0/entries/000",
            "0/x018/x446/x744/x073/x709/x551/616",
            "0/x999/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(seen(path), None, "{path:?}");
        }
    }

    fn part() -> impl Strategy<Value = LogPart> {
        prop_oneof![
            (0..=HIGHEST).prop_map(|level| LogPart::Tile { level }),
            Just(LogPart::Entries),
        ]
    }

    proptest! {
        #[test]
        fn each_part_has_one_spelling(part in part(), index: u64, width: u8) {
            let written = TilePath { part, index, partial: NonZeroU8::new(width) };
            prop_assert_eq!(TilePath::parse(&written.to_string()), Some(written));
        }

        #[test]
        fn what_is_read_is_written_the_same(path in "([0-9]{1,2}|entries)(/x?[0-9]{1,4}){0,4}(\\.p/[0-9]{0,3})?/?") {
            if let Some(parsed) = TilePath::parse(&path) {
                prop_assert_eq!(parsed.to_string(), path);
            }
        }

        #[test]
        fn no_text_brings_it_down(path in ".{0,40}") {
            let _ = TilePath::parse(&path);
        }
    }
}
