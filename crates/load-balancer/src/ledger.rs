//! What a balancer keeps for peers on streams (protocol rule 24): they do not repeat, so it repeats
//! for them. And which of their connections are at rest, so that a drain may close them.
//!
//! Pure: time is an argument, and what shall be sent comes back to be handled like a message that
//! has just arrived: it then goes to the owner of the moment.
//!
//! ```text
//!  a client's request on a stream      ──► kept ──► repeated: T1, 2·T1, 4·T1 … to the owner
//!  first response beyond 100           ──► INVITE: not repeated any more, open until a final one
//!  provisional response                ──► other methods: repeated every T2
//!  final response, or 64·T1            ──► gone
//!
//!  a callee's final response, on a stream, except a 2xx to INVITE
//!                                      ──► kept for 64·T1
//!      of an INVITE: repeated on Timer G until its ACK; later ACKs end here
//!      the proxy repeats the request:  the response is replayed, the callee hears nothing
//! ```
//!
//! A 100 is not enough for an INVITE: it says only that a proxy has it, and that proxy may die
//! before anybody else knows of the call.

mod shelf;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_core::flow_token::{Flow, StreamId};
use sip_message::{Message, Method};

use self::shelf::{Looked, Shelf};

/// Repeats that one turn takes; the rest is due at the next.
const REPEATS_PER_TURN: usize = 256;

/// The timers of RFC 3261 that a balancer needs, and how long an INVITE may ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub t1: Duration,
    pub t2: Duration,
    pub timer_c: Duration,
}

impl Default for Timing {
    /// The standard's defaults (RFC 3261 table 4).
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            timer_c: Duration::from_secs(180),
        }
    }
}

impl Timing {
    fn sixty_four_t1(&self) -> Duration {
        self.t1 * 64
    }
}

/// A message as it came, to be handled as if it came again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) bytes: Bytes,
    pub(crate) source: Flow,
}

/// A transaction with a peer on a stream: connection, branch, Call-ID, CSeq.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(Box<[u8]>);

impl Key {
    /// Of a request: `branch` is that of its topmost Via. Of a response: of the Via below the
    /// balancer's. The ACK to a refusal is one with its INVITE.
    pub(crate) fn new(connection: StreamId, branch: &[u8], message: &Message<'_>) -> Self {
        let cseq = message.cseq();
        let method = match cseq.method {
            Method::Ack => Method::Invite,
            other => other,
        };
        let parts: [&[u8]; 6] = [
            &connection.number.to_be_bytes(),
            &connection.incarnation.to_be_bytes(),
            &cseq.number.to_be_bytes(),
            method.as_bytes(),
            branch,
            message.call_id(),
        ];
        // Neither methods nor branches hold a NUL, and the parts before them have fixed lengths.
        Self(parts.join(&0_u8).into())
    }
}

/// What becomes of a request for a peer on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It goes to the peer.
    Through,
    /// The peer has answered it long ago: its answer comes again in place of that.
    Replay(Kept),
    /// The ACK to a refusal that has had its ACK.
    Absorbed,
}

/// A request whose final response has not come yet.
#[derive(Debug)]
struct Open {
    connection: StreamId,
    is_invite: bool,
    repeat: Option<Repeat>,
    ends: Instant,
}

/// A final response of a peer on a stream.
#[derive(Debug)]
struct Answer {
    kept: Kept,
    is_acknowledged: bool,
    /// When it is sent again, unless nobody waits for it.
    again: Option<(Instant, Duration)>,
    ends: Instant,
}

#[derive(Debug)]
struct Repeat {
    kept: Kept,
    at: Instant,
    interval: Duration,
}

/// A connection to or from a peer.
#[derive(Clone, Copy, Debug)]
struct Connection {
    remote: IpAddr,
    open: usize,
    last_message: Instant,
}

/// Totals since the start, and what is kept now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerCounters {
    pub(crate) requests_open: usize,
    pub(crate) responses_kept: usize,
    pub(crate) bytes: usize,
    /// Requests sent again.
    pub(crate) requests_repeated_total: u64,
    /// Refusals sent again.
    pub(crate) responses_repeated_total: u64,
    /// Responses sent in place of a repeated request.
    pub(crate) responses_replayed_total: u64,
    /// Requests that nobody answered in time.
    pub(crate) requests_expired_total: u64,
    /// The oldest, which went for newer ones.
    pub(crate) evicted_total: u64,
}

