//! The calls into libtss2 (TSS 2.0 Enhanced System API), each as a safe function.
//!
//! Called by this backend alone; with `making` and `policy` the only files of the crate with unsafe code. The wrapper of
//! `tss-esapi` 7.7 knows neither NV_Extend nor HMAC sequences, does not let us at its context to
//! call them, and drops `swtpm:path=`; its types are used wherever they do.
//!
//! It decides nothing: which keys, which sessions, what an answer means is decided above. A
//! response code comes back as it is.

#![allow(
    unsafe_code,
    reason = "libtss2 is a C library; what makes each call sound stands beside it"
)]

mod making;
mod policy;

use std::{ffi::CStr, ptr};

use tss_esapi::{
    constants::tss::{
        TPM2_ALG_AES, TPM2_ALG_CFB, TPM2_ALG_NULL, TPM2_ALG_SHA256, TPM2_CAP_HANDLES,
        TPM2_CAP_TPM_PROPERTIES, TPM2_RH_NULL, TPM2_SE_HMAC, TPM2_ST_HASHCHECK, TPMA_SESSION_AUDIT,
        TPMA_SESSION_CONTINUESESSION, TPMA_SESSION_DECRYPT, TPMA_SESSION_ENCRYPT,
    },
    tss2_esys::{self as c, *},
};
use zeroize::{Zeroize, Zeroizing};

use crate::{backend::inside::Inside, secret::Secret};

/// What libtss2 or the TPM answered instead of doing it; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) u32);

/// An object or a session, as the library numbers it. It means nothing in another context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tr(ESYS_TR);

impl Tr {
    pub(super) const OWNER: Self = Self(ESYS_TR_RH_OWNER);
    const NONE: ESYS_TR = ESYS_TR_NONE;
}

/// Which way a command's first parameter is encrypted. Only some have one that can be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Conceal {
    Neither,
    Command,
    Answer,
    Both,
    /// Neither, of a command that needs no authorization: the session vouches for the answer.
    Audit,
}

/// What authorizes the use of a key: the session, or a policy beside it. The session conceals.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    pub(super) session: Tr,
    pub(super) policy: Option<Tr>,
}

impl By {
    fn handles(self) -> (ESYS_TR, ESYS_TR) {
        match self.policy {
            None => (self.session.0, Tr::NONE),
            Some(policy) => (policy.0, self.session.0),
        }
    }
}

/// A connection to a TPM. Everything made through it goes with it, except what is persistent.
#[derive(Debug)]
pub(super) struct Esys {
    context: *mut ESYS_CONTEXT,
    tcti: *mut TSS2_TCTI_CONTEXT,
    /// Gone after both contexts.
    _inside: Inside,
}

// SAFETY: neither context is bound to the thread that made it, and each call takes the whole
// value exclusively, so no two threads are inside with the same one.
unsafe impl Send for Esys {}

type Call<T> = Result<T, Code>;

fn check(code: TSS2_RC) -> Call<()> {
    match code {
        0 => Ok(()),
        code => Err(Code(code)),
    }
}

/// An answer that the library allocated: copied out, wiped and freed.
fn taken<T: Copy>(answer: *mut T) -> Call<T> {
    if answer.is_null() {
        return Err(Code(TSS2_ESYS_GENERAL_FAILURE));
    }
    // SAFETY: after success the library hands over one whole, initialised T that it has allocated
    // and that nobody else refers to; it is read once, then wiped in place, then freed once.
    unsafe {
        let value = answer.read();
        std::slice::from_raw_parts_mut(answer.cast::<u8>(), size_of::<T>()).zeroize();
        Esys_Free(answer.cast());
        Ok(value)
    }
}

/// What stands in the layer of ESYS for a fault of the library itself.
const TSS2_ESYS_GENERAL_FAILURE: u32 = 0x0007_0001;
/// A buffer does not fit into the structure of its command.
const TSS2_ESYS_BAD_SIZE: u32 = 0x0007_0010;

