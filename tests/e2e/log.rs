//! Receipts, proofs and the log as an auditor reads it, each checked by a verifier that knows the
//! realm's published keys and nothing else.

use custodyd_tests::log::{self, Auditor, CREDENTIAL, Verifier};
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::Value;

async fn serving() -> TestApp {
    TestApp::with(Setup {
        config: log::section(),
        ..Setup::default()
    })
    .await
}

async fn verifier(device: &mut Device) -> Verifier {
    let jwks = device.call("GET", "/.well-known/jwks.json", None).await;
    Verifier::new(&jwks.expect(200).body)
}

fn auditor(device: &Device) -> Auditor {
    Auditor {
        http: device.http.clone(),
        url: device.url.clone(),
        credential: Some(CREDENTIAL.into()),
    }
}

async fn page(device: &mut Device, query: &str) -> Value {
    let path = format!("/v1/account/events{query}");
    device.call("GET", &path, None).await.expect(200).body
}

/// The event that an answer's receipt is of, by the owner's trail.
fn event_of<'p>(page: &'p Value, receipt: &Value) -> &'p Value {
    let events = page["events"].as_array().unwrap();
    let here = |event: &&Value| event["log"]["index"] == receipt["index"];
    events.iter().find(here).unwrap()
}

#[tokio::test]
async fn enrolment_and_sign_ins_carry_receipts_that_anybody_can_check() {
    let app = serving().await;
    let mut device = app.device("notes");
    let mut receipts = vec![("account-created", device.enrol().await)];
    let verifier = verifier(&mut device).await;
    device.set_pin("830517").await.expect(200);
    device.back_up("device-secret", b"secret").await.expect(200);
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    let released = device
        .try_pin("830517", &["device-secret"])
        .await
        .expect(201);
    assert!(released.body["secrets"]["device-secret"].is_object());
    receipts.push(("session-started", released));
    let login = device.assertion(&mut authenticator, None).await;
    receipts.push((
        "session-started",
        device.finish_passkey(login).await.expect(201),
    ));
    receipts.push(("session-started", device.try_device(&[]).await.expect(201)));

    let page = page(&mut device, "").await;
    verifier.events(&page).unwrap();
    for (kind, answer) in receipts {
        let receipt = &answer.body["log"];
        let text = receipt["proof"].as_str().unwrap();
        let proven = verifier.tlog_proof(text).unwrap();
        assert_eq!(receipt["index"], proven.index);
        assert_eq!(receipt["leaf"], custodyd_tests::device::b64(&proven.leaf));
        let event = event_of(&page, receipt);
        assert_eq!(event["kind"], kind);
        assert_eq!(log::leaf(&event["log"]), proven.leaf);
        // Controls: another index, another entry, another size, another log's name.
        let index = format!("index {}\n", proven.index);
        let size = format!("\n{}\n", proven.checkpoint.size);
        for (from, to) in [
            (index.as_str(), "index 1000000\n"),
            ("extra A", "extra B"),
            (size.as_str(), "\n1\n"),
            ("custodyd/log/1", "custodyd/log/2"),
            ("@v1", "@v2"),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            assert!(
                verifier.tlog_proof(&text.replacen(from, to, 1)).is_err(),
                "{from}"
            );
        }
    }
    // A refusal carries none.
    let wrong = device.try_pin("830518", &[]).await;
    assert!(wrong.expect(401).body.get("log").is_none());
}

#[tokio::test]
async fn a_repeated_enrolment_gets_the_receipt_of_the_first() {
    let app = serving().await;
    let mut device = app.device("notes");
    device.meet().await;
    let mut indexes = Vec::new();
    for _ in 0..2 {
        let body = serde_json::json!({"app_key_proof": device.app_key_proof()});
        let mut call = device.prepare("POST", "/v1/apps/{app}/accounts", Some(body));
        call.headers.push(("Idempotency-Key".into(), "once".into()));
        let answer = device.run(&call).await.expect(201);
        let proof = answer.body["log"]["proof"].as_str().unwrap().to_owned();
        let verifier = verifier(&mut device).await;
        indexes.push(verifier.tlog_proof(&proof).unwrap().index);
    }
    assert_eq!(indexes[0], indexes[1]);
}

