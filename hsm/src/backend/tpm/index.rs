//! The NV index of the anchors: what it must be, finding it, and making it.
//!
//! Called at the start of each epoch and by `provision`. An index that is gone, other or unwritten is
//! refused: only `provision` makes one, and only where there are no records yet.

use tss_esapi::{
    constants::tss::{TPM2_ALG_SHA256, TPM2_NT_EXTEND},
    tss2_esys::TPMS_NV_PUBLIC,
};

use super::{
    Options,
    anchor::{Chain, extended, record::Record, store::Store, value, wear::Wear},
    esys::Tr,
    mechanism,
    policy::Use,
    response::Meaning,
    token::{Connection, Name, auth},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
    },
    error::Error,
};

/// The label that its authorization is made from.
const LABEL: &str = "custodyd-anchor-v1";

// Part 2 of the TPM 2.0 Library Specification, section 13.4.
const AUTHWRITE: u32 = 1 << 2;
const POLICYWRITE: u32 = 1 << 3;
const TYPE: u32 = 4;
const AUTHREAD: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;
/// Of SHA-256.
const CONTENT: u16 = 32;

/// The policy of an index that is extended in approved boots alone.
type Policy = Option<[u8; 32]>;

/// Read and extended with our authorization alone, not even with the owner's, and where keys are bound to what was
/// booted extended in such a boot alone; not under the lockout, which anybody on the host could cause;
/// and written through, for an orderly index forgets when the power goes.
fn attributes(policy: &Policy) -> u32 {
    let write = policy.map_or(AUTHWRITE, |_| POLICYWRITE);
    write | AUTHREAD | NO_DA | (u32::from(TPM2_NT_EXTEND) << TYPE)
}

fn public(handle: u32, policy: &Policy) -> TPMS_NV_PUBLIC {
    let mut public = TPMS_NV_PUBLIC {
        nvIndex: handle,
        nameAlg: TPM2_ALG_SHA256,
        attributes: attributes(policy),
        dataSize: CONTENT,
        authPolicy: Default::default(),
    };
    if let Some(policy) = policy {
        public.authPolicy.size = 32;
        let places = public.authPolicy.buffer.iter_mut();
        places.zip(policy).for_each(|(to, from)| *to = *from);
    }
    public
}

/// The name of an index of ours that was written.
pub(super) fn name(handle: u32, policy: &Policy) -> Name {
    let digest = policy.as_ref().map_or(&[][..], |policy| policy);
    name_of(handle, attributes(policy), (digest, CONTENT))
}

/// The name of any index that was written (TPM 2.0, part 1, section 16): the hash of its public area.
pub(super) fn name_of(handle: u32, attributes: u32, (policy, size): (&[u8], u16)) -> Name {
    let length = u16::try_from(policy.len()).unwrap_or(u16::MAX);
    let area = [
        &handle.to_be_bytes()[..],
        &TPM2_ALG_SHA256.to_be_bytes(),
        &(attributes | WRITTEN).to_be_bytes(),
        &length.to_be_bytes(),
        policy,
        &size.to_be_bytes(),
    ];
    let mut name = [0; 34];
    let (algorithm, digest) = name.split_at_mut(2);
    algorithm.copy_from_slice(&TPM2_ALG_SHA256.to_be_bytes());
    digest.copy_from_slice(&sha256(&area));
    name
}

/// An index of the right form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) index: Tr,
    written: bool,
}

/// The index at the configured handle, with its authorization set.
fn find(connection: &mut Connection, options: &Options) -> Attempt<Option<Found>> {
    let handle = options.nv_index;
    let found = connection.ask("find the NV index", |esys, session| {
        esys.find(handle, Some(session))
    })?;
    let index = match found {
        Ok(index) => index,
        Err(Meaning::Absent) => return Ok(None),
        Err(_) => return Err(Trouble::Sick("the NV index cannot be read".to_owned())),
    };
    let found = connection.command("read the NV index", |esys, session| {
        esys.nv_public(index, session)
    })?;
    let policy = connection.policy_of_anchors();
    if !is(&found, &public(handle, &policy)) {
        return Err(Trouble::Final(another(&found, handle, &policy)));
    }
    let auth = auth(&options.secret, LABEL)?;
    connection.command("set an authorization", |esys, _| {
        esys.set_auth(index, auth.expose())
    })?;
    Ok(Some(Found {
        index,
        written: found.attributes & WRITTEN != 0,
    }))
}

/// What stands where ours should be.
fn another(found: &TPMS_NV_PUBLIC, handle: u32, policy: &Policy) -> Error {
    let unbound = policy.is_some() && is(found, &public(handle, &None));
    let bound = policy.is_none()
        && found.attributes & !WRITTEN == attributes(&Some([0; 32]))
        && found.authPolicy.size == 32;
    Error::Misconfigured(match (unbound, bound) {
        (true, _) => format!(
            "the NV index 0x{handle:08x} of the anchors is not bound to what was booted, as the keys are: it was made \
             without token.pcrs, or somebody with the owner's password has put it there. docs/TPM.md, \"When the \
             anchors are lost\", has the way to one that is"
        ),
        (_, true) => format!(
            "the NV index 0x{handle:08x} of the anchors is bound to what was booted, and token.pcrs is not set"
        ),
        _ => format!(
            "the NV index 0x{handle:08x} is not one of custodyd's (attributes 0x{:08x}, {} bytes): another program's, or \
             it was made anew; set token.nv_index to a free one before provisioning",
            found.attributes, found.dataSize
        ),
    })
}

