//! A server that sends what no server sends. Its answers pass through a hand that spoils one of them, and then hangs up.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex as Lock, MutexGuard};

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use super::super::server::USER;
use super::*;

/// Changes what the server sends, and says whether it has.
type Spoil = Box<dyn FnMut(&mut [u8]) -> bool + Send>;

/// The way between a store and its server.
struct Hand {
    dir: TempDir,
    next: Arc<Lock<Option<Spoil>>>,
    /// Whether what begins a transaction does not come through.
    swallows: Arc<AtomicBool>,
}

/// What begins a transaction, and something as long that does not.
const BEGINS: &[u8] = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const IDLES: &[u8] = b"SELECT 1                                       ";

impl Hand {
    fn before(server: &PostgresServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!(".s.PGSQL.{}", server.port());
        let listener = UnixListener::bind(dir.path().join(&name)).unwrap();
        let there = server.folder().join(name);
        let next = Arc::<Lock<Option<Spoil>>>::default();
        let swallows = Arc::<AtomicBool>::default();
        let shared = (Arc::clone(&next), Arc::clone(&swallows));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                carry(client, &there, &shared);
            }
        });
        Self {
            dir,
            next,
            swallows,
        }
    }

    fn swallow(&self, swallows: bool) {
        self.swallows.store(swallows, Ordering::SeqCst);
    }

    /// The next answer for which this says so.
    fn spoil(&self, spoil: impl FnMut(&mut [u8]) -> bool + Send + 'static) {
        *locked(&self.next) = Some(Box::new(spoil));
    }

    fn has_spoilt(&self) -> bool {
        locked(&self.next).is_none()
    }

    fn stop(&self) {
        *locked(&self.next) = None;
    }

    /// A store whose connections all pass through here.
    async fn store(&self, scene: &Scene) -> Postgres {
        let place = self.place(&scene.place);
        let held = Postgres::hold(&place, Share::Alone).await.unwrap();
        Postgres::open(held, &place).await.unwrap()
    }

    fn place(&self, place: &config::Postgres) -> config::Postgres {
        let config::Server::Socket { port, .. } = place.server else {
            unreachable!()
        };
        config::Postgres {
            server: config::Server::Socket {
                folder: self.dir.path().to_owned(),
                port,
            },
            ..place.clone()
        }
    }
}

fn locked(next: &Lock<Option<Spoil>>) -> MutexGuard<'_, Option<Spoil>> {
    next.lock().unwrap()
}

type Ways = (Arc<Lock<Option<Spoil>>>, Arc<AtomicBool>);

fn carry(client: UnixStream, there: &Path, (next, swallows): &Ways) {
    let Ok(server) = UnixStream::connect(there) else {
        return;
    };
    let (mut asked, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let swallows = Arc::clone(swallows);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(read @ 1..) = asked.read(&mut buffer) {
            let bytes = &mut buffer[..read];
            let mut begins = bytes.windows(BEGINS.len());
            if swallows.load(Ordering::SeqCst)
                && let Some(at) = begins.position(|window| window == BEGINS)
            {
                bytes[at..at + IDLES.len()].copy_from_slice(IDLES);
            }
            if to_server.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut answers, mut to_client) = (server, client);
    let next = Arc::clone(next);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(read @ 1..) = answers.read(&mut buffer) {
            let mut bytes = buffer[..read].to_vec();
            let mut next = locked(&next);
            let spoilt = next.as_mut().is_some_and(|spoil| spoil(&mut bytes));
            if spoilt {
                *next = None;
            }
            drop(next);
            if to_client.write_all(&bytes).is_err() || spoilt {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = answers.shutdown(Shutdown::Both);
    });
}

/// Where each message of an answer begins, and its type.
fn messages(bytes: &[u8]) -> Vec<(usize, u8)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + 5) {
        found.push((at, head[0]));
        at += 1 + u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize;
    }
    found
}

fn first(bytes: &[u8], kind: u8) -> Option<usize> {
    let mut all = messages(bytes).into_iter();
    all.find_map(|(at, found)| (found == kind).then_some(at))
}

