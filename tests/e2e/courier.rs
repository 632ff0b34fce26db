//! `custodyd courier`: everything leaves through the second process, to where the configuration says and
//! nowhere else, whoever asks.
//!
//! Both run as this test's user here. That they run apart, without a network for the one and without
//! the token for the other, is shown under systemd in `tests/systemd`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use custodyd_tests::app::said;
use custodyd_tests::mail::Mode;
use custodyd_tests::{MailServer, Setup, TestApp, Webhook, Witness, log};
use serde_json::{Value, json};

use crate::contacts::{add, claim, code_in, confirm, mails};
use crate::delivered_codes::ANN;

const SECTION: &str = "[courier]\nsocket = \"courier.sock\"\n";
const POLICY: &str = "[contacts]\nchannels = [\"email\", \"sms\"]\n";

/// A courier that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn courier(app: &TestApp) -> Running {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(app.path("courier-log"))
        .unwrap();
    let _ = std::fs::remove_file(app.path("courier.sock"));
    let child = app.command("courier").stderr(log).spawn().unwrap();
    let running = Running(child);
    let give_up = Instant::now() + Duration::from_secs(20);
    while !courier_log(app).contains("the courier carries") {
        assert!(Instant::now() < give_up, "{}", courier_log(app));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running
}

fn courier_log(app: &TestApp) -> String {
    std::fs::read_to_string(app.path("courier-log")).unwrap_or_default()
}

async fn app(config: &str) -> TestApp {
    TestApp::with(Setup {
        config: format!("{SECTION}{config}"),
        ..Setup::notes(POLICY)
    })
    .await
}

/// One request to the courier by another program, as anybody who has the socket could send it.
fn ask(app: &TestApp, arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["-sS", "-w", "\n%{http_code}", "--unix-socket"])
        .arg(app.path("courier.sock"))
        .args(arguments)
        .output()
        .unwrap()
}

fn letter(change: &str, value: &str) -> String {
    let mut letter = json!({
        "id": "00".repeat(16), "to": "ann@example.com", "subject": "S", "body": "B\n",
    });
    letter[change] = json!(value);
    letter.to_string()
}

#[tokio::test]
async fn mail_text_messages_and_checkpoints_arrive_by_the_courier_alone() {
    let mut mail = MailServer::prepared(Mode::Starttls, Some(("custody", "s3cret pass")));
    mail.run();
    let (gateway, witness) = (
        Webhook::start().await,
        Witness::start("one.example/w").await,
    );
    let config = format!(
        "{}{}{}{}",
        mail.config(),
        gateway.config(),
        log::section(),
        Witness::section(1, "", &[&witness])
    );
    let app = app(&config).await;
    let mut device = app.device("notes");
    device.enrol().await;
    // The control: without a courier nothing leaves, and the daemon serves.
    let id = claim(&mut device, "contact", ANN).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(mail.received().is_empty() && witness.calls().is_empty());
    let doctor = said(&app.command("doctor").output().unwrap());
    assert!(doctor.contains("start `custodyd courier`"), "{doctor}");
    let _running = courier(&app).await;
    // What waited is sent.
    let code = code_in(&mails(&mail, ANN, 1).await[0]);
    confirm(&mut device, "contact", &id, &code)
        .await
        .expect(204);
    assert_eq!(mail.received()[0].more["user"], true);
    let body = Some(json!({"phone": "+4915112345678"}));
    device
        .call("PUT", "/v1/account/contact", body)
        .await
        .expect(202);
    let token = device.token.take();
    let jwks = device.call("GET", "/.well-known/jwks.json", None).await;
    device.token = token;
    let jwks = jwks.expect(200).body;
    let call = &gateway.wait_for(1).await[0];
    let claims = call.verified(&jwks).expect("the realm's signature");
    assert_eq!(claims["aud"], gateway.url());
    let origin = "test.example/custodyd/log/1";
    witness.follow(origin, &jwks);
    witness.wait_for(origin, 3).await;
    let doctor = said(&app.command("doctor").output().unwrap());
    assert!(doctor.contains("through the courier at"), "{doctor}");
    // Neither log knows what was said, or to whom.
    for log in [app.log(), courier_log(&app)] {
        for personal in [ANN, "+4915112345678", code.as_str(), "s3cret"] {
            assert!(!log.contains(personal), "{personal}: {log}");
        }
    }
}

