//! Health by known answer: the only judgement on a token that is believed.
//!
//! Called at the start of an epoch and by its probe. Return codes differ
//! between modules and session states lie; an HMAC that repeats itself and a
//! signature that verifies do not.

use std::{collections::BTreeMap, sync::Arc};

use cryptoki::{object::ObjectHandle, session::Session};

use super::{
    keys::KeyTable,
    mechanism::{self, Attempt, Trouble},
};
use crate::{
    encoding,
    error::{Error, Result},
    id::KeyId,
    public_key::PublicKey,
    secret::Secret,
};

/// What the keys answered when this process first saw each of them. Another
/// token with the same label, the same PIN and keys of the same names gives
/// other answers.
#[derive(Debug, Default)]
pub(super) struct KnownAnswers {
    macs: BTreeMap<KeyId, Arc<Secret<32>>>,
    publics: BTreeMap<KeyId, PublicKey>,
}

impl KnownAnswers {
    pub(super) fn ask(session: &Session, keys: &KeyTable) -> Attempt<Self> {
        let mut answers = Self::default();
        let message = encoding::known_answer();
        for (id, handle) in &keys.secrets {
            let mac = mechanism::hmac(session, *handle, &message)?;
            answers.macs.insert(*id, Arc::new(mac));
        }
        for (id, (handle, public)) in &keys.pairs {
            check_signature(session, *id, (*handle, public), &message)?;
            answers.publics.insert(*id, *public);
        }
        Ok(answers)
    }

    /// Every key that was there before must be there and answer as before; new
    /// versions may have come.
    pub(super) fn refuse_another_token(&self, fresh: &Self) -> Result<()> {
        let macs = self.macs.iter().all(|(id, before)| {
            let now = fresh.macs.get(id);
            now.is_some_and(|now| now.ct_eq(before))
        });
        let publics = self
            .publics
            .iter()
            .all(|(id, before)| fresh.publics.get(id) == Some(before));
        if macs && publics {
            return Ok(());
        }
        Err(Error::Misconfigured(
            "the token that answers now is not the one this process started with: its keys give \
             other answers; put the right token back, or restart if the change was meant"
                .to_owned(),
        ))
    }
}

fn check_signature(
    session: &Session,
    id: KeyId,
    (handle, public): (ObjectHandle, &PublicKey),
    message: &[u8],
) -> Attempt<()> {
    let signature = mechanism::ecdsa(session, handle, &mechanism::sha256(message))?;
    if public.verifies(message, &signature) {
        return Ok(());
    }
    Err(Trouble::Final(Error::Misconfigured(format!(
        "the private and the public key {id} in the token do not belong together"
    ))))
}
