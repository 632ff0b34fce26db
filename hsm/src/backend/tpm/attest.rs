//! Evidence of what the NV index of the anchors holds, for people who do not trust this host.
//!
//! Making it is called by `session`, verifying it by the command line and by whoever links this crate; that
//! needs no TPM. The attestation key is restricted: it signs what the TPM says of itself and nothing that
//! anybody makes up, so root of this host, who can use it, cannot have it lie. That it is a key of a TPM
//! nobody sees from it alone: an auditor notes its name while the host is trusted, at provisioning,
//! and takes no other from then on.
//!
//! The key lies wrapped for its TPM in a file beside the records, since keeping it in the TPM would need the
//! owner's password. Lost, it is made anew, with another name.

use std::{io, path::Path};

use tss_esapi::{
    constants::tss::TPM2_RH_OWNER,
    structures::{Attest, AttestInfo, Public, Signature},
    traits::{Marshall as _, UnMarshall as _},
    tss2_esys::TPM2B_PUBLIC,
};

use super::{
    Options,
    anchor::{Chain, record::Record},
    attributes::{self, Form},
    esys::Tr,
    files, index, mechanism,
    pcr::Policies,
    policy::Use,
    response::Meaning,
    token::{self, Connection, Name, hex},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
    },
    error::{Error, Result},
    evidence::{Evidence, NONCE},
    public_key::PublicKey,
    root_keys::KeyOrigin,
};

const FILE: &str = "attestation-key";
const MAGIC: [u8; 4] = *b"CDQ\x01";
const LONGEST: u64 = 4096;

/// Has the TPM sign what the index holds, with the caller's nonce.
pub(super) fn certify(
    connection: &mut Connection,
    options: &Options,
    index: Tr,
    (nonce, record): (&[u8], &Record),
) -> Attempt<Evidence> {
    let (key, public) = key(connection, options)?;
    let certified = connection.with_key("TPM2_NV_Certify", Use::Attest, |esys, by| {
        esys.nv_certify((key, index), by, nonce)
    });
    let flushed = connection.command("free a place", |esys, _| esys.flush(key));
    let (attest, signature) = certified?;
    flushed?;
    let Ok(Signature::EcDsa(signature)) = Signature::try_from(signature) else {
        return Err(Trouble::Sick(
            "a signature that is none of ECDSA".to_owned(),
        ));
    };
    let pinned = options.storage_key.as_deref().unwrap_or_default();
    let evidence = Evidence {
        nv_index: options.nv_index,
        boots: connection
            .binding
            .as_ref()
            .map_or_else(Vec::new, |binding| binding.name().to_vec()),
        storage_key: ::hex::decode(pinned).unwrap_or_default(),
        key: public,
        attest,
        signature: mechanism::raw(&signature)?.to_vec(),
        record: record.encode(),
    };
    // What others will check is checked here first.
    verify(&evidence, nonce).map_err(|error| Trouble::Sick(error.to_string()))?;
    Ok(evidence)
}

/// The attestation key in a transient place, made where there is none, with its TPMT_PUBLIC.
fn key(connection: &mut Connection, options: &Options) -> Attempt<(Tr, Vec<u8>)> {
    let path = options.state_directory.join(FILE);
    let failed = |error: io::Error| {
        let reason = format!("{}: {error}", path.display());
        Trouble::Final(Error::unavailable("keep the attestation key", reason))
    };
    let (private, public) = match files::read(&path, LONGEST + 1) {
        Ok(Some(bytes)) => decode(&bytes).ok_or_else(|| unusable(&path))?,
        Ok(None) => {
            let (private, public) = make(connection)?;
            let bytes = encode(&private, &public);
            files::put(&options.state_directory, FILE, &bytes).map_err(failed)?;
            (private, public)
        }
        Err(error) => return Err(failed(error)),
    };
    let unusable = || unusable(&path);
    let area = area(&public).map_err(|_| unusable())?;
    // Such as one that was made before the keys of this TPM were.
    let policy = connection.policy_of(Form::Attest);
    if judged(&area, policy.as_ref()).is_err() {
        return Err(unusable());
    }
    let parent = connection.storage_key;
    // What the TPM says of the file is no reason to think that it is away; nor is one that is away a reason to
    // think ill of the file.
    let loaded = connection.command("TPM2_Load", |esys, session| {
        match esys.load_kept((parent, session), &private, &area) {
            Err(code) if code.is_about_its_input() && code.meaning() != Meaning::Passing => {
                Ok(None)
            }
            loaded => loaded.map(Some),
        }
    })?;
    match loaded {
        Some(key) => Ok((key, public)),
        None => Err(unusable()),
    }
}

