//! How the manager is started, asked and stopped.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet::InstanceId;
use node_api::wire::{Event, EventsPage, FleetStatus};
use node_api::{ClientError, DrainError, ManagerHandle, Server, serve_manager};
use provider::{ComputeProvider, DnsProvider, ProviderError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::SystemClock;
use crate::config::{LsmConfiguration, Settings};
use crate::journal::Journal;
use crate::nodes::HttpNodes;
use crate::observe::Snapshot;
use crate::reconcile::{Manager, Pace, Seams};
use crate::report;

/// Why the manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum LsmError {
    #[error("open the journal: {0}")]
    Journal(#[source] io::Error),
    #[error("make a client for the nodes: {0}")]
    Client(#[from] ClientError),
    #[error("serve the manager's interface on {listen}: {source}")]
    Serve { listen: SocketAddr, source: io::Error },
}

/// A running manager. Dropping it stops it; the nodes go on either way.
#[derive(Debug)]
pub struct Lsm {
    server: Server,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Starts the manager: its loop and its interface. Needs a tokio runtime.
///
/// # Errors
///
/// If the journal, the HTTP client or the address cannot be had.
pub async fn start(
    config: LsmConfiguration,
    compute: Arc<dyn ComputeProvider>,
    dns: Arc<dyn DnsProvider>,
) -> Result<Lsm, LsmError> {
    let (listen, token) = (config.listen, config.token.clone());
    // Each call has a tighter limit of its own.
    let nodes = HttpNodes::new(&config.template.base.control.token, config.settings.act_timeout)?;
    let seams = Seams { compute, dns, nodes: Arc::new(nodes), clock: Arc::new(SystemClock) };
    let manager = Manager::new(config, seams).map_err(LsmError::Journal)?;
    let served = serve_manager(listen, &token, manager.handle()).await;
    let server = served.map_err(|source| LsmError::Serve { listen, source })?;
    let shared = manager.shared();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(manager, stopped));
    Ok(Lsm { server, shared, stop, task })
}

/// Removes every machine of the fleet at once.
///
/// # Errors
///
/// If they cannot be listed, or the first that cannot be removed; the others are tried all the
/// same.
pub async fn terminate_all(compute: &Arc<dyn ComputeProvider>) -> Result<(), ProviderError> {
    let mut running = tokio::task::JoinSet::new();
    for machine in compute.list().await? {
        let compute = Arc::clone(compute);
        running.spawn(async move { compute.terminate(&machine.id).await });
    }
    let mut result = Ok(());
    while let Some(done) = running.join_next().await {
        let done = match done {
            Ok(done) => done,
            Err(error) => Err(ProviderError::Unavailable { why: format!("broke off: {error}") }),
        };
        result = result.and(done);
    }
    result
}

/// Polls at every interval, and looks sooner at a fleet in motion.
async fn run(mut manager: Manager, mut stopped: watch::Receiver<bool>) {
    let shared = manager.shared();
    let mut next_poll = Instant::now();
    let mut pace = Pace::Poll;
    loop {
        let (poll_interval, settle_interval) = manager.intervals();
        let settle_at = match pace {
            Pace::Soon => next_poll.min(Instant::now() + settle_interval),
            Pace::Poll => next_poll,
        };
        tokio::select! {
            biased;
            // An error means that the `Lsm` was dropped.
            _ = stopped.wait_for(|&stop| stop) => break,
            () = shared.wake.notified() => {}
            () = tokio::time::sleep_until(settle_at) => {}
        }
        let now = Instant::now();
        pace = if now >= next_poll {
            // A round that took too long, or a suspended machine, is not made up for.
            next_poll = (next_poll + poll_interval).max(now);
            manager.round().await
        } else {
            manager.settle().await
        };
    }
    manager.leave();
}

impl Lsm {
    /// Where its interface listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// What its interface serves, without the way over HTTP.
    #[must_use]
    pub fn handle(&self) -> Arc<dyn ManagerHandle> {
        Arc::clone(&self.shared) as Arc<dyn ManagerHandle>
    }

    /// New policies and times from the next round on.
    pub fn set_settings(&self, settings: Settings) {
        *lock(&self.shared.new_settings) = Some(settings);
        self.shared.wake.notify_one();
    }

    /// Returns if the loop ended without having been stopped, which is a bug.
    pub async fn ended(&mut self) {
        // A panic of the loop is the very thing that is waited for.
        let _ = (&mut self.task).await;
    }

    /// Finishes the round in progress and stops. The nodes go on.
    pub async fn stop(self) {
        // Fails only if the loop has ended.
        let _ = self.stop.send(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the manager's loop broke off");
        }
        self.server.stop().await;
    }
}

/// What the loop and those who ask have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    fleet: Mutex<FleetStatus>,
    journal: Mutex<Journal>,
    asked: Mutex<BTreeSet<InstanceId>>,
    new_settings: Mutex<Option<Settings>>,
    /// Something was asked for that the loop should not sleep over.
    wake: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(journal: Journal, fleet: FleetStatus) -> Self {
        Self {
            fleet: Mutex::new(fleet),
            journal: Mutex::new(journal),
            asked: Mutex::default(),
            new_settings: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(crate) fn publish(&self, fleet: FleetStatus) {
        *lock(&self.fleet) = fleet;
    }

    /// A journal that cannot be written is told of in the log and does not stop the manager.
    pub(crate) fn append(&self, event: Event) {
        if let Err(error) = lock(&self.journal).append(event) {
            tracing::error!(%error, "the journal cannot be written");
        }
    }

    pub(crate) fn sync_journal(&self) {
        if let Err(error) = lock(&self.journal).sync() {
            tracing::error!(%error, "the journal cannot be brought to the disk");
        }
    }

    pub(crate) fn take_settings(&self) -> Option<Settings> {
        lock(&self.new_settings).take()
    }

    /// What the operator wants drained and is still there.
    pub(crate) fn asked_to_drain(&self, snapshot: &Snapshot) -> BTreeSet<InstanceId> {
        let mut asked = lock(&self.asked);
        asked.retain(|instance| {
            snapshot.machines.iter().any(|machine| machine.instance == *instance)
        });
        asked.clone()
    }

    pub(crate) fn forget_drain(&self, instance: InstanceId) {
        lock(&self.asked).remove(&instance);
    }
}

impl ManagerHandle for Shared {
    fn fleet(&self) -> FleetStatus {
        lock(&self.fleet).clone()
    }

    fn events(&self, after: u64, limit: usize) -> EventsPage {
        lock(&self.journal).events(after, limit)
    }

    fn drain(&self, instance: InstanceId) -> Result<(), DrainError> {
        let is_known = lock(&self.fleet).instances.iter().any(|one| one.instance == instance);
        if !is_known {
            return Err(DrainError::Unknown { instance });
        }
        lock(&self.asked).insert(instance);
        self.wake.notify_one();
        Ok(())
    }

    fn metrics(&self) -> String {
        report::metrics(&self.fleet())
    }
}
