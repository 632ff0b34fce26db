//! Keys that are bound to what was booted: which boot may use them, the ways back, and who has none.
//! Another program extends a register, as firmware and boot loaders do.

use std::{fs, process::Command};

use aws_lc_rs::digest;
use custodyd_hsm::{
    Backend as _, KeyOrigin, RootKeys, SecretBytes,
    backend::tpm::{Mode, Options, PcrState, Pcrs, Reseal, TpmBackend},
    root_keys::differing,
};
use custodyd_tests::tpm::SwTpm;

use super::{
    PerOperation, PerStart, Tpm,
    cases::{backend, misconfigured},
    handle,
};
use crate::{
    rig::Store as _,
    suite::{BIND, MAC, WRAP},
};

const RECOVERY: &[u8] = b"a recovery key of sixty-four digits, that nobody has but the custodian";
const EVENT: [u8; 32] = [7; 32];
/// The NV index of the policy, after FORMAT.md, section 10.
const INDEX: &str = "0x18181ff";

/// A TPM whose keys are bound to PCR 7.
pub(super) struct Bound(pub(super) SwTpm, Mode);

impl Bound {
    pub(super) fn new(mode: Mode) -> Self {
        let bound = Self(SwTpm::blank(), mode);
        let options = Options {
            storage_key: None,
            ..bound.with_recovery(RECOVERY)
        };
        let (report, name) = backend(options).provision_storage(false).unwrap();
        assert_eq!(report.created.len(), 9, "{report:?}");
        bound.keep(&name.unwrap());
        bound
    }

    fn keep(&self, name: &str) {
        fs::write(self.0.dir().join("storage-key"), name).unwrap();
    }

    pub(super) fn options(&self) -> Options {
        Options {
            pcrs: Some(Pcrs::parse("7").unwrap()),
            ..self.0.options(self.1)
        }
    }

    fn with_recovery(&self, key: &[u8]) -> Options {
        Options {
            recovery_key: Some(SecretBytes::from(key.to_vec())),
            ..self.options()
        }
    }

    pub(super) fn backend(&self) -> TpmBackend {
        backend(self.options())
    }

    fn opens(&self) {
        self.backend().open().unwrap().probe().unwrap();
    }

    #[track_caller]
    pub(super) fn is_refused(&self, texts: &[&str]) {
        misconfigured(self.backend().open(), texts);
    }

    pub(super) fn reseal(&self, wanted: &Reseal) -> custodyd_hsm::Result<Vec<String>> {
        backend(self.with_recovery(RECOVERY)).reseal(wanted, false)
    }

    pub(super) fn reboot(&self) {
        self.0.power_off();
        self.0.power_on();
    }
}

pub(super) fn extend(tpm: &SwTpm, register: u8) {
    let event = format!("{register}:sha256={}", hex::encode(EVENT));
    tpm.tool("tpm2_pcrextend", &[&event]);
}

/// PCR 7 after the event of [`extend`].
fn after() -> String {
    let bytes = [[0; 32], EVENT].concat();
    hex::encode(digest::digest(&digest::SHA256, &bytes))
}

/// Whether another program uses a key with the right authorization.
fn another_unseals(tpm: &SwTpm) -> bool {
    let auth = tpm.auth(&WRAP.label());
    let output = Command::new("tpm2_unseal")
        .args(["-c", &handle(WRAP), "-p", &auth])
        .env("TPM2TOOLS_TCTI", tpm.tcti())
        .output()
        .unwrap();
    tpm.flush();
    output.status.success()
}

