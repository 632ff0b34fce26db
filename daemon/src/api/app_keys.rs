//! The messages about app keys, and what an app's backend is told about bindings.

use custodyd_hsm::binding::BindingKind;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAppKey {
    /// As in account creation: a JWS by the new app key over this device's thumbprint and the
    /// newest nonce.
    pub app_key_proof: String,
}

/// `issued`, `kind` and `binding` are there as far as the realm knows them.
#[derive(Debug, Serialize, ToSchema)]
pub struct LookedUp {
    pub status: BindingStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "app-key")]
    pub kind: Option<BindingKind>,
    /// When the binding was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub issued: Option<Timestamp>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub revoked: Option<Timestamp>,
    /// The binding itself, of one that holds: JWS that the realm signed in its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BindingStatus {
    /// The credential belongs to the account now.
    Bound,
    /// It did at the state that the service was restored to, and the owner has not signed in
    /// since: nobody knows whether it was revoked. Not to be relied on.
    Unconfirmed,
    /// It did, and does not any more.
    Revoked,
    /// This account of this app has no such credential, or there is no such account.
    Unknown,
}

impl LookedUp {
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            status: BindingStatus::Unknown,
            kind: None,
            issued: None,
            revoked: None,
            binding: None,
        }
    }
}
