//! The opened account envelope: everything the daemon believes about one account.
//!
//! The ledger makes an `Account` out of sealed bytes that the token opened, and nothing else
//! does. Services read it and change a copy inside a commit; the ledger seals the copy. It is
//! plain state: what a change *means* is decided in `service` and `policies`.
//!
//! The plaintext is JSON with every unknown field refused, so that a later format is refused
//! by an older daemon instead of being half understood. Byte strings are base64url.

mod alias;
mod contacts;
mod forgotten;
mod pin;
mod restored;
mod trail;

use std::collections::{BTreeMap, BTreeSet};

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::{AccountId, AppId, RealmName, SecretBytes, mac};
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::Passkey;
use zeroize::Zeroizing;

pub use self::alias::{Alias, AliasError, AliasName, MAX_ALIASES};
pub use self::contacts::{Contact, Contacts, Usage};
pub use self::pin::{Pin, PinWay};
pub use self::restored::{History, Restored};
pub use self::trail::{Mark, Trail};
use crate::bytes::{Bytes, SharedSecret};
use crate::factors::jwk::PublicJwk;

mod codes;

pub use self::codes::{BoundRecoveryCodes, BoundTotp, PendingRecovery, PendingTotp};

/// The version of the envelope's plaintext.
const FORMAT: u8 = 1;
/// Holds most envelopes, so that encoding one seldom has to move it.
const USUAL_PLAINTEXT: usize = 8 << 10;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    format: u8,
    pub realm: RealmName,
    pub app: AppId,
    pub id: AccountId,
    /// The version of the MAC key that its record's identifier comes from. It says so where that is not the first.
    #[serde(default = "first_mac_key", skip_serializing_if = "is_first_mac_key")]
    pub mac_key: u16,
    /// Raised by one by every batch that touches the account; also bound by the sealing.
    pub generation: u64,
    pub created: Timestamp,
    /// The boot epoch up to which forgotten guesses are charged.
    pub boot_epoch: u64,
    /// The log epoch that it was last written in: a later one began with a restore.
    pub log_epoch: u64,
    /// A restore has put it back, and its owner has not confirmed it yet.
    pub quarantined: bool,
    pub trail: Trail,
    /// Raised by "sign out everywhere": every session carries the epoch it was made in.
    pub session_epoch: u64,
    /// Sessions of unbound devices that signed out before their end.
    pub ended_sessions: Vec<Spent>,
    /// Devices that were removed: sessions that their keys had until then stay ended.
    pub removed_devices: Vec<RemovedDevice>,
    /// The epoch that the next bound, signed-out or removed device gets. Never reused, so a
    /// device that is bound again revives no session from before.
    pub next_device_epoch: u64,
    /// WebAuthn ceremonies that have been used, until they would have expired anyway.
    pub consumed: Vec<Spent>,
    pub app_keys: Vec<BoundKey>,
    pub devices: Vec<Device>,
    pub pin: Option<Pin>,
    pub passkeys: Vec<BoundPasskey>,
    pub secrets: BTreeMap<String, StoredSecret>,
    /// The version that the next stored secret gets. Never reused, so an ETag names one content.
    pub next_version: u64,
    pub contacts: Contacts,
    pub totp: Option<BoundTotp>,
    pub pending_totp: Option<PendingTotp>,
    pub recovery_codes: Option<BoundRecoveryCodes>,
    /// Changes by the exception to step-up that wait until they are due.
    pub recoveries: Vec<PendingRecovery>,
    /// Other names of the account. The committer keeps their records in step with this list.
    pub aliases: Vec<Alias>,
    /// Bindings that do not hold any more, oldest first, for whoever asks about one later.
    pub revoked: Vec<RevokedBinding>,
}

/// What does not say its MAC key is of before there could be another.
pub(crate) const fn first_mac_key() -> u16 {
    mac::ROOT_MAC.version
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) const fn is_first_mac_key(version: &u16) -> bool {
    *version == first_mac_key()
}

/// Something that may be used once, remembered until it could not be used any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    pub id: Bytes,
    pub expires: Timestamp,
}

/// A public key of the app (its thumbprint is the device identifier) and the realm's binding.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundKey {
    pub jwk: PublicJwk,
    pub thumbprint: String,
    pub binding: String,
    pub added: Timestamp,
}

/// A device that may act for the account: the holder of a DPoP key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub key: BoundKey,
    pub name: Option<String>,
    /// Raised by signing out on this device.
    pub session_epoch: u64,
}

