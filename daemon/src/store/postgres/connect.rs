//! Connections: how they are made, what each is held to, and the one that writes.
//!
//! Called by the store beside it. Whatever a server, a role or the environment sets for connections
//! is set here again. Must never show the password: the driver's own options would.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::{LOCKING, StoreError};
use super::answers::within;
use super::clocks::Clocks;
use super::schema;
use crate::clock::Clock;
use crate::config;
use crate::private_file;

/// Names this use of the database, among all that may lock something in it: "cstd", and 1.
const LOCK: i64 = 0x6373_7464_0000_0001;
/// Our schema, and a session's own tables last, which are first where they are not named.
const SEARCHED: &str = "custodyd,pg_temp";
const AGAIN: Duration = Duration::from_millis(50);
const MAX_PASSWORD: usize = 1024;

/// How to reach the server.
#[derive(Clone)]
pub(super) struct Server {
    options: PgConnectOptions,
    shown: String,
    /// The process at the server that the last connection that wrote had.
    ours: Arc<AtomicI32>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Server {
    pub(super) fn new(place: &config::Postgres) -> Result<Self, StoreError> {
        let refused = |problem: String| StoreError::Refused {
            operation: "connect to the database",
            problem,
        };
        // sqlx reads them, and offers no way to leave out what they add.
        let added = ["PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGOPTIONS"];
        if let Some(name) = added.iter().find(|name| std::env::var_os(name).is_some()) {
            return Err(refused(format!(
                "{name} is set in the environment: unset it, the configuration says all there is to say"
            )));
        }
        let mut options = PgConnectOptions::new_without_pgpass()
            .username(&place.user)
            .database(&place.database)
            .password("")
            .application_name("custodyd");
        options = match &place.server {
            config::Server::Socket { folder, port } => options
                .host("localhost")
                .socket(folder)
                .port(*port)
                .ssl_mode(PgSslMode::Disable),
            config::Server::Host { host, port, tls } => {
                let mode = match tls {
                    true => PgSslMode::VerifyFull,
                    false => PgSslMode::Disable,
                };
                options.host(host).port(*port).ssl_mode(mode)
            }
        };
        if let Some(password) = &place.password {
            let (path, access) = password.locate().map_err(|e| refused(e.to_string()))?;
            let bytes = private_file::read(&path, access, MAX_PASSWORD)
                .map_err(|e| refused(e.to_string()))?;
            let text = std::str::from_utf8(&bytes)
                .map(|text| text.trim_end_matches(['\r', '\n']))
                .map_err(|_| refused(format!("{}: is not text", path.display())))?;
            options = options.password(text);
        }
        if let Some(ca) = &place.ca {
            let pem = std::fs::read(ca).map_err(|e| refused(format!("{}: {e}", ca.display())))?;
            options = options.ssl_root_cert_from_pem(pem);
        }
        Ok(Self {
            // Whatever else a statement says of us in a log of the server's, it holds no values.
            options: options.disable_statement_logging(),
            shown: place.to_string(),
            ours: Arc::default(),
        })
    }

    /// For the pool of those who read. A statement that goes over much has its time.
    pub(super) fn reading(&self) -> PgConnectOptions {
        self.options.clone().options(settings().chain([
            ("default_transaction_read_only", "on"),
            ("default_transaction_isolation", "repeatable read"),
            ("statement_timeout", "120s"),
        ]))
    }

    /// The connection that writes has no `statement_timeout`: it would end the wait for a synchronous
    /// standby within a COMMIT, which is then answered as if the standby had it. We wait by our own clock.
    async fn connect(&self, clocks: Clocks) -> Result<PgConnection, StoreError> {
        let options = self.options.clone().options(settings().chain([
            ("default_transaction_read_only", "off"),
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", "0"),
            ("lock_timeout", "3s"),
            ("idle_in_transaction_session_timeout", "20s"),
        ]));
        let operation = "connect to the database";
        let mut connection = within(operation, options.connect()).await?;
        suits(&mut connection, clocks).await?;
        Ok(connection)
    }
}

/// Durable means durable, and a server that has doubts of it says so (`notices`); names are looked for in our schema
/// alone (and in the server's own, first); and a server that does not hear from us any more lets go of what we hold.
fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("search_path", SEARCHED),
        ("synchronous_commit", "on"),
        ("client_min_messages", "warning"),
        ("client_connection_check_interval", "2s"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "10s"),
        ("bytea_output", "hex"),
        ("jit", "off"),
    ]
    .into_iter()
}

/// What a server has to be, for it to be of any use.
async fn suits(connection: &mut PgConnection, clocks: Clocks) -> Result<(), StoreError> {
    let operation = "look at the server";
    let before = Clock::of_this_host();
    let asked = sqlx::query_as(
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('synchronous_commit'), \
         pg_catalog.current_setting('fsync') = 'on' AND pg_catalog.current_setting('full_page_writes') = 'on', \
         extract(epoch FROM pg_catalog.clock_timestamp())::bigint",
    );
    let (standby, commit, kept, time): (bool, String, bool, i64) =
        within(operation, asked.fetch_one(&mut *connection)).await?;
    let refused = |problem: &str| {
        Err(StoreError::Refused {
            operation,
            problem: problem.to_owned(),
        })
    };
    if standby {
        return refused("the server is a standby, which can not write: name the primary");
    }
    if !matches!(commit.as_str(), "on" | "remote_apply") {
        return refused("synchronous_commit is not on, though it was asked for");
    }
    if !kept {
        tracing::warn!(
            "the database's server runs with fsync or full_page_writes off: when its host loses power it \
             loses what was answered, and this realm is refused then"
        );
    }
    let host = (before, Clock::of_this_host());
    clocks.compare(host, u64::try_from(time).unwrap_or_default())
}

