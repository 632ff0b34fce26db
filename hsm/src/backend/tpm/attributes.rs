//! What the public area of an object must be: for keys that are made, and the verdict on those
//! that are found.
//!
//! Called by `keys` and `provision`. A key that could be duplicated out of the TPM, that
//! another parent could hold, that answers to a policy nobody here wrote, or that can do more than
//! its purpose needs is refused.

use tss_esapi::{
    constants::tss::{
        TPM2_ALG_AES, TPM2_ALG_CFB, TPM2_ALG_ECC, TPM2_ALG_ECDSA, TPM2_ALG_HMAC,
        TPM2_ALG_KEYEDHASH, TPM2_ALG_NULL, TPM2_ALG_SHA256, TPM2_ECC_NIST_P256,
        TPMA_OBJECT_ADMINWITHPOLICY, TPMA_OBJECT_DECRYPT, TPMA_OBJECT_ENCRYPTEDDUPLICATION,
        TPMA_OBJECT_FIXEDPARENT, TPMA_OBJECT_FIXEDTPM, TPMA_OBJECT_NODA, TPMA_OBJECT_RESTRICTED,
        TPMA_OBJECT_SENSITIVEDATAORIGIN, TPMA_OBJECT_SIGN_ENCRYPT, TPMA_OBJECT_STCLEAR,
        TPMA_OBJECT_USERWITHAUTH,
    },
    structures::Public,
    tss2_esys::{
        TPM2B_PUBLIC, TPMS_ECC_PARMS, TPMS_KEYEDHASH_PARMS, TPMS_SCHEME_HASH, TPMT_ECC_SCHEME,
        TPMT_KDF_SCHEME, TPMT_KEYEDHASH_SCHEME, TPMT_PUBLIC, TPMT_SYM_DEF_OBJECT, TPMU_ASYM_SCHEME,
        TPMU_PUBLIC_PARMS, TPMU_SCHEME_KEYEDHASH, TPMU_SYM_KEY_BITS, TPMU_SYM_MODE,
    },
};

use super::mechanism::right_aligned;
use crate::{public_key::PublicKey, report::Verdict, root_keys::KeyOrigin};

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The parent of all others.
    StorageKey,
    /// 32 bytes that are unsealed at the start.
    Sealed,
    /// A key of 32 bytes that never leaves.
    Hmac,
    /// A P-256 pair.
    Ecdsa,
    /// One that signs nothing but what the TPM says of itself.
    Attest,
}

const KEPT: u32 =
    TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA;

/// The attributes with their names in Part 2 of the specification, section 8.3.
const NAMES: [(u32, &str); 11] = [
    (TPMA_OBJECT_FIXEDTPM, "fixedTPM"),
    (TPMA_OBJECT_FIXEDPARENT, "fixedParent"),
    (TPMA_OBJECT_SENSITIVEDATAORIGIN, "sensitiveDataOrigin"),
    (TPMA_OBJECT_USERWITHAUTH, "userWithAuth"),
    (TPMA_OBJECT_ADMINWITHPOLICY, "adminWithPolicy"),
    (TPMA_OBJECT_NODA, "noDA"),
    (TPMA_OBJECT_STCLEAR, "stClear"),
    (TPMA_OBJECT_ENCRYPTEDDUPLICATION, "encryptedDuplication"),
    (TPMA_OBJECT_RESTRICTED, "restricted"),
    (TPMA_OBJECT_DECRYPT, "decrypt"),
    (TPMA_OBJECT_SIGN_ENCRYPT, "sign"),
];

impl Form {
    pub(super) fn attributes(self, origin: KeyOrigin) -> u32 {
        match (self, origin) {
            // The TPM did not make what is secret in it.
            (Self::Hmac, KeyOrigin::Imported) => KEPT | TPMA_OBJECT_SIGN_ENCRYPT,
            // Nor is it bound to this TPM by more than its lack of a policy: TPM2_Import wants it so.
            (Self::Ecdsa, KeyOrigin::Imported) => {
                TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT
            }
            (form, _) => form.made(),
        }
    }

