//! One account and its owner's device: each thing that can be asked, written down with what came of it.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tlog_tiles::record_hash;

use super::checker::Checker;
use super::history::{Asked, Came, Entry, Kept, Pin, Refusal, Sent, Told};
use super::notebook::{Count, Notebook};
use crate::device::{b64, unb64};
use crate::{Answer, Device, SoftAuthenticator};

const SECRET: &str = "device-secret";
/// The proof has a nonce of a node's earlier life: nothing was looked at.
const NO_NONCE: &str = "401 use-dpop-nonce";

pub(super) struct Owned {
    pub(super) notebook: Arc<Notebook>,
    pub(super) device: Device,
    pub(super) checker: Checker,
    pub(super) passkeys: Vec<(u32, SoftAuthenticator)>,
    pins: Pin,
    writes: u64,
    /// An answer could not be true: nothing more is learnt from this account.
    pub(super) broken: bool,
}

/// An account's PIN by its number: eight digits without a pattern.
fn digits(pin: Pin) -> String {
    let mixed = (u64::from(pin) * 48_271_003 + 83_051_729) % 100_000_000;
    format!("{mixed:08}")
}

fn came(answer: Option<&Answer>, told: impl FnOnce(&Answer) -> Told) -> Came {
    match answer {
        None => Came::Lost,
        Some(answer) if answer.status >= 500 => Came::Open(answer.refusal()),
        Some(answer) if answer.status < 300 => Came::Done(told(answer)),
        Some(answer) => Came::Refused(Refusal {
            code: answer.refusal(),
            left: answer.body["attempts_left"].as_u64(),
            current: answer.body["current_version"].as_u64(),
        }),
    }
}

fn yes(_: &Answer) -> Told {
    Told::Yes
}

fn kept(secret: &Value) -> Kept {
    Kept {
        version: secret["version"].as_u64().unwrap_or(0),
        content: secret["server_slot"].as_str().unwrap_or("").to_owned(),
    }
}

fn released(answer: &Answer) -> Told {
    Told::Secret(kept(&answer.body["secrets"][SECRET]))
}

