//! A log for the public: each checkpoint carries an Ed25519 line below the one of P-256, and who knows
//! either key needs no other.

use custodyd_tests::app::said;
use custodyd_tests::log::{self, Auditor, CREDENTIAL, Verifier};
use custodyd_tests::{Device, Setup, TestApp};
use serde_json::Value;

const PUBLIC: &str = "[ledger]\npublic_log = true\n";

async fn with(config: String) -> (TestApp, Device, Auditor) {
    let app = TestApp::with(Setup {
        config: log::section() + &config,
        ..Setup::default()
    })
    .await;
    let mut device = app.device("notes");
    device.enrol().await;
    let auditor = Auditor {
        http: device.http.clone(),
        url: device.url.clone(),
        credential: Some(CREDENTIAL.into()),
    };
    (app, device, auditor)
}

async fn jwks(device: &mut Device) -> Value {
    let jwks = device.call("GET", "/.well-known/jwks.json", None).await;
    jwks.expect(200).body
}

async fn checkpoint(auditor: &Auditor) -> String {
    let (status, _, note) = auditor.get("/log/checkpoint").await;
    assert_eq!(status, 200);
    String::from_utf8(note).unwrap()
}

fn lines(note: &str) -> Vec<&str> {
    note.lines()
        .filter(|line| line.starts_with('\u{2014}'))
        .collect()
}

/// The same with another character within the signature of a line.
fn altered(note: &str, line: usize) -> String {
    let line = lines(note)[line];
    let at = line.len() - 20;
    let other = if &line[at..=at] == "A" { "B" } else { "A" };
    note.replace(line, &format!("{}{other}{}", &line[..at], &line[at + 1..]))
}

#[tokio::test]
async fn an_auditor_with_either_key_alone_verifies_a_public_log() {
    let (app, mut device, auditor) = with(PUBLIC.into()).await;
    let keys = jwks(&mut device).await;
    let (p256, ed25519) = (Verifier::new(&keys), Verifier::ed25519(&keys));
    let note = checkpoint(&auditor).await;
    assert_eq!(lines(&note).len(), 2, "{note}");
    let said_by = p256.checkpoint(&note).unwrap();
    assert_eq!(ed25519.checkpoint(&note).unwrap(), said_by);
    // Each is refused by whoever knows its key where it was altered, and passed over by the other.
    let (first, second) = (altered(&note, 0), altered(&note, 1));
    assert!(p256.checkpoint(&first).is_err() && ed25519.checkpoint(&first).is_ok());
    assert!(p256.checkpoint(&second).is_ok() && ed25519.checkpoint(&second).is_err());
    let other = note.replacen("custodyd/log/1\n", "custodyd/log/1\n1", 1);
    assert!(p256.checkpoint(&other).is_err() && ed25519.checkpoint(&other).is_err());
    // A receipt carries the same, for either.
    let receipt = device.try_device(&[]).await.expect(201).body["log"]["proof"].clone();
    let receipt = receipt.as_str().unwrap();
    assert_eq!(
        p256.tlog_proof(receipt).unwrap(),
        ed25519.tlog_proof(receipt).unwrap()
    );
    // A rotation: the older key still verifies what it signed, the newer what is new.
    let output = app
        .command("key rotate checkpoint-ed25519")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    device.try_device(&[]).await.expect(201);
    let newer = checkpoint(&auditor).await;
    assert!(ed25519.checkpoint(&newer).is_err() && p256.checkpoint(&newer).is_ok());
    let both = Verifier::ed25519(&jwks(&mut device).await);
    both.checkpoint(&newer).unwrap();
    both.checkpoint(&note).unwrap();
    let output = app
        .command("key retire checkpoint-ed25519-v1")
        .output()
        .unwrap();
    assert!(
        said(&output).contains("it stays accepted"),
        "{}",
        said(&output)
    );
}

#[tokio::test]
async fn a_realm_without_the_key_is_told_the_command_that_makes_it() {
    let (mut app, mut device, auditor) = with(String::new()).await;
    assert_eq!(lines(&checkpoint(&auditor).await).len(), 1);
    assert!(
        jwks(&mut device).await["keys"]
            .as_array()
            .unwrap()
            .iter()
            .all(|jwk| jwk["kty"] == "EC")
    );
    assert!(app.stop(), "{}", app.log());
    let file = app.path("custodyd.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.clone() + PUBLIC).unwrap();
    let output = app.command("serve").output().unwrap();
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains("custodyd key rotate checkpoint-ed25519"),
        "{text}"
    );
    let output = app
        .command("key rotate checkpoint-ed25519")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    app.launch().await;
    device.try_device(&[]).await.expect(201);
    let note = checkpoint(&auditor).await;
    assert_eq!(lines(&note).len(), 2, "{note}");
    Verifier::ed25519(&jwks(&mut device).await)
        .checkpoint(&note)
        .unwrap();
    // The key alone makes no log public.
    assert!(app.stop(), "{}", app.log());
    std::fs::write(&file, config).unwrap();
    app.launch().await;
    device.try_device(&[]).await.expect(201);
    assert_eq!(lines(&checkpoint(&auditor).await).len(), 1);
}
