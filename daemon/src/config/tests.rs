//! Tests of the configuration: the shipped example, each kind of error with its place, and
//! the parser against arbitrary text.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod courier;
mod limits;
mod nodes;
mod proxies;
mod witnesses;

use proptest::prelude::*;

use self::courier::COURIER;
use self::witnesses::WITNESS;
use super::*;

const EXAMPLE: &str = include_str!("../../custodyd.example.toml");

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse("c.toml", text, Path::new("/base"))
}

/// The messages for the example with one piece of text replaced.
fn errors_with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    read(&EXAMPLE.replacen(from, to, 1))
        .unwrap_err()
        .to_string()
}

/// The line of the example (from 1) on which a text stands.
fn line_of(text: &str) -> usize {
    EXAMPLE
        .lines()
        .position(|line| line.contains(text))
        .unwrap()
        + 1
}

#[test]
fn the_example_is_read() {
    let config = read(EXAMPLE).unwrap();
    assert_eq!(config.realm.name.as_str(), "custody.example");
    assert_eq!(config.listen.url, "https://custody.example");
    assert_eq!(
        config.listen.certificate,
        Path::new("/base/tls/certificate.pem")
    );
    assert_eq!(config.listen.development, None);
    assert_eq!(
        config.token.pin_file.as_deref(),
        Some(Path::new("/base/token-pin"))
    );
    assert_eq!(config.token.deadline, Duration::from_secs(5));
    assert_eq!(config.policies.directory, Path::new("/base/policies"));
    assert_eq!(config.log.format, LogFormat::Human);
}

/// Uncommented, each default in the example must say what the default is.
#[test]
fn the_defaults_shown_in_the_example_are_the_defaults() {
    let shown: String = EXAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| is_setting(rest))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(shown, EXAMPLE);
    // Some are examples and not defaults: they depend on the machine or exclude each other.
    let shown = shown
        .replace("pin_credential = \"token-pin\"\n", "")
        .replace("escrow = \"/var/lib/custodyd/escrow.json\"\n", "")
        .replace("threads = 4\n", "")
        .replace(
            "[listen.development]\nlisten = \"127.0.0.1:8080\"\nurl = \"http://localhost:8080\"\n",
            "",
        )
        .replace("outbox = \"outbox.jsonl\"\n", "")
        .replace("socket = \"/run/custodyd-sockets/operator.sock\"\n", "")
        .replace(AUDITOR, "")
        .replace(&restore(), "")
        .replace(&uncommented(WITNESS), "")
        .replace("quorum = 1\n", "")
        .replace("ca_file = \"tls/witness-authority.pem\"\n", "")
        .replace(&uncommented(EMAIL), "")
        .replace(&uncommented(SMS), "")
        .replace(COURIER, "");
    assert_eq!(read(&shown).unwrap(), read(EXAMPLE).unwrap());
}

/// The example's approvers, uncommented.
fn restore() -> String {
    let lines = EXAMPLE.lines();
    let block = lines.skip_while(|line| !line.starts_with("# [ledger.restore]"));
    let block = block.take_while(|line| line.starts_with("# "));
    block.fold(String::new(), |text, line| text + &line[2..] + "\n")
}

/// The example with its approvers, changed once.
fn with_approvers(from: &str, to: &str) -> Result<Config, ConfigErrors> {
    let approvers = restore();
    assert!(approvers.contains(from), "{from}");
    read(&format!("{EXAMPLE}\n{}", approvers.replacen(from, to, 1)))
}

#[test]
fn approvers_are_read_and_nobody_is_one_by_default() {
    let restore = |config: Config| config.ledger.restore;
    assert_eq!(restore(read(EXAMPLE).unwrap()).needed(), 0);
    assert_eq!(restore(with_approvers("= 2", "= 2").unwrap()).needed(), 2);
    for (from, to, what) in [
        ("= 2", "= 3", "ledger.restore: 3 approvals: expected 1 to 2"),
        ("= 2", "= 0", "ledger.restore.approvals"),
        ("approvals = 2", "", "how many of the approvers"),
        ("ssh-ed25519", "ssh-rsa", "ledger.restore.approvers.ann"),
        ("AAAA", "", "a line of an OpenSSH public key file"),
    ] {
        let said = with_approvers(from, to).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    }
}

