//! The database's administrator against the daemon: each attack is done to real rows, behind
//! the back of the real daemon, and seen through real requests.
//!
//! Each attack has a control, in which the same tool does something that the daemon must
//! accept: the honest row written back is served again, so it is the defence that refuses and
//! not a broken test.
//!
//! | attack | what is changed | which defence | what remains |
//! |---|---|---|---|
//! | swap envelopes | `records.sealed`, member entries too | seal bound to the record | denial of service |
//! | another app's envelope | `records.sealed`, member entries too | seal bound to the app | the same |
//! | flip a byte | blob, member list | digest, AEAD, strict parsing | the same |
//! | delete, cut, extend, inflate a row | `records` | member list, digest, bounds in SQL | the same |
//! | forge a generation | `records.generation` | member list, seal | the same |
//! | delete, empty, disorder a member list | `bucket_members` | strict parsing, presence of the row | the same |
//! | delete, edit, swap event bodies and leaves | `log_*` | commitment, sealing, chain of numbers | the same |
//! | edit, cut, delete a tile; edit or delete an entry that an auditor reads | `log_tiles`, `log_entries` | each is verified up to the checkpoint's root before it leaves | the same |
//! | replace an event's salt, and its leaf to fit | `log_*` | inclusion proof of every event that is shown | the same |
//! | remove, replace or pretend a tombstone | `records`, member entries too | seal bound to kind and generation | the same |
//! | delete bodies, forge an erasure leaf | `log_*` | a living account's trail has no gap above its mark (retention's side: `ledger/faults/retiring.rs`) | the same |
//! | the account's own events of a history that was given up, put among the true ones | `log_*` | every event is looked for in the log before it is told, or its body deleted (`ledger/faults/attacks/trails.rs`) | the same |
//! | member lists taken away while retention or a count comes by | `bucket_members` | state tree in memory (`ledger/faults/retiring.rs`) | what the lists name is left out, and that is counted |
//! | delete, repoint, swap, re-insert the record of an alias | `records`, member entries too | member list, seal bound to the record, both directions | the same |
//! | swap the envelopes of accounts with contacts | `records.sealed`, member entries too | seal bound to the record | the same |
//! | swap the envelopes of two who are signed in | the same | the same | the same |
//! | insert a session | any table | none is read for one | nothing |
//! | trigger, view, table, other file, other realm | schema, file | checks at start | the same |
//! | trigger named like SQLite's own tables | schema, bytes of the file | every row of the schema is compared | the same |
//! | trigger made while we run | schema | its change counter, in every commit | nobody can write, and the daemon is not ready, until it is gone |
//! | a row where the log's next entry belongs | `log_entries` | no row is written over; readiness, the scrub and the log name it | the same |
//! | (a server's) a lock on a table that nobody lets go | locks | readiness | the same |
//! | old version of an account: guesses, consumed ceremonies, used codes | record and member list | state tree in memory | denial of service for its bucket |
//! | used TOTP step, spent recovery code, counted attempts | the same | the same | the same |
//! | finished login by OPAQUE, charged start of one | the same | the same | the same |
//! | the realm's record, with the seed of its OPAQUE keys | `records.sealed`, member entries too | the same; at the start, the state tree | the same |
//! | the envelope of an erased account in place of its tombstone | the same | the same | the same |
//! | an alias without record and member entry | the same | the same | the same |
//! | a session of a removed device, one that was signed out | the same | the same | the same |
//! | old version of everything, while the daemon runs | every row | state tree in memory; the head must be the batch's parent | nothing is written upon it: the daemon ends at the first change, and does not start upon it |
//! | old version of everything, before it starts | the file | anchor in the token | it does not start, and says why |
//! | (a server's) trigger, rule, view in place of a table | schema | checks at start, and in every commit | the same |
//! | (a server's) another database under the name of ours, while the daemon runs | all of it | the same as of every row; the head must be the batch's parent | the daemon stops, and says why at its start |
//! | (a server's) the daemon's lock taken away, or a copy put beneath it, and a second daemon let in | locks, names of databases | each second the token says whose anchor is the newest, before anything is read | the first one ends |
//! | two copies of the database alternated | the file | the same | the same |
//! | old version of everything under bounded anchoring, after a kill | the file | warm anchor | it does not start |
//! | the same after a loss of power | the file | boot epoch: every account pays for the guess that may be forgotten | other events of the last interval are taken back |
//! | (several nodes) one node shown an older state, or put on a copy | all of it | each second, and by every batch, the token says what others have anchored | the node reads and writes for nobody |
//! | (several nodes) two nodes on a database each, at the same moment | all of it | the token is asked once more after an anchor was made | one of them goes on |
//! | (several nodes) a row, a member list or the head put back, or taken away, between two nodes' turns | `records`, `bucket_members`, `head` | as with one node; in its turn a node asks the token, too | denial of service until it is back |
//! | (several nodes) the batches of another realm, or of a node with a copy of the token, in place of ours | every row | realm in the head; consistency with the log that is known | the same |
//! | (several nodes) a batch that nobody was told of rolled back, another node on without it | every row | the anchors of both are compared before either is told of | the first gives way |
//! | (several nodes) batches lost beneath nodes that have told of them | every row | the nodes write them again, as they were | denial of service where a node that wrote one is gone |
//! | (several nodes) a node frozen while somebody is signed out at another, its lock taken away, its connection cut after `COMMIT` | processes, locks, connections | the clock of what the token has said; the head's number; the log says whether a batch is beneath another | nothing |
//! | a failover token behind: old version of everything, the token that was given up then, the other one away | the file | a start wants every token that the head names, by serial number | an operator who says that the other token is lost brings guesses back |
//! | old version of everything and of the token | the file, the token's directory | **none on this host: it is a token's duty not to be put back**; witnesses tell of it (`e2e/witnesses/put_back.rs`) | guesses come back |
//!
//! What concerns one node and its ledger is tried much faster, and with each defence switched off as
//! control, inside the daemon: `daemon/src/ledger/faults/` (`attacks/`, `adversary.rs`). What needs
//! several nodes is there, too (`faults/nodes.rs`), and with real daemons in `nodes` beside this file; in `tests/postgres` is what
//! processes, connections, locks and standbys do to them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod aliases;
mod codes;
mod erased;
mod events;
mod log;
mod nodes;
mod opaque;
mod records;
mod rollback;
mod schema;
mod server;
mod signed_in;
mod tokens;

