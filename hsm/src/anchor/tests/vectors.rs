//! The golden vectors of anchors and warm anchors, and the properties of their
//! parser: nothing panics, and each anchor has one encoding.

use proptest::prelude::*;
use serde::Deserialize;

use super::{
    advance::{sealed, sealed_by},
    *,
};
use crate::{
    id::KeyPurpose,
    software::SoftCustody,
    vectors::{Hex, folder, name_of},
};

#[derive(Deserialize)]
struct Vector {
    realm: String,
    boot_id: String,
    error: Option<String>,
    anchor: Option<Fields>,
    bytes: Hex,
}

#[derive(Deserialize)]
struct Fields {
    serial: u64,
    log_epoch: u64,
    seq: u64,
    head: Hex,
    boot_epoch: u64,
    clean: bool,
    dirty: bool,
}

impl From<Fields> for Anchor {
    fn from(fields: Fields) -> Self {
        Self {
            serial: fields.serial,
            log_epoch: fields.log_epoch,
            seq: fields.seq,
            head: fields.head.array(),
            boot_epoch: fields.boot_epoch,
            clean: fields.clean,
            dirty: fields.dirty,
        }
    }
}

/// As a reader of an object does it who expects this realm's.
fn open(realm: &RealmName, bytes: &[u8]) -> Result<Anchor> {
    open_in(&mut SoftCustody::new(), realm, bytes)
}

fn open_in(custody: &mut SoftCustody, realm: &RealmName, bytes: &[u8]) -> Result<Anchor> {
    let parsed = Parsed::anchor(bytes)?;
    let statement = encoding::anchor(parsed.body);
    let fits = mac::tag_fits(custody, &parsed.keys, &statement, parsed.tag)?;
    match fits && parsed.realm == *realm {
        true => Ok(parsed.anchor),
        false => Err(Error::Tampered { what: "anchor" }),
    }
}

#[test]
fn anchors_of_the_token() {
    for (name, vector) in folder::<Vector>("anchor", 29) {
        let realm = realm(&vector.realm);
        let outcome = open(&realm, &vector.bytes.0);
        assert_eq!(name_of(&outcome), vector.error.as_deref(), "{name}");
        // And in its place: the realm's own, another's, or a forgery.
        let mut rig = Rig::new(&[]);
        rig.store.add(&vector.bytes.0);
        let found = newest(&mut rig.custody, &realm);
        match vector.anchor.map(Anchor::from) {
            Some(anchor) => {
                assert_eq!(outcome, Ok(anchor.clone()), "{name}");
                let ours = sealed(&mut rig.custody, &realm, &anchor).unwrap();
                assert_eq!(ours, vector.bytes.0, "{name}");
                assert_eq!(found, Ok(Some(anchor)), "{name}");
            }
            None if matches!(name.as_str(), "empty" | "another-realm" | "changed-realm") => {
                assert_eq!(found, Ok(None), "{name}");
            }
            None => assert_eq!(fault_of(found), AnchorFault::Forged, "{name}"),
        }
    }
}

#[test]
fn warm_anchors() {
    for (name, vector) in folder::<Vector>("warm", 33) {
        let (mut custody, realm) = (SoftCustody::new(), realm(&vector.realm));
        let outcome = open_warm(&mut custody, &realm, &vector.boot_id, &vector.bytes.0);
        assert_eq!(name_of(&outcome), vector.error.as_deref(), "{name}");
        if let Some(anchor) = vector.anchor.map(Anchor::from) {
            assert_eq!(outcome, Ok(Some(anchor.clone())), "{name}");
            let ours = seal_warm(&mut custody, &realm, &vector.boot_id, (&anchor, &[1])).unwrap();
            assert_eq!(ours, vector.bytes.0, "{name}");
        }
    }
}

