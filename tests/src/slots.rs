//! Key slots as the SDK makes them, in Rust: for the vectors that both agree on, and for clients of these tests.
//!
//! Written from `client/sdk/SLOTS.md`, not from the TypeScript, so that both can not be wrong in the same way.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use serde_json::{Value, json};

use crate::Device;
use crate::device::{b64, sha256, unb64};

pub const CONTENT: &str = "custodyd/secret-content/v1";
pub const CONTENT_V2: &str = "custodyd/secret-content/v2";
pub const SLOT: &str = "custodyd/secret-slot/v1";

/// What a secret is called, by everybody.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub realm: &'a str,
    pub app: &'a str,
    pub account: &'a str,
    pub name: &'a str,
}

/// Each with its length before it.
#[must_use]
pub fn fields(parts: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::new();
    for part in parts {
        joined.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        joined.extend(*part);
    }
    joined
}

impl Place<'_> {
    #[must_use]
    pub fn content_info(&self) -> Vec<u8> {
        self.info(CONTENT, &[])
    }

    /// Of content that says which revision it is.
    #[must_use]
    pub fn revision_info(&self, revision: u64) -> Vec<u8> {
        let mut parts = [CONTENT_V2, self.realm, self.app, self.account, self.name]
            .map(str::as_bytes)
            .to_vec();
        let revision = revision.to_be_bytes();
        parts.push(&revision);
        fields(&parts)
    }

    #[must_use]
    pub fn slot_info(&self, kind: &str, credential: &str) -> Vec<u8> {
        self.info(SLOT, &[kind, credential])
    }

    fn info(&self, domain: &str, more: &[&str]) -> Vec<u8> {
        let mut parts = vec![domain, self.realm, self.app, self.account, self.name];
        parts.extend(more);
        fields(&parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>())
    }

    /// The content under a content key.
    #[must_use]
    pub fn seal(&self, key: &[u8], content: &[u8]) -> String {
        b64(&seal(
            &hkdf(key, &self.content_info()),
            CONTENT,
            fresh(),
            content,
        ))
    }

    #[must_use]
    pub fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        open(&hkdf(key, &self.content_info()), CONTENT, sealed)
    }

    /// A slot as it is sent.
    #[must_use]
    pub fn slot(&self, kind: &str, credential: &str, material: &[u8], key: &[u8]) -> Value {
        let wrapping = hkdf(material, &self.slot_info(kind, credential));
        let ciphertext = b64(&seal(&wrapping, SLOT, fresh(), key));
        json!({"type": kind, "credential": credential, "ciphertext": ciphertext})
    }

    #[must_use]
    pub fn open_slot(&self, slot: &Value, material: &[u8]) -> Option<Vec<u8>> {
        let text = |name: &str| slot[name].as_str().unwrap();
        let wrapping = hkdf(material, &self.slot_info(text("type"), text("credential")));
        open(&wrapping, SLOT, &unb64(text("ciphertext")))
    }
}

#[must_use]
pub fn hkdf(material: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let prk = Salt::new(HKDF_SHA256, &[]).extract(material);
    let info = [info];
    prk.expand(&info, HKDF_SHA256)
        .unwrap()
        .fill(&mut key)
        .unwrap();
    key
}

/// Version, revision, and what `seal` makes of the content.
#[must_use]
pub fn with_revision(revision: u64, sealed: &[u8]) -> Vec<u8> {
    [&[2], &revision.to_be_bytes()[..], sealed].concat()
}

/// Version, IV, ciphertext and tag.
#[must_use]
pub fn seal(key: &[u8; 32], label: &str, iv: [u8; 12], plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut sealed = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    key.seal_in_place_append_tag(nonce, Aad::from(label.as_bytes()), &mut sealed)
        .unwrap();
    [&[1], &iv[..], &sealed].concat()
}

#[must_use]
pub fn open(key: &[u8; 32], label: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (version, rest) = sealed.split_first()?;
    let (iv, body) = rest.split_first_chunk::<12>()?;
    if *version != 1 {
        return None;
    }
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(*iv);
    let plain = key.open_in_place(nonce, Aad::from(label.as_bytes()), &mut body);
    plain.ok().map(|plain| plain.to_vec())
}

fn fresh() -> [u8; 12] {
    let mut iv = [0; 12];
    aws_lc_rs::rand::fill(&mut iv).unwrap();
    iv
}

/// The device identifier of a passkey, from a registration's authenticator data: an ES256 key is 77 bytes of COSE.
#[must_use]
pub fn passkey_id(data: &[u8]) -> String {
    const START: &[u8] = &[0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 0x20];
    let at = data.windows(START.len()).position(|bytes| bytes == START);
    let at = at.expect("a registration has an ES256 key");
    sha256(&data[at..at + 77])
}

/// The device identifier of a PIN by OPAQUE, from what the first call has answered and what the second one says.
#[must_use]
pub fn pin_id(salt: &[u8], cost: &Value, record: &[u8]) -> String {
    let number = |name: &str| u32::try_from(cost[name].as_u64().unwrap()).unwrap();
    let [memory, passes, lanes] =
        ["memory_kib", "passes", "lanes"].map(|name| number(name).to_be_bytes());
    let domain = b"custodyd/opaque-pin-device-id/v1";
    sha256(&fields(&[domain, salt, &memory, &passes, &lanes, record]))
}

/// The name of slots under a recovery code.
#[must_use]
pub fn code_id(auth: &[u8]) -> String {
    sha256(&fields(&[b"custodyd/recovery-code-slot-id/v1", auth]))
}

impl Device {
    /// Where the secret of this name is.
    #[must_use]
    pub fn place<'a>(&'a self, name: &'a str) -> Place<'a> {
        Place {
            realm: &self.realm,
            app: &self.app,
            account: &self.account,
            name,
        }
    }
}
