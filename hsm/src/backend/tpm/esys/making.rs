//! The calls into libtss2 that make something in the TPM and keep it there.
//!
//! Called by `provision`, `policy` and `index`, and by `attest` for a key that stays in a file. For the rest see the parent.

#![allow(
    unsafe_code,
    reason = "libtss2 is a C library; what makes each call sound stands beside it"
)]

use std::ptr;

use tss_esapi::{constants::tss::TPM2_ALG_NULL, tss2_esys::*};
use zeroize::Zeroize;

use super::{Call, Conceal, Esys, Tr, check, digest, filled, sized, taken};
use crate::backend::tpm::import::Wrapped;

impl Esys {
    /// A primary key of the owner's hierarchy, in a transient place.
    pub(in crate::backend::tpm) fn create_primary(
        &mut self,
        session: Tr,
        template: &TPM2B_PUBLIC,
    ) -> Call<Tr> {
        self.conceal(session, Conceal::Neither)?;
        let sensitive = TPM2B_SENSITIVE_CREATE::default();
        let (outside, pcr) = (TPM2B_DATA::default(), no_pcr());
        let mut key = Tr::NONE;
        let (mut public, mut data) = (ptr::null_mut(), ptr::null_mut());
        let (mut hash, mut ticket) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in the parent: the structures outlive the call, and each answer is taken once.
        check(unsafe {
            Esys_CreatePrimary(
                self.context,
                ESYS_TR_RH_OWNER,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &sensitive,
                template,
                &outside,
                &pcr,
                &mut key,
                &mut public,
                &mut data,
                &mut hash,
                &mut ticket,
            )
        })?;
        let _ = (taken(public), taken(data), taken(hash), taken(ticket));
        Ok(Tr(key))
    }

    /// An object below `parent`, loaded into a transient place. Without `data`
    /// the TPM makes what is secret in it.
    pub(in crate::backend::tpm) fn create(
        &mut self,
        (parent, session): (Tr, Tr),
        template: &TPM2B_PUBLIC,
        auth: &[u8],
        data: &[u8],
    ) -> Call<Tr> {
        let (private, public) = self.created((parent, session), template, auth, data)?;
        self.load((parent, session), &private, &public)
    }

    /// A key below `parent` that everybody may use who has what is returned: its private part, which only
    /// the parent opens, and its public area.
    pub(in crate::backend::tpm) fn create_kept(
        &mut self,
        parent: (Tr, Tr),
        template: &TPM2B_PUBLIC,
    ) -> Call<(Vec<u8>, TPM2B_PUBLIC)> {
        let (private, public) = self.created(parent, template, &[], &[])?;
        Ok((filled(private.size, &private.buffer)?.to_vec(), public))
    }

    /// Loads what [`Esys::create_kept`] has made.
    pub(in crate::backend::tpm) fn load_kept(
        &mut self,
        parent: (Tr, Tr),
        private: &[u8],
        public: &TPM2B_PUBLIC,
    ) -> Call<Tr> {
        let (size, buffer) = sized(private)?;
        self.load(parent, &TPM2B_PRIVATE { size, buffer }, public)
    }

    fn created(
        &mut self,
        (parent, session): (Tr, Tr),
        template: &TPM2B_PUBLIC,
        auth: &[u8],
        data: &[u8],
    ) -> Call<(TPM2B_PRIVATE, TPM2B_PUBLIC)> {
        self.conceal(session, Conceal::Command)?;
        let (size, buffer) = sized(data)?;
        let mut sensitive = TPM2B_SENSITIVE_CREATE {
            size: 0,
            sensitive: TPMS_SENSITIVE_CREATE {
                userAuth: digest(auth)?,
                data: TPM2B_SENSITIVE_DATA { size, buffer },
            },
        };
        let (outside, pcr) = (TPM2B_DATA::default(), no_pcr());
        let (mut private, mut public, mut made) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let (mut hash, mut ticket) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in the parent: the structures outlive the call, and each answer is taken once.
        let created = check(unsafe {
            Esys_Create(
                self.context,
                parent.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &sensitive,
                template,
                &outside,
                &pcr,
                &mut private,
                &mut public,
                &mut made,
                &mut hash,
                &mut ticket,
            )
        });
        sensitive.sensitive.userAuth.buffer.zeroize();
        sensitive.sensitive.data.buffer.zeroize();
        created?;
        let _ = (taken(made), taken(hash), taken(ticket));
        Ok((taken(private)?, taken(public)?))
    }