/// The mark that a removed device leaves behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedDevice {
    pub thumbprint: String,
    /// Sessions of this key that began in this epoch or before it are over.
    pub epoch: u64,
    /// No session from before the removal lasts beyond this.
    pub expires: Timestamp,
}

/// The mark of a binding that was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedBinding {
    pub kind: BindingKind,
    pub device_id: String,
    pub issued: Timestamp,
    pub revoked: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundPasskey {
    pub passkey: Passkey,
    pub device_id: String,
    pub binding: String,
    pub name: Option<String>,
    pub added: Timestamp,
    /// When its holder last confirmed it: registration counts.
    pub confirmed: Timestamp,
    pub last_used: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSecret {
    pub version: u64,
    pub updated: Timestamp,
    /// The content under a key of its own, which the slots hold. Without it they hold the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Bytes>,
    pub slots: Vec<Slot>,
    pub server_slot: Option<SharedSecret>,
}

/// What opens a secret, sealed end to end for one factor; the daemon can not open it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    pub r#type: SlotType,
    /// What `service/slots.rs` says of its type: the factor whose key opens the slot.
    pub credential: String,
    pub ciphertext: Bytes,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SlotType {
    /// Key from a passkey's PRF extension.
    Prf,
    /// Key from the OPAQUE export key of a PIN.
    Opaque,
    /// Key from the part of a recovery code that is never sent.
    RecoveryCode,
    /// Key from the content of another secret of the account.
    Secret,
}

impl Account {
    #[must_use]
    pub fn new(
        realm: RealmName,
        app: AppId,
        id: AccountId,
        now: Timestamp,
        key: SecretBytes,
    ) -> Self {
        Self {
            format: FORMAT,
            realm,
            app,
            id,
            mac_key: first_mac_key(),
            generation: 0,
            created: now,
            boot_epoch: 0,
            log_epoch: 0,
            quarantined: false,
            trail: Trail::new(SharedSecret::new(key)),
            session_epoch: 0,
            ended_sessions: Vec::new(),
            removed_devices: Vec::new(),
            next_device_epoch: 0,
            consumed: Vec::new(),
            app_keys: Vec::new(),
            devices: Vec::new(),
            pin: None,
            passkeys: Vec::new(),
            secrets: BTreeMap::new(),
            next_version: 1,
            contacts: Contacts::default(),
            totp: None,
            pending_totp: None,
            recovery_codes: None,
            recoveries: Vec::new(),
            aliases: Vec::new(),
            revoked: Vec::new(),
        }
    }

    #[must_use]
    pub fn device(&self, thumbprint: &str) -> Option<&Device> {
        self.devices.iter().find(|d| d.key.thumbprint == thumbprint)
    }

    pub fn device_mut(&mut self, thumbprint: &str) -> Option<&mut Device> {
        self.devices
            .iter_mut()
            .find(|d| d.key.thumbprint == thumbprint)
    }

    #[must_use]
    pub fn passkey(&self, device_id: &str) -> Option<&BoundPasskey> {
        self.passkeys.iter().find(|p| p.device_id == device_id)
    }

    /// The alias of this name, if the account lists it.
    #[must_use]
    pub fn alias(&self, name: &AliasName) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.name == *name)
    }

    /// Lists an alias, once. A commit with it fails where another account has the name.
    pub fn add_alias(&mut self, alias: Alias) {
        if self.alias(&alias.name).is_none() {
            self.aliases.push(alias);
        }
    }

    /// Gives a name up; returns whether the account had it.
    pub fn drop_alias(&mut self, name: &AliasName) -> bool {
        let before = self.aliases.len();
        self.aliases.retain(|alias| alias.name != *name);
        self.aliases.len() < before
    }

    /// The versions of the MAC key that something of it was made under: with each of them that ends, something of it does.
    #[must_use]
    pub fn mac_keys(&self) -> BTreeSet<u16> {
        let pin = self.pin.as_ref().map(|pin| pin.way.mac_key());
        let aliases = self.aliases.iter().map(Alias::mac_key);
        std::iter::once(self.mac_key)
            .chain(pin)
            .chain(aliases)
            .collect()
    }

    /// An epoch that no device of this account has had before.
    pub fn take_device_epoch(&mut self) -> u64 {
        let epoch = self.next_device_epoch;
        self.next_device_epoch = epoch.saturating_add(1);
        epoch
    }

    /// Forgets marks whose originals have expired.
    pub fn forget_expired(&mut self, now: Timestamp) {
        self.consumed.retain(|spent| spent.expires >= now);
        self.ended_sessions.retain(|spent| spent.expires >= now);
        self.removed_devices
            .retain(|removed| removed.expires >= now);
        self.contacts.forget_expired(now);
        self.pending_totp.take_if(|pending| pending.expires <= now);
        self.recoveries.retain(|waits| waits.expires() > now);
    }

    /// How long the plaintext is.
    ///
    /// # Errors
    /// As `encode`.
    pub fn encoded_len(&self) -> Result<usize, serde_json::Error> {
        let mut length = Counter(0);
        serde_json::to_writer(&mut length, self)?;
        Ok(length.0)
    }

    /// The plaintext to seal.
    ///
    /// # Errors
    /// Only if a field can not be written as JSON, which no state reached here does.
    pub fn encode(&self) -> Result<SecretBytes, serde_json::Error> {
        let mut plaintext = Wiped(Zeroizing::new(Vec::with_capacity(USUAL_PLAINTEXT)));
        serde_json::to_writer(&mut plaintext, self)?;
        Ok(SecretBytes::from(std::mem::take(&mut *plaintext.0)))
    }

    /// Reads a plaintext that the token has opened.
    ///
    /// # Errors
    /// A sentence for the log; bytes that are authentic but not understood are never used.
    pub fn decode(plaintext: &[u8]) -> Result<Self, String> {
        let account: Self = serde_json::from_slice(plaintext)
            .map_err(|e| format!("envelope does not parse at byte {}", e.column()))?;
        if account.format == FORMAT {
            Ok(account)
        } else {
            Err(format!("envelope format {} is not known", account.format))
        }
    }
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A buffer that leaves nothing behind when it grows: a vector would move to a larger place and
/// give the old one, secrets and all, back to the allocator.
struct Wiped(Zeroizing<Vec<u8>>);

