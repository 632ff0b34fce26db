//! A TPM per test: swtpm with a state of its own, provisioned, for every test of this workspace.
//!
//! swtpm is a program; cutting its power is killing it. It ends with the test that started it,
//! however that ends: it lives below a shell that waits for this process to close a pipe. Missing
//! software fails loudly, with the package to install.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use custodyd_hsm::{
    SecretBytes,
    backend::tpm::{Mode, Options, TpmBackend},
};
use tempfile::TempDir;

/// Where the keys of every test TPM are, the storage key first.
pub const HANDLES: u32 = custodyd_hsm::backend::tpm::DEFAULT_HANDLES;
/// Where the index of its anchors is.
pub const NV_INDEX: u32 = custodyd_hsm::backend::tpm::DEFAULT_NV_INDEX;

/// A TPM of its own. Its files go when it goes, unless it was attached.
#[derive(Debug)]
pub struct SwTpm {
    dir: PathBuf,
    _keep: Option<TempDir>,
    running: Mutex<Option<Child>>,
}

impl SwTpm {
    /// A TPM without power, provisioned as `token provision` does it.
    ///
    /// # Panics
    /// With what to install, when it cannot be made.
    #[must_use]
    pub fn fresh(mode: Mode) -> Self {
        let tpm = Self::blank();
        tpm.provision(mode);
        tpm.power_off();
        tpm
    }

    /// A TPM from the factory, with power, and a secret for it.
    ///
    /// # Panics
    /// As [`SwTpm::fresh`].
    #[must_use]
    pub fn blank() -> Self {
        let memory = Path::new("/dev/shm");
        let place = match memory.is_dir() {
            true => memory.to_owned(),
            false => env::temp_dir(),
        };
        let keep = tempfile::Builder::new()
            .prefix("custodyd-tpm-")
            .tempdir_in(place)
            .unwrap();
        let tpm = Self {
            dir: keep.path().to_owned(),
            _keep: Some(keep),
            running: Mutex::new(None),
        };
        fs::create_dir(tpm.state()).unwrap();
        let secret: String = (0..4).map(|_| format!("{:016x}", random())).collect();
        fs::write(tpm.secret_file(), secret).unwrap();
        fs::set_permissions(tpm.secret_file(), fs::Permissions::from_mode(0o600)).unwrap();
        tpm.power_on();
        tpm
    }

    /// A TPM made by another process, by its directory.
    #[must_use]
    pub fn attach(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            _keep: None,
            running: Mutex::new(None),
        }
    }

    /// Makes storage key, keys and index, and keeps the name to pin.
    ///
    /// # Panics
    /// Where that is refused.
    pub fn provision(&self, mode: Mode) {
        let options = Options {
            storage_key: None,
            ..self.options(mode)
        };
        let (_, name) = TpmBackend::new(options).provision_storage(false).unwrap();
        fs::write(self.dir.join("storage-key"), name.unwrap()).unwrap();
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What swtpm keeps.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where the backend keeps the records of anchors.
    #[must_use]
    pub fn anchors(&self) -> PathBuf {
        self.dir.join("anchors")
    }

    #[must_use]
    pub fn secret_file(&self) -> PathBuf {
        self.dir.join("secret")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.socket().display())
    }

    /// The name to pin; empty before it was provisioned.
    #[must_use]
    pub fn storage_key(&self) -> String {
        fs::read_to_string(self.dir.join("storage-key")).unwrap_or_default()
    }

    /// Options for the backend, with little patience.
    ///
    /// # Panics
    /// When the file of the secret is gone.
    #[must_use]
    pub fn options(&self, mode: Mode) -> Options {
        let secret = SecretBytes::from(fs::read(self.secret_file()).unwrap());
        let mut options = Options::new(&self.tcti(), secret, self.anchors());
        options.storage_key = Some(self.storage_key());
        options.mode = mode;
        options.start_patience = Duration::from_secs(2);
        options.recovery_pause = Duration::from_millis(200);
        options.nv_writes_per_day = 100_000;
        options
    }

    /// The authorization of an object with this label, computed after FORMAT.md.
    ///
    /// # Panics
    /// When the file of the secret is gone.
    #[must_use]
    pub fn auth(&self, label: &str) -> String {
        let secret = fs::read(self.secret_file()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let input = [b"custodyd/tpm-auth/v1\0", label.as_bytes()].concat();
        let mut auth = hmac::sign(&key, &input).as_ref().to_vec();
        auth[31] |= 0x80;
        format!("hex:{}", hex::encode(auth))
    }

    /// # Panics
    /// When swtpm is missing or does not answer.
    pub fn power_on(&self) {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut child = Command::new("sh")
            .args([
                "-c",
                "swtpm \"$@\" </dev/null & echo; cat >/dev/null; kill -9 $!; wait",
                "sh",
                "socket",
                "--tpm2",
            ])
            .args(["--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={},mode=0600", path("state"))])
            .args(["--server", &format!("type=unixio,path={}", path("s"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("s.ctrl"))])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let give_up = Instant::now() + Duration::from_secs(10);
        let deaf = |socket: &str| UnixStream::connect(self.dir.join(socket)).is_err();
        while deaf("s.ctrl") || deaf("s") {
            assert!(
                Instant::now() < give_up && child.try_wait().unwrap().is_none(),
                "swtpm does not start, and these tests need it: apt install swtpm"
            );
            thread::sleep(Duration::from_millis(2));
        }
        *self.running.lock().unwrap() = Some(child);
    }

    /// The number of swtpm itself.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn process(&self) -> u32 {
        let running = self.running.lock().unwrap();
        let shell = running.as_ref().expect("it has no power").id();
        let children = format!("/proc/{shell}/task/{shell}/children");
        for child in fs::read_to_string(children).unwrap().split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap();
            if name.trim() == "swtpm" {
                return child.parse().unwrap();
            }
        }
        panic!("swtpm has ended");
    }

    /// Kills swtpm: what is not in its state file is gone.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn power_off(&self) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        for socket in ["s", "s.ctrl"] {
            let _ = fs::remove_file(self.dir.join(socket));
        }
    }

    /// A program of tpm2-tools on this TPM.
    ///
    /// # Panics
    /// When it fails.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let output = Command::new(name)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", self.tcti())
            .current_dir(&self.dir)
            .output()
            .unwrap_or_else(|error| panic!("{name}: {error}: apt install tpm2-tools"));
        assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What processes that were killed left in the TPM; a resource manager would do it.
    ///
    /// # Panics
    /// When tpm2-tools fails.
    pub fn flush(&self) {
        self.tool("tpm2_flushcontext", &["--loaded-session"]);
        self.tool("tpm2_flushcontext", &["--transient-object"]);
    }
}

impl Drop for SwTpm {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}
