//! Keys of an escrow that come into a token beside others: the missing ones, the half ones, and no others.

use std::sync::Arc;

use custodyd_hsm::{
    Backend, Error, KeyId, KeyOrigin, KeyPurpose, Result, RootKeys, Secret,
    backend::pkcs11::{Options, Pkcs11Backend},
    root_keys::differing,
};

use super::SoftHsm;
use crate::rig::{Labelled as _, Rig as _};

const WRAP: KeyId = KeyId {
    purpose: KeyPurpose::Wrap,
    version: 2,
};
const BIND: KeyId = KeyId {
    purpose: KeyPurpose::Bind,
    version: 2,
};

fn misconfigured<T>(outcome: Result<T>, text: &str) {
    let error = outcome.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

fn further() -> RootKeys {
    RootKeys::make_further(&[WRAP, BIND], &Secret::init(|_| ())).unwrap()
}

pub(crate) fn versions_of_an_escrow_come_in_beside_others(rig: &SoftHsm) {
    for purpose in KeyPurpose::REQUIRED {
        rig.delete(KeyId::new(purpose, 1));
    }
    let escrowed = || -> Arc<Pkcs11Backend> {
        SoftHsm::backend_with(Options {
            origin: KeyOrigin::Imported,
            ..rig.0.options()
        })
    };
    let brought = |keys: &RootKeys, dry_run| escrowed().import_missing(keys, dry_run);
    let more = further();
    misconfigured(brought(&more, false), "lacks custodyd-mac-v1");
    let first = RootKeys::make(&escrowed().entropy().unwrap()).unwrap();
    escrowed().import(&first, false).unwrap();
    misconfigured(
        SoftHsm::backend_with(rig.0.options()).import_missing(&more, false),
        "token.escrow",
    );
    assert_eq!(brought(&more, true).unwrap().report.created.len(), 2);
    let made = brought(&more, false).unwrap().report;
    assert_eq!(made.created, [WRAP.label(), BIND.label()]);
    let holds = |keys: &RootKeys| {
        let mut custody = escrowed().open().unwrap();
        custody.probe().unwrap();
        differing(&mut *custody, &keys.checks()).unwrap()
    };
    assert_eq!((holds(&first), holds(&more)), (None, None));
    let again = brought(&more, false).unwrap().report;
    assert!(again.created.is_empty() && again.existing.len() == 2);
    // What an import leaves that was cut off between the halves of a pair.
    rig.delete_public_half(BIND);
    assert_eq!(holds(&more), Some(BIND));
    assert_eq!(
        brought(&more, false).unwrap().report.created,
        [BIND.label()]
    );
    assert_eq!(holds(&more), None);
    // Another key of one's name, whole or half, is never taken for it, and nothing else comes in then.
    let others = further();
    misconfigured(
        brought(&others, false),
        "custodyd-wrap-v2 already, and it is another key",
    );
    rig.delete(WRAP);
    rig.delete_public_half(BIND);
    misconfigured(
        brought(&others, false),
        "custodyd-bind-v2 already, and it is another key",
    );
    assert_eq!(holds(&first), None);
    assert_eq!(holds(&others), Some(WRAP));
    assert!(!escrowed().open().unwrap().holds(WRAP).unwrap());
}
