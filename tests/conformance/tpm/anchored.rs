//! Anchors, evidence and files of a TPM whose keys are bound to what was booted: what root of another boot can do to
//! them, with the secret at hand. Another program does it, after the specification and FORMAT.md.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    process::Command,
};

use custodyd_hsm::{
    Advanced, Anchor, Backend as _, Custody, RealmName,
    anchor::{advance, newest},
    backend::tpm::{Mode, Reseal, verify},
};
use custodyd_tests::tpm::SwTpm;

use super::{
    PerStart,
    booted::{Bound, extend as boot_otherwise},
    cases::misconfigured,
    extend, handle, nv_value, rewrite, written,
};
use crate::{rig::Store as _, suite::WRAP};

/// The NV indices after FORMAT.md, section 10: of the anchors, and of the approved boots.
const ANCHORS: &str = "0x1818100";
const BOOTS: &str = "0x18181ff";
const LABEL: &str = "custodyd-anchor-v1";
const NONCE: [u8; 32] = [0x5A; 32];

fn realm() -> RealmName {
    RealmName::parse("realm").unwrap()
}

fn anchor(serial: u64) -> Anchor {
    Anchor {
        serial,
        log_epoch: 1,
        seq: serial,
        head: [1; 32],
        boot_epoch: 1,
        clean: false,
        dirty: false,
    }
}

fn advance_to(custody: &mut dyn Custody, serial: u64) -> Advanced {
    let from = (serial > 1).then(|| anchor(serial - 1));
    advance(custody, &realm(), from.as_ref(), &anchor(serial)).unwrap()
}

