//! What a message says: short plain English, nothing to click but one link, no tracking.
//!
//! Made by `service`, put into words here, carried by the transports. App names come from
//! policies and codes from this daemon; still no control character of theirs survives, so a
//! name can never add a line to a mail or a header to its head. Neither text nor address is
//! ever printed.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::address::Address;
use crate::factors::{RandomFailed, random};

/// How long it still makes sense to deliver a notice.
const NOTICE_IS_NEWS: Duration = Duration::from_secs(3600);

/// One message to one person.
pub struct Message {
    /// Random, the same in every try: a receiver may know a message again by it.
    pub(super) id: [u8; 16],
    app: String,
    to: Address,
    kind: Kind,
    useful_until: Instant,
}

enum Kind {
    Code(Code),
    Notice(Notice),
}

/// A one-time code. Wiped when it is dropped.
pub struct Code {
    pub code: Zeroizing<String>,
    /// Opens the app with the code in it.
    pub link: Option<Zeroizing<String>>,
    pub expires_minutes: u32,
    pub purpose: Purpose,
}

/// What a code is for, as its reader is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Signing in, or coming back after everything else was lost.
    SignIn,
    /// Showing that this address is theirs.
    ConfirmAddress,
}

/// What happened to an account, told to its owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    PinReplaced,
    DeviceAdded,
    /// A replaced PIN or a new device takes effect later and can be cancelled until then.
    ChangeWaiting {
        hours: u32,
    },
    /// A way to sign in was added.
    FactorAdded,
    /// A way to sign in was removed.
    FactorRemoved,
    /// Told to the old address.
    ContactChanged,
    AccountErased,
}

/// A message in words. Wiped when it is dropped.
pub(super) struct Words {
    pub(super) subject: String,
    pub(super) body: Zeroizing<String>,
}

impl Message {
    /// A code for somebody. It is not delivered any more once it has expired.
    ///
    /// # Errors
    /// When the host gives no randomness.
    pub fn code(app_display_name: &str, to: Address, code: Code) -> Result<Self, RandomFailed> {
        let useful = Duration::from_secs(u64::from(code.expires_minutes) * 60);
        Self::new(app_display_name, to, Kind::Code(code), useful)
    }

    /// A notice for somebody.
    ///
    /// # Errors
    /// When the host gives no randomness.
    pub fn notice(
        app_display_name: &str,
        to: Address,
        notice: Notice,
    ) -> Result<Self, RandomFailed> {
        Self::new(app_display_name, to, Kind::Notice(notice), NOTICE_IS_NEWS)
    }

    fn new(app: &str, to: Address, kind: Kind, useful: Duration) -> Result<Self, RandomFailed> {
        Ok(Self {
            id: random()?,
            app: one_line(app),
            to,
            kind,
            useful_until: Instant::now() + useful,
        })
    }

    #[must_use]
    pub fn to(&self) -> &Address {
        &self.to
    }

    /// As metrics, webhooks and the outbox name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Code(_) => "code",
            Kind::Notice(_) => "notice",
        }
    }

    pub(super) fn useful_until(&self) -> Instant {
        self.useful_until
    }

    /// For a mail.
    pub(super) fn mail(&self) -> Words {
        let app = &self.app;
        let (subject, body) = match &self.kind {
            Kind::Code(code) => (format!("Your code for {app}"), self.code_mail(code)),
            Kind::Notice(notice) => {
                let body = format!("{}\n\n{}\n", notice.says(app), notice.advice(app));
                (notice.subject(app), Zeroizing::new(body))
            }
        };
        Words { subject, body }
    }

    fn code_mail(&self, code: &Code) -> Zeroizing<String> {
        let link = match &code.link {
            Some(link) => format!(
                "Or open this link on the device that asked for it:\n{}\n\n",
                one_line(link)
            ),
            None => String::new(),
        };
        Zeroizing::new(format!(
            "{}\n\nThis is your code {}. It can be used once, within {}.\n\n{link}If you did not ask for \
             it, ignore this message, and give the code to nobody.\n",
            one_line(&code.code),
            code.purpose.says(&self.app),
            minutes(code.expires_minutes),
        ))
    }

    /// For a short message: one line.
    pub(super) fn short(&self) -> Zeroizing<String> {
        let app = &self.app;
        Zeroizing::new(match &self.kind {
            Kind::Code(code) => {
                let link = code.link.as_ref();
                let link = link.map_or(String::new(), |link| format!(" {}", one_line(link)));
                format!(
                    "{} is your code {}, for {}. Give it to nobody.{link}",
                    one_line(&code.code),
                    code.purpose.says(app),
                    minutes(code.expires_minutes),
                )
            }
            Kind::Notice(notice) => format!("{} {}", notice.says(app), notice.advice(app)),
        })
    }
}

