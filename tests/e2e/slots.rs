//! Key slots: whom a secret opens to, end to end, and what the daemon lets be done to its slots.

use std::collections::BTreeSet;

use custodyd_tests::codes::{Authenticator, recovery_codes};
use custodyd_tests::device::{b64, unb64};
use custodyd_tests::opaque::LoggingIn;
use custodyd_tests::owner::{Owner, PLAIN, SECRET, app};
use custodyd_tests::slots::{
    CONTENT, CONTENT_V2, Place, SLOT, code_id, fields, hkdf, open, passkey_id, pin_id, seal,
    with_revision,
};
use custodyd_tests::{SoftAuthenticator, TestApp};
use serde_json::{Value, json};

/// What somebody with this slot's material makes of a secret.
fn opened(place: &Place<'_>, secret: &Value, kind: &str, material: &[u8]) -> Option<Vec<u8>> {
    let slots = secret["slots"].as_array().unwrap().iter();
    let mut keys = slots
        .filter(|slot| slot["type"] == kind)
        .filter_map(|slot| place.open_slot(slot, material));
    place.open(&keys.next()?, &unb64(secret["sealed"].as_str().unwrap()))
}

/// Every byte string in a document.
fn strings(value: &Value, found: &mut BTreeSet<Vec<u8>>) {
    match value {
        Value::String(text) => {
            found.insert(text.clone().into_bytes());
            found.extend(base64(text));
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(members) => members.values().for_each(|item| strings(item, found)),
        _ => {}
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .ok()
}

/// Tries everything that was seen as what opens the secret.
fn opens_with_any(place: &Place<'_>, secret: &Value, seen: &BTreeSet<Vec<u8>>) -> bool {
    let sealed = unb64(secret["sealed"].as_str().unwrap());
    let slots = secret["slots"].as_array().unwrap();
    seen.iter().any(|bytes| {
        let by_slot = slots.iter().filter_map(|slot| place.open_slot(slot, bytes));
        let mut keys = by_slot.chain([bytes.clone()]);
        keys.any(|key| place.open(&key, &sealed).is_some())
    })
}

#[test]
fn the_formats_are_those_of_the_vectors() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../daemon/vectors/key_slots.json")).unwrap();
    let hex = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let array = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap();
    let (realm, app, account) = (
        text(&vectors["realm"]),
        text(&vectors["app"]),
        text(&vectors["account"]),
    );
    let iv = |sealed: &[u8]| <[u8; 12]>::try_from(&sealed[1..13]).unwrap();
    let content = &vectors["content"];
    let name = text(&content["name"]);
    let place = Place {
        realm: &realm,
        app: &app,
        account: &account,
        name: &name,
    };
    let (key, plain, sealed) = (
        hex(&content["content_key"]),
        hex(&content["content"]),
        hex(&content["sealed"]),
    );
    assert_eq!(place.content_info(), hex(&content["info"]));
    let derived = hkdf(&key, &place.content_info());
    assert_eq!(derived.to_vec(), hex(&content["key"]));
    assert_eq!(seal(&derived, CONTENT, iv(&sealed), &plain), sealed);
    assert_eq!(place.open(&key, &sealed), Some(plain));
    revisions(&place, &vectors["content_v2"]);

    let slots = vectors["slots"].as_array().unwrap();
    let kinds: Vec<_> = slots.iter().map(|slot| text(&slot["type"])).collect();
    assert_eq!(kinds, ["prf", "opaque", "recovery-code", "secret"]);
    for slot in slots {
        let name = text(&slot["name"]);
        let place = Place {
            name: &name,
            ..place
        };
        let info = place.slot_info(&text(&slot["type"]), &text(&slot["credential"]));
        assert_eq!(info, hex(&slot["info"]));
        let wrapping = hkdf(&hex(&slot["material"]), &info);
        assert_eq!(wrapping.to_vec(), hex(&slot["key"]));
        let ciphertext = hex(&slot["ciphertext"]);
        assert_eq!(seal(&wrapping, SLOT, iv(&ciphertext), &key), ciphertext);
        assert_eq!(
            open(&array(&wrapping), SLOT, &ciphertext),
            Some(key.clone())
        );
        assert_eq!(open(&array(&wrapping), CONTENT, &ciphertext), None);
    }
    let named = &vectors["credentials"];
    let (passkey, pin, code) = (&named["passkey"], &named["pin"], &named["recovery_code"]);
    assert_eq!(
        passkey_id(&hex(&passkey["authenticator_data"])),
        text(&passkey["credential"])
    );
    assert_eq!(
        pin_id(&hex(&pin["salt"]), pin, &hex(&pin["record"])),
        text(&pin["credential"])
    );
    assert_eq!(code_id(&hex(&code["auth"])), text(&code["credential"]));
    assert_ne!(fields(&[b"ab", b"c"]), fields(&[b"a", b"bc"]));
}

/// Content that says which revision it is.
fn revisions(place: &Place<'_>, content: &Value) {
    let hex = |name: &str| hex::decode(content[name].as_str().unwrap()).unwrap();
    let name = content["name"].as_str().unwrap();
    let (place, revision) = (
        Place { name, ..*place },
        content["revision"].as_u64().unwrap(),
    );
    let info = place.revision_info(revision);
    assert_eq!(info, hex("info"));
    let key = hkdf(&hex("content_key"), &info);
    assert_eq!(key.to_vec(), hex("key"));
    let sealed = hex("sealed");
    let iv = sealed[10..22].try_into().unwrap();
    let again = with_revision(revision, &seal(&key, CONTENT_V2, iv, &hex("content")));
    assert_eq!(again, sealed);
    // Another number in front, and it is another key.
    let other = hkdf(&hex("content_key"), &place.revision_info(revision - 1));
    assert_eq!(open(&other, CONTENT_V2, &sealed[9..]), None);
    assert_eq!(open(&key, CONTENT_V2, &sealed[9..]), Some(hex("content")));
}

#[tokio::test]
async fn every_factor_opens_the_secret_end_to_end_and_changing_them_leaves_its_content() {
    let app = app("forbidden").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(false)).await.expect(200);
    owner.set_codes().await.expect(201);
    let mut authenticator = SoftAuthenticator::new("notes");
    let passkey = owner.add_passkey(&mut authenticator).await.expect(201);
    let before = owner.secret().await;
    assert_eq!(before["slots"].as_array().unwrap().len(), 12);
    assert!(before.get("server_slot").is_none());
    let account = owner.device.account.clone();
    let mut other = app.device("notes");
    other.account.clone_from(&account);
    let place = owner.device.place(SECRET);
    for (kind, _, material) in &owner.opens {
        let found = opened(&place, &before, kind, material);
        assert_eq!(found.as_deref(), Some(PLAIN), "{kind}");
    }
    // From a device that knows nothing, by the passkey and by a code; by the PIN on the first one.
    let release = json!({"release": [SECRET]});
    let started = other
        .try_passkey(&mut authenticator, release.clone())
        .await
        .expect(201);
    let id = passkey.body["device_id"].as_str().unwrap();
    assert_eq!(started.body["credential"], id);
    let released = &started.body["secrets"][SECRET];
    let found = opened(&place, released, "prf", &[9; 32]);
    assert_eq!(found.as_deref(), Some(PLAIN));
    let code = owner.sent.iter().find_map(|body| body["codes"][3].as_str());
    let started = other
        .try_recovery_code(code.unwrap(), release)
        .await
        .expect(201);
    let released = &started.body["secrets"][SECRET];
    let found = opened(&place, released, "recovery-code", &[3; 32]);
    assert_eq!(found.as_deref(), Some(PLAIN));
    let login = LoggingIn::start("830517");
    let begun = owner.device.start_opaque(&login).await.expect(200).body;
    let ended = login.finish(&begun).unwrap();
    let signed_in = owner
        .device
        .finish_opaque(&begun["login"], &ended.ke3, &[SECRET])
        .await
        .expect(201);
    let place = owner.device.place(SECRET);
    let released = &signed_in.body["secrets"][SECRET];
    let found = opened(&place, released, "opaque", &ended.export_key);
    assert_eq!(found.as_deref(), Some(PLAIN));

    // The passkey goes, and its slot with it: nothing else changes.
    let path = format!("/v1/account/passkeys/{id}");
    other.call("DELETE", &path, None).await.expect(204);
    let after = other.recover(SECRET).await.expect(200).body;
    assert_eq!(after["sealed"], before["sealed"]);
    let kept = before["slots"].as_array().unwrap().iter();
    let kept: Vec<_> = kept.filter(|slot| slot["type"] != "prf").collect();
    assert_eq!(json!(kept), after["slots"]);
    assert!(after["version"].as_u64() > before["version"].as_u64());
    let events = other.events().await;
    let went = events.iter().rev().find(|kind| *kind != "secret-released");
    assert_eq!(went.unwrap(), "slots-dropped");
}

