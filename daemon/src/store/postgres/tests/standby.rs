//! Commits whose wait for a standby the server ends: they are there, and nothing may be answered upon them yet.

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::task::JoinHandle;

use super::super::server::USER;
use super::*;

impl Scene {
    /// Commits wait for this standby from now on, or for none.
    fn wait_for(&self, standby: &str) {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'");
        self.server.sql("postgres", &set);
        self.server.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Ends the wait of a commit by this function, once there is one that waits.
    async fn end_wait(&self, by: &str) {
        let waiting =
            format!("SELECT count({by}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        while self.number(&waiting) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn plain(&self) -> PgConnection {
        let options = PgConnectOptions::new()
            .host("localhost")
            .socket(self.server.folder())
            .port(self.server.port())
            .username(USER)
            .database(&self.place.database);
        options.connect().await.unwrap()
    }
}

fn writing(store: &Arc<Postgres>, parent: u64) -> JoinHandle<Result<(), CommitError>> {
    let store = Arc::clone(store);
    tokio::spawn(async move { store.commit(&batch(parent, 2)).await })
}

/// The connection of before may not be missed yet by the server.
async fn acknowledged(store: &Postgres, head: &HeadRow) -> Result<(), CommitError> {
    let mut done = store.acknowledge(head).await;
    for _ in 0..50 {
        if done.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        done = store.acknowledge(head).await;
    }
    done
}

async fn is_not_acknowledged_until_a_standby_has_it(by: &str) {
    let scene = Scene::new();
    let store = Arc::new(scene.made().await);
    store.commit(&batch(0, 2)).await.unwrap();
    scene.wait_for("nobody");
    let commit = writing(&store, 1);
    scene.end_wait(by).await;
    // The server has ended the commit's wait: it is there, and nobody else has it.
    let unknown = commit.await.unwrap();
    assert!(
        matches!(unknown, Err(CommitError::Unknown(_))),
        "{by}: {unknown:?}"
    );
    let head = store.head().await.unwrap().of_a_test().unwrap();
    assert_eq!(head, batch(1, 2).head);
    let early = tokio::time::timeout(Duration::from_millis(700), store.acknowledge(&head)).await;
    assert!(!matches!(early, Ok(Ok(()))), "{by}: {early:?}");
    // Control: once nobody is waited for, it is; and another head than the one that is there never.
    scene.wait_for("");
    acknowledged(&store, &head).await.unwrap();
    let other = store.acknowledge(&batch(0, 2).head).await;
    assert!(matches!(other, Err(CommitError::LostRace)), "{other:?}");
    store.commit(&batch(2, 2)).await.unwrap();
}

#[tokio::test]
async fn a_head_that_no_standby_has_is_not_acknowledged() {
    is_not_acknowledged_until_a_standby_has_it("pg_terminate_backend").await;
}

#[tokio::test]
async fn a_commit_that_is_answered_with_a_warning_is_not_acknowledged() {
    is_not_acknowledged_until_a_standby_has_it("pg_cancel_backend").await;
}

/// The acknowledgement is a commit like any other: one that is cancelled is none.
#[tokio::test]
async fn an_acknowledgement_that_is_cancelled_is_none() {
    let scene = Scene::new();
    let store = Arc::new(scene.made().await);
    store.commit(&batch(0, 2)).await.unwrap();
    scene.wait_for("nobody");
    let touching = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.acknowledge(&batch(0, 2).head).await })
    };
    scene.end_wait("pg_cancel_backend").await;
    let unknown = touching.await.unwrap();
    assert!(
        matches!(unknown, Err(CommitError::Unknown(_))),
        "{unknown:?}"
    );
}

/// The control of the two above: whoever does not listen takes a commit that its server was told not to wait for as done.
#[tokio::test]
async fn who_does_not_listen_takes_a_cancelled_commit_as_done() {
    let scene = Scene::new();
    let mut plain = scene.plain().await;
    sqlx::query("CREATE TABLE public.scratch (one integer)")
        .execute(&mut plain)
        .await
        .unwrap();
    scene.wait_for("nobody");
    let commit = tokio::spawn(async move {
        let mut transaction = plain.begin().await?;
        sqlx::query("INSERT INTO public.scratch VALUES (1)")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    });
    scene.end_wait("pg_cancel_backend").await;
    commit.await.unwrap().unwrap();
    assert_eq!(scene.number("SELECT count(*) FROM public.scratch"), 1);
}
