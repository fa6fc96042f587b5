//! The file's one write lock, held by nobody who writes: a slow disk or a stuck writer, made on purpose.

use std::path::Path;
use std::time::Duration;

use super::file::{File, Missing, classify};
use crate::error::OpenError;

/// While it lives, every write to the file waits, and fails after its time. Reads go on: in WAL mode
/// they never wait for a writer.
pub struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits for the lock as long as a writer may (`patience`) and keeps it.
    ///
    /// # Errors
    ///
    /// The file is not there or not ours, or another writer kept the lock.
    pub fn take(path: &Path, patience: Duration) -> Result<Self, OpenError> {
        let file = File::open(path, patience, Missing::Refuse)?;
        // Closing the connection ends the transaction.
        file.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| classify(path, &error))?;
        Ok(Self { _file: file })
    }
}
