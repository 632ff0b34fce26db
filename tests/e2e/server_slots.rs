//! Server slots that come to an end, whose slots a session may touch, and which slots count.

use custodyd_tests::app::said;
use custodyd_tests::codes::Authenticator;
use custodyd_tests::device::{b64, unb64};
use custodyd_tests::opaque::LoggingIn;
use custodyd_tests::owner::{KEY, Owner, PLAIN, SECRET, app, turn};
use custodyd_tests::{Answer, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

/// What the operator is told: of how many accounts, how many are left.
fn left(app: &TestApp) -> (u64, u64) {
    let output = app.command("account slots --json").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let notes = &answer["result"]["apps"][0];
    assert_eq!(
        (&notes["app"], &answer["result"]["uncounted"]),
        (&json!("notes"), &json!(0))
    );
    let number = |name: &str| notes[name].as_u64().unwrap();
    (number("left"), number("accounts"))
}

/// Signs in with an authenticator app, for a session that is weaker than a PIN's.
async fn with_totp(
    owner: &mut Owner,
    authenticator: &mut Authenticator,
    release: &[&str],
) -> Answer {
    let started = owner.device.try_totp(&authenticator.show(), release).await;
    started.expect(201)
}

async fn put(owner: &mut Owner, content: &Value) -> Answer {
    let version = format!("\"{}\"", owner.version().await);
    let device = &mut owner.device;
    device
        .put(SECRET, "If-Match", &version, content.clone())
        .await
}

#[tokio::test]
async fn while_server_slots_end_old_ones_open_and_no_new_one_is_taken_and_afterwards_none_opens() {
    let app = app("allowed").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(true)).await.expect(200);
    let mut authenticator = owner.device.add_totp().await;
    let mut other = Owner::new(&app).await;
    other.set_pin("830517", Some(true)).await.expect(200);
    assert_eq!(left(&app), (2, 2));

    turn(&app, "ending");
    let started = with_totp(&mut owner, &mut authenticator, &[SECRET])
        .await
        .body;
    assert_eq!(started["server_slots"], "ending");
    let released = &started["secrets"][SECRET];
    assert_eq!(released["server_slot"], b64(KEY));
    assert_eq!(owner.device.view().await["server_slot"], false);
    // Of the same bytes, or of others: none is taken.
    let content = owner.content(true);
    put(&mut owner, &content)
        .await
        .refused("422 server-slot-forbidden");
    let listed = owner.device.call("GET", "/v1/account/secrets", None).await;
    assert_eq!(listed.expect(200).body["secrets"][0]["server_slot"], true);

    // Another policy in between withholds it, and harms nothing.
    turn(&app, "forbidden");
    let withheld = owner.device.call("GET", "/v1/account/export", None).await;
    withheld.expect(200);
    let login = LoggingIn::start("830517");
    let begun = owner.device.start_opaque(&login).await.expect(200).body;
    let ended = login.finish(&begun).unwrap();
    let device = &mut owner.device;
    let signed_in = device
        .finish_opaque(&begun["login"], &ended.ke3, &[SECRET])
        .await;
    let released = signed_in.expect(201).body["secrets"][SECRET].clone();
    assert_eq!(
        (&released["server_slot"], &released["server_slot_withheld"]),
        (&Value::Null, &json!(true))
    );
    let place = owner.device.place(SECRET);
    let key = place
        .open_slot(&released["slots"][0], &ended.export_key)
        .unwrap();
    let sealed = unb64(released["sealed"].as_str().unwrap());
    assert_eq!(place.open(&key, &sealed).as_deref(), Some(PLAIN));
    let output = app.command("account slots").output().unwrap();
    assert!(
        said(&output).contains("2 of 2 accounts have server slots (forbidden); these are withheld")
    );

    // Moved: the same content and slots, and no server slot, which even a weak session may.
    turn(&app, "ending");
    with_totp(&mut owner, &mut authenticator, &[]).await;
    let moved = json!({"sealed": released["sealed"], "slots": released["slots"]});
    put(&mut owner, &moved).await.expect(200);
    assert_eq!(left(&app), (1, 2));
    let released = with_totp(&mut owner, &mut authenticator, &[SECRET])
        .await
        .body;
    let released = &released["secrets"][SECRET];
    assert_eq!(
        (&released["server_slot"], &released["server_slot_withheld"]),
        (&Value::Null, &json!(false))
    );
    let seen = released.to_string();
    assert!(!seen.contains(&b64(KEY)), "{seen}");
}

