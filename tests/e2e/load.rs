//! More than can be done: who waits, who is refused, and that nobody loses anything by it. docs/LOAD.md.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::app::LIMITS;
use custodyd_tests::{Answer, Device, Setup, TestApp};

const PIN: &str = "830517";
const WRONG: &str = "111111";
const LEFT: u64 = 100;

/// Budgets that outlast a flood, and so many requests under way.
fn setup(requests_at_once: usize, more: &str) -> Setup {
    let rounds = format!("[[pin.rounds]]\nattempts = {LEFT}\n");
    Setup {
        limits: LIMITS.replace("at_once = 1024", &format!("at_once = {requests_at_once}")),
        config: more.into(),
        ..Setup::notes(&rounds)
    }
}

async fn with_pin(app: &TestApp, name: &str) -> Device {
    let mut device = app.device(name);
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    device.token = None;
    device
}

/// Answers by status and code, and those that did not say when to come back.
#[derive(Default, Debug)]
struct Seen {
    answers: BTreeMap<String, u64>,
    wordless: u64,
}

impl Seen {
    fn note(&mut self, answer: &Answer) {
        let refused = [429, 503].contains(&answer.status);
        let again: u64 = answer.header("retry-after").parse().unwrap_or(0);
        self.wordless += u64::from(refused && again == 0);
        *self.answers.entry(answer.refusal()).or_default() += 1;
    }

    fn of(&self, refusal: &str) -> u64 {
        self.answers.get(refusal).copied().unwrap_or(0)
    }

    fn join(&mut self, other: Self) {
        for (refusal, count) in other.answers {
            *self.answers.entry(refusal).or_default() += count;
        }
        self.wordless += other.wordless;
    }
}

