//! The schema: made once, and compared word by word ever after.
//!
//! It is the one thing in the file that SQLite itself obeys, so it is the one thing in which an
//! administrator's text would run as code: a trigger or a view acts inside our transactions.
//! Called by every connection that opens. Must never skip a row by a pattern: `_` in LIKE
//! stands for any character, and a name can be chosen to match.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use super::super::StoreError;
use super::{scanner, unavailable};

const SCHEMA: &str = include_str!("../schema.sql");
const SCHEMA_VERSION: i64 = 1;
/// "cstd": marks the file as custodyd's (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x6373_7464;
const OPERATION: &str = "check the schema";

/// SQLite's count of the schema's changes (`PRAGMA schema_version`), as of a check that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked(pub(super) i64);

/// Makes the tables and marks the file.
pub(super) async fn make(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::raw_sql(SCHEMA)
        .execute(&mut *connection)
        .await
        .map_err(unavailable("create the tables"))?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "PRAGMA user_version = {SCHEMA_VERSION}; PRAGMA application_id = {APPLICATION_ID}"
    )))
    .execute(&mut *connection)
    .await
    .map_err(unavailable("mark the database"))?;
    Ok(())
}

/// Refuses any schema that is not exactly ours: an added trigger, view, table or index (SQLite's
/// own tables of statistics too: custodyd never asks for them), or an altered table.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<Checked, StoreError> {
    // Before the rows: a change in between makes the first commit check again.
    let checked = Checked(number(connection, "PRAGMA schema_version").await?);
    let application = number(connection, "PRAGMA application_id").await?;
    let version = number(connection, "PRAGMA user_version").await?;
    marked(application, version)?;
    let rows: Vec<Row> = sqlx::query_as(ROWS)
        .fetch_all(&mut *connection)
        .await
        .map_err(unavailable(OPERATION))?;
    compare(&rows, SCHEMA).map_err(altered)?;
    Ok(checked)
}

/// The same for a connection that writes, or goes over whole tables.
pub(super) fn check_here(connection: &rusqlite::Connection) -> Result<Checked, StoreError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let look = || -> rusqlite::Result<(Checked, i64, i64, Vec<Row>)> {
        // Before the rows, as above.
        let checked = Checked(number("PRAGMA schema_version")?);
        let mut statement = connection.prepare(ROWS)?;
        let row =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let rows: rusqlite::Result<Vec<Row>> = statement.query_map([], row)?.collect();
        Ok((
            checked,
            number("PRAGMA application_id")?,
            number("PRAGMA user_version")?,
            rows?,
        ))
    };
    let (checked, application, version, rows) = look().map_err(scanner::unavailable(OPERATION))?;
    marked(application, version)?;
    compare(&rows, SCHEMA).map_err(altered)?;
    Ok(checked)
}

fn marked(application: i64, version: i64) -> Result<(), StoreError> {
    if application != APPLICATION_ID {
        return Err(refused("the file is not a custodyd database".into()));
    }
    if version != SCHEMA_VERSION {
        let way = match version > SCHEMA_VERSION {
            true => "a newer version has written it: install that version again",
            false => "the changelog has the way from the version that wrote it",
        };
        return Err(refused(format!(
            "the database has schema {version}, this custodyd knows schema {SCHEMA_VERSION}; nothing was changed; {way}"
        )));
    }
    Ok(())
}

const ROWS: &str = "SELECT coalesce(type, ''), coalesce(name, ''), coalesce(tbl_name, ''), sql \
    FROM sqlite_schema ORDER BY rowid";

/// Type, name, table and text of a row of `sqlite_schema`.
type Row = (String, String, String, Option<String>);

