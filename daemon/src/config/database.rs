//! `[store]`: where the database is: a file, or a PostgreSQL server.
//!
//! Called by `check` only. The address of a server never holds its password, because addresses are
//! shown in logs and messages; and a way to it that others can read is refused, because the password
//! and who is served when would be theirs.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;
use url::Url;

use super::agreed::{Agreed, rollout};
use super::check::{number, path, secret, string};
use super::reader::{Document, Placed, Table};
use super::{Anchor, Ledger, Token, TokenKind};
use crate::private_file::Place;

const DEFAULT_FILE: &str = "/var/lib/custodyd/custodyd.sqlite";
const DEFAULT_STATE: &str = "/var/lib/custodyd";
const DEFAULT_PORT: u16 = 5432;

/// `[store]`: the database, which is not trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Store {
    pub database: Database,
    /// MiB of memory for sealed envelopes that were committed last; zero for none.
    pub cache_mib: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(Box<Postgres>),
}

/// `[store.postgres]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Postgres {
    pub server: Server,
    pub user: String,
    pub database: String,
    pub password: Option<Place>,
    /// PEM: who signs the server's certificate, where the public's authorities do not.
    pub ca: Option<PathBuf>,
    /// Whether other nodes serve the realm from it as well.
    pub several_nodes: bool,
    /// In what this one may differ from them for now.
    pub rollout: Vec<Agreed>,
    /// For reading; one more writes.
    pub connections: u32,
    /// What the daemon keeps beside the database.
    pub state_directory: PathBuf,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Server {
    /// The folder of its Unix socket.
    Socket { folder: PathBuf, port: u16 },
    /// By TLS, unless it is this machine and the configuration says so.
    Host { host: String, port: u16, tls: bool },
}

impl Database {
    /// The path beside which the daemon puts files of its own.
    #[must_use]
    pub fn beside(&self) -> PathBuf {
        match self {
            Self::Sqlite(file) => file.clone(),
            Self::Postgres(postgres) => postgres.state_directory.join("custodyd"),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "{}", file.display()),
            Self::Postgres(postgres) => write!(f, "{postgres}"),
        }
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = &self.database;
        match &self.server {
            Server::Socket { folder, .. } => {
                write!(f, "the database {database} at {}", folder.display())
            }
            Server::Host { host, port, .. } => {
                write!(f, "the database {database} at {host}:{port}")
            }
        }
    }
}

pub(super) fn store<'i>(doc: &mut Document<'i>, top: &mut Table<'i>, base: &Path) -> Store {
    let mut table = doc.table(top, "store");
    let at = table.at();
    let named = table.has("sqlite");
    let file = doc.or(&mut table, "sqlite", PathBuf::from(DEFAULT_FILE), |value| {
        path(value, base)
    });
    let cache_mib = doc.or(&mut table, "cache_mib", 64, |value| {
        number(value, 0..=1 << 20)
    });
    let postgres = doc.optional_table(&mut table, "postgres");
    doc.finish(table);
    let database = match postgres {
        // An unreadable section is an error already noted; `is_clean` stops it.
        Some(inner) => postgres_at(doc, inner, base)
            .map(|postgres| Database::Postgres(Box::new(postgres)))
            .inspect(|_| {
                if named {
                    let message = "store.sqlite: give either this or [store.postgres], not both";
                    doc.error(at, message.to_owned());
                }
            }),
        None => None,
    };
    Store {
        database: database.unwrap_or(Database::Sqlite(file)),
        cache_mib,
    }
}

