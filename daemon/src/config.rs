//! The configuration of a daemon: one TOML file, checked as a whole before anything starts.
//!
//! Called by the command line, by start-up and by tests. It reads files and never
//! opens the token, the store or a socket: what needs the outside world to be judged
//! is `custodyd doctor`'s work. Every error carries file, line and column, and all of
//! them are reported at once, so that an operator corrects a file in one round.
//!
//! The configuration is trusted (whoever writes it owns the daemon), but it is never a
//! place for secrets: the token PIN is named by a path or a systemd credential, and no
//! value of a key that might be a secret is repeated in a message.

mod agreed;
mod auditors;
mod check;
mod courier;
mod database;
mod delivery;
mod limits;
mod pin;
mod policies;
mod proxies;
mod reader;
mod replicas;
mod restore;
mod token;
mod witnesses;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use custodyd_hsm::RealmName;
use custodyd_hsm::backend::tpm::Pcrs;

use crate::http::proxy::Proxies;
use crate::ledger::Mode;
use crate::ledger::restore::Approvers;
use crate::private_file::Place;

pub use self::agreed::Agreed;
pub use self::auditors::Auditor;
pub use self::courier::Courier;
pub use self::database::{Database, Postgres, Server, Store};
pub use self::delivery::{Delivery, Email, Sms, SmtpTls};
pub use self::limits::{AppLimit, Limits, MOST_REQUESTS};
pub use self::pin::{PinError, read_token_pin};
pub use self::policies::load_policies;
pub use self::replicas::{PRIMARY, Replica, Replicas};
pub use self::token::DEFAULT_STATE;
pub use self::witnesses::{Witness, Witnesses};

/// A whole, checked configuration. Relative paths are already joined to the folder of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    pub realm: Realm,
    pub listen: Listen,
    pub operator: Operator,
    pub token: Token,
    pub store: Store,
    pub ledger: Ledger,
    pub policies: Policies,
    pub pin: PinCapacity,
    pub delivery: Delivery,
    pub limits: Limits,
    /// `[auditors]`: who may read the log.
    pub auditors: Vec<Auditor>,
    /// `[witnesses]`: who else signs that the log only grows.
    pub witnesses: Witnesses,
    /// `[courier]`: the process through which mail, calls and checkpoints leave; none where they leave
    /// from the one that serves.
    pub courier: Option<Courier>,
    pub log: Log,
}

/// `[realm]`: one deployment, that is one set of token keys and one log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Realm {
    /// Part of everything that is sealed or derived: it can never be changed later.
    pub name: RealmName,
}

/// `[listen]`: the public TLS listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    pub public: SocketAddr,
    /// External base URL as clients write it, without a trailing slash. The `htu` of a
    /// DPoP proof (RFC 9449, section 4.3) is compared with it byte by byte, so it comes
    /// from here and never from a Host header, which the client controls.
    pub url: String,
    /// PEM, the server's certificate first, then the intermediates.
    pub certificate: PathBuf,
    /// PEM, readable by the daemon alone.
    pub private_key: Place,
    pub development: Option<Development>,
    /// Open connections, both listeners together, beyond which new ones wait in the kernel's queue.
    pub max_connections: usize,
    /// How long a stop waits for answers under way.
    pub drain: Duration,
    /// Balancers that say whose a connection is.
    pub proxy_protocol: Proxies,
}

/// `[listen.development]`: plain HTTP for a browser on the same machine, nothing else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Development {
    /// Always a loopback address.
    pub listen: SocketAddr,
    /// Always `http://localhost:PORT`: the only origin without TLS where browsers allow passkeys.
    pub url: String,
}

/// `[operator]`: health, readiness and metrics, for this machine alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operator {
    /// Always a loopback address: this listener asks for no credential.
    pub listen: SocketAddr,
    /// A Unix socket for what an operator does to a daemon that runs.
    pub socket: Option<PathBuf>,
}

/// `[token]`: the token that holds the realm's keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    pub kind: TokenKind,
    /// Exactly one of `pin_file` and `pin_credential` is set.
    pub pin_file: Option<PathBuf>,
    /// Name of a systemd credential (a file in `$CREDENTIALS_DIRECTORY`).
    pub pin_credential: Option<String>,
    /// The manifest of the realm's escrow; where there is one, its keys are made outside of the token.
    pub escrow: Option<PathBuf>,
    pub threads: usize,
    /// Calls that may wait; past it a request is answered "busy".
    pub queue: usize,
    /// For one call, waiting included.
    pub deadline: Duration,
    /// Further tokens with the same keys.
    pub replicas: Replicas,
}

