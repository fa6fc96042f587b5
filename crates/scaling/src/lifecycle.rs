//! Where an instance stands in its life, from what is seen of it.
//!
//! ```text
//! booting → configuring → ready → in service → draining → (terminated)
//!     └──────────┴──────────┴─────────┴───────────┴─────→ failed → (terminated)
//! ```

use std::time::Duration;

use fleet::{InstanceId, InstanceState, Observation, Tier};

use crate::plan::Cause;
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
    /// Half of the nodes answered this round: if one did not, it is the node's fault and not that of
    /// the manager's network.
    pub(crate) most_answer: bool,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn of(view: &View<'a>, memory: &'a Memory) -> Self {
        let known = view.observed.iter().filter(|one| one.node.known().is_some()).count();
        Self {
            now_ms: view.now_ms,
            timing: view.timing,
            memory,
            dns: view.dns,
            most_answer: known > 0 && 2 * known >= view.observed.len(),
        }
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
    let is_given_up = rounds >= around.timing.silent_rounds_max && around.most_answer;
    let Some(last) = answer.or(observed.last.as_ref()) else {
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
fn is_to_answer(observed: &Observed, around: &Surroundings<'_>) -> bool {
    observed.machine_state == MachineState::Booting
        || around.memory.made.contains(&observed.instance)
        || around.most_answer
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
/// manager, an old instance that is not ready has the time of a new one.
fn age(observed: &Observed, around: &Surroundings<'_>) -> Duration {
    let first_seen = around.memory.first_seen_ms.get(&observed.instance).copied();
    let since = first_seen.unwrap_or(around.now_ms).max(observed.created_at_ms);
    Duration::from_millis(around.now_ms.saturating_sub(since))
}

/// The generation that a node works with is at least `number`.
pub(crate) fn has_generation(node: &NodeView, number: fleet::GenerationNumber) -> bool {
    node.generation.is_some_and(|(have, _)| have >= number)
}
