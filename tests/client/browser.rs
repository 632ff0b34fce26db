//! Flows in Debian's Chromium: a real daemon over TLS, pages on an origin of the app's policy.
//!
//! The stories are in `client/e2e`. A story can have the daemon killed and started again through a
//! small control port, since the daemon is this process's child.

use custodyd_tests::app::{REALM, free_port};
use custodyd_tests::{Setup, TestApp};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::tools::{client, node, passed, said};

const CHROMIUM: &str = "/usr/bin/chromium";

/// The policy of an app whose pages are on this port of localhost.
fn policy(port: u16) -> (String, String) {
    let text = format!(
        r#"app = "notes"
display_name = "Notes"
origins = ["https://localhost:{port}"]
relying_party = {{ id = "localhost", name = "Notes" }}
[release]
"device-secret" = ["pin", "passkey", "recovery-code", "totp"]
"app-key" = ["pin", "passkey", "recovery-code", "totp"]
"notes" = ["pin", "passkey", "recovery-code", "totp", "device"]
"#
    );
    ("notes".into(), text)
}

/// An app on the same pages whose secrets the daemon can not open.
fn sealed(port: u16) -> (String, String) {
    let text = format!(
        r#"app = "sealed"
display_name = "Sealed notes"
origins = ["https://localhost:{port}"]
relying_party = {{ id = "localhost", name = "Sealed notes" }}
[secrets]
server_slot = "forbidden"
"#
    );
    ("sealed".into(), text)
}

/// Messages go into a file, which is allowed beside a listener for development only.
fn delivery() -> String {
    let port = free_port();
    format!(
        "[delivery]\noutbox = \"outbox.jsonl\"\n\
         [listen.development]\nlisten = \"127.0.0.1:{port}\"\nurl = \"http://localhost:{port}\"\n"
    )
}

/// Runs one file of stories against a daemon of its own; returns how many were told.
async fn stories(file: &str) -> usize {
    assert!(
        std::path::Path::new(CHROMIUM).exists(),
        "these tests need a browser: apt install chromium, or run scripts/ensure-tools test"
    );
    let pages = free_port();
    let mut app = TestApp::with(Setup {
        policies: vec![policy(pages), sealed(pages)],
        config: delivery(),
        ..Setup::default()
    })
    .await;
    std::fs::write(app.path("authority.pem"), &app.ca).unwrap();
    let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let artefacts = client().join("../target/client-artefacts");
    std::fs::create_dir_all(&artefacts).unwrap();
    let mut command = node(&["scripts/test.mjs", file]);
    command
        .env("NODE_EXTRA_CA_CERTS", app.path("authority.pem"))
        .env("CUSTODYD_URL", &app.url)
        .env("CUSTODYD_APP", "notes")
        .env("CUSTODYD_REALM", REALM)
        .env("CUSTODYD_FOLDER", app.dir.path())
        .env("CUSTODYD_PAGES", pages.to_string())
        .env("CUSTODYD_ARTEFACTS", &artefacts)
        .env(
            "CUSTODYD_CONTROL",
            control.local_addr().unwrap().port().to_string(),
        );
    let mut told = tokio::task::spawn_blocking(move || command.output());
    let output = loop {
        tokio::select! {
            output = &mut told => break output.unwrap().unwrap(),
            asked = control.accept() => obey(&mut app, asked.unwrap().0).await,
        }
    };
    let said = said(&output);
    assert!(output.status.success(), "{file}:\n{said}");
    passed(&said)
}

/// One word: `kill` or `start`.
async fn obey(app: &mut TestApp, mut asked: tokio::net::TcpStream) {
    let mut word = String::new();
    BufReader::new(&mut asked)
        .read_line(&mut word)
        .await
        .unwrap();
    match word.trim() {
        "kill" => app.kill(),
        "start" => app.launch().await,
        other => panic!("unknown word {other:?}"),
    }
    asked.write_all(b"ok\n").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows() {
    assert_eq!(stories("e2e/flows.ts").await, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways_back() {
    assert_eq!(stories("e2e/ways-back.ts").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme() {
    assert_eq!(stories("e2e/readme.ts").await, 1);
}

/// No browser in this one: npm's own library, in Node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opaque() {
    assert_eq!(stories("e2e/opaque.ts").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline() {
    assert_eq!(stories("e2e/offline.ts").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots() {
    assert_eq!(stories("e2e/slots.ts").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo() {
    assert_eq!(stories("e2e/demo.ts").await, 2);
}
