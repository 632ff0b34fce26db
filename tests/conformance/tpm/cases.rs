//! Cases that only a TPM has: its storage key, its NV index, the way to it, and its wear.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use custodyd_hsm::{
    Advanced, Anchor, AnchorFault, Backend, Custody, Error, KeyId, KeyPurpose, RealmName, Result,
    SecretBytes,
    anchor::{advance, newest},
    backend::tpm::{Mode, Options, TpmBackend},
};
use custodyd_tests::tpm::{NV_INDEX, SwTpm};

use super::{
    PerStart,
    bus::{Bus, NV_EXTEND, SIGN, Told},
    extend, handle,
};
use crate::{
    rig::{Rig as _, Store as _},
    suite::{BIND, MAC, WRAP},
};

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

pub(super) fn backend(options: Options) -> TpmBackend {
    TpmBackend::new(options)
}

fn advance_to(custody: &mut dyn Custody, serial: u64) -> Result<Advanced> {
    let from = (serial > 1).then(|| anchor(serial - 1));
    advance(custody, &realm(), from.as_ref(), &anchor(serial))
}

/// Anchors up to this serial in a process's life of its own.
fn anchored(rig: &PerStart, serials: std::ops::RangeInclusive<u64>) {
    let backend = rig.backend();
    let mut custody = backend.open().unwrap();
    for serial in serials {
        assert_eq!(advance_to(&mut *custody, serial), Ok(Advanced::Anchored));
    }
}

fn newest_now(rig: &PerStart) -> Result<Option<Anchor>> {
    newest(&mut *rig.backend().open()?, &realm())
}

