//! Several daemons on one server and one SoftHSM2 token: who may serve beside whom, that guesses are counted over
//! all of them, and that none shows what another has taken away, whatever becomes of processes, connections and
//! locks. What needs a database that lies is in `malicious_admin/nodes.rs` and, with each defence switched off, in
//! `daemon/src/ledger/faults/nodes.rs`.

use std::time::{Duration, Instant};

use custodyd_tests::app::{DATABASE, SEVERAL, said};
pub(super) use custodyd_tests::nodes::{at, first, two};
use custodyd_tests::postgres::USER;
use custodyd_tests::token::SoftToken;
use custodyd_tests::wire::{Cut, Wire};
use custodyd_tests::{Answer, Device, Setup, TestApp};
use rustix::process::Signal;

use super::{PIN, WRONG, again, enrolled, run};

/// The budget of these tests.
pub(super) fn budget(attempts: u32) -> Setup {
    Setup::notes(&format!("[[pin.rounds]]\nattempts = {attempts}\n"))
}

pub(super) fn edit(app: &TestApp, from: &str, to: &str) {
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// In what the node may differ for now, in place of what it could.
pub(super) fn permit(app: &TestApp, settings: &[&str]) {
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("rollout = "));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    std::fs::write(file, kept).unwrap();
    let shared = "nodes = \"several\"\n";
    edit(app, shared, &format!("{shared}rollout = {settings:?}\n"));
}

async fn read(device: &mut Device) -> Answer {
    device.call("GET", "/v1/account", None).await
}

/// Reads until it is answered so.
pub(super) async fn until(device: &mut Device, status: u16) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = read(device).await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < give_up, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn verified(nodes: &mut [&mut TestApp]) {
    for node in nodes.iter_mut() {
        assert!(node.stop(), "{}", node.log());
    }
    let (good, text) = run(nodes[0], "ledger verify --open");
    assert!(good, "{text}");
}

#[tokio::test]
async fn what_one_node_has_written_the_other_goes_on_from() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    read(&mut there).await.expect(200);
    let mut expected = None;
    for _ in 0..3 {
        for device in [&mut here, &mut there] {
            let wrong = device.try_pin(WRONG, &[]).await;
            wrong.refused("401 pin-wrong");
            let left = wrong.body["attempts_left"].as_u64().unwrap();
            assert_eq!(left, expected.unwrap_or(left));
            expected = Some(left - 1);
        }
    }
    there.try_pin(PIN, &["device-secret"]).await.expect(201);
    // One goes and comes while the other serves.
    other.restart().await;
    there.nonce.clear();
    there.url.clone_from(&other.url);
    there.try_pin(PIN, &["device-secret"]).await.expect(201);
    here.try_pin(PIN, &["device-secret"]).await.expect(201);
    for node in [&one, &other] {
        let (status, text) = node.operator("/readyz").await;
        assert!(status == 200 && text.contains("newest"), "{text}");
    }
    verified(&mut [&mut one, &mut other]);
}

