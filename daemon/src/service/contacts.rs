//! Contacts and aliases: naming an address, proving it, removing it.
//!
//! Whoever names an address may be its enemy: the owner of another account who wants codes sent
//! to a stranger, or a look-up name that is somebody else's. So an address is a claim that gives
//! nothing until a code sent to it has come back from the device that asked; that code is always
//! a long one, since the budget of an account in the claimant's hands protects nobody. Whether
//! an alias is taken is decided, and never told, when it is proven. What changed is told to the
//! addresses that were there before, after the commit.

use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{AppPolicy, CONTACT_WORTH, Timestamp, may_deliver};

use super::guess::Guess;
use super::{App, Caller, Device, Refused, Service};
use crate::account::{Account, Contact, Usage};
use crate::api::{AddressClaimed, ConfirmAddress, RemoveAddress, SetAddress};
use crate::delivery::{self, Address, Channel, Message, Notice, Purpose};
use crate::factors::delivered_code::{
    self, Code, Form, IssueError, OtpSecret, Pending, PendingCodes, Requester,
};
use crate::factors::{b64, random};
use crate::ledger::{EventKind, NewEvent};

/// What is said and noted about a contact, and about an alias.
struct Kind {
    what: &'static str,
    claimed: EventKind,
    confirmed: EventKind,
    removed: EventKind,
}

impl Usage {
    fn kind(self) -> Kind {
        match self {
            Self::Contact => Kind {
                what: "contact",
                claimed: EventKind::ContactClaimed,
                confirmed: EventKind::ContactConfirmed,
                removed: EventKind::ContactRemoved,
            },
            Self::Alias => Kind {
                what: "alias",
                claimed: EventKind::AliasClaimed,
                confirmed: EventKind::AliasConfirmed,
                removed: EventKind::AliasRemoved,
            },
        }
    }

    fn limit(self, policy: &AppPolicy) -> usize {
        match self {
            Self::Contact => policy.contacts.max_per_account,
            Self::Alias => policy.aliases.max_per_account,
        }
    }
}

/// An address to claim, with everything that is made outside the commit.
struct Claim {
    usage: Usage,
    id: String,
    address: Address,
    replaces: Option<String>,
    otp: OtpSecret,
    binding: String,
}

impl Claim {
    /// Takes the place of the claim that was open before. The code is issued with it.
    fn make(
        self,
        account: &mut Account,
        app: &App,
        thumbprint: &str,
        now: Timestamp,
    ) -> Result<(Contact, Pending), Refused> {
        self.room(account, &app.policy)?;
        let before = account.contacts.take_claim(self.usage);
        let last_sent = before
            .filter(|before| before.is_at(&self.address))
            .and_then(|before| before.last_sent);
        let policy = &app.policy.delivered_codes;
        may_deliver(policy, last_sent, &account.contacts.confirmations, now)
            .map_err(|paced| Refused::DeliveryWait { until: paced.until })?;
        let mut codes = PendingCodes::default();
        let requester = Requester {
            thumbprint,
            bound: account.device(thumbprint).is_some(),
        };
        let pending = codes
            .issue(requester, Form::Long, policy.expiry, now)
            .map_err(not_issued)?;
        account.contacts.confirmations.push(now);
        Ok((
            Contact {
                id: self.id,
                address: self.address,
                usage: self.usage,
                device_id: self.otp.device_id(),
                otp: self.otp,
                binding: self.binding,
                added: now,
                confirmed: None,
                replaces: self.replaces,
                codes,
                last_sent: Some(now),
                guesses: custodyd_policies::Budget::default(),
            },
            pending,
        ))
    }

    fn room(&self, account: &Account, policy: &AppPolicy) -> Result<(), Refused> {
        let what = self.usage.kind().what;
        let replaces = self.replaces.as_deref();
        let has = || {
            let list = account.contacts.list.iter();
            list.filter(|has| has.usage == self.usage && has.confirmed.is_some())
        };
        if let Some(id) = replaces
            && !has().any(|has| has.id == id)
        {
            return Err(Refused::NotFound(what));
        }
        if has().any(|has| has.is_at(&self.address)) {
            return Err(Refused::AddressKnown(what));
        }
        let limit = self.usage.limit(policy);
        let stays = has().filter(|has| Some(has.id.as_str()) != replaces);
        if stays.count() < limit {
            Ok(())
        } else {
            Err(Refused::TooMany {
                what: match self.usage {
                    Usage::Contact => "contacts",
                    Usage::Alias => "aliases",
                },
                limit,
            })
        }
    }
}

/// What is left when a code can not be issued. The caller has made room before.
pub(super) fn not_issued(error: IssueError) -> Refused {
    tracing::error!(%error, "a code was not issued");
    Refused::Internal("issue a code")
}

