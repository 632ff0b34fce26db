//! A SoftHSM2 token per test, with keys, for every test of this workspace.
//!
//! Made once per target directory by `softhsm-setup/provision` and the helper
//! program `provision-token`, then copied: a copy costs a millisecond, a
//! login-and-generate a second. A copy is a whole token of its own; no test
//! ever shares one. Missing software fails loudly, with the package to install.
//!
//! SoftHSM2 reads `SOFTHSM2_CONF` from the environment of the process, so code
//! that uses a token runs in a child process that got [`SoftToken::environment`].

use std::{
    env, fs,
    fs::File,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use custodyd_hsm::{SecretBytes, backend::pkcs11::Options};
use tempfile::TempDir;

/// The label of every test token.
pub const LABEL: &str = "custodyd-test";

/// A token of its own. Its files go when it goes, unless it was attached.
#[derive(Debug)]
pub struct SoftToken {
    dir: PathBuf,
    _keep: Option<TempDir>,
}

impl SoftToken {
    /// A token with all keys, as `init` makes them.
    ///
    /// # Panics
    /// With what to install or run, when it cannot be made.
    #[must_use]
    pub fn fresh() -> Self {
        let token = Self::in_temp_dir();
        copy_template_to(&token.dir);
        token
    }

    /// A token without keys.
    ///
    /// # Panics
    /// As [`SoftToken::fresh`].
    #[must_use]
    pub fn blank() -> Self {
        let token = Self::in_temp_dir();
        initialise(&token.dir);
        token
    }

    /// The section `[token]` of a daemon's configuration.
    #[must_use]
    pub fn section(&self) -> String {
        format!(
            "module = \"{}\"\nlabel = \"{LABEL}\"\npin_file = \"{}\"\n",
            module(),
            self.user_pin_file().display()
        )
    }

    /// A token made by another process, by its directory.
    #[must_use]
    pub fn attach(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            _keep: None,
        }
    }

    /// A token with the same label and the same PINs, and other keys: what an
    /// attacker, or a mistake, may put in the place of this one.
    ///
    /// # Panics
    /// As [`SoftToken::fresh`].
    #[must_use]
    pub fn impostor(&self) -> Self {
        let other = Self::in_temp_dir();
        for pin in ["user-pin", "so-pin"] {
            fs::copy(self.dir.join(pin), other.dir.join(pin))
                .unwrap_or_else(|error| panic!("copying {pin}: {error}"));
        }
        build(&other.dir);
        other
    }

    /// Its files as they are now, elsewhere: the same keys, and all that it remembers. Nobody may be writing.
    ///
    /// # Panics
    /// When they can not be copied.
    #[must_use]
    pub fn copied(&self) -> Self {
        let other = Self::in_temp_dir();
        copy_token(&self.dir, &other.dir)
            .unwrap_or_else(|error| panic!("copying a token: {error}"));
        other
    }

    /// In memory where the machine has a place for it: each anchor makes and removes a file, and
    /// on a disk that costs SoftHSM2 twenty times as long.
    fn in_temp_dir() -> Self {
        let keep = in_memory("custodyd-token-");
        Self {
            dir: keep.path().to_owned(),
            _keep: Some(keep),
        }
    }

    /// A token with label and PINs, and no keys.
    ///
    /// # Panics
    /// As [`SoftToken::fresh`].
    #[must_use]
    pub fn without_keys() -> Self {
        let token = Self::in_temp_dir();
        script("provision", &token.dir);
        token
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a process needs in its environment to see this token.
    #[must_use]
    pub fn environment(&self) -> (&'static str, PathBuf) {
        ("SOFTHSM2_CONF", self.dir.join("softhsm2.conf"))
    }

    /// Mode 0600, no newline.
    #[must_use]
    pub fn user_pin_file(&self) -> PathBuf {
        self.dir.join("user-pin")
    }

    /// The directory that SoftHSM2 keeps the token in.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    /// # Panics
    /// When the PIN file is gone.
    #[must_use]
    pub fn user_pin(&self) -> SecretBytes {
        let pin = fs::read(self.user_pin_file());
        SecretBytes::from(pin.unwrap_or_else(|error| panic!("the PIN of the test token: {error}")))
    }

    /// Options for the PKCS#11 backend, with little patience.
    #[must_use]
    pub fn options(&self) -> Options {
        let mut options = Options::new(module(), LABEL, self.user_pin());
        options.start_patience = std::time::Duration::from_secs(2);
        options.recovery_pause = std::time::Duration::from_millis(200);
        options
    }
}

/// A directory in memory, where the machine has a place for it.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn in_memory(prefix: &str) -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = match memory.is_dir() {
        true => memory.to_owned(),
        false => env::temp_dir(),
    };
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(place)
        .unwrap_or_else(|error| panic!("a temporary directory for a token: {error}"))
}

