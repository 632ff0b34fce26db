//! The contents of the tables, kept in memory: what an administrator's backup holds, and what an
//! honest database must hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::Batch;
use crate::store::admin::{Admin, Cell};

/// A table: its name, its columns (`n` numbers, `b` bytes), and how many of them are its key.
pub(in crate::ledger) struct Table {
    pub(super) name: &'static str,
    pub(in crate::ledger) columns: &'static [(&'static str, u8)],
    pub(in crate::ledger) key: usize,
}

pub(in crate::ledger) const RECORDS: usize = 0;
pub(in crate::ledger) const MEMBERS: usize = 1;
pub(in crate::ledger) const DIGESTS: usize = 2;
pub(in crate::ledger) const HEAD: usize = 3;
pub(in crate::ledger) const ENTRIES: usize = 4;
pub(in crate::ledger) const BODIES: usize = 5;
pub(in crate::ledger) const TILES: usize = 6;
pub(super) const ALL: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

pub(in crate::ledger) const TABLES: [Table; 7] = [
    Table {
        name: "records",
        columns: &[("id", b'b'), ("generation", b'n'), ("sealed", b'b')],
        key: 1,
    },
    Table {
        name: "bucket_members",
        columns: &[("bucket", b'n'), ("members", b'b')],
        key: 1,
    },
    Table {
        name: "bucket_digests",
        columns: &[("bucket", b'n'), ("digest", b'b'), ("seq", b'n')],
        key: 1,
    },
    Table {
        name: "head",
        columns: &[("one", b'n'), ("seq", b'n'), ("body", b'b'), ("mac", b'b')],
        key: 1,
    },
    Table {
        name: "log_entries",
        columns: &[("idx", b'n'), ("leaf", b'b')],
        key: 1,
    },
    Table {
        name: "log_bodies",
        columns: &[("idx", b'n'), ("salt", b'b'), ("body", b'b')],
        key: 1,
    },
    Table {
        name: "log_tiles",
        columns: &[("level", b'n'), ("idx", b'n'), ("data", b'b')],
        key: 2,
    },
];

pub(in crate::ledger) type Row = Vec<Cell>;
type Rows = Arc<BTreeMap<Vec<Cell>, Row>>;

/// What stands in all tables at one moment. Copies share what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Tables([Rows; 7]);

fn number(value: u64) -> Cell {
    Cell::Number(i64::try_from(value).unwrap())
}

fn bytes(value: &[u8]) -> Cell {
    Cell::Bytes(value.into())
}

impl Tables {
    pub(super) async fn read(admin: &mut Admin) -> Self {
        let mut tables = Self::default();
        for (at, table) in TABLES.iter().enumerate() {
            let kinds: Vec<u8> = table.columns.iter().map(|(_, kind)| *kind).collect();
            for row in admin
                .all(&format!("SELECT * FROM {}", table.name), &kinds)
                .await
            {
                tables.put(at, row);
            }
        }
        tables
    }

    /// The number and text of the head that the database shows.
    pub(super) async fn read_head(admin: &mut Admin) -> Option<(i64, Vec<u8>)> {
        let mut tables = Self::default();
        for row in admin.all("SELECT * FROM head", b"nnbb").await {
            tables.put(HEAD, row);
        }
        tables.head()
    }

    /// Makes these tables of the database what they are here, in one transaction.
    pub(super) async fn write(&self, admin: &mut Admin, which: &[usize]) {
        let rows = |at: &usize| (TABLES[*at].name, self.0[*at].values().collect());
        let tables: Vec<_> = which.iter().map(rows).collect();
        admin.replace(&tables).await;
    }

    pub(in crate::ledger) fn rows(&self, table: usize) -> impl Iterator<Item = &Row> {
        self.0[table].values()
    }

    pub(in crate::ledger) fn row(&self, table: usize, key: &[Cell]) -> Option<&Row> {
        self.0[table].get(key)
    }

    pub(in crate::ledger) fn put(&mut self, table: usize, row: Row) {
        let key = row[..TABLES[table].key].to_vec();
        Arc::make_mut(&mut self.0[table]).insert(key, row);
    }

    pub(in crate::ledger) fn remove(&mut self, table: usize, key: &[Cell]) {
        Arc::make_mut(&mut self.0[table]).remove(key);
    }

    /// This content, but these tables as they are in `other`.
    pub(super) fn with(&self, other: &Self, which: &[usize]) -> Self {
        let mut tables = self.clone();
        for at in which {
            tables.0[*at] = Arc::clone(&other.0[*at]);
        }
        tables
    }

    /// The head's number and text.
    pub(in crate::ledger) fn head(&self) -> Option<(i64, Vec<u8>)> {
        match self.0[HEAD].values().next()?.as_slice() {
            [_, Cell::Number(seq), Cell::Bytes(body), _] => Some((*seq, body.to_vec())),
            _ => None,
        }
    }

    /// What an honest database makes of a batch.
    pub(in crate::ledger) fn apply(&mut self, batch: &Batch) {
        for id in &batch.removed {
            self.remove(RECORDS, &[bytes(id.as_bytes())]);
        }
        for index in &batch.erased {
            self.remove(BODIES, &[number(*index)]);
        }
        for (id, generation, sealed) in &batch.records {
            self.put(
                RECORDS,
                vec![bytes(id.as_bytes()), number(*generation), bytes(sealed)],
            );
        }
        for (bucket, members) in &batch.members {
            self.put(MEMBERS, vec![number((*bucket).into()), bytes(members)]);
        }
        for (bucket, digest) in &batch.digests {
            let row = vec![
                number((*bucket).into()),
                bytes(digest),
                number(batch.head.seq),
            ];
            self.put(DIGESTS, row);
        }
        for (index, leaf) in &batch.entries {
            self.put(ENTRIES, vec![number(*index), bytes(leaf)]);
        }
        for (index, body) in &batch.bodies {
            self.put(
                BODIES,
                vec![number(*index), bytes(&body.salt), bytes(&body.body)],
            );
        }
        for tile in &batch.tiles {
            self.put(
                TILES,
                vec![
                    number(tile.level.into()),
                    number(tile.index),
                    bytes(&tile.data),
                ],
            );
        }
        if let Some(before) = batch.tiles_before {
            let old = |row: &&Row| row[0] == number(0) && row[1] < number(before);
            let keys = self.rows(TILES).filter(old).map(|row| row[..2].to_vec());
            for key in keys.take(16).collect::<Vec<_>>() {
                self.remove(TILES, &key);
            }
        }
        let head = &batch.head;
        self.put(
            HEAD,
            vec![
                Cell::Number(1),
                number(head.seq),
                bytes(&head.body),
                bytes(&head.mac),
            ],
        );
    }
}
