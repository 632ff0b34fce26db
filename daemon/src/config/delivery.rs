//! `[delivery]`: how codes and notices leave the daemon, and how that section is read.
//!
//! Called by `check`. Every channel is optional; what is written must be whole. The password
//! of the mail server is named by a file and never written in the configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use toml::de::DeValue;

use super::check::{expected, is_host, number, path, secret, split_port, string};
use super::reader::{Document, Table};
use crate::private_file::Place;

/// `[delivery]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    pub email: Option<Email>,
    pub sms: Option<Sms>,
    /// Everything goes into this file instead: beside `[listen.development]` only.
    pub outbox: Option<PathBuf>,
    /// Messages that may wait, for each channel, and look-ups.
    pub queue: usize,
    /// Of those, how many are worked on at once.
    pub concurrency: usize,
    /// The socket of the courier that sends for us.
    pub courier: Option<PathBuf>,
}

/// `[delivery.email]`: a mail server that relays for us.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Email {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub from: Mailbox,
    /// A name and where its password is.
    pub login: Option<(String, Place)>,
    /// PEM: authorities that are trusted beside those of the host.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SmtpTls {
    /// Plain until STARTTLS, and nothing is sent without it.
    Starttls,
    /// From the first byte.
    Implicit,
    /// To a server on this machine only.
    None,
}

impl SmtpTls {
    /// RFC 6409 and RFC 8314, and what relays on the same machine use.
    fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Implicit => 465,
            Self::None => 25,
        }
    }
}

/// `[delivery.sms]`: an address that takes text messages as signed calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sms {
    /// Always https, or http to this machine.
    pub webhook: String,
    /// PEM: authorities that are trusted beside those of the host.
    pub ca_file: Option<PathBuf>,
}

pub(super) fn delivery<'i>(
    doc: &mut Document<'i>,
    top: &mut Table<'i>,
    base: &Path,
    development: bool,
) -> Delivery {
    let mut table = doc.table(top, "delivery");
    let queue = doc.or(&mut table, "queue", 1024, |value| number(value, 1..=65_536));
    let concurrency = doc.or(&mut table, "concurrency", 4, |value| number(value, 1..=64));
    let outbox = doc.optional(&mut table, "outbox", |value| path(value, base));
    let email = doc.optional_table(&mut table, "email");
    let sms = doc.optional_table(&mut table, "sms");
    if let Some(outbox) = &outbox {
        if !development {
            let message = "delivery.outbox: for development only: whoever reads this file reads every code; it \
                           is accepted beside [listen.development]";
            doc.error(outbox.at, message.to_owned());
        }
        if email.is_some() || sms.is_some() {
            let message =
                "delivery.outbox: give either this or delivery.email and delivery.sms, not both";
            doc.error(outbox.at, message.to_owned());
        }
    }
    // An unreadable table is an error already noted; `is_clean` stops it.
    let email = email.and_then(|table| self::email(doc, table, base));
    let sms = sms.and_then(|table| self::sms(doc, table, base));
    doc.finish(table);
    Delivery {
        email,
        sms,
        outbox: outbox.map(|placed| placed.value),
        queue,
        concurrency,
        courier: None,
    }
}

fn email<'i>(doc: &mut Document<'i>, mut table: Table<'i>, base: &Path) -> Option<Email> {
    let host = doc.required(
        &mut table,
        "host",
        "the mail server that relays for us, such as \"mail.example.com\"",
        mail_host,
    );
    let tls = doc.optional(&mut table, "tls", |value| match string(value)? {
        "starttls" => Ok(SmtpTls::Starttls),
        "implicit" => Ok(SmtpTls::Implicit),
        "none" => Ok(SmtpTls::None),
        _ => Err(expected("\"starttls\", \"implicit\" or \"none\"", value)),
    });
    let mode = tls.as_ref().map_or(SmtpTls::Starttls, |tls| tls.value);
    let port = doc.or(&mut table, "port", mode.port(), |value| {
        let number = number(value, 1..=65_535)?;
        u16::try_from(number).map_err(|_| expected("a port", value))
    });
    let from = doc.required(
        &mut table,
        "from",
        "the sender, such as \"Custody <custody@example.com>\"",
        mailbox,
    );
    let login = login(doc, &mut table, base);
    let ca_file = doc.optional(&mut table, "ca_file", |value| path(value, base));
    doc.finish(table);
    if let (Some(host), Some(tls)) = (&host, &tls)
        && tls.value == SmtpTls::None
        && !is_loopback(&host.value)
    {
        let message = "delivery.email.tls: without TLS everybody on the way reads the codes; \"none\" is accepted \
                       only where delivery.email.host is this machine (\"localhost\" or a loopback address)";
        doc.error(tls.at, message.to_owned());
    }
    Some(Email {
        host: host?.value,
        port,
        tls: mode,
        from: from?.value,
        login,
        ca_file: ca_file.map(|placed| placed.value),
    })
}

