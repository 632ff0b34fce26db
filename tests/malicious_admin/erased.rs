//! Erasure: undone, pretended, or its traces forged.

use custodyd_tests::Device;
use custodyd_tests::admin::literal;
use serde_json::json;

use crate::{PUT_BODIES, Row, served, uncached, victim};

async fn erase(device: &mut Device) {
    let confirm = json!({"confirm": device.account});
    device
        .call("DELETE", "/v1/account", Some(confirm))
        .await
        .expect(204);
}

/// A kind in a member entry stands before the record's identifier.
async fn set_kind(row: &Row, admin: &mut custodyd_tests::Admin, kind: u8) {
    let mut members = row.members(admin).await;
    let id = members.windows(32).position(|window| window == row.id);
    members[id.unwrap() - 1] = kind;
    row.set_members(admin, &members).await;
}

#[tokio::test]
async fn a_tombstone_can_not_be_removed_replaced_or_made() {
    let app = uncached().await;
    let (mut bob, living) = victim(&app, "notes").await;
    let (mut alice, envelope) = victim(&app, "notes").await;
    erase(&mut alice).await;
    let mut admin = app.admin().await;
    let (id, generation, sealed) = admin.accounts().await.pop().unwrap();
    let stone = Row {
        id,
        generation,
        sealed,
    };
    let remove = format!("DELETE FROM records WHERE id = {}", literal(&stone.id));
    assert_eq!(admin.run(&remove).await, 1);
    let tampered = "500 record-tampered";
    alice.try_pin("830517", &[]).await.refused(tampered);
    // The old envelope in its place; also where the list vouches for its content.
    envelope.restore(&mut admin).await;
    alice.try_pin("830517", &[]).await.refused(tampered);
    let members = stone.members(&mut admin).await;
    stone
        .vouch_for(&mut admin, envelope.generation, &envelope.sealed)
        .await;
    alice.try_pin("830517", &[]).await.refused(tampered);
    stone.set_members(&mut admin, &members).await;
    stone.restore(&mut admin).await;
    // A living account is not erased by calling it so, nor with the tombstone of another.
    set_kind(&living, &mut admin, 3).await;
    bob.call("GET", "/v1/account", None).await.refused(tampered);
    let list = living.members(&mut admin).await;
    living.set_sealed(&mut admin, &stone.sealed).await;
    living
        .vouch_for(&mut admin, living.generation, &stone.sealed)
        .await;
    bob.call("GET", "/v1/account", None).await.refused(tampered);
    living.restore(&mut admin).await;
    living.set_members(&mut admin, &list).await;
    set_kind(&living, &mut admin, 1).await;
    // Control: everything as it was.
    served(&mut bob).await;
    alice
        .try_pin("830517", &[])
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn bodies_without_an_erasure_of_their_own_account_are_missed() {
    let app = uncached().await;
    let (mut bob, _) = victim(&app, "notes").await;
    let (mut alice, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    admin
        .run("CREATE TEMP TABLE b AS SELECT * FROM log_bodies")
        .await;
    erase(&mut alice).await;
    // Alice's bodies are gone rightly: the leaf is the newest entry.
    bob.call("GET", "/v1/account/events", None)
        .await
        .expect(200);
    let second = "idx = (SELECT idx FROM b ORDER BY idx LIMIT 1 OFFSET 1)";
    let delete = format!("DELETE FROM log_bodies WHERE {second}");
    assert_eq!(admin.run(&delete).await, 1);
    let tampered = "500 record-tampered";
    bob.call("GET", "/v1/account/events", None)
        .await
        .refused(tampered);
    // Alice's erasure leaf once more, edited to name Bob's entry.
    let mut body = admin
        .blob("SELECT body FROM log_bodies ORDER BY idx DESC LIMIT 1")
        .await;
    body.truncate(4);
    let below = "log_entries WHERE idx < (SELECT idx FROM b ORDER BY idx LIMIT 1 OFFSET 1)";
    body.extend_from_slice(&admin.count(below).await.to_be_bytes());
    let body = literal(&body);
    admin
        .run("CREATE TEMP TABLE newest AS SELECT max(idx) AS idx FROM log_bodies")
        .await;
    let newest = "(SELECT idx FROM newest)";
    let forge = [
        format!("UPDATE log_bodies SET body = {body} WHERE idx = {newest}"),
        format!(
            "INSERT INTO log_bodies SELECT idx + 2, salt, {body} FROM log_bodies WHERE idx = {newest}"
        ),
        format!(
            "INSERT INTO log_entries SELECT idx + 2, leaf FROM log_entries WHERE idx = {newest}"
        ),
    ];
    for sql in &forge {
        assert_eq!(admin.run(sql).await, 1, "{sql}");
        bob.call("GET", "/v1/account/events", None)
            .await
            .refused(tampered);
    }
    // What was forged away again: the body is missed all the same.
    admin
        .run(&format!("DELETE FROM log_bodies WHERE idx >= {newest}"))
        .await;
    admin
        .run(&format!("DELETE FROM log_entries WHERE idx > {newest} + 1"))
        .await;
    bob.call("GET", "/v1/account/events", None)
        .await
        .refused(tampered);
    // Control: it is back.
    let mend = format!("INSERT INTO log_bodies SELECT * FROM b WHERE {second} {PUT_BODIES}");
    assert_eq!(admin.run(&mend).await, 1);
    bob.call("GET", "/v1/account/events", None)
        .await
        .expect(200);
    // Whoever takes it away once more keeps neither Bob's envelope nor his secrets with that.
    assert_eq!(admin.run(&delete).await, 1);
    erase(&mut bob).await;
}
