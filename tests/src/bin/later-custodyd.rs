//! The daemon as a later version will be: with a step or two that the tables of this one have not.
//!
//! Started by the tests beside the real one, to see how nodes go from one version to the next. It is the same code
//! but for what it is told here; `CUSTODYD_TEST_STEPS` says how many of these it has.

use std::process::ExitCode;

use custodyd::store::steps::{self, Step};

static STEPS: [Step; 2] = [
    // Who does not know of it writes beside it.
    Step {
        schema: 6,
        least: 4,
        // As a commit takes them.
        alters: &["records", "bucket_members"],
        sql: "CREATE TABLE custodyd.notes (id bigint NOT NULL PRIMARY KEY, note bytea NOT NULL); \
              ALTER TABLE custodyd.records ADD COLUMN hint bytea; ALTER TABLE custodyd.bucket_members ADD COLUMN hint bytea",
        tables: &[
            ("notes", "id bigint, note bytea; PRIMARY KEY (id)"),
            (
                "bucket_members",
                "bucket bigint, members bytea, hint bytea nullable; PRIMARY KEY (bucket)",
            ),
            (
                "records",
                "id bytea, generation bigint, sealed bytea, hint bytea nullable; PRIMARY KEY (id)",
            ),
        ],
    },
    // Whose rows only this one reads.
    Step {
        schema: 7,
        least: 7,
        alters: &[],
        sql: "CREATE TABLE custodyd.more (id bigint NOT NULL PRIMARY KEY)",
        tables: &[("more", "id bigint; PRIMARY KEY (id)")],
    },
];

fn main() -> ExitCode {
    let wanted = std::env::var("CUSTODYD_TEST_STEPS");
    let wanted = wanted.ok().and_then(|text| text.parse().ok());
    let Some(known) = wanted.and_then(|count: usize| STEPS.get(..count)) else {
        eprintln!("CUSTODYD_TEST_STEPS: 0, 1 or 2");
        return ExitCode::from(2);
    };
    steps::are(known);
    custodyd::cli::run()
}