fn is(found: &TPMS_NV_PUBLIC, wanted: &TPMS_NV_PUBLIC) -> bool {
    let policy = |public: &TPMS_NV_PUBLIC| {
        let size = usize::from(public.authPolicy.size);
        public.authPolicy.buffer.get(..size).map(<[u8]>::to_vec)
    };
    found.nvIndex == wanted.nvIndex
        && found.nameAlg == wanted.nameAlg
        && found.attributes & !WRITTEN == wanted.attributes
        && found.dataSize == wanted.dataSize
        && policy(found).is_some_and(|found| Some(found) == policy(wanted))
}

/// The index for an epoch.
pub(super) fn require(connection: &mut Connection, options: &Options) -> Attempt<Tr> {
    match find(connection, options)? {
        Some(Found {
            index,
            written: true,
        }) => Ok(index),
        found => {
            let what = match found {
                Some(_) => "was made anew and never written",
                None => "is not there",
            };
            Err(Trouble::Final(Error::Misconfigured(format!(
                "the NV index 0x{:08x} of the anchors {what}: the TPM was cleared, somebody with its owner's \
                 password removed the index, or it was never provisioned. Without it nothing says which \
                 state is the newest; docs/TPM.md has the way back. For a new realm `custodyd token \
                 provision` makes the index",
                options.nv_index
            ))))
        }
    }
}

/// Makes index and first record, or finishes what a crash left. Says whether there was anything to do.
///
/// After a crash: no index; an unwritten one, and then no record of it was ever true; or one that was
/// extended once, and then the first record names that value. From each of these it goes on.
pub(super) fn provision(
    connection: &mut Connection,
    options: &Options,
    store: &Store,
    dry_run: bool,
) -> Attempt<bool> {
    let found = find(connection, options)?;
    let records = store.records()?;
    let only_first = records.iter().all(|record| record.writes == 0);
    let index = match found {
        Some(Found {
            index,
            written: true,
        }) => {
            let value = value(connection, index)?;
            if records.iter().any(|record| record.leads_to(&value)) {
                return Ok(false);
            }
            let half = records.iter().find(|record| record.before == value);
            let Some(half) = half.filter(|_| only_first) else {
                return Err(lost(options));
            };
            let digest = half.digest();
            return extend(connection, index, &digest, dry_run).map(|()| true);
        }
        _ if !only_first || (records.is_empty() && !store.is_empty()) => return Err(lost(options)),
        _ if dry_run => return Ok(true),
        Some(Found { index, .. }) => index,
        None => define(connection, options)?,
    };
    // Forgotten when this returns: so nobody can bring another index to the same value.
    let mut random: Chain = [0; 32];
    mechanism::random(connection, &mut random)?;
    let first = Record::first(
        extended(&[0; 32], &random),
        Wear::new(options.nv_writes_per_day).full(),
    );
    let slot = store.write(&first)?;
    store.remove_other(slot);
    extend(connection, index, &random, false)?;
    extend(connection, index, &first.digest(), false)?;
    Ok(true)
}

fn define(connection: &mut Connection, options: &Options) -> Attempt<Tr> {
    let secret = auth(&options.secret, LABEL)?;
    let area = public(options.nv_index, &connection.policy_of_anchors());
    let made = connection.ask("TPM2_NV_DefineSpace", |esys, session| {
        esys.nv_define(session, secret.expose(), area)
    })?;
    match made {
        Ok(index) => {
            connection.command("set an authorization", |esys, _| {
                esys.set_auth(index, secret.expose())
            })?;
            Ok(index)
        }
        Err(meaning) => Err(Trouble::Final(refused_by_owner(meaning, NO_ROOM))),
    }
}

/// What makes room for an index, in a TPM that has none.
pub(super) const NO_ROOM: &str =
    "the TPM has no room for another NV index; remove one that nobody needs (tpm2_nvundefine)";
/// And for a key: indices share the memory, and keys that nobody needs any more are the likelier reason.
pub(super) const NO_ROOM_FOR_A_KEY: &str = "the TPM has no room for another persistent key; destroy older ones (`custodyd key retire KEY --destroy`), or \
     remove objects of other programs that nobody needs (tpm2_getcap handles-persistent, tpm2_evictcontrol)";

/// What a command of the owner's hierarchy came to.
pub(super) fn refused_by_owner(meaning: Meaning, no_room: &str) -> Error {
    Error::Misconfigured(match meaning {
        Meaning::WrongAuth => {
            "the TPM's owner hierarchy has a password, and this is not it: name the file that holds it by \
             --owner-password-file (of `token provision`, `escrow` and `key`; `init` has none, so provision before it)"
                .to_owned()
        }
        Meaning::Full => no_room.to_owned(),
        other => format!("the TPM's owner hierarchy refused: {other:?}"),
    })
}

fn extend(connection: &mut Connection, index: Tr, by: &[u8; 32], dry_run: bool) -> Attempt<()> {
    if dry_run {
        return Ok(());
    }
    connection.with_key("TPM2_NV_Extend", Use::Anchors, |esys, session| {
        esys.nv_extend(index, session, by)
    })
}

fn lost(options: &Options) -> Trouble {
    Trouble::Final(Error::Misconfigured(format!(
        "nothing was changed: the records in token.state_directory {} and the NV index 0x{:08x} do not belong \
         together, so one of them was lost or put back. Put the right ones in place; if they are lost, give \
         token.state_directory and token.nv_index other values, and see docs/TPM.md for the way back",
        options.state_directory.display(),
        options.nv_index
    )))
}