/// Sends one request; `None` where the campaign ended before anybody was reached.
pub(super) async fn ask(
    notebook: &Notebook,
    device: &mut Device,
    (method, path): (&str, &str),
    body: Option<Value>,
    headers: &[(&str, String)],
) -> Option<(Sent, Option<Answer>)> {
    let chance = u64::from(device.key.thumbprint().bytes().last().unwrap_or(0));
    for attempt in 0.. {
        let (url, mut sent) = notebook.door(chance + attempt).await?;
        device.url = url;
        let mut call = device.prepare(method, path, body.clone());
        let headers = headers.iter();
        call.headers
            .extend(headers.map(|(name, value)| ((*name).to_owned(), value.clone())));
        let tried = device.tried(&call).await;
        notebook.ended(&mut sent);
        match tried {
            // By the node's next life, twice.
            Ok(answer) if answer.refusal() == NO_NONCE => {}
            Ok(answer) if out_of_time(notebook, &answer) => {
                notebook.count(Count::Refused);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Ok(answer) => {
                counted(notebook, &answer);
                return Some((sent, Some(answer)));
            }
            // Nothing was sent, so nothing can have happened.
            Err(error) if error.is_connect() => {
                notebook.count(Count::Unreached);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(_) => {
                notebook.count(Count::Lost);
                return Some((sent, None));
            }
        }
    }
    None
}

fn counted(notebook: &Notebook, answer: &Answer) {
    let refused = answer.status == 429 || answer.status >= 500;
    notebook.count(match refused {
        true => Count::Refused,
        false => Count::Answered,
    });
    // With an honest database and token there is no other reason than that somebody has to wait.
    if answer.status >= 500 && answer.status != 503 {
        notebook.violated(format!("{} {}", answer.refusal(), answer.body), &[]);
    }
}

/// A node whose clock is ahead takes everybody's for wrong: nothing was looked at.
fn out_of_time(notebook: &Notebook, answer: &Answer) -> bool {
    answer.refusal() == "401 dpop-invalid" && notebook.is_a_clock_off()
}

impl Owned {
    /// A new account; `None` where the campaign ends before it is acknowledged. Asked again with the same
    /// key, since no answer may come.
    pub(super) async fn enrolled(
        notebook: &Arc<Notebook>,
        mut device: Device,
        attempts: u64,
    ) -> Option<Self> {
        let key = device.key.thumbprint();
        let mut refusals = 0;
        loop {
            // For a nonce, which belongs into the proof of the app key.
            let greeting = ("POST", "/v1/apps/{app}/sessions/device");
            ask(notebook, &mut device, greeting, Some(json!({})), &[]).await?;
            let body = json!({"app_key_proof": device.app_key_proof(), "device_name": "campaign"});
            let once = [("Idempotency-Key", key.clone())];
            let call = ("POST", "/v1/apps/{app}/accounts");
            let (_, answer) = ask(notebook, &mut device, call, Some(body), &once).await?;
            match answer {
                Some(answer) if answer.status == 201 => {
                    device.account = answer.body["account"].as_str().unwrap().to_owned();
                    device.take_session(&answer);
                    receipt(notebook, &answer);
                    break;
                }
                // The proof names a node's life that has just ended.
                Some(answer) if answer.status < 500 && refusals > 50 => {
                    notebook.violated(format!("no account: {}", answer.body), &[]);
                    return None;
                }
                Some(answer) if answer.status < 500 => refusals += 1,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
        Some(Self {
            notebook: Arc::clone(notebook),
            device,
            checker: Checker::new(attempts),
            passkeys: Vec::new(),
            pins: 0,
            writes: 0,
            broken: false,
        })
    }

    fn note(&mut self, sent: Sent, asked: Asked, came: Vec<Came>) {
        let entry = Entry { sent, asked, came };
        if let Err(what) = self.checker.take(entry) {
            self.broken = true;
            self.notebook.violated(what, self.checker.history());
        }
    }

    /// One call with the device's session.
    async fn asked(
        &mut self,
        asked: Asked,
        call: (&str, &str),
        body: Option<Value>,
        headers: &[(&str, String)],
        told: impl FnOnce(&Answer) -> Told,
    ) -> Option<Answer> {
        let (sent, answer) = ask(&self.notebook, &mut self.device, call, body, headers).await?;
        let came = came(answer.as_ref(), told);
        if let Came::Refused(refusal) = &came
            && refusal.code.starts_with("401 session-")
        {
            self.device.token = None;
        }
        self.note(sent, asked, vec![came]);
        answer.filter(|answer| answer.status < 300)
    }

    /// As many at once as there are PINs; whether one was right.
    pub(super) async fn guess(&mut self, pins: &[Pin]) -> Option<bool> {
        let session = self.device.token.take();
        let (url, mut sent) = self.notebook.door(self.writes).await?;
        self.device.url = url;
        let answers = pins.iter().map(|pin| {
            let mut device = self.device.clone();
            let body = json!({"account": device.account, "pin": digits(*pin), "release": [SECRET]});
            async move {
                let call = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
                (device.tried(&call).await, device.nonce)
            }
        });
        let answers = join_all(answers).await;
        self.notebook.ended(&mut sent);
        let (mut guessed, mut all) = (Vec::new(), Vec::new());
        let mut right = None;
        for (pin, (answer, nonce)) in pins.iter().zip(answers) {
            self.device.nonce = nonce;
            let answer = match answer {
                Err(error) if error.is_connect() => {
                    self.notebook.count(Count::Unreached);
                    continue;
                }
                Ok(answer) if answer.refusal() == NO_NONCE => continue,
                Ok(answer) if out_of_time(&self.notebook, &answer) => continue,
                answer => answer.ok(),
            };
            match &answer {
                Some(answer) => counted(&self.notebook, answer),
                None => self.notebook.count(Count::Lost),
            }
            guessed.push(*pin);
            all.push(came(answer.as_ref(), released));
            right = answer.filter(|answer| answer.status == 201).or(right);
        }
        self.device.token = session;
        if !guessed.is_empty() {
            self.note(sent, Asked::Guess(guessed), all);
        }
        if let Some(answer) = &right {
            self.device.take_session(answer);
            receipt(&self.notebook, answer);
        }
        Some(right.is_some())
    }

    /// With a PIN that may be the right one.
    pub(super) async fn sign_in_by_pin(&mut self, chance: u64) -> Option<bool> {
        let pins: Vec<Pin> = self.checker.pins().filter(|pin| *pin != 0).collect();
        let Some(at) = chance.checked_rem(pins.len() as u64) else {
            return Some(false);
        };
        self.guess(&[pins[usize::try_from(at).unwrap()]]).await
    }

    pub(super) async fn set_pin(&mut self) -> Option<()> {
        self.pins += 1;
        let body = json!({"pin": digits(self.pins)});
        let call = ("PUT", "/v1/account/pin");
        let asked = Asked::SetPin(self.pins);
        if let Some(answer) = self.asked(asked, call, Some(body), &[], yes).await {
            self.device.take_session(&answer);
        }
        Some(())
    }

    pub(super) async fn add_passkey(&mut self) -> Option<()> {
        let call = ("POST", "/v1/account/passkeys/options");
        let (_, options) =
            ask(&self.notebook, &mut self.device, call, Some(json!({})), &[]).await?;
        let Some(options) = options.filter(|answer| answer.status == 200) else {
            return Some(());
        };
        let number = u32::try_from(self.passkeys.len()).unwrap() + 1;
        let mut authenticator = SoftAuthenticator::new(&self.device.app);
        let credential = authenticator.create(&options.body["publicKey"]).await;
        let body = json!({"ceremony": options.body["ceremony"], "credential": credential,
            "name": number.to_string()});
        self.passkeys.push((number, authenticator));
        let call = ("POST", "/v1/account/passkeys");
        let asked = Asked::AddPasskey(number);
        self.asked(asked, call, Some(body), &[], yes).await;
        Some(())
    }

    /// A sign-in by the passkey at this place of `passkeys`.
    pub(super) async fn sign_in_by_passkey(&mut self, place: usize) -> Option<bool> {
        let session = self.device.token.take();
        let call = ("POST", "/v1/apps/{app}/sessions/passkey/options");
        let body = json!({"account": null});
        let (_, options) = ask(&self.notebook, &mut self.device, call, Some(body), &[]).await?;
        let Some(options) = options.filter(|answer| answer.status == 200) else {
            self.device.token = session;
            return Some(false);
        };
        let (number, authenticator) = &mut self.passkeys[place];
        let number = *number;
        let credential = authenticator.get(&options.body["publicKey"]).await;
        let body = json!({"ceremony": options.body["ceremony"], "credential": credential,
            "release": [SECRET]});
        let call = ("POST", "/v1/apps/{app}/sessions/passkey");
        let asked = Asked::Passkey(number);
        let answer = self.asked(asked, call, Some(body), &[], released).await;
        match &answer {
            None => self.device.token = session,
            Some(answer) => {
                self.device.take_session(answer);
                receipt(&self.notebook, answer);
            }
        }
        Some(answer.is_some())
    }

    /// Numbers and device identifiers of the account's passkeys.
    pub(super) async fn list(&mut self) -> Option<Vec<(u32, String)>> {
        let numbered = |answer: &Answer| -> Vec<(u32, String)> {
            let all = answer.body["passkeys"].as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            all.map(|one| (text(&one["name"]).parse().unwrap(), text(&one["device_id"])))
                .collect()
        };
        let told = |answer: &Answer| {
            let all = numbered(answer).into_iter();
            Told::Passkeys(all.map(|(number, _)| number).collect())
        };
        let call = ("GET", "/v1/account");
        let answer = self.asked(Asked::List, call, None, &[], told).await?;
        Some(numbered(&answer))
    }

    pub(super) async fn remove_passkey(&mut self, number: u32, id: &str) {
        let path = format!("/v1/account/passkeys/{id}");
        let asked = Asked::RemovePasskey(number);
        self.asked(asked, ("DELETE", &path), None, &[], yes).await;
    }

    /// A new content onto a version that may be the newest.
    pub(super) async fn put(&mut self, chance: u64) -> Option<()> {
        let versions: Vec<u64> = self.checker.versions().collect();
        let base = versions[usize::try_from(chance).unwrap() % versions.len()];
        self.writes += 1;
        let content = b64(format!("{}/{}", self.device.account, self.writes).as_bytes());
        let condition = match base {
            0 => [("If-None-Match", "*".to_owned())],
            base => [("If-Match", format!("\"{base}\""))],
        };
        let path = format!("/v1/account/secrets/{SECRET}");
        let body = json!({"server_slot": content});
        let told = |answer: &Answer| Told::Secret(kept(&answer.body));
        let asked = Asked::Put { base, content };
        self.asked(asked, ("PUT", &path), Some(body), &condition, told)
            .await;
        Some(())
    }

    pub(super) async fn get(&mut self) {
        let path = format!("/v1/account/secrets/{SECRET}");
        let told = |answer: &Answer| Told::Secret(kept(&answer.body));
        self.asked(Asked::Get, ("GET", &path), None, &[], told)
            .await;
    }

    pub(super) async fn erase(&mut self) {
        let body = json!({"confirm": self.device.account});
        let call = ("DELETE", "/v1/account");
        self.asked(Asked::Erase, call, Some(body), &[], yes).await;
    }
}

/// What the answer says of its place in the log is the auditor's to find.
fn receipt(notebook: &Notebook, answer: &Answer) {
    let log = &answer.body["log"];
    if let (Some(index), Some(leaf)) = (log["index"].as_u64(), log["leaf"].as_str()) {
        notebook.receipt(index, record_hash(&unb64(leaf)));
    }
}
