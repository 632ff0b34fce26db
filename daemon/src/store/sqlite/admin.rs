//! For tests: whoever administers the file, beside the store that believes none of it.

use std::path::Path;
use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Sqlite as Db};

/// A value that a statement of an administrator takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

/// A value that stands in a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Number(i64),
    Bytes(Arc<[u8]>),
}

#[derive(Debug)]
pub(crate) struct Admin(SqliteConnection);

impl Admin {
    pub(crate) async fn open(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file);
        Self(SqliteConnection::connect_with(&options).await.unwrap())
    }

    /// Runs a statement and returns how many rows it changed.
    pub(crate) async fn run(&mut self, sql: &str, values: &[Value<'_>]) -> u64 {
        let done = query(sql, values).execute(&mut self.0).await.unwrap();
        done.rows_affected()
    }

    /// The first two columns of a row: a number and bytes.
    pub(crate) async fn row(&mut self, sql: &str, values: &[Value<'_>]) -> (i64, Vec<u8>) {
        let row = self.fetch(sql, values).await;
        (row.get(0), row.get(1))
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        self.fetch(sql, &[]).await.get(0)
    }

    /// Runs statements as they are.
    pub(crate) async fn script(&mut self, sql: &str) {
        let script = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        script.execute(&mut self.0).await.unwrap();
    }

    /// Makes tables hold exactly these rows, in one transaction.
    pub(crate) async fn replace(&mut self, tables: &[(&str, Vec<&Vec<Cell>>)]) {
        let mut query = sqlx::QueryBuilder::<Db>::new("BEGIN IMMEDIATE;");
        for (table, rows) in tables {
            query.push("DELETE FROM ").push(table).push(";");
            if rows.is_empty() {
                continue;
            }
            query.push("INSERT INTO ").push(table).push(" ");
            query.push_values(rows, |mut values, row| {
                for cell in *row {
                    match cell {
                        Cell::Number(number) => values.push_bind(*number),
                        Cell::Bytes(bytes) => values.push_bind(bytes.to_vec()),
                    };
                }
            });
            query.push(";");
        }
        query.push("COMMIT");
        query.build().execute(&mut self.0).await.unwrap();
    }

    /// Puts a row, in place of one of the same key.
    pub(crate) async fn put(&mut self, table: &str, row: &[Cell]) {
        let mut query = sqlx::QueryBuilder::<Db>::new("INSERT OR REPLACE INTO ");
        query.push(table).push(" VALUES (");
        let mut values = query.separated(", ");
        for cell in row {
            match cell {
                Cell::Number(number) => values.push_bind(*number),
                Cell::Bytes(bytes) => values.push_bind(bytes.to_vec()),
            };
        }
        query.push(")");
        // A trigger of his own may refuse it.
        let _ = query.build().execute(&mut self.0).await;
    }

    /// Deletes the rows in which a column has this value.
    pub(crate) async fn delete(&mut self, table: &str, (column, is): (&str, &Cell)) {
        let mut query = sqlx::QueryBuilder::<Db>::new("DELETE FROM ");
        query.push(table).push(" WHERE ").push(column).push(" = ");
        match is {
            Cell::Number(number) => query.push_bind(*number),
            Cell::Bytes(bytes) => query.push_bind(bytes.to_vec()),
        };
        query.build().execute(&mut self.0).await.unwrap();
    }

    /// All rows; of each column is said whether it holds numbers (`n`) or bytes.
    pub(crate) async fn all(&mut self, sql: &str, kinds: &[u8]) -> Vec<Vec<Cell>> {
        let rows = query(sql, &[]).fetch_all(&mut self.0).await.unwrap();
        let cell = |row: &SqliteRow, at: usize| match kinds[at] {
            b'n' => Cell::Number(row.get(at)),
            _ => Cell::Bytes(row.get::<Vec<u8>, _>(at).into()),
        };
        rows.iter()
            .map(|row| (0..kinds.len()).map(|at| cell(row, at)).collect())
            .collect()
    }

    async fn fetch(&mut self, sql: &str, values: &[Value<'_>]) -> SqliteRow {
        query(sql, values).fetch_one(&mut self.0).await.unwrap()
    }
}

fn query<'q>(sql: &'q str, values: &[Value<'q>]) -> Query<'q, Db, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in values {
        query = match value {
            Value::Number(number) => query.bind(*number),
            Value::Bytes(bytes) => query.bind(bytes.to_vec()),
        };
    }
    query
}
