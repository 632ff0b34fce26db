//! Whether this machine was booted as approved, and the way through a policy session if it was.
//!
//! Called at the start of each epoch and after a `reseal`. It only finds the way: that a boot is approved
//! says the TPM, at each use of a key.

use std::collections::BTreeMap;

use super::{index::Found, kept, unbound};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        tpm::{
            Options,
            esys::Tr,
            pcr::{self, Approved, PcrState, Pcrs},
            token::{Connection, hex},
        },
    },
    error::Error,
};

/// How a policy session comes to the digest in the index.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Nothing is asked.
    Any,
    Through([u8; 3], Vec<[u8; 32]>),
}

/// Demands that what was booted is approved, and says what differs where it is not.
pub(in crate::backend::tpm) fn require(
    connection: &mut Connection,
    options: &Options,
) -> Attempt<()> {
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
            super::index_of(options.handles)
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
pub(super) fn read(connection: &mut Connection, pcrs: &Pcrs) -> Attempt<PcrState> {
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
    let digest = super::index::content(connection, index)?;
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
