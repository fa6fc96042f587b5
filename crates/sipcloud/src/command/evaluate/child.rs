//! A process of the experiment: its lines of JSON, its end, and that it never outlives us.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use provider_drivers::process::{ProcessIdentity, Signal, in_own_session};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::exit::Exit;

/// How often an ending process is looked at.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct ChildProcess {
    name: &'static str,
    child: Child,
    process: Option<ProcessIdentity>,
    lines: UnboundedReceiver<Value>,
    has_ended: bool,
}

impl ChildProcess {
    /// Starts it in a session of its own, so that Ctrl-C reaches it only through us. What it says
    /// as lines of JSON is kept to be read; what it says to standard error goes to `log`.
    pub(super) fn start(name: &'static str, command: &mut Command, log: &File) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = in_own_session(command)
            .spawn()
            .map_err(|error| Exit::Unavailable.because(format!("{name} cannot start: {error}")))?;
        let out = child.stdout.take().context("its output is piped")?;
        // One or two lines a second, read at each sample.
        let (said, lines) = unbounded_channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else {
                    continue;
                };
                if said.send(line).is_err() {
                    return;
                }
            }
        })?;
        let process = ProcessIdentity::of(child.id());
        Ok(Self { name, child, process, lines, has_ended: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said since.
    pub(super) fn next_line(&mut self) -> Option<Value> {
        self.lines.try_recv().ok()
    }

    /// Waits for a line of this type.
    pub(super) async fn wait_for(&mut self, kind: &str, patience: Duration) -> Result<Value> {
        let found = async {
            while let Some(line) = self.lines.recv().await {
                if line.get("type").and_then(Value::as_str) == Some(kind) {
                    return Some(line);
                }
            }
            None
        };
        let name = self.name;
        match tokio::time::timeout(patience, found).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(Exit::Unavailable.because(format!("{name} ended by itself"))),
            Err(_) => {
                let seconds = patience.as_secs();
                Err(Exit::Unavailable.because(format!("{name} is not {kind} after {seconds} s")))
            }
        }
    }

    /// Asks it to end; safe to repeat.
    pub(super) fn ask_to_end(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::Terminate).ok();
        }
    }

    /// Whether it has ended, and well.
    pub(super) fn ended(&mut self) -> Option<bool> {
        let status = self.child.try_wait().ok()??;
        self.has_ended = true;
        Some(status.success())
    }

    /// Asks it to end and waits; it is killed if that takes too long.
    pub(super) async fn end(&mut self, patience: Duration) -> Result<()> {
        self.ask_to_end();
        let mut waited = Duration::ZERO;
        while self.ended().is_none() {
            if waited >= patience {
                self.kill();
                let name = self.name;
                return Err(Exit::Software.because(format!("{name} did not end and was killed")));
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        if !self.has_ended {
            self.child.kill().ok();
            self.child.wait().ok();
            self.has_ended = true;
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
