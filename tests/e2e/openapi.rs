//! The API description held against the running daemon: for every operation, requests that are
//! wrong in each way that the description lets one think of, and one of the right shape. Each
//! answer must be declared, with its status, media type, shape and code; and what was wrong must
//! have changed nothing.

use custodyd_tests::app::{Setup, TestApp};
use custodyd_tests::description::{Description, Operation};
use custodyd_tests::device::{Answer, Call, Device};
use serde_json::{Map, Value, json};

const CREDENTIAL: &str = "backend-credential-of-the-test";

fn setup() -> Setup {
    use aws_lc_rs::digest::{SHA256, digest};
    let hash = hex::encode(digest(&SHA256, CREDENTIAL.as_bytes()).as_ref());
    Setup {
        config: custodyd_tests::log::section(),
        ..Setup::notes(&format!("[backend]\ncredentials_sha256 = [\"{hash}\"]"))
    }
}

/// One operation under test, and what went wrong with it so far.
struct Trial<'d> {
    api: &'d Description,
    operation: &'d Operation,
    device: Device,
    asked: usize,
    complaints: Vec<String>,
}

impl Trial<'_> {
    fn has_session(&self) -> bool {
        self.operation.about.to_string().contains(r#""session":[]"#)
    }

    fn is_public(&self) -> bool {
        self.operation.path.starts_with("/.well-known/")
    }

    fn is_for_auditors(&self) -> bool {
        self.operation.path.starts_with("/log/")
    }

    fn is_for_the_backend(&self) -> bool {
        self.operation.path.contains("/bindings/")
    }

    /// A request that names what is there, with nothing wrong in it yet.
    fn request(&self) -> Call {
        let path = self
            .operation
            .path
            .replace("{name}", "device-secret")
            .replace("{device_id}", "no-such-id")
            .replace("{level}", "0")
            .replace("{index}", "000.p/1");
        let mut call = self.device.prepare(&self.operation.method, &path, None);
        if self.is_for_auditors() {
            let credential = custodyd_tests::log::CREDENTIAL;
            call.headers
                .push(("Authorization".into(), format!("Bearer {credential}")));
        }
        if self.is_for_the_backend() {
            call.path
                .push_str(&format!("?account={}", self.device.account));
            call.headers
                .push(("Authorization".into(), format!("Bearer {CREDENTIAL}")));
        }
        if self.is_conditional() {
            call.headers.push(("If-Match".into(), "\"99\"".into()));
        }
        call
    }

    /// Writes to a secret say which version they replace.
    fn is_conditional(&self) -> bool {
        self.operation.path.ends_with("/{name}") && self.operation.method != "GET"
    }

    fn with_body(&self, body: impl Into<Vec<u8>>) -> Call {
        Call {
            body: Some(body.into()),
            ..self.request()
        }
    }

    async fn ask(&mut self, what: &str, call: &Call) -> Answer {
        let session = self.device.token.clone();
        if !self.has_session() {
            self.device.token = None;
        }
        let answer = self.device.run(call).await;
        self.device.token = session;
        self.asked += 1;
        if let Err(sentence) = self.api.allows(self.operation, &answer) {
            let line = format!("{what}: {sentence} ({})", answer.body);
            self.complain(&line);
        }
        answer
    }

    /// Asks for something that must be refused, and with this code where one is given.
    async fn refused(&mut self, what: &str, call: &Call, code: &str) {
        let answer = self.ask(what, call).await;
        let right =
            (400..500).contains(&answer.status) && (code.is_empty() || answer.refusal() == code);
        if !right {
            let line = format!(
                "{what}: expected {code:?}, got {} {}",
                answer.status, answer.body
            );
            self.complain(&line);
        }
    }

    fn complain(&mut self, line: &str) {
        let Operation { method, path, .. } = self.operation;
        self.complaints.push(format!("{method} {path}: {line}"));
    }

    /// Proof, session, origin and path, each wrong by itself.
    async fn around(&mut self) {
        let mut call = self.request();
        if self.is_public() {
            self.ask("as it is", &call).await;
            return;
        }
        if self.is_for_auditors() {
            self.ask("as it is", &call).await;
            call.headers.clear();
            self.refused("no credential", &call, "401 credential-invalid")
                .await;
            for (from, to) in [("000", "999"), ("000", "%30"), (".p/1", ".p/0")] {
                let mut call = self.request();
                call.path = call.path.replace(from, to);
                self.ask("another part", &call).await;
            }
        } else if self.is_for_the_backend() {
            call.headers.clear();
            self.refused("no credential", &call, "401 credential-invalid")
                .await;
            let mut call = self.request();
            call.path = call.path.replace("?account=", "?acount=");
            self.refused("another query", &call, "400 malformed-request")
                .await;
        } else {
            call.proof = Some(String::new());
            self.refused("an empty proof", &call, "401 dpop-invalid")
                .await;
            let mut call = self.request();
            call.headers = vec![("DPoP".into(), "twice".into())];
            self.refused("two proofs", &call, "400 malformed-request")
                .await;
            let mut call = self.request();
            call.headers = vec![("Origin".into(), "https://evil.example".into())];
            self.refused("a foreign page", &call, "403 origin-not-allowed")
                .await;
        }
        if self.has_session() {
            let session = self.device.token.take();
            let call = self.request();
            self.refused("no session", &call, "401 session-missing")
                .await;
            self.device.token = Some("nonsense".into());
            self.refused("another session", &call, "401 session-invalid")
                .await;
            self.device.token = session;
        }
        for (name, code) in [("{app}", "404 app-unknown"), ("{device_id}", "")] {
            if self.operation.path.contains(name) {
                let mut call = self.request();
                let there = if name == "{app}" {
                    "/notes/"
                } else {
                    "/no-such-id"
                };
                call.path = call.path.replace(there, &there.replace("no", "xx"));
                if name == "{app}" {
                    self.refused("another app", &call, code).await;
                }
                let mut call = self.request();
                call.path = call.path.replace(there, &there.replace("no", "%ff"));
                // No app's name has an escape.
                let code = match name {
                    "{app}" => "404 app-unknown",
                    _ => "400 malformed-request",
                };
                self.refused("no UTF-8 in the path", &call, code).await;
            }
        }
    }

    /// A body that is wrong in each way.
    async fn bodies(&mut self) {
        let Some(schema) = self.api.body(self.operation) else {
            return;
        };
        let sample = self.api.sample(&Value::Object(schema.clone()));
        let sample = sample.as_object().unwrap().clone();
        const BAD: &str = "400 malformed-request";
        for text in ["{", "[]", "7", "\"\"", "{}{}", "{\"\\ud800\":1}"] {
            let call = self.with_body(text);
            self.refused(text, &call, BAD).await;
        }
        self.encodings(&sample).await;
        self.lists(&sample).await;
        let call = self.with_body(with(&sample, "no_such_field", json!(1)));
        self.refused("an unknown field", &call, BAD).await;
        let call = self.with_body(vec![b' '; 70_000]);
        self.refused("70,000 bytes", &call, "413 body-too-large")
            .await;
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten() {
            let name = name.as_str().unwrap();
            let mut less = sample.clone();
            less.remove(name);
            let call = self.with_body(Value::Object(less).to_string());
            self.refused(&format!("no {name}"), &call, BAD).await;
            let call = self.with_body(with(&sample, name, Value::Null));
            self.refused(&format!("{name} is null"), &call, "").await;
        }
        for (name, value) in &sample {
            // Whatever a credential holds is judged as a credential and not as a shape.
            let code = if name == "credential" { "" } else { BAD };
            let wrong = if value.is_string() {
                json!(7)
            } else {
                json!("text")
            };
            let call = self.with_body(with(&sample, name, wrong));
            self.refused(&format!("{name} of another type"), &call, code)
                .await;
            let rest = Value::Object(sample.clone()).to_string();
            let twice = format!("{{{}:{value},{}", json!(name), &rest[1..]);
            let call = self.with_body(twice);
            self.refused(&format!("{name} twice"), &call, BAD).await;
            if value.is_string() {
                let call = self.with_body(with(&sample, name, json!("x".repeat(60_000))));
                self.refused(&format!("{name} huge"), &call, "").await;
            }
        }
    }

    /// An object within the body as the list of its values.
    async fn lists(&mut self, sample: &Map<String, Value>) {
        let mut shapes = sample.clone();
        // Whatever a credential holds is judged as a credential and not as a shape.
        let credential = shapes.remove("credential");
        for mut body in with_lists(&Value::Object(shapes)) {
            if let (Some(credential), Some(body)) = (&credential, body.as_object_mut()) {
                body.insert("credential".into(), credential.clone());
            }
            let text = body.to_string();
            let call = self.with_body(text.clone());
            self.refused(&text, &call, "400 malformed-request").await;
        }
    }

    async fn encodings(&mut self, sample: &Map<String, Value>) {
        let text = Value::Object(sample.clone()).to_string();
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let call = self.with_body(wide);
        self.refused("UTF-16", &call, "400 malformed-request").await;
        let call = self.with_body(b"{\"\xff\":1}".to_vec());
        self.refused("Latin-1", &call, "400 malformed-request")
            .await;
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json+x",
        ] {
            let mut call = self.with_body(text.clone());
            call.headers.push(("Content-Type".into(), kind.into()));
            self.refused(kind, &call, "415 unsupported-media-type")
                .await;
        }
    }

    /// The right shape. What comes of it is the route's business; it must be declared.
    async fn well_shaped(&mut self) {
        let mut call = self.request();
        if let Some(schema) = self.api.body(self.operation) {
            let mut sample = self.api.sample(&Value::Object(schema));
            if sample.get("account").is_some() {
                sample["account"] = json!(self.device.account);
            }
            call.body = Some(sample.to_string().into_bytes());
        }
        self.ask("well shaped", &call).await;
        if self.is_conditional() {
            call.headers.clear();
            self.ask("well shaped, without a version", &call).await;
            call.headers.push(("If-Match".into(), "\"1\"".into()));
            self.ask("well shaped, with the version", &call).await;
        }
    }
}