#[tokio::test]
async fn what_the_daemon_sees_does_not_open_a_secret_unless_it_has_a_server_slot() {
    for (slot, server) in [("forbidden", false), ("allowed", true)] {
        let app = app(slot).await;
        let mut owner = Owner::new(&app).await;
        owner.set_pin("830517", Some(server)).await.expect(200);
        owner.set_codes().await.expect(201);
        owner
            .add_passkey(&mut SoftAuthenticator::new("notes"))
            .await
            .expect(201);
        // All that is in the opened envelope of the secret, and all that it ever was sent.
        let secret = owner.secret().await;
        let mut seen = BTreeSet::new();
        strings(&secret, &mut seen);
        owner.sent.iter().for_each(|body| strings(body, &mut seen));
        assert!(seen.len() > 40);
        let place = owner.device.place(SECRET);
        assert_eq!(opens_with_any(&place, &secret, &seen), server, "{slot}");
        // The control: one more string, which the client alone has, and it opens.
        seen.insert(owner.opens[0].2.clone());
        assert!(opens_with_any(&place, &secret, &seen));
    }
}

#[tokio::test]
async fn an_authenticator_app_opens_what_has_a_server_slot() {
    let app = app("allowed").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(true)).await.expect(200);
    let enrolment = owner
        .call("POST", "/v1/account/totp", json!({}))
        .await
        .expect(201);
    let mut authenticator = Authenticator::scan(enrolment.body["otpauth"].as_str().unwrap());
    owner
        .device
        .confirm_totp(&authenticator.show())
        .await
        .expect(200);
    let started = owner
        .device
        .try_totp(&authenticator.show(), &[SECRET])
        .await
        .expect(201);
    let released = &started.body["secrets"][SECRET];
    let key = unb64(released["server_slot"].as_str().unwrap());
    let sealed = unb64(released["sealed"].as_str().unwrap());
    let place = owner.device.place(SECRET);
    assert_eq!(place.open(&key, &sealed).as_deref(), Some(PLAIN));
}

