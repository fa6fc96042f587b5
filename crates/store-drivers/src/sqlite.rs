//! SQLite: the embedded default. One file in WAL mode, shared by the processes of one machine.
//!
//! A handle has two lanes, each a thread with a connection of its own: reads never wait for a
//! write, neither for its lock nor for its disk. On a file in memory the reads of the call path need
//! no thread: they are answered at once.

mod at_once;
mod batch;
mod codec;
mod file;
mod lane;
mod lease;
mod statements;
mod write_lock;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::ledger::Ledger;
use store::limits::QUERIES_IN_FLIGHT_MAX;
use store::{Completion, Query, QueryKind, Store, StoreCounters, StoreHealth, Ticket, Wake};

use crate::clock;
use crate::error::OpenError;
use at_once::AtOnce;
use file::{File, Missing};
use lane::{Done, Job, Lane, Outbox, Work};
pub use write_lock::WriteLock;

pub use lease::SqliteLease;

/// How a handle behaves; the defaults suit a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// How long a query may wait for the lock of another process before it is
    /// [`Unavailable`](store::StoreError::Unavailable).
    pub busy_timeout: Duration,
    /// Queries without a fetched completion; one more is refused at once.
    pub queries_in_flight_max: usize,
    /// The file lies in memory: credentials and bindings are read within `submit`, since no disk is
    /// waited for. One that meets a lock goes the usual way.
    pub is_in_memory: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(1),
            queries_in_flight_max: QUERIES_IN_FLIGHT_MAX,
            is_in_memory: false,
        }
    }
}

/// One handle on a file. Any number of handles and processes may share the file.
pub struct SqliteStore {
    ledger: Ledger,
    outbox: Arc<Outbox>,
    /// Completions fetched from the lanes and not yet handed out.
    fetched: VecDeque<Done>,
    at_once: Option<Box<AtOnce>>,
    readers: Lane,
    writers: Lane,
    wake: Wake,
}

impl SqliteStore {
    /// Opens the file, making it if need be (mode 0600), and starts the lanes.
    ///
    /// # Errors
    ///
    /// What only an operator can mend ([`OpenError`]). A file that is locked right now is none.
    pub fn open(path: &Path, wake: Wake, options: SqliteOptions) -> Result<Self, OpenError> {
        let SqliteOptions { busy_timeout, queries_in_flight_max, is_in_memory } = options;
        let outbox = Arc::new(Outbox::new(Arc::clone(&wake)));
        let lane = |work| {
            let file = match File::open(path, busy_timeout, Missing::Create) {
                Ok(file) => Ok(file),
                Err(error) if error.is_transient() => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            Lane::start(work, path, busy_timeout, file, Arc::clone(&outbox))
                .map_err(|source| OpenError::File { path: path.to_owned(), source })
        };
        let (writers, readers) = (lane(Work::Writes)?, lane(Work::Reads)?);
        let at_once = if is_in_memory { Some(Box::new(AtOnce::open(path)?)) } else { None };
        let ledger = Ledger::new(queries_in_flight_max);
        let fetched = VecDeque::new();
        Ok(Self { ledger, outbox, fetched, at_once, readers, writers, wake })
    }
}

impl Store for SqliteStore {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        if !self.ledger.admit(ticket, &query) {
            (self.wake)();
            return;
        }
        let submitted_at = clock::now();
        let at_once = self.at_once.as_mut();
        if let Some(result) = at_once.and_then(|it| it.answer(&query, submitted_at)) {
            let latency = clock::now().saturating_duration_since(submitted_at);
            let completion = Completion { ticket, result };
            return self.fetched.push_back(Done { kind: query.kind(), latency, completion });
        }
        let lane = match query.kind() {
            QueryKind::Credential
            | QueryKind::Bindings
            | QueryKind::CredentialList
            | QueryKind::BindingList => &self.readers,
            QueryKind::Write | QueryKind::CredentialChange | QueryKind::BindingDelete => {
                &self.writers
            }
        };
        lane.submit(Job { ticket, query, submitted_at });
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        if let Some(refused) = self.ledger.next_refused() {
            return Some(refused);
        }
        if self.fetched.is_empty() {
            self.outbox.fetch(&mut self.fetched);
        }
        let Done { kind, latency, completion } = self.fetched.pop_front()?;
        self.ledger.settle(kind, &completion.result, Some(latency));
        Some(completion)
    }

    fn health(&self) -> StoreHealth {
        self.outbox.health()
    }

    fn counters(&self) -> StoreCounters {
        let (batches, rows_swept) = self.outbox.totals();
        let batches = batches + self.at_once.as_ref().map_or(0, |it| it.answered());
        StoreCounters { batches, rows_swept, ..self.ledger.counters().clone() }
    }

    fn close(&mut self) {
        self.ledger.close();
        self.at_once = None;
        // One after the other: the last connection to leave folds the WAL into the file, and of two
        // that leave at once neither knows to be the last.
        self.readers.end();
        self.writers.end();
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}
