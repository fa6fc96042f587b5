//! One `up` per data directory: a lock that ends with the process, whatever ends it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use provider_drivers::process;

use crate::exit::Exit;

/// Held as long as this lives.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    ///
    /// Another `up` runs with the same directory; the error names its process.
    pub(super) fn take(data: &Path) -> Result<Self> {
        let path = data.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if !process::try_lock(&file).with_context(|| format!("cannot lock {}", path.display()))? {
            let mut holder = String::new();
            file.read_to_string(&mut holder).ok();
            return Err(Exit::Unavailable.because(format!(
                "a cloud already runs in {} (process {}); stop it, or choose another directory \
                 with --data",
                data.display(),
                holder.trim(),
            )));
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn a_second_one_is_told_who_runs() {
        let data = files::test_directory("lock");
        std::fs::create_dir_all(&data).expect("made");
        let _held = Lock::take(&data).expect("free");
        let error = Lock::take(&data).err().expect("taken");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        std::fs::remove_dir_all(&data).expect("removed");
    }
}
