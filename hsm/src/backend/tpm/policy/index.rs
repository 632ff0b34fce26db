//! The NV index that says which boots are approved: what it must be, finding it, making it, and what it holds.
//!
//! Called by the parent's other files. An index of another form is refused, since its name is part of every
//! key's policy: nothing here repairs one.

use tss_esapi::{
    constants::tss::TPM2_ALG_SHA256,
    tss2_esys::{TPM2B_DIGEST, TPMS_NV_PUBLIC},
};

use super::{Binding, at, unbound};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        tpm::{
            Options,
            esys::Tr,
            index,
            pcr::Approved,
            token::{Connection, Name},
        },
    },
    error::Error,
};

// Part 2 of the TPM 2.0 Library Specification, section 13.4.
const POLICYWRITE: u32 = 1 << 3;
const AUTHREAD: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;
/// A TPMT_HA of SHA-256.
const CONTENT: u16 = 2 + 32;

#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) index: Tr,
    pub(super) written: bool,
}

/// The index of a realm whose keys begin at this handle: the last of its range.
pub(in crate::backend::tpm) fn of(handles: u32) -> u32 {
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
        nvIndex: of(options.handles),
        nameAlg: TPM2_ALG_SHA256,
        attributes: POLICYWRITE | AUTHREAD | NO_DA,
        authPolicy: auth_policy,
        dataSize: CONTENT,
    }
}

/// The name that the index has once it is written.
pub(super) fn name_of(options: &Options, write_policy: &[u8; 32]) -> Name {
    let attributes = POLICYWRITE | AUTHREAD | NO_DA;
    index::name_of(of(options.handles), attributes, (write_policy, CONTENT))
}

/// The index where it is, if it is the one that it must be.
pub(super) fn find(
    connection: &mut Connection,
    options: &Options,
    write_policy: &[u8; 32],
) -> Attempt<Option<Found>> {
    let handle = of(options.handles);
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

pub(super) fn content(connection: &mut Connection, index: Tr) -> Attempt<[u8; 32]> {
    let bytes = connection.command("TPM2_NV_Read", |esys, session| {
        esys.nv_read(index, session, CONTENT)
    })?;
    let digest = bytes.strip_prefix(&TPM2_ALG_SHA256.to_be_bytes());
    digest
        .and_then(|digest| digest.try_into().ok())
        .ok_or_else(|| Trouble::Sick("an NV index that holds no digest".to_owned()))
}

/// Whether the index approves whatever was booted, for the report on keys; nothing is decided by it.
pub(in crate::backend::tpm) fn is_any(connection: &mut Connection) -> Attempt<bool> {
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

/// The index, made where it is not there.
pub(super) fn made(connection: &mut Connection, options: &Options) -> Attempt<(Binding, Tr)> {
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
    let index =
        made.map_err(|meaning| Trouble::Final(index::refused_by_owner(meaning, index::NO_ROOM)))?;
    Ok((binding, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_of_the_owner_and_not_the_one_of_the_anchors() {
        use crate::backend::tpm::{DEFAULT_HANDLES, DEFAULT_NV_INDEX, check_nv_index};
        assert_eq!(of(DEFAULT_HANDLES), 0x0181_81ff);
        assert_ne!(of(DEFAULT_HANDLES), DEFAULT_NV_INDEX);
        for handles in [0x8100_0000, 0x8101_8100, 0x817f_ff00] {
            check_nv_index(of(handles)).unwrap();
        }
    }
}
