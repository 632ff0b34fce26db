//! One account and its owner's device: each thing that can be asked, written down with what came of it.

mod opaque;

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tlog_tiles::record_hash;

use self::opaque::Logins;
use super::checker::Checker;
use super::dice::Dice;
use super::history::{
    Asked, By, Came, Entry, Kept, NOBODYS, Pin, Refusal, Sent, Session, Told, Visit,
};
use super::notebook::{Count, Notebook};
use crate::device::{b64, unb64};
use crate::{Answer, Device, SoftAuthenticator};

const SECRET: &str = "device-secret";
/// The proof has a nonce of a node's earlier life: nothing was looked at.
const NO_NONCE: &str = "401 use-dpop-nonce";
/// Sessions of before that are tried again.
const OLD: usize = 6;

/// A session's token, and what is known of it.
#[derive(Clone)]
struct Held {
    token: String,
    is: Session,
}

/// One of those that were sent at once, and looked at as far as anybody knows.
struct Reached {
    /// Its place among them.
    which: usize,
    visit: Visit,
    answer: Option<Answer>,
}

pub(super) struct Owned {
    pub(super) notebook: Arc<Notebook>,
    device: Device,
    /// Chooses a node for each request, of which kind a new PIN is, and how logins end.
    dice: Dice,
    held: Option<Held>,
    old: Vec<Held>,
    pub(super) checker: Checker,
    pub(super) passkeys: Vec<(u32, SoftAuthenticator)>,
    pins: Pin,
    logins: Logins,
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

/// The session that an answer brought, of a request that was sent then.
fn held(answer: &Answer, by: By, at: u64, sent: &Sent) -> Held {
    let token = answer.body["session"]["token"].as_str().unwrap().to_owned();
    let node = sent.to[0].node;
    let is = Session { by, at, node };
    Held { token, is }
}

fn released(answer: &Answer) -> Told {
    Told::Secret(kept(&answer.body["secrets"][SECRET]))
}

/// Sends one request to whoever `chance` chooses; `None` where the campaign ended before anybody was reached.
async fn ask(
    notebook: &Notebook,
    device: &mut Device,
    chance: u64,
    (method, path): (&str, &str),
    body: Option<Value>,
    headers: &[(&str, String)],
) -> Option<(Sent, Option<Answer>)> {
    for attempt in 0.. {
        let (url, mut sent) = notebook.door(chance.wrapping_add(attempt)).await?;
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
        mut dice: Dice,
    ) -> Option<Self> {
        let key = device.key.thumbprint();
        let mut refusals = 0;
        let begun = notebook.now();
        let held = loop {
            // One node for both: the first is for its nonce, which belongs into the proof of the app key.
            let chance = dice.roll();
            let greeting = ("POST", "/v1/apps/{app}/sessions/device");
            let nothing = Some(json!({}));
            ask(notebook, &mut device, chance, greeting, nothing, &[]).await?;
            let body = json!({"app_key_proof": device.app_key_proof(), "device_name": "campaign"});
            let once = [("Idempotency-Key", key.clone())];
            let call = ("POST", "/v1/apps/{app}/accounts");
            let (sent, answer) =
                ask(notebook, &mut device, chance, call, Some(body), &once).await?;
            match answer {
                Some(answer) if answer.status == 201 => {
                    device.account = answer.body["account"].as_str().unwrap().to_owned();
                    receipt(notebook, &answer);
                    // It may have been made at the first asking.
                    break held(&answer, By::Creation, begun, &sent);
                }
                // The proof names a node's life that has just ended.
                Some(answer) if answer.status < 500 && refusals > 50 => {
                    notebook.violated(format!("no account: {}", answer.body), &[]);
                    return None;
                }
                Some(answer) if answer.status < 500 => refusals += 1,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        };
        Some(Self {
            notebook: Arc::clone(notebook),
            device,
            dice,
            held: Some(held),
            old: Vec::new(),
            checker: Checker::new(attempts),
            passkeys: Vec::new(),
            pins: 0,
            logins: Logins::default(),
            writes: 0,
            broken: false,
        })
    }

    pub(super) fn has_a_session(&self) -> bool {
        self.held.is_some()
    }

    /// Goes on with another one; the one of before is tried again now and then.
    fn take(&mut self, held: Held) {
        if let Some(before) = self.held.replace(held) {
            self.old.push(before);
            if self.old.len() > OLD {
                self.old.remove(0);
            }
        }
    }

    fn note(&mut self, entry: Entry) {
        self.notebook.saw(&entry);
        if let Err(what) = self.checker.take(entry) {
            self.broken = true;
            self.notebook.violated(what, self.checker.history());
        }
    }

    /// One call, with the session that is held where it needs one; when it was sent, and what came where that was what was asked for.
    async fn asked(
        &mut self,
        asked: Asked,
        call: (&str, &str),
        body: Option<Value>,
        headers: &[(&str, String)],
        told: impl FnOnce(&Answer) -> Told,
    ) -> Option<(Sent, Answer)> {
        let held = self.held.clone().filter(|_| asked.needs_a_session());
        let (with, token) = held.map(|held| (held.is, held.token)).unzip();
        self.device.token = token;
        let chance = self.dice.roll();
        let (sent, answer) = ask(
            &self.notebook,
            &mut self.device,
            chance,
            call,
            body,
            headers,
        )
        .await?;
        let came = vec![came(answer.as_ref(), told)];
        if let [Came::Refused(refusal)] = &came[..]
            && refusal.code.starts_with("401 session-")
        {
            self.held = None;
        }
        self.note(Entry {
            sent: sent.clone(),
            with,
            asked,
            came,
        });
        let answer = answer.filter(|answer| answer.status < 300)?;
        Some((sent, answer))
    }

    /// Several of the same kind at once, each at the next node, of one that needs no session; those that were looked at.
    async fn at_once(&mut self, path: &str, bodies: Vec<Value>) -> Option<(Sent, Vec<Reached>)> {
        let chance = self.dice.roll();
        let (urls, mut sent) = self.notebook.doors(chance, bodies.len()).await?;
        let answers = bodies.into_iter().zip(urls).map(|(body, url)| {
            let mut device = self.device.clone();
            (device.url, device.token) = (url, None);
            let call = device.prepare("POST", path, Some(body));
            async move { (device.tried(&call).await, device.nonce) }
        });
        let answers = join_all(answers).await;
        self.notebook.ended(&mut sent);
        let visits = std::mem::take(&mut sent.to);
        let mut reached = Vec::new();
        for (which, (visit, (answer, nonce))) in visits.into_iter().zip(answers).enumerate() {
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
            sent.to.push(visit);
            reached.push(Reached {
                which,
                visit,
                answer,
            });
        }
        Some((sent, reached))
    }

    /// What was asked at once and looked at, if anything was.
    fn note_all(&mut self, sent: &Sent, asked: Asked, came: Vec<Came>) {
        if !came.is_empty() {
            self.note(Entry {
                sent: sent.clone(),
                with: None,
                asked,
                came,
            });
        }
    }

    /// Goes on with the session that one of them opened, if one did.
    fn take_one(
        &mut self,
        mut sent: Sent,
        reached: Vec<Reached>,
        pin: impl Fn(usize) -> Pin,
    ) -> bool {
        let opened = |one: Reached| {
            let answer = one.answer.filter(|answer| answer.status == 201)?;
            Some((one.which, one.visit, answer))
        };
        let Some((which, visit, answer)) = reached.into_iter().rev().find_map(opened) else {
            return false;
        };
        sent.to = vec![visit];
        receipt(&self.notebook, &answer);
        self.take(held(&answer, By::Pin(pin(which)), sent.at, &sent));
        true
    }

    /// As many at once as there are PINs, each at the next node; whether one was right.
    pub(super) async fn guess(&mut self, pins: &[Pin]) -> Option<bool> {
        let body = |pin: &Pin| json!({"account": self.device.account, "pin": digits(*pin), "release": [SECRET]});
        let bodies = pins.iter().map(body).collect();
        let (sent, reached) = self.at_once("/v1/apps/{app}/sessions/pin", bodies).await?;
        let guessed = reached.iter().map(|one| pins[one.which]).collect();
        let came = reached
            .iter()
            .map(|one| came(one.answer.as_ref(), released))
            .collect();
        self.note_all(&sent, Asked::Guess(guessed), came);
        Some(self.take_one(sent, reached, |which| pins[which]))
    }

    /// With a PIN that may be the right one.
    pub(super) async fn sign_in_by_pin(&mut self, chance: u64) -> Option<bool> {
        let pins: Vec<Pin> = self.checker.pins().filter(|pin| *pin != NOBODYS).collect();
        let Some(at) = chance.checked_rem(pins.len() as u64) else {
            return Some(false);
        };
        let pin = pins[usize::try_from(at).unwrap()];
        match self.checker.is_by_opaque(pin) {
            true => self.sign_in_by_opaque(pin).await,
            false => self.guess(&[pin]).await,
        }
    }

    /// Wrong ones at once, which cost an attempt each where the account's PIN is checked this way.
    pub(super) async fn guess_wrong(&mut self, pins: &[Pin], by_opaque: bool) -> Option<()> {
        match by_opaque {
            true => self.guess_by_opaque(pins).await,
            false => self.guess(pins).await.map(drop),
        }
    }

    /// As far as is known.
    pub(super) fn has_its_pin_by_opaque(&self) -> bool {
        let likeliest = self.checker.pins().next();
        likeliest.is_some_and(|pin| self.checker.is_by_opaque(pin))
    }

    /// PINs that were replaced, or never came to be one.
    pub(super) fn retired_pins(&self) -> Vec<Pin> {
        let retired = |pin: &Pin| self.checker.pins().all(|possible| possible != *pin);
        (1..=self.pins).filter(retired).collect()
    }

    /// A new PIN, which takes the place of one of either kind.
    pub(super) async fn set_pin(&mut self) -> Option<()> {
        match self.dice.below(5) {
            0..3 => self.register_pin().await,
            _ => self.set_plain_pin().await,
        }
    }

    async fn set_plain_pin(&mut self) -> Option<()> {
        let pin = self.next_pin();
        let body = json!({"pin": digits(pin)});
        let call = ("PUT", "/v1/account/pin");
        self.replaced_pin(pin, Asked::SetPin(pin), call, body).await
    }

    fn next_pin(&mut self) -> Pin {
        self.pins += 1;
        self.pins
    }

    /// The call after which the account has this PIN.
    async fn replaced_pin(
        &mut self,
        pin: Pin,
        asked: Asked,
        call: (&str, &str),
        body: Value,
    ) -> Option<()> {
        let before = self.held.as_ref().map(|held| held.is);
        let asked = self.asked(asked, call, Some(body), &[], yes);
        if let (Some((sent, answer)), Some(before)) = (asked.await, before) {
            // It is as old as the one that asked, and stands on the new PIN where that stood on the old one.
            let by = match before.by {
                By::Pin(_) => By::Pin(pin),
                by => by,
            };
            self.take(held(&answer, by, before.at, &sent));
        }
        Some(())
    }

    /// What a session of before opens: everything as long as its factor is there, and then nothing.
    pub(super) async fn list_with_an_old_session(&mut self, chance: u64) -> Option<()> {
        let Some(at) = chance.checked_rem(self.old.len() as u64) else {
            return Some(());
        };
        let old = self.old[usize::try_from(at).unwrap()].clone();
        let held = self.held.replace(old);
        let listed = self.list().await;
        self.held = held;
        listed.map(drop).or(Some(()))
    }

    pub(super) async fn add_passkey(&mut self) -> Option<()> {
        let call = ("POST", "/v1/account/passkeys/options");
        let options = self.asked(Asked::Options, call, Some(json!({})), &[], yes);
        let Some((_, options)) = options.await else {
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
        let call = ("POST", "/v1/apps/{app}/sessions/passkey/options");
        let body = json!({"account": null});
        let options = self.asked(Asked::Challenge, call, Some(body), &[], yes);
        let Some((_, options)) = options.await else {
            return Some(false);
        };
        let (number, authenticator) = &mut self.passkeys[place];
        let number = *number;
        let credential = authenticator.get(&options.body["publicKey"]).await;
        let body = json!({"ceremony": options.body["ceremony"], "credential": credential,
            "release": [SECRET]});
        let call = ("POST", "/v1/apps/{app}/sessions/passkey");
        let asked = self.asked(Asked::Passkey(number), call, Some(body), &[], released);
        let Some((sent, answer)) = asked.await else {
            return Some(false);
        };
        receipt(&self.notebook, &answer);
        self.take(held(&answer, By::Passkey(number), sent.at, &sent));
        Some(true)
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
        let (_, answer) = self.asked(Asked::List, call, None, &[], told).await?;
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
