//! A real mail server on loopback (aiosmtpd, in a process of its own), for tests that read the
//! codes and notices that the daemon sends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::app::{certificates, free_port};

/// Debian's own Python: its packages are not seen by another one in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// How the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Starttls,
    Implicit,
    None,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Starttls => "starttls",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    pub to: String,
    pub subject: String,
    pub body: String,
    /// Everything else: `from`, `recipients`, `headers` (lower case), `tls`, `user`.
    pub more: Value,
}

/// Takes every mail, except those for `refused@...` (550) and the first for `later@...` (451).
#[derive(Debug)]
pub struct MailServer {
    dir: TempDir,
    port: u16,
    mode: Mode,
    login: Option<(String, String)>,
    taken: Arc<Mutex<Vec<Mail>>>,
    child: Option<Child>,
}

impl MailServer {
    /// STARTTLS demanded, with a certificate for localhost.
    #[must_use]
    pub fn start() -> Self {
        let mut server = Self::prepared(Mode::Starttls, None);
        server.run();
        server
    }

    /// Has its port and its certificate, and does not run yet.
    #[must_use]
    pub fn prepared(mode: Mode, login: Option<(&str, &str)>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("custodyd-mail-")
            .tempdir()
            .unwrap();
        let authority = certificates(dir.path());
        std::fs::write(dir.path().join("authority.pem"), authority).unwrap();
        if let Some((_, password)) = login {
            private(&dir.path().join("password"), password);
        }
        Self {
            dir,
            port: free_port(),
            mode,
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
            taken: Arc::default(),
            child: None,
        }
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// With the package to install, when it does not start.
    pub fn run(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mail_server.py");
        let mut command = Command::new(PYTHON);
        command
            .arg(script)
            .args([&self.port.to_string(), self.mode.name()])
            .arg(self.dir.path().join("certificate.pem"))
            .arg(self.dir.path().join("private-key.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some((user, password)) = &self.login {
            command.args([user, password]);
        }
        let missing =
            "the mail server did not start, and these tests need it: apt install python3-aiosmtpd";
        let mut child = command.spawn().expect(missing);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.child = Some(child);
        let (ready, started) = mpsc::channel();
        let taken = Arc::clone(&self.taken);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line == "ready" {
                    let _ = ready.send(());
                } else {
                    taken.lock().unwrap().push(mail(&line));
                }
            }
        });
        let started = started.recv_timeout(Duration::from_secs(20));
        assert!(started.is_ok(), "{missing}");
    }

    /// The section of a configuration that sends mail here.
    #[must_use]
    pub fn config(&self) -> String {
        let login = match &self.login {
            Some((user, _)) => format!(
                "username = \"{user}\"\npassword_file = \"{}\"\n",
                self.password_file().display()
            ),
            None => String::new(),
        };
        format!(
            "[delivery.email]\nhost = \"localhost\"\nport = {}\ntls = \"{}\"\n\
             from = \"Custody <custody@example.com>\"\nca_file = \"{}\"\n{login}",
            self.port,
            self.mode.name(),
            self.authority().display()
        )
    }

    /// The PEM file of the authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// Every mail that was taken so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits until `count` mails have come.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for(&self, count: usize) -> Vec<Mail> {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(Instant::now() < give_up, "only {received:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn mail(line: &str) -> Mail {
    let more: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| more[name].as_str().unwrap().to_owned();
    Mail {
        to: text("to"),
        subject: text("subject"),
        body: text("body"),
        more,
    }
}

/// A file with a secret, as the daemon accepts it.
fn private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
