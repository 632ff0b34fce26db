//! The statements that the token's MAC key authenticates, as values.
//!
//! Called by the daemon inside a token job. Each function pairs one statement
//! of `encoding` with the key versions that may make it.
//!
//! Identifiers, peppers and key material cannot be computed anew from what is stored, so what was made under
//! a version stays with it: who looks for it asks for each of [`accepted`], and what is new is made under
//! the current one. Heads and anchors are tagged by all accepted keys together and say by which: so one that
//! is believed still, although somebody may know it, lets nobody make a head, and neither does one that
//! was put into the token besides. A tag by keys of which none is accepted is nobody's, whatever it fits.

use subtle::ConstantTimeEq as _;

use crate::{
    custody::Custody,
    encoding,
    error::{Error, Result},
    id::{AccountId, AppId, KeyId, KeyPurpose, RealmName, RecordId, RecordKind},
    seal,
    secret::Secret,
};

/// The key of what does not say its version: it was made before there could be another one.
pub const ROOT_MAC: KeyId = KeyId {
    purpose: KeyPurpose::Mac,
    version: 1,
};

/// The longest natural name of a record, in bytes.
pub const MAX_NATURAL: usize = 1024;

/// Which host-side tokens an epoch key seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochUse {
    Session,
    Ceremony,
}

/// The MAC keys that are believed, the current one first and the others after: one that comes into use is among them
/// before it is the current one.
///
/// # Errors
/// The token's.
pub fn accepted(custody: &dyn Custody) -> Result<Vec<KeyId>> {
    let current = custody.current(KeyPurpose::Mac)?;
    let versions = custody.accepted(KeyPurpose::Mac)?.into_iter().rev();
    let keys = versions.map(|version| KeyId::new(KeyPurpose::Mac, version));
    let others = keys.filter(|key| *key != current);
    Ok(std::iter::once(current).chain(others).collect())
}

/// The identifier of a record under the current key. `natural` is the name by which the daemon knows
/// it: an account's 16 bytes, an alias, [`encoding::REALM_RECORD`].
///
/// # Errors
/// [`Error::Invalid`] for a natural name above [`MAX_NATURAL`], or when exactly
/// one of kind and app is that of the realm; else the token's.
pub fn record_id(
    custody: &mut dyn Custody,
    realm: &RealmName,
    app: &AppId,
    kind: RecordKind,
    natural: &[u8],
) -> Result<RecordId> {
    let key = custody.current(KeyPurpose::Mac)?;
    record_id_under(custody, key, realm, app, kind, natural)
}

/// As [`record_id`], under one of the [`accepted`] keys.
///
/// # Errors
/// As for [`record_id`].
pub fn record_id_under(
    custody: &mut dyn Custody,
    key: KeyId,
    realm: &RealmName,
    app: &AppId,
    kind: RecordKind,
    natural: &[u8],
) -> Result<RecordId> {
    check_app(kind, app)?;
    if natural.len() > MAX_NATURAL {
        return Err(Error::invalid(
            "natural name",
            format!("more than {MAX_NATURAL} bytes"),
        ));
    }
    let statement = encoding::record_id(realm, app, kind, natural);
    Ok(RecordId(*custody.mac(key, &statement)?.expose()))
}

/// The identifier of the one record of the realm itself.
///
/// # Errors
/// The token's.
pub fn realm_record_id(
    custody: &mut dyn Custody,
    key: KeyId,
    realm: &RealmName,
) -> Result<RecordId> {
    record_id_under(
        custody,
        key,
        realm,
        &AppId::REALM,
        RecordKind::Realm,
        encoding::REALM_RECORD,
    )
}

/// The pepper for the PINs of one account: without the token a stolen verifier
/// cannot be tried against any guess.
///
/// # Errors
/// The token's.
pub fn pin_pepper(
    custody: &mut dyn Custody,
    key: KeyId,
    realm: &RealmName,
    app: &AppId,
    account: &RecordId,
) -> Result<Secret<32>> {
    custody.mac(key, &encoding::pin_pepper(realm, app, account))
}

/// The key material of one OPAQUE record. It leaves the token, since no token computes an OPRF, and is worth the
/// guesses at this one record to whoever has that, too; callers forget it at once.
///
/// # Errors
/// The token's.
pub fn opaque_key_material(
    custody: &mut dyn Custody,
    key: KeyId,
    realm: &RealmName,
    app: &AppId,
    account: &RecordId,
    salt: &[u8; 32],
) -> Result<Secret<32>> {
    let statement = encoding::opaque_key_material(realm, app, account, salt);
    custody.mac(key, &statement)
}

