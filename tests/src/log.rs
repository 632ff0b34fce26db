//! A verifier of the realm's log, as an owner's client and an auditor have one each.
//!
//! Written from C2SP signed-note, tlog-checkpoint, tlog-tiles and tlog-proof and from RFC 6962,
//! not from the daemon's code. Only the arithmetic of audit paths is the crate `tlog_tiles`'.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tlog_tiles::{Hash, check_record, check_tree, node_hash, record_hash};

use crate::app::REALM;

/// What a note says, once its signature was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub size: u64,
    pub root: Hash,
}

/// The keys that an owner pinned, and the log that they are for.
#[derive(Debug)]
pub struct Verifier {
    origin: String,
    /// By key id.
    keys: Vec<([u8; 4], Key)>,
}

#[derive(Debug)]
enum Key {
    /// An uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        let verified = match self {
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(text.as_bytes(), signature),
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), signature)
            }
        };
        verified.is_ok()
    }
}

/// A receipt that was verified.
#[derive(Debug, PartialEq)]
pub struct Proven {
    pub index: u64,
    pub leaf: Vec<u8>,
    pub checkpoint: Checkpoint,
}

/// SubjectPublicKeyInfo of a P-256 key, up to the point (RFC 5480).
const SPKI: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

impl Verifier {
    /// The P-256 checkpoint keys of a JWK set.
    #[must_use]
    pub fn new(jwks: &Value) -> Self {
        let of_the_log = |jwk: &&Value| jwk["use"] == "custodyd-checkpoint" && jwk["kty"] == "EC";
        let keys = jwks["keys"].as_array().unwrap().iter().filter(of_the_log);
        let key = |jwk: &Value| {
            let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap());
            let point = [vec![4], coordinate("x").unwrap(), coordinate("y").unwrap()].concat();
            let spki = [hex::decode(SPKI).unwrap(), point.clone()].concat();
            let id: [u8; 4] = digest(&SHA256, &spki).as_ref()[..4].try_into().unwrap();
            assert_eq!(jwk["note_key_id"], hex::encode(id));
            (id, Key::P256(point))
        };
        Self {
            origin: format!("{REALM}/custodyd/log/1"),
            keys: keys.map(key).collect(),
        }
    }

    /// The Ed25519 checkpoint keys of a JWK set and no others, as a tool has them that knows only these: by their
    /// verifier keys.
    #[must_use]
    pub fn ed25519(jwks: &Value) -> Self {
        let origin = format!("{REALM}/custodyd/log/1");
        let keys = jwks["keys"].as_array().unwrap().iter();
        let key = |jwk: &Value| {
            let verifier_key = jwk["note_verifier_key"].as_str().unwrap();
            let (name, rest) = verifier_key.split_once('+').unwrap();
            let (id, material) = rest.split_once('+').unwrap();
            let material = STANDARD.decode(material).unwrap();
            assert_eq!((name, material[0], material.len()), (&*origin, 1, 33));
            let hashed = digest(&SHA256, &[name.as_bytes(), b"\n", &material].concat());
            let hashed: [u8; 4] = hashed.as_ref()[..4].try_into().unwrap();
            assert_eq!(
                (id, &jwk["note_key_id"]),
                (&*hex::encode(hashed), &id.into())
            );
            let x = jwk["x"].as_str().unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(x).unwrap(), material[1..]);
            (hashed, Key::Ed25519(material[1..].to_vec()))
        };
        Self {
            keys: keys.filter(|jwk| jwk["kty"] == "OKP").map(key).collect(),
            origin,
        }
    }

    /// # Errors
    /// Why the note is not one of this log's.
    pub fn checkpoint(&self, note: &str) -> Result<Checkpoint, String> {
        let (text, signatures) = note.rsplit_once("\n\n").ok_or("no signatures")?;
        let text = format!("{text}\n");
        let mut verified = false;
        for line in signatures.lines() {
            let line = line.strip_prefix("\u{2014} ").ok_or("no signature line")?;
            let (name, signature) = line.split_once(' ').ok_or("no key name")?;
            let signature = STANDARD.decode(signature).map_err(|e| e.to_string())?;
            let (id, signature) = signature.split_at_checked(4).ok_or("no key id")?;
            let known = self.keys.iter().find(|(known, _)| known == id);
            if let Some((_, key)) = known.filter(|_| name == self.origin) {
                if !key.verify(&text, signature) {
                    return Err("the signature is wrong".into());
                }
                verified = true;
            }
        }
        let lines: Vec<&str> = text.lines().collect();
        let [origin, size, root] = lines[..] else {
            return Err("not three lines".into());
        };
        if !verified || origin != self.origin || !note.ends_with('\n') {
            return Err("not signed by this log".into());
        }
        Ok(Checkpoint {
            size: size.parse().map_err(|_| "no size")?,
            root: hash(root)?,
        })
    }

    /// A receipt's `proof`.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn tlog_proof(&self, text: &str) -> Result<Proven, String> {
        let (proof, note) = text.split_once("\n\n").ok_or("no checkpoint")?;
        let mut lines = proof.lines();
        if lines.next() != Some("c2sp.org/tlog-proof@v1") {
            return Err("not a tlog-proof".into());
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let leaf = STANDARD.decode(extra.ok_or("no entry")?);
        let leaf = leaf.map_err(|e| e.to_string())?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.ok_or("no index")?.parse().map_err(|_| "no index")?;
        let path = lines.map(hash).collect::<Result<Vec<_>, _>>()?;
        let checkpoint = self.checkpoint(note)?;
        included(&checkpoint, index, &leaf, &path)?;
        Ok(Proven {
            index,
            leaf,
            checkpoint,
        })
    }

    /// A page of events: each is in the log of the page's checkpoint, and numbers and places
    /// follow each other. Returns the checkpoint.
    ///
    /// # Errors
    /// Which event is not proven, or what is missing.
    pub fn events(&self, page: &Value) -> Result<Checkpoint, String> {
        let checkpoint = self.checkpoint(page["checkpoint"].as_str().ok_or("no checkpoint")?)?;
        let events = page["events"].as_array().ok_or("no events")?;
        for event in events {
            let log = &event["log"];
            let index = log["index"].as_u64().ok_or("no index")?;
            let path = hashes(&log["proof"])?;
            included(&checkpoint, index, &leaf(log), &path)
                .map_err(|what| format!("event {}: {what}", event["number"]))?;
        }
        for pair in events.windows(2) {
            let (newer, older) = (&pair[0], &pair[1]);
            let next = older["number"].as_u64().map(|number| number + 1);
            if newer["number"].as_u64() != next || newer["previous"] != older["log"]["index"] {
                return Err(format!("an event is missing after {}", older["number"]));
            }
        }
        Ok(checkpoint)
    }
}

