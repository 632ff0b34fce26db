//! Secrets: backup, recovery, list, delete, and the release that comes with a session.
//!
//! A secret is a version, a sealed content and some slots that open it. Content and key slots are sealed by the client
//! and mean nothing here; the server slot opens the content, too, protected by the envelope's seal, and only the
//! policy's release rules decide who gets it. Every release is an event in the same commit. The same rules decide who
//! changes what is there: whoever may not read a secret, a thief with the weaker login, may neither destroy it nor put one of
//! their own making in its place, nor in the place of what it opens by. Slots alone are no exception: one that is taken away
//! destroys, and one that is made by somebody who can not open the secret opens nothing and yet counts as a way back when
//! the last that does is let go. Which slots an account may have, `slots.rs` says.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use custodyd_policies::{Factor, Secrets, Timestamp, release};

use super::{App, Caller, Refused, Service, sessions, slots};
use crate::account::{Account, Slot, StoredSecret};
use crate::api::{
    HeldSecret, HeldSlot, Rewrapped, Secret, SecretContent, SecretEntry, SecretList, SecretSlot,
};
use crate::bytes::{Bytes, SharedSecret};
use crate::ledger::{EventKind, Journal, NewEvent};

const MAX_SECRET_NAME: usize = 64;

/// Which version a write expects to replace (RFC 9110, section 13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: "<version>"`
    Version(u64),
}

impl Precondition {
    fn holds(self, current: Option<u64>) -> bool {
        match self {
            Self::Absent => current.is_none(),
            Self::Version(version) => current == Some(version),
        }
    }
}

/// Secrets to release with a session, checked against the policy before anything is charged.
#[derive(Debug)]
pub(super) struct Releases {
    names: Vec<String>,
    by: Factor,
    /// Whether a server slot goes along.
    server_slots: bool,
}

impl Releases {
    /// `fresh` matters to the session of an account's creation only.
    pub(super) fn new(
        app: &App,
        by: Factor,
        fresh: bool,
        names: Vec<String>,
    ) -> Result<Self, Refused> {
        let limit = app.policy.secrets.max_count;
        // Each is an event in the log: a request must not make more of them than there are
        // secrets to release.
        if names.len() > limit {
            return Err(Refused::TooMany {
                what: "secrets",
                limit,
            });
        }
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|before| before == name) {
                return Err(Refused::Malformed(
                    "`release` names a secret twice; name each one once".into(),
                ));
            }
            if !release::may_release(&app.policy, name, by, fresh) {
                return Err(Refused::ReleaseForbidden {
                    name: name.chars().take(MAX_SECRET_NAME).collect(),
                    by: by.name(),
                });
            }
        }
        let server_slots = app.policy.secrets.server_slot.is_released();
        Ok(Self {
            names,
            by,
            server_slots,
        })
    }

    /// For a device that may know: told before its guess is charged.
    pub(super) fn exist_in(&self, account: &Account) -> Result<(), Refused> {
        if self
            .names
            .iter()
            .all(|name| account.secrets.contains_key(name))
        {
            Ok(())
        } else {
            Err(Refused::NotFound("secret"))
        }
    }

    /// Hands the secrets out of the newest state and writes down that it did.
    pub(super) fn take_from(
        &self,
        account: &Account,
        device_id: &str,
        journal: &mut Journal,
    ) -> Result<BTreeMap<String, Secret>, Refused> {
        let mut released = BTreeMap::new();
        for name in &self.names {
            let stored = account
                .secrets
                .get(name)
                .ok_or(Refused::NotFound("secret"))?;
            journal.note(
                NewEvent::new(EventKind::SecretReleased)
                    .by(self.by)
                    .on(device_id)
                    .about(name),
            );
            released.insert(name.clone(), view(stored, self.server_slots));
        }
        Ok(released)
    }
}

/// Contents to store, checked against the policy before they reach a commit.
#[derive(Debug)]
pub(super) struct Writes {
    writes: Vec<(String, Precondition, New)>,
    limits: Secrets,
}

/// What a write puts into a secret.
#[derive(Debug)]
enum New {
    Content(Content),
    /// The slots alone: what they open stays.
    Slots(Vec<Slot>),
}

#[derive(Debug)]
struct Content {
    sealed: Option<Bytes>,
    slots: Vec<Slot>,
    server_slot: Option<SharedSecret>,
}

