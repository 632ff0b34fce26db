//! A kryoptic token per test: another PKCS#11 module than SoftHSM2, in Rust over SQLite and OpenSSL.
//!
//! The module is built by `scripts/ensure-tools` into `target/tools/lib`; missing, it fails loudly. It
//! reads `KRYOPTIC_CONF` from the environment of the process, so code that uses a token runs in a child
//! process that got [`KryopticToken::environment`].

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use custodyd_hsm::{SecretBytes, backend::pkcs11::Options};
use tempfile::TempDir;

use crate::token::{LABEL, in_memory, program, repository, run};

const PIN: &str = "kryoptic-user-pin";
const SO_PIN: &str = "kryoptic-so-pin";

/// A token of its own. Its files go when it goes, unless it was attached.
#[derive(Debug)]
pub struct KryopticToken {
    dir: PathBuf,
    _keep: Option<TempDir>,
}

impl KryopticToken {
    /// A token with all keys, as `init` makes them.
    ///
    /// # Panics
    /// With what to install or run, when it cannot be made.
    #[must_use]
    pub fn fresh() -> Self {
        let token = Self::blank();
        token.initialise();
        run(Command::new(program("provision-token"))
            .arg(module())
            .arg(LABEL)
            .arg(token.user_pin_file())
            .env("KRYOPTIC_CONF", token.configuration()));
        token
    }

    /// A slot whose token is not initialised.
    ///
    /// # Panics
    /// As [`KryopticToken::fresh`].
    #[must_use]
    pub fn blank() -> Self {
        let keep = in_memory("custodyd-kryoptic-");
        let token = Self {
            dir: keep.path().to_owned(),
            _keep: Some(keep),
        };
        let configuration = format!(
            "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            token.database().display()
        );
        fs::write(token.configuration(), configuration).unwrap();
        fs::write(token.user_pin_file(), PIN).unwrap();
        fs::set_permissions(token.user_pin_file(), fs::Permissions::from_mode(0o600)).unwrap();
        token
    }

    /// Label and PINs, and no keys.
    ///
    /// # Panics
    /// As [`KryopticToken::fresh`].
    pub fn initialise(&self) {
        self.tool(&[
            "--init-token",
            "--slot",
            "1",
            "--label",
            LABEL,
            "--so-pin",
            "env:SO_PIN",
        ]);
        self.tool(&[
            "--token-label",
            LABEL,
            "--login",
            "--login-type",
            "so",
            "--so-pin",
            "env:SO_PIN",
            "--init-pin",
            "--new-pin",
            "env:USER_PIN",
        ]);
    }

    fn tool(&self, arguments: &[&str]) {
        run(Command::new("pkcs11-tool")
            .arg("--module")
            .arg(module())
            .args(arguments)
            .env("KRYOPTIC_CONF", self.configuration())
            .env("USER_PIN", PIN)
            .env("SO_PIN", SO_PIN));
    }

    /// A token made by another process, by its directory.
    #[must_use]
    pub fn attach(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            _keep: None,
        }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn configuration(&self) -> PathBuf {
        self.dir.join("kryoptic.conf")
    }

    fn database(&self) -> PathBuf {
        self.dir.join("token.sql")
    }

    /// What a process needs in its environment to see this token.
    #[must_use]
    pub fn environment(&self) -> (&'static str, PathBuf) {
        ("KRYOPTIC_CONF", self.configuration())
    }

    #[must_use]
    pub fn user_pin_file(&self) -> PathBuf {
        self.dir.join("user-pin")
    }

    /// Everything that makes this token the one that it is.
    ///
    /// # Panics
    /// When the file is gone.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        fs::read(self.database()).unwrap()
    }

    /// Puts another content into the file in place: whoever has it open sees that. Empty, the token is gone.
    ///
    /// # Panics
    /// When the file is gone.
    pub fn put(&self, content: &[u8]) {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .create(true)
            .mode(0o600)
            .open(self.database())
            .unwrap();
        file.write_all(content).unwrap();
    }

    /// Options for the PKCS#11 backend, with little patience.
    #[must_use]
    pub fn options(&self) -> Options {
        let pin = SecretBytes::from(PIN.as_bytes().to_vec());
        let mut options = Options::new(module(), LABEL, pin);
        options.start_patience = std::time::Duration::from_secs(2);
        options.recovery_pause = std::time::Duration::from_millis(200);
        options
    }
}

/// The path of the module.
///
/// # Panics
/// With what to run, when there is none.
#[must_use]
pub fn module() -> PathBuf {
    let path = repository().join("target/tools/lib/libkryoptic_pkcs11.so");
    assert!(
        path.is_file(),
        "{} is missing, and these tests need it: run scripts/ensure-tools",
        path.display()
    );
    path
}
