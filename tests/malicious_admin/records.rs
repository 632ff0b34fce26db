//! Envelopes and member lists.

use custodyd_tests::TestApp;
use custodyd_tests::admin::literal;

use crate::{Row, refused, served, uncached, victim};

#[tokio::test]
async fn swapped_envelopes_open_nothing() {
    let app = uncached().await;
    let (mut alice, a) = victim(&app, "notes").await;
    let (mut bob, b) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    a.set_sealed(&mut admin, &b.sealed).await;
    b.set_sealed(&mut admin, &a.sealed).await;
    refused(&mut alice).await;
    refused(&mut bob).await;
    // With member lists that vouch for the swap, the seal still refuses.
    a.vouch_for(&mut admin, b.generation, &b.sealed).await;
    b.vouch_for(&mut admin, a.generation, &a.sealed).await;
    refused(&mut alice).await;
    refused(&mut bob).await;
    // Control: the same tools, the honest contents.
    a.restore(&mut admin).await;
    a.vouch_for(&mut admin, a.generation, &a.sealed).await;
    served(&mut alice).await;
    refused(&mut bob).await;
}

#[tokio::test]
async fn an_envelope_does_not_open_in_another_app() {
    let app = uncached().await;
    let (mut here, h) = victim(&app, "notes").await;
    let (mut there, t) = victim(&app, "wallet").await;
    let mut admin = app.admin().await;
    t.set_sealed(&mut admin, &h.sealed).await;
    t.vouch_for(&mut admin, h.generation, &h.sealed).await;
    refused(&mut there).await;
    served(&mut here).await;
    t.restore(&mut admin).await;
    t.vouch_for(&mut admin, t.generation, &t.sealed).await;
    served(&mut there).await;
}

#[tokio::test]
async fn no_byte_of_an_envelope_can_be_changed() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    // Every byte of the header and salt, the tag, and samples of the ciphertext between.
    let length = row.sealed.len();
    let places = (0..24)
        .chain((24..length - 16).step_by(211))
        .chain(length - 16..length);
    for (round, at) in places.enumerate() {
        let mut sealed = row.sealed.clone();
        sealed[at] ^= 1 << (round % 8);
        row.set_sealed(&mut admin, &sealed).await;
        row.vouch_for(&mut admin, row.generation, &sealed).await;
        let answer = device.call("GET", "/v1/account", None).await;
        assert_eq!(answer.refusal(), "500 record-tampered", "byte {at}");
    }
    row.restore(&mut admin).await;
    row.vouch_for(&mut admin, row.generation, &row.sealed).await;
    served(&mut device).await;
}

#[tokio::test]
async fn no_byte_of_a_member_list_can_be_changed_unnoticed() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let members = row.members(&mut admin).await;
    for at in 0..members.len() {
        let mut changed = members.clone();
        changed[at] ^= 0x11;
        row.set_members(&mut admin, &changed).await;
        let answer = device.call("GET", "/v1/account", None).await;
        assert_eq!(answer.refusal(), "500 record-tampered", "byte {at}");
    }
    row.set_members(&mut admin, &members).await;
    served(&mut device).await;
}

#[tokio::test]
async fn a_deleted_cut_extended_or_huge_row_is_refused() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let members = row.members(&mut admin).await;
    let id = literal(&row.id);
    assert_eq!(
        admin
            .run(&format!("DELETE FROM records WHERE id = {id}"))
            .await,
        1
    );
    refused(&mut device).await;
    row.restore(&mut admin).await;
    served(&mut device).await;
    let cut = &row.sealed[..row.sealed.len() - 1];
    let extended = [&row.sealed[..], &[0]].concat();
    for sealed in [cut, &extended, &[]] {
        row.set_sealed(&mut admin, sealed).await;
        row.vouch_for(&mut admin, row.generation, sealed).await;
        refused(&mut device).await;
    }
    row.set_members(&mut admin, &members).await;
    let before = tampered_total(&app).await;
    admin
        .run(&format!(
            "UPDATE records SET sealed = zeroblob(4194304) WHERE id = {id}"
        ))
        .await;
    refused(&mut device).await;
    row.restore(&mut admin).await;
    let bucket = row.bucket();
    admin
        .run(&format!(
            "UPDATE bucket_members SET members = zeroblob(5000000) WHERE bucket = {bucket}"
        ))
        .await;
    refused(&mut device).await;
    row.set_members(&mut admin, &members).await;
    served(&mut device).await;
    assert_eq!(tampered_total(&app).await, before + 2);
    // A version that nobody knows is damage, too, not a token that is away.
    let mut unknown = row.sealed.clone();
    unknown[3] = 9;
    row.set_sealed(&mut admin, &unknown).await;
    row.vouch_for(&mut admin, row.generation, &unknown).await;
    refused(&mut device).await;
    assert!(app.log().contains("member list is not the newest one"));
    row.restore(&mut admin).await;
    row.vouch_for(&mut admin, row.generation, &row.sealed).await;
    served(&mut device).await;
}

