//! How large a share of the calls each owner takes: one that is new begins with less.
//!
//! Each rise is a generation and leaves an earlier set behind. Therefore there are three weights at
//! most, and a rise waits while many earlier sets are open.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{Member, WEIGHT_NORMAL};

use super::Step;
use crate::retirement::since;

/// Weights of an owner at the beginning of its slow start, from its middle on, and after it.
const WEIGHTS: [u16; 3] = [WEIGHT_NORMAL / 4, WEIGHT_NORMAL / 2, WEIGHT_NORMAL];
/// With more earlier sets open a rise waits: the others are for deaths and decisions.
pub(super) const OPEN_SETS_MAX: usize = 3;

impl Step<'_> {
    /// Gives every owner its weight, from the published one and the time since it entered.
    pub(super) fn weigh(&mut self, owners: &mut [Member]) {
        let whole = self.view.timing.slow_start;
        let now_ms = self.view.now_ms;
        let stays = |of: &fleet::InstanceId| owners.iter().any(|member| member.instance == *of);
        self.memory.slow_since_ms.retain(|instance, _| stays(instance));
        let life = |member: &Member| (member.instance, member.worker, member.incarnation);
        let published = self.memory.membership.as_ref();
        let may_rise = published.is_none_or(|have| have.earlier.len() <= OPEN_SETS_MAX);
        let published: BTreeMap<_, u16> = published
            .iter()
            .flat_map(|have| &have.proxies)
            .map(|member| (life(member), member.weight))
            .collect();
        // Where nobody stays, nobody could take the others' share.
        let one_stays = owners.iter().any(|member| published.contains_key(&life(member)));
        for member in owners {
            let since_ms = match published.get(&life(member)) {
                _ if whole.is_zero() => continue,
                None if one_stays => {
                    self.memory.slow_since_ms.insert(member.instance, now_ms);
                    now_ms
                }
                None | Some(&WEIGHT_NORMAL) => continue,
                // Another manager began it: this one begins anew to wait.
                Some(_) => *self.memory.slow_since_ms.entry(member.instance).or_insert(now_ms),
            };
            let due = weight_after(since(since_ms, now_ms), whole);
            member.weight = match published.get(&life(member)) {
                None => due,
                Some(&weight) if may_rise => due.max(weight),
                Some(&weight) => weight,
            };
        }
    }
}

fn weight_after(time: Duration, whole: Duration) -> u16 {
    let [first, second, last] = WEIGHTS;
    if time < whole / 2 {
        first
    } else if time < whole {
        second
    } else {
        last
    }
}
