//! Health by known answer: the only judgement on a token that is believed.
//!
//! Asked by the backends at the start of an epoch and by its probe. Return codes differ
//! between tokens and session states lie; an HMAC that repeats itself and a
//! signature that verifies do not.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest;

use super::attempt::{Attempt, Trouble};
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
#[derive(Debug, Default, Clone)]
pub(super) struct KnownAnswers {
    macs: BTreeMap<KeyId, Arc<Secret<32>>>,
    publics: BTreeMap<KeyId, PublicKey>,
}

impl KnownAnswers {
    /// Takes what a secret key makes of the message.
    pub(super) fn take_mac(
        &mut self,
        id: KeyId,
        hmac: impl FnOnce(&[u8]) -> Attempt<Secret<32>>,
    ) -> Attempt<()> {
        let mac = hmac(&encoding::known_answer())?;
        self.macs.insert(id, Arc::new(mac));
        Ok(())
    }

    /// Takes the public half of a pair whose private half signs the message so that it verifies.
    pub(super) fn take_signature(
        &mut self,
        id: KeyId,
        public: PublicKey,
        sign: impl FnOnce(&[u8; 32]) -> Attempt<[u8; 64]>,
    ) -> Attempt<()> {
        let message = encoding::known_answer();
        let signature = sign(&sha256(&[&message]))?;
        if !public.verifies(&message, &signature) {
            return Err(Trouble::Final(Error::Misconfigured(format!(
                "the private and the public key {id} in the token do not belong together"
            ))));
        }
        self.publics.insert(id, public);
        Ok(())
    }

    /// The same without a key that was destroyed on purpose.
    pub(super) fn without(&self, gone: Option<KeyId>) -> Self {
        let mut rest = self.clone();
        rest.macs.retain(|id, _| Some(*id) != gone);
        rest.publics.retain(|id, _| Some(*id) != gone);
        rest
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

/// SHA-256 over the parts, one after another.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| hash.update(part));
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    out
}
