//! Nodes that differ, and hosts whose clocks do: a start is refused and names it, and a change goes from node to node by permission.
//! What the database's word is worth here: nothing that is secret or counted hangs on it (`daemon/src/startup/agreement.rs`).

use std::time::{Duration, Instant};

use custodyd_tests::app::DATABASE;
use custodyd_tests::shim::Clock;
use custodyd_tests::token::SoftToken;
use custodyd_tests::{Setup, TestApp};

use super::nodes::{at, budget, edit, first, permit, serves_upon, two, verified};
use super::{PIN, WRONG, again, enrolled};

const RATE: &str = "account_burst = 1000000";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Whether there is an escrow the token's keys say: whoever differs in that is refused before anybody is asked.
const SETTINGS: [&str; 4] = ["listen.url", "limits", "ledger.public_log", "policies"];
const PERMITTED: &str = "this node may differ from the others in these";

/// What a daemon says that does not start.
async fn refused(node: &mut TestApp) -> String {
    let before = node.log().len();
    let started = node.try_launch().await;
    let said = node.log()[before..].to_owned();
    assert_eq!(started, Err("the daemon ended"), "{said}");
    said
}

/// The settings that a refusal names.
fn named(said: &str) -> Vec<&'static str> {
    let all = SETTINGS.iter().copied().chain(["token", "version"]);
    all.filter(|name| said.contains(&format!("{name}: this node has")))
        .collect()
}

/// The newest batch: whoever serves has written one.
fn newest(app: &TestApp) -> String {
    let server = app.postgres.as_ref().unwrap();
    server.sql(DATABASE, "SELECT seq FROM custodyd.head")
}

fn policy(app: &TestApp, text: &Setup) {
    let [(name, text), ..] = &text.policies[..] else {
        panic!();
    };
    std::fs::write(app.path(&format!("policies/{name}.toml")), text).unwrap();
}

#[tokio::test]
async fn a_node_that_has_something_else_than_those_that_serve_is_refused_and_told_what() {
    let mut one = first(budget(100)).await;
    assert!(one.stop(), "{}", one.log());
    permit(&one, &[]);
    one.launch().await;
    let mut other = one.another(budget(7), DATABASE);
    edit(&other, RATE, "account_burst = 999");
    let public = "[ledger]\npublic_log = true\n[policies]";
    edit(&other, "[policies]", public);
    let before = newest(&one);
    let said = refused(&mut other).await;
    assert_eq!(named(&said), SETTINGS, "{said}");
    for value in [
        other.url.as_str(),
        "account_burst = 999",
        "ledger.public_log: this node has true, and another node that serves this realm has false",
        "some whose digest begins",
        "store.postgres.rollout",
    ] {
        assert!(said.contains(value), "{value}: {said}");
    }
    // One that is not permitted is enough.
    for missing in ["limits", "policies", "listen.url"] {
        let rest: Vec<_> = SETTINGS.into_iter().filter(|one| *one != missing).collect();
        permit(&other, &rest);
        let said = refused(&mut other).await;
        assert_eq!(named(&said), [missing], "{said}");
    }
    assert_eq!(newest(&one), before, "somebody who was refused has written");
    assert!(
        !one.log().contains("has something else here"),
        "{}",
        one.log()
    );
    // Control: with all of them permitted it comes as far as what the realm itself has no keys for.
    permit(&other, &SETTINGS);
    let said = refused(&mut other).await;
    assert!(said.contains("ledger.public_log wants"), "{said}");
    edit(&other, public, "[policies]");
    other.launch().await;
    assert!(other.log().contains(PERMITTED), "{}", other.log());
    let mut here = enrolled(&one).await;
    at(&here, &other).try_pin(PIN, &[]).await.expect(201);
    here.try_pin(PIN, &["device-secret"]).await.expect(201);
    // Control: one that has the same needs no permission.
    let mut same = one.another(budget(100), DATABASE);
    let (url, own) = (
        format!("url = \"{}\"", one.url),
        format!("url = \"{}\"", same.url),
    );
    edit(&same, &own, &url);
    // Beside the one that may differ, too.
    same.launch().await;
    assert!(!same.log().contains(PERMITTED), "{}", same.log());
    verified(&mut [&mut one, &mut other, &mut same]);
}

