//! The folder of one local machine: its files, its record `machine.json`, its log.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use fleet::InstanceId;
use provider::MachineFile;
use serde::{Deserialize, Serialize};

use crate::process::{self, ProcessIdentity};

const RECORD: &str = "machine.json";
const LOG: &str = "log";

/// `machine.json`: what another manager needs to adopt the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    /// As in "proxy-3".
    pub instance: String,
    /// The request that made it; a repeated request finds it by this.
    pub token: String,
    /// UNIX time.
    pub created_at_ms: u64,
    /// `None` while the process is being started.
    pub process: Option<ProcessIdentity>,
    /// Somebody has begun to end it: once its process is gone, so is the machine.
    #[serde(default)]
    pub is_ending: bool,
}

/// `DATA/instances/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineFolder {
    path: PathBuf,
}

impl MachineFolder {
    pub(crate) fn new(instances: &Path, instance: InstanceId) -> Self {
        Self { path: instances.join(instance.to_string()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder, for its owner alone, and writes the request's files into it.
    ///
    /// Returns UNIX time in milliseconds as the file system tells it.
    pub(crate) fn fill(&self, files: &[MachineFile]) -> io::Result<u64> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        for MachineFile { name, content } in files {
            let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
            if !is_plain || name == RECORD || name == LOG {
                let reason = format!("file name {name:?} is not allowed in a machine's folder");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            write_private(&self.path.join(name), content)?;
        }
        let made = fs::metadata(&self.path)?.modified()?;
        let since_epoch = made.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn record(&self) -> Option<MachineRecord> {
        let text = fs::read(self.path.join(RECORD)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(crate) fn write_record(&self, record: &MachineRecord) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        write_private(&self.path.join(RECORD), &text)
    }

    /// The live process of this machine, if it has one.
    ///
    /// A manager that died between starting the process and writing its id down has left it in
    /// this folder; it is found there.
    pub(crate) fn process(&self, record: Option<&MachineRecord>) -> Option<ProcessIdentity> {
        match record.and_then(|record| record.process.clone()) {
            Some(process) => process.is_alive().then_some(process),
            None => process::working_in(&self.path).into_iter().next(),
        }
    }

    /// Whether the machine was ended, and whoever did it has died before the folder was removed.
    pub(crate) fn is_ended(&self, record: Option<&MachineRecord>) -> bool {
        record.is_some_and(|record| record.is_ending) && self.process(record).is_none()
    }

    /// The log, opened to append; one that is too long is set aside first.
    pub(crate) fn open_log(&self, bytes_max: u64) -> io::Result<File> {
        let path = self.path.join(LOG);
        if fs::metadata(&path).is_ok_and(|log| log.len() > bytes_max) {
            fs::rename(&path, self.path.join("log.1"))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    /// Removes the folder; the log is kept as `LOGS/NAME.log`, in place of an earlier one.
    pub(crate) fn remove(&self, logs: &Path) -> io::Result<()> {
        if let Some(name) = self.path.file_name().and_then(|name| name.to_str()) {
            DirBuilder::new().recursive(true).mode(0o700).create(logs)?;
            let kept = logs.join(format!("{name}.log"));
            match fs::rename(self.path.join(LOG), kept) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// Writes a file that only its owner may read; another process sees the old content or the new.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&draft, path)
}
