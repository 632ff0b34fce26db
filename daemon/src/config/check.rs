//! From a TOML document to a `Config`: every key, its meaning, its default and its bounds.
//!
//! Called by `config::parse` only. One function for each section; a section that could
//! not be read is `None`, and then at least one error has been noted.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use custodyd_hsm::{RealmName, id::SCRATCH_REALMS};
use toml::de::DeValue;

use super::auditors::auditors;
use super::courier::courier;
use super::database::{nodes_suit, store};
use super::delivery;
use super::limits::limits;
use super::proxies;
use super::reader::{Document, Placed, Table, describe};
use super::restore::restore;
use super::token;
use super::witnesses::witnesses;
use crate::http::proxy::Proxies;
use crate::private_file::{self, Place};

use super::{
    Anchor, Config, ConfigError, Development, Ledger, Listen, Log, LogFormat, Operator,
    PinCapacity, Policies, Realm,
};

/// Made by systemd, on a tmpfs.
const DEFAULT_RUNTIME: &str = "/run/custodyd";
const DEFAULT_POLICIES: &str = "policies";
const DEFAULT_OPERATOR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

pub(super) fn config(mut doc: Document<'_>, base: &Path) -> Result<Config, Vec<ConfigError>> {
    match sections(&mut doc, base) {
        Some(config) if doc.is_clean() => Ok(config),
        _ => Err(doc.into_errors()),
    }
}

fn sections(doc: &mut Document<'_>, base: &Path) -> Option<Config> {
    let mut top = doc.top()?;
    let realm = realm(doc, &mut top);
    let listen = listen(doc, &mut top, base);
    let operator = operator(doc, &mut top, listen.as_ref(), base);
    let token = token::token(doc, &mut top, base);
    let store = store(doc, &mut top, base);
    let ledger = ledger(doc, &mut top, base);
    token::suits_the_ledger(doc, token.as_ref(), &ledger);
    nodes_suit(doc, token.as_ref(), (&store, &ledger));
    let policies = policies(doc, &mut top, base);
    let pin = pin(doc, &mut top);
    let development = listen
        .as_ref()
        .is_some_and(|listen| listen.development.is_some());
    let courier = courier(doc, &mut top, base);
    let socket = courier.as_ref().map(|courier| courier.socket.clone());
    let mut delivery = delivery::delivery(doc, &mut top, base, development);
    delivery.courier.clone_from(&socket);
    let limits = limits(doc, &mut top);
    let auditors = auditors(doc, &mut top);
    let mut witnesses = witnesses(doc, &mut top, base);
    witnesses.courier = socket;
    let log = log(doc, &mut top);
    doc.finish(top);
    Some(Config {
        realm: realm?,
        listen: listen?,
        operator,
        token: token?.value,
        store,
        ledger,
        policies,
        pin,
        delivery,
        limits,
        auditors,
        witnesses,
        courier,
        log,
    })
}

fn realm<'i>(doc: &mut Document<'i>, top: &mut Table<'i>) -> Option<Realm> {
    let mut table = doc.table(top, "realm");
    let why =
        "the name of this deployment, such as \"custody.example\"; it can never be changed later";
    let name = doc.required(&mut table, "name", why, |value| {
        let text = string(value)?;
        if text.starts_with(SCRATCH_REALMS) {
            return Err(expected(
                "another name: such are for proofs of tokens, which remove the anchors of these realms",
                value,
            ));
        }
        RealmName::parse(text).map_err(|_| {
            expected(
                "1 to 64 of a-z, 0-9, dot and hyphen, the first a letter or digit",
                value,
            )
        })
    });
    doc.finish(table);
    Some(Realm { name: name?.value })
}

