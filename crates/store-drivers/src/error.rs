//! Why a store cannot be opened at all.

use std::io;
use std::path::PathBuf;

/// What only an operator can mend. `Display` reads after "failed to open the store: ".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} has schema version {found}, this program knows {known}: use a newer sipcloud")]
    NewerSchema { path: PathBuf, found: i64, known: i64 },

    #[error("{path} is a SQLite file of another program")]
    OtherProgram { path: PathBuf },

    #[error("{path} is no SQLite file, or is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },

    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },

    /// The cluster answers, but not as it should.
    #[error("Cassandra: {detail}")]
    Cluster { detail: String },

    #[error("keyspace {keyspace} {detail}: run `sipcloud store init`")]
    NoKeyspace { keyspace: String, detail: String },

    /// No node answers; the driver tries again by itself.
    #[error("Cassandra: {detail}")]
    ClusterAway { detail: String },

    /// The file is locked or was away for a moment; the driver tries again by itself.
    #[error("{path}: {detail}")]
    Busy { path: PathBuf, detail: String },
}

impl OpenError {
    /// Whether the same attempt may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::ClusterAway { .. })
    }
}
