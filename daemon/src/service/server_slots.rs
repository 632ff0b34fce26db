//! How far an app has come whose server slots are ending: how many accounts still have one.
//!
//! Called by the operator's socket. Each account is opened for that, which is a call of the token, so it goes part by part and
//! whoever waits sees it move. Numbers alone are told, and no account.

use custodyd_hsm::AppId;
use serde::Serialize;

use super::{Refused, Service};
use crate::account::Account;
use crate::ledger::PARTS;

/// One part of the accounts.
#[derive(Debug, Serialize)]
pub struct ServerSlotsPart {
    /// So many parts there are.
    pub parts: u32,
    pub apps: Vec<AppServerSlots>,
    /// Accounts that no served app opens, and rows that do not verify.
    pub uncounted: u64,
}

/// What one part has of an app.
#[derive(Debug, Serialize)]
pub struct AppServerSlots {
    pub app: AppId,
    /// What its policy says: `allowed`, `ending` or `forbidden`.
    pub server_slot: &'static str,
    pub accounts: u64,
    /// Accounts with at least one secret that the daemon can open.
    pub left: u64,
}

fn has_one(account: &Account) -> bool {
    let mut secrets = account.secrets.values();
    secrets.any(|stored| stored.server_slot.is_some())
}

impl Service {
    /// Counts one part, from 0.
    ///
    /// # Errors
    /// Token or store unavailable.
    pub async fn server_slots(&self, part: u32) -> Result<ServerSlotsPart, Refused> {
        let served = self.apps.server_slots();
        let names: Vec<AppId> = served.iter().map(|(app, _)| app.clone()).collect();
        let (counted, uncounted) = self.ledger.count_in(part, &names, has_one).await?;
        let apps = served.into_iter().zip(counted);
        let apps = apps.map(|((app, policy), counted)| AppServerSlots {
            app,
            server_slot: policy.name(),
            accounts: counted.accounts,
            left: counted.holding,
        });
        Ok(ServerSlotsPart {
            parts: PARTS,
            apps: apps.collect(),
            uncounted,
        })
    }
}
