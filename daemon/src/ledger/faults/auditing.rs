//! Checkpoints, tiles and proofs over the rig's database, and an administrator who edits the log.

use std::sync::Arc;

use tlog_tiles::{Hash, check_record, check_tree, node_hash, record_hash};

use super::rig::{Rig, app};
use crate::ledger::journal::event_leaf;
use crate::ledger::{Checkpoint, EventEntry, LedgerError, Loaded};
use crate::store::admin::Value;

/// Enough for two full tiles: so many charges, and a state leaf for each batch.
async fn long() -> Rig {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    for id in [a, b, a] {
        assert_eq!(rig.burst(&[id; 200]).await, 200);
    }
    rig
}

/// RFC 6962, section 2.1, read literally.
fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [one] => *one,
        many => {
            let half = many.len().next_power_of_two() / 2;
            let (left, right) = many.split_at(half);
            node_hash(root_of(left), root_of(right))
        }
    }
}

fn root(checkpoint: &Checkpoint) -> Hash {
    let line = checkpoint.note().lines().nth(2).unwrap();
    Hash::parse_hash(line).unwrap()
}

fn hashes(tile: &[u8]) -> Vec<Hash> {
    let (hashes, rest) = tile.as_chunks::<32>();
    assert!(rest.is_empty());
    hashes.iter().map(|hash| Hash(*hash)).collect()
}

/// Every entry up to the checkpoint, by its bundles.
async fn entries(rig: &Rig, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for index in 0..size.div_ceil(256) {
        let width = (size - index * 256).min(256) as usize;
        let bundle = rig.ledger().entries(index, width).await.unwrap().unwrap();
        let mut rest = bundle.as_slice();
        while let [high, low, after @ ..] = rest {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            entries.push(entry.to_vec());
            rest = after;
        }
    }
    entries
}

async fn account(rig: &Rig) -> Loaded {
    let loaded = rig.ledger().load(&app(), rig.accounts[0]).await.unwrap();
    loaded.unwrap()
}

/// The account's oldest event, which stands in a full tile.
async fn oldest(rig: &Rig) -> EventEntry {
    let loaded = account(rig).await;
    let page = rig.ledger().events_with_bodies(&loaded, None, 1000).await;
    page.unwrap().bodies.pop().unwrap()
}

