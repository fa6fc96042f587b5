//! Cassandra: the database that grows with the fleet. One handle is one thread with one session.
//!
//! The thread runs a small runtime of its own, since the cluster's driver is asynchronous; the
//! caller submits and fetches as with every other store.

mod breaker;
mod cluster;
mod codec;
mod engine;
mod lease;
mod options;
mod schema;
mod statements;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use store::ledger::Ledger;
use store::{Completion, Query, Store, StoreCounters, StoreHealth, Ticket, Wake};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::clock;
use crate::error::OpenError;
use engine::{Done, Engine, Job};

pub use lease::CassandraLease;
pub use options::{
    CassandraLogin, CassandraOptions, CassandraTls, ReadConsistency, Replication,
    ReplicationStrategy,
};
pub use schema::{ClusterNode, KeyspaceReport};

/// One handle on a cluster. Any number of handles and processes may share the keyspace.
pub struct CassandraStore {
    ledger: Ledger,
    engine: Arc<Engine>,
    /// Completions fetched from the engine and not yet handed out.
    fetched: VecDeque<Done>,
    /// `None`: closed.
    jobs: Option<UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    wake: Wake,
}

impl CassandraStore {
    /// Connects and starts the thread. Waits for the first connection, a few seconds at most.
    ///
    /// # Errors
    ///
    /// What only an operator can mend ([`OpenError`]). A cluster that does not answer right now is
    /// none: the handle says so in its health and serves as soon as it does.
    pub fn open(options: CassandraOptions, wake: Wake) -> Result<Self, OpenError> {
        let runtime = runtime()?;
        let ledger = Ledger::new(options.queries_in_flight_max);
        let engine = Arc::new(Engine::new(options, Arc::clone(&wake)));
        let (jobs, queue) = mpsc::unbounded_channel();
        let (opened, is_open) = std_mpsc::channel();
        let running = Arc::clone(&engine);
        let thread = thread::Builder::new()
            .name("store-cassandra".to_owned())
            .spawn(move || runtime.block_on(run(running, queue, opened)))
            .map_err(|error| local(&error))?;
        is_open.recv().unwrap_or_else(|_| Err(local(&"the driver failed inside")))?;
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Self { ledger, engine, fetched: VecDeque::new(), jobs, thread, wake })
    }
}

async fn run(
    engine: Arc<Engine>,
    queue: UnboundedReceiver<Job>,
    opened: std_mpsc::Sender<Result<(), OpenError>>,
) {
    let result = engine.open().await;
    let is_open = result.is_ok();
    if opened.send(result).is_ok() && is_open {
        engine.run(queue).await;
    }
}

impl Store for CassandraStore {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        if !self.ledger.admit(ticket, &query) {
            (self.wake)();
            return;
        }
        if let Some(jobs) = &self.jobs {
            // The thread takes jobs until this end is dropped.
            let _ = jobs.send(Job { ticket, query, submitted_at: clock::now() });
        }
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        if let Some(refused) = self.ledger.next_refused() {
            return Some(refused);
        }
        if self.fetched.is_empty() {
            self.engine.fetch(&mut self.fetched);
        }
        let Done { kind, latency, completion } = self.fetched.pop_front()?;
        self.ledger.settle(kind, &completion.result, Some(latency));
        Some(completion)
    }

    fn health(&self) -> StoreHealth {
        self.engine.health()
    }

    fn counters(&self) -> StoreCounters {
        StoreCounters { batches: self.engine.requests(), ..self.ledger.counters().clone() }
    }

    fn close(&mut self) {
        self.ledger.close();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Each task delivers its completion even if it panics; here is nothing left to save.
            let _ = thread.join();
        }
    }
}

impl Drop for CassandraStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes the keyspace and its tables, or what of them is missing. May be repeated, and may run
/// while proxies do. Waits.
///
/// # Errors
///
/// A cluster that does not answer, has fewer nodes than copies are wanted, or whose keyspace is of
/// a newer program.
pub fn init(
    options: &CassandraOptions,
    replication: &Replication,
) -> Result<KeyspaceReport, OpenError> {
    wait(schema::init(options, replication))
}

/// What is there. Waits.
///
/// # Errors
///
/// As [`init`], and a keyspace that is missing or older than this program.
pub fn check(options: &CassandraOptions) -> Result<KeyspaceReport, OpenError> {
    wait(schema::check(options))
}

/// Tells which nodes are up, again and again, until it is dropped.
pub async fn watch(
    options: CassandraOptions,
    interval: Duration,
    mut tell: impl FnMut(Vec<ClusterNode>) + Send,
) {
    let mut last: Vec<ClusterNode> = Vec::new();
    let mut session = None;
    loop {
        if last.iter().all(|node| !node.is_up) {
            // The driver's own attempts become rare; and names may lead to new addresses.
            session = cluster::connect(&options).await.ok();
        }
        match &session {
            Some(session) => last = schema::nodes(session),
            None => last.iter_mut().for_each(|node| node.is_up = false),
        }
        tell(last.clone());
        tokio::time::sleep(interval).await;
    }
}

fn wait<T>(future: impl Future<Output = Result<T, OpenError>>) -> Result<T, OpenError> {
    runtime()?.block_on(future)
}

fn runtime() -> Result<Runtime, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error: io::Error| local(&error))
}

fn local(error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Cluster { detail: error.to_string() }
}
