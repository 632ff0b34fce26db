//! Keys of an escrow on their way into a TPM: nobody on the bus learns them, and they do not come out again.

use custodyd_hsm::{
    Backend, KeyId, KeyOrigin, KeyPurpose, RootKeys,
    backend::tpm::{Mode, Options},
    root_keys::differing,
};

use super::{
    PerStart,
    bus::{Bus, Told},
    cases::{self, misconfigured},
    handle,
};
use crate::{rig::Rig as _, suite::BIND};

pub(crate) fn keys_of_an_escrow_come_in_concealed_and_stay(rig: &PerStart) {
    let bus = Bus::between(&rig.0, |_| Told::Pass);
    for mode in [Mode::PerStart, Mode::PerOperation] {
        for purpose in KeyPurpose::REQUIRED {
            rig.delete(KeyId::new(purpose, 1));
        }
        let escrowed = || {
            cases::backend(Options {
                tcti: bus.tcti.clone(),
                origin: KeyOrigin::Imported,
                mode,
                ..rig.options()
            })
        };
        let keys = RootKeys::make(&escrowed().entropy().unwrap()).unwrap();
        misconfigured(escrowed().provision(false), &["escrow create"]);
        let made_here = Options {
            mode,
            ..rig.options()
        };
        misconfigured(
            cases::backend(made_here).import(&keys, false),
            &["token.escrow"],
        );
        escrowed().import(&keys, false).unwrap();
        let backend = escrowed();
        let mut custody = backend.open().unwrap();
        custody.probe().unwrap();
        assert_eq!(differing(&mut *custody, &keys.checks()).unwrap(), None);
        assert!(custody.make_key(KeyId::new(KeyPurpose::Wrap, 2)).is_err());
        drop(custody);
        drop(backend);
        let ids = [KeyPurpose::Wrap, KeyPurpose::Bind].map(|purpose| KeyId::new(purpose, 2));
        let more = || RootKeys::make_further(&ids, &escrowed().entropy().unwrap()).unwrap();
        let (added, other) = (more(), more());
        let brought = |keys: &RootKeys| escrowed().import_missing(keys, false);
        assert_eq!(
            brought(&added).unwrap().report.created,
            ids.map(|id| id.label())
        );
        assert!(brought(&added).unwrap().report.created.is_empty());
        misconfigured(brought(&other), &["already, and it is another key"]);
        misconfigured(
            brought(&RootKeys::make(&escrowed().entropy().unwrap()).unwrap()),
            &["another key"],
        );
        let mut custody = escrowed().open().unwrap();
        for keys in [&keys, &added] {
            assert_eq!(differing(&mut *custody, &keys.checks()).unwrap(), None);
        }
        for id in ids {
            custody.destroy_key(id).unwrap();
        }
        drop(custody);
        for key in added.iter() {
            assert!(!bus.heard(key.expose()), "{}", key.id);
        }
        misconfigured(escrowed().import(&keys, false), &["already"]);
        for key in keys.iter() {
            assert!(!bus.heard(key.expose()), "{}", key.id);
            // The control: what may be heard is.
            let point = key.public().map(|point| &point.as_point()[1..33]);
            assert!(point.is_none_or(|x| bus.heard(x)));
        }
        let made = Options {
            mode,
            ..rig.options()
        };
        misconfigured(cases::backend(made).open(), &["fixedTPM"]);
    }
    // Not bound to the TPM by an attribute, and still not taken out of it by whoever has the secret.
    let (bind, auth) = (handle(BIND), rig.0.auth(&BIND.label()));
    let arguments = [
        "-C", "null", "-c", &bind, "-p", &auth, "-G", "null", "-r", "dup", "-s", "seed", "-u", "u",
    ];
    let duplicated = std::process::Command::new("tpm2_duplicate")
        .args(arguments)
        .env("TPM2TOOLS_TCTI", rig.0.tcti())
        .current_dir(rig.0.dir())
        .output()
        .unwrap();
    assert!(!duplicated.status.success() && !rig.0.dir().join("dup").exists());
    rig.0.flush();
}