/// What a stranger's OPAQUE record is made of, the same for one account identifier as long as the key is. It is
/// no key of any real record, or a stranger could have guesses evaluated that nobody pays for.
///
/// # Errors
/// The token's.
pub fn opaque_decoy(
    custody: &mut dyn Custody,
    realm: &RealmName,
    app: &AppId,
    account: &AccountId,
) -> Result<Secret<32>> {
    let key = custody.current(KeyPurpose::Mac)?;
    custody.mac(key, &encoding::opaque_decoy(realm, app, account))
}

/// The key of epoch `number` for sealing tokens on the host. It lives in host
/// memory, so a caller changes the number often and forgets old keys.
///
/// # Errors
/// The token's.
pub fn epoch_key(
    custody: &mut dyn Custody,
    key: KeyId,
    realm: &RealmName,
    usage: EpochUse,
    number: u64,
) -> Result<Secret<32>> {
    let statement = match usage {
        EpochUse::Session => encoding::session_epoch_key(realm, number),
        EpochUse::Ceremony => encoding::ceremony_epoch_key(realm, number),
    };
    custody.mac(key, &statement)
}

/// The account identifier for an idempotency key: the same device key and the
/// same key always name the same account, so a repeated creation finds the
/// first one and no table of keys is needed. UUID version 8 (RFC 9562,
/// section 5.8): 122 of its bits are MAC.
///
/// # Errors
/// [`Error::Invalid`] when the two texts together are too long; else the token's.
pub fn account_id_from_idempotency_key(
    custody: &mut dyn Custody,
    under: KeyId,
    realm: &RealmName,
    app: &AppId,
    jkt: &str,
    key: &str,
) -> Result<AccountId> {
    account_id(
        custody,
        under,
        &encoding::idempotent_account_id(realm, app, jkt, key),
    )
}

/// The account identifier for an enrolment ticket: whoever brings the ticket again finds the
/// account that it made, so no table of used tickets is needed. UUID as above.
///
/// # Errors
/// [`Error::Invalid`] when the name is too long; else the token's.
pub fn account_id_from_ticket(
    custody: &mut dyn Custody,
    key: KeyId,
    realm: &RealmName,
    app: &AppId,
    jti: &str,
) -> Result<AccountId> {
    account_id(custody, key, &encoding::ticket_account_id(realm, app, jti))
}

/// The tag of a head of the realm's ledger under the MAC keys that it accepts; `head` is its encoding without the
/// tag, of any length. The tag is no secret.
///
/// # Errors
/// The token's.
pub fn head(
    custody: &mut dyn Custody,
    realm: &RealmName,
    versions: &[u16],
    head: &[u8],
) -> Result<[u8; 32]> {
    let statement = encoding::head(realm, &seal::sha256(&[head]));
    Ok(*custody.tag(versions, &statement)?.expose())
}

/// Refuses a head that this realm's token did not make, or made by none of the keys that are accepted here. `versions` is
/// what the head itself says.
///
/// # Errors
/// [`Error::Tampered`]; else the token's.
pub fn check_head(
    custody: &mut dyn Custody,
    realm: &RealmName,
    versions: &[u16],
    head: &[u8],
    tag: &[u8; 32],
) -> Result<()> {
    let statement = encoding::head(realm, &seal::sha256(&[head]));
    match tag_fits(custody, versions, &statement, tag)? {
        true => Ok(()),
        false => Err(Error::Tampered { what: "head" }),
    }
}

/// Whether a tag is that of a statement by these keys, of which one at least must be accepted. Compared in constant time.
pub(crate) fn tag_fits(
    custody: &mut dyn Custody,
    versions: &[u16],
    statement: &[u8],
    tag: &[u8; 32],
) -> Result<bool> {
    // Whoever wrote the statement names the keys: what the token does not hold is asked nothing.
    let held = custody.versions(KeyPurpose::Mac)?;
    let mut believed = false;
    for version in versions {
        if !held.contains(version) {
            return Ok(false);
        }
        believed |= custody.believes(KeyId::new(KeyPurpose::Mac, *version))?;
    }
    Ok(believed && custody.tag(versions, statement)?.expose().ct_eq(tag).into())
}

fn account_id(custody: &mut dyn Custody, key: KeyId, statement: &[u8]) -> Result<AccountId> {
    let tag = custody.mac(key, statement)?;
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(tag.expose()) {
        *to = *from;
    }
    Ok(AccountId(
        uuid::Builder::from_custom_bytes(bytes)
            .into_uuid()
            .into_bytes(),
    ))
}