#[tokio::test]
async fn slots_that_do_not_fit_are_refused_and_nothing_is_changed() {
    let app = app("forbidden").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(false)).await.expect(200);
    let version = owner.version().await;
    let codes = recovery_codes();
    let pin = owner.slots().remove(0);
    let slot = |kind: &str, credential: &str| json!({"type": kind, "credential": credential, "ciphertext": "AAAA"});
    let codes_slots = codes
        .iter()
        .map(|code| slot("recovery-code", &code_id(&unb64(code))));
    let many: Vec<_> = (0..33).map(|n| slot("prf", &format!("k{n}"))).collect();
    let long = "c".repeat(129);
    for (slots, code) in [
        (vec![], "422 secret-malformed"),
        (
            vec![slot("prf", "c"), slot("prf", "d")],
            "422 prf-only-slot",
        ),
        (
            vec![pin.clone(), slot("magic", "c")],
            "400 malformed-request",
        ),
        (many, "409 too-many"),
        (vec![pin.clone(), pin.clone()], "422 secret-malformed"),
        (vec![pin.clone(), slot("prf", "c")], "422 slot-unknown"),
        (vec![slot("opaque", "c")], "422 slot-unknown"),
        (
            vec![pin.clone(), slot("recovery-code", "c")],
            "422 slot-unknown",
        ),
        (
            vec![pin.clone(), slot("secret", "notes")],
            "422 slot-unknown",
        ),
        (
            vec![pin.clone(), slot("secret", SECRET)],
            "422 slot-unknown",
        ),
        (vec![slot("opaque", &long)], "422 secret-malformed"),
        (vec![slot("opaque", "")], "422 secret-malformed"),
        (
            vec![json!({"type": "opaque", "credential": pin["credential"], "ciphertext": ""})],
            "422 secret-malformed",
        ),
        (
            vec![
                json!({"type": "opaque", "credential": pin["credential"], "ciphertext": b64(&[1; 5000])}),
            ],
            "413 secret-too-large",
        ),
    ] {
        let secrets = json!({SECRET: {"if_version": version, "slots": slots}});
        let body = json!({"codes": codes, "secrets": secrets});
        let answer = owner.call("POST", "/v1/account/recovery-codes", body).await;
        answer.refused(code);
    }
    let good: Vec<_> = codes_slots.chain([pin.clone()]).collect();
    for (rewrapped, code) in [
        // A stale version, none, two things at once, neither, and a slot that only the server may have.
        (
            json!({"if_version": version + 1, "slots": good}),
            "412 precondition-failed",
        ),
        (json!({"slots": good}), "400 malformed-request"),
        (
            json!({"if_version": version, "slots": good, "content": {"slots": good}}),
            "400 malformed-request",
        ),
        (json!({"if_version": version}), "400 malformed-request"),
        (
            json!({"if_version": version, "content": {"slots": good, "server_slot": "AAAA"}}),
            "422 server-slot-forbidden",
        ),
        (
            json!({"if_version": version, "content": {"sealed": "", "slots": good}}),
            "422 secret-malformed",
        ),
    ] {
        let body = json!({"codes": codes, "secrets": {SECRET: rewrapped}});
        let answer = owner.call("POST", "/v1/account/recovery-codes", body).await;
        answer.refused(code);
    }
    // None of them has set the codes either: one commit, or none.
    assert_eq!(owner.version().await, version);
    assert_eq!(owner.device.view().await["recovery_codes"], Value::Null);
    let body = json!({"codes": codes, "secrets": {SECRET: {"if_version": version, "slots": good}}});
    let answer = owner.call("POST", "/v1/account/recovery-codes", body).await;
    answer.expect(201);
}

