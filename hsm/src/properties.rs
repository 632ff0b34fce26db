//! Properties of every parser of outside bytes in this crate: nothing panics,
//! what was made opens, and what was changed anywhere does not.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::{
    binding::{self, Binding, BindingKeys, BindingKind},
    id::{AccountId, AppId, KeyId, RealmName, RecordId, RecordKind},
    seal::{self, Context, LocalKey, MAX_PLAINTEXT, Pad},
    secret::Secret,
    software::SoftCustody,
};

static REALM: LazyLock<RealmName> = LazyLock::new(|| RealmName::parse("realm").unwrap());
static APP: LazyLock<AppId> = LazyLock::new(|| AppId::parse("app").unwrap());
const RECORD: RecordId = RecordId([7; 32]);

fn context(generation: u64) -> Context<'static> {
    Context {
        realm: &REALM,
        app: &APP,
        kind: RecordKind::Account,
        record: &RECORD,
        generation,
    }
}

fn local_key() -> LocalKey {
    LocalKey::new(Secret::init(|bytes| bytes.fill(3)), "custodyd/test/v1")
}

/// A signed binding with the key it verifies under. One for all cases.
static SIGNED: LazyLock<(String, BindingKeys)> = LazyLock::new(|| {
    let mut custody = SoftCustody::new();
    let binding = Binding {
        realm: REALM.clone(),
        app: APP.clone(),
        account: AccountId([9; 16]),
        device_id: "device".to_owned(),
        kind: BindingKind::Passkey,
        issued: 1,
    };
    let jws = binding::sign(&mut custody, &binding).unwrap();
    let keys = BindingKeys::load(&mut custody).unwrap();
    assert_eq!(keys.verify(&jws).unwrap(), binding);
    (jws, keys)
});

/// Ways to damage bytes without leaving them as they were.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = good.len();
    let (a, b, c, d) = (good.clone(), good.clone(), good.clone(), good);
    prop_oneof![
        (0..length, 1_u8..=255).prop_map(move |(at, change)| {
            let mut bytes = a.clone();
            bytes[at] ^= change;
            bytes
        }),
        (0..length).prop_map(move |keep| b[..keep].to_vec()),
        prop::collection::vec(any::<u8>(), 1..2048)
            .prop_map(move |tail| [c.clone(), tail].concat()),
        (0..length).prop_map(move |at| {
            let mut bytes = d.clone();
            bytes.remove(at);
            bytes
        }),
    ]
}

proptest! {
    #[test]
    fn records_round_trip(
        plaintext in prop::collection::vec(any::<u8>(), 0..5000),
        generation: u64,
    ) {
        let mut custody = SoftCustody::new();
        let sealed = seal::seal(&mut custody, &context(generation), &plaintext).unwrap();
        let opened = seal::open(&mut custody, &context(generation), &sealed).unwrap();
        prop_assert_eq!(opened.expose(), plaintext);
        let other = context(generation.wrapping_add(1));
        prop_assert!(seal::open(&mut custody, &other, &sealed).is_err());
    }

    #[test]
    fn any_bytes_are_refused_as_a_record(
        mut bytes in prop::collection::vec(any::<u8>(), 0..4096),
        look_right: bool,
        class in 0_u32..9,
    ) {
        if look_right {
            bytes.resize((1024 << class) + 38, 0);
            bytes[..6].copy_from_slice(b"CDS\x01\x00\x01");
        }
        prop_assert!(seal::open(&mut SoftCustody::new(), &context(0), &bytes).is_err());
    }

    #[test]
    fn damaged_records_are_refused(bytes in damaged({
        seal::seal_with_salt(&mut SoftCustody::new(), &context(1), [1; 16], b"data").unwrap()
    })) {
        prop_assert!(seal::open(&mut SoftCustody::new(), &context(1), &bytes).is_err());
    }

    #[test]
    fn host_sealed_bytes_round_trip(
        plaintext in prop::collection::vec(any::<u8>(), 0..1000),
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
        header in prop::collection::vec(any::<u8>(), 0..20),
        step in 0_usize..300,
    ) {
        let pad = if step == 0 { Pad::None } else { Pad::Multiple(step) };
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        let sealed = seal::seal_local(&local_key(), &fields, &header, pad, &plaintext).unwrap();
        let opened = seal::open_local(&local_key(), &fields, &header, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), plaintext);
        if step > 0 {
            prop_assert_eq!((sealed.len() - 36) % step, 0);
        }
    }

    #[test]
    fn damaged_host_sealed_bytes_are_refused(bytes in damaged({
        seal::seal_local_with_salt(&local_key(), &[b"c"], b"h", Pad::None, [1; 16], b"data").unwrap()
    })) {
        prop_assert!(seal::open_local(&local_key(), &[b"c"], b"h", &bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused_as_host_sealed(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        look_right: bool,
    ) {
        if look_right {
            bytes.splice(0..0, *b"CDL\x01");
        }
        prop_assert!(seal::open_local(&local_key(), &[], b"", &bytes).is_err());
    }

    #[test]
    fn damaged_bindings_are_refused(bytes in damaged(SIGNED.0.clone().into_bytes())) {
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert!(SIGNED.1.verify(&text).is_err());
        }
    }

    #[test]
    fn any_text_is_refused_as_a_binding(text in ".{0,300}", behind_our_header: bool) {
        let header = SIGNED.0.split('.').next().unwrap();
        let jws = if behind_our_header { format!("{header}.{text}") } else { text };
        prop_assert!(SIGNED.1.verify(&jws).is_err());
    }

    #[test]
    fn names_and_labels_never_panic(text in ".{0,80}") {
        let _ = RealmName::parse(&text);
        let _ = AppId::parse(&text);
        let _ = AccountId::parse(&text);
        if let Some(key) = KeyId::parse_label(&text) {
            prop_assert_eq!(key.label(), text);
        }
    }

    #[test]
    fn account_ids_round_trip(bytes: [u8; 16]) {
        let id = AccountId(bytes);
        prop_assert_eq!(AccountId::parse(&id.to_string()).unwrap(), id);
    }
}

/// Every single bit of a sealed record matters.
#[test]
fn any_flipped_bit_is_refused() {
    let mut custody = SoftCustody::new();
    let sealed = seal::seal_with_salt(&mut custody, &context(1), [1; 16], b"data").unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1 << bit;
            assert!(
                seal::open(&mut custody, &context(1), &bytes).is_err(),
                "{at}.{bit}"
            );
        }
    }
    assert!(seal::open(&mut custody, &context(1), &sealed).is_ok());
}

#[test]
fn the_longest_record_round_trips() {
    let mut custody = SoftCustody::new();
    let plaintext = vec![1; MAX_PLAINTEXT];
    let sealed = seal::seal(&mut custody, &context(1), &plaintext).unwrap();
    assert_eq!(sealed.len(), seal::MAX_SEALED);
    let opened = seal::open(&mut custody, &context(1), &sealed).unwrap();
    assert_eq!(opened.expose(), plaintext);
}
