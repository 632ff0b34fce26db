//! For tests: where the database of a test is, and whoever administers it, beside the store that
//! believes none of it. A file, or a server where the tests run with `CUSTODYD_TEST_STORE=postgres`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::postgres::admin as server;
use super::postgres::server::{PostgresServer, USER};
use super::sqlite::admin as file;
use super::{Exclusive, Postgres, Share, Sqlite, Store, StoreError};
use crate::config;

pub(crate) use super::sqlite::admin::{Cell, Value};

/// Names databases of a process.
static NAMED: AtomicUsize = AtomicUsize::new(0);

fn name() -> String {
    format!("test{}", NAMED.fetch_add(1, Ordering::SeqCst))
}

/// Where a test's database is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    File(PathBuf),
    Server(Arc<PostgresServer>, Box<config::Postgres>),
}

/// A whole database, kept beside.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Files(Vec<Vec<u8>>),
    Database(String),
}

impl Place {
    /// With nothing there yet.
    pub(crate) fn of(dir: &Path) -> Self {
        match std::env::var("CUSTODYD_TEST_STORE") {
            Ok(_) => Self::on(Arc::new(PostgresServer::start())),
            Err(_) => Self::File(dir.join("a.sqlite")),
        }
    }

    /// Another database on a server.
    pub(crate) fn on(server: Arc<PostgresServer>) -> Self {
        let database = name();
        server.create(&database, "template0");
        let place = config::Postgres {
            server: config::Server::Socket {
                folder: server.folder().to_owned(),
                port: server.port(),
            },
            user: USER.into(),
            database,
            password: None,
            ca: None,
            several_nodes: false,
            rollout: Vec::new(),
            connections: 2,
            state_directory: server.folder().to_owned(),
        };
        Self::Server(server, Box::new(place))
    }

    /// A database that several nodes share, on a server of its own.
    pub(crate) fn shared_by_nodes() -> Self {
        match Self::on(Arc::new(PostgresServer::start())) {
            Self::Server(server, place) => Self::Server(
                server,
                Box::new(config::Postgres {
                    several_nodes: true,
                    ..*place
                }),
            ),
            file @ Self::File(_) => file,
        }
    }

    /// The same, for whoever wants it for themselves.
    pub(crate) fn alone(&self) -> Self {
        let mut place = self.clone();
        if let Self::Server(_, place) = &mut place {
            place.several_nodes = false;
        }
        place
    }

    /// A copy of it under another name, while nobody is connected.
    pub(crate) fn copied(&self) -> Self {
        match (self, self.keep()) {
            (Self::Server(server, place), Kept::Database(database)) => Self::Server(
                Arc::clone(server),
                Box::new(config::Postgres {
                    database,
                    ..(**place).clone()
                }),
            ),
            _ => panic!("this test is of a server"),
        }
    }

    /// Another such place, in this folder or on the same server.
    pub(crate) fn another(&self, dir: &Path) -> Self {
        match self {
            Self::File(_) => Self::File(dir.join("a.sqlite")),
            Self::Server(server, _) => Self::on(Arc::clone(server)),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        match self {
            Self::File(file) => file.clone(),
            Self::Server(..) => panic!("this test is of a file"),
        }
    }

    /// Makes the tables.
    pub(crate) async fn create(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::File(file) => Arc::new(Sqlite::create(Exclusive::take(file)?).await?),
            Self::Server(_, place) => {
                let mut held = Postgres::hold(place, Share::Alone).await?;
                held.make().await?;
                Arc::new(Postgres::open(held, place).await?)
            }
        })
    }

    pub(crate) async fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Self::File(file) => Box::new(Sqlite::open(Exclusive::take(file)?).await?),
            Self::Server(_, place) => {
                let share = match place.several_nodes {
                    true => Share::Among,
                    false => Share::Alone,
                };
                let held = Postgres::hold(place, share).await?;
                Box::new(Postgres::open(held, place).await?)
            }
        })
    }

    /// The database as it is, while nobody is connected.
    pub(crate) fn keep(&self) -> Kept {
        match self {
            Self::File(file) => {
                let files = ["", "-wal"].map(|suffix| std::fs::read(beside(file, suffix)));
                Kept::Files(files.map(Result::unwrap_or_default).to_vec())
            }
            Self::Server(server, place) => {
                let copy = name();
                server.create(&copy, &place.database);
                Kept::Database(copy)
            }
        }
    }

    /// Puts it back whole.
    pub(crate) fn put_back(&self, kept: &Kept) {
        match (self, kept) {
            (Self::File(file), Kept::Files(files)) => {
                let _ = std::fs::remove_file(beside(file, "-shm"));
                for (suffix, bytes) in ["", "-wal"].iter().zip(files) {
                    std::fs::write(beside(file, suffix), bytes).unwrap();
                }
            }
            (Self::Server(server, place), Kept::Database(copy)) => {
                let drop = format!("DROP DATABASE {} WITH (FORCE)", place.database);
                server.sql("postgres", &drop);
                server.create(&place.database, copy);
            }
            _ => panic!("kept of a database of the other kind"),
        }
    }

    pub(crate) async fn admin(&self) -> Admin {
        match self {
            Self::File(file) => Admin::File(file::Admin::open(file).await),
            Self::Server(server, place) => {
                Admin::Server(server::Admin::open(server, &place.database).await)
            }
        }
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Statements are written as SQLite has them.
#[derive(Debug)]
pub(crate) enum Admin {
    File(file::Admin),
    Server(server::Admin),
}

/// Asks whichever it is.
macro_rules! ask {
    ($self:expr, $method:ident($($argument:expr),*)) => {
        match $self {
            Self::File(admin) => admin.$method($($argument),*).await,
            Self::Server(admin) => admin.$method($($argument),*).await,
        }
    };
}

impl Admin {
    /// Runs a statement and returns how many rows it changed.
    pub(crate) async fn run(&mut self, sql: &str, values: &[Value<'_>]) -> u64 {
        ask!(self, run(sql, values))
    }

    /// The first two columns of a row: a number and bytes.
    pub(crate) async fn row(&mut self, sql: &str, values: &[Value<'_>]) -> (i64, Vec<u8>) {
        ask!(self, row(sql, values))
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        ask!(self, number(sql))
    }

    /// Runs statements as they are.
    pub(crate) async fn script(&mut self, sql: &str) {
        ask!(self, script(sql));
    }

    /// Makes tables hold exactly these rows, in one transaction.
    pub(crate) async fn replace(&mut self, tables: &[(&str, Vec<&Vec<Cell>>)]) {
        ask!(self, replace(tables));
    }

    /// Puts a row, in place of one of the same key.
    pub(crate) async fn put(&mut self, table: &str, row: &[Cell]) {
        ask!(self, put(table, row));
    }

    /// Deletes the rows in which a column has this value.
    pub(crate) async fn delete(&mut self, table: &str, which: (&str, &Cell)) {
        ask!(self, delete(table, which));
    }

    /// All rows; of each column is said whether it holds numbers (`n`) or bytes.
    pub(crate) async fn all(&mut self, sql: &str, kinds: &[u8]) -> Vec<Vec<Cell>> {
        ask!(self, all(sql, kinds))
    }
}
