//! The log as it is given out: tiles and entries edited behind the daemon's back.

use custodyd_tests::admin::literal;
use custodyd_tests::log::{self, Auditor, CREDENTIAL, Verifier};
use custodyd_tests::{Device, Setup, TestApp};

use crate::{PUT_BODIES, PUT_ENTRIES, uncached_with, victim};

async fn serving() -> (TestApp, Device, Auditor, Verifier) {
    let app = uncached_with(Setup {
        config: log::section(),
        ..Setup::default()
    })
    .await;
    let (mut device, _) = victim(&app, "notes").await;
    let jwks = device.call("GET", "/.well-known/jwks.json", None).await;
    let verifier = Verifier::new(&jwks.expect(200).body);
    let auditor = Auditor {
        http: device.http.clone(),
        url: device.url.clone(),
        credential: Some(CREDENTIAL.into()),
    };
    (app, device, auditor, verifier)
}

#[tokio::test]
async fn an_edited_tile_is_an_error_and_never_a_wrong_proof() {
    let (mut app, mut device, auditor, verifier) = serving().await;
    while verifier.checkpoint(&auditor.note().await).unwrap().size <= 260 {
        for _ in 0..20 {
            device.try_device(&[]).await.expect(201);
        }
    }
    // Tiles that became full lately are in the daemon's memory, and need not be read.
    app.restart().await;
    let checkpoint = verifier.checkpoint(&auditor.note().await).unwrap();
    let honest = auditor.leaves(&checkpoint).await;
    let mut admin = app.admin().await;
    let data = admin
        .blob("SELECT data FROM log_tiles WHERE level = 0 AND idx = 0")
        .await;
    let mut edited = data.clone();
    edited[7 * 32] ^= 1;
    let set = |data: &[u8]| {
        format!(
            "UPDATE log_tiles SET data = {} WHERE level = 0 AND idx = 0",
            literal(data)
        )
    };
    assert_eq!(admin.run(&set(&edited)).await, 1);
    for path in [
        "/log/tile/0/000",
        "/log/tile/0/000.p/3",
        "/log/tile/entries/000",
    ] {
        assert_eq!(auditor.refusal(path).await, "500 log-tampered", "{path}");
    }
    // The newest events' paths lead past that tile's inside; the oldest page's do not.
    device.try_device(&[]).await.expect(201);
    let mut query = String::new();
    let refusal = loop {
        let path = format!("/v1/account/events{query}");
        let answer = device.call("GET", &path, None).await;
        match answer.body["next"].as_str() {
            Some(next) if answer.status == 200 => {
                verifier.events(&answer.body).unwrap();
                query = format!("?from={next}");
            }
            _ => break answer.refusal(),
        }
    };
    assert_eq!(refusal, "500 log-tampered");
    assert!(app.log().contains("log-tampered"));
    // Control: with the row as it was, the same log is given out.
    assert_eq!(admin.run(&set(&data)).await, 1);
    assert!(auditor.leaves(&checkpoint).await == honest);
    let path = format!("/v1/account/events{query}");
    let page = device.call("GET", &path, None).await.expect(200);
    verifier.events(&page.body).unwrap();
}

#[tokio::test]
async fn an_edited_entry_is_not_given_to_an_auditor() {
    let (app, _device, auditor, verifier) = serving().await;
    let checkpoint = verifier.checkpoint(&auditor.note().await).unwrap();
    let honest = auditor.entries(&checkpoint).await;
    let mut admin = app.admin().await;
    let bundle = format!("/log/tile/entries/{}", log::part(0, checkpoint.size));
    for sql in [
        "UPDATE log_entries SET leaf = zeroblob(33) WHERE idx = 2",
        "UPDATE log_entries SET leaf = x'' WHERE idx = 2",
        "UPDATE log_entries SET leaf = zeroblob(100000) WHERE idx = 2",
        "DELETE FROM log_entries WHERE idx = 2",
    ] {
        assert_eq!(admin.run(sql).await, 1);
        assert_eq!(auditor.refusal(&bundle).await, "500 log-tampered", "{sql}");
        let mend = format!(
            "INSERT INTO log_entries VALUES (2, {}) {PUT_ENTRIES}",
            literal(&honest[2])
        );
        admin.run(&mend).await;
        assert_eq!(auditor.entries(&checkpoint).await, honest);
    }
}

/// Anybody can compute a leaf for a salt of their own, and the body opens as before.
#[tokio::test]
async fn an_event_whose_salt_and_leaf_were_replaced_is_not_proven() {
    let (app, mut device, ..) = serving().await;
    let events = "/v1/account/events";
    let page = device.call("GET", events, None).await.expect(200).body;
    let mut log = page["events"][0]["log"].clone();
    let index = log["index"].as_u64().unwrap();
    let honest = (log::leaf(&log), log["salt"].clone());
    log["salt"] = custodyd_tests::device::b64(&[9; 32]).into();
    let forged = log::leaf(&log);
    let mut admin = app.admin().await;
    admin
        .run("CREATE TEMP TABLE b AS SELECT * FROM log_bodies")
        .await;
    let leaf = |leaf: &[u8]| {
        format!(
            "UPDATE log_entries SET leaf = {} WHERE idx = {index}",
            literal(leaf)
        )
    };
    let salt = format!(
        "UPDATE log_bodies SET salt = {} WHERE idx = {index}",
        literal(&[9; 32])
    );
    assert_eq!(admin.run(&salt).await, 1);
    let refused = device.call("GET", events, None).await;
    refused.refused("500 record-tampered");
    assert_eq!(admin.run(&leaf(&forged)).await, 1);
    let refused = device.call("GET", events, None).await;
    refused.refused("500 log-tampered");
    // Control.
    let mend = format!("INSERT INTO log_bodies SELECT * FROM b WHERE true {PUT_BODIES}");
    admin.run(&mend).await;
    assert_eq!(admin.run(&leaf(&honest.0)).await, 1);
    device.call("GET", events, None).await.expect(200);
}
