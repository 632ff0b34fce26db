//! Proofs of the app key: what binds them, and that neither kind passes for the other.

use super::*;

#[test]
fn app_key_proof_binds_realm_app_and_device() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let check = |jws: &str| proofs.verify_app_key_proof(NOW, jws, &APP_KEY);
    let good = client.app_key_proof(&proofs, |_| {});
    let key = check(&good).unwrap();
    assert_eq!(key.thumbprint, key.jwk.thumbprint());
    let refused =
        |change: fn(&mut Value)| check(&client.app_key_proof(&proofs, change)).unwrap_err();
    says(
        &refused(|c| c["aud"] = json!("realm.example/other")),
        "aud: expected",
    );
    says(
        &refused(|c| c["aud"] = json!("other/demo")),
        "aud: expected",
    );
    says(&refused(|c| c["jkt"] = json!("another")), "jkt: expected");
    says(&refused(|c| c["iat"] = json!(0)), "iat");
    assert_eq!(
        refused(|c| c["nonce"] = Value::Null),
        ProofError::NonceNeeded
    );
}

#[test]
fn a_dpop_proof_is_no_app_key_proof_nor_the_reverse() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let proof = client.proof(&proofs, |_, c| {
        c["aud"] = json!("realm.example/demo");
        c["jkt"] = json!("device");
    });
    says(
        &proofs
            .verify_app_key_proof(NOW, &proof, &APP_KEY)
            .unwrap_err(),
        "typ",
    );
    let app_key = client.app_key_proof(&proofs, |_| {});
    says(&proofs.verify(NOW, &EXPECTED, &app_key).unwrap_err(), "typ");
}

#[test]
fn the_app_key_may_not_be_the_device_key() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let own: PublicJwk = serde_json::from_value(client.jwk.clone()).unwrap();
    let own = own.thumbprint();
    let jws = client.app_key_proof(&proofs, |c| c["jkt"] = json!(own));
    let expected = AppKeyExpected {
        device_thumbprint: &own,
        ..APP_KEY
    };
    says(
        &proofs
            .verify_app_key_proof(NOW, &jws, &expected)
            .unwrap_err(),
        "two keys",
    );
}
