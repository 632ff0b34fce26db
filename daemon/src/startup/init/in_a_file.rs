//! `init` with SQLite: the realm is made whole beside its place, and moved there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{already_there, made, made_realm, of_new_realm};
use crate::backend::{pool, provision};
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger;
use crate::startup::{StartError, system};
use crate::store::{Exclusive, Held, Sqlite, Store};

pub(super) async fn init(
    config: &Config,
    place: &Path,
    finish: bool,
) -> Result<Vec<String>, StartError> {
    let lock = Exclusive::take(place)?;
    if place.exists() {
        return already_there(config, Held::File(lock), finish).await;
    }
    let keys = provision(config)?;
    let pool = pool(config, None)?;
    let escrow = of_new_realm(config, &pool).await?;
    // Written beside its place and moved there whole, so that a crash leaves no half realm.
    let draft = draft_of(place);
    remove_draft(&draft)?;
    {
        let store: Arc<dyn Store> = Arc::new(Sqlite::create(Exclusive::take(&draft)?).await?);
        let now = Clock::default().now();
        ledger::realm::create(&store, &pool, &config.realm.name, escrow, now).await?;
        store.close().await;
    }
    publish(&draft, place).map_err(system(format!("move the database to {}", place.display())))?;
    remove_draft(&draft)?;
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(lock).await?);
    let anchored = ledger::realm::anchor_first(&store, &pool, &config.realm.name).await;
    store.close().await;
    pool.shutdown();
    anchored?;
    Ok(vec![made(&keys), made_realm(config)])
}

/// Where the database stands until it is whole. Its stem is its own, so that its lock is
/// another file than the real one, which `init` holds all the while.
fn draft_of(place: &Path) -> PathBuf {
    let mut name = place.file_stem().unwrap_or_default().to_owned();
    name.push("-init.sqlite");
    place.with_file_name(name)
}

/// What SQLite and the lock put beside a draft goes with it; the real lock is never touched.
fn remove_draft(draft: &Path) -> Result<(), StartError> {
    let beside = |suffix: &str| {
        let mut name = draft.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock = Exclusive::lock_of(draft);
    for path in [draft.to_owned(), beside("-wal"), beside("-shm"), lock] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(system(format!("remove {}", path.display()))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// After a crash here: the database is at its place or it is not, and once this has returned
/// it stays there, because the folder's own entry was written, too.
fn publish(draft: &Path, place: &Path) -> std::io::Result<()> {
    std::fs::rename(draft, place)?;
    let folder = match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_draft_and_its_lock_are_other_files_than_the_realms() {
        for place in ["/var/lib/custodyd.sqlite", "custodyd", "a.b/c.d.db"] {
            let place = Path::new(place);
            let draft = draft_of(place);
            assert_ne!(draft, place);
            assert_eq!(draft.parent(), place.parent());
            assert_ne!(Exclusive::lock_of(&draft), Exclusive::lock_of(place));
        }
    }

    #[tokio::test]
    async fn removing_a_draft_leaves_the_held_lock_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("custodyd.sqlite");
        let held = Exclusive::take(&place).unwrap();
        let draft = draft_of(&place);
        Sqlite::create(Exclusive::take(&draft).unwrap())
            .await
            .unwrap()
            .close()
            .await;
        publish(&draft, &place).unwrap();
        remove_draft(&draft).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["custodyd.lock", "custodyd.sqlite"]);
        // A second process finds the same file, and finds it held.
        assert!(Exclusive::take(&place).is_err());
        drop(held);
        Sqlite::open(Exclusive::take(&place).unwrap())
            .await
            .unwrap();
    }
}
