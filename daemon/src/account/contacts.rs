//! The addresses of an account: contacts, where codes and notices go, and aliases, by which the
//! account is found.
//!
//! Part of the envelope; changed by `service` inside commits only. An address is a claim until
//! a code that was sent to it has come back. Strangers may ask for codes, so all that they can
//! make grow here is bounded by what the account holds, never by how often they ask. It must
//! never be read by address where the look-up should decide: a claim is no proof.

use custodyd_policies::{Budget, Timestamp, pacing};
use serde::{Deserialize, Serialize};

use crate::delivery::{Address, Channel};
use crate::factors::delivered_code::{MAX_PENDING, OtpSecret, PendingCodes};

/// All addresses of one account, and what is counted about them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    pub list: Vec<Contact>,
    /// Codes for signing in that were sent within a day.
    pub sent: Vec<Timestamp>,
    /// Codes for confirming an address that were sent within a day. Apart from the others:
    /// those anybody may ask for, these only the owner.
    pub confirmations: Vec<Timestamp>,
    /// Guesses from bound devices.
    pub guesses: Budget,
}

/// An address, and the secret that its codes are made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Random; names the address in requests, so that the address need not stand there.
    pub id: String,
    pub address: Address,
    pub usage: Usage,
    pub otp: OtpSecret,
    pub device_id: String,
    pub binding: String,
    pub added: Timestamp,
    /// Absent: a claim, which gives nothing.
    pub confirmed: Option<Timestamp>,
    /// The address that goes when this one is confirmed.
    pub replaces: Option<String>,
    pub codes: PendingCodes,
    pub last_sent: Option<Timestamp>,
    /// Guesses at the code that confirms it.
    pub guesses: Budget,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    /// Codes and notices go there.
    Contact,
    /// The account is found by it, and nothing is ever sent there once it is confirmed.
    Alias,
}

impl Contact {
    /// Whether codes and notices go there.
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.usage == Usage::Contact && self.confirmed.is_some()
    }

    #[must_use]
    pub fn channel(&self) -> Channel {
        self.address.channel()
    }

    /// Whether it is the same address, in whatever spelling.
    #[must_use]
    pub fn is_at(&self, address: &Address) -> bool {
        self.address.normal_form() == address.normal_form()
    }
}

