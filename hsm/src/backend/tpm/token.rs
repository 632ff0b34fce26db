//! Reaching the TPM: connect, prove that it is the pinned one, and the commands with their patience.
//!
//! Called by `epoch` and `provision`. Who sits between us and the TPM (a bus, a daemon, a host of virtual machines)
//! may read and change all that passes: so the storage key is compared with the configured name, the
//! session's secret is a salt that only that key can open, and everything secret travels encrypted
//! under it. Without the name nothing begins, but provisioning.

use std::{ffi::CString, thread, time::Duration};

use aws_lc_rs::hmac;
use tss_esapi::{
    constants::tss::{
        TPM2_PT_FIRMWARE_VERSION_1, TPM2_PT_MANUFACTURER, TPM2_PT_VENDOR_STRING_1,
        TPM2_PT_VENDOR_STRING_4,
    },
    structures::Public,
    traits::Marshall,
    tss2_esys::TPM2B_PUBLIC,
};

use super::{
    Options,
    attributes::Form,
    clock::Clock,
    esys::{By, Code, Esys, Tr},
    policy::{self, Binding, Use},
    response::Meaning,
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
    },
    error::{Error, Result},
    report::TokenDescription,
    secret::{Secret, SecretBytes},
};

/// What separates our authorizations from all else that is made of the same secret.
const AUTH_DOMAIN: &[u8] = b"custodyd/tpm-auth/v1";
/// Below it the secret could be guessed: nothing here is behind the TPM's lockout.
const LEAST_SECRET: usize = 32;

/// How long a command is asked again that the TPM puts off, in all about a second.
const PAUSES: [u64; 7] = [5, 10, 25, 60, 150, 300, 450];

/// A TPM with the pinned storage key, and a session salted to it.
#[derive(Debug)]
pub(super) struct Connection {
    esys: Esys,
    pub(super) storage_key: Tr,
    pub(super) session: Tr,
    pub(super) description: TokenDescription,
    /// What binds the keys to what was booted, where they are.
    pub(super) binding: Option<Binding>,
    /// Since when it has had its present command.
    pub(super) clock: Clock,
}

/// The name of an object: two bytes of algorithm, and its digest.
pub(super) type Name = [u8; 34];

/// Connects, and nothing else: nothing that is read through it is proven.
pub(super) fn reach(options: &Options) -> Attempt<Esys> {
    let tcti = name_conf(&options.tcti)?;
    Esys::connect(&tcti)
        .map_err(|code| Trouble::Sick(format!("there is no TPM behind {} ({code})", options.tcti)))
}

/// A bare `device` or `swtpm` would reach whichever TPM the library prefers that day.
pub(super) fn name_conf(tcti: &str) -> Result<CString> {
    let refused = || {
        Error::Misconfigured(format!(
            "the TPM must be given in full, such as device:/dev/tpmrm0 or swtpm:path=/run/x/socket; \
             \"{tcti}\" leaves the choice to the library"
        ))
    };
    let (kind, rest) = tcti.split_once(':').ok_or_else(refused)?;
    let whole = match kind {
        "device" => rest.starts_with('/'),
        "swtpm" => rest.starts_with("path=/") || rest.starts_with("host="),
        "mssim" => rest.starts_with("host="),
        "tabrmd" => rest.starts_with("bus_"),
        _ => false,
    };
    match CString::new(tcti) {
        Ok(tcti) if whole => Ok(tcti),
        _ => Err(refused()),
    }
}

/// Runs a command until it is done, refused, or was put off for too long.
pub(super) fn command<T>(
    esys: &mut Esys,
    what: &str,
    mut call: impl FnMut(&mut Esys) -> std::result::Result<T, Code>,
) -> Attempt<T> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let code = match call(esys) {
            Ok(value) => return Ok(value),
            Err(code) => code,
        };
        match (code.meaning(), pauses.next()) {
            (Meaning::Passing, Some(pause)) => thread::sleep(Duration::from_millis(pause)),
            _ => return Err(trouble(what, code)),
        }
    }
}

/// A refused authorization is final, and so is the lockout: whoever asked again would wear it out.
fn trouble(what: &str, code: Code) -> Trouble {
    let refused = |reason: String| {
        Trouble::Final(Error::PinRefused {
            token: "TPM".to_owned(),
            reason,
        })
    };
    match code.meaning() {
        Meaning::WrongAuth => refused(format!("{what}: {code}")),
        Meaning::Lockout => refused(format!(
            "{what}: it is in its lockout against guessing, which ends with time or by tpm2_dictionarylockout -c"
        )),
        _ => Trouble::Sick(format!("{what}: {code}")),
    }
}

