//! Datagrams in batches: one bound socket, a [`Receiver`] and a [`Sender`] that are reused.
//!
//! One thread owns one socket. A load balancer binds one socket per core to one address
//! (`reuse_port`); a proxy binds one port per worker.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::{
    ARENA_BYTES_KEPT, BATCH_MAX, DATAGRAM_BYTES_MAX, ERRORS_TAKEN_MAX, PENDING_ERRORS_MAX,
    SEND_WAIT, SEND_WAITS_MAX,
};
use crate::system::{self, Arrival};

/// How a socket is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Lets several sockets of this user bind the same address; the kernel spreads the sources
    /// over them.
    pub reuse_port: bool,
    /// What is asked for; without root the system's maximum (`net.core.rmem_max`) is the limit.
    pub receive_buffer_bytes: usize,
    /// As above, with `net.core.wmem_max`.
    pub send_buffer_bytes: usize,
    /// Keeps what the network says about datagrams that did not arrive (`IP_RECVERR`). Whoever asks
    /// for it must call [`UdpSocket::take_errors`] whenever [`Events::failing`] names the socket, or
    /// the poller reports it again at once, for ever.
    ///
    /// [`Events::failing`]: crate::poll::Events::failing
    pub report_errors: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            reuse_port: false,
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 2 << 20,
            report_errors: false,
        }
    }
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    socket: StdUdpSocket,
    local: SocketAddr,
    /// How often a call may fail with an error that is not its own.
    pending_errors_max: u32,
}

impl UdpSocket {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// `IP_PKTINFO` is not asked for: a socket that is bound to one address sends from it.
    ///
    /// # Errors
    ///
    /// The address is not this machine's, is taken, or needs a privilege.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // An IPv6 socket is for IPv6 alone; IPv4 has its own.
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if system::force_receive_buffer(socket.as_fd(), options.receive_buffer_bytes).is_err() {
            socket.set_recv_buffer_size(options.receive_buffer_bytes)?;
        }
        if system::force_send_buffer(socket.as_fd(), options.send_buffer_bytes).is_err() {
            socket.set_send_buffer_size(options.send_buffer_bytes)?;
        }
        system::report_drops(socket.as_fd())?;
        if options.report_errors {
            system::report_errors(socket.as_fd(), address.is_ipv6())?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = StdUdpSocket::from(socket);
        let local = socket.local_addr()?;
        let pending_errors_max = if options.report_errors { PENDING_ERRORS_MAX } else { 0 };
        Ok(Self { socket, local, pending_errors_max })
    }

    /// The address that it is bound to, with the port that was found for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The receive buffer that the kernel granted, in bytes of its own accounting (twice what was
    /// asked, unless the system's maximum is lower).
    pub fn receive_buffer_bytes(&self) -> io::Result<usize> {
        socket2::SockRef::from(&self.socket).recv_buffer_size()
    }

    /// Takes what is queued, up to the receiver's batch, and returns how many datagrams
    /// [`Receiver::datagram`] now has. Never waits; 0 means that nothing was there.
    ///
    /// Call it again while [`Receiver::is_drained`] is false, or go back to the poller: it reports
    /// the socket again.
    /// The error of an earlier datagram ([`UdpOptions::report_errors`]) is passed over: it waits for
    /// [`take_errors`](Self::take_errors), and what is queued is taken all the same.
    ///
    /// # Errors
    ///
    /// The socket itself does not work.
    pub fn receive(&self, receiver: &mut Receiver) -> io::Result<usize> {
        let mut passed_over = 0;
        loop {
            match receiver.fill(self.socket.as_fd()) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if passed_over < self.pending_errors_max => passed_over += 1,
                // They come faster than they are passed over; the poller reports the socket again.
                Err(_) if self.pending_errors_max > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(receiver.usable.len())
    }

    /// Takes what the network said about datagrams that did not arrive, oldest first, in place of
    /// what `errors` held. At most [`ERRORS_TAKEN_MAX`]; the poller reports the rest again.
    ///
    /// Whose datagram it was is as certain as ICMP: whoever can forge packets of this machine's
    /// network can forge these.
    ///
    /// # Cost
    ///
    /// One system call per error, and one that finds none. Only after the poller named the socket.
    pub fn take_errors(&self, errors: &mut PeerErrors) {
        errors.taken.clear();
        for _ in 0..ERRORS_TAKEN_MAX {
            match system::take_error(self.socket.as_fd()) {
                Ok(error) => errors.note(error),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Sends what `sender` holds, in order, and empties it.
    ///
    /// A datagram that fails is skipped and reported; the others go. The error of an earlier one
    /// ([`UdpOptions::report_errors`]) fails none: the call is repeated. When the socket's buffer is
    /// full it waits, at most `SEND_WAITS_MAX × SEND_WAIT` (4 ms); what is then left fails with
    /// `WouldBlock`.
    pub fn send<'a>(&self, sender: &'a mut Sender) -> SendReport<'a> {
        sender.transmit(self.socket.as_fd(), self.pending_errors_max)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// One datagram, in the receiver's own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    pub source: SocketAddr,
}

/// A datagram that was sent and did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// Where it was sent.
    pub to: SocketAddr,
    /// `ConnectionRefused`: nobody listens there. `HostUnreachable`, `NetworkUnreachable`: the way
    /// is cut.
    pub kind: io::ErrorKind,
}

/// What [`UdpSocket::take_errors`] took; reused.
#[derive(Debug, Default)]
pub struct PeerErrors {
    taken: Vec<PeerError>,
    counters: PeerErrorCounters,
}

/// Totals since the list was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerErrorCounters {
    /// Errors that the network reported.
    pub reported_total: u64,
    /// Errors that this machine reported, or that name no address; not handed out.
    pub ignored_total: u64,
}

impl PeerErrors {
    /// The errors of the last call, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = PeerError> + '_ {
        self.taken.iter().copied()
    }

