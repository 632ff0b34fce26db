//! What a machine has booted, as the PCRs of the SHA-256 bank tell it, and the digests of policies over it.
//!
//! Called by `policy`, and by the configuration and the command line for the names of registers. Pure: the
//! digests follow from Part 3 of the TPM 2.0 Library Specification, section 23, and the TPM computes the
//! same ones or refuses. A state that was read from a file decides nothing before its digest is the one
//! in the TPM.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use tss_esapi::constants::tss::{
    TPM2_ALG_SHA256, TPM2_CC_NV_Certify, TPM2_CC_NV_Extend, TPM2_CC_PolicyAuthValue,
    TPM2_CC_PolicyAuthorizeNV, TPM2_CC_PolicyCommandCode, TPM2_CC_PolicyOR, TPM2_CC_PolicyPCR,
    TPM2_CC_PolicySecret, TPM2_CC_Sign,
};

use crate::{
    backend::known_answer::sha256,
    error::{Error, Result},
};

/// The last register of the PC client profile.
const LAST: u8 = 23;
/// Registers that any program resets and extends as it likes: debug and application.
const ANYBODYS: [u8; 2] = [16, 23];
/// What firmware measures before anything that somebody chose to boot has run.
const FIRMWARES: std::ops::RangeInclusive<u8> = 0..=7;
/// A TPM2_PolicyOR has at most eight branches, and at least two.
const MOST: usize = 8;
const MAGIC: &str = "custodyd-pcrs 1";
const ANY: &str = "any";

type Digest = [u8; 32];

/// Registers of the SHA-256 bank that keys are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcrs(BTreeSet<u8>);

impl Pcrs {
    /// # Errors
    /// [`Error::Misconfigured`] for one that there is not, one that anybody resets, and where none is the firmware's.
    pub fn new(registers: impl IntoIterator<Item = u64>) -> Result<Self> {
        let mut found = BTreeSet::new();
        for number in registers {
            let register = u8::try_from(number).ok().filter(|number| *number <= LAST);
            let register = register.ok_or_else(|| {
                Error::Misconfigured(format!("there is no PCR {number}: expected 0 to {LAST}"))
            })?;
            if ANYBODYS.contains(&register) {
                return Err(Error::Misconfigured(format!(
                    "any program resets PCR {register} and extends it as it likes, so it says nothing; 7 tells \
                     what Secure Boot has accepted"
                )));
            }
            found.insert(register);
        }
        match found.iter().any(|register| FIRMWARES.contains(register)) {
            true => Ok(Self(found)),
            false => Err(Error::Misconfigured(
                "expected at least one PCR of 0 to 7, such as 7: what a boot loader or a kernel measures, another one \
                 leaves out, and then measures itself what it likes"
                    .to_owned(),
            )),
        }
    }

    /// One by itself, to be read.
    pub(super) fn only(register: u8) -> Self {
        Self(BTreeSet::from([register]))
    }

    /// Numbers with commas in between, such as `0,7`.
    ///
    /// # Errors
    /// As [`Pcrs::new`], and for what is no number.
    pub fn parse(text: &str) -> Result<Self> {
        let numbers = text.split(',').map(|part| {
            part.trim().parse::<u64>().map_err(|_| {
                Error::Misconfigured(format!(
                    "\"{part}\" is no PCR: expected numbers with commas in between, such as 0,7"
                ))
            })
        });
        Self::new(numbers.collect::<Result<Vec<_>>>()?)
    }

    pub fn registers(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied()
    }
}

impl fmt::Display for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(u8::to_string).collect();
        f.write_str(&shown.join(","))
    }
}

/// Registers with a value each: one way for a machine to have booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrState(BTreeMap<u8, Digest>);

