//! The adversary with the database: reads and writes any row, behind the daemon's back.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

#[derive(Debug)]
pub struct Admin(SqliteConnection);

impl Admin {
    pub async fn open(database: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .foreign_keys(false)
            .pragma("writable_schema", "ON");
        Self(SqliteConnection::connect_with(&options).await.unwrap())
    }

    /// Runs statements and returns how many rows the last one changed.
    pub async fn run(&mut self, sql: &str) -> u64 {
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut self.0)
            .await
            .unwrap()
            .rows_affected()
    }

    /// Lets go of the file: what was written stands in it, not beside it.
    pub async fn close(self) {
        self.0.close().await.unwrap();
    }

    /// Every record that is an account, oldest first: (id, generation, sealed).
    pub async fn accounts(&mut self) -> Vec<(Vec<u8>, i64, Vec<u8>)> {
        // The first row is the realm's own record.
        sqlx::query("SELECT id, generation, sealed FROM records ORDER BY rowid")
            .fetch_all(&mut self.0)
            .await
            .unwrap()
            .into_iter()
            .skip(1)
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }

    pub async fn count(&mut self, table: &str) -> i64 {
        sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut self.0)
            .await
            .unwrap()
            .get(0)
    }

    pub async fn blob(&mut self, sql: &str) -> Vec<u8> {
        sqlx::query(AssertSqlSafe(sql))
            .fetch_one(&mut self.0)
            .await
            .unwrap()
            .get(0)
    }
}

/// Bytes as an SQL literal.
#[must_use]
pub fn literal(bytes: &[u8]) -> String {
    format!("x'{}'", hex::encode(bytes))
}
