//! Threads and sockets: one thread and one socket per listener and core, woken by the kernel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fleet::StaleGeneration;
use parking_lot::Mutex;
use sip_core::flow_token::{Flow, StreamId};
use sip_core::mac::{KeyRing, KeyRingError};
use sip_core::stateless::BalancerIdentity;
use sip_message::Transport;
use sip_net::clock;
use sip_net::limits::{BATCH_MAX, DATAGRAM_BYTES_MAX};
use sip_net::poll::{Events, Poller, Waker};
use sip_net::stream::{StreamOptions, Streams};
use sip_net::udp::{PeerErrors, Receiver, Sender, UdpOptions, UdpSocket};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::hall::{Hall, Port};
use crate::ledger::Ledger;
use crate::metrics::Counters;
use crate::node::Node;
use crate::probe::{self, Watch};
use crate::streams::StreamSide;
use crate::table::Tables;

/// How many batches of one socket are taken before the others have their turn.
const BATCHES_PER_TURN: usize = 8;

/// What all threads read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ring: KeyRing,
    pub(crate) me: BalancerIdentity,
    pub(crate) service_names: Vec<String>,
    pub(crate) internal_mtu_bytes: usize,
    pub(crate) tables: Tables,
    pub(crate) watch: Watch,
    /// Locked for messages of peers on streams alone.
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) is_draining: AtomicBool,
    pub(crate) is_stopping: AtomicBool,
}

