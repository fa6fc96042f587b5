//! Which instance goes first, and when it may go.

use std::time::Duration;

use fleet::{InstanceId, Observation, Tier};

use crate::plan::Cause;
use crate::view::{NodeView, Observed, Retiring, Timing};

/// Which of the instances in service goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The highest slot: the tier keeps its low addresses.
    #[default]
    HighestSlot,
    /// The one with the least load, of equal ones the highest slot.
    LeastLoaded,
}

/// The instance to retire among `candidates`; the same ones give the same one.
pub(crate) fn choose(order: Order, candidates: &[&Observed]) -> Option<InstanceId> {
    let slot = |one: &&&Observed| one.instance.slot;
    let load = |one: &&&Observed| one.last.as_ref().map_or(0, |last| last.load.millicps());
    let chosen = match order {
        Order::HighestSlot => candidates.iter().max_by_key(slot),
        Order::LeastLoaded => {
            candidates.iter().min_by_key(|one| (load(one), std::cmp::Reverse(slot(one))))
        }
    };
    chosen.map(|one| one.instance)
}

/// What an instance on its way out waits for, or why it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It is still in some balancer's table, or in the DNS.
    Withdrawing(&'static str),
    /// It is to be told.
    Drain,
    Waiting(String),
    Go(Cause),
}

/// What comes next for a retiring instance.
pub(crate) fn farewell(
    observed: &Observed,
    retiring: &Retiring,
    timing: &Timing,
    now_ms: u64,
) -> Farewell {
    let tier = observed.instance.tier;
    let limit = match tier {
        Tier::LoadBalancer => timing.balancer_drain_limit,
        Tier::Proxy | Tier::Store => timing.proxy_drain_limit,
    };
    // A proxy's counts from its withdrawal: what began before has its full time.
    let begin_ms = match tier {
        Tier::LoadBalancer => retiring.since_ms,
        Tier::Proxy | Tier::Store => retiring.withdrawn_at_ms.unwrap_or(retiring.since_ms),
    };
    if since(begin_ms, now_ms) > limit {
        let transactions = observed.node.known().map(|node| node.server_transactions);
        return Farewell::Go(Cause::DrainLimit { transactions });
    }
    let Some(withdrawn_at_ms) = retiring.withdrawn_at_ms else {
        return Farewell::Withdrawing(match tier {
            Tier::LoadBalancer => "waits to be taken out of the DNS",
            Tier::Proxy | Tier::Store => "waits for the balancers to acknowledge",
        });
    };
    let waited = since(withdrawn_at_ms, now_ms);
    if tier == Tier::LoadBalancer && waited < timing.dns_ttl {
        let left = (timing.dns_ttl - waited).as_secs();
        return Farewell::Waiting(format!("waits {left} s for DNS answers to expire"));
    }
    let Observation::Known(node) = &observed.node else {
        return Farewell::Waiting("does not answer".to_owned());
    };
    if !node.is_draining {
        return Farewell::Drain;
    }
    // What this round saw may be older than the withdrawal: what was in flight then shows in the
    // next round.
    if waited.is_zero() {
        return Farewell::Waiting("waits for another poll".to_owned());
    }
    match tier {
        Tier::LoadBalancer => balancer_empty(node, timing, now_ms),
        Tier::Proxy | Tier::Store => proxy_empty(node, retiring, now_ms),
    }
}

/// Requests still pass a proxy that earlier sets of owners name.
fn proxy_empty(node: &NodeView, retiring: &Retiring, now_ms: u64) -> Farewell {
    match (node.server_transactions, retiring.released_at_ms) {
        (0, None) => Farewell::Waiting("waits until nobody asks it as an earlier owner".to_owned()),
        (0, Some(at_ms)) if since(at_ms, now_ms).is_zero() => {
            Farewell::Waiting("waits for another poll".to_owned())
        }
        (0, Some(_)) => Farewell::Go(Cause::Empty),
        (count, _) => Farewell::Waiting(format!("waits for {count} transactions")),
    }
}

fn balancer_empty(node: &NodeView, timing: &Timing, now_ms: u64) -> Farewell {
    if node.streams_open > 0 {
        return Farewell::Waiting(format!("waits for {} streams", node.streams_open));
    }
    let quiet = since(node.last_sip_activity_ms, now_ms);
    if quiet < timing.balancer_quiet {
        return Farewell::Waiting(format!("carried SIP {} s ago", quiet.as_secs()));
    }
    Farewell::Go(Cause::Empty)
}

