//! A database of before the MAC key was rotated and retired: it is restored while the token holds that key, and no more after.

use super::super::erasing::{erase, load};
use super::super::mac_keys::{another_process, mac};
use super::*;

/// The database of before a rotation, after which everybody has gone; the older key is retired, and in the token still.
async fn retired() -> Rig {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let older = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    rig.make(mac(2)).await;
    rig.rotate(mac(2)).await.unwrap();
    for id in rig.accounts {
        erase(&rig, id).await.unwrap();
    }
    rig.retire_key(mac(1)).await.unwrap();
    rig.stop().await;
    rig.put_database(&older);
    another_process(&mut rig).await;
    rig
}

#[tokio::test]
async fn it_is_restored_while_the_token_holds_its_key_and_approvers_see_which() {
    let mut rig = retired().await;
    // No daemon starts on it: what the older key has tagged is nobody's by itself.
    says(
        rig.try_serve(Script::default()).await,
        "by the MAC keys that it names",
    );
    another_process(&mut rig).await;
    says(
        rig.try_serve(Script::default()).await,
        "of before the MAC key was rotated",
    );
    another_process(&mut rig).await;
    let before = rig.pool().call("anchors", |custody| custody.anchors());
    let before = before.await.unwrap();
    let statement = propose(&rig, &three_guesses()).await.unwrap();
    assert_eq!(statement.under_older_keys, ["custodyd-mac-v1"]);
    // Nobody takes the sentence out that the approvers have to read.
    let mut silent = statement.clone();
    silent.under_older_keys.clear();
    let text = silent.encode().unwrap();
    says(
        accept(&rig, &text, &approvals(&text)).await,
        "does not follow",
    );
    let text = statement.encode().unwrap();
    another_process(&mut rig).await;
    says(accept(&rig, &text, &[]).await, "approv");
    accept(&rig, &text, &approvals(&text)).await.unwrap();
    // Cut off behind its end, it is done again; and before the anchors that it replaces were gone, which no daemon starts on
    // and says so.
    another_process(&mut rig).await;
    accept(&rig, &text, &approvals(&text)).await.unwrap();
    another_process(&mut rig).await;
    let again = rig.pool().call("anchors", move |custody| {
        for object in &before {
            custody.create_anchor(&object.content)?;
        }
        Ok(())
    });
    again.await.unwrap();
    another_process(&mut rig).await;
    says(
        rig.try_serve(Script::default()).await,
        "run `custodyd ledger accept-restore` again",
    );
    another_process(&mut rig).await;
    accept(&rig, &text, &approvals(&text)).await.unwrap();
    // What it has anchored is by the key that is in use again, and by no other.
    let realm = realm_name();
    let by = rig.pool().call("anchors", move |custody| {
        custodyd_hsm::anchor::newest_key(custody, &realm)
    });
    assert_eq!(by.await.unwrap(), Some(1));
    another_process(&mut rig).await;
    rig.try_serve(Script::default()).await.unwrap();
    for id in rig.accounts {
        assert!(load(&rig, id).await.unwrap().account.quarantined);
    }
    rig.stop().await;
    clean(&rig).await;
}

#[tokio::test]
async fn it_is_not_once_its_key_is_destroyed_and_that_is_said() {
    let rig = retired().await;
    rig.destroy(mac(1)).await;
    says(
        propose(&rig, &three_guesses()).await,
        "custodyd-mac-v1, which the token does not hold",
    );
}

/// The database of before a rotation, whose key of before is accepted still, and the newest one.
async fn accepted() -> (Rig, Kept) {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let older = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    rig.make(mac(2)).await;
    rig.rotate(mac(2)).await.unwrap();
    rig.stop().await;
    let newest = rig.database();
    rig.put_database(&older);
    another_process(&mut rig).await;
    (rig, newest)
}

/// Its batch is durable, and the token has not heard of it: no daemon starts on that, and what it says is what helps.
#[tokio::test]
async fn one_that_was_cut_off_behind_a_rotation_is_finished_by_the_same_command() {
    let (mut rig, _) = accepted().await;
    let before = rig.anchors.contents();
    // The control: nobody has begun a restore, and none is spoken of.
    let refused = rig.try_serve(Script::default()).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("put the newest database in place") && !refused.contains("restore"));
    another_process(&mut rig).await;
    let text = restore(&rig, &three_guesses()).await;
    rig.anchors.put_back(&before);
    another_process(&mut rig).await;
    says(
        rig.try_serve(Script::default()).await,
        "run `custodyd ledger accept-restore` again",
    );
    another_process(&mut rig).await;
    accept(&rig, &text, &approvals(&text)).await.unwrap();
    another_process(&mut rig).await;
    rig.try_serve(Script::default()).await.unwrap();
    rig.stop().await;
    clean(&rig).await;
}

/// Rotated, and not retired: the anchor counts by the older key, too. Whoever knows that can have made the database.
#[tokio::test]
async fn approvers_see_the_older_key_also_where_it_is_accepted_still() {
    let (mut rig, newest) = accepted().await;
    let statement = propose(&rig, &three_guesses()).await.unwrap();
    assert_eq!(statement.under_older_keys, ["custodyd-mac-v1"]);
    // The control: nothing is to be said, or restored, of the newest.
    rig.put_database(&newest);
    another_process(&mut rig).await;
    says(propose(&rig, &three_guesses()).await, "nothing to restore");
}