    pub fn counters(&self) -> PeerErrorCounters {
        self.counters
    }

    fn note(&mut self, error: system::QueuedError) {
        match error.to.filter(|_| error.is_from_network) {
            Some(to) => {
                self.counters.reported_total += 1;
                self.taken.push(PeerError { to, kind: error.kind });
            }
            // A send that fails on this machine says so itself.
            None => self.counters.ignored_total += 1,
        }
    }
}

/// Totals since the receiver was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Datagrams handed out.
    pub datagrams_total: u64,
    /// System calls that found at least one.
    pub batches_total: u64,
    /// Datagrams longer than `datagram_max`, thrown away.
    pub oversized_total: u64,
    /// Datagrams that the kernel dropped because the socket's buffer was full. Known only from the
    /// next datagram that gets through.
    pub kernel_drops_total: u64,
}

/// Memory for a batch of datagrams; use one receiver with one socket.
#[derive(Debug)]
pub struct Receiver {
    arena: Vec<u8>,
    datagram_max: usize,
    stride: usize,
    batch: usize,
    arrivals: Vec<Arrival>,
    /// Indices into `arrivals`, and thereby slots, of what may be handed out.
    usable: Vec<usize>,
    is_drained: bool,
    /// The kernel's drop count as last seen, modulo 2³².
    drops_seen: u32,
    counters: ReceiverCounters,
}

impl Receiver {
    /// `batch`: datagrams per system call, 1 to [`BATCH_MAX`]. `datagram_max`: the longest that is
    /// accepted, in bytes.
    pub fn new(batch: usize, datagram_max: usize) -> Self {
        let batch = batch.clamp(1, BATCH_MAX);
        let datagram_max = datagram_max.clamp(1, DATAGRAM_BYTES_MAX);
        // Slots a multiple of a page apart would compete for the same few lines of the first
        // cache; 11 lines of 64 bytes more, and neighbours of usual size do not overlap.
        let stride = datagram_max.next_multiple_of(4_096) + 11 * 64;
        Self {
            arena: vec![0; batch * stride],
            datagram_max,
            stride,
            batch,
            arrivals: Vec::with_capacity(batch),
            usable: Vec::with_capacity(batch),
            is_drained: true,
            drops_seen: 0,
            counters: ReceiverCounters::default(),
        }
    }

    /// The `index`th datagram of the last [`UdpSocket::receive`], in order of arrival.
    ///
    /// # Panics
    ///
    /// `index` is not below what `receive` returned.
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        match self.usable.get(index).and_then(|&slot| self.at(slot)) {
            Some(datagram) => datagram,
            None => panic!("datagram {index} of {}", self.usable.len()),
        }
    }

    /// The datagrams of the last [`UdpSocket::receive`], in order of arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.usable.iter().filter_map(|&slot| self.at(slot))
    }

    /// Whether the last call took less than it asked for: the queue was empty then.
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Datagrams that the kernel dropped before we could take them.
    pub fn kernel_drops(&self) -> u64 {
        self.counters.kernel_drops_total
    }

    pub fn counters(&self) -> ReceiverCounters {
        self.counters
    }

    fn at(&self, slot: usize) -> Option<Datagram<'_>> {
        let arrival = self.arrivals.get(slot)?;
        let start = slot * self.stride;
        let bytes = self.arena.get(start..start + arrival.bytes)?;
        Some(Datagram { bytes, source: arrival.source? })
    }

    fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.arrivals.clear();
        self.usable.clear();
        self.is_drained = true;
        let outcome = system::receive_batch(
            socket,
            &mut self.arena,
            self.datagram_max,
            self.stride,
            self.batch,
            &mut self.arrivals,
        );
        let found = self.arrivals.len();
        self.is_drained = found < self.batch;
        outcome?;

        self.counters.batches_total += u64::from(found > 0);
        for (slot, arrival) in self.arrivals.iter().enumerate() {
            if let Some(dropped) = arrival.dropped {
                let since = dropped.wrapping_sub(self.drops_seen);
                self.counters.kernel_drops_total += u64::from(since);
                self.drops_seen = dropped;
            }
            if arrival.is_cut {
                self.counters.oversized_total += 1;
            } else if arrival.source.is_some() {
                self.counters.datagrams_total += 1;
                self.usable.push(slot);
            }
        }
        Ok(())
    }
}

