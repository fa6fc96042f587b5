//! Reads on the caller's own thread, for a file that lies in memory: handing one to another thread and
//! waking up for its answer costs several times what the read itself does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use store::{Answer, Query, StoreError};

use super::file::{File, Missing};
use super::statements::{Fault, carry_out};
use crate::error::OpenError;

/// How often it is looked whether the file is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection that waits for nobody.
pub(super) struct AtOnce {
    path: PathBuf,
    file: Option<File>,
    look_at: Option<Instant>,
    answered: u64,
}

impl AtOnce {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let file = match File::open(path, Duration::ZERO, Missing::Create) {
            Ok(file) => Some(file),
            Err(error) if error.is_transient() => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), file, look_at: None, answered: 0 })
    }

    /// Queries answered here.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// The answer, or `None` if the lane is to find it: it waits for locks and for a file that is away.
    pub(super) fn answer(
        &mut self,
        query: &Query,
        now: Instant,
    ) -> Option<Result<Answer, StoreError>> {
        if !matches!(query, Query::Credential { .. } | Query::Bindings { .. }) {
            return None;
        }
        if self.look_at.is_none_or(|at| at <= now) {
            self.look_at = Some(now + LOOK_INTERVAL);
            self.look_after_file();
        }
        let result = match carry_out(&self.file.as_ref()?.connection, query) {
            Ok(answer) => Ok(answer),
            Err(Fault::Row(error)) => Err(error),
            Err(Fault::Sql(_)) => return None,
        };
        self.answered += 1;
        Some(result)
    }

    fn look_after_file(&mut self) {
        self.file.take_if(|file| !file.is_in_place());
        if self.file.is_none() {
            self.file = File::open(&self.path, Duration::ZERO, Missing::Refuse).ok();
        }
    }
}
