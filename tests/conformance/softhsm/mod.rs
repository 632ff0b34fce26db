//! The rig for SoftHSM2: a token is a directory, so accidents are renames.

pub(crate) mod faults;
pub(crate) mod importing;
mod panicking;

use std::{env, fs, path::PathBuf, sync::Arc};

use custodyd_hsm::{
    Backend, KeyId, SecretBytes,
    backend::pkcs11::{Options, Pkcs11Backend},
};
use custodyd_tests::token::{SoftToken, copy_tokens, module};

use crate::{
    rig::{Counted, Labelled, Prepared, Rig, Store},
    tool::Tool,
};

const DIR: &str = "CUSTODYD_CONFORMANCE_TOKEN";

pub(crate) struct SoftHsm(SoftToken);

impl SoftHsm {
    fn backend_with(options: Options) -> Arc<Pkcs11Backend> {
        Arc::new(Pkcs11Backend::new(options))
    }

    fn away(&self) -> PathBuf {
        self.0.dir().join("tokens.away")
    }

    fn tool(&self) -> Tool {
        Tool {
            module: module().into(),
            user_pin_file: self.0.user_pin_file(),
        }
    }
}

impl Store for SoftHsm {
    fn prepare() -> Prepared {
        let token = SoftToken::fresh();
        let environment = vec![token.environment(), (DIR, token.dir().to_owned())];
        Prepared {
            keep: Box::new(token),
            environment,
        }
    }

    fn attach() -> Self {
        Self(SoftToken::attach(env::var_os(DIR).unwrap()))
    }

    fn backend(&self) -> Arc<dyn Backend> {
        Self::backend_with(self.0.options())
    }

    fn plant(&self, content: &[u8]) {
        self.tool().plant(content);
    }

    fn clear(&self) {
        self.tool().clear();
    }

    fn plant_beside(&self, content: &[u8]) {
        self.tool().plant_beside(content);
    }
}

impl Rig for SoftHsm {
    fn backend_with_wrong_pin(&self) -> Counted {
        let wrong = Options {
            pin: SecretBytes::from(b"not-the-pin".to_vec()),
            ..self.0.options()
        };
        let backend = Self::backend_with(wrong);
        let counted = Arc::clone(&backend);
        (backend, Box::new(move || counted.login_attempts()))
    }

    fn is_software(&self) -> bool {
        true
    }

    fn objects_of_a_pair(&self) -> usize {
        2
    }

    fn kept(&self) -> [(&'static str, &'static str); 2] {
        [
            ("CKA_EXTRACTABLE", "false"),
            ("CKA_NEVER_EXTRACTABLE", "true"),
        ]
    }

    fn take_away(&self) {
        fs::rename(self.0.tokens(), self.away()).unwrap();
    }

    fn bring_back(&self) {
        fs::rename(self.away(), self.0.tokens()).unwrap();
    }

    fn put_impostor(&self) {
        copy_tokens(&self.0.impostor().tokens(), &self.0.tokens()).unwrap();
    }

    fn remove_impostor(&self) {
        fs::remove_dir_all(self.0.tokens()).unwrap();
    }

    fn delete(&self, key: KeyId) {
        self.tool().delete(key);
    }

    fn make_extractable(&self, key: KeyId) {
        self.delete(key);
        self.tool().generate(key, &["--extractable"]);
    }
}

impl Labelled for SoftHsm {
    fn module(&self) -> (PathBuf, SecretBytes) {
        (module().into(), self.0.user_pin())
    }

    fn backend_with_wrong_label(&self) -> Arc<dyn Backend> {
        Self::backend_with(Options {
            token_label: "nobody".to_owned(),
            ..self.0.options()
        })
    }

    fn duplicate(&self, key: KeyId) {
        self.tool().generate(key, &[]);
    }

    fn delete_public_half(&self, key: KeyId) {
        self.tool().delete_object(key, "pubkey");
    }
}
