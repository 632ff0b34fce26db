//! Contacts and aliases: naming an address, proving it, removing it.
//!
//! Whoever names an address may be its enemy: the owner of another account who wants codes sent
//! to a stranger, or a look-up name that is somebody else's. So an address is a claim that gives
//! nothing until a code sent to it has come back from the device that asked; that code is always
//! a long one, since the budget of an account in the claimant's hands protects nobody. How many
//! such codes one address gets from all accounts together is for `recipients` to say. Whether
//! an alias is taken is decided, and never told, when it is proven. What changed is told to the
//! addresses that were there before, after the commit.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::Lane;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{AppPolicy, CONTACT_WORTH, Timestamp, may_deliver};

use super::door::busy;
use super::error::Later;
use super::guess::{Charged, Guess};
use super::overview::Seen;
use super::{App, Caller, Refused, Service};
use crate::account::{Account, Alias, AliasName, Contact, Usage};
use crate::api::{AddressClaimed, AddressView, ConfirmAddress, RemoveAddress, SetAddress};
use crate::delivery::{self, Address, Channel, Message, Notice, Purpose};
use crate::factors::delivered_code::{Code, Form, OtpSecret, Pending, PendingCodes, Requester};
use crate::factors::{b64, random};
use crate::ledger::{EventKind, Loaded, NewEvent};

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

    fn guess(self) -> Guess {
        match self {
            Self::Contact => Guess::ContactCode,
            Self::Alias => Guess::AliasCode,
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
        may_deliver(policy, last_sent, &account.contacts.confirmations, now).map_err(|paced| {
            Refused::DeliveryWait {
                until: Later::than(now, paced.until),
            }
        })?;
        let mut codes = PendingCodes::default();
        let requester = Requester {
            thumbprint,
            bound: account.device(thumbprint).is_some(),
        };
        let pending = codes
            .issue(requester, Form::Long, policy.expiry, now)
            .map_err(|_| Refused::Internal("issue a code"))?;
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
        let recipients = Arc::clone(&self.recipients);
        let ((id, expires, code), _) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, CONTACT_WORTH, moment.now)?;
                let thumbprint = &caller.key.thumbprint;
                let (made, pending) = claim.make(account, &caller.app, thumbprint, moment.now)?;
                // Last, so that only what is sent is counted.
                recipients
                    .take(&made.address, Purpose::ConfirmAddress)
                    .map_err(|wait| Refused::DeliveryWait {
                        until: Later::than(
                            moment.now,
                            moment.now.plus(wait).plus(Duration::from_secs(1)),
                        ),
                    })?;
                journal.note(NewEvent::new(usage.kind().claimed).on(&made.device_id));
                let code = made.otp.code(&pending);
                let answer = (made.id.clone(), pending.expires, code);
                account.contacts.list.push(made);
                Ok(answer)
            })
            .await?;
        let valid = app.policy.delivered_codes.expiry;
        self.post_code(&app, address, (&code, valid), Purpose::ConfirmAddress)?;
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
        if !self.courier.reaches(channel) {
            return Err(Refused::Unreachable(name));
        }
        // Before the pacing counts a code that could not leave.
        if !self.courier.has_room(Some(channel)) {
            return Err(busy("messages", app.policy.delivered_codes.interval));
        }
        Ok(())
    }

    /// Sends a code, which is good for so long. To be called when what it was issued for is durable.
    pub(super) fn post_code(
        &self,
        app: &App,
        to: Address,
        (code, valid): (&Code, Duration),
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
            expires_minutes: u32::try_from(valid.as_secs() / 60).unwrap_or(u32::MAX),
            purpose,
        };
        let message = Message::code(&app.policy.display_name, to, message)?;
        let posted = self.courier.post(message);
        posted.map_err(|_| busy("messages", policy.interval))
    }

    /// Proves a claimed address with the code that was sent there.
    ///
    /// # Errors
    /// `NotFound`, `Wrong`, `Wait`, `Exhausted`.
    pub async fn confirm_address(
        &self,
        caller: Caller,
        usage: Usage,
        request: ConfirmAddress,
    ) -> Result<(), Refused> {
        caller.writes()?;
        let code = Code::parse(request.code.expose())
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let account = caller.account();
        let claim =
            open_claim(account, usage, &request.id).ok_or(Refused::NotFound(usage.kind().what))?;
        self.bindings.check(
            account,
            BindingKind::DeliveredCode,
            &claim.otp.device_id(),
            &claim.binding,
        )?;
        let address = claim.address.clone();
        let device = caller.device();
        let id = request.id.clone();
        let (charged, (otp, codes), loaded) = self
            .charge(
                usage.guess(),
                &device,
                caller.loaded.clone(),
                move |account| {
                    let claim = open_claim(account, usage, &id);
                    let claim = claim.ok_or(Refused::NotFound(usage.kind().what))?;
                    Ok((claim.otp.clone(), claim.codes.clone()))
                },
            )
            .await?;
        let thumbprint = &device.key.thumbprint;
        let Some(counter) = codes.find(&otp, thumbprint, &code, self.now()) else {
            return Err(self.record_wrong(&device, loaded, charged).await);
        };
        let proof = Proof {
            usage,
            id: request.id,
            counter,
            charged,
        };
        let alias = self.look_up_name(&caller, usage, &address).await?;
        let by_name = alias.is_some();
        let before = loaded.clone();
        let mut taken = self
            .take_address(caller.clone(), proof.clone(), alias, loaded)
            .await;
        if by_name && matches!(taken, Err(Refused::AliasTaken)) {
            // Another account is found by this address. A contact does without; an alias is
            // nothing else, and its claimant learns no more than from a wrong code.
            taken = match usage {
                Usage::Contact => self.take_address(caller, proof, None, before).await,
                Usage::Alias => Err(self.record_wrong(&device, before, proof.charged).await),
            };
        }
        let (replaced, loaded) = taken?;
        if let Some(replaced) = replaced {
            self.tell_removed(&loaded.account, &replaced);
        }
        Ok(())
    }

    /// The name by which the account will be found, where the address is to be one.
    async fn look_up_name(
        &self,
        caller: &Caller,
        usage: Usage,
        address: &Address,
    ) -> Result<Option<Alias>, Refused> {
        if usage == Usage::Contact && !caller.app.policy.contacts.alias {
            return Ok(None);
        }
        let name = AliasName::of(address);
        // The code was charged: what asks the token now goes first, or the guess were lost by what others ask it.
        let naming = self.ledger.alias(&caller.app.id, name);
        Ok(Some(Lane::First.during(naming).await?))
    }

    async fn take_address(
        &self,
        caller: Caller,
        proof: Proof,
        alias: Option<Alias>,
        loaded: Loaded,
    ) -> Result<(Option<Contact>, Loaded), Refused> {
        self.ledger
            .record_outcome::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                proof.charged.succeed(account, moment.now)?;
                let (confirmed, replaced) = proof.apply(account, &caller, moment.now)?;
                if let Some(alias) = alias {
                    account.add_alias(alias);
                }
                let kind = proof.usage.kind();
                journal.note(NewEvent::new(kind.confirmed).on(&confirmed));
                if let Some(replaced) = &replaced {
                    journal.note(NewEvent::new(kind.removed).on(&replaced.device_id));
                }
                Ok(replaced)
            })
            .await
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

