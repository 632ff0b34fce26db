//! Keys bound to what was booted: the policy that they have, the NV index that says which states are
//! approved, and the recovery object without which nobody writes that index.
//!
//! Called by `token` for every use of a key and every extension of the anchors' index, by `epoch` at the start, by `provision`, and by `token reseal`. A
//! key's policy cannot be changed, so it names no state but an index (TPM2_PolicyAuthorizeNV), and the index
//! names the one policy over PCRs that counts now. Written anew, what it held before counts no more:
//! an older, once approved state does not come back with an older file.
//!
//! The name of the index is part of every key's policy, and that of the recovery object part of the
//! index's. Whoever has the owner's password can remove either, and so have the realm stop; but an index
//! made anew is written with the same authorization or has another name, and the recovery object has in its
//! name a seed that only its TPM knew. The file beside the anchors says what the index means, for people
//! and for finding the right branch: one that is wrong leads to a refusal.

mod approving;
mod boot;
mod index;
mod kept;

use tss_esapi::constants::tss::{
    TPM2_CC_NV_Certify, TPM2_CC_NV_Extend, TPM2_CC_Sign, TPM2_RC_POLICY_FAIL,
};

pub use self::approving::Wanted;
pub(super) use self::{
    approving::{provision, recovery_key, reseal},
    boot::require,
    index::{is_any, of as index_of},
};
use self::{boot::Way, index::Found};
use super::{
    Options,
    attributes::{self, Form},
    esys::{By, Code, Esys, Tr},
    pcr::{self, Policies},
    response::Meaning,
    token::{self, Connection, Name},
};
use crate::{
    backend::attempt::{Attempt, Trouble},
    error::Error,
    root_keys::KeyOrigin,
};

/// Where the recovery object is, from the first handle on: behind the places of keys.
pub(super) const RECOVERY: u32 = 0x60;
const RECOVERY_LABEL: &str = "custodyd-recovery-v1";

/// What a key is used for, by which its policy differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Root,
    Pair,
    /// The NV index of the anchors, which is extended.
    Anchors,
    /// The attestation key.
    Attest,
}

/// What binds the keys of this TPM.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    recovery: Tr,
    index: Option<Found>,
    write_policy: [u8; 32],
    /// What the index of the approved boots is called once it is written.
    name: Name,
    policies: Policies,
    session: Tr,
    /// Once it is known which approved state this is.
    way: Option<Way>,
}

impl Binding {
    /// The policy that a key of this form has.
    pub(super) fn policy_of(&self, form: Form) -> [u8; 32] {
        match form {
            Form::Ecdsa => self.policies.pair,
            Form::Attest => self.policies.attest,
            Form::StorageKey | Form::Sealed | Form::Hmac => self.policies.root,
        }
    }

    /// The policy of the NV index of the anchors.
    pub(super) fn anchors(&self) -> [u8; 32] {
        self.policies.anchors
    }

    /// What the index of the approved boots is called; every policy follows from it.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn session(&self) -> Tr {
        self.session
    }

    /// A policy session that a key may be used with now. Each use takes it up.
    pub(super) fn satisfy(
        &self,
        esys: &mut Esys,
        session: Tr,
        purpose: Use,
    ) -> std::result::Result<By, Code> {
        let (Some(way), Some(found)) = (&self.way, self.index) else {
            return Err(Code(TPM2_RC_POLICY_FAIL));
        };
        esys.policy_restart(self.session)?;
        if let Way::Through(registers, branches) = way {
            esys.policy_pcr(self.session, *registers)?;
            esys.policy_or(self.session, branches)?;
        }
        esys.policy_authorize_nv(self.session, found.index, session)?;
        esys.policy_auth_value(self.session)?;
        let command = match purpose {
            Use::Root => None,
            Use::Pair => Some(TPM2_CC_Sign),
            Use::Anchors => Some(TPM2_CC_NV_Extend),
            Use::Attest => Some(TPM2_CC_NV_Certify),
        };
        if let Some(command) = command {
            esys.policy_command(self.session, command)?;
        }
        Ok(By {
            session,
            policy: Some(self.session),
        })
    }
}

/// Finds what binds the keys, where they are to be bound; none where there is no recovery object.
pub(super) fn find(connection: &mut Connection, options: &Options) -> Attempt<Option<Binding>> {
    if options.pcrs.is_none() {
        return Ok(None);
    }
    let handle = options.handles.saturating_add(RECOVERY);
    let Some(recovery) = at(connection, handle)? else {
        return Ok(None);
    };
    let area = connection.command("read the recovery object", |esys, session| {
        esys.read_public(recovery, Some(session))
    })?;
    let (judged, _) = attributes::judge(&area, Form::Sealed, KeyOrigin::Token, None);
    if let Some(why) = attributes::first_bad(&judged) {
        return Err(Trouble::Final(Error::Misconfigured(format!(
            "the object at 0x{handle:08x} is no recovery object of custodyd: {why}"
        ))));
    }
    let write_policy = pcr::write_policy(&token::name(&area)?);
    let index = index::find(connection, options, &write_policy)?;
    let parent = connection.storage_key;
    let session = connection.command("start a policy session", |esys, _| {
        esys.start_policy(parent)
    })?;
    let name = index::name_of(options, &write_policy);
    Ok(Some(Binding {
        recovery,
        index,
        write_policy,
        name,
        policies: Policies::by(&name),
        session,
        way: None,
    }))
}

fn at(connection: &mut Connection, handle: u32) -> Attempt<Option<Tr>> {
    let found = connection.ask("find an object", |esys, session| {
        esys.find(handle, Some(session))
    })?;
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Meaning::Absent) => Ok(None),
        Err(_) => Err(Trouble::Sick(format!("0x{handle:08x} cannot be read"))),
    }
}

/// Keys have a policy or none for as long as they live.
pub(super) fn unbound() -> Error {
    Error::Misconfigured(
        "token.pcrs is set, and the keys in the TPM were made without it, or their recovery object is gone. Keys \
         are bound to what was booted when they are made or never: leave token.pcrs out, or provision other \
         token.handles"
            .to_owned(),
    )
}
