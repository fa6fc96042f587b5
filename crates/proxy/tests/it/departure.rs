//! A balancer has left the fleet: whom it knew is still reached.

use fleet::{
    BalancerMember, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
};
use sip_core::flow_token::{Flow, read_path, write_path};
use sip_core::mac::KeyRing;
use sip_message::Transport;
use store::Binding;

use super::phone::Phone;
use super::{direct_binding, keys, start_with};

/// The binding's Path names a balancer that is gone, and the one that stays gets the call, with a
/// Path of its own for the same flow.
#[test]
fn a_phone_of_a_balancer_that_left_is_called_through_another() {
    let mut staying = Phone::at("127.31.10.9:5060");
    let mut caller = Phone::at("127.31.10.3:5060");
    let ring = KeyRing::new(&keys()).expect("sound keys");
    let remote = "127.31.10.2:5070".parse().expect("an address");
    let flow = Flow { listener: 0, transport: Transport::Udp, remote, connection: None };
    let mut path = Vec::new();
    write_path(&ring, &flow, "127.31.10.8:5060".parse().expect("an address"), &mut path);
    let binding = Binding { path: vec![path], direct: false, ..direct_binding(remote) };
    let (proxy, address) = start_with("127.31.10.1", binding, |_| {});
    let owner = Member {
        instance: InstanceId::proxy(1),
        worker: 0,
        incarnation: Incarnation(1),
        address,
        weight: 100,
    };
    let balancer = BalancerMember {
        instance: InstanceId::balancer(2),
        incarnation: Incarnation(1),
        internal: staying.address(),
        advertised: staying.address(),
    };
    let members = Members { proxies: vec![owner], balancers: vec![balancer], ..Members::default() };
    let membership = Membership::new(GenerationNumber { fence: 1, counter: 1 }, 1, members);
    proxy.handle().put_membership(membership).expect("taken");

    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    caller.send(address, &caller.invite(2, Some(&credentials)));

    let invite = staying.expect("INVITE");
    let route = invite.lines().find_map(|line| line.strip_prefix("Route: <sip:")).expect("a route");
    let (token, host) = route.split_once('@').expect("a user part");
    assert!(host.starts_with("127.31.10.9:5060;"), "{route}");
    assert_eq!(read_path(&ring, token.as_bytes()), Some(flow));
    proxy.stop();
}
