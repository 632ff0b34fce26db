//! Reads the golden vectors in `vectors/`, made by another implementation of
//! FORMAT.md. A good file must open and be made again byte for byte; each
//! other file has one defect and says what must come of it.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    binding::{Binding, BindingKeys},
    custody::Custody,
    encoding,
    error::{Error, Result},
    id::{AccountId, AppId, KeyId, KeyPurpose, RealmName, RecordId, RecordKind},
    mac::{self, EpochUse},
    public_key::PublicKey,
    seal::{self, Context, LocalKey, Pad},
    secret::Secret,
    software::SoftCustody,
    webhook::{self, WebhookCall},
};

/// Hexadecimal bytes in a vector.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        hex::decode(text).map(Self)
    }
}

impl Hex {
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }
}

/// Every vector of a folder, by name. `least` guards against a folder that
/// quietly became empty.
pub(crate) fn folder<T: for<'de> Deserialize<'de>>(
    name: &str,
    least: usize,
) -> BTreeMap<String, T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(name);
    let mut vectors = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        vectors.insert(stem, serde_json::from_str(&text).unwrap());
    }
    assert!(vectors.len() >= least, "{name}: {} vectors", vectors.len());
    vectors
}

/// The name of an error in a vector.
pub(crate) fn name_of<T>(outcome: &Result<T>) -> Option<&'static str> {
    match outcome {
        Ok(_) => None,
        Err(Error::Tampered { .. }) => Some("tampered"),
        Err(Error::UnsupportedVersion { .. }) => Some("unsupported-version"),
        Err(Error::Invalid { .. }) => Some("invalid"),
        Err(_) => Some("other"),
    }
}

#[derive(Deserialize)]
struct RecordVector {
    realm: String,
    app: String,
    kind: String,
    record: Hex,
    generation: u64,
    keys: Vec<u16>,
    error: Option<String>,
    salt: Option<Hex>,
    plaintext: Option<Hex>,
    digest: Option<Hex>,
    sealed: Hex,
}

fn kind(name: &str) -> RecordKind {
    match name {
        "realm" => RecordKind::Realm,
        "account" => RecordKind::Account,
        "alias" => RecordKind::Alias,
        _ => RecordKind::Tombstone,
    }
}

#[test]
fn sealed_records() {
    for (name, vector) in folder::<RecordVector>("record", 30) {
        let mut custody = SoftCustody::new();
        custody.remove_version(KeyPurpose::Wrap, 1);
        for version in &vector.keys {
            custody.add_version(KeyPurpose::Wrap, *version);
        }
        let realm = RealmName::parse(&vector.realm).unwrap();
        let app = match vector.app.as_str() {
            "_realm" => AppId::REALM,
            app => AppId::parse(app).unwrap(),
        };
        let context = Context {
            realm: &realm,
            app: &app,
            kind: kind(&vector.kind),
            record: &RecordId(vector.record.array()),
            generation: vector.generation,
        };
        let outcome = seal::open(&mut custody, &context, &vector.sealed.0);
        assert_eq!(name_of(&outcome), vector.error.as_deref(), "{name}");
        if let Ok(opened) = outcome {
            let plaintext = vector.plaintext.unwrap().0;
            assert_eq!(opened.expose(), plaintext, "{name}");
            let salt = vector.salt.unwrap().array();
            let again = seal::seal_with_salt(&mut custody, &context, salt, &plaintext);
            assert!(again.unwrap() == vector.sealed.0, "{name}");
            let digest: [u8; 32] = vector.digest.unwrap().array();
            assert_eq!(seal::digest(&vector.sealed.0), digest, "{name}");
        }
    }
}

#[derive(Deserialize)]
struct LocalVector {
    domain: String,
    context: Vec<Hex>,
    header: Hex,
    secret: Hex,
    error: Option<String>,
    salt: Option<Hex>,
    plaintext: Option<Hex>,
    multiple: Option<usize>,
    sealed: Hex,
}

