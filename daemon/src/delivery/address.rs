//! Where a message goes: an e-mail address or a telephone number, parsed strictly.
//!
//! Called by `service` on what a caller claims, and by the transports. The caller writes
//! every byte. What parses can be put on an SMTP command line or into a URL-free JSON text
//! as it stands: visible ASCII, no quoting, no comments, no domain literals. An address is
//! personal data: it has no Display, its Debug says the channel alone, and it is never logged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// RFC 5321, section 4.5.3.1.3: 256 with the angle brackets of a path.
const MAX_EMAIL: usize = 254;
/// RFC 5321, section 4.5.3.1.1.
const MAX_LOCAL: usize = 64;
/// E.164 allows 15; nobody's number with its country code has fewer than 8.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

/// By which road a message leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    Email,
    Sms,
}

impl Channel {
    /// As metrics, logs and the outbox name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

/// A well-formed address. JSON form: `{"email": "ann@example.com"}` or `{"phone": "+49..."}`.
#[derive(Clone, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    Email(EmailAddress),
    Phone(PhoneNumber),
}

/// `local@domain`, as its owner wrote it.
#[derive(Clone, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EmailAddress(String);

/// `+` and 8 to 15 digits (ITU-T E.164).
#[derive(Clone, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PhoneNumber(String);

/// Why a text is no address. Never repeats the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "expected an e-mail address such as ann@example.com: at most 254 of ASCII, no quotes; a domain with \
         other letters in its ASCII form (xn--...)"
    )]
    Email,
    #[error("expected a telephone number in its international form: '+' and 8 to 15 digits")]
    Phone,
}

impl Address {
    /// # Errors
    /// When the text is no address of the accepted form.
    pub fn email(text: &str) -> Result<Self, AddressError> {
        EmailAddress::parse(text).map(Self::Email)
    }

    /// # Errors
    /// When the text is no number of the accepted form.
    pub fn phone(text: &str) -> Result<Self, AddressError> {
        PhoneNumber::parse(text).map(Self::Phone)
    }

    #[must_use]
    pub fn channel(&self) -> Channel {
        match self {
            Self::Email(_) => Channel::Email,
            Self::Phone(_) => Channel::Sms,
        }
    }

    /// As its owner wrote it: for the owner and for the transports, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Email(EmailAddress(text)) | Self::Phone(PhoneNumber(text)) => text,
        }
    }

    /// The form by which an address is looked up: two spellings that surely reach the same
    /// box are one. Domains ignore case (RFC 4343); local parts belong to their host.
    #[must_use]
    pub fn normal_form(&self) -> String {
        let text = self.expose();
        match text.rsplit_once('@') {
            Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
            None => text.to_owned(),
        }
    }
}

impl EmailAddress {
    /// # Errors
    /// When the text is no address of the accepted form.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Email)?;
        let fits = text.len() <= MAX_EMAIL && (1..=MAX_LOCAL).contains(&local.len());
        // lettre judges the grammar. What it allows beyond this is refused: quoted local parts,
        // address literals, and hosts of the mail server's own network.
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic())
            && !local.contains(['"', '\\', '@', '(', ')', '<', '>'])
            && is_domain(domain);
        if !fits || !plain || text.parse::<lettre::Address>().is_err() {
            return Err(AddressError::Email);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Labels of letters, digits and hyphens, at least two, the last one no number.
fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = domain.rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_alphabetic()))
        && domain.split('.').all(label)
}

impl PhoneNumber {
    /// # Errors
    /// When the text is no number of the accepted form.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix('+').ok_or(AddressError::Phone)?;
        // No country code begins with a zero.
        if !PHONE_DIGITS.contains(&digits.len())
            || digits.starts_with('0')
            || !digits.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(AddressError::Phone);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for EmailAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl TryFrom<String> for PhoneNumber {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.0
    }
}

impl From<PhoneNumber> for String {
    fn from(number: PhoneNumber) -> Self {
        number.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.channel().name())
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress")
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneNumber")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_addresses_are_taken_as_written() {
        for good in [
            "ann@example.com",
            "Ann.Lee+custody@Example.CO.UK",
            "a@xn--bcher-kva.example",
            "o'brien@example.com",
            "x_y-z@a-b.example",
        ] {
            assert_eq!(Address::email(good).unwrap().expose(), good);
        }
        for good in ["+12345678", "+491701234567", "+123456789012345"] {
            assert_eq!(Address::phone(good).unwrap().expose(), good);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        let longer = format!("a@{}example.com", "a.".repeat(125));
        for bad in [
            "",
            "@",
            "ann",
            "ann@",
            "@example.com",
            "ann@localhost",
            "ann@192.0.2.1",
            "ann@[192.0.2.1]",
            "ann@example..com",
            "ann@.example.com",
            "ann@example.com.",
            "ann@-a.example",
            "ann@bücher.example",
            "änn@example.com",
            "\"ann lee\"@example.com",
            "ann@x@example.com",
            ".ann@example.com",
            "ann..lee@example.com",
            "ann lee@example.com",
            "ann@example.com ",
            "Ann <ann@example.com>",
            "ann@example.com\r\nBcc: eve@example.com",
            "ann@example.com,eve@example.com",
            "ann,eve@example.com",
            "ann@exam_ple.com",
            &long,
            &longer,
        ] {
            assert_eq!(Address::email(bad), Err(AddressError::Email), "{bad:?}");
        }
        for bad in [
            "",
            "+",
            "12345678",
            "+1234567",
            "+1234567890123456",
            "+01234567",
            "+1234 5678",
            "+1234567x",
            "+12345678\n",
            "+１２３４５６７８",
        ] {
            assert_eq!(Address::phone(bad), Err(AddressError::Phone), "{bad:?}");
        }
    }

    #[test]
    fn the_normal_form_lowers_the_domain_alone() {
        let form = |text| Address::email(text).unwrap().normal_form();
        assert_eq!(form("Ann@EXAMPLE.com"), "Ann@example.com");
        assert_eq!(form("Ann@example.com"), "Ann@example.com");
        assert_ne!(form("ann@example.com"), "Ann@example.com");
        let phone = Address::phone("+12345678").unwrap();
        assert_eq!(phone.normal_form(), "+12345678");
    }

    #[test]
    fn an_address_is_not_printed_and_comes_back_from_json_only_when_well_formed() {
        let address = Address::email("ann@example.com").unwrap();
        assert_eq!(format!("{address:?}"), "Address(email)");
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, r#"{"email":"ann@example.com"}"#);
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        assert!(serde_json::from_str::<Address>(r#"{"email":"ann"}"#).is_err());
        assert!(serde_json::from_str::<Address>(r#"{"phone":"ann@example.com"}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_parses_is_safe_wherever_it_is_put(text in "\\PC{0,40}|[ -~\r\n]{0,20}@[ -~]{1,20}|[a-z.\"@+]{1,12}@[a-z.]{1,12}") {
            if let Ok(address) = Address::email(&text) {
                prop_assert_eq!(address.expose(), &text);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!text.contains(['<', '>', '"', '\\', '(', ')', ',']));
                prop_assert_eq!(text.matches('@').count(), 1);
                // The normal form is an address too, and its own normal form.
                let again = Address::email(&address.normal_form()).unwrap();
                prop_assert_eq!(again.normal_form(), address.normal_form());
            }
            let _ = Address::phone(&text);
        }
    }
}
