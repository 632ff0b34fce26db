//! One of two tokens dies under load: how long nobody was answered.
//!
//! Measured a few times with a daemon of its own each, since a token dies once. The tokens are two slots of SoftHSM2;
//! that one dies is its directory moved away, which the module tells at once. One that hangs costs
//! `token.failover_after` in any case.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use custodyd_tests::pair::{Pair, Which};
use custodyd_tests::{Device, Setup, TestApp};
use tokio::runtime::Runtime;

use crate::report::Figure;

/// Names this part alone.
pub(crate) const FAILOVER: &str = "failover";
const TURNS: usize = 3;
const CLIENTS: usize = 8;
const PIN: &str = "830517";
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(4);

pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    let mut gaps: Vec<f64> = (0..TURNS)
        .map(|_| runtime.block_on(gap()).as_secs_f64() * 1e3)
        .collect();
    gaps.sort_by(f64::total_cmp);
    vec![Figure::new(
        "failover_gap_ms",
        gaps[TURNS / 2],
        "ms",
        "between the last answer before and the first after one of two tokens died; failover_after is 1 s",
    )]
}

async fn gap() -> Duration {
    let (pair, mut app) = Pair::founded(Setup::default()).await;
    let answers = Arc::<Mutex<Vec<Instant>>>::default();
    let mut clients = Vec::new();
    let until = Instant::now() + BEFORE + AFTER + Duration::from_secs(4);
    for _ in 0..CLIENTS {
        let device = enrolled(&app).await;
        clients.push(tokio::spawn(signs_in(device, until, Arc::clone(&answers))));
    }
    tokio::time::sleep(BEFORE).await;
    pair.take_away(Which::Primary);
    let died = Instant::now();
    for client in clients {
        client.await.unwrap();
    }
    assert!(app.stop(), "{}", app.log());
    let mut answers = answers.lock().unwrap().clone();
    answers.sort_unstable();
    // What was anchored already is answered after the death; the gap is the longest one from then on.
    let around = answers.windows(2).filter(|two| two[1] >= died);
    around.map(|two| two[1] - two[0]).max().unwrap()
}

async fn enrolled(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    device
}

async fn signs_in(mut device: Device, until: Instant, answers: Arc<Mutex<Vec<Instant>>>) {
    while Instant::now() < until {
        device.try_pin(PIN, &[]).await.expect(201);
        answers.lock().unwrap().push(Instant::now());
    }
}
