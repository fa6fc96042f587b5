//! One node of a Cassandra cluster on this machine: found by the address that it listens on, killed,
//! stopped for a while, and started again as it was.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use node_api::wire::StoreNode as Known;
use provider_drivers::process::{self, ProcessIdentity, Signal};

/// The class whose main runs a node.
const DAEMON: &str = "org.apache.cassandra.service.CassandraDaemon";

/// A node and how it was started.
pub(super) struct StoreNode {
    process: ProcessIdentity,
    address: SocketAddr,
    command: Vec<OsString>,
    folder: PathBuf,
    /// Of the whole cluster.
    pub(super) nodes: usize,
}

impl fmt::Display for StoreNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of the database (process {})", self.address, self.process.pid)
    }
}

impl StoreNode {
    /// The last of the known nodes that runs on this machine; the first is the seed of small
    /// clusters.
    ///
    /// # Errors
    ///
    /// None does.
    pub(super) fn find(known: &[Known]) -> Result<Self, String> {
        let entries = fs::read_dir("/proc").map_err(|error| error.to_string())?;
        let pids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        let daemons: Vec<(u32, Vec<OsString>)> =
            pids.filter_map(|pid| Some((pid, command_of(pid)?))).collect();
        for node in known.iter().rev() {
            for (pid, command) in &daemons {
                if let Some(folder) = folder_of(command, node.address) {
                    let process = ProcessIdentity::of(*pid).ok_or("it has just ended")?;
                    let (command, nodes) = (command.clone(), known.len());
                    return Ok(Self { process, address: node.address, command, folder, nodes });
                }
            }
        }
        Err("no node of the database runs on this machine; stop one there by hand".to_owned())
    }

    pub(super) fn kill(&self) -> Result<(), String> {
        match self.process.signal(Signal::Kill) {
            Ok(true) => Ok(()),
            Ok(false) => Err("it is gone already".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// SIGSTOP, or its end.
    pub(super) fn stand_still(&self, still: bool) -> Result<(), String> {
        if !self.process.is_alive() {
            return Err("it is gone".to_owned());
        }
        let signal = if still { "STOP" } else { "CONT" };
        let kill =
            Command::new("kill").args(["-s", signal, &self.process.pid.to_string()]).status();
        let done = kill.map_err(|error| error.to_string())?.success();
        if done { Ok(()) } else { Err(format!("kill -s {signal} failed")) }
    }

    /// The same command in the same folder. It outlives the drill, as it did before.
    pub(super) fn start_again(&self) -> Result<(), String> {
        let (program, arguments) = self.command.split_first().ok_or("its command is not known")?;
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let log = log.map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command.stdout(log).stderr(errors);
        let child = process::in_own_session(&mut command).spawn();
        let child = child.map_err(|error| error.to_string())?;
        // As `scripts/cassandra` writes it down.
        fs::write(self.folder.join("pid"), format!("{}\n", child.id()))
            .map_err(|error| error.to_string())
    }
}

fn command_of(pid: u32) -> Option<Vec<OsString>> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<OsString> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
    words.iter().any(|word| word == DAEMON).then_some(words)
}

/// The folder of the node, if its configuration says that it listens at `address`.
fn folder_of(command: &[OsString], address: SocketAddr) -> Option<PathBuf> {
    let value = |key: &str| command.iter().find_map(|word| word.to_str()?.strip_prefix(key));
    let file = value("-Dcassandra.config=file://")?;
    let text = fs::read_to_string(file).ok()?;
    let listens = format!("rpc_address: {}", address.ip());
    let is_it = text.lines().any(|line| line.trim() == listens);
    is_it.then(|| Path::new(value("-Dcassandra.storagedir=").unwrap_or(".")).to_owned())
}