impl PcrState {
    /// Such as `0=HEX,7=HEX`.
    ///
    /// # Errors
    /// [`Error::Misconfigured`].
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || {
            Error::Misconfigured(format!(
                "\"{text}\": expected PCRs with their values in the SHA-256 bank, such as 0=HEX,7=HEX with 64 \
                 hexadecimal digits each, each PCR once"
            ))
        };
        let mut values = BTreeMap::new();
        for part in text.split(',') {
            let (register, value) = part.split_once('=').ok_or_else(refused)?;
            let register: u8 = register.parse().map_err(|_| refused())?;
            let value = digest_of(value).ok_or_else(refused)?;
            if values.insert(register, value).is_some() {
                return Err(refused());
            }
        }
        // The registers are such as may be chosen.
        Pcrs::new(values.keys().copied().map(u64::from))?;
        Ok(Self(values))
    }

    pub(super) fn of(values: BTreeMap<u8, Digest>) -> Self {
        Self(values)
    }

    /// Whether it tells of exactly these registers.
    #[must_use]
    pub fn is_of(&self, pcrs: &Pcrs) -> bool {
        self.0.keys().eq(pcrs.0.iter())
    }

    pub(super) fn registers(&self) -> Pcrs {
        Pcrs(self.0.keys().copied().collect())
    }

    /// Registers of which the other state tells something else: this value, and that one.
    pub(super) fn differing<'s>(
        &'s self,
        other: &'s Self,
    ) -> Vec<(u8, &'s Digest, Option<&'s Digest>)> {
        let there = |register| other.0.get(register);
        let all = self.0.iter();
        all.filter(|(register, value)| there(register) != Some(value))
            .map(|(register, value)| (*register, value, there(register)))
            .collect()
    }

    /// The policy digest of a session after TPM2_PolicyPCR in this state.
    fn policy(&self) -> Digest {
        let values: Vec<&[u8]> = self.0.values().map(<[u8; 32]>::as_slice).collect();
        let [one, two, three] = bits(&self.registers());
        let mut selection = 1_u32.to_be_bytes().to_vec();
        selection.extend_from_slice(&TPM2_ALG_SHA256.to_be_bytes());
        selection.extend_from_slice(&[3, one, two, three]);
        next(&START, TPM2_CC_PolicyPCR, &[&selection, &sha256(&values)])
    }
}

impl fmt::Display for PcrState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter();
        let shown: Vec<String> = shown
            .map(|(register, value)| format!("{register}={}", super::token::hex(value)))
            .collect();
        f.write_str(&shown.join(","))
    }
}

/// Registers as TPMS_PCR_SELECTION has them.
pub(super) fn bits(pcrs: &Pcrs) -> [u8; 3] {
    let mut bits = [0; 3];
    for register in pcrs.registers() {
        if let Some(byte) = bits.get_mut(usize::from(register / 8)) {
            *byte |= 1_u8 << (register % 8);
        }
    }
    bits
}

fn digest_of(text: &str) -> Option<Digest> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != 32 {
        return None;
    }
    let mut digest = [0; 32];
    for (place, [high, low]) in digest.iter_mut().zip(pairs) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *place = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    }
    Some(digest)
}

/// Which states the keys may be used in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Approved {
    /// Whatever was booted: until the next `token reseal`.
    Any,
    /// One to eight.
    States(Vec<PcrState>),
}

impl Approved {
    /// # Errors
    /// [`Error::Misconfigured`] for none, or too many.
    pub(super) fn states(states: Vec<PcrState>) -> Result<Self> {
        match (1..=MOST).contains(&states.len()) {
            true => Ok(Self::States(states)),
            false => Err(Error::Misconfigured(format!(
                "{} states of PCRs: a TPM approves one to {MOST} at once, the present one among them",
                states.len()
            ))),
        }
    }

    /// The branches of TPM2_PolicyOR: one alone stands twice.
    pub(super) fn branches(&self) -> Vec<Digest> {
        let Self::States(states) = self else {
            return Vec::new();
        };
        let mut branches: Vec<Digest> = states.iter().map(PcrState::policy).collect();
        if let [only] = branches.as_slice() {
            branches.push(*only);
        }
        branches
    }

    /// The policy digest that the NV index holds; that of a session where nothing was asked is zeros.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Any => START,
            Self::States(_) => {
                let branches = self.branches();
                let parts: Vec<&[u8]> = branches.iter().map(<[u8; 32]>::as_slice).collect();
                next(&START, TPM2_CC_PolicyOR, &parts)
            }
        }
    }

    /// One line for each state, below a first one.
    pub(super) fn encode(&self) -> String {
        let lines = match self {
            Self::Any => vec![ANY.to_owned()],
            Self::States(states) => states.iter().map(PcrState::to_string).collect(),
        };
        format!("{MAGIC}\n{}\n", lines.join("\n"))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let lines = text
            .strip_prefix(MAGIC)?
            .strip_prefix('\n')?
            .strip_suffix('\n')?;
        if lines == ANY {
            return Some(Self::Any);
        }
        let states = lines.split('\n').map(PcrState::parse);
        Self::states(states.collect::<Result<Vec<_>>>().ok()?).ok()
    }
}

