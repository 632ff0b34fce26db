//! What a device reports of the time without a network.

use custodyd_tests::TestApp;
use serde_json::json;

const REPORT: &str = "/v1/account/offline-report";

#[tokio::test]
async fn wrong_pins_typed_offline_are_an_event_that_other_devices_read() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    // The device key alone says so, before its owner has typed anything.
    device.try_device(&[]).await.expect(201);
    let report = json!({"wrong_pins": 7});
    device.call("POST", REPORT, Some(report)).await.expect(204);
    let page = device
        .call("GET", "/v1/account/events", None)
        .await
        .expect(200);
    let event = &page.body["events"][0];
    assert_eq!(event["kind"], "offline-pins-refused", "{page:?}");
    assert_eq!(event["detail"], "7");
    assert_eq!(event["device_id"], device.key.thumbprint());
}

#[tokio::test]
async fn a_report_of_nothing_or_of_nonsense_is_refused() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for report in [
        json!({"wrong_pins": 0}),
        json!({"wrong_pins": 1_000_001}),
        json!({"wrong_pins": -1}),
        json!({}),
        json!({"wrong_pins": 1, "pins": ["1234"]}),
    ] {
        let answer = device.call("POST", REPORT, Some(report)).await;
        answer.refused("400 malformed-request");
    }
    device.call("DELETE", "/v1/session", None).await.expect(204);
    let answer = device
        .call("POST", REPORT, Some(json!({"wrong_pins": 1})))
        .await;
    assert_eq!(answer.status, 401, "{answer:?}");
}
