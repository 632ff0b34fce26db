//! Objects of a PKCS#11 token, planted, doubled, deleted and spoilt with `pkcs11-tool`: another program
//! than the one under test. Used by the rigs of PKCS#11 modules.

use std::{fs, path::PathBuf, process::Command};

use custodyd_hsm::KeyId;
use custodyd_tests::token::LABEL;

const ANCHOR: &str = "custodyd-anchor-v1";

/// The tool on one token, logged in.
pub(crate) struct Tool {
    pub(crate) module: PathBuf,
    pub(crate) user_pin_file: PathBuf,
}

impl Tool {
    /// The PIN goes through the environment.
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("pkcs11-tool")
            .arg("--module")
            .arg(&self.module)
            .args(["--token-label", LABEL, "--login", "--pin", "env:USER_PIN"])
            .args(arguments)
            .env("USER_PIN", fs::read_to_string(&self.user_pin_file).unwrap())
            .output()
            .expect("pkcs11-tool is missing: apt install opensc");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn plant(&self, content: &[u8]) {
        self.write_data(content, "custodyd", ANCHOR);
    }

    pub(crate) fn plant_beside(&self, content: &[u8]) {
        self.write_data(content, "custodyd", "custodyd-anchor-v2");
        self.write_data(content, "another", ANCHOR);
    }

    /// The tool reads the value from a file.
    fn write_data(&self, content: &[u8], application: &str, label: &str) {
        let file = self.user_pin_file.with_file_name("planted");
        fs::write(&file, content).unwrap();
        let file = file.to_str().unwrap();
        self.run(&[
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

    pub(crate) fn clear(&self) {
        let label = ["--type", "data", "--label", ANCHOR];
        let lists = || {
            let listed = self.run(&[&["--list-objects"], &label[..]].concat());
            listed.contains("Data object")
        };
        while lists() {
            self.run(&[&["--delete-object"], &label[..]].concat());
        }
    }

    pub(crate) fn delete(&self, key: KeyId) {
        let kinds: &[&str] = match key.purpose.is_symmetric() {
            true => &["secrkey"],
            false => &["privkey", "pubkey"],
        };
        for kind in kinds {
            self.delete_object(key, kind);
        }
    }

    pub(crate) fn delete_object(&self, key: KeyId, kind: &str) {
        self.run(&["--delete-object", "--type", kind, "--label", &key.label()]);
    }

    pub(crate) fn generate(&self, key: KeyId, more: &[&str]) {
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
        self.run(&[&what[..], &usual[..], more].concat());
    }
}