/// A balancer at work. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    node: Arc<Node>,
    wakers: Vec<Waker>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// The control side, for `node_api::server::serve`.
    pub fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// The address towards proxies, with the port that was found for port 0.
    pub fn internal(&self) -> SocketAddr {
        self.node.shared().me.internal
    }

    /// What clients see, by listener.
    pub fn listeners(&self) -> &[SocketAddr] {
        &self.node.shared().me.listeners
    }

    /// Takes a new generation, as the manager's `PUT /v1/membership` does.
    ///
    /// # Errors
    ///
    /// Older, empty or altered; the one in use stays.
    pub fn put_membership(&self, membership: fleet::Membership) -> Result<(), StaleGeneration> {
        self.node.put(membership)
    }

    /// Whether every thread still runs; one that does not has logged why.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Ends every thread and closes every socket.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.node.shared().is_stopping.store(true, Ordering::Release);
        for waker in &self.wakers {
            waker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a thread of the balancer ended by a panic");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Binds, and starts the threads.
///
/// # Errors
///
/// An address cannot be bound, the keys are not usable (`InvalidInput`), or the system has no
/// thread left.
pub fn start(config: Config) -> io::Result<Running> {
    let Assembly { shared, node, workers, wakers, prober } = assemble(&config)?;
    let mut running = Running { node, wakers, threads: Vec::new() };
    let threads = workers.len();
    for (number, worker) in workers.into_iter().enumerate() {
        let name = format!("balancer-{number}");
        running.threads.push(std::thread::Builder::new().name(name).spawn(|| worker.run())?);
    }
    let internal = running.internal();
    running.threads.push(probe::start(shared, prober, internal.ip(), config.probing)?);
    info!(%internal, listeners = ?running.listeners(), threads, "balancer started");
    Ok(running)
}

/// A balancer of which nothing runs yet but the thread of the streams.
pub(crate) struct Assembly {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: Arc<Node>,
    /// One per thread.
    pub(crate) workers: Vec<Worker>,
    wakers: Vec<Waker>,
    /// What the prober waits with.
    prober: Poller,
}

pub(crate) fn assemble(config: &Config) -> io::Result<Assembly> {
    let ring = KeyRing::new(&config.keys).map_err(invalid)?;
    let thread_count = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (addresses, ports) = bind_all(config, thread_count)?;
    let internal = addresses.first().copied().unwrap_or(config.internal);
    let mut listeners = addresses.clone();
    if let Some(first) = listeners.first_mut()
        && !addresses.contains(&config.advertised)
    {
        // Not bound for itself: the same socket seen from outside.
        let is_same_port = config.advertised.port() == 0;
        *first = if is_same_port { internal } else { config.advertised };
    }
    let connections = StreamId::incarnation_of(config.instance, config.incarnation);
    let prober = Poller::new()?;
    let shared = Arc::new(Shared {
        tables: Tables::new(ring.selection_key()),
        watch: Watch::new(prober.waker()),
        ledger: Mutex::new(Ledger::new(config.timing, config.kept_bytes_max)),
        ring,
        me: BalancerIdentity { instance: config.instance, connections, internal, listeners },
        service_names: config.service_names.iter().map(|name| name.to_lowercase()).collect(),
        internal_mtu_bytes: config.internal_mtu_bytes,
        is_draining: AtomicBool::new(false),
        is_stopping: AtomicBool::new(false),
    });
    let pollers = (0..thread_count).map(|_| Poller::new()).collect::<io::Result<Vec<_>>>()?;
    let mut wakers: Vec<Waker> = pollers.iter().map(Poller::waker).collect();
    let first_waker = wakers.first().cloned().ok_or(io::ErrorKind::InvalidInput)?;
    wakers.push(prober.waker());
    let options = StreamOptions {
        listen: addresses.clone(),
        local_ip: Some(internal.ip()),
        incarnation: connections,
        limits: config.stream_limits,
    };
    let streams = Streams::start(options, first_waker)?;
    let sender = streams.sender();
    let counters: Vec<Arc<Counters>> = (0..thread_count).map(|_| Arc::default()).collect();
    let node = Arc::new(Node::new(config, Arc::clone(&shared), counters.clone(), sender.clone()));

    let rate = config.drain_streams_per_s;
    let side = StreamSide::new(streams, Arc::clone(&shared), addresses, rate);
    let mut side = Some(side);
    let parts = pollers.into_iter().zip(ports).zip(counters);
    let workers = parts.map(|((poller, ports), counters)| {
        let hall = Hall::new(Arc::clone(&shared), Arc::clone(&counters), ports, sender.clone());
        Worker::new(&shared, hall, counters, side.take(), poller)
    });
    let workers = workers.collect::<io::Result<Vec<_>>>()?;
    Ok(Assembly { shared, node, workers, wakers, prober })
}

fn invalid(error: KeyRingError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Binds every listener once per thread; returns the addresses and each thread's ports.
fn bind_all(config: &Config, threads: usize) -> io::Result<(Vec<SocketAddr>, Vec<Vec<Port>>)> {
    let mut wanted = vec![config.internal];
    for address in std::iter::once(config.advertised).chain(config.extra.iter().copied()) {
        if address.port() != 0 && !wanted.contains(&address) {
            wanted.push(address);
        }
    }
    let options = UdpOptions {
        reuse_port: true,
        receive_buffer_bytes: config.receive_buffer_bytes,
        report_errors: true,
        ..UdpOptions::default()
    };
    let mut addresses = Vec::new();
    let mut by_thread: Vec<Vec<Port>> = (0..threads).map(|_| Vec::new()).collect();
    for address in wanted {
        let mut bound = address;
        for ports in &mut by_thread {
            let socket = match UdpSocket::bind(bound, options) {
                Ok(socket) => socket,
                Err(error)
                    if error.kind() == io::ErrorKind::AddrNotAvailable
                        && address == config.advertised
                        && address != config.internal =>
                {
                    warn!(%address, "the advertised address is not of this machine; not listened on");
                    break;
                }
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("udp {address}: {error}")));
                }
            };
            bound = socket.local_addr();
            ports.push(Port { socket, sender: Sender::new() });
        }
        let is_bound = by_thread.iter().all(|ports| ports.len() == addresses.len() + 1);
        if is_bound {
            addresses.push(bound);
        }
    }
    Ok((addresses, by_thread))
}