#[track_caller]
fn fault_of<T: std::fmt::Debug>(outcome: Result<T>) -> AnchorFault {
    match outcome {
        Err(Error::Anchors { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn misconfigured<T>(outcome: Result<T>, texts: &[&str]) {
    let error = outcome.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    for text in texts {
        assert!(error.to_string().contains(text), "{error}");
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Keeps, or puts back, what is in a folder of the TPM, without power.
struct Copies<'a>(&'a SwTpm);

impl Copies<'_> {
    fn keep(&self, folder: &str, name: &str) {
        self.0.power_off();
        copy(&self.0.dir().join(folder), &self.0.dir().join(name));
        self.0.power_on();
    }

    fn put_back(&self, folder: &str, name: &str) {
        self.0.power_off();
        copy(&self.0.dir().join(name), &self.0.dir().join(folder));
        self.0.power_on();
    }
}

pub(crate) fn a_cleared_tpm_is_refused_with_the_next_step(rig: &PerStart) {
    anchored(rig, 1..=1);
    rig.0.tool("tpm2_clear", &["-c", "p"]);
    misconfigured(
        rig.backend().open(),
        &["cleared", "token provision", "can be opened again"],
    );
    misconfigured(rig.backend().inspect(), &["cleared"]);
    // Neither does provisioning make another realm of it by mistake.
    misconfigured(rig.backend().provision(false), &["token.storage_key pins"]);
    let unpinned = Options {
        storage_key: None,
        ..rig.options()
    };
    misconfigured(
        backend(unpinned).provision(false),
        &["nothing was changed", "token.state_directory"],
    );
}

pub(crate) fn only_the_pinned_storage_key_is_accepted(rig: &PerStart) {
    let mut name = rig.0.storage_key();
    let last = match name.pop() {
        Some('0') => '1',
        _ => '0',
    };
    name.push(last);
    let other = || Options {
        storage_key: Some(name.clone()),
        ..rig.options()
    };
    misconfigured(
        backend(other()).open(),
        &["not the one", &rig.0.storage_key()],
    );
    misconfigured(backend(other()).provision(false), &["not the one"]);
    let none = Options {
        storage_key: None,
        ..rig.options()
    };
    misconfigured(backend(none).open(), &["token.storage_key is not set"]);
    // The control.
    rig.backend().open().unwrap().probe().unwrap();
}

pub(crate) fn the_tpms_state_put_back_is_noticed(rig: &PerStart) {
    let copies = Copies(&rig.0);
    anchored(rig, 1..=2);
    copies.keep("state", "state.old");
    copies.keep("anchors", "anchors.old");
    anchored(rig, 3..=3);
    copies.put_back("state", "state.old");
    assert_eq!(fault_of(newest_now(rig)), AnchorFault::Behind);
    // The control, and the limit: a TPM that is a file, put back with the records of the same moment.
    copies.put_back("anchors", "anchors.old");
    assert_eq!(newest_now(rig), Ok(Some(anchor(2))));
}

pub(crate) fn records_put_back_or_removed_are_refused(rig: &PerStart) {
    let copies = Copies(&rig.0);
    anchored(rig, 1..=2);
    copies.keep("anchors", "anchors.old");
    anchored(rig, 3..=4);
    copies.keep("anchors", "anchors.new");
    copies.put_back("anchors", "anchors.old");
    assert_eq!(fault_of(newest_now(rig)), AnchorFault::Behind);
    for name in ["anchors-a", "anchors-b"] {
        let _ = fs::remove_file(rig.0.anchors().join(name));
    }
    assert_eq!(fault_of(newest_now(rig)), AnchorFault::Missing);
    fs::write(rig.0.anchors().join("anchors-a"), b"rubbish").unwrap();
    assert_eq!(fault_of(newest_now(rig)), AnchorFault::Missing);
    // No anchor is made where one was lost, neither by a step nor by provisioning.
    let backend = rig.backend();
    let outcome = advance_to(&mut *backend.open().unwrap(), 5);
    assert_eq!(fault_of(outcome), AnchorFault::Missing);
    misconfigured(backend.provision(false), &["do not belong together"]);
    drop(backend);
    copies.put_back("anchors", "anchors.new");
    assert_eq!(newest_now(rig), Ok(Some(anchor(4))));
}

pub(crate) fn a_crash_between_record_and_extension_leaves_the_old_one(rig: &PerStart) {
    let copies = Copies(&rig.0);
    anchored(rig, 1..=1);
    copies.keep("state", "state.old");
    copies.keep("anchors", "anchors.old");
    anchored(rig, 2..=2);
    // Both records are there, and the TPM never heard of the second.
    for file in fs::read_dir(rig.0.dir().join("anchors.old")).unwrap() {
        let file = file.unwrap();
        let to = rig.0.anchors().join(file.file_name());
        if file.file_name() != "lock" {
            let other = to.with_file_name(match file.file_name() == "anchors-a" {
                true => "anchors-b",
                false => "anchors-a",
            });
            if to.exists() {
                fs::rename(&to, other).unwrap();
            }
            fs::copy(file.path(), to).unwrap();
        }
    }
    copies.put_back("state", "state.old");
    assert_eq!(newest_now(rig), Ok(Some(anchor(1))));
    anchored(rig, 2..=4);
    assert_eq!(newest_now(rig), Ok(Some(anchor(4))));
}

fn index() -> String {
    format!("0x{NV_INDEX:x}")
}

fn undefine(rig: &PerStart) {
    rig.0.tool("tpm2_nvundefine", &["-C", "o", &index()]);
}

/// As it was, by whoever has the owner's password and the secret.
fn define(rig: &PerStart) {
    let auth = rig.0.auth("custodyd-anchor-v1");
    rig.0.tool(
        "tpm2_nvdefine",
        &[
            "-C",
            "o",
            "-s",
            "32",
            "-p",
            &auth,
            "-a",
            "authread|authwrite|no_da|nt=extend",
            &index(),
        ],
    );
}

pub(crate) fn an_index_made_anew_is_refused(rig: &PerStart) {
    anchored(rig, 1..=2);
    let running = rig.backend();
    let mut custody = running.open().unwrap();
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(anchor(2))));
    undefine(rig);
    assert_eq!(
        fault_of(newest(&mut *custody, &realm())),
        AnchorFault::Missing
    );
    define(rig);
    assert_eq!(
        fault_of(newest(&mut *custody, &realm())),
        AnchorFault::Missing
    );
    drop((custody, running));
    misconfigured(rig.backend().open(), &["NV index", "never written"]);
    misconfigured(rig.backend().provision(false), &["nothing was changed"]);
    extend(&rig.0, &[7; 32]);
    assert_eq!(fault_of(newest_now(rig)), AnchorFault::Behind);
    undefine(rig);
    misconfigured(rig.backend().open(), &["NV index", "is not there"]);
    misconfigured(rig.backend().provision(false), &["nothing was changed"]);
}

pub(crate) fn an_index_of_other_attributes_is_refused(rig: &PerStart) {
    undefine(rig);
    let auth = rig.0.auth("custodyd-anchor-v1");
    rig.0.tool(
        "tpm2_nvdefine",
        &[
            "-C",
            "o",
            "-s",
            "32",
            "-p",
            &auth,
            "-a",
            "authread|authwrite|ownerwrite|no_da|nt=extend",
            &index(),
        ],
    );
    misconfigured(rig.backend().open(), &["not one of custodyd's"]);
}

pub(crate) fn another_program_that_extends_is_noticed(rig: &PerStart) {
    let backend = rig.backend();
    let mut custody = backend.open().unwrap();
    assert_eq!(advance_to(&mut *custody, 1), Ok(Advanced::Anchored));
    extend(&rig.0, &[7; 32]);
    assert_eq!(fault_of(advance_to(&mut *custody, 2)), AnchorFault::Behind);
}

pub(crate) fn a_spent_wear_budget_is_told_and_outlives_a_restart(rig: &PerStart) {
    let few = || Options {
        nv_writes_per_day: 5,
        ..rig.options()
    };
    let worn = |outcome: Result<Advanced>| {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, Error::Worn { .. }) && error.is_retryable(),
            "{error}"
        );
        assert!(
            error.to_string().contains("token.nv_writes_per_day"),
            "{error}"
        );
    };
    let first = backend(few());
    let mut custody = first.open().unwrap();
    for serial in 1..=5 {
        assert_eq!(advance_to(&mut *custody, serial), Ok(Advanced::Anchored));
    }
    worn(advance_to(&mut *custody, 6));
    // Nothing else is refused, and what is anchored stays.
    custody.sign(BIND, &[1; 32]).unwrap();
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(anchor(5))));
    drop((custody, first));
    let second = backend(few());
    let mut custody = second.open().unwrap();
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(anchor(5))));
    worn(advance_to(&mut *custody, 6));
}