#[tokio::test]
async fn a_weak_session_touches_no_slots_of_stronger_factors() {
    let app = app("allowed").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(true)).await.expect(200);
    owner
        .add_passkey(&mut SoftAuthenticator::new("notes"))
        .await
        .expect(201);
    let mut authenticator = owner.device.add_totp().await;
    let strong = owner.device.token.clone();
    let stored = owner.secret().await;
    let (sealed, slots) = (stored["sealed"].clone(), stored["slots"].clone());
    let server = stored["server_slot"].clone();
    let content = |slots: &Value| json!({"sealed": sealed, "slots": slots, "server_slot": server});
    let without = |kind: &str| -> Value {
        let slots = slots.as_array().unwrap().iter();
        slots.filter(|slot| slot["type"] != kind).cloned().collect()
    };
    let mut other = content(&slots);
    other["sealed"] = json!(owner.device.place(SECRET).seal(KEY, b"a thief's"));
    let mut forged = slots.clone();
    forged[0]["ciphertext"] = json!(b64(&[1; 61]));
    let attacks = [
        content(&without("prf")),
        content(&without("opaque")),
        other,
        content(&forged),
    ];

    with_totp(&mut owner, &mut authenticator, &[]).await;
    for attack in &attacks {
        put(&mut owner, attack)
            .await
            .refused("403 step-up-required");
    }
    let path = format!("/v1/account/secrets/{SECRET}");
    let mut call = owner.device.prepare("DELETE", &path, None);
    let version = format!("\"{}\"", owner.version().await);
    call.headers.push(("If-Match".into(), version));
    owner
        .device
        .run(&call)
        .await
        .refused("403 step-up-required");
    // By the exception for a forgotten PIN neither: the PIN's own slots go, and the passkey's stay.
    let rewrapped = json!({SECRET: {"if_version": owner.version().await, "slots": without("prf")}});
    let body = json!({"pin": "294061", "secrets": rewrapped});
    let refused = owner.call("PUT", "/v1/account/pin", body).await;
    refused.refused("403 step-up-required");
    // What changes nothing of theirs is allowed, and the control: a stronger session may.
    put(&mut owner, &content(&slots)).await.expect(200);
    owner.device.token = strong;
    put(&mut owner, &attacks[2]).await.expect(200);
    put(&mut owner, &attacks[0]).await.expect(200);
}

#[tokio::test]
async fn a_recovery_code_that_was_used_is_no_way_to_a_secret() {
    let app = app("forbidden").await;
    let mut owner = Owner::new(&app).await;
    owner.set_pin("830517", Some(false)).await.expect(200);
    owner.set_codes().await.expect(201);
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await.expect(201);
    let sent = owner.sent.iter().find(|body| body["codes"].is_array());
    let codes = sent.unwrap()["codes"].clone();
    let mut laptop = app.device("notes");
    laptop.account.clone_from(&owner.device.account);
    for code in codes.as_array().unwrap() {
        let code = code.as_str().unwrap();
        laptop.try_recovery_code(code, json!({})).await.expect(201);
    }
    // All ten are used: their slots are there still, and the PIN's is the last that counts.
    laptop
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    let gone = laptop.call("DELETE", "/v1/account/pin", None).await;
    gone.refused("409 last-slot");
    owner.opens.retain(|(kind, ..)| *kind != "opaque");
    let content = owner.content(false);
    put(&mut owner, &content).await.refused("422 prf-only-slot");
}
