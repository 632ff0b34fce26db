//! Reaching the token: load the module, initialize it, find the one token that
//! is meant, log in once; and the way back.
//!
//! Called by `epoch`, one after another. A [`Connection`] that is dropped closes its login, then gives up its seat
//! in the module, which is finalised after the last of them: a session handle that outlives C_Finalize
//! would close a session of the next epoch. So whoever is inside has the connection meanwhile.

use std::sync::{Mutex, PoisonError};

use cryptoki::{
    context::Pkcs11,
    error::{Error as Pkcs11Error, RvError},
    session::Session,
    slot::{Slot, TokenInfo},
};

pub(super) use super::module::Module;
use super::{
    Options,
    mechanism::{self, Attempt, Trouble},
    module::Seat,
    pin::{self, Pin, Ticket},
};
use crate::{
    error::{Error, Result},
    report::TokenDescription,
};

/// A token that is initialized and logged in.
#[derive(Debug)]
pub(super) struct Connection {
    /// Keeps the process logged in: closing the last session logs out. Before the seat: it goes first.
    login: Mutex<Session>,
    seat: Seat,
    slot: Slot,
    pub(super) description: TokenDescription,
}

impl Connection {
    /// Initializes the module and logs in. Whatever fails, nothing of it stays.
    pub(super) fn begin(
        module: &Module,
        options: &Options,
        (pin, ticket): (&Pin, Ticket),
    ) -> Attempt<Self> {
        let mut seat = module.enter()?;
        let (slot, info) = find(seat.library(), options)?;
        mechanism::require(seat.library(), slot)?;
        pin::check_state(&info, options)?;
        seat.take(slot.id(), pin.owner)?;
        let login = seat.library().open_rw_session(slot)?;
        let claimed = pin.claim(ticket)?;
        claimed.present(&login, options, (seat.library(), slot, &info))?;
        Ok(Self {
            login: Mutex::new(login),
            seat,
            slot,
            description: describe(&info, options),
        })
    }

    /// The initialisation of the module that its sessions belong to.
    pub(super) fn life(&self) -> u64 {
        self.seat.life
    }

    /// A further session; it shares the login. To be closed by its owner, and
    /// only while this connection stands.
    pub(super) fn open_session(&self) -> Attempt<Session> {
        Ok(self.seat.library().open_rw_session_no_drop(self.slot)?)
    }

    /// A session for a worker, or why there is no room for one. Only by the codes that the standard has for that: a token
    /// that went away opens none either, and a session that was open before may go on showing what it held then.
    pub(super) fn open_if_there_is_room(&self) -> Attempt<std::result::Result<Session, String>> {
        match self.seat.library().open_rw_session_no_drop(self.slot) {
            Ok(session) => Ok(Ok(session)),
            Err(Pkcs11Error::Pkcs11(code @ (RvError::SessionCount | RvError::DeviceMemory), _)) => {
                Ok(Err(format!("C_OpenSession answered {code:?}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A further one, closed when it is dropped, which must be before this connection is.
    pub(super) fn open_closing(&self) -> Attempt<Session> {
        Ok(self.seat.library().open_rw_session(self.slot)?)
    }

    /// Makes something that lasts as long as the login: on its own session.
    pub(super) fn on_the_login<T>(&self, work: impl FnOnce(&Session) -> T) -> T {
        work(&self.login.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs something on a session of its own.
    pub(super) fn with_session<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Session) -> Attempt<T>,
    ) -> Result<T> {
        let attempt = self.open_session().and_then(|session| {
            let outcome = work(&session);
            let _ = session.close();
            outcome
        });
        attempt.map_err(|trouble| trouble.into_error(operation))
    }
}

/// What the token says of itself, without logging in.
pub(super) fn glance(module: &Module, options: &Options) -> Attempt<TokenDescription> {
    module.look(|library| find(library, options).map(|(_, info)| describe(&info, options)))
}

/// Finds the one token that is meant. Two of the same name are refused: which
/// one the keys come from must never be a matter of slot order.
fn find(library: &Pkcs11, options: &Options) -> Attempt<(Slot, TokenInfo)> {
    let mut matching = Vec::new();
    let mut seen = Vec::new();
    let mut silent = None;
    for slot in library.get_slots_with_token()? {
        let info = match library.get_token_info(slot) {
            Ok(info) => info,
            // Perhaps a neighbour that died: no reason to miss ours.
            Err(error) => {
                silent = Some(error);
                continue;
            }
        };
        if !info.token_initialized() {
            continue;
        }
        let serial_fits = match &options.token_serial {
            Some(serial) => serial == info.serial_number(),
            None => true,
        };
        seen.push(format!("\"{}\"", info.label()));
        if info.label() == options.token_label && serial_fits {
            matching.push((slot, info));
        }
    }
    let wanted = &options.token_label;
    if let (true, Some(error)) = (matching.is_empty(), silent) {
        return Err(error.into());
    }
    match (matching.pop(), matching.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(Trouble::Final(Error::Misconfigured(format!(
            "more than one token has the label \"{wanted}\"; name the serial number as well"
        )))),
        (None, _) => Err(Trouble::Sick(format!(
            "no token with the label \"{wanted}\" is present (present: {})",
            if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.join(", ")
            }
        ))),
    }
}

fn describe(info: &TokenInfo, options: &Options) -> TokenDescription {
    TokenDescription {
        module: options.module.clone(),
        manufacturer: info.manufacturer_id().to_owned(),
        model: info.model().to_owned(),
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        software_token: is_software(info.manufacturer_id(), info.model()),
    }
}

/// The known tokens that are files: SoftHSM, kryoptic, NSS softokn.
pub(super) fn is_software(manufacturer: &str, model: &str) -> bool {
    let text = format!("{manufacturer} {model}").to_ascii_lowercase();
    ["softhsm", "kryoptic", "nss", "mozilla"]
        .iter()
        .any(|name| text.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_tokens_are_known_by_their_maker() {
        assert!(is_software("SoftHSM project", "SoftHSM v2"));
        assert!(is_software("Kryoptic Project", "v1"));
        assert!(!is_software("Yubico (www.yubico.com)", "YubiHSM"));
    }
}