const AUDITOR: &str =
    "example-auditor = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";

/// The example with an auditor, changed once.
fn with_auditor(from: &str, to: &str) -> Result<Config, ConfigErrors> {
    assert!(AUDITOR.contains(from), "{from}");
    read(&EXAMPLE.replace(&format!("# {AUDITOR}"), &AUDITOR.replacen(from, to, 1)))
}

#[test]
fn auditors_are_read_by_name_and_hash() {
    let auditors = with_auditor("0000\"", "00aF\"").unwrap().auditors;
    let mut credential = [0; 32];
    credential[31] = 0xaf;
    let name = "example-auditor".to_owned();
    assert_eq!(auditors, [Auditor { name, credential }]);
    assert!(read(EXAMPLE).unwrap().auditors.is_empty());
}

#[test]
fn a_wrong_auditor_is_named_with_its_line_and_without_what_was_given() {
    let line = line_of("example-auditor");
    let said = |from: &str, to: &str| with_auditor(from, to).unwrap_err().to_string();
    for (from, to) in [
        ("\"0000", "\"credential-that-was-pasted"),
        ("0000\"", "000\""),
        ("0000\"", "000g\""),
    ] {
        let said = said(from, to);
        assert!(said.starts_with(&format!("c.toml:{line}:")), "{said}");
        assert!(said.contains("auditors.example-auditor: expected a SHA-256"));
        assert!(!said.contains("pasted"), "{said}");
    }
    assert!(said("example-auditor", "\"Two words\"").contains("auditors: a name has"));
    let twice = format!("{AUDITOR}{}", AUDITOR.replace("example", "other"));
    assert!(said(AUDITOR, &twice).contains("listed twice"));
    assert!(said(AUDITOR, &format!("{AUDITOR}{AUDITOR}")).contains("duplicate"));
}

const EMAIL: &str = "# [delivery.email]
# host = \"mail.example.com\"
# port = 587
# tls = \"starttls\"
# from = \"Custody <custody@example.com>\"
# username = \"custody\"
# password_file = \"smtp-password\"
# ca_file = \"tls/mail-authority.pem\"
";

const SMS: &str = "# [delivery.sms]
# webhook = \"https://sms.example.com/send\"
# ca_file = \"tls/sms-authority.pem\"
";

fn uncommented(part: &str) -> String {
    part.replace("# ", "")
}

/// The errors for the example with a section of `[delivery]` put in, changed once.
fn delivery_errors(part: &str, from: &str, to: &str) -> String {
    let section = uncommented(part);
    assert!(section.contains(from), "{from}");
    errors_with(part, &section.replacen(from, to, 1))
}

#[test]
fn the_channels_of_the_example_are_read() {
    let text = EXAMPLE
        .replace(EMAIL, &uncommented(EMAIL))
        .replace(SMS, &uncommented(SMS));
    let delivery = read(&text).unwrap().delivery;
    let email = delivery.email.unwrap();
    assert_eq!((email.host.as_str(), email.port), ("mail.example.com", 587));
    assert_eq!(email.tls, SmtpTls::Starttls);
    assert_eq!(email.from.to_string(), "Custody <custody@example.com>");
    let login = (
        "custody".to_owned(),
        Place::File(Path::new("/base/smtp-password").to_owned()),
    );
    assert_eq!(email.login, Some(login));
    let sms = delivery.sms.unwrap();
    assert_eq!(sms.webhook, "https://sms.example.com/send");
    assert_eq!(
        sms.ca_file.unwrap(),
        Path::new("/base/tls/sms-authority.pem")
    );
    let defaults = read(EXAMPLE).unwrap().delivery;
    assert_eq!(
        (defaults.email, defaults.sms, defaults.outbox),
        (None, None, None)
    );
}

