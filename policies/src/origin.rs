//! The syntax of web origins and relying party identifiers, as strict as browsers are.
//!
//! Called by the policy parser. The daemon later compares origins byte by byte with what browsers send, so an
//! origin that is merely equivalent (a trailing slash, a default port, capitals) would be an app that never
//! works; and one that is too wide would let a stranger's page use the app's passkeys. Must never repair
//! anything: what is not exact is refused with a sentence.

/// The host of an exact origin: `https://host[:port]`, or `http://localhost[:port]` for development.
///
/// # Errors
/// A sentence that says what is wrong and what is expected.
pub(crate) fn host_of_origin(origin: &str) -> Result<&str, &'static str> {
    if origin.contains('*') {
        return Err("wildcards are not allowed, list each origin");
    }
    if !origin.is_ascii() {
        return Err("expected ASCII: write an international domain in its xn-- form");
    }
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("expected lower-case letters, as browsers send them");
    }
    let (secure, authority) = match (
        origin.strip_prefix("https://"),
        origin.strip_prefix("http://"),
    ) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("expected an origin such as \"https://app.example\""),
    };
    if authority.contains(['/', '?', '#', '@']) {
        return Err(
            "expected scheme, host and port only: no path, no trailing slash, no user name",
        );
    }
    let host = host_of_authority(authority, if secure { "443" } else { "80" })?;
    if !secure && host != "localhost" {
        return Err("http:// is allowed for localhost only, expected https://");
    }
    Ok(host)
}

/// Splits a URL behind its origin: at the first character that ends the authority (RFC 3986, section 3.2). Whether
/// the first part is an origin, [`host_of_origin`] says.
pub(crate) fn split(url: &str) -> (&str, &str) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(authority..).unwrap_or_default();
    let end = rest
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| authority + at);
    url.split_at_checked(end).unwrap_or((url, ""))
}

fn host_of_authority<'a>(authority: &'a str, default_port: &str) -> Result<&'a str, &'static str> {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if let Some(port) = port {
        let number = port.parse::<u16>().is_ok_and(|number| number > 0);
        if !number || port.starts_with(['0', '+']) {
            return Err("expected a port from 1 to 65535");
        }
        if port == default_port {
            return Err("leave the default port out: browsers do");
        }
    }
    check_host(host)?;
    Ok(host)
}

/// A DNS host name in lower case (RFC 1123, section 2.1), and no IP address: WebAuthn has no relying party for one.
pub(crate) fn check_host(host: &str) -> Result<(), &'static str> {
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err("expected a host name such as app.example, in lower case");
    }
    // A last label of digits only, or 0x and hex digits, makes browsers read the whole host as an IPv4 address.
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").unwrap_or("-");
    if last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err("an IP address cannot be used with passkeys, expected a host name");
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a page on `host` may use passkeys of the relying party `id` (W3C Web Authentication, section 5.1.3):
/// `id` is the host, or a parent of it at a dot that is more than a top-level domain.
///
/// The list of public suffixes is not consulted. Browsers do, and refuse for example `co.uk` by themselves.
pub(crate) fn covers(id: &str, host: &str) -> bool {
    let below = host
        .strip_suffix(id)
        .is_some_and(|rest| rest.ends_with('.'));
    host == id || (below && id.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_origins_give_their_host() {
        for (origin, host) in [
            ("https://app.example", "app.example"),
            ("https://app.example:8443", "app.example"),
            ("https://localhost:8443", "localhost"),
            ("http://localhost", "localhost"),
            ("http://localhost:8080", "localhost"),
            ("http://localhost:443", "localhost"),
            ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("https://1.example", "1.example"),
        ] {
            assert_eq!(host_of_origin(origin), Ok(host), "{origin}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for origin in [
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?x",
            "https://user@app.example",
            "https://*.example",
            "https://App.example",
            "HTTPS://app.example",
            "https://app.example:443",
            "http://localhost:80",
            "https://app.example:0",
            "https://app.example:08443",
            "https://app.example:+8443",
            "https://app.example:65536",
            "https://app.example:",
            "https://app.example:1:2",
            "https://app..example",
            "https://.example",
            "https://app.example.",
            "https://-app.example",
            "https://app_1.example",
            "https://bücher.example",
            "https://127.0.0.1",
            "https://1.0x7f",
            "https://0x",
            "https://[::1]",
            "http://app.example",
            "http://localhost.example",
            "ftp://app.example",
            "null",
            " https://app.example",
        ] {
            assert!(host_of_origin(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_url_is_split_where_its_authority_ends() {
        for (url, parts) in [
            ("https://a.example/x?y#z", ("https://a.example", "/x?y#z")),
            ("https://a.example?x=/", ("https://a.example", "?x=/")),
            ("https://a.example:8443#x", ("https://a.example:8443", "#x")),
            ("https://a.example", ("https://a.example", "")),
            (
                "https://a.example\\@b.example/x",
                ("https://a.example\\@b.example", "/x"),
            ),
            ("a/b", ("a", "/b")),
            ("", ("", "")),
        ] {
            assert_eq!(split(url), parts, "{url}");
        }
    }

    #[test]
    fn a_relying_party_is_the_host_or_a_parent_at_a_dot() {
        assert!(covers("app.example", "app.example"));
        assert!(covers("bank.example", "login.bank.example"));
        assert!(covers("localhost", "localhost"));
        assert!(!covers("bank.example", "evilbank.example"));
        assert!(!covers("example", "bank.example"));
        assert!(!covers("login.bank.example", "bank.example"));
        assert!(!covers("", "bank.example"));
    }
}
