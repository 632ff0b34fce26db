//! The MAC key is rotated, and the older version retired and destroyed: what it has made stays with it until its owners have
//! enrolled again, however they sign in, and the daemon may be killed at each step.

use custodyd_tests::{Device, Setup, TestApp};
use serde_json::json;

use crate::contacts::{add, mails, with_mail};
use crate::delivered_codes::{ANN, SUFFICES, by_alias, enter, fetch, new_phone, owner};
use crate::opaque;
use crate::passkey::with_passkey;
use crate::rotation::{done, owners, refused};
use crate::rotation_kills::{Cut, current, killed};

const PIN: &str = "830517";
const RETIRE: &str = "key retire mac-v1 --destroy --yes";

async fn erased(device: &mut Device) {
    let body = json!({"confirm": device.account});
    let erased = device.call("DELETE", "/v1/account", Some(body)).await;
    erased.expect(204);
}

/// Somebody who remembers the address alone comes in by it, to this account.
async fn found_by_alias(app: &TestApp, mail: &custodyd_tests::MailServer, account: &str) {
    let mut phone = new_phone(app);
    let code = fetch(&mut phone, mail, by_alias()).await;
    let started = enter(&mut phone, by_alias(), &code, json!({})).await;
    assert_eq!(started.expect(201).body["account"], account);
}

#[tokio::test]
async fn what_the_older_key_has_made_works_until_its_owners_have_enrolled_again() {
    let (mut app, mail) = with_mail(SUFFICES).await;
    let mut ann = owner(&app, &mail).await;
    let mut bob = opaque::with_pin(&app).await;
    let (mut carl, mut authenticator) = with_passkey(&app).await;
    let told = done(&app, "key rotate mac");
    assert!(told.contains("custodyd-mac-v2 is used"), "{told}");
    for _ in 0..2 {
        // Their sessions of before first, which nothing has ended.
        for device in [&mut ann, &mut bob, &mut carl] {
            device.recover("device-secret").await.expect(200);
        }
        ann.try_pin(PIN, &["device-secret"]).await.expect(201);
        opaque::signed_in(&mut bob, &["device-secret"]).await;
        let release = json!({"release": ["device-secret"]});
        let mut other = app.device("notes");
        let started = other.try_passkey(&mut authenticator, release).await;
        assert_eq!(started.expect(201).body["account"], carl.account);
        app.restart().await;
    }
    found_by_alias(&app, &mail, &ann.account).await;
    // Theirs are three, and a new one is none of them.
    let mut newer = owners(&app, 1).await.remove(0);
    newer.set_pin(PIN).await.expect(200);
    let listed = done(&app, "key list");
    let count = |key: &str| {
        let line = listed.lines().find(|line| line.contains(key));
        line.map(|line| line.rsplit("; ").next().unwrap().to_owned())
    };
    // Of the older one the operator has to know whom to ask.
    let older = "3 accounts: 3 of notes, whose owners have to enrol again";
    assert_eq!(count("mac-v1").as_deref(), Some(older), "{listed}");
    assert_eq!(count("mac-v2").as_deref(), Some("1 accounts"), "{listed}");
    assert!(!listed.contains(&ann.account), "{listed}");
    refused(&app, RETIRE, "3 of notes");

    for device in [&mut ann, &mut bob] {
        erased(device).await;
        refused(&app, RETIRE, "enrolled again");
    }
    erased(&mut carl).await;
    // One mail confirmed the address, one told of the PIN, one had the code that was asked for.
    let told = mails(&mail, ANN, 4).await;
    assert!(told[3].body.contains("erased"), "{:?}", told[3]);
    // The name is free, whichever key it stood under, and what was erased stays so.
    let mut again = app.device("notes");
    again.enrol().await;
    add(&mut again, &mail, "contact", ANN).await;
    ann.try_pin(PIN, &[])
        .await
        .refused("401 authentication-failed");
    let told = done(&app, RETIRE);
    assert!(told.contains("is destroyed in the token"), "{told}");
    assert!(told.contains("can not be restored by anybody"), "{told}");
    for _ in 0..2 {
        newer.try_pin(PIN, &["device-secret"]).await.expect(201);
        app.restart().await;
    }
    found_by_alias(&app, &mail, &again.account).await;
    ann.try_pin(PIN, &[])
        .await
        .refused("401 authentication-failed");
    let listed = done(&app, "key list");
    assert!(!listed.contains("mac-v1"), "{listed}");
    // Its place is not taken for a key that was lost.
    let checked = done(&app, "token check");
    assert!(
        checked.contains("custodyd-mac-v2") && !checked.contains("custodyd-mac-v1"),
        "{checked}"
    );
    app.verified();
}

/// The owner erases their account and makes another one, with the same secret.
async fn enrolled_again(app: &TestApp, mut owner: Device) -> Device {
    erased(&mut owner).await;
    owners(app, 1).await.remove(0)
}

async fn killed_at(cut: Cut, call: &str, step: u32, at_least: u32) {
    let policy = "[enrolment]\nquota_per_hour = 100000\n";
    let mut app = TestApp::with(Setup::notes(policy)).await;
    let mut owner = owners(&app, 1).await.remove(0);
    let mut kills = 0;
    for nth in (1..=200).step_by(step as usize) {
        let old = current(&app, "mac");
        let retire = format!("key retire {old} --destroy --yes");
        let was_killed;
        if cut == Cut::Rotation {
            was_killed = killed(&mut app, "key rotate mac", call, nth).await;
            owner.recover("device-secret").await.expect(200);
            // It has happened, or it has not and what is in the token is used for nothing.
            if was_killed && current(&app, "mac") == old {
                done(&app, "key rotate mac");
            }
            assert_ne!(current(&app, "mac"), old, "{call} {nth}");
            owner = enrolled_again(&app, owner).await;
            done(&app, &retire);
        } else {
            done(&app, "key rotate mac");
            owner = enrolled_again(&app, owner).await;
            was_killed = killed(&mut app, &retire, call, nth).await;
            owner.recover("device-secret").await.expect(200);
            let told = done(&app, &retire);
            assert!(told.contains("is destroyed in the token"), "{told}");
        }
        let listed = done(&app, "key list");
        assert!(!listed.contains(&format!("{old} ")), "{listed}");
        owner.recover("device-secret").await.expect(200);
        if !was_killed {
            break;
        }
        kills += 1;
    }
    eprintln!("killed at {kills} calls of {call}");
    assert!(kills >= at_least, "killed at {kills} calls of {call} only");
    app.verified();
}

#[tokio::test]
async fn a_rotation_at_each_write_to_the_database() {
    killed_at(Cut::Rotation, "pwrite64", 2, 2).await;
}

#[tokio::test]
async fn a_retirement_at_each_write_to_the_database() {
    killed_at(Cut::Retirement, "pwrite64", 2, 2).await;
}

#[tokio::test]
async fn a_retirement_at_each_file_that_goes() {
    killed_at(Cut::Retirement, "unlink", 1, 2).await;
}
