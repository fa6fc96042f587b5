//! The lease by which one of several managers leads: one row, compared and swapped.
//!
//! No clock is compared with another machine's. The holder counts its time from before it sent a
//! renewal; who waits counts the same time from after it saw that renewal, and a swap takes only the
//! very row that was seen. So whoever takes over does it after the holder's time was up, however far
//! their clocks are apart:
//!
//! ```text
//! holder                          row                     who waits
//! sends renewal 7 at its t        7 is written
//! leads until its t + duration    ······················  sees 7 at its own u (later than t)
//! (stops a margin earlier)        ······················  not before u + duration
//!                                 8, a higher fence  ◄──  swaps "7" for itself: it leads
//! ```
//!
//! Only the *rates* of the clocks must agree, within the margin that the holder keeps.
//!
//! The row has no lifetime in the database and is never deleted: the fence must rise for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::StoreError;

/// Attempts in one turn: an unconfirmed renewal of our own is found by the first.
const ATTEMPTS: usize = 2;

/// What the row says. Two rows are the same only if every field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The manager in this life of its process; empty: given back.
    pub holder: String,
    /// First half of every generation that the holder makes; at most `i64::MAX`, never falls.
    pub fence: u64,
    /// Counts every change of the row; at most `i64::MAX`.
    pub renewals: u64,
    /// How long the holder leads unless it renews; whole milliseconds.
    pub duration: Duration,
}

/// A row as databases keep it: holder, fence, renewals, duration in milliseconds.
pub type LeaseColumns = (String, i64, i64, i64);

impl From<&LeaseRow> for LeaseColumns {
    fn from(row: &LeaseRow) -> Self {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let duration_ms = i64::try_from(row.duration.as_millis()).unwrap_or(i64::MAX);
        (row.holder.clone(), signed(row.fence), signed(row.renewals), duration_ms)
    }
}

impl From<LeaseColumns> for LeaseRow {
    fn from((holder, fence, renewals, duration_ms): LeaseColumns) -> Self {
        let natural = |value: i64| u64::try_from(value).unwrap_or(0);
        let duration = Duration::from_millis(natural(duration_ms));
        Self { holder, fence: natural(fence), renewals: natural(renewals), duration }
    }
}

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    Done,
    /// Nothing was written; the row is another one.
    Not {
        is: Option<LeaseRow>,
    },
}

/// The row of one fleet, in whichever database. Calls wait: they are for a thread of their own.
pub trait LeaseStore: Send {
    /// The row, as of the last swap that any handle was told of.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not say.
    fn read(&mut self) -> Result<Option<LeaseRow>, StoreError>;

    /// Writes `row` if the present one is exactly `was` (`None`: there is none), in one step.
    ///
    /// # Errors
    ///
    /// `Unavailable`: then it is unknown whether it was written.
    fn swap(&mut self, was: Option<&LeaseRow>, row: &LeaseRow) -> Result<Swapped, StoreError>;
}

/// Who leads, as of one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// We, until this moment of our clock. Whoever acts must stop a margin earlier.
    Ours { fence: u64, until: Duration },
    /// Somebody else; empty: nobody yet.
    Theirs { holder: String },
}

/// What a turn needs from outside.
pub struct Ask<'a> {
    pub store: &'a mut dyn LeaseStore,
    /// Time since some moment; it never goes back.
    pub clock: &'a dyn Fn() -> Duration,
    /// How long we want to lead without another renewal.
    pub duration: Duration,
    /// Whether this holder is known to have ended for good. Its time need not be waited for.
    pub is_gone: &'a dyn Fn(&str) -> bool,
}

/// One manager that leads or waits for its turn.
#[derive(Clone, Debug)]
pub struct Candidate {
    name: String,
    fence_min: u64,
    seen: Option<Sight>,
}

/// A row and when it was first seen. Our own: when its renewal was about to be sent.
#[derive(Clone, Debug)]
struct Sight {
    row: LeaseRow,
    since: Duration,
}

