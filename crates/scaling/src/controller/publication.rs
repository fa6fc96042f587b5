//! The generation: who owns calls, who is told, who has acknowledged.

use fleet::{
    BalancerMember, EARLIER_SETS_MAX, GenerationNumber, InstanceId, InstanceState, Member, Members,
    Membership, Tier, WEIGHT_NORMAL,
};

use super::Step;
use crate::lifecycle::has_generation;
use crate::plan::Action;
use crate::view::{MachineState, Observed};

impl Step<'_> {
    /// Makes a new generation if the members changed, and gives it to every node that lacks it.
    pub(super) fn publish(&mut self) {
        if self.view.is_dry_run {
            return;
        }
        self.note_acknowledgements();
        let mut members = self.members();
        let is_renewal = self.withdraw_returning(&mut members);
        self.weigh(&mut members.proxies);
        members.earlier = self.earlier_sets(&members.proxies);
        let has_changed =
            self.memory.membership.as_ref().is_none_or(|published| published.members() != members);
        // Without owners there is nothing to publish: nodes refuse it, and the last good
        // generation serves best.
        let is_new = has_changed || is_renewal || self.is_overtaken();
        if members.earlier.len() > EARLIER_SETS_MAX {
            // Each costs the balancers a table. One goes within the time of the longest ringing, and
            // until then they skip what dies by themselves.
            self.note_waiting_for_earlier_owners();
        } else if is_new && !members.proxies.is_empty() && !self.waits_for_the_unheard() {
            self.memory.membership = Some(self.generation_of(members, is_renewal));
        }
        let Some(membership) = self.memory.membership.clone() else {
            return;
        };
        let current = Some((membership.generation, membership.digest));
        let lacks_it = |one: &&Observed| {
            one.node.known().is_some_and(|node| node.generation != current)
                && !matches!(
                    self.state(one.instance),
                    None | Some(InstanceState::Terminated | InstanceState::Failed)
                )
        };
        let to: Vec<InstanceId> =
            self.view.observed.iter().filter(lacks_it).map(|one| one.instance).collect();
        if !to.is_empty() {
            self.actions.push(Action::Publish { membership, to });
        }
    }

    /// Who belongs to the fleet now, sorted as a membership sorts.
    fn members(&self) -> Members {
        let mut members = Members::default();
        for one in self.view.observed {
            let instance = one.instance;
            let state = self.state(instance);
            let is_gone =
                matches!(state, None | Some(InstanceState::Terminated | InstanceState::Failed));
            let Some(node) = one.heard() else {
                if !is_gone && !self.has_no_table(one) {
                    self.keep_as_found(instance, &mut members);
                }
                continue;
            };
            let incarnation = node.incarnation;
            if instance.tier == Tier::LoadBalancer && !is_gone {
                let (internal, advertised) = (node.internal, node.advertised);
                if state == Some(InstanceState::Draining) {
                    members.leaving.push(instance);
                }
                members.balancers.push(BalancerMember {
                    instance,
                    incarnation,
                    internal,
                    advertised,
                });
            }
            if instance.tier != Tier::Proxy {
                continue;
            }
            let workers = node.workers.iter().map(|&(worker, address)| Member {
                instance,
                worker,
                incarnation,
                address,
                weight: WEIGHT_NORMAL,
            });
            match state {
                Some(InstanceState::InService | InstanceState::Ready) => {
                    members.proxies.extend(workers);
                }
                Some(InstanceState::Draining) => members.retired.extend(workers),
                _ => {}
            }
        }
        for balancer in self.unmet_balancers() {
            self.keep_as_found(balancer, &mut members);
        }
        members.proxies.sort_unstable();
        members.retired.sort_unstable();
        members.balancers.sort_unstable();
        members.leaving.sort_unstable();
        members
    }

    /// Whom a new manager has not heard yet stays what it was in the generation that was read back.
    fn keep_as_found(&self, instance: InstanceId, members: &mut Members) {
        let Some(found) = &self.memory.membership else { return };
        let of = |list: &[Member]| -> Vec<Member> {
            list.iter().filter(|member| member.instance == instance).copied().collect()
        };
        members.proxies.extend(of(&found.proxies));
        members.retired.extend(of(&found.retired));
        members.balancers.extend(found.balancer(instance));
        members.leaving.extend(found.leaving.iter().filter(|leaving| **leaving == instance));
    }

    /// Balancers of the generation that was read back which the provider has not listed since: the list
    /// may be partial. After many rounds they are gone.
    pub(super) fn unmet_balancers(&self) -> Vec<InstanceId> {
        let memory = &self.memory;
        if !memory.is_adopted || memory.rounds > self.view.timing.silent_rounds_max {
            return Vec::new();
        }
        let found = memory.membership.iter().flat_map(|membership| &membership.balancers);
        found.map(|one| one.instance).filter(|one| !memory.met.contains(one)).collect()
    }

    fn note_waiting_for_earlier_owners(&mut self) {
        let is_waiting = |one: &Observed| {
            let state = self.state(one.instance);
            matches!(state, Some(InstanceState::Ready | InstanceState::Draining))
        };
        let waiting: Vec<InstanceId> = self
            .view
            .observed
            .iter()
            .filter(|one| one.instance.tier == Tier::Proxy && is_waiting(one))
            .map(|one| one.instance)
            .collect();
        for instance in waiting {
            let note =
                format!("waits until one of {EARLIER_SETS_MAX} sets of earlier owners is empty");
            self.notes.insert(instance, note);
        }
    }

    /// A new manager does not know what an instance that has not answered yet contributes. It
    /// waits some rounds rather than publish a generation without it.
    pub(super) fn waits_for_the_unheard(&self) -> bool {
        let knows_nothing = self.memory.membership.is_none();
        let is_new_here = (knows_nothing || self.memory.is_adopted)
            && self.memory.rounds <= self.view.timing.adoption_rounds;
        let is_unheard =
            |one: &Observed| one.machine_state == MachineState::Running && one.heard().is_none();
        let has_history =
            |one: &Observed| one.node.known().is_some_and(|node| node.generation.is_some());
        // Without what a node holds nobody knows who the earlier owners are.
        is_new_here
            && (knows_nothing
                || self.names_an_unlisted_one()
                || self.view.observed.iter().any(is_unheard))
            && self.view.observed.iter().any(has_history)
    }

    /// The generation that was read back has an owner that the provider does not list: the list may
    /// be partial.
    fn names_an_unlisted_one(&self) -> bool {
        let owners = self.memory.membership.iter().flat_map(|membership| &membership.proxies);
        owners.into_iter().any(|member| self.state(member.instance).is_none())
    }

    /// Whether a node works with a generation that ours cannot replace: an earlier manager gave it
    /// one that this manager had not heard of.
    fn is_overtaken(&self) -> bool {
        let Some(mine) = &self.memory.membership else {
            return false;
        };
        self.view.observed.iter().any(|one| {
            one.node.known().and_then(|node| node.generation).is_some_and(|(number, digest)| {
                number > mine.generation || (number == mine.generation && digest != mine.digest)
            })
        })
    }

    /// The next generation; or the one that nodes already have, if it says the same and is good enough.
    fn generation_of(&self, members: Members, is_renewal: bool) -> Membership {
        let nodes = self
            .view
            .observed
            .iter()
            .filter_map(|one| one.heard().and_then(|node| node.generation));
        let mine = self.memory.membership.as_ref();
        let mine = mine.map(|membership| (membership.generation, membership.digest));
        let newest = nodes.chain(mine).max();
        let rows = self.view.rows;
        let Some((number, digest)) = newest else {
            let number = GenerationNumber { fence: self.view.fence, counter: 1 };
            return Membership::new(number, rows, members);
        };
        if number.fence >= self.view.fence && !is_renewal {
            let same = Membership::new(number, rows, members.clone());
            if same.digest == digest {
                return same;
            }
        }
        let number = GenerationNumber {
            fence: number.fence.max(self.view.fence),
            counter: number.counter.saturating_add(1),
        };
        Membership::new(number, rows, members)
    }

    /// Whether every live balancer works with a generation in which this proxy owns nothing.
    pub(super) fn all_tables_are_without(&self, proxy: InstanceId) -> bool {
        let Some(membership) = &self.memory.membership else {
            return false;
        };
        if membership.proxies.iter().any(|member| member.instance == proxy) {
            return false;
        }
        // The last generation in which it owned any: later ones need not be everywhere yet.
        let mut sets = membership.earlier.iter().rev();
        let owned =
            |set: &&fleet::EarlierSet| set.proxies.iter().any(|member| member.instance == proxy);
        if let Some(set) = sets.find(owned) {
            return self.all_balancers_are_beyond(set.ended_with);
        }
        self.all_balancers(|node| has_generation(node, membership.generation))
    }
}
