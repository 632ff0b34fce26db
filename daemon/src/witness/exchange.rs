//! One call of a witness: what is sent, and what its answer can mean (c2sp.org/tlog-witness).
//!
//! Called by `follow` and `known`. The witness knows the log by its signature on the checkpoint,
//! the daemon knows the witness by TLS and by the signature on what comes back; nothing here is
//! believed before that was verified, except for a size, which is a claim and is called one. An
//! answer is bounded in time and length, and redirects are not followed.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use tokio::time::timeout;

use super::note::decimal;
use crate::config;
use crate::delivery::SetupError;
use crate::delivery::by_courier::Client;
use crate::delivery::way::{Way, none_within};
use crate::factors::sha256;

/// For a whole call.
const CALL: Duration = Duration::from_secs(10);
/// What a witness says a size in.
const SIZE: &str = "text/x.tlog.size";

/// A witness as the configuration names it, and the way to it.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) name: String,
    pub(crate) key: super::VerifierKey,
    url: String,
    way: Way,
}

/// What a witness answers to a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Signature lines, so it says.
    Lines(String),
    /// The newest checkpoint that it has cosigned is of this size, so it says.
    Size(u64),
    /// What we sent does not continue what it has cosigned, so it says.
    Inconsistent,
    /// Somebody has to do something first.
    Refused(String),
    /// The same may work in a while.
    Away(String),
}

impl Witness {
    /// Reads the `ca_file`, unless a courier does the calling; connects nowhere.
    pub(crate) fn new(
        config: &config::Witness,
        courier: Option<&Path>,
        ca_file: Option<&Path>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            name: config.name.clone(),
            key: config.key.clone(),
            url: config.url.clone(),
            way: Way::new(courier.map(Client::new), &config.url, ca_file)?,
        })
    }

    /// Shows it a checkpoint.
    pub(crate) async fn add_checkpoint(&self, body: String) -> Answer {
        let called = self.call(Method::POST, "add-checkpoint", body).await;
        match called {
            Ok((status, headers, body)) => judge(status, &headers, body),
            Err(reason) => Answer::Away(reason),
        }
    }

    /// The newest checkpoint that it shows to everybody, as far as it shows any.
    pub(crate) async fn shown(&self, origin: &str) -> Option<String> {
        let origin = hex::encode(sha256(&[origin.as_bytes()]));
        let path = format!("{origin}/checkpoint");
        match self.call(Method::GET, &path, String::new()).await {
            Ok((StatusCode::OK, _, body)) => String::from_utf8(body).ok(),
            _ => None,
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.url))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = timeout(CALL, self.way.call(request)).await;
        let answer = answer
            .unwrap_or_else(|_| Err(none_within(CALL)))
            .map_err(|error| error.reason().to_owned())?;
        let mut headers = HeaderMap::new();
        if let Some(kind) = answer.content_type {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        Ok((answer.status, headers, answer.body.into()))
    }
}

/// The body of a submission.
pub(crate) fn request(old: u64, proof: &[[u8; 32]], note: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&STANDARD.encode(hash));
        body.push('\n');
    }
    body.push('\n');
    body.push_str(note);
    body
}

fn judge(status: StatusCode, headers: &HeaderMap, body: Vec<u8>) -> Answer {
    let code = status.as_u16();
    match code {
        200 => match String::from_utf8(body) {
            Ok(lines) => Answer::Lines(lines),
            Err(_) => Answer::Refused("it answered 200 with something that is not text".into()),
        },
        409 => match size(headers, &body) {
            Some(size) => Answer::Size(size),
            // Of a proxy, perhaps: a witness says a size.
            None => Answer::Refused(format!("it answered 409 without a size in {SIZE}")),
        },
        422 => Answer::Inconsistent,
        403 => Answer::Refused(
            "403: it does not know the key of this log under its origin, or another one".into(),
        ),
        404 => Answer::Refused("404: it does not know the origin of this log".into()),
        408 | 425 | 429 | 500..600 => Answer::Away(format!("it answered {code}")),
        300..400 => Answer::Refused(format!(
            "it answered {code}; redirects are not followed, name the final address"
        )),
        _ => Answer::Refused(format!("it answered {code}, which no witness does")),
    }
}

/// The size in a conflict.
fn size(headers: &HeaderMap, body: &[u8]) -> Option<u64> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next()?.trim();
    let text = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
    kind.eq_ignore_ascii_case(SIZE).then(|| decimal(text))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(code: u16, kind: &str, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        judge(StatusCode::from_u16(code).unwrap(), &headers, body.to_vec())
    }

    /// The example of c2sp.org/tlog-witness.
    #[test]
    fn the_request_of_the_specification() {
        let example = "old 20852014\n\
            PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
            jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
            5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
            /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
            \n\
            example.com/behind-the-sofa\n";
        let lines = example.lines().skip(1).take(4);
        let proof: Vec<[u8; 32]> = lines
            .map(|line| STANDARD.decode(line).unwrap().try_into().unwrap())
            .collect();
        let note = "example.com/behind-the-sofa\n";
        assert_eq!(request(20_852_014, &proof, note), example);
        assert_eq!(request(0, &[], note), format!("old 0\n\n{note}"));
    }

    #[test]
    fn a_status_says_what_can_be_done() {
        let conflict = judged(409, "text/x.tlog.size", b"20852163\n");
        assert_eq!(conflict, Answer::Size(20_852_163));
        let spelt = judged(409, "Text/X.tlog.size; charset=utf-8", b"0\n");
        assert_eq!(spelt, Answer::Size(0));
        for (kind, body) in [
            ("text/html", &b"7\n"[..]),
            (SIZE, b"7"),
            (SIZE, b"07\n"),
            (SIZE, b"+7\n"),
            (SIZE, b"7\n\n"),
            (SIZE, b"-1\n"),
            (SIZE, b"18446744073709551616\n"),
            (SIZE, b"\xff\n"),
            (SIZE, b"\n"),
            (SIZE, b""),
        ] {
            let answer = judged(409, kind, body);
            assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
        assert_eq!(judged(422, SIZE, b""), Answer::Inconsistent);
        for code in [408, 429, 500, 503] {
            assert!(matches!(judged(code, SIZE, b""), Answer::Away(_)), "{code}");
        }
        for code in [204, 301, 400, 401, 403, 404, 405] {
            let answer = judged(code, SIZE, b"");
            assert!(matches!(answer, Answer::Refused(_)), "{code}");
        }
        let lines = Answer::Lines("x".into());
        assert_eq!(judged(200, "text/plain", b"x"), lines);
        let bytes = judged(200, "text/plain", b"\xff");
        assert!(matches!(bytes, Answer::Refused(_)));
    }

    proptest! {
        #[test]
        fn every_size_is_read_in_its_one_spelling(size in any::<u64>(), before in "[+0 -]{1,2}") {
            let text = format!("{size}\n");
            prop_assert_eq!(judged(409, SIZE, text.as_bytes()), Answer::Size(size));
            let other = judged(409, SIZE, format!("{before}{text}").as_bytes());
            prop_assert!(matches!(other, Answer::Refused(_)));
        }

        #[test]
        fn no_answer_is_a_panic(code in 100u16..1000, body in any::<Vec<u8>>()) {
            let _ = judged(code, SIZE, &body);
        }
    }
}
