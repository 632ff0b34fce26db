//! The golden vectors that client and daemon share, and the life of a set.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use proptest::prelude::*;

use super::*;

const VECTORS: &str = include_str!("../../../vectors/recovery_code.json");

#[derive(Deserialize)]
struct Vectors {
    codes: Vec<Derived>,
    typed: Vec<Typed>,
    refused: Vec<Refused>,
    set: Set,
}

#[derive(Deserialize)]
struct Derived {
    text: String,
    auth: String,
    slot: String,
    code: String,
}

#[derive(Deserialize)]
struct Typed {
    typed: String,
    text: String,
}

#[derive(Deserialize)]
struct Refused {
    typed: String,
    error: String,
}

#[derive(Deserialize)]
struct Set {
    salt: String,
    verifiers: Vec<String>,
    device_id: String,
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

/// The auth part of a test's code number `n`.
fn auth(n: u8) -> SharedSecret {
    SharedSecret::new(vec![n; PART_BYTES].into())
}

fn set() -> RecoveryCodes {
    RecoveryCodes::enrol(&(0..10).map(auth).collect::<Vec<_>>()).unwrap()
}

#[test]
fn the_parts_are_those_of_the_vectors() {
    let vectors = vectors();
    assert_eq!(vectors.codes.len(), 11);
    for vector in vectors.codes {
        let code = RecoveryCode::parse(&vector.text).unwrap();
        assert_eq!(*code.text(), vector.text);
        assert_eq!(
            code.auth().unwrap().expose(),
            &unhex(&vector.auth),
            "{}",
            vector.text
        );
        assert_eq!(
            code.slot().unwrap().expose(),
            &unhex(&vector.slot),
            "{}",
            vector.text
        );
        let symbols = crate::factors::crockford::decode(&vector.text).unwrap();
        assert_eq!(symbols.expose()[..16], unhex::<16>(&vector.code));
    }
}

#[test]
fn typing_has_the_liberties_of_the_vectors_and_no_more() {
    let vectors = vectors();
    for vector in vectors.typed {
        let code = RecoveryCode::parse(&vector.typed).unwrap();
        assert_eq!(*code.text(), vector.text, "{:?}", vector.typed);
    }
    for vector in vectors.refused {
        let expected = match vector.error.as_str() {
            "check" => RecoveryCodeError::Check,
            _ => RecoveryCodeError::Format,
        };
        let refused = RecoveryCode::parse(&vector.typed).unwrap_err();
        assert_eq!(refused, expected, "{:?}", vector.typed);
    }
}

#[test]
fn the_set_is_that_of_the_vectors() {
    let vectors = vectors();
    let parts = vectors.codes.iter().take(CODES);
    let salt = unhex(&vectors.set.salt);
    let codes = parts.map(|code| Kept {
        verifier: verifier(&salt, &unhex::<32>(&code.auth)),
        slot_id: slot_id(&unhex::<32>(&code.auth)),
        spent: false,
    });
    let codes: Vec<Kept> = codes.collect();
    let found: Vec<String> = codes
        .iter()
        .map(|code| hex::encode(code.verifier))
        .collect();
    assert_eq!(found, vectors.set.verifiers);
    let set = RecoveryCodes {
        salt,
        codes: codes.try_into().ok().unwrap(),
    };
    assert_eq!(set.device_id(), vectors.set.device_id);
    assert_eq!(set.find(&unhex::<32>(&vectors.codes[9].auth)), Some(9));
    assert_eq!(set.find(&unhex::<32>(&vectors.codes[9].slot)), None);
}

#[test]
fn a_set_is_ten_distinct_parts_of_32_bytes() {
    for count in [0u8, 1, 9, 11, 200] {
        let parts: Vec<_> = (0..count).map(auth).collect();
        let refused = RecoveryCodes::enrol(&parts).unwrap_err();
        assert_eq!(refused, RecoveryCodesError::Count(count.into()));
    }
    let mut parts: Vec<_> = (0..10).map(auth).collect();
    parts[9] = auth(0);
    let refused = RecoveryCodes::enrol(&parts).unwrap_err();
    assert_eq!(refused, RecoveryCodesError::Repeated);
    parts[9] = SharedSecret::new(vec![9; 31].into());
    let refused = RecoveryCodes::enrol(&parts).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "auth part 10: expected 32 bytes, found 31"
    );
}

