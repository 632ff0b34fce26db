//! A server whose host has lost its power, as its clients see it: nothing is closed, and nothing comes any more. Another
//! one answers at the same address soon. And a part of a table that takes long, which no request waits for.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex as Lock;
use std::time::Instant;

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::readers::Lent;
use super::*;

/// Longer than an answer takes, and far shorter than anybody would have to wait for none.
const IMPATIENT: Duration = Duration::from_millis(300);

/// The way between a store and its server.
struct Line {
    dir: TempDir,
    /// The server's end of each connection.
    servers: Arc<Lock<Vec<UnixStream>>>,
}

impl Line {
    fn before(server: &PostgresServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!(".s.PGSQL.{}", server.port());
        let listener = UnixListener::bind(dir.path().join(&name)).unwrap();
        let there = server.folder().join(name);
        let servers = Arc::<Lock<Vec<UnixStream>>>::default();
        let known = Arc::clone(&servers);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = UnixStream::connect(&there).unwrap();
                known.lock().unwrap().push(server.try_clone().unwrap());
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || carry(&from, &to));
                std::thread::spawn(move || carry(&client, &server));
            }
        });
        Self { dir, servers }
    }

    /// Whoever is connected hears nothing any more, not even that it is over. Who comes later is served.
    fn falls_silent(&self) {
        for server in self.servers.lock().unwrap().drain(..) {
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    async fn store(&self, scene: &Scene) -> Postgres {
        let place = config::Postgres {
            server: config::Server::Socket {
                folder: self.dir.path().to_owned(),
                port: scene.server.port(),
            },
            ..scene.place.clone()
        };
        let held = Postgres::hold(&place, Share::Alone).await.unwrap();
        Postgres::open(held, &place).await.unwrap()
    }
}

/// Goes on reading what nobody gets.
fn carry(mut from: &UnixStream, mut to: &UnixStream) {
    let mut buffer = vec![0; 65536];
    let mut gone = false;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        gone = gone || to.write_all(&buffer[..read]).is_err();
    }
}

/// A store with two connections for reading that fell silent under two who read: by the store's own way, or as sqlx has
/// it. Says whether somebody who asks later is answered.
async fn after_two_were_broken_off(scene: &Scene, by_ourselves: bool) -> (bool, Postgres) {
    let line = Line::before(&scene.server);
    let store = line.store(scene).await;
    let pool = &store.readers.requests;
    let out = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    drop(out);
    while pool.num_idle() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    line.falls_silent();
    let asking = async || match by_ourselves {
        true => store.head().await.map(drop).is_ok(),
        false => sqlx::query("SELECT seq FROM head")
            .fetch_optional(pool)
            .await
            .is_ok(),
    };
    let (first, second) = tokio::join!(timeout(IMPATIENT, asking()), timeout(IMPATIENT, asking()));
    assert!(first.is_err() && second.is_err(), "they were answered");
    (store.head().await.is_ok(), store)
}

#[tokio::test]
async fn a_server_that_fell_silent_keeps_no_connection_from_who_asks_next() {
    let scene = Scene::new();
    scene.made().await.close().await;
    let (answered, store) = after_two_were_broken_off(&scene, true).await;
    assert!(answered);
    store.close().await;
    // Control: sqlx waits for the answer to a ping, and nobody else is served meanwhile, nor does a stop end by itself.
    let (answered, store) = after_two_were_broken_off(&scene, false).await;
    assert!(!answered);
    let ends = timeout(CONNECTION * 2, store.readers.requests.close()).await;
    assert!(ends.is_err());
    // It ends all the same, because it is bounded.
    let begun = Instant::now();
    store.close().await;
    assert!(begun.elapsed() < ANSWER, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_that_falls_silent_between_two_questions_is_not_waited_for() {
    let scene = Scene::new();
    scene.made().await.close().await;
    for by_ourselves in [true, false] {
        let line = Line::before(&scene.server);
        let store = line.store(&scene).await;
        let pool = &store.readers.requests;
        if by_ourselves {
            let lent = (Lent::of(pool).await.unwrap(), Lent::of(pool).await.unwrap());
            line.falls_silent();
            lent.0.give_back();
            lent.1.give_back();
        } else {
            let lent = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            line.falls_silent();
            drop(lent);
        }
        assert_eq!(store.head().await.is_ok(), by_ourselves);
    }
}

#[tokio::test]
async fn a_part_of_a_table_that_takes_long_leaves_requests_their_connections() {
    let scene = Scene::new();
    let mut place = scene.place.clone();
    place.connections = 1;
    scene.made().await.close().await;
    let held = Postgres::hold(&place, Share::Alone).await.unwrap();
    let store = Postgres::open(held, &place).await.unwrap();
    store.commit(&batch(0, 2)).await.unwrap();
    let server = Arc::clone(&scene.server);
    let database = place.database.clone();
    let locking = std::thread::spawn(move || {
        let lock = "BEGIN; LOCK TABLE custodyd.bucket_members; SELECT pg_sleep(60)";
        server.try_sql(&database, lock)
    });
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while scene.number(locked) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (parts, requests) = (&store.readers.scans, &store.readers.requests);
    for (pool, others_are_served) in [(parts, true), (requests, false)] {
        let mut scan = std::pin::pin!(scan::lists(pool, 0, 100));
        assert!(
            timeout(IMPATIENT, &mut scan).await.is_err(),
            "it is not locked"
        );
        // Control: on the connection of requests it holds everybody up.
        assert_eq!(store.head().await.is_ok(), others_are_served);
    }
    scene
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    assert!(locking.join().unwrap().is_err());
    assert_eq!(store.lists(0, 100).await.unwrap().of_a_test().len(), 2);
}
