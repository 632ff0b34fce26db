//! Approving what may be booted, with the recovery key.
//!
//! Called by `provision` and `token reseal`, by people. Nothing else writes the index of the approved boots, and
//! neither does this without the recovery key, which the TPM demands.

use tss_esapi::constants::tss::TPM2_ALG_SHA256;

use super::{Binding, RECOVERY, RECOVERY_LABEL, boot, index, kept, unbound};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        tpm::{
            Options,
            esys::By,
            pcr::{Approved, PcrState},
            response::Meaning,
            token::{Connection, auth},
        },
    },
    error::{Error, Result},
    secret::SecretBytes,
};

/// Makes the recovery object and the index where they are missing, and approves what is booted now. Says
/// what was made, or would be. Where both are there, the recovery key has to be theirs before `keys` are bound to
/// them: somebody may have put them there for us to find. One that is given is proven in any case.
pub(in crate::backend::tpm) fn provision(
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
            index::of(options.handles)
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
        connection.binding = super::find(connection, options)?;
    }
    let now = Approved::states(vec![boot::read(connection, pcrs)?])?;
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
pub(in crate::backend::tpm) fn recovery_key(options: &Options) -> Result<&SecretBytes> {
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
pub(in crate::backend::tpm) fn reseal(
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
    let now = boot::read(connection, pcrs)?;
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
    let (binding, index) = index::made(connection, options)?;
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
    let index = index::find(connection, options, &binding.write_policy)?;
    connection.binding = Some(Binding { index, ..binding });
    boot::require(connection, options)
}
