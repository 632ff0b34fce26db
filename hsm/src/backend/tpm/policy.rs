//! Keys bound to what was booted: the policy that they have, the NV index that says which states are
//! approved, and the recovery object without which nobody writes that index.
//!
//! Called by `token` for every use of a key, by `epoch` at the start, by `provision`, and by `token reseal`. A
//! key's policy cannot be changed, so it names no state but an index (TPM2_PolicyAuthorizeNV), and the index
//! names the one policy over PCRs that counts now. Written anew, what it held before counts no more:
//! an older, once approved state does not come back with an older file.
//!
//! The name of the index is part of every key's policy, and that of the recovery object part of the
//! index's. Whoever has the owner's password can remove either, and so have the realm stop; but an index
//! made anew is written with the same authorization or has another name, and the recovery object has in its
//! name a seed that only its TPM knew. The file beside the anchors says what the index means, for people
//! and for finding the right branch: one that is wrong leads to a refusal.

mod kept;

use std::collections::BTreeMap;

use tss_esapi::{
    constants::tss::{TPM2_ALG_SHA256, TPM2_CC_Sign, TPM2_RC_POLICY_FAIL},
    tss2_esys::{TPM2B_DIGEST, TPMS_NV_PUBLIC},
};

use super::{
    Options,
    attributes::{self, Form},
    esys::{By, Code, Esys, Tr},
    pcr::{self, Approved, PcrState, Pcrs, Policies},
    response::Meaning,
    token::{self, Connection, Name, auth, hex},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
    },
    error::{Error, Result},
    root_keys::KeyOrigin,
    secret::SecretBytes,
};

/// Where the recovery object is, from the first handle on: behind the places of keys.
pub(super) const RECOVERY: u32 = 0x60;
const RECOVERY_LABEL: &str = "custodyd-recovery-v1";
// Part 2 of the TPM 2.0 Library Specification, section 13.4.
const POLICYWRITE: u32 = 1 << 3;
const AUTHREAD: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;
/// A TPMT_HA of SHA-256.
const CONTENT: u16 = 2 + 32;

/// What a key is used for, by which its policy differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Root,
    Pair,
}

/// What binds the keys of this TPM.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    recovery: Tr,
    index: Option<Found>,
    write_policy: [u8; 32],
    policies: Policies,
    session: Tr,
    /// Once it is known which approved state this is.
    way: Option<Way>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    index: Tr,
    written: bool,
}

/// How a policy session comes to the digest in the index.
#[derive(Debug, Clone)]
enum Way {
    /// Nothing is asked.
    Any,
    Through([u8; 3], Vec<[u8; 32]>),
}

/// The index of a realm whose keys begin at this handle: the last of its range.
pub(super) fn index_of(handles: u32) -> u32 {
    0x0180_00ff | (handles & 0x003f_ff00)
}

fn public(options: &Options, write_policy: &[u8; 32]) -> TPMS_NV_PUBLIC {
    let mut auth_policy = TPM2B_DIGEST {
        size: 32,
        ..Default::default()
    };
    let places = auth_policy.buffer.iter_mut();
    places.zip(write_policy).for_each(|(to, from)| *to = *from);
    TPMS_NV_PUBLIC {
        nvIndex: index_of(options.handles),
        nameAlg: TPM2_ALG_SHA256,
        attributes: POLICYWRITE | AUTHREAD | NO_DA,
        authPolicy: auth_policy,
        dataSize: CONTENT,
    }
}

/// The name that the index has once it is written.
fn name_of(options: &Options, write_policy: &[u8; 32]) -> Name {
    let area = [
        &index_of(options.handles).to_be_bytes()[..],
        &TPM2_ALG_SHA256.to_be_bytes(),
        &(POLICYWRITE | AUTHREAD | NO_DA | WRITTEN).to_be_bytes(),
        &32_u16.to_be_bytes(),
        write_policy,
        &CONTENT.to_be_bytes(),
    ];
    let mut name = [0; 34];
    let (algorithm, digest) = name.split_at_mut(2);
    algorithm.copy_from_slice(&TPM2_ALG_SHA256.to_be_bytes());
    digest.copy_from_slice(&sha256(&area));
    name
}

