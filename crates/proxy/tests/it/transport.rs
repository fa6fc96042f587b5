//! How messages leave a proxy: by which transport, and from which address.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use store::Binding;

use super::phone::Phone;
use super::{direct_binding, start_with};

/// bob, who has registered through the balancer at `balancer`.
fn binding_through(balancer: SocketAddr) -> Binding {
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