    /// A pair that was wrapped for `parent`, loaded below it into a transient place.
    pub(in crate::backend::tpm) fn import(
        &mut self,
        (parent, session): (Tr, Tr),
        wrapped: &Wrapped,
    ) -> Call<Tr> {
        self.conceal(session, Conceal::Neither)?;
        let (size, buffer) = sized(&wrapped.duplicate)?;
        let duplicate = TPM2B_PRIVATE { size, buffer };
        let (size, secret) = sized(&wrapped.seed)?;
        let seed = TPM2B_ENCRYPTED_SECRET { size, secret };
        let key = TPM2B_DATA::default();
        let inner = TPMT_SYM_DEF_OBJECT {
            algorithm: TPM2_ALG_NULL,
            ..Default::default()
        };
        let mut private = ptr::null_mut();
        // SAFETY: as in the parent: the structures outlive the call, and the answer is taken once.
        check(unsafe {
            Esys_Import(
                self.context,
                parent.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &key,
                &wrapped.public,
                &duplicate,
                &seed,
                &inner,
                &mut private,
            )
        })?;
        let private = taken(private)?;
        self.load((parent, session), &private, &wrapped.public)
    }

    fn load(
        &mut self,
        (parent, session): (Tr, Tr),
        private: &TPM2B_PRIVATE,
        public: &TPM2B_PUBLIC,
    ) -> Call<Tr> {
        self.conceal(session, Conceal::Neither)?;
        let mut object = Tr::NONE;
        // SAFETY: as in the parent: the structures outlive the call.
        check(unsafe {
            Esys_Load(
                self.context,
                parent.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                private,
                public,
                &mut object,
            )
        })?;
        Ok(Tr(object))
    }

    /// Keeps a transient object at a persistent handle.
    pub(in crate::backend::tpm) fn persist(
        &mut self,
        object: Tr,
        session: Tr,
        handle: u32,
    ) -> Call<()> {
        self.conceal(session, Conceal::Neither)?;
        let mut kept = Tr::NONE;
        // SAFETY: as in the parent: the structures outlive the call, and each answer is taken once.
        check(unsafe {
            Esys_EvictControl(
                self.context,
                ESYS_TR_RH_OWNER,
                object.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                handle,
                &mut kept,
            )
        })
    }

    /// Makes an NV index.
    pub(in crate::backend::tpm) fn nv_define(
        &mut self,
        session: Tr,
        auth: &[u8],
        public: TPMS_NV_PUBLIC,
    ) -> Call<Tr> {
        self.conceal(session, Conceal::Command)?;
        let mut auth = digest(auth)?;
        let public = TPM2B_NV_PUBLIC {
            size: 0,
            nvPublic: public,
        };
        let mut index = Tr::NONE;
        // SAFETY: as in the parent: the structures outlive the call, and each answer is taken once.
        let done = check(unsafe {
            Esys_NV_DefineSpace(
                self.context,
                ESYS_TR_RH_OWNER,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &auth,
                &public,
                &mut index,
            )
        });
        auth.buffer.zeroize();
        done.map(|()| Tr(index))
    }
}

fn no_pcr() -> TPML_PCR_SELECTION {
    TPML_PCR_SELECTION {
        count: 0,
        pcrSelections: [TPMS_PCR_SELECTION::default(); 16],
    }
}