#[tokio::test]
async fn the_process_that_serves_never_opens_the_password_of_the_mail_server() {
    let mut mail = MailServer::prepared(Mode::Starttls, Some(("custody", "s3cret pass")));
    mail.run();
    // Not there for the daemon's start: with a courier it does not miss it.
    let kept = std::fs::read(mail.password_file()).unwrap();
    std::fs::remove_file(mail.password_file()).unwrap();
    let app = app(&mail.config()).await;
    std::fs::write(mail.password_file(), kept).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(mail.password_file(), private).unwrap();
    let _running = courier(&app).await;
    let mut device = app.device("notes");
    device.enrol().await;
    add(&mut device, &mail, "contact", ANN).await;
}

#[tokio::test]
async fn what_the_mail_server_says_decides_as_it_does_without_a_courier() {
    let mail = MailServer::start();
    let app = app(&mail.config()).await;
    let _running = courier(&app).await;
    let mut device = app.device("notes");
    device.enrol().await;
    claim(&mut device, "contact", "refused@example.com").await;
    // Put off once, and sent when it is tried again.
    claim(&mut device, "contact", "later@example.com").await;
    mails(&mail, "later@example.com", 1).await;
    let (_, metrics) = app.operator("/metrics").await;
    let refused = "custodyd_deliveries_total{channel=\"email\",outcome=\"refused\"} 1";
    assert!(metrics.contains(refused), "{metrics}");
    assert!(
        app.log()
            .contains("the courier: the mail server answered 451")
    );
}

#[tokio::test]
async fn a_courier_that_was_killed_is_found_again() {
    let mail = MailServer::start();
    let app = app(&mail.config()).await;
    let running = courier(&app).await;
    let mut device = app.device("notes");
    device.enrol().await;
    add(&mut device, &mail, "contact", ANN).await;
    drop(running);
    std::fs::remove_file(app.path("courier-log")).unwrap();
    let id = claim(&mut device, "contact", "bob@example.com").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _running = courier(&app).await;
    let code = code_in(&mails(&mail, "bob@example.com", 1).await[0]);
    confirm(&mut device, "contact", &id, &code)
        .await
        .expect(204);
}

/// Several threads: the gateway answers while this one waits for another program.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_taken_the_daemon_over_chooses_no_destination_and_no_sender() {
    let (mail, gateway, elsewhere) = (
        MailServer::start(),
        Webhook::start().await,
        Webhook::start().await,
    );
    let app = app(&format!("{}{}", mail.config(), gateway.config())).await;
    let _running = courier(&app).await;
    let signed = "custodyd-signature: x";
    let to = |url: &str| format!("custodyd-to: {url}");
    let call = |url: &str| {
        said(&ask(
            &app,
            &["-H", signed, "-H", &to(url), "-d", "{}", "http://c/call"],
        ))
    };
    // The control: the same call to the one that is configured.
    let right = call(gateway.url());
    assert!(right.ends_with("\n200"), "{right}");
    assert_eq!(gateway.wait_for(1).await[0].body, b"{}");
    let port = elsewhere
        .url()
        .rsplit_once(':')
        .unwrap()
        .1
        .replace("/send", "");
    for url in [
        elsewhere.url(),
        &gateway.url().replace("/send", "/other"),
        &format!("{}@localhost:{port}/send", gateway.url()),
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
    ] {
        let told = call(url);
        assert!(
            told.contains("\"kind\":\"misconfigured\"") && told.ends_with("\n403"),
            "{url}: {told}"
        );
    }
    let unsigned = said(&ask(
        &app,
        &["-H", &to(gateway.url()), "-d", "{}", "http://c/call"],
    ));
    assert!(unsigned.ends_with("\n422"), "{unsigned}");
    assert!(elsewhere.received().is_empty());
    assert_eq!(gateway.received().len(), 1);
    let post = |body: &str| said(&ask(&app, &["-d", body, "http://c/mail"]));
    for (name, value) in [
        ("from", "bank@example.com"),
        ("to", "ann@example.com, eve@example.com"),
        ("subject", "S\r\nBcc: eve@example.com"),
        ("body", &"x".repeat(40_000)),
    ] {
        let told = post(&letter(name, value));
        assert!(told.ends_with("\n422"), "{name}: {told}");
    }
    assert!(mail.received().is_empty());
    let sent = post(&letter("subject", "Hello"));
    assert!(sent.ends_with("\n204"), "{sent}");
    assert_eq!(
        mail.wait_for(1).await[0].more["from"],
        "custody@example.com"
    );
    for path in ["/", "/metrics", "/reload", "/mail/../call"] {
        let told = said(&ask(&app, &["--path-as-is", &format!("http://c{path}")]));
        assert!(
            told.ends_with("\n404") || told.ends_with("\n405"),
            "{path}: {told}"
        );
    }
}

