//! The bytes of every statement that a token key authenticates: one function
//! per statement, nothing else may build one.
//!
//! Called by `mac`, `seal` and the backends' health probe. Every statement is a
//! domain string and then its fields, each preceded by its length (BE32).
//! So ("ab", "c") and ("a", "bc") differ, and no statement of one kind can be
//! read as one of another. FORMAT.md has the same, for readers without Rust.

use crate::id::{AccountId, AppId, KeyId, RealmName, RecordId, RecordKind};
use crate::secret::Secret;

/// A statement under construction.
#[derive(Debug)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// Begins a statement with its domain.
    #[must_use]
    pub fn new(domain: &[u8]) -> Self {
        Self(Vec::with_capacity(256)).bytes(domain)
    }

    /// Appends a field. Callers bound their fields far below 2^32; a longer one
    /// would be cut in its length only, never in its bytes.
    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    #[must_use]
    pub fn text(self, field: &str) -> Self {
        self.bytes(field.as_bytes())
    }

    #[must_use]
    pub fn byte(self, field: u8) -> Self {
        self.bytes(&[field])
    }

    #[must_use]
    pub fn be16(self, field: u16) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    #[must_use]
    pub fn be64(self, field: u64) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The identifier of a record: which natural name of which kind in which app.
#[must_use]
pub fn record_id(realm: &RealmName, app: &AppId, kind: RecordKind, natural: &[u8]) -> Vec<u8> {
    Fields::new(b"custodyd/record-id/v1")
        .text(realm.as_str())
        .text(app.as_str())
        .byte(kind as u8)
        .bytes(natural)
        .finish()
}

/// The pepper of the PINs of one account.
#[must_use]
pub fn pin_pepper(realm: &RealmName, app: &AppId, account: &RecordId) -> Vec<u8> {
    Fields::new(b"custodyd/pin-pepper/v1")
        .text(realm.as_str())
        .text(app.as_str())
        .bytes(&account.0)
        .finish()
}

/// What the OPRF key of one OPAQUE record is derived from (RFC 9807, section 6.4.2). Each registration has a salt of
/// its own: whoever may register a PIN may evaluate under the key of that record and of no other.
#[must_use]
pub fn opaque_key_material(
    realm: &RealmName,
    app: &AppId,
    account: &RecordId,
    salt: &[u8; 32],
) -> Vec<u8> {
    Fields::new(b"custodyd/opaque-key-material/v1")
        .text(realm.as_str())
        .text(app.as_str())
        .bytes(&account.0)
        .bytes(salt)
        .finish()
}

/// What the record is derived from that a stranger is shown for an account identifier, whether there is such an
/// account or not.
#[must_use]
pub fn opaque_decoy(realm: &RealmName, app: &AppId, account: &AccountId) -> Vec<u8> {
    Fields::new(b"custodyd/opaque-decoy/v1")
        .text(realm.as_str())
        .text(app.as_str())
        .bytes(account.as_bytes())
        .finish()
}

/// The epoch key under which session tokens are sealed on the host.
#[must_use]
pub fn session_epoch_key(realm: &RealmName, number: u64) -> Vec<u8> {
    Fields::new(b"custodyd/session-epoch/v1")
        .text(realm.as_str())
        .be64(number)
        .finish()
}

/// The epoch key under which ceremony tokens are sealed on the host.
#[must_use]
pub fn ceremony_epoch_key(realm: &RealmName, number: u64) -> Vec<u8> {
    Fields::new(b"custodyd/ceremony-epoch/v1")
        .text(realm.as_str())
        .be64(number)
        .finish()
}

/// The key under which the keys of a further ceremony wait on the host, until they are in every token.
#[must_use]
pub fn escrow_unfinished(realm: &RealmName, manifest: &[u8; 32]) -> Vec<u8> {
    Fields::new(b"custodyd/escrow-unfinished/v1")
        .text(realm.as_str())
        .bytes(manifest)
        .finish()
}

/// The account identifier that an idempotency key of one device key stands for.
#[must_use]
pub fn idempotent_account_id(realm: &RealmName, app: &AppId, jkt: &str, key: &str) -> Vec<u8> {
    Fields::new(b"custodyd/idempotent-account/v1")
        .text(realm.as_str())
        .text(app.as_str())
        .text(jkt)
        .text(key)
        .finish()
}