impl Purpose {
    fn says(self, app: &str) -> String {
        match self {
            Self::SignIn => format!("to sign in to {app}"),
            Self::ConfirmAddress => format!("to confirm this address for {app}"),
        }
    }
}

impl Notice {
    fn subject(self, app: &str) -> String {
        match self {
            Self::ChangeWaiting { .. } => format!("A change to your {app} account is waiting"),
            Self::AccountErased => format!("Your {app} account was erased"),
            _ => format!("Your {app} account was changed"),
        }
    }

    fn says(self, app: &str) -> String {
        match self {
            Self::PinReplaced => format!("The PIN of your {app} account was replaced."),
            Self::DeviceAdded => format!("A device was added to your {app} account."),
            Self::ChangeWaiting { hours } => format!(
                "Somebody who showed a code or a factor of yours asked for a new PIN or device for your {app} \
                 account. It takes effect in {}.",
                counted(hours, "hour")
            ),
            Self::FactorAdded => format!("A way to sign in was added to your {app} account."),
            Self::FactorRemoved => {
                format!("A way to sign in was removed from your {app} account.")
            }
            Self::ContactChanged => {
                format!("This address does not belong to your {app} account any more.")
            }
            Self::AccountErased => format!("Your {app} account was erased, as was asked for."),
        }
    }

    fn advice(self, app: &str) -> String {
        match self {
            Self::ChangeWaiting { .. } => {
                format!("If this was not you, open {app} on your device and cancel it.")
            }
            Self::AccountErased => "You will get no more messages about it.".to_owned(),
            _ => format!(
                "If this was not you, open {app} on your device and remove what you do not know."
            ),
        }
    }
}

fn minutes(count: u32) -> String {
    counted(count, "minute")
}

fn counted(count: u32, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// The text with each line break and control character made a space.
fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars()
        .map(|c| if breaks(c) { ' ' } else { c })
        .collect()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &hex::encode(self.id))
            .field("to", &self.to)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("expires_minutes", &self.expires_minutes)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ann() -> Address {
        Address::email("ann@example.com").unwrap()
    }

    fn code(code: &str, link: Option<&str>, minutes: u32) -> Code {
        Code {
            code: Zeroizing::new(code.to_owned()),
            link: link.map(|link| Zeroizing::new(link.to_owned())),
            expires_minutes: minutes,
            purpose: Purpose::SignIn,
        }
    }

    #[test]
    fn a_code_is_on_the_first_line_and_the_rest_says_what_for() {
        let link = Some("https://notes.example/#code=483920");
        let message = Message::code("Notes", ann(), code("483920", link, 10)).unwrap();
        let words = message.mail();
        assert_eq!(words.subject, "Your code for Notes");
        assert_eq!(
            *words.body,
            "483920\n\nThis is your code to sign in to Notes. It can be used once, within 10 minutes.\n\n\
             Or open this link on the device that asked for it:\nhttps://notes.example/#code=483920\n\n\
             If you did not ask for it, ignore this message, and give the code to nobody.\n"
        );
        assert_eq!(
            *message.short(),
            "483920 is your code to sign in to Notes, for 10 minutes. Give it to nobody. \
             https://notes.example/#code=483920"
        );
    }

    #[test]
    fn notices_say_what_happened_and_what_to_do() {
        for (notice, says) in [
            (Notice::PinReplaced, "The PIN of your Notes account"),
            (Notice::DeviceAdded, "A device was added"),
            (Notice::ChangeWaiting { hours: 1 }, "in 1 hour."),
            (Notice::ChangeWaiting { hours: 24 }, "in 24 hours."),
            (Notice::FactorAdded, "was added"),
            (Notice::FactorRemoved, "was removed"),
            (Notice::ContactChanged, "does not belong"),
            (Notice::AccountErased, "was erased"),
        ] {
            let message = Message::notice("Notes", ann(), notice).unwrap();
            assert!(message.mail().body.contains(says), "{notice:?}");
            assert!(message.short().contains(says), "{notice:?}");
        }
    }

    #[test]
    fn neither_code_nor_address_is_printed() {
        let message = Message::code("Notes", ann(), code("483920", None, 10)).unwrap();
        let printed = format!("{message:?} {:?}", code("483920", Some("483920"), 1));
        assert!(
            !printed.contains("483920") && !printed.contains("ann"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn no_text_adds_a_line(name in any::<String>(), secret in any::<String>(), link in any::<String>()) {
            let count = |text: &str| text.chars().filter(|c| c.is_control() || *c == '\u{2028}' || *c == '\u{2029}').count();
            let plain = Message::code("A", ann(), code("1", Some("l"), 5)).unwrap();
            let odd = Message::code(&name, ann(), code(&secret, Some(&link), 5)).unwrap();
            prop_assert_eq!(count(&odd.mail().subject), 0);
            prop_assert_eq!(count(&odd.short()), 0);
            prop_assert_eq!(count(&odd.mail().body), count(&plain.mail().body));
        }
    }
}
