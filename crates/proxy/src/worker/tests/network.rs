//! Packets under way, each with a moment of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use testkit::Random;

use super::Weather;

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
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: BTreeMap<u64, Packet>,
    sent: u64,
    /// The first line of each, lost ones included.
    pub(super) log: Vec<String>,
}

impl Network {
    pub(super) fn new(seed: u64, weather: &Weather) -> Self {
        Self {
            random: Random::new(seed),
            lost_percent: weather.lost_percent,
            repeated_percent: weather.repeated_percent,
            late_percent: weather.late_percent,
            due: BinaryHeap::new(),
            packets: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let first = bytes.split(|octet| *octet == b'\r').next().unwrap_or_default();
        self.log.push(String::from_utf8_lossy(first).into_owned());
        if self.random.percent(self.lost_percent) {
            return;
        }
        let copies = if self.random.percent(self.repeated_percent) { 2 } else { 1 };
        for _ in 0..copies {
            // Up to 40 ms; sometimes so late that later ones overtake it.
            let longest = if self.random.percent(self.late_percent) { 300 } else { 40 };
            let delay = Duration::from_millis(1 + self.random.below(longest));
            self.sent += 1;
            self.due.push(Reverse((now + delay, self.sent)));
            self.packets.insert(self.sent, Packet { from, to, bytes: bytes.clone() });
        }
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