/// The same keys under another serial number, as a maker's clone has: here other keys do.
#[tokio::test]
async fn a_node_on_a_token_with_another_serial_number_is_refused_and_told_why() {
    let mut one = first(budget(100)).await;
    let other = one.another(budget(100), DATABASE);
    let impostor = one.token.impostor();
    let before = newest(&one);
    let (good, text) = serves_upon(&other, &impostor);
    assert!(
        !good && named(&text) == ["token"] && text.contains("guesses may be won"),
        "{text}"
    );
    assert_eq!(newest(&one), before);
    // Control: where that is permitted, only the keys are left to tell.
    permit(&other, &["listen.url", "token"]);
    let (good, text) = serves_upon(&other, &impostor);
    assert!(!good && text.contains("not made by this token"), "{text}");
    let mut other = one.another(budget(100), DATABASE);
    other.launch().await;
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn limits_and_policies_change_from_node_to_node_while_the_realm_serves() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut last = one.another(budget(100), DATABASE);
    last.launch().await;
    let here = enrolled(&one).await;
    let serve = async |nodes: [&TestApp; 3]| {
        for node in nodes {
            at(&here, node)
                .try_pin(PIN, &["device-secret"])
                .await
                .expect(201);
        }
    };
    let slower = "account_burst = 999999";
    let renew = |node: &TestApp| {
        edit(node, RATE, slower);
        policy(node, &budget(90));
    };
    // The first one, and without a permission it stays outside.
    assert!(other.stop(), "{}", other.log());
    renew(&other);
    let said = refused(&mut other).await;
    assert_eq!(named(&said), ["limits", "policies"], "{said}");
    permit(&other, &["listen.url", "limits", "policies"]);
    other.launch().await;
    serve([&one, &other, &last]).await;
    // One that is killed meanwhile comes back with the old file, which permits nothing.
    one.kill();
    one.launch().await;
    serve([&one, &other, &last]).await;
    // But what somebody else has beside both is nobody's change.
    let mut stranger = one.another(budget(80), DATABASE);
    edit(&stranger, RATE, "account_burst = 999998");
    let said = refused(&mut stranger).await;
    assert_eq!(named(&said), ["limits", "policies"], "{said}");
    // The others, by the permission of the first; then that goes.
    for node in [&mut one, &mut last] {
        assert!(node.stop(), "{}", node.log());
        renew(node);
        node.launch().await;
    }
    serve([&one, &other, &last]).await;
    assert!(other.stop(), "{}", other.log());
    permit(&other, &["listen.url"]);
    other.launch().await;
    serve([&one, &other, &last]).await;
    // Control: it is back to where what differs is refused.
    let mut old = one.another(budget(100), DATABASE);
    let said = refused(&mut old).await;
    assert_eq!(named(&said), ["limits", "policies"], "{said}");
    verified(&mut [&mut one, &mut other, &mut last]);
}

#[tokio::test]
async fn what_a_reload_has_changed_at_one_node_the_next_start_is_compared_with() {
    let (mut one, mut other) = two(budget(100)).await;
    policy(&one, &budget(90));
    let reloaded = one.reload();
    assert!(reloaded.status.success(), "{reloaded:?}");
    until_differs(&one, "policies", 1).await;
    until_differs(&other, "policies", 1).await;
    // A reload goes from node to node without a permission; a start does not.
    assert!(other.stop(), "{}", other.log());
    let said = refused(&mut other).await;
    assert_eq!(named(&said), ["policies"], "{said}");
    policy(&other, &budget(90));
    other.launch().await;
    until_differs(&one, "policies", 0).await;
    // Back again, by both.
    for node in [&one, &other] {
        policy(node, &budget(100));
        assert!(node.reload().status.success(), "{}", node.log());
    }
    for node in [&one, &other] {
        until_differs(node, "policies", 0).await;
    }
    other.restart().await;
    verified(&mut [&mut one, &mut other]);
}

