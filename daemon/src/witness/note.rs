//! Signed notes, checkpoints and cosignatures as bytes: C2SP signed-note, tlog-checkpoint and
//! tlog-cosignature, as far as a log needs them to know what a witness said.
//!
//! Called by the other files here and by the configuration, for verifier keys. What is parsed was
//! written by a witness, by whoever sits between, or by whoever can write our files; so what is
//! not exactly of the form is nothing, and what parses is believed only once its signature was
//! verified by a key that the configuration, or the token, gave. Pure: no clock, no I/O.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custodyd_hsm::{PublicKey, checkpoint};

use crate::factors::sha256;

/// Timestamped Ed25519 cosignatures.
const COSIGNATURE_V1: u8 = 0x04;
/// So many signatures are looked at; a verifier has to accept 16.
const MOST_SIGNATURES: usize = 64;

/// A text and the signatures below it. None of them is verified yet.
#[derive(Debug)]
pub(crate) struct Note<'n> {
    /// With the newline at its end.
    pub(crate) text: &'n str,
    pub(crate) signatures: Vec<Signature<'n>>,
}

/// A signature line.
#[derive(Debug)]
pub(crate) struct Signature<'n> {
    /// As it stands, without its newline.
    pub(crate) line: &'n str,
    name: &'n str,
    id: [u8; 4],
    signature: Vec<u8>,
}

/// What a checkpoint says. Whether it says so truly, its signatures tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement<'n> {
    pub(crate) origin: &'n str,
    pub(crate) size: u64,
    pub(crate) root: [u8; 32],
}

/// The key of a witness, and the name that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

/// A cosignature that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cosignature {
    /// Of the witness's clock, in seconds since the Unix epoch.
    pub(crate) time: u64,
    /// The signature line, without its newline.
    pub(crate) line: String,
}

/// A signature by this name and key id is there, and is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forged;

impl<'n> Note<'n> {
    pub(crate) fn parse(note: &'n str) -> Option<Self> {
        let allowed = |character: char| character == '\n' || !character.is_ascii_control();
        if !note.chars().all(allowed) {
            return None;
        }
        // The last empty line: the text may have others.
        let blank = note.rfind("\n\n")?;
        let text = note.get(..=blank)?;
        let signatures = signatures(note.get(blank + 2..)?)?;
        (blank > 0).then_some(Self { text, signatures })
    }

    /// Whether one of the realm's checkpoint keys signed the text, under the log's own name.
    pub(crate) fn is_signed_by(&self, origin: &str, keys: &[PublicKey]) -> bool {
        self.signatures.iter().any(|one| {
            let known = keys.iter().find(|key| checkpoint::key_id(key) == one.id);
            let verifies = |key: &PublicKey| {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_point())
                    .verify(self.text.as_bytes(), &one.signature)
                    .is_ok()
            };
            one.name == origin && known.is_some_and(verifies)
        })
    }
}

/// Signature lines, each ended by a newline; at least one.
pub(crate) fn signatures(lines: &str) -> Option<Vec<Signature<'_>>> {
    let lines = lines.strip_suffix('\n')?;
    let found = lines.split('\n').take(MOST_SIGNATURES + 1);
    let found = found.map(signature).collect::<Option<Vec<_>>>()?;
    (found.len() <= MOST_SIGNATURES).then_some(found)
}

fn signature(line: &str) -> Option<Signature<'_>> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let decoded = STANDARD.decode(encoded).ok()?;
    let (id, signature) = decoded.split_first_chunk::<4>()?;
    (is_key_name(name) && !signature.is_empty()).then(|| Signature {
        line,
        name,
        id: *id,
        signature: signature.to_vec(),
    })
}

fn is_key_name(name: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && !c.is_ascii_control() && c != '+';
    !name.is_empty() && name.chars().all(allowed)
}

impl<'n> Statement<'n> {
    /// A checkpoint's text: three lines and no extension, as this log writes it.
    pub(crate) fn parse(text: &'n str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        if origin.is_empty() || lines.next().is_some() {
            return None;
        }
        Some(Self {
            origin,
            size: decimal(size)?,
            root: STANDARD.decode(root).ok()?.try_into().ok()?,
        })
    }
}

/// A number in the one spelling that the specifications allow.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl VerifierKey {
    /// `<name>+<key id in hex>+<base64(0x04 || public key)>`.
    ///
    /// # Errors
    /// What was wrong, for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "expected a verifier key such as \"witness.example/w1+0123abcd+BAAA...\", as the witness's \
                            operator publishes it";
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(FORM);
        };
        let mut given = [0; 4];
        hex::decode_to_slice(id, &mut given).map_err(|_| FORM)?;
        let material = STANDARD.decode(key).map_err(|_| FORM)?;
        let (kind, key) = material.split_first().ok_or(FORM)?;
        match kind {
            &COSIGNATURE_V1 => {}
            0x01 => {
                return Err(
                    "a key for notes (type 0x01), not for cosignatures: a witness's has type 0x04 (c2sp.org/tlog-cosignature)",
                );
            }
            0x06 => {
                return Err(
                    "an ML-DSA-44 key (type 0x06), which this program can not verify with: ask for the Ed25519 key (type 0x04)",
                );
            }
            _ => return Err("expected a key of type 0x04, Ed25519 cosignatures"),
        }
        let key: [u8; 32] = key.try_into().map_err(|_| FORM)?;
        let read = Self {
            id: key_id(name, &key),
            name: name.to_owned(),
            key,
        };
        if !is_key_name(name) || read.to_text() != text {
            return Err(
                "a verifier key that does not fit together: its key id is not that of its name and key",
            );
        }
        UnparsedPublicKey::new(&ED25519, key)
            .parse()
            .map_err(|_| "a verifier key whose Ed25519 key is none")?;
        Ok(read)
    }

    #[must_use]
    pub fn to_text(&self) -> String {
        let material = [&[COSIGNATURE_V1][..], &self.key].concat();
        let id = hex::encode(self.id);
        format!("{}+{id}+{}", self.name, STANDARD.encode(material))
    }

    /// Whether two are by the same key: then they are one witness, whatever their names.
    #[must_use]
    pub fn is_by_the_key_of(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// This key's cosignature of a checkpoint's text, among these lines. `None` where none of them
    /// is by this name and key id; those of others are not looked at.
    ///
    /// # Errors
    /// `Forged` where one is, and does not verify.
    pub(crate) fn cosignature(
        &self,
        text: &str,
        lines: &[Signature<'_>],
    ) -> Result<Option<Cosignature>, Forged> {
        let mut found: Option<Cosignature> = None;
        for one in lines {
            if one.name != self.name || one.id != self.id {
                continue;
            }
            let cosignature = self.verify(text, one).ok_or(Forged)?;
            // The latest, where a witness sends several.
            if found
                .as_ref()
                .is_none_or(|known| known.time < cosignature.time)
            {
                found = Some(cosignature);
            }
        }
        Ok(found)
    }

    fn verify(&self, text: &str, one: &Signature<'_>) -> Option<Cosignature> {
        let (time, signature) = one.signature.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        if time == 0 || i64::try_from(time).is_err() {
            return None;
        }
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(message(time, text).as_bytes(), signature)
            .ok()?;
        Some(Cosignature {
            time,
            line: one.line.to_owned(),
        })
    }
}

/// What a cosignature signs.
fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

fn key_id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(&[name.as_bytes(), b"\n", &[COSIGNATURE_V1], key]);
    [a, b, c, d]
}

#[cfg(test)]
pub(super) mod tests;
