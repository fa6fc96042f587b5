//! One thread with one connection: takes whatever is queued, runs it as one transaction, answers.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use store::{Completion, Query, QueryKind, StoreError, StoreHealth, Ticket, Wake};

use super::batch;
use super::file::{File, Missing};
use crate::clock;

/// Queries in one transaction: few enough that other processes get their turn.
const BATCH_QUERIES_MAX: usize = 512;

/// An idle lane looks this often whether the file is still there, and a failing one whether it is
/// there again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Reads,
    Writes,
}

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

/// Where the lanes of one handle put completions and tell how they are.
pub(super) struct Outbox {
    done: Mutex<VecDeque<Done>>,
    /// Why the reads and the writes fail at present.
    troubles: Mutex<[Option<String>; 2]>,
    batches: AtomicU64,
    rows_swept: AtomicU64,
    wake: Wake,
}

impl Outbox {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            done: Mutex::default(),
            troubles: Mutex::default(),
            batches: AtomicU64::new(0),
            rows_swept: AtomicU64::new(0),
            wake,
        }
    }

    /// Moves what is done into `fetched`, which is empty.
    pub(super) fn fetch(&self, fetched: &mut VecDeque<Done>) {
        mem::swap(&mut *lock(&self.done), fetched);
    }

    pub(super) fn health(&self) -> StoreHealth {
        let detail = lock(&self.troubles).iter().flatten().next().cloned();
        detail.map_or(StoreHealth::Serving, |detail| StoreHealth::Failing { detail })
    }

    /// Batches run and rows swept.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.batches.load(Ordering::Relaxed), self.rows_swept.load(Ordering::Relaxed))
    }

    fn deliver(&self, done: impl Iterator<Item = Done>) {
        lock(&self.done).extend(done);
        (self.wake)();
    }

    fn set_trouble(&self, work: Work, trouble: Option<&str>) {
        let mut troubles = lock(&self.troubles);
        let [reads, writes] = &mut *troubles;
        let place = if work == Work::Reads { reads } else { writes };
        if place.as_deref() == trouble {
            return;
        }
        match trouble {
            Some(trouble) => tracing::warn!(?work, trouble, "the store does not answer"),
            None => tracing::info!(?work, "the store answers again"),
        }
        *place = trouble.map(str::to_owned);
    }
}

/// The caller's end of a lane.
pub(super) struct Lane {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    is_ending: bool,
}

