//! Owners that a balancer held dead and that answer it again: they come back for all balancers
//! together, by two generations.
//!
//! The first one is without such an owner. So whoever had its calls meanwhile is an earlier owner like
//! any other (protocol rule 19), and a balancer that never doubted it gives it no more calls than the
//! others do. The second one has it again.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{InstanceId, InstanceState, Member, Members};

use super::Step;
use super::weights::OPEN_SETS_MAX;
use crate::doubts::held_dead_by;
use crate::retirement::since;

/// The wait between two returns of one owner doubles with each, up to this many times: one that comes
/// and goes is left to the balancers, which skip it.
const DOUBLINGS_MAX: u32 = 6;

impl Step<'_> {
    /// Takes those that return out of this generation. True: it is to be made although nobody goes or
    /// comes, since nobody else would be left.
    pub(super) fn withdraw_returning(&mut self, members: &mut Members) -> bool {
        let open = self.memory.membership.as_ref().map_or(0, |have| have.earlier.len());
        let returning = self.returning(&members.proxies);
        if returning.is_empty() || open > OPEN_SETS_MAX || self.waits_for_the_unheard() {
            return false;
        }
        let stays = |owner: &Member| {
            !returning.contains_key(&owner.instance)
                && self.hears(owner.instance)
                && held_dead_by(self.view.observed, owner, |_| true).is_none()
        };
        let is_alone = !members.proxies.iter().any(stays);
        if !is_alone {
            let goes = |owner: &Member| returning.contains_key(&owner.instance);
            members.retired.extend(members.proxies.extract_if(.., |owner| goes(owner)));
            members.retired.sort_unstable();
        }
        for (instance, balancer) in returning {
            self.note_return(instance, balancer, is_alone);
        }
        is_alone
    }

    /// Who returns, and a balancer that held it dead.
    fn returning(&self, owners: &[Member]) -> BTreeMap<InstanceId, InstanceId> {
        let may = |owner: &&Member| {
            self.state(owner.instance) == Some(InstanceState::InService)
                && self.hears(owner.instance)
                && self.may_return(owner.instance)
        };
        let comes_back = |owner: &Member| {
            let balancer = held_dead_by(self.view.observed, owner, |doubt| doubt.answers)?;
            Some((owner.instance, balancer))
        };
        owners.iter().filter(may).filter_map(comes_back).collect()
    }

    /// It answers the manager and may be given calls.
    fn hears(&self, instance: InstanceId) -> bool {
        let mut observed = self.view.observed.iter();
        let one = observed.find(|one| one.instance == instance);
        one.and_then(|one| one.node.known()).is_some_and(|node| node.is_ready)
    }

    fn may_return(&self, instance: InstanceId) -> bool {
        let last = self.memory.returns.get(&instance);
        last.is_none_or(|&(count, at_ms)| since(at_ms, self.view.now_ms) >= self.wait(count))
    }

    /// From one return to the next, after so many.
    fn wait(&self, count: u32) -> Duration {
        let doublings = count.saturating_sub(1).min(DOUBLINGS_MAX);
        // By then no repeat passes the owners of the return before.
        self.view.timing.repeats * (2 << doublings)
    }

    fn note_return(&mut self, instance: InstanceId, balancer: InstanceId, is_alone: bool) {
        let now_ms = self.view.now_ms;
        let before = self.memory.returns.get(&instance).copied();
        // One that then stayed for as long again has calmed down.
        let is_calm = |(count, at_ms)| since(at_ms, now_ms) >= 2 * self.wait(count);
        let count = before.filter(|&last| !is_calm(last)).map_or(0, |(count, _)| count);
        self.memory.returns.insert(instance, (count.saturating_add(1), now_ms));
        let when = if is_alone { "this" } else { "the next" };
        let text =
            format!("{balancer} held it dead and it answers: returns with {when} generation");
        self.notes.insert(instance, text.clone());
        self.remarks.push((instance, text));
        if !is_alone {
            self.move_to(instance, InstanceState::Ready);
        }
    }
}
