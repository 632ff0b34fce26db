//! The schema: made once, and held against ours by every connection that opens.
//!
//! A trigger, a rule or a policy on a row is an administrator's code in our transactions. What it
//! does to rows the ledger finds anyway, as it finds everything that the server does to them; it is
//! refused here because then it is found at once, with its name. Called by every connection that
//! opens. Must never believe that a table of the right name is ours without its columns and kind.
//!
//! A newer custodyd may have added to it while this one serves: a plain table of its own, or a column behind ours that may
//! be null, has no default, and is of a type that PostgreSQL brings: a domain has defaults and checks of its own. Neither acts on anything, so a connection lets them be and names them; whether they may
//! be there at all, the head says, which the token has made (`ledger::start`).

use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::postgres::PgConnection;
use sqlx::postgres::types::Oid;
use sqlx::{AssertSqlSafe, Connection as _};

use super::super::{StoreError, steps};
use super::answers::within;

const SCHEMA: &str = include_str!("schema.sql");
/// The namespace of our tables: nothing else may stand in it.
const NAMESPACE: &str = "custodyd";
const OPERATION: &str = "check the schema";

/// Our tables, as the catalogue describes them: columns, then keys and checks.
const TABLES: [(&str, &str); 7] = [
    (
        "bucket_digests",
        "bucket bigint, digest bytea, seq bigint; PRIMARY KEY (bucket)",
    ),
    (
        "bucket_members",
        "bucket bigint, members bytea; PRIMARY KEY (bucket)",
    ),
    (
        "head",
        "one bigint, seq bigint, body bytea, mac bytea; CHECK ((one = 1)), PRIMARY KEY (one)",
    ),
    (
        "log_bodies",
        "idx bigint, salt bytea, body bytea; PRIMARY KEY (idx)",
    ),
    ("log_entries", "idx bigint, leaf bytea; PRIMARY KEY (idx)"),
    (
        "log_tiles",
        "level bigint, idx bigint, data bytea; PRIMARY KEY (level, idx)",
    ),
    (
        "records",
        "id bytea, generation bigint, sealed bytea; PRIMARY KEY (id)",
    ),
];

/// Whatever has a name in our namespace, and what hangs on it. What an honest table has not is said
/// in a word, and an index is only that of a primary key.
const CATALOGUE: &str = "\
SELECT c.oid, c.relname::text AS name, concat_ws(' ', \
  CASE WHEN c.relkind = 'r' THEN 'table' WHEN c.relkind = 'i' THEN 'index' ELSE 'other' END, \
  CASE WHEN c.relpersistence <> 'p' THEN 'not-permanent' END, \
  CASE WHEN c.relrowsecurity OR c.relforcerowsecurity \
    OR EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid) THEN 'row-security' END, \
  CASE WHEN c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits i \
    WHERE c.oid IN (i.inhrelid, i.inhparent)) THEN 'inherits' END, \
  (SELECT 'trigger ' || t.tgname::text FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid LIMIT 1), \
  (SELECT 'rule ' || r.rulename::text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid LIMIT 1), \
  CASE WHEN c.relkind = 'i' THEN coalesce((SELECT \
    CASE WHEN i.indisprimary AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
      THEN 'of a primary key' ELSE 'of another kind' END \
    FROM pg_catalog.pg_index i WHERE i.indexrelid = c.oid), 'of nothing') END) AS kind, \
  CASE WHEN c.relkind <> 'i' THEN concat( \
    (SELECT string_agg(concat(a.attname, ' ', pg_catalog.format_type(a.atttypid, a.atttypmod), \
      CASE WHEN NOT a.attnotnull THEN ' nullable' END, \
      CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace s ON s.oid = t.typnamespace \
        WHERE t.oid = a.atttypid AND t.typtype = 'b' AND s.nspname = 'pg_catalog') THEN ' of-a-made-type' END, \
      CASE WHEN a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' THEN ' generated' END), ', ' \
      ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '; ', \
    (SELECT string_agg(pg_catalog.pg_get_constraintdef(k.oid), ', ' ORDER BY k.contype) \
      FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid)) END AS content \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE n.nspname = $1 ORDER BY c.relname LIMIT 64";

/// As the statement has it.
const MOST: usize = 64;

/// The tables of a check that passed: each commit demands that the names still mean these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) tables: Vec<Oid>,
    pub(super) names: Vec<String>,
    /// What a newer custodyd may have added.
    pub(super) further: Vec<String>,
    /// Every table, as the catalogue describes it.
    pub(super) described: Vec<(String, String)>,
}

impl Checked {
    /// What a newer custodyd has added meanwhile is no other table of ours.
    pub(super) fn is_of_the_tables_of(&self, before: &Self) -> bool {
        (&self.tables, &self.names) == (&before.tables, &before.names)
    }

    /// Where no head says anything yet, nothing was added.
    pub(super) fn exactly(self) -> Result<(), StoreError> {
        match self.further.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Refused {
                operation: OPERATION,
                problem: format!(
                    "the schema {NAMESPACE} holds something that custodyd did not make: {:.300}",
                    self.further.join("; ")
                ),
            }),
        }
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Found {
    oid: Oid,
    name: String,
    kind: String,
    content: Option<String>,
}

/// Makes the namespace and the tables, where nothing stands yet; what `init` made before it was
/// stopped is taken as it is.
pub(super) async fn make(connection: &mut PgConnection) -> Result<(), StoreError> {
    let operation = "create the tables";
    if exists(connection).await? {
        return Ok(());
    }
    // The connection looks for names in this namespace alone.
    let sql = format!("CREATE SCHEMA IF NOT EXISTS {NAMESPACE}; {SCHEMA}");
    let making = async {
        let mut made = connection.begin().await?;
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *made)
            .await?;
        made.commit().await
    };
    within(operation, making).await
}

/// Whether anything stands in the namespace, which the server's administrator may have made for us.
pub(super) async fn exists(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
               ON n.oid = c.relnamespace WHERE n.nspname = $1)";
    let asked = sqlx::query_scalar(sql)
        .bind(NAMESPACE)
        .fetch_one(connection);
    within(OPERATION, asked).await
}