impl Binding {
    /// The policy that a key of this form has.
    pub(super) fn policy_of(&self, form: Form) -> [u8; 32] {
        match form {
            Form::Ecdsa => self.policies.pair,
            Form::StorageKey | Form::Sealed | Form::Hmac | Form::Attest => self.policies.root,
        }
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
        if purpose == Use::Pair {
            esys.policy_command(self.session, TPM2_CC_Sign)?;
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
    let index = find_index(connection, options, &write_policy)?;
    let parent = connection.storage_key;
    let session = connection.command("start a policy session", |esys, _| {
        esys.start_policy(parent)
    })?;
    Ok(Some(Binding {
        recovery,
        index,
        write_policy,
        policies: Policies::by(&name_of(options, &write_policy)),
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

fn find_index(
    connection: &mut Connection,
    options: &Options,
    write_policy: &[u8; 32],
) -> Attempt<Option<Found>> {
    let handle = index_of(options.handles);
    let Some(index) = at(connection, handle)? else {
        return Ok(None);
    };
    let found = connection.command("read an NV index", |esys, session| {
        esys.nv_public(index, session)
    })?;
    let wanted = public(options, write_policy);
    let policy = found
        .authPolicy
        .buffer
        .get(..usize::from(found.authPolicy.size));
    let same = found.nvIndex == wanted.nvIndex
        && found.nameAlg == wanted.nameAlg
        && found.attributes & !WRITTEN == wanted.attributes
        && found.dataSize == wanted.dataSize
        && policy == Some(&write_policy[..]);
    match same {
        true => Ok(Some(Found {
            index,
            written: found.attributes & WRITTEN != 0,
        })),
        false => Err(Trouble::Final(Error::Misconfigured(format!(
            "the NV index 0x{handle:08x} is not the one of this realm's PCR policy: another program's, or made anew. \
             The owner removes it (tpm2_nvundefine), then `custodyd token provision --recovery-key FILE` makes it again"
        )))),
    }
}

/// Demands that what was booted is approved, and says what differs where it is not.
pub(super) fn require(connection: &mut Connection, options: &Options) -> Attempt<()> {
    let Some(pcrs) = &options.pcrs else {
        return Ok(());
    };
    let Some(binding) = &connection.binding else {
        return Err(Trouble::Final(unbound()));
    };
    let Some(Found {
        index,
        written: true,
    }) = binding.index
    else {
        return Err(Trouble::Final(Error::Misconfigured(format!(
            "the NV index 0x{:08x}, which says with which PCRs the keys may be used, is not there or was never \
             written: somebody with the owner's password removed it. `custodyd token provision --recovery-key FILE` \
             makes it again",
            index_of(options.handles)
        ))));
    };
    let approved = approved(connection, options, index)?;
    let way = match &approved {
        Approved::Any => {
            tracing::warn!(
                "the keys may be used whatever was booted: `custodyd token reseal --any` is in force, until the \
                 next `custodyd token reseal`"
            );
            Way::Any
        }
        Approved::States(states) => way_of(connection, pcrs, states, &approved)?,
    };
    if let Some(binding) = &mut connection.binding {
        binding.way = Some(way);
    }
    Ok(())
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

fn way_of(
    connection: &mut Connection,
    pcrs: &Pcrs,
    states: &[PcrState],
    approved: &Approved,
) -> Attempt<Way> {
    let told = states.iter().find(|state| !state.is_of(pcrs));
    if let Some(state) = told {
        return Err(Trouble::Final(Error::Misconfigured(format!(
            "token.pcrs is {pcrs}, and the TPM has been told to look at {}: `custodyd token reseal --recovery-key \
             FILE` tells it otherwise",
            state.registers()
        ))));
    }
    let now = read(connection, pcrs)?;
    match states.contains(&now) {
        true => Ok(Way::Through(pcr::bits(pcrs), approved.branches())),
        false => Err(Trouble::Final(other_state(states, &now))),
    }
}

/// Against the approved state that is nearest.
fn other_state(states: &[PcrState], now: &PcrState) -> Error {
    let nearest = states.iter().map(|state| state.differing(now));
    let differing = nearest.min_by_key(Vec::len).unwrap_or_default();
    let shown: Vec<String> = differing
        .into_iter()
        .map(|(register, was, is)| {
            let is = is.map_or_else(|| "not there".to_owned(), |is| hex(is));
            format!("PCR {register} is {is}, approved is {}", hex(was))
        })
        .collect();
    Error::Misconfigured(format!(
        "this machine has booted otherwise than approved, so the TPM lets nobody use the keys: {}. Firmware, boot \
         loader, Secure Boot or kernel have changed. If that was you, `custodyd token reseal --recovery-key FILE` \
         approves what is booted now; if not, find out who did before you approve anything (docs/TPM.md, \"Bound to \
         what was booted\")",
        shown.join("; ")
    ))
}

/// The registers as they are, each vouched for by the session.
fn read(connection: &mut Connection, pcrs: &Pcrs) -> Attempt<PcrState> {
    let mut values = BTreeMap::new();
    for register in pcrs.registers() {
        let only = Pcrs::only(register);
        let value = connection.command("TPM2_PCR_Read", |esys, session| {
            esys.pcr_read(session, pcr::bits(&only))
        })?;
        let value = value.ok_or_else(|| {
            Error::Misconfigured(format!(
                "the TPM has no PCR {register} in a SHA-256 bank: see tpm2_pcrread, and the firmware's settings"
            ))
        })?;
        values.insert(register, value);
    }
    Ok(PcrState::of(values))
}

/// What the index holds, in words.
fn approved(connection: &mut Connection, options: &Options, index: Tr) -> Attempt<Approved> {
    let digest = content(connection, index)?;
    if digest == Approved::Any.digest() {
        return Ok(Approved::Any);
    }
    let found = kept::find(&options.state_directory, &digest);
    found.ok_or_else(|| {
        Trouble::Final(Error::Misconfigured(format!(
            "{} does not say which PCRs the TPM was told to look at: it was lost, changed or put back. Put the newest \
             one in place, or approve what is booted now by `custodyd token reseal --recovery-key FILE`",
            options.state_directory.join("pcrs").display()
        )))
    })
}

fn content(connection: &mut Connection, index: Tr) -> Attempt<[u8; 32]> {
    let bytes = connection.command("TPM2_NV_Read", |esys, session| {
        esys.nv_read(index, session, CONTENT)
    })?;
    let digest = bytes.strip_prefix(&TPM2_ALG_SHA256.to_be_bytes());
    digest
        .and_then(|digest| digest.try_into().ok())
        .ok_or_else(|| Trouble::Sick("an NV index that holds no digest".to_owned()))
}

/// Whether the index approves whatever was booted, for the report on keys; nothing is decided by it.
pub(super) fn is_any(connection: &mut Connection) -> Attempt<bool> {
    let index = connection
        .binding
        .as_ref()
        .and_then(|binding| binding.index);
    match index {
        Some(Found {
            index,
            written: true,
        }) => Ok(content(connection, index)? == Approved::Any.digest()),
        _ => Ok(false),
    }
}

/// Makes the recovery object and the index where they are missing, and approves what is booted now. Says
/// what was made, or would be. Where both are there, the recovery key has to be theirs before `keys` are bound to
/// them: somebody may have put them there for us to find. One that is given is proven in any case.
pub(super) fn provision(
    connection: &mut Connection,
    options: &Options,
    make_recovery: impl FnOnce(&mut Connection, &[u8; 32]) -> Attempt<()>,
    (keys, dry_run): (bool, bool),
) -> Attempt<Vec<String>> {
    let Some(pcrs) = &options.pcrs else {
        return Ok(Vec::new());
    };
    let mut made = Vec::new();
    if connection.binding.is_none() {
        made.push(format!(
            "recovery object 0x{:08x}",
            options.handles.saturating_add(RECOVERY)
        ));
    }
    let index = connection
        .binding
        .as_ref()
        .and_then(|binding| binding.index);
    if !index.is_some_and(|found| found.written) {
        made.push(format!(
            "NV index 0x{:08x} of the PCRs {pcrs}",
            index_of(options.handles)
        ));
    }
    if dry_run {
        return Ok(made);
    }
    if made.is_empty() {
        if keys || options.recovery_key.is_some() {
            prove(connection, options)?;
        }
        return Ok(made);
    }
    let recovery = auth(recovery_key(options)?, RECOVERY_LABEL)?;
    if connection.binding.is_none() {
        make_recovery(connection, recovery.expose())?;
        connection.binding = find(connection, options)?;
    }
    let now = Approved::states(vec![read(connection, pcrs)?])?;
    approve(connection, options, &now)?;
    Ok(made)
}

/// Shows that the recovery key is the one of the object that is there.
fn prove(connection: &mut Connection, options: &Options) -> Attempt<()> {
    let secret = auth(recovery_key(options)?, RECOVERY_LABEL)?;
    let Some(binding) = connection.binding.clone() else {
        return Err(Trouble::Final(unbound()));
    };
    connection.command("set an authorization", |esys, _| {
        esys.set_auth(binding.recovery, secret.expose())
    })?;
    let proven = connection.ask("TPM2_PolicySecret", |esys, session| {
        esys.policy_restart(binding.session)?;
        esys.policy_secret(binding.session, binding.recovery, session)
    })?;
    proven.map_err(|meaning| refused_by_recovery(meaning, "compare the recovery key"))
}

fn refused_by_recovery(meaning: Meaning, what: &str) -> Trouble {
    Trouble::Final(Error::Misconfigured(match meaning {
        Meaning::WrongAuth => {
            "nothing was changed: this is not the recovery key that the keys were made with, or that their recovery \
             object was made with. Take the one that was kept; where nobody has one of it, somebody else has made the \
             object: provision other token.handles"
                .to_owned()
        }
        other => format!("nothing was changed: the TPM refused to {what}: {other:?}"),
    }))
}

/// Before anything is made that would want it.
pub(super) fn recovery_key(options: &Options) -> Result<&SecretBytes> {
    options.recovery_key.as_ref().ok_or_else(|| {
        Error::Misconfigured(
            "nothing was changed: what may be booted is approved with the recovery key alone, and keys are bound to \
             nobody else's. Give --recovery-key FILE to `custodyd token provision`, which makes the file where it is not \
             there"
                .to_owned(),
        )
    })
}

/// What `token reseal` shall approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// What is booted now, and states that are announced.
    Now(Vec<PcrState>),
    /// Whatever is booted.
    Any,
}

/// Approves, and returns a line for each state. What was approved before is not any more, unless it is
/// among them.
pub(super) fn reseal(
    connection: &mut Connection,
    options: &Options,
    wanted: &Wanted,
    dry_run: bool,
) -> Attempt<Vec<String>> {
    let Some(pcrs) = &options.pcrs else {
        return Err(Trouble::Final(Error::Misconfigured(
            "token.pcrs is not set: this realm's keys are not bound to what was booted".to_owned(),
        )));
    };
    if connection.binding.is_none() {
        return Err(Trouble::Final(unbound()));
    }
    let now = read(connection, pcrs)?;
    let approved = match wanted {
        Wanted::Any => Approved::Any,
        Wanted::Now(announced) => {
            if let Some(other) = announced.iter().find(|state| !state.is_of(pcrs)) {
                return Err(Trouble::Final(Error::Misconfigured(format!(
                    "nothing was changed: {other} tells of other PCRs than token.pcrs, which is {pcrs}"
                ))));
            }
            let mut states = vec![now];
            for state in announced {
                if !states.contains(state) {
                    states.push(state.clone());
                }
            }
            Approved::states(states)?
        }
    };
    if !dry_run {
        approve(connection, options, &approved)?;
    }
    Ok(match approved {
        Approved::Any => vec!["whatever is booted".to_owned()],
        Approved::States(states) => states.iter().map(PcrState::to_string).collect(),
    })
}

/// Writes the file, then the index, then gives the file its name. After a crash in between either the old
/// file fits the index or the new one does, and both are looked at.
fn approve(connection: &mut Connection, options: &Options, approved: &Approved) -> Attempt<()> {
    let secret = auth(recovery_key(options)?, RECOVERY_LABEL)?;
    kept::prepare(&options.state_directory, approved)?;
    let (binding, index) = index(connection, options)?;
    connection.command("set an authorization", |esys, _| {
        esys.set_auth(binding.recovery, secret.expose())
    })?;
    let bytes = [&TPM2_ALG_SHA256.to_be_bytes()[..], &approved.digest()].concat();
    let policy = binding.session;
    let written = connection.ask("TPM2_NV_Write", |esys, session| {
        esys.policy_restart(policy)?;
        esys.policy_secret(policy, binding.recovery, session)?;
        let by = By {
            session,
            policy: Some(policy),
        };
        esys.nv_write(index, by, &bytes)
    })?;
    written.map_err(|meaning| refused_by_recovery(meaning, "write the NV index"))?;
    kept::settle(&options.state_directory)?;
    // Its name is another one now that it is written.
    let index = find_index(connection, options, &binding.write_policy)?;
    connection.binding = Some(Binding { index, ..binding });
    require(connection, options)
}

/// The index, made where it is not there.
fn index(connection: &mut Connection, options: &Options) -> Attempt<(Binding, Tr)> {
    let Some(binding) = connection.binding.clone() else {
        return Err(Trouble::Final(unbound()));
    };
    if let Some(found) = binding.index {
        return Ok((binding, found.index));
    }
    let area = public(options, &binding.write_policy);
    let made = connection.ask("TPM2_NV_DefineSpace", |esys, session| {
        esys.nv_define(session, &[], area)
    })?;
    let index = made.map_err(|meaning| Trouble::Final(super::index::refused_by_owner(meaning)))?;
    Ok((binding, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_of_the_owner_and_not_the_one_of_the_anchors() {
        use super::super::{DEFAULT_HANDLES, DEFAULT_NV_INDEX, check_nv_index};
        assert_eq!(index_of(DEFAULT_HANDLES), 0x0181_81ff);
        assert_ne!(index_of(DEFAULT_HANDLES), DEFAULT_NV_INDEX);
        for handles in [0x8100_0000, 0x8101_8100, 0x817f_ff00] {
            check_nv_index(index_of(handles)).unwrap();
        }
    }
}
