//! Several nodes, and what whoever administers their server shows to one of them and not to the others.
//!
//! Two real daemons on one SoftHSM2 token. The way of the second one to its server is the administrator's, and may lead to a
//! copy; rows are changed between the nodes' turns. Which of two histories goes on is what the token says that the nodes
//! share. So in the controls a node has a copy of the token, with the same keys and nobody else's anchors: what is
//! refused to the second node succeeds there. Where the defence is one of the daemon's own, the control is the same attack with it
//! switched off, inside the daemon, and is named.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use custodyd_tests::app::DATABASE;
use custodyd_tests::nodes::{at, first, looks_in};
use custodyd_tests::token::SoftToken;
use custodyd_tests::{Admin, Answer, Device, PostgresServer, Setup, TestApp, Wire};
use serde_json::json;

use crate::{Row, Version, victim};

const PIN: &str = "830517";
const WRONG: &str = "830518";
const OTHER: &str = "271828";
const TAMPERED: &str = "500 record-tampered";
/// What the token has said holds for a second.
const LATER: Duration = Duration::from_millis(1100);

struct Nodes {
    setup: Setup,
    one: TestApp,
    other: TestApp,
    /// One device, at each of them.
    here: Device,
    there: Device,
    row: Row,
    /// Who reads with it costs nothing.
    session: Option<String>,
    /// From the second one to its server.
    way: Wire,
}

impl Nodes {
    async fn new() -> Self {
        let setup = Setup {
            cache_mib: 0,
            ..Setup::notes("[[pin.rounds]]\nattempts = 50\n")
        };
        let one = first(setup.clone()).await;
        let way = Wire::to(server(&one).folder(), server(&one).port());
        let mut other = one.another(setup.clone(), DATABASE);
        looks_in(&other, way.folder(), server(&one).folder());
        other.launch().await;
        let (here, row) = victim(&one, "notes").await;
        let there = at(&here, &other);
        let session = here.token.clone();
        Self {
            setup,
            one,
            other,
            here,
            there,
            row,
            session,
            way,
        }
    }

    fn leads_back(&self) {
        self.way.leads_to(server(&self.one).folder());
    }

    /// A node on copies of the database and of the token, and the copy's server. Nobody may be writing.
    async fn double(&self) -> (TestApp, PostgresServer) {
        // An anchor's predecessor goes after the answer.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let copy = server(&self.one).copied();
        let mut node = self.one.another(self.setup.clone(), DATABASE);
        looks_in(&node, copy.folder(), server(&self.one).folder());
        node.token = self.one.token.copied();
        node.launch().await;
        (node, copy)
    }

