//! The book-keeping that every driver's handle needs: who is admitted, what was refused, the counts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::StoreError;
use crate::health::{QueryKind, StoreCounters};
use crate::limits::QUERIES_IN_FLIGHT_MAX;
use crate::query::{Answer, Completion, Query, Ticket};

/// One handle's account of its queries.
#[derive(Debug)]
pub struct Ledger {
    counters: StoreCounters,
    refused: VecDeque<Completion>,
    in_flight_max: usize,
    is_closed: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(QUERIES_IN_FLIGHT_MAX)
    }
}

impl Ledger {
    #[must_use]
    pub fn new(in_flight_max: usize) -> Self {
        Self {
            counters: StoreCounters::default(),
            refused: VecDeque::new(),
            in_flight_max,
            is_closed: false,
        }
    }

    /// Counts a query and says whether the driver may take it. If not, its completion waits in
    /// [`next_refused`](Self::next_refused).
    #[must_use = "a query that is not admitted must not be carried out"]
    pub fn admit(&mut self, ticket: Ticket, query: &Query) -> bool {
        count(&mut self.counters.queries, query.kind());
        let error = if self.is_closed {
            StoreError::Unavailable { detail: "the handle is closed".to_owned() }
        } else if self.counters.in_flight >= self.in_flight_max as u64 {
            self.counters.overloaded += 1;
            StoreError::Overloaded
        } else {
            self.counters.in_flight += 1;
            return true;
        };
        self.refused.push_back(Completion { ticket, result: Err(error) });
        false
    }

    /// Completions of queries that were not admitted.
    pub fn next_refused(&mut self) -> Option<Completion> {
        self.refused.pop_front()
    }

    /// Counts the end of an admitted query, when its completion is handed to the caller.
    pub fn settle(
        &mut self,
        kind: QueryKind,
        result: &Result<Answer, StoreError>,
        latency: Option<Duration>,
    ) {
        self.counters.in_flight = self.counters.in_flight.saturating_sub(1);
        if result.is_err() {
            count(&mut self.counters.failures, kind);
        }
        if let Some(latency) = latency {
            self.counters.latencies.record(latency);
        }
    }

    /// From now on nothing is admitted.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// The counts so far; the driver adds what only it knows.
    #[must_use]
    pub fn counters(&self) -> &StoreCounters {
        &self.counters
    }
}

fn count(counts: &mut [u64; QueryKind::COUNT], kind: QueryKind) {
    if let Some(count) = counts.get_mut(kind as usize) {
        *count += 1;
    }
}
