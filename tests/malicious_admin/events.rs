//! The event trail: hide, edit, swap, cut.

use custodyd_tests::{Admin, Device};

use crate::{PUT_BODIES, PUT_ENTRIES, served, uncached, victim};

async fn broken(device: &mut Device) {
    let answer = device.call("GET", "/v1/account/events", None).await;
    answer.refused("500 record-tampered");
}

/// Does something to the log, sees it refused, takes it back, sees it whole.
async fn attack(device: &mut Device, admin: &mut Admin, attack: &str, mend: &str) {
    device
        .call("GET", "/v1/account/events", None)
        .await
        .expect(200);
    assert!(admin.run(attack).await >= 1, "{attack} changed nothing");
    broken(device).await;
    served(device).await;
    admin.run(mend).await;
    device
        .call("GET", "/v1/account/events", None)
        .await
        .expect(200);
}

/// The bodies and the entries as they were kept.
fn mends() -> [String; 2] {
    [
        format!("INSERT INTO log_bodies SELECT * FROM b WHERE true {PUT_BODIES}"),
        format!("INSERT INTO log_entries SELECT * FROM e WHERE true {PUT_ENTRIES}"),
    ]
}

/// The log has entries that are nobody's events: `n` says which entry is which event.
async fn number_events(admin: &mut Admin) {
    admin
        .run("CREATE TEMP TABLE n AS SELECT row_number() OVER (ORDER BY idx) - 1 AS event, idx FROM log_bodies")
        .await;
}

#[tokio::test]
async fn an_event_can_not_be_hidden_edited_or_cut() {
    let app = uncached().await;
    let (mut device, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    admin
        .run("CREATE TEMP TABLE b AS SELECT * FROM log_bodies")
        .await;
    admin
        .run("CREATE TEMP TABLE e AS SELECT * FROM log_entries")
        .await;
    number_events(&mut admin).await;
    let [bodies, entries] = mends();
    let (mend_bodies, mend_entries) = (bodies.as_str(), entries.as_str());
    for (sql, mend) in [
        (
            "DELETE FROM log_bodies WHERE idx = (SELECT idx FROM n WHERE event = 1)",
            mend_bodies,
        ),
        (
            "UPDATE log_bodies SET body = zeroblob(length(body)) WHERE idx = (SELECT idx FROM n WHERE event = 2)",
            mend_bodies,
        ),
        (
            "UPDATE log_bodies SET salt = zeroblob(32) WHERE idx = (SELECT idx FROM n WHERE event = 0)",
            mend_bodies,
        ),
        (
            "UPDATE log_bodies SET body = x'' WHERE idx = (SELECT idx FROM n WHERE event = 1)",
            mend_bodies,
        ),
        (
            "UPDATE log_bodies SET body = zeroblob(100000) WHERE idx = (SELECT idx FROM n WHERE event = 1)",
            mend_bodies,
        ),
        (
            "DELETE FROM log_entries WHERE idx = (SELECT max(idx) FROM log_bodies)",
            mend_entries,
        ),
        (
            "UPDATE log_entries SET leaf = zeroblob(33) WHERE idx = (SELECT idx FROM n WHERE event = 1)",
            mend_entries,
        ),
        (
            "UPDATE log_bodies SET body = (SELECT body FROM b WHERE idx = (SELECT idx FROM n WHERE event = 0)), \
          salt = (SELECT salt FROM b WHERE idx = (SELECT idx FROM n WHERE event = 0)) WHERE idx = (SELECT idx FROM n WHERE event = 1)",
            mend_bodies,
        ),
    ] {
        attack(&mut device, &mut admin, sql, mend).await;
    }
}

#[tokio::test]
async fn an_event_can_not_be_replaced_with_leaf_and_all() {
    let app = uncached().await;
    let (mut alice, _) = victim(&app, "notes").await;
    let (_bob, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    admin
        .run("CREATE TEMP TABLE b AS SELECT * FROM log_bodies")
        .await;
    admin
        .run("CREATE TEMP TABLE e AS SELECT * FROM log_entries")
        .await;
    number_events(&mut admin).await;
    // Event 0 is alice's first, event 4 bob's first: same kind, same number.
    admin.run("UPDATE log_bodies SET body = (SELECT body FROM b WHERE idx = (SELECT idx FROM n WHERE event = 4)), salt = (SELECT salt FROM b WHERE idx = (SELECT idx FROM n WHERE event = 4)) WHERE idx = (SELECT idx FROM n WHERE event = 0)").await;
    admin
        .run("UPDATE log_entries SET leaf = (SELECT leaf FROM e WHERE idx = (SELECT idx FROM n WHERE event = 4)) WHERE idx = (SELECT idx FROM n WHERE event = 0)")
        .await;
    broken(&mut alice).await;
    for mend in mends() {
        admin.run(&mend).await;
    }
    alice
        .call("GET", "/v1/account/events", None)
        .await
        .expect(200);
}
