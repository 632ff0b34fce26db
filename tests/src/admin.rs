//! The adversary with the database: reads and writes any row, behind the daemon's back.

use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::PostgresServer;

/// Of a file or of a server; statements are written as SQLite has them.
#[derive(Debug)]
pub enum Admin {
    File(SqliteConnection),
    Server(PgConnection),
}

/// Runs one of the driver's calls on either kind of database.
macro_rules! either {
    ($self:expr, $sql:expr, |$connection:ident, $text:ident| $call:expr) => {
        match $self {
            Admin::File($connection) => {
                let $text = AssertSqlSafe($sql.to_owned());
                $call
            }
            Admin::Server($connection) => {
                let $text = AssertSqlSafe(as_postgres(&$sql));
                $call
            }
        }
    };
}

impl Admin {
    pub async fn open(database: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .foreign_keys(false)
            .pragma("writable_schema", "ON");
        Self::File(SqliteConnection::connect_with(&options).await.unwrap())
    }

    /// At a server's database of this name.
    pub async fn at(server: &PostgresServer, database: &str) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(server.folder())
            .port(server.port())
            .username(crate::postgres::USER)
            .database(database)
            .options([("search_path", "custodyd")]);
        Self::Server(PgConnection::connect_with(&options).await.unwrap())
    }

    /// Runs statements and returns how many rows they changed.
    pub async fn run(&mut self, sql: &str) -> u64 {
        either!(self, sql, |connection, sql| {
            let done = sqlx::raw_sql(sql).execute(connection).await;
            done.unwrap().rows_affected()
        })
    }

    /// Lets go of the file: what was written stands in it, not beside it.
    pub async fn close(self) {
        match self {
            Self::File(connection) => connection.close().await.unwrap(),
            Self::Server(connection) => connection.close().await.unwrap(),
        }
    }

    /// Every record that is an account, oldest first (on a server, the one written last is the last):
    /// (id, generation, sealed).
    pub async fn accounts(&mut self) -> Vec<(Vec<u8>, i64, Vec<u8>)> {
        let order = match self {
            Self::File(_) => "rowid",
            Self::Server(_) => "xmin::text::bigint",
        };
        let sql = format!("SELECT id, generation, sealed FROM records ORDER BY {order}");
        // The first row is the realm's own record.
        either!(self, sql, |connection, sql| {
            let rows = sqlx::query(sql).fetch_all(connection).await.unwrap();
            let rows = rows.into_iter().skip(1);
            rows.map(|row| (row.get(0), row.get(1), row.get(2)))
                .collect()
        })
    }

    pub async fn count(&mut self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        either!(self, sql, |connection, sql| {
            sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
        })
    }

    /// What a statement gives, a number.
    pub async fn number(&mut self, sql: &str) -> i64 {
        either!(self, sql, |connection, sql| {
            sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
        })
    }

    pub async fn blob(&mut self, sql: &str) -> Vec<u8> {
        either!(self, sql, |connection, sql| {
            sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
        })
    }
}

/// The little of SQLite's dialect that the tests use, in PostgreSQL's.
fn as_postgres(sql: &str) -> String {
    let mut parts = sql.split("x'");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (bytes, rest) = part.split_once('\'').unwrap();
        text.push_str(&format!("'\\x{bytes}'::bytea{rest}"));
    }
    zeros(&text).replace("BEGIN IMMEDIATE", "BEGIN")
}

/// What `zeroblob` gives.
fn zeros(sql: &str) -> String {
    const ZEROS: &str = "zeroblob(";
    let Some(at) = sql.find(ZEROS) else {
        return sql.to_owned();
    };
    let (before, after) = (&sql[..at], &sql[at + ZEROS.len()..]);
    let mut open = 1;
    let end = after.find(|c| {
        open += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        open == 0
    });
    let (size, rest) = after.split_at(end.unwrap());
    format!("{before}decode(repeat('00', {size}), 'hex'{}", zeros(rest))
}

/// Bytes as an SQL literal.
#[must_use]
pub fn literal(bytes: &[u8]) -> String {
    format!("x'{}'", hex::encode(bytes))
}