    /// The second node tells nobody anything: no guess is evaluated, no PIN taken, nothing read.
    async fn other_answers_nobody(&mut self) {
        for _ in 0..2 {
            for pin in [WRONG, PIN] {
                refused(sign_in(&mut self.there, pin).await);
            }
            refused(read(&mut self.there, &self.session).await);
        }
        let give_up = Instant::now() + Duration::from_secs(30);
        let operator = format!("{}/readyz", self.other.operator);
        while reqwest::get(&operator)
            .await
            .is_ok_and(|ready| ready.status() == 200)
        {
            assert!(Instant::now() < give_up, "it is ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The second node serves again, and goes on from so many.
    async fn other_goes_on(&mut self, left: u64) {
        goes_on(&mut self.other, &mut self.there, left).await;
    }

    /// Both end, and the whole of what they leave verifies.
    fn verified(mut self) {
        assert!(self.other.stop(), "{}", self.other.log());
        self.one.verified();
    }
}

fn server(app: &TestApp) -> &PostgresServer {
    app.postgres.as_ref().unwrap()
}

/// `None` where the node has ended.
async fn sign_in(device: &mut Device, pin: &str) -> Option<Answer> {
    device.token = None;
    let body = json!({"account": device.account, "pin": pin, "release": []});
    let call = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
    device.attempt(&call).await
}

async fn read(device: &mut Device, session: &Option<String>) -> Option<Answer> {
    device.token.clone_from(session);
    let call = device.prepare("GET", "/v1/account", None);
    device.attempt(&call).await
}

#[track_caller]
fn refused(answer: Option<Answer>) {
    let told = answer.filter(|answer| answer.status < 500);
    assert!(told.is_none(), "{told:?}");
}

/// Reads until it is answered so.
async fn until(device: &mut Device, session: &Option<String>, status: u16) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = read(device, session).await;
        if answer
            .as_ref()
            .is_some_and(|answer| answer.status == status)
        {
            return;
        }
        assert!(Instant::now() < give_up, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Guesses wrongly. How many guesses are left, where it was evaluated.
async fn guess(device: &mut Device) -> Option<u64> {
    let answer = sign_in(device, WRONG).await?;
    match answer.status {
        401 => {
            answer.refused("401 pin-wrong");
            answer.body["attempts_left"].as_u64()
        }
        _ => {
            refused(Some(answer));
            None
        }
    }
}

async fn left(device: &mut Device) -> u64 {
    guess(device).await.expect("it is evaluated")
}

/// The node evaluates a guess, after which so many are left: but for those that were charged and could not be answered. One that
/// has ended for what it was shown is started anew.
async fn goes_on(node: &mut TestApp, device: &mut Device, expected: u64) {
    let give_up = Instant::now() + Duration::from_secs(60);
    for lost in 0.. {
        if node.process().is_none() {
            node.launch().await;
            device.nonce.clear();
        }
        if let Some(left) = guess(device).await {
            assert!(
                (expected - lost.min(expected)..=expected).contains(&left),
                "{left} instead of {expected}, after {lost}"
            );
            return;
        }
        assert!(Instant::now() < give_up, "{}", node.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_forked_node_evaluates_no_guess_beside_those_of_the_others() {
    let mut nodes = Nodes::new().await;
    let before = left(&mut nodes.here).await;
    let copy = server(&nodes.one).copied();
    assert_eq!(left(&mut nodes.here).await, before - 1);
    nodes.way.leads_to(copy.folder());
    nodes.other_answers_nobody().await;
    // The others are not held up by it, and nothing of it is charged to them.
    assert_eq!(left(&mut nodes.here).await, before - 2);
    nodes.leads_back();
    nodes.other_goes_on(before - 3).await;

    // Control: where the token is a copy, too, each guess is evaluated twice.
    let now = left(&mut nodes.here).await;
    let (double, _copy) = nodes.double().await;
    let mut elsewhere = at(&nodes.here, &double);
    for spent in 1..=2 {
        assert_eq!(left(&mut nodes.here).await, now - spent);
        assert_eq!(left(&mut elsewhere).await, now - spent);
    }
    nodes.verified();
}

/// A guess at each of two nodes with a database of its own: both have written what charges it and are held up, and let go
/// at once. Then both ask for the same place in the token.
async fn race(servers: [&PostgresServer; 2], devices: [&mut Device; 2]) -> Vec<u64> {
    let mut held = Vec::new();
    for server in servers {
        let mut admin = Admin::at(server, DATABASE).await;
        admin.run("BEGIN").await;
        admin.run("LOCK TABLE records IN SHARE MODE").await;
        held.push(admin);
    }
    let let_go = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        for admin in &mut held {
            admin.run("ROLLBACK").await;
        }
    };
    let [here, there] = devices;
    let (a, b, ()) = tokio::join!(guess(here), guess(there), let_go);
    [a, b].into_iter().flatten().collect()
}

/// That the token is asked once more after an anchor was made is what decides it: without that the model finds the fork
/// (`tests/model/mutants.rs`).
#[tokio::test]
async fn of_two_histories_that_race_for_the_token_one_goes_on() {
    let mut nodes = Nodes::new().await;
    let before = left(&mut nodes.here).await;
    // Control: with a token each, both are told the same.
    let (double, copy) = nodes.double().await;
    let mut elsewhere = at(&nodes.here, &double);
    let mut told = race(
        [server(&nodes.one), &copy],
        [&mut nodes.here, &mut elsewhere],
    )
    .await;
    assert_eq!(told, [before - 1; 2]);
    drop((double, copy));

    told.truncate(1);
    let copy = server(&nodes.one).copied();
    nodes.way.leads_to(copy.folder());
    // As long as nobody has gone on, the copy is the newest as well.
    until(&mut nodes.there, &nodes.session, 200).await;
    told.extend(
        race(
            [server(&nodes.one), &copy],
            [&mut nodes.here, &mut nodes.there],
        )
        .await,
    );
    for _ in 0..3 {
        told.extend(guess(&mut nodes.here).await);
        told.extend(guess(&mut nodes.there).await);
    }
    let different: BTreeSet<u64> = told.iter().copied().collect();
    assert_eq!(different.len(), told.len(), "{told:?}");

    // Of the two databases only one is the realm's; and that one remembers all that was told.
    let _ = (nodes.one.stop(), nodes.other.stop());
    let mut serving = 0;
    for (node, device) in [
        (&mut nodes.one, &mut nodes.here),
        (&mut nodes.other, &mut nodes.there),
    ] {
        if node.try_launch().await.is_ok() {
            serving += 1;
            device.nonce.clear();
            let last = told.iter().min().unwrap();
            let left = left(device).await;
            assert!(left < *last, "{left} after {told:?}");
        }
    }
    assert_eq!(serving, 1, "{told:?}");
}

#[tokio::test]
async fn a_node_that_is_shown_an_older_head_tells_nobody_what_it_says() {
    let mut nodes = Nodes::new().await;
    let copy = server(&nodes.one).copied();
    nodes.way.leads_to(copy.folder());
    // Control: as long as it is the newest, it is read.
    until(&mut nodes.there, &nodes.session, 200).await;
    let (double, _copy) = nodes.double().await;
    let mut elsewhere = at(&nodes.here, &double);
    nodes.here.set_pin(OTHER).await.expect(200);
    let signed_out = nodes.here.call("DELETE", "/v1/session", None).await;
    signed_out.expect(204);
    let told = read(&mut nodes.here, &nodes.session).await.unwrap();
    assert_eq!(told.status, 401);
    tokio::time::sleep(LATER).await;
    nodes.other_answers_nobody().await;
    // Control: with a token that remembers no more than that database, it is all believed.
    let told = read(&mut elsewhere, &nodes.session).await.unwrap();
    told.expect(200);
    elsewhere.try_pin(PIN, &["device-secret"]).await.expect(201);

    nodes.leads_back();
    until(&mut nodes.there, &nodes.session, 401).await;
    let taken = nodes.there.try_pin(OTHER, &["device-secret"]).await;
    taken.expect(201);
    nodes.there.try_pin(PIN, &[]).await.refused("401 pin-wrong");
    nodes.verified();
}

/// With the state tree off, what was honest once succeeds: `without_the_state_tree_only_what_was_honest_once_succeeds` in
/// `daemon/src/ledger/faults/attacks/records.rs`.
#[tokio::test]
async fn a_row_or_a_list_put_back_for_one_node_alone_wins_nothing_at_any() {
    let mut nodes = Nodes::new().await;
    let mut admin = nodes.one.admin().await;
    let mut old = Version::of(&mut admin, &nodes.row).await;
    let mut expected = left(&mut nodes.here).await;
    for turn in 0..4 {
        // In every other turn the one that is lied to knows the newest state already.
        if turn % 2 == 1 {
            until(&mut nodes.there, &nodes.session, 200).await;
        }
        let newest = Version::of(&mut admin, &nodes.row).await;
        // The row alone, the list alone, and both.
        old.row.restore(&mut admin).await;
        let told = sign_in(&mut nodes.there, PIN).await.unwrap();
        told.refused(TAMPERED);
        newest.row.restore(&mut admin).await;
        old.row.set_members(&mut admin, &old.members).await;
        let told = sign_in(&mut nodes.there, WRONG).await.unwrap();
        told.refused(TAMPERED);
        old.put_back(&mut admin).await;
        for pin in [PIN, WRONG] {
            let told = sign_in(&mut nodes.there, pin).await.unwrap();
            told.refused(TAMPERED);
        }
        let told = read(&mut nodes.there, &nodes.session).await.unwrap();
        told.refused(TAMPERED);
        // Control: the newest, put back by the same hand, is served at both, and nothing was won or charged.
        newest.put_back(&mut admin).await;
        for device in [&mut nodes.here, &mut nodes.there] {
            expected -= 1;
            assert_eq!(left(device).await, expected);
        }
        old = newest;
    }
    nodes
        .there
        .try_pin(PIN, &["device-secret"])
        .await
        .expect(201);
    nodes.verified();
}

/// With the defences off, an older head is read and written upon: `who_is_shown_an_older_head_reads_and_decides_nothing` in
/// `daemon/src/ledger/faults/nodes.rs`, and `a_rolled_back_database_is_not_written_upon` in `nodes/anchors.rs` there.
#[tokio::test]
async fn a_head_that_is_gone_or_an_older_one_between_turns_is_written_upon_by_nobody() {
    let mut nodes = Nodes::new().await;
    let mut admin = nodes.one.admin().await;
    let mut expected = left(&mut nodes.here).await;
    for (turn, attack) in [
        "DELETE FROM head",
        "UPDATE head SET seq = older.seq, body = older.body, mac = older.mac FROM older",
        "UPDATE head SET seq = older.seq FROM older",
    ]
    .iter()
    .enumerate()
    {
        // The first one's batch; of the older head the second one knows as well, or has never heard of the newer.
        for knows in [true, false] {
            admin
                .run("CREATE TEMP TABLE older AS SELECT * FROM head")
                .await;
            expected -= 1;
            assert_eq!(left(&mut nodes.here).await, expected);
            if knows {
                until(&mut nodes.there, &nodes.session, 200).await;
            }
            admin
                .run("CREATE TEMP TABLE newest AS SELECT * FROM head")
                .await;
            assert_eq!(admin.run(attack).await, 1);
            tokio::time::sleep(LATER).await;
            nodes.other_answers_nobody().await;
            // Control: the newest, put back by the same hand.
            admin.run("DELETE FROM head").await;
            let mend = "INSERT INTO head SELECT * FROM newest";
            assert_eq!(admin.run(mend).await, 1);
            expected -= 1;
            nodes.other_goes_on(expected).await;
            admin.run("DROP TABLE older").await;
            admin.run("DROP TABLE newest").await;
            expected = left(&mut nodes.here).await;
            assert!(expected > 5, "{turn}: the budget is too small");
        }
    }
    nodes.verified();
}

/// With the heads' checks off it is believed: `a_head_of_another_realm_epoch_or_history_is_refused` in
/// `daemon/src/ledger/faults/attacks/start.rs`.
#[tokio::test]
async fn a_batch_of_another_realm_or_another_history_is_taken_by_no_node() {
    // All tokens of the tests have copies of the same keys: what is sealed and signed in one realm opens in another.
    let mut realm = TestApp::prepared(Setup::default().on_postgres(), SoftToken::fresh());
    let file = realm.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let named = text.replace("name = \"test.example\"", "name = \"other.example\"");
    assert_ne!(named, text);
    std::fs::write(file, named).unwrap();
    realm.found().await;
    let mut stranger = realm.device("notes");
    stranger.realm = "other.example".into();
    stranger.enrol().await;

    let mut nodes = Nodes::new().await;
    let before = left(&mut nodes.here).await;
    // The same realm's, of a node that has the same keys and a token and a database of its own.
    let (double, copy) = nodes.double().await;
    let mut elsewhere = at(&nodes.here, &double);
    for spent in 1..=3 {
        assert_eq!(left(&mut elsewhere).await, before - spent);
    }
    let mut expected = before - 1;
    assert_eq!(left(&mut nodes.here).await, expected);
    for (theirs, of) in [
        (server(&realm), "another realm"),
        (&copy, "another history"),
    ] {
        let honest = server(&nodes.one).rows(DATABASE);
        let theirs = theirs.rows(DATABASE);
        server(&nodes.one).put_rows(DATABASE, &theirs);
        tokio::time::sleep(LATER).await;
        nodes.other_answers_nobody().await;
        refused(sign_in(&mut nodes.here, PIN).await);
        refused(read(&mut nodes.here, &nodes.session).await);
        // Control: the realm's own rows, put back by the same hand.
        server(&nodes.one).put_rows(DATABASE, &honest);
        expected -= 1;
        goes_on(&mut nodes.one, &mut nodes.here, expected).await;
        expected = left(&mut nodes.here).await - 1;
        nodes.other_goes_on(expected).await;
        expected = left(&mut nodes.there).await;
        assert!(expected > 5, "{of}: the budget is too small");
    }
    // Control: where it belongs, each of them is served.
    let told = stranger.call("GET", "/v1/account", None).await;
    told.expect(200);
    assert_eq!(left(&mut elsewhere).await, before - 4);
    nodes.verified();
}
