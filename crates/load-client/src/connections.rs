//! The stream connections of one local address: what they carry, and how long there was none.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_net::poll::Waker;
use sip_net::stream::{
    CloseReason, StreamEvent, StreamLimits, StreamOptions, StreamSender, StreamTo, Streams,
};

/// What became of the connections that we opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    pub opened: u64,
    /// Ended by the other side, or by the network.
    pub lost: u64,
    /// Opened where one had been lost before.
    pub reopened: u64,
    /// The longest time from a loss until we had a connection again.
    pub longest_gap: Duration,
}

impl ConnectionCounts {
    /// Of several local addresses together.
    pub(crate) fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.lost += other.lost;
        self.reopened += other.reopened;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

/// Streams of one local address.
pub(crate) struct Connections {
    streams: Streams,
    sender: StreamSender,
    local: SocketAddr,
    /// Peers with an open connection, and those among them, or about to be, to whom we opened it.
    open: HashSet<SocketAddr>,
    ours: HashSet<SocketAddr>,
    lost_at: Option<Instant>,
    counts: ConnectionCounts,
}

impl Connections {
    /// Listens at `local`, so that a peer can come back to us (RFC 3261 §18.2.2).
    pub(crate) fn start(local: SocketAddr, waker: Waker) -> io::Result<Self> {
        let options = StreamOptions {
            listen: vec![local],
            local_ip: Some(local.ip()),
            // A phone has nothing to say to a server that has ended the connection: it learns of it
            // at once, and goes elsewhere.
            limits: StreamLimits { half_closed_wait: Duration::ZERO, ..StreamLimits::default() },
            ..StreamOptions::default()
        };
        let streams = Streams::start(options, waker)?;
        let local = streams.local_addrs().first().copied().unwrap_or(local);
        let (open, ours, counts) = Default::default();
        Ok(Self { sender: streams.sender(), streams, local, open, ours, lost_at: None, counts })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn counts(&self) -> ConnectionCounts {
        self.counts
    }

    /// Over the connection to `to`, whoever has opened it; false if that cannot be.
    pub(crate) fn send(&mut self, to: SocketAddr, bytes: Bytes) -> bool {
        if !self.open.contains(&to) {
            self.ours.insert(to);
        }
        self.sender.send(StreamTo::Address(to), bytes).is_ok()
    }

    /// The next event, counted.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<StreamEvent> {
        let event = self.streams.poll()?;
        match &event {
            StreamEvent::Opened { remote, .. } => self.opened(now, *remote),
            StreamEvent::Closed { remote, reason, .. } => self.closed(now, *remote, *reason),
            // A peer that cannot be reached has no connection of ours either.
            StreamEvent::Failed { to, .. } if !self.open.contains(to) => {
                self.ours.remove(to);
            }
            _ => {}
        }
        Some(event)
    }

    fn opened(&mut self, now: Instant, remote: SocketAddr) {
        self.open.insert(remote);
        if !self.ours.contains(&remote) {
            return;
        }
        self.counts.opened += 1;
        if let Some(lost_at) = self.lost_at.take() {
            self.counts.reopened += 1;
            let gap = now.saturating_duration_since(lost_at);
            self.counts.longest_gap = self.counts.longest_gap.max(gap);
        }
    }

    fn closed(&mut self, now: Instant, remote: SocketAddr, reason: CloseReason) {
        self.open.remove(&remote);
        if self.ours.remove(&remote) && reason != CloseReason::ByUs {
            self.counts.lost += 1;
            self.lost_at.get_or_insert(now);
        }
    }
}
