//! Key slots of secrets, held against the factors that open them.
//!
//! Called by every commit that writes secrets or changes factors (`secrets.rs`), on the state that the change has
//! made. What is in a slot means nothing here: it was sealed end to end. The adversary is a change, a thief's or a
//! slip, after which a secret opens to nobody, or by a passkey's PRF alone, which is lost with one authenticator. So
//! a slot names a factor that the account has, goes with it, is changed by a session worth as much alone (which may read
//! the secret: `secrets.rs`), and the last one that counts is not let go. Must never write a slot.

use std::collections::BTreeSet;

use custodyd_policies::{Factor, ServerSlot};

use super::Refused;
use crate::account::{Account, PinWay, Slot, SlotType, StoredSecret};
use crate::api::SecretSlot;
use crate::bytes::Bytes;
use crate::ledger::{EventKind, Journal, NewEvent};

/// Slots of one secret: some passkeys, a PIN, ten codes, and room.
const MAX_SLOTS: usize = 32;

/// What can be said of slots without the account.
pub(super) fn shaped(slots: Vec<SecretSlot>) -> Result<Vec<Slot>, Refused> {
    if slots.len() > MAX_SLOTS {
        return Err(Refused::TooMany {
            what: "slots of a secret",
            limit: MAX_SLOTS,
        });
    }
    let mut seen = BTreeSet::new();
    for slot in &slots {
        if slot.ciphertext.is_empty() || !is_credential(&slot.credential) {
            return Err(Refused::SecretShape(
                "a slot needs a ciphertext, and as `credential` the name of what opens it: 1 to 128 characters of \
                 base64url",
            ));
        }
        if !seen.insert((slot.r#type, slot.credential.as_str())) {
            return Err(Refused::SecretShape(
                "two slots of the secret are for the same credential",
            ));
        }
    }
    let slots = slots.into_iter().map(|slot| Slot {
        r#type: slot.r#type,
        credential: slot.credential,
        ciphertext: slot.ciphertext,
    });
    Ok(slots.collect())
}

fn is_credential(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether nothing but passkeys' PRF opens it, as far as can be said without the account.
pub(super) fn is_prf_only(slots: &[Slot], server_slot: bool) -> bool {
    !server_slot && slots.iter().all(|slot| slot.r#type == SlotType::Prf)
}

/// The same of one that an account has. A recovery code that was spent opens nothing any more, and neither does a server
/// slot that the policy does not let out.
pub(super) fn counts_for_nothing(
    account: &Account,
    slots: &[Slot],
    server_slot: bool,
    policy: ServerSlot,
) -> bool {
    let codes = account.recovery_codes.as_ref().map(|set| &set.codes);
    let lasts = |slot: &&Slot| match slot.r#type {
        SlotType::RecoveryCode => codes.is_some_and(|codes| codes.has_unspent(&slot.credential)),
        _ => true,
    };
    let lasting: Vec<Slot> = slots.iter().filter(lasts).cloned().collect();
    is_prf_only(&lasting, server_slot && policy.is_released())
}

/// The factors whose slots a write makes, changes or takes away: it has to be worth as much as each of them. Another
/// content takes away what all slots opened.
pub(super) fn touched(
    stored: Option<&StoredSecret>,
    new: Option<(Option<&Bytes>, &[Slot])>,
) -> BTreeSet<SlotType> {
    let before = stored.map_or(&[][..], |stored| stored.slots.as_slice());
    let sealed_before = stored.and_then(|stored| stored.sealed.as_ref());
    let (sealed, after) = new.unwrap_or((None, &[]));
    let same = sealed_before.map(|bytes| &bytes.0) == sealed.map(|bytes| &bytes.0);
    let is_among =
        |slot: &Slot, others: &[Slot]| same && others.iter().any(|other| is_same(slot, other));
    let gone = before.iter().filter(|slot| !is_among(slot, after));
    let made = after.iter().filter(|slot| !is_among(slot, before));
    gone.chain(made).map(|slot| slot.r#type).collect()
}

/// Whether they are one slot, to the byte.
pub(super) fn is_same(one: &Slot, other: &Slot) -> bool {
    one.r#type == other.r#type
        && one.credential == other.credential
        && one.ciphertext.0 == other.ciphertext.0
}

/// The secrets that have a slot under the secret `name`.
pub(super) fn opening_by<'a>(account: &'a Account, name: &'a str) -> impl Iterator<Item = &'a str> {
    let by = move |slot: &Slot| slot.r#type == SlotType::Secret && slot.credential == name;
    let secrets = account.secrets.iter();
    secrets
        .filter(move |(_, stored)| stored.slots.iter().any(by))
        .map(|(name, _)| name.as_str())
}

/// The factor that a slot of this type is for. One under another secret is for none.
pub(super) fn factor(kind: SlotType) -> Option<Factor> {
    match kind {
        SlotType::Prf => Some(Factor::Passkey),
        SlotType::Opaque => Some(Factor::Pin),
        SlotType::RecoveryCode => Some(Factor::RecoveryCode),
        SlotType::Secret => None,
    }
}

/// Brings the slots of all secrets in step with the factors that the account has now. What the change itself has
/// `written` has to fit; slots that were stored earlier go with the factor that they were for.
pub(super) fn settle(
    account: &mut Account,
    written: &[String],
    policy: ServerSlot,
    journal: &mut Journal,
) -> Result<(), Refused> {
    // One that goes may take others' slots with it, which are never more than one step away.
    let mut again = true;
    while again {
        again = false;
        let stale: Vec<String> = account
            .secrets
            .iter()
            .filter(|(name, stored)| stored.slots.iter().any(|slot| !opens(account, name, slot)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in stale {
            let secret = account
                .secrets
                .get(&name)
                .ok_or(Refused::Internal("find a stored secret"))?;
            let (kept, gone): (Vec<Slot>, Vec<Slot>) = secret
                .slots
                .iter()
                .cloned()
                .partition(|slot| opens(account, &name, slot));
            if let (true, Some(unknown)) = (written.contains(&name), gone.first()) {
                let what = what(unknown.r#type);
                return Err(Refused::SlotUnknown { name, what });
            }
            let stored = account.secrets.get(&name);
            let server_slot = stored.is_some_and(|stored| stored.server_slot.is_some());
            if counts_for_nothing(account, &kept, server_slot, policy) {
                return Err(Refused::LastSlot { name });
            }
            drop_slots(account, &name, kept, journal);
            again = true;
        }
    }
    Ok(())
}

/// Drops the slots of recovery codes where the account has none any more, which a restore brings about. Whoever puts it in order
/// again writes all slots of a secret, and would be refused for those. One that nothing else opens keeps them, as the only trace.
pub(super) fn drop_void_codes(account: &mut Account, journal: &mut Journal) {
    if account.recovery_codes.is_some() {
        return;
    }
    let is_void = |slot: &Slot| slot.r#type == SlotType::RecoveryCode;
    let secrets = account.secrets.iter();
    let void: Vec<(String, Vec<Slot>)> = secrets
        .filter(|(_, stored)| stored.slots.iter().any(is_void))
        .filter_map(|(name, stored)| {
            let kept = stored.slots.iter().filter(|slot| !is_void(slot));
            let kept: Vec<Slot> = kept.cloned().collect();
            let opens = !kept.is_empty() || stored.server_slot.is_some();
            opens.then(|| (name.clone(), kept))
        })
        .collect();
    for (name, kept) in void {
        drop_slots(account, &name, kept, journal);
    }
}

fn drop_slots(account: &mut Account, name: &str, kept: Vec<Slot>, journal: &mut Journal) {
    let version = account.next_version;
    let Some(secret) = account.secrets.get_mut(name) else {
        return;
    };
    secret.slots = kept;
    // Another content, for whoever holds its ETag.
    secret.version = version;
    account.next_version += 1;
    journal.note(NewEvent::new(EventKind::SlotsDropped).about(name));
}

/// Whether a slot is for nothing that the account has.
pub(super) fn names_unknown(account: &Account, name: &str, slots: &[Slot]) -> bool {
    slots.iter().any(|slot| !opens(account, name, slot))
}

/// Whether the account has what the slot of the secret `name` is for.
fn opens(account: &Account, name: &str, slot: &Slot) -> bool {
    let id = slot.credential.as_str();
    match slot.r#type {
        SlotType::Prf => account.passkey(id).is_some(),
        SlotType::Opaque => account
            .pin
            .as_ref()
            .is_some_and(|pin| pin.device_id == id && matches!(pin.way, PinWay::Opaque(_))),
        // One that was spent, too: who came in with it may still need its slot.
        SlotType::RecoveryCode => account
            .recovery_codes
            .as_ref()
            .is_some_and(|set| set.codes.has_slot(id)),
        // One step and no more: nothing can go round in a circle.
        SlotType::Secret => {
            let chained = |other: &StoredSecret| {
                let mut slots = other.slots.iter();
                slots.any(|slot| slot.r#type == SlotType::Secret)
            };
            id != name && account.secrets.get(id).is_some_and(|other| !chained(other))
        }
    }
}

fn what(kind: SlotType) -> &'static str {
    match kind {
        SlotType::Prf => "passkey",
        SlotType::Opaque => "PIN by OPAQUE",
        SlotType::RecoveryCode => "recovery code",
        SlotType::Secret => "secret without such a slot of its own",
    }
}
