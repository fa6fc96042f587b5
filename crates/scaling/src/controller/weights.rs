//! How large a share of the calls each owner takes: what the operator gave it, and of that less while
//! it is new.
//!
//! Each change is a generation and leaves an earlier set behind. Therefore a slow start has three
//! stages, and a change waits while many earlier sets are open.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{InstanceId, Member, WEIGHT_NORMAL};

use super::Step;
use crate::retirement::since;

/// Percent of its weight that an owner has at the beginning of its slow start, from its middle on, and
/// after it.
const STAGES: [u16; 3] = [25, 50, 100];
/// With more earlier sets open a change waits: the others are for deaths and decisions.
pub(super) const OPEN_SETS_MAX: usize = 3;

impl Step<'_> {
    /// What the operator gave to an instance.
    pub(super) fn weight_of(&self, instance: InstanceId) -> u16 {
        self.view.weights.get(&instance).copied().unwrap_or(WEIGHT_NORMAL)
    }

    /// Gives every owner its weight.
    pub(super) fn weigh(&mut self, owners: &mut [Member]) {
        let now_ms = self.view.now_ms;
        let whole = self.view.timing.slow_start;
        self.find_slow_starts();
        let stays = |of: &InstanceId| owners.iter().any(|member| member.instance == *of);
        self.memory.slow_since_ms.retain(|instance, _| stays(instance));
        let life = |member: &Member| (member.instance, member.worker, member.incarnation);
        let published = self.memory.membership.as_ref();
        let may_change = published.is_none_or(|have| have.earlier.len() <= OPEN_SETS_MAX);
        let published: BTreeMap<_, u16> = published
            .iter()
            .flat_map(|have| &have.proxies)
            .map(|member| (life(member), member.weight))
            .collect();
        // Where nobody stays, nobody could take the others' share.
        let one_stays = owners.iter().any(|member| published.contains_key(&life(member)));
        for member in owners {
            let instance = member.instance;
            let before = published.get(&life(member)).copied();
            if before.is_none() && one_stays && !whole.is_zero() {
                self.memory.slow_since_ms.insert(instance, now_ms);
            }
            let slow_ms = self.memory.slow_since_ms.get(&instance);
            let percent = slow_ms.map_or(100, |&at_ms| stage(since(at_ms, now_ms), whole));
            let due = share(self.weight_of(instance), percent);
            member.weight = before.filter(|_| !may_change).unwrap_or(due);
            if member.weight != due {
                let note =
                    format!("weight {}, waits for earlier owners to get {due}", member.weight);
                self.notes.insert(instance, note);
            }
        }
        let is_slow = |at_ms: u64| stage(since(at_ms, now_ms), whole) < 100;
        self.memory.slow_since_ms.retain(|_, at_ms| is_slow(*at_ms));
    }

    /// What another manager began slowly goes on from the stage that it has reached.
    fn find_slow_starts(&mut self) {
        if !std::mem::take(&mut self.memory.may_hold_slow_starts) {
            return;
        }
        let half_ms = super::millis(self.view.timing.slow_start / 2);
        let now_ms = self.view.now_ms;
        let [first, second, _] = STAGES;
        for member in self.memory.membership.iter().flat_map(|have| &have.proxies) {
            let whole = self.weight_of(member.instance);
            let since_ms = match member.weight {
                weight if weight == share(whole, first) => now_ms,
                weight if weight == share(whole, second) => now_ms.saturating_sub(half_ms),
                _ => continue,
            };
            self.memory.slow_since_ms.entry(member.instance).or_insert(since_ms);
        }
    }
}

/// The part of a weight that a stage gives, never nothing.
fn share(weight: u16, percent: u16) -> u16 {
    let part = u32::from(weight) * u32::from(percent) / 100;
    u16::try_from(part.max(1)).unwrap_or(u16::MAX)
}

fn stage(time: Duration, whole: Duration) -> u16 {
    let [first, second, last] = STAGES;
    if time < whole / 2 {
        first
    } else if time < whole {
        second
    } else {
        last
    }
}
