//! What a module offers, seen without logging in: its slots, their tokens, and what each can do.
//!
//! Called by `token list`, and by `token provision` before a PIN is asked for. It presents no PIN,
//! opens read-only sessions at most, and changes nothing. A module that is a stranger may hang or
//! crash: who looks at several does it in a process for each.

use std::path::Path;

use cryptoki::{
    context::Pkcs11,
    mechanism::MechanismType,
    object::{Attribute, AttributeType, ObjectClass},
    slot::{Slot, TokenInfo},
};

use super::{
    mechanism::{Attempt, Trouble},
    token::{self, Module},
};
use crate::{error::Result, id::KeyId};

/// What custodyd asks of a token, the two that only provisioning asks at the end.
const NEEDED: [(MechanismType, &str); 4] = [
    (MechanismType::SHA256_HMAC, "CKM_SHA256_HMAC"),
    (MechanismType::ECDSA, "CKM_ECDSA"),
    (
        MechanismType::GENERIC_SECRET_KEY_GEN,
        "CKM_GENERIC_SECRET_KEY_GEN",
    ),
    (MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"),
];

/// A module, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// What the library says of itself.
    pub library: String,
    pub slots: Vec<SlotSeen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSeen {
    pub id: u64,
    pub description: String,
    /// The token, or why it does not tell.
    pub token: std::result::Result<Option<TokenSeen>, String>,
}

/// A token as anybody sees it who has no PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSeen {
    pub label: String,
    pub manufacturer: String,
    pub model: String,
    pub serial: String,
    pub initialized: bool,
    pub software: bool,
    pub write_protected: bool,
    pub login_required: bool,
    /// The PIN is entered at the device: no daemon can log in.
    pub pin_pad: bool,
    pub pin: PinState,
    /// Needed mechanisms that it does not offer.
    pub missing: Vec<&'static str>,
    /// Labels of ours among the public keys, which most tokens show to everybody.
    pub public_keys: Vec<String>,
}

/// What a token tells of its user PIN before one is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    NotSet,
    Set,
    /// A wrong one was presented since the last right one.
    CountLow,
    FinalTry,
    Locked,
}

impl PinState {
    fn of(info: &TokenInfo) -> Self {
        if info.user_pin_locked() {
            Self::Locked
        } else if !info.user_pin_initialized() {
            Self::NotSet
        } else if info.user_pin_final_try() {
            Self::FinalTry
        } else if info.user_pin_count_low() {
            Self::CountLow
        } else {
            Self::Set
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "user PIN not set",
            Self::Set => "user PIN set",
            Self::CountLow => "user PIN set, a wrong one was tried",
            Self::FinalTry => "user PIN: one try left",
            Self::Locked => "user PIN LOCKED",
        }
    }
}

/// Looks at every slot of a module.
///
/// # Errors
/// [`crate::Error::Misconfigured`] for a file that is no module; [`crate::Error::Unavailable`] for one that
/// does not answer.
pub fn survey(module: &Path) -> Result<Survey> {
    let module = Module::load(module)?;
    let looked = module.look(|library| {
        let info = library.get_library_info();
        let library_text = info.map_or_else(
            |error| format!("a library that does not tell what it is ({error})"),
            |info| {
                let version = info.library_version();
                format!(
                    "{}, {} {}.{}",
                    info.manufacturer_id().trim(),
                    info.library_description().trim(),
                    version.major(),
                    version.minor()
                )
            },
        );
        let slots = library.get_all_slots()?;
        Ok(Survey {
            library: library_text,
            slots: slots.into_iter().map(|slot| seen(library, slot)).collect(),
        })
    });
    looked.map_err(|trouble| trouble.into_error("look at the module"))
}

fn seen(library: &Pkcs11, slot: Slot) -> SlotSeen {
    let description = library.get_slot_info(slot).map_or_else(
        |error| format!("unknown ({error})"),
        |info| info.slot_description().trim().to_owned(),
    );
    let token = token_in(library, slot).map_err(|trouble| match trouble {
        Trouble::Sick(reason) => reason,
        Trouble::Final(error) => error.to_string(),
    });
    SlotSeen {
        id: slot.id(),
        description,
        token,
    }
}

fn token_in(library: &Pkcs11, slot: Slot) -> Attempt<Option<TokenSeen>> {
    if !library.get_slot_info(slot)?.token_present() {
        return Ok(None);
    }
    let info = library.get_token_info(slot)?;
    // Some modules tell nothing more of a token that is not initialised.
    let offered = match info.token_initialized() {
        true => library.get_mechanism_list(slot)?,
        false => NEEDED.map(|(kind, _)| kind).to_vec(),
    };
    let missing = NEEDED
        .into_iter()
        .filter(|(kind, _)| !offered.contains(kind));
    let initialized = info.token_initialized();
    Ok(Some(TokenSeen {
        label: info.label().to_owned(),
        manufacturer: info.manufacturer_id().to_owned(),
        model: info.model().to_owned(),
        serial: info.serial_number().to_owned(),
        initialized,
        software: token::is_software(info.manufacturer_id(), info.model()),
        write_protected: info.write_protected(),
        login_required: info.login_required(),
        pin_pad: info.protected_authentication_path(),
        pin: PinState::of(&info),
        missing: missing.map(|(_, name)| name).collect(),
        // A token that wants a login for this simply shows none.
        public_keys: match initialized {
            true => public_keys(library, slot).unwrap_or_default(),
            false => Vec::new(),
        },
    }))
}

fn public_keys(library: &Pkcs11, slot: Slot) -> Attempt<Vec<String>> {
    let session = library.open_ro_session_no_drop(slot)?;
    let found = (|| {
        let mut labels = Vec::new();
        for handle in session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY)])? {
            let told = session.get_attributes(handle, &[AttributeType::Label])?;
            labels.extend(told.into_iter().filter_map(label_of_ours));
        }
        labels.sort();
        Ok(labels)
    })();
    let _ = session.close();
    found
}

fn label_of_ours(attribute: Attribute) -> Option<String> {
    let Attribute::Label(bytes) = attribute else {
        return None;
    };
    let label = String::from_utf8(bytes).ok()?;
    KeyId::parse_label(&label).map(|id| id.label())
}