fn with(sample: &Map<String, Value>, name: &str, value: Value) -> String {
    let mut changed = sample.clone();
    changed.insert(name.to_owned(), value);
    Value::Object(changed).to_string()
}

/// Each body that there is where one object within this one is the list of its values.
fn with_lists(body: &Value) -> Vec<Value> {
    let within = |inner: &Value| {
        let mut changed = with_lists(inner);
        if let Value::Object(fields) = inner {
            changed.push(fields.values().cloned().collect());
            changed.push(fields.values().rev().cloned().collect());
        }
        changed
    };
    let mut all = Vec::new();
    match body {
        Value::Object(fields) => {
            for (name, inner) in fields {
                for changed in within(inner) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), changed);
                    all.push(Value::Object(fields));
                }
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                for changed in within(inner) {
                    let mut items = items.clone();
                    items[at] = changed;
                    all.push(Value::Array(items));
                }
            }
        }
        _ => {}
    }
    all
}

/// What an owner sees, which no refused request may change.
async fn state(device: &mut Device) -> (Value, usize) {
    let account = device.call("GET", "/v1/account", None).await.expect(200);
    (account.body, device.events().await.len())
}

async fn document(app: &TestApp) -> Value {
    let answer = app.device("notes").call("GET", "/openapi.json", None).await;
    answer.expect(200).body
}

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let app = TestApp::with(setup()).await;
    let api = Description::new(document(&app).await);
    let (mut asked, mut complaints) = (0, Vec::new());
    let operations = api.operations();
    assert!(operations.len() >= 27, "{}", operations.len());
    for operation in &operations {
        // An account of its own, so that what one operation does is not in the way of the next.
        let mut device = app.device("notes");
        device.enrol().await;
        device.back_up("device-secret", b"secret").await.expect(200);
        let before = state(&mut device).await;
        let mut trial = Trial {
            api: &api,
            operation,
            device,
            asked: 0,
            complaints: Vec::new(),
        };
        trial.around().await;
        trial.bodies().await;
        if state(&mut trial.device).await != before {
            trial.complain("a refused request has changed the account");
        }
        trial.well_shaped().await;
        asked += trial.asked;
        complaints.append(&mut trial.complaints);
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(asked >= 300, "{asked} requests");
}

