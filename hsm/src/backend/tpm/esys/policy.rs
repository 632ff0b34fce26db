//! The calls into libtss2 for keys that are bound to what was booted.
//!
//! Called by `policy` alone. What passes here is not secret but for authorizations, which stay in the
//! library; whoever changes it on the way makes the policy fail. For the rest see the parent.

#![allow(
    unsafe_code,
    reason = "libtss2 is a C library; what makes each call sound stands beside it"
)]

use std::ptr;

use tss_esapi::{
    constants::tss::{TPM2_ALG_SHA256, TPM2_SE_POLICY},
    tss2_esys::*,
};

use super::{By, Call, Conceal, Esys, Tr, check, digest, filled, sized, taken};

/// Registers of the SHA-256 bank.
fn selection(bits: [u8; 3]) -> TPML_PCR_SELECTION {
    let [one, two, three] = bits;
    let mut pcr_selections = [TPMS_PCR_SELECTION::default(); 16];
    if let Some(first) = pcr_selections.first_mut() {
        *first = TPMS_PCR_SELECTION {
            hash: TPM2_ALG_SHA256,
            sizeofSelect: 3,
            pcrSelect: [one, two, three, 0],
        };
    }
    TPML_PCR_SELECTION {
        count: 1,
        pcrSelections: pcr_selections,
    }
}

impl Esys {
    /// A session for policies, salted as every other.
    pub(in crate::backend::tpm) fn start_policy(&mut self, key: Tr) -> Call<Tr> {
        let policy = self.start(Some(key), TPM2_SE_POLICY)?;
        self.conceal(policy, Conceal::Neither)?;
        Ok(policy)
    }

    /// As if it had just begun.
    pub(in crate::backend::tpm) fn policy_restart(&mut self, policy: Tr) -> Call<()> {
        // SAFETY: plain values, as the parent says.
        check(unsafe { Esys_PolicyRestart(self.context, policy.0, Tr::NONE, Tr::NONE, Tr::NONE) })
    }

    /// These registers as they are now.
    pub(in crate::backend::tpm) fn policy_pcr(&mut self, policy: Tr, bits: [u8; 3]) -> Call<()> {
        let (now, registers) = (TPM2B_DIGEST::default(), selection(bits));
        // SAFETY: as in the parent: the structures outlive the call.
        check(unsafe {
            Esys_PolicyPCR(
                self.context,
                policy.0,
                Tr::NONE,
                Tr::NONE,
                Tr::NONE,
                &now,
                &registers,
            )
        })
    }

    /// One of these digests: so it must be now, and all of them together are what it is then.
    pub(in crate::backend::tpm) fn policy_or(
        &mut self,
        policy: Tr,
        branches: &[[u8; 32]],
    ) -> Call<()> {
        let mut list = TPML_DIGEST::default();
        for (place, branch) in list.digests.iter_mut().zip(branches) {
            *place = digest(branch)?;
            list.count += 1;
        }
        // SAFETY: as in the parent: the structure outlives the call.
        check(unsafe { Esys_PolicyOR(self.context, policy.0, Tr::NONE, Tr::NONE, Tr::NONE, &list) })
    }

    /// What the index holds is the digest so far. Reading it needs no authorization but an empty one.
    pub(in crate::backend::tpm) fn policy_authorize_nv(
        &mut self,
        policy: Tr,
        index: Tr,
        session: Tr,
    ) -> Call<()> {
        self.conceal(session, Conceal::Neither)?;
        // SAFETY: plain values.
        check(unsafe {
            Esys_PolicyAuthorizeNV(
                self.context,
                index.0,
                index.0,
                policy.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
            )
        })
    }

    /// The authorization of the object that is used then.
    pub(in crate::backend::tpm) fn policy_auth_value(&mut self, policy: Tr) -> Call<()> {
        // SAFETY: plain values.
        check(unsafe { Esys_PolicyAuthValue(self.context, policy.0, Tr::NONE, Tr::NONE, Tr::NONE) })
    }

    /// For this command alone.
    pub(in crate::backend::tpm) fn policy_command(&mut self, policy: Tr, code: u32) -> Call<()> {
        // SAFETY: plain values.
        check(unsafe {
            Esys_PolicyCommandCode(self.context, policy.0, Tr::NONE, Tr::NONE, Tr::NONE, code)
        })
    }

    /// The authorization of another object, which is shown by the usual session.
    pub(in crate::backend::tpm) fn policy_secret(
        &mut self,
        policy: Tr,
        object: Tr,
        session: Tr,
    ) -> Call<()> {
        self.conceal(session, Conceal::Neither)?;
        let (nonce, command) = (TPM2B_NONCE::default(), TPM2B_DIGEST::default());
        let (mut timeout, mut ticket) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in the parent: the structures outlive the call, and each answer is taken once.
        check(unsafe {
            Esys_PolicySecret(
                self.context,
                object.0,
                policy.0,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &nonce,
                &command,
                &nonce,
                0,
                &mut timeout,
                &mut ticket,
            )
        })?;
        let _ = (taken(timeout), taken(ticket));
        Ok(())
    }

    /// The value of one register; none where the TPM has no SHA-256 bank. The session vouches for it.
    pub(in crate::backend::tpm) fn pcr_read(
        &mut self,
        session: Tr,
        bits: [u8; 3],
    ) -> Call<Option<[u8; 32]>> {
        self.conceal(session, Conceal::Audit)?;
        let registers = selection(bits);
        let mut counter = 0;
        let (mut read, mut values) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in the parent: the structures outlive the call, and each answer is taken once.
        check(unsafe {
            Esys_PCR_Read(
                self.context,
                session.0,
                Tr::NONE,
                Tr::NONE,
                &registers,
                &mut counter,
                &mut read,
                &mut values,
            )
        })?;
        let (_, values) = (taken(read), taken(values)?);
        let only = values.digests.first().filter(|_| values.count == 1);
        only.map_or(Ok(None), |value| {
            filled(value.size, &value.buffer).map(|bytes| bytes.try_into().ok())
        })
    }

    pub(in crate::backend::tpm) fn nv_write(
        &mut self,
        index: Tr,
        by: By,
        bytes: &[u8],
    ) -> Call<()> {
        self.conceal(by.session, Conceal::Command)?;
        let (size, buffer) = sized(bytes)?;
        let data = TPM2B_MAX_NV_BUFFER { size, buffer };
        let (first, second) = by.handles();
        // SAFETY: as in the parent: the structure outlives the call.
        check(unsafe {
            Esys_NV_Write(
                self.context,
                index.0,
                index.0,
                first,
                second,
                Tr::NONE,
                &data,
                0,
            )
        })
    }
}