    fn made(self) -> u32 {
        match self {
            Self::StorageKey => {
                KEPT | TPMA_OBJECT_SENSITIVEDATAORIGIN
                    | TPMA_OBJECT_RESTRICTED
                    | TPMA_OBJECT_DECRYPT
            }
            Self::Sealed => KEPT,
            Self::Hmac | Self::Ecdsa => {
                KEPT | TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_SIGN_ENCRYPT
            }
            Self::Attest => Self::Ecdsa.made() | TPMA_OBJECT_RESTRICTED,
        }
    }

    /// The same with a policy: then the authorization alone does not suffice.
    fn bound(self, origin: KeyOrigin, policy: Option<&[u8; 32]>) -> u32 {
        match policy {
            None => self.attributes(origin),
            Some(_) => self.attributes(origin) & !TPMA_OBJECT_USERWITHAUTH,
        }
    }

    /// For an object that is to be made with a policy, or without one.
    pub(super) fn template_with(
        self,
        origin: KeyOrigin,
        policy: Option<&[u8; 32]>,
    ) -> TPM2B_PUBLIC {
        let mut template = self.template(origin);
        template.publicArea.objectAttributes = self.bound(origin, policy);
        if let Some(policy) = policy {
            let place = &mut template.publicArea.authPolicy;
            place.size = 32;
            let bytes = place.buffer.iter_mut().zip(policy);
            bytes.for_each(|(to, from)| *to = *from);
        }
        template
    }

    /// For an object that is to be made.
    pub(super) fn template(self, origin: KeyOrigin) -> TPM2B_PUBLIC {
        let (type_, parameters) = match self {
            Self::StorageKey => (TPM2_ALG_ECC, ecc(TPM2_ALG_NULL, true)),
            Self::Sealed => (TPM2_ALG_KEYEDHASH, keyed_hash(TPM2_ALG_NULL)),
            Self::Hmac => (TPM2_ALG_KEYEDHASH, keyed_hash(TPM2_ALG_HMAC)),
            Self::Ecdsa | Self::Attest => (TPM2_ALG_ECC, ecc(TPM2_ALG_ECDSA, false)),
        };
        TPM2B_PUBLIC {
            size: 0,
            publicArea: TPMT_PUBLIC {
                type_,
                nameAlg: TPM2_ALG_SHA256,
                objectAttributes: self.attributes(origin),
                parameters,
                ..Default::default()
            },
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::StorageKey => "storage key P-256",
            Self::Sealed => "sealed bytes",
            Self::Hmac => "HMAC-SHA-256",
            Self::Ecdsa | Self::Attest => "ECDSA P-256 with SHA-256",
        }
    }
}

fn ecc(scheme: u16, is_parent: bool) -> TPMU_PUBLIC_PARMS {
    let symmetric = match is_parent {
        true => TPMT_SYM_DEF_OBJECT {
            algorithm: TPM2_ALG_AES,
            keyBits: TPMU_SYM_KEY_BITS { aes: 128 },
            mode: TPMU_SYM_MODE { aes: TPM2_ALG_CFB },
        },
        false => TPMT_SYM_DEF_OBJECT {
            algorithm: TPM2_ALG_NULL,
            ..Default::default()
        },
    };
    TPMU_PUBLIC_PARMS {
        eccDetail: TPMS_ECC_PARMS {
            symmetric,
            scheme: TPMT_ECC_SCHEME {
                scheme,
                details: TPMU_ASYM_SCHEME {
                    anySig: TPMS_SCHEME_HASH {
                        hashAlg: TPM2_ALG_SHA256,
                    },
                },
            },
            curveID: TPM2_ECC_NIST_P256,
            kdf: TPMT_KDF_SCHEME {
                scheme: TPM2_ALG_NULL,
                ..Default::default()
            },
        },
    }
}