/// So many at once by one device, of which every third guesses wrong; what came of them.
async fn flood(device: &Device, at_once: usize, rounds: usize) -> Seen {
    let mut running = tokio::task::JoinSet::new();
    for worker in 0..at_once {
        let mut own = device.clone();
        running.spawn(async move {
            let mut seen = Seen::default();
            for round in 0..rounds {
                let pin = if (worker + round) % 3 == 0 {
                    WRONG
                } else {
                    PIN
                };
                let answer = match pin {
                    WRONG => own.try_pin(WRONG, &[]).await,
                    _ => own.try_device(&[]).await,
                };
                own.token = None;
                seen.note(&answer);
            }
            seen
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        all.join(seen.unwrap());
    }
    all
}

/// Kilobytes of a line of /proc/PID/status.
fn kilobytes(app: &TestApp, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", app.id())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let number = found.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// A counter of the daemon's, with its labels; 0 where it was never counted.
async fn counted(app: &TestApp, name: &str) -> u64 {
    let (_, metrics) = app.operator("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// Several times more than there are places for: each answer is the one that was asked for, or a refusal that says
/// when to come back; memory stays where it is; and what the budgets say is what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_served_or_refused_and_costs_nobody_a_guess() {
    let app = TestApp::with(setup(16, "[pin]\nthreads = 1\nqueue = 1\n")).await;
    let mut owners = Vec::new();
    for _ in 0..4 {
        owners.push(with_pin(&app, "notes").await);
    }
    let before = kilobytes(&app, "VmRSS");
    let floods = owners.iter().map(|owner| {
        let owner = owner.clone();
        tokio::spawn(async move { flood(&owner, 24, 4).await })
    });
    let mut seen = Vec::new();
    for flooding in floods.collect::<Vec<_>>() {
        seen.push(flooding.await.unwrap());
    }
    let grown = kilobytes(&app, "VmHWM").saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    let mut all = Seen::default();
    for (mut owner, seen) in owners.into_iter().zip(seen) {
        // Each guess that was answered has cost one, and no other has.
        let told = seen.of("401 pin-wrong");
        let next = owner.try_pin(WRONG, &[]).await;
        next.refused("401 pin-wrong");
        assert_eq!(next.body["attempts_left"], LEFT - told - 1, "{seen:?}");
        owner.try_pin(PIN, &[]).await.expect(201);
        all.join(seen);
    }
    let answered = all.of("201 -") + all.of("401 pin-wrong");
    let refused = all.of("503 busy") + all.of("429 rate-limited");
    assert_eq!(answered + refused, 4 * 24 * 4, "{all:?}");
    assert_eq!(all.wordless, 0, "{all:?}");
    assert!(answered >= 10 && refused >= 10, "{all:?}");
    let at_the_door = counted(&app, "custodyd_busy_total{at=\"door\"} ").await;
    assert!(at_the_door > 0, "{all:?}");
    // The control: with room for all of them nobody is refused at the door, and the same holds.
    let roomy = TestApp::with(setup(1024, "")).await;
    let mut owner = with_pin(&roomy, "notes").await;
    let seen = flood(&owner, 24, 2).await;
    let next = owner.try_pin(WRONG, &[]).await;
    assert_eq!(
        next.body["attempts_left"],
        LEFT - seen.of("401 pin-wrong") - 1
    );
    assert_eq!(
        counted(&roomy, "custodyd_busy_total{at=\"door\"} ").await,
        0
    );
}

/// Sign-ins one after another; how many were served, and how many a second.
async fn sign_ins(device: &mut Device, times: usize) -> (usize, f64) {
    let begun = Instant::now();
    let mut served = 0;
    for _ in 0..times {
        let answer = device.try_device(&[]).await;
        assert!([201, 503].contains(&answer.status), "{}", answer.body);
        served += usize::from(answer.status == 201);
    }
    (served, times as f64 / begun.elapsed().as_secs_f64())
}

/// One app floods without a pause: each request of another is served, and in its turn. The control is one
/// more of the app that floods: it is refused with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_app_is_served_while_one_floods() {
    const TIMES: usize = 40;
    let app = TestApp::with(setup(16, "")).await;
    let flooder = with_pin(&app, "notes").await;
    let mut fellow = with_pin(&app, "notes").await;
    let mut other = with_pin(&app, "wallet").await;
    let (served, alone) = sign_ins(&mut other, TIMES).await;
    assert_eq!(served, TIMES);
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut all = Seen::default();
            while !stop.load(Ordering::Relaxed) {
                all.join(flood(&flooder, 32, 2).await);
            }
            all
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (served, flooded) = sign_ins(&mut other, TIMES).await;
    let (fellows, _) = sign_ins(&mut fellow, TIMES).await;
    stop.store(true, Ordering::Relaxed);
    let seen = flooding.await.unwrap();
    eprintln!("the other app: {alone:.0} a second alone, {flooded:.0} beside the flood {seen:?}");
    assert!(seen.of("503 busy") > 0, "no flood: {seen:?}");
    assert_eq!(served, TIMES, "the other app was refused: {seen:?}");
    assert!(fellows < TIMES, "the control: {fellows} of {TIMES}");
    // A share of the machine that the flood's clients take a part of, too.
    assert!(
        flooded * 20.0 > alone,
        "{flooded:.1} of {alone:.1} a second"
    );
}

/// A client that gives up, or a network that goes away, does not cut a guess off behind its charge: the right PIN
/// costs nothing, whenever it was left.
#[tokio::test]
async fn who_gives_up_waiting_loses_no_guess() {
    let policy = format!("[pin]\nmemory_kib = 65536\n[[pin.rounds]]\nattempts = {LEFT}\n");
    let app = TestApp::with(Setup::notes(&policy)).await;
    let mut owner = with_pin(&app, "notes").await;
    let mut left = LEFT;
    for milliseconds in [5, 20, 40, 80, 120, 200, 400] {
        let patience = Duration::from_millis(milliseconds);
        let gave_up = tokio::time::timeout(patience, owner.try_pin(PIN, &[])).await;
        drop(gave_up);
        // What it left behind is done: an evaluation takes no second, and no place is taken.
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let (_, metrics) = app.operator("/metrics").await;
            if metrics.contains("custodyd_requests_under_way 0") {
                break;
            }
        }
        let next = owner.try_pin(WRONG, &[]).await;
        next.refused("401 pin-wrong");
        let now = next.body["attempts_left"].as_u64().unwrap();
        // The right guess was recorded, which clears what was wrong before, or never charged.
        assert!(
            now == LEFT - 1 || now == left - 1,
            "{now} after {milliseconds} ms"
        );
        left = now;
    }
    assert!(left >= LEFT - 7);
    // And how they ended is known.
    let ended = "carried to its end after its client had gone";
    assert!(app.log().contains(ended), "{}", app.log());
}

/// An account has a rate of its own, over all of its devices; what strangers ask in its name counts for nothing.
#[tokio::test]
async fn an_account_has_a_rate_that_no_stranger_uses_up() {
    let limits = LIMITS.replace("account_per_second = 1000000", "account_per_second = 1");
    let limits = limits.replace("account_burst = 1000000", "account_burst = 20");
    let app = TestApp::with(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut owner = with_pin(&app, "notes").await;
    let mut stranger = app.device("notes");
    stranger.account.clone_from(&owner.account);
    for _ in 0..60 {
        let answer = stranger.try_device(&[]).await;
        answer.refused("401 authentication-failed");
    }
    let mut served = 0;
    let refused = loop {
        let answer = owner.try_device(&[]).await;
        if answer.status != 201 {
            break answer;
        }
        served += 1;
        assert!(served < 100, "no rate");
    };
    assert!(served >= 10, "{served}");
    refused.refused("429 rate-limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(counted(&app, "custodyd_rate_limited_total{by=\"account\"} ").await > 0);
    // Nobody else's account is concerned.
    with_pin(&app, "notes").await;
}

/// How often each thread of a process has slept and was woken, and the ticks of all on a processor.
fn work(process: u32) -> (BTreeMap<OsString, u64>, u64) {
    let mut switches = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .flatten()
    {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let of = |line: &str| {
            let found = status.lines().find_map(|text| text.strip_prefix(line));
            found.map_or(0, |count| count.trim().parse::<u64>().unwrap())
        };
        switches.insert(thread.file_name(), of("voluntary_ctxt_switches:"));
    }
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    (switches, ticks(11) + ticks(12))
}

/// Else a request would be served as one app's and counted as nobody's.
#[tokio::test]
async fn a_name_with_an_escape_is_no_app() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app, "notes").await;
    let body = Some(serde_json::json!({}));
    let plain = device.call("POST", "/v1/apps/notes/sessions/device", body.clone());
    assert_ne!(plain.await.status, 404);
    let escaped = device.call("POST", "/v1/apps/n%6ftes/sessions/device", body);
    escaped.await.refused("400 malformed-request");
}

/// A daemon that nobody asks anything does next to nothing. `CUSTODYD_IDLE=30` measures longer.
#[tokio::test]
async fn an_idle_daemon_rests() {
    let seconds = std::env::var("CUSTODYD_IDLE").map_or(8, |text| text.parse().unwrap());
    let app = TestApp::start().await;
    with_pin(&app, "notes").await;
    // The connections of its clients have been closed, the first passes are over.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = work(app.id());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = work(app.id());
    // A thread that has ended meanwhile was woken for that.
    let woken = |(thread, now): (&OsString, &u64)| now - before.0.get(thread).unwrap_or(&0);
    let wakes: u64 = after.0.iter().map(woken).sum();
    let ticks = after.1 - before.1;
    eprintln!(
        "idle for {seconds} s: woken {wakes} times, {} ms on a processor",
        ticks * 10
    );
    assert!(wakes < seconds * 10, "{wakes} in {seconds} s");
    assert!(ticks <= 2 + seconds / 4, "{ticks} ticks in {seconds} s");
}
