//! Clients whose every request goes to another node, as behind a balancer: what an owner did at one is seen at the next,
//! though that has read the account a moment ago and need not ask the token again for a second.

use custodyd_tests::{Device, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

use super::nodes::{at, budget, two, verified};
use super::{PIN, WRONG, enrolled};

/// Both have the account in memory, and the token's word that it is the newest.
async fn both_know(devices: [&mut Device; 2]) {
    for device in devices {
        for _ in 0..2 {
            device.call("GET", "/v1/account", None).await.expect(200);
        }
    }
}

#[tokio::test]
async fn one_passkey_signs_in_at_two_nodes_by_turns() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut authenticator = SoftAuthenticator::new("notes");
    here.add_passkey(&mut authenticator).await.expect(201);
    let mut there = at(&here, &other);
    both_know([&mut here, &mut there]).await;
    for _ in 0..8 {
        // The options are asked for before the counter moves, as of two pages open side by side.
        let account = here.account.clone();
        let first = here.assertion(&mut authenticator, Some(&account)).await;
        let second = there.assertion(&mut authenticator, Some(&account)).await;
        here.finish_passkey(first).await.expect(201);
        there.finish_passkey(second).await.expect(201);
    }
    // Control: what was signed before an assertion that came in meanwhile is not taken, at the other node either.
    let account = here.account.clone();
    let older = there.assertion(&mut authenticator, Some(&account)).await;
    let newer = here.assertion(&mut authenticator, Some(&account)).await;
    here.finish_passkey(newer).await.expect(201);
    let answer = there.finish_passkey(older).await;
    answer.refused("401 passkey-counter");
    verified(&mut [&mut one, &mut other]);
}

/// The client of a device that comes to an account by its passkey.
fn newcomer(node: &TestApp, authenticator: &SoftAuthenticator) -> (Device, SoftAuthenticator) {
    (node.device("notes"), authenticator.cloned())
}

#[tokio::test]
async fn what_was_added_at_one_node_is_known_at_the_next() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    for _ in 0..4 {
        let mut authenticator = SoftAuthenticator::new("notes");
        both_know([&mut here, &mut there]).await;
        // A passkey, used at once.
        here.add_passkey(&mut authenticator).await.expect(201);
        let account = here.account.clone();
        let assertion = there.assertion(&mut authenticator, Some(&account)).await;
        there.finish_passkey(assertion).await.expect(201);
        both_know([&mut here, &mut there]).await;

        // A device that it brings: its session, and its key alone.
        let (mut new, mut synced) = newcomer(&one, &authenticator);
        new.meet().await;
        let more = json!({"bind_device": {"name": "new"}});
        new.try_passkey(&mut synced, more).await.expect(201);
        let mut moved = at(&new, &other);
        moved.call("GET", "/v1/account", None).await.expect(200);
        both_know([&mut here, &mut there]).await;
        let (mut second, mut synced) = newcomer(&one, &synced);
        second.meet().await;
        let more = json!({"bind_device": {"name": "second"}});
        second.try_passkey(&mut synced, more).await.expect(201);
        at(&second, &other).try_device(&[]).await.expect(201);
        // Its counter is that of the copy which was used last.
        authenticator = synced;

        // A passkey that is gone is gone everywhere, and the session of it.
        let account = here.account.clone();
        let assertion = here.assertion(&mut authenticator, Some(&account)).await;
        here.finish_passkey(assertion).await.expect(201);
        there.token.clone_from(&here.token);
        let listed = there.call("GET", "/v1/account", None).await.expect(200);
        let device_id = listed.body["passkeys"][0]["device_id"].as_str().unwrap();
        let path = format!("/v1/account/passkeys/{device_id}");
        here.call("DELETE", &path, None).await.expect(204);
        let ended = there.call("GET", "/v1/account", None).await;
        ended.refused("401 session-ended");
        here.try_pin(PIN, &[]).await.expect(201);
        there.token.clone_from(&here.token);
        let seen = there.call("GET", "/v1/account", None).await.expect(200);
        assert_eq!(seen.body["passkeys"], json!([]));
    }
    verified(&mut [&mut one, &mut other]);
}

/// What is looked at before anything is written: whether there is such a factor, and such a secret.
#[tokio::test]
async fn what_was_set_or_stored_at_one_node_is_not_missed_at_the_next() {
    let (mut one, mut other) = two(budget(100)).await;
    for turn in 0..6 {
        let mut here = one.device("notes");
        here.enrol().await;
        let mut there = at(&here, &other);
        both_know([&mut here, &mut there]).await;
        here.set_pin(PIN).await.expect(200);
        there.try_pin(PIN, &[]).await.expect(201);
        both_know([&mut here, &mut there]).await;
        here.back_up("device-secret", b"kept").await.expect(200);
        match turn % 2 {
            0 => drop(there.try_pin(PIN, &["device-secret"]).await.expect(201)),
            // Guessed wrongly, it is charged, and nobody is told that there is nothing.
            _ => {
                let answer = there.try_pin(WRONG, &["device-secret"]).await;
                answer.refused("401 pin-wrong");
            }
        }
    }
    verified(&mut [&mut one, &mut other]);
}

fn size(page: &Value) -> u64 {
    let note = page["checkpoint"].as_str().unwrap();
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// A client keeps the newest checkpoint that it has seen, and takes a shorter log for a lie.
#[tokio::test]
async fn the_log_is_never_shorter_at_the_next_node() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    let mut since = 0;
    for turn in 0..8 {
        both_know([&mut here, &mut there]).await;
        let writes = if turn % 2 == 0 { &mut here } else { &mut there };
        let version = writes.recover("device-secret").await.expect(200);
        let etag = version.header("etag").to_owned();
        let content = json!({"server_slot": "a2VwdA"});
        writes
            .put("device-secret", "If-Match", &etag, content)
            .await
            .expect(200);
        for device in [&mut here, &mut there] {
            let path = format!("/v1/account/events?since={since}");
            let page = device.call("GET", &path, None).await.expect(200).body;
            assert!(size(&page) >= since, "{} after {since}", size(&page));
            assert!(since == 0 || page["consistency"].is_array(), "{page}");
            since = size(&page);
        }
    }
    verified(&mut [&mut one, &mut other]);
}