/// That the log of `new` continues the one of `old`.
///
/// # Errors
/// Where it is not proven.
pub fn continues(old: &Checkpoint, new: &Checkpoint, proof: &Value) -> Result<(), String> {
    let proof = hashes(proof)?;
    check_tree(&proof, new.size, new.root, old.size, old.root).map_err(|e| e.to_string())
}

fn included(at: &Checkpoint, index: u64, leaf: &[u8], path: &Vec<Hash>) -> Result<(), String> {
    check_record(path, at.size, at.root, index, record_hash(leaf)).map_err(|e| e.to_string())
}

/// An event's entry, from its salt and sealed body.
#[must_use]
pub fn leaf(log: &Value) -> Vec<u8> {
    let decode = |name: &str| URL_SAFE_NO_PAD.decode(log[name].as_str().unwrap()).unwrap();
    let mut committed = Vec::new();
    for field in [
        b"custodyd/event/v1".to_vec(),
        decode("salt"),
        decode("body"),
    ] {
        committed.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        committed.extend_from_slice(&field);
    }
    [&[1], digest(&SHA256, &committed).as_ref()].concat()
}

fn hash(text: &str) -> Result<Hash, String> {
    let bytes = STANDARD.decode(text).map_err(|e| e.to_string())?;
    Ok(Hash(bytes.try_into().map_err(|_| "not a hash")?))
}

