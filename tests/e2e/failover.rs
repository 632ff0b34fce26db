//! One of two tokens is lost: under load, at a start, for good. And what must not take its place: a token with
//! other keys, with an older memory, or one that the realm has given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::app::said;
use custodyd_tests::device::b64;
use custodyd_tests::pair::{Pair, Which};
use custodyd_tests::{Device, Setup, TestApp};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const PIN: &str = "830517";
const SECRET: &[u8] = b"the device secret";
const CLIENTS: usize = 4;

fn run(app: &TestApp, arguments: &str) -> (bool, String) {
    let output = app.command(arguments).output().unwrap();
    (output.status.success(), said(&output))
}

#[track_caller]
pub(crate) fn done(app: &TestApp, arguments: &str) -> String {
    let (good, text) = run(app, arguments);
    assert!(good, "{arguments}: {text}");
    text
}

#[track_caller]
pub(crate) fn refused(app: &TestApp, arguments: &str, what: &str) {
    let (good, text) = run(app, arguments);
    assert!(!good && text.contains(what), "{arguments}: {text}");
}

pub(crate) async fn owner(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    device.back_up("device-secret", SECRET).await.expect(200);
    device
}

pub(crate) async fn recovers(device: &mut Device) {
    let back = device.try_pin(PIN, &["device-secret"]).await.expect(201);
    assert_eq!(
        back.body["secrets"]["device-secret"]["server_slot"],
        b64(SECRET)
    );
}

/// What a client saw that never stops: how many answers, which were none that it wanted, and the longest wait.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    pub(crate) others: Vec<String>,
    pub(crate) longest: Duration,
}

/// Signs in and reads the secret, each a commit of its own, until told to stop.
pub(crate) fn load(device: Device, stop: &Arc<AtomicBool>) -> JoinHandle<Seen> {
    counted(device, stop, Arc::default())
}

fn counted(
    mut device: Device,
    stop: &Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
) -> JoinHandle<Seen> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut seen = Seen::default();
        while !stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let answer = device.try_pin(PIN, &["device-secret"]).await;
            seen.longest = seen.longest.max(begun.elapsed());
            match answer.status {
                201 => {
                    seen.answers += 1;
                    answers.fetch_add(1, Ordering::SeqCst);
                }
                _ => seen.others.push(answer.refusal()),
            }
        }
        seen
    })
}

/// What no client may wait for, even on a machine that is busy with other tests: a request has 30 s, and a token 5.
const LONGEST: Duration = Duration::from_secs(20);

/// Clients that never stop, and how far each has come.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(Arc<AtomicU64>, JoinHandle<Seen>)>,
}

