//! Creating an account: binds the app's public key and the device's DPoP key to it.
//!
//! The caller proves both keys: the device key by the request's DPoP proof, the app key by a
//! JWS over the device key's thumbprint. Nobody can create an account for somebody else's keys.
//! Who may create one at all, the policy says: whoever brings a ticket of the app's backend, or
//! anybody, up to an hourly quota. An account is found again by its identifier only, so there
//! is nothing here that tells whether a person has one. A ticket and an Idempotency-Key both
//! fix that identifier beforehand: that is why neither makes a second account.

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::{AccountId, SecretBytes, mac};
use custodyd_policies::{Factor, Timestamp};

use super::sessions::{self, Proven};
use super::{Device, Refused, Service, name, random_account};
use crate::account::{Account, BoundKey, Device as BoundDevice};
use crate::api::{AccountCreated, CreateAccount, CreatedBindings};
use crate::factors::dpop::{AppKey, AppKeyExpected};
use crate::factors::random;
use crate::factors::session;
use crate::factors::ticket::{self, Ticket, TicketExpected};
use crate::ledger::{EventKind, Journal, LedgerError, Loaded, NewEvent, Receipt};

const MAX_IDEMPOTENCY_KEY: usize = 128;

/// Where the new account's identifier comes from.
#[derive(Debug)]
enum Origin {
    /// Random: nothing finds this account again but its identifier.
    Fresh,
    IdempotencyKey(String),
    Ticket(Ticket),
}

impl Service {
    /// # Errors
    /// `Proof` for either key, `EnrolmentClosed`, `EnrolmentQuota`, `Ticket`, `AccountExists`
    /// when the ticket or the Idempotency-Key has made an account that is not this request's
    /// any more.
    pub async fn create_account(
        &self,
        device: &Device,
        request: CreateAccount,
        idempotency_key: Option<&str>,
    ) -> Result<AccountCreated, Refused> {
        let now = self.now();
        let enrolment = &device.app.policy.enrolment;
        if request.ticket.is_none() && !enrolment.open {
            return Err(Refused::EnrolmentClosed);
        }
        let device_name = name(request.device_name)?;
        let app_key = self.proofs.verify_app_key_proof(
            self.ledger.clock().read(),
            &request.app_key_proof,
            &AppKeyExpected {
                realm: self.realm().as_str(),
                app: device.app.id.as_str(),
                device_thumbprint: &device.key.thumbprint,
            },
        )?;
        let origin = self.origin(device, request.ticket.as_deref(), idempotency_key, now)?;
        let ids = self.choose_ids(device, &origin).await?;
        let (id, others) = ids
            .split_first()
            .ok_or(Refused::Internal("name an account"))?;
        if let Some(existing) = self.repeated(device, &ids, &app_key, &origin, now).await? {
            let receipt = self.ledger.receipt_of_creation(&existing).await;
            return self.created(device, &existing, receipt, now).await;
        }
        if !matches!(origin, Origin::Ticket(_)) {
            self.enrolments
                .take(&device.app.id, enrolment.quota_per_hour, now)
                .map_err(|retry_after| Refused::EnrolmentQuota { retry_after })?;
        }
        let account = self
            .draft(device, *id, app_key.clone(), device_name, now)
            .await?;
        let device_id = device.key.thumbprint.clone();
        let app_key_id = app_key.thumbprint.clone();
        let note = move |_: &mut Account, _, journal: &mut Journal| {
            journal.note(NewEvent::new(EventKind::AccountCreated).on(&app_key_id));
            journal.note(NewEvent::new(EventKind::DeviceBound).on(&device_id));
            Ok::<(), Refused>(())
        };
        let loaded = match self.ledger.create(account, others, note).await {
            Ok(((), loaded)) => loaded,
            // Two requests with one Idempotency-Key or ticket at once: the other one made it.
            Err(Refused::AccountExists) => self
                .repeated(device, &ids, &app_key, &origin, now)
                .await?
                .ok_or(Refused::AccountExists)?,
            Err(refused) => return Err(refused),
        };
        let receipt = match self.ledger.receipt(&loaded).await {
            Some(receipt) => Some(receipt),
            None => self.ledger.receipt_of_creation(&loaded).await,
        };
        self.created(device, &loaded, receipt, now).await
    }

