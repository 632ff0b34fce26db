//! Witnesses: who has cosigned, who is not believed, and who has seen another log.
//!
//! Each thing that must be refused or told has its control: the same daemon with an honest witness,
//! or the same attack under a witness that checks nothing.

mod known;
mod put_back;

use std::time::{Duration, Instant};

use custodyd_tests::log::{self, Auditor, CREDENTIAL, Verifier};
use custodyd_tests::witness::{Manner, cosigned};
use custodyd_tests::{Device, Setup, TestApp, Witness};
use serde_json::Value;

const ORIGIN: &str = "test.example/custodyd/log/1";
/// The log's own line, and no other.
const ALONE: usize = 1;

struct Scene {
    app: TestApp,
    device: Device,
    auditor: Auditor,
    verifier: Verifier,
    jwks: Value,
}

/// A daemon with a section `[witnesses]`, an account and an auditor.
async fn scene(section: String) -> Scene {
    let app = TestApp::with(Setup {
        config: format!("{}{section}", log::section()),
        ..Setup::default().in_a_file()
    })
    .await;
    let mut device = app.device("notes");
    device.enrol().await;
    let jwks = device.call("GET", "/.well-known/jwks.json", None).await;
    let jwks = jwks.expect(200).body;
    let auditor = Auditor {
        http: device.http.clone(),
        url: device.url.clone(),
        credential: Some(CREDENTIAL.into()),
    };
    let verifier = Verifier::new(&jwks);
    Scene {
        app,
        device,
        auditor,
        verifier,
        jwks,
    }
}

impl Scene {
    async fn metric(&self, line: &str) {
        self.within(line, async || {
            let (_, metrics) = self.app.operator("/metrics").await;
            metrics.lines().any(|found| found == line)
        })
        .await;
    }

    async fn value(&self, name: &str) -> Option<u64> {
        let (_, metrics) = self.app.operator("/metrics").await;
        let found = metrics.lines().find_map(|line| line.strip_prefix(name));
        found.and_then(|value| value.trim().parse().ok())
    }

    async fn logged(&self, text: &str) {
        self.within(text, async || self.app.log().contains(text))
            .await;
    }

