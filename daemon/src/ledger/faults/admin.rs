//! An administrator at the rig's database: keeps rows, puts them back, and vouches for them.

use custodyd_hsm::{RecordId, RecordKind, seal};

use super::rig::Rig;
use crate::ledger::BUCKET_BITS;
use crate::ledger::members::{Member, MemberList};
use crate::store::admin::{Admin, Value};

/// A record's row and its entry in the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    generation: i64,
    pub(super) sealed: Vec<u8>,
    pub(super) member: Member,
}

fn bucket(id: &RecordId) -> Value<'static> {
    Value::Number(id.bucket(BUCKET_BITS).into())
}

impl Rig {
    pub(super) async fn admin(&self) -> Admin {
        self.place.admin().await
    }

    /// Runs a statement about one record; it must change something.
    pub(super) async fn sql(&self, sql: &str, id: &RecordId) {
        let values = [Value::Bytes(id.as_bytes())];
        assert_eq!(self.admin().await.run(sql, &values).await, 1, "{sql}");
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        self.admin().await.number(sql).await
    }

    pub(super) async fn list(&self, id: &RecordId) -> MemberList {
        let sql = "SELECT bucket, members FROM bucket_members WHERE bucket = ?";
        let (_, members) = self.admin().await.row(sql, &[bucket(id)]).await;
        MemberList::parse(&members).unwrap()
    }

    pub(super) async fn put_list(&self, id: &RecordId, list: &MemberList) {
        let members = list.encode();
        let sql = "UPDATE bucket_members SET members = ? WHERE bucket = ?";
        let values = [Value::Bytes(&members), bucket(id)];
        assert_eq!(self.admin().await.run(sql, &values).await, 1);
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
        let sql = "SELECT generation, sealed FROM records WHERE id = ?";
        let values = [Value::Bytes(id.as_bytes())];
        let (generation, sealed) = self.admin().await.row(sql, &values).await;
        Kept {
            generation,
            sealed,
            member: *self.list(id).await.get(id).unwrap(),
        }
    }

    pub(super) async fn put_row(&self, id: &RecordId, kept: &Kept) {
        let sql = "INSERT OR REPLACE INTO records (id, generation, sealed) VALUES (?, ?, ?)";
        let sealed = Value::Bytes(&kept.sealed);
        let values = [
            Value::Bytes(id.as_bytes()),
            Value::Number(kept.generation),
            sealed,
        ];
        self.admin().await.run(sql, &values).await;
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