fn set_length(bytes: &mut [u8], at: usize, length: u32) {
    bytes[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
}

/// A message of this type that is shorter than the length of its length.
fn shorter_than_its_length(kind: u8) -> impl FnMut(&mut [u8]) -> bool + Send + 'static {
    move |bytes| {
        let at = first(bytes, kind);
        if let Some(at) = at {
            set_length(bytes, at, 1);
        }
        at.is_some()
    }
}

/// The answer to what the server names so, shorter than the length of its length.
fn shortens_the_answer_to(
    command: &'static [u8],
) -> impl FnMut(&mut [u8]) -> bool + Send + 'static {
    let mut shorten = shorter_than_its_length(b'C');
    move |bytes| {
        let named = bytes.windows(command.len()).any(|window| window == command);
        named && shorten(bytes)
    }
}

/// A row whose first value says that it goes on beyond the row's end.
fn beyond_its_end(bytes: &mut [u8]) -> bool {
    let at = first(bytes, b'D');
    if let Some(at) = at {
        bytes[at + 7..at + 11].copy_from_slice(&100_000_u32.to_be_bytes());
        bytes[at + 5..at + 7].copy_from_slice(&1_u16.to_be_bytes());
    }
    at.is_some()
}

/// A row that has no columns at all.
fn no_columns(bytes: &mut [u8]) -> bool {
    let at = first(bytes, b'D');
    if let Some(at) = at {
        bytes[at + 5..at + 7].copy_from_slice(&0_u16.to_be_bytes());
    }
    at.is_some()
}

#[tokio::test]
async fn what_the_driver_panics_at_is_a_server_that_is_away() {
    let scene = Scene::new();
    drop(scene.made().await);
    let hand = Hand::before(&scene.server);
    // The control: without the store's seam one such answer ends the task that reads it.
    let options = PgConnectOptions::new()
        .host("localhost")
        .socket(hand.dir.path())
        .port(scene.server.port())
        .username(USER)
        .database(&scene.place.database);
    let mut plain = options.connect().await.unwrap();
    hand.spoil(shorter_than_its_length(b'T'));
    let reading = tokio::spawn(async move {
        let asked = sqlx::query("SELECT seq FROM custodyd.head");
        asked.fetch_optional(&mut plain).await.map(drop)
    });
    assert!(reading.await.unwrap_err().is_panic());
    assert!(hand.has_spoilt());

    let store = hand.store(&scene).await;
    store.commit(&batch(0, 2)).await.unwrap();
    let mut refused = 0;
    for round in 0..90 {
        if round >= 9 && refused > 2 {
            break;
        }
        let spoil: Spoil = match round % 3 {
            0 => Box::new(shorter_than_its_length(b'D')),
            1 => Box::new(beyond_its_end),
            _ => Box::new(no_columns),
        };
        hand.spoil(spoil);
        // It may have been the answer to a new connection that was spoilt: then another one is opened.
        refused += u32::from(store.record(&id(1), 1).await.is_err());
        assert!(hand.has_spoilt(), "{round}");
        assert_eq!(seq(&store).await, 1);
    }
    assert!(refused > 2, "{refused}");
    // Of a commit nobody knows then what has become of it, and the next one finds a way.
    hand.spoil(shortens_the_answer_to(b"COMMIT\0"));
    let unknown = store.commit(&batch(1, 2)).await;
    assert!(
        matches!(unknown, Err(CommitError::Unknown(_))),
        "{unknown:?}"
    );
    assert!(hand.has_spoilt());
    assert_eq!(seq(&store).await, 2);
    written(&store, 2).await;
    // One that has not begun is known not to be written.
    hand.spoil(shorter_than_its_length(b'C'));
    let refused = store.commit(&batch(3, 2)).await;
    assert!(
        matches!(refused, Err(CommitError::NotWritten(_))),
        "{refused:?}"
    );
    assert!(hand.has_spoilt());
    written(&store, 3).await;
}