fn copy_template_to(dir: &Path) {
    copy_template(dir).unwrap_or_else(|error| panic!("copying the test token: {error}"));
}

/// The path of the SoftHSM2 module.
///
/// # Panics
/// With the package to install, when there is none.
#[must_use]
pub fn module() -> String {
    let by_architecture = format!(
        "/usr/lib/{}-linux-gnu/softhsm/libsofthsm2.so",
        env::consts::ARCH
    );
    [
        "/usr/lib/softhsm/libsofthsm2.so".to_owned(),
        by_architecture,
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .unwrap_or_else(|| {
        panic!("SoftHSM2 is missing, and these tests need it: apt install softhsm2 opensc")
    })
}

/// Where cargo put this workspace's programs: `target/debug` or the like.
fn build_dir() -> PathBuf {
    let exe =
        env::current_exe().unwrap_or_else(|error| panic!("the path of this program: {error}"));
    let dir = exe.parent().unwrap_or(&exe);
    let above = if dir.ends_with("deps") {
        dir.parent()
    } else {
        None
    };
    above.unwrap_or(dir).to_owned()
}

/// The root of this repository.
#[must_use]
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Copies the template, making it first where it is missing or was made by an
/// older build. Writers hold the lock alone, readers share it.
fn copy_template(to: &Path) -> io::Result<()> {
    let template = build_dir().join("soft-token-template");
    fs::create_dir_all(&template)?;
    let lock = File::create(template.join("lock"))?;
    let stamp = stamp()?;
    let whole = template.join("whole");
    let is_current = || fs::read_to_string(&whole).is_ok_and(|found| found == stamp);
    loop {
        lock.lock_shared()?;
        if is_current() {
            return copy_token(&template.join("token"), to);
        }
        lock.unlock()?;
        lock.lock()?;
        // Another process may have made it while this one waited.
        if !is_current() {
            let _ = fs::remove_file(&whole);
            let _ = fs::remove_dir_all(template.join("token"));
            build(&template.join("token"));
            fs::write(&whole, &stamp)?;
        }
        lock.unlock()?;
    }
}

/// Changes with the helper and the script that make a token.
fn stamp() -> io::Result<String> {
    let mut stamp = String::new();
    for path in [helper(), repository().join("softhsm-setup/provision")] {
        let data = fs::metadata(&path).map_err(|error| {
            let hint = "build it with the tests: cargo test --workspace";
            io::Error::new(error.kind(), format!("{}: {error}; {hint}", path.display()))
        })?;
        let modified = data
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        stamp.push_str(&format!("{} {}\n", data.len(), modified.as_nanos()));
    }
    Ok(stamp)
}

fn helper() -> PathBuf {
    program("provision-token")
}

/// A program of this workspace.
///
/// # Panics
/// With what to run, when it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = build_dir().join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

fn copy_token(from: &Path, to: &Path) -> io::Result<()> {
    for pin in ["user-pin", "so-pin"] {
        fs::copy(from.join(pin), to.join(pin))?;
    }
    copy_tokens(&from.join("tokens"), &to.join("tokens"))?;
    let configuration = fs::read_to_string(from.join("softhsm2.conf"))?;
    let here = from.join("tokens").display().to_string();
    let there = to.join("tokens").display().to_string();
    fs::write(
        to.join("softhsm2.conf"),
        configuration.replace(&here, &there),
    )
}

/// Copies a directory of SoftHSM2 tokens: one level of directories with files.
///
/// # Errors
/// Of the file system.
pub fn copy_tokens(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for token in fs::read_dir(from)? {
        let token = token?;
        let copy = to.join(token.file_name());
        fs::create_dir(&copy)?;
        for file in fs::read_dir(token.path())? {
            let file = file?;
            fs::copy(file.path(), copy.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// Makes a token with keys in `dir`, by the same script and the same code that
/// an operator uses.
fn build(dir: &Path) {
    initialise(dir);
    run(Command::new(helper())
        .arg(module())
        .arg(LABEL)
        .arg(dir.join("user-pin"))
        .env("SOFTHSM2_CONF", dir.join("softhsm2.conf")));
}

fn initialise(dir: &Path) {
    script("provision", dir);
}

/// A script of `softhsm-setup`, for the test token in `dir`.
fn script(name: &str, dir: &Path) {
    run(Command::new(repository().join("softhsm-setup").join(name))
        .arg("--dir")
        .arg(dir)
        .args(["--label", LABEL]));
}

/// Runs a program that must succeed.
///
/// # Panics
/// With what it said, when it does not.
pub fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
