//! Finding our keys in the TPM and judging them.
//!
//! Called at the start of each epoch, for reports and by `provision`. A TPM's objects have no labels:
//! the handle says which key it is, and the authorization is made from the label, so that an
//! object moved to another handle does not answer. Two keys of one label cannot be.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Mode, Options,
    attributes::{self, Form},
    esys::Tr,
    mechanism, policy,
    token::{Connection, auth},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::KnownAnswers,
        origin,
    },
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::{KeyKind, KeyReport, Verdict},
    secret::Secret,
};

/// Handles that belong to one realm: the storage key, then sixteen for each purpose.
const PLACES: u32 = 0x100;
const PER_PURPOSE: u32 = 0x10;

/// Where a key is, if there is a place for its version (1 to 15).
pub(super) fn handle_of(first: u32, key: KeyId) -> Option<u32> {
    let purpose = KeyPurpose::REQUIRED
        .iter()
        .position(|p| *p == key.purpose)?;
    let purpose = u32::try_from(purpose).ok()?.checked_add(1)?;
    let version = u32::from(key.version);
    if !(1..PER_PURPOSE).contains(&version) {
        return None;
    }
    first.checked_add(purpose.checked_mul(PER_PURPOSE)?.checked_add(version)?)
}

/// Which key a handle is for.
fn key_at(first: u32, handle: u32) -> Option<KeyId> {
    let offset = handle.checked_sub(first)?;
    let purpose = usize::try_from((offset / PER_PURPOSE).checked_sub(1)?).ok()?;
    let version = u16::try_from(offset % PER_PURPOSE).ok()?;
    let key = KeyId::new(*KeyPurpose::REQUIRED.get(purpose)?, version);
    (version > 0).then_some(key)
}

/// What an object of this purpose is in this mode.
pub(super) fn form_of(purpose: KeyPurpose, mode: Mode) -> Form {
    match (purpose.is_symmetric(), mode) {
        (false, _) => Form::Ecdsa,
        (true, Mode::PerStart) => Form::Sealed,
        (true, Mode::PerOperation) => Form::Hmac,
    }
}

/// One object at a handle of ours.
struct Found {
    object: Tr,
    report: KeyReport,
    public: Option<PublicKey>,
}

/// All objects at handles of ours.
pub(super) struct Scan {
    found: Vec<Found>,
    /// Handles between ours that no key has.
    strays: Vec<u32>,
    /// There is a recovery object, and nothing says that keys are bound.
    bound: bool,
}

/// Where the key of an HMAC is.
#[derive(Debug)]
pub(super) enum SecretKey {
    InTpm(Tr),
    /// Unsealed at the start of the epoch, and wiped with it.
    Unsealed {
        object: Tr,
        root: Arc<Secret<32>>,
    },
}

/// The keys that an epoch works with.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    secrets: BTreeMap<KeyId, SecretKey>,
    pairs: BTreeMap<KeyId, (Tr, PublicKey)>,
}

impl KeyTable {
    pub(super) fn newest(&self, purpose: KeyPurpose) -> Option<KeyId> {
        let keys = self.secrets.keys().chain(self.pairs.keys());
        keys.filter(|id| id.purpose == purpose).max().copied()
    }

    pub(super) fn holds(&self, key: KeyId) -> bool {
        self.secrets.contains_key(&key) || self.pairs.contains_key(&key)
    }

    /// How many keys of the same purpose there are besides this one.
    pub(super) fn but(&self, key: KeyId) -> usize {
        let keys = self.secrets.keys().chain(self.pairs.keys());
        keys.filter(|id| id.purpose == key.purpose && **id != key)
            .count()
    }

    pub(super) fn secret(&self, key: KeyId) -> Result<&SecretKey> {
        self.secrets.get(&key).ok_or_else(|| absent(key))
    }

    pub(super) fn pair(&self, key: KeyId) -> Result<(Tr, PublicKey)> {
        self.pairs.get(&key).copied().ok_or_else(|| absent(key))
    }

    /// What a secret key makes of a message in the TPM, or a root that is unsealed for it.
    pub(super) fn mac(
        &self,
        connection: &mut Connection,
        key: KeyId,
        message: &[u8],
    ) -> Attempt<Secret<32>> {
        match self.secret(key)? {
            SecretKey::InTpm(key) => mechanism::hmac(connection, *key, message),
            SecretKey::Unsealed { object, .. } => {
                let root = mechanism::unseal(connection, *object)?;
                Ok(mechanism::hmac_on_host(&root, message))
            }
        }
    }

    /// What every key makes of the known message; a root is unsealed anew for it, so that the TPM
    /// speaks and not this process's memory.
    pub(super) fn answers(&self, connection: &mut Connection) -> Attempt<KnownAnswers> {
        let mut answers = KnownAnswers::default();
        for id in self.secrets.keys() {
            answers.take_mac(*id, |message| self.mac(connection, *id, message))?;
        }
        for (id, (key, public)) in &self.pairs {
            answers.take_signature(*id, *public, |digest| {
                mechanism::ecdsa(connection, *key, digest)
            })?;
        }
        Ok(answers)
    }
}

