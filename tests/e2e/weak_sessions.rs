//! What a session may do to secrets that the policy does not let it read: nothing, but make new ones.
//!
//! The adversary has a weaker login than the owner: somebody else's mailbox, an authenticator app. The control of each attack
//! is the same attack under a policy that gives the secret to that login: then it succeeds.

use custodyd_tests::codes::recovery_codes;
use custodyd_tests::device::b64;
use custodyd_tests::opaque::{Registering, default_cost};
use custodyd_tests::owner::{KEY, Owner, PLAIN, SECRET};
use custodyd_tests::{Answer, Device, MailServer, Setup, TestApp};
use serde_json::{Value, json};

use crate::contacts::{add, with_mail};
use crate::delivered_codes::{ANN, by_alias, enter, fetch};

/// Everything may be read by PIN and passkey, and by `more`, but for notes, which an authenticator app always reads.
fn policy(more: &str) -> Setup {
    let text = format!(
        r#"app = "notes"
origins = ["https://notes.example.com"]
relying_party = {{ id = "notes.example.com" }}
[totp]
window = 2
[release]
"*" = ["pin", "passkey", "recovery-code"{more}]
notes = ["pin", "passkey", "totp"]
"#
    );
    Setup {
        policies: vec![("notes".into(), text)],
        ..Setup::default()
    }
}

async fn version(device: &mut Device, name: &str) -> u64 {
    let list = device.call("GET", "/v1/account/secrets", None).await;
    let list = list.expect(200).body;
    let mut entries = list["secrets"].as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["name"] == name);
    entry.map_or(0, |entry| entry["version"].as_u64().unwrap())
}

async fn replace(device: &mut Device, name: &str, content: Value) -> Answer {
    let version = format!("\"{}\"", version(device, name).await);
    device.put(name, "If-Match", &version, content).await
}

async fn delete(device: &mut Device, name: &str) -> Answer {
    let version = version(device, name).await;
    let path = format!("/v1/account/secrets/{name}");
    let mut call = device.prepare("DELETE", &path, None);
    call.headers
        .push(("If-Match".into(), format!("\"{version}\"")));
    device.run(&call).await
}

/// An account whose device secret has a slot of the PIN and the server's, and whose app key has the server's alone.
async fn owner(app: &TestApp) -> Owner {
    let mut owner = Owner::new(app).await;
    owner.set_pin("830517", Some(true)).await.expect(200);
    let device = &mut owner.device;
    device.back_up("app-key", b"wrapped").await.expect(200);
    device.back_up("notes", b"milk").await.expect(200);
    owner
}

#[tokio::test]
async fn who_may_not_read_a_secret_neither_replaces_nor_deletes_it() {
    for (more, may) in [("", false), (", \"totp\"", true)] {
        let app = TestApp::with(policy(more)).await;
        let mut owner = owner(&app).await;
        let stored = owner.secret().await;
        let mut authenticator = owner.device.add_totp().await;
        let device = &mut owner.device;
        device
            .try_totp(&authenticator.show(), &[])
            .await
            .expect(201);
        let before = version(device, "app-key").await;
        // The daemon's slot alone, dropped: those of the PIN stay, so that no stronger factor's are touched.
        let without = json!({"sealed": stored["sealed"], "slots": stored["slots"]});
        let attacks = [
            replace(device, SECRET, without).await,
            replace(device, "app-key", json!({"server_slot": b64(b"a thief's")})).await,
            delete(device, "app-key").await,
        ];
        for answer in attacks {
            if may {
                assert!(answer.status < 300, "{}", answer.refusal());
                continue;
            }
            answer.refused("403 step-up-required");
            let Value::Object(told) = &answer.body else {
                panic!("{}", answer.body)
            };
            assert_eq!(told["need_at_least"], "pin");
            assert_eq!(told["need_one_of"], json!(["pin"]));
            assert_eq!(told["need_fresh"], false);
        }
        if !may {
            assert_eq!(version(device, "app-key").await, before);
            let stale = device.put(
                "app-key",
                "If-Match",
                "\"999\"",
                json!({"server_slot": "AAAA"}),
            );
            stale.await.refused("412 precondition-failed");
        }
        // What it reads it writes, and what is not there yet anybody who writes may make.
        let notes = json!({"server_slot": b64(b"bread")});
        replace(device, "notes", notes).await.expect(200);
        device.back_up("diary", b"new").await.expect(200);
        let again = replace(device, "diary", json!({"server_slot": b64(b"newer")})).await;
        assert_eq!(again.status < 300, may, "{}", again.refusal());
    }
}

