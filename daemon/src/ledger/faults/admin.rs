//! An administrator at the rig's database: keeps rows, puts them back, and vouches for them.

use custodyd_hsm::{RecordId, RecordKind, seal};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::rig::Rig;
use crate::ledger::BUCKET_BITS;
use crate::ledger::members::{Member, MemberList};

/// A record's row and its entry in the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) generation: i64,
    pub(super) sealed: Vec<u8>,
    pub(super) member: Member,
}

impl Rig {
    async fn connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.file());
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// Runs a statement about one record; it must change something.
    pub(super) async fn sql(&self, sql: &str, id: &RecordId) {
        let done = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_bytes().as_slice())
            .execute(&mut self.connection().await)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 1, "{sql}");
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        let row = sqlx::query(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap();
        row.get(0)
    }

    pub(super) async fn list(&self, id: &RecordId) -> MemberList {
        let row = sqlx::query("SELECT members FROM bucket_members WHERE bucket = ?")
            .bind(id.bucket(BUCKET_BITS))
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap();
        MemberList::parse(&row.get::<Vec<u8>, _>(0)).unwrap()
    }

    pub(super) async fn put_list(&self, id: &RecordId, list: &MemberList) {
        sqlx::query("UPDATE bucket_members SET members = ? WHERE bucket = ?")
            .bind(list.encode())
            .bind(id.bucket(BUCKET_BITS))
            .execute(&mut self.connection().await)
            .await
            .unwrap();
    }

    /// Takes the record out of its list, and returns the list as it was.
    pub(super) async fn unlist(&self, id: &RecordId) -> MemberList {
        let list = self.list(id).await;
        let mut without = list.clone();
        without.remove(id);
        self.put_list(id, &without).await;
        list
    }

    pub(super) async fn row(&self, id: &RecordId) -> Kept {
        let row = sqlx::query("SELECT generation, sealed FROM records WHERE id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap();
        Kept {
            generation: row.get(0),
            sealed: row.get(1),
            member: *self.list(id).await.get(id).unwrap(),
        }
    }

    pub(super) async fn put_row(&self, id: &RecordId, kept: &Kept) {
        sqlx::query("INSERT OR REPLACE INTO records (id, generation, sealed) VALUES (?, ?, ?)")
            .bind(id.as_bytes().as_slice())
            .bind(kept.generation)
            .bind(&kept.sealed)
            .execute(&mut self.connection().await)
            .await
            .unwrap();
    }

    /// A member list that says that this record has this content.
    pub(super) async fn vouch(&self, id: &RecordId, kept: &Kept) {
        let mut list = self.list(id).await;
        list.put(Member {
            id: *id,
            digest: seal::digest(&kept.sealed),
            ..kept.member
        });
        self.put_list(id, &list).await;
    }

    pub(super) async fn change_kind(&self, id: &RecordId, kind: u8) {
        let mut list = self.list(id).await;
        let member = *list.get(id).unwrap();
        list.put(Member {
            kind: RecordKind::try_from(kind).unwrap(),
            ..member
        });
        self.put_list(id, &list).await;
    }
}
