//! Ending a cloud so that no process of it stays: the managers first, which would replace nodes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use provider_drivers::process::{self, ProcessIdentity, Signal};
use provider_drivers::{live_machines, remove_dead_machines};

use crate::command::small_runtime;
use crate::config::Config;
use crate::exit::Exit;
use crate::files::{self, ManagerFile};

/// How often ending processes are looked at.
const POLL: Duration = Duration::from_millis(20);
/// The manager has nothing to drain.
const MANAGER_GRACE: Duration = Duration::from_secs(2);
/// After the second SIGTERM a node ends at once.
const CUT_OFF_GRACE: Duration = Duration::from_secs(1);
/// A killed process that is still there after this long hangs in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How much patience there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// Nodes may finish what they have begun, within the grace.
    Drain { grace: Duration },
    /// Everything is killed.
    Now,
}

/// Ends the managers and every node of a data directory, and removes what they leave.
///
/// `managers` are those that have perhaps not yet written down where they answer.
///
/// # Errors
///
/// A process that does not end; the error names it.
pub(super) async fn cloud(data: &Path, managers: Vec<ProcessIdentity>, haste: Haste) -> Result<()> {
    let steps: &[(Signal, Duration)] = match haste {
        Haste::Drain { grace } => &[
            (Signal::Terminate, grace),
            (Signal::Terminate, CUT_OFF_GRACE),
            (Signal::Kill, KILL_WAIT),
        ],
        Haste::Now => &[(Signal::Kill, KILL_WAIT)],
    };
    let written = ManagerFile::running(data).into_iter().map(|file| file.process);
    let managers: Vec<_> = managers.into_iter().chain(written).collect();
    let mut manager_steps = steps.to_vec();
    manager_steps[0].1 = manager_steps[0].1.max(MANAGER_GRACE);
    end(&managers, &manager_steps).await;
    let nodes: Vec<_> = live_machines(data)?.into_iter().map(|(_, process)| process).collect();
    end(&nodes, steps).await;
    let left: Vec<String> =
        live_machines(data)?.iter().map(|(id, it)| format!("{id} (process {})", it.pid)).collect();
    if !left.is_empty() {
        return Err(Exit::Software.because(format!("did not end: {}", left.join(", "))));
    }
    remove_dead_machines(data)?;
    ManagerFile::remove_all(data);
    Ok(())
}

/// Sends each signal to those that still run, and gives them its time.
async fn end(processes: &[ProcessIdentity], steps: &[(Signal, Duration)]) {
    for (signal, wait) in steps {
        for process in processes {
            if let Err(error) = process.signal(*signal) {
                tracing::warn!(pid = process.pid, %error, "cannot be signalled");
            }
        }
        let mut waited = Duration::ZERO;
        while processes.iter().any(ProcessIdentity::is_alive) {
            if waited >= *wait {
                break;
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
            process::reap_children();
        }
        if !processes.iter().any(ProcessIdentity::is_alive) {
            return;
        }
    }
}

/// Takes over from an `up` that was killed: its managers end, its nodes stay if they fit.
///
/// Nodes that were started with another configuration are ended: the new one would not hold.
pub(super) fn predecessor(data: &Path, config: &Config) -> Result<()> {
    let before = fs::read_to_string(files::running_configuration(data)).unwrap_or_default();
    let fits = before == config.to_toml()?;
    let steps = [(Signal::Terminate, MANAGER_GRACE), (Signal::Kill, KILL_WAIT)];
    small_runtime()?.block_on(async {
        let managers: Vec<_> =
            ManagerFile::running(data).into_iter().map(|file| file.process).collect();
        end(&managers, &steps).await;
        if fits {
            return Ok(());
        }
        let grace = Duration::from_millis(config.local.stop_grace_ms);
        cloud(data, Vec::new(), Haste::Drain { grace }).await
    })
}