impl Candidate {
    /// `name` must be of this life of this process alone. The fence will be at least `fence_min`:
    /// where the row was lost, a number that is above all earlier ones, such as the time.
    #[must_use]
    pub fn new(name: impl Into<String>, fence_min: u64) -> Self {
        Self { name: name.into(), fence_min, seen: None }
    }

    /// From the next turn on the fence is at least this: nodes were found with a higher one.
    pub fn raise(&mut self, fence_min: u64) {
        self.fence_min = self.fence_min.max(fence_min);
    }

    /// Renews the lease if it is ours, takes it if it may be taken, and otherwise looks at it.
    /// Several turns must fit into `duration`.
    ///
    /// # Errors
    ///
    /// Those of the store. What was ours stays ours until the time that the last turn said.
    pub fn turn(&mut self, ask: &mut Ask<'_>) -> Result<Tenure, StoreError> {
        if self.own().is_none() {
            let row = ask.store.read()?;
            self.see(row, (ask.clock)());
        }
        for _ in 0..ATTEMPTS {
            if !self.may_take((ask.clock)(), ask.is_gone) {
                break;
            }
            let row = self.next_row(ask.duration);
            let fence = row.fence;
            let sent_at = (ask.clock)();
            let was = self.seen.as_ref().map(|sight| &sight.row);
            match ask.store.swap(was, &row)? {
                Swapped::Done => {
                    self.seen = Some(Sight { row, since: sent_at });
                    return Ok(Tenure::Ours { fence, until: sent_at + ask.duration });
                }
                Swapped::Not { is } => self.see(is, (ask.clock)()),
            }
        }
        let holder = self.seen.as_ref().map_or_else(String::new, |sight| sight.row.holder.clone());
        Ok(Tenure::Theirs { holder })
    }

    /// Gives the lease back if it is ours, so that another need not wait. The fence stays.
    ///
    /// # Errors
    ///
    /// Those of the store; then it runs out by itself.
    pub fn release(&mut self, store: &mut dyn LeaseStore) -> Result<(), StoreError> {
        let Some(own) = self.own().cloned() else { return Ok(()) };
        let free = LeaseRow { holder: String::new(), ..self.next_row(own.duration) };
        self.seen = None;
        store.swap(Some(&own), &free).map(|_| ())
    }

    fn own(&self) -> Option<&LeaseRow> {
        self.seen.as_ref().map(|sight| &sight.row).filter(|row| row.holder == self.name)
    }

    fn see(&mut self, row: Option<LeaseRow>, at: Duration) {
        self.seen = row.map(|row| match self.seen.take() {
            Some(sight) if sight.row == row => sight,
            _ => Sight { row, since: at },
        });
    }

    fn may_take(&self, now: Duration, is_gone: &dyn Fn(&str) -> bool) -> bool {
        self.seen.as_ref().is_none_or(|Sight { row, since }| {
            row.holder == self.name
                || row.holder.is_empty()
                || now.saturating_sub(*since) >= row.duration
                || is_gone(&row.holder)
        })
    }

    fn next_row(&self, duration: Duration) -> LeaseRow {
        let (fence, renewals) = match self.seen.as_ref().map(|sight| &sight.row) {
            None => (1, 1),
            Some(row) if row.holder == self.name => (row.fence, row.renewals + 1),
            Some(row) => (row.fence + 1, row.renewals + 1),
        };
        LeaseRow { holder: self.name.clone(), fence: fence.max(self.fence_min), renewals, duration }
    }
}

/// The row in memory, shared by all clones: for tests and simulations.
#[derive(Clone, Debug, Default)]
pub struct MemoryLease {
    row: Arc<Mutex<Option<LeaseRow>>>,
    outage: Arc<Mutex<Option<StoreError>>>,
}

impl MemoryLease {
    /// From now on every call fails with this error; `None` ends it.
    pub fn set_outage(&self, outage: Option<StoreError>) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }

    fn failure(&self) -> Result<(), StoreError> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