fn tampered<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(
        matches!(result, Err(LedgerError::Tampered(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn tiles_and_entries_are_the_log_that_the_checkpoint_names() {
    let rig = long().await;
    let ledger = rig.ledger();
    let checkpoint = ledger.checkpoint().await.unwrap();
    let size = checkpoint.size();
    assert!(size > 512, "{size}");
    let entries = entries(&rig, size).await;
    let leaves: Vec<Hash> = entries.iter().map(|entry| record_hash(entry)).collect();
    assert_eq!(root_of(&leaves), root(&checkpoint));
    let (full, open) = (size / 256, (size % 256) as usize);
    for index in 0..full {
        let tile = ledger.tile(0, index, 256).await.unwrap().unwrap();
        let from = index as usize * 256;
        assert_eq!(hashes(&tile), leaves[from..from + 256]);
        let part = ledger.tile(0, index, 7).await.unwrap().unwrap();
        assert_eq!(part, tile[..7 * 32]);
    }
    let last = ledger.tile(0, full, open).await.unwrap().unwrap();
    assert_eq!(hashes(&last), leaves[full as usize * 256..]);
    let above = ledger.tile(1, 0, full as usize).await.unwrap().unwrap();
    let expected: Vec<Hash> = leaves.chunks_exact(256).map(root_of).collect();
    assert_eq!(hashes(&above), expected);
    // What is not there, and what does not exist.
    for (level, index, width) in [
        (0, full, open + 1),
        (0, full, 256),
        (0, full + 1, 1),
        (1, 0, full as usize + 1),
        (2, 0, 1),
        (7, 0, 1),
        (8, 0, 1),
        (63, 0, 1),
        (255, u64::MAX, 256),
        (0, u64::MAX, 1),
        (0, u64::MAX / 256, 256),
        (0, 0, 0),
        (0, 0, 257),
    ] {
        assert!(ledger.tile(level, index, width).await.unwrap().is_none());
    }
    assert!(ledger.entries(full, open + 1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_head_is_signed_once_and_proofs_lead_to_the_checkpoint_that_covers_them() {
    let mut rig = long().await;
    let first = rig.ledger().checkpoint().await.unwrap();
    let again = rig.ledger().checkpoint().await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let [a, _] = rig.accounts;
    rig.one(a).await.unwrap();
    let loaded = account(&rig).await;
    let ledger = rig.ledger();
    // What auditors read is still what they can check.
    assert!(
        ledger
            .entries(first.size() / 256, 1)
            .await
            .unwrap()
            .is_some()
    );
    let beyond = (first.size() % 256) as usize + 1;
    assert!(
        ledger
            .entries(first.size() / 256, beyond)
            .await
            .unwrap()
            .is_none()
    );

    let page = ledger
        .events_with_bodies(&loaded, None, 1000)
        .await
        .unwrap();
    assert!(page.bodies.len() > 300);
    let proven = ledger
        .prove(&page.bodies, Some(first.size()))
        .await
        .unwrap();
    let size = proven.checkpoint.size();
    assert!(size > first.size());
    for (entry, proof) in page.bodies.iter().zip(&proven.proofs) {
        let proof: Vec<Hash> = proof
            .as_ref()
            .unwrap()
            .iter()
            .map(|hash| Hash(*hash))
            .collect();
        let leaf = record_hash(&event_leaf(&entry.salt, &entry.body));
        check_record(&proof, size, root(&proven.checkpoint), entry.index, leaf).unwrap();
    }
    let consistency = proven.consistency.unwrap();
    let consistency: Vec<Hash> = consistency.into_iter().map(Hash).collect();
    let new = root(&proven.checkpoint);
    check_tree(&consistency, size, new, first.size(), root(&first)).unwrap();
    let later = ledger.prove(&[], Some(size + 1000)).await.unwrap();
    assert!(later.consistency.is_none(), "it has fewer entries");
    assert!(
        ledger
            .prove(&[], Some(0))
            .await
            .unwrap()
            .consistency
            .is_none()
    );
}

#[tokio::test]
async fn an_altered_tile_is_an_error_and_never_a_wrong_proof() {
    let mut rig = long().await;
    // Tiles that became full lately need not be read.
    rig.restart().await;
    let ledger = rig.ledger();
    let entry = oldest(&rig).await;
    let all = async || {
        let tile = ledger.tile(0, 0, 256).await;
        let entries = ledger.entries(0, 9).await;
        let proven = ledger.prove(std::slice::from_ref(&entry), None).await;
        let consistent = ledger.prove(&[], Some(100)).await;
        (tile, entries, proven, consistent)
    };
    let sql = "SELECT idx, data FROM log_tiles WHERE level = 0 AND idx = 0";
    let mut admin = rig.admin().await;
    let (_, data) = admin.row(sql, &[]).await;
    let mut last = data.clone();
    *last.last_mut().unwrap() ^= 1;
    let mut swapped = data.clone();
    swapped.rotate_left(32);
    for wrong in [&last, &swapped, &data[..32 * 255].to_vec(), &Vec::new()] {
        let sql = "UPDATE log_tiles SET data = ? WHERE level = 0 AND idx = 0";
        assert_eq!(admin.run(sql, &[Value::Bytes(wrong)]).await, 1);
        let (tile, entries, proven, consistent) = all().await;
        tampered(tile);
        tampered(entries);
        tampered(proven);
        tampered(consistent);
        // The tile beside it is served.
        assert!(ledger.tile(0, 1, 256).await.unwrap().is_some());
        // Control: with the row as it was, everything is.
        admin.run(sql, &[Value::Bytes(&data)]).await;
        let (tile, entries, proven, consistent) = all().await;
        assert_eq!(tile.unwrap().unwrap(), data);
        assert!(entries.unwrap().is_some() && proven.is_ok() && consistent.is_ok());
    }
    admin
        .run("DELETE FROM log_tiles WHERE level = 0", &[])
        .await;
    // Those that are not kept are made anew, from entries that must be the right ones.
    let (tile, entries, proven, consistent) = all().await;
    assert_eq!(tile.unwrap().unwrap(), data);
    assert!(entries.unwrap().is_some() && proven.is_ok() && consistent.is_ok());
    admin
        .run("UPDATE log_entries SET leaf = x'00' WHERE idx = 200", &[])
        .await;
    let (tile, entries, proven, consistent) = all().await;
    tampered(tile);
    tampered(entries);
    tampered(proven);
    tampered(consistent);
}

#[tokio::test]
async fn an_altered_entry_is_not_given_out() {
    let rig = long().await;
    let mut admin = rig.admin().await;
    let sql = "UPDATE log_entries SET leaf = ? WHERE idx = 5";
    let (_, leaf) = admin
        .row("SELECT idx, leaf FROM log_entries WHERE idx = 5", &[])
        .await;
    assert_eq!(admin.run(sql, &[Value::Bytes(&[1; 33])]).await, 1);
    tampered(rig.ledger().entries(0, 256).await);
    assert!(rig.ledger().entries(0, 5).await.unwrap().is_some());
    admin.run(sql, &[Value::Bytes(&leaf)]).await;
    assert!(rig.ledger().entries(0, 256).await.unwrap().is_some());
    admin
        .run("DELETE FROM log_entries WHERE idx = 5", &[])
        .await;
    tampered(rig.ledger().entries(0, 256).await);
}

/// Anybody can compute a leaf for a salt of their own, and the body opens as before.
#[tokio::test]
async fn an_event_whose_salt_and_leaf_were_replaced_is_not_proven() {
    let rig = long().await;
    let entry = oldest(&rig).await;
    let ledger = rig.ledger();
    ledger
        .prove(std::slice::from_ref(&entry), None)
        .await
        .unwrap();
    let mut admin = rig.admin().await;
    let index = Value::Number(entry.index.try_into().unwrap());
    let salt = [9; 32];
    let leaf = event_leaf(&salt, &entry.body);
    for (sql, value) in [
        ("UPDATE log_bodies SET salt = ? WHERE idx = ?", &salt[..]),
        ("UPDATE log_entries SET leaf = ? WHERE idx = ?", &leaf[..]),
    ] {
        assert_eq!(admin.run(sql, &[Value::Bytes(value), index]).await, 1);
    }
    let replaced = EventEntry {
        index: entry.index,
        salt: salt.to_vec(),
        body: entry.body,
    };
    tampered(ledger.prove(&[replaced], None).await);
    // Nor is it shown to whoever asks for no proof.
    let loaded = account(&rig).await;
    tampered(ledger.events(&loaded, None, 1000).await);
}

#[tokio::test]
async fn each_change_of_a_batch_gets_the_receipt_of_its_own_event() {
    let rig = Rig::new().await;
    let ledger = rig.ledger();
    let loaded = account(&rig).await;
    assert!(ledger.receipt(&loaded).await.is_none(), "it was only read");
    let charges = [(); 20].map(|()| async {
        let (number, loaded) = ledger
            .commit(loaded.clone(), super::rig::charge)
            .await
            .unwrap();
        (number, ledger.receipt(&loaded).await.unwrap())
    });
    let charged = futures_util::future::join_all(charges).await;
    let newest = account(&rig).await;
    let page = ledger.events_with_bodies(&newest, None, 100).await.unwrap();
    for (number, receipt) in charged {
        // The first event is the creation.
        let at = page
            .events
            .iter()
            .position(|event| event.number == number + 1);
        let entry = &page.bodies[at.unwrap()];
        assert_eq!(receipt.index, entry.index);
        assert_eq!(receipt.leaf, event_leaf(&entry.salt, &entry.body));
        let proof = receipt.proof.unwrap();
        assert!(proof.contains(&format!("\nindex {}\n", entry.index)));
    }
    let creation = ledger.receipt_of_creation(&newest).await.unwrap();
    assert_eq!(creation.index, page.bodies.last().unwrap().index);
}
