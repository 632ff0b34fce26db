//! A witness on loopback, written from C2SP tlog-witness, tlog-cosignature and signed-note and not
//! from the daemon's code: it keeps size and root of each log's newest checkpoint, looks at
//! signature and consistency proof, and cosigns. It can be told to be another kind of witness, and
//! it can be away.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custodyd::http::server::{self, Entrance, Limits};
use custodyd::http::tls;
use serde_json::Value;
use tempfile::TempDir;
use tlog_tiles::{EMPTY_HASH, Hash, check_tree};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::certificates;
use crate::log::{Checkpoint, Verifier};

/// What a witness does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// As the specification says.
    Honest,
    /// Cosigns whatever a log that it knows has signed.
    Blind,
    /// Signs with another key than its own, under its own key id.
    Forging,
    /// Signs with another key, under that one's key id.
    Another,
    /// Signs another size than the one it was shown.
    Elsewhere,
    /// Signs for the hour before.
    Late,
    /// Answers with something that is no signature line.
    Garbage,
    /// Says that it has cosigned so many entries.
    Claiming(u64),
    /// Answers with this status.
    Failing(u16),
    /// Does not answer.
    Hanging,
}

/// A log that the witness follows.
#[derive(Debug)]
struct Followed {
    verifier: Verifier,
    size: u64,
    root: Hash,
    /// What the monitoring prefix shows.
    shown: Option<String>,
}

#[derive(Debug)]
struct State {
    name: String,
    pair: Ed25519KeyPair,
    logs: HashMap<String, Followed>,
    manner: Manner,
    /// Old size, size and status of each call.
    calls: Vec<(u64, u64, u16)>,
}

#[derive(Debug)]
pub struct Witness {
    dir: TempDir,
    port: u16,
    state: Arc<Mutex<State>>,
    serving: Option<(watch::Sender<bool>, JoinHandle<server::Drained>)>,
}