impl LeaseStore for MemoryLease {
    fn read(&mut self) -> Result<Option<LeaseRow>, StoreError> {
        self.failure()?;
        Ok(self.row.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn swap(&mut self, was: Option<&LeaseRow>, row: &LeaseRow) -> Result<Swapped, StoreError> {
        self.failure()?;
        let mut present = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        if present.as_ref() != was {
            return Ok(Swapped::Not { is: present.clone() });
        }
        *present = Some(row.clone());
        Ok(Swapped::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    struct Fresh(MemoryLease);

    impl contract::LeaseFixture for Fresh {
        fn open(&self) -> Box<dyn LeaseStore> {
            Box::new(self.0.clone())
        }
    }

    #[test]
    fn the_lease_in_memory_keeps_the_contract() {
        contract::run_lease(&|| Box::new(Fresh(MemoryLease::default())));
    }

    /// A store that carries out the next swap and loses the answer.
    struct Forgetful {
        lease: MemoryLease,
        loses: bool,
    }

    impl LeaseStore for Forgetful {
        fn read(&mut self) -> Result<Option<LeaseRow>, StoreError> {
            self.lease.read()
        }

        fn swap(&mut self, was: Option<&LeaseRow>, row: &LeaseRow) -> Result<Swapped, StoreError> {
            let swapped = self.lease.swap(was, row);
            if std::mem::take(&mut self.loses) {
                return Err(StoreError::Unavailable { detail: "lost".to_owned() });
            }
            swapped
        }
    }

    /// Whether the first claim or a renewal is written and its answer lost: the next turn leads on
    /// with the same fence, and counts from its own renewal.
    #[test]
    fn an_answer_that_was_lost_costs_nothing() {
        for lost_at in [0_u64, 1] {
            let mut store = Forgetful { lease: MemoryLease::default(), loses: false };
            let mut one = Candidate::new("one", 7);
            for second in 0..4 {
                store.loses = second == lost_at;
                let now = Duration::from_secs(second);
                let tenure = one.turn(&mut Ask {
                    store: &mut store,
                    clock: &|| now,
                    duration: Duration::from_secs(10),
                    is_gone: &|_| false,
                });
                if second == lost_at {
                    tenure.expect_err("lost");
                } else {
                    let until = now + Duration::from_secs(10);
                    assert_eq!(tenure, Ok(Tenure::Ours { fence: 7, until }), "{lost_at} {second}");
                }
            }
        }
    }

    /// Two candidates whose clocks differ by an hour and whose turns come at any times, with any
    /// turn of either cut off by an outage: never do both believe to lead.
    #[test]
    fn two_never_lead_at_once_whatever_their_clocks_say() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let duration = Duration::from_millis(1_000);
        let (lease, mut changes) = (MemoryLease::default(), 0);
        let skew = [Duration::ZERO, Duration::from_secs(3_600)];
        let mut candidates = [Candidate::new("one", 1), Candidate::new("two", 1)];
        let mut leads: [Option<(u64, Duration)>; 2] = [None; 2];
        let (mut now, mut fence_max) = (Duration::ZERO, 0);
        for _ in 0..20_000 {
            now += Duration::from_millis(random(400));
            let who = usize::try_from(random(2)).expect("small");
            let down = StoreError::Unavailable { detail: "out".to_owned() };
            lease.set_outage((random(5) == 0).then_some(down));
            // A long answer: time passes between any two looks at the clock.
            let steps = std::cell::Cell::new(now + skew[who]);
            let slowness = Duration::from_millis(random(150));
            let clock = || {
                steps.set(steps.get() + slowness);
                steps.get()
            };
            let mut ask =
                Ask { store: &mut lease.clone(), clock: &clock, duration, is_gone: &|_| false };
            let tenure = candidates[who].turn(&mut ask);
            now = steps.get() - skew[who];
            match tenure {
                Ok(Tenure::Ours { fence, until }) => {
                    changes += u64::from(fence > fence_max);
                    assert!(fence >= fence_max, "the fence never falls");
                    fence_max = fence;
                    leads[who] = Some((fence, until - skew[who]));
                }
                Ok(Tenure::Theirs { .. }) => leads[who] = None,
                Err(_) => {}
            }
            let acting = leads.iter().flatten().filter(|(_, until)| now < *until).count();
            assert!(acting <= 1, "{leads:?} at {now:?}");
        }
        assert!(changes > 50, "the lease changed hands {changes} times");
    }
}
