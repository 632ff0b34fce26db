//! What the administrator's hand does to the tables.

use super::super::broken::{After, Anchor, Commit, Script};
use super::super::tables::{BODIES, DIGESTS, ENTRIES, HEAD, MEMBERS, RECORDS, Row, TABLES, Tables};
use super::super::truth::{Ask, Violation};
use super::{EVERYTHING, Run, TRAIL, mirror};
use crate::store::admin::Cell;
use crate::store::{Batch, HeadRow};

impl Run {
    /// One tampering.
    pub(super) async fn tamper(&mut self) {
        self.tamperings += 1;
        match self.dice.below(24) {
            0..=11 => self.edit().await,
            12..=14 => self.version().await,
            15 | 16 => self.tables().await,
            17 => self.whole().await,
            18 => self.state().await,
            19 => self.trigger().await,
            20 => self.forge().await,
            21 => self.twin().await,
            22 => self.between(),
            _ => self.forgetful(),
        }
    }

    fn backup(&mut self) -> Tables {
        // The latest ones are the most dangerous.
        let back = match self.dice.below(3) {
            0 => self.dice.below(self.history.len()),
            1 => self.dice.below(self.history.len().min(8)),
            _ => self.dice.below(self.history.len().min(3)),
        };
        self.history[self.history.len() - 1 - back].clone()
    }

    fn some_row(&mut self, tables: &Tables, table: usize) -> Option<Row> {
        let count = tables.rows(table).count();
        if count == 0 {
            return None;
        }
        tables.rows(table).nth(self.dice.below(count)).cloned()
    }

    async fn put_row(&mut self, table: usize, row: &Row) {
        self.dirty.push(table);
        self.admin.put(TABLES[table].name, row).await;
    }

    /// A row is edited, deleted, doubled, mixed with another, or put back.
    async fn edit(&mut self) {
        let table = self.dice.below(TABLES.len());
        let now = mirror(&self.rig);
        let Some(mut row) = self.some_row(&now, table) else {
            return;
        };
        let columns = TABLES[table].columns;
        let first = usize::from(table == HEAD);
        let at = first + self.dice.below(columns.len() - first);
        let what = self.dice.below(5);
        self.trace.push(format!(
            "edit {what} of {}.{}",
            TABLES[table].name, columns[at].0
        ));
        match what {
            0 => {
                self.dirty.push(table);
                let key = (columns[0].0, &row[0]);
                self.admin.delete(TABLES[table].name, key).await;
                return;
            }
            1 => {
                // A column of another row, of now or of then.
                let from = if self.dice.chance(50) {
                    self.backup()
                } else {
                    now
                };
                if let Some(other) = self.some_row(&from, table) {
                    row[at] = other[at].clone();
                }
            }
            2 => {
                let backup = self.backup();
                match self.some_row(&backup, table) {
                    Some(other) => row = other,
                    None => return,
                }
            }
            _ => {
                let dice = &mut self.dice;
                row[at] = match &row[at] {
                    Cell::Number(number) => Cell::Number(match dice.below(4) {
                        0 => number + 1,
                        1 => number - 1,
                        2 => -1,
                        _ => i64::MAX,
                    }),
                    Cell::Bytes(bytes) => {
                        let mut bytes = bytes.to_vec();
                        match dice.below(4) {
                            0 => bytes.truncate(bytes.len() / 2),
                            1 => bytes.push(0),
                            _ if bytes.is_empty() => bytes.push(1),
                            _ => {
                                let place = dice.below(bytes.len());
                                bytes[place] ^= 1 << dice.below(8);
                            }
                        }
                        Cell::Bytes(bytes.into())
                    }
                };
            }
        }
        self.put_row(table, &row).await;
    }

    /// A record as it was, and the list that vouched for it.
    async fn version(&mut self) {
        let backup = self.backup();
        let Some(row) = self.some_row(&backup, RECORDS) else {
            return;
        };
        let Cell::Bytes(id) = &row[0] else { return };
        let bucket = Cell::Number(i64::from(id[0]) << 8 | i64::from(id[1]));
        let list = backup.row(MEMBERS, std::slice::from_ref(&bucket)).cloned();
        let digest = backup.row(DIGESTS, std::slice::from_ref(&bucket)).cloned();
        self.trace.push("version".into());
        self.put_row(RECORDS, &row).await;
        if let Some(list) = list {
            self.put_row(MEMBERS, &list).await;
        }
        if let Some(digest) = digest.filter(|_| self.dice.chance(50)) {
            self.put_row(DIGESTS, &digest).await;
        }
    }

    async fn put_back(&mut self, backup: &Tables, which: &[usize]) {
        self.trace.push(format!(
            "put back {which:?} of {:?}",
            backup.head().map(|head| head.0)
        ));
        self.dirty.extend(which);
        backup.write(&mut self.admin, which).await;
    }

    /// Any tables as they were.
    async fn tables(&mut self) {
        let backup = self.backup();
        let chosen = self.dice.next();
        let which: Vec<_> = EVERYTHING
            .into_iter()
            .filter(|at| chosen >> at & 1 == 1)
            .collect();
        self.put_back(&backup, &which).await;
    }

    async fn whole(&mut self) {
        let backup = self.backup();
        self.put_back(&backup, &EVERYTHING).await;
    }

