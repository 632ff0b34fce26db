//! The PIN of an account, whichever way it is checked: there is one, with one budget.
//!
//! Part of the envelope. The adversary has an opened envelope at best, and needs the token to try a PIN
//! against it. Setting a PIN one way replaces one that was set the other way, and must never leave both:
//! each would be guessed at by itself.

use std::sync::Arc;

use custodyd_policies::{Budget, PinPolicy, Timestamp};
use serde::{Deserialize, Serialize};

use crate::factors::pin_argon2::PinRecord;
use crate::factors::pin_opaque::OpaqueRecord;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "StoredPin")]
pub struct Pin {
    #[serde(flatten)]
    pub way: PinWay,
    pub device_id: String,
    pub binding: String,
    pub set: Timestamp,
    /// Of the bound devices.
    pub budget: Budget,
    /// Of all others together, where the policy lets them try.
    pub strangers: Budget,
    /// Of devices that are not bound and came in with a delivered code.
    pub after_code: Budget,
}

/// How the PIN is checked, and what against. Shared with the evaluation that is under way; never copied.
#[derive(Clone, Debug, Serialize)]
pub enum PinWay {
    /// On the server, which sees it.
    #[serde(rename = "record")]
    Argon2id(Arc<PinRecord>),
    /// Between client and server; it stays with the client.
    #[serde(rename = "opaque")]
    Opaque(Arc<OpaqueRecord>),
}

impl PinWay {
    /// What the binding of this PIN names.
    #[must_use]
    pub fn device_id(&self) -> String {
        match self {
            Self::Argon2id(record) => record.device_id(),
            Self::Opaque(record) => record.device_id(),
        }
    }

    /// The version of the MAC key that its pepper or its OPRF key comes from.
    #[must_use]
    pub fn mac_key(&self) -> u16 {
        match self {
            Self::Argon2id(record) => record.mac_key,
            Self::Opaque(record) => record.mac_key,
        }
    }

    /// Whether the policy still lets a PIN be checked this way.
    #[must_use]
    pub fn is_allowed(&self, policy: &PinPolicy) -> bool {
        let way = match self {
            Self::Argon2id(_) => policy.argon2id,
            Self::Opaque(_) => policy.opaque,
        };
        policy.allowed && way
    }

    #[must_use]
    pub fn argon2id(&self) -> Option<&Arc<PinRecord>> {
        match self {
            Self::Argon2id(record) => Some(record),
            Self::Opaque(_) => None,
        }
    }

    #[must_use]
    pub fn opaque(&self) -> Option<&Arc<OpaqueRecord>> {
        match self {
            Self::Opaque(record) => Some(record),
            Self::Argon2id(_) => None,
        }
    }
}

/// A PIN as it was stored, before it is checked. Read field by field, so that no copy of a record is left behind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPin {
    #[serde(default)]
    record: Option<Arc<PinRecord>>,
    #[serde(default)]
    opaque: Option<Arc<OpaqueRecord>>,
    device_id: String,
    binding: String,
    set: Timestamp,
    budget: Budget,
    strangers: Budget,
    after_code: Budget,
}

impl TryFrom<StoredPin> for Pin {
    type Error = &'static str;

    fn try_from(stored: StoredPin) -> Result<Self, Self::Error> {
        let way = match (stored.record, stored.opaque) {
            (Some(record), None) => PinWay::Argon2id(record),
            (None, Some(record)) => PinWay::Opaque(record),
            _ => return Err("a PIN has one record, of one kind"),
        };
        Ok(Self {
            way,
            device_id: stored.device_id,
            binding: stored.binding,
            set: stored.set,
            budget: stored.budget,
            strangers: stored.strangers,
            after_code: stored.after_code,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stored(records: Value) -> Value {
        let budget = json!({"failures": 0, "in_flight": [], "last_charge": 0, "next_id": 0});
        let mut pin = json!({
            "device_id": "d", "binding": "b", "set": 1,
            "budget": budget, "strangers": budget, "after_code": budget,
        });
        let fields = pin.as_object_mut().unwrap();
        fields.extend(records.as_object().unwrap().clone());
        pin
    }

    fn argon2id() -> Value {
        json!({"salt": "AAAAAAAAAAAAAAAAAAAAAA", "memory_kib": 19456, "passes": 2, "lanes": 1,
               "verifier": "A".repeat(43)})
    }

    fn opaque() -> Value {
        json!({"salt": "A".repeat(43), "mac_key": 1, "memory_kib": 19456, "passes": 2, "lanes": 1,
               "record": "A".repeat(256)})
    }

    fn read(records: Value) -> Result<Pin, serde_json::Error> {
        serde_json::from_str(&stored(records).to_string())
    }

    #[test]
    fn a_pin_of_either_kind_is_written_as_it_was_read() {
        for records in [json!({"record": argon2id()}), json!({"opaque": opaque()})] {
            let pin = read(records.clone()).unwrap();
            assert_eq!(serde_json::to_value(&pin).unwrap(), stored(records));
        }
    }

    #[test]
    fn a_pin_with_no_record_or_with_two_is_refused() {
        for records in [
            json!({}),
            json!({"record": argon2id(), "opaque": opaque()}),
            json!({"record": null}),
            json!({"record": argon2id(), "more": 1}),
        ] {
            assert!(read(records.clone()).is_err(), "{records}");
        }
    }
}
