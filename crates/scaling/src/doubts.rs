//! What the balancers believe of the owners: evidence where the manager itself hears too little.

use std::collections::BTreeSet;

use fleet::{InstanceId, Member, Tier};

use crate::view::{Doubt, MachineState, NodeView, Observed};

/// The balancers that may be at work.
pub(crate) fn balancers(observed: &[Observed]) -> impl Iterator<Item = &Observed> {
    observed.iter().filter(|one| {
        let is_at_work = !matches!(one.machine_state, MachineState::Dead | MachineState::Booting);
        one.instance.tier == Tier::LoadBalancer && is_at_work
    })
}

/// Owners of which every balancer says in this round that no worker answers it. A balancer that says
/// nothing, or does not know them, may reach them.
pub(crate) fn unreached(observed: &[Observed], owners: &[Member]) -> BTreeSet<InstanceId> {
    let said: Option<Vec<&NodeView>> = balancers(observed).map(|one| one.node.known()).collect();
    let Some(said) = said.filter(|said| !said.is_empty()) else { return BTreeSet::new() };
    let may_be_reached = |owner: &&Member| {
        said.iter().any(|balancer| doubt(balancer, owner).is_none_or(|doubt| doubt.answers))
    };
    let mut unreached: BTreeSet<_> = owners.iter().map(|owner| owner.instance).collect();
    for owner in owners.iter().filter(may_be_reached) {
        unreached.remove(&owner.instance);
    }
    unreached
}

/// A balancer that says in this round that it gives nothing to this owner, of those whose word on it
/// meets `condition`.
pub(crate) fn held_dead_by(
    observed: &[Observed],
    owner: &Member,
    condition: impl Fn(&Doubt) -> bool,
) -> Option<InstanceId> {
    let holds_dead = |balancer: &&Observed| {
        let doubt = balancer.node.known().and_then(|node| doubt(node, owner));
        doubt.is_some_and(|doubt| doubt.is_dead && condition(doubt))
    };
    balancers(observed).find(holds_dead).map(|balancer| balancer.instance)
}

fn doubt<'a>(balancer: &'a NodeView, owner: &Member) -> Option<&'a Doubt> {
    let life = (owner.instance, owner.worker, owner.incarnation);
    balancer.doubts.iter().find(|doubt| (doubt.instance, doubt.worker, doubt.incarnation) == life)
}