    /// What the request brings that fixes the account's identifier. A ticket comes first: it is
    /// good for one account, whatever else is said.
    fn origin(
        &self,
        device: &Device,
        ticket: Option<&str>,
        idempotency_key: Option<&str>,
        now: Timestamp,
    ) -> Result<Origin, Refused> {
        if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY) {
            return Err(Refused::Malformed(format!(
                "Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY} characters"
            )));
        }
        if let Some(text) = ticket {
            let expected = TicketExpected {
                realm: self.realm().as_str(),
                app: device.app.id.as_str(),
                device_thumbprint: &device.key.thumbprint,
            };
            let keys = &device.app.policy.enrolment.tickets;
            return Ok(Origin::Ticket(ticket::verify(now, text, keys, &expected)?));
        }
        Ok(match idempotency_key {
            Some(key) => Origin::IdempotencyKey(key.to_owned()),
            None => Origin::Fresh,
        })
    }

    /// With a ticket or an Idempotency-Key the identifier is derived in the token, from the name
    /// of the ticket or from the device key and the key given, so a repeated request finds its
    /// first result without any other table. It is another one under each MAC key that is accepted: the first is the
    /// one to make, and each of the others may be the one that a request of before has made.
    async fn choose_ids(
        &self,
        device: &Device,
        origin: &Origin,
    ) -> Result<Vec<AccountId>, Refused> {
        let (realm, app) = (self.realm().clone(), device.app.id.clone());
        let pool = self.ledger.pool();
        match origin {
            Origin::Fresh => Ok(vec![random_account()?]),
            Origin::Ticket(ticket) => {
                let jti = ticket.jti.clone();
                Ok(pool
                    .call("ticket-id", move |custody| {
                        let keys = mac::accepted(custody)?.into_iter();
                        keys.map(|under| {
                            mac::account_id_from_ticket(custody, under, &realm, &app, &jti)
                        })
                        .collect()
                    })
                    .await?)
            }
            Origin::IdempotencyKey(key) => {
                let (thumbprint, key) = (device.key.thumbprint.clone(), key.clone());
                Ok(pool
                    .call("idempotent-id", move |custody| {
                        let keys = mac::accepted(custody)?.into_iter();
                        keys.map(|under| {
                            let of = (&realm, &app);
                            mac::account_id_from_idempotency_key(
                                custody,
                                under,
                                of.0,
                                of.1,
                                &thumbprint,
                                &key,
                            )
                        })
                        .collect()
                    })
                    .await?)
            }
        }
    }

    /// The account that an earlier request with the same keys has made.
    async fn repeated(
        &self,
        device: &Device,
        ids: &[AccountId],
        app_key: &AppKey,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Option<Loaded>, Refused> {
        if matches!(origin, Origin::Fresh) {
            return Ok(None);
        }
        let mut made = None;
        for id in ids {
            made = self.ledger.load(&device.app.id, *id).await?;
            if made.is_some() {
                break;
            }
        }
        let Some(loaded) = made else {
            return Ok(None);
        };
        let account = &loaded.account;
        let same_keys = !account.quarantined
            && account.device(&device.key.thumbprint).is_some()
            && account
                .app_keys
                .iter()
                .any(|key| key.thumbprint == app_key.thumbprint);
        // A repetition hands out a session again, and that session dates from the creation:
        // whoever replays an old request later gets nothing that could change a factor.
        let recent = custodyd_policies::expiry::is_fresh(
            now,
            &device.app.policy.sessions,
            account.created,
            Factor::Creation,
        );
        if same_keys && recent {
            Ok(Some(loaded))
        } else {
            Err(Refused::AccountExists)
        }
    }

    async fn draft(
        &self,
        device: &Device,
        id: AccountId,
        app_key: AppKey,
        device_name: Option<String>,
        now: Timestamp,
    ) -> Result<Account, Refused> {
        let app = &device.app.id;
        let [app_binding, device_binding] = self
            .bindings
            .sign(
                app,
                id,
                [
                    (BindingKind::AppKey, app_key.thumbprint.clone()),
                    (BindingKind::DeviceKey, device.key.thumbprint.clone()),
                ],
                now,
            )
            .await?;
        let trail_key = SecretBytes::from(random::<32>()?.to_vec());
        let mut account = Account::new(self.realm().clone(), app.clone(), id, now, trail_key);
        account.app_keys.push(BoundKey {
            jwk: app_key.jwk,
            thumbprint: app_key.thumbprint,
            binding: app_binding,
            added: now,
        });
        let session_epoch = account.take_device_epoch();
        account.devices.push(BoundDevice {
            key: BoundKey {
                jwk: device.key.jwk.clone(),
                thumbprint: device.key.thumbprint.clone(),
                binding: device_binding,
                added: now,
            },
            name: device_name,
            session_epoch,
        });
        Ok(account)
    }

    async fn created(
        &self,
        device: &Device,
        loaded: &Loaded,
        receipt: Option<Receipt>,
        now: Timestamp,
    ) -> Result<AccountCreated, Refused> {
        let account = &loaded.account;
        let mut session =
            sessions::start(device, account, Proven::by_device(Factor::Creation), now)?;
        // Counted from the creation, also when this answers a repeated request.
        let ends = session::limits(
            session.scope,
            &device.app.policy.sessions,
            account.created,
            now,
        );
        session.started = account.created;
        session.authenticated = account.created;
        session.idle_until = ends.idle_until;
        session.absolute_until = ends.absolute_until;
        let bound = account
            .device(&device.key.thumbprint)
            .ok_or(Refused::AuthenticationFailed)?;
        let app_key = account
            .app_keys
            .first()
            .ok_or(LedgerError::internal("find the app key"))?;
        Ok(AccountCreated {
            account: account.id,
            bindings: CreatedBindings {
                app_key: app_key.binding.clone(),
                device_key: bound.key.binding.clone(),
            },
            session: self.session_token(&device.app, &session, now).await?,
            server_slot: device.app.policy.secrets.server_slot.is_taken(),
            log: receipt.map(Into::into),
        })
    }
}
