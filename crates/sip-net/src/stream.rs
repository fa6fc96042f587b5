//! Messages over streams: accepting, connecting, framing and keeping connections, all on a thread
//! of its own. The role sends by connection or address and polls what happened.
//!
//! One seam for what comes later: `connection.rs` runs over any byte stream, so TLS is another way
//! to get one; WebSocket is another way to cut one into messages (`framing.rs`).

mod connection;
mod framing;
mod tcp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sip_message::{FrameError, Transport};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::background::Background;
use crate::connections::Connections;
use crate::limits::HALF_CLOSED_WAIT;
use crate::poll::Waker;
use crate::stream::connection::Events;

/// A connection of this process: `number` is not used again, and `incarnation` tells this process
/// from an earlier one at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub number: u32,
    pub incarnation: u32,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamTo {
    /// Over this connection or not at all.
    Connection(ConnectionId),
    /// Over a connection to this address, whoever has opened it; a new one if there is none.
    Address(SocketAddr),
}

/// How streams are set up.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// Addresses on which TCP is accepted; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The source address of connections that we open; the system chooses if `None`.
    pub local_ip: Option<IpAddr>,
    /// What tells this process from an earlier one at the same address: goes into every
    /// [`ConnectionId`].
    pub incarnation: u32,
    pub limits: StreamLimits,
}

/// What is refused or closed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections in all; beyond, accepted ones are closed at once and none is opened.
    pub connections_max: usize,
    /// Connections accepted from one IP address.
    pub connections_per_source_max: usize,
    /// Messages waiting to be written to one connection; beyond, `send` refuses.
    pub queue_messages_max: usize,
    /// Bytes waiting likewise. A single message is always taken by an empty queue.
    pub queue_bytes_max: usize,
    /// Events waiting for the role; beyond, nothing is read from the network.
    pub events_max: usize,
    /// How long the peer may take to accept a connection.
    pub connect_timeout: Duration,
    /// A connection on which nothing came or left for so long is closed. Keep-alives count. One that
    /// has never carried a message is closed after twice `message_timeout` already.
    pub idle_close: Duration,
    /// A message that has begun must be complete within this time.
    pub message_timeout: Duration,
    /// A peer that takes nothing for so long, or acknowledges nothing, is given up.
    pub write_timeout: Duration,
    /// A peer that has ended its side may read answers for so long; then the connection is closed.
    pub half_closed_wait: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_source_max: 1_000,
            queue_messages_max: 1_024,
            queue_bytes_max: 1 << 20,
            events_max: 4_096,
            connect_timeout: Duration::from_secs(4),
            // A phone that registers once an hour and says nothing in between must be reached.
            idle_close: Duration::from_secs(3_900),
            message_timeout: Duration::from_secs(32),
            write_timeout: Duration::from_secs(32),
            half_closed_wait: HALF_CLOSED_WAIT,
        }
    }
}

/// What happened on the network, in order per connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A connection can be used; the first event of each.
    Opened { id: ConnectionId, transport: Transport, local: SocketAddr, remote: SocketAddr },
    /// One message, cut out of the stream by its Content-Length, not otherwise understood.
    Message {
        id: ConnectionId,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: Bytes,
    },
    /// What came cannot be cut into messages. Nothing more is read; the connection can be written
    /// to for two seconds (an answer of 400, then [`StreamSender::close`]), then it is closed.
    Malformed {
        id: ConnectionId,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        error: FrameError,
        /// What had come of the message.
        bytes: Bytes,
    },
    /// A connection is gone; the last event of each that was opened, but for what it could not
    /// deliver.
    Closed { id: ConnectionId, remote: SocketAddr, reason: CloseReason },
    /// One queued message that was not written, or not to its end.
    Failed { id: ConnectionId, to: SocketAddr, undelivered: Bytes, error: io::ErrorKind },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer ended it in order.
    EndOfStream,
    /// [`StreamSender::close`].
    ByUs,
    Idle,
    /// After [`StreamEvent::Malformed`].
    Malformed,
    /// A message was begun and not completed in time.
    Unfinished,
    /// The peer took nothing for too long.
    Stalled,
    Error(io::ErrorKind),
}