fn postgres_at<'i>(doc: &mut Document<'i>, mut table: Table<'i>, base: &Path) -> Option<Postgres> {
    let url = doc.required(
        &mut table,
        "url",
        "where the server is, such as \"postgres://custodyd@db.example/custodyd\"",
        address,
    );
    let password = secret(
        doc,
        &mut table,
        ("password_file", "password_credential"),
        |value| path(value, base),
    );
    let ca = doc.optional(&mut table, "ca", |value| path(value, base));
    let several_nodes = doc.or(&mut table, "nodes", false, |value| match string(value)? {
        "one" => Ok(false),
        "several" => Ok(true),
        _ => Err("expected \"one\" or \"several\"".to_owned()),
    });
    let rollout = doc.or(&mut table, "rollout", Vec::new(), rollout);
    let connections = doc.or(&mut table, "connections", 4, |value| number(value, 1..=256));
    let state_directory = doc.or(
        &mut table,
        "state_directory",
        PathBuf::from(DEFAULT_STATE),
        |value| path(value, base),
    );
    doc.finish(table);
    let (server, user, database) = url?.value;
    Some(Postgres {
        server,
        user,
        database,
        password: match password {
            None => None,
            Some(place) => Some(place?),
        },
        ca: ca.map(|placed| placed.value),
        several_nodes,
        rollout,
        connections: u32::try_from(connections).unwrap_or(u32::MAX),
        state_directory,
    })
}

/// Several nodes agree on what is the newest by the objects of one token that all of them see.
pub(super) fn nodes_suit(
    doc: &mut Document<'_>,
    token: Option<&Placed<Token>>,
    (store, ledger): (&Store, &Ledger),
) {
    let several = matches!(&store.database, Database::Postgres(place) if place.several_nodes);
    let (Some(Placed { value, at }), true) = (token, several) else {
        return;
    };
    let mut refuse = |why: &str| {
        doc.error(
            *at,
            format!("store.postgres.nodes: with several nodes, {why}"),
        );
    };
    if ledger.anchor != Anchor::Strict {
        refuse(
            "ledger.anchor must be \"strict\": what one node remembers on its own host, no other one can see",
        );
    }
    let tokens = value.each();
    if tokens
        .iter()
        .any(|(_, token)| matches!(token.kind, TokenKind::Tpm(_)))
    {
        refuse(
            "the token can not be a TPM: it is of one host, and each node would be the newest by its own",
        );
    }
    if tokens.len() > 1 {
        refuse(
            "there is one token, without [token.replicas]: nodes that see different ones would give up each \
             other's",
        );
    }
}

type Address = (Server, String, String);