#[tokio::test]
async fn another_users_process_is_not_answered() {
    let mail = MailServer::start();
    let app = app(&mail.config()).await;
    let _running = courier(&app).await;
    if !rustix::process::geteuid().is_root() {
        // Nobody else can be tried without becoming somebody else.
        return;
    }
    // The file's mode would keep them out: it is taken away, so that the kernel's word alone decides.
    let open = |path: std::path::PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(app.path("."), 0o755);
    open(app.path("courier.sock"), 0o666);
    let ask_as = |user: &str| {
        Command::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--clear-groups"])
            .args(["curl", "-sS", "-w", "\n%{http_code}", "-d"])
            .arg(letter("subject", "S"))
            .arg("--unix-socket")
            .arg(app.path("courier.sock"))
            .arg("http://c/mail")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let stranger = said(&ask_as("65534"));
    assert!(stranger.starts_with("\n000"), "{stranger}");
    assert!(courier_log(&app).contains("was turned away"));
    assert!(mail.received().is_empty());
    let own = said(&ask_as("0"));
    assert!(own.ends_with("\n204"), "{own}");
}

/// A reason that would draw in a terminal and begin a line of its own.
fn forged() -> String {
    let reason = "\u{1b}[31mforged\n2026-01-01 ERROR line";
    let body = json!({"kind": "permanent", "reason": reason}).to_string();
    format!(
        "HTTP/1.1 422 X\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_courier_that_was_taken_over_is_told_no_secret_and_its_answers_are_bounded() {
    let gateway = Webhook::start().await;
    let mail = MailServer::start();
    let app = app(&format!("{}{}", mail.config(), gateway.config())).await;
    let listener = tokio::net::UnixListener::bind(app.path("courier.sock")).unwrap();
    let heard = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut heard = Vec::new();
        let lies = [
            "HTTP/1.1 503 X\r\ncontent-length: 99999999999\r\n\r\n".to_owned()
                + &"x".repeat(1 << 20),
            forged(),
        ];
        for lie in lies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let count = stream.read(&mut request).await.unwrap();
            heard.push(String::from_utf8_lossy(&request[..count]).into_owned());
            let _ = stream.write_all(lie.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        heard
    });
    let mut device = app.device("notes");
    device.enrol().await;
    claim(&mut device, "contact", ANN).await;
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await;
    for request in heard.unwrap().unwrap() {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /mail HTTP/1.1\r\n"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        let mut names: Vec<&String> = body.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["body", "id", "subject", "to"]);
    }
    let give_up = Instant::now() + Duration::from_secs(10);
    while !app.log().contains("forged") {
        assert!(Instant::now() < give_up, "{}", app.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = app.log();
    assert!(log.contains("?[31mforged?2026-01-01"), "{log}");
    // It serves on.
    device.try_device(&[]).await.expect(201);
}