impl Service {
    /// Names an address and sends a code to it.
    ///
    /// # Errors
    /// `StepUp`, `NotAllowed`, `Unreachable`, `TooMany`, `AddressKnown`, `DeliveryWait`.
    pub async fn claim_address(
        &self,
        caller: Caller,
        usage: Usage,
        request: SetAddress,
    ) -> Result<AddressClaimed, Refused> {
        let now = self.now();
        caller.step_up(caller.account(), CONTACT_WORTH, now)?;
        let address = request
            .address()
            .ok_or_else(|| Refused::Malformed("give either `email` or `phone`".into()))?;
        self.can_claim(&caller.app, usage, address.channel())?;
        let otp = OtpSecret::new()?;
        let device_id = otp.device_id();
        let statement = [(BindingKind::DeliveredCode, device_id.clone())];
        let [binding] = self
            .bindings
            .sign(&caller.app.id, caller.account().id, statement, now)
            .await?;
        let claim = Claim {
            usage,
            id: b64(&random::<16>()?),
            address: address.clone(),
            replaces: request.replaces,
            otp,
            binding: binding.clone(),
        };
        let (app, loaded) = (caller.app.clone(), caller.loaded.clone());
        let ((id, expires, code), _) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, CONTACT_WORTH, moment.now)?;
                let thumbprint = &caller.key.thumbprint;
                let (made, pending) = claim.make(account, &caller.app, thumbprint, moment.now)?;
                journal.note(NewEvent::new(usage.kind().claimed).on(&made.device_id));
                let code = made.otp.code(&pending);
                let answer = (made.id.clone(), pending.expires, code);
                account.contacts.list.push(made);
                Ok(answer)
            })
            .await?;
        self.post_code(&app, address, &code, Purpose::ConfirmAddress)?;
        Ok(AddressClaimed {
            id,
            device_id,
            binding,
            expires,
        })
    }

    fn can_claim(&self, app: &App, usage: Usage, channel: Channel) -> Result<(), Refused> {
        if usage == Usage::Alias && !app.policy.aliases.allowed {
            return Err(Refused::NotAllowed("alias"));
        }
        let name = channel.name();
        let allowed = app.policy.contacts.channels.iter();
        if !allowed.into_iter().any(|allowed| allowed.name() == name) {
            return Err(Refused::NotAllowed(match channel {
                Channel::Email => "contact by e-mail",
                Channel::Sms => "contact by telephone",
            }));
        }
        if self.courier.reaches(channel) {
            Ok(())
        } else {
            Err(Refused::Unreachable(name))
        }
    }

    /// Sends a code. To be called when what it was issued for is durable.
    pub(super) fn post_code(
        &self,
        app: &App,
        to: Address,
        code: &Code,
        purpose: Purpose,
    ) -> Result<(), Refused> {
        let policy = &app.policy.delivered_codes;
        let text = code.text();
        let link = match purpose {
            Purpose::SignIn => policy.link.as_ref(),
            // The link opens the app at its sign-in; a confirmation is pasted where it began.
            Purpose::ConfirmAddress => None,
        };
        let message = delivery::Code {
            link: link.map(|link| link.with(&text).into()),
            code: text,
            expires_minutes: u32::try_from(policy.expiry.as_secs() / 60).unwrap_or(u32::MAX),
            purpose,
        };
        let message = Message::code(&app.policy.display_name, to, message)?;
        self.courier.post(message).map_err(|_| Refused::Busy {
            retry_after: policy.interval,
        })
    }

    /// Removes an address; it is told so, and so are the contacts that stay.
    ///
    /// # Errors
    /// `StepUp`, `NotFound`.
    pub async fn remove_address(
        &self,
        caller: Caller,
        usage: Usage,
        request: RemoveAddress,
    ) -> Result<(), Refused> {
        let loaded = caller.loaded.clone();
        let (removed, loaded) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, CONTACT_WORTH, moment.now)?;
                let removed = take(account, usage, &request.id)?;
                journal.note(NewEvent::new(usage.kind().removed).on(&removed.device_id));
                Ok(removed)
            })
            .await?;
        self.tell_removed(&loaded.account, &removed);
        Ok(())
    }

    fn tell_removed(&self, account: &Account, removed: &Contact) {
        if removed.reachable() {
            self.tell_these(account, [&removed.address], Notice::ContactChanged);
            self.tell(account, Notice::FactorRemoved);
        }
    }
}

fn take(account: &mut Account, usage: Usage, id: &str) -> Result<Contact, Refused> {
    let wanted = |contact: &Contact| contact.usage == usage && contact.id == id;
    let list = &mut account.contacts.list;
    let place = list.iter().position(wanted);
    match place {
        Some(place) => Ok(list.remove(place)),
        None => Err(Refused::NotFound(usage.kind().what)),
    }
}