/// The bytes at the front of a buffer of the size that a structure of the TPM has.
fn sized<const N: usize>(bytes: &[u8]) -> Call<(UINT16, [BYTE; N])> {
    let mut buffer = [0; N];
    let front = buffer.get_mut(..bytes.len());
    front
        .ok_or(Code(TSS2_ESYS_BAD_SIZE))?
        .copy_from_slice(bytes);
    let size = UINT16::try_from(bytes.len()).map_err(|_| Code(TSS2_ESYS_BAD_SIZE))?;
    Ok((size, buffer))
}

fn digest(bytes: &[u8]) -> Call<TPM2B_DIGEST> {
    let (size, buffer) = sized(bytes)?;
    Ok(TPM2B_DIGEST { size, buffer })
}

fn input(bytes: &[u8]) -> Call<TPM2B_MAX_BUFFER> {
    let (size, buffer) = sized(bytes)?;
    Ok(TPM2B_MAX_BUFFER { size, buffer })
}

/// The filled part of a structure with a size.
fn filled<const N: usize>(size: UINT16, buffer: &[u8; N]) -> Call<&[u8]> {
    let filled = buffer.get(..usize::from(size));
    filled.ok_or(Code(TSS2_ESYS_GENERAL_FAILURE))
}

/// The same of what is secret: the structure is wiped, and what is taken out of it is when it goes.
fn secret<const N: usize>(size: UINT16, buffer: &mut [BYTE; N]) -> Call<Zeroizing<Vec<u8>>> {
    let bytes = filled(size, buffer).map(|bytes| Zeroizing::new(bytes.to_vec()));
    buffer.zeroize();
    bytes
}

impl Esys {
    /// Reaches a TPM through the library that `name_conf` names, such as `device:/dev/tpmrm0`.
    pub(super) fn connect(name_conf: &CStr) -> Call<Self> {
        let mut esys = Self {
            context: ptr::null_mut(),
            tcti: ptr::null_mut(),
            _inside: Inside::enter().ok_or(Code(TSS2_ESYS_GENERAL_FAILURE))?,
        };
        // SAFETY: the string ends with a zero and outlives the call; both out-pointers are ours.
        // What was made until a failure is released by `drop`.
        unsafe {
            check(Tss2_TctiLdr_Initialize(name_conf.as_ptr(), &mut esys.tcti))?;
            check(Esys_Initialize(
                &mut esys.context,
                esys.tcti,
                ptr::null_mut(),
            ))?;
        }
        Ok(esys)
    }

    /// The object or NV index at a handle, read from the TPM; under a session, what is read is
    /// authenticated by it.
    pub(super) fn find(&mut self, handle: u32, session: Option<Tr>) -> Call<Tr> {
        if let Some(session) = session {
            self.conceal(session, Conceal::Answer)?;
        }
        let mut found = Tr::NONE;
        let session = session.map_or(Tr::NONE, |session| session.0);
        // SAFETY: `context` is a context of ESYS while self lives, as in every call below; the
        // out-pointer is a local variable. Numbers that mean nothing to the library are refused by it.
        check(unsafe {
            Esys_TR_FromTPMPublic(
                self.context,
                handle,
                session,
                Tr::NONE,
                Tr::NONE,
                &mut found,
            )
        })?;
        Ok(Tr(found))
    }

    /// What authorizes the use of an object from now on. Kept by the library, in this context.
    pub(super) fn set_auth(&mut self, object: Tr, auth: &[u8]) -> Call<()> {
        let mut auth = digest(auth)?;
        // SAFETY: the library copies the value, which outlives the call.
        let done = check(unsafe { Esys_TR_SetAuth(self.context, object.0, &auth) });
        auth.buffer.zeroize();
        done
    }

    /// An HMAC session with parameter encryption by AES-128-CFB; its secret is a salt that only
    /// the holder of `key` can open, where there is one.
    pub(super) fn start_session(&mut self, key: Option<Tr>) -> Call<Tr> {
        self.start(key, TPM2_SE_HMAC)
    }

