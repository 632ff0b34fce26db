//! Attacks on the token's object store, for which one needs the token's PIN: they end the service.

use custodyd_hsm::anchor::{self, Anchor};

use super::{BUDGET, Rig, Weakness, is_exhausted, says, strong};
use crate::ledger::faults::tables::Tables;

/// A realm without guesses, with a backup of each and the token's objects of then.
async fn scene() -> (Rig, [Tables; 2], [Vec<Vec<u8>>; 2]) {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    let (old, older) = (rig.tables().await, rig.anchors.contents());
    for _ in 0..BUDGET {
        rig.guess(a).await.unwrap();
    }
    let (newest, now) = (rig.tables().await, rig.anchors.contents());
    (rig, [old, newest], [older, now])
}

#[tokio::test]
async fn a_missing_anchor_is_not_an_empty_realm() {
    let (mut rig, [old, newest], [_, now]) = scene().await;
    let [a, _] = rig.accounts;
    rig.crash().await;
    rig.anchors.put_back(&[]);
    let why = "holds no anchor";
    says(&rig.start_upon(&newest, strong()).await, why);
    says(&rig.start_upon(&old, strong()).await, why);
    rig.anchors.put_back(&now);
    rig.start_upon(&newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
    // Control: taken for the right one, it would bring any backup back.
    rig.crash().await;
    rig.anchors.put_back(&[]);
    let weakness = Weakness {
        no_anchor: true,
        lazy: true,
        ..strong()
    };
    rig.start_upon(&old, weakness).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 1);
}

#[tokio::test]
async fn an_anchor_that_goes_while_the_daemon_runs_stops_what_it_would_tell() {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, b] = rig.accounts;
    let objects = rig.anchors.contents();
    rig.anchors.put_back(&[]);
    says(&rig.guess(a).await, "there is none");
    // Control: once it is back, the batch is anchored and counts.
    rig.anchors.put_back(&objects);
    assert_eq!(rig.guess(b).await.unwrap(), 1);
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}

#[tokio::test]
async fn two_newest_anchors_are_refused() {
    let (mut rig, [_, newest], [_, now]) = scene().await;
    let [a, _] = rig.accounts;
    rig.crash().await;
    let of = super::super::rig::realm_name();
    // What a second writer at the same token could leave: the same serial with another head.
    let rival = rig
        .pool()
        .call("rival", move |custody| {
            let newest = anchor::newest(custody, &of)?.unwrap();
            let objects = custody.anchors()?;
            for object in &objects {
                custody.destroy_anchor(object)?;
            }
            let older = Anchor {
                serial: newest.serial - 1,
                seq: newest.seq - 1,
                head: [1; 32],
                ..newest.clone()
            };
            for serial in 1..=older.serial {
                let from = (serial > 1).then(|| Anchor {
                    serial: serial - 1,
                    ..older.clone()
                });
                let to = Anchor {
                    serial,
                    ..older.clone()
                };
                anchor::advance(custody, &of, from.as_ref(), &to)?;
            }
            let rival = Anchor {
                head: [9; 32],
                ..newest
            };
            anchor::advance(custody, &of, Some(&older), &rival)?;
            Ok(custody
                .anchors()?
                .into_iter()
                .map(|object| object.content)
                .collect::<Vec<_>>())
        })
        .await
        .unwrap();
    rig.anchors.put_back(&[now.clone(), rival.clone()].concat());
    says(
        &rig.start_upon(&newest, strong()).await,
        "exclude each other",
    );
    // The rival alone is another history.
    rig.anchors.put_back(&rival);
    says(&rig.start_upon(&newest, strong()).await, "two histories");
    // Control: ours alone.
    rig.anchors.put_back(&now);
    rig.start_upon(&newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
}

#[tokio::test]
async fn an_older_anchor_beside_the_newest_changes_nothing() {
    let (mut rig, [old, newest], [older, now]) = scene().await;
    let [a, _] = rig.accounts;
    rig.crash().await;
    for objects in [[older.clone(), now.clone()], [now.clone(), older.clone()]] {
        rig.anchors.put_back(&objects.concat());
        says(&rig.start_upon(&old, strong()).await, "it was rolled back");
    }
    rig.start_upon(&newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
    assert_eq!(rig.anchors.contents().len(), 1, "what is old was removed");
    // Control: alone it makes the backup the newest. That is the token's to prevent.
    rig.crash().await;
    rig.anchors.put_back(&older);
    rig.start_upon(&old, strong()).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 1);
}

#[tokio::test]
async fn an_object_that_is_no_anchor_is_refused_and_not_destroyed() {
    let (mut rig, [_, newest], [_, now]) = scene().await;
    let [a, _] = rig.accounts;
    rig.crash().await;
    let mut flipped = now[0].clone();
    *flipped.last_mut().unwrap() ^= 1;
    for garbage in [b"rubbish".to_vec(), flipped, vec![0; 4096]] {
        rig.anchors
            .put_back(&[now.clone(), vec![garbage.clone()]].concat());
        says(&rig.start_upon(&newest, strong()).await, "is no anchor");
        assert!(rig.anchors.contents().contains(&garbage));
    }
    // Control.
    rig.anchors.put_back(&now);
    rig.start_upon(&newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
}
