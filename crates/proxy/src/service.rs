//! What starts a proxy, stops it, and answers the manager for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use fleet::{Membership, StaleGeneration};
use node_api::server::NodeHandle;
use node_api::wire::{Generation, NodeStatus, SipAddresses, StoreHealth, WorkerStatus};
use sip_core::mac::KeyRing;
use sip_net::clock;
use sip_net::poll::{Poller, Waker};
use sip_net::resolve::{Resolver, ResolverOptions};
use sip_net::stream::{StreamOptions, Streams};
use sip_net::udp::{UdpOptions, UdpSocket};
use store::{Store, Wake};

use crate::config::Config;
use crate::control::Control;
use crate::handover::OldestStamp;
use crate::leave::Wire;
use crate::leaving;
use crate::metrics::{self, Counters};
use crate::probe;
use crate::worker::{Parts, Worker};

/// Opens a handle on the store for one worker; `Wake` ends that worker's wait.
pub type StoreFactory = Box<dyn Fn(Wake) -> io::Result<Box<dyn Store>> + Send + Sync>;

/// A proxy that runs. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    node: Arc<Node>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// What the control interface serves.
    pub fn handle(&self) -> Arc<dyn NodeHandle> {
        self.node.clone()
    }

    /// Whether a drain has come to its end: nothing is being answered any more.
    pub fn is_empty(&self) -> bool {
        self.node.workers.iter().all(|it| it.counters.server_transactions.get() == 0)
    }

    /// Whether every event loop is still turning; one that is not has logged why.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Ends every worker and waits for it.
    pub fn stop(self) {
        self.node.control.stop();
        for worker in &self.node.workers {
            worker.waker.wake();
        }
        self.node.control.wake_prober();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the proxy panicked");
            }
        }
    }
}

/// Binds the sockets and starts the workers.
///
/// # Errors
///
/// An address that cannot be bound, keys that cannot be used, a store that cannot be opened.
pub fn start(config: Config, open_store: StoreFactory) -> io::Result<Running> {
    let config = Arc::new(config);
    let control = Arc::new(Control::default());
    let mut workers = Vec::new();
    let mut threads = Vec::new();
    for number in 0..config.workers.max(1) {
        let (seen, thread) = start_worker(&config, &control, &open_store, number)?;
        workers.push(seen);
        threads.push(thread);
    }
    let wakers = workers.iter().map(|worker| worker.waker.clone()).collect();
    threads.push(probe::start(control.clone(), config.listen.ip(), wakers)?);
    let started_at_ms = clock::unix_millis();
    let node = Node { config, control, workers, started_at_ms };
    Ok(Running { node: Arc::new(node), threads })
}

fn start_worker(
    config: &Arc<Config>,
    control: &Arc<Control>,
    open_store: &StoreFactory,
    number: u16,
) -> io::Result<(WorkerSeen, JoinHandle<()>)> {
    let (seen, worker, poller) = make_worker(config, control, open_store, number)?;
    let name = format!("worker-{number}");
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(error) = worker.run(&poller) {
            tracing::error!(worker = name, %error, "the event loop ended");
        }
    })?;
    Ok((seen, thread))
}

/// A worker that does not run yet, and what it is to wait with.
pub(crate) fn make_worker(
    config: &Arc<Config>,
    control: &Arc<Control>,
    open_store: &StoreFactory,
    number: u16,
) -> io::Result<(WorkerSeen, Worker, Poller)> {
    let port = config.listen.port().checked_add(number);
    let port = port.ok_or_else(|| io::Error::other("a worker's port is above 65535"))?;
    let address = SocketAddr::new(config.listen.ip(), port);
    let in_context = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let poller = Poller::new()?;
    let waker = poller.waker();
    let options = UdpOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        report_errors: true,
        ..UdpOptions::default()
    };
    let udp = UdpSocket::bind(address, options).map_err(in_context)?;
    let address = udp.local_addr();
    // Connections leave from the worker's own address: balancers know members by it.
    let listen = StreamOptions {
        listen: vec![address],
        local_ip: Some(address.ip()),
        incarnation: config.incarnation.0,
        ..StreamOptions::default()
    };
    let streams = Streams::start(listen, waker.clone()).map_err(in_context)?;
    let resolving =
        ResolverOptions { name_servers: config.name_servers.clone(), ..ResolverOptions::default() };
    let resolver = Resolver::start(resolving, waker.clone())?;
    let store = open_store(waker.to_fn())?;
    let counters = Arc::new(Counters::default());
    let oldest_stamp = Arc::new(OldestStamp::default());
    let leaving = Arc::new(leaving::Shown::default());
    let ring = KeyRing::new(&config.keys).map_err(io::Error::other)?;
    let hash_key = ring.selection_key();
    let wire = Wire::new(udp, streams, config.internal_mtu, counters.clone());
    let worker = Worker::new(Parts {
        config: config.clone(),
        ring,
        wire,
        store,
        resolver,
        counters: counters.clone(),
        control: control.clone(),
        oldest_stamp: oldest_stamp.clone(),
        leaving: leaving.clone(),
        hash_key,
    });
    Ok((WorkerSeen { address, counters, oldest_stamp, leaving, waker }, worker, poller))
}

