//! Who is connected: found by number or by remote address, counted by source, each with a bounded
//! queue of what is to be written.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::stream::{ConnectionId, SendError, StreamCounters, StreamLimits, StreamTo};

/// The table of one process; shared between the role's thread and the streams' thread.
///
/// A message is queued while the table is locked, and a connection leaves the table before its
/// queue is emptied for the last time. So a message is either delivered to the connection's task or
/// refused; none is forgotten in between.
#[derive(Debug)]
pub(crate) struct Connections {
    incarnation: u32,
    pub(crate) limits: StreamLimits,
    pub(crate) totals: Totals,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_number: HashMap<u32, Entry>,
    by_remote: HashMap<SocketAddr, u32>,
    accepted_by_source: HashMap<IpAddr, usize>,
    last_number: u32,
}

#[derive(Debug)]
struct Entry {
    remote: SocketAddr,
    is_accepted: bool,
    /// The peer has closed its side: it asks for nothing more, and gets answers alone.
    takes_answers_only: bool,
    queue: mpsc::Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
}

/// The end of a queue that belongs to the connection's task.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) queue: mpsc::Receiver<Bytes>,
    /// For the task's own words (keep-alive); weak, so that leaving the table ends the queue.
    pub(crate) own: mpsc::WeakSender<Bytes>,
    pub(crate) queued_bytes: Arc<AtomicUsize>,
}

/// A new connection, for the one who opens or has accepted it.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) id: ConnectionId,
    pub(crate) remote: SocketAddr,
    pub(crate) outgoing: Outgoing,
}

/// Why an accepted connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Total,
    Source,
}

impl Connections {
    pub(crate) fn new(incarnation: u32, limits: StreamLimits) -> Self {
        Self { incarnation, limits, totals: Totals::default(), table: Mutex::default() }
    }