fn unusable(path: &Path) -> Trouble {
    Trouble::Final(Error::Misconfigured(format!(
        "the attestation key in {} is damaged, of another TPM, or not bound to what was booted as the others are: \
         remove the file, and another key is made. Whoever checks evidence has to be told its new name",
        path.display()
    )))
}

fn make(connection: &mut Connection) -> Attempt<(Vec<u8>, Vec<u8>)> {
    let policy = connection.policy_of(Form::Attest);
    let (parent, template) = (
        connection.storage_key,
        Form::Attest.template_with(KeyOrigin::Token, policy.as_ref()),
    );
    let (private, public) = connection.command("TPM2_Create", |esys, session| {
        esys.create_kept((parent, session), &template)
    })?;
    let unreadable = || Trouble::Sick("a public area that cannot be read".to_owned());
    let public = Public::try_from(public).map_err(|_| unreadable())?;
    Ok((private, public.marshall().map_err(|_| unreadable())?))
}

fn encode(private: &[u8], public: &[u8]) -> Vec<u8> {
    let length = u32::try_from(private.len()).unwrap_or(u32::MAX);
    [&MAGIC[..], &length.to_be_bytes(), private, public].concat()
}

fn decode(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (private, public) = rest.split_at_checked(length)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= LONGEST);
    fits.then(|| (private.to_vec(), public.to_vec()))
}

/// TPMT_PUBLIC, and nothing behind it.
fn area(bytes: &[u8]) -> Result<TPM2B_PUBLIC> {
    let refused = || Error::invalid("attestation key", "it is no public area of a TPM");
    let public = Public::unmarshall(bytes).map_err(|_| refused())?;
    let again = public.marshall().map_err(|_| refused())?;
    match again == bytes {
        true => TPM2B_PUBLIC::try_from(public).map_err(|_| refused()),
        false => Err(refused()),
    }
}

/// What evidence says once its signature, its nonce and its chain were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// The name of the attestation key, in hexadecimal: to be compared with the one that was noted.
    pub key: String,
    /// That of the storage key which it is below.
    pub storage_key: String,
    /// Whether key and index can be used in approved boots alone. It follows from the name of the key.
    pub bound: bool,
    /// What the index held.
    pub value: [u8; 32],
    /// Milliseconds that the TPM has had power, and whether that number may have gone back once.
    pub clock: u64,
    pub clock_is_safe: bool,
    /// How often it was reset, and restarted without a reset.
    pub resets: u32,
    pub restarts: u32,
    pub firmware: u64,
    /// How often the index was extended by a record before this one.
    pub writes: u64,
    /// The anchors that the TPM vouches for by the value.
    pub anchors: Vec<Vec<u8>>,
}

