//! The first thread's side of the streams: what came over them, what is repeated for their peers
//! (the ledger), and what a drain closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sip_core::flow_token::{Flow, StreamId};
use sip_message::Transport;
use sip_net::clock;
use sip_net::stream::{ConnectionId, StreamEvent, Streams};
use tracing::debug;

use crate::hall::{Hall, connection_id};
use crate::ledger::Kept;
use crate::metrics::{Counters, RoleDrop};
use crate::service::Shared;

/// How often the ledger is looked at when nothing in it is known to be due: other threads put
/// things in as well.
const LOOK: Duration = Duration::from_millis(250);
/// How long a connection must have been silent before a drain closes it: the ACK to a response and
/// the next request of a dialog come at once, if they come.
const QUIET: Duration = Duration::from_secs(2);

/// The streams, and when they next need attention.
#[derive(Debug)]
pub(crate) struct StreamSide {
    streams: Streams,
    shared: Arc<Shared>,
    /// By listener.
    addresses: Vec<SocketAddr>,
    closer: Closer,
    next_look: Instant,
    /// Reused.
    due: Vec<Kept>,
}

impl StreamSide {
    /// `drain_per_s`: connections of clients that a drain closes per second.
    pub(crate) fn new(
        streams: Streams,
        shared: Arc<Shared>,
        addresses: Vec<SocketAddr>,
        drain_per_s: u32,
    ) -> Self {
        let (closer, next_look) = (Closer::new(drain_per_s), clock::now());
        Self { streams, shared, addresses, closer, next_look, due: Vec::new() }
    }

    /// How long the thread may wait.
    pub(crate) fn patience(&self) -> Duration {
        self.next_look.saturating_duration_since(clock::now())
    }

    /// Everything that is to be done now. `is_woken`: events may have come.
    pub(crate) fn turn(&mut self, hall: &mut Hall, counters: &Counters, is_woken: bool) {
        if is_woken {
            self.take_events(hall, counters);
        }
        let now = clock::now();
        if !is_woken && now < self.next_look {
            return;
        }
        let mut ledger = self.shared.ledger.lock();
        ledger.handle_timeout(now, &mut self.due);
        self.next_look = ledger.poll_timeout().map_or(now + LOOK, |at| at.min(now + LOOK));
        drop(ledger);
        for kept in self.due.drain(..) {
            hall.repeat(&kept);
        }
        self.close_some(hall, now);
    }

    fn close_some(&mut self, hall: &mut Hall, now: Instant) {
        let is_draining = self.shared.is_draining.load(Ordering::Relaxed);
        let count = self.closer.allowance(is_draining, now);
        if count == 0 {
            return;
        }
        let directory = &hall.desk().table.directory;
        let ledger = self.shared.ledger.lock();
        let at_rest = ledger.at_rest(QUIET, now, |ip| directory.has_ip(ip));
        let sender = self.streams.sender();
        for id in at_rest.take(count) {
            sender.close(connection_id(id));
        }
    }

    fn take_events(&mut self, hall: &mut Hall, counters: &Counters) {
        while let Some(event) = self.streams.poll() {
            match event {
                StreamEvent::Message { id, transport, local, remote, bytes } => {
                    counters.last_activity_ms.set(clock::unix_millis());
                    let source = self.flow(id, transport, local, remote);
                    hall.handle(&bytes, &source);
                }
                StreamEvent::Malformed { id, transport, local, remote, error, bytes } => {
                    debug!(%remote, %error, "cannot be cut into messages");
                    let source = self.flow(id, transport, local, remote);
                    hall.handle_unframed(&bytes, &source);
                }
                StreamEvent::Failed { to, error, .. } => {
                    counters.count_role_drop(RoleDrop::StreamFailed);
                    debug!(%to, kind = ?error, "not written to a stream");
                }
                StreamEvent::Opened { id, remote, .. } => {
                    debug!(%remote, "stream opened");
                    self.shared.ledger.lock().opened(stream_id(id), remote.ip(), clock::now());
                }
                StreamEvent::Closed { id, remote, reason } => {
                    debug!(%remote, ?reason, "stream closed");
                    self.shared.ledger.lock().closed(stream_id(id));
                }
            }
        }
    }

    fn flow(
        &self,
        id: ConnectionId,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Flow {
        // A connection that we opened has a local port of its own: the internal listener then.
        let listener = self.addresses.iter().position(|address| *address == local);
        Flow {
            listener: listener.and_then(|place| u8::try_from(place).ok()).unwrap_or(0),
            transport,
            remote,
            connection: Some(stream_id(id)),
        }
    }
}

const fn stream_id(id: ConnectionId) -> StreamId {
    StreamId { number: id.number, incarnation: id.incarnation }
}

/// How many connections a drain may close, so that their clients do not all come to the other
/// balancers at once. Pure.
#[derive(Debug)]
struct Closer {
    per_s: u32,
    /// Until when the closing is accounted for; `None` while not draining.
    paid_until: Option<Instant>,
}

impl Closer {
    const fn new(per_s: u32) -> Self {
        Self { per_s, paid_until: None }
    }

    /// What may be closed now. A drain that is taken back begins anew.
    fn allowance(&mut self, is_draining: bool, now: Instant) -> usize {
        if !is_draining || self.per_s == 0 {
            self.paid_until = None;
            return 0;
        }
        let since = *self.paid_until.get_or_insert(now);
        let one = Duration::from_secs(1) / self.per_s;
        let elapsed = now.saturating_duration_since(since);
        // Whoever was not looked at for long does not close all of that at once.
        let count = (elapsed.as_nanos() / one.as_nanos().max(1)).min(u128::from(self.per_s));
        let count = u32::try_from(count).unwrap_or(self.per_s);
        if count > 0 {
            self.paid_until = Some(if count == self.per_s { now } else { since + one * count });
        }
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use testkit::epoch;

    use super::*;

    /// Goal: a drain closes at its rate, whatever the intervals at which it is asked, and nothing
    /// once it is taken back.
    #[test]
    fn a_drain_closes_at_its_rate() {
        let mut closer = Closer::new(20);
        let at = |millis| epoch() + Duration::from_millis(millis);
        assert_eq!(closer.allowance(false, at(0)), 0);
        assert_eq!(closer.allowance(true, at(10_000)), 0, "it begins now");
        let closed: usize =
            (1..=500).map(|step| closer.allowance(true, at(10_000 + 7 * step))).sum();
        assert_eq!(closed, 70, "3.5 s");
        assert_eq!(closer.allowance(true, at(60_000)), 20, "a second's worth at most");
        assert_eq!(closer.allowance(false, at(61_000)), 0);
        assert_eq!(closer.allowance(true, at(90_000)), 0, "begins anew");
        assert_eq!(Closer::new(0).allowance(true, at(90_000)), 0);
    }
}