/// An owner who is found by mail, with a PIN by OPAQUE. What codes may read is `more`.
async fn with_contact(more: &str) -> (TestApp, MailServer, Owner) {
    let mail = MailServer::start();
    let setup = Setup {
        config: mail.config(),
        ..policy(more)
    };
    let app = TestApp::with(setup).await;
    let mut owner = owner(&app).await;
    add(&mut owner.device, &mail, "contact", ANN).await;
    (app, mail, owner)
}

/// The exception for a forgotten PIN is for the PIN: slots that come with it would else get past `last-slot`.
#[tokio::test]
async fn a_code_that_replaces_a_pin_puts_no_slots_in_the_place_of_those_that_open() {
    for (more, may) in [("", false), (", \"delivered-code\"", true)] {
        let (_app, mail, mut owner) = with_contact(more).await;
        let code = fetch(&mut owner.device, &mail, by_alias()).await;
        let started = enter(&mut owner.device, by_alias(), &code, json!({})).await;
        assert_eq!(started.expect(201).body["session"]["scope"], "full");
        // A slot for the new PIN that opens nothing, and no server slot.
        let (state, body) = Registering::start("294061");
        let path = "/v1/account/opaque/start";
        let begun = owner.call("POST", path, body).await.expect(200).body;
        let mut body = state.finish("294061", &begun, &default_cost()).body;
        let id = custodyd_tests::slots::pin_id(
            &custodyd_tests::device::unb64(begun["salt"].as_str().unwrap()),
            &default_cost(),
            &custodyd_tests::device::unb64(body["record"].as_str().unwrap()),
        );
        let slot = json!({"type": "opaque", "credential": id, "ciphertext": b64(&[1; 61])});
        let content = json!({"sealed": b64(KEY), "slots": [slot]});
        let before = owner.version().await;
        body["secrets"] = json!({SECRET: {"if_version": before, "content": content}});
        let path = "/v1/account/opaque/finish";
        let answer = owner.call("POST", path, body.clone()).await;
        if may {
            answer.expect(200);
            continue;
        }
        answer.refused("403 step-up-required");
        assert_eq!(owner.version().await, before);
        // The PIN itself is replaced all the same.
        body["secrets"] = json!({});
        owner.call("POST", path, body).await.expect(200);
    }
}

/// Half a sign-in, which is to go on with the PIN.
#[tokio::test]
async fn half_a_sign_in_replaces_a_pin_and_no_secret() {
    let (app, mail) = with_mail("").await;
    let mut owner = crate::delivered_codes::owner(&app, &mail).await;
    let mut phone = app.device("notes");
    let code = fetch(&mut phone, &mail, by_alias()).await;
    let started = enter(&mut phone, by_alias(), &code, json!({})).await;
    assert_eq!(started.expect(201).body["session"]["scope"], "pin-only");
    let rewrapped = |version: u64, content: &[u8]| {
        let content = json!({"server_slot": b64(content)});
        json!({"pin": "294061", "secrets": {SECRET: {"if_version": version, "content": content}}})
    };
    let before = version(&mut owner, SECRET).await;
    let attack = rewrapped(before, b"a thief's");
    let answer = phone.call("PUT", "/v1/account/pin", Some(attack)).await;
    answer.refused("403 pin-only-session");
    let made = json!({"pin": "294061", "secrets": {"new": {"content": {"server_slot": "AAAA"}}}});
    let answer = phone.call("PUT", "/v1/account/pin", Some(made)).await;
    answer.refused("403 pin-only-session");
    assert_eq!(version(&mut owner, SECRET).await, before);
    // The controls: the owner may, and half a sign-in replaces the PIN alone.
    let body = rewrapped(before, b"the owner's");
    let answer = owner.call("PUT", "/v1/account/pin", Some(body)).await;
    answer.expect(200);
    phone.set_pin("294061").await.expect(200);
}

