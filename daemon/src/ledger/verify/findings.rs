//! What a verification has found: how many things, and the first of them in words.
//!
//! Filled by the passes, shown by the command line and the scrub's log. A finding names a place
//! (an entry, a bucket, the start of a record's identifier), never a person.

use custodyd_hsm::RecordId;

use crate::ledger::LedgerError;

/// Findings that are kept in words. A database may be wrong in each row.
const LISTED: usize = 100;

/// One divergence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The table whose row does not agree.
    pub table: &'static str,
    /// Which row, and what is wrong with it.
    pub evidence: String,
}

/// All divergences of a pass, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    aloud: bool,
    count: u64,
    listed: Vec<Finding>,
}

impl Findings {
    /// Aloud, each is logged and counted at once.
    pub(super) fn new(aloud: bool) -> Self {
        Self {
            aloud,
            ..Self::default()
        }
    }

    /// How many there are, those included that are not listed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn first(&self) -> Option<&Finding> {
        self.listed.first()
    }

    /// The first hundred.
    #[must_use]
    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    pub(crate) fn note(&mut self, table: &'static str, evidence: String) {
        self.count += 1;
        if self.aloud {
            metrics::counter!("custodyd_tampered_total").increment(1);
            if self.count <= LISTED as u64 {
                tracing::error!(table, evidence, "the scrub found what is not right");
            }
        }
        if self.listed.len() < LISTED {
            self.listed.push(Finding { table, evidence });
        }
    }

    /// What the database shows of a table, if it can be read at all. A page that is damaged is a finding like any other: the
    /// rest is gone over all the same.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub(super) fn of<T>(
        &mut self,
        table: &'static str,
        read: Result<T, LedgerError>,
    ) -> Result<Option<T>, LedgerError> {
        match read {
            Ok(shown) => Ok(Some(shown)),
            Err(LedgerError::Tampered(what)) => {
                self.note(table, what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn entry(&mut self, index: u64, what: &str) {
        self.note("log_entries", format!("log entry {index}: {what}"));
    }

    pub(super) fn body(&mut self, index: u64, what: &str) {
        self.note("log_bodies", format!("log entry {index}: {what}"));
    }

    pub(super) fn bucket(&mut self, bucket: u32, what: &str) {
        self.note("bucket_members", format!("bucket {bucket}: {what}"));
    }

    /// Names the record by the start of its identifier, which tells nobody whose it is.
    pub(super) fn record(&mut self, record: &RecordId, what: &str) {
        let prefix: String = hex::encode(record.as_bytes()).chars().take(16).collect();
        let bucket = record.bucket(crate::ledger::BUCKET_BITS);
        self.note(
            "records",
            format!("record {prefix} (bucket {bucket}): {what}"),
        );
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.count += later.count;
        later
            .listed
            .truncate(LISTED.saturating_sub(self.listed.len()));
        self.listed.append(&mut later.listed);
    }
}