fn absent(key: KeyId) -> Error {
    Error::Misconfigured(format!("the token holds no key {key} for this operation"))
}

impl Scan {
    /// Reads the public area of every object at a handle of ours. Nothing is authorized by it.
    pub(super) fn of(connection: &mut Connection, options: &Options) -> Attempt<Self> {
        let first = options.handles;
        let last = first.saturating_add(PLACES);
        let listed = connection.command("list handles", |esys, _| esys.handles(first))?;
        let mut scan = Self {
            found: Vec::new(),
            strays: Vec::new(),
            bound: false,
        };
        let any = policy::is_any(connection)?;
        for handle in listed {
            if handle <= first || handle >= last {
                continue;
            }
            if handle == first.saturating_add(policy::RECOVERY) {
                scan.bound = options.pcrs.is_none();
                continue;
            }
            let Some(id) = key_at(first, handle) else {
                scan.strays.push(handle);
                continue;
            };
            let object = connection.command("find a key", |esys, session| {
                esys.find(handle, Some(session))
            })?;
            let public = connection.command("read a key", |esys, session| {
                esys.read_public(object, Some(session))
            })?;
            let form = form_of(id.purpose, options.mode);
            let policy = connection.policy_of(form);
            let (mut attributes, public) =
                attributes::judge(&public, form, options.origin, policy.as_ref());
            if any {
                attributes.push((
                    "approved",
                    "any".to_owned(),
                    Verdict::Warning(
                        "whatever was booted may use it: `custodyd token reseal` approves what is booted now, and no more"
                            .to_owned(),
                    ),
                ));
            }
            let report = KeyReport {
                id,
                label: id.label(),
                kind: match id.purpose.is_symmetric() {
                    true => KeyKind::Secret,
                    false => KeyKind::Private,
                },
                attributes,
            };
            scan.found.push(Found {
                object,
                report,
                public,
            });
        }
        scan.found.sort_by_key(|found| found.report.id);
        Ok(scan)
    }

    pub(super) fn reports(&self) -> Vec<KeyReport> {
        self.found
            .iter()
            .map(|found| found.report.clone())
            .collect()
    }

    /// Purposes that have no key at all.
    pub(super) fn missing(&self) -> Vec<KeyPurpose> {
        let has = |purpose| self.found.iter().any(|f| f.report.id.purpose == purpose);
        let missing = KeyPurpose::REQUIRED.into_iter().filter(|p| !has(*p));
        missing.collect()
    }

    /// Everything wrong with the objects that are there, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let strays = self.strays.iter().map(|handle| {
            format!("the object at 0x{handle:08x} stands between custodyd's handles and is none of its keys")
        });
        let bad = self.found.iter().filter_map(|f| {
            let why = attributes::first_bad(&f.report.attributes)?;
            Some(format!(
                "the key {} is not safe to use: {why}",
                f.report.label
            ))
        });
        let bound = self.bound.then(|| {
            "the keys are bound to what was booted, by a recovery object, and token.pcrs is not set".to_owned()
        });
        bound.into_iter().chain(strays).chain(bad).collect()
    }

    /// The keys to work with, if each purpose has a sound one. Presents the secret for the first time.
    pub(super) fn table(
        &self,
        connection: &mut Connection,
        options: &Options,
    ) -> Attempt<KeyTable> {
        let mut problems = self.problems();
        problems.extend(origin::lacking(&self.missing()));
        if !problems.is_empty() {
            return Err(Trouble::Final(Error::Misconfigured(problems.join("; "))));
        }
        let mut table = KeyTable::default();
        for found in &self.found {
            let (id, object) = (found.report.id, found.object);
            let auth = auth(&options.secret, &id.label())?;
            connection.command("set an authorization", |esys, _| {
                esys.set_auth(object, auth.expose())
            })?;
            match (form_of(id.purpose, options.mode), found.public) {
                (Form::Sealed, _) => {
                    let root = Arc::new(mechanism::unseal(connection, object)?);
                    table
                        .secrets
                        .insert(id, SecretKey::Unsealed { object, root });
                }
                (Form::Hmac, _) => {
                    table.secrets.insert(id, SecretKey::InTpm(object));
                }
                (_, Some(public)) => {
                    table.pairs.insert(id, (object, public));
                }
                (_, None) => return Err(Trouble::Sick(format!("{id} without a point"))),
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_handle_and_each_handle_at_most_one_key() {
        let first = 0x8101_8100;
        let mut seen = Vec::new();
        for purpose in KeyPurpose::REQUIRED {
            for version in 1..=15 {
                let key = KeyId::new(purpose, version);
                let handle = handle_of(first, key).unwrap();
                assert!(handle > first && handle < first + PLACES);
                assert_eq!(key_at(first, handle), Some(key));
                seen.push(handle);
            }
            assert_eq!(handle_of(first, KeyId::new(purpose, 16)), None);
        }
        let ed25519 = KeyId::new(KeyPurpose::CheckpointEd25519, 1);
        assert_eq!(handle_of(first, ed25519), None);
        for handle in first - 1..first + PLACES + 16 {
            assert_eq!(key_at(first, handle).is_some(), seen.contains(&handle));
        }
    }
}
