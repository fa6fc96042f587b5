//! Who is to be woken when: a wheel of short ticks that is lazy about changes of mind.
//!
//! Nearly every timer of a transaction is cancelled or moved to a later time before it fires. So an
//! entry is never searched for: one that comes too early is put back at the time that counts by
//! then, and one whose transaction is gone is dropped when it comes up, or all at once when there
//! are too many of them.
//!
//! The wheel goes round once in a little more than 64·T1, so that adding an entry and finding the next
//! one cost the same however many there are. What is due later than that waits in a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::output::Origin;

/// Stale entries that are not worth clearing up.
const STALE_MIN: usize = 1024;

/// Ticks of 8 ms: what the wheel does not tell apart before it comes there; then it is sorted.
const TICKS_PER_S: u32 = 125;
const TICK_NANOS: u32 = 1_000_000_000 / TICKS_PER_S;
/// Ticks in one round: 32.8 s.
const TICKS: i64 = 4096;
const WORD_BITS: usize = 64;

type Entry = (Instant, Origin);

/// Entries in the order of their time.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Made when it is first needed.
    wheel: Option<Wheel>,
    /// Entries a whole round or more ahead of the wheel.
    far: BinaryHeap<Reverse<Entry>>,
}

struct Wheel {
    /// Where ticks are counted from.
    epoch: Instant,
    /// The tick up to which time has come. No entry lies before it; those of this tick are sorted, the
    /// earliest last.
    current: i64,
    slots: Box<[Vec<Entry>]>,
    /// Which slots hold anything, a bit each.
    occupied: Box<[u64]>,
    count: usize,
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
        let wheel = self.wheel.get_or_insert_with(|| Wheel::new(deadline));
        if let Err(entry) = wheel.push((deadline, who)) {
            self.far.push(Reverse(entry));
        }
    }

    /// The next entry that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        self.wheel.get_or_insert_with(|| Wheel::new(now)).turn(now);
        let next = self.peek()?;
        if next.0 > now {
            return None;
        }
        self.drop_next();
        Some(next)
    }

    /// The earliest entry; it may be a stale one.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.peek().map(|(at, _)| at)
    }

    /// Whether stale entries are the larger part, `living` being the transactions that live.
    pub(crate) fn is_stale(&self, living: usize) -> bool {
        self.len() > 2 * living + STALE_MIN
    }

    /// Keeps the entries that `counts` knows of.
    pub(crate) fn retain(&mut self, mut counts: impl FnMut(Instant, Origin) -> bool) {
        self.far.retain(|Reverse((at, who))| counts(*at, *who));
        if let Some(wheel) = &mut self.wheel {
            wheel.retain(counts);
        }
    }

    /// Drops stale entries at the front, so that nobody is woken for them.
    pub(crate) fn trim(&mut self, mut counts: impl FnMut(Instant, Origin) -> bool) {
        while let Some((at, who)) = self.peek() {
            if counts(at, who) {
                return;
            }
            self.drop_next();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.far.len() + self.wheel.as_ref().map_or(0, |wheel| wheel.count)
    }

    fn peek(&self) -> Option<Entry> {
        let near = self.wheel.as_ref().and_then(Wheel::peek);
        let far = self.far.peek().map(|Reverse(entry)| *entry);
        near.into_iter().chain(far).min()
    }

    /// Drops what [`peek`](Self::peek) shows.
    fn drop_next(&mut self) {
        let near = self.wheel.as_ref().and_then(Wheel::peek);
        let far = self.far.peek().map(|Reverse(entry)| *entry);
        match (&mut self.wheel, near) {
            (Some(wheel), Some(near)) if far.is_none_or(|far| near <= far) => wheel.drop_next(),
            _ => drop(self.far.pop()),
        }
    }
}

impl Wheel {
    fn new(epoch: Instant) -> Self {
        let slots = usize::try_from(TICKS).unwrap_or_default();
        Self {
            epoch,
            current: 0,
            slots: vec![Vec::new(); slots].into(),
            occupied: vec![0; slots / WORD_BITS].into(),
            count: 0,
        }
    }

    /// The tick of an instant; negative before the epoch.
    fn tick_of(&self, at: Instant) -> i64 {
        let ticks = |span: Duration| {
            let whole = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
            let part = i64::from(span.subsec_nanos() / TICK_NANOS);
            whole.saturating_mul(TICKS_PER_S.into()).saturating_add(part)
        };
        match at.checked_duration_since(self.epoch) {
            Some(after) => ticks(after),
            None => -1 - ticks(self.epoch.saturating_duration_since(at)),
        }
    }

    fn place_of(tick: i64) -> usize {
        usize::try_from(tick.rem_euclid(TICKS)).unwrap_or_default()
    }

    /// Adds an entry, or gives it back if its tick comes only in a later round.
    fn push(&mut self, entry: Entry) -> Result<(), Entry> {
        let tick = self.tick_of(entry.0).max(self.current);
        if tick - self.current >= TICKS {
            return Err(entry);
        }
        let (place, is_current) = (Self::place_of(tick), tick == self.current);
        let Some(slot) = self.slots.get_mut(place) else { return Err(entry) };
        let among = if is_current { slot.partition_point(|it| *it > entry) } else { slot.len() };
        slot.insert(among, entry);
        self.count += 1;
        self.note(place);
        Ok(())
    }