/// What an operator's alert looks at.
async fn tampered_total(app: &TestApp) -> u64 {
    let (_, metrics) = app.operator("/metrics").await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("custodyd_tampered_total "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test]
async fn a_forged_generation_is_refused() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    for forged in [0, row.generation - 1, row.generation + 1, i64::MAX, -1] {
        let sql = format!(
            "UPDATE records SET generation = {forged} WHERE id = {}",
            literal(&row.id)
        );
        admin.run(&sql).await;
        let answer = device.call("GET", "/v1/account", None).await;
        assert_eq!(answer.refusal(), "500 record-tampered", "{forged}");
        row.vouch_for(&mut admin, forged, &row.sealed).await;
        let answer = device.call("GET", "/v1/account", None).await;
        assert_eq!(
            answer.refusal(),
            "500 record-tampered",
            "{forged}, vouched for"
        );
    }
    row.restore(&mut admin).await;
    row.vouch_for(&mut admin, row.generation, &row.sealed).await;
    served(&mut device).await;
}

#[tokio::test]
async fn a_missing_empty_or_doubled_member_list_is_refused() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let members = row.members(&mut admin).await;
    let entry = members[8..].to_vec();
    let doubled = [b"CDM\x01\0\0\0\x02", &entry[..], &entry[..]].concat();
    for changed in [
        &[][..],
        b"CDM\x01\0\0\0\0",
        &members[..members.len() - 1],
        &doubled,
    ] {
        row.set_members(&mut admin, changed).await;
        refused(&mut device).await;
    }
    let sql = format!("DELETE FROM bucket_members WHERE bucket = {}", row.bucket());
    assert_eq!(admin.run(&sql).await, 1);
    refused(&mut device).await;
    let sql = format!(
        "INSERT INTO bucket_members VALUES ({}, {})",
        row.bucket(),
        literal(&members)
    );
    admin.run(&sql).await;
    served(&mut device).await;
}

#[tokio::test]
async fn one_damaged_account_harms_nobody_else() {
    let app = uncached().await;
    let (mut alice, a) = victim(&app, "notes").await;
    let (mut bob, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    a.set_sealed(&mut admin, &[1, 2, 3]).await;
    refused(&mut alice).await;
    alice
        .try_pin("830517", &[])
        .await
        .refused("500 record-tampered");
    bob.try_pin("830517", &["device-secret"]).await.expect(201);
    let mut newcomer = app.device("notes");
    newcomer.enrol().await;
    assert_eq!(app.operator("/readyz").await.0, 200);
    // The evidence is in the log, the victim is not.
    assert!(app.log().contains("stored bytes do not verify"));
    assert!(!app.log().contains(&alice.account));
    // A damaged account is never written over.
    assert_eq!(admin.accounts().await[0].2, [1, 2, 3]);
}

#[tokio::test]
async fn what_is_written_beneath_a_cached_account_is_overwritten_or_refused_after_a_restart() {
    let mut app = TestApp::start().await;
    let (mut device, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let newest = async |admin: &mut custodyd_tests::Admin| {
        let (id, generation, sealed) = admin.accounts().await.pop().unwrap();
        Row {
            id,
            generation,
            sealed,
        }
    };
    let damage = async |admin: &mut custodyd_tests::Admin| {
        let row = newest(admin).await;
        let mut sealed = row.sealed.clone();
        *sealed.last_mut().unwrap() ^= 1;
        row.set_sealed(admin, &sealed).await;
        row.set_members(admin, b"rubbish").await;
    };
    // What the daemon committed itself stands, and its next commit puts it back whole.
    damage(&mut admin).await;
    served(&mut device).await;
    device.back_up("more", b"another secret").await.expect(200);
    let row = newest(&mut admin).await;
    app.restart().await;
    served(&mut device).await;
    // Without that commit, whoever reads the rows refuses them: the damage is there.
    device.try_pin("830517", &[]).await.expect(201);
    damage(&mut admin).await;
    served(&mut device).await;
    assert_ne!(newest(&mut admin).await, row);
    app.restart().await;
    refused(&mut device).await;
}
