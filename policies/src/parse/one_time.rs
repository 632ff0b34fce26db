//! The sections of a policy file about codes: TOTP, delivered codes, recovery codes.
//!
//! Called by the parser. Must never accept a link that leads away from the app: a code would follow it.

use super::budget;
use super::section::{Section, Text};
use super::shown::shorten;
use crate::app::{DeliveredCodes, LinkTemplate, RecoveryCodes, Totp};
use crate::bounds;
use crate::origin;

pub(super) fn totp(root: &mut Section<'_, '_>) -> Totp {
    let mut section = root.section("totp");
    let default = Totp::default();
    let totp = Totp {
        allowed: section.boolean("allowed", default.allowed),
        digits: section.number("digits", default.digits, &bounds::TOTP_DIGITS),
        period: section.duration("period", default.period, &bounds::TOTP_PERIOD),
        window: section.number("window", default.window, &bounds::TOTP_WINDOW),
        rounds: budget::rounds(&mut section, "rounds").unwrap_or(default.rounds),
    };
    section.finish();
    totp
}

/// `origins` of the app, where they are known: a link must lead to one of them.
pub(super) fn delivered_codes(
    root: &mut Section<'_, '_>,
    origins: Option<&[String]>,
) -> DeliveredCodes {
    let mut section = root.section("delivered_codes");
    let default = DeliveredCodes::default();
    let codes = DeliveredCodes {
        allowed: section.boolean("allowed", default.allowed),
        expiry: section.duration("expiry", default.expiry, &bounds::CODE_EXPIRY),
        digits: section.number("digits", default.digits, &bounds::CODE_DIGITS),
        rounds: budget::rounds(&mut section, "rounds").unwrap_or(default.rounds),
        interval: section.duration("interval", default.interval, &bounds::CODE_INTERVAL),
        per_day: section.number("per_day", default.per_day, &bounds::CODES_PER_DAY),
        link: link(&mut section, origins),
    };
    section.finish();
    codes
}

fn link(section: &mut Section<'_, '_>, origins: Option<&[String]>) -> Option<LinkTemplate> {
    const KEY: &str = "link";
    let Text { at, value } = section.text(KEY)?;
    match check_link(value, origins?) {
        Ok(()) => Some(LinkTemplate::of_checked(value)),
        Err(sentence) => {
            let found = shorten(value);
            section.flaw_at(at, KEY, format_args!("{found}: {sentence}"));
            None
        }
    }
}

fn check_link(template: &str, origins: &[String]) -> Result<(), &'static str> {
    if template.len() > bounds::LINK_BYTES {
        return Err("expected at most 512 bytes");
    }
    let (origin, rest) = origin::split(template);
    origin::host_of_origin(origin)?;
    if !origins.iter().any(|known| known == origin) {
        return Err("expected a URL on one of the app's origins");
    }
    let mut pieces = rest.split(LinkTemplate::PLACE);
    let (Some(before), Some(after), None) = (pieces.next(), pieces.next(), pieces.next()) else {
        return Err("expected the place of the code, {code}, exactly once and after the origin");
    };
    if !before.chars().chain(after.chars()).all(is_url_char) {
        return Err("expected only characters that a URL may hold (RFC 3986), others as %xx");
    }
    Ok(())
}

/// Unreserved, reserved and percent (RFC 3986, section 2), without brackets, which only an IPv6 address needs.
fn is_url_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#@!$&'()*+,;=%".contains(c)
}

pub(super) fn recovery_codes(root: &mut Section<'_, '_>) -> RecoveryCodes {
    let mut section = root.section("recovery_codes");
    let default = RecoveryCodes::default();
    let codes = RecoveryCodes {
        allowed: section.boolean("allowed", default.allowed),
        rounds: budget::rounds(&mut section, "rounds").unwrap_or(default.rounds),
    };
    section.finish();
    codes
}