fn keyed_hash(scheme: u16) -> TPMU_PUBLIC_PARMS {
    TPMU_PUBLIC_PARMS {
        keyedHashDetail: TPMS_KEYEDHASH_PARMS {
            scheme: TPMT_KEYEDHASH_SCHEME {
                scheme,
                details: TPMU_SCHEME_KEYEDHASH {
                    hmac: TPMS_SCHEME_HASH {
                        hashAlg: TPM2_ALG_SHA256,
                    },
                },
            },
        },
    }
}

/// Name, value as found, verdict.
pub(super) type Judged = Vec<(&'static str, String, Verdict)>;

/// Judges an object that is meant to have this form and policy; with its point, where it has one.
pub(super) fn judge(
    found: &TPM2B_PUBLIC,
    form: Form,
    origin: KeyOrigin,
    policy: Option<&[u8; 32]>,
) -> (Judged, Option<PublicKey>) {
    let area = &found.publicArea;
    let wanted = form.bound(origin, policy);
    let (shown, point) = shape(found);
    let of_other_mode = [Form::Sealed, Form::Hmac].map(Form::shown).contains(&shown)
        && [Form::Sealed, Form::Hmac].contains(&form);
    let why = || match of_other_mode {
        true => format!(
            "expected {}: token.per_operation is not what the key was made with, which cannot be changed",
            form.shown()
        ),
        false => format!("expected {}", form.shown()),
    };
    let mut judged: Judged = vec![(
        "type",
        shown.to_owned(),
        verdict(shown == form.shown(), why),
    )];
    judged.extend(NAMES.iter().map(|(bit, name)| {
        let (is, must) = (area.objectAttributes & bit != 0, wanted & bit != 0);
        let why = || format!("expected {must}");
        (*name, is.to_string(), verdict(is == must, why))
    }));
    judged.push(judged_policy(found, policy));
    (judged, point)
}

fn judged_policy(
    found: &TPM2B_PUBLIC,
    wanted: Option<&[u8; 32]>,
) -> (&'static str, String, Verdict) {
    let area = &found.publicArea;
    let is = area
        .authPolicy
        .buffer
        .get(..usize::from(area.authPolicy.size));
    let good = is == Some(wanted.map_or(&[][..], |policy| policy.as_slice()));
    let shown = match (good, wanted, is) {
        (true, Some(_), _) => "PCRs",
        (_, _, Some([])) => "none",
        _ => "other",
    };
    let good = good && area.nameAlg == TPM2_ALG_SHA256;
    let why = || {
        match wanted {
        None => "expected none, and names by SHA-256. Where the realm's keys are bound to what was booted, token.pcrs \
                 says so"
            .to_owned(),
        Some(_) => "expected the one of token.pcrs: the key was made without it, or beside another recovery object, \
                    which cannot be changed"
            .to_owned(),
    }
    };
    ("authPolicy", shown.to_owned(), verdict(good, why))
}

fn verdict(good: bool, why: impl FnOnce() -> String) -> Verdict {
    match good {
        true => Verdict::Good,
        false => Verdict::Bad(why()),
    }
}

/// Which of our forms the type and the parameters are.
fn shape(found: &TPM2B_PUBLIC) -> (&'static str, Option<PublicKey>) {
    const OTHER: (&str, Option<PublicKey>) = ("other", None);
    let same = |form: Form| same_parameters(found, &form.template(KeyOrigin::Token));
    match Public::try_from(*found) {
        Ok(Public::KeyedHash { .. }) if same(Form::Sealed) => (Form::Sealed.shown(), None),
        Ok(Public::KeyedHash { .. }) if same(Form::Hmac) => (Form::Hmac.shown(), None),
        Ok(Public::Ecc { unique, .. }) => {
            let form = match (same(Form::Ecdsa), same(Form::StorageKey)) {
                (true, _) => Form::Ecdsa,
                (_, true) => Form::StorageKey,
                _ => return OTHER,
            };
            let (x, y) = (
                right_aligned(unique.x().value()),
                right_aligned(unique.y().value()),
            );
            let (Some(x), Some(y)) = (x, y) else {
                return OTHER;
            };
            match PublicKey::from_point(&[&[4], &x[..], &y[..]].concat()) {
                Ok(point) => (form.shown(), Some(point)),
                Err(_) => OTHER,
            }
        }
        _ => OTHER,
    }
}

/// Whether the two differ in nothing but attributes, policy and key.
fn same_parameters(found: &TPM2B_PUBLIC, template: &TPM2B_PUBLIC) -> bool {
    let mut bare = *found;
    bare.publicArea.objectAttributes = template.publicArea.objectAttributes;
    bare.publicArea.authPolicy = template.publicArea.authPolicy;
    bare.publicArea.unique = template.publicArea.unique;
    match (Public::try_from(bare), Public::try_from(*template)) {
        (Ok(found), Ok(template)) => found == template,
        _ => false,
    }
}

/// What is wrong first, as a sentence.
pub(super) fn first_bad(judged: &Judged) -> Option<String> {
    judged
        .iter()
        .find_map(|(name, value, verdict)| match verdict {
            Verdict::Bad(why) => Some(format!("{name} is {value}: {why}")),
            Verdict::Good | Verdict::Warning(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those whose template is whole: a pair's point comes with the pair.
    const FORMS: [Form; 2] = [Form::Sealed, Form::Hmac];

    fn all() -> impl Iterator<Item = (Form, KeyOrigin)> {
        FORMS
            .into_iter()
            .flat_map(|form| [KeyOrigin::Token, KeyOrigin::Imported].map(|origin| (form, origin)))
    }

    #[test]
    fn an_imported_hmac_key_is_no_made_one() {
        let (made, imported) = (KeyOrigin::Token, KeyOrigin::Imported);
        for (is, wanted) in [(made, imported), (imported, made)] {
            let bad = first_bad(&judge(&Form::Hmac.template(is), Form::Hmac, wanted, None).0);
            assert!(bad.unwrap().starts_with("sensitiveDataOrigin"));
        }
    }

    #[test]
    fn what_is_made_is_what_is_accepted() {
        for (form, origin) in all() {
            assert_eq!(
                first_bad(&judge(&form.template(origin), form, origin, None).0),
                None,
                "{form:?}"
            );
        }
    }

    #[test]
    fn a_policy_is_exactly_the_one_that_is_wanted() {
        let (one, other) = ([1; 32], [2; 32]);
        for (form, origin) in all() {
            for is in [None, Some(&one), Some(&other)] {
                for wanted in [None, Some(&one)] {
                    let found = form.template_with(origin, is);
                    let bad = first_bad(&judge(&found, form, origin, wanted).0);
                    assert_eq!(bad.is_none(), is == wanted, "{form:?} {is:?} {wanted:?}");
                }
            }
            // The authorization alone must not suffice beside a policy.
            let mut found = form.template_with(origin, Some(&one));
            found.publicArea.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
            assert!(first_bad(&judge(&found, form, origin, Some(&one)).0).is_some());
        }
    }

    #[test]
    fn each_attribute_that_differs_is_named() {
        for (form, origin) in all() {
            for (bit, name) in NAMES {
                let mut found = form.template(origin);
                found.publicArea.objectAttributes ^= bit;
                let bad = first_bad(&judge(&found, form, origin, None).0).unwrap();
                assert!(bad.starts_with(name), "{bad}");
            }
        }
    }

    #[test]
    fn another_form_or_a_policy_is_refused() {
        let mut found = Form::Sealed.template(KeyOrigin::Token);
        assert!(first_bad(&judge(&found, Form::Hmac, KeyOrigin::Token, None).0).is_some());
        found.publicArea.authPolicy.size = 32;
        assert!(
            first_bad(&judge(&found, Form::Sealed, KeyOrigin::Token, None).0)
                .unwrap()
                .starts_with("authPolicy")
        );
    }
}
