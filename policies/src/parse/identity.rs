//! The part of a policy file that says which app it is: identifier, names, origins, relying party.
//!
//! Called by the parser. These are the only settings without a default. An origin or a relying party that is too
//! wide lets another page use the app's passkeys, so both are taken literally or refused. Must never derive
//! one from the other.

use super::section::{Section, Text};
use super::shown::shorten;
use crate::app::RelyingParty;
use crate::bounds;
use crate::origin;

const RELATED: &str = "related_origins";

pub(super) struct Identity {
    pub(super) app: String,
    pub(super) display_name: String,
    pub(super) origins: Vec<String>,
    pub(super) relying_party: RelyingParty,
}

/// `None` where a setting without a default is missing or wrong; the mistake is noted then.
pub(super) fn read(root: &mut Section<'_, '_>) -> Option<Identity> {
    let app = app(root);
    let display_name = name(root, "display_name");
    let origins = origins(root);
    let mut party = root.section("relying_party");
    let related = related_origins(&mut party, &origins);
    let hosts: Vec<&str> = origins
        .iter()
        .filter(|(origin, _)| !related.contains(origin))
        .map(|(_, host)| *host)
        .collect();
    let id = relying_party_id(&mut party, &hosts);
    let party_name = name(&mut party, "name");
    if let Some(id) = id {
        all_outside(&mut party, id, &origins, &related);
    }
    party.finish();
    let app = app?;
    let display_name = display_name.unwrap_or_else(|| app.clone());
    let relying_party = RelyingParty {
        id: id?.to_owned(),
        name: party_name.unwrap_or_else(|| display_name.clone()),
        related_origins: related.iter().map(|text| (*text).to_owned()).collect(),
    };
    Some(Identity {
        app,
        display_name,
        origins: origins.iter().map(|(text, _)| (*text).to_owned()).collect(),
        relying_party,
    })
}

fn app(root: &mut Section<'_, '_>) -> Option<String> {
    let text = required(root, "app", "the identifier of the app, such as \"demo\"")?;
    if is_app_id(text.value) {
        return Some(text.value.to_owned());
    }
    let found = shorten(text.value);
    root.flaw_at(
        text.at,
        "app",
        format_args!(
            "expected 1 to 32 of a-z, 0-9 and -, the first one a letter or digit, found {found}"
        ),
    );
    None
}

fn is_app_id(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
        && text.bytes().next().is_some_and(alphanumeric)
}

/// A text without a default. Where it is not written, the mistake says `what` was expected.
pub(super) fn required<'t>(
    section: &mut Section<'t, '_>,
    key: &'t str,
    what: &str,
) -> Option<Text<'t>> {
    let before = section.written(key);
    if !before {
        section.flaw(key, format_args!("missing, expected {what}"));
    }
    section.text(key)
}

/// A name that people read.
fn name(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    let fits = bounds::NAME_CHARS.contains(&text.value.chars().count());
    if fits && !text.value.chars().any(is_unsafe) && text.value.trim() == text.value {
        return Some(text.value.to_owned());
    }
    let found = shorten(text.value);
    let (least, most) = bounds::NAME_CHARS.into_inner();
    section.flaw_at(
        text.at,
        key,
        format_args!(
            "expected {least} to {most} characters without control characters or space around, found {found}"
        ),
    );
    None
}

/// Control characters, and the invisible ones that turn the reading direction: a name stands in consent dialogs.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Each good origin with its host.
fn origins<'t>(root: &mut Section<'t, '_>) -> Vec<(&'t str, &'t str)> {
    const KEY: &str = "origins";
    if !root.written(KEY) {
        root.flaw(
            KEY,
            "missing, expected the exact origins of the app, such as [\"https://app.example\"]",
        );
    }
    let Some(texts) = root.texts(KEY) else {
        return Vec::new();
    };
    if !bounds::ORIGINS.contains(&texts.len()) {
        let (least, most) = bounds::ORIGINS.into_inner();
        let found = texts.len();
        root.flaw(
            KEY,
            format_args!("expected {least} to {most}, found {found}"),
        );
    }
    let mut good: Vec<(&str, &str)> = Vec::new();
    for text in texts {
        let found = shorten(text.value);
        if good.iter().any(|(origin, _)| *origin == text.value) {
            root.flaw_at(text.at, KEY, format_args!("{found} is listed twice"));
            continue;
        }
        match origin::host_of_origin(text.value) {
            Ok(host) => good.push((text.value, host)),
            Err(sentence) => root.flaw_at(text.at, KEY, format_args!("{found}: {sentence}")),
        }
    }
    good
}

/// Those of the app's origins that need not be covered by the relying party.
fn related_origins<'t>(party: &mut Section<'t, '_>, origins: &[(&str, &str)]) -> Vec<&'t str> {
    let texts = party.texts(RELATED).unwrap_or_default();
    let (found, most) = (texts.len(), *bounds::RELATED_ORIGINS.end());
    if found > most {
        party.flaw(
            RELATED,
            format_args!("expected at most {most}, found {found}"),
        );
    }
    let mut related: Vec<&str> = Vec::new();
    for Text { at, value } in texts {
        let shown = shorten(value);
        if related.contains(&value) {
            party.flaw_at(at, RELATED, format_args!("{shown} is listed twice"));
        } else if origins.iter().any(|(origin, _)| *origin == value) {
            related.push(value);
        } else {
            party.flaw_at(
                at,
                RELATED,
                format_args!("{shown} is none of the app's origins, expected one of them"),
            );
        }
    }
    related
}

/// A related origin that the identifier covers says nothing, and makes its reader think that others need it too.
fn all_outside(party: &mut Section<'_, '_>, id: &str, origins: &[(&str, &str)], related: &[&str]) {
    let covered = |origin: &&str| {
        let host = origins.iter().find(|(known, _)| known == origin);
        host.is_some_and(|(_, host)| origin::covers(id, host))
    };
    if let Some(origin) = related.iter().copied().find(covered) {
        party.flaw(
            RELATED,
            format_args!("\"{origin}\" is covered by id already, leave it out"),
        );
    }
}

fn relying_party_id<'t>(party: &mut Section<'t, '_>, hosts: &[&str]) -> Option<&'t str> {
    const KEY: &str = "id";
    let text = required(
        party,
        KEY,
        "the domain that passkeys belong to, such as \"app.example\"",
    )?;
    let found = shorten(text.value);
    if let Err(sentence) = origin::check_host(text.value) {
        party.flaw_at(text.at, KEY, format_args!("{found}: {sentence}"));
        return None;
    }
    for host in hosts {
        if !origin::covers(text.value, host) {
            party.flaw_at(
                text.at,
                KEY,
                format_args!(
                    "{found} is neither the host of each origin nor a parent domain of it: \
                     it does not cover \"{host}\" (an origin elsewhere is listed in related_origins too)"
                ),
            );
        }
    }
    Some(text.value)
}
