//! Packets under way, each with a moment of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use testkit::Random;

use super::Weather;
use super::peers::with;

pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Bytes,
}

pub(super) struct Network {
    random: Random,
    lost_percent: u64,
    repeated_percent: u64,
    late_percent: u64,
    late_ms: u64,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: BTreeMap<u64, Packet>,
    sent: u64,
    /// Everything that was sent, in order.
    pub(super) log: Vec<Sent>,
}

/// A packet, for the reader of a test that failed.
pub(super) struct Sent {
    at: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
    /// When each copy arrives: none, if it is lost.
    arrivals: Vec<Instant>,
}

impl Sent {
    pub(super) fn first_line(&self) -> String {
        let first = self.bytes.split(|octet| *octet == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(first).into_owned()
    }

    pub(super) fn is_of(&self, call_id: &str) -> bool {
        with(&self.bytes, |message| message.call_id() == call_id.as_bytes())
    }

    pub(super) fn story(&self, began: Instant) -> String {
        let of = |at: Instant| (at - began).as_secs_f64();
        let method = with(&self.bytes, |message| message.cseq().method.to_string());
        let arrivals: Vec<String> =
            self.arrivals.iter().map(|at| format!("{:.3}", of(*at))).collect();
        let (at, from, to, line) = (of(self.at), self.from, self.to, self.first_line());
        format!("{at:.3} {from} -> {to} {line} ({method}) {}", arrivals.join(" "))
    }
}

impl Network {
    pub(super) fn new(seed: u64, weather: &Weather) -> Self {
        Self {
            random: Random::new(seed),
            lost_percent: weather.lost_percent,
            repeated_percent: weather.repeated_percent,
            late_percent: weather.late_percent,
            late_ms: weather.late_ms,
            due: BinaryHeap::new(),
            packets: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let copies = if self.random.percent(self.lost_percent) {
            0
        } else if self.random.percent(self.repeated_percent) {
            2
        } else {
            1
        };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            // Up to 40 ms; sometimes so late that later ones overtake it.
            let longest = if self.random.percent(self.late_percent) { self.late_ms } else { 40 };
            let delay = Duration::from_millis(1 + self.random.below(longest));
            self.sent += 1;
            self.due.push(Reverse((now + delay, self.sent)));
            self.packets.insert(self.sent, Packet { from, to, bytes: bytes.clone() });
            arrivals.push(now + delay);
        }
        self.log.push(Sent { at: now, from, to, bytes: bytes.clone(), arrivals });
    }

    pub(super) fn next(&mut self, now: Instant) -> Option<Packet> {
        let Reverse((at, number)) = *self.due.peek()?;
        if at > now {
            return None;
        }
        self.due.pop();
        self.packets.remove(&number)
    }
}