    /// Takes in a connection that a peer has opened.
    pub(crate) fn admit(&self, remote: SocketAddr) -> Result<Admitted, Refusal> {
        let mut table = self.lock();
        if table.by_number.len() >= self.limits.connections_max {
            self.totals.refused_total.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Total);
        }
        let of_source = table.accepted_by_source.entry(remote.ip()).or_default();
        if *of_source >= self.limits.connections_per_source_max {
            self.totals.refused_source.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Source);
        }
        *of_source += 1;
        self.totals.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(self.insert(&mut table, remote, true))
    }

    /// Queues `bytes`. `Some` if that takes a new connection, which the caller has to open.
    pub(crate) fn send(&self, to: StreamTo, bytes: Bytes) -> Result<Option<Admitted>, SendError> {
        let mut table = self.lock();
        let number = match to {
            StreamTo::Connection(id) if id.incarnation == self.incarnation => Some(id.number),
            StreamTo::Connection(_) => None,
            StreamTo::Address(remote) => table.by_remote.get(&remote).copied(),
        };
        let entry = number.and_then(|number| table.by_number.get(&number));
        let outcome = match (entry, to) {
            (Some(entry), _) if entry.takes_answers_only && !is_answer(&bytes) => {
                Err(SendError::NoConnection)
            }
            (Some(entry), _) => self.enqueue(entry, bytes).map(|()| None),
            (None, StreamTo::Connection(_)) => Err(SendError::NoConnection),
            (None, StreamTo::Address(_))
                if table.by_number.len() >= self.limits.connections_max =>
            {
                Err(SendError::TooManyConnections)
            }
            (None, StreamTo::Address(remote)) => {
                let admitted = self.insert(&mut table, remote, false);
                let entry = table.by_number.get(&admitted.id.number);
                entry.map_or(Err(SendError::NoConnection), |entry| self.enqueue(entry, bytes))?;
                Ok(Some(admitted))
            }
        };
        if outcome.is_err() {
            self.totals.refused_sends.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Forgets the connection: nothing more can be queued, and its queue ends.
    pub(crate) fn remove(&self, id: ConnectionId) {
        if id.incarnation != self.incarnation {
            return;
        }
        let mut table = self.lock();
        let Some(entry) = table.by_number.remove(&id.number) else {
            return;
        };
        if table.by_remote.get(&entry.remote) == Some(&id.number) {
            table.by_remote.remove(&entry.remote);
        }
        if entry.is_accepted {
            let source = entry.remote.ip();
            if let Some(count) = table.accepted_by_source.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    table.accepted_by_source.remove(&source);
                }
            }
        }
    }

    /// Keeps the connection for those who know its number, but offers it to nobody else.
    pub(crate) fn withdraw(&self, id: ConnectionId, remote: SocketAddr) {
        let mut table = self.lock();
        if table.by_remote.get(&remote) == Some(&id.number) {
            table.by_remote.remove(&remote);
        }
    }

    /// The peer has closed its side. Most have closed both, so a request would be lost there; the
    /// answers to what it asked before still go, in case it reads them.
    pub(crate) fn keep_for_answers(&self, id: ConnectionId, remote: SocketAddr) {
        self.withdraw(id, remote);
        if let Some(entry) = self.lock().by_number.get_mut(&id.number) {
            entry.takes_answers_only = true;
        }
    }

    pub(crate) fn counters(&self) -> StreamCounters {
        let open = self.lock().by_number.len();
        self.totals.snapshot(open)
    }

    fn enqueue(&self, entry: &Entry, bytes: Bytes) -> Result<(), SendError> {
        let length = bytes.len();
        // Only here does it grow, and only under the lock: the sum cannot pass the limit.
        let queued = entry.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + length > self.limits.queue_bytes_max {
            return Err(SendError::QueueFull);
        }
        entry.queued_bytes.fetch_add(length, Ordering::Relaxed);
        entry.queue.try_send(bytes).map_err(|error| {
            entry.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => SendError::NoConnection,
            }
        })
    }

    fn insert(&self, table: &mut Table, remote: SocketAddr, is_accepted: bool) -> Admitted {
        // After 2³² connections numbers come round; those still in use are passed over.
        loop {
            table.last_number = table.last_number.wrapping_add(1);
            if !table.by_number.contains_key(&table.last_number) {
                break;
            }
        }
        let number = table.last_number;
        let (sender, queue) = mpsc::channel(self.limits.queue_messages_max.max(1));
        let own = sender.downgrade();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let entry = Entry {
            remote,
            is_accepted,
            takes_answers_only: false,
            queue: sender,
            queued_bytes: Arc::clone(&queued_bytes),
        };
        table.by_number.insert(number, entry);
        table.by_remote.insert(remote, number);
        Admitted {
            id: ConnectionId { number, incarnation: self.incarnation },
            remote,
            outgoing: Outgoing { queue, own, queued_bytes },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that holds the lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this is a response and no request.
fn is_answer(message: &[u8]) -> bool {
    message.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}

/// What has happened since the start; written from both threads.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) accepted: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) accept_failures: AtomicU64,
    pub(crate) refused_total: AtomicU64,
    pub(crate) refused_source: AtomicU64,
    pub(crate) refused_sends: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) keep_alives: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) undelivered: AtomicU64,
    pub(crate) idle_closed: AtomicU64,
    pub(crate) stalled_closed: AtomicU64,
}

