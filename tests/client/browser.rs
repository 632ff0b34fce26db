//! Flows in Debian's Chromium: a real daemon over TLS, pages on an origin of the app's policy.
//!
//! The stories are in `client/e2e`. A story can have the daemon killed and started again through a
//! small control port, since the daemon is this process's child.

use custodyd_tests::app::{REALM, free_port};
use custodyd_tests::token::SoftToken;
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
"key-share" = ["pin", "passkey", "recovery-code"]
"#
    );
    ("notes".into(), text)
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
    let pages = free_port();
    let app = TestApp::with(Setup {
        policies: vec![policy(pages)],
        config: delivery(),
        ..Setup::default()
    })
    .await;
    told(file, pages, &mut [(REALM.to_owned(), app)]).await
}

/// The same against several realms, each with a daemon and a token of its own.
async fn stories_of_realms(file: &str, names: &[&str]) -> usize {
    let pages = free_port();
    let mut apps: Vec<(String, TestApp)> = Vec::new();
    for name in names {
        let setup = Setup {
            policies: vec![policy(pages)],
            config: delivery(),
            ..Setup::default()
        };
        let mut app = TestApp::prepared(setup, SoftToken::fresh());
        let file = app.path("custodyd.toml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replacen(REALM, name, 1)).unwrap();
        // One certificate for all: a browser's store wants no two authorities of one name.
        if let Some((_, first)) = apps.first() {
            for file in ["certificate.pem", "private-key.pem"] {
                std::fs::copy(first.path(file), app.path(file)).unwrap();
            }
            app.ca.clone_from(&first.ca);
        }
        app.found().await;
        apps.push(((*name).to_owned(), app));
    }
    told(file, pages, &mut apps).await
}

async fn told(file: &str, pages: u16, apps: &mut [(String, TestApp)]) -> usize {
    assert!(
        std::path::Path::new(CHROMIUM).exists(),
        "these tests need a browser: apt install chromium, or run scripts/ensure-tools test"
    );
    let realms: Vec<_> = apps
        .iter()
        .map(|(name, app)| serde_json::json!({ "url": app.url, "realm": name }))
        .collect();
    let (name, app) = &apps[0];
    std::fs::write(app.path("authority.pem"), &app.ca).unwrap();
    let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let artefacts = client().join("../target/client-artefacts");
    std::fs::create_dir_all(&artefacts).unwrap();
    let mut command = node(&["scripts/test.mjs", file]);
    command
        .env("NODE_EXTRA_CA_CERTS", app.path("authority.pem"))
        .env("CUSTODYD_URL", &app.url)
        .env("CUSTODYD_APP", "notes")
        .env("CUSTODYD_REALM", name)
        .env("CUSTODYD_REALMS", serde_json::Value::from(realms).to_string())
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
            asked = control.accept() => obey(apps, asked.unwrap().0).await,
        }
    };
    let said = said(&output);
    assert!(output.status.success(), "{file}:\n{said}");
    passed(&said)
}

/// `kill` or `start`, and which of them.
async fn obey(apps: &mut [(String, TestApp)], mut asked: tokio::net::TcpStream) {
    let mut line = String::new();
    BufReader::new(&mut asked)
        .read_line(&mut line)
        .await
        .unwrap();
    let (word, which) = line.trim().split_once(' ').unwrap();
    let app = &mut apps[which.parse::<usize>().unwrap()].1;
    match word {
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
async fn demo() {
    assert_eq!(stories("e2e/demo.ts").await, 2);
}

/// Three realms of independent operators, of which any two give the key back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threshold() {
    let names = ["a.example", "b.example", "c.example"];
    assert_eq!(stories_of_realms("e2e/threshold.ts", &names).await, 6);
}
