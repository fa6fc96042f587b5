//! The file: created with a safe mode, checked, opened; whether it is still the one we opened.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::lane::Work;
use crate::error::OpenError;

/// Version of `schema.sql`, kept in the file's `user_version`.
pub(super) const SCHEMA_VERSION: i64 = 1;

/// "SipC" in the file's header: this file is ours.
const APPLICATION_ID: i64 = 0x5369_7043;

/// More than there are statements: each is prepared once per connection.
const PREPARED_MAX: usize = 32;

/// A WAL that grew is cut to this when it is started over.
const WAL_KEPT_BYTES: i64 = 16 * 1024 * 1024;

/// Whether a missing file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// At the start: the first one makes it.
    Create,
    /// Later: the data is elsewhere (a mount, a backup being put back), and an empty file in its
    /// place would turn every user away as unknown. Until it is back the store is unavailable.
    Refuse,
}

/// An open connection and the file that it belongs to.
pub(super) struct File {
    pub(super) connection: Connection,
    path: PathBuf,
    identity: (u64, u64),
}

impl File {
    /// Opens, checks and if need be makes the file.
    pub(super) fn open(
        path: &Path,
        busy_timeout: Duration,
        missing: Missing,
    ) -> Result<Self, OpenError> {
        // Closing any descriptor of a file drops this process's locks on it, so nobody here may
        // have it open while another makes it.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        if missing == Missing::Create {
            create(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        }
        let identity = identity(path).map_err(|source| gone(path, missing, source))?;
        let connection = connect(path, busy_timeout).map_err(|error| classify(path, &error))?;
        let mut file = Self { connection, path: path.to_owned(), identity };
        file.check_schema()?;
        Ok(file)
    }

    /// Whether the path still leads to the file that is open.
    pub(super) fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// Does what the lane's next query will need, and changes nothing.
    pub(super) fn probe(&self, work: Work) -> rusqlite::Result<()> {
        self.connection.execute_batch(match work {
            Work::Reads => "SELECT 1 FROM credentials LIMIT 1",
            Work::Writes => "BEGIN IMMEDIATE; ROLLBACK",
        })
    }

    fn check_schema(&mut self) -> Result<(), OpenError> {
        let found = self.version()?;
        if found == SCHEMA_VERSION {
            return Ok(());
        }
        if found > SCHEMA_VERSION {
            let (path, known) = (self.path.clone(), SCHEMA_VERSION);
            return Err(OpenError::NewerSchema { path, found, known });
        }
        self.create_schema().map_err(|error| classify(&self.path, &error))
    }

    /// The schema version; 0 for a file with nothing in it.
    fn version(&self) -> Result<i64, OpenError> {
        let number = |pragma| {
            let value = self.connection.pragma_query_value(None, pragma, |row| row.get(0));
            value.map_err(|error| classify(&self.path, &error))
        };
        let (owner, version): (i64, i64) = (number("application_id")?, number("user_version")?);
        let tables: i64 = number("schema_version")?;
        if owner == APPLICATION_ID || (owner, version, tables) == (0, 0, 0) {
            return Ok(version);
        }
        Err(OpenError::OtherProgram { path: self.path.clone() })
    }

    fn create_schema(&mut self) -> rusqlite::Result<()> {
        let schema = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been quicker.
        let version: i64 = schema.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == 0 {
            schema.execute_batch(include_str!("schema.sql"))?;
            schema.pragma_update(None, "application_id", APPLICATION_ID)?;
            schema.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        schema.commit()
    }
}

/// Makes an empty file that only its owner may read: an HA1 is worth a password.
fn create(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(path)?.mode() & 0o777;
            if mode & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "others may read the store: mode {mode:o}");
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn connect(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn gone(path: &Path, missing: Missing, source: io::Error) -> OpenError {
    match missing {
        Missing::Create => OpenError::File { path: path.to_owned(), source },
        Missing::Refuse => OpenError::Busy { path: path.to_owned(), detail: source.to_string() },
    }
}

pub(super) fn classify(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path, detail }
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::File { path, source: io::Error::other(detail) }
        }
        _ => OpenError::Busy { path, detail },
    }
}