/// The server ends its connections in order, and says so on each: those that write lie idle then, and hear it only when they
/// are used.
#[tokio::test]
async fn the_first_change_after_a_restart_of_the_server_is_taken_by_every_node() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    there.try_pin(PIN, &[]).await.expect(201);
    for device in [&mut here, &mut there] {
        let server = one.postgres.as_mut().unwrap();
        server.stop();
        server.launch();
        // What reads was not used a moment ago, and is looked at before it is.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let taken = device.try_pin(PIN, &["device-secret"]).await;
        taken.expect(201);
    }
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn guesses_at_two_nodes_at_once_are_charged_together_and_end_with_the_budget() {
    const BUDGET: u32 = 12;
    let (mut one, mut other) = two(budget(BUDGET)).await;
    let here = enrolled(&one).await;
    let tasks: Vec<_> = (0..4)
        .map(|of| {
            let mut device = at(&here, if of % 2 == 0 { &one } else { &other });
            tokio::spawn(async move {
                let mut evaluated = Vec::new();
                let mut told = Vec::new();
                for _ in 0..10 {
                    let answer = device.try_pin(WRONG, &[]).await;
                    if answer.refusal() == "401 pin-wrong" {
                        evaluated.push(answer.body["attempts_left"].as_u64().unwrap());
                    }
                    told.push(answer.refusal());
                }
                (evaluated, told)
            })
        })
        .collect();
    let (mut evaluated, mut told) = (Vec::new(), Vec::new());
    for task in tasks {
        let (some, all) = task.await.unwrap();
        evaluated.extend(some);
        told.extend(all);
    }
    // Forty were tried, at two nodes; the right PIN is worth nothing afterwards, at either.
    assert!(
        evaluated.len() <= BUDGET as usize && evaluated.len() + 2 >= BUDGET as usize,
        "{evaluated:?} {told:?}"
    );
    for node in [&one, &other] {
        let answer = again(&mut at(&here, node), PIN).await;
        assert_ne!(answer.status, 201, "{answer:?}");
    }
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn a_node_that_was_frozen_shows_nobody_what_was_signed_out_meanwhile() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    here.try_pin(PIN, &[]).await.expect(201);
    let mut there = at(&here, &other);
    // Control: it reads, from its memory by now.
    read(&mut there).await.expect(200);
    read(&mut there).await.expect(200);
    other.signal(Signal::STOP);
    here.call("DELETE", "/v1/session", None).await.expect(204);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let asked = tokio::spawn(async move {
        let answer = read(&mut there).await;
        (there, answer)
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.signal(Signal::CONT);
    let (mut there, answer) = asked.await.unwrap();
    assert_ne!(answer.status, 200, "{answer:?}");
    until(&mut there, 401).await;
    verified(&mut [&mut one, &mut other]);
}

/// The same of a PIN that was replaced meanwhile: its evaluation is a change, and takes a turn.
#[tokio::test]
async fn a_node_that_was_frozen_takes_no_pin_of_before() {
    const OTHER: &str = "271828";
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    // Control: it is good at both, and the other one knows the account.
    there.try_pin(PIN, &[]).await.expect(201);
    other.signal(Signal::STOP);
    here.set_pin(OTHER).await.expect(200);
    let asked = tokio::spawn(async move {
        let answer = there.try_pin(PIN, &["device-secret"]).await;
        (there, answer)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.signal(Signal::CONT);
    let (mut there, answer) = asked.await.unwrap();
    assert!(matches!(answer.status, 401 | 503), "{answer:?}");
    again(&mut there, PIN).await.refused("401 pin-wrong");
    again(&mut there, OTHER).await.expect(201);
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn a_node_whose_turn_is_taken_away_charges_nothing_twice() {
    let (mut one, mut other) = two(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    let wrong = here.try_pin(WRONG, &[]).await;
    let before = wrong.body["attempts_left"].as_u64().unwrap();
    let server = one.postgres.as_ref().unwrap();
    let (mut told, mut refused) = (0, 0);
    for round in 0..12 {
        // Whoever writes at this moment loses the lock and the connection that has it.
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'custodyd' \
                   AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')";
        let devices = (&mut here, &mut there);
        let (a, b, ()) = tokio::join!(
            devices.0.try_pin(WRONG, &[]),
            devices.1.try_pin(WRONG, &[]),
            async {
                tokio::time::sleep(Duration::from_millis(round * 3)).await;
                server.sql("postgres", cut);
            }
        );
        for answer in [a, b] {
            match answer.status {
                401 => told += 1,
                503 => refused += 1,
                _ => panic!("{answer:?}"),
            }
        }
    }
    let after = again(&mut there, WRONG).await;
    let charged = before - after.body["attempts_left"].as_u64().unwrap() - 1;
    assert!(
        (told..=told + refused).contains(&charged),
        "{charged} of {told} and {refused}"
    );
    again(&mut here, PIN).await.expect(201);
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn a_commit_whose_answer_is_cut_off_is_found_beneath_what_another_node_built_on_it() {
    let mut one = TestApp::prepared(budget(100).on_postgres(), SoftToken::fresh());
    let server = one.postgres.as_ref().unwrap();
    let wire = Wire::to(server.folder(), server.port());
    let (folder, port) = (server.folder().to_owned(), server.port());
    let url = |folder: &std::path::Path| {
        format!(
            "url = \"postgres://{USER}@:{port}/{DATABASE}?host={}\"\n{SEVERAL}",
            folder.display()
        )
    };
    super::configure(&one, &url(wire.folder()));
    one.found().await;
    let mut other = one.another(budget(100), DATABASE);
    super::configure(&other, &url(&folder));
    other.launch().await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    let wrong = here.try_pin(WRONG, &[]).await;
    let before = wrong.body["attempts_left"].as_u64().unwrap();
    for cut in [Cut::AfterCommit, Cut::BeforeCommit] {
        wire.cut_next(cut);
        wire.refuse(true);
        let asked = tokio::spawn(async move {
            let answer = here.try_pin(WRONG, &[]).await;
            (here, answer)
        });
        let give_up = Instant::now() + Duration::from_secs(60);
        while !wire.has_cut() && Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(wire.has_cut());
        // The other node writes upon what stands.
        again(&mut there, WRONG).await.refused("401 pin-wrong");
        assert!(!asked.is_finished(), "answered without its commit");
        wire.refuse(false);
        let answer;
        (here, answer) = asked.await.unwrap();
        match cut {
            Cut::AfterCommit => answer.refused("401 pin-wrong"),
            _ => assert!(matches!(answer.status, 401 | 503), "{answer:?}"),
        }
    }
    let after = again(&mut there, WRONG).await;
    let charged = before - after.body["attempts_left"].as_u64().unwrap() - 1;
    assert!((3..=4).contains(&charged), "{charged}");
    again(&mut here, PIN).await.expect(201);
    verified(&mut [&mut one, &mut other]);
}

/// What the daemon says that starts on this token.
pub(super) fn serves_upon(app: &TestApp, token: &SoftToken) -> (bool, String) {
    let section = token.section();
    let file = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("[token]\n").unwrap();
    let (_, after) = after.split_once("[store]").unwrap();
    std::fs::write(&file, format!("{before}[token]\n{section}\n[store]{after}")).unwrap();
    let (name, value) = token.environment();
    let output = app.command("serve").env(name, value).output().unwrap();
    (output.status.success(), said(&output))
}

/// The same keys in another token know nothing of what the nodes have anchored since.
#[tokio::test]
async fn a_node_on_a_copy_of_the_token_is_refused_and_told_why() {
    let mut one = first(budget(100)).await;
    let mut here = enrolled(&one).await;
    assert!(one.stop(), "{}", one.log());
    let copy = one.token.copied();
    one.launch().await;
    here.nonce.clear();
    here.url.clone_from(&one.url);
    for _ in 0..2 {
        again(&mut here, WRONG).await.refused("401 pin-wrong");
    }
    let other = one.another(budget(100), DATABASE);
    let (good, text) = serves_upon(&other, &copy);
    assert!(
        !good && text.contains("another token than the one that the realm's nodes share"),
        "{text}"
    );
    // What it was refused upon serves on.
    here.try_pin(PIN, &["device-secret"]).await.expect(201);
    // Where the copy is all that is left, one daemon begins alone, as the refusal says; then nodes serve upon it.
    assert!(one.stop(), "{}", one.log());
    let _lost = std::mem::replace(&mut one.token, copy);
    let (several, alone) = ("nodes = \"several\"\n", "nodes = \"one\"\n");
    assert!(text.contains("store.postgres.nodes"), "{text}");
    edit(&one, several, alone);
    one.launch().await;
    assert!(one.stop(), "{}", one.log());
    edit(&one, alone, several);
    one.launch().await;
    here.nonce.clear();
    here.url.clone_from(&one.url);
    here.try_pin(PIN, &["device-secret"]).await.expect(201);
    verified(&mut [&mut one]);
}

#[tokio::test]
async fn who_does_not_fit_beside_a_node_is_refused_and_told_why() {
    let mut one = first(budget(100)).await;
    let alone = one.another(budget(100), DATABASE);
    edit(&alone, "nodes = \"several\"\n", "");
    let (good, text) = run(&alone, "serve");
    assert!(
        !good && text.contains("nodes = \\\"several\\\"") || text.contains("nodes = \"several\""),
        "{text}"
    );
    // What needs the database for itself says so.
    let (good, text) = run(&one, "ledger verify");
    assert!(!good, "{text}");
    // Another realm, and another token.
    let stranger = one.another(budget(100), DATABASE);
    edit(
        &stranger,
        "name = \"test.example\"",
        "name = \"other.example\"",
    );
    let (good, text) = run(&stranger, "serve");
    assert!(!good && text.contains("test.example"), "{text}");
    let foreign = one.another(budget(100), DATABASE);
    permit(&foreign, &["listen.url", "token"]);
    let (good, text) = serves_upon(&foreign, &one.token.impostor());
    assert!(!good && text.contains("not made by this token"), "{text}");
    // Bounded anchoring is of one daemon.
    let bounded = one.another(budget(100), DATABASE);
    edit(
        &bounded,
        "[policies]",
        "[ledger]\nanchor = \"bounded\"\n[policies]",
    );
    let (good, text) = run(&bounded, "serve");
    assert!(!good && text.contains("must be \"strict\""), "{text}");
    // What the realm has no key for, a node can not sign.
    let public = one.another(budget(100), DATABASE);
    permit(&public, &["listen.url", "ledger.public_log"]);
    edit(
        &public,
        "[policies]",
        "[ledger]\npublic_log = true\n[policies]",
    );
    let (good, text) = run(&public, "serve");
    assert!(!good && text.contains("ledger.public_log wants"), "{text}");
    // A table that somebody has added, and no head speaks of.
    let mut admin = one.admin().await;
    admin
        .run("CREATE TABLE custodyd.notes (id bigint PRIMARY KEY)")
        .await;
    let late = one.another(budget(100), DATABASE);
    let (good, text) = run(&late, "serve");
    assert!(
        !good && text.contains("custodyd did not make: table notes"),
        "{text}"
    );
    admin
        .run("ALTER TABLE custodyd.head ADD COLUMN hint bigint DEFAULT 7")
        .await;
    let (good, text) = run(&late, "serve");
    assert!(
        !good && text.contains("custodyd.head is not as custodyd made it"),
        "{text}"
    );
    admin
        .run("ALTER TABLE custodyd.head DROP COLUMN hint")
        .await;
    admin.run("DROP TABLE custodyd.notes").await;
    // One that may be under other policies serves, and the log names both.
    let other_policies = budget(7);
    let mut differing = one.another(other_policies, DATABASE);
    permit(&differing, &["listen.url", "policies"]);
    differing.launch().await;
    let mut here = enrolled(&one).await;
    read(&mut at(&here, &differing)).await.expect(200);
    here.try_pin(PIN, &[]).await.expect(201);
    assert!(
        differing.log().contains("under other policies"),
        "{}",
        differing.log()
    );
    verified(&mut [&mut one, &mut differing]);
    // Control: alone again, the first one serves.
    let mut alone = alone;
    alone.launch().await;
}