fn hashes(list: &Value) -> Result<Vec<Hash>, String> {
    let list = list.as_array().ok_or("no proof")?;
    let texts = list.iter().map(|text| hash(text.as_str().unwrap_or("")));
    texts.collect()
}

/// The root of a tree with these leaves (RFC 6962, section 2.1).
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => tlog_tiles::EMPTY_HASH,
        [one] => *one,
        many => {
            let half = many.len().next_power_of_two() / 2;
            let (left, right) = many.split_at(half);
            node_hash(root_of(left), root_of(right))
        }
    }
}

/// The hashes of a tile.
#[must_use]
pub fn tile(bytes: &[u8]) -> Vec<Hash> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    assert!(rest.is_empty());
    hashes.iter().map(|hash| Hash(*hash)).collect()
}

/// The entries of a bundle.
#[must_use]
pub fn bundle(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        entries.push(entry.to_vec());
        bytes = rest;
    }
    assert!(bytes.is_empty());
    entries
}

/// The suffix of a part with so many hashes.
#[must_use]
pub fn part(index: u64, width: u64) -> String {
    match width {
        256.. => format!("{index:03}"),
        width => format!("{index:03}.p/{width}"),
    }
}

/// A machine that reads the log with a credential.
#[derive(Debug)]
pub struct Auditor {
    pub http: reqwest::Client,
    pub url: String,
    pub credential: Option<String>,
}

/// The credential of the tests' auditor.
pub const CREDENTIAL: &str = "credential-of-the-tests-auditor";

/// A section `[auditors]` with the tests' auditor.
#[must_use]
pub fn section() -> String {
    let hash = hex::encode(digest(&SHA256, CREDENTIAL.as_bytes()).as_ref());
    format!("[auditors]\ntests = \"{hash}\"\n")
}

impl Auditor {
    /// Status, the headers and the body.
    pub async fn get(&self, path: &str) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
        let mut request = self.http.get(format!("{}{path}", self.url));
        if let Some(credential) = &self.credential {
            request = request.bearer_auth(credential);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap().to_vec())
    }

    /// A part that must be there.
    pub async fn read(&self, path: &str) -> Vec<u8> {
        let (status, _, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }

    /// The code of a refusal, with its status.
    pub async fn refusal(&self, path: &str) -> String {
        let (status, _, body) = self.get(path).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        format!("{status} {}", body["code"].as_str().unwrap_or("-"))
    }

    pub async fn note(&self) -> String {
        String::from_utf8(self.read("/log/checkpoint").await).unwrap()
    }

    /// The leaf hashes up to a checkpoint, by tiles, and checked against its root.
    pub async fn leaves(&self, up_to: &Checkpoint) -> Vec<Hash> {
        let mut leaves = Vec::new();
        for index in 0..up_to.size.div_ceil(256) {
            let part = part(index, (up_to.size - index * 256).min(256));
            leaves.extend(tile(&self.read(&format!("/log/tile/0/{part}")).await));
        }
        assert!(root_of(&leaves) == up_to.root, "tiles of another log");
        leaves
    }

    /// The entries up to a checkpoint, each checked against the tiles.
    pub async fn entries(&self, up_to: &Checkpoint) -> Vec<Vec<u8>> {
        let mut entries = Vec::new();
        for index in 0..up_to.size.div_ceil(256) {
            let part = part(index, (up_to.size - index * 256).min(256));
            entries.extend(bundle(
                &self.read(&format!("/log/tile/entries/{part}")).await,
            ));
        }
        let hashes: Vec<Hash> = entries.iter().map(|entry| record_hash(entry)).collect();
        assert!(hashes == self.leaves(up_to).await, "entries of another log");
        entries
    }
}
