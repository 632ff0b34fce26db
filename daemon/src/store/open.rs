//! The configured database, whichever it is: held, made, opened, looked at.
//!
//! Called by `startup` and by the commands that need no daemon. What tells the two kinds apart stops
//! here: the ledger sees a `Store`.

use std::sync::Arc;

use super::postgres::{self, Postgres, Share};
use super::sqlite::{Exclusive, Sqlite};
use super::{Store, StoreError};
use crate::config::{self, Database};

/// The right to write to the database.
#[derive(Debug)]
pub enum Held<'a> {
    File(Exclusive),
    Server(Box<postgres::Held>, &'a config::Postgres),
}

impl<'a> Held<'a> {
    /// # Errors
    /// When another process has it, or the database can not be reached.
    pub async fn take(database: &'a Database) -> Result<Self, StoreError> {
        match database {
            Database::Sqlite(file) => Ok(Self::File(Exclusive::take(file)?)),
            Database::Postgres(place) => {
                let held = Postgres::hold(place, Share::Alone).await?;
                Ok(Self::Server(Box::new(held), place))
            }
        }
    }

    /// The right to serve from it: of a node, beside others.
    ///
    /// # Errors
    /// As `take`.
    pub async fn to_serve(database: &'a Database) -> Result<Self, StoreError> {
        match database {
            Database::Postgres(place) if place.several_nodes => {
                let held = Postgres::hold(place, Share::Among).await?;
                Ok(Self::Server(Box::new(held), place))
            }
            other => Self::take(other).await,
        }
    }

    /// Opens the database and refuses any schema that is not exactly ours.
    ///
    /// # Errors
    /// When it is not there, not custodyd's, of another version, or altered.
    pub async fn open(self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::File(lock) => Arc::new(Sqlite::open(lock).await?),
            Self::Server(held, place) => Arc::new(Postgres::open(*held, place).await?),
        })
    }
}

/// Opens the database to look at it, with the right to write where nobody may write meanwhile.
///
/// # Errors
/// As `Held::open`.
pub async fn look(
    database: &Database,
    held: Option<Held<'_>>,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match (database, held) {
        (Database::Sqlite(file), Some(Held::File(lock))) => {
            Arc::new(Sqlite::look(file, Some(lock)).await?)
        }
        (Database::Sqlite(file), _) => Arc::new(Sqlite::look(file, None).await?),
        (Database::Postgres(place), Some(Held::Server(held, _))) => {
            Arc::new(Postgres::look(place, Some(*held)).await?)
        }
        (Database::Postgres(place), _) => Arc::new(Postgres::look(place, None).await?),
    })
}
