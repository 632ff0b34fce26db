//! The exception to step-up by a delivered code: an unknown device is bound, or the PIN replaced,
//! by whoever reads the mail; and nothing else is.

use custodyd_tests::Device;
use custodyd_tests::device::Answer;
use serde_json::json;

use crate::contacts::{add, mails, with_mail, with_mail_and_clock};
use crate::delivered_codes::{ANN, SUFFICES, by_alias, enter, fetch, new_phone, owner};

async fn bind(device: &mut Device) -> Answer {
    device
        .call("POST", "/v1/account/devices", Some(json!({})))
        .await
}

async fn bound(owner: &mut Device) -> usize {
    let view = owner.view().await;
    view["devices"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_code_binds_an_unknown_device_after_the_delay_that_the_policy_sets() {
    let policy = format!("{SUFFICES}[recover]\nby = [\"delivered-code\"]\ndelay = \"3s\"\n");
    let (app, mail, clock) = with_mail_and_clock(&policy).await;
    let mut owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    // Not in passing: what waits is asked for by itself.
    let started = enter(&mut phone, by_alias(), &code, json!({"bind_device": {}})).await;
    assert_eq!(started.expect(201).body["device_bound"], false);
    let asked = bind(&mut phone).await;
    asked.refused("409 recovery-waits");
    assert_eq!(mails(&mail, ANN, 4).await.len(), 4, "the owner is told");
    let view = owner.view().await;
    assert_eq!(view["waiting"][0]["change"], "bind-device");
    assert_eq!(view["waiting"][0]["factor"], "delivered-code");
    assert_eq!(view["waiting"][0]["device_id"], phone.key.thumbprint());
    assert_eq!(bound(&mut owner).await, 1);
    clock.is_off_by(4);
    bind(&mut phone).await.expect(201);
    assert_eq!(bound(&mut owner).await, 2);
    assert_eq!(mails(&mail, ANN, 5).await.len(), 5, "and again");
    let events = owner.events().await;
    for kind in ["recover-requested", "recover-used", "device-bound"] {
        assert!(events.iter().any(|event| event == kind), "{events:?}");
    }
}

#[tokio::test]
async fn an_owner_who_cancels_keeps_the_device_out() {
    let policy = format!("{SUFFICES}[recover]\nby = [\"delivered-code\"]\ndelay = \"2s\"\n");
    let (app, mail, clock) = with_mail_and_clock(&policy).await;
    let mut owner = owner(&app, &mail).await;
    let mut thief = new_phone(&app);
    let code = fetch(&mut thief, &mail, by_alias()).await;
    enter(&mut thief, by_alias(), &code, json!({}))
        .await
        .expect(201);
    bind(&mut thief).await.refused("409 recovery-waits");
    owner
        .call("DELETE", "/v1/account/recovery", None)
        .await
        .expect(204);
    clock.is_off_by(3);
    bind(&mut thief).await.refused("409 recovery-waits");
    assert_eq!(bound(&mut owner).await, 1);
}

#[tokio::test]
async fn where_codes_are_not_among_those_that_recover_none_binds() {
    let policy = format!("{SUFFICES}[recover]\nby = [\"pin\", \"passkey\"]\n");
    let (app, mail) = with_mail(&policy).await;
    let mut owner = owner(&app, &mail).await;
    let mut thief = new_phone(&app);
    let code = fetch(&mut thief, &mail, by_alias()).await;
    let started = enter(&mut thief, by_alias(), &code, json!({"bind_device": {}})).await;
    let started = started.expect(201);
    assert_eq!(started.body["session"]["scope"], "full");
    assert_eq!(started.body["device_bound"], false);
    bind(&mut thief).await.refused("403 step-up-required");
    thief
        .set_pin("294061")
        .await
        .refused("403 step-up-required");
    assert_eq!(bound(&mut owner).await, 1);
    owner.try_pin("830517", &[]).await.expect(201);
}

/// Half a sign-in sets no first PIN and binds no device where that needs no exception: the step
/// that asks for the PIN would be passed by making one up.
#[tokio::test]
async fn half_a_sign_in_sets_no_first_pin() {
    let (app, mail) = with_mail("").await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    add(&mut owner, &mail, "contact", ANN).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    let started = enter(&mut phone, by_alias(), &code, json!({})).await;
    assert_eq!(started.expect(201).body["session"]["scope"], "pin-only");
    let refused = "403 pin-only-session";
    phone.set_pin("294061").await.refused(refused);
    bind(&mut phone).await.refused(refused);
    assert_eq!(bound(&mut owner).await, 1);
    // Nor where there is something stronger than the code, and yet no PIN.
    owner.add_totp().await;
    phone
        .set_pin("294061")
        .await
        .refused("403 step-up-required");
    // Control: the owner sets it; that PIN the same half sign-in may replace, by the exception.
    owner.set_pin("830517").await.expect(200);
    phone.set_pin("294061").await.expect(200);
    owner.try_pin("294061", &[]).await.expect(201);
}