use std::time::{Duration, Instant};

use custodyd_tests::admin::literal;
use custodyd_tests::{Admin, Device, Setup, TestApp};

/// What follows `INSERT INTO log_bodies SELECT * FROM b WHERE true`, and the same of entries, to put rows back that may be there.
const PUT_BODIES: &str =
    "ON CONFLICT (idx) DO UPDATE SET salt = excluded.salt, body = excluded.body";
const PUT_ENTRIES: &str = "ON CONFLICT (idx) DO UPDATE SET leaf = excluded.leaf";

/// A daemon that keeps nothing in memory, so that each request reads what the administrator has
/// written. What memory does to an attack is in `records`.
async fn uncached() -> TestApp {
    uncached_with(Setup::default()).await
}

async fn uncached_with(setup: Setup) -> TestApp {
    let cache_mib = 0;
    TestApp::with(Setup { cache_mib, ..setup }).await
}

/// An account with a PIN and a secret, and its row.
async fn victim(app: &TestApp, name: &str) -> (Device, Row) {
    let mut device = app.device(name);
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    let mut admin = app.admin().await;
    let (id, generation, sealed) = admin.accounts().await.pop().unwrap();
    (
        device,
        Row {
            id,
            generation,
            sealed,
        },
    )
}

/// Asks for readiness until it fails because nothing is written, for this reason. Other checks may have failed before.
async fn unready(app: &TestApp, why: &str) {
    let is = |said: &str| said.contains("\"check\":\"writes\"") && said.contains(why);
    readiness(app, |status, said| status == 503 && is(said)).await;
}