/// A code that came back, still to be recorded in the newest state.
#[derive(Clone)]
struct Proof {
    usage: Usage,
    id: String,
    counter: u64,
    charged: Charged,
}

impl Proof {
    /// Makes the claim an address of the account, and takes the one away that it replaces.
    fn apply(
        &self,
        account: &mut Account,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(String, Option<Contact>), Refused> {
        let thumbprint = &caller.key.thumbprint;
        let claim = account
            .contacts
            .get_mut(&self.id)
            .filter(|claim| claim.usage == self.usage && claim.confirmed.is_none())
            .ok_or(Refused::AuthenticationFailed)?;
        claim
            .codes
            .redeem(self.counter, thumbprint, now)
            .ok_or(Refused::AuthenticationFailed)?;
        // A code to confirm is none to sign in with.
        claim.codes.void();
        claim.confirmed = Some(now);
        // The wait is for mail that nobody wants; this one has come back.
        claim.last_sent = None;
        claim.guesses = custodyd_policies::Budget::default();
        let (device_id, replaces) = (claim.device_id.clone(), claim.replaces.take());
        let replaced = replaces.and_then(|id| take(account, self.usage, &id).ok());
        Ok((device_id, replaced))
    }
}

fn open_claim<'a>(account: &'a Account, usage: Usage, id: &str) -> Option<&'a Contact> {
    account
        .contacts
        .get(id)
        .filter(|claim| claim.usage == usage && claim.confirmed.is_none())
}

/// The addresses of one usage as the caller may see them.
pub(super) fn views(seen: &Seen<'_>, usage: Usage) -> Vec<AddressView> {
    let list = seen.account.contacts.list.iter();
    let shown = seen.addresses;
    list.filter(|contact| contact.usage == usage)
        .map(|contact| AddressView {
            id: contact.id.clone(),
            channel: contact.channel(),
            address: shown.then(|| contact.address.expose().to_owned()),
            device_id: contact.device_id.clone(),
            binding: contact.binding.clone(),
            added: contact.added,
            confirmed: contact.confirmed,
        })
        .collect()
}

fn take(account: &mut Account, usage: Usage, id: &str) -> Result<Contact, Refused> {
    let wanted = |contact: &Contact| contact.usage == usage && contact.id == id;
    let list = &mut account.contacts.list;
    let place = list.iter().position(wanted);
    match place {
        Some(place) => {
            let taken = list.remove(place);
            // The account is no longer found by it, unless it is here in the other usage too.
            let stays = |has: &Contact| has.confirmed.is_some() && has.is_at(&taken.address);
            if taken.confirmed.is_some() && !list.iter().any(stays) {
                account.drop_alias(&AliasName::of(&taken.address));
            }
            Ok(taken)
        }
        None => Err(Refused::NotFound(usage.kind().what)),
    }
}
