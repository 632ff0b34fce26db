//! The command line and the operator's listener, as an operator meets them.

use std::process::Command;

use custodyd_tests::app::said;
use custodyd_tests::{Setup, TestApp};
use serde_json::Value;

#[tokio::test]
async fn doctor_has_a_line_per_check_and_warns_about_softhsm() {
    let mut app = TestApp::start().await;
    let output = app.command("doctor").output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    // Beside a running daemon the token is the daemon's; doctor asks it.
    assert!(text.contains("in use by the running custodyd"), "{text}");
    app.stop();
    let output = app.command("doctor").output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("no protection against whoever copies its files"),
        "{text}"
    );
    let output = app.command("doctor --json").output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["checks"].as_array().unwrap().len() > 8, "{json}");
}

/// As the daily check runs it: what it is told, it is told over the operator's socket.
#[tokio::test]
async fn doctor_beside_a_daemon_needs_its_socket_alone_and_misses_it() {
    let mut app = TestApp::start().await;
    let looked = |app: &TestApp, more: &str| {
        let output = app.command(&format!("doctor{more}")).output().unwrap();
        (output.status.success(), said(&output))
    };
    let (well, text) = looked(&app, " --running");
    assert!(
        well && text.contains("the running daemon is ready"),
        "{text}"
    );
    // On loopback it is not asked at all: at another address than the daemon's the answer is there, and that the file was changed
    // beside a daemon that runs is seen.
    let file = app.path("custodyd.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let operator = app.operator.trim_start_matches("http://").to_owned();
    let other = format!("127.0.0.1:{}", custodyd_tests::app::free_port());
    assert!(before.contains(&operator), "{before}");
    std::fs::write(&file, before.replace(&operator, &other)).unwrap();
    let (well, text) = looked(&app, " --running");
    assert!(
        !well && text.contains("the running daemon is ready"),
        "{text}"
    );
    let told = format!("operator {other}: nobody listens, although a custodyd runs");
    assert!(text.contains(&told), "{text}");
    // The control: without the socket that file says that nobody runs, and only who was promised a daemon misses it.
    let without = |text: &str| text.replace("socket = \"operator.sock\"\n", "");
    std::fs::write(&file, without(&before.replace(&operator, &other))).unwrap();
    let (well, text) = looked(&app, " --running");
    assert!(!well, "{text}");
    assert!(text.contains("operator.socket is not set"), "{text}");
    assert!(!text.contains("keys"), "the token was asked: {text}");
    std::fs::write(&file, &before).unwrap();
    app.stop();
    let (well, text) = looked(&app, " --running");
    assert!(!well && text.contains("no custodyd answers"), "{text}");
    let (well, text) = looked(&app, "");
    assert!(well, "{text}");
}

#[tokio::test]
async fn token_check_lists_the_keys() {
    let app = TestApp::start().await;
    let output = app.command("token check").output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for key in ["custodyd-wrap-v1", "custodyd-mac-v1", "custodyd-bind-v1"] {
        assert!(text.contains(key), "{text}");
    }
}

#[tokio::test]
async fn init_again_changes_nothing_and_a_second_daemon_is_refused() {
    let mut app = TestApp::with(Setup::default().in_a_file()).await;
    let second = app.command("serve").output().unwrap();
    assert!(!second.status.success());
    assert!(
        said(&second).contains("another custodyd"),
        "{}",
        said(&second)
    );
    assert!(app.stop());
    let before = std::fs::read(app.path("custodyd.sqlite")).unwrap();
    let again = app.command("init").output().unwrap();
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("already"), "{}", said(&again));
    assert_eq!(std::fs::read(app.path("custodyd.sqlite")).unwrap(), before);
}

#[tokio::test]
async fn a_configuration_of_another_realm_is_refused() {
    let mut app = TestApp::start().await;
    app.stop();
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("test.example", "other.example")).unwrap();
    let output = app.command("serve").output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("test.example"), "{}", said(&output));
}

#[tokio::test]
async fn a_wrong_configuration_or_policy_is_refused_with_its_line() {
    let mut app = TestApp::start().await;
    app.stop();
    let policy = app.path("policies/notes.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, format!("{text}\n[sessions]\nidle = \"quarter\"\n")).unwrap();
    let output = app.command("serve").output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("notes.toml:"), "{}", said(&output));
    std::fs::write(&policy, text).unwrap();
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[stor]\n")).unwrap();
    let output = app.command("serve").output().unwrap();
    assert!(
        said(&output).contains("custodyd.toml:"),
        "{}",
        said(&output)
    );
}

#[tokio::test]
async fn a_token_that_goes_away_is_told_and_one_that_comes_back_is_used() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let tokens = app.token.tokens();
    let away = tokens.with_extension("away");
    std::fs::rename(&tokens, &away).unwrap();
    // SoftHSM2's keys answer from memory; within a second one of the files is asked for.
    let mut answer = device.call("GET", "/v1/account", None).await;
    for _ in 0..50 {
        if answer.status != 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        answer = device.call("GET", "/v1/account", None).await;
    }
    answer.refused("503 token-unavailable");
    assert!(!answer.header("retry-after").is_empty());
    let (status, body) = app.operator("/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("token"), "{body}");
    // A scrape tells the same, and of the store that it is well.
    let ready = |check: &str, is: u8| format!("custodyd_ready{{check=\"{check}\"}} {is}\n");
    let (_, metrics) = app.operator("/metrics").await;
    assert!(metrics.contains(&ready("token", 0)), "{metrics}");
    assert!(metrics.contains(&ready("store", 1)), "{metrics}");
    std::fs::rename(&away, &tokens).unwrap();
    for _ in 0..150 {
        if app.operator("/readyz").await.0 == 200 {
            device.call("GET", "/v1/account", None).await.expect(200);
            // The scrape of before answers for some seconds.
            let mut metrics = String::new();
            for _ in 0..50 {
                metrics = app.operator("/metrics").await.1;
                if metrics.contains(&ready("token", 1)) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            assert!(metrics.contains(&ready("token", 1)), "{metrics}");
            for name in [
                "certificate_until_time_seconds",
                "disk_free_bytes",
                "database_bytes",
                "start_time_seconds",
            ] {
                let shown = metrics
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("custodyd_{name} ")));
                assert!(
                    shown.is_some_and(|value| value.parse::<f64>().unwrap() > 0.0),
                    "{name}"
                );
            }
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("the token came back and was not used");
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let app = TestApp::start().await;
    let address = app.url.trim_start_matches("https://").to_owned();
    let connect = |version: &str| {
        let output = Command::new("openssl")
            .args(["s_client", "-brief", version, "-connect", &address])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl is installed (apt install openssl)");
        said(&output)
    };
    assert!(connect("-tls1_3").contains("Protocol version: TLSv1.3"));
    assert!(connect("-tls1_2").contains("alert protocol version"));
}
