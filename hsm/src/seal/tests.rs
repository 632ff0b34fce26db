//! Tests of record sealing that need no token.

use super::*;
use crate::software::SoftCustody;

struct Names {
    realm: RealmName,
    app: AppId,
    record: RecordId,
}

fn names() -> Names {
    Names {
        realm: RealmName::parse("realm").unwrap(),
        app: AppId::parse("app").unwrap(),
        record: RecordId([3; 32]),
    }
}

fn context(names: &Names) -> Context<'_> {
    Context {
        realm: &names.realm,
        app: &names.app,
        kind: RecordKind::Account,
        record: &names.record,
        generation: 5,
    }
}

#[test]
fn size_classes() {
    let names = names();
    let mut custody = SoftCustody::new();
    for (length, class) in [
        (0, 1024),
        (1020, 1024),
        (1021, 2048),
        (100_000, 131_072),
        (MAX_PLAINTEXT, 262_144),
    ] {
        let plaintext = vec![9; length];
        let sealed = seal(&mut custody, &context(&names), &plaintext).unwrap();
        assert_eq!(sealed.len(), HEADER + class + TAG);
        let opened = open(&mut custody, &context(&names), &sealed).unwrap();
        assert_eq!(opened.expose(), plaintext);
    }
    let long = vec![0; MAX_PLAINTEXT + 1];
    assert!(matches!(
        seal(&mut custody, &context(&names), &long),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn a_salt_is_fresh_for_each_seal() {
    let names = names();
    let mut custody = SoftCustody::new();
    let one = seal(&mut custody, &context(&names), b"same").unwrap();
    let two = seal(&mut custody, &context(&names), b"same").unwrap();
    assert_ne!(one[6..HEADER], two[6..HEADER]);
    assert_ne!(one[HEADER..], two[HEADER..]);
    assert_ne!(digest(&one), digest(&two));
}

/// An older key opens what it sealed, a key that is gone opens nothing.
#[test]
fn key_versions_come_from_the_allow_list() {
    let names = names();
    let mut custody = SoftCustody::new();
    let old = seal(&mut custody, &context(&names), b"old").unwrap();
    custody.add_version(KeyPurpose::Wrap, 2);
    let new = seal(&mut custody, &context(&names), b"new").unwrap();
    assert_eq!(new[4..6], [0, 2]);
    assert_eq!((key_version(&old), key_version(&new)), (Some(1), Some(2)));
    assert_eq!(key_version(&new[1..]), None);
    assert!(open(&mut custody, &context(&names), &old).is_ok());
    assert!(open(&mut custody, &context(&names), &new).is_ok());
    custody.remove_version(KeyPurpose::Wrap, 1);
    assert_eq!(
        open(&mut custody, &context(&names), &old).unwrap_err(),
        Error::Tampered { what: WHAT }
    );
}

/// A frame that the key holder padded wrongly is refused, although it opens.
#[test]
fn padding_and_length_are_verified() {
    for mend in [
        |frame: &mut [u8]| frame[1023] = 1,
        |frame: &mut [u8]| frame[..4].copy_from_slice(&1021_u32.to_be_bytes()),
        |frame: &mut [u8]| frame[..4].copy_from_slice(&u32::MAX.to_be_bytes()),
    ] {
        let mut frame = framed(b"data", 1024);
        mend(frame.expose_mut());
        assert!(unframed(&frame, WHAT).is_err());
    }
    assert!(unframed(&framed(b"data", 1024), WHAT).is_ok());
}

/// Padding to a class larger than the length asks for would be a second
/// sealed form of one plaintext.
#[test]
fn the_class_follows_from_the_length() {
    let names = names();
    let mut custody = SoftCustody::new();
    let header = Header {
        key_version: 1,
        salt: [1; SALT],
    };
    let encoded = context(&names).encode(&header);
    let key_id = KeyId::new(KeyPurpose::Wrap, 1);
    let key = custody.derive(key_id, LABEL, &sha256(&[&encoded])).unwrap();
    let aad = [header.encode(), encoded].concat();
    let body = aead::seal(&key, &aad, framed(b"data", 2048)).unwrap();
    let sealed = [header.encode(), body].concat();
    assert!(open(&mut custody, &context(&names), &sealed).is_err());
}

/// Rubbish of a wrong length costs no token operation, however much of it comes.
#[test]
fn a_wrong_length_never_reaches_the_token() {
    let names = names();
    let mut custody = SoftCustody::new();
    let sealed = seal(&mut custody, &context(&names), b"data").unwrap();
    let before = custody.hmacs;
    assert_eq!(before, 1);
    let longer = [sealed.as_slice(), &[0]].concat();
    for bytes in [&sealed[1..], &sealed[..sealed.len() - 1], &longer, &[]] {
        assert!(open(&mut custody, &context(&names), bytes).is_err());
    }
    assert_eq!(custody.hmacs, before);
    open(&mut custody, &context(&names), &sealed).unwrap();
    assert_eq!(custody.hmacs, before + 1);
}
