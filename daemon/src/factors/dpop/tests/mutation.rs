//! Random changes to good proofs, and random text. Each run has its control.

use proptest::prelude::*;

use super::super::super::unb64;
use super::*;

/// Flip one bit somewhere in the three decoded parts, or change one character.
fn mutate(jws: &str, position: usize, bit: u8, raw: bool) -> String {
    if raw {
        let mut bytes = jws.as_bytes().to_vec();
        let index = position % bytes.len();
        bytes[index] ^= 1 << (bit % 7);
        return String::from_utf8(bytes).unwrap();
    }
    let mut parts: Vec<Vec<u8>> = jws.split('.').map(|part| unb64(part).unwrap()).collect();
    let mut index = position % parts.iter().map(Vec::len).sum::<usize>();
    for part in &mut parts {
        if index < part.len() {
            part[index] ^= 1 << (bit % 8);
            break;
        }
        index -= part.len();
    }
    parts
        .iter()
        .map(|part| b64(part))
        .collect::<Vec<_>>()
        .join(".")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutated_proofs_are_never_accepted(position: usize, bit: u8, raw: bool) {
        let (proofs, client) = (Proofs::new().unwrap(), Client::new());
        let proof = client.proof(&proofs, |_, _| {});
        let mutated = mutate(&proof, position, bit, raw);
        prop_assume!(mutated != proof);
        prop_assert!(proofs.verify(NOW, &EXPECTED, &mutated).is_err());
        let app_key = client.app_key_proof(&proofs, |_| {});
        let mutated = mutate(&app_key, position, bit, raw);
        prop_assert!(proofs.verify_app_key_proof(NOW, &mutated, &APP_KEY).is_err());
        // The control: what was mutated is good.
        prop_assert!(proofs.verify(NOW, &EXPECTED, &proof).is_ok());
        prop_assert!(proofs.verify_app_key_proof(NOW, &app_key, &APP_KEY).is_ok());
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,300}", json in ".{0,80}", claims in ".{0,80}") {
        let proofs = Proofs::new().unwrap();
        let shaped = format!("{}.{}.{}", b64(json.as_bytes()), b64(claims.as_bytes()), b64(&[0; 64]));
        for candidate in [&text, &shaped] {
            prop_assert!(proofs.verify(NOW, &EXPECTED, candidate).is_err());
            prop_assert!(proofs.verify_app_key_proof(NOW, candidate, &APP_KEY).is_err());
        }
    }
}