    /// Time has come to `now`: goes on to the first tick that holds anything, or to the present one.
    fn turn(&mut self, now: Instant) {
        let present = self.tick_of(now);
        if present <= self.current || self.is_occupied(Self::place_of(self.current)) {
            return;
        }
        self.current = self.first_tick().map_or(present, |first| first.min(present));
        if let Some(slot) = self.slots.get_mut(Self::place_of(self.current)) {
            slot.sort_unstable_by_key(|entry| Reverse(*entry));
        }
    }

    fn peek(&self) -> Option<Entry> {
        let tick = self.first_tick()?;
        let slot = self.slots.get(Self::place_of(tick))?;
        if tick == self.current { slot.last().copied() } else { slot.iter().min().copied() }
    }

    fn drop_next(&mut self) {
        let Some(tick) = self.first_tick() else { return };
        let place = Self::place_of(tick);
        let Some(slot) = self.slots.get_mut(place) else { return };
        let at = if tick == self.current {
            slot.len().checked_sub(1)
        } else {
            (0..slot.len()).min_by_key(|at| slot.get(*at))
        };
        if let Some(at) = at {
            slot.swap_remove(at);
            self.count -= 1;
        }
        self.note(place);
    }

    fn retain(&mut self, mut counts: impl FnMut(Instant, Origin) -> bool) {
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else { return };
            let before = slot.len();
            slot.retain(|(at, who)| counts(*at, *who));
            self.count -= before - slot.len();
            self.note(place);
        }
    }

    /// The first tick from the current one on that holds anything.
    fn first_tick(&self) -> Option<i64> {
        if self.count == 0 {
            return None;
        }
        let start = Self::place_of(self.current);
        let words = self.occupied.len();
        // Once more over the first word: its lower bits are the end of the round.
        (0..=words).find_map(|step| {
            let index = (start / WORD_BITS + step) % words;
            let mut word = *self.occupied.get(index)?;
            if step == 0 {
                word &= u64::MAX << (start % WORD_BITS);
            }
            let bit = usize::try_from(word.trailing_zeros()).unwrap_or_default();
            let place = index * WORD_BITS + bit;
            let ahead = (place + self.slots.len() - start) % self.slots.len();
            (word != 0).then(|| self.current + i64::try_from(ahead).unwrap_or_default())
        })
    }

    fn is_occupied(&self, place: usize) -> bool {
        self.slots.get(place).is_some_and(|slot| !slot.is_empty())
    }

    /// Keeps the bit of a slot true.
    fn note(&mut self, place: usize) {
        let bit = 1 << (place % WORD_BITS);
        let is_occupied = self.is_occupied(place);
        if let Some(word) = self.occupied.get_mut(place / WORD_BITS) {
            *word = if is_occupied { *word | bit } else { *word & !bit };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::ServerId;
    use crate::table::Table;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn epoch() -> Instant {
        Instant::now() + Duration::from_secs(3_600)
    }

    /// Goal: the wheel is a heap. Method: both are told the same, at random, with times before the first
    /// one, within one tick, in one round and beyond it, and pauses of up to two rounds.
    #[test]
    fn entries_come_up_in_the_order_of_their_time() {
        let mut random = 1_u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        let mut table = Table::new(usize::MAX);
        let (mut schedule, mut heap) = (Schedule::default(), BinaryHeap::new());
        let mut now = epoch();
        for step in 0..20_000_usize {
            let pause = if step.is_multiple_of(200) {
                70_000_000
            } else {
                [1, 2, 9_000, 700_000][step % 4]
            };
            now += Duration::from_micros(below(pause));
            let spans = [10, 9_000, 600_000, 32_000_000, 90_000_000];
            let at = now + Duration::from_micros(below(spans[step % 5]));
            let at = if step == 1 { now - Duration::from_secs(3) } else { at };
            let id = table.insert(crate::table::Key { high: 0, low: 0 }, ()).expect("room");
            let who = Origin::Server(ServerId(id));
            schedule.wake(who, &mut Scheduled::default(), Some(at));
            heap.push(Reverse((at, who)));
            assert_eq!(schedule.len(), heap.len());
            if step.is_multiple_of(3) {
                while heap.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                    assert_eq!(schedule.pop_due(now), heap.pop().map(|Reverse(entry)| entry));
                }
                assert_eq!(schedule.pop_due(now), None);
            }
            assert_eq!(schedule.next(), heap.peek().map(|Reverse((at, _))| *at), "step {step}");
            if step % 1_000 == 999 {
                let start = now - Duration::from_secs(9);
                let is_even = |at: Instant, _: Origin| (at - start).as_micros().is_multiple_of(2);
                schedule.retain(is_even);
                heap.retain(|Reverse((at, who))| is_even(*at, *who));
            }
        }
    }
}