/// Refuses any namespace that is not ours, but for what a newer custodyd may have added, which it names.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Checked, StoreError> {
    let asked = sqlx::query_as(CATALOGUE)
        .bind(NAMESPACE)
        .fetch(connection)
        .take(MOST)
        .try_collect();
    let found: Vec<Found> = within(OPERATION, asked).await?;
    compare(found).map_err(|problem| StoreError::Altered {
        operation: OPERATION,
        problem,
    })
}

fn compare(found: Vec<Found>) -> Result<Checked, String> {
    if found.is_empty() {
        return Err(format!(
            "the database has no schema {NAMESPACE} with custodyd's tables. `custodyd init` makes a new realm; where there \
             was one, its newest database has to come back (docs/handbook/backup.md)"
        ));
    }
    // What comes after these was not read, and might act.
    if found.len() >= MOST {
        return Err(format!(
            "the schema {NAMESPACE} holds {MOST} things or more"
        ));
    }
    let mut checked = Checked::default();
    for one in found {
        let Found {
            oid,
            name,
            kind,
            content,
        } = one;
        if kind == "index of a primary key" {
            continue;
        }
        let ours = TABLES.iter().find(|(table, _)| *table == name);
        if let Some(content) = content.as_ref().filter(|_| kind == "table") {
            checked.described.push((name.clone(), content.clone()));
            // Of a step that this version knows.
            if steps::described(&name) == Some(content) {
                if ours.is_some() {
                    checked.tables.push(oid);
                    checked.names.push(name);
                }
                continue;
            }
        }
        match (ours, content) {
            (Some((_, wanted)), Some(content)) if kind == "table" && content == *wanted => {
                checked.tables.push(oid);
                checked.names.push(name);
            }
            (Some((_, wanted)), Some(content))
                if kind == "table" && added(wanted, &content).is_some() =>
            {
                let columns = added(wanted, &content).unwrap_or_default();
                checked
                    .further
                    .push(format!("{name:.80} has the column {columns:.200}"));
                checked.tables.push(oid);
                checked.names.push(name);
            }
            (None, Some(_)) if kind == "table" => {
                checked.further.push(format!("table {name:.80}"));
            }
            (Some(_), Some(content)) => {
                return Err(format!(
                    "{NAMESPACE}.{name} is not as custodyd made it: {kind:.80}, {content:.200}"
                ));
            }
            _ => {
                return Err(format!(
                    "the schema {NAMESPACE} holds something that custodyd did not make: {kind:.80} {name:.80}"
                ));
            }
        }
    }
    let missing = TABLES
        .iter()
        .find(|(table, _)| !checked.names.iter().any(|name| name == table));
    match missing {
        Some((table, _)) => Err(format!("{NAMESPACE}.{table} is missing")),
        None => Ok(checked),
    }
}