fn compare(rows: &[Row], schema: &str) -> Result<(), String> {
    let mut expected = tables(schema);
    for (kind, name, table, sql) in rows {
        if kind == "index" && sql.is_none() && is_autoindex(name, table, schema) {
            continue;
        }
        let ours = kind == "table"
            && name == table
            && sql.as_deref().map(normalized).as_ref() == expected.get(name);
        if !ours {
            let text = sql.as_deref().map_or_else(|| name.clone(), normalized);
            return Err(format!(
                "the schema holds something that custodyd did not make: {text:.120}"
            ));
        }
        expected.remove(name);
    }
    match expected.into_values().next() {
        None => Ok(()),
        Some(missing) => Err(format!("missing from the schema: {missing:.120}")),
    }
}

/// The index that SQLite makes by itself for a primary key of one of our tables.
fn is_autoindex(name: &str, table: &str, schema: &str) -> bool {
    tables(schema).contains_key(table)
        && name
            .strip_prefix("sqlite_autoindex_")
            .and_then(|rest| rest.strip_prefix(table))
            == Some("_1")
}

/// The statements of our schema by the table that each makes.
fn tables(schema: &str) -> BTreeMap<String, String> {
    let code: Vec<&str> = schema
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    code.join(" ")
        .split(';')
        .map(normalized)
        .filter_map(|statement| {
            let name = statement.strip_prefix("CREATE TABLE ")?.split(' ').next()?;
            Some((name.to_owned(), statement.clone()))
        })
        .collect()
}

fn normalized(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, StoreError> {
    let (number,): (i64,) = sqlx::query_as(sql)
        .fetch_one(&mut *connection)
        .await
        .map_err(unavailable(OPERATION))?;
    Ok(number)
}

fn altered(problem: String) -> StoreError {
    StoreError::Altered {
        operation: OPERATION,
        problem,
    }
}

fn refused(problem: String) -> StoreError {
    StoreError::Refused {
        operation: OPERATION,
        problem,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn row(kind: &str, name: &str, table: &str, sql: Option<&str>) -> Row {
        (
            kind.into(),
            name.into(),
            table.into(),
            sql.map(str::to_owned),
        )
    }

    fn honest() -> Vec<Row> {
        let mut rows: Vec<Row> = tables(SCHEMA)
            .iter()
            .map(|(name, sql)| row("table", name, name, Some(sql)))
            .collect();
        for table in ["records", "log_tiles"] {
            let name = format!("sqlite_autoindex_{table}_1");
            rows.push(row("index", &name, table, None));
        }
        rows
    }

    #[test]
    fn our_own_schema_is_whole_and_passes() {
        assert_eq!(tables(SCHEMA).len(), SCHEMA.matches("CREATE").count());
        compare(&honest(), SCHEMA).unwrap();
    }

    #[test]
    fn nothing_hides_behind_a_name_a_type_or_a_missing_text() {
        let records = tables(SCHEMA).remove("records").unwrap();
        let trigger = "CREATE TRIGGER t AFTER UPDATE ON records BEGIN SELECT 1; END";
        for added in [
            row("trigger", "sqliteXstat", "records", Some(trigger)),
            row("trigger", "sqlite_stat1", "records", Some(trigger)),
            row(
                "trigger",
                "sqlite_autoindex_records_1",
                "records",
                Some(trigger),
            ),
            row(
                "index",
                "sqlite_autoindex_records_1",
                "records",
                Some(trigger),
            ),
            row("index", "sqlite_autoindex_records_12", "records", None),
            row("index", "sqliteXautoindexXrecordsX1", "records", None),
            row("index", "sqlite_autoindex_other_1", "other", None),
            row("trigger", "t", "records", None),
            row("trigger", "records", "records", Some(&records)),
            row("table", "other", "records", Some(&records)),
            row("table", "records", "records", Some(&records)),
            row(
                "table",
                "sqlite_stat1",
                "sqlite_stat1",
                Some("CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
            ),
        ] {
            let mut rows = honest();
            rows.push(added.clone());
            let why = compare(&rows, SCHEMA).unwrap_err();
            assert!(why.contains("did not make"), "{added:?}: {why}");
        }
        let mut rows = honest();
        rows.remove(0);
        assert!(compare(&rows, SCHEMA).unwrap_err().contains("missing"));
    }
}
