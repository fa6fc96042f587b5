//! How many calls each instance takes, from what itself and the balancers say.

use std::collections::BTreeMap;

use fleet::{CallRate, InstanceId, InstanceState, Poll, Tier};

use crate::plan::Standing;
use crate::view::{MachineState, Observed};

/// What one node said of the time since the poll before.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Calls that it took itself.
    pub calls: CallRate,
    /// A balancer's: calls that it gave to each proxy.
    pub calls_to: &'a BTreeMap<InstanceId, CallRate>,
}

/// How many calls an instance takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The least that it can be.
    pub at_least: CallRate,
    pub is_known: bool,
}

/// The loads of all instances; `None` is a node that said nothing.
///
/// A proxy's load is the larger of its own report and of what the balancers gave to it: an
/// overloaded proxy misses polls and counts only what it accepts.
#[must_use]
pub fn loads(reports: &BTreeMap<InstanceId, Option<Report<'_>>>) -> BTreeMap<InstanceId, Load> {
    let balancers = || reports.iter().filter(|(instance, _)| instance.tier == Tier::LoadBalancer);
    // A balancer that is silent may have given calls to anybody.
    let all_told = balancers().all(|(_, report)| report.is_some());
    let has_balancers = balancers().next().is_some();
    let mut given: BTreeMap<InstanceId, CallRate> = BTreeMap::new();
    for report in balancers().filter_map(|(_, report)| report.as_ref()) {
        for (&proxy, &rate) in report.calls_to {
            *given.entry(proxy).or_default() += rate;
        }
    }
    let load = |(&instance, report): (&InstanceId, &Option<Report<'_>>)| {
        let own = report.map(|report| report.calls);
        let given = given.get(&instance).copied().unwrap_or_default();
        let is_told = instance.tier == Tier::Proxy && has_balancers && all_told;
        let at_least = own.unwrap_or_default().max(given);
        (instance, Load { at_least, is_known: own.is_some() || is_told })
    };
    reports.iter().map(load).collect()
}

/// The tier's poll. Silent are those in service of which nothing is known; before the first plan, and
/// as long as nobody answers, that is anybody who might be.
#[must_use]
pub fn poll(
    tier: Tier,
    observed: &[Observed],
    loads: &BTreeMap<InstanceId, Load>,
    standings: Option<&BTreeMap<InstanceId, Standing>>,
) -> Poll {
    let mut poll = Poll::default();
    let is_blind = observed.iter().all(|one| one.node.is_unknown());
    for one in observed.iter().filter(|one| one.instance.tier == tier) {
        let load = loads.get(&one.instance).copied().unwrap_or_default();
        poll.reported += load.at_least;
        let is_in_service = is_blind
            || standings.is_none_or(|standings| {
                let standing = standings.get(&one.instance);
                standing.is_some_and(|standing| standing.state == InstanceState::InService)
            });
        let may_carry = !matches!(one.machine_state, MachineState::Dead | MachineState::Booting);
        poll.silent += u32::from(!load.is_known && is_in_service && may_carry);
    }
    poll
}