fn login<'i>(
    doc: &mut Document<'i>,
    table: &mut Table<'i>,
    base: &Path,
) -> Option<(String, Place)> {
    let at = table.at();
    let has_name = table.has("username");
    let name = doc.optional(table, "username", |value| {
        let text = string(value)?;
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(expected("1 to 255 bytes without control characters", value));
        }
        Ok(text.to_owned())
    });
    let password = secret(
        doc,
        table,
        ("password_file", "password_credential"),
        |value| path(value, base),
    );
    if let Some(password) = doc.optional(table, "password", |_| Ok(())) {
        let message = "delivery.email.password: the password is never written in the configuration; put it in \
                       a file of its own with mode 0600 and name that as delivery.email.password_file";
        doc.error(password.at, message.to_owned());
    } else if has_name != password.is_some() {
        let missing = if has_name {
            "password_file"
        } else {
            "username"
        };
        let message = "is missing: a login has delivery.email.username and delivery.email.password_file \
                       (or password_credential)";
        doc.error(at, format!("delivery.email.{missing} {message}"));
    }
    Some((name?.value, password??))
}

fn sms<'i>(doc: &mut Document<'i>, mut table: Table<'i>, base: &Path) -> Option<Sms> {
    let webhook = doc.required(
        &mut table,
        "webhook",
        "the address that takes text messages, such as \"https://sms.example.com/send\"",
        webhook,
    );
    let ca_file = doc.optional(&mut table, "ca_file", |value| path(value, base));
    doc.finish(table);
    Some(Sms {
        webhook: webhook?.value,
        ca_file: ca_file.map(|placed| placed.value),
    })
}

fn mail_host(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    // An IPv6 address without the brackets of a URL.
    if (is_host(text) && !text.starts_with('[')) || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(expected(
        "a host name in lower case, or an IP address",
        value,
    ))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn mailbox(value: &DeValue<'_>) -> Result<Mailbox, String> {
    let text = string(value)?;
    let wanted = "an address such as \"custody@example.com\" or \"Custody <custody@example.com>\"";
    let mailbox: Mailbox = text.parse().map_err(|_| expected(wanted, value))?;
    let name = mailbox.name.as_deref().unwrap_or_default();
    // Held to the same rules as the addresses that mails go to.
    if name.chars().any(char::is_control)
        || crate::delivery::EmailAddress::parse(mailbox.email.as_ref()).is_err()
    {
        return Err(expected(wanted, value));
    }
    Ok(mailbox)
}

fn webhook(value: &DeValue<'_>) -> Result<String, String> {
    https_url(
        value,
        "an https URL such as \"https://sms.example.com/send\" (lower case host, no user, no fragment; \
         http only to this machine)",
    )
}

/// An address that is called: `scheme://host[:port][/path][?query]`. Taken as written, because it is
/// signed into what a webhook gets.
pub(super) fn https_url(value: &DeValue<'_>, wanted: &str) -> Result<String, String> {
    let text = string(value)?;
    let fail = || expected(wanted, value);
    let (scheme, rest) = text.split_once("://").ok_or_else(fail)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end).ok_or_else(fail)?;
    let (host, _) = split_port(authority).ok_or_else(fail)?;
    let reached = match scheme {
        "https" => true,
        "http" => is_loopback(host),
        _ => false,
    };
    let clean = tail
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !reached || !clean || !is_host(host) || text.len() > custodyd_hsm::webhook::MAX_URL {
        return Err(fail());
    }
    // What the client will make of it must be the same thing.
    text.parse::<hyper::Uri>().map_err(|_| fail())?;
    Ok(text.to_owned())
}
