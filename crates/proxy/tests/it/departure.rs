//! A balancer dies, leaves or has left: whom it knew is still reached and still answered.

use std::net::SocketAddr;
use std::time::Duration;

use fleet::{
    BalancerMember, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
};
use node_api::wire::{LeavingBalancer, NodeStatus};
use proxy::Running;
use sip_core::flow_token::{Flow, StreamId, read_path, write_path};
use sip_core::mac::KeyRing;
use sip_core::registrar::binding_id_of_contact;
use sip_message::{Framing, Index, Transport};
use store::Binding;

use super::balancer::{flow_from, via_line};
use super::phone::Phone;
use super::transport::binding_through;
use super::{direct_binding, keys, start_with};

fn ring() -> KeyRing {
    KeyRing::new(&keys()).expect("sound keys")
}

/// The Path of a phone at `remote` that registered through `balancer`.
fn path(remote: SocketAddr, balancer: SocketAddr) -> Vec<u8> {
    let mut path = Vec::new();
    write_path(&ring(), &flow_from(remote), balancer, &mut path);
    path
}

/// Makes the proxy at `proxy` the only owner, behind these balancers.
pub(crate) fn tell(
    running: &Running,
    proxy: SocketAddr,
    balancers: &[SocketAddr],
    leaving: &[u16],
) {
    let owner = Member {
        instance: InstanceId::proxy(1),
        worker: 0,
        incarnation: Incarnation(1),
        address: proxy,
        weight: 100,
    };
    let balancer = |(slot, &address): (u16, &SocketAddr)| BalancerMember {
        instance: InstanceId::balancer(slot),
        incarnation: Incarnation(1),
        internal: address,
        advertised: address,
    };
    let members = Members {
        proxies: vec![owner],
        balancers: (1..).zip(balancers).map(balancer).collect(),
        leaving: leaving.iter().map(|slot| InstanceId::balancer(*slot)).collect(),
        ..Members::default()
    };
    let membership = Membership::new(GenerationNumber { fence: 1, counter: 1 }, 1, members);
    running.handle().put_membership(membership).expect("taken");
}

/// What `client` says, as the balancer at `balancer` hands it on.
pub(crate) fn brought(balancer: &Phone, client: &Phone, text: &str) -> String {
    let mut index = Index::new();
    let message = sip_message::parse(text.as_bytes(), &mut index, Framing::Datagram);
    let message = message.unwrap_or_else(|malformed| panic!("{}: {text}", malformed.error));
    let line = via_line(&ring(), balancer.address(), client.address(), &message);
    let line = String::from_utf8(line).expect("text");
    text.replacen("\r\n", &format!("\r\n{line}"), 1)
}

