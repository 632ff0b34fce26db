//! Retention at two nodes: both go over all accounts, at the same time, and what has ended goes once, whichever is killed meanwhile.
//!
//! A policy keeps events for a month at least, and a pass begins a minute after a start: so clocks are moved
//! (`custodyd_tests::shim`), that of the hosts, which nodes and server have in common, and that by which they wait.

use std::time::{Duration, Instant};

use custodyd_tests::app::DATABASE;
use custodyd_tests::device::now;
use custodyd_tests::log::{Verifier, continues};
use custodyd_tests::nodes::{at, first};
use custodyd_tests::shim::Clock;
use custodyd_tests::{Admin, Answer, Device, Setup, TestApp};
use serde_json::{Value, json};

use super::{PIN, enrolled};

const DAY: i64 = 24 * 3600;
/// Between what has ended and what has not: longer than an account may be unused, and its longest session.
const LATER: i64 = 150 * DAY;
/// A first pass begins by then.
const PASS: i64 = 95;
const POLICY: &str = "[retention]\nevents = \"30d\"\ninactive = \"60d\"\n";
/// Accounts that are used again, and accounts that are not. A pass pauses after each of them.
const USED: usize = 9;
const UNUSED: usize = 3;

const RETENTION: &str = "SELECT count(*) FROM log_entries WHERE substr(leaf, 1, 1) = x'04'";
const ERASURE: &str = "SELECT count(*) FROM log_entries WHERE substr(leaf, 1, 1) = x'03'";

/// A device that goes by the nodes' clock.
async fn asks(device: &mut Device, method: &str, path: &str, body: Option<Value>) -> Answer {
    let mut call = device.prepare(method, path, body);
    call.claims = json!({"iat": now().checked_add_signed(LATER)});
    device.run(&call).await
}

async fn signs_in(device: &mut Device) -> Answer {
    device.token = None;
    let body = json!({"account": device.account, "pin": PIN, "release": []});
    let answer = asks(device, "POST", "/v1/apps/{app}/sessions/pin", Some(body)).await;
    if answer.status == 201 {
        device.take_session(&answer);
    }
    answer
}

async fn events(device: &mut Device, since: &str) -> Value {
    let path = format!("/v1/account/events{since}");
    asks(device, "GET", &path, None).await.expect(200).body
}

/// The number of a metric at a node.
async fn metric(node: &TestApp, name: &str) -> Option<f64> {
    let (_, text) = node.operator("/metrics").await;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// These nodes have been over all accounts, and nothing was damaged or left out.
async fn until_passed(nodes: &[&TestApp]) {
    let give_up = Instant::now() + Duration::from_secs(90);
    for node in nodes {
        while metric(node, "custodyd_retention_pass_time_seconds")
            .await
            .is_none()
        {
            assert!(Instant::now() < give_up, "{}", node.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn until_gone(admin: &mut Admin, sql: &str, many: i64) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while admin.number(sql).await < many {
        assert!(Instant::now() < give_up, "no pass has begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_has_ended_goes_once_at_two_nodes_of_which_one_is_killed_meanwhile() {
    let mut one = first(Setup::notes(POLICY)).await;
    let mut other = one.another(Setup::notes(POLICY), DATABASE);
    assert!(one.stop(), "{}", one.log());
    let server = one.postgres.as_mut().unwrap();
    let clock = Clock::new(server.folder());
    server.starts_with(clock.environment());
    one.environment = clock.environment();
    other.environment = clock.environment();
    one.launch().await;
    let mut used = Vec::new();
    for _ in 0..USED {
        used.push(enrolled(&one).await);
    }
    let mut unused = Vec::new();
    for _ in 0..UNUSED {
        unused.push(enrolled(&one).await);
    }
    let old = used[0].call("GET", "/v1/account/events", None).await;
    let old = old.expect(200).body;
    let jwks = used[0].call("GET", "/.well-known/jwks.json", None).await;
    let verifier = Verifier::new(&jwks.expect(200).body);
    let before = verifier.events(&old).unwrap();
    let each = old["events"].as_array().unwrap().len();
    assert!(one.stop(), "{}", one.log());

    clock.is_off_by(LATER);
    one.launch().await;
    other.launch().await;
    let mut there: Vec<Device> = used.iter().map(|device| at(device, &other)).collect();
    for device in used.iter_mut().chain(&mut unused).chain(&mut there) {
        device.nonce.clear();
    }
    // By turns, so that neither node has all of them in memory.
    for (nth, (here, there)) in used.iter_mut().zip(&mut there).enumerate() {
        let (signs, shares) = match nth % 2 {
            0 => (here, there),
            _ => (there, here),
        };
        signs_in(signs).await.expect(201);
        shares.token.clone_from(&signs.token);
    }
    // Control: nothing has gone before a pass.
    let mut admin = one.admin().await;
    let bodies = "SELECT count(*) FROM log_bodies";
    let kept = admin.number(bodies).await;
    assert_eq!(admin.number(RETENTION).await, 0);
    let page = events(&mut used[0], "").await;
    assert_eq!(page["complete_from"], 1);
    let new = page["events"].as_array().unwrap().len() - each;
    assert!(new > 0 && clock.told() > 0);

    // Both begin at once, and one is killed while they are at it.
    clock.has_gone_by(PASS);
    let both = format!("SELECT ({RETENTION}) + ({ERASURE})");
    until_gone(&mut admin, &both, 3).await;
    one.kill();
    let done = admin.number(&both).await;
    assert!(
        done < (USED + UNUSED) as i64,
        "it was killed after its pass"
    );
    until_passed(&[&other]).await;
    let found = [admin.number(RETENTION).await, admin.number(ERASURE).await];
    assert_eq!(found, [USED as i64, UNUSED as i64], "{}", other.log());
    // And once more at the one that was killed, beside the one that has done it.
    one.launch().await;
    clock.has_gone_by(2 * PASS);
    until_passed(&[&one, &other]).await;
    let found = [admin.number(RETENTION).await, admin.number(ERASURE).await];
    assert_eq!(found, [USED as i64, UNUSED as i64], "{}", one.log());
    // Each leaf of these has a body of its own that says what went.
    let gone = (USED + UNUSED) * each;
    let stays = kept - gone as i64 + (USED + UNUSED) as i64;
    assert_eq!(admin.number(bodies).await, stays);
    for node in [&one, &other] {
        assert!(!node.log().contains("retention leaves"), "{}", node.log());
        assert!(!node.log().contains("retention goes on without"));
    }

    // What is left is proven at both, from where it begins, in a log that goes on from the one of before.
    for device in [&mut used, &mut there] {
        for device in device {
            device.nonce.clear();
            let page = events(device, &format!("?since={}", before.size)).await;
            let numbers = page["events"].as_array().unwrap();
            assert_eq!(numbers.len(), new, "{page}");
            assert_eq!(page["complete_from"], each + 1);
            let after = verifier.events(&page).unwrap();
            continues(&before, &after, &page["consistency"]).unwrap();
        }
    }
    for mut device in unused {
        for node in [&one, &other] {
            device.url.clone_from(&node.url);
            device.nonce.clear();
            let gone = signs_in(&mut device).await;
            gone.refused("401 authentication-failed");
        }
    }
    for device in [&mut used[1], &mut there[0]] {
        signs_in(device).await.expect(201);
    }
    assert!(other.stop(), "{}", other.log());
    assert!(one.stop(), "{}", one.log());
    // Who looks from outside goes by the machine's clock.
    one.postgres.as_mut().unwrap().starts_with(Vec::new());
    one.verified();
}