impl Connection {
    /// Connects, checks the storage key, and starts the session.
    pub(super) fn begin(options: &Options) -> Attempt<Self> {
        let mut esys = reach(options)?;
        let pinned = options.storage_key.as_ref().ok_or_else(|| {
            Error::Misconfigured(
                "token.storage_key is not set: the name of the TPM's storage key, which `custodyd token \
                 provision` prints"
                    .to_owned(),
            )
        })?;
        let storage_key = storage_key(&mut esys, options)?;
        let found = name(&command(&mut esys, "read the storage key", |esys| {
            esys.read_public(storage_key, None)
        })?)?;
        if hex(&found) != pinned.to_ascii_lowercase() {
            return Err(Trouble::Final(Error::Misconfigured(format!(
                "the TPM that answers is not the one that token.storage_key pins: its storage key is {}; \
                 put the right TPM back. If it was cleared, its keys are gone, and nothing that was sealed \
                 under them can be opened again; for a new realm `custodyd token provision` makes new ones",
                hex(&found)
            ))));
        }
        let description = describe(&mut esys, options, &found)?;
        let mut begun = Self::with_session(esys, storage_key, description)?;
        begun.binding = policy::find(&mut begun, options)?;
        Ok(begun)
    }

    pub(super) fn with_session(
        mut esys: Esys,
        storage_key: Tr,
        description: TokenDescription,
    ) -> Attempt<Self> {
        let session = command(&mut esys, "start a session", |esys| {
            esys.start_session(Some(storage_key))
        })?;
        Ok(Self {
            esys,
            storage_key,
            session,
            description,
            binding: None,
            clock: Clock::new(),
        })
    }

    /// A command under the session.
    pub(super) fn command<T>(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut Esys, Tr) -> std::result::Result<T, Code>,
    ) -> Attempt<T> {
        let (session, clock) = (self.session, &self.clock);
        command(&mut self.esys, what, |esys| {
            clock.restart();
            call(esys, session)
        })
    }

    /// The same, where some responses are an answer of their own. What passes is waited for.
    pub(super) fn ask<T>(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut Esys, Tr) -> std::result::Result<T, Code>,
    ) -> Attempt<std::result::Result<T, Meaning>> {
        self.command(what, |esys, session| answered(call(esys, session)))
    }

    /// A command with one of our keys, or the index of the anchors: its authorization is in the session, and where it is bound to what
    /// was booted, in a policy as well.
    pub(super) fn with_key<T>(
        &mut self,
        what: &str,
        purpose: Use,
        mut call: impl FnMut(&mut Esys, By) -> std::result::Result<T, Code>,
    ) -> Attempt<T> {
        let (binding, clock) = (self.binding.clone(), self.clock.clone());
        self.command(what, |esys, session| {
            let by = match &binding {
                Some(binding) => binding.satisfy(esys, session, purpose)?,
                None => By {
                    session,
                    policy: None,
                },
            };
            clock.restart();
            call(esys, by)
        })
    }

    /// The same with the index of the anchors, where some responses are an answer of their own. What the policy
    /// refuses is none of them.
    pub(super) fn ask_with_index<T>(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut Esys, By) -> std::result::Result<T, Code>,
    ) -> Attempt<std::result::Result<T, Meaning>> {
        self.with_key(what, Use::Anchors, |esys, by| answered(call(esys, by)))
    }

    /// The policy of the index of the anchors, if it has one.
    pub(super) fn policy_of_anchors(&self) -> Option<[u8; 32]> {
        self.binding.as_ref().map(Binding::anchors)
    }

    /// The policy that a key of this form has, if any.
    pub(super) fn policy_of(&self, form: Form) -> Option<[u8; 32]> {
        self.binding.as_ref().map(|binding| binding.policy_of(form))
    }
}

impl Drop for Connection {
    /// Gives the sessions' places back. The TPM may be gone: then so are they.
    fn drop(&mut self) {
        if let Some(binding) = &self.binding {
            let _ = self.esys.flush(binding.session());
        }
        let _ = self.esys.flush(self.session);
    }
}

/// What is an answer, and what is a failure of the way there.
fn answered<T>(
    done: std::result::Result<T, Code>,
) -> std::result::Result<std::result::Result<T, Meaning>, Code> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(code) => match code.meaning() {
            Meaning::Passing | Meaning::Sick | Meaning::Lockout => Err(code),
            meaning => Ok(Err(meaning)),
        },
    }
}

/// The storage key at its handle, whatever it is.
fn storage_key(esys: &mut Esys, options: &Options) -> Attempt<Tr> {
    let handle = options.handles;
    match find(esys, handle)? {
        Some(key) => Ok(key),
        None => {
            let there = command(esys, "list what is there", |esys| esys.handles(0x8100_0000))?;
            let there: Vec<String> = there.iter().map(|h| format!("0x{h:08x}")).collect();
            Err(Trouble::Final(Error::Misconfigured(format!(
                "the TPM has no storage key of custodyd at 0x{handle:08x} (present: {}): it is another \
                 TPM, it was cleared, or it was not provisioned. Put the right one back; the keys of a \
                 cleared TPM are gone, and nothing that was sealed under them can be opened again. For a new \
                 realm: `custodyd token provision`",
                match there.is_empty() {
                    true => "nothing".to_owned(),
                    false => there.join(", "),
                }
            ))))
        }
    }
}

