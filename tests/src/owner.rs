//! An owner whose device secret is sealed under slots, as the SDK would do it: for the tests of key slots.

use serde_json::{Value, json};

use crate::app::said;
use crate::codes::{policy, recovery_codes};
use crate::device::{b64, unb64};
use crate::opaque::{Registering, default_cost};
use crate::slots::{code_id, passkey_id, pin_id};
use crate::{Answer, Device, Setup, SoftAuthenticator, TestApp};

pub const SECRET: &str = "device-secret";
pub const PLAIN: &[u8] = b"the device secret, thirty-two by";
pub const KEY: &[u8; 32] = &[7; 32];

/// A policy that says this of server slots.
#[must_use]
pub fn policy_of(slot: &str) -> (String, String) {
    let secrets = format!("[secrets]\nserver_slot = \"{slot}\"");
    let (name, text) = policy("notes", "", &secrets);
    // Where nothing has a server slot, a code of an authenticator app must not be listed as opening one.
    let text = match slot {
        "forbidden" => text.replace(", \"totp\"]", "]"),
        _ => text,
    };
    (name, text)
}

/// An app with that policy.
pub async fn app(slot: &str) -> TestApp {
    TestApp::with(Setup {
        policies: vec![policy_of(slot)],
        ..Setup::default()
    })
    .await
}

/// The app's policy says another thing of server slots from now on.
pub fn turn(app: &TestApp, slot: &str) {
    let (name, text) = policy_of(slot);
    std::fs::write(app.path(&format!("policies/{name}.toml")), text).unwrap();
    let output = app.reload();
    assert!(output.status.success(), "{}", said(&output));
}

/// An account, the bodies that the daemon has been sent for it, and what its client alone knows.
#[derive(Debug)]
pub struct Owner {
    pub device: Device,
    pub sent: Vec<Value>,
    /// What each slot is sealed under.
    pub opens: Vec<(&'static str, String, Vec<u8>)>,
}

impl Owner {
    pub async fn new(app: &TestApp) -> Self {
        let mut device = app.device("notes");
        device.enrol().await;
        Self {
            device,
            sent: Vec::new(),
            opens: Vec::new(),
        }
    }

    pub async fn call(&mut self, method: &str, path: &str, body: Value) -> Answer {
        self.sent.push(body.clone());
        let answer = self.device.call(method, path, Some(body)).await;
        if answer.body["session"]["token"].is_string() && answer.status < 300 {
            self.device.take_session(&answer);
        }
        answer
    }

    pub fn slots(&self) -> Vec<Value> {
        let place = self.device.place(SECRET);
        let slots = self.opens.iter();
        slots
            .map(|(kind, id, material)| place.slot(kind, id, material, KEY))
            .collect()
    }

    pub fn content(&self, server_slot: bool) -> Value {
        let sealed = self.device.place(SECRET).seal(KEY, PLAIN);
        let mut content = json!({"sealed": sealed, "slots": self.slots()});
        if server_slot {
            content["server_slot"] = json!(b64(KEY));
        }
        content
    }

    pub async fn version(&mut self) -> u64 {
        let list = self.device.call("GET", "/v1/account/secrets", None).await;
        let list = list.expect(200).body;
        let mut entries = list["secrets"].as_array().unwrap().iter();
        let entry = entries.find(|entry| entry["name"] == SECRET);
        entry.map_or(0, |entry| entry["version"].as_u64().unwrap())
    }

    /// The secret's slots as they are now, for a call that changes factors.
    pub async fn rewrapped(&mut self) -> Value {
        json!({SECRET: {"if_version": self.version().await, "slots": self.slots()}})
    }

    /// A PIN by OPAQUE; `secrets` makes what goes along.
    pub async fn set_pin(&mut self, pin: &str, server_slot: Option<bool>) -> Answer {
        let (state, body) = Registering::start(pin);
        let started = self.call("POST", "/v1/account/opaque/start", body).await;
        let started = started.expect(200).body;
        let registered = state.finish(pin, &started, &default_cost());
        let mut body = registered.body;
        let bytes = |value: &Value| unb64(value.as_str().unwrap());
        let id = pin_id(
            &bytes(&started["salt"]),
            &default_cost(),
            &bytes(&body["record"]),
        );
        self.opens.retain(|(kind, ..)| *kind != "opaque");
        self.opens.push(("opaque", id, registered.export_key));
        body["secrets"] = match server_slot {
            Some(slot) => json!({SECRET: {"content": self.content(slot)}}),
            None => self.rewrapped().await,
        };
        self.call("POST", "/v1/account/opaque/finish", body).await
    }

    pub async fn set_codes(&mut self) -> Answer {
        let codes = recovery_codes();
        self.opens.retain(|(kind, ..)| *kind != "recovery-code");
        for (at, code) in codes.iter().enumerate() {
            let part = vec![u8::try_from(at).unwrap(); 32];
            self.opens
                .push(("recovery-code", code_id(&unb64(code)), part));
        }
        let body = json!({"codes": codes, "secrets": self.rewrapped().await});
        self.call("POST", "/v1/account/recovery-codes", body).await
    }

    /// A passkey with a slot, whose PRF output is made up: no daemon ever sees one.
    pub async fn add_passkey(&mut self, authenticator: &mut SoftAuthenticator) -> Answer {
        let path = "/v1/account/passkeys/options";
        let options = self.call("POST", path, json!({})).await.expect(200).body;
        let credential = authenticator.create(&options["publicKey"]).await;
        let attestation = &credential["response"]["attestationObject"];
        let id = passkey_id(&unb64(attestation.as_str().unwrap()));
        self.opens.push(("prf", id, vec![9; 32]));
        let mut body = json!({"ceremony": options["ceremony"], "credential": credential});
        body["secrets"] = self.rewrapped().await;
        self.call("POST", "/v1/account/passkeys", body).await
    }

    pub async fn secret(&mut self) -> Value {
        self.device.recover(SECRET).await.expect(200).body
    }
}
