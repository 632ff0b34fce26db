//! The sections of a policy file about people and their traces: contacts, aliases, enrolment, backend, retention.
//!
//! Called by the parser. Keys and hashes are checked for their exact length here, so that a truncated one is found with
//! its line and not by a ticket that never verifies. Must never ask for a secret.

use super::identity::required;
use super::section::{Section, Text};
use super::shown::{quoted, shorten};
use crate::app::{Aliases, Backend, Channel, Contacts, Enrolment, Retention, TicketKey};
use crate::bounds;

/// `codes`: whether codes are delivered, which no account could get without a channel.
pub(super) fn contacts(root: &mut Section<'_, '_>, codes: bool) -> Contacts {
    let mut section = root.section("contacts");
    let default = Contacts::default();
    let contacts = Contacts {
        channels: channels(&mut section).unwrap_or(default.channels),
        alias: section.boolean("alias", default.alias),
        max_per_account: section.number(
            "max_per_account",
            default.max_per_account,
            &bounds::CONTACTS,
        ),
    };
    if section.sound() && codes && contacts.channels.is_empty() {
        let message = "expected at least one, unless delivered_codes.allowed is false: \
                       no code could be delivered";
        section.flaw("channels", message);
    }
    section.finish();
    contacts
}

fn channels(section: &mut Section<'_, '_>) -> Option<Vec<Channel>> {
    const KEY: &str = "channels";
    const ALL: [Channel; 2] = [Channel::Email, Channel::Sms];
    let texts = section.texts(KEY)?;
    let mut channels = Vec::new();
    for Text { at, value } in texts {
        let found = shorten(value);
        match ALL.into_iter().find(|channel| channel.name() == value) {
            Some(channel) if channels.contains(&channel) => {
                section.flaw_at(at, KEY, format_args!("{found} is listed twice"));
            }
            Some(channel) => channels.push(channel),
            None => {
                let expected = quoted(ALL.into_iter().map(Channel::name));
                section.flaw_at(at, KEY, format_args!("expected {expected}, found {found}"));
            }
        }
    }
    Some(channels)
}

pub(super) fn aliases(root: &mut Section<'_, '_>) -> Aliases {
    let mut section = root.section("aliases");
    let default = Aliases::default();
    let aliases = Aliases {
        allowed: section.boolean("allowed", default.allowed),
        max_per_account: section.number(
            "max_per_account",
            default.max_per_account,
            &bounds::ALIASES,
        ),
    };
    section.finish();
    aliases
}

pub(super) fn enrolment(root: &mut Section<'_, '_>) -> Enrolment {
    const KEY: &str = "tickets";
    let mut section = root.section("enrolment");
    let default = Enrolment::default();
    let enrolment = Enrolment {
        open: section.boolean("open", default.open),
        quota_per_hour: section.number(
            "quota_per_hour",
            default.quota_per_hour,
            &bounds::ENROLMENT_QUOTA,
        ),
        tickets: section
            .tables(KEY, |_, key| ticket_key(key))
            .unwrap_or_default(),
    };
    let keys = &enrolment.tickets;
    count(&mut section, KEY, keys.len(), bounds::TICKET_KEYS);
    let twice = keys
        .iter()
        .zip(1..)
        .find(|(key, next)| keys.iter().skip(*next).any(|other| other.kid == key.kid));
    if let Some((key, _)) = twice.filter(|_| section.sound()) {
        let found = shorten(&key.kid);
        section.flaw(KEY, format_args!("two keys have the kid {found}"));
    }
    section.finish();
    enrolment
}

fn ticket_key(section: &mut Section<'_, '_>) -> TicketKey {
    let good_kid = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        bounds::KID_CHARS.contains(&text.len()) && text.bytes().all(allowed)
    };
    let kid = "a name of 1 to 64 of A-Z, a-z, 0-9, -, . and _";
    let coordinate = "32 bytes in base64url without padding, which are 43 characters";
    TicketKey {
        kid: checked(section, "kid", kid, good_kid),
        x: checked(section, "x", coordinate, is_coordinate),
        y: checked(section, "y", coordinate, is_coordinate),
    }
}

/// A text that has no default and must pass `check`; empty where it does not.
fn checked<'t>(
    section: &mut Section<'t, '_>,
    key: &'t str,
    expected: &str,
    check: impl Fn(&str) -> bool,
) -> String {
    let Some(Text { at, value }) = required(section, key, expected) else {
        return String::new();
    };
    if check(value) {
        return value.to_owned();
    }
    let found = shorten(value);
    section.flaw_at(at, key, format_args!("expected {expected}, found {found}"));
    String::new()
}

/// 256 bits in base64url without padding (RFC 4648, section 5): the last of 43 characters carries four of them, and
/// the two bits that are left over must be zero.
fn is_coordinate(text: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    text.len() == 43
        && text.bytes().all(base64url)
        && text.ends_with(|last| "AEIMQUYcgkosw048".contains(last))
}

pub(super) fn backend(root: &mut Section<'_, '_>) -> Backend {
    const KEY: &str = "credentials_sha256";
    let mut section = root.section("backend");
    let mut credentials: Vec<[u8; 32]> = Vec::new();
    let texts = section.texts(KEY).unwrap_or_default();
    count(&mut section, KEY, texts.len(), bounds::BACKEND_CREDENTIALS);
    for Text { at, value } in texts {
        match hash(value) {
            // Not shown: who pastes the credential itself here should not find it in a log.
            None => section.flaw_at(
                at,
                KEY,
                "expected a SHA-256 hash, which is 64 hexadecimal digits",
            ),
            Some(hash) if credentials.contains(&hash) => {
                section.flaw_at(at, KEY, "a hash is listed twice");
            }
            Some(hash) => credentials.push(hash),
        }
    }
    section.finish();
    Backend { credentials }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

fn count(
    section: &mut Section<'_, '_>,
    key: &'static str,
    found: usize,
    bounds: std::ops::RangeInclusive<usize>,
) {
    if !bounds.contains(&found) {
        let most = bounds.end();
        section.flaw(key, format_args!("expected at most {most}, found {found}"));
    }
}

pub(super) fn retention(root: &mut Section<'_, '_>) -> Retention {
    const INACTIVE: &str = "inactive";
    let mut section = root.section("retention");
    let default = Retention::default();
    let inactive = section.duration(INACTIVE, *bounds::INACTIVE.end(), &bounds::INACTIVE);
    let retention = Retention {
        inactive: section.written(INACTIVE).then_some(inactive),
        events: section.duration("events", default.events, &bounds::EVENTS),
    };
    section.finish();
    retention
}