/// The account identifier that an enrolment ticket of an app stands for.
#[must_use]
pub fn ticket_account_id(realm: &RealmName, app: &AppId, jti: &str) -> Vec<u8> {
    Fields::new(b"custodyd/ticket-account/v1")
        .text(realm.as_str())
        .text(app.as_str())
        .text(jti)
        .finish()
}

/// The head of a realm's ledger, by SHA-256 over its bytes: a head of any length
/// has one statement, and the token is never asked for more than this.
#[must_use]
pub fn head(realm: &RealmName, hash: &[u8; 32]) -> Vec<u8> {
    Fields::new(b"custodyd/head/v1")
        .text(realm.as_str())
        .bytes(hash)
        .finish()
}

/// An anchor: all its bytes before the tag, realm included.
#[must_use]
pub fn anchor(body: &[u8]) -> Vec<u8> {
    Fields::new(b"custodyd/anchor/v1").bytes(body).finish()
}

/// Whose an anchor says that it is (FORMAT.md, section 8), with nobody's word for it; none where it is no anchor. As much as a
/// backend may read of one: enough to miss those of a realm, and nothing to decide by.
#[must_use]
pub fn realm_of_anchor(content: &[u8]) -> Option<&str> {
    let (head, rest) = content.split_first_chunk::<4>()?;
    let rest = match head {
        b"CDA\x01" => rest,
        b"CDA\x02" => {
            let (count, keys) = rest.split_first()?;
            keys.get(2 * usize::from(*count)..)?
        }
        _ => return None,
    };
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// A warm anchor: all its bytes before the tag, realm and kernel boot id included.
#[must_use]
pub fn warm_anchor(body: &[u8]) -> Vec<u8> {
    Fields::new(b"custodyd/warm-anchor/v1").bytes(body).finish()
}

/// What a further MAC key is asked where several tag one statement: the statement, and the tag of those before.
#[must_use]
pub fn further_tag(statement: &[u8], inner: &Secret<32>) -> Vec<u8> {
    Fields::new(b"custodyd/further-tag/v1")
        .bytes(statement)
        .bytes(inner.expose())
        .finish()
}

/// The natural name of the one record of the realm itself.
pub const REALM_RECORD: &[u8] = b"realm";

/// The fixed message of the health probe. It begins with 00 00 00 18, so it is
/// neither the input of a derivation (00 00 00 01) nor a JWS signing input.
#[must_use]
pub fn known_answer() -> Vec<u8> {
    Fields::new(b"custodyd/known-answer/v1").finish()
}

/// What an escrow's check value of a secret key is an HMAC of. Like the health probe's message it is
/// neither the input of a derivation nor any statement that authenticates something.
#[must_use]
pub fn key_check(key: KeyId) -> Vec<u8> {
    Fields::new(b"custodyd/key-check/v1")
        .text(&key.label())
        .finish()
}

/// The input of the SP 800-108r1 KDF in counter mode for one 256-bit block:
/// `BE32(1) || label || 0x00 || context_hash || BE32(256)`.
#[must_use]
pub fn kdf_block(label: &[u8], context_hash: &[u8; 32]) -> Vec<u8> {
    let mut input = Vec::with_capacity(label.len() + 41);
    input.extend_from_slice(&1_u32.to_be_bytes());
    input.extend_from_slice(label);
    input.push(0);
    input.extend_from_slice(context_hash);
    input.extend_from_slice(&256_u32.to_be_bytes());
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let one = Fields::new(b"d").text("ab").text("c").finish();
        let two = Fields::new(b"d").text("a").text("bc").finish();
        assert_ne!(one, two);
        assert_eq!(one, b"\x00\x00\x00\x01d\x00\x00\x00\x02ab\x00\x00\x00\x01c");
    }

    #[test]
    fn the_probe_is_no_derivation() {
        assert_eq!(known_answer().get(..4), Some(&[0, 0, 0, 24][..]));
        assert_eq!(kdf_block(b"l", &[0; 32]).get(..4), Some(&[0, 0, 0, 1][..]));
    }
}