/// Why a message was not even queued. None is worth an immediate repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the connection is gone")]
    NoConnection,
    #[error("the connection's queue is full")]
    QueueFull,
    #[error("too many connections are open")]
    TooManyConnections,
}

/// The present number of connections, and totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    pub open: usize,
    pub accepted_total: u64,
    pub opened_total: u64,
    pub connect_failures_total: u64,
    /// No descriptor or memory left to accept with.
    pub accept_failures_total: u64,
    /// Closed at once because of `connections_max`.
    pub refused_total: u64,
    /// Closed at once because of `connections_per_source_max`.
    pub refused_by_source_total: u64,
    /// Messages that `send` refused.
    pub refused_sends_total: u64,
    pub messages_in_total: u64,
    pub messages_out_total: u64,
    pub keep_alives_total: u64,
    pub malformed_total: u64,
    /// Messages queued and then not written.
    pub undelivered_total: u64,
    pub idle_closed_total: u64,
    /// Closed because the peer was too slow, reading or writing.
    pub stalled_closed_total: u64,
}

/// All streams of one process. Dropping it closes them.
#[derive(Debug)]
pub struct Streams {
    events: mpsc::Receiver<StreamEvent>,
    sender: StreamSender,
    locals: Vec<SocketAddr>,
    _background: Background,
}

impl Streams {
    /// Listens, and starts the thread; `waker` is called when [`poll`](Self::poll) has something.
    ///
    /// # Errors
    ///
    /// An address of `options.listen` cannot be bound, or the system has no thread left.
    pub fn start(options: StreamOptions, waker: Waker) -> io::Result<Self> {
        let background = Background::start("sip-streams")?;
        let (queue, events) = mpsc::channel(options.limits.events_max.max(1));
        let shared = Arc::new(Shared {
            connections: Connections::new(options.incarnation, options.limits),
            events: Events { queue, waker },
            local_ip: options.local_ip,
        });
        let sender = StreamSender { shared, handle: background.handle().clone() };
        let mut locals = Vec::new();
        for &address in &options.listen {
            let listener = tcp::listen(address)?;
            locals.push(listener.local_addr()?);
            let _inside = background.handle().enter();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            background.handle().spawn(tcp::accept_all(listener, Arc::clone(&sender.shared)));
        }
        Ok(Self { events, sender, locals, _background: background })
    }

    /// The addresses listened on, in the order of the options, with the ports found for port 0.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// The next event, if any. After a wake call it until `None`.
    pub fn poll(&mut self) -> Option<StreamEvent> {
        self.events.try_recv().ok()
    }

    /// See [`StreamSender::send`].
    pub fn send(&self, to: StreamTo, bytes: Bytes) -> Result<(), SendError> {
        self.sender.send(to, bytes)
    }

    /// A handle for other threads.
    pub fn sender(&self) -> StreamSender {
        self.sender.clone()
    }

    pub fn counters(&self) -> StreamCounters {
        self.sender.counters()
    }
}

/// Sends on the streams of one process, from any thread.
#[derive(Clone, Debug)]
pub struct StreamSender {
    shared: Arc<Shared>,
    handle: Handle,
}

impl StreamSender {
    /// Queues one message; never waits.
    ///
    /// `Ok` promises that the message is either written to the connection or comes back as
    /// [`StreamEvent::Failed`]. Written is not received: the peer may have gone meanwhile.
    pub fn send(&self, to: StreamTo, bytes: Bytes) -> Result<(), SendError> {
        if let Some(admitted) = self.shared.connections.send(to, bytes)? {
            self.handle.spawn(tcp::open(admitted, Arc::clone(&self.shared)));
        }
        Ok(())
    }

    /// Closes the connection after what is queued was written; nothing if it is gone already.
    pub fn close(&self, id: ConnectionId) {
        self.shared.connections.remove(id);
    }

    pub fn counters(&self) -> StreamCounters {
        self.shared.connections.counters()
    }
}

/// What every task of the streams' thread shares.
#[derive(Debug)]
struct Shared {
    connections: Connections,
    events: Events,
    local_ip: Option<IpAddr>,
}
