//! What is held about an owner: all of it in one document, and all of it gone.
//!
//! Called by the routes for sessions of the owner. An export hands secrets out by the rules of
//! every release, with an event for each. An erasure is final, so it asks for a fresh session by
//! the strongest factor that the account has: a thief of a device, or of a PIN beside a passkey,
//! must not get that far.

use std::collections::BTreeMap;
use std::sync::Arc;

use custodyd_hsm::{AccountId, AppId};
use custodyd_policies::{DEVICE_WORTH, Factor, Timestamp, release};

use super::overview::Seen;
use super::{App, Caller, Refused, Service, held, secrets, sessions};
use crate::account::Account;
use crate::api::{AliasView, Export, OperatorExport, RemovedDeviceView};
use crate::delivery::Notice;
use crate::ledger::{EventKind, Loaded, NewEvent};

/// The version of the document's shape.
const FORMAT: u8 = 1;
/// Events in the document itself; the rest is read page by page.
const EVENTS: usize = 1000;
/// In an operator's document, which has no next page: more than accounts have, and few enough
/// for one answer.
const OPERATORS_EVENTS: usize = 100_000;
/// What the owner reads in the event of an export that is not their own.
const BY_OPERATOR: &str = "by an operator";

impl Service {
    /// Everything that the envelope and the log hold about the owner. What is left out proves
    /// factors and says nothing of a person: verifiers, counters, epochs.
    ///
    /// # Errors
    /// `ReadOnly`, and those of a commit.
    pub async fn export(&self, caller: Caller) -> Result<Export, Refused> {
        caller.writes()?;
        let exported = self.now();
        let fresh = caller.fresh(exported);
        let (app, session) = (Arc::clone(&caller.app), caller.session.clone());
        let by = session.factor;
        let ((secrets, withheld), loaded) = self
            .ledger
            .commit::<_, Refused>(caller.loaded.clone(), move |account, _, journal| {
                sessions::stands(&session, account)?;
                let names = account.secrets.keys().cloned();
                let (released, withheld): (Vec<_>, Vec<_>) =
                    names.partition(|name| release::may_release(&app.policy, name, by, fresh));
                let releases = secrets::Releases::new(&app, by, fresh, released)?;
                let device = &session.device_thumbprint;
                let released = releases.take_from(account, device, journal)?;
                journal.note(NewEvent::new(EventKind::AccountExported).by(by).on(device));
                Ok((released, withheld))
            })
            .await?;
        let caller = Caller { loaded, ..caller };
        let mut document = self
            .document(&caller.loaded, &caller.seen(), EVENTS)
            .await?;
        document.exported = exported;
        document.secrets = secrets;
        document.secrets_withheld = withheld;
        Ok(document)
    }

    /// The same without any secret's content, for an operator who answers somebody that can not
    /// sign in any more. It is an event like the owner's own export.
    ///
    /// # Errors
    /// `NotFound`; `UnknownApp` where the app is not served, for its policy is needed.
    pub(super) async fn export_as_operator(
        &self,
        app: &AppId,
        account: AccountId,
    ) -> Result<OperatorExport, Refused> {
        let app = self.apps.get(app.as_str())?;
        let loaded = self.ledger.load(&app.id, account).await?;
        let loaded = loaded.ok_or(Refused::NotFound("account"))?;
        let ((), loaded) = self
            .ledger
            .commit::<_, Refused>(loaded, |_, _, journal| {
                journal.note(NewEvent::new(EventKind::AccountExported).about(BY_OPERATOR));
                Ok(())
            })
            .await?;
        let seen = Seen {
            account: &loaded.account,
            app: &app,
            device: None,
            addresses: true,
        };
        let mut document = self.document(&loaded, &seen, OPERATORS_EVENTS).await?;
        document.secrets_withheld = loaded.account.secrets.keys().cloned().collect();
        Ok(OperatorExport {
            document,
            secrets_held: secrets::held(&loaded.account),
        })
    }

    /// The document without secrets.
    async fn document(
        &self,
        loaded: &Loaded,
        seen: &Seen<'_>,
        events: usize,
    ) -> Result<Export, Refused> {
        let page = self.ledger.events(loaded, None, events).await?;
        Ok(Export {
            format: FORMAT,
            exported: self.now(),
            account: self.view_of(seen)?,
            aliases: aliases(seen.account),
            removed_devices: removed_devices(seen.account),
            secrets: BTreeMap::new(),
            secrets_withheld: Vec::new(),
            events: page.events,
            events_next: page.next.map(super::overview::cursor),
            events_complete_from: page.complete_from,
        })
    }

    /// Erases the account for good: envelope, aliases and the bodies of its events, in one
    /// commit. Its sessions end, its identifier is never given again, and to everybody it is as
    /// if it had never been.
    ///
    /// # Errors
    /// `Malformed` where the confirmation names another account, `StepUp`.
    pub async fn erase_account(&self, caller: Caller, confirm: AccountId) -> Result<(), Refused> {
        if confirm != caller.account().id {
            return Err(Refused::Malformed(
                "`confirm` is not the identifier of this session's account; nothing was erased"
                    .into(),
            ));
        }
        let loaded = caller.loaded.clone();
        let caller = Arc::new(caller);
        let last = self
            .ledger
            .erase::<Refused>(loaded, move |account, moment| {
                caller.still_stands(account)?;
                caller.may_erase(account, moment.now)
            })
            .await?;
        self.after_erasure(&last);
        Ok(())
    }

    /// The same for an operator who has made sure who asks: an owner without a usable factor can
    /// not prove anything here.
    ///
    /// # Errors
    /// `NotFound` for an account that is not there, or not any more.
    pub async fn erase_as_operator(&self, app: &AppId, account: AccountId) -> Result<(), Refused> {
        let loaded = self.ledger.load(app, account).await?;
        let loaded = loaded.ok_or(Refused::NotFound("account"))?;
        let last = self.ledger.erase::<Refused>(loaded, |_, _| Ok(())).await?;
        self.after_erasure(&last);
        Ok(())
    }

    /// `last` is the account as it was last: its contacts are nowhere else any more.
    pub(crate) fn after_erasure(&self, last: &Loaded) {
        let app = last.account.app.to_string();
        metrics::counter!("custodyd_accounts_erased_total", "app" => app).increment(1);
        self.tell(&last.account, Notice::AccountErased);
    }
}

impl Caller {
    /// May this session erase the account? Asked inside the commit, of the newest state.
    pub(super) fn may_erase(&self, account: &Account, now: Timestamp) -> Result<(), Refused> {
        self.step_up(account, strongest(account, &self.app, now), now)
    }
}

/// The strongest factor that the account can use now; without any, it is worth a device.
fn strongest(account: &Account, app: &App, now: Timestamp) -> Factor {
    let held = held(account, app, now).into_iter();
    held.max_by_key(|factor| factor.strength())
        .unwrap_or(DEVICE_WORTH)
}

fn aliases(account: &Account) -> Vec<AliasView> {
    let views = account.aliases.iter().map(|alias| AliasView {
        name: alias.name.expose().to_owned(),
        since: alias.since,
    });
    views.collect()
}

fn removed_devices(account: &Account) -> Vec<RemovedDeviceView> {
    let views = account
        .removed_devices
        .iter()
        .map(|mark| RemovedDeviceView {
            device_id: mark.thumbprint.clone(),
            expires: mark.expires,
        });
    views.collect()
}