#[tokio::test]
async fn events_are_proven_and_none_is_missing_and_the_log_continues_what_was_kept() {
    let mut app = serving().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let verifier = verifier(&mut device).await;
    let first = verifier.events(&page(&mut device, "").await).unwrap();
    device.set_pin("830517").await.expect(200);
    app.restart().await;
    let since = format!("?since={}", first.size);
    let later = page(&mut device, &since).await;
    let second = verifier.events(&later).unwrap();
    assert!(second.size > first.size);
    log::continues(&first, &second, &later["consistency"]).unwrap();
    // The oldest is the first, and the newest is followed by nothing.
    let events = later["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["number"], 1);
    assert_eq!(later["complete_from"], 1);
    // Controls: an event left out, another's proof, another checkpoint.
    let mut without = later.clone();
    without["events"].as_array_mut().unwrap().remove(1);
    assert!(verifier.events(&without).is_err());
    let mut swapped = later.clone();
    swapped["events"][0]["log"]["proof"] = later["events"][1]["log"]["proof"].clone();
    assert!(verifier.events(&swapped).is_err());
    let mut old = later.clone();
    old["events"][0]["log"]["salt"] = later["events"][1]["log"]["salt"].clone();
    assert!(verifier.events(&old).is_err());
    assert!(log::continues(&second, &first, &later["consistency"]).is_err());
    // Nothing is proven of a size that the log does not have.
    let beyond = page(&mut device, "?since=1000000").await;
    assert!(beyond.get("consistency").is_none());
    device
        .call("GET", "/v1/account/events?since=-1", None)
        .await
        .refused("400 malformed-request");
}

#[tokio::test]
async fn an_auditor_rebuilds_the_log_from_tiles_and_follows_it() {
    let mut app = serving().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let verifier = verifier(&mut device).await;
    let auditor = auditor(&device);
    let note = auditor.note().await;
    let first = verifier.checkpoint(&note).unwrap();
    assert_eq!(auditor.note().await, note, "signed once for each head");
    let entries = auditor.entries(&first).await;
    assert!(entries.iter().any(|entry| entry[0] == 1), "events");
    assert_eq!(entries.last().unwrap()[0], 2, "a batch ends with the state");

    // Past a full tile, and over a restart.
    while verifier.checkpoint(&auditor.note().await).unwrap().size <= 300 {
        for _ in 0..20 {
            device.try_device(&[]).await.expect(201);
        }
    }
    app.restart().await;
    let second = verifier.checkpoint(&auditor.note().await).unwrap();
    let leaves = auditor.leaves(&second).await;
    assert_eq!(auditor.entries(&second).await[..entries.len()], entries);
    let kept = usize::try_from(first.size).unwrap();
    assert!(log::root_of(&leaves[..kept]) == first.root, "a fork");
    let above = log::tile(&auditor.read("/log/tile/1/000.p/1").await);
    assert!(above == [log::root_of(&leaves[..256])]);
    // The account's receipts lead to the same log.
    let page = page(&mut device, "").await;
    verifier.events(&page).unwrap();
    for event in page["events"].as_array().unwrap() {
        let index = usize::try_from(event["log"]["index"].as_u64().unwrap()).unwrap();
        if index < leaves.len() {
            let hash = tlog_tiles::record_hash(&log::leaf(&event["log"]));
            assert!(hash == leaves[index]);
        }
    }
}

#[tokio::test]
async fn only_auditors_read_and_only_what_is_there() {
    let app = serving().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut auditor = auditor(&device);
    let verifier = verifier(&mut device).await;
    let size = verifier.checkpoint(&auditor.note().await).unwrap().size;
    for (path, refusal) in [
        (
            format!("/log/tile/0/{}", log::part(0, size + 1)),
            "404 not-found",
        ),
        ("/log/tile/0/000".into(), "404 not-found"),
        ("/log/tile/63/000.p/1".into(), "404 not-found"),
        ("/log/tile/entries/x999/999".into(), "404 not-found"),
        ("/log/tile/0/000.p/0".into(), "400 malformed-request"),
        ("/log/tile/64/000".into(), "400 malformed-request"),
        ("/log/tile/0/x000/000".into(), "400 malformed-request"),
        ("/log/tile/0/%30%30%30".into(), "400 malformed-request"),
        ("/log".into(), "404 no-such-route"),
    ] {
        assert_eq!(auditor.refusal(&path).await, refusal, "{path}");
    }
    let part = format!("/log/tile/0/{}", log::part(0, size));
    let (_, headers, _) = auditor.get(&part).await;
    assert_eq!(
        headers["cache-control"],
        "private, max-age=31536000, immutable"
    );
    assert_eq!(headers["content-type"], "application/octet-stream");
    let (_, headers, _) = auditor.get("/log/checkpoint").await;
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    for credential in [
        None,
        Some("wrong".to_owned()),
        Some(format!("{CREDENTIAL} ")),
    ] {
        auditor.credential = credential;
        for path in ["/log/checkpoint", &part, "/log/tile/0/nonsense"] {
            let refusal = auditor.refusal(path).await;
            let trimmed = auditor.credential.as_deref().map(str::trim) == Some(CREDENTIAL);
            // A header's value ends before the blanks at its end.
            assert!(trimmed || refusal == "401 credential-invalid", "{refusal}");
        }
    }
    auditor.credential = None;
    let (_, headers, _) = auditor.get("/log/checkpoint").await;
    assert_eq!(headers["www-authenticate"], "Bearer");
}
