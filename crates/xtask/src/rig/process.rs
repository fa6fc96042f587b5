//! Processes: started in groups of their own, so that Ctrl-C is ours to pass on, and waited for within
//! limits.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::interrupt;

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to end when it is told to.
const END_TIME_MAX: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "a developer's tool measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a developer's tool waits for processes")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Where a process may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Anywhere,
    /// On these cores, as `taskset` writes them.
    Cores(String),
}

impl Place {
    /// A command that starts `program` there.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Anywhere => Command::new(program),
            Self::Cores(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores]).arg(program);
                command
            }
        }
    }

    /// Moves all threads of a process that runs already.
    pub(crate) fn apply(&self, process: u32) -> Result<()> {
        let Self::Cores(cores) = self else { return Ok(()) };
        let mut taskset = Command::new("taskset");
        taskset.args(["-acp", cores, &process.to_string()]);
        run(&mut taskset, END_TIME_MAX).map(drop)
    }
}

/// A process that is told to end when this is dropped, and killed if it does not.
#[derive(Debug)]
pub(crate) struct Running(pub Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Ok(Self(child.with_context(|| format!("{name} does not start"))?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }

    fn end(&mut self) {
        if self.has_ended() {
            return;
        }
        // A kill at once would leave its children behind.
        signal("INT", &self.id().to_string());
        if wait(&mut self.0, END_TIME_MAX).is_none() {
            signal("KILL", &format!("-{}", self.id()));
            let _ = self.0.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(name: &str, process: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), "--", process]).status();
}

/// Its status once it has ended, `None` if it has not within `limit`.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begun = now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begun.elapsed() < limit => pause(LOOK),
            _ => return None,
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
///
/// It fails, takes longer than `limit`, or somebody has had enough.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let ended = run_whatever_comes(command, limit)?;
    if !ended.status.success() {
        bail!("{} failed: {}", command.get_program().to_string_lossy(), ended.status);
    }
    Ok(ended.output)
}

/// How a command ended, and its standard output.
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub output: String,
}

/// The same for a command that may fail.
pub(crate) fn run_whatever_comes(command: &mut Command, limit: Duration) -> Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let mut pipe = running.0.stdout.take().context("a pipe")?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let begun = now();
    let outcome = loop {
        if let Some(status) = running.0.try_wait()? {
            break Ok(status);
        }
        if let Err(error) = interrupt::check() {
            break Err(error);
        }
        if begun.elapsed() > limit {
            break Err(anyhow!("{name} has not ended within {} s", limit.as_secs()));
        }
        pause(LOOK);
    };
    if outcome.is_err() {
        // A script passes nothing on to what it waits for.
        signal("INT", &format!("-{}", running.id()));
    }
    let status = outcome?;
    let output = reader.join().unwrap_or_default();
    Ok(Ended { status, output })
}

/// Asks five times a second until there is an answer.
///
/// # Errors
///
/// There is none within `limit`, or somebody has had enough.
pub(crate) fn wait_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = now();
    while begun.elapsed() < limit {
        interrupt::check()?;
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        pause(LOOK * 10);
    }
    bail!("nothing within {} s", limit.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let error = run(Command::new("sleep").arg("600"), Duration::from_millis(50));
        let error = error.expect_err("it takes ten minutes").to_string();
        assert!(error.contains("has not ended within"), "{error}");
    }

    #[test]
    fn what_a_command_says_is_returned_unless_it_fails() {
        let limit = Duration::from_secs(60);
        assert_eq!(run(Command::new("echo").arg("ready"), limit).expect("it says it"), "ready\n");
        assert!(run(&mut Command::new("false"), limit).is_err());
    }
}
