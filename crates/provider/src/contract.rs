//! Behaviour that every driver owes the manager. Drivers call these from their own tests.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fleet::InstanceId;

use crate::compute::{ComputeProvider, MachineFile, MachineRequest, MachineState};
use crate::dns::{DnsProvider, DnsTarget, Zone};
use crate::error::ProviderError;

fn request(instance: InstanceId, token: &str) -> MachineRequest {
    let file = MachineFile { name: "node.json".to_owned(), content: b"{}".to_vec() };
    MachineRequest { instance, token: token.to_owned(), files: vec![file], arguments: Vec::new() }
}

/// What a [`ComputeProvider`] promises, on an empty fleet. Uses `proxy-1` and `balancer-1`.
///
/// # Panics
///
/// If it breaks a promise.
pub async fn compute(provider: &dyn ComputeProvider) {
    let (proxy, balancer) = (InstanceId::proxy(1), InstanceId::balancer(1));
    assert!(provider.list().await.expect("list").is_empty(), "the suite needs an empty fleet");

    let first = provider.create(&request(proxy, "contract-1")).await.expect("create");
    let again = provider.create(&request(proxy, "contract-1")).await.expect("create again");
    assert_eq!(first, again, "one token, one machine");
    let other = provider.create(&request(proxy, "contract-2")).await;
    assert_eq!(other, Err(ProviderError::SlotTaken { instance: proxy }), "one slot, one machine");

    let second = provider.create(&request(balancer, "contract-3")).await.expect("another slot");
    assert_ne!(first, second, "two slots, two machines");

    let listed = provider.list().await.expect("list");
    assert_eq!(listed.len(), 2, "what was accepted is listed, once: {listed:?}");
    let found = listed.iter().find(|machine| machine.id == first).expect("the first one");
    assert_eq!(found.instance, proxy);
    assert_eq!(Ok(found.addresses), provider.addresses(proxy), "a slot is an address");
    assert!(matches!(
        found.state,
        MachineState::Booting | MachineState::Running | MachineState::Dead
    ));

    provider.terminate(&first).await.expect("terminate");
    provider.terminate(&first).await.expect("terminating twice is a success");
    let left = provider.list().await.expect("list");
    assert!(left.iter().all(|machine| machine.id != first), "what was terminated is gone");
    assert_eq!(left.len(), 1, "nothing else is gone");

    let next = provider.create(&request(proxy, "contract-4")).await.expect("a free slot is reused");
    for id in [next, second] {
        provider.terminate(&id).await.expect("terminate");
    }
    assert!(provider.list().await.expect("list").is_empty(), "nothing is left behind");
    assert!(provider.addresses(InstanceId::proxy(0)).is_err(), "slots count from 1");
}

/// What a [`DnsProvider`] promises, before anything was published.
///
/// # Panics
///
/// If it breaks a promise.
pub async fn dns(provider: &dyn DnsProvider) {
    assert_eq!(provider.published().await.expect("published"), None, "the suite needs a new one");
    let target = |last| DnsTarget {
        name: format!("balancer-{last}"),
        address: IpAddr::from(Ipv4Addr::new(192, 0, 2, last)),
        port: 5060,
        priority: 10,
        weight: 100,
    };
    let mut zone = Zone {
        service_names: vec!["sip.example.net".to_owned()],
        balancers: vec![target(1), target(2)],
        ttl: Duration::from_secs(30),
    };
    provider.publish(&zone).await.expect("publish");
    provider.publish(&zone).await.expect("publishing twice is a success");
    assert_eq!(provider.published().await.expect("published"), Some(zone.clone()));

    zone.balancers.truncate(1);
    provider.publish(&zone).await.expect("publish less");
    assert_eq!(provider.published().await.expect("published"), Some(zone), "replaced, not merged");
}
