//! The surface: malformed requests, CORS, the API description.

use custodyd_tests::TestApp;
use serde_json::json;

#[tokio::test]
async fn malformed_requests_get_a_clear_answer() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for (body, code) in [
        (&b"{"[..], "400 malformed-request"),
        (b"[]", "400 malformed-request"),
        (b"{\"pin\":1}", "400 malformed-request"),
        (b"{\"pin\":\"830517\",\"extra\":1}", "400 malformed-request"),
        (b"\xff\xfe", "400 malformed-request"),
        (b"{\"pin\":\"1\"}", "422 pin-weak"),
    ] {
        let mut call = device.prepare("PUT", "/v1/account/pin", Some(json!({})));
        call.body = Some(body.to_vec());
        let answer = device.run(&call).await;
        assert_eq!(answer.refusal(), code, "{}", String::from_utf8_lossy(body));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    // A value that does not fit may be the PIN itself: it is not sent back to be logged.
    let answer = device
        .call("PUT", "/v1/account/pin", Some(json!({"pin": 830_517})))
        .await;
    answer.refused("400 malformed-request");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("expected a string"), "{detail}");
    assert!(!detail.contains("830517"), "{detail}");
    let mut call = device.prepare("PUT", "/v1/account/pin", Some(json!({})));
    call.body = Some(vec![b' '; 70_000]);
    device.run(&call).await.refused("413 body-too-large");
    device
        .call("GET", "/v2/nothing", None)
        .await
        .refused("404 no-such-route");
    device
        .call("PUT", "/v1/account", Some(json!({})))
        .await
        .refused("405 method-not-allowed");
    let call = device.prepare("POST", "/v1/apps/no-such-app/sessions/pin", Some(json!({})));
    device.run(&call).await.refused("404 app-unknown");
}

#[tokio::test]
async fn a_foreign_origin_is_refused_and_the_apps_own_gets_cors_headers() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut call = device.prepare("GET", "/v1/account", None);
    call.headers = vec![("Origin".into(), "https://evil.example".into())];
    let answer = device.run(&call).await;
    answer.refused("403 origin-not-allowed");
    assert_eq!(answer.header("access-control-allow-origin"), "");
    // Another app's page is a foreign page as well.
    call.headers = vec![("Origin".into(), "https://wallet.example.com".into())];
    device.run(&call).await.refused("403 origin-not-allowed");
    call.headers = vec![("Origin".into(), "https://notes.example.com".into())];
    let answer = device.run(&call).await.expect(200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://notes.example.com"
    );
    for header in ["dpop-nonce", "date"] {
        let exposed = answer.header("access-control-expose-headers");
        assert!(exposed.split(',').any(|one| one == header), "{exposed}");
        assert!(!answer.header(header).is_empty(), "{header}");
    }
    assert!(answer.header("vary").contains("origin"));
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn openapi_describes_every_route() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    let api = device.call("GET", "/openapi.json", None).await.expect(200);
    assert!(api.body["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = api.body["paths"].as_object().unwrap();
    assert!(paths.len() >= 15, "{:?}", paths.keys());
    assert!(paths.contains_key("/v1/account/secrets/{name}"));
}

#[tokio::test]
async fn methods_of_the_callers_invention_become_no_metrics() {
    let app = TestApp::start().await;
    let device = app.device("notes");
    for method in ["GET", "AAAA1", "AAAA2"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}/nothing", app.url);
        let answer = device.http.request(method, url).send().await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    let (_, metrics) = app.operator("/metrics").await;
    assert!(metrics.contains(r#"method="GET""#), "{metrics}");
    assert!(metrics.contains(r#"method="other""#), "{metrics}");
    assert!(!metrics.contains("AAAA"), "{metrics}");
}