pub(crate) fn the_mode_is_the_one_that_the_keys_were_made_with(rig: &PerStart) {
    let other = Options {
        mode: Mode::PerOperation,
        ..rig.options()
    };
    misconfigured(
        backend(other).open(),
        &[&WRAP.label(), "token.per_operation"],
    );
}

pub(crate) fn a_key_at_the_handle_of_another_does_not_answer(rig: &PerStart) {
    // By whoever has the owner's password: mac takes the place of wrap.
    let (mac, wrap) = (handle(MAC), handle(WRAP));
    rig.0.tool("tpm2_evictcontrol", &["-C", "o", "-c", &wrap]);
    let parent = format!("0x{:x}", custodyd_tests::tpm::HANDLES);
    let known = rig.0.dir().join("known");
    fs::write(&known, [7; 32]).unwrap();
    let auth = rig.0.auth(&MAC.label());
    rig.0.tool(
        "tpm2_create",
        &[
            "-C",
            &parent,
            "-u",
            "pub",
            "-r",
            "priv",
            "-p",
            &auth,
            "-i",
            "known",
            "-a",
            "fixedtpm|fixedparent|userwithauth|noda",
        ],
    );
    rig.0.tool(
        "tpm2_load",
        &["-C", &parent, "-u", "pub", "-r", "priv", "-c", "new"],
    );
    rig.0
        .tool("tpm2_evictcontrol", &["-C", "o", "-c", "new", &wrap]);
    rig.0.flush();
    let error = rig.backend().open().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::PinRefused { .. }), "{error}");
    assert_ne!(mac, wrap);
}