/// A worker, seen from outside.
pub(crate) struct WorkerSeen {
    address: SocketAddr,
    counters: Arc<Counters>,
    oldest_stamp: Arc<OldestStamp>,
    leaving: Arc<leaving::Shown>,
    waker: Waker,
}

/// A proxy, seen from the manager.
struct Node {
    config: Arc<Config>,
    control: Arc<Control>,
    workers: Vec<WorkerSeen>,
    started_at_ms: u64,
}

impl NodeHandle for Node {
    fn status(&self) -> NodeStatus {
        let internal = self.workers.first().map_or(self.config.listen, |worker| worker.address);
        let sip = SipAddresses { internal, advertised: internal, extra: Vec::new() };
        let draining = self.control.is_draining();
        let membership = self.control.membership();
        let sum = |of: fn(&Counters) -> u64| -> u64 {
            self.workers.iter().map(|worker| of(&worker.counters)).sum()
        };
        let has_store = self.workers.iter().any(|it| it.counters.store_is_down.get() == 0);
        let workers = self.workers.iter().zip(0..).map(|(worker, number)| WorkerStatus {
            worker: number,
            address: worker.address,
            calls_total: worker.counters.calls.get(),
            server_transactions: worker.counters.server_transactions.get(),
        });
        let last = self.workers.iter().map(|it| it.counters.last_activity_ms.get()).max();
        let speak =
            |known: &Membership| leaving::sum(known, self.workers.iter().map(|it| &*it.leaving));
        let now_ms = clock::unix_millis();
        let usage = node_api::process::usage();
        NodeStatus {
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            uptime_ms: now_ms.saturating_sub(self.started_at_ms),
            ready: has_store && !draining,
            draining,
            workers: workers.collect(),
            generation: membership.as_ref().map(|it| Generation::from(it.generation)),
            digest: membership.as_ref().map(|it| format!("{:016x}", it.digest)),
            calls_total: sum(|it| it.calls.get()),
            requests_total: sum(Counters::requests),
            server_transactions: sum(|it| it.server_transactions.get()),
            cpu_seconds_total: usage.cpu_seconds,
            rss_bytes: usage.rss_bytes,
            messages_received_total: sum(|it| it.messages_received.get()),
            messages_sent_total: sum(|it| it.messages_sent.get()),
            network_received_bytes_total: sum(|it| it.bytes_received.get()),
            network_sent_bytes_total: sum(|it| it.bytes_sent.get()),
            messages_dropped_total: sum(Counters::dropped),
            store: if has_store { StoreHealth::Good } else { StoreHealth::Unavailable },
            oldest_stamp: self
                .workers
                .iter()
                .filter_map(|worker| worker.oldest_stamp.get())
                .min()
                .map(Generation::from),
            store_queries_total: sum(|it| it.store_latencies.count()),
            store_failures_total: sum(|it| it.query_failures.get()),
            store_latency_us_total: sum(|it| it.store_latencies.sum_us()),
            last_sip_activity_ms: last.unwrap_or_default(),
            balancers_leaving: membership.as_deref().map(speak).unwrap_or_default(),
            ..NodeStatus::started(self.config.instance, self.config.incarnation, sip)
        }
    }

    fn membership(&self) -> Option<Membership> {
        self.control.membership().as_deref().cloned()
    }

    fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        let generation = membership.generation;
        self.control.put_membership(membership)?;
        tracing::info!(%generation, "membership taken");
        for worker in &self.workers {
            worker.waker.wake();
        }
        Ok(())
    }

    fn drain(&self, on: bool) {
        if self.control.drain(on) {
            tracing::info!(draining = on, "drain");
        }
    }

    fn metrics(&self) -> String {
        let counters: Vec<Arc<Counters>> =
            self.workers.iter().map(|worker| worker.counters.clone()).collect();
        metrics::render(&counters)
    }
}