fn listen<'i>(doc: &mut Document<'i>, top: &mut Table<'i>, base: &Path) -> Option<Listen> {
    let mut table = doc.table(top, "listen");
    let public = doc.required(
        &mut table,
        "public",
        "the address of the TLS listener, such as \"0.0.0.0:8443\"",
        address,
    );
    let url = doc.required(
        &mut table,
        "url",
        "the base URL that clients use, such as \"https://custody.example\"",
        |value| base_url(value, "https://"),
    );
    let certificate = doc.required(
        &mut table,
        "certificate",
        "the PEM file with the server's certificate and its intermediates",
        |value| path(value, base),
    );
    let private_key = private_key(doc, &mut table, base);
    let max_connections = doc.or(&mut table, "max_connections", 4096, |value| {
        number(value, 1..=1_000_000)
    });
    let drain = doc.or(&mut table, "drain", Duration::from_secs(15), |value| {
        duration(value, Duration::ZERO..=Duration::from_secs(600))
    });
    let proxy_protocol = doc.or(
        &mut table,
        "proxy_protocol",
        Proxies::default(),
        proxies::proxies,
    );
    let development = doc
        .optional_table(&mut table, "development")
        .map(|inner| development(doc, inner));
    doc.finish(table);
    // An unreadable development section is an error already noted; `is_clean` stops it.
    Some(Listen {
        public: public?.value,
        url: url?.value,
        certificate: certificate?.value,
        private_key: private_key?,
        development: development.flatten(),
        max_connections,
        drain,
        proxy_protocol,
    })
}

fn private_key<'i>(doc: &mut Document<'i>, table: &mut Table<'i>, base: &Path) -> Option<Place> {
    let place = secret(
        doc,
        table,
        ("private_key", "private_key_credential"),
        |value| path(value, base),
    );
    if place.is_none() {
        let message = "listen.private_key is missing: the PEM file with the key of the certificate, or \
                       listen.private_key_credential, a systemd credential";
        doc.error(table.at(), message.to_owned());
    }
    place.flatten()
}

/// A secret that is a file or a systemd credential, never both. None where neither is named, and
/// none inside where one is and was wrong, which has been noted.
#[allow(clippy::option_option, reason = "absent and wrong are told apart")]
pub(super) fn secret<'i>(
    doc: &mut Document<'i>,
    table: &mut Table<'i>,
    (file, credential): (&'static str, &'static str),
    read: impl Fn(&DeValue<'i>) -> Result<PathBuf, String>,
) -> Option<Option<Place>> {
    let named = (table.has(file), table.has(credential));
    let path = doc.optional(table, file, read);
    let name = doc.optional(table, credential, |value| {
        let text = string(value)?;
        if !private_file::is_credential_name(text) {
            let what = "the name of a credential: letters, digits, dot, hyphen and underscore";
            return Err(expected(what, value));
        }
        Ok(text.to_owned())
    });
    match named {
        (false, false) => None,
        (true, true) => {
            let (file, credential) = (table.name_of(file), table.name_of(credential));
            doc.error(
                table.at(),
                format!("{file}: give either this or {credential}, not both"),
            );
            Some(None)
        }
        _ => Some(
            path.map(|path| Place::File(path.value))
                .or(name.map(|name| Place::Credential(name.value))),
        ),
    }
}

fn development<'i>(doc: &mut Document<'i>, mut table: Table<'i>) -> Option<Development> {
    let listen = doc.required(
        &mut table,
        "listen",
        "a loopback address, such as \"127.0.0.1:8080\"",
        loopback,
    );
    let url = doc.required(
        &mut table,
        "url",
        "what the browser uses, such as \"http://localhost:8080\"",
        localhost_url,
    );
    doc.finish(table);
    Some(Development {
        listen: listen?.value,
        url: url?.value,
    })
}

