//! The realm of a daemon that is stopped, opened in this program: to fill it, and to measure its
//! ledger without a network in between.
//!
//! A program sees one SoftHSM2 token for its whole life, so each job is this program once more, with
//! the token of that daemon in its environment.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use custodyd::account::Account;
use custodyd::clock::Clock;
use custodyd::ledger::{self, Cache, Ledger, LedgerError, Mode, Settings};
use custodyd::store::{Exclusive, Sqlite, Store};
use custodyd_hsm::backend::pkcs11::Pkcs11Backend;
use custodyd_hsm::{AccountId, AppId, Pool, PoolOptions, RealmName, SecretBytes};
use custodyd_tests::TestApp;
use custodyd_tests::app::REALM;
use custodyd_tests::token::SoftToken;
use tokio::task::JoinHandle;

/// What the daemon of a test has for its cache.
const CACHE: usize = 64 << 20;

pub(crate) struct Realm {
    pub(crate) ledger: Ledger,
    pub(crate) pool: Pool,
    store: Arc<dyn Store>,
    writing: JoinHandle<Result<(), LedgerError>>,
}

/// Does `job` on the realm of a daemon that is stopped; what it printed last.
pub(crate) fn job(app: &TestApp, job: &str, arguments: &[&str]) -> String {
    let (name, value) = app.token.environment();
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(job)
        .arg(app.dir.path())
        .arg(app.token.dir())
        .args(arguments)
        .env(name, value)
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{job}: {}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().last().unwrap_or_default().to_owned()
}

impl Realm {
    pub(crate) async fn open(app: &Path, token: &Path) -> Self {
        let options = SoftToken::attach(token).options();
        let pool = Pool::start(
            Arc::new(Pkcs11Backend::new(options)),
            PoolOptions::default(),
        );
        let pool = pool.unwrap();
        let lock = Exclusive::take(&app.join("custodyd.sqlite")).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(lock).await.unwrap());
        let clock = Arc::new(Clock::default());
        let settings = Settings {
            cache: Cache::new(CACHE),
            mode: Mode::Strict,
            configuration: [0; 32],
            escrowed: false,
            public_log: false,
        };
        let opened = ledger::open(&store, &pool, &realm(), &clock, settings).await;
        let (ledger, writing) = opened.unwrap().serve(clock);
        Self {
            ledger,
            pool,
            store,
            writing: tokio::spawn(writing),
        }
    }

    /// Everything is written and closed, as a daemon leaves it.
    pub(crate) async fn close(self) {
        drop(self.ledger);
        self.writing.await.unwrap().unwrap();
        self.store.close().await;
        tokio::task::spawn_blocking(move || self.pool.shutdown())
            .await
            .unwrap();
    }
}

pub(crate) fn realm() -> RealmName {
    RealmName::parse(REALM).unwrap()
}

pub(crate) fn notes() -> AppId {
    AppId::parse("notes").unwrap()
}

/// Another account with the same factors, devices and secrets.
pub(crate) fn alike(template: &Account, ledger: &Ledger, id: AccountId) -> Account {
    let key = SecretBytes::from(random::<32>().to_vec());
    let fresh = Account::new(realm(), notes(), id, ledger.now(), key);
    let mut account = template.clone();
    account.id = fresh.id;
    account.generation = fresh.generation;
    account.trail = fresh.trail;
    account
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}
