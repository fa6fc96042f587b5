//! The lease as one row that only lightweight transactions write.
//!
//! They agree over all data centres (SERIAL): two managers that each asked their own could both
//! lead. Three rounds between the replicas for each renewal, a few per poll interval: next to nothing.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::{Consistency, SerialConsistency, Statement};
use scylla::value::{CqlValue, Row};
use store::lease::LeaseColumns;
use store::{LeaseRow, LeaseStore, StoreError, Swapped};
use tokio::runtime::Runtime;

use super::cluster;
use super::options::CassandraOptions;

/// One handle on the lease in a keyspace; connects at the first call, and again after a failure.
pub struct CassandraLease {
    options: CassandraOptions,
    patience: Duration,
    /// Its thread keeps the session's connections alive between the calls.
    runtime: Option<Runtime>,
    session: Option<Session>,
}

impl CassandraLease {
    /// `patience` is how long one call may take, a new connection apart.
    #[must_use]
    pub fn new(options: CassandraOptions, patience: Duration) -> Self {
        Self { options, patience, runtime: None, session: None }
    }

    /// Carries out one statement; `LEASE` in it stands for the table.
    fn ask(&mut self, cql: &str, values: impl SerializeRow) -> Result<QueryResult, StoreError> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("lease")
                .enable_all()
                .build()
                .map_err(unavailable)?,
        };
        let runtime = self.runtime.insert(runtime);
        let session = match self.session.take() {
            Some(session) => session,
            None => runtime.block_on(cluster::connect(&self.options)).map_err(unavailable)?,
        };
        let cql = cql.replace("LEASE", &format!("{}.lease", self.options.keyspace));
        let result = runtime.block_on(execute(&session, cql, self.patience, values));
        // After a failure the session is made anew: the driver's own attempts become rare.
        self.session = result.is_ok().then_some(session);
        result.map_err(unavailable)
    }

    fn change(&mut self, cql: &str, values: impl SerializeRow) -> Result<Swapped, StoreError> {
        let row = first_row(self.ask(cql, values)?)?;
        let applied = row.and_then(|row| row.columns.into_iter().next().flatten());
        match applied {
            Some(CqlValue::Boolean(true)) => Ok(Swapped::Done),
            Some(CqlValue::Boolean(false)) => Ok(Swapped::Not { is: self.read()? }),
            other => Err(unavailable(format_args!("{other:?} says nothing of a swap"))),
        }
    }
}

impl LeaseStore for CassandraLease {
    fn read(&mut self) -> Result<Option<LeaseRow>, StoreError> {
        let cql = "SELECT holder, fence, renewals, duration_ms FROM LEASE WHERE fleet = 'only'";
        let result = self.ask(cql, ())?.into_rows_result().map_err(unavailable)?;
        let row = result.maybe_first_row::<LeaseColumns>().map_err(unavailable)?;
        Ok(row.map(LeaseRow::from))
    }

    fn swap(&mut self, was: Option<&LeaseRow>, new: &LeaseRow) -> Result<Swapped, StoreError> {
        let (holder, fence, renewals, duration_ms) = LeaseColumns::from(new);
        match was.map(LeaseColumns::from) {
            None => {
                let cql = "INSERT INTO LEASE (fleet, holder, fence, renewals, duration_ms) \
                           VALUES ('only', ?, ?, ?, ?) IF NOT EXISTS";
                self.change(cql, (holder, fence, renewals, duration_ms))
            }
            Some(was) => {
                let cql = "UPDATE LEASE SET holder = ?, fence = ?, renewals = ?, duration_ms = ? \
                           WHERE fleet = 'only' \
                           IF holder = ? AND fence = ? AND renewals = ? AND duration_ms = ?";
                let values = (holder, fence, renewals, duration_ms, was.0, was.1, was.2, was.3);
                self.change(cql, values)
            }
        }
    }
}

impl Drop for CassandraLease {
    fn drop(&mut self) {
        self.session = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn execute(
    session: &Session,
    cql: String,
    patience: Duration,
    values: impl SerializeRow,
) -> Result<QueryResult, ExecutionError> {
    let mut statement = Statement::new(cql.clone());
    // A read at SERIAL ends what was begun, so that it shows what the next swap will find.
    let is_read = cql.starts_with("SELECT");
    let consistency = if is_read { Consistency::Serial } else { Consistency::Quorum };
    statement.set_consistency(consistency);
    statement.set_serial_consistency(Some(SerialConsistency::Serial));
    statement.set_request_timeout(Some(patience));
    session.query_unpaged(statement, values).await
}

fn first_row(result: QueryResult) -> Result<Option<Row>, StoreError> {
    let rows = result.into_rows_result().map_err(unavailable)?;
    rows.maybe_first_row::<Row>().map_err(unavailable)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: impl ToString) -> StoreError {
    StoreError::Unavailable { detail: error.to_string() }
}
