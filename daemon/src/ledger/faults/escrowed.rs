//! The kind of realm stands in its record, and a configuration of the other kind is refused.

use std::sync::Arc;

use custodyd_policies::Timestamp;

use super::rig::{Rig, realm_name};
use crate::escrow::Escrowed;
use crate::ledger::{LedgerError, check, realm};
use crate::store::{Exclusive, Sqlite, Store};

/// What a start says of a realm of one kind, configured as of the other.
async fn start(escrow: Option<Escrowed>, configured: bool) -> Result<(), LedgerError> {
    let mut rig = Rig::new().await;
    rig.stop().await;
    if let Some(escrow) = escrow {
        let place = rig.file().with_file_name("escrowed.sqlite");
        let lock = Exclusive::take(&place).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::create(lock).await.unwrap());
        let now = Timestamp(1000);
        realm::create(&store, rig.pool(), &realm_name(), Some(escrow), now)
            .await
            .unwrap();
        // The token is the rig's and remembers the rig's realm: only the record is looked at.
        let checked = realm::kind_of(&store, rig.pool(), &realm_name(), configured).await;
        store.close().await;
        return checked;
    }
    let store: Arc<dyn Store> = Arc::new(
        Sqlite::open(Exclusive::take(&rig.file()).unwrap())
            .await
            .unwrap(),
    );
    let checked = check(&store, rig.pool(), &realm_name(), rig.mode(), configured).await;
    store.close().await;
    checked
}

#[tokio::test]
async fn a_realm_stays_of_its_kind() {
    let escrow = Escrowed {
        ceremony: "c0ffee".into(),
        needed: 2,
        custodians: 3,
    };
    start(None, false).await.unwrap();
    start(Some(escrow.clone()), true).await.unwrap();
    let said = start(None, true).await.unwrap_err().to_string();
    assert!(said.contains("nobody else ever had"), "{said}");
    let said = start(Some(escrow), false).await.unwrap_err().to_string();
    assert!(
        said.contains("2 of 3 custodians") && said.contains("c0ffee"),
        "{said}"
    );
}