/// Waits until the proxy says of itself what `is_so` wants.
fn wait_for(proxy: &Running, what: &str, is_so: impl Fn(&NodeStatus, &str) -> bool) -> NodeStatus {
    for _ in 0..500 {
        let status = proxy.handle().status();
        if is_so(&status, &proxy.handle().metrics()) {
            return status;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("no {what}: {}", proxy.handle().metrics());
}

pub(crate) fn vias(message: &str) -> Vec<&str> {
    message.lines().filter(|line| line.starts_with("Via: ")).collect()
}

/// The binding's Path names a balancer that is gone, and the one that stays gets the call, with a
/// Path of its own for the same flow.
#[test]
fn a_phone_of_a_balancer_that_left_is_called_through_another() {
    let mut staying = Phone::at("127.31.15.9:5060");
    let mut caller = Phone::at("127.31.15.3:5060");
    let remote = "127.31.15.2:5070".parse().expect("an address");
    let path = path(remote, "127.31.15.8:5060".parse().expect("an address"));
    let binding = Binding { path: vec![path], direct: false, ..direct_binding(remote) };
    let (proxy, address) = start_with("127.31.15.1", binding, |_| {});
    tell(&proxy, address, &[staying.address()], &[]);

    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    caller.send(address, &caller.invite(2, Some(&credentials)));

    let invite = staying.expect("INVITE");
    let route = invite.lines().find_map(|line| line.strip_prefix("Route: <sip:")).expect("a route");
    let (token, host) = route.split_once('@').expect("a user part");
    assert!(host.starts_with("127.31.15.9:5060;"), "{route}");
    assert_eq!(read_path(&ring(), token.as_bytes()), Some(flow_from(remote)));
    proxy.stop();
}

/// A call that rings through the first of two balancers, at both sides, when that one dies.
struct Ringing {
    proxy: Running,
    address: SocketAddr,
    first: SocketAddr,
    second: Phone,
    caller: Phone,
    /// As the callee's balancer got it.
    invite: String,
}

impl Ringing {
    fn orphaned(net: u8) -> Self {
        let at = |host: u8| Phone::at(&format!("127.31.{net}.{host}:5060"));
        let (mut first, second, caller) = (at(8), at(9), at(3));
        let remote = at(2).address();
        let direct = direct_binding(remote);
        let binding = Binding {
            id: binding_id_of_contact(&direct.contact).expect("a SIP URI"),
            direct: false,
            path: vec![path(remote, first.address())],
            ..direct
        };
        let (proxy, address) = start_with(&format!("127.31.{net}.1"), binding, |_| {});
        tell(&proxy, address, &[first.address(), second.address()], &[]);
        first.send(address, &brought(&first, &caller, &caller.invite(1, None)));
        let challenge = first.expect("407");
        first.send(address, &brought(&first, &caller, &caller.ack(1, &challenge, None)));
        let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
        first.send(address, &brought(&first, &caller, &caller.invite(2, Some(&credentials))));
        let invite = first.expect("INVITE");
        first.answer(&invite, "180 Ringing");
        first.expect("180");
        let gone = first.address();
        drop(first);
        wait_for(&proxy, "dead balancer", |_, metrics| {
            metrics.contains("sipcloud_proxy_balancers_unwell{worker=\"0\"} 1\n")
        });
        Self { proxy, address, first: gone, second, caller, invite }
    }
}

/// Goal: the answer comes through the other balancer under the Via of the dead one, and leads ACK and
/// BYE to the living one; the ACK reaches the callee.
#[test]
fn a_call_is_answered_through_another_balancer() {
    let Ringing { proxy, address, first, mut second, caller, invite } = Ringing::orphaned(12);
    second.answer_to(address, &invite, "200 OK");
    let answered = second.expect("200");
    assert!(vias(&answered)[0].contains(&first.to_string()), "as it was written: {answered}");
    let routes: Vec<&str> =
        answered.lines().filter(|line| line.starts_with("Record-Route: ")).collect();
    assert!(!routes.is_empty(), "{answered}");
    for route in routes {
        assert!(route.contains(&format!("@{};", second.address())), "{route}");
    }
    let ack = caller.ack(2, &answered, Some(&answered));
    second.send(address, &brought(&second, &caller, &ack));
    let ack = second.expect("ACK");
    assert!(ack.contains(&format!("@{first};lr;ob>")), "the Path is left as it is: {ack}");
    let metrics = proxy.handle().metrics();
    assert!(metrics.contains("messages_detoured_total{worker=\"0\"} 2\n"), "{metrics}");
    proxy.stop();
}

/// The CANCEL follows its INVITE, whichever balancer is there to carry it, and so do the refusal and
/// its ACK.
#[test]
fn a_call_is_cancelled_through_another_balancer() {
    let Ringing { proxy, address, mut second, caller, invite, .. } = Ringing::orphaned(13);
    second.send(address, &brought(&second, &caller, &caller.cancel(2)));
    let cancel = second.expect("CANCEL");
    assert_eq!(vias(&cancel)[0], vias(&invite)[0], "the branch of the INVITE");
    second.answer(&cancel, "200 OK");
    second.answer(&invite, "487 Request Terminated");
    assert_eq!(vias(&second.expect("ACK"))[0], vias(&invite)[0]);
    proxy.stop();
}

fn bob_at(address: &str) -> Phone {
    let mut bob = Phone::at(address);
    bob.be("bob", super::PASSWORD);
    bob
}

/// A connection from `remote` to a balancer in one of its lives.
fn stream_from(remote: SocketAddr, incarnation: u32) -> Flow {
    let connection = Some(StreamId { number: 7, incarnation });
    Flow { transport: Transport::Tcp, connection, ..flow_from(remote) }
}

/// The phone registers over this flow of `balancer`.
fn register(phone: &Phone, flow: &Flow, balancer: &mut Phone, proxy: SocketAddr) {
    let mut path = b"SIP/2.0\r\nPath: ".to_vec();
    write_path(&ring(), flow, balancer.address(), &mut path);
    let path = String::from_utf8(path).expect("text");
    let send = |balancer: &Phone, cseq, credentials: Option<&str>| {
        let text = brought(balancer, phone, &phone.register(cseq, credentials));
        balancer.send(proxy, &text.replacen("SIP/2.0", &path, 1));
    };
    send(balancer, 1, None);
    let challenge = balancer.expect("401");
    let credentials = phone.credentials(&challenge, "REGISTER", "sip:example.com");
    send(balancer, 2, Some(&credentials));
    balancer.expect("200");
}

/// The flow and the balancer of the topmost Route.
fn route_of(message: &str) -> (Option<Flow>, SocketAddr) {
    let route = message.lines().find_map(|line| line.strip_prefix("Route: <sip:"));
    let (token, host) = route.and_then(|it| it.split_once('@')).expect("a route with a user");
    let balancer = host.split(';').next().and_then(|it| it.parse().ok()).expect("an address");
    (read_path(&ring(), token.as_bytes()), balancer)
}

/// Goal: a phone that answers when the connection of its INVITE has ended gets the ACK over the one
/// through which it has registered since; nobody would tell the proxy that the first is gone.
#[test]
fn the_ack_reaches_a_phone_that_has_another_connection_by_now() {
    let at = |host: u8| Phone::at(&format!("127.31.17.{host}:5060"));
    let (mut first, mut second, caller) = (at(8), at(9), at(3));
    let bob = bob_at("127.31.17.2:5060");
    let mut gone = Vec::new();
    write_path(&ring(), &stream_from(bob.address(), 66), first.address(), &mut gone);
    let direct = direct_binding(bob.address());
    let id = binding_id_of_contact(&direct.contact).expect("a SIP URI");
    let binding = Binding { id, direct: false, path: vec![gone], ..direct };
    let (proxy, address) = start_with("127.31.17.1", binding, |_| {});
    tell(&proxy, address, &[first.address(), second.address()], &[]);
    second.send(address, &brought(&second, &caller, &caller.invite(1, None)));
    let challenge = second.expect("407");
    second.send(address, &brought(&second, &caller, &caller.ack(1, &challenge, None)));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    second.send(address, &brought(&second, &caller, &caller.invite(2, Some(&credentials))));
    let invite = first.expect("INVITE");
    first.answer(&invite, "200 OK");
    let answered = second.expect("200");

    let present = stream_from(bob.address(), 67);
    register(&bob, &present, &mut second, address);
    let ack = caller.ack(2, &answered, Some(&answered));
    second.send(address, &brought(&second, &caller, &ack));
    assert_eq!(route_of(&second.expect("ACK")), (Some(present), second.address()));
    proxy.stop();
}

/// Goal: the connection of a ringing phone has ended with its balancer, and the CANCEL is refused with
/// 430. It reaches the phone over the connection through which it registers next, in the name of the
/// dead balancer, of whose transaction it is.
#[test]
fn a_cancel_follows_its_phone_to_the_connection_that_it_has_now() {
    let Ringing { proxy, address, first, mut second, caller, invite } = Ringing::orphaned(16);
    second.send(address, &brought(&second, &caller, &caller.cancel(2)));
    let cancel = second.expect("CANCEL");
    second.answer(&cancel, "430 Flow Failed");

    let bob = bob_at("127.31.16.2:5060");
    let flow = stream_from(bob.address(), 77);
    register(&bob, &flow, &mut second, address);

    let again = second.expect("CANCEL");
    assert_eq!(vias(&again)[0], vias(&invite)[0], "the branch of the INVITE");
    assert_eq!(route_of(&again), (Some(flow), first));
    second.answer(&again, "200 OK");
    // Its refusal went over the connection that is gone.
    let ended = second.expect("SIP/2.0 487");
    assert!(ended.contains(&caller.address().to_string()), "{ended}");
    proxy.stop();
}

/// Goal: who registers through a balancer on its way out comes back soon; the proxy tells the manager
/// what still names that balancer, and for how long.
#[test]
fn bindings_through_a_leaving_balancer_are_short_and_told() {
    let balancers = [Phone::at("127.31.24.8:5060"), Phone::at("127.31.24.9:5060")];
    let phone = Phone::at("127.31.24.3:5060");
    let binding = binding_through(balancers[0].address());
    let (proxy, address) = start_with("127.31.24.1", binding, |_| {});
    let addresses = [balancers[0].address(), balancers[1].address()];
    tell(&proxy, address, &addresses, &[2]);
    let instance = InstanceId::balancer(2);
    let unused = [LeavingBalancer { instance, transactions: 0, bindings_until_ms: Some(0) }];
    wait_for(&proxy, "first count", |status, _| status.balancers_leaving == unused);

    let mut cseq = 0;
    for (mut balancer, granted) in balancers.into_iter().zip([3_600_u64, 60]) {
        balancer.send(address, &brought(&balancer, &phone, &phone.register(cseq + 1, None)));
        let challenge = balancer.expect("401");
        let credentials = phone.credentials(&challenge, "REGISTER", "sip:example.com");
        cseq += 2;
        let again = phone.register(cseq, Some(&credentials));
        balancer.send(address, &brought(&balancer, &phone, &again));
        let bound = balancer.expect("200");
        assert!(bound.contains(&format!(";expires={granted}\r\n")), "{bound}");
    }
    let now_ms = sip_net::clock::unix_millis();
    let status = wait_for(&proxy, "a binding", |status, _| {
        status.balancers_leaving.iter().any(|one| one.transactions > 0)
    });
    let [told] = status.balancers_leaving.as_slice() else { panic!("{status:?}") };
    let until = told.bindings_until_ms.expect("known");
    assert!((now_ms + 50_000..now_ms + 130_000).contains(&until), "{until} after {now_ms}");
    proxy.stop();
}
