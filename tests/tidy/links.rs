//! Links of the documentation lead somewhere, in the checkout and in the package: files, headings, the runbooks
//! of alerts, the pages that units and the program name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use super::{root, sources};

/// Where the package puts `docs/`.
const INSTALLED: &str = "file:///usr/share/doc/custodyd/";

/// Every page of the checkout that is not somebody else's.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let theirs = ["target", "node_modules", "demo-data"].contains(&name.as_str());
                if !theirs && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// What links to a page may name behind `#`, as GitHub and most others make it of headings.
pub(super) fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in Parser::new(page) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let text = heading.take().unwrap_or_default().to_lowercase();
                let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
                let slug: String = text.chars().filter(kept).collect();
                anchors.insert(slug.replace(' ', "-"));
            }
            _ => {}
        }
    }
    anchors
}

fn links(page: &str) -> Vec<String> {
    let link = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some(dest_url.to_string())
        }
        _ => None,
    };
    Parser::new(page).filter_map(link).collect()
}

/// Why a link of a page leads nowhere.
fn broken(page: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("http://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => page.to_owned(),
        _ => page.parent().unwrap().join(file),
    };
    let wrong = |what: &str| Some(format!("{}: {link}: {what}", page.display()));
    if !target.exists() {
        return wrong("is not there");
    }
    if !anchor.is_empty() && !anchors(&std::fs::read_to_string(target).unwrap()).contains(anchor) {
        return wrong("has no such heading");
    }
    None
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        wrong.extend(links(&text).iter().filter_map(|link| broken(&page, link)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The check can fail.
    let readme = root().join("README.md");
    for link in ["docs/NONE.md", "docs/LOG.md#nothing", "#nothing"] {
        assert!(broken(&readme, link).is_some(), "{link}");
    }
}

/// The words of a text that begin with one of these.
fn words(text: &str, begin: &str) -> Vec<String> {
    let part = |letter: char| letter.is_ascii_alphanumeric() || "-_./#".contains(letter);
    text.match_indices(begin)
        .map(|(at, _)| {
            let rest = &text[at + begin.len()..];
            let end = rest.find(|letter| !part(letter)).unwrap_or(rest.len());
            rest[..end].trim_end_matches('.').to_owned()
        })
        .collect()
}

#[test]
fn what_units_and_alerts_name_is_in_the_package() {
    let mut named = Vec::new();
    for folder in ["systemd", "docs/monitoring"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = std::fs::read_to_string(path).unwrap();
                named.extend(words(&text, INSTALLED));
            }
        }
    }
    assert!(named.len() > 20, "{named:?}");
    let page = root().join("docs/index");
    let wrong: Vec<_> = named
        .iter()
        .filter_map(|link| broken(&page, link))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pages_that_the_program_names_are_there() {
    let mut texts: Vec<String> = sources("daemon/src")
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    texts.push(std::fs::read_to_string(root().join("daemon/custodyd.example.toml")).unwrap());
    let named: BTreeSet<String> = texts.iter().flat_map(|text| words(text, "docs/")).collect();
    let pages: Vec<&String> = named.iter().filter(|name| name.ends_with(".md")).collect();
    assert!(pages.len() > 3, "{pages:?}");
    for page in pages {
        assert!(root().join("docs").join(page).is_file(), "docs/{page}");
    }
}
