//! The list of pages that may use an app's passkeys (WebAuthn Level 3, section 5.11). That the
//! daemon takes assertions from exactly these pages is tested beside `factors/passkey`.

use custodyd_tests::app::{Setup, TestApp};
use custodyd_tests::device::Answer;
use serde_json::json;

fn setup() -> Setup {
    Setup {
        policies: vec![(
            "notes".into(),
            r#"app = "notes"
origins = ["https://notes.example.com", "https://notes.example.org"]
[relying_party]
id = "notes.example.com"
related_origins = ["https://notes.example.org"]
"#
            .into(),
        )],
        ..Setup::default()
    }
}

/// By HTTP/1.1, where a header names the host; by HTTP/2, where the address does.
async fn ask(app: &TestApp, host: Option<&str>) -> Answer {
    let authority = reqwest::Certificate::from_pem(app.ca.as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]);
    let client = match host {
        Some(_) => client.http1_only(),
        None => client.http2_prior_knowledge(),
    };
    let url = format!("{}/.well-known/webauthn", app.url);
    let mut request = client.build().unwrap().get(url);
    if let Some(host) = host {
        request = request.header("Host", host);
    }
    let answer = request.send().await.unwrap();
    Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.json().await.unwrap(),
    }
}

#[tokio::test]
async fn the_list_is_shown_to_the_relying_partys_own_host_only() {
    let app = TestApp::with(setup()).await;
    for host in [
        "notes.example.com",
        "notes.example.com:8443",
        "NOTES.example.com",
    ] {
        let answer = ask(&app, Some(host)).await.expect(200);
        assert_eq!(
            answer.body,
            json!({"origins": ["https://notes.example.com", "https://notes.example.org"]})
        );
        assert!(
            answer
                .header("content-type")
                .starts_with("application/json")
        );
        assert!(answer.header("cache-control").contains("max-age"));
    }
    for host in [
        "example.com",
        "notes.example.org",
        "evil.example",
        "[::1]:1",
        "",
    ] {
        ask(&app, Some(host)).await.refused("404 no-relying-party");
    }
    ask(&app, None).await.refused("404 no-relying-party");
}