#[test]
fn host_sealed_bytes() {
    for (name, vector) in folder::<LocalVector>("local", 18) {
        let domain: &'static str = vector.domain.leak();
        let key = LocalKey::new(Secret::init(|s| *s = vector.secret.array()), domain);
        let context: Vec<&[u8]> = vector.context.iter().map(|c| c.0.as_slice()).collect();
        let outcome = seal::open_local(&key, &context, &vector.header.0, &vector.sealed.0);
        assert_eq!(name_of(&outcome), vector.error.as_deref(), "{name}");
        if let Ok(opened) = outcome {
            let plaintext = vector.plaintext.unwrap().0;
            assert_eq!(opened.expose(), plaintext, "{name}");
            let pad = match vector.multiple {
                Some(0) | None => Pad::None,
                Some(step) => Pad::Multiple(step),
            };
            let salt = vector.salt.unwrap().array();
            let header = &vector.header.0;
            let again = seal::seal_local_with_salt(&key, &context, header, pad, salt, &plaintext);
            assert!(again.unwrap() == vector.sealed.0, "{name}");
        }
    }
}

#[derive(Deserialize)]
struct BindingVector {
    key: Hex,
    kid: String,
    error: Option<String>,
    claims: Option<Value>,
    jws: String,
}

#[test]
fn bindings() {
    for (name, vector) in folder::<BindingVector>("binding", 30) {
        let key = PublicKey::from_point(&vector.key.0).unwrap();
        assert_eq!(key.thumbprint(), vector.kid, "{name}");
        let outcome = BindingKeys::from_keys(vec![key]).verify(&vector.jws);
        assert_eq!(name_of(&outcome), vector.error.as_deref(), "{name}");
        if let Ok(binding) = outcome {
            let claims: Binding = serde_json::from_value(vector.claims.unwrap()).unwrap();
            assert_eq!(binding, claims, "{name}");
            let body = vector.jws.split('.').nth(1).unwrap();
            let ours = serde_json::to_vec(&binding).unwrap();
            assert_eq!(base64_url(&ours), body, "{name}: the order of the claims");
        }
    }
}

#[derive(Deserialize)]
struct WebhookVector {
    key: Hex,
    kid: String,
    body: String,
    claims: Value,
    jws: String,
}

/// Nothing here reads a call back, so its golden file says what a receiver must find.
#[test]
fn webhook_calls() {
    for (name, vector) in folder::<WebhookVector>("webhook", 1) {
        let key = PublicKey::from_point(&vector.key.0).unwrap();
        assert_eq!(key.thumbprint(), vector.kid, "{name}");
        let parts: Vec<&str> = vector.jws.split('.').collect();
        assert_eq!(parts.len(), 3, "{name}");
        assert_eq!(webhook::header(&key), parts[0], "{name}");
        let told: WebhookCall = serde_json::from_value(vector.claims).unwrap();
        let id = from_base64_url(&told.id).try_into().unwrap();
        let body = vector.body.as_bytes();
        let call = WebhookCall::new(told.realm.clone(), &told.url, told.issued, id, body).unwrap();
        assert_eq!(call, told, "{name}");
        let ours = serde_json::to_vec(&call).unwrap();
        assert_eq!(
            base64_url(&ours),
            parts[1],
            "{name}: the order of the claims"
        );
        let input = format!("{}.{}", parts[0], parts[1]);
        let signature = from_base64_url(parts[2]).try_into().unwrap();
        assert!(key.verifies(input.as_bytes(), &signature), "{name}");
    }
}