impl Totals {
    fn snapshot(&self, open: usize) -> StreamCounters {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        StreamCounters {
            open,
            accepted_total: read(&self.accepted),
            opened_total: read(&self.opened),
            connect_failures_total: read(&self.connect_failures),
            accept_failures_total: read(&self.accept_failures),
            refused_total: read(&self.refused_total),
            refused_by_source_total: read(&self.refused_source),
            refused_sends_total: read(&self.refused_sends),
            messages_in_total: read(&self.messages_in),
            messages_out_total: read(&self.messages_out),
            keep_alives_total: read(&self.keep_alives),
            malformed_total: read(&self.malformed),
            undelivered_total: read(&self.undelivered),
            idle_closed_total: read(&self.idle_closed),
            stalled_closed_total: read(&self.stalled_closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(port: u16) -> SocketAddr {
        ([127, 42, 0, 1], port).into()
    }

    fn table(limits: StreamLimits) -> Connections {
        Connections::new(9, limits)
    }

    #[test]
    fn one_connection_serves_all_messages_to_an_address() {
        let connections = table(StreamLimits::default());
        let to = StreamTo::Address(remote(1));
        let opened = connections.send(to, Bytes::from_static(b"a")).expect("queued");
        let mut opened = opened.expect("the first message opens it");
        assert!(connections.send(to, Bytes::from_static(b"b")).expect("queued").is_none());
        let by_id = StreamTo::Connection(opened.id);
        assert!(connections.send(by_id, Bytes::from_static(b"c")).expect("queued").is_none());
        let mut queued = Vec::new();
        while let Ok(bytes) = opened.outgoing.queue.try_recv() {
            queued.extend_from_slice(&bytes);
        }
        assert_eq!(queued, b"abc");

        connections.remove(opened.id);
        let gone = connections.send(by_id, Bytes::from_static(b"d"));
        assert_eq!(gone.map(|_| ()), Err(SendError::NoConnection));
        let again = connections.send(to, Bytes::from_static(b"e")).expect("queued");
        assert_ne!(again.expect("a new one").id, opened.id, "numbers are not reused");
    }

    #[test]
    fn connection_whose_peer_asks_no_more_takes_answers_alone() {
        let connections = table(StreamLimits::default());
        let admitted = connections.admit(remote(1)).expect("admitted");
        connections.keep_for_answers(admitted.id, remote(1));
        let to = StreamTo::Connection(admitted.id);
        let sent = [&b"SIP/2.0 200 OK"[..], b"BYE sip:a SIP/2.0"]
            .map(|bytes| connections.send(to, Bytes::from_static(bytes)).map(|_| ()));
        assert_eq!(sent, [Ok(()), Err(SendError::NoConnection)]);
        let other = connections.send(StreamTo::Address(remote(1)), Bytes::new()).expect("queued");
        assert!(other.is_some(), "nobody else is offered it");
    }

    #[test]
    fn connection_of_an_earlier_process_is_not_taken_for_one_of_ours() {
        let connections = table(StreamLimits::default());
        let admitted = connections.admit(remote(1)).expect("admitted");
        let earlier = ConnectionId { incarnation: 8, ..admitted.id };
        let refused = connections.send(StreamTo::Connection(earlier), Bytes::new());
        assert_eq!(refused.map(|_| ()), Err(SendError::NoConnection));
        connections.remove(earlier);
        assert_eq!(connections.counters().open, 1, "and it cannot close ours");
    }

    /// Every limit refuses at its value and is counted.
    #[test]
    fn limits_hold() {
        let limits = StreamLimits {
            connections_max: 3,
            connections_per_source_max: 2,
            queue_messages_max: 3,
            queue_bytes_max: 10,
            ..StreamLimits::default()
        };
        let connections = table(limits);
        let first = connections.admit(remote(1)).expect("one");
        let second = connections.admit(remote(2)).expect("two");
        assert_eq!(connections.admit(remote(3)).map(|_| ()), Err(Refusal::Source));
        connections.remove(second.id);
        connections.admit(remote(3)).expect("the source has room again");
        let _opened = connections.send(StreamTo::Address(remote(9)), Bytes::new()).expect("third");
        assert_eq!(connections.admit(([127, 42, 0, 2], 1).into()).map(|_| ()), Err(Refusal::Total));
        let full = connections.send(StreamTo::Address(remote(8)), Bytes::new()).map(|_| ());
        assert_eq!(full, Err(SendError::TooManyConnections));

        let to = StreamTo::Connection(first.id);
        let outcomes = [6, 5, 4, 0, 0]
            .map(|length| connections.send(to, Bytes::from(vec![b'x'; length])).map(|_| ()));
        let full = Err(SendError::QueueFull);
        assert_eq!(outcomes, [Ok(()), full, Ok(()), Ok(()), full], "bytes, then messages");
        let counters = connections.counters();
        assert_eq!((counters.refused_total, counters.refused_by_source_total), (1, 1));
        assert_eq!((counters.refused_sends_total, counters.open), (3, 3));
    }
}
