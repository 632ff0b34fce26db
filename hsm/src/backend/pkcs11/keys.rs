//! Finding our keys in the token and judging them.
//!
//! Called at the start of each epoch and for reports. A key that could leave
//! the token, that can do more than its purpose needs, or that is there twice
//! is refused: with two objects of one label, which one seals is a matter of
//! chance, and one of them may be known to somebody.

use std::collections::BTreeMap;

use cryptoki::{
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};

use super::{
    attributes::{Public, examine},
    mechanism::{self, Attempt},
};
use crate::{
    backend::{known_answer::KnownAnswers, origin},
    ed25519::Ed25519Key,
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::{KeyKind, KeyReport},
    root_keys::KeyOrigin,
};

/// One object that carries a label of ours.
struct Found {
    handle: ObjectHandle,
    report: KeyReport,
    public: Option<Public>,
}

/// All objects that carry a label of ours.
pub(super) struct Scan(Vec<Found>);

/// The keys that an epoch works with.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    pub(super) secrets: BTreeMap<KeyId, ObjectHandle>,
    pub(super) pairs: BTreeMap<KeyId, (ObjectHandle, PublicKey)>,
    pub(super) edwards: BTreeMap<KeyId, (ObjectHandle, Ed25519Key)>,
}

impl KeyTable {
    pub(super) fn newest(&self, purpose: KeyPurpose) -> Option<KeyId> {
        self.all().filter(|id| id.purpose == purpose).max()
    }

    /// Each key with what is asked to do something with it.
    pub(super) fn handles(&self) -> impl Iterator<Item = (KeyId, ObjectHandle)> {
        let secrets = self.secrets.iter().map(|(id, handle)| (*id, *handle));
        let pairs = self.pairs.iter().map(|(id, (handle, _))| (*id, *handle));
        let edwards = self.edwards.iter().map(|(id, (handle, _))| (*id, *handle));
        secrets.chain(pairs).chain(edwards)
    }

    /// This key alone.
    pub(super) fn only(&self, key: KeyId) -> Self {
        let mut one = Self::default();
        one.put(key, self);
        one
    }

    /// A key as that table has it.
    pub(super) fn put(&mut self, key: KeyId, from: &Self) {
        if let Some(secret) = from.secrets.get(&key) {
            self.secrets.insert(key, *secret);
        }
        if let Some(pair) = from.pairs.get(&key) {
            self.pairs.insert(key, *pair);
        }
        if let Some(pair) = from.edwards.get(&key) {
            self.edwards.insert(key, *pair);
        }
    }

    pub(super) fn handle(&self, key: KeyId) -> Option<ObjectHandle> {
        self.handles()
            .find_map(|(id, handle)| (id == key).then_some(handle))
    }

    fn all(&self) -> impl Iterator<Item = KeyId> {
        self.handles().map(|(id, _)| id)
    }

    pub(super) fn holds(&self, key: KeyId) -> bool {
        self.all().any(|held| held == key)
    }

    /// How many keys of the same purpose there are besides this one.
    pub(super) fn but(&self, key: KeyId) -> usize {
        self.all()
            .filter(|id| id.purpose == key.purpose && *id != key)
            .count()
    }

    pub(super) fn secret(&self, key: KeyId) -> Result<ObjectHandle> {
        self.secrets.get(&key).copied().ok_or_else(|| absent(key))
    }

    pub(super) fn pair(&self, key: KeyId) -> Result<(ObjectHandle, PublicKey)> {
        self.pairs.get(&key).copied().ok_or_else(|| absent(key))
    }

    pub(super) fn edwards(&self, key: KeyId) -> Result<(ObjectHandle, Ed25519Key)> {
        self.edwards.get(&key).copied().ok_or_else(|| absent(key))
    }

    /// What every key makes of the known message.
    pub(super) fn answers(&self, session: &Session) -> Attempt<KnownAnswers> {
        let mut answers = KnownAnswers::default();
        for (id, handle) in &self.secrets {
            answers.take_mac(*id, |message| mechanism::hmac(session, *handle, message))?;
        }
        for (id, (handle, public)) in &self.pairs {
            answers.take_signature(*id, *public, |digest| {
                mechanism::ecdsa(session, *handle, digest)
            })?;
        }
        for (id, (handle, public)) in &self.edwards {
            answers.take_ed25519(*id, *public, |message| {
                mechanism::eddsa(session, *handle, message)
            })?;
        }
        Ok(answers)
    }
}

fn absent(key: KeyId) -> Error {
    Error::Misconfigured(format!("the token holds no key {key} for this operation"))
}

impl Scan {
    /// Reads every key object of the token whose label is one of ours.
    pub(super) fn of(session: &Session, origin: KeyOrigin) -> Attempt<Self> {
        let mut found = Vec::new();
        for (class, kind) in [
            (ObjectClass::SECRET_KEY, KeyKind::Secret),
            (ObjectClass::PRIVATE_KEY, KeyKind::Private),
            (ObjectClass::PUBLIC_KEY, KeyKind::Public),
        ] {
            for handle in session.find_objects(&[Attribute::Class(class)])? {
                if let Some(id) = label_of(session, handle)? {
                    let (report, public) = examine(session, handle, id, (kind, origin))?;
                    found.push(Found {
                        handle,
                        report,
                        public,
                    });
                }
            }
        }
        found.sort_by_key(|f| (f.report.id, f.report.kind));
        Ok(Self(found))
    }

