//! The operator's handbook as a test reads it: the commands of a chapter in their order, and what each is
//! said to show.
//!
//! Called by `tests/systemd`, which runs them, and by `tests/tidy`. A fenced block is `sh` (commands) or
//! `text` (what the commands before it show). Words behind `sh` say when it is run: none, always; `on=NAME` or
//! `on=NAME,NAME`, where the test takes one of these ways through the chapter or is on that machine; `norun`, never, with the reason
//! behind it. Any other block in a chapter is refused, so that nothing is left out by a slip of the pen.

use std::path::PathBuf;

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use crate::token::repository;

/// When a block is run.
#[derive(Debug, Clone, Eq, PartialEq)]
pub enum When {
    Always,
    On(Vec<String>),
    Never,
}

/// Commands, and what they are said to show.
#[derive(Debug, Clone)]
pub struct Block {
    pub when: When,
    pub commands: String,
    pub shown: Option<String>,
}

/// The folder of the handbook.
#[must_use]
pub fn folder() -> PathBuf {
    repository().join("docs/handbook")
}

/// The blocks of a chapter, by the name of its file without the ending.
///
/// # Panics
/// With what is wrong, where the chapter cannot be read.
#[must_use]
pub fn chapter(name: &str) -> Vec<Block> {
    let path = folder().join(name).with_extension("md");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    blocks(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

/// # Errors
/// Says which block is none that a chapter may have.
pub fn blocks(markdown: &str) -> Result<Vec<Block>, String> {
    let mut found: Vec<Block> = Vec::new();
    let mut fenced: Option<(String, String)> = None;
    for event in Parser::new(markdown) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                fenced = Some((info.to_string(), String::new()));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => {
                return Err("an indented code block: fence it, and say what it is".into());
            }
            Event::Text(text) => {
                if let Some((_, content)) = &mut fenced {
                    content.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some((info, content)) = fenced.take() {
                    add(&mut found, &info, content)?;
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn add(found: &mut Vec<Block>, info: &str, content: String) -> Result<(), String> {
    let mut words = info.splitn(3, ' ');
    let (kind, word, reason) = (words.next(), words.next(), words.next());
    let first = content.lines().next().unwrap_or_default();
    let when = match (kind, word, reason) {
        (Some("text"), None, _) => {
            let Some(last) = found.last_mut().filter(|last| last.shown.is_none()) else {
                return Err(format!("`{first}`: no commands that show this"));
            };
            last.shown = Some(content);
            return Ok(());
        }
        (Some("sh"), None, _) => When::Always,
        (Some("sh"), Some("norun"), Some(_)) => When::Never,
        (Some("sh"), Some(word), None) if word.starts_with("on=") => {
            let names = word.trim_start_matches("on=").split(',');
            When::On(names.map(str::to_owned).collect())
        }
        _ => return Err(format!("`{first}`: a block `{info}`")),
    };
    found.push(Block {
        when,
        commands: content,
        shown: None,
    });
    Ok(())
}

/// Whether an output is what the handbook shows: line by line, where a line `...` stands for any lines and
/// `...` within a line for any text. Spaces at the end of a line count for nothing.
#[must_use]
pub fn agrees(shown: &str, output: &str) -> bool {
    fn lines(text: &str) -> Vec<&str> {
        text.trim_end().lines().map(str::trim_end).collect()
    }
    fn follow(shown: &[&str], output: &[&str]) -> bool {
        match (shown.split_first(), output.split_first()) {
            (None, None) => true,
            (Some((&"...", rest)), _) => {
                (0..=output.len()).any(|skipped| follow(rest, &output[skipped..]))
            }
            (Some((line, rest)), Some((found, left))) => {
                line_agrees(line, found) && follow(rest, left)
            }
            _ => false,
        }
    }
    follow(&lines(shown), &lines(output))
}

fn line_agrees(shown: &str, found: &str) -> bool {
    let parts: Vec<&str> = shown.split("...").collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return shown == found;
    };
    let Some(mut rest) = found.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chapter_is_its_commands_in_order() {
        let text = "# A\n```sh\none\n```\n```text\n1\n```\nthen\n```sh on=old,new\ntwo\n```\n```sh norun it rings a bell\nthree\n```\n";
        let found = blocks(text).unwrap();
        let commands: Vec<_> = found.iter().map(|block| block.commands.as_str()).collect();
        assert_eq!(commands, ["one\n", "two\n", "three\n"]);
        assert_eq!(found[0].shown.as_deref(), Some("1\n"));
        let when = found.into_iter().map(|block| block.when);
        let expected = [
            When::Always,
            When::On(vec!["old".into(), "new".into()]),
            When::Never,
        ];
        assert!(when.eq(expected));
    }

    #[test]
    fn what_nobody_would_run_is_refused() {
        for text in [
            "```\nno kind\n```\n",
            "```sh norun\nno reason\n```\n",
            "```sh maybe\nx\n```\n",
            "```text\nof no command\n```\n",
            "```sh\na\n```\n```text\n1\n```\n```text\n2\n```\n",
            "para\n\n    indented\n",
        ] {
            assert!(blocks(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_output_agrees_but_for_what_is_left_open() {
        assert!(agrees("a\nb\n", "a\nb  \n"));
        assert!(agrees("...\nb", "x\ny\nb"));
        assert!(agrees("a ... c", "a 12 c"));
        assert!(agrees("a\n...", "a"));
        assert!(agrees("... and ... now", "1 and 2 now"));
        for (shown, output) in [
            ("a", "a\nb"),
            ("a\nb", "a"),
            ("a ... c", "a 12 d"),
            ("...\nb", "b\nc"),
            ("ab...ab", "ab"),
        ] {
            assert!(!agrees(shown, output), "{shown:?} {output:?}");
        }
    }
}