/// What became of one [`UdpSocket::send`].
#[derive(Debug, PartialEq, Eq)]
pub struct SendReport<'a> {
    pub sent: usize,
    pub failed: &'a [SendFailure],
}

/// A datagram that did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// Its place in the batch, counted from 0 in the order of pushing.
    pub index: usize,
    pub to: SocketAddr,
    pub kind: io::ErrorKind,
}

/// Totals since the sender was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    pub datagrams_total: u64,
    /// System calls.
    pub batches_total: u64,
    /// Datagrams refused by the kernel: unreachable, too long, forbidden.
    pub failed_total: u64,
    /// Datagrams given up because the socket's buffer stayed full.
    pub would_block_total: u64,
    /// Waits for room in the socket's buffer.
    pub waits_total: u64,
}

/// Datagrams to be sent together; reused, so that a steady load allocates nothing.
#[derive(Debug, Default)]
pub struct Sender {
    arena: Vec<u8>,
    queue: Vec<Queued>,
    failed: Vec<SendFailure>,
    counters: SenderCounters,
}

#[derive(Debug)]
struct Queued {
    to: SocketAddr,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Arena(Range<usize>),
    Shared(Bytes),
}

impl Queued {
    fn bytes<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        match &self.payload {
            Payload::Arena(range) => arena.get(range.clone()).unwrap_or_default(),
            Payload::Shared(bytes) => bytes,
        }
    }
}

impl Sender {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a datagram that `write` appends to the arena.
    pub fn push(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        write(&mut self.arena);
        let payload = Payload::Arena(start..self.arena.len());
        self.queue.push(Queued { to, payload });
    }

    /// Adds a datagram whose bytes are shared, not copied.
    pub fn push_bytes(&mut self, to: SocketAddr, bytes: Bytes) {
        self.queue.push(Queued { to, payload: Payload::Shared(bytes) });
    }

    /// Datagrams waiting for [`UdpSocket::send`].
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether it is time to send: more would not fit one system call.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= BATCH_MAX
    }

    pub fn counters(&self) -> SenderCounters {
        self.counters
    }

    fn transmit(&mut self, socket: BorrowedFd<'_>, pending_errors_max: u32) -> SendReport<'_> {
        self.failed.clear();
        let mut next = 0;
        let mut sent = 0;
        let mut waits = 0;
        // Errors in a row at one datagram.
        let mut errors = 0;
        while let Some(rest) = self.queue.get(next..).filter(|rest| !rest.is_empty()) {
            let messages = rest.iter().map(|queued| (queued.to, queued.bytes(&self.arena)));
            self.counters.batches_total += 1;
            match system::send_batch(socket, messages) {
                Ok(count) => {
                    sent += count;
                    next += count;
                    errors = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if waits == SEND_WAITS_MAX || system::wait_writable(socket, SEND_WAIT).is_err()
                    {
                        break;
                    }
                    waits += 1;
                    self.counters.waits_total += 1;
                }
                // Perhaps an earlier datagram's, which the kernel reports once and forgets.
                Err(_) if errors < pending_errors_max => errors += 1,
                // The error is the first datagram's: pass over it, and the batch goes on.
                Err(error) => {
                    self.counters.failed_total += 1;
                    self.fail(next..next + 1, error.kind());
                    next += 1;
                    errors = 0;
                }
            }
        }
        let given_up = self.queue.len() - next;
        self.counters.would_block_total += given_up as u64;
        self.fail(next..self.queue.len(), io::ErrorKind::WouldBlock);

        self.counters.datagrams_total += sent as u64;
        self.queue.clear();
        self.arena.clear();
        self.arena.shrink_to(ARENA_BYTES_KEPT);
        SendReport { sent, failed: &self.failed }
    }

    fn fail(&mut self, which: Range<usize>, kind: io::ErrorKind) {
        let queued = self.queue.iter().enumerate().take(which.end).skip(which.start);
        self.failed.extend(queued.map(|(index, queued)| SendFailure {
            index,
            to: queued.to,
            kind,
        }));
    }
}

#[cfg(test)]
mod tests;
