//! Who may create an account: tickets of the app's backend, and the quota of open enrolment.

use custodyd_tests::app::{REALM, Setup, TestApp};
use custodyd_tests::device::{Answer, Device, Key, now};
use serde_json::{Value, json};

use crate::rotation::done;

/// The app's backend: a key that the policy lists, and the policy.
struct Backend(Key);

impl Backend {
    fn new() -> Self {
        Self(Key::default())
    }

    fn setup(&self, more: &str) -> Setup {
        let jwk = self.0.jwk();
        Setup::notes(&format!(
            "[enrolment]\n{more}\ntickets = [{{ kid = \"k1\", x = {}, y = {} }}]",
            jwk["x"], jwk["y"]
        ))
    }

    fn ticket(&self, jti: &str, changes: Value) -> String {
        let mut claims = json!({"iss": "notes", "aud": format!("{REALM}/notes"), "jti": jti,
            "exp": now() + 600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"typ": "custodyd-ticket+jwt", "alg": "ES256", "kid": "k1"});
        self.0.jws(&header, &claims)
    }
}

async fn enrol(device: &mut Device, ticket: Option<&str>) -> Answer {
    if device.nonce.is_empty() {
        device.meet().await;
    }
    let mut body = json!({"app_key_proof": device.app_key_proof()});
    if let Some(ticket) = ticket {
        body["ticket"] = json!(ticket);
    }
    device
        .call("POST", "/v1/apps/{app}/accounts", Some(body))
        .await
}

#[tokio::test]
async fn a_ticket_makes_one_account_also_after_a_restart() {
    let backend = Backend::new();
    let mut app = TestApp::with(backend.setup("open = false")).await;
    let mut device = app.device("notes");
    enrol(&mut device, None)
        .await
        .refused("403 enrolment-closed");
    let ticket = backend.ticket("one", json!({}));
    let first = enrol(&mut device, Some(&ticket)).await.expect(201);
    // An answer that was lost is asked for again.
    let again = enrol(&mut device, Some(&ticket)).await.expect(201);
    assert_eq!(again.body["account"], first.body["account"]);
    app.restart().await;
    let mut other = app.device("notes");
    enrol(&mut other, Some(&ticket))
        .await
        .refused("409 account-exists");
    // Neither does another ticket of the same name.
    let same_name = backend.ticket("one", json!({"exp": now() + 60}));
    enrol(&mut other, Some(&same_name))
        .await
        .refused("409 account-exists");
    let another = backend.ticket("two", json!({}));
    let made = enrol(&mut other, Some(&another)).await.expect(201);
    assert_ne!(made.body["account"], first.body["account"]);
}

/// Which account a ticket makes comes from the MAC key: it makes none beside the one that it has made under an older key.
#[tokio::test]
async fn a_ticket_makes_one_account_also_where_the_mac_key_was_rotated() {
    let backend = Backend::new();
    let mut app = TestApp::with(backend.setup("open = false")).await;
    let (mut device, mut other) = (app.device("notes"), app.device("notes"));
    let ticket = backend.ticket("one", json!({}));
    let first = enrol(&mut device, Some(&ticket)).await.expect(201);
    for _ in 0..2 {
        done(&app, "key rotate mac");
        app.restart().await;
        // The daemon of before has made them.
        device.nonce.clear();
        other.nonce.clear();
        let again = enrol(&mut device, Some(&ticket)).await.expect(201);
        assert_eq!(again.body["account"], first.body["account"]);
        enrol(&mut other, Some(&ticket))
            .await
            .refused("409 account-exists");
    }
    // The control: another one makes another one.
    let another = backend.ticket("two", json!({}));
    let made = enrol(&mut other, Some(&another)).await.expect(201);
    assert_ne!(made.body["account"], first.body["account"]);
}

#[tokio::test]
async fn a_wrong_ticket_enrols_nobody_even_where_enrolment_is_open() {
    let backend = Backend::new();
    let app = TestApp::with(backend.setup("open = true")).await;
    let mut device = app.device("notes");
    let forger = Backend::new();
    for (ticket, code) in [
        (forger.ticket("a", json!({})), "403 ticket-invalid"),
        (
            backend.ticket("a", json!({"aud": format!("{REALM}/wallet")})),
            "403 ticket-invalid",
        ),
        (
            backend.ticket("a", json!({"iss": "wallet"})),
            "403 ticket-invalid",
        ),
        (
            backend.ticket("a", json!({"jkt": "another device's"})),
            "403 ticket-invalid",
        ),
        (
            backend.ticket("a", json!({"exp": now() + 2 * 24 * 3600})),
            "403 ticket-invalid",
        ),
        (
            backend.ticket("a", json!({"exp": now() - 120})),
            "403 ticket-expired",
        ),
        ("a.b.c".to_owned(), "403 ticket-invalid"),
        (String::new(), "403 ticket-invalid"),
    ] {
        enrol(&mut device, Some(&ticket)).await.refused(code);
    }
    let mine = json!({"jkt": device.key.thumbprint()});
    let ticket = backend.ticket("a", mine);
    enrol(&mut device, Some(&ticket)).await.expect(201);
    // The other app lists no key.
    let mut wallet = app.device("wallet");
    enrol(&mut wallet, Some(&ticket))
        .await
        .refused("403 ticket-invalid");
}

#[tokio::test]
async fn one_ticket_in_two_hands_at_once_makes_one_account() {
    let backend = Backend::new();
    let app = TestApp::with(backend.setup("open = false")).await;
    let ticket = backend.ticket("one", json!({}));
    let (mut one, mut two) = (app.device("notes"), app.device("notes"));
    let (first, second) = tokio::join!(
        enrol(&mut one, Some(&ticket)),
        enrol(&mut two, Some(&ticket))
    );
    let mut outcomes = [first.refusal(), second.refusal()];
    outcomes.sort();
    assert_eq!(outcomes, ["201 -", "409 account-exists"]);
}

#[tokio::test]
async fn open_enrolment_has_an_hourly_quota_that_tickets_do_not_touch() {
    let backend = Backend::new();
    let app = TestApp::with(backend.setup("quota_per_hour = 2")).await;
    for _ in 0..2 {
        enrol(&mut app.device("notes"), None).await.expect(201);
    }
    let refused = enrol(&mut app.device("notes"), None).await;
    refused.refused("429 enrolment-quota");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    let ticket = backend.ticket("one", json!({}));
    enrol(&mut app.device("notes"), Some(&ticket))
        .await
        .expect(201);
    // Another app has its own.
    enrol(&mut app.device("wallet"), None).await.expect(201);
}

#[tokio::test]
async fn a_ticket_key_off_the_curve_keeps_the_daemon_from_starting() {
    let backend = Backend::new();
    let mut app = TestApp::with(backend.setup("open = false")).await;
    assert!(app.stop());
    let file = app.path("policies/notes.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let jwk = backend.0.jwk();
    let text = text.replace(jwk["y"].as_str().unwrap(), jwk["x"].as_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let output = app.command("serve").output().unwrap();
    assert!(!output.status.success());
    let said = custodyd_tests::app::said(&output);
    assert!(said.contains("notes.toml"), "{said}");
    assert!(said.contains("the key \"k1\""), "{said}");
    assert!(said.contains("not a point of P-256"), "{said}");
}