/// Another program that knows secret and policy, and names no state.
fn asked_directly(tpm: &SwTpm) -> (bool, String) {
    let script = format!(
        "tpm2_startauthsession --policy-session -S session && tpm2_policyauthorizenv -S session -C {INDEX} {INDEX} && \
         tpm2_policyauthvalue -S session && tpm2_unseal -c {} -p session:session+{}",
        handle(WRAP),
        tpm.auth(&WRAP.label())
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("TPM2TOOLS_TCTI", tpm.tcti())
        .current_dir(tpm.dir())
        .output()
        .unwrap();
    tpm.flush();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

pub(crate) fn only_the_approved_boot_uses_the_keys(rig: &PerStart) {
    refused_and_back(rig, Mode::PerStart);
}

pub(crate) fn only_the_approved_boot_computes_in_the_tpm(rig: &PerOperation) {
    refused_and_back(rig, Mode::PerOperation);
}

fn refused_and_back<const PER_OPERATION: bool>(rig: &Tpm<PER_OPERATION>, mode: Mode) {
    let bound = Bound::new(mode);
    let running = bound.backend();
    let mut custody = running.open().unwrap();
    let signed = custody.sign(BIND, &[1; 32]).unwrap();
    let tag = *custody.mac(MAC, &[5; 3000]).unwrap().expose();
    // A register that nobody asked for, between a policy and the next.
    extend(&bound.0, 10);
    custody.probe().unwrap();
    let public = custody.public_key(BIND).unwrap();
    assert_ne!(custody.sign(BIND, &[1; 32]).unwrap(), signed);
    extend(&bound.0, 7);
    assert!(custody.sign(BIND, &[1; 32]).is_err());
    let told = |outcome| misconfigured(outcome, &["PCR 7 is", &after(), "token reseal"]);
    let again = std::cell::RefCell::new(custody);
    crate::suite::until(|| {
        let error = again.borrow_mut().sign(BIND, &[1; 32]).unwrap_err();
        !error.is_retryable()
    });
    told(again.borrow_mut().sign(BIND, &[1; 32]).map(|_| ()));
    drop((again, running));
    told(bound.backend().open().map(|_| ()));
    told(bound.backend().provision(false).map(|_| ()));
    // What is there can still be looked at.
    let seen = bound.backend().inspect().unwrap();
    assert!(seen.iter().all(|key| key.first_bad().is_none()), "{seen:?}");
    // The way back, for whoever has the recovery key.
    let missing = bound.backend().reseal(&Reseal::Now(Vec::new()), false);
    misconfigured(missing, &["--recovery-key"]);
    let other = backend(bound.with_recovery(&[b'x'; 64])).reseal(&Reseal::Any, false);
    misconfigured(other, &["not the recovery key"]);
    bound.is_refused(&["PCR 7"]);
    let approved = bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    assert_eq!(approved, [format!("7={}", after())]);
    let backend = bound.backend();
    let mut custody = backend.open().unwrap();
    custody.probe().unwrap();
    assert_eq!(custody.public_key(BIND).unwrap(), public);
    assert_eq!(*custody.mac(MAC, &[5; 3000]).unwrap().expose(), tag);
    // The control: without a policy nothing of it matters.
    extend(&rig.0, 7);
    rig.backend().open().unwrap().probe().unwrap();
}

pub(crate) fn the_secret_alone_opens_nothing_in_another_boot(rig: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    for registers in [7, 10] {
        extend(&bound.0, registers);
        // Not even in the approved one: the authorization is half of it.
        assert!(!another_unseals(&bound.0));
    }
    // The control: this is how it is done.
    assert!(another_unseals(&rig.0));
}

pub(crate) fn keys_are_bound_to_nobody_elses_recovery_key(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let again = |key: &[u8]| backend(bound.with_recovery(key)).provision(false);
    // Repeated with a new key, as by somebody who has removed the file: it would be kept for the true one.
    misconfigured(again(&[b'x'; 64]), &["not the recovery key"]);
    assert!(again(RECOVERY).unwrap().created.is_empty());
    // Recovery object and index were there before the keys: whose are they?
    let output = Command::new("tpm2_evictcontrol")
        .args(["-C", "o", "-c", &handle(WRAP)])
        .env("TPM2TOOLS_TCTI", bound.0.tcti())
        .output()
        .unwrap();
    assert!(output.status.success());
    bound.0.flush();
    misconfigured(again(&[b'x'; 64]), &["not the recovery key"]);
    misconfigured(
        bound.backend().provision(false),
        &["--recovery-key", "nobody else's"],
    );
    // Control.
    assert_eq!(again(RECOVERY).unwrap().created, [WRAP.label()]);
    bound.opens();
}

pub(crate) fn what_was_approved_before_is_not_any_more(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let file = bound.0.anchors().join("pcrs");
    let older = fs::read(&file).unwrap();
    extend(&bound.0, 7);
    bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    bound.opens();
    // The older firmware is started again, and the older file put back.
    bound.reboot();
    bound.is_refused(&["PCR 7 is 0000", &after()]);
    fs::write(&file, older).unwrap();
    bound.is_refused(&["pcrs does not say", "token reseal"]);
    fs::write(&file, b"rubbish").unwrap();
    bound.is_refused(&["pcrs does not say"]);
    fs::remove_file(&file).unwrap();
    bound.is_refused(&["pcrs does not say"]);
    // A dry run shows, and changes nothing.
    let dry = bound.backend().reseal(&Reseal::Now(Vec::new()), true);
    assert_eq!(dry.unwrap(), [format!("7={}", "00".repeat(32))]);
    bound.is_refused(&["pcrs does not say"]);
    bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    bound.opens();
}

pub(crate) fn an_announced_boot_is_approved_beside_the_present_one(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let other = PcrState::parse(&format!("4={}", after())).unwrap();
    let refused = bound.reseal(&Reseal::Now(vec![other]));
    misconfigured(refused, &["other PCRs", "nothing was changed"]);
    let announced = PcrState::parse(&format!("7={}", after())).unwrap();
    let approved = bound.reseal(&Reseal::Now(vec![announced])).unwrap();
    assert_eq!(approved.len(), 2);
    bound.opens();
    extend(&bound.0, 7);
    bound.opens();
    extend(&bound.0, 7);
    bound.is_refused(&["PCR 7"]);
    bound.reboot();
    bound.opens();
    // Arrived: the present one alone.
    extend(&bound.0, 7);
    bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    bound.reboot();
    bound.is_refused(&["PCR 7"]);
}

pub(crate) fn any_boot_is_approved_until_the_next_reseal(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    bound.reseal(&Reseal::Any).unwrap();
    extend(&bound.0, 7);
    bound.opens();
    let warned = |key: &custodyd_hsm::KeyReport| {
        let last = key.attributes.last();
        last.is_some_and(|(name, value, _)| (*name, value.as_str()) == ("approved", "any"))
    };
    assert!(bound.backend().inspect().unwrap().iter().all(warned));
    // The secret is still needed, and through the policy.
    assert!(!another_unseals(&bound.0));
    bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    assert!(!bound.backend().inspect().unwrap().iter().any(warned));
    extend(&bound.0, 7);
    bound.is_refused(&["PCR 7"]);
}

/// Whoever boots something else and knows the owner's password, which is often empty.
pub(crate) fn an_index_made_anew_approves_nothing(_: &PerStart) {
    let bound = Bound::new(Mode::PerStart);
    let tool = |name, arguments: &[&str]| bound.0.tool(name, arguments);
    let public = tool("tpm2_nvreadpublic", &[INDEX]);
    let policy = public.split("authorization policy: ").nth(1).unwrap();
    let policy = policy.split_whitespace().next().unwrap().to_owned();
    fs::write(bound.0.dir().join("policy"), hex::decode(&policy).unwrap()).unwrap();
    let define = |attributes: &str| {
        let index = [
            "-C", "o", "-s", "34", "-a", attributes, "-L", "policy", INDEX,
        ];
        tool("tpm2_nvdefine", &index);
    };
    // The control: this is how a key is asked where everything is approved.
    bound.reseal(&Reseal::Any).unwrap();
    let (opened, said) = asked_directly(&bound.0);
    assert!(opened, "{said}");
    bound.reseal(&Reseal::Now(Vec::new())).unwrap();
    assert!(!asked_directly(&bound.0).0);
    extend(&bound.0, 7);
    tool("tpm2_nvundefine", &["-C", "o", INDEX]);
    bound.is_refused(&["removed it", "--recovery-key"]);
    define("policywrite|authread|no_da");
    bound.is_refused(&["never written"]);
    // The same index is written by nobody without the recovery key, and one that is has another name.
    fs::write(
        bound.0.dir().join("approved"),
        [&[0, 0x0b][..], &[0; 32]].concat(),
    )
    .unwrap();
    let write = |more: &[&str]| {
        let output = Command::new("tpm2_nvwrite")
            .args(["-i", "approved", INDEX])
            .args(more)
            .env("TPM2TOOLS_TCTI", bound.0.tcti())
            .current_dir(bound.0.dir())
            .output()
            .unwrap();
        bound.0.flush();
        output.status.success()
    };
    assert!(!write(&["-C", INDEX]) && !write(&["-C", "o"]));
    tool("tpm2_nvundefine", &["-C", "o", INDEX]);
    define("policywrite|authread|no_da|ownerwrite");
    assert!(write(&["-C", "o"]));
    bound.is_refused(&["not the one"]);
    // Nor does the TPM believe it: the key's policy is asked directly.
    let (opened, said) = asked_directly(&bound.0);
    assert!(!opened && said.contains("policy check failed"), "{said}");
    // With the recovery key the right one comes back.
    tool("tpm2_nvundefine", &["-C", "o", INDEX]);
    misconfigured(bound.backend().provision(false), &["--recovery-key"]);
    let made = backend(bound.with_recovery(RECOVERY))
        .provision(false)
        .unwrap();
    assert_eq!(
        made.created,
        [format!("NV index 0x0{} of the PCRs 7", &INDEX[2..])]
    );
    bound.opens();
}

pub(crate) fn keys_are_bound_when_they_are_made_or_never(rig: &PerStart) {
    // Made without: not bound afterwards.
    let wanted = || Options {
        pcrs: Some(Pcrs::parse("7").unwrap()),
        recovery_key: Some(SecretBytes::from(RECOVERY.to_vec())),
        ..rig.options()
    };
    misconfigured(backend(wanted()).open(), &["made without it"]);
    misconfigured(backend(wanted()).provision(false), &["made without it"]);
    rig.backend().open().unwrap().probe().unwrap();
    // Made with: not used without.
    let bound = Bound::new(Mode::PerStart);
    let without = || Options {
        pcrs: None,
        ..bound.options()
    };
    misconfigured(backend(without()).open(), &["token.pcrs is not set"]);
    misconfigured(
        backend(without()).provision(false),
        &["token.pcrs is not set"],
    );
    // Other registers than those that are approved.
    let more = || Options {
        pcrs: Some(Pcrs::parse("0,7").unwrap()),
        ..bound.with_recovery(RECOVERY)
    };
    misconfigured(
        backend(more()).open(),
        &["token.pcrs is 0,7", "token reseal"],
    );
    assert_eq!(
        backend(more())
            .reseal(&Reseal::Now(Vec::new()), false)
            .unwrap()
            .len(),
        1
    );
    backend(more()).open().unwrap().probe().unwrap();
    // A newer key is bound as well.
    let backend = backend(more());
    let mut custody = backend.open().unwrap();
    let newer = custodyd_hsm::KeyId::new(WRAP.purpose, 2);
    custody.make_key(newer).unwrap();
    custody.derive(newer, b"label", &[1; 32]).unwrap();
    extend(&bound.0, 0);
    assert!(custody.probe().is_err());
}

pub(crate) fn keys_of_an_escrow_are_bound_and_do_not_come_out(_: &PerStart) {
    let bound = Bound(SwTpm::blank(), Mode::PerStart);
    let options = || Options {
        origin: KeyOrigin::Imported,
        ..bound.with_recovery(RECOVERY)
    };
    let keys = RootKeys::make(&backend(options()).entropy().unwrap()).unwrap();
    let first = Options {
        storage_key: None,
        ..options()
    };
    let imported = backend(first).import(&keys, false).unwrap();
    bound.keep(&imported.storage_key.unwrap());
    let backend = backend(options());
    let mut custody = backend.open().unwrap();
    assert_eq!(differing(&mut *custody, &keys.checks()).unwrap(), None);
    extend(&bound.0, 7);
    assert!(custody.sign(BIND, &[1; 32]).is_err());
    drop((custody, backend));
    // By the recovery key's owner, who approves every boot: still for signatures alone.
    self::backend(options())
        .reseal(&Reseal::Any, false)
        .unwrap();
    let duplicate = |code: &str| {
        let script = format!(
            "tpm2_startauthsession --policy-session -S session && tpm2_policyauthorizenv -S session -C {INDEX} {INDEX} && \
             tpm2_policyauthvalue -S session && tpm2_policycommandcode -S session {code} && \
             tpm2_duplicate -C null -c {} -p session:session+{} -G null -r dup -s seed -u u",
            handle(BIND),
            bound.0.auth(&BIND.label())
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("TPM2TOOLS_TCTI", bound.0.tcti())
            .current_dir(bound.0.dir())
            .output()
            .unwrap();
        bound.0.flush();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("policy"),
            "{said}"
        );
        assert!(!bound.0.dir().join("dup").exists());
    };
    duplicate("TPM2_CC_Sign");
    duplicate("TPM2_CC_Duplicate");
}
