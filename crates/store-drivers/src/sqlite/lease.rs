//! The lease as one row of the file, read and changed in one immediate transaction.
//!
//! The table is made where it is missing and the version of the schema stays: programs that know
//! nothing of it share the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use store::lease::LeaseColumns;
use store::{LeaseRow, LeaseStore, StoreError, Swapped};

use super::file::{File, Missing};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS lease (
    only        INTEGER PRIMARY KEY CHECK (only = 1),
    holder      TEXT NOT NULL,
    fence       INTEGER NOT NULL,
    renewals    INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL
) STRICT";

/// One handle on the lease in a file; opened at the first call, and again if the file was replaced.
pub struct SqliteLease {
    path: PathBuf,
    patience: Duration,
    file: Option<File>,
    /// A file that was there and is gone is waited for, not made anew.
    missing: Missing,
}

impl SqliteLease {
    /// `patience` is how long a call waits for the lock of another process.
    #[must_use]
    pub fn new(path: &Path, patience: Duration) -> Self {
        Self { path: path.to_owned(), patience, file: None, missing: Missing::Create }
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        self.file = self.file.take().filter(File::is_in_place);
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let opened = File::open(&self.path, self.patience, self.missing);
                let file = opened.map_err(unavailable)?;
                file.connection.execute_batch(TABLE).map_err(unavailable)?;
                self.missing = Missing::Refuse;
                file
            }
        };
        Ok(&mut self.file.insert(file).connection)
    }
}

impl LeaseStore for SqliteLease {
    fn read(&mut self) -> Result<Option<LeaseRow>, StoreError> {
        row(self.connection()?).map_err(unavailable)
    }

    fn swap(&mut self, was: Option<&LeaseRow>, new: &LeaseRow) -> Result<Swapped, StoreError> {
        swap(self.connection()?, was, new).map_err(unavailable)
    }
}

fn row(db: &Connection) -> rusqlite::Result<Option<LeaseRow>> {
    let sql = "SELECT holder, fence, renewals, duration_ms FROM lease WHERE only = 1";
    let mut statement = db.prepare_cached(sql)?;
    let row = statement.query_row([], |row| {
        let holder = row.get("holder")?;
        let numbers = (row.get("fence")?, row.get("renewals")?, row.get("duration_ms")?);
        Ok(LeaseRow::from((holder, numbers.0, numbers.1, numbers.2)))
    });
    row.optional()
}

fn swap(db: &mut Connection, was: Option<&LeaseRow>, new: &LeaseRow) -> rusqlite::Result<Swapped> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let is = row(&transaction)?;
    if is.as_ref() != was {
        return Ok(Swapped::Not { is });
    }
    let sql = "INSERT INTO lease (only, holder, fence, renewals, duration_ms) \
               VALUES (1, ?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET holder = excluded.holder, \
               fence = excluded.fence, renewals = excluded.renewals, \
               duration_ms = excluded.duration_ms";
    let (holder, fence, renewals, duration_ms) = LeaseColumns::from(new);
    transaction.prepare_cached(sql)?.execute(params![holder, fence, renewals, duration_ms])?;
    transaction.commit()?;
    Ok(Swapped::Done)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: impl ToString) -> StoreError {
    StoreError::Unavailable { detail: error.to_string() }
}