impl Contacts {
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Contact> {
        self.list.iter().find(|contact| contact.id == id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Contact> {
        self.list.iter_mut().find(|contact| contact.id == id)
    }

    /// The contacts that codes and notices go to.
    pub fn reachable(&self) -> impl Iterator<Item = &Contact> {
        self.list.iter().filter(|contact| contact.reachable())
    }

    /// The confirmed contact with that device identifier.
    #[must_use]
    pub fn by_device_id(&self, device_id: &str) -> Option<&Contact> {
        self.reachable()
            .find(|contact| contact.device_id == device_id)
    }

    /// Where a code goes: the contact that was named, else the first one of the channel wanted.
    #[must_use]
    pub fn wanted(&self, named: Option<&Address>, channel: Option<Channel>) -> Option<&Contact> {
        let at = |address: &Address| self.reachable().find(|contact| contact.is_at(address));
        let of_channel =
            |contact: &&Contact| channel.is_none_or(|channel| contact.channel() == channel);
        named
            .and_then(at)
            .filter(of_channel)
            .or_else(|| self.reachable().find(of_channel))
    }

    /// Takes the open claim of that usage away, if there is one.
    pub fn take_claim(&mut self, usage: Usage) -> Option<Contact> {
        let open = |contact: &Contact| contact.usage == usage && contact.confirmed.is_none();
        let place = self.list.iter().position(open)?;
        Some(self.list.remove(place))
    }

    /// Keeps eight codes for the whole account: the contact with the most loses its oldest.
    pub fn keep_few_codes(&mut self) {
        let count = |contact: &Contact| contact.codes.codes().len();
        while self.list.iter().map(count).sum::<usize>() > MAX_PENDING {
            match self.list.iter_mut().max_by_key(|contact| count(contact)) {
                Some(contact) => contact.codes.forget_oldest(),
                None => return,
            }
        }
    }

    /// The open claim of that usage: its device identifier, and the budget of its code.
    pub fn claim_guesses(&mut self, usage: Usage) -> Option<(&str, &mut Budget)> {
        let open = |contact: &&mut Contact| contact.usage == usage && contact.confirmed.is_none();
        let claim = self.list.iter_mut().find(open)?;
        Some((claim.device_id.as_str(), &mut claim.guesses))
    }

    /// Forgets what can not matter any more.
    pub fn forget_expired(&mut self, now: Timestamp) {
        for contact in &mut self.list {
            contact.codes.expire(now);
        }
        self.sent.retain(|sent| pacing::kept(*sent, now));
        self.confirmations.retain(|sent| pacing::kept(*sent, now));
    }

    /// Takes every code from a device that stops being bound: a short one is for bound devices.
    pub fn forget_device(&mut self, thumbprint: &str) {
        for contact in &mut self.list {
            contact.codes.forget_requester(thumbprint);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::factors::delivered_code::{Form, Requester};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn contact(id: &str, address: &str, confirmed: bool) -> Contact {
        let otp = OtpSecret::new().unwrap();
        Contact {
            id: id.into(),
            address: match address.strip_prefix('+') {
                Some(_) => Address::phone(address).unwrap(),
                None => Address::email(address).unwrap(),
            },
            usage: Usage::Contact,
            device_id: otp.device_id(),
            otp,
            binding: String::new(),
            added: NOW,
            confirmed: confirmed.then_some(NOW),
            replaces: None,
            codes: PendingCodes::default(),
            last_sent: None,
            guesses: Budget::default(),
        }
    }

    fn contacts(of: &[(&str, &str, bool)]) -> Contacts {
        let list = of.iter().map(|(id, address, is)| contact(id, address, *is));
        Contacts {
            list: list.collect(),
            ..Contacts::default()
        }
    }

    fn issue(contact: &mut Contact, thumbprint: &str) {
        let requester = Requester {
            thumbprint,
            bound: false,
        };
        let valid = Duration::from_secs(600);
        contact
            .codes
            .issue(requester, Form::Long, valid, NOW)
            .unwrap();
    }

    #[test]
    fn a_code_goes_where_it_was_asked_for_and_never_to_a_claim() {
        let contacts = contacts(&[
            ("claim", "claim@example.com", false),
            ("mail", "ann@example.com", true),
            ("phone", "+4912345678", true),
        ]);
        let id = |named: Option<&str>, channel| {
            let named = named.map(|text| Address::email(text).unwrap());
            let wanted = contacts.wanted(named.as_ref(), channel);
            wanted.map(|contact| contact.id.clone())
        };
        assert_eq!(id(None, None).as_deref(), Some("mail"));
        assert_eq!(id(None, Some(Channel::Sms)).as_deref(), Some("phone"));
        assert_eq!(
            id(Some("ann@EXAMPLE.com"), None).as_deref(),
            Some("mail"),
            "in another spelling"
        );
        assert_eq!(
            id(Some("claim@example.com"), None).as_deref(),
            Some("mail"),
            "a claim is no contact"
        );
    }

    #[test]
    fn an_account_keeps_eight_codes_and_no_contact_is_starved_of_them() {
        let mut contacts = contacts(&[("a", "a@example.com", true), ("b", "b@example.com", true)]);
        for round in 0..MAX_PENDING {
            issue(
                contacts.list.first_mut().unwrap(),
                &format!("device {round}"),
            );
        }
        for round in 0..MAX_PENDING {
            issue(contacts.list.last_mut().unwrap(), &format!("other {round}"));
            contacts.keep_few_codes();
        }
        let counts: Vec<usize> = contacts
            .list
            .iter()
            .map(|contact| contact.codes.codes().len())
            .collect();
        assert_eq!(counts, [4, 4]);
    }
}
