//! A custodian's share, and the age files that it travels in.
//!
//! Called by the parent and by `custodyd escrow`. A share is in clear only inside this process, between
//! two files: no function here gives its bytes to anybody who could show them. Only age's X25519
//! recipients are taken, so that each custodian is one key that they hold.

use std::{fmt, io::Read as _, iter};

use age::{Decryptor, armor::ArmoredReader, secrecy::ExposeSecret as _, x25519};
use serde::{Deserialize, Serialize};

use super::{EscrowError, split::VALUE};
use crate::secret::SecretBytes;

const MAGIC: [u8; 4] = *b"CDE\x01";
const LENGTH: usize = MAGIC.len() + 16 + 32 + VALUE;
/// No file with a share is longer, and no file with an identity.
pub const MAX_SHARE_FILE: usize = 4096;

/// One custodian's part of a ceremony's secret.
#[derive(Debug)]
pub struct Share {
    pub(super) ceremony: [u8; 16],
    /// Of the manifest.
    pub(super) manifest: [u8; 32],
    value: SecretBytes,
}

/// To whom a file is encrypted: `age1...`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(pub(super) x25519::Recipient);

/// What opens the files of one recipient.
pub struct Identity(x25519::Identity);

impl Recipient {
    /// # Errors
    /// [`EscrowError::Identity`] with what is expected.
    pub fn parse(text: &str) -> Result<Self, EscrowError> {
        text.parse().map(Self).map_err(|_| {
            EscrowError::Identity(format!(
                "\"{text}\" is no recipient: expected age1..., as `age-keygen` prints it (not an ssh key, not a plugin's)"
            ))
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.to_string()
    }
}

impl TryFrom<String> for Recipient {
    type Error = EscrowError;

    fn try_from(text: String) -> Result<Self, EscrowError> {
        Self::parse(&text)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", self.0.to_public())
    }
}

impl Identity {
    /// A new one, from the host's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// As `age-keygen` writes it: a comment with the recipient, then the identity.
    #[must_use]
    pub fn to_file(&self) -> SecretBytes {
        let secret = self.0.to_string();
        let secret = secret.expose_secret().as_bytes();
        let head = format!("# public key: {}\n", self.recipient());
        SecretBytes::init(head.len() + secret.len() + 1, |file| {
            let all = head.as_bytes().iter().chain(secret).chain(b"\n");
            file.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        })
    }

    /// The one identity in a file of `age-keygen`.
    ///
    /// # Errors
    /// [`EscrowError::Identity`]; it never holds anything of the file.
    pub fn from_file(file: &[u8]) -> Result<Self, EscrowError> {
        let refused = |what: &str| EscrowError::Identity(format!("the identity file {what}"));
        let text = std::str::from_utf8(file).map_err(|_| refused("is no text"))?;
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(refused(
                "must hold one identity, a line AGE-SECRET-KEY-1..., besides comments",
            ));
        };
        line.parse().map(Self).map_err(|_| {
            refused("holds no identity AGE-SECRET-KEY-1...; decrypt one with a passphrase first: age -d")
        })
    }
}

impl Share {
    pub(super) fn new(ceremony: [u8; 16], manifest: [u8; 32], value: SecretBytes) -> Self {
        Self {
            ceremony,
            manifest,
            value,
        }
    }

    pub(super) fn value(&self) -> &SecretBytes {
        &self.value
    }

    fn encode(&self) -> SecretBytes {
        let fields = MAGIC
            .iter()
            .chain(&self.ceremony)
            .chain(&self.manifest)
            .chain(self.value.expose());
        SecretBytes::init(LENGTH, |out| {
            out.iter_mut()
                .zip(fields)
                .for_each(|(to, from)| *to = *from);
        })
    }

    pub(super) fn parse(bytes: &SecretBytes) -> Option<Self> {
        let rest = bytes.expose().strip_prefix(&MAGIC)?;
        let (ceremony, rest) = rest.split_first_chunk::<16>()?;
        let (manifest, value) = rest.split_first_chunk::<32>()?;
        (value.len() == VALUE).then(|| {
            let value = SecretBytes::init(VALUE, |place| place.copy_from_slice(value));
            Self::new(*ceremony, *manifest, value)
        })
    }

    /// An armoured age file for one recipient.
    ///
    /// # Errors
    /// [`EscrowError::Unsound`] where age does not make one.
    pub fn encrypt(&self, to: &Recipient) -> Result<String, EscrowError> {
        let bytes = self.encode();
        age::encrypt_and_armor(&to.0, bytes.expose()).map_err(|_| EscrowError::Unsound)
    }

    /// The share in an age file, armoured or not.
    ///
    /// # Errors
    /// [`EscrowError::Closed`] for a file that does not open, [`EscrowError::NotAShare`] for one that
    /// holds something else.
    pub fn decrypt(file: &[u8], identity: &Identity) -> Result<Self, EscrowError> {
        let closed = |_| EscrowError::Closed;
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(file)).map_err(closed)?;
        let identity: &dyn age::Identity = &identity.0;
        let mut reader = decryptor.decrypt(iter::once(identity)).map_err(closed)?;
        // One more than a share has: the buffer never grows, and what is longer is seen.
        let mut length = 0;
        let mut broken = false;
        let bytes = SecretBytes::init(LENGTH + 1, |place| {
            while let Some(rest) = place.get_mut(length..).filter(|rest| !rest.is_empty()) {
                match reader.read(rest) {
                    Ok(0) => break,
                    Ok(count) => length += count,
                    Err(_) => {
                        broken = true;
                        break;
                    }
                }
            }
        });
        if broken {
            return Err(EscrowError::Closed);
        }
        let mut bytes = bytes;
        bytes.truncate(length);
        Self::parse(&bytes).ok_or(EscrowError::NotAShare)
    }
}