    async fn within(&self, what: &str, is: impl AsyncFn() -> bool) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while !is().await {
            assert!(Instant::now() < give_up, "{what} does not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The newest checkpoint once it has so many signature lines.
    async fn note_with(&self, lines: usize) -> String {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            let note = self.auditor.note().await;
            if signatures(&note) == lines {
                return note;
            }
            assert!(
                Instant::now() < give_up,
                "{lines} lines do not come: {note}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn size(&self) -> u64 {
        let note = self.auditor.note().await;
        self.verifier.checkpoint(&note).unwrap().size
    }

    async fn grow(&mut self, times: usize) {
        for _ in 0..times {
            self.device.try_device(&[]).await.expect(201);
        }
    }

    async fn witnessed(&self) -> Option<String> {
        let (status, _, body) = self.auditor.get("/log/checkpoint/witnessed").await;
        (status == 200).then(|| String::from_utf8(body).unwrap())
    }
}

fn signatures(note: &str) -> usize {
    note.rsplit_once("\n\n").unwrap().1.lines().count()
}

fn submissions(witness: &str, outcome: &str) -> String {
    let name = "custodyd_witness_submissions_total";
    format!("{name}{{witness=\"{witness}\",outcome=\"{outcome}\"}}")
}

fn disputed(witness: &str, is: u8) -> String {
    format!("custodyd_witness_disputed{{witness=\"{witness}\"}} {is}")
}

#[tokio::test]
async fn cosignatures_stand_below_the_checkpoint_and_verify() {
    let witnesses = [
        Witness::start("one.example/w").await,
        Witness::start("two.example/w").await,
    ];
    let [one, two] = &witnesses;
    let mut scene = scene(Witness::section(2, "", &[one, two])).await;
    // Nobody knows the log yet: the daemon serves, and says what the operators have to be given.
    scene
        .logged("it does not know the origin of this log")
        .await;
    // In the form in which other tools take it.
    let key = scene.jwks["keys"].as_array().unwrap().iter();
    let key = key.filter_map(|jwk| jwk["note_key_id"].as_str()).next();
    let vkey = format!("{ORIGIN}+{}+AjBZMBMG", key.unwrap());
    assert!(scene.app.log().contains(&vkey));
    assert_eq!(
        scene.auditor.refusal("/log/checkpoint/witnessed").await,
        "404 not-found"
    );
    one.follow(ORIGIN, &scene.jwks);
    let note = scene.note_with(ALONE + 1).await;
    assert!(cosigned(&note, &one.vkey()).is_some());
    assert!(cosigned(&note, &two.vkey()).is_none());
    assert_eq!(scene.witnessed().await, None, "one of two is no quorum");
    two.follow(ORIGIN, &scene.jwks);
    let note = scene.note_with(ALONE + 2).await;
    let first = scene.verifier.checkpoint(&note).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    for witness in &witnesses {
        let time = cosigned(&note, &witness.vkey()).unwrap();
        assert!(time.abs_diff(now) < 60);
        assert!(cosigned(&note, &witness.wrong_vkey()).is_none());
    }
    scene.metric("custodyd_witness_quorum_missing 0").await;
    // The log grows: the newest has no lines yet, the one with a quorum is still to be had.
    scene.grow(3).await;
    let kept = scene.witnessed().await.unwrap();
    assert_eq!(signatures(&kept), ALONE + 2);
    let note = scene.note_with(ALONE + 2).await;
    let second = scene.verifier.checkpoint(&note).unwrap();
    assert!(second.size > first.size);
    // Events and receipts are proven against the same checkpoint.
    let page = scene.device.call("GET", "/v1/account/events", None).await;
    let page = page.expect(200).body;
    assert_eq!(signatures(page["checkpoint"].as_str().unwrap()), ALONE + 2);
    scene.verifier.events(&page).unwrap();
    // Sizes never went back, and after the first call no size was guessed.
    for witness in &witnesses {
        let calls = witness.calls();
        let good: Vec<_> = calls.iter().filter(|call| call.2 == 200).collect();
        assert!(
            good.windows(2).all(|pair| pair[0].1 == pair[1].0),
            "{calls:?}"
        );
        assert!(
            calls.iter().all(|call| [200, 404].contains(&call.2)),
            "{calls:?}"
        );
    }
}

#[tokio::test]
async fn a_witness_that_is_away_is_alerted_and_heals() {
    let mut witness = Witness::start("one.example/w").await;
    let section = Witness::section(1, "alert_after = \"3s\"", &[&witness]);
    let mut scene = scene(section).await;
    witness.follow(ORIGIN, &scene.jwks);
    let note = scene.note_with(ALONE + 1).await;
    scene.metric("custodyd_witness_quorum_missing 0").await;
    witness.go_away().await;
    scene.metric("custodyd_witness_quorum_missing 1").await;
    scene
        .logged("too few witnesses have cosigned the log")
        .await;
    scene.logged("it can not be reached").await;
    // It serves all the same, and the log grows.
    assert_eq!(scene.app.operator("/readyz").await.0, 200);
    scene.grow(2).await;
    // What was cosigned is still shown, and after a restart, too.
    let kept = scene.witnessed().await.unwrap();
    assert_eq!(
        scene.verifier.checkpoint(&kept),
        scene.verifier.checkpoint(&note)
    );
    scene.app.restart().await;
    assert_eq!(scene.witnessed().await.as_ref(), Some(&kept));
    assert!(cosigned(&kept, &witness.vkey()).is_some());
    scene.metric("custodyd_witness_quorum_missing 1").await;
    witness.come_back().await;
    scene.metric("custodyd_witness_quorum_missing 0").await;
    scene.logged("enough witnesses cosign the log again").await;
    scene.note_with(ALONE + 1).await;
    // A daemon of a new life does not know what it had cosigned: it asks, and goes on from there.
    let calls = witness.calls();
    let conflict = calls.iter().position(|call| call.2 == 409).unwrap();
    assert_eq!(calls[conflict].0, 0);
    assert_eq!(
        (calls[conflict + 1].0 > 0, calls[conflict + 1].2),
        (true, 200)
    );
    assert!(!scene.app.log().contains("knows another log"), "no dispute");
}

/// Whoever can write the file of cosignatures can take it away; they can not put words into it.
#[tokio::test]
async fn the_kept_cosignatures_are_verified_again() {
    let mut witness = Witness::start("one.example/w").await;
    let mut scene = scene(Witness::section(1, "", &[&witness])).await;
    witness.follow(ORIGIN, &scene.jwks);
    scene.note_with(ALONE + 1).await;
    witness.go_away().await;
    assert!(scene.app.stop());
    let file = scene.app.path("custodyd.sqlite-witnessed");
    let honest = std::fs::read_to_string(&file).unwrap();
    let (text, lines) = honest.rsplit_once("\n\n").unwrap();
    let mut lines = lines.lines();
    let (ours, theirs) = (lines.next().unwrap(), lines.next().unwrap());
    let size = text.lines().nth(1).unwrap();
    for forged in [
        honest.replacen(&format!("\n{size}\n"), &format!("\n1{size}\n"), 1),
        format!("{text}\n\n{ours}\n"),
        format!("{text}\n\n{theirs}\n"),
        honest.replacen("log/1", "log/2", 2),
        honest.replacen(theirs, &theirs.to_uppercase(), 1),
        String::new(),
    ] {
        assert_ne!(forged, honest);
        std::fs::write(&file, &forged).unwrap();
        scene.app.launch().await;
        assert_eq!(scene.witnessed().await, None, "{forged}");
        assert!(scene.app.stop());
    }
    scene.logged("does not verify for this log").await;
    // Control: the honest one is shown.
    std::fs::write(&file, &honest).unwrap();
    scene.app.launch().await;
    assert_eq!(scene.witnessed().await, Some(honest));
}

#[tokio::test]
async fn a_cosignature_that_is_not_the_witnesss_is_not_believed() {
    let witness = Witness::start("one.example/w").await;
    let mut scene = scene(Witness::section(1, "", &[&witness])).await;
    let outcome = submissions("w0", "not-believed");
    witness.set(Manner::Garbage);
    witness.follow(ORIGIN, &scene.jwks);
    for (manner, why) in [
        (Manner::Garbage, "no signature lines"),
        (Manner::Forging, "under its name that does not verify"),
        (Manner::Another, "no signature by its key"),
        (Manner::Elsewhere, "under its name that does not verify"),
        (Manner::Late, "a cosignature of another time"),
    ] {
        let before = scene.value(&outcome).await.unwrap_or(0);
        witness.set(manner);
        scene.grow(1).await;
        scene
            .within(why, async || scene.value(&outcome).await > Some(before + 1))
            .await;
        scene.logged(why).await;
        assert_eq!(signatures(&scene.auditor.note().await), ALONE, "{manner:?}");
        assert_eq!(scene.witnessed().await, None, "{manner:?}");
    }
    for (status, why) in [
        (403, "it does not know the key of this log"),
        (400, "it answered 400, which no witness does"),
        (302, "redirects are not followed"),
        (503, "it answered 503"),
    ] {
        witness.set(Manner::Failing(status));
        scene.logged(why).await;
    }
    assert_eq!(scene.value(&submissions("w0", "cosigned")).await, None);
    // Control: the same witness, honest.
    witness.set(Manner::Honest);
    let note = scene.note_with(ALONE + 1).await;
    assert!(cosigned(&note, &witness.vkey()).is_some());
}

/// The control of the test above from the other side: an honest witness under a wrong key, beside
/// one that hangs and holds up nobody.
#[tokio::test]
async fn a_witness_is_known_by_its_configured_key() {
    let names = ["right.example/w", "wrong.example/w", "slow.example/w"];
    let [right, wrong, slow] = names.map(Witness::start);
    let (right, wrong, slow) = (right.await, wrong.await, slow.await);
    slow.set(Manner::Hanging);
    let all = [&right, &wrong, &slow];
    let keys = [right.vkey(), wrong.wrong_vkey(), slow.vkey()];
    let scene = scene(Witness::section_with(1, "", &all, &keys)).await;
    for one in all {
        one.follow(ORIGIN, &scene.jwks);
    }
    let note = scene.note_with(ALONE + 1).await;
    assert!(cosigned(&note, &right.vkey()).is_some());
    wrong.wait_for(ORIGIN, 1).await;
    scene.logged("no signature by its key").await;
    assert_eq!(scene.value(&submissions("w1", "cosigned")).await, None);
    // The one that hangs is told to be away once its time is over, and heals.
    scene.logged("no answer within 10 s").await;
    slow.set(Manner::Honest);
    scene.note_with(ALONE + 2).await;
}

/// Honest restarts, and a monitor that shows a witness a checkpoint before the daemon does.
#[tokio::test]
async fn nobody_is_alerted_by_restarts_and_monitors() {
    let witness = Witness::start("one.example/w").await;
    let mut scene = scene(Witness::section(1, "", &[&witness])).await;
    witness.follow(ORIGIN, &scene.jwks);
    for _ in 0..2 {
        scene.note_with(ALONE + 1).await;
        witness.set(Manner::Failing(503));
        scene.grow(1).await;
        scene.logged("it answered 503").await;
        scene.app.kill();
        scene.app.launch().await;
        // The monitor knows what it showed before, and asks for the proof in between.
        let old = scene.size().await;
        let note = scene.auditor.note().await;
        witness.set(Manner::Honest);
        let (status, size) = witness.add_checkpoint(&format!("old 0\n\n{note}"));
        assert!(status == 200 || status == 409, "{status}");
        assert!(status == 200 || size.trim().parse::<u64>().unwrap() <= old);
    }
    scene.grow(1).await;
    scene.note_with(ALONE + 1).await;
    scene.metric(&disputed("w0", 0)).await;
    assert!(!scene.app.log().contains("another log"));
}

/// A size is a claim: it is told as one, and forgotten when the witness comes to its senses.
#[tokio::test]
async fn a_claim_of_a_longer_log_is_told_and_stops_nothing() {
    let witness = Witness::start("one.example/w").await;
    witness.set(Manner::Claiming(u64::MAX));
    let mut scene = scene(Witness::section(1, "", &[&witness])).await;
    witness.follow(ORIGIN, &scene.jwks);
    scene.metric(&disputed("w0", 1)).await;
    scene.logged("not shown, or not signed by this realm").await;
    scene.grow(1).await;
    // One that names another size each time is asked twice a turn, and no more.
    witness.set(Manner::Claiming(1));
    scene.logged("it names another size each time").await;
    witness.set(Manner::Honest);
    scene.note_with(ALONE + 1).await;
    scene.metric(&disputed("w0", 0)).await;
}
