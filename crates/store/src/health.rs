//! What a driver tells about itself: whether it serves, how much, how fast.

use std::time::Duration;

/// Whether the database answered the last time it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreHealth {
    #[default]
    Serving,
    /// The last query failed; the detail is for the operator.
    Failing { detail: String },
}

impl StoreHealth {
    #[must_use]
    pub fn is_serving(&self) -> bool {
        matches!(self, Self::Serving)
    }
}

/// The queries by what they do: the label of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueryKind {
    Credential,
    Bindings,
    Write,
    CredentialChange,
    CredentialList,
    BindingList,
    BindingDelete,
}

impl QueryKind {
    pub const COUNT: usize = 7;

    pub const ALL: [Self; Self::COUNT] = [
        Self::Credential,
        Self::Bindings,
        Self::Write,
        Self::CredentialChange,
        Self::CredentialList,
        Self::BindingList,
        Self::BindingDelete,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Bindings => "bindings",
            Self::Write => "write",
            Self::CredentialChange => "credential_change",
            Self::CredentialList => "credential_list",
            Self::BindingList => "binding_list",
            Self::BindingDelete => "binding_delete",
        }
    }
}

/// Counters since the driver was opened. All grow only, but `in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Queries submitted, the refused ones included; the place is that of [`QueryKind::ALL`].
    pub queries: [u64; QueryKind::COUNT],
    /// Queries answered with an error other than overload.
    pub failures: [u64; QueryKind::COUNT],
    /// Queries refused because too many were in flight.
    pub overloaded: u64,
    /// Transactions in which the queries were answered; queries per batch tell how busy it is.
    pub batches: u64,
    /// Rows removed because they had been expired for a day.
    pub rows_swept: u64,
    /// Credential queries answered from the cache, and those that joined one in flight. They are
    /// not among `queries`.
    pub cache_hits: u64,
    pub joined: u64,
    /// Queries submitted and not yet answered.
    pub in_flight: u64,
    /// From submission to completion.
    pub latencies: Latencies,
}

impl StoreCounters {
    #[must_use]
    pub fn queries_of(&self, kind: QueryKind) -> u64 {
        self.queries.get(kind as usize).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn failures_of(&self, kind: QueryKind) -> u64 {
        self.failures.get(kind as usize).copied().unwrap_or_default()
    }
}

/// A histogram of how long queries took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// How many took at most the bound of the same place, and longer than the bound before it; the
    /// last place counts those beyond every bound.
    pub counts: [u64; Self::BOUNDS_US.len() + 1],
    pub sum_us: u64,
}

impl Latencies {
    /// Upper bounds in microseconds.
    pub const BOUNDS_US: [u64; 12] =
        [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 200_000, 1_000_000, 5_000_000];

    /// The place in `counts` of a query that took this long.
    #[must_use]
    pub fn place(latency_us: u64) -> usize {
        Self::BOUNDS_US.iter().take_while(|bound| **bound < latency_us).count()
    }

    /// Counts one query.
    pub fn record(&mut self, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(Self::place(latency_us)) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(latency_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_has_one_place() {
        let mut latencies = Latencies::default();
        for (latency_us, place) in [(0, 0), (50, 0), (51, 1), (5_000_000, 11), (5_000_001, 12)] {
            assert_eq!(Latencies::place(latency_us), place, "{latency_us}");
            latencies.record(Duration::from_micros(latency_us));
        }
        assert_eq!(latencies.counts.iter().sum::<u64>(), 5);
    }

    #[test]
    fn the_kinds_stand_in_their_places() {
        for (place, kind) in QueryKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{}", kind.as_str());
        }
    }
}
