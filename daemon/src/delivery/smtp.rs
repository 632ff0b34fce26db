//! Mail by SMTP submission (RFC 5321, RFC 6409) with `lettre`.
//!
//! Called by `Courier`'s e-mail queue, in this process or in that of `custodyd courier`. The mail server of the configuration sees every code;
//! whoever stands between must not, so TLS is demanded: STARTTLS that fails is an error and
//! never a reason to go on without. What the server answers is not logged beyond its code.

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message as Mail, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error as SmtpError, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::message::Message;
use super::wire::Letter;
use super::{DeliveryError, SetupError, Transport, trust};
use crate::config::{Email, SmtpTls};
use crate::private_file::{self, Place};

/// For one answer of the server.
const ANSWER: Duration = Duration::from_secs(10);
const MAX_PASSWORD_FILE: usize = 1024;

pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// Inside the runtime: the pool of connections has a task.
    pub(crate) fn new(config: &Email, connections: usize) -> Result<Self, SetupError> {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let pool = PoolConfig::new().max_size(connections);
        Ok(Self {
            transport: builder(config)?.pool_config(pool).build(),
            from: config.from.clone(),
        })
    }

    fn mail(&self, letter: &Letter<'_>) -> Result<Mail, DeliveryError> {
        // Nothing of this can fail with what the configuration and `Address` let through.
        let wrong = |what: &str| DeliveryError::Permanent(format!("no mail can be made: {what}"));
        let to = letter.to.parse().map_err(|_| wrong("its address"))?;
        // Our own, with the sender's domain: lettre's would tell this host's name.
        let id = hex::encode(letter.id);
        let domain = self.from.email.domain();
        Mail::builder()
            .message_id(Some(format!("<{id}@{domain}>")))
            .date_now()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(letter.subject)
            .header(AutoSubmitted)
            .singlepart(SinglePart::plain(letter.body.to_owned()))
            .map_err(|_| wrong("its head"))
    }

    /// Gives it to the mail server.
    pub(crate) async fn post(&self, letter: &Letter<'_>) -> Result<(), DeliveryError> {
        match self.transport.send(self.mail(letter)?).await {
            Ok(_) => Ok(()),
            Err(error) => Err(judge(&error)),
        }
    }
}

#[async_trait]
impl Transport for Smtp {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        let words = message.mail();
        self.post(&Letter::of(message, &words)?).await
    }
}

/// What is configured, its files read.
pub(super) fn builder(config: &Email) -> Result<AsyncSmtpTransportBuilder, SetupError> {
    let tls = match config.tls {
        SmtpTls::Starttls => Tls::Required(parameters(config)?),
        SmtpTls::Implicit => Tls::Wrapper(parameters(config)?),
        SmtpTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .tls(tls)
        .timeout(Some(ANSWER));
    if let Some((username, place)) = &config.login {
        builder = builder.credentials(Credentials::new(username.clone(), password(place)?));
    }
    Ok(builder)
}

fn parameters(config: &Email) -> Result<TlsParameters, SetupError> {
    let wrong = |error: SmtpError| SetupError::Tls(error.to_string());
    let mut parameters = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        for certificate in trust::authorities(path)? {
            let certificate = Certificate::from_der(certificate.to_vec()).map_err(wrong)?;
            parameters = parameters.add_root_certificate(certificate);
        }
    }
    parameters.build().map_err(wrong)
}

/// lettre keeps it for as long as it sends, in memory that it does not wipe.
fn password(place: &Place) -> Result<String, SetupError> {
    let (file, access) = place.locate()?;
    let content = private_file::read(&file, access, MAX_PASSWORD_FILE)?;
    let text = std::str::from_utf8(&content).map_err(|_| SetupError::PasswordContent)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(SetupError::PasswordContent);
    }
    Ok(text.to_owned())
}

