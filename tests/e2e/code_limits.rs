//! How long delivered codes live, how many there are at once, and what buys guesses at them.

use std::time::Duration;

use custodyd_tests::codes::Authenticator;
use custodyd_tests::device::now;
use custodyd_tests::{Device, MailServer};
use serde_json::{Value, json};

use crate::contacts::{add, claim, code_in, confirm, mails, with_mail, with_mail_and_clock};
use crate::delivered_codes::{ANN, SUFFICES, ask, by_alias, enter, new_phone, owner};

const BOB: &str = "bob@example.com";
const CAT: &str = "cat@example.com";
const DAN: &str = "dan@example.com";

fn by(address: &str) -> Value {
    json!({"alias": address})
}

/// The codes that were sent there, among notices.
fn codes_at(mail: &MailServer, address: &str) -> Vec<String> {
    let received = mail.received();
    let codes = received
        .iter()
        .filter(|m| m.to == address && m.subject.starts_with("Your code for"));
    codes.map(code_in).collect()
}

/// Asks for a code to that address and reads it there.
async fn fetch_at(device: &mut Device, mail: &MailServer, address: &str) -> String {
    let before = codes_at(mail, address).len();
    ask(device, by(address)).await.expect(202);
    let give_up = now() + 20;
    loop {
        if let Some(code) = codes_at(mail, address).get(before) {
            return code.clone();
        }
        assert!(now() < give_up, "no code came to {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A minute is the shortest life that a policy may give a code. It passes on the daemon's clock: devices, whose own is right,
/// are behind it by less than a proof may be old.
#[tokio::test]
async fn a_code_is_worth_nothing_once_it_has_expired() {
    let policy = format!(
        "{SUFFICES}[delivered_codes]\nexpiry = \"1m\"\ninterval = \"10s\"\n\
         [contacts]\nmax_per_account = 4\n"
    );
    let (app, mail, clock) = with_mail_and_clock(&policy).await;
    let mut owner = owner(&app, &mail).await;
    add(&mut owner, &mail, "contact", BOB).await;
    let session = owner.token.clone();
    let claimed = claim(&mut owner, "contact", CAT).await;
    let to_confirm = code_in(&mails(&mail, CAT, 1).await[0]);
    let mut phone = new_phone(&app);
    let of_stranger = fetch_at(&mut phone, &mail, ANN).await;
    let of_bound = fetch_at(&mut owner, &mail, BOB).await;
    clock.is_off_by(61);
    enter(&mut phone, by_alias(), &of_stranger, json!({}))
        .await
        .refused("401 authentication-failed");
    enter(&mut owner, by(BOB), &of_bound, json!({}))
        .await
        .refused("401 code-wrong");
    owner.token = session;
    confirm(&mut owner, "contact", &claimed, &to_confirm)
        .await
        .refused("401 code-wrong");
    // Control: fresh codes to the same addresses open and confirm.
    let again = claim(&mut owner, "contact", CAT).await;
    let code = code_in(&mails(&mail, CAT, 2).await[1]);
    confirm(&mut owner, "contact", &again, &code)
        .await
        .expect(204);
    let code = fetch_at(&mut phone, &mail, ANN).await;
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
    let code = fetch_at(&mut owner, &mail, BOB).await;
    enter(&mut owner, by(BOB), &code, json!({}))
        .await
        .expect(201);
}

/// Four contacts, each of which gets a code every ten seconds.
#[tokio::test]
async fn an_account_has_eight_codes_under_way_and_the_oldest_make_room() {
    let policy = format!(
        "{SUFFICES}[delivered_codes]\ninterval = \"10s\"\nper_day = 200\n\
         [contacts]\nmax_per_account = 4\n"
    );
    let (app, mail, clock) = with_mail_and_clock(&policy).await;
    let mut owner = owner(&app, &mail).await;
    for address in [BOB, CAT, DAN] {
        add(&mut owner, &mail, "contact", address).await;
    }
    let mut rounds = Vec::new();
    for round in 0..3 {
        clock.is_off_by(11 * round);
        let mut asked = Vec::new();
        for address in [ANN, BOB, CAT, DAN] {
            let mut phone = new_phone(&app);
            let code = fetch_at(&mut phone, &mail, address).await;
            asked.push((phone, address, code));
        }
        rounds.push(asked);
    }
    // The ninth to the twelfth took the places of the first four; all others open.
    for (round, asked) in rounds.iter_mut().enumerate() {
        for (phone, address, code) in asked {
            let answer = enter(phone, by(address), code, json!({})).await;
            let expected = if round == 0 { 401 } else { 201 };
            assert_eq!(answer.status, expected, "{round}, {address}");
        }
    }
}

/// Whoever asks while there is no new code is let in on the one that was sent: they have no
/// mail of their own, and their key opens nothing before they ask.
#[tokio::test]
async fn whoever_asks_too_soon_may_use_the_code_that_was_sent() {
    let (app, mail) = with_mail(SUFFICES).await;
    let _owner = owner(&app, &mail).await;
    let mut first = new_phone(&app);
    let code = fetch_at(&mut first, &mail, ANN).await;
    let mut second = new_phone(&app);
    enter(&mut second, by_alias(), &code, json!({}))
        .await
        .refused("401 authentication-failed");
    ask(&mut second, by_alias()).await.expect(202);
    let mut tries = 0;
    while enter(&mut second, by_alias(), &code, json!({}))
        .await
        .status
        != 201
    {
        tries += 1;
        assert!(tries < 100, "it was never attached");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let to_confirm_and_sign_in = codes_at(&mail, ANN).len();
    assert_eq!(to_confirm_and_sign_in, 2, "one code was sent");
    enter(&mut first, by_alias(), &code, json!({}))
        .await
        .refused("401 authentication-failed");
}

/// Two guesses at codes in all, and an authenticator app at hand.
const FEW_GUESSES: &str = "[[delivered_codes.rounds]]\nattempts = 2\n[totp]\nwindow = 2\n";

async fn spend_guesses(device: &mut Device, authenticator: &mut Authenticator, code: &str) {
    for _ in 0..2 {
        enter(device, by_alias(), "00000000", json!({}))
            .await
            .refused("401 code-wrong");
    }
    enter(device, by_alias(), code, json!({}))
        .await
        .refused("403 code-exhausted");
    device
        .try_totp(&authenticator.show(), &[])
        .await
        .expect(201);
}

/// The app is stronger than a code, but it may not change where codes go: else each of its steps
/// would buy a thief of the device more guesses at what a policy lets codes alone open.
#[tokio::test]
async fn the_authenticator_app_buys_no_guesses_at_codes() {
    let (app, mail) = with_mail(FEW_GUESSES).await;
    let mut device = owner(&app, &mail).await;
    let mut authenticator = device.add_totp().await;
    let code = fetch_at(&mut device, &mail, ANN).await;
    spend_guesses(&mut device, &mut authenticator, &code).await;
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .refused("403 code-exhausted");
    // Control: the PIN may change the contact, so it needs no guesses and gives them back.
    device.try_pin("830517", &[]).await.expect(201);
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn where_the_authenticator_app_is_the_strongest_it_is_the_way_back() {
    let (app, mail) = with_mail(FEW_GUESSES).await;
    let mut device = app.device("notes");
    device.enrol().await;
    add(&mut device, &mail, "contact", ANN).await;
    let mut authenticator = device.add_totp().await;
    let code = fetch_at(&mut device, &mail, ANN).await;
    spend_guesses(&mut device, &mut authenticator, &code).await;
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .expect(201);
}
