//! Earlier owners (protocol rules 19 and 20): how long requests pass them, and when they are empty.

use std::time::Duration;

use fleet::{EarlierSet, GenerationNumber, InstanceId, InstanceState, Member, Tier};

use super::Step;
use crate::lifecycle::is_beyond;
use crate::plan::Cause;
use crate::retirement::since;
use crate::view::{MachineState, NodeView, Observed};

/// How long a message may be on its way between two members, with all its waiting in sockets.
const IN_FLIGHT: Duration = Duration::from_secs(1);

impl Step<'_> {
    /// Every earlier set of owners whose successors every live balancer knows by now.
    pub(super) fn note_acknowledgements(&mut self) {
        let Some(membership) = &self.memory.membership else { return };
        let ends: Vec<GenerationNumber> =
            membership.earlier.iter().map(|set| set.ended_with).collect();
        self.memory.acknowledged_ms.retain(|end, _| ends.contains(end));
        for end in ends {
            if self.all_balancers_are_beyond(end) {
                self.memory.acknowledged_ms.entry(end).or_insert(self.view.now_ms);
            }
        }
    }

    /// What the next generation says of earlier owners if `owners` own the calls in it.
    pub(super) fn earlier_sets(&self, owners: &[Member]) -> Vec<EarlierSet> {
        let Some(published) = &self.memory.membership else { return Vec::new() };
        let mut sets: Vec<EarlierSet> =
            published.earlier.iter().filter(|set| !self.is_empty(set)).cloned().collect();
        for set in &mut sets {
            let settled = self.acknowledged_for(set.ended_with);
            set.is_settled |= settled.is_some_and(|time| time > self.view.timing.repeats);
        }
        if published.proxies != owners {
            sets.push(EarlierSet {
                ended_with: published.generation,
                is_settled: false,
                proxies: published.proxies.clone(),
            });
        }
        sets
    }

    /// When a retiring proxy was first seen to be named by no table at all.
    pub(super) fn note_releases(&mut self) {
        let now_ms = self.view.now_ms;
        let released: Vec<InstanceId> = self
            .memory
            .retiring
            .iter()
            .filter(|(instance, retiring)| {
                instance.tier == Tier::Proxy && retiring.released_at_ms.is_none()
            })
            .map(|(&instance, _)| instance)
            .filter(|&instance| !self.is_named(instance) && self.all_tables_are_without(instance))
            .collect();
        for instance in released {
            if let Some(retiring) = self.memory.retiring.get_mut(&instance) {
                retiring.released_at_ms = Some(now_ms);
            }
        }
    }

    /// Whether calls are given to this proxy in the last generation.
    pub(super) fn is_owner(&self, proxy: InstanceId) -> bool {
        let owners = self.memory.membership.iter().flat_map(|membership| &membership.proxies);
        owners.into_iter().any(|member| member.instance == proxy)
    }

    /// Whether the last generation names this proxy as an earlier owner.
    fn is_named(&self, proxy: InstanceId) -> bool {
        let sets = self.memory.membership.iter().flat_map(|membership| &membership.earlier);
        sets.flat_map(|set| &set.proxies).any(|member| member.instance == proxy)
    }

    fn acknowledged_for(&self, end: GenerationNumber) -> Option<Duration> {
        let at_ms = self.memory.acknowledged_ms.get(&end)?;
        Some(since(*at_ms, self.view.now_ms))
    }

    /// Nobody sends to these owners as such any more, and none of them has a transaction of then.
    fn is_empty(&self, set: &EarlierSet) -> bool {
        self.acknowledged_for(set.ended_with).is_some_and(|time| time >= IN_FLIGHT)
            && set.proxies.iter().all(|member| self.has_finished(member, set.ended_with))
    }

    fn has_finished(&self, member: &Member, end: GenerationNumber) -> bool {
        let listed = self.view.observed.iter().find(|one| one.instance == member.instance);
        let Some(one) = listed.filter(|one| !self.is_gone(one)) else { return true };
        let last = one.heard();
        if last.is_some_and(|node| node.incarnation != member.incarnation) {
            return true;
        }
        // Silence is no evidence of emptiness.
        let now = one.node.known();
        now.is_some_and(|node| node.oldest_stamp.is_none_or(|oldest| oldest > end))
    }

    pub(super) fn all_balancers_are_beyond(&self, end: GenerationNumber) -> bool {
        self.all_balancers(|node| is_beyond(node, end))
    }

    /// Whether every balancer that may be at work says so, now or last.
    pub(super) fn all_balancers(&self, is_so: impl Fn(&NodeView) -> bool) -> bool {
        // One that is given up for its silence may send until its machine is gone.
        let is_dead = |one: &Observed| {
            let failure = self.stands.get(&one.instance).and_then(|stand| stand.failure.as_ref());
            self.is_gone(one) && !matches!(failure, Some(Cause::Silent { .. }))
        };
        let mut balancers = self.of_tier(Tier::LoadBalancer).filter(|one| !is_dead(one));
        let all_say_so = balancers.all(|one| match one.heard() {
            Some(node) => is_so(node),
            None => self.has_no_table(one),
        });
        all_say_so && self.unmet_balancers().is_empty()
    }

    /// A node that boots, or that this manager asked for and has not heard yet, has no table. What
    /// another one has, which an earlier manager made, is unknown until it answers; and what was asked
    /// for while a list left it out is that one.
    pub(super) fn has_no_table(&self, one: &Observed) -> bool {
        let membership = self.memory.membership.as_ref();
        let is_known = membership.is_some_and(|have| have.balancer(one.instance).is_some());
        one.machine_state == MachineState::Booting
            || (self.memory.made.contains(&one.instance) && !is_known)
    }

    fn is_gone(&self, one: &Observed) -> bool {
        let state = self.state(one.instance);
        matches!(state, None | Some(InstanceState::Terminated | InstanceState::Failed))
    }
}