fn operator<'i>(
    doc: &mut Document<'i>,
    top: &mut Table<'i>,
    listen: Option<&Listen>,
    base: &Path,
) -> Operator {
    let mut table = doc.table(top, "operator");
    let at = table.at();
    let address = doc
        .optional(&mut table, "listen", loopback)
        .unwrap_or(Placed {
            value: DEFAULT_OPERATOR,
            at,
        });
    let socket = doc.optional(&mut table, "socket", |value| socket_path(value, base));
    doc.finish(table);
    let development = listen.and_then(|listen| listen.development.as_ref());
    // Port 0 asks the kernel for a free one, so two of them never collide.
    if address.value.port() != 0 {
        if listen.is_some_and(|listen| listen.public == address.value) {
            doc.error(
                address.at,
                "operator.listen: the same address as listen.public".to_owned(),
            );
        }
        if development.is_some_and(|development| development.listen == address.value) {
            let message = "operator.listen: the same address as listen.development.listen";
            doc.error(address.at, message.to_owned());
        }
    }
    Operator {
        listen: address.value,
        socket: socket.map(|placed| placed.value),
    }
}

fn ledger<'i>(doc: &mut Document<'i>, top: &mut Table<'i>, base: &Path) -> Ledger {
    let mut table = doc.table(top, "ledger");
    let anchor = doc.or(
        &mut table,
        "anchor",
        Anchor::Strict,
        |value| match string(value)? {
            "strict" => Ok(Anchor::Strict),
            "bounded" => Ok(Anchor::Bounded),
            _ => Err("expected \"strict\" or \"bounded\"".to_owned()),
        },
    );
    let interval = Duration::from_secs(1)..=Duration::from_secs(3600);
    let anchor_interval = doc.or(
        &mut table,
        "anchor_interval",
        Duration::from_secs(10),
        |value| duration(value, interval),
    );
    let runtime_directory = doc.or(
        &mut table,
        "runtime_directory",
        PathBuf::from(DEFAULT_RUNTIME),
        |value| path(value, base),
    );
    let public_log = doc.or(&mut table, "public_log", false, boolean);
    let periods = Duration::from_secs(1)..=Duration::from_secs(90 * 86_400);
    let scrub_period = doc.or(
        &mut table,
        "scrub_period",
        Duration::from_secs(86_400),
        |value| duration(value, periods),
    );
    let restore = restore(doc, &mut table);
    doc.finish(table);
    Ledger {
        anchor,
        anchor_interval,
        runtime_directory,
        public_log,
        scrub_period,
        restore,
    }
}

fn policies<'i>(doc: &mut Document<'i>, top: &mut Table<'i>, base: &Path) -> Policies {
    let mut table = doc.table(top, "policies");
    let directory = doc.or(
        &mut table,
        "directory",
        base.join(DEFAULT_POLICIES),
        |value| path(value, base),
    );
    doc.finish(table);
    Policies { directory }
}

fn pin<'i>(doc: &mut Document<'i>, top: &mut Table<'i>) -> PinCapacity {
    let mut table = doc.table(top, "pin");
    // Argon2id keeps a core busy: more threads than cores only adds waiting and memory.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = doc.or(&mut table, "threads", cores.min(256), |value| {
        number(value, 1..=256)
    });
    let queue = doc.or(&mut table, "queue", 64, |value| number(value, 0..=65_536));
    doc.finish(table);
    PinCapacity { threads, queue }
}

fn log<'i>(doc: &mut Document<'i>, top: &mut Table<'i>) -> Log {
    let mut table = doc.table(top, "log");
    let format = doc.or(
        &mut table,
        "format",
        LogFormat::Human,
        |value| match string(value)? {
            "human" => Ok(LogFormat::Human),
            "json" => Ok(LogFormat::Json),
            _ => Err(expected("\"human\" or \"json\"", value)),
        },
    );
    let filter = doc.or(&mut table, "filter", "info".to_owned(), |value| {
        let text = string(value)?;
        crate::telemetry::check_filter(text)
            .map(|()| text.to_owned())
            .map_err(|_| expected("filter directives such as \"info,custodyd=debug\"", value))
    });
    doc.finish(table);
    Log { format, filter }
}