/// Everything that is kept for peers on streams.
#[derive(Debug)]
pub(crate) struct Ledger {
    timing: Timing,
    requests: Shelf<Open>,
    responses: Shelf<Answer>,
    connections: HashMap<StreamId, Connection>,
    counters: LedgerCounters,
}

impl Ledger {
    /// `bytes_max`: for requests, and as many for responses.
    pub(crate) fn new(timing: Timing, bytes_max: usize) -> Self {
        Self {
            timing,
            requests: Shelf::new(bytes_max),
            responses: Shelf::new(bytes_max),
            connections: HashMap::new(),
            counters: LedgerCounters::default(),
        }
    }

    pub(crate) fn counters(&self) -> LedgerCounters {
        LedgerCounters {
            requests_open: self.requests.len(),
            responses_kept: self.responses.len(),
            bytes: self.requests.bytes() + self.responses.bytes(),
            evicted_total: self.requests.evicted_total + self.responses.evicted_total,
            ..self.counters
        }
    }

    // --- connections

    pub(crate) fn opened(&mut self, id: StreamId, remote: IpAddr, now: Instant) {
        self.connections.insert(id, Connection { remote, open: 0, last_message: now });
    }

    /// What is open goes on: the response may find another connection.
    pub(crate) fn closed(&mut self, id: StreamId) {
        self.connections.remove(&id);
    }

    /// Connections whose peer is no member of the fleet.
    pub(crate) fn clients(&self, is_member: impl Fn(IpAddr) -> bool) -> usize {
        self.connections.values().filter(|one| !is_member(one.remote)).count()
    }

