//! Where the courier goes: what the configuration names, and nowhere else.
//!
//! Made by `run`, asked by `routes`. Who asks may have been taken over, so that a URL is looked up and
//! never put together; what is called gets a method, a body, and for a text message its signature.

use std::num::NonZeroU32;

use governor::clock::MonotonicClock;
use governor::{Quota, RateLimiter};
use hyper::{Method, Uri};

use crate::config::Config;
use crate::delivery::smtp::Smtp;
use crate::delivery::way::Way;
use crate::delivery::{DeliveryError, SetupError};

pub(super) struct Destinations {
    mail: Option<Smtp>,
    /// The gateway's URL, whole.
    texts: Option<(String, Way)>,
    /// What stands before the paths of a witness.
    witnesses: Vec<(String, Way)>,
    pace: RateLimiter<
        governor::state::NotKeyed,
        governor::state::InMemoryState,
        MonotonicClock,
        governor::middleware::NoOpMiddleware<std::time::Instant>,
    >,
    per_minute: NonZeroU32,
}

/// What may be called, and what goes along.
#[derive(Clone, Copy)]
pub(super) enum Destination<'a> {
    /// Signed by the token; JSON.
    Texts(&'a Way),
    Witness(&'a Way),
}

impl Destinations {
    /// Reads the files that the configuration names. Connects nowhere.
    pub(super) fn new(config: &Config, per_minute: usize) -> Result<Self, SetupError> {
        let delivery = &config.delivery;
        let mail = delivery.email.as_ref();
        let mail = mail.map(|email| Smtp::new(email, delivery.concurrency));
        let texts = delivery.sms.as_ref().map(|sms| {
            let way = Way::new(None, &sms.webhook, sms.ca_file.as_deref())?;
            // As a request spells it: one without a path gets one.
            let url = sms.webhook.parse::<Uri>().map(|url| url.to_string());
            Ok::<_, SetupError>((url.unwrap_or_else(|_| sms.webhook.clone()), way))
        });
        let ca_file = config.witnesses.ca_file.as_deref();
        let witnesses = config.witnesses.known.iter();
        let witnesses =
            witnesses.map(|one| Ok((one.url.clone(), Way::new(None, &one.url, ca_file)?)));
        let per_minute = u32::try_from(per_minute).unwrap_or(u32::MAX);
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            mail: mail.transpose()?,
            texts: texts.transpose()?,
            witnesses: witnesses.collect::<Result<_, SetupError>>()?,
            pace: RateLimiter::direct_with_clock(Quota::per_minute(per_minute), MonotonicClock),
            per_minute,
        })
    }

    /// For the log.
    pub(super) fn named(&self) -> String {
        let mut named = Vec::new();
        if self.mail.is_some() {
            named.push("mail".to_owned());
        }
        if self.texts.is_some() {
            named.push("text messages".to_owned());
        }
        if !self.witnesses.is_empty() {
            named.push(format!(
                "checkpoints for {} witnesses",
                self.witnesses.len()
            ));
        }
        if named.is_empty() {
            named.push("nothing: the configuration names no destination".to_owned());
        }
        named.join(", ")
    }

    pub(super) fn mail(&self) -> Result<&Smtp, DeliveryError> {
        let missing = "its configuration has no [delivery.email]";
        let mail = self.mail.as_ref();
        mail.ok_or_else(|| DeliveryError::Misconfigured(missing.to_owned()))
    }

    /// The destination behind a URL, if this method may be used on it.
    pub(super) fn find(
        &self,
        method: &Method,
        url: &str,
    ) -> Result<Destination<'_>, DeliveryError> {
        if let Some((_, way)) = self.texts.as_ref().filter(|(texts, _)| texts == url)
            && method == Method::POST
        {
            return Ok(Destination::Texts(way));
        }
        let witness = self.witnesses.iter().find(|(witness, _)| {
            let path = url.strip_prefix(witness.as_str());
            path.is_some_and(|path| is_of_a_witness(method, path))
        });
        let unknown = "this address is not in its configuration (has it been restarted since?)";
        witness.map_or_else(
            || Err(DeliveryError::Misconfigured(unknown.to_owned())),
            |(_, way)| Ok(Destination::Witness(way)),
        )
    }

    /// Counts a message to a person.
    pub(super) fn pace(&self) -> Result<(), DeliveryError> {
        self.pace.check().map_err(|_| {
            let most = self.per_minute;
            DeliveryError::Temporary(format!(
                "more than {most} messages in a minute; see courier.messages_per_minute"
            ))
        })
    }
}

