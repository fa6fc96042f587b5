//! Processes of this machine: who is alive, signals that cannot hit a stranger, sessions, reaping.
//!
//! A process id alone proves nothing, because the kernel uses it again. Here a process is its id,
//! its start time and the boot of the machine, as `/proc` tells them. All raw system calls of this
//! crate and of the front door are in this file.
#![expect(unsafe_code, reason = "signals, sessions and file locks have no safe form in std")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// One process, told apart from every other that had or will have its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// Clock ticks between the boot of the machine and the start of the process.
    pub start_ticks: u64,
    /// The kernel's random name for this boot; empty where `/proc` does not tell.
    pub boot: String,
}

/// What is asked of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Drain and exit (SIGTERM).
    Terminate,
    /// Exit at once; cannot be refused (SIGKILL).
    Kill,
    /// Read the configuration again (SIGHUP).
    Reload,
}

impl Signal {
    const fn number(self) -> libc::c_int {
        match self {
            Self::Terminate => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
            Self::Reload => libc::SIGHUP,
        }
    }
}

impl ProcessIdentity {
    /// The calling process.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this id now; `None` if there is none, or only its unreaped exit code.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_ticks) = state_and_start(&stat)?;
        let has_exited = matches!(state, "Z" | "X" | "x");
        (!has_exited).then(|| Self { pid, start_ticks, boot: boot_name() })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }

    /// Sends a signal to this very process; `Ok(false)` if it is gone.
    ///
    /// The handle is opened before the start time is compared, so that an id that changes hands
    /// in between is never hit.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, for instance when the process belongs to another user.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Ok(pid) = libc::pid_t::try_from(self.pid) else {
            return Ok(false);
        };
        let handle = match open_pidfd(pid) {
            Ok(handle) => handle,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
            Err(error) => return Err(error),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        // SAFETY: the descriptor is open for the length of the call; a null siginfo is allowed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                handle.as_raw_fd(),
                signal.number(),
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match (result, io::Error::last_os_error()) {
            (0, _) => Ok(true),
            (_, error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            (_, error) => Err(error),
        }
    }
}

/// Opens a handle that stays with one process even when its id is used again.
fn open_pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or an error.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(raw) = libc::c_int::try_from(raw) else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The state letter and the start time out of `/proc/PID/stat`.
///
/// The command's name stands in parentheses and may hold spaces and parentheses of its own, so
/// the fields are counted from the last one.
fn state_and_start(stat: &str) -> Option<(&str, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is field 3 of proc(5), the start time field 22.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some((state, start_ticks))
}

/// The kernel's name for the set of process ids that this process sees; empty where it is hidden.
/// Ids of another set say nothing here.
pub fn id_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

fn boot_name() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Every live process whose working directory is `folder`, itself excluded.
///
/// Finds a node whose manager died between starting it and writing its id down.
pub fn working_in(folder: &Path) -> Vec<ProcessIdentity> {
    let own = std::process::id();
    let Ok(folder) = folder.canonicalize() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let directory: PathBuf = fs::read_link(entry.path().join("cwd")).ok()?;
            (pid != own && directory == folder).then(|| ProcessIdentity::of(pid)).flatten()
        })
        .collect()
}

/// Makes the command start in a session of its own: the terminal's Ctrl-C does not reach it.
pub fn in_own_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// Orphans below the calling process become its children, so that it can see their end.
///
/// # Errors
///
/// The kernel's refusal (Linux before 3.4).
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: this option takes one integer and changes a flag of the calling process only.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub pid: u32,
    /// `None` if a signal ended it.
    pub exit_code: Option<i32>,
}

/// Takes the exit code of every child that has ended.
///
/// Only for a process that does not wait for its children by other means.
pub fn reap_children() -> Vec<Ended> {
    let mut ended = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call; WNOHANG never blocks.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match u32::try_from(pid) {
            Ok(pid) if pid > 0 => {
                let exit_code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                ended.push(Ended { pid, exit_code });
            }
            _ => return ended,
        }
    }
}

/// Locks a whole file for this process until the file is closed; `Ok(false)` if another has it.
///
/// # Errors
///
/// Any other refusal, for instance a file system without locks.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open for the length of the call.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn start_time_is_found_behind_any_command_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sipcloud", "a b", "a) R 1 (b", ")"] {
            let stat = format!("42 ({name}) {tail}");
            assert_eq!(state_and_start(&stat), Some(("S", 4711)), "{name}");
        }
        assert_eq!(state_and_start("42 (short) S 1"), None);
    }

    #[test]
    fn a_recycled_id_is_another_process() {
        let own = ProcessIdentity::current().expect("this process is alive");
        assert!(own.is_alive());
        let earlier = ProcessIdentity { start_ticks: own.start_ticks - 1, ..own.clone() };
        assert!(!earlier.is_alive());
        assert!(!earlier.signal(Signal::Kill).expect("nothing to refuse"), "not hit");
    }

    #[test]
    fn a_killed_child_is_gone_before_it_is_reaped() {
        let mut child =
            Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
        let identity = ProcessIdentity::of(child.id()).expect("it runs");
        assert!(identity.signal(Signal::Kill).expect("ours"));
        while identity.is_alive() {
            std::thread::yield_now();
        }
        child.wait().expect("it ended");
        assert!(!identity.signal(Signal::Terminate).expect("gone"), "a second signal finds nobody");
    }

    #[test]
    fn a_lock_is_held_by_one_open_file() {
        let path = std::env::temp_dir().join(format!("sipcloud-lock-{}", std::process::id()));
        let open = || File::options().create(true).append(true).open(&path).expect("open");
        let (first, second) = (open(), open());
        assert!(try_lock(&first).expect("lock"));
        assert!(!try_lock(&second).expect("lock"));
        fs::remove_file(&path).expect("remove");
    }
}
