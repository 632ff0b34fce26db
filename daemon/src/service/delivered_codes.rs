//! Asking for a code to sign in with, which is sent to a contact.
//!
//! Anybody may ask for a code for anybody, so asking is answered at once and alike: whether
//! there is such an account, what it holds, and whether anything is sent is found out in an
//! errand that nobody waits for. Such a request writes nothing but a pending code, of which an
//! account holds eight at most, and what paces them is in the envelope too. Whoever asks while
//! that is full, or too soon, is let in on the code that is under way: a flood of requests sends
//! the owner mail, and never keeps them from using it.

use std::sync::Arc;
use std::time::Duration;

use custodyd_policies::{Factor, Timestamp, UnknownDevice, good_for, may_deliver, unknown_device};

use super::door::busy;
use super::named::Named;
use super::{Device, Recipients, Refused, Service};
use crate::account::{Account, Contact};
use crate::api::{CodeRequested, RequestCode};
use crate::delivery::{Address, Channel, Purpose};
use crate::factors::delivered_code::{Code, Form, Requester};
use crate::ledger::{EventKind, LedgerError, NewEvent};

#[cfg(test)]
mod tests;

/// What an errand's commit decided.
enum Wished {
    /// A new code, to be sent there, and for how long it is good.
    Issued(Address, Code, Duration),
    /// This device may redeem a code that was sent before.
    Attached,
}

/// Why an errand ends without a commit or a message. Nobody is ever told.
enum Unsent {
    /// Nobody to send to, no code to share, or this device has one already.
    Nothing,
    Failed(Refused),
}

impl From<LedgerError> for Unsent {
    fn from(error: LedgerError) -> Self {
        Self::Failed(error.into())
    }
}

impl Service {
    /// Takes the wish for a code. The answer is the same for everybody.
    ///
    /// # Errors
    /// `Malformed`, `NotAllowed`; `Busy` for everybody while too many errands wait.
    pub fn request_code(
        self: &Arc<Self>,
        device: Device,
        request: RequestCode,
    ) -> Result<CodeRequested, Refused> {
        let policy = &device.app.policy.delivered_codes;
        if !policy.allowed {
            return Err(Refused::NotAllowed("delivered code"));
        }
        let named = Named::new(request.account, request.alias.as_deref())?;
        let answer = CodeRequested {
            valid_for: policy.expiry.as_secs(),
        };
        let service = Arc::clone(self);
        let errand = async move {
            let outcome = match service.send_code(&device, named, request.channel).await {
                Ok(outcome) => outcome,
                Err(Unsent::Nothing) => "nothing",
                Err(Unsent::Failed(error)) => {
                    tracing::error!(%error, "a code was not sent");
                    "failed"
                }
            };
            metrics::counter!("custodyd_code_requests_total", "outcome" => outcome).increment(1);
        };
        let put = self.courier.run(errand);
        put.map_err(|_| busy("look-ups", Duration::from_secs(1)))?;
        Ok(answer)
    }

    /// The errand: look up, decide and commit, and only then send.
    async fn send_code(
        &self,
        device: &Device,
        named: Named,
        channel: Option<Channel>,
    ) -> Result<&'static str, Unsent> {
        // Before the pacing counts a code that could not leave.
        if !self.courier.has_room(channel) {
            return Err(Unsent::Failed(busy(
                "messages",
                device.app.policy.delivered_codes.interval,
            )));
        }
        let found = self.find(&device.app, &named).await?;
        let loaded = found.ok_or(Unsent::Nothing)?;
        let asks = device.clone();
        let recipients = Arc::clone(&self.recipients);
        let (wished, _) = self
            .ledger
            .commit::<_, Unsent>(loaded, move |account, moment, journal| {
                let wished = wish(account, &asks, &named, channel, &recipients, moment.now)?;
                // A stranger's request leaves no event: else anybody could make the log grow.
                let bound = account.device(&asks.key.thumbprint).is_some();
                if bound && matches!(wished, Wished::Issued(..)) {
                    journal.note(NewEvent::new(EventKind::CodeSent).on(&asks.key.thumbprint));
                }
                Ok(wished)
            })
            .await?;
        match wished {
            Wished::Issued(to, code, valid) => {
                self.post_code(&device.app, to, (&code, valid), Purpose::SignIn)
                    .map_err(Unsent::Failed)?;
                Ok("sent")
            }
            Wished::Attached => Ok("attached"),
        }
    }
}

/// Issues a code, or lets the device in on one that is under way.
fn wish(
    account: &mut Account,
    device: &Device,
    named: &Named,
    channel: Option<Channel>,
    recipients: &Recipients,
    now: Timestamp,
) -> Result<Wished, Unsent> {
    let policy = &device.app.policy;
    let requester = Requester {
        thumbprint: &device.key.thumbprint,
        bound: account.device(&device.key.thumbprint).is_some(),
    };
    let use_for_strangers = unknown_device(policy, Factor::DeliveredCode);
    if !requester.bound && use_for_strangers == UnknownDevice::Refused {
        return Err(Unsent::Nothing);
    }
    let contacts = &mut account.contacts;
    contacts.forget_expired(now);
    let wanted = contacts.wanted(named.address(), channel);
    let id = wanted.map(|contact| contact.id.clone());
    let id = id.ok_or(Unsent::Nothing)?;
    let sent = contacts.sent.clone();
    let contact = contacts.get_mut(&id).ok_or(Unsent::Nothing)?;
    let policy = &policy.delivered_codes;
    if may_deliver(policy, contact.last_sent, &sent, now).is_err() {
        return attach(contact, requester, now);
    }
    // Only whoever proved this address has a device that is bound: nobody's requests from
    // elsewhere keep a code from it.
    if !requester.bound && recipients.take(&contact.address, Purpose::SignIn).is_err() {
        return attach(contact, requester, now);
    }
    // Until there may be another, by either pace.
    let until_next = good_for(policy, &sent, now);
    let scarce = until_next > policy.expiry;
    let form = match u8::try_from(policy.digits) {
        // A short code is of no use to a device that is not bound: while the next one is far, a bound one has a long one, too.
        Ok(digits) if requester.bound && !scarce => Form::Digits(digits),
        _ => Form::Long,
    };
    let valid = match form {
        Form::Long => until_next.max(recipients.pause_after(sent.len() + 1)),
        Form::Digits(_) => policy.expiry,
    };
    let Ok(pending) = contact.codes.issue(requester, form, valid, now) else {
        return attach(contact, requester, now);
    };
    contact.last_sent = Some(now);
    let code = contact.otp.code(&pending);
    let issued = Wished::Issued(contact.address.clone(), code, valid);
    contacts.sent.push(now);
    contacts.keep_few_codes();
    Ok(issued)
}

fn attach(
    contact: &mut Contact,
    requester: Requester<'_>,
    now: Timestamp,
) -> Result<Wished, Unsent> {
    let mut codes = contact.codes.codes().iter();
    if codes.any(|code| code.open_to(requester.thumbprint, now)) {
        // Asking again changes nothing, so it writes nothing.
        return Err(Unsent::Nothing);
    }
    contact
        .codes
        .attach(requester, now)
        .map(|_| Wished::Attached)
        .ok_or(Unsent::Nothing)
}