impl Writes {
    pub(super) fn new(app: &App, rewrapped: BTreeMap<String, Rewrapped>) -> Result<Self, Refused> {
        let mut writes = Vec::with_capacity(rewrapped.len());
        for (name, new) in rewrapped {
            let precondition = new
                .if_version
                .map_or(Precondition::Absent, Precondition::Version);
            let new = match (new.content, new.slots) {
                (Some(content), None) => New::Content(checked(app, content)?),
                (None, Some(_)) if precondition == Precondition::Absent => {
                    return Err(Refused::Malformed(
                        "`slots` of a secret are replaced: say of which version, as `if_version`"
                            .into(),
                    ));
                }
                (None, Some(slots)) => New::Slots(slots::shaped(slots)?),
                _ => {
                    return Err(Refused::Malformed(
                        "a rewrapped secret has either `slots` or `content`".into(),
                    ));
                }
            };
            writes.push((named(name)?, precondition, new));
        }
        let limits = app.policy.secrets.clone();
        Ok(Self { writes, limits })
    }

    fn one(
        app: &App,
        name: String,
        precondition: Precondition,
        content: SecretContent,
    ) -> Result<Self, Refused> {
        let new = New::Content(checked(app, content)?);
        Ok(Self {
            writes: vec![(named(name)?, precondition, new)],
            limits: app.policy.secrets.clone(),
        })
    }

