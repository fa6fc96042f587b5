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

/// Who still needs a balancer, by the word of all proxies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// This proxy has not said.
    Unknown(InstanceId),
    Transactions(u64),
    /// A phone may still be registered through it.
    Bindings {
        until_ms: u64,
    },
    Nobody,
}

/// What `proxies`, each with what it says now, need of `balancer`. Silence is no emptiness.
pub(crate) fn need<'a>(
    balancer: InstanceId,
    proxies: impl Iterator<Item = (InstanceId, Option<&'a NodeView>)>,
    now_ms: u64,
) -> Need {
    let (mut transactions, mut until_ms) = (0, 0);
    for (proxy, node) in proxies {
        let leaving = node.and_then(|node| {
            node.balancers_leaving.iter().find(|leaving| leaving.instance == balancer)
        });
        let Some(leaving) = leaving else { return Need::Unknown(proxy) };
        let Some(bindings) = leaving.bindings_until_ms else { return Need::Unknown(proxy) };
        transactions += leaving.transactions;
        until_ms = bindings.max(until_ms);
    }
    match transactions {
        0 if until_ms > now_ms => Need::Bindings { until_ms },
        0 => Need::Nobody,
        count => Need::Transactions(count),
    }
}

/// What comes next for a retiring instance; `need` matters for a balancer alone.
pub(crate) fn farewell(
    observed: &Observed,
    retiring: &Retiring,
    need: Need,
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
        Tier::LoadBalancer => balancer_empty(node, need, now_ms),
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

fn balancer_empty(node: &NodeView, need: Need, now_ms: u64) -> Farewell {
    match need {
        Need::Unknown(proxy) => Farewell::Waiting(format!("waits for the word of {proxy}")),
        Need::Transactions(count) => Farewell::Waiting(format!("waits for {count} transactions")),
        Need::Bindings { until_ms } => {
            let left = since(now_ms, until_ms).as_secs();
            Farewell::Waiting(format!("waits up to {left} s for its phones to register elsewhere"))
        }
        Need::Nobody if node.streams_open > 0 => {
            Farewell::Waiting(format!("waits for {} streams", node.streams_open))
        }
        Need::Nobody => Farewell::Go(Cause::Empty),
    }
}

pub(crate) const fn since(then_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(then_ms))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use fleet::{CallRate, Incarnation};

    use super::*;
    use crate::view::{LeavingBalancer, MachineState, RetiringCause};

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
            balancers_leaving: Vec::new(),
            doubts: Vec::new(),
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
        let wait = |text: &str| Farewell::Waiting(text.to_owned());
        #[rustfmt::skip]
        let table = [
            ("not acknowledged",      proxy, node(),       leaving(9, None),         Need::Nobody, Farewell::Withdrawing("waits for the balancers to acknowledge")),
            ("to be told",            proxy, told(node()), leaving(9, Some(5)),      Need::Nobody, Farewell::Drain),
            ("acknowledged just now", proxy, node(),       leaving(9, Some(0)),      Need::Nobody, wait("waits for another poll")),
            ("busy",                  proxy, busy.clone(), leaving(9, Some(5)),      Need::Nobody, wait("waits for 3 transactions")),
            ("empty",                 proxy, node(),       leaving(9, Some(5)),      Need::Nobody, Farewell::Go(Cause::Empty)),
            ("asked as an earlier owner", proxy, node(), named(leaving(9, Some(5))), Need::Nobody, wait("waits until nobody asks it as an earlier owner")),
            ("no longer asked just now", proxy, node(), Retiring { released_at_ms: Some(now_ms), ..leaving(9, Some(5)) }, Need::Nobody, wait("waits for another poll")),
            ("late to be withdrawn",  proxy, busy.clone(), leaving(300, Some(5)),    Need::Nobody, wait("waits for 3 transactions")),
            ("out of time",           proxy, busy.clone(), leaving(300, Some(213)),  Need::Nobody, Farewell::Go(Cause::DrainLimit { transactions: Some(3) })),
            ("never withdrawn",       proxy, busy,         leaving(213, None),       Need::Nobody, Farewell::Go(Cause::DrainLimit { transactions: Some(3) })),
            ("in the DNS",            balancer, node(), leaving(9, None),            Need::Nobody, Farewell::Withdrawing("waits to be taken out of the DNS")),
            ("TTL running",           balancer, node(), leaving(20, Some(10)),       Need::Nobody, wait("waits 20 s for DNS answers to expire")),
            ("a silent proxy",        balancer, node(), leaving(90, Some(80)),       Need::Unknown(proxy), wait("waits for the word of proxy-1")),
            ("transactions",          balancer, node(), leaving(90, Some(80)),       Need::Transactions(4), wait("waits for 4 transactions")),
            ("bindings",              balancer, node(), leaving(90, Some(80)),       Need::Bindings { until_ms: now_ms + 9_000 }, wait("waits up to 9 s for its phones to register elsewhere")),
            ("streams",               balancer, NodeView { streams_open: 2, ..node() }, leaving(90, Some(80)), Need::Nobody, wait("waits for 2 streams")),
            ("needed by nobody",      balancer, node(), leaving(90, Some(80)),       Need::Nobody, Farewell::Go(Cause::Empty)),
            ("its time is up",        balancer, node(), leaving(3_601, Some(80)),    Need::Transactions(4), Farewell::Go(Cause::DrainLimit { transactions: Some(0) })),
        ];
        for (name, instance, node, retiring, need, expected) in table {
            let found = farewell(&observed(instance, node), &retiring, need, &timing, now_ms);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_balancer_is_needed_until_every_proxy_says_otherwise() {
        let balancer = InstanceId::balancer(2);
        let says = |transactions, bindings_until_ms| NodeView {
            balancers_leaving: vec![LeavingBalancer {
                instance: balancer,
                transactions,
                bindings_until_ms,
            }],
            ..node()
        };
        let now_ms = 5_000;
        let free = says(0, Some(now_ms));
        let table = [
            ("nobody", vec![Some(free.clone()), Some(says(0, Some(0)))], Need::Nobody),
            ("no proxies", vec![], Need::Nobody),
            ("silent", vec![Some(free.clone()), None], Need::Unknown(InstanceId::proxy(2))),
            ("not told yet", vec![Some(node())], Need::Unknown(InstanceId::proxy(1))),
            ("not asked yet", vec![Some(says(0, None))], Need::Unknown(InstanceId::proxy(1))),
            (
                "both",
                vec![Some(says(2, Some(9_000))), Some(says(1, Some(0)))],
                Need::Transactions(3),
            ),
            (
                "a binding",
                vec![Some(free), Some(says(0, Some(9_000)))],
                Need::Bindings { until_ms: 9_000 },
            ),
        ];
        for (name, nodes, expected) in table {
            let proxies = nodes.iter().zip(1..);
            let proxies = proxies.map(|(node, slot)| (InstanceId::proxy(slot), node.as_ref()));
            assert_eq!(need(balancer, proxies, now_ms), expected, "{name}");
        }
    }
}
