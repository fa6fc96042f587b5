//! The tasks behind a handle: carry out queries, repeat what failed, find the cluster again.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::{Answer, Completion, Query, QueryKind, StoreError, StoreHealth, Ticket};
use tokio::sync::{Notify, Semaphore};

use super::breaker::Breaker;
use super::options::CassandraOptions;
use super::statements::{Fault, SLOW_DEADLINE, Statements};
use super::{cluster, schema};
use crate::clock;
use crate::error::OpenError;

/// Queries that are with the cluster at the same time; the others wait here, where they can still
/// be given up. More gives a node no more throughput, only longer answers.
const CONCURRENCY: usize = 128;

/// Before a query that failed is sent once more.
const SECOND_TRY_PAUSE: Duration = Duration::from_millis(20);

/// How often the cluster is asked when all is well, and when it is not.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const RECONNECT_INTERVAL: Duration = Duration::from_millis(250);

/// How long the cluster may take for one of these questions.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A query on its way.
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) query: Query,
    pub(super) submitted_at: Instant,
}

/// A query answered.
pub(super) struct Done {
    pub(super) kind: QueryKind,
    pub(super) latency: Duration,
    pub(super) completion: Completion,
}

/// What the tasks and the handle share.
pub(super) struct Engine {
    options: CassandraOptions,
    done: Mutex<VecDeque<Done>>,
    breaker: Mutex<Breaker>,
    connected: Mutex<Option<Arc<Statements>>>,
    /// The circuit has just opened.
    trouble: Notify,
    gate: Semaphore,
    requests: AtomicU64,
    /// There are completions, or the health has changed.
    news: Notify,
}