    pub(super) fn reports(&self) -> Vec<KeyReport> {
        self.0.iter().map(|found| found.report.clone()).collect()
    }

    fn count(&self, id: KeyId, kind: KeyKind) -> usize {
        let same = |f: &&Found| f.report.id == id && f.report.kind == kind;
        self.0.iter().filter(same).count()
    }

    /// Purposes that must have a key and have none at all.
    pub(super) fn missing(&self) -> Vec<KeyPurpose> {
        let missing = KeyPurpose::REQUIRED.into_iter();
        missing.filter(|p| !self.knows(*p)).collect()
    }

    /// Whether any object is of this purpose.
    pub(super) fn knows(&self, purpose: KeyPurpose) -> bool {
        self.0.iter().any(|f| f.report.id.purpose == purpose)
    }

    /// The objects of a key, the half that can do something first.
    pub(super) fn objects_of(&self, id: KeyId) -> Vec<ObjectHandle> {
        let of = self.0.iter().filter(|found| found.report.id == id);
        of.map(|found| found.handle).collect()
    }

    /// The same, each with what it is and the public half that it shows.
    pub(super) fn parts_of(&self, id: KeyId) -> Vec<(KeyKind, ObjectHandle, Option<Public>)> {
        let of = self.0.iter().filter(|found| found.report.id == id);
        of.map(|found| (found.report.kind, found.handle, found.public))
            .collect()
    }

    /// Half a pair of a purpose that has a whole one besides: what a process leaves that is killed
    /// while the token makes a newer key; of a purpose that needs no key, half a pair of any. Nothing can be
    /// done with it, so it is no reason to stop.
    fn is_leftover(&self, id: KeyId) -> bool {
        let halves = [KeyKind::Private, KeyKind::Public];
        let whole = |id: KeyId| halves.iter().all(|kind| self.count(id, *kind) == 1);
        let half = halves
            .iter()
            .map(|kind| self.count(id, *kind))
            .sum::<usize>()
            == 1;
        !id.purpose.is_symmetric()
            && half
            && self.count(id, KeyKind::Secret) == 0
            && (id.purpose.is_ed25519()
                || self
                    .0
                    .iter()
                    .any(|f| f.report.id.purpose == id.purpose && whole(f.report.id)))
    }

    /// Everything wrong with the keys that are there, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut ids: Vec<KeyId> = self.0.iter().map(|f| f.report.id).collect();
        ids.dedup();
        for id in ids {
            if self.is_leftover(id) {
                tracing::warn!(key = %id, "half a key is in the token; it is used for nothing, and may be removed");
                continue;
            }
            let symmetric = id.purpose.is_symmetric();
            for kind in [KeyKind::Secret, KeyKind::Private, KeyKind::Public] {
                let expected = usize::from((kind == KeyKind::Secret) == symmetric);
                problems.extend(miscounted(id, kind, expected, self.count(id, kind)));
            }
        }
        problems.extend(self.0.iter().filter_map(|f| {
            let (name, why) = f.report.first_bad()?;
            Some(format!(
                "the {} {} is not safe to use: {name}: {why}",
                f.report.kind.name(),
                f.report.label
            ))
        }));
        problems
    }

    /// The keys to work with, if each purpose has a sound one.
    pub(super) fn table(&self) -> Result<KeyTable> {
        let mut problems = self.problems();
        problems.extend(origin::lacking(&self.missing()));
        if !problems.is_empty() {
            return Err(Error::Misconfigured(problems.join("; ")));
        }
        let mut table = KeyTable::default();
        for found in &self.0 {
            let id = found.report.id;
            match found.report.kind {
                KeyKind::Secret => {
                    table.secrets.insert(id, found.handle);
                }
                KeyKind::Private => match self.public_of(id) {
                    Some(Public::P256(public)) => {
                        table.pairs.insert(id, (found.handle, public));
                    }
                    Some(Public::Ed25519(public)) => {
                        table.edwards.insert(id, (found.handle, public));
                    }
                    None => {}
                },
                KeyKind::Public => {}
            }
        }
        Ok(table)
    }

    fn public_of(&self, id: KeyId) -> Option<Public> {
        let mut same = self.0.iter().filter(|f| f.report.id == id);
        same.find_map(|f| f.public)
    }
}

fn miscounted(id: KeyId, kind: KeyKind, expected: usize, found: usize) -> Option<String> {
    let what = kind.name();
    match (expected, found) {
        (expected, found) if expected == found => None,
        (0, _) => Some(format!(
            "{id} must not be a {what}; rename or remove that object"
        )),
        (_, 0) => Some(format!(
            "{id} lacks its {what}: half a key; remove the other half"
        )),
        _ => Some(format!(
            "the token holds {found} objects for the {what} {id}; exactly one must stay: find \
             out which one is in use before removing any"
        )),
    }
}

fn label_of(session: &Session, handle: ObjectHandle) -> Attempt<Option<KeyId>> {
    let attributes = session.get_attributes(handle, &[AttributeType::Label])?;
    Ok(attributes.iter().find_map(|attribute| match attribute {
        Attribute::Label(bytes) => std::str::from_utf8(bytes).ok().and_then(KeyId::parse_label),
        _ => None,
    }))
}
