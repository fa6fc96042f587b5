//! How the manager is started, asked and stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use fleet::{InstanceId, Tier, WEIGHT_MAX, WEIGHT_NORMAL};
use node_api::wire::{DrainWish, Event, EventKind, EventsPage, FleetStatus, ManagerStatus};
use node_api::{ClientError, ManagerHandle, OrderError, Server, serve_manager};
use provider::{ComputeProvider, DnsProvider, ProviderError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::{Clock, SystemClock};
use crate::config::{LsmConfiguration, Settings};
use crate::journal::Journal;
use crate::lease::{Keeper, Lease};
use crate::nodes::HttpNodes;
use crate::observe::Snapshot;
use crate::reconcile::{Manager, Pace, Seams};
use crate::report;
use crate::wishes::WishList;

/// Why the manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum LsmError {
    #[error("open the journal: {0}")]
    Journal(#[source] io::Error),
    #[error("make a client for the nodes: {0}")]
    Client(#[from] ClientError),
    #[error("start the lease: {0}")]
    Lease(#[source] io::Error),
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
    keeper: std::thread::JoinHandle<()>,
    /// Dropped when the last act is over: then the lease is given back.
    keep: mpsc::Sender<()>,
    holds: watch::Receiver<bool>,
}

/// Starts the manager: its loop, its lease and its interface. Needs a tokio runtime.
///
/// # Errors
///
/// If the journal, the HTTP client or the address cannot be had.
pub async fn start(
    config: LsmConfiguration,
    lease: Lease,
    compute: Arc<dyn ComputeProvider>,
    dns: Arc<dyn DnsProvider>,
) -> Result<Lsm, LsmError> {
    let (listen, token) = (config.listen, config.token.clone());
    // Each call has a tighter limit of its own.
    let nodes = HttpNodes::new(&config.template.base.control.token, config.settings.act_timeout)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let keeper = Keeper::new(lease, config.settings.timing.poll_interval, Arc::clone(&clock));
    let leadership = keeper.leadership();
    let holds = leadership.holds();
    let seams = Seams { compute, dns, nodes: Arc::new(nodes), clock, leadership };
    let manager = Manager::new(config, seams).map_err(LsmError::Journal)?;
    let served = serve_manager(listen, &token, manager.handle()).await;
    let server = served.map_err(|source| LsmError::Serve { listen, source })?;
    let shared = manager.shared();
    let (stop, stopped) = watch::channel(false);
    let (keep, released) = mpsc::channel();
    let keeper = keeper.start(released).map_err(LsmError::Lease)?;
    let task = tokio::spawn(run(manager, stopped));
    Ok(Lsm { server, shared, stop, task, keeper, keep, holds })
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
    let mut holds = manager.seams.leadership.holds();
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
            // The other end lives as long as the leadership does.
            _ = holds.changed() => {}
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
    manager.leave().await;
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

    /// Whether the lease is this manager's.
    #[must_use]
    pub fn holds(&self) -> watch::Receiver<bool> {
        self.holds.clone()
    }

    /// Returns if the loop ended without having been stopped, which is a bug.
    pub async fn ended(&mut self) {
        // A panic of the loop is the very thing that is waited for.
        let _ = (&mut self.task).await;
    }

    /// Finishes the round in progress, stops, and gives the lease back. The nodes go on.
    pub async fn stop(self) {
        // Fails only if the loop has ended.
        let _ = self.stop.send(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the manager's loop broke off");
        }
        drop(self.keep);
        let keeper = self.keeper;
        if tokio::task::spawn_blocking(move || keeper.join()).await.is_err() {
            tracing::error!("the lease's thread cannot be waited for");
        }
        self.server.stop().await;
    }
}

/// What the loop and those who ask have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    fleet: Mutex<FleetStatus>,
    /// `None` while another manager leads: it is theirs.
    journal: Mutex<Option<Journal>>,
    wishes: Mutex<WishList>,
    new_settings: Mutex<Option<Settings>>,
    /// Something was asked for that the loop should not sleep over.
    wake: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(fleet: FleetStatus, wishes: PathBuf) -> Self {
        Self {
            fleet: Mutex::new(fleet),
            journal: Mutex::default(),
            wishes: Mutex::new(WishList::new(wishes)),
            new_settings: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(crate) fn publish(&self, fleet: FleetStatus) {
        *lock(&self.fleet) = fleet;
    }

    /// A standby knows nothing of the fleet; a leader that pauses shows what it knew.
    pub(crate) fn publish_manager(&self, manager: ManagerStatus, is_leader: bool) {
        let mut fleet = lock(&self.fleet);
        if !is_leader {
            *fleet = report::nothing_yet(fleet.at_ms, ManagerStatus::default());
        }
        fleet.manager = manager;
    }

    pub(crate) fn begin_journal(&self, journal: Journal) {
        *lock(&self.journal) = Some(journal);
    }

    pub(crate) fn end_journal(&self) {
        *lock(&self.journal) = None;
        lock(&self.wishes).forget_all();
    }

    /// A journal that cannot be written is told of in the log and does not stop the manager.
    pub(crate) fn append(&self, event: Event) {
        let mut journal = lock(&self.journal);
        let Some(journal) = journal.as_mut() else { return };
        if let Err(error) = journal.append(event) {
            tracing::error!(%error, "the journal cannot be written");
        }
    }

    pub(crate) fn sync_journal(&self) {
        let mut journal = lock(&self.journal);
        let Some(journal) = journal.as_mut() else { return };
        if let Err(error) = journal.sync() {
            tracing::error!(%error, "the journal cannot be brought to the disk");
        }
    }

    pub(crate) fn take_settings(&self) -> Option<Settings> {
        lock(&self.new_settings).take()
    }

    /// What earlier leaders were asked for.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn load_wishes(&self) -> io::Result<()> {
        lock(&self.wishes).load()
    }

    /// What operators want drained and is still there, and the weights that they gave.
    pub(crate) fn wishes(
        &self,
        snapshot: &Snapshot,
    ) -> (BTreeSet<InstanceId>, BTreeMap<InstanceId, u16>) {
        let mut wishes = lock(&self.wishes);
        (wishes.drained(&snapshot.machines), wishes.weights())
    }

    pub(crate) fn forget_drain(&self, instance: InstanceId) {
        let (_, written) = lock(&self.wishes).keep(instance);
        self.tell_unless(written);
    }
}

fn by_whom(why: &str) -> &str {
    if why.is_empty() { "an operator" } else { why }
}

impl Shared {
    fn expect_leading(&self) -> Result<(), OrderError> {
        if lock(&self.journal).is_some() {
            return Ok(());
        }
        Err(OrderError::NotLeading { leader: lock(&self.fleet).manager.leader.clone() })
    }

    /// The machine that this instance is now.
    fn expect_known(&self, instance: InstanceId) -> Result<DrainWish, OrderError> {
        self.expect_leading()?;
        let fleet = lock(&self.fleet);
        let known = fleet.instances.iter().find(|one| one.instance == instance);
        let known = known.ok_or(OrderError::Unknown { instance })?;
        let (machine, created_at_ms) = (known.machine.clone(), known.created_at_ms);
        Ok(DrainWish { instance, machine, created_at_ms })
    }

    /// What is not written down is done all the same, and is lost with this manager.
    fn tell_unless(&self, written: io::Result<()>) {
        if let Err(error) = written {
            let text = format!("the next manager will not know what was asked for: {error}");
            tracing::error!("{text}");
            self.append(report::event(SystemClock.unix_ms(), EventKind::Failure, text));
        }
    }

    fn tell_operators_wish(&self, instance: InstanceId, text: String) {
        let tier = Some(instance.tier.name().to_owned());
        let event = report::event(SystemClock.unix_ms(), EventKind::Act, text);
        self.append(Event { tier, instance: Some(instance), ..event });
    }
}

impl ManagerHandle for Shared {
    fn fleet(&self) -> FleetStatus {
        lock(&self.fleet).clone()
    }

    fn events(&self, after: u64, limit: usize) -> EventsPage {
        let none = || EventsPage { last: after, ..EventsPage::default() };
        lock(&self.journal).as_ref().map_or_else(none, |journal| journal.events(after, limit))
    }

    fn drain(&self, instance: InstanceId, why: &str) -> Result<(), OrderError> {
        let wish = self.expect_known(instance)?;
        let (is_news, written) = lock(&self.wishes).drain(wish);
        if is_news {
            self.tell_operators_wish(instance, format!("asked to drain: {}", by_whom(why)));
        }
        self.tell_unless(written);
        self.wake.notify_one();
        Ok(())
    }

    fn keep(&self, instance: InstanceId) -> Result<(), OrderError> {
        self.expect_known(instance)?;
        let (is_news, written) = lock(&self.wishes).keep(instance);
        if is_news {
            self.tell_operators_wish(instance, "asked to stay, if it still serves".to_owned());
        }
        self.tell_unless(written);
        self.wake.notify_one();
        Ok(())
    }

    fn weigh(&self, instance: InstanceId, weight: u16, why: &str) -> Result<(), OrderError> {
        self.expect_leading()?;
        if instance.tier != Tier::Proxy {
            return Err(OrderError::NoWeight { instance });
        }
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(OrderError::Weight { instance, weight });
        }
        // The ordinary weight can be given back to a slot that is empty now.
        let is_given = lock(&self.wishes).weights().contains_key(&instance);
        if !is_given || weight != WEIGHT_NORMAL {
            self.expect_known(instance)?;
        }
        let (before, written) = lock(&self.wishes).weigh(instance, weight);
        if before != weight {
            let text = format!("weight {weight}, was {before}: {}", by_whom(why));
            self.tell_operators_wish(instance, text);
        }
        self.tell_unless(written);
        self.wake.notify_one();
        Ok(())
    }

    fn note(&self, text: &str) -> Result<(), OrderError> {
        self.expect_leading()?;
        self.append(report::event(SystemClock.unix_ms(), EventKind::Manager, text));
        Ok(())
    }

    fn metrics(&self) -> String {
        report::metrics(&self.fleet())
    }
}