/// By the server's word, for a sentence and nothing else.
const HOLDER: &str = "SELECT l.pid, coalesce('from ' || pg_catalog.host(a.client_addr), 'by a socket') AS way, \
    coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - a.backend_start)::bigint, 0) AS age \
    FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
    AND (l.classid::bigint << 32 | l.objid::bigint) = $1 AND l.pid <> pg_catalog.pg_backend_pid() \
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
    ORDER BY a.backend_start LIMIT 1";

/// Whose connection keeps us from writing. One that has lost its host keeps the lock until the server misses it.
async fn holder(connection: &mut PgConnection, server: &Server) -> String {
    let asked = sqlx::query_as(HOLDER).bind(LOCK);
    let asked = within(LOCKING, asked.fetch_optional(connection)).await;
    let Ok(Some((process, way, age))): Result<Option<(i32, String, i64)>, _> = asked else {
        return " (which has let go just now: try again)".to_owned();
    };
    if process == server.ours.load(Ordering::Acquire) {
        return format!(
            " or by this one's own connection before (process {process} of the server), which the server has not missed \
             yet: that takes 15 seconds at the most, and it is tried again"
        );
    }
    format!(
        " (process {process} of the server, connected {way} {age} s ago: where no custodyd runs there any more, the server \
         misses it within 15 seconds)"
    )
}

/// Who else may have the right to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nobody.
    Alone,
    /// Other nodes of the realm: nobody, as long as one wants to be alone.
    Among,
}

/// The right to write: one process at a time, or nodes that take turns. The server gives it to one connection and takes it
/// back when that ends. It only spares two processes each other's refusals: what keeps their writes
/// apart is the head's number, which each commit demands, because the server is not believed.
#[derive(Debug)]
pub struct Held {
    pub(super) connection: PgConnection,
    pub(super) server: Server,
    pub(super) share: Share,
}

impl Held {
    /// The first of a process, which has done nothing yet. Waits so long for another who lets go.
    pub(super) async fn begin(
        server: Server,
        share: Share,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let connection = server.connect(Clocks::at_a_start(share)).await?;
        Self::locked(connection, server, share, patience).await
    }

    /// One in place of another that was lost.
    pub(super) async fn take(
        server: Server,
        share: Share,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let connection = server.connect(Clocks::ToldOf).await?;
        Self::locked(connection, server, share, patience).await
    }

    async fn locked(
        mut connection: PgConnection,
        server: Server,
        share: Share,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let operation = LOCKING;
        let until = tokio::time::Instant::now() + patience;
        loop {
            let asked = match share {
                Share::Alone => "SELECT pg_catalog.pg_try_advisory_lock($1)",
                Share::Among => "SELECT pg_catalog.pg_try_advisory_lock_shared($1)",
            };
            let asked = sqlx::query_scalar(asked).bind(LOCK);
            if within(operation, asked.fetch_one(&mut connection)).await? {
                let process = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()");
                let process = within(operation, process.fetch_one(&mut connection)).await?;
                server.ours.store(process, Ordering::Release);
                return Ok(Self {
                    connection,
                    server,
                    share,
                });
            }
            if tokio::time::Instant::now() >= until {
                let holder = holder(&mut connection, &server).await;
                let _ = connection.close().await;
                return Err(StoreError::Refused {
                    operation,
                    problem: match share {
                        Share::Alone => format!(
                            "{} is held by another custodyd{holder}; stop it first (this needs the database for itself: \
                             nodes that share one say store.postgres.nodes = \"several\")",
                            server.shown
                        ),
                        Share::Among => format!(
                            "{} is held by another custodyd that wants it for itself{holder}; stop it first (every node \
                             that shares it says store.postgres.nodes = \"several\")",
                            server.shown
                        ),
                    },
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether a realm stands in the database: its first batch was written.
    ///
    /// # Errors
    /// When the server does not answer, or something else than our tables stands there.
    pub async fn is_founded(&mut self) -> Result<bool, StoreError> {
        if !schema::exists(&mut self.connection).await? {
            return Ok(false);
        }
        let checked = schema::check(&mut self.connection).await?;
        let sql = "SELECT EXISTS (SELECT FROM head)";
        let asked = sqlx::query_scalar(sql);
        let founded = within("look for a realm", asked.fetch_one(&mut self.connection)).await?;
        match founded {
            true => Ok(true),
            false => checked.exactly().map(|()| false),
        }
    }

    /// Makes the tables, where they are not there.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn make(&mut self) -> Result<(), StoreError> {
        schema::make(&mut self.connection).await
    }
}

/// Checks a connection of the pool before its first use.
pub(super) async fn checked(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let checked = schema::check(connection).await;
    checked.map(drop).map_err(|error| match error {
        StoreError::Unavailable { source, .. } => source,
        other => sqlx::Error::Configuration(other.into()),
    })
}

/// Ends a connection, and tells the server so.
pub(super) async fn close(connection: PgConnection) {
    let _ = within("disconnect", connection.close()).await;
}