    /// Connections of clients that have no open transaction and carried no message for `quiet`.
    pub(crate) fn at_rest(
        &self,
        quiet: Duration,
        now: Instant,
        is_member: impl Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = StreamId> {
        let is_at_rest = move |one: &Connection| {
            one.open == 0 && one.last_message + quiet <= now && !is_member(one.remote)
        };
        self.connections.iter().filter(move |(_, one)| is_at_rest(one)).map(|(id, _)| *id)
    }

    // --- requests of clients

    /// A client's request has gone to a proxy. `message` is what came; the same again changes
    /// nothing.
    pub(crate) fn keep_request(
        &mut self,
        key: &Key,
        message: &Message<'_>,
        source: &Flow,
        now: Instant,
    ) {
        let Some(connection) = source.connection else { return };
        self.touch(connection, now);
        if message.method() == Some(Method::Ack) || self.requests.get_mut(&key.0).is_some() {
            return;
        }
        let kept = Kept { bytes: Bytes::copy_from_slice(message.bytes()), source: *source };
        let interval = self.timing.t1;
        let repeat = Repeat { kept, at: now + interval, interval };
        let is_invite = message.method() == Some(Method::Invite);
        self.open(key, connection, is_invite, Some(repeat), now);
    }

    /// A request goes to a peer: it is open until the peer's final response. The proxy repeats it.
    fn expect_answer(&mut self, key: &Key, connection: StreamId, is_invite: bool, now: Instant) {
        if self.requests.get_mut(&key.0).is_none() {
            self.open(key, connection, is_invite, None, now);
        }
    }

    fn open(
        &mut self,
        key: &Key,
        connection: StreamId,
        is_invite: bool,
        repeat: Option<Repeat>,
        now: Instant,
    ) {
        let ends = now + self.timing.sixty_four_t1();
        let due = repeat.as_ref().map_or(ends, |repeat| repeat.at);
        let bytes = repeat.as_ref().map_or(0, |repeat| repeat.kept.bytes.len());
        let open = Open { connection, is_invite, repeat, ends };
        if let Some(one) = self.connections.get_mut(&connection) {
            one.open += 1;
        }
        for gone in self.requests.insert(key.0.clone(), open, bytes, due) {
            self.settle(&gone);
        }
    }

    /// A response to a request of a peer on a stream, or of one to a request for it.
    pub(crate) fn hear_response(
        &mut self,
        key: &Key,
        status: u16,
        connection: StreamId,
        now: Instant,
    ) {
        self.touch(connection, now);
        if status >= 200 {
            if let Some(open) = self.requests.remove(&key.0) {
                self.settle(&open);
            }
            return;
        }
        let timing = self.timing;
        let Some(open) = self.requests.get_mut(&key.0) else { return };
        if open.is_invite && status > 100 {
            // It rings, perhaps for as long as Timer C lets it.
            open.ends = now + timing.timer_c + timing.sixty_four_t1();
            let ends = open.ends;
            let given = open.repeat.take().map_or(0, |repeat| repeat.kept.bytes.len());
            self.requests.lighten(&key.0, given);
            self.requests.postpone(&key.0, ends);
        } else if !open.is_invite
            && let Some(repeat) = &mut open.repeat
        {
            repeat.interval = timing.t2;
        }
    }

    // --- responses of callees

    /// A peer on a stream has given its final response, which has gone to a proxy.
    pub(crate) fn keep_response(
        &mut self,
        key: &Key,
        message: &Message<'_>,
        source: &Flow,
        now: Instant,
    ) {
        let (Some(connection), Some(status)) = (source.connection, message.status()) else {
            return;
        };
        self.hear_response(key, status.code(), connection, now);
        let is_invite = message.cseq().method == Method::Invite;
        let is_kept = status.code() >= 300 || (status.code() >= 200 && !is_invite);
        if !is_kept || self.responses.get_mut(&key.0).is_some() {
            return;
        }
        let kept = Kept { bytes: Bytes::copy_from_slice(message.bytes()), source: *source };
        let size = kept.bytes.len();
        let ends = now + self.timing.sixty_four_t1();
        let again = is_invite.then_some((now + self.timing.t1, self.timing.t1));
        let answer = Answer { kept, is_acknowledged: false, again, ends };
        let due = again.map_or(ends, |(at, _)| at);
        self.responses.insert(key.0.clone(), answer, size, due);
    }

    /// A proxy's request is about to go to a peer on a stream.
    pub(crate) fn let_pass(
        &mut self,
        key: &Key,
        message: &Message<'_>,
        connection: StreamId,
        now: Instant,
    ) -> Passage {
        let is_ack = message.method() == Some(Method::Ack);
        if let Some(answer) = self.responses.get_mut(&key.0) {
            if !is_ack {
                self.counters.responses_replayed_total += 1;
                return Passage::Replay(answer.kept.clone());
            }
            let ends = answer.ends;
            answer.again = None;
            if std::mem::replace(&mut answer.is_acknowledged, true) {
                return Passage::Absorbed;
            }
            self.responses.postpone(&key.0, ends);
        }
        self.touch(connection, now);
        if !is_ack {
            let is_invite = message.method() == Some(Method::Invite);
            self.expect_answer(key, connection, is_invite, now);
        }
        Passage::Through
    }

    // --- time

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.requests.next_due(), self.responses.next_due()].into_iter().flatten().min()
    }

    /// Adds to `out` what is due to be sent again, a bounded portion; forgets what is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Kept>) {
        let timing = self.timing;
        for _ in 0..REPEATS_PER_TURN {
            let looked = self.requests.look_at_due(now, |open| {
                let repeat = open.repeat.as_mut().filter(|_| now < open.ends)?;
                out.push(repeat.kept.clone());
                let doubled = repeat.interval * 2;
                // Timer A has no ceiling, Timer E has T2 (RFC 3261 §17.1.1.2, §17.1.2.2).
                repeat.interval = if open.is_invite { doubled } else { doubled.min(timing.t2) };
                repeat.at = now + repeat.interval;
                Some(repeat.at.min(open.ends))
            });
            match looked {
                Looked::Nothing => break,
                Looked::Kept => self.counters.requests_repeated_total += 1,
                Looked::Gone(open) => {
                    self.counters.requests_expired_total += u64::from(open.repeat.is_some());
                    self.settle(&open);
                }
            }
        }
        for _ in 0..REPEATS_PER_TURN {
            let looked = self.responses.look_at_due(now, |answer| {
                let (at, interval) = answer.again.as_mut().filter(|_| now < answer.ends)?;
                out.push(answer.kept.clone());
                *interval = (*interval * 2).min(timing.t2);
                *at = now + *interval;
                Some((*at).min(answer.ends))
            });
            match looked {
                Looked::Nothing => break,
                Looked::Kept => self.counters.responses_repeated_total += 1,
                Looked::Gone(_) => {}
            }
        }
    }

    fn touch(&mut self, connection: StreamId, now: Instant) {
        if let Some(one) = self.connections.get_mut(&connection) {
            one.last_message = now;
        }
    }

    /// One transaction less holds its connection.
    fn settle(&mut self, open: &Open) {
        if let Some(one) = self.connections.get_mut(&open.connection) {
            one.open = one.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
