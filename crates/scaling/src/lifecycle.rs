//! Where an instance stands in its life, from what is seen of it.
//!
//! ```text
//! booting → configuring → ready → in service → draining → (terminated)
//!     └──────────┴──────────┴─────────┴───────────┴─────→ failed → (terminated)
//! ```

use std::time::Duration;

use fleet::{GenerationNumber, InstanceId, InstanceState, Member, Observation, Tier};

use crate::doubts;
use crate::plan::Cause;
use crate::retirement::since;
use crate::view::{MachineState, Memory, NodeView, Observed, Timing, View};

/// Where it stands; `Failed` always has a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) state: InstanceState,
    pub(crate) failure: Option<Cause>,
}

/// What is seen of all machines together, as far as one machine's state depends on it.
pub(crate) struct Surroundings<'a> {
    pub(crate) now_ms: u64,
    pub(crate) timing: &'a Timing,
    pub(crate) memory: &'a Memory,
    pub(crate) dns: &'a Observation<std::collections::BTreeSet<InstanceId>>,
    /// Nodes that answered this round, and those that there are.
    known: usize,
    all: usize,
    balancers: Vec<&'a Observed>,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn of(view: &View<'a>, memory: &'a Memory) -> Self {
        let known = view.observed.iter().filter(|one| one.node.known().is_some()).count();
        Self {
            now_ms: view.now_ms,
            timing: view.timing,
            memory,
            dns: view.dns,
            known,
            all: view.observed.len(),
            balancers: doubts::balancers(view.observed).collect(),
        }
    }

    /// Whether silence of this one is its own fault and not that of the manager's network: most others
    /// answer, or every balancer has said for long that it hears nothing of it either. Of a proxy the
    /// balancers know more than the manager, where half of the nodes answer it.
    fn is_its_own_fault(&self, instance: InstanceId) -> bool {
        let most_answer = match instance.tier {
            Tier::Proxy => 2 * self.known > self.all,
            Tier::LoadBalancer | Tier::Store => self.known > 0 && 2 * self.known >= self.all,
        };
        let wait = self.timing.poll_interval * self.timing.silent_rounds_max;
        let unreached = self.memory.unreached_ms.get(&instance);
        most_answer || unreached.is_some_and(|&at_ms| since(at_ms, self.now_ms) >= wait)
    }

    /// Whether a balancer may work with a table that gives calls to the proxy in this slot.
    fn may_own(&self, proxy: InstanceId) -> bool {
        let is_ours = |balancer: &&Observed| self.memory.made.contains(&balancer.instance);
        let Some(membership) = &self.memory.membership else {
            // Nothing was read back: what an earlier manager gave to a balancer is unknown.
            return self.balancers.iter().any(|one| one.heard().is_none() && !is_ours(one));
        };
        let names = |members: &[Member]| members.iter().any(|member| member.instance == proxy);
        if names(&membership.proxies) {
            return true;
        }
        let Some(set) = membership.earlier.iter().rev().find(|set| names(&set.proxies)) else {
            return false;
        };
        let may_have_it = |balancer: &&Observed| match balancer.heard() {
            Some(node) => !is_beyond(node, set.ended_with),
            None => membership.balancer(balancer.instance).is_some() || !is_ours(balancer),
        };
        self.balancers.iter().any(may_have_it)
    }
}