/// Status, media type and body.
type Answer = (u16, &'static str, String);

const PLAIN: &str = "text/plain; charset=utf-8";

impl Witness {
    /// Follows no log yet.
    pub async fn start(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("custodyd-witness-")
            .tempdir()
            .unwrap();
        let authority = certificates(dir.path());
        std::fs::write(dir.path().join("authority.pem"), authority).unwrap();
        let state = State {
            name: name.to_owned(),
            pair: Ed25519KeyPair::generate().unwrap(),
            logs: HashMap::new(),
            manner: Manner::Honest,
            calls: Vec::new(),
        };
        let mut witness = Self {
            dir,
            port: 0,
            state: Arc::new(Mutex::new(state)),
            serving: None,
        };
        witness.come_back().await;
        witness
    }

    /// Serves, after `go_away` at the same address as before.
    pub async fn come_back(&mut self) {
        let at = self.dir.path();
        let tls = tls::server_config(
            &at.join("certificate.pem"),
            &custodyd::private_file::Place::File(at.join("private-key.pem")),
        );
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", self.port)).await;
        let listener = listener.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (add, show) = (Arc::clone(&self.state), Arc::clone(&self.state));
        let router = Router::new()
            .route(
                "/add-checkpoint",
                axum::routing::post(move |body: String| submitted(add, body)),
            )
            .route(
                "/{origin}/checkpoint",
                axum::routing::get(move |Path(origin): Path<String>| async move {
                    respond(shown(&show.lock().unwrap(), &origin))
                }),
            );
        let (stop, stopping) = watch::channel(false);
        let entrance = Some(Entrance {
            tls: tls::Tls::new(tls.unwrap()),
            proxies: Arc::default(),
        });
        let limits = Limits::new(16, Duration::ZERO);
        let serving = server::serve(listener, entrance, router, limits, stopping);
        let serving = tokio::spawn(serving);
        self.serving = Some((stop, serving));
    }

    /// Nobody reaches it.
    pub async fn go_away(&mut self) {
        let (stop, serving) = self.serving.take().unwrap();
        stop.send(true).unwrap();
        serving.await.unwrap();
    }

    pub fn set(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    /// Follows a log from now on, as its operator has asked: by its origin and its keys.
    pub fn follow(&self, origin: &str, jwks: &Value) {
        let log = Followed {
            verifier: Verifier::new(jwks),
            size: 0,
            root: EMPTY_HASH,
            shown: None,
        };
        let mut state = self.state.lock().unwrap();
        state.logs.insert(origin.to_owned(), log);
    }

    /// What it has cosigned of a log.
    #[must_use]
    pub fn size(&self, origin: &str) -> u64 {
        let state = self.state.lock().unwrap();
        state.logs.get(origin).map_or(0, |log| log.size)
    }

    /// The calls until now: old size, size, status.
    #[must_use]
    pub fn calls(&self) -> Vec<(u64, u64, u16)> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Waits until it has cosigned at least so much.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn wait_for(&self, origin: &str, size: u64) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while self.size(origin) < size {
            assert!(Instant::now() < give_up, "only {:?}", self.calls());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    #[must_use]
    pub fn vkey(&self) -> String {
        let state = self.state.lock().unwrap();
        vkey(&state.name, &state.pair)
    }

    /// A verifier key by this witness's name of a key that it does not have.
    #[must_use]
    pub fn wrong_vkey(&self) -> String {
        let name = self.state.lock().unwrap().name.clone();
        vkey(&name, &Ed25519KeyPair::generate().unwrap())
    }

    /// Shows it a checkpoint as a monitor may.
    #[must_use]
    pub fn add_checkpoint(&self, body: &str) -> (u16, String) {
        let (status, _, body) = add_checkpoint(&mut self.state.lock().unwrap(), body);
        (status, body)
    }

    /// The sections `[witnesses]` with these, under the names w0, w1 and so on.
    #[must_use]
    pub fn section(quorum: usize, more: &str, witnesses: &[&Self]) -> String {
        let keys: Vec<String> = witnesses.iter().map(|one| one.vkey()).collect();
        Self::section_with(quorum, more, witnesses, &keys)
    }

    /// As `section`, with other keys than theirs.
    #[must_use]
    pub fn section_with(quorum: usize, more: &str, witnesses: &[&Self], keys: &[String]) -> String {
        let authority =
            |one: &&Self| std::fs::read_to_string(one.dir.path().join("authority.pem")).unwrap();
        let ca_file = witnesses[0].dir.path().join("authorities.pem");
        let authorities: String = witnesses.iter().map(authority).collect();
        std::fs::write(&ca_file, authorities).unwrap();
        let mut section = format!(
            "[witnesses]\nquorum = {quorum}\nperiod = \"1s\"\nca_file = \"{}\"\n{more}\n",
            ca_file.display()
        );
        for (at, (one, key)) in witnesses.iter().zip(keys).enumerate() {
            let url = one.url();
            write!(
                section,
                "[witnesses.w{at}]\nurl = \"{url}\"\nvkey = \"{key}\"\n"
            )
            .unwrap();
        }
        section
    }
}

async fn submitted(state: Arc<Mutex<State>>, body: String) -> impl IntoResponse {
    if state.lock().unwrap().manner == Manner::Hanging {
        std::future::pending::<()>().await;
    }
    respond(add_checkpoint(&mut state.lock().unwrap(), &body))
}

fn respond((status, kind, body): Answer) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, kind)];
    (StatusCode::from_u16(status).unwrap(), headers, body)
}

fn shown(state: &State, hash: &str) -> Answer {
    let of = |origin: &str| hex::encode(digest(&SHA256, origin.as_bytes()).as_ref());
    let log = state.logs.iter().find(|(origin, _)| of(origin) == hash);
    match log.and_then(|(_, log)| log.shown.clone()) {
        Some(note) => (200, PLAIN, note),
        None => (404, PLAIN, String::new()),
    }
}

fn add_checkpoint(state: &mut State, body: &str) -> Answer {
    let answer = judge(state, body).unwrap_or_else(|refused| refused);
    let number = |line: Option<&str>| line.and_then(|line| line.parse().ok()).unwrap_or(0);
    let old = number(body.lines().next().and_then(|l| l.strip_prefix("old ")));
    let size = body.split_once("\n\n").map(|(_, note)| note);
    let size = number(size.and_then(|note| note.lines().nth(1)));
    state.calls.push((old, size, answer.0));
    answer
}

