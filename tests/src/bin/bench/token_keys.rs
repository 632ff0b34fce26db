//! The token by itself, as any program has it that speaks PKCS#11: HMACs by its own keys, without the copies in the
//! module's memory that the daemon works with.
//!
//! The module is initialised and logged in by `Parts`, for the whole process.

use std::sync::Mutex;
use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::Session;
use custodyd_hsm::{KeyId, KeyPurpose};
use custodyd_tests::token::{LABEL, module};

use crate::cpu::{Sample, cores, on_all_cores};

/// As long as what a record's key is derived from.
const MESSAGE: [u8; 50] = [6; 50];

#[allow(
    missing_debug_implementations,
    reason = "holds foreign types without it"
)]
pub(crate) struct TokenKeys(Vec<Mutex<(Session, ObjectHandle)>>);

impl TokenKeys {
    pub(crate) fn open() -> Self {
        let library = Pkcs11::new(module()).unwrap();
        let slots = library.get_slots_with_token().unwrap();
        let mut slots = slots.into_iter();
        let slot = slots.find(|slot| library.get_token_info(*slot).unwrap().label() == LABEL);
        let slot = slot.unwrap();
        let label = KeyId::new(KeyPurpose::Wrap, 1).to_string();
        let template = [Attribute::Label(label.into_bytes()), Attribute::Token(true)];
        let open = |_| {
            let session = library.open_ro_session(slot).unwrap();
            let key = session.find_objects(&template).unwrap().swap_remove(0);
            Mutex::new((session, key))
        };
        Self((0..cores()).map(open).collect())
    }

    pub(crate) fn hmacs(&self, lasting: Duration) -> Sample {
        on_all_cores(lasting, usize::MAX, |worker, _| {
            let of = self.0[worker].lock().unwrap();
            let tag = of.0.sign(&Mechanism::Sha256Hmac, of.1, &MESSAGE);
            assert_eq!(tag.unwrap().len(), 32);
        })
    }
}
