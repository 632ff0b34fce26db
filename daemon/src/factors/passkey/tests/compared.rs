//! Our check of an assertion beside the library's: neither takes what the other refuses.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, RSA_PKCS1_SHA256, RsaKeyPair};
use proptest::prelude::*;
use webauthn_rs::prelude::{
    COSEAlgorithm, COSEEC2Key, COSEKey, COSEKeyType, COSERSAKey, ECDSACurve,
};

use super::super::assertion::verifies;
use super::*;

/// What both say of the same answer to the same challenge: ours, and the library's.
fn both(
    authenticator: &Authenticator,
    passkey: &Passkey,
    change: impl Fn(&mut Value),
) -> [bool; 2] {
    let rp = relying_party();
    let (options, state) = rp.webauthn.start_discoverable_authentication().unwrap();
    let challenge = Challenge(Bytes(options.public_key.challenge.clone()));
    let mut body = authenticator.get(&to_json(&options).unwrap());
    change(&mut body);
    let mut ours = passkey.clone();
    let checked = rp.finish_authentication(&body, &challenge, OWNER, &mut ours);
    let mut theirs = passkey.clone();
    let library = body::read::<PublicKeyCredential>(&body, &rp.origins).and_then(|answer| {
        let webauthn = &rp.webauthn;
        let result = webauthn.finish_discoverable_authentication_v2(&answer, state, passkey)?;
        theirs.update_credential(&result);
        Ok(())
    });
    if checked.is_ok() && library.is_ok() {
        let kept = [ours, theirs].map(Credential::from);
        let [ours, theirs] = kept.map(|kept| (kept.counter, kept.backup_state));
        assert_eq!(ours, theirs);
    }
    [checked.is_ok(), library.is_ok()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn flags_counters_and_data_are_judged_as_the_library_does(
        registered in prop_oneof![Just(UP | UV), Just(UP | UV | BE), Just(UP | UV | BE | BS)],
        flags in any::<u8>(),
        counters in (0u32..3, 0u32..3),
        kind in prop_oneof![Just("webauthn.get"), Just("webauthn.create"), Just("")],
        cut in prop_oneof![4 => Just(usize::MAX), 1 => 0usize..40],
    ) {
        let rp = relying_party();
        let mut authenticator = Authenticator { flags: registered, counter: counters.0, ..Authenticator::new() };
        let passkey = register(&rp, &authenticator).unwrap().passkey;
        // Data that is said to follow does not, in this authenticator; the library reads it.
        authenticator.flags = flags & (UP | UV | BE | BS);
        authenticator.counter = counters.1;
        authenticator.client_data = json!({"type": kind});
        let [ours, theirs] = both(&authenticator, &passkey, |body| {
            let data = body["response"]["authenticatorData"].as_str().unwrap().to_owned();
            body["response"]["authenticatorData"] = json!(data.get(..cut).unwrap_or(&data));
        });
        prop_assert_eq!(ours, theirs);
    }
}

#[test]
fn good_answers_pass_both() {
    let rp = relying_party();
    let mut authenticator = Authenticator::new();
    let passkey = register(&rp, &authenticator).unwrap().passkey;
    authenticator.counter = 1;
    assert_eq!(both(&authenticator, &passkey, |_| {}), [true, true]);
}

/// The other algorithms that options list, each with its control.
#[test]
fn signatures_of_p384_and_rsa_verify_under_their_own_algorithm_alone() {
    let random = SystemRandom::new();
    let message = b"authenticator data and a hash";
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let point = p384.public_key().as_ref();
    let ec = |type_, curve| COSEKey {
        type_,
        key: COSEKeyType::EC_EC2(COSEEC2Key {
            curve,
            x: point[1..49].to_vec(),
            y: point[49..].to_vec(),
        }),
    };
    let signature = p384.sign(&random, message).unwrap();
    let key = ec(COSEAlgorithm::ES384, ECDSACurve::SECP384R1);
    assert!(verifies(&key, message, signature.as_ref()));
    assert!(!verifies(&key, b"another", signature.as_ref()));
    let other = ec(COSEAlgorithm::ES256, ECDSACurve::SECP384R1);
    assert!(!verifies(&other, message, signature.as_ref()));

    let private = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let pair = RsaKeyPair::from_pkcs8(private.as_der().unwrap().as_ref()).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
        .unwrap();
    let mut n = pair
        .public_key()
        .modulus()
        .big_endian_without_leading_zero()
        .to_vec();
    // As some encode a number whose highest bit is set.
    n.insert(0, 0);
    let rsa = |type_| COSEKey {
        type_,
        key: COSEKeyType::RSA(COSERSAKey {
            n: n.clone(),
            e: [1, 0, 1],
        }),
    };
    assert!(verifies(&rsa(COSEAlgorithm::RS256), message, &signature));
    assert!(!verifies(
        &rsa(COSEAlgorithm::RS256),
        b"another",
        &signature
    ));
    assert!(!verifies(&rsa(COSEAlgorithm::PS256), message, &signature));
}