/// Asks for readiness until it is given.
async fn ready(app: &TestApp) {
    readiness(app, |status, _| status == 200).await;
}

async fn readiness(app: &TestApp, wanted: impl Fn(u16, &str) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, said) = app.operator("/readyz").await;
        if wanted(status, &said) {
            return;
        }
        assert!(Instant::now() < give_up, "{status} {said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    id: Vec<u8>,
    generation: i64,
    sealed: Vec<u8>,
}

impl Row {
    /// The bucket is the top 16 bits of the identifier, which anybody can see.
    fn bucket(&self) -> u32 {
        u32::from(self.id[0]) << 8 | u32::from(self.id[1])
    }

    /// Writes the row back as it was.
    async fn restore(&self, admin: &mut Admin) {
        let changed = admin
            .run(&format!(
                "INSERT INTO records (id, generation, sealed) VALUES ({0}, {1}, {2}) \
                 ON CONFLICT (id) DO UPDATE SET generation = {1}, sealed = {2}",
                literal(&self.id),
                self.generation,
                literal(&self.sealed)
            ))
            .await;
        assert_eq!(changed, 1);
    }

    async fn set_sealed(&self, admin: &mut Admin, sealed: &[u8]) {
        let sql = format!(
            "UPDATE records SET sealed = {} WHERE id = {}",
            literal(sealed),
            literal(&self.id)
        );
        assert_eq!(admin.run(&sql).await, 1);
    }

    async fn members(&self, admin: &mut Admin) -> Vec<u8> {
        admin
            .blob(&format!(
                "SELECT members FROM bucket_members WHERE bucket = {}",
                self.bucket()
            ))
            .await
    }

    async fn set_members(&self, admin: &mut Admin, members: &[u8]) {
        let sql = format!(
            "UPDATE bucket_members SET members = {} WHERE bucket = {}",
            literal(members),
            self.bucket()
        );
        assert_eq!(admin.run(&sql).await, 1);
    }

    /// A member list that says that this record has this content: what an administrator who
    /// has read the format can write.
    async fn vouch_for(&self, admin: &mut Admin, generation: i64, sealed: &[u8]) {
        let mut members = self.members(admin).await;
        let at = members
            .windows(32)
            .position(|window| window == self.id)
            .unwrap()
            + 32;
        members[at..at + 8].copy_from_slice(&generation.to_be_bytes());
        members[at + 8..at + 40].copy_from_slice(&custodyd_hsm::seal::digest(sealed));
        self.set_members(admin, &members).await;
    }
}

impl From<(Vec<u8>, i64, Vec<u8>)> for Row {
    fn from((id, generation, sealed): (Vec<u8>, i64, Vec<u8>)) -> Self {
        Self {
            id,
            generation,
            sealed,
        }
    }
}

/// A record as it stood at a moment, and its bucket's member list of that moment.
struct Version {
    row: Row,
    members: Vec<u8>,
}

impl Version {
    /// As the record of this row stands now.
    async fn of(admin: &mut Admin, row: &Row) -> Self {
        let rows = admin.accounts().await;
        let row = rows.into_iter().find(|(id, ..)| *id == row.id).unwrap();
        let row = Row::from(row);
        let members = row.members(admin).await;
        Self { row, members }
    }

    async fn put_back(&self, admin: &mut Admin) {
        self.row.restore(admin).await;
        self.row.set_members(admin, &self.members).await;
    }
}

/// What the owner gets while the row is damaged, and that only the owner suffers.
async fn refused(device: &mut Device) {
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("500 record-tampered");
}

async fn served(device: &mut Device) {
    device.call("GET", "/v1/account", None).await.expect(200);
}