/// A factor that nothing stronger stands behind may be added by what the account has, and secrets go along only as far
/// as that login reads them.
#[tokio::test]
async fn a_change_of_factors_takes_along_what_its_session_reads() {
    let rules = "[release]\napp-key = [\"pin\"]\n";
    let (name, text) = custodyd_tests::codes::policy("notes", "", "");
    let app = TestApp::with(Setup {
        policies: vec![(name, text.replace("[release]\n", rules))],
        ..Setup::default()
    })
    .await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.back_up("app-key", b"wrapped").await.expect(200);
    device.back_up("notes", b"milk").await.expect(200);
    device.set_pin("830517").await.expect(200);
    let codes = recovery_codes();
    let path = "/v1/account/recovery-codes";
    let first = device.call("POST", path, Some(json!({"codes": codes})));
    let first = first.await.expect(201);
    device.take_session(&first);
    let set = |name: &str, version: u64| {
        let content = json!({"server_slot": b64(b"other")});
        let secrets = json!({name: {"if_version": version, "content": content}});
        json!({"codes": recovery_codes(), "secrets": secrets})
    };
    // A recovery code is stronger than a PIN, and this secret is for the PIN alone.
    let started = device.try_recovery_code(&codes[0], json!({})).await;
    started.expect(201);
    let attack = set("app-key", version(&mut device, "app-key").await);
    let answer = device.call("POST", path, Some(attack)).await;
    answer.refused("403 step-up-required");
    assert_eq!(answer.body["need_one_of"], json!(["pin"]));
    let body = set("notes", version(&mut device, "notes").await);
    device.call("POST", path, Some(body)).await.expect(201);
}

/// What opens by another secret is worthless without it: who may read the one and not the other replaces neither, and
/// neither gives nor takes what the secret opens by. The controls are a policy that lets the PIN read both, and the login that
/// could erase the account.
#[tokio::test]
async fn a_secret_that_opens_another_is_replaced_by_who_may_read_both_or_could_erase_all() {
    for (more, by_code) in [("", false), (", \"pin\"", false), ("", true)] {
        let may = by_code || !more.is_empty();
        // Delivered codes are none of the account's: no login of its owner's reads notes and app key.
        let rule = format!(
            "[release]\napp-key = [\"passkey\", \"totp\"{more}]\ndiary = [\"delivered-code\"{more}]\n"
        );
        let Setup { policies, .. } = policy("");
        let policies = policies.into_iter();
        let policies = policies.map(|(name, text)| (name, text.replace("[release]\n", &rule)));
        let app = TestApp::with(Setup {
            policies: policies.collect(),
            ..Setup::default()
        })
        .await;
        let mut owner = Owner::new(&app).await;
        owner.set_pin("830517", Some(true)).await.expect(200);
        for name in ["app-key", "diary"] {
            let place = owner.device.place(name);
            let sealed = place.seal(KEY, b"wrapped");
            let slot = place.slot("secret", SECRET, PLAIN, KEY);
            let hanging = json!({"sealed": sealed, "slots": [slot], "server_slot": b64(KEY)});
            let stored = owner.device.put(name, "If-None-Match", "*", hanging);
            stored.await.expect(200);
        }
        owner.device.add_totp().await;
        let codes = owner.device.set_recovery_codes().await;
        if by_code {
            let started = owner.device.try_recovery_code(&codes[0], json!({}));
            started.await.expect(201);
        } else {
            let started = owner.device.sign_in_by_opaque("830517", &[]).await;
            started.unwrap().expect(201);
        }
        // The PIN's own slot goes with the PIN, and the content stays; so it does where it is sent once more.
        owner.set_pin("294061", None).await.expect(200);
        let Value::Object(mut same) = owner.secret().await else {
            panic!("a secret is an object")
        };
        same.retain(|name, _| ["sealed", "slots", "server_slot"].contains(&name.as_str()));
        let same = Value::Object(same);
        let again = replace(&mut owner.device, SECRET, same.clone()).await;
        again.expect(200);
        let without = |member: &str| {
            let mut body = same.clone();
            body[member] = match member {
                "slots" => json!([]),
                "sealed" => json!(owner.device.place(SECRET).seal(KEY, b"a thief's")),
                _ => Value::Null,
            };
            body
        };
        for body in ["sealed", "slots", "server_slot"].map(without) {
            let answer = replace(&mut owner.device, SECRET, body).await;
            not_without_reading(&answer, may);
            if may {
                replace(&mut owner.device, SECRET, same.clone())
                    .await
                    .expect(200);
            }
        }
        let answer = delete(&mut owner.device, SECRET).await;
        not_without_reading(&answer, may);
        assert_eq!(owner.version().await == 0, may);
        assert_ne!(version(&mut owner.device, "app-key").await, 0);
        // To write those themselves still takes who may read them.
        let thiefs = json!({"server_slot": b64(b"a thief's")});
        let answer = replace(&mut owner.device, "app-key", thiefs).await;
        not_without_reading(&answer, !more.is_empty());
    }
}

fn not_without_reading(answer: &Answer, may: bool) {
    if may {
        assert!(answer.status < 300, "{}", answer.refusal());
        return;
    }
    answer.refused("403 step-up-required");
    assert_eq!(answer.body["secret"], "app-key");
    assert_eq!(answer.body["need_one_of"], json!(["totp"]));
}
