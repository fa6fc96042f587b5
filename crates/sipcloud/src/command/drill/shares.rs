//! Who got the calls: from the balancers' counters, a share for each proxy and each set of owners.

use std::collections::BTreeMap;

use fleet::{InstanceId, Membership, Tier};
use node_api::wire::FleetStatus;
use serde_json::{Value, json};

use super::stage::{Stage, serving};

/// Calls below which a share says nothing.
const CALLS_MIN: u64 = 200;

/// One balancer, in one life, and one worker of a proxy in one life.
type Counted = (InstanceId, u32, InstanceId, u16, u32);

/// What happened while the same proxies owned the calls.
pub(super) struct Phase {
    /// Owners with their weights.
    owners: BTreeMap<InstanceId, u32>,
    calls: BTreeMap<InstanceId, u64>,
}

/// Collects phases from look to look.
#[derive(Default)]
pub(super) struct Shares {
    phases: Vec<Phase>,
    last: BTreeMap<Counted, u64>,
}

impl Shares {
    /// Asks every balancer. A look that cannot ask all of them counts for nothing.
    pub(super) fn look(&mut self, stage: &Stage, fleet: &FleetStatus) {
        let Some((owners, totals)) = read(stage, fleet) else {
            self.last.clear();
            return;
        };
        let is_same = self.phases.last().is_some_and(|phase| phase.owners == owners);
        if !is_same {
            // What was counted since the last look belongs to both.
            self.phases.push(Phase { owners, calls: BTreeMap::new() });
        } else if let (Some(phase), false) = (self.phases.last_mut(), self.last.is_empty()) {
            for (counted, total) in &totals {
                // One that is new has a past that belongs to nobody here: what it begins with.
                let before = self.last.get(counted).unwrap_or(total);
                *phase.calls.entry(counted.2).or_default() += total.saturating_sub(*before);
            }
        }
        self.last = totals;
    }

    /// Phases that are long enough to say something.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&Phase, Option<&Phase>)> {
        let earlier = std::iter::once(None).chain(self.phases.iter().map(Some));
        self.phases.iter().zip(earlier).filter(|(phase, _)| phase.total() >= CALLS_MIN)
    }
}

fn read(
    stage: &Stage,
    fleet: &FleetStatus,
) -> Option<(BTreeMap<InstanceId, u32>, BTreeMap<Counted, u64>)> {
    let mut owners: Option<BTreeMap<InstanceId, u32>> = None;
    let mut totals = BTreeMap::new();
    for balancer in serving(fleet, Tier::LoadBalancer) {
        let client = stage.node(balancer.control).ok()?;
        let status = stage.ask(client.status()).ok()?;
        let membership: Membership = stage.ask(client.membership()).ok()??;
        let mut its: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for member in &membership.proxies {
            *its.entry(member.instance).or_default() += u32::from(member.weight);
        }
        // While two balancers disagree, nobody can say whose a call was.
        if owners.get_or_insert_with(|| its.clone()) != &its {
            return None;
        }
        for to in status.calls_to_members {
            let counted =
                (balancer.instance, status.incarnation, to.instance, to.worker, to.incarnation);
            totals.insert(counted, to.calls_total);
        }
    }
    Some((owners?, totals))
}

impl Phase {
    fn total(&self) -> u64 {
        self.owners.keys().map(|owner| self.calls_of(*owner)).sum()
    }

    fn calls_of(&self, owner: InstanceId) -> u64 {
        self.calls.get(&owner).copied().unwrap_or_default()
    }

    fn share(&self, owner: InstanceId) -> f64 {
        self.calls_of(owner) as f64 / self.total().max(1) as f64
    }

    /// What an owner should have by its weight.
    fn fair(&self, owner: InstanceId) -> f64 {
        let sum: u32 = self.owners.values().sum();
        let weight = self.owners.get(&owner).copied().unwrap_or_default();
        f64::from(weight) / f64::from(sum.max(1))
    }

