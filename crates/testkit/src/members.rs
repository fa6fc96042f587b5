//! A small fleet: instances at documentation addresses, keys that are no secret.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fleet::{
    BalancerMember, FleetKey, FleetKeys, GenerationNumber, Incarnation, InstanceId, Member,
    Members, Membership, ROWS_DEFAULT, WEIGHT_NORMAL,
};

/// When every instance of the small fleet was started.
const STARTED: Incarnation = Incarnation(1_700_000_000);

fn address(network: u8, slot: u16, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, network, slot.to_be_bytes()[1])), port)
}

/// Proxies 1 to `count`, one worker each, at 10.0.20.1:5060 and up.
pub fn proxies(count: u16) -> Vec<Member> {
    let member = |slot| Member {
        instance: InstanceId::proxy(slot),
        worker: 0,
        incarnation: STARTED,
        address: address(20, slot, 5060),
        weight: WEIGHT_NORMAL,
    };
    (1..=count).map(member).collect()
}

/// Balancers 1 to `count`: 10.0.10.1:5070 and up towards proxies, 10.0.11.1:5060 towards clients.
pub fn balancers(count: u16) -> Vec<BalancerMember> {
    let member = |slot| BalancerMember {
        instance: InstanceId::balancer(slot),
        incarnation: STARTED,
        internal: address(10, slot, 5070),
        advertised: address(11, slot, 5060),
    };
    (1..=count).map(member).collect()
}

/// The first generation of a fleet of so many proxies and balancers.
pub fn membership(proxy_count: u16, balancer_count: u16) -> Membership {
    let members = Members {
        proxies: proxies(proxy_count),
        balancers: balancers(balancer_count),
        ..Members::default()
    };
    Membership::new(GenerationNumber { fence: 1, counter: 1 }, ROWS_DEFAULT, members)
}

/// Two accepted keys, of which the second signs.
pub fn keys() -> FleetKeys {
    let key = |id| FleetKey { id, secret: [id; 32] };
    FleetKeys { keys: vec![key(1), key(2)], signing: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_fleet_is_found_by_its_addresses() {
        let membership = membership(3, 2);
        assert!(membership.verify_digest());
        for member in proxies(3) {
            assert_eq!(membership.proxy_at(member.address), Some(&member));
        }
        assert!(keys().signing_key().is_some());
    }
}