/// One thread.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    poller: Poller,
    hall: Hall,
    /// By listener.
    receivers: Vec<Receiver>,
    counters: Arc<Counters>,
    /// The first thread's alone; the others only send on streams.
    streams: Option<StreamSide>,
    errors: PeerErrors,
    version: u64,
}

impl Worker {
    fn new(
        shared: &Arc<Shared>,
        mut hall: Hall,
        counters: Arc<Counters>,
        streams: Option<StreamSide>,
        poller: Poller,
    ) -> io::Result<Self> {
        let mut receivers = Vec::new();
        for (token, port) in (0..).zip(&hall.desk().ports) {
            poller.add(&port.socket, token)?;
            receivers.push(Receiver::new(BATCH_MAX, DATAGRAM_BYTES_MAX));
        }
        Ok(Self {
            version: u64::MAX,
            shared: Arc::clone(shared),
            poller,
            hall,
            receivers,
            counters,
            streams,
            errors: PeerErrors::default(),
        })
    }

    fn run(mut self) {
        let mut events = Events::default();
        while !self.shared.is_stopping.load(Ordering::Acquire) {
            if let Err(error) = self.turn(&mut events) {
                warn!(%error, "cannot wait for messages");
                return;
            }
        }
    }

    /// Waits until there is something to do, and does it.
    pub(crate) fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let patience = self.streams.as_ref().map(StreamSide::patience);
        self.poller.wait(patience, events)?;
        self.renew_table();
        for listener in events.failing() {
            self.take_errors(listener);
        }
        for listener in events.tokens() {
            self.take_datagrams(listener);
        }
        if let Some(streams) = &mut self.streams {
            streams.turn(&mut self.hall, &self.counters, events.is_woken());
        }
        self.hall.desk().flush();
        Ok(())
    }

    pub(crate) fn poller(&self) -> &Poller {
        &self.poller
    }

    fn renew_table(&mut self) {
        let version = self.shared.tables.version();
        if version != self.version {
            self.version = version;
            self.hall.desk().table = self.shared.tables.current();
        }
    }

    /// What became of datagrams that did not arrive: those to members are evidence.
    fn take_errors(&mut self, listener: u64) {
        let Ok(place) = usize::try_from(listener) else { return };
        let desk = self.hall.desk();
        let Some(port) = desk.ports.get(place) else { return };
        port.socket.take_errors(&mut self.errors);
        for error in self.errors.iter() {
            if desk.table.directory.at(error.to).is_some() {
                self.counters.member_errors.add(1);
                self.shared.watch.tell(error.to, error.kind);
            } else {
                self.counters.client_errors.add(1);
            }
        }
    }

    fn take_datagrams(&mut self, listener: u64) {
        let Ok(place) = usize::try_from(listener) else { return };
        let Some(receiver) = self.receivers.get_mut(place) else { return };
        let Ok(number) = u8::try_from(place) else { return };
        let mut taken = 0;
        for _ in 0..BATCHES_PER_TURN {
            let Some(port) = self.hall.desk().ports.get(place) else { return };
            match port.socket.receive(receiver) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(error) => {
                    debug!(%error, "while receiving");
                    break;
                }
            }
            for datagram in receiver.datagrams() {
                let source = Flow {
                    listener: number,
                    transport: Transport::Udp,
                    remote: datagram.source,
                    connection: None,
                };
                self.hall.handle(datagram.bytes, &source);
            }
            self.hall.desk().flush();
            if receiver.is_drained() {
                break;
            }
        }
        let totals = self.receivers.iter().map(Receiver::counters);
        let (drops, oversized, batches) = totals.fold((0, 0, 0), |(drops, over, batches), one| {
            (
                drops + one.kernel_drops_total,
                over + one.oversized_total,
                batches + one.batches_total,
            )
        });
        self.counters.kernel_drops.set(drops);
        self.counters.oversized.set(oversized);
        self.counters.batches.set(batches);
        if taken > 0 {
            self.counters.last_activity_ms.set(clock::unix_millis());
        }
    }
}