/// What kind of token it is, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenKind {
    Pkcs11 {
        module: PathBuf,
        label: String,
        /// Where several tokens have one label, or the label alone is not enough.
        serial: Option<String>,
    },
    Tpm(Tpm),
}

/// A TPM 2.0.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tpm {
    /// In full, such as `device:/dev/tpmrm0`.
    pub tcti: String,
    /// The name of its storage key, in hexadecimal; none until it was provisioned.
    pub storage_key: Option<String>,
    /// Where the records of anchors are.
    pub state_directory: PathBuf,
    pub handles: u32,
    pub nv_index: u32,
    /// Each HMAC is computed in the TPM.
    pub per_operation: bool,
    /// What the keys are bound to, beside the secret.
    pub pcrs: Option<Pcrs>,
    pub nv_writes_per_day: u32,
}

/// `[ledger]`: when the token is told what the newest state is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ledger {
    pub anchor: Anchor,
    /// How old the token's anchor may be in bounded mode.
    pub anchor_interval: Duration,
    /// Where bounded mode keeps what must outlive the process and not the machine: on a tmpfs.
    pub runtime_directory: PathBuf,
    /// Whether checkpoints carry an Ed25519 line as well, for witnesses and tools that know no other.
    pub public_log: bool,
    /// Within this time, the scrub has verified the whole database once.
    pub scrub_period: Duration,
    /// Who may let the realm go on from an older database.
    pub restore: Approvers,
}

impl Ledger {
    #[must_use]
    pub fn mode(&self) -> Mode<'_> {
        match self.anchor {
            Anchor::Strict => Mode::Strict,
            Anchor::Bounded => Mode::Bounded {
                runtime_directory: &self.runtime_directory,
                interval: self.anchor_interval,
            },
        }
    }

    /// The same for a command that only looks. Where no daemon runs there may be no such directory, and then nothing is
    /// remembered in it.
    #[must_use]
    pub fn mode_to_look(&self) -> Mode<'_> {
        match self.mode() {
            Mode::Bounded {
                runtime_directory, ..
            } if !runtime_directory.try_exists().unwrap_or(true) => Mode::Strict,
            mode => mode,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Anchor {
    /// Every batch, before anything of it is told.
    Strict,
    /// At an interval, and at once where it matters.
    Bounded,
}

/// `[policies]`: one `*.toml` file for each app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policies {
    pub directory: PathBuf,
}

/// `[pin]`: how many Argon2id evaluations run and wait at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinCapacity {
    pub threads: usize,
    pub queue: usize,
}

/// `[log]`: what goes to standard error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter`, such as `info,custodyd=debug`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Human,
    Json,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    pub file: String,
    /// Line and column, both from 1, the column in characters. Zero where the file could not be read at all.
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(
                f,
                "{}:{}:{}: {}",
                self.file, line, self.column, self.message
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with one file, in the order of its lines. Never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads and checks a file. Relative paths in it are relative to its own folder.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let unreadable = |message: String| {
        ConfigErrors(vec![ConfigError {
            file: name.clone(),
            line: 0,
            column: 0,
            message,
        }])
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        unreadable(format!(
            "cannot be read ({error}); name the configuration with --config FILE"
        ))
    })?;
    // An absolute base keeps the paths right whatever the working directory is later.
    let absolute = std::path::absolute(path)
        .map_err(|error| unreadable(format!("no absolute path ({error})")))?;
    let base = absolute.parent().unwrap_or(Path::new("/"));
    parse(&name, &text, base)
}

/// Checks the text of a configuration file. Pure: touches no file.
pub fn parse(file_name: &str, text: &str, base_dir: &Path) -> Result<Config, ConfigErrors> {
    check::config(reader::Document::new(file_name, text), base_dir).map_err(|mut errors| {
        errors.sort_by_key(|error| (error.line, error.column));
        ConfigErrors(errors)
    })
}

#[cfg(test)]
mod tests;