/// Runs these commands, with what they need of the environment; whether all of them were done, and what they said.
fn script(tpm: &SwTpm, commands: &[&str]) -> (bool, String) {
    let output = Command::new("sh")
        .args(["-c", &commands.join(" && ")])
        .env("TPM2TOOLS_TCTI", tpm.tcti())
        .current_dir(tpm.dir())
        .output()
        .unwrap();
    tpm.flush();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

/// A session that shows the registers and what is approved of them, for one state: one branch that stands twice.
const STATE: [&str; 5] = [
    "tpm2_startauthsession -S trial",
    "tpm2_policypcr -S trial -l sha256:7 -L branch && tpm2_flushcontext trial",
    "tpm2_startauthsession --policy-session -S session",
    "tpm2_policypcr -S session -l sha256:7",
    "tpm2_policyor -S session sha256:kept,kept",
];

/// The branch of the boot of now, kept for later: it follows from nothing secret.
fn keep_branch(tpm: &SwTpm) {
    let (kept, said) = script(tpm, &STATE[..2]);
    assert!(kept, "{said}");
    fs::copy(tpm.dir().join("branch"), tpm.dir().join("kept")).unwrap();
}

/// Extends the index of the anchors with everything that root of this boot has: secret, policy and tools.
fn extended_by_policy(tpm: &SwTpm, by: &[u8]) -> (bool, String) {
    fs::write(tpm.dir().join("by"), by).unwrap();
    let boots = format!("tpm2_policyauthorizenv -S session -C {BOOTS} {BOOTS}");
    let extend = format!(
        "tpm2_nvextend -C {ANCHORS} -P session:session+{} -i by {ANCHORS}",
        tpm.auth(LABEL)
    );
    let more = [
        boots.as_str(),
        "tpm2_policyauthvalue -S session",
        "tpm2_policycommandcode -S session TPM2_CC_NV_Extend",
        extend.as_str(),
    ];
    script(tpm, &[&STATE[2..], &more].concat())
}

fn extended_by_secret(tpm: &SwTpm, by: &[u8]) -> bool {
    fs::write(tpm.dir().join("by"), by).unwrap();
    let extend = format!(
        "tpm2_nvextend -C {ANCHORS} -P {} -i by {ANCHORS}",
        tpm.auth(LABEL)
    );
    let by_owner = format!("tpm2_nvextend -C o -i by {ANCHORS}");
    script(tpm, &[&extend]).0 || script(tpm, &[&by_owner]).0
}

/// The attack: with the secret, in a boot of their own, somebody makes an older anchor the newest again.
pub(crate) fn anchors_are_written_in_the_approved_boot_alone(rig: &PerStart) {
    let told = |custody: &mut dyn Custody| {
        assert_eq!(advance_to(custody, 1), Advanced::Anchored);
        let older = custody.anchors().unwrap().remove(0).content;
        assert_eq!(advance_to(custody, 2), Advanced::Anchored);
        older
    };
    // The control: without a policy it comes to pass.
    let older = told(&mut *rig.backend().open().unwrap());
    boot_otherwise(&rig.0, 7);
    rewrite(&rig.0, |objects, id| *objects = vec![(id, older)]);
    let now = newest(&mut *rig.backend().open().unwrap(), &realm());
    assert_eq!(now, Ok(Some(anchor(1))));

    let bound = Bound::new(Mode::PerStart);
    keep_branch(&bound.0);
    let older = told(&mut *bound.backend().open().unwrap());
    let records = bound.0.dir().join("records");
    let anchors = bound.0.anchors();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let _ = fs::remove_dir_all(to);
        fs::create_dir(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(&anchors, &records);
    let value = nv_value(&bound.0);
    boot_otherwise(&bound.0, 7);
    let digest = written(&bound.0, |objects, id| *objects = vec![(id, older)]);
    assert!(!extended_by_secret(&bound.0, &digest));
    let (done, said) = extended_by_policy(&bound.0, &digest);
    assert!(!done && said.contains("policy"), "{said}");
    assert_eq!(nv_value(&bound.0), value);
    // Nor does the secret alone do it in the approved boot, where the policy does: that is the host itself.
    bound.reboot();
    assert!(!extended_by_secret(&bound.0, &digest));
    assert_eq!(nv_value(&bound.0), value);
    copy(&records, &anchors);
    let now = newest(&mut *bound.backend().open().unwrap(), &realm());
    assert_eq!(now, Ok(Some(anchor(2))));
    let (done, said) = extended_by_policy(&bound.0, &digest);
    assert!(done, "{said}");
    assert_ne!(nv_value(&bound.0), value);
}

/// With the owner's password, which is often empty: an index that anybody extends takes the place of the bound one.
pub(crate) fn an_index_that_is_not_bound_is_refused(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let auth = bound.0.auth(LABEL);
    let put = |attributes: &str, more: &[&str]| {
        bound.0.tool("tpm2_nvundefine", &["-C", "o", ANCHORS]);
        let usual = [
            "-C", "o", "-s", "32", "-p", &auth, "-a", attributes, ANCHORS,
        ];
        bound.0.tool("tpm2_nvdefine", &[&usual[..], more].concat());
    };
    put("authread|authwrite|no_da|nt=extend", &[]);
    extend(&bound.0, &[7; 32]);
    bound.is_refused(&["not bound to what was booted", "docs/TPM.md"]);
    misconfigured(bound.backend().provision(false), &["not bound"]);
    // Nor one whose policy anybody satisfies.
    fs::write(bound.0.dir().join("policy"), [0; 32]).unwrap();
    put("authread|policywrite|no_da|nt=extend", &["-L", "policy"]);
    bound.is_refused(&["not one of custodyd's"]);
}

/// TPM2_PolicyPCR itself: the same session opens a key before the register moves, and not after.
pub(crate) fn registers_are_looked_at_when_a_key_is_used(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    keep_branch(&bound.0);
    let boots = format!("tpm2_policyauthorizenv -S session -C {BOOTS} {BOOTS}");
    let unseal = format!(
        "tpm2_unseal -c {} -p session:session+{}",
        handle(WRAP),
        bound.0.auth(&WRAP.label())
    );
    let value = "tpm2_policyauthvalue -S session";
    let last = [boots.as_str(), value, unseal.as_str()];
    // The control.
    let (opened, said) = script(&bound.0, &[&STATE[2..], &last].concat());
    assert!(opened, "{said}");
    // The register moves between the policy and the use of the key.
    let event = format!("tpm2_pcrextend 7:sha256={}", "07".repeat(32));
    let moved = [boots.as_str(), value, event.as_str(), unseal.as_str()];
    let (opened, said) = script(&bound.0, &[&STATE[2..], &moved].concat());
    assert!(!opened && said.contains("PCR have changed"), "{said}");
    let (opened, said) = script(&bound.0, &[&STATE[2..], &last].concat());
    assert!(!opened && said.contains("policyor"), "{said}");
    // A register that was not asked for does not matter, and the approved boot does again.
    bound.reboot();
    boot_otherwise(&bound.0, 10);
    let (opened, said) = script(&bound.0, &[&STATE[2..], &last].concat());
    assert!(opened, "{said}");
}

/// What root of another boot can not sign: the attestation key has the policy of the others, and its name says so.
pub(crate) fn evidence_is_made_in_the_approved_boot_alone(rig: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let backend = bound.backend();
    let mut custody = backend.open().unwrap();
    assert_eq!(advance_to(&mut *custody, 1), Advanced::Anchored);
    let evidence = custody.certify_anchors(&NONCE).unwrap();
    let attested = verify(&evidence, &NONCE).unwrap();
    assert!(attested.bound && attested.storage_key == bound.0.storage_key());
    assert_eq!(attested.value.to_vec(), nv_value(&bound.0));
    // The names follow from the index of the approved boots, and from no other one.
    let public = bound.0.tool("tpm2_nvreadpublic", &[BOOTS]);
    assert!(public.contains(&hex::encode(&evidence.boots)), "{public}");
    for changed in [
        Vec::new(),
        [&evidence.boots[..33], &[evidence.boots[33] ^ 1]].concat(),
    ] {
        let mut other = evidence.clone();
        other.boots = changed;
        let why = verify(&other, &NONCE).unwrap_err().to_string();
        assert!(why.contains("no attestation key"), "{why}");
    }
    let mut cut = evidence.clone();
    cut.boots.pop();
    let why = verify(&cut, &NONCE).unwrap_err().to_string();
    assert!(why.contains("no name"), "{why}");
    boot_otherwise(&bound.0, 7);
    assert!(custody.certify_anchors(&NONCE).is_err());
    drop((custody, backend));
    // The control: a key that is not bound signs in every boot, and says that it is not.
    let free = rig.backend();
    let mut custody = free.open().unwrap();
    assert_eq!(advance_to(&mut *custody, 1), Advanced::Anchored);
    boot_otherwise(&rig.0, 7);
    let unbound = custody.certify_anchors(&NONCE).unwrap();
    assert!(!verify(&unbound, &NONCE).unwrap().bound);
    // It is not taken for one that is.
    let mut passed_off = unbound;
    passed_off.boots.clone_from(&evidence.boots);
    assert!(verify(&passed_off, &NONCE).is_err());
}

/// Root approves a boot and has evidence made while the daemon, which has a user of its own, is stopped.
pub(crate) fn what_root_leaves_is_the_daemons(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let anchors = bound.0.anchors();
    let own = fs::metadata(&anchors).unwrap().uid();
    // Without root nobody gives anything away, and there is one user only.
    let daemon = match own {
        0 => 4711,
        own => own,
    };
    let each = || {
        let files = fs::read_dir(&anchors).unwrap();
        files.map(|file| file.unwrap().path())
    };
    for path in each().chain([anchors.clone()]) {
        chown(path, Some(daemon), Some(daemon)).unwrap();
    }
    bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    let backend = bound.backend();
    let mut custody = backend.open().unwrap();
    assert_eq!(advance_to(&mut *custody, 1), Advanced::Anchored);
    custody.certify_anchors(&NONCE).unwrap();
    let names: Vec<_> = each()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    for name in ["pcrs", "attestation-key", "lock"] {
        assert!(names.iter().any(|there| there == name), "{names:?}");
    }
    for path in each() {
        let file = fs::metadata(&path).unwrap();
        let is = (file.uid(), file.mode() & 0o777);
        assert_eq!(is, (daemon, 0o600), "{}", path.display());
    }
}
