//! Who is to be woken when: a heap that is lazy about changes of mind.
//!
//! Nearly every timer of a transaction is cancelled or moved to a later time before it fires. So an
//! entry is never searched for: one that comes too early is put back at the time that counts by
//! then, and one whose transaction is gone is dropped when it comes up, or all at once when there
//! are too many of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::output::Origin;

/// Stale entries that are not worth clearing up.
const STALE_MIN: usize = 1024;

/// Entries in the order of their time.
#[derive(Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<(Instant, Origin)>>,
}

/// When the schedule will wake a transaction: its earliest entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduled(Option<Instant>);

impl Scheduled {
    /// Whether an entry that came up at `at` is the one that counts; if so it is used up.
    pub(crate) fn take_if(&mut self, at: Instant) -> bool {
        let is_mine = self.0 == Some(at);
        if is_mine {
            self.0 = None;
        }
        is_mine
    }

    pub(crate) fn is_at(self, at: Instant) -> bool {
        self.0 == Some(at)
    }
}

impl Schedule {
    /// Sees to it that `who` is woken at `deadline` or earlier.
    ///
    /// # Cost
    ///
    /// Nothing, if the transaction is woken earlier anyway; else one push.
    pub(crate) fn wake(
        &mut self,
        who: Origin,
        scheduled: &mut Scheduled,
        deadline: Option<Instant>,
    ) {
        let Some(deadline) = deadline else {
            return;
        };
        if scheduled.0.is_some_and(|earlier| earlier <= deadline) {
            return;
        }
        scheduled.0 = Some(deadline);
        self.heap.push(Reverse((deadline, who)));
    }

    /// The next entry that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Origin)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// The earliest entry; it may be a stale one.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Whether stale entries are the larger part, `living` being the transactions that live.
    pub(crate) fn is_stale(&self, living: usize) -> bool {
        self.heap.len() > 2 * living + STALE_MIN
    }

    /// Keeps the entries that `counts` knows of.
    pub(crate) fn retain(&mut self, mut counts: impl FnMut(Instant, Origin) -> bool) {
        self.heap.retain(|Reverse((at, who))| counts(*at, *who));
    }

    /// Drops stale entries at the front, so that nobody is woken for them.
    pub(crate) fn trim(&mut self, mut counts: impl FnMut(Instant, Origin) -> bool) {
        while let Some(Reverse((at, who))) = self.heap.peek() {
            if counts(*at, *who) {
                return;
            }
            self.heap.pop();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}
