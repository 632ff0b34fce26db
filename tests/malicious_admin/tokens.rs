//! A failover token behind: one of two tokens was given up, and remembers an older state in good faith. With a
//! database of that moment, and the other token away, an administrator would have it serve.

use std::fs;

use custodyd_tests::app::said;
use custodyd_tests::pair::{Pair, Which};
use custodyd_tests::{Setup, TestApp};

const PIN: &str = "830517";
const WRONG: &str = "830518";

/// The database as it is, while nothing is written.
fn database(app: &TestApp) -> [Vec<u8>; 2] {
    ["custodyd.sqlite", "custodyd.sqlite-wal"]
        .map(|file| fs::read(app.path(file)).unwrap_or_default())
}

fn put_back(app: &TestApp, [file, log]: &[Vec<u8>; 2]) {
    let _ = fs::remove_file(app.path("custodyd.sqlite-shm"));
    fs::write(app.path("custodyd.sqlite"), file).unwrap();
    fs::write(app.path("custodyd.sqlite-wal"), log).unwrap();
}

fn refused(app: &TestApp, what: &str) {
    let output = app.command("serve").output().unwrap();
    let text = said(&output);
    assert!(!output.status.success() && text.contains(what), "{text}");
}

#[tokio::test]
async fn a_failover_token_behind_brings_no_guess_back() {
    let setup = Setup {
        cache_mib: 0,
        ..Setup::notes("[[pin.rounds]]\nattempts = 2\n").in_a_file()
    };
    let (pair, mut app) = Pair::founded(setup).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    // Both tokens remember exactly this.
    app.kill();
    let old = database(&app);
    pair.copy_to("then");
    app.launch().await;
    pair.take_away(Which::Spare);
    for _ in 0..2 {
        device.try_pin(WRONG, &[]).await.refused("401 pin-wrong");
    }
    device.try_pin(PIN, &[]).await.refused("403 pin-exhausted");
    app.kill();
    let newest = database(&app);

    // The spare as it was then, the database as it was then, and nobody who knows better.
    pair.bring_back(Which::Spare);
    pair.put_back(Which::Spare, "then");
    put_back(&app, &old);
    refused(&app, "it was rolled back");
    pair.take_away(Which::Primary);
    refused(&app, "is one of the realm's, and is not there");
    pair.configure(&app, Some(Which::Spare));
    refused(&app, "the realm has 2 tokens");
    // With the newest database it is none of the realm's tokens at all.
    put_back(&app, &newest);
    refused(&app, "none of the realm's");

    // Control: the token that knows serves the newest database, and nothing was won.
    pair.configure(&app, None);
    pair.bring_back(Which::Primary);
    app.launch().await;
    device.try_pin(PIN, &[]).await.refused("403 pin-exhausted");
    app.kill();

    // Control of the attack: where an operator says that the one that knows is lost, it succeeds. So that this is
    // a person's word and never a daemon's guess.
    put_back(&app, &old);
    pair.take_away(Which::Primary);
    let serial = pair.serial(Which::Primary);
    let word = app
        .command(&format!("token expel --yes {serial}"))
        .output()
        .unwrap();
    assert!(word.status.success(), "{}", said(&word));
    app.launch().await;
    device.try_pin(PIN, &[]).await.expect(201);
    assert!(app.stop());
}