#[test]
fn the_port_of_the_mail_server_follows_its_tls() {
    for (tls, host, port) in [
        ("starttls", "mail.example.com", 587),
        ("implicit", "mail.example.com", 465),
        ("none", "localhost", 25),
        ("none", "::1", 25),
    ] {
        let section = uncommented(EMAIL)
            .replace("port = 587\n", "")
            .replace("starttls", tls)
            .replace("mail.example.com", host);
        let text = EXAMPLE.replace(EMAIL, &section);
        assert_eq!(read(&text).unwrap().delivery.email.unwrap().port, port);
    }
}

#[test]
fn codes_do_not_leave_this_machine_in_clear() {
    let mail = delivery_errors(EMAIL, "starttls", "none");
    assert!(mail.contains("delivery.email.tls: without TLS"), "{mail}");
    for bad in [
        "http://sms.example.com/send",
        "https://SMS.example.com",
        "https://user@sms.example.com",
        "https://sms.example.com/#x",
        "https://sms.example.com/a b",
        "https://sms.example.com/ä",
        "https://",
        "ftp://127.0.0.1",
        "sms.example.com",
        "http://localhost.example.com/",
    ] {
        let sms = delivery_errors(SMS, "https://sms.example.com/send", bad);
        assert!(
            sms.contains("delivery.sms.webhook: expected an https URL"),
            "{bad}: {sms}"
        );
    }
    for good in [
        "http://127.0.0.1:8025/x",
        "http://localhost",
        "http://[::1]:1/a?b=c",
        "https://sms.example.com:8443/send?from=custody",
    ] {
        let section = uncommented(SMS).replace("https://sms.example.com/send", good);
        let text = EXAMPLE.replace(SMS, &section);
        assert_eq!(read(&text).unwrap().delivery.sms.unwrap().webhook, good);
    }
}

#[test]
fn the_outbox_is_for_development() {
    let outbox = ("# outbox = ", "outbox = ");
    let alone = errors_with(outbox.0, outbox.1);
    assert!(
        alone.contains("delivery.outbox: for development only"),
        "{alone}"
    );
    let development = EXAMPLE
        .replace("# [listen.development]", "[listen.development]")
        .replace(
            "# listen = \"127.0.0.1:8080\"",
            "listen = \"127.0.0.1:8080\"",
        )
        .replace("# url = \"http:", "url = \"http:")
        .replace(outbox.0, outbox.1);
    let delivery = read(&development).unwrap().delivery;
    assert_eq!(delivery.outbox.unwrap(), Path::new("/base/outbox.jsonl"));
    let both = read(&development.replace(SMS, &uncommented(SMS))).unwrap_err();
    assert!(both.to_string().contains("either this or"), "{both}");
}

#[test]
fn a_login_is_whole_and_its_password_is_never_written() {
    let without = |line| delivery_errors(EMAIL, line, "");
    let missing = without("password_file = \"smtp-password\"\n");
    assert!(
        missing.contains("delivery.email.password_file is missing"),
        "{missing}"
    );
    let missing = without("username = \"custody\"\n");
    assert!(
        missing.contains("delivery.email.username is missing"),
        "{missing}"
    );
    let written = delivery_errors(
        EMAIL,
        "password_file = \"smtp-password\"",
        "password = \"hunter2\"",
    );
    assert!(
        written.contains("never written in the configuration"),
        "{written}"
    );
    assert!(!written.contains("hunter2"), "{written}");
    for (from, to) in [
        ("Custody <custody@example.com>", "custody"),
        (
            "Custody <custody@example.com>",
            "a@b.example\\r\\nBcc: eve@example.com",
        ),
        ("mail.example.com", "Mail.example.com"),
        ("587", "0"),
        ("587", "65536"),
        ("starttls", "opportunistic"),
    ] {
        let message = delivery_errors(EMAIL, from, to);
        assert!(message.contains("expected"), "{from} {to}: {message}");
    }
}

