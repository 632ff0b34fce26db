//! What the attributes of a key must be, and the verdict on what they are.
//!
//! Called by `keys` for every object that carries a label of ours. The token is
//! asked, never believed to be silent for good reason: an attribute it does not
//! know is a warning or a refusal, never a pass.

use AttributeType as A;
use cryptoki::{
    object::{Attribute, AttributeType, KeyType, ObjectHandle},
    session::Session,
};

use super::mechanism::Attempt;
use crate::{
    ed25519::{self, Ed25519Key},
    id::KeyId,
    public_key::{POINT_LENGTH, PublicKey},
    report::{KeyKind, KeyReport, Verdict},
    root_keys::KeyOrigin,
};

/// The DER of the object identifier 1.2.840.10045.3.1.7 (RFC 5480, section 2.1.1.1).
pub(super) const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The curve of Ed25519 as PKCS#11 3.0 spells it (section 2.3.5): by its name, a PrintableString ...
pub(super) const EDWARDS25519: [u8; 14] = *b"\x13\x0cedwards25519";
/// ... or by the object identifier 1.3.101.112 (RFC 8410, section 3).
pub(super) const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// The object identifier 1.3.6.1.4.1.11591.15.1, which some modules tell.
const ED25519_GNU: [u8; 11] = [
    0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01,
];

/// The point of a public key.
#[derive(Clone, Copy)]
pub(super) enum Public {
    P256(PublicKey),
    Ed25519(Ed25519Key),
}

/// What an attribute must be.
#[derive(Clone, Copy)]
enum Rule {
    /// Refused unless the token says exactly this.
    Must(bool),
    /// Refused if the token says otherwise, a warning if it says nothing.
    Usage(bool),
    /// A warning unless the token says this.
    Should(bool),
}

/// What tells a key that stays from one that ends with its session.
pub(super) const TOKEN: &str = "CKA_TOKEN";

/// The key stays in the token for ever.
const KEPT: [(AttributeType, &str, Rule); 4] = [
    (A::Token, TOKEN, Rule::Must(true)),
    (A::Private, "CKA_PRIVATE", Rule::Must(true)),
    (A::Sensitive, "CKA_SENSITIVE", Rule::Must(true)),
    (A::Extractable, "CKA_EXTRACTABLE", Rule::Must(false)),
];

