//! Logins by OPAQUE, and an administrator who puts the envelope from before back: an end is good once, and a
//! charge stays.

use custodyd_tests::device::b64;
use custodyd_tests::{Device, Setup, TestApp};

use crate::{Row, Version, uncached_with};

const TAMPERED: &str = "500 record-tampered";

async fn app() -> TestApp {
    uncached_with(Setup::notes("[[pin.rounds]]\nattempts = 3\n")).await
}

async fn owner(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.register_pin("830517").await;
    device
}

async fn version(app: &TestApp) -> Version {
    let mut admin = app.admin().await;
    let row = Row::from(admin.accounts().await.pop().unwrap());
    Version::of(&mut admin, &row).await
}

#[tokio::test]
async fn a_finished_login_does_not_come_back_with_its_old_envelope() {
    let app = app().await;
    let mut device = owner(&app).await;
    let tried = device.begin_opaque("830517").await;
    let (login, ke3) = (tried.started["login"].clone(), tried.ended.unwrap().ke3);
    // Here the charge is in flight, and its end would clear it.
    let pending = version(&app).await;
    device.finish_opaque(&login, &ke3, &[]).await.expect(201);
    let newest = version(&app).await;
    let mut admin = app.admin().await;
    pending.row.restore(&mut admin).await;
    let again = device.finish_opaque(&login, &ke3, &[]).await;
    again.refused(TAMPERED);
    pending.put_back(&mut admin).await;
    let again = device.finish_opaque(&login, &ke3, &[]).await;
    again.refused(TAMPERED);
    // Control: the newest version is served; there the login is used up, and another one is not.
    newest.put_back(&mut admin).await;
    let again = device.finish_opaque(&login, &ke3, &[]).await;
    again.refused("401 ceremony-consumed");
    let next = device.sign_in_by_opaque("830517", &[]).await;
    next.expect("the PIN is right").expect(201);
}

#[tokio::test]
async fn one_end_refunds_once_whatever_is_guessed_after_it() {
    let app = app().await;
    let mut device = owner(&app).await;
    let tried = device.begin_opaque("830517").await;
    let (login, ke3) = (tried.started["login"].clone(), tried.ended.unwrap().ke3);
    device.finish_opaque(&login, &ke3, &[]).await.expect(201);
    for left in [2, 1, 0] {
        let tried = device.begin_opaque("830518").await;
        assert_eq!(tried.started["attempts_left"], left);
        let replayed = device.finish_opaque(&login, &ke3, &[]).await;
        replayed.refused("401 ceremony-consumed");
    }
    let exhausted = device.try_opaque_start("830517").await;
    exhausted.refused("403 pin-exhausted");
}

#[tokio::test]
async fn a_charge_does_not_come_back_with_the_envelope_from_before_it() {
    let app = app().await;
    let mut device = owner(&app).await;
    let fresh = version(&app).await;
    for _ in 0..3 {
        assert!(device.begin_opaque("830518").await.ended.is_none());
    }
    let newest = version(&app).await;
    let mut admin = app.admin().await;
    fresh.put_back(&mut admin).await;
    let won = device.try_opaque_start("830517").await;
    won.refused(TAMPERED);
    // Control: the newest version is served, and nothing was won.
    newest.put_back(&mut admin).await;
    let exhausted = device.try_opaque_start("830517").await;
    exhausted.refused("403 pin-exhausted");
}

/// A record is bound to its account: another's, put in its place, opens nothing.
#[tokio::test]
async fn the_attackers_own_record_signs_nobody_else_in() {
    let app = app().await;
    let mut thief = app.device("notes");
    thief.enrol().await;
    thief.register_pin("294061").await;
    let thiefs = version(&app).await;
    let mut victim = owner(&app).await;
    let victims = version(&app).await;
    let mut admin = app.admin().await;
    let sealed = &thiefs.row.sealed;
    victims.row.set_sealed(&mut admin, sealed).await;
    victims
        .row
        .vouch_for(&mut admin, victims.row.generation, sealed)
        .await;
    let swapped = victim.try_opaque_start("294061").await;
    swapped.refused(TAMPERED);
    // Control: what was there is served again.
    victims.put_back(&mut admin).await;
    let tried = victim.begin_opaque("830517").await;
    let end = tried.ended.unwrap();
    let wrong = b64(&[7; 64]);
    let login = &tried.started["login"];
    assert_ne!(end.ke3, wrong);
    victim.finish_opaque(login, &end.ke3, &[]).await.expect(201);
}
