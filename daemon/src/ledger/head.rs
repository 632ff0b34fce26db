//! The head: the newest state of the whole realm, one row.
//!
//! Until the log is authenticated the head only orders batches (compare-and-set on `seq`) and
//! says where the log ends. It carries no MAC yet, so nothing that is *believed* comes from
//! it: no time, no budget, no credential.

use custodyd_hsm::RealmName;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::HeadRow;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub realm: RealmName,
    /// Raised by every restore.
    pub log_epoch: u64,
    pub seq: u64,
    /// Number of log entries.
    pub size: u64,
    pub time: Timestamp,
    pub schema: u32,
}

impl Head {
    #[must_use]
    pub fn first(realm: RealmName, time: Timestamp) -> Self {
        Self {
            realm,
            log_epoch: 1,
            seq: 1,
            size: 0,
            time,
            schema: 1,
        }
    }

    /// # Errors
    /// What is wrong with the row, for the log.
    pub fn parse(row: &HeadRow, realm: &RealmName) -> Result<Self, String> {
        let head: Self = serde_json::from_slice(&row.body)
            .map_err(|_| "the head row does not parse".to_owned())?;
        if head.realm != *realm {
            return Err(format!(
                "the database belongs to realm {}, this daemon is configured for {realm}",
                head.realm
            ));
        }
        if head.seq != row.seq || head.schema != 1 {
            return Err("the head row contradicts itself".to_owned());
        }
        Ok(head)
    }

    /// # Errors
    /// Never for the fields above; the signature is serde's.
    pub fn row(&self) -> Result<HeadRow, serde_json::Error> {
        Ok(HeadRow {
            seq: self.seq,
            body: serde_json::to_vec(self)?,
            mac: Vec::new(),
        })
    }
}