impl Engine {
    pub(super) fn new(options: CassandraOptions) -> Self {
        Self {
            options,
            done: Mutex::default(),
            breaker: Mutex::default(),
            connected: Mutex::default(),
            trouble: Notify::new(),
            gate: Semaphore::new(CONCURRENCY),
            requests: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    /// Moves what is done into `fetched`, which is empty.
    pub(super) fn fetch(&self, fetched: &mut VecDeque<Done>) {
        mem::swap(&mut *lock(&self.done), fetched);
    }

    /// Completions since the last time, or another health.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn health(&self) -> StoreHealth {
        let breaker = lock(&self.breaker);
        breaker.open().map_or(StoreHealth::Serving, |detail| StoreHealth::Failing {
            detail: detail.to_owned(),
        })
    }

    /// Queries sent to the cluster, second tries included.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connects for the first time. A cluster that does not answer is looked for later.
    pub(super) async fn open(&self) -> Result<(), OpenError> {
        match self.connect().await {
            Ok(statements) => *lock(&self.connected) = Some(Arc::new(statements)),
            Err(error) if error.is_transient() => self.lose(&error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Carries out one query.
    pub(super) async fn serve(self: Arc<Self>, job: Job) {
        let mut owed = Owed { engine: &self, job: &job, result: None };
        owed.result = Some(self.answer(&job).await);
    }

    async fn answer(&self, job: &Job) -> Result<Answer, StoreError> {
        if let Some(detail) = lock(&self.breaker).open() {
            return Err(StoreError::Unavailable { detail: detail.to_owned() });
        }
        let deadline = match job.query.kind() {
            QueryKind::Credential | QueryKind::Bindings | QueryKind::Write => self.options.deadline,
            QueryKind::CredentialChange
            | QueryKind::CredentialList
            | QueryKind::BindingList
            | QueryKind::BindingDelete => SLOW_DEADLINE,
        };
        let waited = clock::now().saturating_duration_since(job.submitted_at);
        let left = deadline.saturating_sub(waited);
        let result = match tokio::time::timeout(left, self.try_twice(&job.query)).await {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(StoreError::Unavailable { detail: format!("no answer in {deadline:?}") }),
        };
        match &result {
            Err(StoreError::Unavailable { detail }) => self.note_failure(detail),
            Ok(_) | Err(StoreError::Overloaded | StoreError::Corrupt { .. }) => self.note_success(),
        }
        result
    }

    /// The driver asks a second node when the first one is slow; here a query is repeated that
    /// failed at once, on whatever connections there are then.
    async fn try_twice(&self, query: &Query) -> Result<Answer, Fault> {
        let Ok(_permit) = self.gate.acquire().await else {
            return Err(Fault::Cluster("the handle is closed".to_owned()));
        };
        match self.try_once(query).await {
            // Repeated, it would find the user that the first try has made.
            Err(Fault::Cluster(_)) if !matches!(query, Query::CreateCredential { .. }) => {}
            result => return result,
        }
        tokio::time::sleep(SECOND_TRY_PAUSE).await;
        self.try_once(query).await
    }

    async fn try_once(&self, query: &Query) -> Result<Answer, Fault> {
        let connected = lock(&self.connected).clone();
        let Some(statements) = connected else {
            return Err(Fault::Cluster("not connected".to_owned()));
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        statements.carry_out(query).await
    }

    /// Asks now and then, and connects anew while nothing answers. The driver's own attempts on a
    /// node that was away come up to ten seconds apart, which is too long when it was the last one.
    pub(super) async fn supervise(self: Arc<Self>) {
        loop {
            let is_serving = lock(&self.breaker).open().is_none();
            let pause = if is_serving { PROBE_INTERVAL } else { RECONNECT_INTERVAL };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.trouble.notified() => {}
            }
            let Err(detail) = self.probe().await else {
                self.note_success();
                continue;
            };
            if lock(&self.breaker).probe_failed(&detail) {
                self.tell_outage(&detail);
            }
            if lock(&self.breaker).open().is_none() {
                continue;
            }
            match self.connect().await {
                Ok(statements) => {
                    *lock(&self.connected) = Some(Arc::new(statements));
                    self.note_success();
                }
                Err(error) => self.lose(&error.to_string()),
            }
        }
    }

    async fn probe(&self) -> Result<(), String> {
        let connected = lock(&self.connected).clone();
        let Some(statements) = connected else { return Err("not connected".to_owned()) };
        match tokio::time::timeout(PROBE_TIMEOUT, statements.probe()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(StoreError::from(fault).to_string()),
            Err(_) => Err(format!("no answer in {PROBE_TIMEOUT:?}")),
        }
    }

    async fn connect(&self) -> Result<Statements, OpenError> {
        let session = cluster::connect(&self.options).await?;
        schema::require(&session, &self.options.keyspace).await?;
        Statements::prepare(session, &self.options)
            .await
            .map_err(|error| OpenError::ClusterAway { detail: error.to_string() })
    }

    fn note_success(&self) {
        if lock(&self.breaker).succeeded() {
            tracing::info!("the store answers again");
        }
    }

    fn note_failure(&self, detail: &str) {
        if lock(&self.breaker).failed(detail) {
            self.tell_outage(detail);
            self.trouble.notify_one();
        }
    }

    fn lose(&self, detail: &str) {
        if lock(&self.breaker).trip(detail) {
            self.tell_outage(detail);
        }
    }

    fn tell_outage(&self, detail: &str) {
        tracing::warn!(detail, "the store does not answer");
        // Who waits for nothing learns of the new health.
        self.news.notify_one();
    }
}

/// A ticket that gets its completion whatever happens to the task.
struct Owed<'a> {
    engine: &'a Engine,
    job: &'a Job,
    result: Option<Result<Answer, StoreError>>,
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| {
            Err(StoreError::Unavailable { detail: "the driver failed inside".to_owned() })
        });
        let done = Done {
            kind: self.job.query.kind(),
            latency: clock::now().saturating_duration_since(self.job.submitted_at),
            completion: Completion { ticket: self.job.ticket, result },
        };
        lock(&self.engine.done).push_back(done);
        self.engine.news.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
