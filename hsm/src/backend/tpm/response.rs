//! What a response code means for what comes next, by the layer that gave it.
//!
//! Called by `token` for every command. The layer stands in bits 16 to 23 (TSS 2.0 Overview,
//! section 3.10): 0 is the TPM itself, 11 the TPM through a resource manager; all others are
//! software between us and it, and then nobody knows whether the command was done.

use tss_esapi::constants::tss::{
    TPM2_RC_AUTH_FAIL, TPM2_RC_BAD_AUTH, TPM2_RC_HANDLE, TPM2_RC_INITIALIZE, TPM2_RC_LOCKOUT,
    TPM2_RC_NV_RATE, TPM2_RC_NV_SPACE, TPM2_RC_NV_UNAVAILABLE, TPM2_RC_NV_UNINITIALIZED,
    TPM2_RC_PCR_CHANGED, TPM2_RC_RETRY, TPM2_RC_TESTING, TPM2_RC_YIELDED,
};

use super::esys::Code;

const LAYER: u32 = 0x00ff_0000;
const TPM: u32 = 0;
const RESOURCE_MANAGER: u32 = 11 << 16;
/// A response of format one: which parameter, handle or session it is about stands in the other bits.
const FORMAT_ONE: u32 = 0x080;
const FORMAT_ONE_CODE: u32 = 0x0bf;

/// TPM2_RC_SESSION_MEMORY, _OBJECT_MEMORY, _SESSION_HANDLES and _OBJECT_HANDLES: without a resource
/// manager, what a killed process had loaded stays.
const FULL: [u32; 4] = [0x903, 0x902, 0x905, 0x906];

/// What follows from a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing was done; the same command may succeed in a moment.
    Passing,
    /// The authorization does not fit the object. Never tried again.
    WrongAuth,
    /// The TPM protects itself against guessing. Never tried again.
    Lockout,
    /// There is nothing at the handle.
    Absent,
    /// The NV index was made and never written.
    Unwritten,
    /// There is no room for another NV index.
    Full,
    /// Anything else: the connection, or what was loaded through it, may be gone.
    Sick,
}

impl Code {
    pub(super) fn meaning(self) -> Meaning {
        match self.of_the_tpm() {
            Some(
                TPM2_RC_RETRY
                | TPM2_RC_YIELDED
                | TPM2_RC_TESTING
                | TPM2_RC_NV_RATE
                | TPM2_RC_NV_UNAVAILABLE
                // Between a policy and its use some register was extended; the policy is asked again.
                | TPM2_RC_PCR_CHANGED,
            ) => Meaning::Passing,
            Some(TPM2_RC_AUTH_FAIL | TPM2_RC_BAD_AUTH) => Meaning::WrongAuth,
            Some(TPM2_RC_LOCKOUT) => Meaning::Lockout,
            Some(TPM2_RC_HANDLE) => Meaning::Absent,
            Some(TPM2_RC_NV_UNINITIALIZED) => Meaning::Unwritten,
            Some(TPM2_RC_NV_SPACE) => Meaning::Full,
            _ => Meaning::Sick,
        }
    }

    /// Whether the TPM objects to what it was handed, and not to when.
    pub(super) fn is_about_its_input(self) -> bool {
        self.of_the_tpm().is_some() && self.0 & FORMAT_ONE != 0
    }

    /// The code without what it is about, where the TPM itself gave it.
    fn of_the_tpm(self) -> Option<u32> {
        let Self(code) = self;
        if !matches!(code & LAYER, TPM | RESOURCE_MANAGER) {
            return None;
        }
        let code = code & !LAYER;
        Some(match code & FORMAT_ONE {
            0 => code,
            _ => code & FORMAT_ONE_CODE,
        })
    }
}

impl std::fmt::Display for Code {
    /// The code as `tpm2_rc_decode` takes it, with a hint where there is one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hint = match self.of_the_tpm() {
            None => ": the way to the TPM is broken",
            Some(TPM2_RC_INITIALIZE) => ": the TPM was not started (TPM2_Startup)",
            Some(TPM2_RC_NV_RATE) => ": the TPM limits writes against wear",
            Some(code) if FULL.contains(&code) => {
                ": no room for sessions or objects; use a resource manager (device:/dev/tpmrm0)"
            }
            Some(_) => "",
        };
        write!(f, "code 0x{:x}{hint}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part 2 of the TPM 2.0 Library Specification, section 6.6, and the TSS 2.0 Overview.
    #[test]
    fn codes_mean_the_same_whatever_they_are_about() {
        for (code, meaning) in [
            (0x922, Meaning::Passing),
            (0x920, Meaning::Passing),
            (0x128, Meaning::Passing),
            (0x000b_0922, Meaning::Passing),
            (0x921, Meaning::Lockout),
            (0x98e, Meaning::WrongAuth),
            (0x9a2, Meaning::WrongAuth),
            (0x0a2, Meaning::WrongAuth),
            (0x18b, Meaning::Absent),
            (0x28b, Meaning::Absent),
            (0x14a, Meaning::Unwritten),
            (0x14b, Meaning::Full),
            (0x100, Meaning::Sick),
            (0x918, Meaning::Sick),
            // The same numbers from software are no word of the TPM.
            (0x000a_0922, Meaning::Sick),
            (0x0007_09a2, Meaning::Sick),
            (0x000a_000a, Meaning::Sick),
        ] {
            assert_eq!(Code(code).meaning(), meaning, "0x{code:x}");
        }
    }

    #[test]
    fn a_code_is_shown_with_its_number() {
        assert!(Code(0x903).to_string().contains("0x903"));
        assert!(Code(0x903).to_string().contains("resource manager"));
        assert!(Code(0x000a_0008).to_string().contains("broken"));
    }
}
