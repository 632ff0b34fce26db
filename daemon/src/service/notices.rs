//! Notices: what happened to an account, told to its owner where mail and messages go.
//!
//! Called after the commit that made it so, never before: a notice about a change that was not
//! made would train people to ignore them. Best effort: the change stands whether or not its
//! notice can leave, and what finds no room is counted by the courier. It must never be the
//! only trace of anything; the event in the account's trail is that.

use super::Service;
use crate::account::Account;
use crate::delivery::{Address, Message, Notice};

impl Service {
    /// Tells every confirmed contact of the account.
    pub(super) fn tell(&self, account: &Account, notice: Notice) {
        self.tell_these(
            account,
            account.contacts.reachable().map(|c| &c.address),
            notice,
        );
    }

    /// Tells these addresses, some of which may not be the account's any more.
    pub(super) fn tell_these<'a>(
        &self,
        account: &Account,
        addresses: impl IntoIterator<Item = &'a Address>,
        notice: Notice,
    ) {
        // An app that was retired has no name to speak under.
        let Ok(app) = self.apps.get(account.app.as_str()) else {
            return;
        };
        for address in addresses {
            match Message::notice(&app.policy.display_name, address.clone(), notice) {
                Ok(message) => {
                    let _ = self.courier.post(message);
                }
                Err(error) => tracing::error!(%error, "a notice was not made"),
            }
        }
    }
}