/// By reply code (RFC 5321, section 4.2.1) and by what failed below it. The server's words
/// stay out: "550 <ann@example.com>: no such user" would put an address into the log.
fn judge(error: &SmtpError) -> DeliveryError {
    if let Some(code) = error.status() {
        let code = u16::from(code);
        return match code {
            400..500 => DeliveryError::Temporary(format!("the mail server answered {code}")),
            // Authentication required or refused, encryption needed (RFC 4954, section 6).
            530 | 534 | 535 | 538 => DeliveryError::Misconfigured(format!(
                "the mail server refused the login with {code}"
            )),
            _ => DeliveryError::Permanent(format!("the mail server answered {code}")),
        };
    }
    if let Some(reason) = trust::tls_error(error) {
        return DeliveryError::Misconfigured(format!("TLS with the mail server: {reason}"));
    }
    if error.is_client() {
        // Such as a server without STARTTLS, or without a login that we speak.
        return DeliveryError::Misconfigured(format!("the mail server: {error}"));
    }
    if error.is_response() {
        return DeliveryError::Temporary("the mail server's answer was not SMTP".to_owned());
    }
    DeliveryError::Temporary(format!("the mail server: {error}"))
}

/// `Auto-Submitted: auto-generated` (RFC 3834, section 5): no out-of-office reply to this.
#[derive(Clone, Copy, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::super::{Address, Code, Purpose};
    use super::*;

    fn config() -> Email {
        Email {
            host: "localhost".to_owned(),
            port: 25,
            tls: SmtpTls::None,
            from: "Custody <custody@example.com>".parse().unwrap(),
            login: None,
            ca_file: None,
        }
    }

    fn mail_for(name: &str, code: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let smtp = Smtp::new(&config(), 1).unwrap();
        let code = Code {
            code: code.to_owned().into(),
            link: None,
            expires_minutes: 10,
            purpose: Purpose::SignIn,
        };
        let to = Address::email("ann@example.com").unwrap();
        let message = Message::code(name, to, code).unwrap();
        let words = message.mail();
        let letter = Letter::of(&message, &words).unwrap();
        String::from_utf8(smtp.mail(&letter).unwrap().formatted()).unwrap()
    }

    /// The names of the headers, unfolded.
    fn headers(mail: &str) -> Vec<String> {
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        head.split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(':').unwrap().0.to_ascii_lowercase())
            .collect()
    }

    const HEADERS: [&str; 9] = [
        "auto-submitted",
        "content-transfer-encoding",
        "content-type",
        "date",
        "from",
        "message-id",
        "mime-version",
        "subject",
        "to",
    ];

    #[test]
    fn a_mail_says_who_what_and_that_a_machine_wrote_it() {
        let mail = mail_for("Notes", "483920");
        for line in [
            "Auto-Submitted: auto-generated\r\n",
            "From: Custody <custody@example.com>\r\n",
            "To: ann@example.com\r\n",
            "Subject: Your code for Notes\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "MIME-Version: 1.0\r\n",
            "@example.com>\r\n",
            "\r\n\r\n483920\r\n",
        ] {
            assert!(mail.contains(line), "{line}\n{mail}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_name_adds_a_header(name in any::<String>(), code in "[\r\n -~]{0,40}") {
            let mail = mail_for(&name, &code);
            let mut names = headers(&mail);
            names.sort();
            prop_assert_eq!(names, HEADERS);
        }
    }

    #[test]
    fn a_name_with_a_header_in_it_stays_a_name() {
        let mail = mail_for("Notes\r\nBcc: eve@example.com\r\n\r\nHello", "1");
        assert!(!mail.to_ascii_lowercase().contains("\nbcc:"), "{mail}");
    }

    #[test]
    fn the_password_is_one_line_of_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let with = |content: &str, mode| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            password(&Place::File(path.clone()))
        };
        assert_eq!(with("s3cret pass\n", 0o600).unwrap(), "s3cret pass");
        for (content, mode) in [("", 0o600), ("\n", 0o600), ("a\nb\n", 0o600), ("a", 0o644)] {
            let message = with(content, mode).unwrap_err().to_string();
            assert!(
                message.starts_with("delivery.email.password_file: "),
                "{message}"
            );
        }
    }
}
