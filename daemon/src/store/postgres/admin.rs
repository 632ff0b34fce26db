//! For tests: whoever administers the server. Statements are written as SQLite has them.

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Postgres as Db, QueryBuilder, Row as _};

use super::super::sqlite::admin::{Cell, Value};
use super::server::{PostgresServer, USER};

#[derive(Debug)]
pub(crate) struct Admin(PgConnection);

impl Admin {
    pub(crate) async fn open(server: &PostgresServer, database: &str) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(server.folder())
            .port(server.port())
            .username(USER)
            .database(database)
            .options([("search_path", "custodyd")]);
        Self(PgConnection::connect_with(&options).await.unwrap())
    }

    pub(crate) async fn run(&mut self, sql: &str, values: &[Value<'_>]) -> u64 {
        let sql = translated(sql);
        let done = query(&sql, values).execute(&mut self.0).await.unwrap();
        done.rows_affected()
    }

    pub(crate) async fn row(&mut self, sql: &str, values: &[Value<'_>]) -> (i64, Vec<u8>) {
        let sql = translated(sql);
        let row = query(&sql, values).fetch_one(&mut self.0).await.unwrap();
        (row.get(0), row.get(1))
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        let sql = translated(sql);
        let row = query(&sql, &[]).fetch_one(&mut self.0).await.unwrap();
        row.try_get(0)
            .unwrap_or_else(|_| i64::from(row.get::<i32, _>(0)))
    }

    pub(crate) async fn script(&mut self, sql: &str) {
        let script = sqlx::raw_sql(AssertSqlSafe(translated(sql)));
        script.execute(&mut self.0).await.unwrap();
    }

    pub(crate) async fn replace(&mut self, tables: &[(&str, Vec<&Vec<Cell>>)]) {
        let mut transaction = self.0.begin().await.unwrap();
        // In the order in which a daemon that is about to write takes its locks: it has the head's row first.
        let first = "LOCK TABLE head IN EXCLUSIVE MODE";
        sqlx::query(first).execute(&mut *transaction).await.unwrap();
        for (table, rows) in tables {
            let delete = AssertSqlSafe(format!("DELETE FROM {table}"));
            sqlx::query(delete)
                .execute(&mut *transaction)
                .await
                .unwrap();
            for rows in rows.chunks(1000) {
                let mut query = QueryBuilder::<Db>::new(format!("INSERT INTO {table} "));
                query.push_values(rows, |mut values, row| {
                    for cell in *row {
                        match cell {
                            Cell::Number(number) => values.push_bind(*number),
                            Cell::Bytes(bytes) => values.push_bind(bytes.to_vec()),
                        };
                    }
                });
                query.build().execute(&mut *transaction).await.unwrap();
            }
        }
        transaction.commit().await.unwrap();
    }

    pub(crate) async fn put(&mut self, table: &str, row: &[Cell]) {
        let sql = "SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = $1::regclass AND a.attnum > 0 \
                   ORDER BY a.attnum";
        let columns = sqlx::query_scalar(sql).bind(table);
        let columns: Vec<String> = columns.fetch_all(&mut self.0).await.unwrap();
        let set: Vec<String> = columns
            .iter()
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        let mut query = QueryBuilder::<Db>::new(format!("INSERT INTO {table} VALUES ("));
        let mut values = query.separated(", ");
        for cell in row {
            match cell {
                Cell::Number(number) => values.push_bind(*number),
                Cell::Bytes(bytes) => values.push_bind(bytes.to_vec()),
            };
        }
        query.push(format!(
            ") ON CONFLICT ON CONSTRAINT {table}_pkey DO UPDATE SET {}",
            set.join(", ")
        ));
        // A trigger of his own may refuse it.
        let _ = query.build().execute(&mut self.0).await;
    }

    pub(crate) async fn delete(&mut self, table: &str, (column, is): (&str, &Cell)) {
        let mut query = QueryBuilder::<Db>::new(format!("DELETE FROM {table} WHERE {column} = "));
        match is {
            Cell::Number(number) => query.push_bind(*number),
            Cell::Bytes(bytes) => query.push_bind(bytes.to_vec()),
        };
        query.build().execute(&mut self.0).await.unwrap();
    }

    pub(crate) async fn all(&mut self, sql: &str, kinds: &[u8]) -> Vec<Vec<Cell>> {
        let sql = translated(sql);
        let rows = query(&sql, &[]).fetch_all(&mut self.0).await.unwrap();
        let cell = |row: &PgRow, at: usize| match kinds[at] {
            b'n' => Cell::Number(row.get(at)),
            _ => Cell::Bytes(row.get::<Vec<u8>, _>(at).into()),
        };
        rows.iter()
            .map(|row| (0..kinds.len()).map(|at| cell(row, at)).collect())
            .collect()
    }
}

fn query<'q>(sql: &'q str, values: &[Value<'q>]) -> Query<'q, Db, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in values {
        query = match value {
            Value::Number(number) => query.bind(*number),
            Value::Bytes(bytes) => query.bind(bytes.to_vec()),
        };
    }
    query
}

/// The little of SQLite's dialect that the tests use: `?`, `x'00'`, and replacing a record.
fn translated(sql: &str) -> String {
    let mut text = String::new();
    let (mut places, mut rest) = (0, sql);
    while let Some(at) = rest.find(['?', 'x']) {
        let (before, found) = rest.split_at(at);
        text.push_str(before);
        if let Some(bytes) = found.strip_prefix("x'") {
            let (bytes, after) = bytes.split_once('\'').unwrap();
            text.push_str(&format!("'\\x{bytes}'::bytea"));
            rest = after;
        } else if let Some(after) = found.strip_prefix('?') {
            places += 1;
            text.push_str(&format!("${places}"));
            rest = after;
        } else {
            text.push('x');
            rest = &found[1..];
        }
    }
    text.push_str(rest);
    match text.strip_prefix("INSERT OR REPLACE INTO records") {
        Some(rest) => format!(
            "INSERT INTO records{rest} ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, \
             sealed = excluded.sealed"
        ),
        None => text,
    }
}