#[tokio::test]
async fn the_last_slot_that_counts_is_not_let_go() {
    let app = app("forbidden").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(false)).await.expect(200);
    let path = "/v1/account/pin";
    let alone = owner.device.call("DELETE", path, None).await;
    alone.refused("409 last-slot");
    // A PIN that is checked by the server opens no slot; a new one without slots would leave none.
    owner
        .device
        .set_pin("294061")
        .await
        .refused("409 last-slot");
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await.expect(201);
    // Beside a passkey's PRF it is still the last one that counts.
    let beside = owner.device.call("DELETE", path, None).await;
    beside.refused("409 last-slot");
    assert!(owner.device.view().await["pin"].is_object());
    owner.set_codes().await.expect(201);
    let stale = json!({"secrets": {SECRET: {"if_version": 1, "slots": owner.slots()}}});
    let refused = owner.call("DELETE", path, stale).await;
    refused.refused("412 precondition-failed");
    // With the slots that shall stay, in the same commit; one for the PIN that goes is none of them.
    let with_pin = json!({"secrets": owner.rewrapped().await});
    let refused = owner.call("DELETE", path, with_pin).await;
    refused.refused("422 slot-unknown");
    owner.opens.retain(|(kind, ..)| *kind != "opaque");
    let rewrapped = json!({"secrets": owner.rewrapped().await});
    owner.call("DELETE", path, rewrapped).await.expect(204);
    let secret = owner.secret().await;
    assert_eq!(secret["slots"].as_array().unwrap().len(), 11);
    let codes = "/v1/account/recovery-codes";
    let refused = owner.device.call("DELETE", codes, None).await;
    refused.refused("409 last-slot");
    // Without the secret, the factors are the owner's to drop.
    let version = owner.version().await;
    let secret = format!("/v1/account/secrets/{SECRET}");
    let mut call = owner.device.prepare("DELETE", &secret, None);
    call.headers
        .push(("If-Match".into(), format!("\"{version}\"")));
    owner.device.run(&call).await.expect(204);
    owner.device.call("DELETE", codes, None).await.expect(204);
}

#[tokio::test]
async fn a_secret_may_open_by_another_one_which_then_stays() {
    let app = app("forbidden").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(false)).await.expect(200);
    let key = [8; 32];
    let place = owner.device.place("app-key");
    let chained = json!({
        "sealed": place.seal(&key, b"the private key, wrapped"),
        "slots": [place.slot("secret", SECRET, PLAIN, &key)],
    });
    let device = &mut owner.device;
    device
        .put("app-key", "If-None-Match", "*", chained)
        .await
        .expect(200);
    // One step and no more, so that nothing goes round in a circle.
    let twice =
        json!({"slots": [{"type": "secret", "credential": "app-key", "ciphertext": "AAAA"}]});
    device
        .put("notes", "If-None-Match", "*", twice)
        .await
        .refused("422 slot-unknown");
    let back = device.recover("app-key").await.expect(200).body;
    let place = device.place("app-key");
    let found = opened(&place, &back, "secret", PLAIN);
    assert_eq!(found.as_deref(), Some(&b"the private key, wrapped"[..]));
    let version = owner.version().await;
    let path = format!("/v1/account/secrets/{SECRET}");
    let mut call = owner.device.prepare("DELETE", &path, None);
    call.headers
        .push(("If-Match".into(), format!("\"{version}\"")));
    owner.device.run(&call).await.refused("409 last-slot");
}

#[tokio::test]
async fn the_prf_input_is_the_same_at_registration_and_at_every_login() {
    let app = TestApp::start().await;
    let mut inputs = BTreeSet::new();
    for name in ["notes", "wallet"] {
        let mut device = app.device(name);
        device.enrol().await;
        let path = "/v1/account/passkeys/options";
        let made = device.call("POST", path, None).await.expect(200).body;
        device.token = None;
        let path = "/v1/apps/{app}/sessions/passkey/options";
        let used = device.call("POST", path, Some(json!({}))).await.expect(200);
        let input = |body: &Value| body["publicKey"]["extensions"]["prf"]["eval"]["first"].clone();
        assert_eq!(input(&made), input(&used.body));
        let first = input(&made).as_str().unwrap().to_owned();
        assert_eq!(unb64(&first).len(), 32);
        inputs.insert(first);
    }
    // Each app has its own.
    assert_eq!(inputs.len(), 2);
}
