//! Files that more than one command reads: written so that a reader sees all of one or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use node_api::wire::Secret;
use provider_drivers::AddressPlan;
use provider_drivers::process::ProcessIdentity;
use serde::{Deserialize, Serialize};

/// Where a running manager is found: `DATA/manager-1.json` and so on; the one that leads also in
/// `DATA/manager.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManagerFile {
    pub process: ProcessIdentity,
    pub api: SocketAddr,
    pub token: Secret,
}

impl ManagerFile {
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("manager.json")
    }

    /// What the last leader wrote; it may be gone.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        Self::read_from(&Self::path(data))
    }

    /// Every manager that runs, in the order of their names.
    pub(crate) fn running(data: &Path) -> Vec<Self> {
        let numbers = 1..=AddressPlan::MANAGERS_MAX;
        let written = numbers.filter_map(|number| Self::read_from(&Self::own_path(data, number)));
        written.filter(|file| file.process.is_alive()).collect()
    }

    /// Says that this one leads.
    pub(crate) fn write(&self, data: &Path) -> io::Result<()> {
        write_private(&Self::path(data), &serde_json::to_vec_pretty(self)?)
    }

    /// Says that this one runs.
    pub(crate) fn write_own(&self, data: &Path, number: u8) -> io::Result<()> {
        write_private(&Self::own_path(data, number), &serde_json::to_vec_pretty(self)?)
    }

    /// Removes what managers that have ended wrote.
    pub(crate) fn remove_all(data: &Path) {
        fs::remove_file(Self::path(data)).ok();
        for number in 1..=AddressPlan::MANAGERS_MAX {
            fs::remove_file(Self::own_path(data, number)).ok();
        }
    }

    fn own_path(data: &Path, number: u8) -> PathBuf {
        data.join(format!("manager-{number}.json"))
    }

    fn read_from(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

/// The configuration that the cloud of a data directory runs with.
pub(crate) fn running_configuration(data: &Path) -> PathBuf {
    data.join("running.toml")
}

/// Writes a file that only its owner may read, and puts it in place at once.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&draft, path)
}

/// Opens a log to append; one of more than `bytes_max` is set aside first.
pub(crate) fn open_log(path: &Path, bytes_max: u64) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > bytes_max) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A folder of its own for one test.
#[cfg(test)]
pub(crate) fn test_directory(name: &str) -> PathBuf {
    let directory =
        std::env::temp_dir().join(format!("sipcloud-test-{name}-{}", std::process::id()));
    fs::remove_dir_all(&directory).ok();
    directory
}