/// The object at a handle, if there is one.
pub(super) fn find(esys: &mut Esys, handle: u32) -> Attempt<Option<Tr>> {
    command(esys, "look up a handle", |esys| {
        match esys.find(handle, None) {
            Ok(found) => Ok(Some(found)),
            Err(code) if code.meaning() == Meaning::Absent => Ok(None),
            Err(code) => Err(code),
        }
    })
}

/// The name that follows from a public area; what the TPM calls it is not believed.
pub(super) fn name(public: &TPM2B_PUBLIC) -> Attempt<Name> {
    let unreadable = || Trouble::Sick("a public area that cannot be read".to_owned());
    let parsed = Public::try_from(*public).map_err(|_| unreadable())?;
    let bytes = parsed.marshall().map_err(|_| unreadable())?;
    // SHA-256 is the only algorithm for names that our keys have.
    let mut name = [0; 34];
    let (algorithm, digest) = name.split_at_mut(2);
    algorithm.copy_from_slice(&public.publicArea.nameAlg.to_be_bytes());
    digest.copy_from_slice(&sha256(&[&bytes]));
    Ok(name)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What authorizes the use of one object: nobody can put another object in its place without the
/// secret, nor one of ours in the place of another.
pub(super) fn auth(secret: &SecretBytes, label: &str) -> Result<Secret<32>> {
    if secret.expose().len() < LEAST_SECRET {
        return Err(Error::Misconfigured(format!(
            "the secret in token.pin_file is too short for a TPM: expected at least {LEAST_SECRET} \
             random characters (`custodyd token provision` makes such a file), for whoever is on the \
             host may try as often as they like"
        )));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let mut input = AUTH_DOMAIN.to_vec();
    input.push(0);
    input.extend_from_slice(label.as_bytes());
    let tag = hmac::sign(&key, &input);
    Ok(Secret::init(|auth| {
        for (to, from) in auth.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        // A TPM cuts zeros off at the end, and not every library does.
        if let Some(last) = auth.last_mut() {
            *last |= 0x80;
        }
    }))
}

pub(super) fn describe(
    esys: &mut Esys,
    options: &Options,
    storage_key: &Name,
) -> Attempt<TokenDescription> {
    let first = TPM2_PT_MANUFACTURER;
    let found = command(esys, "read the properties", |esys| {
        esys.properties(first, 8)
    })?;
    let text = |from, to| -> String {
        let words = found.iter().filter(|(tag, _)| (from..=to).contains(tag));
        let bytes: Vec<u8> = words.flat_map(|(_, value)| value.to_be_bytes()).collect();
        let shown = bytes
            .into_iter()
            .filter(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let text: String = shown.map(char::from).collect();
        text.trim().to_owned()
    };
    let manufacturer = text(TPM2_PT_MANUFACTURER, TPM2_PT_MANUFACTURER);
    let vendor = text(TPM2_PT_VENDOR_STRING_1, TPM2_PT_VENDOR_STRING_4);
    let firmware = found
        .iter()
        .find(|(tag, _)| *tag == TPM2_PT_FIRMWARE_VERSION_1);
    let firmware = firmware.map_or(0, |(_, version)| *version);
    let digest = storage_key.get(2..10).unwrap_or_default();
    Ok(TokenDescription {
        module: options.tcti.clone().into(),
        software_token: is_software(&manufacturer),
        manufacturer,
        model: format!("{vendor} firmware {}.{}", firmware >> 16, firmware & 0xffff),
        label: format!("0x{:08x}", options.handles),
        serial: hex(digest),
    })
}

/// Makers of TPMs that are programs: libtpms, and the simulator of the reference code.
fn is_software(manufacturer: &str) -> bool {
    ["IBM", "MSFT", "XYZ", "xCG"].contains(&manufacturer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_is_named_in_full_or_refused() {
        for whole in [
            "device:/dev/tpmrm0",
            "swtpm:path=/run/t/s",
            "swtpm:host=127.0.0.1,port=2321",
            "mssim:host=localhost,port=2321",
            "tabrmd:bus_type=session",
        ] {
            assert!(name_conf(whole).is_ok(), "{whole}");
        }
        for bare in [
            "",
            "device",
            "device:",
            "device:tpmrm0",
            "swtpm",
            "swtpm:",
            "swtpm:path=s",
            "tabrmd",
            "tabrmd:",
            "/dev/tpmrm0",
            "cmd:sh",
            "device:/dev/tpm\0rm0",
        ] {
            assert!(name_conf(bare).is_err(), "{bare}");
        }
    }

    #[test]
    fn authorizations_differ_by_label_and_secret() {
        let secret = |byte| SecretBytes::from(vec![byte; 32]);
        let of = |byte, label: &str| *auth(&secret(byte), label).unwrap().expose();
        assert_eq!(of(1, "a"), of(1, "a"));
        assert_ne!(of(1, "a"), of(1, "b"));
        assert_ne!(of(1, "a"), of(2, "a"));
        assert!(auth(&SecretBytes::from(vec![1; 31]), "a").is_err());
        for number in 0..300 {
            assert_ne!(of(1, &number.to_string())[31], 0);
        }
    }
}
