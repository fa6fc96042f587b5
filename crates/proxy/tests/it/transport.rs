//! How messages leave a proxy: by which transport, and from which address.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use store::Binding;

use super::phone::Phone;
use super::{direct_binding, start_with};

/// bob, who has registered through the balancer at `balancer`.
pub(crate) fn binding_through(balancer: SocketAddr) -> Binding {
    Binding {
        contact: b"sip:bob@192.0.2.7".to_vec(),
        path: vec![format!("<sip:token@{balancer};lr;ob>").into_bytes()],
        direct: false,
        ..direct_binding(balancer)
    }
}

/// A balancer tells members by their address, and that must hold for streams too.
#[test]
fn a_long_request_goes_to_the_balancer_by_a_stream_from_the_workers_own_address() {
    let balancer = TcpListener::bind("127.31.6.9:5060").expect("a free address");
    let bob = binding_through(balancer.local_addr().expect("bound"));
    let (proxy, address) = start_with("127.31.6.1", bob, |_| {});
    let mut caller = Phone::at("127.31.6.3:5060");

    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    let long = format!("{credentials}\r\nSubject: {}", "x".repeat(1_400));
    caller.send(address, &caller.invite(2, Some(&long)));

    let (mut stream, from) = balancer.accept().expect("a connection");
    let mut start = [0; 6];
    stream.read_exact(&mut start).expect("a request");
    assert_eq!((from.ip(), &start), (address.ip(), b"INVITE"));
    proxy.stop();
}

/// A caller that found the service by its name may look for it by that name again. The callee may have
/// registered at an address and know no name: it is shown the address.
#[test]
fn the_service_is_named_to_the_caller_alone_and_only_if_its_route_did() {
    let name = "sip.example.com";
    let table = [
        ("Subject: x", vec!["127.31.9.1:5060"]),
        ("Route: <sip:sip.example.com;lr>", vec!["127.31.9.1:5060", name]),
        ("Route: <sip:127.31.9.1:5060;lr>", vec!["127.31.9.1:5060"]),
    ];
    let mut callee = Phone::at("127.31.9.2:5060");
    let bob = direct_binding(callee.address());
    let (proxy, address) =
        start_with("127.31.9.1", bob, |it| it.service_names = vec![name.to_owned()]);
    for (place, (field, expected)) in table.into_iter().enumerate() {
        let mut caller = Phone::at(&format!("127.31.9.{}:5060", 3 + place));
        caller.send(address, &caller.invite(1, Some(field)));
        let challenge = caller.expect("407");
        caller.send(address, &caller.ack(1, &challenge, None));
        let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
        caller.send(address, &caller.invite(2, Some(&format!("{credentials}\r\n{field}"))));
        let invite = callee.expect("INVITE");
        callee.answer(&invite, "486 Busy Here");
        let hosts: Vec<&str> = invite
            .lines()
            .filter(|line| line.starts_with("Record-Route"))
            .filter_map(|line| line.split(['@', ';']).nth(1))
            .collect();
        assert_eq!(hosts, expected, "{field}");
    }
    proxy.stop();
}