/// Whatever stands before the server does nothing upon BEGIN, and each statement is one of its own.
#[tokio::test]
async fn no_head_moves_where_no_transaction_was_begun() {
    let scene = Scene::new();
    drop(scene.made().await);
    let hand = Hand::before(&scene.server);
    let store = hand.store(&scene).await;
    store.commit(&batch(0, 2)).await.unwrap();
    hand.swallow(true);
    let refused = store.commit(&batch(1, 2)).await;
    assert!(
        matches!(&refused, Err(CommitError::LostRace)),
        "{refused:?}"
    );
    assert_eq!(seq(&store).await, 1);
    // The control: it is there, and the same batch is written.
    hand.swallow(false);
    written(&store, 1).await;
}

/// The tables are made through the same seam as everything else.
#[tokio::test]
async fn a_realm_is_not_begun_by_an_answer_that_the_driver_panics_at() {
    let scene = Scene::new();
    let hand = Hand::before(&scene.server);
    let place = hand.place(&scene.place);
    let mut held = Postgres::hold(&place, Share::Alone).await.unwrap();
    hand.spoil(shortens_the_answer_to(b"CREATE "));
    let refused = held.make().await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    assert!(hand.has_spoilt());
}

/// Of the head that the store shows. One of its connections may be found to be closed first.
async fn seq(store: &Postgres) -> u64 {
    for _ in 0..50 {
        if let Ok(head) = store.head().await {
            return head.of_a_test().unwrap().seq;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing can be read any more");
}

/// The connection of before may not be missed yet by the server.
async fn written(store: &Postgres, parent: u64) {
    for _ in 0..50 {
        if store.commit(&batch(parent, 2)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing can be written any more");
}

/// The same numbers each time.
fn drawing() -> impl FnMut() -> u64 {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    }
}

/// One byte of an answer.
fn turning((place, turned): (u64, u64)) -> impl FnMut(&mut [u8]) -> bool {
    move |bytes| {
        let at = usize::try_from(place).unwrap_or(0) % bytes.len();
        let turn = |bytes: &mut [u8]| bytes[at] ^= turned.to_le_bytes()[0] | 1;
        turn(bytes);
        // Room for gigabytes that never come is a matter of the host's, not of this test.
        let fits = |bytes: &[u8]| {
            let mut all = messages(bytes).into_iter();
            all.all(|(at, _)| bytes[at + 1] == 0 && bytes[at + 2] < 4)
        };
        if !fits(bytes) {
            turn(bytes);
        }
        true
    }
}

/// The same of what begins a turn among other nodes.
#[tokio::test]
async fn no_turn_panics_whatever_bytes_its_answer_has() {
    let scene = Scene::new();
    drop(scene.made().await);
    let hand = Hand::before(&scene.server);
    let place = hand.place(&scene.place);
    let held = Postgres::hold(&place, Share::Among).await.unwrap();
    let store = Postgres::open(held, &place).await.unwrap();
    store.commit(&batch(0, 2)).await.unwrap();
    let mut draw = drawing();
    let before = store.connections();
    for _ in 0..80 {
        hand.spoil(turning((draw(), draw())));
        // Where a connection has said what none says, it is tried on another one.
        let _ = store.take_turn().await;
        hand.stop();
        store.end_turn().await;
    }
    let others = store.connections() - before;
    assert!(others > 20, "{others}");
    store.take_turn().await.unwrap();
    store.commit(&batch(1, 2)).await.unwrap();
    store.end_turn().await;
    assert_eq!(seq(&store).await, 2);
}

/// Bytes of answers are turned over at places that a fixed sequence chooses. Whatever is read or written then ends as
/// an answer or an error.
#[tokio::test]
async fn no_answer_panics_whatever_bytes_it_has() {
    let scene = Scene::new();
    drop(scene.made().await);
    let hand = Hand::before(&scene.server);
    let store = hand.store(&scene).await;
    store.commit(&batch(0, 2)).await.unwrap();
    let mut draw = drawing();
    let mut refused = 0;
    for round in 0..120 {
        hand.spoil(turning((draw(), draw())));
        let failed = match round % 4 {
            0 => store.head().await.is_err(),
            1 => store.record(&id(1), 1).await.is_err(),
            2 => store.leaves(0, 2).await.is_err(),
            _ => store.entries(0, 2).await.is_err(),
        };
        refused += u64::from(failed);
        hand.stop();
    }
    assert!(refused > 20, "{refused}");
    assert_eq!(seq(&store).await, 1);
    written(&store, 1).await;
}
