//! The loop of one thread: sockets, time, and an agent that makes sense of what comes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::{Framing, Index, Message, Transport, parse};
use sip_net::clock;
use sip_net::poll::{Events, Poller};
use sip_net::stream::StreamEvent;
use sip_net::udp::{PeerErrors, Receiver, Sender, UdpOptions, UdpSocket};
use sip_transaction::{ClientId, Event, Origin, Sink};

use crate::connections::{ConnectionCounts, Connections};
use crate::report::OwnLosses;

/// How often an agent is asked whether it is done, at least.
const TICK: Duration = Duration::from_millis(50);

/// Batches taken from one socket before the others, and the clock, have their turn.
const BATCHES_PER_TURN: usize = 8;

/// Events taken from the streams of one address likewise.
const STREAM_EVENTS_PER_TURN: usize = 256;

/// Datagrams per system call, and the longest that is read.
const BATCH: usize = 32;
const DATAGRAM_BYTES_MAX: usize = 16_384;

/// Which socket, and the address at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) socket: usize,
    pub(crate) to: SocketAddr,
}

/// What the loop drives.
pub(crate) trait Agent {
    /// A message came by `way`.
    fn handle_message(&mut self, now: Instant, way: Way, message: &Message<'_>, out: &mut Outbox);

    /// Something could not be sent.
    fn handle_transport_error(&mut self, now: Instant, origin: Origin, out: &mut Outbox);

    /// A queued message was not written: its connection could not be opened, or ended before.
    fn handle_undelivered(&mut self, now: Instant, message: &Message<'_>, out: &mut Outbox);

    /// Nobody is there (ICMP), or the connection has ended: what is under way gets no answer.
    fn handle_peer_gone(&mut self, now: Instant, way: Way, out: &mut Outbox);

    /// Time has reached `now`; also called at least every 50 ms.
    fn handle_time(&mut self, now: Instant, own: OwnLosses, out: &mut Outbox);

    /// When the agent has something to do next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether the loop may end; asked after every turn.
    fn is_done(&self) -> bool;
}

/// Messages waiting for the sockets, and events of the transaction layer waiting for the agent.
pub(crate) struct Outbox {
    lanes: Vec<Lane>,
    events: Vec<Event>,
    /// Set while the layer's timers run: what it transmits then is sent for a second time.
    repeats: Option<Vec<ClientId>>,
}

enum Lane {
    Udp {
        local: SocketAddr,
        sender: Sender,
        /// Whose each message in `sender` is.
        origins: Vec<Option<Origin>>,
    },
    Tcp {
        connections: Connections,
        /// Whose messages were refused.
        refused: Vec<Origin>,
    },
}

impl Lane {
    fn local(&self) -> SocketAddr {
        match self {
            Self::Udp { local, .. } => *local,
            Self::Tcp { connections, .. } => connections.local(),
        }
    }
}

impl Outbox {
    /// Sends a message that belongs to no transaction: an ACK to a 2xx, a stateless response.
    pub(crate) fn send(&mut self, way: Way, bytes: Bytes) {
        self.push(way, bytes, None);
    }

    /// The address of one of our sockets.
    pub(crate) fn local(&self, socket: usize) -> Option<SocketAddr> {
        self.lanes.get(socket).map(Lane::local)
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Connections of all lanes so far.
    pub(crate) fn connections(&self) -> ConnectionCounts {
        let mut all = ConnectionCounts::default();
        for lane in &self.lanes {
            if let Lane::Tcp { connections, .. } = lane {
                all.add(connections.counts());
            }
        }
        all
    }

    /// From here on client transactions that transmit do so again.
    pub(crate) fn begin_repeats(&mut self) {
        self.repeats = Some(Vec::new());
    }

    /// Those that did since [`Self::begin_repeats`].
    pub(crate) fn end_repeats(&mut self) -> Vec<ClientId> {
        self.repeats.take().unwrap_or_default()
    }

    fn push(&mut self, way: Way, bytes: Bytes, origin: Option<Origin>) {
        match self.lanes.get_mut(way.socket) {
            Some(Lane::Udp { sender, origins, .. }) => {
                sender.push_bytes(way.to, bytes);
                origins.push(origin);
            }
            Some(Lane::Tcp { connections, refused }) => {
                let is_refused = !connections.send(way.to, bytes);
                refused.extend(origin.filter(|_| is_refused));
            }
            None => {}
        }
    }
}

impl Sink<Way> for Outbox {
    fn transmit(&mut self, to: &Way, bytes: &Bytes, from: Origin) {
        if let (Some(repeats), Origin::Client(id)) = (&mut self.repeats, from) {
            repeats.push(id);
        }
        self.push(*to, bytes.clone(), Some(from));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// Bound sockets, ready to run an agent.
pub(crate) struct Endpoint {
    /// The receiving half of each UDP lane, in the order of the lanes.
    links: Vec<Option<Link>>,
    outbox: Outbox,
    poller: Poller,
    errors: PeerErrors,
    unreadable: u64,
}

struct Link {
    socket: UdpSocket,
    receiver: Receiver,
}

impl Endpoint {
    /// Binds a socket for each address.
    ///
    /// # Errors
    ///
    /// An address is not this machine's, or taken; a transport other than UDP and TCP.
    pub(crate) fn bind(addresses: &[SocketAddr], transport: Transport) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut links = Vec::new();
        let mut lanes = Vec::new();
        for (token, address) in (0..).zip(addresses) {
            match transport {
                Transport::Udp => {
                    let options = UdpOptions { report_errors: true, ..UdpOptions::default() };
                    let socket = UdpSocket::bind(*address, options)?;
                    poller.add(&socket, token)?;
                    let local = socket.local_addr();
                    lanes.push(Lane::Udp { local, sender: Sender::new(), origins: Vec::new() });
                    let receiver = Receiver::new(BATCH, DATAGRAM_BYTES_MAX);
                    links.push(Some(Link { socket, receiver }));
                }
                Transport::Tcp => {
                    let connections = Connections::start(*address, poller.waker())?;
                    lanes.push(Lane::Tcp { connections, refused: Vec::new() });
                    links.push(None);
                }
                other => {
                    let message = format!("calls over {} are not known", other.as_str());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
            }
        }
        let outbox = Outbox { lanes, events: Vec::new(), repeats: None };
        Ok(Self { links, outbox, poller, errors: PeerErrors::default(), unreadable: 0 })
    }

    /// The addresses of the sockets, with the ports that were found for port 0.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.outbox.lanes.iter().map(Lane::local).collect()
    }

    /// Connections of all sockets so far.
    pub(crate) fn connections(&self) -> ConnectionCounts {
        self.outbox.connections()
    }

    /// Runs until the agent is done.
    pub(crate) fn run(&mut self, agent: &mut impl Agent) -> io::Result<()> {
        let mut events = Events::with_capacity(self.links.len().max(1) + 1);
        loop {
            let now = clock::now();
            let own = self.losses();
            agent.handle_time(now, own, &mut self.outbox);
            self.flush(agent);
            if agent.is_done() {
                return Ok(());
            }
            let wait = agent
                .poll_timeout()
                .map_or(TICK, |at| at.saturating_duration_since(clock::now()).min(TICK));
            self.poller.wait(Some(wait), &mut events)?;
            for token in events.failing() {
                self.take_errors(token as usize, agent);
            }
            for token in events.tokens() {
                self.receive(token as usize, agent);
            }
            self.poll_streams(agent);
            self.flush(agent);
        }
    }

    /// What was lost so far, lateness excepted.
    pub(crate) fn losses(&self) -> OwnLosses {
        let mut own = OwnLosses { unreadable: self.unreadable, ..OwnLosses::default() };
        for link in self.links.iter().flatten() {
            own.receive_drops += link.receiver.kernel_drops();
        }
        for lane in &self.outbox.lanes {
            if let Lane::Udp { sender, .. } = lane {
                let counters = sender.counters();
                own.send_drops += counters.would_block_total;
                own.send_errors += counters.failed_total;
            }
        }
        own
    }

    fn receive(&mut self, socket: usize, agent: &mut impl Agent) {
        let Some(link) = self.links.get_mut(socket).and_then(Option::as_mut) else {
            return;
        };
        let mut index = Index::new();
        for _ in 0..BATCHES_PER_TURN {
            // An error of the socket itself shows again, and then as silence of everybody.
            let Ok(count) = link.socket.receive(&mut link.receiver) else {
                return;
            };
            let now = clock::now();
            for datagram in link.receiver.datagrams().take(count) {
                match parse(datagram.bytes, &mut index, Framing::Datagram) {
                    Ok(message) => {
                        let way = Way { socket, to: datagram.source };
                        agent.handle_message(now, way, &message, &mut self.outbox);
                    }
                    // Keep-alives and their answers are no messages.
                    Err(_) if datagram.bytes.trim_ascii().is_empty() => {}
                    Err(_) => self.unreadable += 1,
                }
            }
            if link.receiver.is_drained() {
                return;
            }
        }
    }

    /// Who is not there, as the network says.
    fn take_errors(&mut self, socket: usize, agent: &mut impl Agent) {
        let Some(link) = self.links.get(socket).and_then(Option::as_ref) else {
            return;
        };
        link.socket.take_errors(&mut self.errors);
        let mut gone: Vec<SocketAddr> = self.errors.iter().map(|error| error.to).collect();
        gone.sort_unstable();
        gone.dedup();
        let now = clock::now();
        for to in gone {
            agent.handle_peer_gone(now, Way { socket, to }, &mut self.outbox);
        }
    }

    fn poll_streams(&mut self, agent: &mut impl Agent) {
        let mut index = Index::new();
        for socket in 0..self.outbox.lanes.len() {
            for _ in 0..STREAM_EVENTS_PER_TURN {
                let Some(Lane::Tcp { connections, .. }) = self.outbox.lanes.get_mut(socket) else {
                    break;
                };
                let now = clock::now();
                let Some(event) = connections.poll(now) else {
                    break;
                };
                match event {
                    StreamEvent::Opened { .. } => {}
                    StreamEvent::Message { remote, bytes, .. } => {
                        match parse(&bytes, &mut index, Framing::Stream) {
                            Ok(message) => {
                                let way = Way { socket, to: remote };
                                agent.handle_message(now, way, &message, &mut self.outbox);
                            }
                            Err(_) => self.unreadable += 1,
                        }
                    }
                    StreamEvent::Malformed { .. } => self.unreadable += 1,
                    StreamEvent::Closed { remote, .. } => {
                        agent.handle_peer_gone(now, Way { socket, to: remote }, &mut self.outbox);
                    }
                    StreamEvent::Failed { undelivered, .. } => {
                        if let Ok(message) = parse(&undelivered, &mut index, Framing::Stream) {
                            agent.handle_undelivered(now, &message, &mut self.outbox);
                        }
                    }
                }
            }
        }
    }

    /// Sends what is queued. What fails is told to the agent, whose answers go out too.
    fn flush(&mut self, agent: &mut impl Agent) {
        let mut failed = Vec::new();
        for (link, lane) in self.links.iter().zip(&mut self.outbox.lanes) {
            match (link, lane) {
                (Some(link), Lane::Udp { sender, origins, .. }) if !sender.is_empty() => {
                    let report = link.socket.send(sender);
                    for failure in report.failed {
                        // A full buffer is our own loss, like one on the way, and not the peer's.
                        if failure.kind != io::ErrorKind::WouldBlock {
                            failed.extend(origins.get(failure.index).copied().flatten());
                        }
                    }
                    origins.clear();
                }
                (_, Lane::Tcp { refused, .. }) => failed.append(refused),
                _ => {}
            }
        }
        let now = clock::now();
        for origin in failed {
            agent.handle_transport_error(now, origin, &mut self.outbox);
        }
    }
}
