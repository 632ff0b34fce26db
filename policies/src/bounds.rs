//! The range that each number and each duration of a policy must lie in, in one place.
//!
//! Called by the policy parser and by the tests that hold its results against these. A bound is there either for
//! safety (a floor below which the promise fails) or for sanity (a ceiling beyond which it is a slip of the
//! pen). Must never hold a default: those stand beside the types.

use std::ops::RangeInclusive;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

const fn span(least: u64, most: u64) -> RangeInclusive<Duration> {
    RangeInclusive::new(Duration::from_secs(least), Duration::from_secs(most))
}

/// Characters of a name shown to people.
pub const NAME_CHARS: RangeInclusive<usize> = 1..=64;
/// Origins of one app.
pub const ORIGINS: RangeInclusive<usize> = 1..=16;
/// `sessions.idle`. A stolen unlocked browser is worth this long.
pub const SESSION_IDLE: RangeInclusive<Duration> = span(MINUTE, 30 * DAY);
/// `sessions.absolute`.
pub const SESSION_ABSOLUTE: RangeInclusive<Duration> = span(5 * MINUTE, YEAR);
/// `sessions.fresh`. Past an hour "fresh" would say nothing about who is at the keyboard.
pub const FRESH: RangeInclusive<Duration> = span(30, HOUR);
/// `sessions.read_only_idle`.
pub const READ_ONLY_IDLE: RangeInclusive<Duration> = span(MINUTE, YEAR);
/// `sessions.read_only_absolute`.
pub const READ_ONLY_ABSOLUTE: RangeInclusive<Duration> = span(5 * MINUTE, 2 * YEAR);
/// `pin.min_length` in characters.
pub const PIN_LENGTH: RangeInclusive<usize> = 4..=64;
/// `pin.memory_kib`, Argon2id memory in KiB.
pub const PIN_MEMORY_KIB: RangeInclusive<u32> = 8192..=1_048_576;
/// `pin.passes`, Argon2id iterations.
pub const PIN_PASSES: RangeInclusive<u32> = 1..=16;
/// `pin.lanes`, Argon2id parallelism.
pub const PIN_LANES: RangeInclusive<u32> = 1..=4;
/// Least memory times passes, in KiB: 19 MiB twice, the first choice of OWASP's Password Storage Cheat Sheet for
/// Argon2id. Memory and passes may be traded at this product; variants that cost less in all are refused.
pub const PIN_MEMORY_TIMES_PASSES: u64 = 2 * 19_456;
/// `pin.ksf_memory_kib`, and what a client may say that it has spent: up to the 2 GiB of RFC 9106's first choice.
pub const KSF_MEMORY_KIB: RangeInclusive<u32> = 8192..=2_097_152;
/// `pin.ksf_passes`, as above.
pub const KSF_PASSES: RangeInclusive<u32> = 1..=64;
/// `pin.ksf_lanes`, as above.
pub const KSF_LANES: RangeInclusive<u32> = 1..=16;
/// `attempts` of one round. All rounds together: [`MAX_ATTEMPTS`](crate::rounds::MAX_ATTEMPTS).
pub const ROUND_ATTEMPTS: RangeInclusive<u32> = 1..=crate::rounds::MAX_ATTEMPTS;
/// `wait` of a round after the first.
pub const ROUND_WAIT: RangeInclusive<Duration> = span(1, 30 * DAY);
/// `passkeys.max_age`.
pub const PASSKEY_AGE: RangeInclusive<Duration> = span(DAY, 10 * YEAR);
/// `passkeys.max_idle`.
pub const PASSKEY_IDLE: RangeInclusive<Duration> = span(DAY, 10 * YEAR);
/// `passkeys.max_per_account`. Bounded, like devices and secrets, because the envelope is.
pub const PASSKEYS: RangeInclusive<usize> = 1..=32;
/// `passkeys.ceremony`: time for a person to find the authenticator; no more, since a challenge lives as long.
/// `pin.ceremony`: time for a slow device to stretch the PIN; no more, since a charge is in doubt as long.
pub const CEREMONY: RangeInclusive<Duration> = span(30, 15 * MINUTE);
/// `totp.digits`. More than eight no authenticator app shows.
pub const TOTP_DIGITS: RangeInclusive<usize> = 6..=8;
/// `totp.period`.
pub const TOTP_PERIOD: RangeInclusive<Duration> = span(15, 2 * MINUTE);
/// `totp.window`. Each step more is another code that a guess may hit.
pub const TOTP_WINDOW: RangeInclusive<u8> = 0..=2;
/// `delivered_codes.expiry`.
pub const CODE_EXPIRY: RangeInclusive<Duration> = span(MINUTE, DAY);
/// `delivered_codes.digits`, for bound devices.
pub const CODE_DIGITS: RangeInclusive<usize> = 6..=10;
/// `delivered_codes.interval`.
pub const CODE_INTERVAL: RangeInclusive<Duration> = span(10, HOUR);
/// `delivered_codes.per_day`. Also bounds the list of deliveries that an envelope carries.
pub const CODES_PER_DAY: RangeInclusive<u32> = 1..=200;
/// Bytes of `delivered_codes.link`: a text message has to hold it.
pub const LINK_BYTES: usize = 512;
/// `contacts.max_per_account`.
pub const CONTACTS: RangeInclusive<usize> = 1..=4;
/// `aliases.max_per_account`.
pub const ALIASES: RangeInclusive<usize> = 1..=4;
/// All attempts of `devices.stranger_pin` together. Anybody who knows an alias has them, each budget again.
pub const STRANGER_ATTEMPTS: u32 = 10;
/// `recover.delay`.
pub const RECOVER_DELAY: RangeInclusive<Duration> = span(0, 30 * DAY);
/// `enrolment.quota_per_hour`.
pub const ENROLMENT_QUOTA: RangeInclusive<u32> = 1..=1_000_000;
/// Keys in `enrolment.tickets`: one in use, one to come, and some for a large organisation.
pub const TICKET_KEYS: RangeInclusive<usize> = 0..=8;
/// Characters of a `kid`.
pub const KID_CHARS: RangeInclusive<usize> = 1..=64;
/// Hashes in `backend.credentials_sha256`.
pub const BACKEND_CREDENTIALS: RangeInclusive<usize> = 0..=8;
/// `relying_party.related_origins`.
pub const RELATED_ORIGINS: RangeInclusive<usize> = 0..=16;
/// `retention.inactive`.
pub const INACTIVE: RangeInclusive<Duration> = span(30 * DAY, 10 * YEAR);
/// `retention.events`.
pub const EVENTS: RangeInclusive<Duration> = span(30 * DAY, 10 * YEAR);
/// `devices.max_per_account`.
pub const DEVICES: RangeInclusive<usize> = 1..=64;
/// `secrets.max_count` per account.
pub const SECRETS: RangeInclusive<usize> = 1..=16;
/// `secrets.max_bytes` of one secret, all its slots together.
pub const SECRET_BYTES: RangeInclusive<usize> = 256..=16_384;
/// Most bytes of all secrets of an account. They share a sealed record of 256 KiB with everything else of the
/// account, and grow by a third in it (base64).
pub const ALL_SECRETS_BYTES: usize = 96 * 1024;
/// Bytes of a policy file.
pub const FILE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds that are computed, in plain numbers: what `docs` and the shipped files say.
    #[test]
    fn computed_bounds_are_what_they_are_said_to_be() {
        let seconds =
            |range: &RangeInclusive<Duration>| (range.start().as_secs(), range.end().as_secs());
        let expected = [
            (SESSION_IDLE, (60, 2_592_000)),
            (SESSION_ABSOLUTE, (300, 31_536_000)),
            (FRESH, (30, 3600)),
            (READ_ONLY_IDLE, (60, 31_536_000)),
            (READ_ONLY_ABSOLUTE, (300, 63_072_000)),
            (ROUND_WAIT, (1, 2_592_000)),
            (PASSKEY_AGE, (86_400, 315_360_000)),
            (PASSKEY_IDLE, (86_400, 315_360_000)),
            (CEREMONY, (30, 900)),
            (TOTP_PERIOD, (15, 120)),
            (CODE_EXPIRY, (60, 86_400)),
            (CODE_INTERVAL, (10, 3600)),
            (RECOVER_DELAY, (0, 2_592_000)),
            (INACTIVE, (2_592_000, 315_360_000)),
            (EVENTS, (2_592_000, 315_360_000)),
        ];
        for (at, (range, plain)) in expected.iter().enumerate() {
            assert_eq!(seconds(range), *plain, "the bound at {at}");
        }
        assert_eq!(PIN_MEMORY_TIMES_PASSES, 38_912);
        assert_eq!((ALL_SECRETS_BYTES, FILE_BYTES), (98_304, 65_536));
    }
}