/// What is wrong is said without the text, in which somebody may have put a password.
fn address(value: &DeValue<'_>) -> Result<Address, String> {
    let shape = "an address such as \"postgres://custodyd@db.example/custodyd\", or \
                 \"postgres://custodyd@/custodyd?host=/run/postgresql\" for a Unix socket";
    let text = string(value)?;
    // The crate wants a host where there is a user.
    let whole = match text.split_once('@') {
        Some((user, rest)) if rest.starts_with(['/', ':']) => format!("{user}@socket{rest}"),
        _ => text.to_owned(),
    };
    let url = Url::parse(&whole).map_err(|_| format!("expected {shape}"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") || url.fragment().is_some() {
        return Err(format!("expected {shape}"));
    }
    if url.password().is_some() {
        return Err("the password is never written in the configuration; put it in a file of its own with mode \
                    0600 and name that as store.postgres.password_file"
            .to_owned());
    }
    let user = plain(url.username(), "the user")?;
    let database = plain(url.path().trim_start_matches('/'), "the database")?;
    let (mut folder, mut tls) = (None, None);
    for (key, value) in url.query_pairs() {
        match (&*key, &*value) {
            ("host", path) if path.starts_with('/') && folder.is_none() => {
                folder = Some(PathBuf::from(path));
            }
            ("sslmode", "verify-full") if tls.is_none() => tls = Some(true),
            ("sslmode", "disable") if tls.is_none() => tls = Some(false),
            ("sslmode", _) => {
                return Err("sslmode: expected verify-full, which is the default, or disable for a server on \
                            this machine: every other mode believes whoever answers"
                    .to_owned());
            }
            _ => {
                return Err(format!(
                    "expected {shape}; of parameters there are host=/FOLDER and sslmode"
                ));
            }
        }
    }
    let port = url.port().unwrap_or(DEFAULT_PORT);
    let host = url.host_str().filter(|_| whole == text);
    let server = match (host, folder) {
        (None, Some(folder)) if tls.is_none() => Server::Socket { folder, port },
        (Some(host), None) => Server::Host {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls: tls.unwrap_or(true),
        },
        _ => {
            return Err(format!(
                "expected {shape}: a host, or the folder of a socket and no sslmode"
            ));
        }
    };
    match &server {
        Server::Host { host, tls: false, .. } if !is_here(host) => Err(
            "sslmode=disable: only for a server on this machine (localhost, 127.0.0.1, ::1); over a network, \
             others would read the password"
                .to_owned(),
        ),
        _ => Ok((server, user, database)),
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Names that need no quoting anywhere.
fn plain(text: &str, what: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !(1..=63).contains(&text.len()) || !text.bytes().all(fits) {
        return Err(format!(
            "{what}: expected 1 to 63 letters, digits, dots, hyphens and underscores, as in \
             \"postgres://USER@HOST/DATABASE\""
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Address, String> {
        address(&DeValue::String(text.into()))
    }

    fn host(text: &str) -> (String, u16, bool) {
        match read(text).unwrap().0 {
            Server::Host { host, port, tls } => (host, port, tls),
            other @ Server::Socket { .. } => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_server_is_reached_by_tls_or_within_this_machine() {
        assert_eq!(
            host("postgres://c@db.example/k"),
            ("db.example".into(), 5432, true)
        );
        assert_eq!(
            host("postgresql://c@db.example:6432/k?sslmode=verify-full"),
            ("db.example".into(), 6432, true)
        );
        for here in ["localhost", "127.0.0.1", "[::1]"] {
            let (_, _, tls) = host(&format!("postgres://c@{here}/k?sslmode=disable"));
            assert!(!tls);
        }
        let (server, user, database) = read("postgres://c@/k?host=/run/postgresql").unwrap();
        let folder = PathBuf::from("/run/postgresql");
        assert_eq!(server, Server::Socket { folder, port: 5432 });
        let (server, ..) = read("postgres://c@:6432/k?host=/run").unwrap();
        let folder = PathBuf::from("/run");
        assert_eq!(server, Server::Socket { folder, port: 6432 });
        assert_eq!((&*user, &*database), ("c", "k"));
    }

    #[test]
    fn what_others_could_read_or_pretend_is_refused_and_no_password_repeated() {
        for (text, what) in [
            ("postgres://c:hunter2@db.example/k", "never written"),
            (
                "postgres://c@db.example/k?sslmode=disable",
                "only for a server on this machine",
            ),
            (
                "postgres://c@db.example/k?sslmode=require",
                "believes whoever answers",
            ),
            (
                "postgres://c@db.example/k?sslmode=prefer",
                "believes whoever answers",
            ),
            (
                "postgres://c@db.example/k?password=hunter2",
                "of parameters there are",
            ),
            (
                "postgres://c@db.example/k?host=/run",
                "a host, or the folder",
            ),
            ("postgres://c@/k", "a host, or the folder"),
            (
                "postgres://c@/k?host=/run&sslmode=disable",
                "a host, or the folder",
            ),
            ("postgres://db.example/k", "the user"),
            ("postgres://c@db.example", "the database"),
            ("postgres://c@db.example/a/b", "the database"),
            ("mysql://c@db.example/k", "an address such as"),
            ("hunter2", "an address such as"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_whatever_is_read_is_safe(text in "(postgres://)?[a-c:@/?=&.\\[\\]0-9]{0,40}(\\?sslmode=disable)?") {
            if let Ok((Server::Host { host, tls, .. }, ..)) = read(&text) {
                prop_assert!(tls || is_here(&host), "{}", host);
            }
        }
    }
}