/// The two paths of c2sp.org/tlog-witness and of the checkpoints that a witness shows.
fn is_of_a_witness(method: &Method, path: &str) -> bool {
    if method == Method::POST {
        return path == "/add-checkpoint";
    }
    let origin = path
        .strip_prefix('/')
        .and_then(|path| path.strip_suffix("/checkpoint"));
    let is_hash = |text: &str| {
        text.len() == 64
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    method == Method::GET && origin.is_some_and(is_hash)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config;

    const TEXTS: &str = "http://127.0.0.1:1/send?key=k";
    const WITNESS: &str = "http://127.0.0.1:2/w";

    fn destinations() -> Destinations {
        let text = format!(
            "[realm]\nname = \"test.example\"\n[listen]\npublic = \"127.0.0.1:8443\"\n\
             url = \"https://localhost:8443\"\ncertificate = \"c\"\nprivate_key = \"k\"\n\
             [token]\nlabel = \"t\"\npin_file = \"p\"\n[courier]\nsocket = \"/s\"\n\
             [delivery.sms]\nwebhook = \"{TEXTS}\"\n[witnesses]\nquorum = 1\n[witnesses.w]\n\
             url = \"{WITNESS}\"\nvkey = \"witness.example/w1+240e77bf+BFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm\"\n"
        );
        let config = config::parse("c.toml", &text, Path::new("/")).unwrap();
        Destinations::new(&config, 2).unwrap()
    }

    #[tokio::test]
    async fn what_is_configured_is_found_and_nothing_beside_it() {
        let known = destinations();
        let shown = format!("{WITNESS}/{}/checkpoint", "a1".repeat(32));
        let post = |url: &str| known.find(&Method::POST, url);
        assert!(matches!(post(TEXTS), Ok(Destination::Texts(_))));
        let add = format!("{WITNESS}/add-checkpoint");
        assert!(matches!(post(&add), Ok(Destination::Witness(_))));
        assert!(known.find(&Method::GET, &shown).is_ok());
        for url in [
            "http://127.0.0.1:1/send",
            "http://127.0.0.1:1/send?key=other",
            "http://127.0.0.1:1/send?key=k#x",
            "http://127.0.0.1:3/",
            "http://127.0.0.1:2/w",
            "http://127.0.0.1:2/w/add-checkpoint/",
            "http://127.0.0.1:2/w/../admin",
            "http://127.0.0.1:2/w@evil.example/add-checkpoint",
            "http://127.0.0.1:25/add-checkpoint",
            "",
        ] {
            assert!(post(url).is_err(), "{url}");
        }
        for (method, url) in [
            (Method::GET, TEXTS),
            (Method::PUT, TEXTS),
            (Method::GET, add.as_str()),
            (Method::POST, shown.as_str()),
            (Method::DELETE, shown.as_str()),
            (Method::GET, "http://127.0.0.1:2/w/A1/checkpoint"),
        ] {
            assert!(known.find(&method, url).is_err(), "{method} {url}");
        }
        assert!(matches!(known.mail(), Err(DeliveryError::Misconfigured(_))));
    }

    #[tokio::test]
    async fn so_many_messages_a_minute_and_no_more() {
        let known = destinations();
        assert!(known.pace().is_ok() && known.pace().is_ok());
        assert!(matches!(known.pace(), Err(DeliveryError::Temporary(_))));
    }

    proptest! {
        #[test]
        fn no_other_path_is_a_witness(path in any::<String>(), post in any::<bool>()) {
            let method = if post { Method::POST } else { Method::GET };
            let right = match post {
                true => path == "/add-checkpoint",
                false => path.len() == 76 && path.is_ascii(),
            };
            prop_assert!(right || !is_of_a_witness(&method, &path));
        }
    }
}