fn from_base64_url(text: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn mac_statements() {
    let vectors = folder::<Value>("mac", 1).remove("good").unwrap();
    let text = |name: &str, field: &str| vectors[name][field].as_str().unwrap().to_owned();
    let realm = RealmName::parse("demo.example").unwrap();
    let app = AppId::parse("demo").unwrap();
    let record = RecordId([0x5a; 32]);
    let account = |natural| encoding::record_id(&realm, &app, RecordKind::Account, natural);
    for (name, statement) in [
        ("record-id-account", account(&[0x11; 16])),
        (
            "record-id-alias",
            encoding::record_id(&realm, &app, RecordKind::Alias, b"ann@demo.example"),
        ),
        (
            "record-id-realm",
            encoding::record_id(
                &realm,
                &AppId::REALM,
                RecordKind::Realm,
                encoding::REALM_RECORD,
            ),
        ),
        ("pin-pepper", encoding::pin_pepper(&realm, &app, &record)),
        (
            "opaque-key-material",
            encoding::opaque_key_material(&realm, &app, &record, &[0x3c; 32]),
        ),
        (
            "opaque-decoy",
            encoding::opaque_decoy(&realm, &app, &AccountId([0x11; 16])),
        ),
        ("session-epoch-key", encoding::session_epoch_key(&realm, 3)),
        (
            "ceremony-epoch-key",
            encoding::ceremony_epoch_key(&realm, 3),
        ),
        (
            "idempotent-account",
            encoding::idempotent_account_id(&realm, &app, "jkt", "key"),
        ),
        (
            "ticket-account",
            encoding::ticket_account_id(&realm, &app, "jti"),
        ),
        ("head", encoding::head(&realm, &seal::sha256(&[b"a head"]))),
        ("known-answer", encoding::known_answer()),
    ] {
        assert_eq!(hex::encode(&statement), text(name, "statement"), "{name}");
        let tag = SoftCustody::new().mac(mac::ROOT_MAC, &statement).unwrap();
        assert_eq!(hex::encode(tag.expose()), text(name, "tag"), "{name}");
    }
}

/// The functions that callers use give the same values as the statements.
#[test]
fn mac_functions() {
    let vectors = folder::<Value>("mac", 1).remove("good").unwrap();
    let text = |name: &str, field: &str| vectors[name][field].as_str().unwrap().to_owned();
    let mut custody = SoftCustody::new();
    let realm = RealmName::parse("demo.example").unwrap();
    let app = AppId::parse("demo").unwrap();
    let id = mac::record_id(&mut custody, &realm, &app, RecordKind::Account, &[0x11; 16]).unwrap();
    assert_eq!(id.to_string(), text("record-id-account", "tag"));
    let id = mac::realm_record_id(&mut custody, mac::ROOT_MAC, &realm).unwrap();
    assert_eq!(id.to_string(), text("record-id-realm", "tag"));
    let pepper = mac::pin_pepper(
        &mut custody,
        mac::ROOT_MAC,
        &realm,
        &app,
        &RecordId([0x5a; 32]),
    )
    .unwrap();
    assert_eq!(hex::encode(pepper.expose()), text("pin-pepper", "tag"));
    let record = RecordId([0x5a; 32]);
    let key = mac::opaque_key_material(
        &mut custody,
        mac::ROOT_MAC,
        &realm,
        &app,
        &record,
        &[0x3c; 32],
    )
    .unwrap();
    assert_eq!(
        hex::encode(key.expose()),
        text("opaque-key-material", "tag")
    );
    let decoy = mac::opaque_decoy(&mut custody, &realm, &app, &AccountId([0x11; 16])).unwrap();
    assert_eq!(hex::encode(decoy.expose()), text("opaque-decoy", "tag"));
    for (usage, name) in [
        (EpochUse::Session, "session-epoch-key"),
        (EpochUse::Ceremony, "ceremony-epoch-key"),
    ] {
        let key = mac::epoch_key(&mut custody, mac::ROOT_MAC, &realm, usage, 3).unwrap();
        assert_eq!(hex::encode(key.expose()), text(name, "tag"));
    }
    let head = mac::head(&mut custody, &realm, &[1], b"a head").unwrap();
    assert_eq!(hex::encode(head), text("head", "tag"));
    let account = mac::account_id_from_idempotency_key(
        &mut custody,
        mac::ROOT_MAC,
        &realm,
        &app,
        "jkt",
        "key",
    )
    .unwrap();
    assert_eq!(
        hex::encode(account.0),
        text("idempotent-account", "account")
    );
    let account =
        mac::account_id_from_ticket(&mut custody, mac::ROOT_MAC, &realm, &app, "jti").unwrap();
    assert_eq!(hex::encode(account.0), text("ticket-account", "account"));
    let context: [u8; 32] = hex::decode(text("derive", "context_hash"))
        .unwrap()
        .try_into()
        .unwrap();
    let wrap = KeyId::new(KeyPurpose::Wrap, 1);
    let label = text("derive", "label");
    let key = custody.derive(wrap, label.as_bytes(), &context).unwrap();
    assert_eq!(hex::encode(key.expose()), text("derive", "key"));
}