/// Where `observed` stands.
pub(crate) fn stand(observed: &Observed, around: &Surroundings<'_>) -> Stand {
    let fine = |state| Stand { state, failure: None };
    let failed = |cause| Stand { state: InstanceState::Failed, failure: Some(cause) };
    let answer = observed.node.known();
    // A provider that calls a machine dead whose node answers is wrong.
    if observed.machine_state == MachineState::Dead && answer.is_none() {
        return failed(Cause::Dead);
    }
    let is_late = age(observed, around) > around.timing.start_limit;
    let rounds = observed.misses;
    let is_silent = rounds >= around.timing.silent_rounds_max;
    let is_given_up = is_silent && around.is_its_own_fault(observed.instance);
    let Some(last) = observed.heard() else {
        return match may_serve(observed, around) {
            true if is_given_up => failed(Cause::Silent { rounds }),
            false if is_late && is_to_answer(observed, around) => failed(Cause::NeverReady),
            _ => fine(InstanceState::Booting),
        };
    };
    if answer.is_none() && is_given_up {
        return failed(Cause::Silent { rounds });
    }
    let instance = observed.instance;
    if last.is_draining || around.memory.retiring.contains_key(&instance) {
        return fine(InstanceState::Draining);
    }
    if is_in_service(instance, last, around) {
        return fine(InstanceState::InService);
    }
    // Only an answer of this very round lets it into the table.
    if answer.is_some_and(|node| node.is_ready) {
        return fine(InstanceState::Ready);
    }
    if is_late && !around.memory.was_ready.contains(&instance) {
        return failed(Cause::NeverReady);
    }
    fine(InstanceState::Configuring)
}

/// Whether an instance that this manager has not heard of may carry calls: an earlier one put it there.
/// The table and the DNS may still name the one whose slot a new machine takes; it is not meant.
fn may_serve(observed: &Observed, around: &Surroundings<'_>) -> bool {
    let instance = observed.instance;
    if observed.machine_state == MachineState::Booting || around.memory.made.contains(&instance) {
        return false;
    }
    let owners = around.memory.membership.iter().flat_map(|membership| &membership.proxies);
    let names = around.dns.known().into_iter().flatten();
    owners.map(|member| member.instance).chain(names.copied()).any(|one| one == instance)
}

/// Whether the fault is the machine's own if this manager never heard of it: it still boots, or it was
/// asked for by this very manager, or others answer. A manager that took over and hears nobody is blind.
///
/// The machine that was asked for may be one that was there before and that a list left out: where its
/// slot may still be given calls, having asked for it says nothing.
fn is_to_answer(observed: &Observed, around: &Surroundings<'_>) -> bool {
    let instance = observed.instance;
    observed.machine_state == MachineState::Booting
        || (around.memory.made.contains(&instance) && !around.may_own(instance))
        || around.is_its_own_fault(instance)
}

/// Whether calls are given to it: a proxy that owns rows of the table, a balancer in the DNS.
///
/// An instance in service that stops being ready stays: if the store is down, none is ready, and
/// taking all of them out would make it worse. The balancers skip those that do not answer.
fn is_in_service(instance: InstanceId, node: &NodeView, around: &Surroundings<'_>) -> bool {
    match instance.tier {
        Tier::LoadBalancer => around.dns.known().is_some_and(|names| names.contains(&instance)),
        Tier::Proxy => around.memory.membership.as_ref().is_some_and(|membership| {
            membership.proxies.iter().any(|member| {
                // Another life in the same slot has to become ready first.
                member.instance == instance && member.incarnation == node.incarnation
            })
        }),
        Tier::Store => true,
    }
}

/// How long this manager has known of it. Counted from the first sight: after a restart of the
/// manager, an old instance that is not ready has the time of a new one. Where the manager's clock is
/// behind the provider's, a birth in the future says nothing.
fn age(observed: &Observed, around: &Surroundings<'_>) -> Duration {
    let first_seen = around.memory.first_seen_ms.get(&observed.instance).copied();
    let born_ms = Some(observed.created_at_ms).filter(|&at_ms| at_ms <= around.now_ms);
    since(first_seen.unwrap_or(around.now_ms).max(born_ms.unwrap_or(0)), around.now_ms)
}

/// The generation that a node works with is at least `number`.
pub(crate) fn has_generation(node: &NodeView, number: GenerationNumber) -> bool {
    node.generation.is_some_and(|(have, _)| have >= number)
}

/// The generation that a node works with is later than `end`.
pub(crate) fn is_beyond(node: &NodeView, end: GenerationNumber) -> bool {
    node.generation.is_some_and(|(have, _)| have > end)
}
