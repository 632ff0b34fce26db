//! Which account somebody means: by its identifier, or by an alias.
//!
//! Called by sign-ins and by errands for people who may have no account here at all. An alias is
//! believed only as far as its account says the same: the ledger checks both ways. It must never
//! let a caller tell an unknown name from a known one: not found costs what finding costs.

use custodyd_hsm::AccountId;

use super::{App, Device, Refused, Service, standing};
use crate::account::AliasName;
use crate::delivery::Address;
use crate::ledger::{LedgerError, Loaded};

/// An account as a request names it, before anything was looked up.
#[derive(Clone, Debug)]
pub(super) enum Named {
    Account(AccountId),
    Alias(Address),
}

impl Named {
    /// # Errors
    /// `Malformed`, which depends on the text alone.
    pub(super) fn new(account: Option<AccountId>, alias: Option<&str>) -> Result<Self, Refused> {
        let address = match (account, alias) {
            (Some(account), None) => return Ok(Self::Account(account)),
            (None, Some(alias)) if alias.starts_with('+') => Address::phone(alias),
            (None, Some(alias)) => Address::email(alias),
            _ => {
                return Err(Refused::Malformed(
                    "give either `account` or `alias`".into(),
                ));
            }
        };
        address
            .map(Self::Alias)
            .map_err(|error| Refused::Malformed(error.to_string()))
    }

    /// The address that was named, where one was.
    pub(super) fn address(&self) -> Option<&Address> {
        match self {
            Self::Account(_) => None,
            Self::Alias(address) => Some(address),
        }
    }
}

impl Service {
    /// The account, if there is one by that name.
    pub(super) async fn find(
        &self,
        app: &App,
        named: &Named,
    ) -> Result<Option<Loaded>, LedgerError> {
        match named {
            Named::Account(account) => self.ledger.look_up(&app.id, *account).await,
            Named::Alias(address) => {
                let name = AliasName::of(address);
                self.ledger.find_alias(&app.id, &name).await
            }
        }
    }

    /// The account; for an unknown or erased one the refusal that every stranger gets. That costs
    /// the same visits to the token; what else differs is hidden by the deadline, to which all
    /// but bound devices are held from here on.
    pub(super) async fn named(&self, device: &Device, named: &Named) -> Result<Loaded, Refused> {
        let bound = |loaded: &Loaded| loaded.account.device(&device.key.thumbprint).is_some();
        let found = self.find(&device.app, named).await?;
        match found.as_ref().is_some_and(bound) {
            true => standing::bound(),
            false => {
                self.strangers.meet()?;
                self.ledger.is_reached().await?;
            }
        }
        found.ok_or(Refused::AuthenticationFailed)
    }
}