/// Checks evidence. Whose key it is, the caller has to know.
///
/// # Errors
/// [`Error::Invalid`], with what is wrong.
pub fn verify(evidence: &Evidence, nonce: &[u8]) -> Result<Attested> {
    let refused = |why: &str| Error::invalid("evidence", why);
    if !NONCE.contains(&nonce.len()) {
        return Err(refused("a nonce has 16 to 32 bytes"));
    }
    let area = area(&evidence.key)?;
    let policies = match evidence.boots.as_slice() {
        [] => None,
        name => Some(Policies::by(name.try_into().map_err(|_| {
            refused("what it calls the index of approved boots is no name")
        })?)),
    };
    let policy = policies.map(|policies| policies.attest);
    let point = judged(&area, policy.as_ref()).map_err(|why| refused(&why))?;
    let signature = <&[u8; 64]>::try_from(evidence.signature.as_slice());
    let signature = signature.map_err(|_| refused("its signature is not of 64 bytes"))?;
    if !point.verifies(&evidence.attest, signature) {
        return Err(refused("its key has not signed it"));
    }
    // It refuses what does not begin as only a TPM begins.
    let attest =
        Attest::unmarshall(&evidence.attest).map_err(|_| refused("it is no statement of a TPM"))?;
    if attest
        .marshall()
        .map_err(|_| refused("it is no statement of a TPM"))?
        != evidence.attest
    {
        return Err(refused(
            "there is something behind the statement of the TPM",
        ));
    }
    if attest.extra_data().value() != nonce {
        return Err(refused("it was made for another nonce"));
    }
    let AttestInfo::Nv { info } = attest.attested() else {
        return Err(refused("it is not about an NV index"));
    };
    let name = token::name(&area).map_err(|trouble| trouble.into_error("name"))?;
    let signer = qualified(&evidence.storage_key, &name);
    if signer.is_none_or(|signer| attest.qualified_signer().value() != signer) {
        return Err(refused(
            "its key is not below the storage key that it names",
        ));
    }
    let policy = policies.map(|policies| policies.anchors);
    if info.index_name().value() != index::name(evidence.nv_index, &policy) || info.offset() != 0 {
        return Err(refused(
            "it is about another NV index than one of custodyd's anchors",
        ));
    }
    let value = Chain::try_from(info.nv_contents().value());
    let value = value.map_err(|_| refused("the index holds no chain"))?;
    let record = Record::decode(&evidence.record).filter(|record| record.leads_to(&value));
    let record =
        record.ok_or_else(|| refused("its record does not lead to what the index holds"))?;
    let clock = attest.clock_info();
    Ok(Attested {
        key: hex(&name),
        storage_key: hex(&evidence.storage_key),
        bound: policies.is_some(),
        value,
        clock: clock.clock(),
        clock_is_safe: clock.safe(),
        resets: clock.reset_count(),
        restarts: clock.restart_count(),
        firmware: attest.firmware_version(),
        writes: record.writes,
        anchors: record
            .objects
            .into_iter()
            .map(|(_, content)| content)
            .collect(),
    })
}

/// The key's point, where it is an attestation key with this policy.
fn judged(
    area: &TPM2B_PUBLIC,
    policy: Option<&[u8; 32]>,
) -> std::result::Result<PublicKey, String> {
    let wanted = Form::Attest.template_with(KeyOrigin::Token, policy);
    if area.publicArea.objectAttributes != wanted.publicArea.objectAttributes {
        return Err(
            "its key is no attestation key: it has other attributes, or is not restricted"
                .to_owned(),
        );
    }
    let (judged, point) = attributes::judge(area, Form::Attest, KeyOrigin::Token, policy);
    if let Some(why) = attributes::first_bad(&judged) {
        return Err(format!("its key is no attestation key: {why}"));
    }
    point.ok_or_else(|| "its key has no point".to_owned())
}

/// The qualified name of a key below a primary key of the owner: Part 1 of the TPM 2.0 Library Specification,
/// section 16.
fn qualified(storage_key: &[u8], key: &Name) -> Option<Name> {
    let storage_key = Name::try_from(storage_key).ok()?;
    let below = |parent: &[u8], name: &Name| {
        let mut qualified = *name;
        let (_, digest) = qualified.split_at_mut(2);
        digest.copy_from_slice(&sha256(&[parent, name]));
        qualified
    };
    let parent = below(&TPM2_RH_OWNER.to_be_bytes(), &storage_key);
    Some(below(&parent, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_is_a_key_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [bytes.clone(), [&MAGIC[..], &[0, 0, 0, 9], &bytes].concat()] {
                if let Some((private, public)) = decode(&bytes) {
                    prop_assert_eq!(encode(&private, &public), bytes);
                    let _ = area(&public);
                }
            }
        }

        /// The signature is checked before anything else is read, so the readers are asked directly, too.
        #[test]
        fn any_evidence_is_refused_and_nothing_panics(
            key in prop::collection::vec(any::<u8>(), 0..120),
            attest in prop::collection::vec(any::<u8>(), 0..200),
            signature in prop::collection::vec(any::<u8>(), 60..68),
            record in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            // The front of a statement on an NV index.
            let near = [&[0xff, 0x54, 0x43, 0x47, 0x80, 0x14, 0, 2][..], &attest].concat();
            for attest in [attest, near] {
                let _ = Attest::unmarshall(&attest);
                let evidence = Evidence {
                    nv_index: 0x0181_8100,
                    boots: Vec::new(),
                    storage_key: vec![0; 34],
                    key: key.clone(),
                    attest,
                    signature: signature.clone(),
                    record: record.clone(),
                };
                prop_assert!(verify(&evidence, &[1; 16]).is_err());
            }
        }
    }
}