fn is_setting(line: &str) -> bool {
    line.starts_with('[')
        || line.split_once(" = ").is_some_and(|(key, _)| {
            key.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
}

#[test]
fn a_development_listener_is_read() {
    let config = read(
        &EXAMPLE
            .replace("# [listen.development]", "[listen.development]")
            .replace("# listen = \"127.0.0.1:8080\"", "listen = \"[::1]:8080\"")
            .replace("# url = \"http:", "url = \"http:"),
    )
    .unwrap();
    let development = config.listen.development.unwrap();
    assert_eq!(development.url, "http://localhost:8080");
    assert!(development.listen.is_ipv6());
}

#[test]
fn each_kind_of_error_has_its_place() {
    let cases = [
        // syntax
        ("name = \"custody.example\"", "name = custody", 8, "string"),
        // unknown key
        (
            "pin_file = ",
            "pin_flie = ",
            1,
            "token.pin_flie: unknown key; known here: kind, module, label, serial, pin_file",
        ),
        // wrong type
        (
            "label = \"custodyd\"",
            "label = 7",
            9,
            "token.label: expected a string, found the number 7",
        ),
        // wrong meaning
        (
            "public = \"0.0.0.0:8443\"",
            "public = \"everywhere\"",
            10,
            "listen.public: expected an IP address and a port",
        ),
    ];
    for (from, to, column, message) in cases {
        let errors = errors_with(from, to);
        let place = format!("c.toml:{}:{column}: ", line_of(from));
        let line = errors.lines().find(|line| line.starts_with(&place));
        assert!(
            line.is_some_and(|line| line.contains(message)),
            "{place}{message}\n{errors}"
        );
    }
}

#[test]
fn a_missing_key_is_named_at_its_table() {
    let errors = errors_with("url = \"https://custody.example\"", "");
    assert_eq!(
        errors,
        format!(
            "c.toml:{}:2: listen.url is missing: the base URL that clients use, such as \
             \"https://custody.example\"",
            line_of("[listen]")
        )
    );
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_lines() {
    let errors = read(
        "realm.name = \"Not OK\"\n\
         [listen]\npublic = 1\nurl = \"http://x\"\ncertificate = \"\"\nprivate_key = \"k\"\n\
         [token]\nlabel = \"x\"\nthreads = 0\ndeadline = \"soon\"\n\
         [nonsense]\n",
    )
    .unwrap_err();
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 3, 4, 5, 7, 9, 10, 11]);
}

#[test]
fn an_empty_file_names_everything_that_is_needed() {
    let errors = read("").unwrap_err().to_string();
    for key in [
        "realm.name",
        "listen.public",
        "listen.url",
        "listen.certificate",
        "token.label",
        "token.pin_file",
    ] {
        assert!(
            errors.contains(&format!("c.toml:1:1: {key} is missing")),
            "{key}\n{errors}"
        );
    }
}

#[test]
fn a_public_url_has_one_spelling() {
    for good in [
        "https://a",
        "https://a.example:8443",
        "https://127.0.0.1:8443",
        "https://[::1]:8443",
        "https://[::1]",
    ] {
        let text = EXAMPLE.replace("https://custody.example", good);
        assert_eq!(read(&text).unwrap().listen.url, good);
    }
    for bad in [
        "http://a",
        "https://",
        "https://a/",
        "https://a/b",
        "https://A.example",
        "https://a:443",
        "https://a:0",
        "https://a:08443",
        "https://a:+1",
        "https://a:",
        "https://u@a",
        "https://a?b",
        "https://a..b",
        "https://[::0001]",
        "https://a b",
        "https://-a",
        "https://:8443",
    ] {
        assert!(
            errors_with("https://custody.example", bad).contains("listen.url: expected"),
            "{bad}"
        );
    }
}

#[test]
fn listeners_without_tls_stay_on_this_machine() {
    for (from, to) in [
        ("# listen = \"127.0.0.1:9464\"", "listen = \"0.0.0.0:9464\""),
        (
            "# [listen.development]\n# listen = \"127.0.0.1:8080\"",
            "[listen.development]\nlisten = \"192.0.2.1:80\"",
        ),
    ] {
        assert!(errors_with(from, to).contains("listen: expected a loopback address"));
    }
    let same = errors_with(
        "# listen = \"127.0.0.1:9464\"",
        "listen = \"127.0.0.1:9464\"\n[x]",
    );
    assert!(same.contains("x: unknown key"), "{same}");
    let clash = EXAMPLE.replace("0.0.0.0:8443", "127.0.0.1:8443").replace(
        "# listen = \"127.0.0.1:9464\"",
        "listen = \"127.0.0.1:8443\"",
    );
    assert!(
        read(&clash)
            .unwrap_err()
            .to_string()
            .contains("the same address as listen.public")
    );
}

#[test]
fn the_pin_is_named_exactly_once_and_never_written() {
    let both = errors_with("# pin_credential", "pin_credential");
    assert!(both.contains("either this or token.pin_file"), "{both}");
    let none = errors_with("pin_file = \"token-pin\"", "");
    assert!(none.contains("token.pin_file is missing"), "{none}");
    let outside = errors_with("pin_file = \"token-pin\"", "pin_credential = \"../pin\"");
    assert!(
        outside.contains("the name of a systemd credential"),
        "{outside}"
    );
    let written = errors_with("pin_file = \"token-pin\"", "pin = \"987654\"");
    assert!(
        written.contains("never written in the configuration"),
        "{written}"
    );
    assert!(!written.contains("987654"), "{written}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let message = load(Path::new("/nonexistent/c.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("/nonexistent/c.toml: cannot be read"),
        "{message}"
    );
}

#[test]
fn policies_are_read_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let empty = load_policies(dir.path()).unwrap_err();
    assert!(
        empty
            .iter()
            .any(|error| error.message.contains("found none"))
    );

    std::fs::write(dir.path().join("notes.txt"), "not a policy").unwrap();
    let policy = demo_policy();
    std::fs::write(dir.path().join("a.toml"), &policy).unwrap();
    assert_eq!(load_policies(dir.path()).unwrap().apps.len(), 1);

    std::fs::write(dir.path().join("b.toml"), &policy).unwrap();
    std::fs::write(dir.path().join("c.toml"), "app = ").unwrap();
    let errors = load_policies(dir.path()).unwrap_err();
    let about = |file: &str| errors.iter().find(|error| error.file.ends_with(file));
    assert!(about("b.toml").unwrap().message.contains("a.toml"));
    assert!(about("c.toml").is_some());
}

fn demo_policy() -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/apps/demo.toml");
    std::fs::read_to_string(shipped).unwrap()
}

/// The example with some bytes replaced: closer to TOML than arbitrary text.
fn mutated() -> impl Strategy<Value = String> {
    let edits = prop::collection::vec((0..EXAMPLE.len(), any::<char>()), 1..8);
    edits.prop_map(|edits| {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, new) in edits {
            if let Some(old) = text.get_mut(at) {
                *old = new;
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn a_mutated_example_never_panics_and_every_error_has_a_place(text in mutated()) {
        if let Err(errors) = read(&text) {
            let lines = text.split('\n').count();
            prop_assert!(errors.iter().next().is_some());
            prop_assert!(errors.iter().all(|error| (1..=lines).contains(&error.line) && error.column > 0));
        }
    }

    #[test]
    fn any_value_for_any_key_never_panics(
        table in "listen|token|realm|log|pin|operator|delivery|delivery.email|delivery.sms",
        key in "[a-z_]{1,12}",
        value in "[-\"0-9a-z:/.\\[\\]{}=, ]{0,40}",
    ) {
        let _ = read(&format!("[{table}]\n{key} = {value}\n"));
    }
}