/// The control: a description that says something else is told apart.
#[tokio::test]
async fn a_description_that_is_wrong_is_noticed() {
    let app = TestApp::with(setup()).await;
    let good = document(&app).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let answer = device.call("GET", "/v1/account", None).await.expect(200);
    device.token = None;
    let refusal = device.call("GET", "/v1/account", None).await.expect(401);
    let judge = |document: &Value, answer: &Answer| {
        let api = Description::new(document.clone());
        let operations = api.operations();
        let of_account = |one: &&Operation| one.path == "/v1/account" && one.method == "GET";
        api.allows(operations.iter().find(of_account).unwrap(), answer)
    };
    judge(&good, &answer).unwrap();
    judge(&good, &refusal).unwrap();
    let responses = "/paths/~1v1~1account/get/responses";
    for (at, to) in [
        (
            format!("{responses}/200/content"),
            json!({"text/plain": {}}),
        ),
        (
            format!("{responses}/200"),
            json!({"description": "no body"}),
        ),
        (
            "/components/schemas/AccountView/required".into(),
            json!(["no_such"]),
        ),
        (
            "/components/schemas/AccountView/properties".into(),
            json!({}),
        ),
        (
            "/components/schemas/AccountView/properties/created/type".into(),
            json!("string"),
        ),
        (
            "/components/schemas/KeyView/properties/added/type".into(),
            json!("string"),
        ),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(&at).unwrap() = to;
        assert!(judge(&wrong, &answer).is_err(), "{at}");
    }
    let mut wrong = good.clone();
    wrong["paths"]["/v1/account"]["get"]["responses"]["401"]["description"] =
        json!("session-ended");
    assert!(judge(&wrong, &refusal).is_err());
}