impl std::io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
            larger.extend_from_slice(&self.0);
            // The old buffer is wiped as it goes.
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account() -> Account {
        let key = SecretBytes::from(vec![7; 32]);
        let realm = RealmName::parse("realm.example").unwrap();
        let app = AppId::parse("notes").unwrap();
        let mut account = Account::new(realm, app, AccountId([1; 16]), Timestamp(1000), key);
        account.secrets.insert(
            "device-secret".into(),
            StoredSecret {
                version: 1,
                updated: Timestamp(1000),
                sealed: Some(Bytes(vec![4, 5])),
                slots: vec![Slot {
                    r#type: SlotType::Prf,
                    credential: "c".into(),
                    ciphertext: Bytes(vec![1, 2, 3]),
                }],
                server_slot: Some(SharedSecret::new(SecretBytes::from(vec![9; 32]))),
            },
        );
        account
    }

    #[test]
    fn an_envelope_survives_its_encoding_also_when_its_buffer_grew() {
        let mut large = account();
        let slot = large.secrets["device-secret"].slots[0].clone();
        let secret = large.secrets.get_mut("device-secret").unwrap();
        secret.slots = vec![slot; 2000];
        let encoded = large.encode().unwrap();
        assert!(encoded.len() > USUAL_PLAINTEXT);
        let again = |encoded: &SecretBytes| {
            let decoded = Account::decode(encoded.expose()).unwrap();
            decoded.encode().unwrap().expose().to_vec()
        };
        assert_eq!(again(&encoded), encoded.expose());
        let encoded = account().encode().unwrap();
        assert_eq!(again(&encoded), encoded.expose());
    }

    #[test]
    fn another_format_and_unknown_fields_are_refused() {
        let text = String::from_utf8(account().encode().unwrap().expose().to_vec()).unwrap();
        assert!(Account::decode(text.replace("\"format\":1", "\"format\":2").as_bytes()).is_err());
        assert!(
            Account::decode(
                text.replace("\"format\":1", "\"format\":1,\"x\":0")
                    .as_bytes()
            )
            .is_err()
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", account());
        assert!(
            !shown.contains("CQkJ") && !shown.contains("[9, 9"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Account::decode(&bytes);
        }

        #[test]
        fn a_mutated_envelope_is_refused_or_well_formed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut encoded = account().encode().unwrap().expose().to_vec();
            let at = at.index(encoded.len());
            encoded[at] = to;
            if let Ok(account) = Account::decode(&encoded) {
                prop_assert!(account.encode().is_ok());
            }
        }
    }
}
