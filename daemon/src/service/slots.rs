//! Key slots of secrets, held against the factors that open them.
//!
//! Called by every commit that writes secrets or changes factors (`secrets.rs`), on the state that the change has
//! made. What is in a slot means nothing here: it was sealed end to end. The adversary is a change, a thief's or a
//! slip, after which a secret opens to nobody, or by a passkey's PRF alone, which is lost with one authenticator. So
//! a slot names a factor that the account has, goes with it, and the last one that counts is not let go. Must never
//! write a slot.

use std::collections::BTreeSet;

use super::Refused;
use crate::account::{Account, PinWay, Slot, SlotType, StoredSecret};
use crate::api::SecretSlot;
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

/// Whether nothing but passkeys' PRF opens it.
pub(super) fn is_prf_only(slots: &[Slot], server_slot: bool) -> bool {
    !server_slot && slots.iter().all(|slot| slot.r#type == SlotType::Prf)
}

/// Brings the slots of all secrets in step with the factors that the account has now. What the change itself has
/// `written` has to fit; slots that were stored earlier go with the factor that they were for.
pub(super) fn settle(
    account: &mut Account,
    written: &[String],
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
            drop_slots(account, name, kept, journal)?;
            again = true;
        }
    }
    Ok(())
}

fn drop_slots(
    account: &mut Account,
    name: String,
    kept: Vec<Slot>,
    journal: &mut Journal,
) -> Result<(), Refused> {
    let version = account.next_version;
    let Some(secret) = account.secrets.get_mut(&name) else {
        return Ok(());
    };
    if is_prf_only(&kept, secret.server_slot.is_some()) {
        return Err(Refused::LastSlot { name });
    }
    secret.slots = kept;
    // Another content, for whoever holds its ETag.
    secret.version = version;
    account.next_version += 1;
    journal.note(NewEvent::new(EventKind::SlotsDropped).about(&name));
    Ok(())
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
