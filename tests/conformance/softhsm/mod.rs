//! The rig for SoftHSM2: a token is a directory, so accidents are renames.
//! Objects are doubled, deleted and spoilt with `pkcs11-tool`, another program
//! than the one under test.

use std::{env, fs, path::PathBuf, process::Command, sync::Arc};

use custodyd_hsm::{
    Backend, KeyId, SecretBytes,
    backend::pkcs11::{Options, Pkcs11Backend},
};
use custodyd_tests::token::{LABEL, SoftToken, copy_tokens, module};

use crate::rig::{Counted, Labelled, Prepared, Rig, Store};

const ANCHOR: &str = "custodyd-anchor-v1";
const DIR: &str = "CUSTODYD_CONFORMANCE_TOKEN";

pub(crate) struct SoftHsm(SoftToken);

impl SoftHsm {
    fn backend_with(options: Options) -> Arc<Pkcs11Backend> {
        Arc::new(Pkcs11Backend::new(options))
    }

    fn away(&self) -> PathBuf {
        self.0.dir().join("tokens.away")
    }

    /// Runs pkcs11-tool, logged in. The PIN goes through the environment.
    fn tool(&self, arguments: &[&str]) -> String {
        let output = Command::new("pkcs11-tool")
            .arg("--module")
            .arg(module())
            .args(["--token-label", LABEL, "--login", "--pin", "env:USER_PIN"])
            .args(arguments)
            .env(
                "USER_PIN",
                fs::read_to_string(self.0.user_pin_file()).unwrap(),
            )
            .output()
            .expect("pkcs11-tool is missing: apt install opensc");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn lists(&self, which: &[&str]) -> bool {
        let listed = self.tool(&[&["--list-objects"], which].concat());
        listed.contains("Data object")
    }

    /// pkcs11-tool reads the value from a file.
    fn write_data(&self, content: &[u8], application: &str, label: &str) {
        let file = self.0.dir().join("planted");
        fs::write(&file, content).unwrap();
        let file = file.to_str().unwrap();
        self.tool(&[
            "--write-object",
            file,
            "--type",
            "data",
            "--private",
            "--application-label",
            application,
            "--label",
            label,
        ]);
    }

    fn delete_object(&self, key: KeyId, kind: &str) {
        self.tool(&["--delete-object", "--type", kind, "--label", &key.label()]);
    }

    fn generate(&self, key: KeyId, more: &[&str]) {
        let label = key.label();
        let what = if key.purpose.is_symmetric() {
            ["--keygen", "--key-type", "GENERIC:32"]
        } else {
            ["--keypairgen", "--key-type", "EC:prime256v1"]
        };
        let usual = [
            "--label",
            label.as_str(),
            "--usage-sign",
            "--sensitive",
            "--private",
        ];
        self.tool(&[&what[..], &usual[..], more].concat());
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
        self.write_data(content, "custodyd", ANCHOR);
    }

    fn clear(&self) {
        let label = ["--type", "data", "--label", ANCHOR];
        while self.lists(&label) {
            self.tool(&[&["--delete-object"], &label[..]].concat());
        }
    }

    fn plant_beside(&self, content: &[u8]) {
        self.write_data(content, "custodyd", "custodyd-anchor-v2");
        self.write_data(content, "another", ANCHOR);
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
        let kinds: &[&str] = match key.purpose.is_symmetric() {
            true => &["secrkey"],
            false => &["privkey", "pubkey"],
        };
        for kind in kinds {
            self.delete_object(key, kind);
        }
    }

    fn make_extractable(&self, key: KeyId) {
        self.delete(key);
        self.generate(key, &["--extractable"]);
    }
}

impl Labelled for SoftHsm {
    fn backend_with_wrong_label(&self) -> Arc<dyn Backend> {
        Self::backend_with(Options {
            token_label: "nobody".to_owned(),
            ..self.0.options()
        })
    }

    fn duplicate(&self, key: KeyId) {
        self.generate(key, &[]);
    }

    fn delete_public_half(&self, key: KeyId) {
        self.delete_object(key, "pubkey");
    }
}
