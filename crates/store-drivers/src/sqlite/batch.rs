//! Queries of one wake-up as one transaction, or two: users' credentials are written more safely.

use rusqlite::{Connection, ErrorCode};
use store::{Answer, Query, QueryKind, StoreError, UnixMillis};

use super::lane::Work;
use super::statements::{Fault, SWEPT_ROWS_MAX, carry_out, sweep};

/// Time between two sweeps; at the limit of a sweep the next batch goes on at once.
const SWEEP_INTERVAL_MS: u64 = 10_000;

pub(super) type Results = Vec<Result<Answer, StoreError>>;

/// What became of a batch.
pub(super) struct Outcome {
    /// In the order of the queries.
    pub(super) results: Results,
    /// Whether the connection may serve again.
    pub(super) is_usable: bool,
    pub(super) rows_swept: u64,
}

/// Runs the queries of one wake-up.
pub(super) fn run(
    db: &Connection,
    work: Work,
    queries: &[&Query],
    sweeper: &mut Sweeper,
) -> Outcome {
    if work == Work::Reads {
        let transaction = Transaction { db, begin: "BEGIN" };
        let (results, is_usable) = transaction.run(queries);
        return Outcome { results, is_usable, rows_swept: 0 };
    }
    let is_credential = |query: &Query| query.kind() == QueryKind::CredentialChange;
    if !queries.iter().any(|query| is_credential(query)) {
        return write_bindings(db, queries, sweeper);
    }
    // Queries in flight together have no order, so the batch may be split by kind.
    let (credentials, bindings): (Vec<&Query>, Vec<&Query>) =
        queries.iter().copied().partition(|query| is_credential(query));
    let (durable, durable_usable) = write_durably(db, &credentials);
    let rest = match bindings.is_empty() {
        true => Outcome { results: Vec::new(), is_usable: true, rows_swept: 0 },
        false => write_bindings(db, &bindings, sweeper),
    };
    let (mut durable, mut plain) = (durable.into_iter(), rest.results.into_iter());
    let next = |query: &&Query| if is_credential(query) { durable.next() } else { plain.next() };
    let results = queries.iter().filter_map(next).collect();
    Outcome { results, is_usable: rest.is_usable && durable_usable, rows_swept: rest.rows_swept }
}

/// Bindings ride on NORMAL: a commit is not forced to the disk. A crash of ours loses nothing, a
/// power cut the registrations of the last moments, which their devices repeat by themselves.
fn write_bindings(db: &Connection, queries: &[&Query], sweeper: &mut Sweeper) -> Outcome {
    let transaction = Transaction { db, begin: "BEGIN IMMEDIATE" };
    let (results, is_usable) = transaction.run(queries);
    let is_done = results.iter().all(Result::is_ok);
    let rows_swept = if is_done { sweeper.run(db, queries) } else { 0 };
    Outcome { results, is_usable, rows_swept }
}

/// A user who was told that the password is changed may rely on it: FULL forces the commit to the
/// disk. In WAL mode the setting belongs to the connection and may change between transactions.
fn write_durably(db: &Connection, queries: &[&Query]) -> (Results, bool) {
    let set = |level| db.pragma_update(None, "synchronous", level);
    if let Err(error) = set("FULL") {
        return (vec![Err(unavailable(&error)); queries.len()], false);
    }
    let (results, is_usable) = Transaction { db, begin: "BEGIN IMMEDIATE" }.run(queries);
    let is_normal_again = set("NORMAL").is_ok();
    (results, is_usable && is_normal_again)
}

#[derive(Clone, Copy)]
struct Transaction<'db> {
    db: &'db Connection,
    begin: &'static str,
}

impl Transaction<'_> {
    /// Results in the order of the queries, and whether the connection may serve again.
    fn run(self, queries: &[&Query]) -> (Results, bool) {
        let error = match self.attempt(queries) {
            Ok(results) => return (results, true),
            Err(error) => error,
        };
        match trouble(&error) {
            // One of them is at fault: the others must not suffer.
            Trouble::Query if queries.len() > 1 => {
                let alone = queries.iter().map(|query| self.run(&[*query]));
                alone.fold((Vec::new(), true), |(mut results, is_usable), (one, still)| {
                    results.extend(one);
                    (results, is_usable && still)
                })
            }
            Trouble::Query | Trouble::Lock => (vec![Err(unavailable(&error)); queries.len()], true),
            Trouble::File => (vec![Err(unavailable(&error)); queries.len()], false),
        }
    }

    fn attempt(self, queries: &[&Query]) -> rusqlite::Result<Results> {
        self.db.prepare_cached(self.begin)?.execute([])?;
        let results = self.carry_out_all(queries);
        let committed = results.and_then(|results| {
            self.db.prepare_cached("COMMIT")?.execute([])?;
            Ok(results)
        });
        if committed.is_err() && !self.db.is_autocommit() {
            self.db.execute_batch("ROLLBACK")?;
        }
        committed
    }

    fn carry_out_all(self, queries: &[&Query]) -> rusqlite::Result<Results> {
        let one = |query: &&Query| match carry_out(self.db, query) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Fault::Row(error)) => Ok(Err(error)),
            Err(Fault::Sql(error)) => Err(error),
        };
        queries.iter().map(one).collect()
    }
}

/// Removes old rows now and then, by the time that the writes bring with them.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    due_at: UnixMillis,
}

impl Sweeper {
    fn run(&mut self, db: &Connection, queries: &[&Query]) -> u64 {
        let times = queries.iter().filter_map(|query| match query {
            Query::Write { now, .. } => Some(*now),
            _ => None,
        });
        let Some(now) = times.max().filter(|now| self.due_at <= *now) else { return 0 };
        match sweep(db, now) {
            Ok(rows) => {
                let pause_ms = if rows < SWEPT_ROWS_MAX { SWEEP_INTERVAL_MS } else { 0 };
                self.due_at = UnixMillis(now.0.saturating_add(pause_ms));
                rows as u64
            }
            Err(error) => {
                tracing::debug!(%error, "expired rows are swept later");
                0
            }
        }
    }
}

/// What an error of SQLite is about.
enum Trouble {
    /// This query: another one may succeed.
    Query,
    /// Another process holds the lock.
    Lock,
    /// The file: it is opened afresh.
    File,
}

fn trouble(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Lock,
        Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            Trouble::Query
        }
        _ => Trouble::File,
    }
}

fn unavailable(error: &rusqlite::Error) -> StoreError {
    StoreError::Unavailable { detail: error.to_string() }
}