async fn until_differs(node: &TestApp, setting: &str, value: u8) {
    let wanted = format!("custodyd_nodes_differ{{setting=\"{setting}\"}} {value}");
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, text) = node.operator("/metrics").await;
        if text.contains(&wanted) {
            return;
        }
        assert!(Instant::now() < give_up, "{wanted}: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn what_clients_would_find_different_at_two_nodes_is_named_as_long_as_it_is() {
    let mut one = first(budget(100)).await;
    let mut other = one.another(budget(100), DATABASE);
    permit(&other, &["listen.url", "limits"]);
    edit(&other, RATE, "account_burst = 999");
    other.launch().await;
    // Each has an address of its own here, which nodes of a realm must not; the last one is the control.
    let until_shown = async |node: &TestApp, limits: u8| {
        until_differs(node, "limits", limits).await;
        until_differs(node, "listen.url", 1).await;
        until_differs(node, "ledger.public_log", 0).await;
    };
    until_shown(&one, 1).await;
    until_shown(&other, 1).await;
    let log = one.log();
    assert!(log.contains("has something else here"), "{log}");
    // The server's word is held by the connection that writes: another one has to say it anew.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    one.postgres.as_ref().unwrap().sql(DATABASE, cut);
    let mut here = enrolled(&one).await;
    again(&mut at(&here, &other), WRONG)
        .await
        .refused("401 pin-wrong");
    until_shown(&one, 1).await;
    assert!(other.stop(), "{}", other.log());
    edit(&other, "account_burst = 999", RATE);
    other.launch().await;
    until_shown(&one, 0).await;
    again(&mut here, WRONG).await.refused("401 pin-wrong");
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn a_node_whose_clock_is_not_the_databases_is_refused_with_both_times_and_serves_when_it_is()
{
    let mut one = first(budget(100)).await;
    let mut other = one.another(budget(100), DATABASE);
    let clock = Clock::new(other.dir.path());
    other.environment = clock.environment();
    let before = newest(&one);
    for seconds in [HOUR, -HOUR, 365 * DAY, 90] {
        clock.is_off_by(seconds);
        let said = refused(&mut other).await;
        let apart = seconds.unsigned_abs();
        // A second may pass, and the server rounds.
        let told = (apart - 1..=apart + 1).any(|apart| said.contains(&format!("{apart} s apart")));
        assert!(
            told && said.contains("compare the clocks: this host's says 20"),
            "{said}"
        );
    }
    assert_eq!(newest(&one), before, "somebody who was refused has written");
    // Controls: by less than a minute, and right.
    clock.is_off_by(-30);
    other.launch().await;
    clock.is_off_by(0);
    let here = enrolled(&one).await;
    let mut there = at(&here, &other);
    there.try_pin(PIN, &["device-secret"]).await.expect(201);
    // One that serves already goes on, and says so with each connection that it makes.
    clock.is_off_by(-HOUR);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    one.postgres.as_ref().unwrap().sql(DATABASE, cut);
    again(&mut there, PIN).await.expect(201);
    let log = other.log();
    assert!(log.contains("further apart than a minute"), "{log}");
    clock.is_off_by(0);
    verified(&mut [&mut one, &mut other]);
}

/// One batch of it would move the realm's time for good, and its retention delete by it.
#[tokio::test]
async fn a_daemon_alone_is_refused_where_its_clock_is_off_by_more_than_a_day() {
    let mut app = TestApp::prepared(budget(100).on_postgres(), SoftToken::fresh());
    let clock = Clock::new(app.dir.path());
    app.environment = clock.environment();
    app.found().await;
    assert!(app.stop(), "{}", app.log());
    let before = newest(&app);
    for days in [2, -2, 3650] {
        clock.is_off_by(days * DAY);
        let said = refused(&mut app).await;
        assert!(
            said.contains("compare the clocks: this host's says")
                && said.contains("86400 s at the most"),
            "{said}"
        );
    }
    assert_eq!(newest(&app), before);
    // Control: what is let in moves the realm's time, which does not come back with the clock.
    clock.is_off_by(HOUR);
    app.launch().await;
    clock.is_off_by(0);
    let (status, text) = app.operator("/readyz").await;
    assert!(
        status == 200 && text.contains("clock_behind_seconds"),
        "{text}"
    );
    app.verified();
}
