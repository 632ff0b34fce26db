//! Mail against a real mail server and text messages against a gateway, both on loopback: the
//! daemon's courier as it is configured, with the transports that it makes by itself.
//!
//! No route sends anything yet, so the courier runs in the test's process; the keys of calls
//! are then a stand-in's (the token's own are in `conformance`). That the daemon takes these
//! configurations, and publishes the webhook key, is asked of the real one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use custodyd::clock::Clock;
use custodyd::config::{self, Config};
use custodyd::delivery::{Address, Code, Courier, Delivering, Message, Notice, Purpose};
use custodyd_hsm::{
    AnchorObject, Backend, Custody, Error, KeyId, KeyPurpose, KeyReport, Pool, PoolOptions,
    ProvisionReport, PublicKey, Result, Secret, TokenDescription, jwk_set,
};
use custodyd_tests::app::said;
use custodyd_tests::mail::Mode;
use custodyd_tests::{MailServer, Setup, TestApp, Webhook};
use serde_json::Value;

/// A token that signs, and does nothing else.
struct Signs(Arc<EcdsaKeyPair>);

fn other() -> Error {
    Error::Unavailable {
        operation: "test",
        reason: "not used here".into(),
    }
}

impl Backend for Signs {
    fn open(&self) -> Result<Box<dyn Custody>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }
    fn inspect(&self) -> Result<Vec<KeyReport>> {
        Err(other())
    }
    fn provision(&self, _: bool) -> Result<ProvisionReport> {
        Err(other())
    }
}

impl Custody for Signs {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        assert_eq!(purpose, KeyPurpose::Webhook);
        Ok(KeyId::new(purpose, 1))
    }
    fn holds(&self, _: KeyId) -> Result<bool> {
        Ok(true)
    }
    fn hmac(&mut self, _: KeyId, _: &[u8]) -> Result<Secret<32>> {
        Err(other())
    }
    fn sign(&mut self, _: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        let digest = Digest::import_less_safe(digest, &SHA256).unwrap();
        let signature = self.0.sign_digest(&digest).unwrap();
        Ok(signature.as_ref().try_into().unwrap())
    }
    fn public_key(&mut self, _: KeyId) -> Result<PublicKey> {
        PublicKey::from_point(self.0.public_key().as_ref())
    }
    fn random(&mut self, _: &mut [u8]) -> Result<()> {
        Err(other())
    }
    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        Err(other())
    }
    fn probe(&mut self) -> Result<()> {
        Ok(())
    }
    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        Err(other())
    }
    fn create_anchor(&mut self, _: &[u8]) -> Result<()> {
        Err(other())
    }
    fn destroy_anchor(&mut self, _: &AnchorObject) -> Result<()> {
        Err(other())
    }
}

/// A courier as a configuration with this in it makes one, and the keys of its calls.
struct Started {
    courier: Courier,
    delivering: Delivering,
    jwks: Value,
}

fn configuration(delivery: &str) -> Config {
    let text = format!(
        "[realm]\nname = \"test.example\"\n[listen]\npublic = \"127.0.0.1:8443\"\nurl = \"https://localhost:8443\"\n\
         certificate = \"c\"\nprivate_key = \"k\"\n[token]\nlabel = \"t\"\npin_file = \"p\"\n{delivery}"
    );
    config::parse("c.toml", &text, std::path::Path::new("/")).unwrap()
}

fn start(delivery: &str) -> Started {
    let config = configuration(delivery);
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = PublicKey::from_point(pair.public_key().as_ref()).unwrap();
    let backend = Arc::new(Signs(Arc::new(pair)));
    let pool = Pool::start(backend, PoolOptions::default()).unwrap();
    let clock = Arc::new(Clock::default());
    let (courier, delivering) =
        Courier::start(&config.delivery, &pool, &config.realm.name, &clock).unwrap();
    Started {
        courier,
        delivering,
        jwks: jwk_set([&public]),
    }
}

fn code_for(to: Address) -> Message {
    let code = Code {
        code: "GZ4K-7Q2M".to_owned().into(),
        link: Some(format!("https://notes.example/#{}", "c".repeat(100)).into()),
        expires_minutes: 10,
        purpose: Purpose::SignIn,
    };
    Message::code("Nötes", to, code).unwrap()
}

fn mail_to(local: &str) -> Message {
    code_for(Address::email(&format!("{local}@example.com")).unwrap())
}

fn text_message() -> Message {
    code_for(Address::phone("+491701234567").unwrap())
}