    fn start(&mut self, key: Option<Tr>, kind: TPM2_SE) -> Call<Tr> {
        let symmetric = TPMT_SYM_DEF {
            algorithm: TPM2_ALG_AES,
            keyBits: TPMU_SYM_KEY_BITS { aes: 128 },
            mode: TPMU_SYM_MODE { aes: TPM2_ALG_CFB },
        };
        let key = key.map_or(Tr::NONE, |key| key.0);
        let mut session = Tr::NONE;
        // SAFETY: as above; without a nonce of ours the library makes one.
        check(unsafe {
            Esys_StartAuthSession(
                self.context,
                key,
                Tr::NONE,
                Tr::NONE,
                Tr::NONE,
                Tr::NONE,
                ptr::null(),
                kind,
                &symmetric,
                TPM2_ALG_SHA256,
                &mut session,
            )
        })?;
        Ok(Tr(session))
    }

    /// A session that authorizes nothing must encrypt something, or the TPM takes it for a mistake.
    fn conceal(&mut self, session: Tr, what: Conceal) -> Call<()> {
        let flags = TPMA_SESSION_CONTINUESESSION
            | match what {
                Conceal::Neither => 0,
                Conceal::Command => TPMA_SESSION_DECRYPT,
                Conceal::Answer => TPMA_SESSION_ENCRYPT,
                Conceal::Both => TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT,
                Conceal::Audit => TPMA_SESSION_AUDIT,
            };
        // SAFETY: plain values.
        check(unsafe { Esys_TRSess_SetAttributes(self.context, session.0, flags, 0xff) })
    }

    pub(super) fn flush(&mut self, object: Tr) -> Call<()> {
        // SAFETY: plain values.
        check(unsafe { Esys_FlushContext(self.context, object.0) })
    }

    pub(super) fn read_public(&mut self, object: Tr, session: Option<Tr>) -> Call<TPM2B_PUBLIC> {
        if let Some(session) = session {
            self.conceal(session, Conceal::Answer)?;
        }
        let session = session.map_or(Tr::NONE, |session| session.0);
        let (mut public, mut name, mut qualified) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the out-pointers are local; each that is filled is taken, and so freed, once.
        check(unsafe {
            Esys_ReadPublic(
                self.context,
                object.0,
                session,
                Tr::NONE,
                Tr::NONE,
                &mut public,
                &mut name,
                &mut qualified,
            )
        })?;
        let (public, _, _) = (taken(public), taken(name), taken(qualified));
        public
    }

    pub(super) fn nv_public(&mut self, index: Tr, session: Tr) -> Call<TPMS_NV_PUBLIC> {
        self.conceal(session, Conceal::Answer)?;
        let (mut public, mut name) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in `read_public`.
        check(unsafe {
            Esys_NV_ReadPublic(
                self.context,
                index.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &mut public,
                &mut name,
            )
        })?;
        let (public, _) = (taken(public), taken(name));
        Ok(public?.nvPublic)
    }

    /// The handles in use from `first` on, as many as the TPM tells at once.
    pub(super) fn handles(&mut self, first: u32) -> Call<Vec<u32>> {
        let data = self.capability(TPM2_CAP_HANDLES, first, 254)?;
        // SAFETY: `capability` has checked that this member is the one that was asked for; any bits
        // are a value of it.
        let list = unsafe { data.handles };
        let count = usize::try_from(list.count).unwrap_or(usize::MAX);
        Ok(list.handle.iter().take(count).copied().collect())
    }

    /// Properties with their tags, from `first` on.
    pub(super) fn properties(&mut self, first: u32, count: u32) -> Call<Vec<(u32, u32)>> {
        let data = self.capability(TPM2_CAP_TPM_PROPERTIES, first, count)?;
        // SAFETY: as in `handles`.
        let list = unsafe { data.tpmProperties };
        let count = usize::try_from(list.count).unwrap_or(usize::MAX);
        let pairs = list.tpmProperty.iter().take(count);
        Ok(pairs.map(|pair| (pair.property, pair.value)).collect())
    }

    fn capability(&mut self, kind: TPM2_CAP, first: u32, count: u32) -> Call<TPMU_CAPABILITIES> {
        let (mut more, mut data) = (0, ptr::null_mut());
        // SAFETY: as in `read_public`.
        check(unsafe {
            Esys_GetCapability(
                self.context,
                Tr::NONE,
                Tr::NONE,
                Tr::NONE,
                kind,
                first,
                count,
                &mut more,
                &mut data,
            )
        })?;
        let data = taken(data)?;
        if data.capability != kind {
            return Err(Code(TSS2_ESYS_GENERAL_FAILURE));
        }
        Ok(data.data)
    }