impl Lane {
    /// Starts the thread with the connection that was opened for it, or why there is none yet.
    pub(super) fn start(
        work: Work,
        path: &Path,
        busy_timeout: Duration,
        file: Result<File, String>,
        outbox: Arc<Outbox>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (file, trouble) = match file {
            Ok(file) => (Some(file), None),
            Err(trouble) => (None, Some(trouble)),
        };
        outbox.set_trouble(work, trouble.as_deref());
        let jobs = Arc::clone(&queue);
        let mut worker = Worker {
            work,
            path: path.to_owned(),
            busy_timeout,
            file,
            is_failing: trouble.is_some(),
            sweeper: batch::Sweeper::default(),
            queue: jobs,
            outbox,
        };
        let name = if work == Work::Reads { "store-reads" } else { "store-writes" };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || worker.run())?;
        Ok(Self { queue, thread: Some(thread) })
    }

    pub(super) fn submit(&self, job: Job) {
        lock(&self.queue.state).jobs.push_back(job);
        self.queue.changed.notify_one();
    }

    /// Ends the thread; what is queued is still answered.
    pub(super) fn end(&mut self) {
        lock(&self.queue.state).is_ending = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A lane catches the panics of its batches; here is nothing left to save.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Worker {
    work: Work,
    path: PathBuf,
    busy_timeout: Duration,
    file: Option<File>,
    is_failing: bool,
    sweeper: batch::Sweeper,
    queue: Arc<Queue>,
    outbox: Arc<Outbox>,
}

/// Why the thread woke up.
enum Turn {
    Batch { jobs: Vec<Job>, is_ending: bool },
    Probe,
    End,
}

impl Worker {
    fn run(&mut self) {
        loop {
            match self.next_turn() {
                // At the end nobody waits for a file that does not answer, job after job.
                Turn::Batch { jobs, is_ending } if is_ending && self.is_failing => {
                    self.refuse(&jobs);
                }
                Turn::Batch { jobs, .. } => self.run_batch(&jobs),
                Turn::Probe => self.probe(),
                Turn::End => return,
            }
        }
    }

    fn next_turn(&self) -> Turn {
        let waiting = lock(&self.queue.state);
        let (mut waiting, _) = self
            .queue
            .changed
            .wait_timeout_while(waiting, PROBE_INTERVAL, |waiting| {
                waiting.jobs.is_empty() && !waiting.is_ending
            })
            .unwrap_or_else(PoisonError::into_inner);
        let is_ending = waiting.is_ending;
        let count = waiting.jobs.len().min(BATCH_QUERIES_MAX);
        match count {
            0 if is_ending => Turn::End,
            0 => Turn::Probe,
            _ => Turn::Batch { jobs: waiting.jobs.drain(..count).collect(), is_ending },
        }
    }

    fn run_batch(&mut self, jobs: &[Job]) {
        self.outbox.batches.fetch_add(1, Ordering::Relaxed);
        let queries: Vec<&Query> = jobs.iter().map(|job| &job.query).collect();
        // A fault of ours must not leave tickets without an answer.
        let run = AssertUnwindSafe(|| self.answer(&queries));
        let answered = panic::catch_unwind(run).ok();
        let results = answered.filter(|results| results.len() == jobs.len()).unwrap_or_else(|| {
            self.file = None;
            let detail = "the driver failed inside".to_owned();
            vec![Err(StoreError::Unavailable { detail }); jobs.len()]
        });
        let outage = results.iter().find_map(|result| match result {
            Err(StoreError::Unavailable { detail }) => Some(detail.as_str()),
            _ => None,
        });
        self.is_failing = outage.is_some();
        self.outbox.set_trouble(self.work, outage);
        self.deliver(jobs, results);
    }

    fn answer(&mut self, queries: &[&Query]) -> batch::Results {
        let work = self.work;
        if let Err(detail) = self.reach_file() {
            return vec![Err(StoreError::Unavailable { detail }); queries.len()];
        }
        let Some(file) = &self.file else { return Vec::new() };
        let outcome = batch::run(&file.connection, work, queries, &mut self.sweeper);
        self.outbox.rows_swept.fetch_add(outcome.rows_swept, Ordering::Relaxed);
        if !outcome.is_usable {
            self.file = None;
        }
        outcome.results
    }

    /// Makes sure that the file at the path is open, or says why it is not.
    fn reach_file(&mut self) -> Result<&File, String> {
        if let Some(file) = self.file.take_if(|file| !file.is_in_place()) {
            tracing::warn!(path = %self.path.display(), "the store's file was taken away");
            drop(file);
        }
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                let file = File::open(&self.path, self.busy_timeout, Missing::Refuse);
                Ok(none.insert(file.map_err(|error| error.to_string())?))
            }
        }
    }

    /// Nobody asks: looks after the file, so that health is true when the next one does.
    fn probe(&mut self) {
        let (work, was_failing) = (self.work, self.is_failing);
        let probed = self.reach_file().and_then(|file| {
            // A lock that somebody else holds is no trouble before a query has met it.
            if was_failing { file.probe(work).map_err(|error| error.to_string()) } else { Ok(()) }
        });
        self.is_failing = probed.is_err();
        self.outbox.set_trouble(work, probed.err().as_deref());
    }

    fn refuse(&self, jobs: &[Job]) {
        let detail = "the store is closing and its file does not answer".to_owned();
        let result = Err(StoreError::Unavailable { detail });
        self.deliver(jobs, vec![result; jobs.len()]);
    }

    fn deliver(&self, jobs: &[Job], results: batch::Results) {
        let now = clock::now();
        let done = jobs.iter().zip(results).map(|(job, result)| Done {
            kind: job.query.kind(),
            latency: now.saturating_duration_since(job.submitted_at),
            completion: Completion { ticket: job.ticket, result },
        });
        self.outbox.deliver(done);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