/// The checks in the specification's order.
fn judge(state: &mut State, body: &str) -> Result<Answer, Answer> {
    let refused = |status: u16| (status, PLAIN, String::new());
    match state.manner {
        Manner::Failing(status) => return Err(refused(status)),
        Manner::Garbage => return Ok((200, PLAIN, "garbage".into())),
        Manner::Claiming(size) => {
            return Err((409, "text/x.tlog.size", format!("{size}\n")));
        }
        _ => {}
    }
    let (old, proof, note) = parse(body).ok_or(refused(400))?;
    let origin = note.lines().next().unwrap_or("").to_owned();
    let log = state.logs.get_mut(&origin).ok_or(refused(404))?;
    let new = log.verifier.checkpoint(note).map_err(|_| refused(403))?;
    if old > new.size {
        return Err(refused(400));
    }
    if state.manner != Manner::Blind {
        if old != log.size {
            let size = format!("{}\n", log.size);
            return Err((409, "text/x.tlog.size", size));
        }
        consistent(old, log.root, &proof, &new).map_err(|()| refused(422))?;
    }
    (log.size, log.root) = (new.size, new.root);
    let text = note.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let line = cosign(&state.name, &state.pair, state.manner, &text);
    let log = state.logs.get_mut(&origin).unwrap();
    log.shown = Some(format!("{note}{line}"));
    Ok((200, PLAIN, line))
}

fn parse(body: &str) -> Option<(u64, Vec<Hash>, &str)> {
    let (head, note) = body.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let old = lines.next()?.strip_prefix("old ")?;
    let number: u64 = old.parse().ok()?;
    if number.to_string() != old {
        return None;
    }
    let hash = |line: &str| Some(Hash(STANDARD.decode(line).ok()?.try_into().ok()?));
    let proof = lines.map(hash).collect::<Option<Vec<_>>>()?;
    (proof.len() <= 63).then_some((number, proof, note))
}

fn consistent(old: u64, root: Hash, proof: &Vec<Hash>, new: &Checkpoint) -> Result<(), ()> {
    let good = match old {
        _ if new.size == 0 => new.root == EMPTY_HASH && proof.is_empty(),
        0 => proof.is_empty(),
        _ if old == new.size => root == new.root && proof.is_empty(),
        _ => check_tree(proof, new.size, new.root, old, root).is_ok(),
    };
    good.then_some(()).ok_or(())
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn key_id(name: &str, public: &[u8]) -> [u8; 4] {
    let hashed = [name.as_bytes(), b"\n\x04", public].concat();
    digest(&SHA256, &hashed).as_ref()[..4].try_into().unwrap()
}

fn vkey(name: &str, pair: &Ed25519KeyPair) -> String {
    let public = pair.public_key().as_ref();
    let id = hex::encode(key_id(name, public));
    let material = STANDARD.encode([&[4], public].concat());
    format!("{name}+{id}+{material}")
}

/// A signature line, with its newline.
fn cosign(name: &str, pair: &Ed25519KeyPair, manner: Manner, text: &str) -> String {
    let other = Ed25519KeyPair::generate().unwrap();
    let (id_of, by) = match manner {
        Manner::Forging => (pair, &other),
        Manner::Another => (&other, &other),
        _ => (pair, pair),
    };
    let time = match manner {
        Manner::Late => now() - 3600,
        _ => now(),
    };
    let text = match manner {
        Manner::Elsewhere => text.replacen('\n', "\n1", 1),
        _ => text.to_owned(),
    };
    let signature = by.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
    let id = key_id(name, id_of.public_key().as_ref());
    let bytes = [&id[..], &time.to_be_bytes(), signature.as_ref()].concat();
    format!("\u{2014} {name} {}\n", STANDARD.encode(bytes))
}

/// When the holder of a verifier key has cosigned a note, if they have.
///
/// # Panics
/// When a line by that key does not verify.
#[must_use]
pub fn cosigned(note: &str, vkey: &str) -> Option<u64> {
    let (text, signatures) = note.rsplit_once("\n\n").unwrap();
    let parts: Vec<&str> = vkey.splitn(3, '+').collect();
    let public = STANDARD.decode(parts[2]).unwrap();
    assert_eq!(public[0], 4);
    let prefix = format!("\u{2014} {} ", parts[0]);
    for line in signatures.lines() {
        let Some(encoded) = line.strip_prefix(&prefix) else {
            continue;
        };
        let bytes = STANDARD.decode(encoded).unwrap();
        if hex::encode(&bytes[..4]) != parts[1] {
            continue;
        }
        let time = u64::from_be_bytes(bytes[4..12].try_into().unwrap());
        let message = format!("cosignature/v1\ntime {time}\n{text}\n");
        UnparsedPublicKey::new(&ED25519, &public[1..])
            .verify(message.as_bytes(), &bytes[12..])
            .expect("a cosignature that does not verify");
        return Some(time);
    }
    None
}
