//! The DNS: which balancers clients are led to.

use std::collections::BTreeSet;

use fleet::{InstanceId, InstanceState, Observation, Tier};

use super::Step;
use crate::plan::{Action, ZoneEntry};
use crate::retirement::{self, Need};
use crate::view::{MachineState, Observed};

impl Step<'_> {
    /// Leads clients to the balancers that are ready and stay.
    pub(super) fn lead_clients(&mut self) {
        if self.view.is_dry_run {
            return;
        }
        let entry = |one: &Observed| {
            let stays = matches!(
                self.state(one.instance),
                Some(InstanceState::InService | InstanceState::Ready)
            );
            let node = one.heard().filter(|_| stays)?;
            // Without a table it could only refuse what it is given.
            node.generation?;
            Some(ZoneEntry { instance: one.instance, advertised: node.advertised })
        };
        let balancers: Vec<ZoneEntry> =
            self.of_tier(Tier::LoadBalancer).filter_map(entry).collect();
        let wanted: BTreeSet<InstanceId> = balancers.iter().map(|entry| entry.instance).collect();
        let is_served = self.view.dns.known() == Some(&wanted);
        // An empty zone helps nobody: the last names stay.
        if balancers.is_empty() || is_served || self.waits_for_a_named_one(&wanted) {
            return;
        }
        self.actions.push(Action::Names { balancers });
    }

    /// A new manager does not take a name away because its balancer has not answered yet.
    fn waits_for_a_named_one(&self, wanted: &BTreeSet<InstanceId>) -> bool {
        let Some(served) = self.view.dns.known() else {
            return false;
        };
        self.memory.rounds <= self.view.timing.adoption_rounds
            && wanted.is_subset(served)
            && self.of_tier(Tier::LoadBalancer).any(|one| {
                served.contains(&one.instance)
                    && one.machine_state == MachineState::Running
                    && one.heard().is_none()
            })
    }

    /// Who still needs a balancer. A proxy that boots has had no calls; one that is silent may have.
    pub(super) fn need_of(&self, balancer: InstanceId) -> Need {
        let proxies = self.of_tier(Tier::Proxy).filter(|one| {
            let state = self.state(one.instance);
            let is_gone =
                matches!(state, None | Some(InstanceState::Terminated | InstanceState::Failed));
            let is_unborn = one.last.is_none() && one.machine_state == MachineState::Booting;
            !is_gone && !is_unborn
        });
        let said = proxies.map(|one| (one.instance, one.node.known()));
        retirement::need(balancer, said, self.view.now_ms)
    }

    /// Whether the DNS leads nobody new to this balancer.
    pub(super) fn names_are_without(&self, balancer: InstanceId) -> bool {
        match self.view.dns {
            Observation::Known(served) => !served.contains(&balancer),
            Observation::Absent => true,
            Observation::Unknown => false,
        }
    }
}
