//! The owner's rights: everything out, and everything gone.

use custodyd_tests::app::policy;
use custodyd_tests::device::b64;
use custodyd_tests::{Answer, Device, Setup, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

async fn owner(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    device.set_pin("830517").await.expect(200);
    device
}

async fn erase(device: &mut Device, confirm: &str) -> Answer {
    let body = json!({"confirm": confirm});
    device.call("DELETE", "/v1/account", Some(body)).await
}

async fn erase_own(device: &mut Device) -> Answer {
    let account = device.account.clone();
    erase(device, &account).await
}

#[tokio::test]
async fn an_export_holds_everything_and_secrets_by_the_policys_rules() {
    let rule = "vault = [\"passkey\"]\n";
    let app = TestApp::with(Setup {
        policies: vec![("notes".into(), policy("notes", "") + rule)],
        ..Setup::default()
    })
    .await;
    let mut device = owner(&app).await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    device.back_up("vault", b"not by a PIN").await.expect(200);
    device.try_pin("830517", &[]).await.expect(201);
    let seen = device.call("GET", "/v1/account", None).await.expect(200);
    let export = device
        .call("GET", "/v1/account/export", None)
        .await
        .expect(200)
        .body;
    assert_eq!(export["account"], seen.body);
    assert_eq!(export["account"]["passkeys"].as_array().unwrap().len(), 1);
    assert_eq!(
        export["secrets"]["device-secret"]["server_slot"],
        b64(b"the device secret")
    );
    assert_eq!(export["secrets_withheld"], json!(["vault"]));
    assert!(!export.to_string().contains(&b64(b"not by a PIN")));
    // The whole trail, to the export itself and what it released.
    let kinds: Vec<&str> = export["events"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, device.events().await);
    assert_eq!(kinds[0], "account-created");
    assert_eq!(
        kinds[kinds.len() - 2..],
        ["secret-released", "account-exported"]
    );
    assert_eq!(export["events_next"], Value::Null);
    assert_eq!(export["events_complete_from"], json!(1));
    let api = device.call("GET", "/openapi.json", None).await.expect(200);
    for (path, method) in [("/v1/account", "get"), ("/v1/account", "delete")] {
        assert!(
            api.body["paths"][path][method].is_object(),
            "{method} {path}"
        );
    }
    // The device's key alone takes nothing out.
    device.try_device(&[]).await.expect(201);
    device
        .call("GET", "/v1/account/export", None)
        .await
        .refused("403 read-only-session");
}

#[tokio::test]
async fn an_erasure_needs_the_accounts_own_name_and_its_strongest_factor() {
    let app = TestApp::start().await;
    let mut device = owner(&app).await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    let other = owner(&app).await.account;

    device.try_device(&[]).await.expect(201);
    erase_own(&mut device)
        .await
        .refused("403 read-only-session");
    device.try_pin("830517", &[]).await.expect(201);
    let refused = erase_own(&mut device).await;
    refused.refused("403 step-up-required");
    assert_eq!(refused.body["need_at_least"], "passkey");
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    erase(&mut device, &other)
        .await
        .refused("400 malformed-request");
    device
        .call("DELETE", "/v1/account", Some(json!({})))
        .await
        .refused("400 malformed-request");
    device.call("GET", "/v1/account", None).await.expect(200);
    erase_own(&mut device).await.expect(204);
    device.token = None;
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn an_erased_account_is_gone_for_good_and_no_other_is_touched() {
    let mut app = TestApp::start().await;
    let mut neighbour = owner(&app).await;
    let before = neighbour.events().await;
    let mut admin = app.admin().await;
    let theirs = admin.accounts().await;
    let bodies = admin.count("log_bodies").await;

    // Made with an Idempotency-Key, so that its identifier could be asked for again.
    let mut device = app.device("notes");
    device.meet().await;
    let create = async |device: &mut Device| {
        let body = json!({"app_key_proof": device.app_key_proof()});
        let mut call = device.prepare("POST", "/v1/apps/{app}/accounts", Some(body));
        call.headers.push(("Idempotency-Key".into(), "mine".into()));
        device.run(&call).await
    };
    let made = create(&mut device).await.expect(201);
    device.account = made.body["account"].as_str().unwrap().to_owned();
    device.take_session(&made);
    device
        .back_up("device-secret", &[7; 4096])
        .await
        .expect(200);
    device.set_pin("830517").await.expect(200);
    let token = device.token.clone();
    let large = admin.accounts().await.pop().unwrap();
    assert!(large.2.len() > 4096);

    // Its other session ends, too.
    device.try_pin("830517", &[]).await.expect(201);
    erase_own(&mut device).await.expect(204);
    for restarted in [false, true] {
        if restarted {
            app.restart().await;
        }
        for session in [token.clone(), device.token.clone()] {
            device.token = session;
            if device.token.is_some() {
                device
                    .call("GET", "/v1/account", None)
                    .await
                    .refused("401 session-ended");
            }
        }
        // As an account that never was, for everybody; not to be made again.
        device
            .try_pin("830517", &[])
            .await
            .refused("401 authentication-failed");
        device
            .try_device(&[])
            .await
            .refused("401 authentication-failed");
        create(&mut device).await.refused("409 account-exists");
    }

    // In the database: a small tombstone of the next generation, one leaf, and nothing else.
    let rows = admin.accounts().await;
    assert_eq!(rows[..theirs.len()], theirs);
    let stone = rows.last().unwrap();
    assert_eq!((rows.len(), &stone.0), (theirs.len() + 1, &large.0));
    assert!(stone.1 > large.1 && stone.2.len() < 1200);
    assert_eq!(admin.count("log_bodies").await, bodies + 1);

    assert_eq!(neighbour.events().await, before);
    let kept = neighbour
        .try_pin("830517", &["device-secret"])
        .await
        .expect(201);
    assert_eq!(
        kept.body["secrets"]["device-secret"]["server_slot"],
        b64(b"the device secret")
    );
}

#[tokio::test]
async fn kill_minus_nine_right_after_the_answer_keeps_it_erased() {
    let mut app = TestApp::start().await;
    let mut device = owner(&app).await;
    erase_own(&mut device).await.expect(204);
    app.kill();
    app.launch().await;
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
    device
        .try_pin("830517", &[])
        .await
        .refused("401 authentication-failed");
}