#[tokio::test]
async fn a_code_arrives_by_starttls_with_the_right_headers() {
    let server = MailServer::start();
    let started = start(&server.config());
    started.courier.post(mail_to("ann")).unwrap();
    let mails = server.wait_for(1).await;
    let mail = &mails[0];
    assert_eq!(mail.to, "ann@example.com");
    assert_eq!(mail.subject, "Your code for Nötes");
    assert!(
        mail.body
            .starts_with("GZ4K-7Q2M\n\nThis is your code to sign in to Nötes.")
    );
    let link = format!("https://notes.example/#{}\n", "c".repeat(100));
    assert!(mail.body.contains(&link), "{}", mail.body);
    let header = |name: &str| mail.more["headers"][name].as_str().unwrap().to_owned();
    assert_eq!(header("auto-submitted"), "auto-generated");
    assert_eq!(header("from"), "Custody <custody@example.com>");
    assert!(header("content-type").starts_with("text/plain"));
    assert!(header("message-id").ends_with("@example.com>"));
    assert!(!header("date").is_empty());
    assert_eq!(mail.more["from"], "custody@example.com");
    assert_eq!(mail.more["recipients"], 1);
    assert_eq!(mail.more["tls"], true);
    assert!(started.delivering.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn several_mails_arrive_each_for_its_own_and_stopping_waits_for_them() {
    let server = MailServer::start();
    let started = start(&server.config());
    for number in 0..20 {
        started
            .courier
            .post(mail_to(&format!("p{number}")))
            .unwrap();
    }
    assert!(started.delivering.drain(Duration::from_secs(15)).await);
    let mut to: Vec<String> = server
        .wait_for(20)
        .await
        .into_iter()
        .map(|mail| mail.to)
        .collect();
    to.sort();
    to.dedup();
    assert_eq!(to.len(), 20);
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_gets_nothing() {
    for mode in [Mode::Starttls, Mode::Implicit] {
        let mut server = MailServer::prepared(mode, None);
        server.run();
        let stranger = MailServer::prepared(mode, None);
        let own = server.authority().display().to_string();
        let others = stranger.authority().display().to_string();
        let started = start(&server.config().replace(&own, &others));
        started.courier.post(mail_to("ann")).unwrap();
        // Not tried again: waiting makes no certificate right.
        let before = Instant::now();
        assert!(started.delivering.drain(Duration::from_secs(15)).await);
        assert!(before.elapsed() < Duration::from_secs(10), "{mode:?}");
        assert!(server.received().is_empty(), "{mode:?}");
        // The control: with its own authority it gets the same mail.
        let started = start(&server.config());
        started.courier.post(mail_to("ann")).unwrap();
        assert_eq!(server.wait_for(1).await.len(), 1);
        drop(started);
    }
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let mut server = MailServer::prepared(Mode::None, None);
    server.run();
    let demanded = server.config().replace("\"none\"", "\"starttls\"");
    let started = start(&demanded);
    started.courier.post(mail_to("ann")).unwrap();
    assert!(started.delivering.drain(Duration::from_secs(15)).await);
    assert!(server.received().is_empty());
    let started = start(&server.config());
    started.courier.post(mail_to("ann")).unwrap();
    let mails = server.wait_for(1).await;
    assert_eq!(mails[0].more["tls"], false);
}

#[tokio::test]
async fn a_login_is_given_over_tls_and_a_wrong_one_is_not_repeated() {
    let mut server = MailServer::prepared(Mode::Starttls, Some(("custody", "s3cret pass")));
    server.run();
    let started = start(&server.config());
    started.courier.post(mail_to("ann")).unwrap();
    let mails = server.wait_for(1).await;
    assert_eq!(mails[0].more["user"], true);
    std::fs::write(server.password_file(), "wrong").unwrap();
    let started = start(&server.config());
    started.courier.post(mail_to("ann")).unwrap();
    let before = Instant::now();
    assert!(started.delivering.drain(Duration::from_secs(15)).await);
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_server_that_comes_back_gets_what_waited() {
    let mut server = MailServer::prepared(Mode::Starttls, None);
    let started = start(&server.config());
    started.courier.post(mail_to("ann")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(server.received().is_empty());
    server.run();
    assert_eq!(server.wait_for(1).await[0].to, "ann@example.com");
    assert!(started.delivering.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn what_the_server_puts_off_is_sent_again_and_what_it_refuses_is_not() {
    let server = MailServer::start();
    let started = start(&server.config());
    started.courier.post(mail_to("later")).unwrap();
    started.courier.post(mail_to("refused")).unwrap();
    assert_eq!(server.wait_for(1).await[0].to, "later@example.com");
    let before = Instant::now();
    assert!(started.delivering.drain(Duration::from_secs(15)).await);
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_text_message_is_a_call_that_verifies_against_the_published_keys() {
    let gateway = Webhook::start().await;
    let started = start(&gateway.config());
    let before = custodyd_tests::device::now();
    started.courier.post(text_message()).unwrap();
    let phone = Address::phone("+491701234567").unwrap();
    let notice = Message::notice("Notes", phone, Notice::PinReplaced).unwrap();
    started.courier.post(notice).unwrap();
    let mut calls = gateway.wait_for(2).await;
    calls.sort_by_key(|call| call.json()["kind"].to_string());
    for (call, kind) in calls.iter().zip(["code", "notice"]) {
        let claims = call.verified(&started.jwks).unwrap();
        assert_eq!(claims["iss"], "test.example");
        assert_eq!(claims["aud"], gateway.url());
        assert!(claims["iat"].as_u64().unwrap() >= before);
        let body = call.json();
        assert_eq!(body["id"], claims["jti"]);
        assert_eq!(body["kind"], kind);
        assert_eq!(body["to"], "+491701234567");
    }
    let text = calls[0].json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("GZ4K-7Q2M is your code to sign in to Nötes, for 10 minutes."));
    // Neither another body nor another key.
    let mut changed = calls[0].clone();
    changed.body.push(b' ');
    assert!(changed.verified(&started.jwks).is_none());
    assert!(calls[0].verified(&start("").jwks).is_none());
}

#[tokio::test]
async fn a_busy_gateway_is_called_again_with_the_same_id_and_a_refusal_is_final() {
    let gateway = Webhook::start().await;
    gateway.answer(&[503]);
    let started = start(&gateway.config());
    started.courier.post(text_message()).unwrap();
    let calls = gateway.wait_for(2).await;
    assert_eq!(calls[0].json(), calls[1].json());
    assert!(calls[1].verified(&started.jwks).is_some());
    for status in [400, 307, 401] {
        gateway.answer(&[status]);
        started.courier.post(text_message()).unwrap();
    }
    let before = Instant::now();
    assert!(started.delivering.drain(Duration::from_secs(15)).await);
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(gateway.received().len(), 5);
}

#[tokio::test]
async fn a_gateway_whose_certificate_is_not_trusted_gets_nothing() {
    let (gateway, stranger) = (Webhook::start().await, Webhook::start().await);
    let theirs = stranger.config().replace(stranger.url(), gateway.url());
    let started = start(&theirs);
    started.courier.post(text_message()).unwrap();
    let before = Instant::now();
    assert!(started.delivering.drain(Duration::from_secs(15)).await);
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(gateway.received().is_empty());
    let started = start(&gateway.config());
    started.courier.post(text_message()).unwrap();
    assert_eq!(gateway.wait_for(1).await.len(), 1);
    drop(started);
}

#[tokio::test]
async fn the_daemon_serves_with_both_channels_and_publishes_the_webhook_key() {
    let mail = MailServer::start();
    let gateway = Webhook::start().await;
    let mut app = TestApp::with(Setup {
        config: format!("{}{}", mail.config(), gateway.config()),
        ..Setup::default()
    })
    .await;
    let mut device = app.device("notes");
    let jwks = device
        .call("GET", "/.well-known/jwks.json", None)
        .await
        .expect(200);
    let keys = jwks.body["keys"].as_array().unwrap();
    // Bindings, calls and checkpoints have a key each.
    let kids: std::collections::BTreeSet<_> = keys.iter().map(|key| key["kid"].as_str()).collect();
    assert_eq!((keys.len(), kids.len()), (3, 3));
    let doctor = said(&app.command("doctor").output().unwrap());
    assert!(doctor.contains("e-mail by localhost:"), "{doctor}");
    assert!(app.stop(), "{}", app.log());
}

#[tokio::test]
async fn in_development_the_daemon_keeps_an_outbox_that_only_its_user_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let development =
        "[listen.development]\nlisten = \"127.0.0.1:0\"\nurl = \"http://localhost:8080\"\n";
    let app = TestApp::with(Setup {
        config: format!("{development}[delivery]\noutbox = \"outbox.jsonl\"\n"),
        ..Setup::default()
    })
    .await;
    let outbox = std::fs::metadata(app.path("outbox.jsonl")).unwrap();
    assert_eq!(outbox.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_daemon_does_not_start_with_a_password_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let mail = MailServer::prepared(Mode::Starttls, Some(("custody", "s3cret pass")));
    let mut app = TestApp::with(Setup {
        config: mail.config(),
        ..Setup::default()
    })
    .await;
    assert!(app.stop());
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(mail.password_file(), open).unwrap();
    for command in ["serve", "doctor"] {
        let refused = app.command(command).output().unwrap();
        assert!(!refused.status.success());
        let told = said(&refused);
        assert!(told.contains("delivery.email.password_file"), "{told}");
        assert!(told.contains("chmod 0600"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}