    /// Whether they may be done: by a session that may read what it replaces, and is worth as much as every factor whose
    /// slots it touches, but for `own`, which the call is about. Asked before anything is changed: a thief with a weak
    /// session must not make what a stronger factor opens worthless, nor get a new PIN in by slots that open nothing. What
    /// opens by the secret would be as worthless without it: it has to be the session's to read, too, unless the secret
    /// keeps its content, and every slot but the call's own, or the session could erase the account as it is. What is not
    /// there yet may be made by any session that writes.
    pub(super) fn admitted(
        &self,
        caller: &Caller,
        account: &Account,
        own: Option<Factor>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        for (name, precondition, new) in &self.writes {
            // Half a sign-in may replace a forgotten PIN, and nothing of what that opens.
            caller.writes()?;
            let stored = account.secrets.get(name);
            // Of another version nothing is done: whoever asks is told that first.
            if !precondition.holds(stored.map(|stored| stored.version)) {
                continue;
            }
            if let Some(stored) = stored {
                caller.may_replace(account, name, now)?;
                let own = |slot: &Slot| own.is_some() && slots::factor(slot.r#type) == own;
                if !new.keeps(stored, own) {
                    caller.may_replace_what_opens_by(account, name, now)?;
                }
            }
            let (sealed, slots) = match new {
                New::Content(content) => (content.sealed.as_ref(), content.slots.as_slice()),
                New::Slots(slots) => (
                    stored.and_then(|stored| stored.sealed.as_ref()),
                    slots.as_slice(),
                ),
            };
            let touched = slots::touched(stored, Some((sealed, slots)));
            let factors = touched.into_iter().filter_map(slots::factor);
            factors
                .filter(|factor| Some(*factor) != own)
                .try_for_each(|factor| caller.step_up(account, factor, now))?;
        }
        Ok(())
    }

    /// Stores them all in the account's state, or none if one precondition fails. Called last, when the factors are
    /// as they shall be: slots are held against them.
    pub(super) fn apply(
        self,
        account: &mut Account,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<(), Refused> {
        let Self { writes, limits } = self;
        let mut written = Vec::with_capacity(writes.len());
        for (name, precondition, new) in writes {
            let current = account.secrets.get(&name).map(|stored| stored.version);
            if !precondition.holds(current) {
                return Err(Refused::PreconditionFailed { current });
            }
            let max_count = limits.max_count;
            if current.is_none() && account.secrets.len() >= max_count {
                return Err(Refused::TooMany {
                    what: "secrets",
                    limit: max_count,
                });
            }
            let content = new.over(account.secrets.get(&name));
            content.admitted(limits.max_bytes)?;
            let (slots, server_slot) = (&content.slots, content.server_slot.is_some());
            if slots::counts_for_nothing(account, slots, server_slot, limits.server_slot)
                && !slots::names_unknown(account, &name, slots)
            {
                return Err(Refused::PrfOnlySlot);
            }
            let version = account.next_version;
            account.next_version += 1;
            journal.note(NewEvent::new(EventKind::SecretStored).about(&name));
            let stored = StoredSecret {
                version,
                updated: now,
                sealed: content.sealed,
                slots: content.slots,
                server_slot: content.server_slot,
            };
            account.secrets.insert(name.clone(), stored);
            written.push(name);
        }
        slots::settle(account, &written, limits.server_slot, journal)
    }
}

impl New {
    /// Whether what opened by the stored secret still does, but for those of its slots that are `own`: the content is the
    /// same to the byte, sent anew or not, and a slot more takes nothing from anybody.
    fn keeps(&self, stored: &StoredSecret, own: impl Fn(&Slot) -> bool) -> bool {
        let after = match self {
            Self::Slots(after) => after,
            Self::Content(content) if content.is_of(stored) => &content.slots,
            Self::Content(_) => return false,
        };
        let stays = |slot: &Slot| {
            let mut after = after.iter();
            after.any(|other| slots::is_same(slot, other))
        };
        stored.slots.iter().all(|slot| own(slot) || stays(slot))
    }

    /// The whole of it, where it replaces a part of what is stored.
    fn over(self, stored: Option<&StoredSecret>) -> Content {
        match self {
            Self::Content(content) => content,
            Self::Slots(slots) => Content {
                sealed: stored.and_then(|stored| stored.sealed.clone()),
                slots,
                server_slot: stored.and_then(|stored| stored.server_slot.clone()),
            },
        }
    }
}

impl Content {
    /// Whether it is what is stored, key slots aside.
    fn is_of(&self, stored: &StoredSecret) -> bool {
        let same_server_slot = match (&self.server_slot, &stored.server_slot) {
            (Some(new), Some(old)) => new.ct_eq(old),
            (None, None) => true,
            _ => false,
        };
        self.sealed == stored.sealed && same_server_slot
    }

    /// Whether it is large enough to be opened and small enough to be kept.
    fn admitted(&self, max_bytes: usize) -> Result<(), Refused> {
        if self.slots.is_empty() && self.server_slot.is_none() {
            return Err(Refused::SecretShape("a secret needs at least one slot"));
        }
        if slots::is_prf_only(&self.slots, self.server_slot.is_some()) {
            return Err(Refused::PrfOnlySlot);
        }
        // Everything that the envelope has to hold counts.
        let slots = self.slots.iter();
        let size = slots
            .map(|slot| slot.ciphertext.len() + slot.credential.len())
            .sum::<usize>()
            + self.sealed.as_ref().map_or(0, Bytes::len)
            + self.server_slot.as_ref().map_or(0, SharedSecret::len);
        if size > max_bytes {
            return Err(Refused::SecretTooLarge { limit: max_bytes });
        }
        Ok(())
    }
}

fn named(name: String) -> Result<String, Refused> {
    if release::is_secret_name(&name) {
        return Ok(name);
    }
    Err(Refused::SecretShape(
        "a secret's name has 1 to 64 lower-case letters, digits and hyphens, starts with no \
         hyphen, and is not `recover`",
    ))
}

fn checked(app: &App, content: SecretContent) -> Result<Content, Refused> {
    let policy = &app.policy.secrets;
    if content.server_slot.is_some() && !policy.server_slot.is_taken() {
        return Err(Refused::ServerSlotForbidden);
    }
    let sealed_empty = content.sealed.as_ref().is_some_and(Bytes::is_empty);
    let slot_empty = content.server_slot.as_ref();
    if sealed_empty || slot_empty.is_some_and(SharedSecret::is_empty) {
        return Err(Refused::SecretShape(
            "`sealed` and `server_slot` may be left out, and may not be empty",
        ));
    }
    let content = Content {
        sealed: content.sealed,
        slots: slots::shaped(content.slots)?,
        server_slot: content.server_slot,
    };
    content.admitted(policy.max_bytes)?;
    Ok(content)
}

impl Caller {
    /// May this session change or delete a secret that is there? Asked inside the commit, of the newest state.
    fn may_replace(&self, account: &Account, name: &str, now: Timestamp) -> Result<(), Refused> {
        let held = self.held(account, now);
        let (by, fresh) = (self.session.factor, self.fresh(now));
        release::may_replace(&self.app.policy, name, &held, by, fresh).map_err(|lacks| {
            Refused::NotItsReader {
                name: name.to_owned(),
                by: by.name(),
                lacks,
            }
        })
    }

    /// The same of every secret that has a slot for `name`: with another one in its place that slot opens nothing.
    ///
    /// Who could erase the account destroys nothing more by that, and gets to read none of them. They may, though no login
    /// reads them all: else an account whose app gives its secrets to different logins could never have another device
    /// secret after a thief has had the one that it has.
    fn may_replace_what_opens_by(
        &self,
        account: &Account,
        name: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if self.may_erase(account, now).is_ok() {
            return Ok(());
        }
        slots::opening_by(account, name)
            .try_for_each(|hanging| self.may_replace(account, hanging, now))
    }
}

impl Service {
    /// Stores a secret; the precondition says what it replaces.
    ///
    /// # Errors
    /// `PreconditionFailed`, `NotItsReader`, `StepUp`, and what is wrong with the content.
    pub async fn store_secret(
        &self,
        caller: Caller,
        name: String,
        precondition: Precondition,
        content: SecretContent,
    ) -> Result<u64, Refused> {
        caller.writes()?;
        let writes = Writes::one(&caller.app, name.clone(), precondition, content)?;
        let (version, _) = self
            .ledger
            .commit::<_, Refused>(caller.loaded.clone(), move |account, moment, journal| {
                caller.still_stands(account)?;
                let now = moment.now;
                writes.admitted(&caller, account, None, now)?;
                writes.apply(account, now, journal)?;
                account
                    .secrets
                    .get(&name)
                    .map(|stored| stored.version)
                    .ok_or(Refused::Internal("find the stored secret"))
            })
            .await?;
        Ok(version)
    }

    /// Recovery: returns a secret to a session whose factor may have it.
    ///
    /// # Errors
    /// `ReleaseForbidden`, `NotFound`.
    pub async fn release_secret(&self, caller: Caller, name: String) -> Result<Secret, Refused> {
        // A creation session is the owner's first, and may read what it has just stored.
        let by = caller.session.factor;
        let fresh = caller.fresh(self.now());
        let releases = Releases::new(&caller.app, by, fresh, vec![name.clone()])?;
        releases.exist_in(caller.account())?;
        let session = caller.session;
        let (mut released, _) = self
            .ledger
            .commit::<_, Refused>(caller.loaded, move |account, _, journal| {
                sessions::stands(&session, account)?;
                releases.take_from(account, &session.device_thumbprint, journal)
            })
            .await?;
        released.remove(&name).ok_or(Refused::NotFound("secret"))
    }

    /// # Errors
    /// `NotFound`, `PreconditionFailed`, `NotItsReader`, `StepUp`; `LastSlot` where it alone opens another one.
    pub async fn delete_secret(
        &self,
        caller: Caller,
        name: String,
        version: u64,
    ) -> Result<(), Refused> {
        caller.writes()?;
        let policy = caller.app.policy.secrets.server_slot;
        self.ledger
            .commit::<(), Refused>(caller.loaded.clone(), move |account, moment, journal| {
                caller.still_stands(account)?;
                let stored = account
                    .secrets
                    .get(&name)
                    .ok_or(Refused::NotFound("secret"))?;
                if stored.version != version {
                    return Err(Refused::PreconditionFailed {
                        current: Some(stored.version),
                    });
                }
                caller.may_replace(account, &name, moment.now)?;
                caller.may_replace_what_opens_by(account, &name, moment.now)?;
                let touched = slots::touched(Some(stored), None);
                let mut factors = touched.into_iter().filter_map(slots::factor);
                factors.try_for_each(|by| caller.step_up(account, by, moment.now))?;
                account.secrets.remove(&name);
                journal.note(NewEvent::new(EventKind::SecretDeleted).about(&name));
                slots::settle(account, &[], policy, journal)
            })
            .await?;
        Ok(())
    }

    /// Names and versions; the contents are released one by one.
    #[must_use]
    pub fn list_secrets(&self, caller: &Caller) -> SecretList {
        SecretList {
            secrets: entries(caller.account()),
        }
    }
}

pub(super) fn entries(account: &Account) -> Vec<SecretEntry> {
    account
        .secrets
        .iter()
        .map(|(name, stored)| SecretEntry {
            name: name.clone(),
            version: stored.version,
            updated: stored.updated,
            server_slot: stored.server_slot.is_some(),
        })
        .collect()
}

/// What is held of each secret, for somebody who may not have its content.
pub(super) fn held(account: &Account) -> Vec<HeldSecret> {
    let slot = |slot: &Slot| HeldSlot {
        r#type: slot.r#type,
        credential: slot.credential.clone(),
        bytes: slot.ciphertext.0.len(),
        sha256: hex::encode(digest(&SHA256, &slot.ciphertext.0)),
    };
    let secrets = account.secrets.iter();
    secrets
        .map(|(name, stored)| HeldSecret {
            name: name.clone(),
            version: stored.version,
            updated: stored.updated,
            sealed_bytes: stored.sealed.as_ref().map(Bytes::len),
            slots: stored.slots.iter().map(slot).collect(),
            server_slot_bytes: stored.server_slot.as_ref().map(|slot| slot.len()),
        })
        .collect()
}

fn view(stored: &StoredSecret, server_slots: bool) -> Secret {
    Secret {
        version: stored.version,
        updated: stored.updated,
        sealed: stored.sealed.clone(),
        slots: stored
            .slots
            .iter()
            .map(|slot| SecretSlot {
                r#type: slot.r#type,
                credential: slot.credential.clone(),
                ciphertext: slot.ciphertext.clone(),
            })
            .collect(),
        server_slot: stored.server_slot.clone().filter(|_| server_slots),
        server_slot_withheld: stored.server_slot.is_some() && !server_slots,
    }
}