    /// As many random bytes as the TPM likes to give at once, and at most `count`.
    pub(super) fn random(&mut self, session: Tr, count: UINT16) -> Call<Zeroizing<Vec<u8>>> {
        self.conceal(session, Conceal::Answer)?;
        let mut bytes = ptr::null_mut();
        // SAFETY: as in `read_public`.
        check(unsafe {
            Esys_GetRandom(
                self.context,
                session.0,
                Tr::NONE,
                Tr::NONE,
                count,
                &mut bytes,
            )
        })?;
        let mut bytes = taken(bytes)?;
        secret(bytes.size, &mut bytes.buffer)
    }

    pub(super) fn sign(&mut self, key: Tr, by: By, hash: &[u8; 32]) -> Call<TPMT_SIGNATURE> {
        self.conceal(by.session, Conceal::Command)?;
        let hash = digest(hash)?;
        // The key has its scheme; and no restricted key is asked, so no ticket is needed.
        let scheme = TPMT_SIG_SCHEME {
            scheme: TPM2_ALG_NULL,
            ..Default::default()
        };
        let ticket = TPMT_TK_HASHCHECK {
            tag: TPM2_ST_HASHCHECK,
            hierarchy: TPM2_RH_NULL,
            digest: TPM2B_DIGEST::default(),
        };
        let mut signature = ptr::null_mut();
        let (first, second) = by.handles();
        // SAFETY: the structures outlive the call; the out-pointer as in `read_public`.
        check(unsafe {
            Esys_Sign(
                self.context,
                key.0,
                first,
                second,
                Tr::NONE,
                &hash,
                &scheme,
                &ticket,
                &mut signature,
            )
        })?;
        taken(signature)
    }

    /// The 32 bytes in a sealed object; none where it holds another number of them.
    pub(super) fn unseal(&mut self, object: Tr, by: By) -> Call<Option<Secret<32>>> {
        self.conceal(by.session, Conceal::Answer)?;
        let mut data = ptr::null_mut();
        let (first, second) = by.handles();
        // SAFETY: as in `read_public`.
        check(unsafe { Esys_Unseal(self.context, object.0, first, second, Tr::NONE, &mut data) })?;
        let mut data = taken(data)?;
        let secret = match filled(data.size, &data.buffer) {
            Ok(bytes) if bytes.len() == 32 => {
                Some(Secret::init(|place| place.copy_from_slice(bytes)))
            }
            _ => None,
        };
        data.buffer.zeroize();
        Ok(secret)
    }

    /// HMAC-SHA-256 of at most 1024 bytes with a key of the TPM.
    pub(super) fn hmac(&mut self, key: Tr, by: By, message: &[u8]) -> Call<Zeroizing<Vec<u8>>> {
        self.conceal(by.session, Conceal::Both)?;
        let mut message = input(message)?;
        let mut tag = ptr::null_mut();
        let (first, second) = by.handles();
        // SAFETY: as in `sign`.
        let done = check(unsafe {
            Esys_HMAC(
                self.context,
                key.0,
                first,
                second,
                Tr::NONE,
                &message,
                TPM2_ALG_NULL,
                &mut tag,
            )
        });
        // It may be what a PIN was made into.
        message.buffer.zeroize();
        done?;
        let mut tag = taken(tag)?;
        secret(tag.size, &mut tag.buffer)
    }

    /// Begins an HMAC over a longer message. The sequence takes one of the TPM's few places.
    pub(super) fn hmac_start(&mut self, key: Tr, by: By) -> Call<Tr> {
        // A session that authorizes nothing conceals something, here nothing worth it.
        let conceal = by.policy.map_or(Conceal::Neither, |_| Conceal::Command);
        self.conceal(by.session, conceal)?;
        let auth = TPM2B_DIGEST::default();
        let mut sequence = Tr::NONE;
        let (first, second) = by.handles();
        // SAFETY: as in `sign`.
        check(unsafe {
            Esys_HMAC_Start(
                self.context,
                key.0,
                first,
                second,
                Tr::NONE,
                &auth,
                TPM2_ALG_NULL,
                &mut sequence,
            )
        })?;
        Ok(Tr(sequence))
    }

