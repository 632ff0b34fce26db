//! An auditor asks what the TPM remembers: by the running daemon, and without one; checked without either.

use std::path::Path;
use std::process::Command;

use custodyd_tests::app::said;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Setup, TestApp, token};

use crate::tpm::{LEDGER, provisioned, section};

/// On another machine: no configuration, no token.
fn verified(file: &Path, nonce: &str, key: &str) -> (bool, String) {
    let output = Command::new(token::program("custodyd"))
        .args(["--config", "/nowhere", "ledger", "anchor", "--verify"])
        .arg(file)
        .args(["--nonce", nonce])
        .args(if key.is_empty() {
            vec![]
        } else {
            vec!["--key", key]
        })
        .output()
        .unwrap();
    (output.status.success(), said(&output))
}

fn key_of(text: &str) -> String {
    let (_, rest) = text.split_once("attestation key 000b").unwrap();
    format!("000b{}", &rest[..64])
}

#[tokio::test]
async fn an_auditor_sees_what_the_tpm_remembers() {
    let tpm = SwTpm::blank();
    let line = provisioned(&tpm, "");
    let mut app = TestApp::with(Setup {
        token: Some(section(&tpm, &format!("{line}\n"))),
        config: LEDGER.to_owned(),
        ..Setup::default()
    })
    .await;
    app.device("notes").enrol().await;
    let (one, other) = ("0f".repeat(32), "1e".repeat(16));
    let ask = |app: &TestApp, nonce: &str, name: &str| {
        let file = app.path(name);
        let command = format!("ledger anchor --evidence {nonce} --out {}", file.display());
        let output = app.command(&command).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (file, said(&output))
    };
    let (running, text) = ask(&app, &one, "running.json");
    let key = key_of(&text);
    assert!(app.stop());
    let (stopped, text) = ask(&app, &other, "stopped.json");
    assert_eq!(key_of(&text), key);
    for (file, nonce) in [(&running, &one), (&stopped, &other)] {
        let (good, text) = verified(file, nonce, &key);
        assert!(good && text.contains("entries with the root"), "{text}");
    }
    let (_, unnamed) = verified(&stopped, &other, "");
    assert!(unnamed.contains("nobody has said whose"), "{unnamed}");
    let (good, text) = verified(&stopped, &one, &key);
    assert!(!good && text.contains("another nonce"), "{text}");
    let (good, text) = verified(&stopped, &other, &format!("000b{}", "0".repeat(64)));
    assert!(!good && text.contains("another attestation key"), "{text}");
    // The head is the one that the anchor names, or none.
    let edited = app.path("edited.json");
    let content = std::fs::read_to_string(&stopped).unwrap();
    let changed = content.replacen("\\\"size\\\":", "\\\"size\\\":1", 1);
    assert_ne!(content, changed);
    std::fs::write(&edited, changed).unwrap();
    let (good, text) = verified(&edited, &other, &key);
    assert!(
        !good && text.contains("not the one that the TPM remembers"),
        "{text}"
    );
    // And it is the log that the database has.
    let shown = said(&app.command("ledger anchor").output().unwrap());
    let (_, text) = verified(&stopped, &other, &key);
    let (_, size) = shown.split_once(" with ").unwrap();
    let size = size.split_whitespace().next().unwrap();
    assert!(
        text.contains(&format!("{size} entries with the root")),
        "{shown} {text}"
    );
}

#[tokio::test]
async fn a_token_that_is_no_tpm_says_so() {
    let mut app = TestApp::start().await;
    assert!(app.stop());
    let file = app.path("evidence.json");
    let command = format!(
        "ledger anchor --evidence {} --out {}",
        "0f".repeat(16),
        file.display()
    );
    let output = app.command(&command).output().unwrap();
    assert!(
        !output.status.success() && said(&output).contains("only a TPM"),
        "{}",
        said(&output)
    );
    assert!(!file.exists());
}
