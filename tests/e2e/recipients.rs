//! How many codes one address is sent that its owner has not asked for, from however many
//! accounts. In each test a daemon with a rate out of the way is the control.

use std::time::Duration;

use custodyd_tests::app::LIMITS;
use custodyd_tests::device::Answer;
use custodyd_tests::shim::Clock;
use custodyd_tests::{Device, MailServer, Setup, TestApp};
use serde_json::json;

use crate::contacts::{add, code_in, mails};

const VICTIM: &str = "victim@example.com";

/// Two codes at once to one address, and then one an hour.
const TWO: &str = "recipient_per_hour = 1\nrecipient_burst = 2\n";

async fn with_rate(rate: Option<&str>) -> (TestApp, MailServer) {
    let (setup, mail) = rated(rate);
    (TestApp::with(setup).await, mail)
}

fn rated(rate: Option<&str>) -> (Setup, MailServer) {
    let mail = MailServer::start();
    let limits = match rate {
        Some(rate) => {
            let others = LIMITS.lines().filter(|line| !line.starts_with("recipient"));
            format!("{}\n{rate}", others.collect::<Vec<_>>().join("\n"))
        }
        None => LIMITS.to_owned(),
    };
    let policy = "[delivered_codes]\ninterval = \"10s\"\n[devices]\ncode = \"suffices\"\n";
    let setup = Setup {
        config: mail.config(),
        limits,
        ..Setup::notes(policy)
    };
    (setup, mail)
}

async fn owner(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device
}

/// A new account names the address.
async fn claim(app: &TestApp, address: &str) -> (Device, Answer) {
    let mut device = owner(app).await;
    let body = json!({"email": address});
    let answer = device.call("PUT", "/v1/account/contact", Some(body)).await;
    (device, answer)
}

async fn ask(device: &mut Device) -> Answer {
    device.token = None;
    let body = json!({"alias": VICTIM});
    device.call("POST", "/v1/apps/{app}/otp", Some(body)).await
}

#[tokio::test]
async fn many_accounts_do_not_fill_one_mailbox() {
    let (app, mail) = with_rate(Some(TWO)).await;
    let mut refused = Vec::new();
    for number in 0..5 {
        // Another spelling of the same box is no way around it.
        let address = ["victim@EXAMPLE.com", "victim+x@example.com", VICTIM][number % 3];
        let (mut device, answer) = claim(&app, address).await;
        if answer.status == 429 {
            answer.refused("429 delivery-wait");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((3000..=3601).contains(&wait), "{wait}");
            // Nothing was written, so nothing waits for a code that was not sent.
            assert_eq!(device.view().await["contacts"], json!([]));
            refused.push(answer);
        }
    }
    assert_eq!(refused.len(), 3);
    // Another address is not concerned.
    claim(&app, "ann@example.org").await.1.expect(202);
    mails(&mail, "ann@example.org", 1).await;
    assert_eq!(mail.received().len(), 3);
    let (_, metrics) = app.operator("/metrics").await;
    let counted = "custodyd_recipient_limited_total{purpose=\"confirmation\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn without_the_rate_they_do() {
    let (app, mail) = with_rate(None).await;
    for _ in 0..5 {
        claim(&app, VICTIM).await.1.expect(202);
    }
    assert_eq!(mails(&mail, VICTIM, 5).await.len(), 5);
}

/// The claims of others have used the rate up: the owner signs in with a code all the same.
#[tokio::test]
async fn claims_of_others_do_not_keep_the_owners_code_away() {
    let (app, mail) = with_rate(Some(TWO)).await;
    let mut victim = owner(&app).await;
    add(&mut victim, &mail, "contact", VICTIM).await;
    claim(&app, VICTIM).await.1.expect(202);
    claim(&app, VICTIM).await.1.refused("429 delivery-wait");
    let mut phone = app.device("notes");
    let before = mails(&mail, VICTIM, 2).await.len();
    ask(&mut phone).await.expect(202);
    let code = code_in(mails(&mail, VICTIM, before + 1).await.last().unwrap());
    enter(&mut phone, &code).await.expect(201);
}

async fn enter(device: &mut Device, code: &str) -> Answer {
    let body = json!({"alias": VICTIM, "code": code});
    device
        .call("POST", "/v1/apps/{app}/sessions/otp", Some(body))
        .await
}

/// Strangers have asked until the rate was used up. They are answered alike, the owner's new
/// phone is let in on the code that is under way, and the bound device gets one of its own.
#[tokio::test]
async fn strangers_requests_do_not_keep_the_owners_code_away() {
    let rate = "recipient_per_hour = 1\nrecipient_burst = 1\n";
    let (setup, mail) = rated(Some(rate));
    let (app, clock) = Clock::of_a_daemon(setup).await;
    let mut victim = owner(&app).await;
    add(&mut victim, &mail, "contact", VICTIM).await;
    let before = 1;
    let mut stranger = app.device("notes");
    let first = ask(&mut stranger).await.expect(202);
    let under_way = code_in(mails(&mail, VICTIM, before + 1).await.last().unwrap());
    // Past the interval of the account's own pacing, so that only the rate is in the way.
    clock.is_off_by(11);
    let mut phone = app.device("notes");
    let limited = ask(&mut phone).await.expect(202);
    assert_eq!(limited.body, first.body);
    wait_for_metric(
        &app,
        "custodyd_recipient_limited_total{purpose=\"sign-in\"} 1",
    )
    .await;
    enter(&mut phone, &under_way).await.expect(201);
    ask(&mut victim).await.expect(202);
    let own = code_in(mails(&mail, VICTIM, before + 2).await.last().unwrap());
    assert_eq!(own.len(), 8, "{own}");
    enter(&mut victim, &own).await.expect(201);
}

async fn wait_for_metric(app: &TestApp, line: &str) {
    for _ in 0..200 {
        if app.operator("/metrics").await.1.contains(line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{line}");
}