/// What two MAC keys have tagged together, and what one of them alone would like to be taken for that.
#[test]
fn anchors_of_two_keys() {
    for (name, vector) in folder::<Vector>("two-keys", 8) {
        let (mut custody, realm) = (SoftCustody::new(), realm(&vector.realm));
        custody.add_version(KeyPurpose::Mac, 2);
        let bytes = &vector.bytes.0;
        let warm = name.starts_with("warm");
        let outcome = match warm {
            false => open_in(&mut custody, &realm, bytes),
            true => open_warm(&mut custody, &realm, &vector.boot_id, bytes).map(Option::unwrap),
        };
        assert_eq!(name_of(&outcome), vector.error.as_deref(), "{name}");
        if let Some(anchor) = vector.anchor.map(Anchor::from) {
            assert_eq!(outcome, Ok(anchor.clone()), "{name}");
            let (keys, boot) = ([1, 2], &vector.boot_id);
            let ours = match warm {
                false => sealed_by(&mut custody, &realm, &keys, &anchor),
                true => seal_warm(&mut custody, &realm, boot, (&anchor, &keys)),
            };
            assert_eq!(ours.unwrap(), *bytes, "{name}");
        }
        // Without the newer key it is nobody's.
        assert!(open(&realm, bytes).is_err(), "{name}");
    }
}

prop_compose! {
    fn any_anchor()(
        serial in 1_u64..,
        (log_epoch, seq, boot_epoch) in any::<(u64, u64, u64)>(),
        head in any::<[u8; 32]>(),
        flags in 0_u8..3,
    ) -> Anchor {
        let (clean, dirty) = (flags == 1, flags == 2);
        Anchor { serial, log_epoch, seq, head, boot_epoch, clean, dirty }
    }
}

proptest! {
    #[test]
    fn what_is_made_is_read(
        anchor in any_anchor(),
        name in "[a-z0-9][a-z0-9.-]{0,63}",
        boot in "[!-~]{1,64}",
    ) {
        let (mut custody, realm) = (SoftCustody::new(), realm(&name));
        let bytes = sealed(&mut custody, &realm, &anchor).unwrap();
        prop_assert!(bytes.len() <= crate::custody::MAX_ANCHOR);
        prop_assert_eq!(open(&realm, &bytes), Ok(anchor.clone()));
        let warm = seal_warm(&mut custody, &realm, &boot, (&anchor, &[1])).unwrap();
        prop_assert_eq!(open_warm(&mut custody, &realm, &boot, &warm), Ok(Some(anchor)));
        prop_assert!(open(&realm, &warm).is_err());
        prop_assert!(open_warm(&mut custody, &realm, &boot, &bytes).is_err());
    }

    /// Whatever is read at all is what would be written for it: one encoding.
    #[test]
    fn what_is_read_has_one_encoding(
        anchor in any_anchor(),
        warm: bool,
        several: bool,
        changes in prop::collection::vec((0_usize..180, any::<u8>()), 0..4),
        cut in 0_usize..4,
    ) {
        let realm = realm("r");
        let keys: &[u16] = if several { &[1, 3] } else { &[1] };
        let mut bytes = match warm {
            false => format::anchor(&realm, &anchor, keys).unwrap(),
            true => format::warm(&realm, &anchor, "boot", keys).unwrap(),
        };
        bytes.extend([0; 32]);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(bytes.len() - cut / 3);
        if let Ok(read) = Parsed::anchor(&bytes) {
            let again = format::anchor(&read.realm, &read.anchor, &read.keys).unwrap();
            prop_assert_eq!([&again[..], read.tag].concat(), bytes.clone());
            // As much as a backend reads of it.
            prop_assert_eq!(encoding::realm_of_anchor(&bytes), Some(read.realm.as_str()));
        }
        if let Ok(read) = Parsed::warm(&bytes) {
            let again = format::warm(&read.realm, &read.anchor, read.boot_id, &read.keys).unwrap();
            prop_assert_eq!([&again[..], read.tag].concat(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        look_right in 0_u8..3,
    ) {
        let magic = match look_right {
            0 => *b"CDA\x01\0\0\0\x01r",
            1 => *b"CDW\x01\0\0\0\x01r",
            _ => [0; 9],
        };
        bytes.splice(0..0, magic);
        let _ = encoding::realm_of_anchor(&bytes);
        prop_assert!(open(&realm("r"), &bytes).is_err());
        prop_assert!(open_warm(&mut SoftCustody::new(), &realm("r"), "b", &bytes).is_err());
    }
}