/// The policy digest of a session that has just begun.
const START: Digest = [0; 32];

/// What a command makes of a session's policy digest.
fn next(before: &Digest, command: u32, arguments: &[&[u8]]) -> Digest {
    let code = command.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![before, &code];
    parts.extend_from_slice(arguments);
    sha256(&parts)
}

/// Policies that name no state: the state is in the NV index that they name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policies {
    /// Of a root: the state, and its authorization.
    pub(super) root: Digest,
    /// Of a signing key: for TPM2_Sign and nothing else, above all not for TPM2_Duplicate.
    pub(super) pair: Digest,
    /// Of the NV index of the anchors: for TPM2_NV_Extend, above all not for TPM2_NV_ChangeAuth.
    pub(super) anchors: Digest,
    /// Of the attestation key: for TPM2_NV_Certify.
    pub(super) attest: Digest,
}

impl Policies {
    /// With the name that the index has once it is written.
    pub(super) fn by(index: &[u8; 34]) -> Self {
        let state = next(&START, TPM2_CC_PolicyAuthorizeNV, &[index]);
        let root = next(&state, TPM2_CC_PolicyAuthValue, &[]);
        let only = |command: u32| next(&root, TPM2_CC_PolicyCommandCode, &[&command.to_be_bytes()]);
        Self {
            root,
            pair: only(TPM2_CC_Sign),
            anchors: only(TPM2_CC_NV_Extend),
            attest: only(TPM2_CC_NV_Certify),
        }
    }
}

/// What writing the index takes: the authorization of the recovery object, whose name only the TPM
/// that made it can give to another.
pub(super) fn write_policy(recovery: &[u8; 34]) -> Digest {
    // The second step is for a policy reference, which is empty.
    sha256(&[&next(&START, TPM2_CC_PolicySecret, &[recovery])])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = PcrState> {
        let values = prop::collection::btree_map(0_u8..16, any::<Digest>(), 1..6);
        let firmwares = values.prop_filter("one is the firmware's", |values| {
            values.keys().any(|register| FIRMWARES.contains(register))
        });
        firmwares.prop_map(PcrState)
    }

    proptest! {
        #[test]
        fn what_is_approved_has_one_encoding(states in prop::collection::vec(state(), 1..=8)) {
            let approved = Approved::states(states).unwrap();
            prop_assert_eq!(Approved::decode(approved.encode().as_bytes()), Some(approved));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = [MAGIC.as_bytes(), b"\n", &bytes].concat();
            for bytes in [bytes, text] {
                if let Some(approved) = Approved::decode(&bytes) {
                    prop_assert_eq!(Approved::decode(approved.encode().as_bytes()), Some(approved));
                }
            }
        }

        #[test]
        fn any_text_is_a_state_or_refused(text in ".{0,80}", near in "([0-9]{1,3}=[0-9a-f]{64},?){1,3}") {
            for text in [text, near] {
                if let Ok(state) = PcrState::parse(&text) {
                    prop_assert_eq!(PcrState::parse(&state.to_string()), Ok(state));
                }
                let _ = Pcrs::parse(&text);
            }
        }

        #[test]
        fn another_state_has_another_digest(one in state(), other in state()) {
            let digest = |states: &[&PcrState]| {
                Approved::states(states.iter().map(|state| (*state).clone()).collect()).unwrap().digest()
            };
            prop_assert_eq!(digest(&[&one]) == digest(&[&other]), one == other);
            prop_assert_ne!(digest(&[&one, &other]), digest(&[&one, &other, &one]));
            prop_assert_eq!(one.differing(&other).is_empty() && other.differing(&one).is_empty(), one == other);
        }
    }

    #[test]
    fn registers_that_say_nothing_are_refused() {
        for bad in ["", "a", "7,", "24", "16", "23", "-1", "7;8", "0x7"] {
            assert!(Pcrs::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Pcrs::parse("7, 0,7").unwrap().to_string(), "0,7");
        assert_eq!(bits(&Pcrs::parse("0,7,9,22").unwrap()), [0x81, 0x02, 0x40]);
        let hex = "ab".repeat(32);
        assert!(PcrState::parse(&format!("7={hex}")).is_ok());
        for bad in [
            format!("7={hex},7={hex}"),
            format!("16={hex}"),
            format!("7={hex}0"),
            "7=".into(),
        ] {
            assert!(PcrState::parse(&bad).is_err(), "{bad}");
        }
    }
}