pub(crate) fn nothing_secret_passes_in_clear(rig: &PerStart) {
    let bus = Bus::between(&rig.0, |_| Told::Pass);
    let through = || {
        backend(Options {
            tcti: bus.tcti.clone(),
            ..rig.options()
        })
    };
    // A root on its way in, and out again; a random number; the authorizations.
    rig.delete(WRAP);
    through().provision(false).unwrap();
    let backend = through();
    let mut custody = backend.open().unwrap();
    custody.probe().unwrap();
    let mut random = [0; 32];
    custody.random(&mut random).unwrap();
    assert_eq!(advance_to(&mut *custody, 1), Ok(Advanced::Anchored));
    let auth = rig.0.auth(&WRAP.label());
    let bytes = hex::decode(auth.strip_prefix("hex:").unwrap()).unwrap();
    let unseal = ["-c", &handle(WRAP), "-p", &auth, "-o", "root"];
    rig.0.tool("tpm2_unseal", &unseal);
    let root = fs::read(rig.0.dir().join("root")).unwrap();
    assert_eq!(root.len(), 32);
    for secret in [&root[..], &bytes, &random] {
        assert!(!bus.heard(secret));
    }
    // The control: another program, whose sessions conceal nothing.
    let parent = format!("0x{:x}", custodyd_tests::tpm::HANDLES);
    let create = [
        "-C", &parent, "-u", "u", "-r", "r", "-p", &auth, "-i", "root",
    ];
    for (tool, arguments) in [("tpm2_unseal", &unseal[..]), ("tpm2_create", &create)] {
        let output = std::process::Command::new(tool)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", &bus.tcti)
            .current_dir(rig.0.dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert!(bus.heard(&root));
    assert!(bus.heard(&bytes));
}

pub(crate) fn what_the_tpm_puts_off_is_asked_again_and_lockout_is_not(rig: &PerStart) {
    let left = Arc::new(AtomicU32::new(0));
    let signs = Arc::new(AtomicU32::new(0));
    let lockout = Arc::new(AtomicU32::new(0));
    let (put_off, signed, locked) = (Arc::clone(&left), Arc::clone(&signs), Arc::clone(&lockout));
    let bus = Bus::between(&rig.0, move |command| match command {
        // TPM_RC_NV_RATE, as often as is left.
        NV_EXTEND => {
            let less = |left: u32| left.checked_sub(1);
            match put_off.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
                Ok(_) => Told::Instead(0x920),
                Err(_) => Told::Pass,
            }
        }
        SIGN => {
            signed.fetch_add(1, Ordering::SeqCst);
            match locked.load(Ordering::SeqCst) {
                0 => Told::Pass,
                // TPM_RC_LOCKOUT.
                _ => Told::Instead(0x921),
            }
        }
        _ => Told::Pass,
    });
    let backend = backend(Options {
        tcti: bus.tcti.clone(),
        ..rig.options()
    });
    let mut custody = backend.open().unwrap();
    left.store(3, Ordering::SeqCst);
    assert_eq!(advance_to(&mut *custody, 1), Ok(Advanced::Anchored));
    assert_eq!(left.load(Ordering::SeqCst), 0);
    // For longer than anybody waits: refused, and the next call succeeds again.
    left.store(8, Ordering::SeqCst);
    let outcome = advance_to(&mut *custody, 2);
    assert!(
        matches!(outcome, Err(Error::Unavailable { .. })),
        "{outcome:?}"
    );
    let custody = std::cell::RefCell::new(custody);
    let again = || advance_to(&mut **custody.borrow_mut(), 2) == Ok(Advanced::Anchored);
    crate::suite::until(again);
    let mut custody = custody.into_inner();
    lockout.store(1, Ordering::SeqCst);
    let before = signs.load(Ordering::SeqCst);
    for _ in 0..5 {
        let outcome = custody.sign(KeyId::new(KeyPurpose::Bind, 1), &[1; 32]);
        assert!(
            matches!(outcome, Err(Error::PinRefused { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(signs.load(Ordering::SeqCst), before + 1);
}

pub(crate) fn an_extension_whose_answer_is_lost_is_found(rig: &PerStart) {
    // TPM_RC_FAILURE: nobody knows whether it was done.
    for told in [Told::Instead(0x101), Told::After(0x101)] {
        let armed = Arc::new(AtomicU32::new(0));
        let arms = Arc::clone(&armed);
        let _ = fs::remove_file(rig.0.dir().join("bus"));
        let _ = fs::remove_file(rig.0.dir().join("bus.ctrl"));
        let bus = Bus::between(&rig.0, move |command| match command {
            NV_EXTEND if arms.swap(0, Ordering::SeqCst) > 0 => told,
            _ => Told::Pass,
        });
        let backend = backend(Options {
            tcti: bus.tcti.clone(),
            ..rig.options()
        });
        let mut custody = backend.open().unwrap();
        let from = newest(&mut *custody, &realm()).unwrap();
        let next = anchor(Anchor::serial_after(from.as_ref()));
        armed.store(1, Ordering::SeqCst);
        let outcome = advance(&mut *custody, &realm(), from.as_ref(), &next);
        assert!(
            matches!(outcome, Err(Error::Unavailable { .. })),
            "{outcome:?}"
        );
        let there = newest(&mut *custody, &realm()).unwrap();
        match told {
            Told::After(_) => assert_eq!(there, Some(next.clone())),
            _ => assert_eq!(there, from),
        }
        let again = advance(&mut *custody, &realm(), from.as_ref(), &next);
        assert_eq!(again, Ok(Advanced::Anchored));
        assert_eq!(newest(&mut *custody, &realm()), Ok(Some(next)));
    }
}

pub(crate) fn the_owners_password_is_for_provisioning_alone(rig: &PerStart) {
    rig.0
        .tool("tpm2_changeauth", &["-c", "owner", "the owner's"]);
    anchored(rig, 1..=1);
    let with = |password: &[u8]| {
        backend(Options {
            owner_password: SecretBytes::from(password.to_vec()),
            ..rig.options()
        })
    };
    // Nothing is missing, so nothing is asked of the owner.
    assert!(with(b"").provision(false).unwrap().created.is_empty());
    rig.0.tool(
        "tpm2_evictcontrol",
        &["-C", "o", "-P", "the owner's", "-c", &handle(BIND)],
    );
    for wrong in [&b""[..], b"another's"] {
        misconfigured(with(wrong).provision(false), &["--owner-password-file"]);
        // A look says so as well, which is what the ceremonies of an escrow count on before they write anything.
        misconfigured(with(wrong).provision(true), &["--owner-password-file"]);
    }
    let looked = with(b"the owner's").provision(true).unwrap();
    assert_eq!(looked.created, [BIND.label()]);
    let made = with(b"the owner's").provision(false).unwrap();
    assert_eq!(made.created, [BIND.label()]);
    rig.backend().open().unwrap().probe().unwrap();
}

pub(crate) fn a_wrong_secret_is_told_as_one_by_provisioning_too(rig: &PerStart) {
    let wrong = backend(Options {
        secret: SecretBytes::from(vec![b'x'; 64]),
        ..rig.options()
    });
    let outcome = wrong.provision(false);
    assert!(
        matches!(outcome, Err(Error::PinRefused { .. })),
        "{outcome:?}"
    );
    drop(wrong);
    let short = backend(Options {
        secret: SecretBytes::from(b"830517".to_vec()),
        ..rig.options()
    });
    misconfigured(short.provision(false), &["too short for a TPM"]);
}

/// An anchor that was replaced is hidden only, until the next change. The key that tags it is destroyed, and then the process is
/// killed: what it had hidden it tells nobody.
pub(crate) fn a_mac_key_that_is_destroyed_takes_its_anchors_along(rig: &PerStart) {
    for (serial, older, destroyed) in [(1, 1, true), (3, 2, false)] {
        anchored(rig, serial..=serial);
        let backend = rig.backend();
        let mut custody = backend.open().unwrap();
        let mac = |version| KeyId::new(KeyPurpose::Mac, version);
        custody.make_key(mac(older + 1)).unwrap();
        let advanced = advance_to(&mut *custody, serial + 1);
        assert_eq!(advanced, Ok(Advanced::Anchored));
        match destroyed {
            true => custody.destroy_key(mac(older)).unwrap(),
            // The control: another program destroys it.
            false => rig.delete(mac(older)),
        }
        // Nothing that the end of the process would still write arrives.
        rig.0.power_off();
        drop((custody, backend));
        rig.0.power_on();
        match destroyed {
            true => assert_eq!(newest_now(rig), Ok(Some(anchor(serial + 1)))),
            false => assert_eq!(fault_of(newest_now(rig)), AnchorFault::Forged),
        }
    }
}

/// A TPM 2.0 has no Ed25519; it says so, and is as it was.
pub(crate) fn an_ed25519_key_is_refused_with_a_sentence(rig: &PerStart) {
    let backend = rig.backend();
    misconfigured(backend.provision_public_log(false), &["no Ed25519 keys"]);
    let mut custody = backend.open().unwrap();
    let key = KeyId::new(KeyPurpose::CheckpointEd25519, 1);
    misconfigured(custody.make_key(key), &["no Ed25519 keys"]);
    misconfigured(custody.sign_ed25519(key, b"text"), &["no Ed25519 keys"]);
    assert_eq!(custody.newest(key.purpose).unwrap(), None);
    custody.probe().unwrap();
}