impl Load {
    pub(crate) async fn on(app: &TestApp) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let answers = Arc::<AtomicU64>::default();
            let client = counted(owner(app).await, &stop, Arc::clone(&answers));
            clients.push((answers, client));
        }
        Self { stop, clients }
    }

    /// Returns once each client has so many answers more, however long that takes here.
    pub(crate) async fn each_has(&self, more: u64) {
        let deadline = Instant::now() + Duration::from_secs(120);
        for (answers, client) in &self.clients {
            let wanted = answers.load(Ordering::SeqCst) + more;
            while answers.load(Ordering::SeqCst) < wanted {
                assert!(Instant::now() < deadline && !client.is_finished());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Nobody was refused meanwhile, not even who was under way: they waited.
    pub(crate) async fn nobody_was_refused(self, app: &TestApp) {
        self.stop.store(true, Ordering::SeqCst);
        for (_, client) in self.clients {
            let seen = client.await.unwrap();
            assert!(seen.others.is_empty(), "{seen:?}\n{}", app.log());
            assert!(seen.longest < LONGEST, "{seen:?}");
        }
    }
}

pub(crate) async fn tokens(app: &TestApp) -> Vec<(String, String)> {
    let (status, body) = app.operator("/readyz").await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let text = |token: &Value, name: &str| token[name].as_str().unwrap().to_owned();
    let tokens = body["tokens"].as_array().unwrap().iter();
    tokens
        .map(|token| (text(token, "name"), text(token, "state")))
        .collect()
}

async fn is_unheard(app: &TestApp, name: &str) -> bool {
    let body: Value = serde_json::from_str(&app.operator("/readyz").await.1).unwrap();
    let mut tokens = body["tokens"].as_array().unwrap().iter();
    tokens.any(|token| token["name"] == name && token["unheard"] == true)
}

/// Until the daemon says that this token stands so.
pub(crate) async fn until(app: &TestApp, name: &str, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let wanted = (name.to_owned(), state.to_owned());
    while !tokens(app).await.contains(&wanted) {
        assert!(Instant::now() < deadline, "{}", app.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_dies_under_load_costs_nobody_an_answer() {
    let (pair, mut app) = Pair::founded(Setup::default()).await;
    assert_eq!(
        tokens(&app).await,
        [("primary", "well"), ("spare", "well")]
            .map(|(name, state)| (name.to_owned(), state.to_owned()))
    );
    let load = Load::on(&app).await;
    let mut idle = owner(&app).await;
    load.each_has(2).await;
    pair.take_away(Which::Primary);
    until(&app, "primary", "outside").await;
    load.each_has(1).await;
    load.nobody_was_refused(&app).await;
    recovers(&mut idle).await;
    // A scrape of before answers for some seconds.
    let mut metrics = String::new();
    for _ in 0..100 {
        metrics = app.operator("/metrics").await.1;
        if metrics.contains("custodyd_token_members{state=\"outside\"} 1") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for line in [
        "custodyd_token_members{state=\"outside\"} 1",
        "custodyd_token_members{state=\"well\"} 1",
        "custodyd_tokens_expelled_total 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let doctor = run(&app, "doctor").1;
    assert!(doctor.contains("given up, or never taken in"), "{doctor}");
    assert!(app.stop());
    let tail = done(&app, "ledger tail -n 100000");
    let change = format!(
        "tokens from {} and {} to {}",
        pair.serial(Which::Primary),
        pair.serial(Which::Spare),
        pair.serial(Which::Spare)
    );
    assert!(tail.contains(&change), "{tail}");
    // Nobody asks it, although the configuration names it.
    let shown = done(&app, "ledger anchor");
    assert!(shown.contains("a daemon starts"), "{shown}");
    assert!(done(&app, "init").contains("nothing was changed"));
    // The next start does without it, and says that nobody knows what it knows; so does the one after it is back: its memory is
    // older.
    app.launch().await;
    recovers(&mut idle).await;
    assert!(is_unheard(&app, "primary").await);
    assert!(app.log().contains("does not name says nothing"));
    let doctor = run(&app, "doctor").1;
    assert!(doctor.contains("has not answered since"), "{doctor}");
    assert!(app.stop());
    pair.bring_back(Which::Primary);
    app.launch().await;
    recovers(&mut idle).await;
    assert!(!is_unheard(&app, "primary").await);
    assert!(
        tokens(&app)
            .await
            .contains(&("primary".into(), "outside".into()))
    );
    // Alone it is nobody.
    assert!(app.stop());
    pair.configure(&app, Some(Which::Primary));
    refused(&app, "serve", "none of the realm's");
    pair.configure(&app, None);

    // An operator takes it in again; then the other one may go.
    app.launch().await;
    let readmitted = done(&app, "token readmit primary");
    assert!(
        readmitted.contains("anchored in from now on"),
        "{readmitted}"
    );
    refused(&app, "token readmit primary", "already");
    recovers(&mut idle).await;
    pair.take_away(Which::Spare);
    until(&app, "spare", "outside").await;
    recovers(&mut idle).await;
    assert!(app.stop());
    done(&app, "ledger verify --open");
}

#[tokio::test]
async fn a_start_wants_every_token_that_the_head_names() {
    let (pair, mut app) = Pair::founded(Setup::default()).await;
    let mut device = owner(&app).await;
    assert!(app.stop());
    pair.copy_to("older");
    app.launch().await;
    recovers(&mut device).await;
    recovers(&mut device).await;
    assert!(app.stop());

    // Away, or left out of the configuration.
    pair.take_away(Which::Spare);
    let serial = pair.serial(Which::Spare);
    refused(&app, "serve", "is not there");
    pair.configure(&app, Some(Which::Primary));
    refused(&app, "serve", "the realm has 2 tokens");
    pair.configure(&app, None);
    pair.bring_back(Which::Spare);

    // Older than the other one.
    pair.copy_to("newest");
    pair.put_back(Which::Spare, "older");
    refused(&app, "serve", "was put back to an older state");
    pair.put_back(Which::Spare, "newest");

    // The control: as it was, it serves.
    app.launch().await;
    recovers(&mut device).await;
    assert!(app.stop());

    // A person says that it is lost.
    pair.take_away(Which::Spare);
    let asked = done(&app, &format!("token expel {serial}"));
    assert!(asked.contains("nothing was changed"), "{asked}");
    refused(&app, "serve", "is not there");
    refused(&app, "token expel --yes 0123", "none of the realm's tokens");
    // By its name, since no other token is away.
    done(&app, "token expel --yes spare");
    app.launch().await;
    recovers(&mut device).await;
    assert!(app.stop());
    pair.bring_back(Which::Spare);
    pair.configure(&app, Some(Which::Spare));
    refused(&app, "serve", "none of the realm's");
}

#[tokio::test]
async fn a_token_with_other_keys_is_refused() {
    let (pair, mut app) = Pair::prepared(Setup::default());
    // Two tokens that have made their keys themselves.
    let path = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("escrow = \"escrow.json\"\n", "");
    std::fs::write(&path, &text).unwrap();
    refused(&app, "init", "lacks custodyd-");
    let module = custodyd_tests::token::module();
    let pin = app.token.user_pin_file();
    for label in [custodyd_tests::token::LABEL, custodyd_tests::pair::SPARE] {
        done(
            &app,
            &format!(
                "token provision --module {module} --label {label} --pin-file {}",
                pin.display()
            ),
        );
    }
    refused(&app, "init", "has another");
    // The realm of one of them, to which the other is added.
    pair.configure(&app, Some(Which::Primary));
    let alone = std::fs::read_to_string(&path).unwrap();
    let alone = alone.replace("escrow = \"escrow.json\"\n", "");
    std::fs::write(&path, alone).unwrap();
    app.found().await;
    let mut device = owner(&app).await;
    assert!(app.stop());
    std::fs::write(&path, &text).unwrap();
    app.launch().await;
    recovers(&mut device).await;
    refused(&app, "token readmit spare", "has another");
    assert!(
        tokens(&app)
            .await
            .contains(&("spare".into(), "outside".into()))
    );
    refused(&app, "key rotate wrap", "several tokens");
    refused(&app, "token expel --yes primary", "no other token");
    recovers(&mut device).await;
}

#[tokio::test]
async fn one_of_two_tokens_is_lost_for_good_and_another_takes_its_place() {
    let (mut pair, mut app) = Pair::founded(Setup::default()).await;
    let mut device = owner(&app).await;
    pair.take_away(Which::Spare);
    // Nobody asks for anything: the daemon finds out all the same.
    until(&app, "spare", "outside").await;
    recovers(&mut device).await;
    assert!(app.stop());
    pair.another_spare(&app);
    app.launch().await;
    refused(&app, "token readmit spare", "custodyd-");
    assert!(app.stop());
    pair.restore_keys(&app, "spare");
    app.launch().await;
    done(&app, "token readmit spare");
    let members = done(&app, "token members");
    assert_eq!(members.matches("in use").count(), 2, "{members}");
    assert!(app.stop());
    app.launch().await;
    // It is worth what the lost one was.
    pair.take_away(Which::Primary);
    until(&app, "primary", "outside").await;
    recovers(&mut device).await;
    device
        .put(
            "device-secret",
            "If-Match",
            "*",
            json!({"server_slot": b64(b"newer")}),
        )
        .await;
    assert!(app.stop());
    done(&app, "ledger verify --open");
    let check = run(&app, "token check").1;
    assert!(check.contains("2 of ann, bob"), "{check}");
}
