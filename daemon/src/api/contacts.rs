//! The shapes of messages about contacts, aliases and delivered codes.

use custodyd_hsm::AccountId;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BindDevice, PinText};
use crate::delivery::{Address, Channel, EmailAddress, PhoneNumber};

/// An address: give `email` or `phone`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAddress {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "email")]
    pub email: Option<EmailAddress>,
    /// In its international form: `+` and 8 to 15 digits.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub phone: Option<PhoneNumber>,
    /// Identifier of the address that this one takes the place of, once it is confirmed.
    #[serde(default)]
    pub replaces: Option<String>,
}

impl SetAddress {
    /// The address, if exactly one is given.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match (&self.email, &self.phone) {
            (Some(email), None) => Some(Address::Email(email.clone())),
            (None, Some(phone)) => Some(Address::Phone(phone.clone())),
            _ => None,
        }
    }
}

/// A claim: confirm it with the code that is on its way to the address.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddressClaimed {
    /// Names the address in later requests.
    pub id: String,
    /// Device identifier of the secret that its codes are made from.
    pub device_id: String,
    /// JWS that the realm signed in its token: keep it as a receipt.
    pub binding: String,
    /// Until then the code can be used.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmAddress {
    pub id: String,
    #[schema(value_type = String)]
    pub code: CodeText,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveAddress {
    pub id: String,
}

/// Which account is meant: give `account` or `alias`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestCode {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub account: Option<AccountId>,
    /// An e-mail address or a telephone number.
    #[serde(default)]
    pub alias: Option<String>,
    /// `email` or `sms`, where the account may have both. Without it, and without a contact as
    /// the alias, the code goes to the contact that was added first.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub channel: Option<Channel>,
}

/// The same for everybody, whether there is such an account or not.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodeRequested {
    /// A code can be used for so many seconds, at the least: where many were sent within a day, until the next may be.
    pub valid_for: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeSession {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub account: Option<AccountId>,
    /// An e-mail address or a telephone number.
    #[serde(default)]
    pub alias: Option<String>,
    /// As it was sent; blanks, hyphens and case do not matter.
    #[schema(value_type = String)]
    pub code: CodeText,
    /// Names of the secrets to return with the session, in the same commit.
    #[serde(default)]
    pub release: Vec<String>,
    /// Binds this device's key to the account in the same commit. Where the policy wants the
    /// PIN next, give it with the PIN.
    #[serde(default)]
    pub bind_device: Option<BindDevice>,
}

/// The second step of a session that began with a code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinAfterCode {
    #[schema(value_type = String, format = "password")]
    pub pin: PinText,
    #[serde(default)]
    pub release: Vec<String>,
    #[serde(default)]
    pub bind_device: Option<BindDevice>,
}

/// A contact or an alias as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddressView {
    pub id: String,
    #[schema(value_type = String)]
    pub channel: Channel,
    /// The address. Null in a read-only session: whoever holds the device need not learn it.
    pub address: Option<String>,
    pub device_id: String,
    pub binding: String,
    #[schema(value_type = u64)]
    pub added: Timestamp,
    /// Null for a claim: a code to this address has not come back yet.
    #[schema(value_type = Option<u64>)]
    pub confirmed: Option<Timestamp>,
}

/// A code on its way to be compared: wiped when dropped, never printed.
pub type CodeText = PinText;
