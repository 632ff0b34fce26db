//! What the process that serves and the courier say to each other: HTTP/1.1 over a Unix socket.
//!
//! Made by `by_courier`, read by `crate::courier`, and the other way round. Neither believes the
//! other: a letter is judged again by who sends it, a destination is looked up in a list, and the
//! reason of an error is cut to what may stand in a log. Two requests exist:
//!
//! | request | answer |
//! |---|---|
//! | `POST /mail`, a letter in JSON | 204 |
//! | `/call`, its method and body those of the call, its URL in `custodyd-to` | 200, the called one's status in `custodyd-status` |
//!
//! Whatever goes wrong at the courier or behind it is any other status with a [`Trouble`].

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DeliveryError;
use super::address::Address;
use super::message::{Message, Words};

/// The path of a mail.
pub(crate) const MAIL: &str = "/mail";
/// The path of a call.
pub(crate) const CALL: &str = "/call";
/// The URL that is to be called.
pub(crate) const TO: &str = "custodyd-to";
/// What the called one answered.
pub(crate) const STATUS: &str = "custodyd-status";
/// Of a letter; the longest that this program writes has some hundred bytes.
pub(crate) const MAX_LETTER: usize = 32 * 1024;
/// Of a call: a checkpoint and its proof, or a text message.
pub(crate) const MAX_CALL: usize = 32 * 1024;
/// Of what a called one answers: signature lines of a few keys, the longest of them ML-DSA.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;
const MAX_REASON: usize = 200;
const MAX_SUBJECT: usize = 512;

/// A mail but for its sender.
#[derive(Clone, Copy)]
pub(crate) struct Letter<'a> {
    pub(crate) id: [u8; 16],
    pub(crate) to: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) body: &'a str,
}

/// The same on its way.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    #[serde(with = "hex::serde")]
    id: [u8; 16],
    to: String,
    subject: String,
    body: String,
}

impl<'a> Letter<'a> {
    pub(super) fn of(message: &'a Message, words: &'a Words) -> Result<Self, DeliveryError> {
        let Address::Email(_) = message.to() else {
            let reason = "no mail can be made: not an e-mail address";
            return Err(DeliveryError::Permanent(reason.to_owned()));
        };
        Ok(Self {
            id: message.id,
            to: message.to().expose(),
            subject: &words.subject,
            body: words.body.as_str(),
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "id": hex::encode(self.id),
            "to": self.to,
            "subject": self.subject,
            "body": self.body,
        })
    }
}

impl Written {
    /// What the courier sends of it: one recipient, a subject of one line.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any of it.
    pub(crate) fn letter(&self) -> Result<Letter<'_>, &'static str> {
        if Address::email(&self.to).is_err() {
            return Err("the recipient is not one e-mail address");
        }
        if self.subject.len() > MAX_SUBJECT || self.subject.chars().any(char::is_control) {
            return Err("the subject is not one short line");
        }
        // A bare carriage return ends a line for some relays: what follows would be a mail of its own.
        if self
            .body
            .chars()
            .any(|char| char.is_control() && char != '\n')
        {
            return Err("the text has control characters besides line feeds");
        }
        Ok(Letter {
            id: self.id,
            to: &self.to,
            subject: &self.subject,
            body: &self.body,
        })
    }
}

/// Why something was not done, and what can be done about it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trouble {
    kind: Kind,
    reason: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Temporary,
    Permanent,
    Misconfigured,
}

impl From<&DeliveryError> for Trouble {
    fn from(error: &DeliveryError) -> Self {
        let kind = match error {
            DeliveryError::Temporary(_) => Kind::Temporary,
            DeliveryError::Permanent(_) => Kind::Permanent,
            DeliveryError::Misconfigured(_) => Kind::Misconfigured,
        };
        let reason = error.reason().to_owned();
        Self { kind, reason }
    }
}

impl From<Trouble> for DeliveryError {
    fn from(trouble: Trouble) -> Self {
        // It comes from another process and goes into our log.
        let plain = |character: char| match character {
            ' '..='~' => character,
            _ => '?',
        };
        let reason = trouble.reason.chars().take(MAX_REASON).map(plain).collect();
        match trouble.kind {
            Kind::Temporary => Self::Temporary(reason),
            Kind::Permanent => Self::Permanent(reason),
            Kind::Misconfigured => Self::Misconfigured(reason),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::super::Notice;
    use super::*;

    fn written(changes: Value) -> Result<Written, serde_json::Error> {
        let mut letter =
            json!({"id": "00".repeat(16), "to": "ann@example.com", "subject": "S", "body": "B"});
        let (Some(letter_map), Value::Object(changes)) = (letter.as_object_mut(), changes) else {
            unreachable!()
        };
        letter_map.extend(changes);
        serde_json::from_value(letter)
    }

    #[test]
    fn a_letter_arrives_as_it_was_written() {
        let to = Address::email("ann@example.com").unwrap();
        let message = Message::notice("Nötes", to, Notice::PinReplaced).unwrap();
        let words = message.mail();
        let sent = Letter::of(&message, &words).unwrap();
        let read: Written = serde_json::from_value(sent.json()).unwrap();
        let read = read.letter().unwrap();
        assert_eq!((read.id, read.to), (sent.id, sent.to));
        assert_eq!((read.subject, read.body), (sent.subject, sent.body));
        let to = Address::phone("+491701234567").unwrap();
        let text = Message::notice("Notes", to, Notice::PinReplaced).unwrap();
        assert!(Letter::of(&text, &words).is_err());
    }

    #[test]
    fn what_a_compromised_daemon_may_try_is_refused() {
        assert!(written(json!({})).unwrap().letter().is_ok());
        for (name, value) in [
            ("to", "ann@example.com, eve@example.com"),
            ("to", "ann@example.com\r\nBcc: eve@example.com"),
            ("to", "|/bin/sh"),
            ("subject", "S\r\nBcc: eve@example.com"),
            ("subject", "S\n"),
            ("subject", &"S".repeat(513)),
            ("body", "one\r.\r\nMAIL FROM:<boss@example.com>\n"),
            ("body", "one\0two"),
        ] {
            let letter = written(json!({ name: value })).unwrap();
            assert!(letter.letter().is_err(), "{name}: {value}");
        }
        assert!(written(json!({"from": "bank@example.com"})).is_err());
        assert!(written(json!({"host": "evil.example"})).is_err());
        assert!(written(json!({"id": "00"})).is_err());
    }

    #[test]
    fn an_error_keeps_what_can_be_done_about_it() {
        for error in [
            DeliveryError::Temporary("a".to_owned()),
            DeliveryError::Permanent("b".to_owned()),
            DeliveryError::Misconfigured("c".to_owned()),
        ] {
            let sent = serde_json::to_string(&Trouble::from(&error)).unwrap();
            let read: Trouble = serde_json::from_str(&sent).unwrap();
            assert_eq!(DeliveryError::from(read), error);
        }
    }

    proptest! {
        #[test]
        fn no_reason_adds_a_line_to_the_log(reason in any::<String>()) {
            let text = json!({"kind": "temporary", "reason": reason}).to_string();
            let read: Trouble = serde_json::from_str(&text).unwrap();
            let error = DeliveryError::from(read);
            prop_assert!(error.reason().len() <= MAX_REASON);
            prop_assert!(error.reason().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }

        #[test]
        fn no_body_is_a_panic(body in any::<Vec<u8>>()) {
            let _ = serde_json::from_slice::<Written>(&body).map(|read| read.letter().is_ok());
            let _ = serde_json::from_slice::<Trouble>(&body);
        }
    }
}
