//! Counters into rates: what a node did per second since the poll before.

use std::collections::BTreeMap;

use fleet::{CallRate, InstanceId};
use node_api::wire::NodeStatus;

/// A node's counters at one poll.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    incarnation: u32,
    uptime_ms: u64,
    calls: u64,
    cpu_seconds: f64,
    network_bytes: u64,
    store: StoreTotals,
    /// A balancer's calls to each proxy.
    calls_to: BTreeMap<InstanceId, u64>,
}

/// What a proxy asked its store.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct StoreTotals {
    queries: u64,
    failures: u64,
    latency_us: u64,
}

/// The same between two polls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StoreRates {
    pub(crate) queries_per_s: f64,
    pub(crate) failures_per_s: f64,
    /// Time that all queries took together.
    pub(crate) busy_ms_per_s: f64,
}

/// What a node did between two polls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) calls: CallRate,
    /// Of one core.
    pub(crate) cpu_percent: f64,
    pub(crate) network_bytes_per_s: f64,
    pub(crate) store: StoreRates,
    pub(crate) calls_to: BTreeMap<InstanceId, CallRate>,
}

impl Sample {
    pub(crate) fn of(status: &NodeStatus) -> Self {
        let mut calls_to = BTreeMap::new();
        for to in &status.calls_to_members {
            *calls_to.entry(to.instance).or_insert(0) += to.calls_total;
        }
        Self {
            incarnation: status.incarnation,
            uptime_ms: status.uptime_ms,
            calls: status.calls_total,
            cpu_seconds: status.cpu_seconds_total,
            network_bytes: status
                .network_received_bytes_total
                .saturating_add(status.network_sent_bytes_total),
            store: StoreTotals {
                queries: status.store_queries_total,
                failures: status.store_failures_total,
                latency_us: status.store_latency_us_total,
            },
            calls_to,
        }
    }

    /// The state of a node that is just starting.
    fn zero(incarnation: u32) -> Self {
        Self {
            incarnation,
            uptime_ms: 0,
            calls: 0,
            cpu_seconds: 0.0,
            network_bytes: 0,
            store: StoreTotals::default(),
            calls_to: BTreeMap::new(),
        }
    }

    /// What happened since `before`, by the node's own clock.
    ///
    /// `None` if that cannot be told: there was no poll before in this life of the node, and it
    /// is older than `young_ms`, so that its counters tell of a past that is over; or its counters
    /// went back.
    pub(crate) fn since(&self, before: Option<&Self>, young_ms: u64) -> Option<Rates> {
        let start = Self::zero(self.incarnation);
        let before = before.filter(|before| before.incarnation == self.incarnation);
        let before = match before {
            Some(before) => before,
            None if self.uptime_ms <= young_ms => &start,
            None => return None,
        };
        let elapsed_ms = self.uptime_ms.checked_sub(before.uptime_ms).filter(|&ms| ms > 0)?;
        let calls = self.calls.checked_sub(before.calls)?;
        let mut calls_to = BTreeMap::new();
        for (&instance, &total) in &self.calls_to {
            let earlier = before.calls_to.get(&instance).copied().unwrap_or(0);
            calls_to.insert(instance, CallRate::of(total.checked_sub(earlier)?, elapsed_ms));
        }
        let seconds = elapsed_ms as f64 / 1_000.0;
        let bytes = self.network_bytes.saturating_sub(before.network_bytes);
        Some(Rates {
            calls: CallRate::of(calls, elapsed_ms),
            cpu_percent: (self.cpu_seconds - before.cpu_seconds).max(0.0) / seconds * 100.0,
            network_bytes_per_s: bytes as f64 / seconds,
            store: self.store.since(before.store, seconds),
            calls_to,
        })
    }
}

impl StoreTotals {
    fn since(self, before: Self, seconds: f64) -> StoreRates {
        let per_s = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        StoreRates {
            queries_per_s: per_s(self.queries, before.queries),
            failures_per_s: per_s(self.failures, before.failures),
            busy_ms_per_s: per_s(self.latency_us, before.latency_us) / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(incarnation: u32, uptime_ms: u64, calls: u64) -> Sample {
        Sample { uptime_ms, calls, ..Sample::zero(incarnation) }
    }

    #[test]
    fn a_rate_needs_two_polls_of_one_life() {
        let cps = |rates: Option<Rates>| rates.map(|rates| rates.calls.cps());
        let now = sample(7, 60_000, 1_000);
        let table = [
            ("two polls", Some(sample(7, 55_000, 500)), Some(100)),
            ("first poll of an old node", None, None),
            ("another life before", Some(sample(6, 90_000, 9_000)), None),
            ("no time between", Some(sample(7, 60_000, 900)), None),
            ("counters went back", Some(sample(7, 55_000, 2_000)), None),
        ];
        for (name, before, expected) in table {
            assert_eq!(cps(now.since(before.as_ref(), 15_000)), expected, "{name}");
        }
        let young = sample(7, 4_000, 400);
        assert_eq!(cps(young.since(None, 15_000)), Some(100), "all of its life is recent");
    }
}
