//! The databases behind the location service and the credentials.
//!
//! # Where it sits
//!
//! Floor 3. Implements the seam of `store`; only the binary knows which driver it opens.
//!
//! # Invariants
//!
//! - Nothing of a database keeps the caller's thread but [`open`], `close` and [`Store::wait`], in which
//!   the caller wants to wait.
//! - Every ticket gets exactly one completion: from a locked, missing or damaged file too, and when
//!   the handle is closed.
//! - A file that was locked, missing or replaced is served again without a restart.
//! - All drivers pass one suite, `store::contract`.
//!
//! # Reading order
//!
//! `sqlite` (the handle) → `sqlite/lane` (the threads) → `sqlite/statements` (the queries) →
//! `sqlite/file` and `sqlite/schema.sql` (the file) → `temporary` (the same file in memory) →
//! `cassandra` (the handle) → `cassandra/engine` (its tasks) → `cassandra/statements` and
//! `cassandra/schema.cql` (the queries, the tables) → `credential_cache` (before any of them) →
//! `lease` (which manager leads; `sqlite/lease`, `cassandra/lease`) → `admin` and `copy` (for the command line).

pub mod admin;
pub mod cassandra;
mod clock;
pub mod copy;
pub mod credential_cache;
mod error;
pub mod lease;
pub mod sqlite;
pub mod temporary;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use store::{
    Completion, MemoryStore, Query, Store, StoreCounters, StoreHealth, Ticket, Waited, Wake,
};

pub use cassandra::{CassandraOptions, CassandraStore};
pub use credential_cache::{CacheOptions, CredentialCache};
pub use error::OpenError;
pub use lease::open_lease;
pub use sqlite::{SqliteOptions, SqliteStore};
pub use temporary::TemporaryFolder;

/// Which database, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// Inside this process and gone with it; no other process sees it. For tests.
    InProcess,
    /// One SQLite file that any number of processes of this machine share.
    Sqlite { path: PathBuf, options: SqliteOptions },
    /// A keyspace of a Cassandra cluster that any number of machines share.
    Cassandra(CassandraOptions),
}

impl StoreLocation {
    /// The SQLite file at `path`, with the default options.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self::Sqlite { path: path.into(), options: SqliteOptions::default() }
    }

    /// The same for a file that lies in memory (`tmpfs`).
    pub fn sqlite_in_memory(path: impl Into<PathBuf>) -> Self {
        let options = SqliteOptions { is_in_memory: true, ..SqliteOptions::default() };
        Self::Sqlite { path: path.into(), options }
    }
}

/// Opens a store. `wake` is called after completions were queued.
///
/// A locked file is no error: the driver starts, says so in its health, and serves as soon as the
/// lock is gone.
///
/// # Errors
///
/// What only an operator can mend: see [`OpenError`].
pub fn open(location: &StoreLocation, wake: Wake) -> Result<Driver, OpenError> {
    Ok(match location {
        StoreLocation::InProcess => Driver::Memory(MemoryStore::new(wake)),
        StoreLocation::Sqlite { path, options } => {
            Driver::Sqlite(SqliteStore::open(path, wake, options.clone())?)
        }
        StoreLocation::Cassandra(options) => {
            Driver::Cassandra(CassandraStore::open(options.clone())?)
        }
    })
}

/// A store of any kind: an enum, since the call path pays for each indirection.
pub enum Driver {
    Memory(MemoryStore),
    Sqlite(SqliteStore),
    Cassandra(CassandraStore),
}

impl Store for Driver {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        match self {
            Self::Memory(store) => store.submit(ticket, query),
            Self::Sqlite(store) => store.submit(ticket, query),
            Self::Cassandra(store) => store.submit(ticket, query),
        }
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        match self {
            Self::Memory(store) => store.poll_completion(),
            Self::Sqlite(store) => store.poll_completion(),
            Self::Cassandra(store) => store.poll_completion(),
        }
    }

    fn wait(&mut self, other: Option<BorrowedFd<'_>>, patience: Duration) -> Waited {
        match self {
            Self::Memory(store) => store.wait(other, patience),
            Self::Sqlite(store) => store.wait(other, patience),
            Self::Cassandra(store) => store.wait(other, patience),
        }
    }

    fn health(&self) -> StoreHealth {
        match self {
            Self::Memory(store) => store.health(),
            Self::Sqlite(store) => store.health(),
            Self::Cassandra(store) => store.health(),
        }
    }

    fn counters(&self) -> StoreCounters {
        match self {
            Self::Memory(store) => store.counters(),
            Self::Sqlite(store) => store.counters(),
            Self::Cassandra(store) => store.counters(),
        }
    }

    fn close(&mut self) {
        match self {
            Self::Memory(store) => store.close(),
            Self::Sqlite(store) => store.close(),
            Self::Cassandra(store) => store.close(),
        }
    }
}