/// The columns behind ours, where each may be null, has no default, and neither keys nor checks are others.
fn added<'a>(wanted: &str, content: &'a str) -> Option<&'a str> {
    let (ours, constraints) = wanted.split_once("; ")?;
    let columns = content.strip_prefix(ours)?.strip_prefix(", ")?;
    let columns = columns.strip_suffix(constraints)?.strip_suffix("; ")?;
    let harmless = |column: &str| column.ends_with(" nullable") && !column.contains(';');
    columns.split(", ").all(harmless).then_some(columns)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;

    fn table(name: &str, kind: &str, content: &str) -> Found {
        Found {
            oid: Oid(1),
            name: name.into(),
            kind: kind.into(),
            content: Some(content.into()),
        }
    }

    fn honest() -> Vec<Found> {
        let tables = TABLES
            .iter()
            .map(|(name, content)| table(name, "table", content));
        tables.collect()
    }

    #[test]
    fn what_acts_on_nothing_is_named_and_what_might_is_refused() {
        let mut found = honest();
        found.push(table("notes", "table", "id bigint; PRIMARY KEY (id)"));
        found[6].content = Some(
            TABLES[6]
                .1
                .replace("; ", ", note bytea nullable, more text nullable; "),
        );
        let checked = compare(found).unwrap();
        assert_eq!(checked.tables.len(), 7);
        let said = checked.further.join("; ");
        assert!(said.contains("table notes"), "{said}");
        assert!(
            said.contains("records has the column note bytea nullable, more text nullable"),
            "{said}"
        );
        assert!(checked.exactly().is_err());
        compare(honest()).unwrap().exactly().unwrap();
        for column in [
            "note bytea",
            "note bytea nullable generated",
            "note nullable of-a-made-type",
            "note d nullable of-a-made-type",
            "note bytea nullable, other bigint generated",
        ] {
            let mut found = honest();
            found[6].content = Some(TABLES[6].1.replace("; ", &format!(", {column}; ")));
            let said = compare(found).unwrap_err();
            assert!(said.contains("not as custodyd made it"), "{said}");
        }
        let mut many = honest();
        many.extend((0..MOST).map(|_| table("notes", "table", "id bigint; ")));
        assert!(compare(many).unwrap_err().contains("or more"));
        // In front of ours, or with another key.
        for content in [
            format!("note bytea nullable, {}", TABLES[6].1),
            TABLES[6].1.replace(
                "; PRIMARY KEY (id)",
                ", note bytea nullable; CHECK (evil(note)), PRIMARY KEY (id)",
            ),
        ] {
            let mut found = honest();
            found[6].content = Some(content);
            compare(found).unwrap_err();
        }
    }

    #[test]
    fn ours_pass_and_nothing_else_does() {
        assert_eq!(compare(honest()).unwrap().tables.len(), 7);
        assert_eq!(SCHEMA.matches("CREATE TABLE").count(), TABLES.len());
        for (kind, what) in [
            ("table trigger evil", "trigger evil"),
            ("table rule evil", "rule evil"),
            ("table row-security", "row-security"),
            ("table not-permanent", "not-permanent"),
            ("table inherits", "inherits"),
            ("other rule _RETURN", "other"),
        ] {
            let mut found = honest();
            let (name, content) = TABLES[0];
            found[0] = table(name, kind, content);
            let said = compare(found).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
        for added in [
            table("other", "table trigger evil", TABLES[0].1),
            table("i", "index of another kind", ""),
            table("v", "other rule _RETURN", ""),
        ] {
            let mut found = honest();
            found.push(added);
            assert!(compare(found).unwrap_err().contains("did not make"));
        }
        let mut found = honest();
        found[6].content = Some(TABLES[6].1.replace("generation bigint", "generation text"));
        assert!(compare(found).unwrap_err().contains("generation text"));
        let mut found = honest();
        found.pop();
        assert!(compare(found).unwrap_err().contains("records is missing"));
        assert!(compare(Vec::new()).unwrap_err().contains("custodyd init"));
    }
}