    async fn state(&mut self) {
        let backup = self.backup();
        let which = if self.dice.chance(70) {
            [RECORDS, MEMBERS, DIGESTS].to_vec()
        } else {
            TRAIL.to_vec()
        };
        self.put_back(&backup, &which).await;
    }

    async fn trigger(&mut self) {
        if self.trigger {
            return;
        }
        let triggers = [
            "AFTER UPDATE ON records BEGIN UPDATE records SET sealed = OLD.sealed WHERE id = OLD.id; END",
            "AFTER UPDATE ON bucket_members BEGIN DELETE FROM bucket_members; END",
            "BEFORE INSERT ON log_entries BEGIN SELECT RAISE(IGNORE); END",
            "AFTER INSERT ON log_bodies BEGIN DELETE FROM log_bodies; END",
        ];
        let trigger = triggers[self.dice.below(triggers.len())];
        self.trace.push("trigger".into());
        self.trigger = true;
        // It may change what the administrator himself does next.
        self.dirty.extend(EVERYTHING);
        let sql = format!("CREATE TRIGGER t {trigger}");
        self.admin.script(&sql).await;
    }

    /// The next batch, made from what everybody knows; only its MAC is not to be had.
    async fn forge(&mut self) {
        if !self.rig.is_serving() {
            return;
        }
        let backup = self.backup();
        let forged = {
            let memory = self.rig.ledger().reader.memory();
            let believed = memory.read();
            let mut batch = Batch::after(believed.head.state.seq);
            for row in backup.rows(MEMBERS) {
                if let [Cell::Number(bucket), Cell::Bytes(list)] = row.as_slice() {
                    let bucket = u32::try_from(*bucket).unwrap();
                    batch.members.push((bucket, list.to_vec()));
                }
            }
            let next = believed.next(believed.head.clone(), &mut batch).unwrap();
            batch.head = HeadRow {
                seq: next.head.state.seq,
                body: next.head.encode().unwrap(),
                mac: vec![7; 32],
            };
            let mut tables = mirror(&self.rig).with(&backup, &[RECORDS]);
            tables.apply(&batch);
            tables
        };
        self.put_back(&forged, &EVERYTHING).await;
    }

    /// Another content of the same number, where a batch was given up once.
    async fn twin(&mut self) {
        let now = mirror(&self.rig);
        let twins: Vec<Row> = self
            .history
            .iter()
            .flat_map(|tables| tables.rows(RECORDS))
            .filter(|row| {
                now.row(RECORDS, &row[..1])
                    .is_some_and(|ours| ours[1] == row[1] && ours[2] != row[2])
            })
            .cloned()
            .collect();
        if twins.is_empty() {
            return self.version().await;
        }
        let row = twins[self.dice.below(twins.len())].clone();
        self.trace.push("twin".into());
        self.put_row(RECORDS, &row).await;
    }

    /// A batch is taken back before it is anchored, another made in its place, and then the content
    /// of the one is put in the place of the other's.
    pub(super) async fn give_up(&mut self) -> Result<(), Violation> {
        if !self.rig.is_serving() {
            return Ok(());
        }
        self.faulty = true;
        let who = self.dice.below(self.people.len());
        let before = mirror(&self.rig);
        self.rig.anchoring(&[Anchor::Lost]);
        self.ask(who, Ask::Succeed).await?;
        self.rig.anchoring(&[]);
        self.tamperings += 1;
        self.put_back(&before, &EVERYTHING).await;
        self.restart().await?;
        self.ask(who, Ask::Guess).await?;
        self.tamperings += 1;
        self.other_event().await;
        self.ask(who, Ask::Events).await?;
        self.tamperings += 1;
        self.twin().await;
        self.ask(who, Ask::Read).await
    }

    /// The event of a batch that was given up, in the place of what came instead: it has the same number.
    async fn other_event(&mut self) {
        let now = mirror(&self.rig);
        let Some(newest) = now.rows(BODIES).last() else {
            return;
        };
        let is_lost = |row: &&Row| now.rows(BODIES).all(|ours| ours[1..] != row[1..]);
        let given_up = self.history.iter().rev().find_map(|tables| {
            let body = tables.rows(BODIES).filter(is_lost).last()?;
            Some([tables.row(ENTRIES, &body[..1])?.clone(), body.clone()])
        });
        let Some(given_up) = given_up else { return };
        self.trace.push("other event".into());
        for (table, mut row) in [ENTRIES, BODIES].into_iter().zip(given_up) {
            row[0] = newest[0].clone();
            self.put_row(table, &row).await;
        }
    }

    /// Something is put back in the middle of the next change.
    fn between(&mut self) {
        if !self.rig.is_serving() {
            return;
        }
        let backup = self.backup();
        let after = if self.dice.chance(70) {
            After::Lists
        } else {
            After::Commit
        };
        self.trace.push(format!("strike {after:?}"));
        self.dirty.extend([RECORDS, MEMBERS]);
        self.rig.strike(after, &backup, &[RECORDS, MEMBERS]);
    }

    /// The next commit is acknowledged, and dropped.
    fn forgetful(&mut self) {
        if !self.rig.is_serving() {
            return;
        }
        self.trace.push("dropped commit".into());
        self.dirty.extend(EVERYTHING);
        self.rig.script(Script::new(&[Commit::Dropped], &[], &[]));
    }
}
