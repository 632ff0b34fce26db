//! `[ledger.restore]`: whose approvals let the realm go on from an older database.
//!
//! Called by `check` only. Whoever can change this file on the host can name themselves; that the
//! approvers were others stands in the log then, for every auditor.

use super::check::{number, string};
use super::reader::{Document, Table};
use crate::ledger::restore::{Approvers, MAX_NEEDED};

pub(super) fn restore<'i>(doc: &mut Document<'i>, ledger: &mut Table<'i>) -> Approvers {
    let Some(mut table) = doc.optional_table(ledger, "restore") else {
        return Approvers::default();
    };
    let at = table.at();
    let needed = doc.required(
        &mut table,
        "approvals",
        "how many of the approvers have to sign a restore",
        |value| number(value, 1..=MAX_NEEDED),
    );
    let mut listed = doc.table(&mut table, "approvers");
    let keys = doc.every(&mut listed, |value| Approvers::key(string(value)?));
    doc.finish(table);
    let keys = keys.into_iter().map(|(_, placed)| placed.value).collect();
    let Some(needed) = needed else {
        return Approvers::default();
    };
    Approvers::new(keys, needed.value).unwrap_or_else(|what| {
        doc.error(at, format!("ledger.restore: {what}"));
        Approvers::default()
    })
}
