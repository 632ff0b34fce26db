//! The connections that read: those of requests, one for each that may not wait behind these, and one that goes over
//! whole tables.
//!
//! Called by the store beside it. A server whose host has lost its power closes nothing and says nothing, and a kernel
//! goes on for a quarter of an hour before it gives such a connection up. So one is given back only after an answer that
//! came whole; every other is closed at once and without a word, and its place is free. Must never wait for a
//! server without a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Postgres};
use tokio::time::timeout;

use super::super::Asker;
use super::answers::{ANSWER, within};
use super::connect::{self, Server};
use super::{CONNECTION, FRESH, StoreError};

/// One for all: who goes over a table waits until another has its part.
const SCANNERS: u32 = 1;
/// It asks one thing after the other.
const COMMITTERS: u32 = 1;
/// Each reads a row or two, and others of them wait for no longer than that.
const ENDS: u32 = 1;
/// There is one look at a time (`ledger/looks.rs`).
const LOOKS: u32 = 1;

#[derive(Debug)]
pub(super) struct Readers {
    pub(super) requests: PgPool,
    ends: PgPool,
    looks: PgPool,
    /// Counts the connections that there have been for these three.
    opened: Arc<AtomicU64>,
    /// The committer waits for no request's: a guess that is charged would count as a wrong one.
    pub(super) committer: PgPool,
    /// A part of a table takes as long as it takes: no request waits for its connection.
    pub(super) scans: PgPool,
}

impl Readers {
    /// Each has checked the schema, and can not write.
    pub(super) async fn of(server: &Server, connections: u32) -> Result<Self, StoreError> {
        let opened = Arc::new(AtomicU64::new(0));
        let counted = |connections| {
            let count = Arc::clone(&opened);
            options(connections, CONNECTION).after_connect(move |connection, _| {
                count.fetch_add(1, Ordering::AcqRel);
                Box::pin(connect::checked(connection))
            })
        };
        let requests = counted(connections).connect_with(server.reading());
        let requests = within("open the database", requests).await?;
        let ends = counted(ENDS).connect_lazy_with(server.reading());
        let looks = counted(LOOKS).connect_lazy_with(server.reading());
        let committer = options(COMMITTERS, CONNECTION).connect_lazy_with(server.reading());
        let scans = options(SCANNERS, ANSWER).connect_lazy_with(server.reading());
        Ok(Self {
            requests,
            ends,
            looks,
            opened,
            committer,
            scans,
        })
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// Those that this task is to ask.
    pub(super) fn of_whoever_asks(&self) -> &PgPool {
        match Asker::current() {
            Asker::Request => &self.requests,
            Asker::Committer => &self.committer,
            Asker::End => &self.ends,
            Asker::Look => &self.looks,
        }
    }

    /// Those that are out come back when their statements end, or nobody waits for them any more.
    pub(super) async fn close(&self) {
        let closed = async {
            tokio::join!(
                self.requests.close(),
                self.ends.close(),
                self.looks.close(),
                self.committer.close(),
                self.scans.close()
            )
        };
        if timeout(CONNECTION, closed).await.is_err() {
            tracing::warn!("the database's server does not answer: its connections are dropped");
        }
    }
}

fn options(connections: u32, patience: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        // None that it has to keep: it would go on opening that for minutes, and not be closed before.
        .max_connections(connections)
        .acquire_timeout(patience)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // One that has lain idle may be of a server that is gone.
        .before_acquire(|connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < FRESH || is_well(connection).await?) })
        })
        .after_connect(|connection, _| Box::pin(connect::checked(connection)))
}

/// An error where it says nothing: then it is closed without a farewell, which nobody would hear.
async fn is_well(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match timeout(FRESH, connection.ping()).await {
        Ok(answered) => answered.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// A connection for one question.
pub(super) struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    pub(super) async fn of(readers: &PgPool) -> Result<Self, sqlx::Error> {
        readers.acquire().await.map(|lent| Self(Some(lent)))
    }

    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// After an answer that came whole. sqlx asks the server once more whether it is well, and would wait for that
    /// for ever.
    pub(super) fn give_back(mut self) {
        if let Some(mut lent) = self.0.take() {
            tokio::spawn(timeout(FRESH, lent.return_to_pool()));
        }
    }
}

impl Drop for Lent {
    /// Whoever asked has waited for long enough, or what came was none of a server's.
    fn drop(&mut self) {
        if let Some(lent) = self.0.take() {
            drop(lent.detach());
        }
    }
}