pub(super) fn expected(what: &str, found: &DeValue<'_>) -> String {
    format!("expected {what}, found {}", describe(found))
}

pub(super) fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| expected("a string", value))
}

fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(truth) => Ok(*truth),
        _ => Err(expected("true or false", value)),
    }
}

pub(super) fn number(value: &DeValue<'_>, range: RangeInclusive<usize>) -> Result<usize, String> {
    let DeValue::Integer(integer) = value else {
        return Err(expected("a whole number", value));
    };
    usize::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            expected(
                &format!("a whole number from {} to {}", range.start(), range.end()),
                value,
            )
        })
}

pub(super) fn duration(
    value: &DeValue<'_>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    humantime::parse_duration(string(value)?)
        .ok()
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| {
            let low = humantime::format_duration(*range.start());
            let high = humantime::format_duration(*range.end());
            expected(
                &format!("a duration such as \"15s\" or \"1m\", from {low} to {high}"),
                value,
            )
        })
}

pub(super) fn path(value: &DeValue<'_>, base: &Path) -> Result<PathBuf, String> {
    let text = string(value)?;
    if text.is_empty() || text.contains('\0') {
        return Err(expected("a path", value));
    }
    Ok(base.join(text))
}

/// The kernel has 108 bytes for the path of a socket, the last one a zero.
pub(super) fn socket_path(value: &DeValue<'_>, base: &Path) -> Result<PathBuf, String> {
    let path = path(value, base)?;
    if path.as_os_str().len() > 107 {
        return Err(expected(
            "a path of at most 107 bytes, the folder of this file counted",
            value,
        ));
    }
    Ok(path)
}

fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    string(value)?.parse().map_err(|_| {
        expected(
            "an IP address and a port, such as \"0.0.0.0:8443\" or \"[::]:8443\"",
            value,
        )
    })
}

fn loopback(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address = address(value)?;
    if !address.ip().is_loopback() {
        let what = "a loopback address, such as \"127.0.0.1:9464\" (this listener has no TLS and must \
                    not be reachable from outside)";
        return Err(expected(what, value));
    }
    Ok(address)
}

/// `scheme://host` or `scheme://host:port`, written as a browser would write it in a
/// request: lower case, no default port, nothing behind. A client's proof names exactly
/// this text, so two spellings of one URL would refuse every client.
fn base_url(value: &DeValue<'_>, scheme: &str) -> Result<String, String> {
    let text = string(value)?;
    let fail = || {
        let what = format!(
            "a URL such as \"{scheme}custody.example\" or \"{scheme}custody.example:8443\" (lower case, \
             no path, no trailing slash, no default port)"
        );
        expected(&what, value)
    };
    let authority = text.strip_prefix(scheme).ok_or_else(fail)?;
    let (host, port) = split_port(authority).ok_or_else(fail)?;
    if !is_host(host) || port == Some(443) {
        return Err(fail());
    }
    Ok(text.to_owned())
}

fn localhost_url(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let port = text.strip_prefix("http://").and_then(split_port);
    match port {
        Some(("localhost", Some(port))) if port != 80 => Ok(text.to_owned()),
        _ => Err(expected(
            "\"http://localhost:PORT\" (without TLS, browsers allow passkeys on localhost only)",
            value,
        )),
    }
}

/// Splits `host[:port]`; `None` where the port is not a plain decimal 1..=65535.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons inside "[::1]" belong to the host.
        Some((_, tail)) if tail.ends_with(']') => return Some((authority, None)),
        None => return Some((authority, None)),
        Some(parts) => parts,
    };
    let number: u16 = port.parse().ok()?;
    (number != 0 && number.to_string() == port).then_some((host, Some(number)))
}

pub(super) fn is_host(host: &str) -> bool {
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|ip| ip.to_string() == inner);
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    host.len() <= 253 && host.split('.').all(label)
}