#[test]
fn each_set_has_a_device_id_of_its_own_that_spending_leaves_alone() {
    let mut one = set();
    assert_ne!(one.device_id(), set().device_id());
    let before = one.device_id();
    one.spend(4).unwrap();
    assert_eq!(one.device_id(), before);
}

#[test]
fn what_is_not_there_cannot_be_spent() {
    let mut set = set();
    for index in [CODES, usize::MAX] {
        assert_eq!(set.spend(index), Err(RecoveryCodesError::Spent));
    }
    assert_eq!(set.left(), CODES);
}

#[test]
fn a_set_comes_back_from_json_only_whole() {
    let mut set = set();
    set.spend(2).unwrap();
    let json = serde_json::to_value(&set).unwrap();
    let again: RecoveryCodes = serde_json::from_value(json.clone()).unwrap();
    assert_eq!((again.find(auth(2).expose()), again.left()), (None, 9));
    assert_eq!(again.find(auth(3).expose()), Some(3));
    assert_eq!(again.device_id(), set.device_id());
    let mut nine = json.clone();
    nine["codes"].as_array_mut().unwrap().pop();
    assert!(serde_json::from_value::<RecoveryCodes>(nine).is_err());
    let mut more = json;
    more["more"] = true.into();
    assert!(serde_json::from_value::<RecoveryCodes>(more).is_err());
}

#[test]
fn debug_shows_neither_code_nor_verifier() {
    assert_eq!(format!("{:?}", set()), "RecoveryCodes { left: 10, .. }");
    let code = RecoveryCode::generate().unwrap();
    assert_eq!(format!("{code:?}"), "RecoveryCode(redacted)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order, each code is found until it is spent and never after,
    /// and no other code notices.
    #[test]
    fn each_code_is_spent_once_in_any_order(shown in proptest::collection::vec(0u8..12, 0..40)) {
        let mut set = set();
        let mut spent = [false; 12];
        for n in shown {
            let place = usize::from(n);
            let fresh = place < CODES && !spent[place];
            let found = set.find(auth(n).expose());
            prop_assert_eq!(found, fresh.then_some(place));
            prop_assert_eq!(set.spend(place).is_ok(), fresh);
            spent[place] |= fresh;
            prop_assert_eq!(set.left(), CODES - spent.iter().filter(|spent| **spent).count());
            for other in 0u8..10 {
                let place = usize::from(other);
                let left = (!spent[place]).then_some(place);
                prop_assert_eq!(set.find(auth(other).expose()), left);
            }
        }
    }

    /// A code is found at the place where it was enrolled, whichever that is.
    #[test]
    fn the_order_of_enrolment_is_the_order_of_the_list(
        order in Just((0u8..10).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let parts: Vec<_> = order.iter().copied().map(auth).collect();
        let set = RecoveryCodes::enrol(&parts).unwrap();
        for (place, n) in order.iter().enumerate() {
            prop_assert_eq!(set.find(auth(*n).expose()), Some(place));
        }
    }

    #[test]
    fn what_was_not_enrolled_is_not_found(shown in proptest::collection::vec(any::<u8>(), 0..70)) {
        let enrolled = shown.len() == PART_BYTES && shown.iter().all(|byte| *byte == shown[0] && *byte < 10);
        prop_assume!(!enrolled);
        prop_assert_eq!(set().find(&shown), None);
    }

    /// One wrong bit is a wrong code.
    #[test]
    fn almost_right_is_wrong(n in 0u8..10, bit in 0usize..256) {
        let mut shown = [n; 32];
        shown[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(set().find(&shown), None);
    }

    #[test]
    fn codes_come_back_from_their_text(_n in 0..64) {
        let code = RecoveryCode::generate().unwrap();
        let again = RecoveryCode::parse(&code.text()).unwrap();
        prop_assert!(code.auth().unwrap().ct_eq(&again.auth().unwrap()));
        prop_assert!(!code.auth().unwrap().ct_eq(&code.slot().unwrap()));
    }

    #[test]
    fn no_typed_text_panics_and_a_good_one_is_canonical(typed in "[0-9A-Za-z -]{0,40}|\\PC*") {
        if let Ok(code) = RecoveryCode::parse(&typed) {
            let text = code.text();
            prop_assert!(RecoveryCode::parse(&text).unwrap().auth().unwrap().ct_eq(&code.auth().unwrap()));
        }
    }
}
