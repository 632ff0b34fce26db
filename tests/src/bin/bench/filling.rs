//! A realm of many accounts: copies of one that was enrolled as anybody is, written by the ledger itself into the stopped
//! daemon's database, each with its events.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use custodyd::account::Account;
use custodyd::ledger::{BUCKET_BITS, EventKind, LedgerError, NewEvent};
use custodyd_hsm::{AccountId, Pool, RecordKind, mac};
use custodyd_tests::TestApp;

use crate::realm::{self, Realm, alike, notes};

/// Names the job that fills a realm.
pub(crate) const FILL: &str = "fill";
/// Accounts that the ledger is given at once: the token's queue holds no more.
const IN_FLIGHT: usize = 240;
/// Identifiers whose place the token is asked for in one call, where most of them are then left out: a few milliseconds.
const DRAWN: usize = 100;

/// Makes the realm of a stopped daemon hold `count` accounts more, all like `template`.
pub(crate) fn fill(app: &TestApp, template: &str, count: usize) {
    realm::job(app, FILL, &[template, &count.to_string()]);
}

/// As [`fill`], with only those of the `count` that share a list with one of `accounts`: their lists become what
/// they would be in the whole realm, whose other lists stay as they are. How many these are.
pub(crate) fn fill_beside(
    app: &TestApp,
    template: &str,
    count: usize,
    accounts: &[String],
) -> usize {
    let count = count.to_string();
    let mut arguments = vec![template, count.as_str()];
    arguments.extend(accounts.iter().map(String::as_str));
    realm::job(app, FILL, &arguments).parse().unwrap()
}

/// The job: `beside` are the accounts of [`fill_beside`], or nobody.
pub(crate) fn job(app: &Path, token: &Path, template: &str, count: usize, beside: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime.block_on(async {
        let realm = Realm::open(app, token).await;
        let id = AccountId::parse(template).unwrap();
        let loaded = realm.ledger.load(&notes(), id).await.unwrap().unwrap();
        let filling = Filling {
            template: Arc::clone(&loaded.account),
            lists: Lists::of(&realm.pool, beside).await,
            count,
            drawn: AtomicUsize::new(0),
            started: Instant::now(),
        };
        drop(loaded);
        let made = filling.done(&realm).await;
        realm.close().await;
        made
    });
    println!("{made}");
}

struct Filling {
    template: Arc<Account>,
    lists: Option<Lists>,
    count: usize,
    drawn: AtomicUsize,
    started: Instant,
}

impl Filling {
    async fn done(self, realm: &Realm) -> usize {
        let filling = Arc::new(self);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (ledger, pool) = (realm.ledger.clone(), realm.pool.clone());
            let filling = Arc::clone(&filling);
            tasks.spawn(async move {
                let mut made = 0;
                while let Some(ids) = filling.next(&pool).await {
                    for id in ids {
                        let account = alike(&filling.template, &ledger, id);
                        let created =
                            ledger.create::<(), LedgerError>(account, &[], |_, _, journal| {
                                journal.note(NewEvent::new(EventKind::AccountCreated));
                                journal.note(NewEvent::new(EventKind::DeviceBound));
                                Ok(())
                            });
                        created.await.unwrap();
                        made += 1;
                    }
                }
                made
            });
        }
        let mut made = 0;
        while let Some(ended) = tasks.join_next().await {
            made += ended.unwrap();
        }
        made
    }

    /// The accounts to be made next; nothing where all are.
    async fn next(&self, pool: &Pool) -> Option<Vec<AccountId>> {
        let most = if self.lists.is_some() { DRAWN } else { 1 };
        let first = self.drawn.fetch_add(most, Ordering::Relaxed);
        let drawn = self
            .count
            .checked_sub(first)
            .filter(|left| *left > 0)?
            .min(most);
        if first > 0 && first.is_multiple_of(100_000) {
            let seconds = self.started.elapsed().as_secs();
            eprintln!("{first} of {} accounts after {seconds} s", self.count);
        }
        let ids = (0..drawn).map(|_| AccountId(realm::random())).collect();
        Some(match &self.lists {
            Some(lists) => lists.holding(pool, ids).await,
            None => ids,
        })
    }
}

/// Some of the realm's lists.
struct Lists(HashSet<u32>);

impl Lists {
    async fn of(pool: &Pool, accounts: &[&str]) -> Option<Self> {
        let ids = accounts.iter().map(|id| AccountId::parse(id).unwrap());
        let placed = placed(pool, ids.collect()).await;
        (!placed.is_empty()).then(|| Self(placed.into_iter().map(|(_, list)| list).collect()))
    }

    async fn holding(&self, pool: &Pool, ids: Vec<AccountId>) -> Vec<AccountId> {
        let placed = placed(pool, ids).await.into_iter();
        let holding = placed.filter(|(_, list)| self.0.contains(list));
        holding.map(|(id, _)| id).collect()
    }
}

/// Each account with the list that it has its place in, or would have.
async fn placed(pool: &Pool, ids: Vec<AccountId>) -> Vec<(AccountId, u32)> {
    let placed = pool.call("record-id", move |token| {
        let place = |id: AccountId| {
            let natural = id.as_bytes();
            let record = mac::record_id(
                token,
                &realm::realm(),
                &notes(),
                RecordKind::Account,
                natural,
            )?;
            Ok((id, record.bucket(BUCKET_BITS)))
        };
        ids.into_iter().map(place).collect()
    });
    placed.await.unwrap()
}
