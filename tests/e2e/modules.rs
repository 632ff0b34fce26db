//! A daemon whose PKCS#11 module hangs, and one whose token was away for a while: what the deadline and recovery promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::shim::Module;
use custodyd_tests::token::{LABEL, SoftToken};
use custodyd_tests::{Answer, Device, Setup, TestApp};

/// For a call in the token: `PoolOptions::default()`.
const DEADLINE: Duration = Duration::from_secs(5);
/// How soon readiness is gone after the token, and back after it.
pub(crate) const DROPS: Duration = Duration::from_secs(2);
pub(crate) const HEALS: Duration = Duration::from_secs(5);
/// What a machine that runs other tests beside may add to any of these.
pub(crate) const BUSY: Duration = Duration::from_secs(1);

/// Waits until readiness is this, no longer than an operator is promised.
pub(crate) async fn ready(app: &TestApp, status: u16, promised: Duration) {
    let began = Instant::now();
    while app.operator("/readyz").await.0 != status {
        assert!(
            began.elapsed() < promised + BUSY,
            "readiness does not become {status} within {promised:?}: {}",
            app.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn behind(module: &Module, token: SoftToken) -> TestApp {
    let section = format!(
        "module = \"{}\"\nlabel = \"{LABEL}\"\npin_file = \"{}\"\n",
        module.path().display(),
        token.user_pin_file().display()
    );
    let setup = Setup {
        token: Some(section),
        ..Setup::default()
    };
    let mut app = TestApp::prepared(setup, token);
    app.environment = module.of_a_daemon().collect();
    let mut init = app.command("init");
    let init = init.envs(app.environment.iter().cloned()).output().unwrap();
    assert!(init.status.success(), "{init:?}");
    app.launch().await;
    app
}

async fn look(device: &mut Device) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = device.call("GET", "/v1/account", None).await;
    (answer, began.elapsed())
}

#[tokio::test]
async fn of_a_hung_module_the_deadline_holds_and_other_requests_go_on() {
    let token = SoftToken::fresh();
    let module = Module::new(token.dir());
    let mut app = behind(&module, token).await;
    let (mut unlucky, mut other) = (app.device("notes"), app.device("notes"));
    unlucky.enrol().await;
    other.enrol().await;
    module.hangs(1);
    let hung = tokio::spawn(async move { look(&mut unlucky).await });
    let began = Instant::now();
    while module.hanging() == 0 {
        assert!(began.elapsed() < DEADLINE, "nothing hangs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        let (answer, took) = look(&mut other).await;
        answer.expect(200);
        assert!(took < DROPS, "{took:?}");
    }
    let (answer, took) = hung.await.unwrap();
    answer.refused("503 token-unavailable");
    assert!(took < DEADLINE + BUSY, "{took:?}");
    assert_eq!(module.hanging(), 1);
    ready(&app, 200, HEALS).await;
    // Something fails besides: the token is opened anew, beside the call that hangs.
    module.fails(4);
    look(&mut other).await.0.refused("503 token-unavailable");
    ready(&app, 200, HEALS).await;
    for _ in 0..10 {
        look(&mut other).await.0.expect(200);
    }
    other.set_pin("830517").await.expect(200);
    assert_eq!(module.hanging(), 1);
    assert!(app.log().contains("a call hangs inside the module"));
    module.releases();
    for _ in 0..10 {
        look(&mut other).await.0.expect(200);
    }
    assert_eq!(module.finalized_beneath_a_call(), 0);
    assert!(app.stop());
    assert_eq!((module.hanging(), module.open_sessions()), (0, 0));
}

/// The module's own destructors would crash beneath the call that hangs (`end` in `module.c`, as SoftHSM2's do): a recovery, or a
/// call of somebody's. The control is a stop that leaves nothing inside.
#[tokio::test]
async fn a_stop_beneath_a_call_that_hangs_is_no_crash() {
    for hung in ["recovery", "call", "nothing"] {
        let token = SoftToken::fresh();
        let module = Module::new(token.dir());
        let mut app = behind(&module, token).await;
        let mut device = app.device("notes");
        device.enrol().await;
        match hung {
            "recovery" => {
                module.hangs_before_a_login(u32::MAX);
                module.fails(4);
                look(&mut device).await.0.refused("503 token-unavailable");
            }
            "call" => {
                module.hangs(1);
                look(&mut device).await.0.refused("503 token-unavailable");
            }
            _ => {}
        }
        let began = Instant::now();
        while hung != "nothing" && module.hanging() == 0 {
            assert!(began.elapsed() < DEADLINE, "nothing hangs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let began = Instant::now();
        assert!(app.stop(), "{hung}: {}", app.log());
        let took = began.elapsed();
        assert!(took < 2 * DEADLINE, "{took:?}");
        let said = app.log().contains("the process ends beneath it");
        assert_eq!(said, hung != "nothing", "{hung}: {}", app.log());
        assert_eq!(module.hanging() > 0, hung != "nothing", "{hung}");
    }
}

#[tokio::test]
async fn a_token_that_was_away_for_long_is_used_as_soon_as_one_that_was_not() {
    let app = TestApp::start().await;
    let (mut device, mut other) = (app.device("notes"), app.device("notes"));
    device.enrol().await;
    other.enrol().await;
    // Somebody who asks all the time has a right answer, or is told that there is none.
    let over = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&over);
    let asking = tokio::spawn(async move {
        let mut told = [0, 0];
        while !asks.load(Ordering::SeqCst) {
            let (answer, took) = look(&mut other).await;
            assert!(took < DEADLINE + BUSY, "{took:?}");
            let served = answer.status == 200;
            told[usize::from(served)] += 1;
            match served {
                true => drop(answer.expect(200)),
                false => answer.refused("503 token-unavailable"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        told
    });
    let tokens = app.token.tokens();
    let away = tokens.with_extension("away");
    std::fs::rename(&tokens, &away).unwrap();
    ready(&app, 503, DROPS).await;
    // Until the pauses between two attempts are as long as they get.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(app.operator("/readyz").await.0, 503);
    std::fs::rename(&away, &tokens).unwrap();
    let began = Instant::now();
    ready(&app, 200, HEALS - BUSY).await;
    eprintln!("ready after {:?}", began.elapsed());
    device.set_pin("830517").await.expect(200);
    over.store(true, Ordering::SeqCst);
    let told = asking.await.unwrap();
    assert!(told.iter().all(|times| *times > 0), "{told:?}");
}