/// The realm's own record carries the reserved app, and no other kind does.
pub(crate) fn check_app(kind: RecordKind, app: &AppId) -> Result<()> {
    if (kind == RecordKind::Realm) == (*app == AppId::REALM) {
        return Ok(());
    }
    Err(Error::invalid(
        "record kind",
        "the reserved app belongs to the realm's record, and to no other",
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::software::SoftCustody;

    #[test]
    fn every_field_of_a_record_id_counts() {
        let mut custody = SoftCustody::new();
        let realms = ["r1", "r2"].map(|r| RealmName::parse(r).unwrap());
        let apps = ["a1", "a2"].map(|a| AppId::parse(a).unwrap());
        let mut seen = BTreeSet::new();
        for realm in &realms {
            for app in &apps {
                for kind in [
                    RecordKind::Account,
                    RecordKind::Alias,
                    RecordKind::Tombstone,
                ] {
                    for natural in [&b"x"[..], b"y", b""] {
                        seen.insert(record_id(&mut custody, realm, app, kind, natural).unwrap());
                    }
                }
            }
            seen.insert(realm_record_id(&mut custody, ROOT_MAC, realm).unwrap());
        }
        assert_eq!(seen.len(), 2 * 2 * 3 * 3 + 2);
    }

    #[test]
    fn the_reserved_app_is_for_the_realm_record_only() {
        let mut custody = SoftCustody::new();
        let realm = RealmName::parse("r").unwrap();
        let app = AppId::parse("a").unwrap();
        assert!(record_id(&mut custody, &realm, &app, RecordKind::Realm, b"").is_err());
        assert!(
            record_id(
                &mut custody,
                &realm,
                &AppId::REALM,
                RecordKind::Account,
                b""
            )
            .is_err()
        );
        let long = [0; MAX_NATURAL + 1];
        assert!(record_id(&mut custody, &realm, &app, RecordKind::Alias, &long).is_err());
    }

    #[test]
    fn an_idempotent_account_is_a_version_8_uuid_and_stays() {
        let mut custody = SoftCustody::new();
        let realm = RealmName::parse("r").unwrap();
        let app = AppId::parse("a").unwrap();
        let mut make = |jkt, key| {
            account_id_from_idempotency_key(&mut custody, ROOT_MAC, &realm, &app, jkt, key).unwrap()
        };
        let id = make("jkt", "key");
        assert_eq!(id, make("jkt", "key"));
        assert_ne!(id, make("jktk", "ey"));
        assert_eq!(id.to_string().chars().nth(14), Some('8'));
        assert!(matches!(id.0[8] >> 6, 0b10));
    }

    #[test]
    fn a_head_of_any_length_has_one_tag_in_one_realm() {
        let mut custody = SoftCustody::new();
        let (realm, other) = (
            RealmName::parse("r").unwrap(),
            RealmName::parse("r2").unwrap(),
        );
        for length in [0, 1, 4096, 100_000] {
            let bytes = vec![7; length];
            let tag = head(&mut custody, &realm, &[1], &bytes).unwrap();
            assert_eq!(check_head(&mut custody, &realm, &[1], &bytes, &tag), Ok(()));
            let refused = Err(Error::Tampered { what: "head" });
            assert_eq!(
                check_head(&mut custody, &other, &[1], &bytes, &tag),
                refused
            );
            let longer = vec![7; length + 1];
            assert_eq!(
                check_head(&mut custody, &realm, &[1], &longer, &tag),
                refused
            );
            for at in 0..32 {
                let mut wrong = tag;
                wrong[at] ^= 1;
                assert_eq!(
                    check_head(&mut custody, &realm, &[1], &bytes, &wrong),
                    refused
                );
            }
        }
    }

    #[test]
    fn session_and_ceremony_epochs_differ() {
        let mut custody = SoftCustody::new();
        let realm = RealmName::parse("r").unwrap();
        let session = epoch_key(&mut custody, ROOT_MAC, &realm, EpochUse::Session, 1).unwrap();
        let ceremony = epoch_key(&mut custody, ROOT_MAC, &realm, EpochUse::Ceremony, 1).unwrap();
        let next = epoch_key(&mut custody, ROOT_MAC, &realm, EpochUse::Session, 2).unwrap();
        assert!(!session.ct_eq(&ceremony));
        assert!(!session.ct_eq(&next));
    }

    /// Who knows one key of two, or has put a second one into the token, makes no tag of both.
    #[test]
    fn several_keys_tag_a_head_together() {
        let mut custody = SoftCustody::new();
        custody.add_version(KeyPurpose::Mac, 2);
        let realm = RealmName::parse("r").unwrap();
        let tag = head(&mut custody, &realm, &[1, 2], b"head").unwrap();
        let mut fits =
            |versions: &[u16]| check_head(&mut custody, &realm, versions, b"head", &tag).is_ok();
        assert!(fits(&[1, 2]));
        assert!(!fits(&[1]) && !fits(&[2]) && !fits(&[2, 1]) && !fits(&[1, 2, 3]));
        let none = fits(&[]);
        assert!(!none);
        assert!(head(&mut custody, &realm, &[], b"head").is_err());
    }
}