    pub(super) fn hmac_update(&mut self, sequence: Tr, session: Tr, part: &[u8]) -> Call<()> {
        self.conceal(session, Conceal::Command)?;
        let mut part = input(part)?;
        // SAFETY: as in `sign`.
        let done = check(unsafe {
            Esys_SequenceUpdate(
                self.context,
                sequence.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &part,
            )
        });
        part.buffer.zeroize();
        done
    }

    /// Ends the sequence, which frees its place.
    pub(super) fn hmac_end(
        &mut self,
        sequence: Tr,
        session: Tr,
        part: &[u8],
    ) -> Call<Zeroizing<Vec<u8>>> {
        self.conceal(session, Conceal::Both)?;
        let mut part = input(part)?;
        let (mut tag, mut ticket) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in `sign`.
        let done = check(unsafe {
            Esys_SequenceComplete(
                self.context,
                sequence.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &part,
                c::ESYS_TR_RH_NULL,
                &mut tag,
                &mut ticket,
            )
        });
        part.buffer.zeroize();
        done?;
        let (mut tag, _) = (taken(tag)?, taken(ticket));
        secret(tag.size, &mut tag.buffer)
    }

    pub(super) fn nv_read(&mut self, index: Tr, session: Tr, size: UINT16) -> Call<Vec<u8>> {
        self.conceal(session, Conceal::Answer)?;
        let mut data = ptr::null_mut();
        // SAFETY: as in `read_public`.
        check(unsafe {
            Esys_NV_Read(
                self.context,
                index.0,
                index.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                size,
                0,
                &mut data,
            )
        })?;
        let data = taken(data)?;
        filled(data.size, &data.buffer).map(<[u8]>::to_vec)
    }

    /// What an index holds, said and signed by the TPM: the statement as it was signed, and the signature. The
    /// key's authorization is empty, so without a policy it goes without a session.
    pub(super) fn nv_certify(
        &mut self,
        (key, index): (Tr, Tr),
        by: By,
        nonce: &[u8],
    ) -> Call<(Vec<u8>, TPMT_SIGNATURE)> {
        self.conceal(by.session, Conceal::Neither)?;
        let first = by.policy.map_or(ESYS_TR_PASSWORD, |policy| policy.0);
        let (size, buffer) = sized(nonce)?;
        let nonce = TPM2B_DATA { size, buffer };
        let scheme = TPMT_SIG_SCHEME {
            scheme: TPM2_ALG_NULL,
            ..Default::default()
        };
        let (mut said, mut signature) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in `sign`.
        check(unsafe {
            Esys_NV_Certify(
                self.context,
                key.0,
                index.0,
                index.0,
                first,
                by.session.0,
                Tr::NONE,
                &nonce,
                &scheme,
                32,
                0,
                &mut said,
                &mut signature,
            )
        })?;
        let (said, signature) = (taken(said)?, taken(signature)?);
        let said = filled(said.size, &said.attestationData)?.to_vec();
        Ok((said, signature))
    }

    pub(super) fn nv_extend(&mut self, index: Tr, by: By, digest: &[u8]) -> Call<()> {
        self.conceal(by.session, Conceal::Command)?;
        let (size, buffer) = sized(digest)?;
        let data = TPM2B_MAX_NV_BUFFER { size, buffer };
        let (first, second) = by.handles();
        // SAFETY: as in `sign`.
        check(unsafe {
            Esys_NV_Extend(
                self.context,
                index.0,
                index.0,
                first,
                second,
                Tr::NONE,
                &data,
            )
        })
    }
}

impl Drop for Esys {
    fn drop(&mut self) {
        // SAFETY: both are what `connect` got from the library, or null, which it tolerates; each
        // is released once, the user of the other first.
        unsafe {
            if !self.context.is_null() {
                Esys_Finalize(&mut self.context);
            }
            if !self.tcti.is_null() {
                Tss2_TctiLdr_Finalize(&mut self.tcti);
            }
        }
    }
}