pub(crate) const fn since(then_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(then_ms))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use fleet::{CallRate, Incarnation};

    use super::*;
    use crate::view::{MachineState, RetiringCause};

    fn node() -> NodeView {
        let address = SocketAddr::from(([127, 0, 20, 1], 5060));
        NodeView {
            incarnation: Incarnation(1),
            is_ready: false,
            is_draining: true,
            internal: address,
            advertised: address,
            workers: vec![(0, address)],
            generation: None,
            server_transactions: 0,
            oldest_stamp: None,
            streams_open: 0,
            last_sip_activity_ms: 0,
            load: CallRate::ZERO,
        }
    }

    fn observed(instance: InstanceId, node: NodeView) -> Observed {
        Observed {
            instance,
            machine: "m".to_owned(),
            machine_state: MachineState::Running,
            created_at_ms: 0,
            node: Observation::Known(node.clone()),
            last: Some(node),
            misses: 0,
        }
    }

    #[test]
    fn the_choice_is_the_same_every_time() {
        let with = |slot, cps| {
            observed(InstanceId::proxy(slot), NodeView { load: CallRate::from_cps(cps), ..node() })
        };
        let all = [with(1, 30), with(2, 20), with(3, 20), with(4, 50)];
        let candidates: Vec<&Observed> = all.iter().collect();
        assert_eq!(choose(Order::HighestSlot, &candidates), Some(InstanceId::proxy(4)));
        assert_eq!(choose(Order::LeastLoaded, &candidates), Some(InstanceId::proxy(3)));
        assert_eq!(choose(Order::HighestSlot, &[]), None);
    }

    /// A proxy and a balancer 100 s into their farewell, in every state that matters.
    #[test]
    fn an_instance_goes_when_it_is_empty_or_its_time_is_up() {
        let timing = Timing::default();
        let now_ms = 10_000_000;
        let at = |seconds_ago: u64| now_ms - seconds_ago * 1_000;
        let leaving = |since: u64, withdrawn: Option<u64>| Retiring {
            cause: RetiringCause::Scaling,
            since_ms: at(since),
            withdrawn_at_ms: withdrawn.map(at),
            released_at_ms: withdrawn.map(at),
        };
        let (proxy, balancer) = (InstanceId::proxy(1), InstanceId::balancer(2));
        let busy = NodeView { server_transactions: 3, ..node() };
        let told = |node: NodeView| NodeView { is_draining: false, ..node };
        let named = |retiring: Retiring| Retiring { released_at_ms: None, ..retiring };
        let active = |ago| NodeView { last_sip_activity_ms: at(ago), ..node() };
        let wait = |text: &str| Farewell::Waiting(text.to_owned());
        #[rustfmt::skip]
        let table = [
            ("not acknowledged",      proxy, node(),       leaving(9, None),         Farewell::Withdrawing("waits for the balancers to acknowledge")),
            ("to be told",            proxy, told(node()), leaving(9, Some(5)),      Farewell::Drain),
            ("acknowledged just now", proxy, node(),       leaving(9, Some(0)),      wait("waits for another poll")),
            ("busy",                  proxy, busy.clone(), leaving(9, Some(5)),      wait("waits for 3 transactions")),
            ("empty",                 proxy, node(),       leaving(9, Some(5)),      Farewell::Go(Cause::Empty)),
            ("asked as an earlier owner", proxy, node(), named(leaving(9, Some(5))), wait("waits until nobody asks it as an earlier owner")),
            ("no longer asked just now", proxy, node(), Retiring { released_at_ms: Some(now_ms), ..leaving(9, Some(5)) }, wait("waits for another poll")),
            ("late to be withdrawn",  proxy, busy.clone(), leaving(300, Some(5)),    wait("waits for 3 transactions")),
            ("out of time",           proxy, busy.clone(), leaving(300, Some(213)),  Farewell::Go(Cause::DrainLimit { transactions: Some(3) })),
            ("never withdrawn",       proxy, busy,         leaving(213, None),       Farewell::Go(Cause::DrainLimit { transactions: Some(3) })),
            ("in the DNS",            balancer, active(0), leaving(9, None),         Farewell::Withdrawing("waits to be taken out of the DNS")),
            ("TTL running",           balancer, active(0), leaving(20, Some(10)),    wait("waits 20 s for DNS answers to expire")),
            ("active",                balancer, active(4), leaving(90, Some(80)),    wait("carried SIP 4 s ago")),
            ("streams",               balancer, NodeView { streams_open: 2, ..node() }, leaving(90, Some(80)), wait("waits for 2 streams")),
            ("quiet",                 balancer, active(33), leaving(90, Some(80)),   Farewell::Go(Cause::Empty)),
        ];
        for (name, instance, node, retiring, expected) in table {
            let found = farewell(&observed(instance, node), &retiring, &timing, now_ms);
            assert_eq!(found, expected, "{name}");
        }
    }
}
