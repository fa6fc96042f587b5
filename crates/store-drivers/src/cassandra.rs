//! Cassandra: the database that grows with the fleet. One handle is one session.
//!
//! The cluster's driver is asynchronous; its tasks run in a small runtime of their own on the thread
//! that waits for their answers ([`Store::wait`]). A thread beside it would have to be woken for every
//! query and to wake its caller for every answer, which costs more than the query itself.

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
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use store::ledger::Ledger;
use store::{Completion, Query, Store, StoreCounters, StoreHealth, Ticket, Waited};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

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
    /// Submitted since the last wait.
    submitted: Vec<Job>,
    /// Queries on their way.
    tasks: JoinSet<()>,
    /// What the caller waits for besides.
    other: Option<AsyncFd<OwnedFd>>,
    /// There until the handle is dropped.
    runtime: Option<Runtime>,
}

impl CassandraStore {
    /// Connects. Waits for the first connection, a few seconds at most.
    ///
    /// # Errors
    ///
    /// What only an operator can mend ([`OpenError`]). A cluster that does not answer right now is
    /// none: the handle says so in its health and serves as soon as it does.
    pub fn open(options: CassandraOptions) -> Result<Self, OpenError> {
        let ledger = Ledger::new(options.queries_in_flight_max);
        let engine = Arc::new(Engine::new(options));
        let opened = apart(|| {
            let runtime = runtime()?;
            runtime.block_on(engine.open())?;
            Ok(runtime)
        });
        let runtime = opened.unwrap_or_else(|| Err(local(&"the driver failed inside")))?;
        runtime.spawn(Arc::clone(&engine).supervise());
        let (fetched, submitted, tasks) = (VecDeque::new(), Vec::new(), JoinSet::new());
        let (other, runtime) = (None, Some(runtime));
        Ok(Self { ledger, engine, fetched, submitted, tasks, other, runtime })
    }

    /// Begins what was submitted: from inside the runtime, where it takes no system call.
    fn begin(submitted: &mut Vec<Job>, tasks: &mut JoinSet<()>, engine: &Arc<Engine>) {
        for job in submitted.drain(..) {
            tasks.spawn(Arc::clone(engine).serve(job));
        }
    }
}

impl Store for CassandraStore {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        if self.ledger.admit(ticket, &query) {
            self.submitted.push(Job { ticket, query, submitted_at: clock::now() });
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

    fn wait(&mut self, other: Option<BorrowedFd<'_>>, patience: Duration) -> Waited {
        let Self { engine, submitted, tasks, other: watched, runtime, .. } = self;
        let Some(runtime) = runtime else { return Waited::Over };
        runtime.block_on(async {
            while tasks.try_join_next().is_some() {}
            Self::begin(submitted, tasks, engine);
            if watched.is_none()
                && let Some(other) = other
            {
                *watched = register(other).inspect_err(|error| tracing::error!(%error)).ok();
            }
            tokio::select! {
                biased;
                () = engine.news() => {
                    // Together with what has come meanwhile.
                    tokio::task::yield_now().await;
                    Waited::Ready
                }
                () = readable(watched.as_ref()) => Waited::Ready,
                () = pause(patience) => Waited::Over,
            }
        })
    }

    fn health(&self) -> StoreHealth {
        self.engine.health()
    }

    fn counters(&self) -> StoreCounters {
        StoreCounters { batches: self.engine.requests(), ..self.ledger.counters().clone() }
    }

    fn close(&mut self) {
        self.ledger.close();
        let Self { engine, submitted, tasks, runtime, .. } = self;
        let Some(runtime) = runtime else { return };
        let finish = async {
            Self::begin(submitted, tasks, engine);
            // Each task delivers its completion even if it panics; here is nothing left to save.
            while tasks.join_next().await.is_some() {}
        };
        apart(|| runtime.block_on(finish));
    }
}

impl Drop for CassandraStore {
    fn drop(&mut self) {
        self.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where a runtime may be entered: the caller may be a task of another one. `None`: it panicked.
fn apart<T: Send>(act: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| scope.spawn(act).join()).ok()
}

#[expect(deprecated, reason = "what its unsafe heir has the caller promise, an OwnedFd keeps")]
fn register(other: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(other.try_clone_to_owned()?, Interest::READABLE)
}

/// Until the caller's own descriptor becomes readable. What is readable already is the caller's to know.
async fn readable(watched: Option<&AsyncFd<OwnedFd>>) {
    match watched {
        Some(watched) => {
            if let Ok(mut ready) = watched.readable().await {
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

/// Without patience the tasks and their sockets get one turn all the same.
async fn pause(patience: Duration) {
    if patience.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(patience).await;
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
