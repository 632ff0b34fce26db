//! For tests: batches that a store takes without knowing what they say.

use custodyd_hsm::RecordId;

use super::{Batch, BodyRow, HeadRow, TileRow};

pub(super) fn id(number: u64) -> RecordId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    RecordId(id)
}

/// A batch on top of a head, with so many rows in each table.
pub(super) fn batch(parent: u64, rows: u64) -> Batch {
    let body = |number: u64| BodyRow {
        salt: number.to_be_bytes().to_vec(),
        body: vec![7; 8],
    };
    let places = move |number| parent * rows + number;
    Batch {
        parent,
        head: HeadRow {
            seq: parent + 1,
            body: vec![1],
            mac: Vec::new(),
        },
        records: (0..rows).map(|n| (id(n), parent + 1, vec![2; 8])).collect(),
        members: (0..rows as u32).map(|n| (n, vec![3; 8])).collect(),
        entries: (0..rows)
            .map(|n| (places(n), n.to_be_bytes().to_vec()))
            .collect(),
        bodies: (0..rows).map(|n| (places(n), body(n))).collect(),
        digests: (0..rows as u32).map(|n| (n, [4; 32])).collect(),
        tiles: (0..rows)
            .map(|n| TileRow {
                level: 0,
                index: n,
                data: vec![5; 32],
            })
            .collect(),
        tiles_before: None,
        removed: Vec::new(),
        erased: Vec::new(),
    }
}
