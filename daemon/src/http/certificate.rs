//! When a certificate is valid: the one thing `doctor` and whoever watches the metrics want to know of it.
//!
//! Called by `doctor`, the start and a reload. It walks the DER (X.690) of an X.509 certificate (RFC 5280,
//! section 4.1) as far as its validity and judges nothing else; whether TLS accepts the
//! certificate is for rustls to say. The bytes are the operator's own file, and still
//! nothing here may panic on them.

use std::path::Path;
use std::time::SystemTime;

use super::tls;

/// `notBefore` and `notAfter`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    pub from: SystemTime,
    pub until: SystemTime,
}

/// Shows as a metric until when the certificate in a file is valid; nothing, where that cannot be read.
pub fn show(file: &Path) {
    let chain = tls::read_chain(file).ok();
    let until = chain
        .and_then(|chain| validity(chain.first()?))
        .and_then(|validity| validity.until.duration_since(SystemTime::UNIX_EPOCH).ok());
    if let Some(until) = until {
        metrics::gauge!("custodyd_certificate_until_time_seconds").set(until.as_secs_f64());
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The validity of a DER certificate, or `None` where it is not one.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut outer = Der(certificate).expect(SEQUENCE)?;
    let mut signed = outer.expect(SEQUENCE)?;
    if signed.0.first() == Some(&VERSION) {
        signed.next()?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        signed.next()?;
    }
    let mut validity = signed.expect(SEQUENCE)?;
    Some(Validity {
        from: time(validity.next()?)?,
        until: time(validity.next()?)?,
    })
}

/// What is left of a sequence of DER elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let (found, content) = self.next()?;
        (found == tag).then_some(Der(content))
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Up to three bytes of length; a certificate is never larger.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                let length = digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// `YYMMDDHHMMSSZ` (years 1950 to 2049) or `YYYYMMDDHHMMSSZ`.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let full = match tag {
        UTC_TIME if text.len() == 12 => {
            let century = if text < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let part = |range| full.get(range);
    humantime::parse_rfc3339(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    ))
    .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2051, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let validity = validity(&made()).unwrap();
        let text = |time| humantime::format_rfc3339_seconds(time).to_string();
        assert_eq!(text(validity.from), "2026-01-02T00:00:00Z");
        assert_eq!(text(validity.until), "2051-03-04T00:00:00Z");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = validity(&bytes);
        }

        #[test]
        fn a_mutated_certificate_never_panics(at in 0usize..400, byte in any::<u8>(), keep in 0usize..400) {
            let mut bytes = made();
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
            bytes.truncate(keep);
            let _ = validity(&bytes);
        }
    }
}