/// And it was never outside: the token made it.
const MADE: [(AttributeType, &str, Rule); 3] = [
    (A::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE", Rule::Must(true)),
    (
        A::NeverExtractable,
        "CKA_NEVER_EXTRACTABLE",
        Rule::Must(true),
    ),
    // Some software tokens report false for keys that they made themselves.
    (A::Local, "CKA_LOCAL", Rule::Should(true)),
];

/// Or it came from outside, for an escrow: one that the token made is in no escrow.
const IMPORTED: [(AttributeType, &str, Rule); 3] = [
    (
        A::AlwaysSensitive,
        "CKA_ALWAYS_SENSITIVE",
        Rule::Usage(false),
    ),
    (
        A::NeverExtractable,
        "CKA_NEVER_EXTRACTABLE",
        Rule::Usage(false),
    ),
    (A::Local, "CKA_LOCAL", Rule::Usage(false)),
];

/// It signs and does nothing else: a key that may also encrypt, wrap or derive
/// would let its holder compute things that only we should.
const USES_SECRET: [(AttributeType, &str, Rule); 6] = [
    (A::Sign, "CKA_SIGN", Rule::Must(true)),
    (A::Encrypt, "CKA_ENCRYPT", Rule::Usage(false)),
    (A::Decrypt, "CKA_DECRYPT", Rule::Usage(false)),
    (A::Wrap, "CKA_WRAP", Rule::Usage(false)),
    (A::Unwrap, "CKA_UNWRAP", Rule::Usage(false)),
    (A::Derive, "CKA_DERIVE", Rule::Usage(false)),
];

const USES_PRIVATE: [(AttributeType, &str, Rule); 5] = [
    (A::Sign, "CKA_SIGN", Rule::Must(true)),
    (A::SignRecover, "CKA_SIGN_RECOVER", Rule::Should(false)),
    (A::Decrypt, "CKA_DECRYPT", Rule::Usage(false)),
    (A::Unwrap, "CKA_UNWRAP", Rule::Usage(false)),
    (A::Derive, "CKA_DERIVE", Rule::Usage(false)),
];

const USES_PUBLIC: [(AttributeType, &str, Rule); 1] = [(A::Token, TOKEN, Rule::Must(true))];

/// Reads one object and judges it; with its point, where it tells one.
pub(super) fn examine(
    session: &Session,
    handle: ObjectHandle,
    id: KeyId,
    (kind, origin): (KeyKind, KeyOrigin),
) -> Attempt<(KeyReport, Option<Public>)> {
    let whence = match origin {
        KeyOrigin::Token => &MADE,
        KeyOrigin::Imported => &IMPORTED,
    };
    let kept = KEPT.iter().chain(whence);
    let rules: Vec<_> = match kind {
        KeyKind::Secret => kept.chain(&USES_SECRET).copied().collect(),
        KeyKind::Private => kept.chain(&USES_PRIVATE).copied().collect(),
        KeyKind::Public => USES_PUBLIC.to_vec(),
    };
    let mut wanted: Vec<AttributeType> = rules.iter().map(|(kind, ..)| *kind).collect();
    wanted.push(A::KeyType);
    wanted.push(if kind == KeyKind::Secret {
        A::ValueLen
    } else {
        A::EcParams
    });
    if kind == KeyKind::Public {
        wanted.push(A::EcPoint);
    }
    // The library leaves out what the token does not know; look up, do not zip.
    let found = session.get_attributes(handle, &wanted)?;
    let mut attributes: Vec<(&'static str, String, Verdict)> =
        rules.iter().map(|rule| judge_flag(&found, *rule)).collect();
    attributes.push(judge_type(&found, id, kind));
    attributes.push(judge_parameters(&found, id, kind));
    let public = found
        .iter()
        .find_map(|attribute| match id.purpose.is_ed25519() {
            false => point(attribute).map(Public::P256),
            true => edwards(attribute).map(Public::Ed25519),
        });
    if kind == KeyKind::Public && public.is_none() {
        let verdict = Verdict::Bad(format!("not a point of {}", curve_of(id)));
        attributes.push(("CKA_EC_POINT", "unreadable".to_owned(), verdict));
    }
    let report = KeyReport {
        id,
        label: id.label(),
        kind,
        attributes,
    };
    Ok((report, public))
}

fn judge_flag(
    found: &[Attribute],
    (kind, name, rule): (AttributeType, &'static str, Rule),
) -> (&'static str, String, Verdict) {
    let value = found
        .iter()
        .filter(|a| a.attribute_type() == kind)
        .find_map(flag);
    let (Rule::Must(expected) | Rule::Usage(expected) | Rule::Should(expected)) = rule;
    let wanted = format!("expected {expected}");
    let verdict = match (value, rule) {
        (Some(value), _) if value == expected => Verdict::Good,
        (Some(_), Rule::Must(_) | Rule::Usage(_)) | (None, Rule::Must(_)) => Verdict::Bad(wanted),
        (Some(_), Rule::Should(_)) => Verdict::Warning(wanted),
        (None, _) => Verdict::Warning(format!("the token does not tell; {wanted}")),
    };
    let shown = value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    (name, shown, verdict)
}

fn flag(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Token(value)
        | Attribute::Private(value)
        | Attribute::Sensitive(value)
        | Attribute::AlwaysSensitive(value)
        | Attribute::Extractable(value)
        | Attribute::NeverExtractable(value)
        | Attribute::Sign(value)
        | Attribute::SignRecover(value)
        | Attribute::Encrypt(value)
        | Attribute::Decrypt(value)
        | Attribute::Wrap(value)
        | Attribute::Unwrap(value)
        | Attribute::Derive(value)
        | Attribute::Local(value) => Some(*value),
        _ => None,
    }
}

fn judge_type(found: &[Attribute], id: KeyId, kind: KeyKind) -> (&'static str, String, Verdict) {
    let value = found.iter().find_map(|attribute| match attribute {
        Attribute::KeyType(key_type) => Some(*key_type),
        _ => None,
    });
    let sound: &[KeyType] = match kind {
        KeyKind::Secret => &[KeyType::GENERIC_SECRET, KeyType::SHA256_HMAC],
        _ if id.purpose.is_ed25519() => &[KeyType::EC_EDWARDS],
        KeyKind::Private | KeyKind::Public => &[KeyType::EC],
    };
    let verdict = if value.is_some_and(|value| sound.contains(&value)) {
        Verdict::Good
    } else {
        Verdict::Bad("not a key of the type that its purpose needs".to_owned())
    };
    let shown = value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    ("CKA_KEY_TYPE", shown, verdict)
}

fn curve_of(id: KeyId) -> &'static str {
    match id.purpose.is_ed25519() {
        false => "P-256",
        true => "Ed25519",
    }
}

/// The length of a secret, the curve of a pair.
fn judge_parameters(
    found: &[Attribute],
    id: KeyId,
    kind: KeyKind,
) -> (&'static str, String, Verdict) {
    let unknown = || "unknown".to_owned();
    if kind == KeyKind::Secret {
        let length = found.iter().find_map(|attribute| match attribute {
            Attribute::ValueLen(length) => Some(**length),
            _ => None,
        });
        let verdict = match length {
            Some(32) => Verdict::Good,
            Some(_) => Verdict::Bad("expected 32 bytes".to_owned()),
            None => Verdict::Warning("the token does not tell; expected 32 bytes".to_owned()),
        };
        let shown = length.map_or_else(unknown, |length| length.to_string());
        return ("CKA_VALUE_LEN", shown, verdict);
    }
    let curve = found.iter().find_map(|attribute| match attribute {
        Attribute::EcParams(parameters) => Some(match id.purpose.is_ed25519() {
            false => *parameters == P256,
            true => {
                *parameters == EDWARDS25519 || *parameters == ED25519 || *parameters == ED25519_GNU
            }
        }),
        _ => None,
    });
    let name = curve_of(id);
    let verdict = match curve {
        Some(true) => Verdict::Good,
        Some(false) => Verdict::Bad(format!("expected the curve {name}")),
        None => Verdict::Warning(format!("the token does not tell; expected {name}")),
    };
    let shown = curve.map_or_else(unknown, |right| {
        if right { name } else { "other" }.to_owned()
    });
    ("CKA_EC_PARAMS", shown, verdict)
}

/// CKA_EC_POINT is the DER of an octet string; some modules give the bare point.
fn point(attribute: &Attribute) -> Option<PublicKey> {
    let Attribute::EcPoint(bytes) = attribute else {
        return None;
    };
    let bare = match bytes.as_slice() {
        [0x04, 0x41, point @ ..] if point.len() == POINT_LENGTH => point,
        point => point,
    };
    PublicKey::from_point(bare).ok()
}

/// The same of Ed25519, which PKCS#11 3.0 wants bare; some modules give an octet string or a bit string.
fn edwards(attribute: &Attribute) -> Option<Ed25519Key> {
    let Attribute::EcPoint(bytes) = attribute else {
        return None;
    };
    let bare = match bytes.as_slice() {
        [0x04, 0x20, key @ ..] | [0x03, 0x21, 0x00, key @ ..] if key.len() == ed25519::LENGTH => {
            key
        }
        key => key,
    };
    Ed25519Key::from_bytes(bare).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8032, section 7.1, test 1.
    const KEY: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07,
        0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07,
        0x51, 0x1a,
    ];

    #[test]
    fn an_ed25519_point_is_read_in_the_forms_that_modules_give() {
        let read = |bytes: Vec<u8>| edwards(&Attribute::EcPoint(bytes));
        let bytes = |key: Option<Ed25519Key>| key.map(|key| *key.as_bytes());
        assert_eq!(bytes(read(KEY.to_vec())), Some(KEY));
        assert_eq!(bytes(read([&[0x04, 0x20][..], &KEY].concat())), Some(KEY));
        assert_eq!(
            bytes(read([&[0x03, 0x21, 0][..], &KEY].concat())),
            Some(KEY)
        );
        for bad in [
            Vec::new(),
            KEY[1..].to_vec(),
            [&[0x05, 0x20][..], &KEY].concat(),
            [&[0x03, 0x21, 1][..], &KEY].concat(),
            [&[0x04, 0x20][..], &KEY, &[0]].concat(),
        ] {
            assert_eq!(bytes(read(bad)), None);
        }
    }
}
