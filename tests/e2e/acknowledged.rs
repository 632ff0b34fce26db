//! An owner who asks while something fails, and afterwards holds what was answered against what is there.

use custodyd_tests::device::b64;
use custodyd_tests::{Answer, Device, TestApp};
use serde_json::json;

const PIN: &str = "830517";
const SECRET: &str = "device-secret";
/// Attempts at the PIN, in the policy.
pub(crate) const LEFT: u64 = 100;

/// What the owner knows: nothing of it may become untrue.
pub(crate) struct Owner {
    device: Device,
    /// Attempts at the PIN that the last answer left.
    left: u64,
    /// Charges of guesses that were cut off.
    in_flight: u64,
    /// The entity tag and content of the secret that were acknowledged last.
    kept: (String, Vec<u8>),
}

/// What was asked in one turn, and whether an answer came.
pub(crate) struct Asked {
    pub(crate) guess: Option<Answer>,
    content: Vec<u8>,
    pub(crate) stored: Option<Answer>,
}

impl Owner {
    pub(crate) async fn enrolled(app: &TestApp) -> Self {
        let mut device = app.device("notes");
        device.enrol().await;
        device.set_pin(PIN).await.expect(200);
        let content = b"first".to_vec();
        let stored = device.back_up(SECRET, &content).await.expect(200);
        Self {
            device,
            left: LEFT,
            in_flight: 0,
            kept: (stored.header("etag").to_owned(), content),
        }
    }

    /// A guess, and a new content of the secret.
    pub(crate) async fn ask(&mut self, turn: u32) -> Asked {
        let session = self.device.token.take();
        let body = json!({"account": self.device.account, "pin": "111111", "release": []});
        let guess = (self.device).prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
        let guess = self.device.attempt(&guess).await;
        self.device.token = session;
        let content = format!("content {turn}").into_bytes();
        let path = format!("/v1/account/secrets/{SECRET}");
        let body = json!({"server_slot": b64(&content)});
        let mut put = self.device.prepare("PUT", &path, Some(body));
        put.headers.push(("If-Match".into(), self.kept.0.clone()));
        let stored = self.device.attempt(&put).await;
        Asked {
            guess,
            content,
            stored,
        }
    }

    /// What was told must hold; what was not told may have happened or not.
    pub(crate) async fn check(&mut self, asked: &Asked) {
        let told = asked
            .guess
            .as_ref()
            .filter(|answer| said(answer))
            .map(|answer| {
                answer.refused("401 pin-wrong");
                answer.body["attempts_left"].as_u64().unwrap()
            });
        assert!(told.is_none_or(|left| left == self.left - 1));
        let stored = asked
            .stored
            .as_ref()
            .filter(|answer| said(answer))
            .map(|answer| {
                let answer = answer.clone().expect(200);
                answer.header("etag").to_owned()
            });
        let secret = self.device.recover(SECRET).await.expect(200);
        let shown = (
            secret.header("etag").to_owned(),
            secret.body["server_slot"].as_str().unwrap().to_owned(),
        );
        let new = shown.1 == b64(&asked.content);
        match &stored {
            Some(etag) => assert!(new && *etag == shown.0, "acknowledged and not there"),
            None => assert!(new || (shown.0 == self.kept.0 && shown.1 == b64(&self.kept.1))),
        }
        if new {
            self.kept = (shown.0, asked.content.clone());
        }
        let session = self.device.token.clone();
        let next = self.device.try_pin("111111", &[]).await;
        next.refused("401 pin-wrong");
        let left = next.body["attempts_left"].as_u64().unwrap();
        let charged = self.left - 1 - left;
        match told {
            Some(_) => assert_eq!(charged, 1, "a guess that was told"),
            None => assert!(charged <= 1, "{charged} of one guess"),
        }
        self.left = left;
        self.in_flight += u64::from(told.is_none()) * charged;
        if left < 5 {
            self.start_over().await;
        }
        self.device.token = session;
    }

    /// With the right PIN. Charges without an outcome stay: somebody may still hold the guess.
    async fn start_over(&mut self) {
        self.device.try_pin(PIN, &[]).await.expect(201);
        let next = self.device.try_pin("111111", &[]).await;
        next.refused("401 pin-wrong");
        self.left = next.body["attempts_left"].as_u64().unwrap();
        assert!(LEFT - 1 - self.left <= self.in_flight);
    }
}

/// What was answered with 5xx may have been done.
fn said(answer: &Answer) -> bool {
    answer.status < 500
}
