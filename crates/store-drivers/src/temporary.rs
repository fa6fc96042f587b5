//! The store in memory for several processes: the same SQLite file, in a folder on tmpfs that is
//! removed at the end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where Linux has a tmpfs that every user may write to.
const SHARED_MEMORY: &str = "/dev/shm";

/// A folder of ours in memory. Dropping it removes it with all that is inside.
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// Takes the folder `name` below `base` (`/dev/shm` if there is none), mode 0700. One that is
    /// there already is taken over with its content: its owner died, its nodes may still run.
    ///
    /// # Errors
    ///
    /// Those of the file system, and `PermissionDenied` for a folder that another user made or may
    /// look into: `/dev/shm` is open to all.
    pub fn claim(base: Option<&Path>, name: &str) -> io::Result<Self> {
        let path = base.unwrap_or_else(|| Path::new(SHARED_MEMORY)).join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_ours(&path)?,
            Err(error) => return Err(error),
        }
        Ok(Self { path })
    }

    /// The SQLite file for [`StoreLocation::Sqlite`](crate::StoreLocation::Sqlite).
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store.sqlite")
    }

    /// Lets the folder stay when this is dropped.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        let mut this = std::mem::ManuallyDrop::new(self);
        std::mem::take(&mut this.path)
    }
}

fn check_ours(path: &Path) -> io::Result<()> {
    let (found, me) = (fs::symlink_metadata(path)?, fs::metadata("/proc/self")?);
    if found.is_dir() && found.uid() == me.uid() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = format!("{} is not a folder of ours alone", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the store in memory stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_is_taken_over_and_leaves_nothing() {
        let name = format!("sipcloud-test-{}", std::process::id());
        let first = TemporaryFolder::claim(None, &name).expect("claimed");
        let path = first.store_path();
        fs::write(&path, "kept").expect("written");
        let folder = first.keep();
        assert_eq!(fs::metadata(&folder).expect("there").mode() & 0o777, 0o700);
        let second = TemporaryFolder::claim(None, &name).expect("taken over");
        assert_eq!(fs::read(&path).expect("read"), b"kept");
        drop(second);
        assert!(!folder.exists(), "nothing is left");
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_refused() {
        let name = format!("sipcloud-test-open-{}", std::process::id());
        let path = Path::new(SHARED_MEMORY).join(&name);
        DirBuilder::new().mode(0o755).create(&path).expect("made");
        let refused = TemporaryFolder::claim(None, &name).map(TemporaryFolder::keep);
        fs::remove_dir(&path).expect("removed");
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied));
    }
}