    /// The busiest against its fair share: the maximum over the mean, for equal weights.
    pub(super) fn max_over_fair(&self) -> f64 {
        let over = |owner: &InstanceId| self.share(*owner) / self.fair(*owner).max(1e-9);
        self.owners.keys().map(over).fold(0.0, f64::max)
    }

    /// Up to which figure so few calls differ by chance alone: three standard deviations.
    pub(super) fn chance(&self) -> f64 {
        let deviation = |owner: &InstanceId| {
            let fair = self.fair(*owner).max(1e-9);
            ((1.0 - fair) / (fair * self.total().max(1) as f64)).sqrt()
        };
        1.0 + 3.0 * self.owners.keys().map(deviation).fold(0.0, f64::max)
    }

    /// Owners that the phase before did not have: what they got is what moved.
    pub(super) fn newcomers(&self, before: Option<&Self>) -> Vec<InstanceId> {
        let is_new = |owner: &&InstanceId| before.is_some_and(|it| !it.owners.contains_key(*owner));
        self.owners.keys().filter(is_new).copied().collect()
    }

    /// For people: `3 proxies, 1834 calls: proxy-1 33.0 %, …; max/mean 1.02`.
    pub(super) fn line(&self, before: Option<&Self>) -> String {
        let shares: Vec<String> = self
            .owners
            .keys()
            .map(|owner| format!("{owner} {:.1} %", 100.0 * self.share(*owner)))
            .collect();
        let mut line = format!(
            "{} proxies, {} calls: {}; max/mean {:.3} (chance alone: up to {:.3})",
            self.owners.len(),
            self.total(),
            shares.join(", "),
            self.max_over_fair(),
            self.chance(),
        );
        let came = self.newcomers(before);
        if !came.is_empty() && came.len() < self.owners.len() {
            let (moved, expected) = self.moved(&came);
            line += &format!(
                "; moved to {} new: {:.1} %, expected {:.1} %",
                came.len(),
                100.0 * moved,
                100.0 * expected
            );
        }
        line
    }

    fn moved(&self, came: &[InstanceId]) -> (f64, f64) {
        let sum = |of: &dyn Fn(InstanceId) -> f64| came.iter().map(|it| of(*it)).sum::<f64>();
        (sum(&|it| self.share(it)), sum(&|it| self.fair(it)))
    }

    pub(super) fn json(&self, before: Option<&Self>) -> Value {
        let shares: BTreeMap<String, u64> =
            self.owners.keys().map(|it| (it.to_string(), self.calls_of(*it))).collect();
        let came = self.newcomers(before);
        let (moved, expected) = self.moved(&came);
        json!({
            "proxies": self.owners.len(),
            "calls": self.total(),
            "calls_to": shares,
            "max_over_mean": self.max_over_fair(),
            "max_over_mean_by_chance": self.chance(),
            "moved_share": moved,
            "moved_share_expected": expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(calls: &[(u16, u64)]) -> Phase {
        Phase {
            owners: calls.iter().map(|(slot, _)| (InstanceId::proxy(*slot), 100)).collect(),
            calls: calls.iter().map(|(slot, calls)| (InstanceId::proxy(*slot), *calls)).collect(),
        }
    }

    #[test]
    fn a_newcomers_share_is_what_moved() {
        let before = phase(&[(1, 500), (2, 500)]);
        let after = phase(&[(1, 330), (2, 360), (3, 310)]);
        let line = after.line(Some(&before));
        assert!(line.contains("moved to 1 new: 31.0 %, expected 33.3 %"), "{line}");
        assert!((after.max_over_fair() - 1.08).abs() < 1e-9);
        assert!((1.1..1.2).contains(&after.chance()), "{}", after.chance());
        assert!(after.newcomers(None).is_empty() && before.newcomers(Some(&after)).is_empty());
    }
}
