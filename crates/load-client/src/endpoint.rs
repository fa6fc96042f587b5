//! The loop of one thread: sockets, time, and an agent that makes sense of what comes. UDP only so
//! far: a stream would be another kind of link, and its address another kind of way.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::{Framing, Index, Message, parse};
use sip_net::clock;
use sip_net::poll::{Events, Poller};
use sip_net::udp::{Receiver, Sender, UdpOptions, UdpSocket};
use sip_transaction::{Event, Origin, Sink};

use crate::report::OwnLosses;

/// How often an agent is asked whether it is done, at least.
const TICK: Duration = Duration::from_millis(50);

/// Batches taken from one socket before the others, and the clock, have their turn.
const BATCHES_PER_TURN: usize = 8;

/// Datagrams per system call, and the longest that is read.
const BATCH: usize = 32;
const DATAGRAM_BYTES_MAX: usize = 16_384;

/// Which socket, and the address at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

struct Lane {
    local: SocketAddr,
    sender: Sender,
    /// Whose each message in `sender` is.
    origins: Vec<Option<Origin>>,
}

impl Outbox {
    /// Sends a message that belongs to no transaction: an ACK to a 2xx, a stateless response.
    pub(crate) fn send(&mut self, way: Way, bytes: Bytes) {
        self.push(way, bytes, None);
    }

    /// The address of one of our sockets.
    pub(crate) fn local(&self, socket: usize) -> Option<SocketAddr> {
        self.lanes.get(socket).map(|lane| lane.local)
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn push(&mut self, way: Way, bytes: Bytes, origin: Option<Origin>) {
        if let Some(lane) = self.lanes.get_mut(way.socket) {
            lane.sender.push_bytes(way.to, bytes);
            lane.origins.push(origin);
        }
    }
}

impl Sink<Way> for Outbox {
    fn transmit(&mut self, to: &Way, bytes: &Bytes, from: Origin) {
        self.push(*to, bytes.clone(), Some(from));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// Bound sockets, ready to run an agent.
pub(crate) struct Endpoint {
    links: Vec<Link>,
    outbox: Outbox,
    poller: Poller,
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
    /// An address is not this machine's, or taken.
    pub(crate) fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut links = Vec::new();
        let mut lanes = Vec::new();
        for (token, address) in (0..).zip(addresses) {
            let socket = UdpSocket::bind(*address, UdpOptions::default())?;
            poller.add(&socket, token)?;
            let local = socket.local_addr();
            lanes.push(Lane { local, sender: Sender::new(), origins: Vec::new() });
            links.push(Link { socket, receiver: Receiver::new(BATCH, DATAGRAM_BYTES_MAX) });
        }
        let outbox = Outbox { lanes, events: Vec::new() };
        Ok(Self { links, outbox, poller, unreadable: 0 })
    }

    /// The addresses of the sockets, with the ports that were found for port 0.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.outbox.lanes.iter().map(|lane| lane.local).collect()
    }

    /// Runs until the agent is done.
    pub(crate) fn run(&mut self, agent: &mut impl Agent) -> io::Result<()> {
        let mut events = Events::with_capacity(self.links.len().max(1));
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
            for token in events.tokens() {
                self.receive(token as usize, agent);
            }
            self.flush(agent);
        }
    }

    /// What was lost so far, lateness excepted.
    pub(crate) fn losses(&self) -> OwnLosses {
        let mut own = OwnLosses { unreadable: self.unreadable, ..OwnLosses::default() };
        for link in &self.links {
            own.receive_drops += link.receiver.kernel_drops();
        }
        for lane in &self.outbox.lanes {
            let counters = lane.sender.counters();
            own.send_drops += counters.would_block_total;
            own.send_errors += counters.failed_total;
        }
        own
    }

    fn receive(&mut self, socket: usize, agent: &mut impl Agent) {
        let Some(link) = self.links.get_mut(socket) else {
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

    /// Sends what is queued. What fails is told to the agent, whose answers go out too.
    fn flush(&mut self, agent: &mut impl Agent) {
        let mut failed = Vec::new();
        for (link, lane) in self.links.iter().zip(&mut self.outbox.lanes) {
            if lane.sender.is_empty() {
                continue;
            }
            let report = link.socket.send(&mut lane.sender);
            for failure in report.failed {
                // A full buffer is our own loss, like one on the way, and not the peer's.
                if failure.kind != io::ErrorKind::WouldBlock {
                    failed.extend(lane.origins.get(failure.index).copied().flatten());
                }
            }
            lane.origins.clear();
        }
        let now = clock::now();
        for origin in failed {
            agent.handle_transport_error(now, origin, &mut self.outbox);
        }
    }
}
