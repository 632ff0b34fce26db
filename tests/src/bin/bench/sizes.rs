//! What a recovery leaves in the database: while its events' bodies are kept, and for good.
//!
//! Pages that hold something, of a stopped daemon's file: before and after some thousand recoveries, and after
//! retention has taken the bodies of all of them. Before the first look the bodies that came with the accounts have
//! gone as well, so that only what recoveries have left is counted.

use std::path::Path;

use custodyd_hsm::AccountId;
use custodyd_tests::TestApp;
use tokio::runtime::Runtime;

use crate::cpu;
use crate::load::Crowd;
use crate::realm::{self, Realm, notes};
use crate::report::Figure;

/// Names the job that does what retention does, to every account at once.
pub(crate) const RETIRE: &str = "retire";
/// Names what measures this alone.
pub(crate) const SIZES: &str = "sizes";
/// Recoveries of each account.
const EACH: usize = 20;

/// Takes the bodies of all events of these accounts.
pub(crate) fn retire(app: &Path, token: &Path, accounts: &[&str]) {
    Runtime::new().unwrap().block_on(async {
        let realm = Realm::open(app, token).await;
        for account in accounts {
            let id = AccountId::parse(account).unwrap();
            let loaded = realm.ledger.load(&notes(), id).await.unwrap().unwrap();
            realm.ledger.retire(loaded, |_| true).await.unwrap();
        }
        realm.close().await;
    });
}

async fn bytes(app: &TestApp) -> f64 {
    let held = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, \
                pragma_freelist_count, pragma_page_size";
    app.admin().await.number(held).await as f64
}

/// With a daemon of its own.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    println!("what a recovery leaves ...");
    let mut app = runtime.block_on(TestApp::start());
    let mut crowd = Crowd::of_a_few(&app);
    let accounts = crowd.accounts();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let retired = |app: &mut TestApp| {
        assert!(app.stop(), "{}", app.log());
        let kept = runtime.block_on(bytes(app));
        realm::job(app, RETIRE, &accounts);
        let left = runtime.block_on(bytes(app));
        runtime.block_on(app.launch());
        (kept, left)
    };
    let (_, begun) = retired(&mut app);
    let mut recoveries = 0.0;
    for _ in 0..EACH {
        recoveries += crowd.passkeys_once(cpu::child("custodyd")).sample.count;
    }
    let (kept, left) = retired(&mut app);
    let each = |bytes: f64| (bytes - begun) / recoveries;
    vec![
        Figure::new(
            "bytes_per_recovery",
            each(kept),
            "bytes",
            "of the database, with its events' bodies",
        ),
        Figure::new(
            "bytes_per_recovery_retired",
            each(left),
            "bytes",
            "after retention: for good",
        )
        .beside("bytes_per_recovery", each(left) / each(kept)),
    ]
}
