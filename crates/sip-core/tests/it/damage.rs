//! Nothing that a peer can send makes a room panic.

use sip_message::{Framing, OwnedMessage};
use testkit::Random;

use crate::world::{World, udp};

/// Requests with everything that the rooms look at.
const SOUND: [&[&str]; 3] = [
    &[
        "INVITE sip:bob@example.com;maddr=10.0.10.1;transport=udp SIP/2.0",
        "Route: <sip:10.0.11.1;lr>, <sip:edge.example.net;lr>",
        "Proxy-Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"AgGLz\", \
         uri=\"sip:bob@example.com\", response=\"0\", qop=auth, nc=00000001, cnonce=\"c\"",
        "Max-Breadth: 3",
        "Proxy-Require: path",
    ],
    &[
        "REGISTER sip:example.com SIP/2.0",
        "To: <sip:alice@example.com>",
        "Authorization: Digest username=\"alice@example.com\", realm=\"example.com\", nonce=\"x\", \
         uri=\"sip:example.com\", response=\"0\", algorithm=MD5",
        "Contact: <sip:a@192.0.2.1>;q=0.5;expires=600;+sip.instance=\"<urn:uuid:1>\";reg-id=1, \
         <sip:b@192.0.2.1>",
        "Path: <sip:x@10.0.10.1;lr>",
        "Supported: outbound",
        "Expires: 60",
    ],
    &[
        "BYE sip:token@10.0.11.1;lr SIP/2.0",
        "To: <sip:bob@example.com>;tag=b",
        "Route: <sip:bob@192.0.2.1>",
        "X-SipCloud-Walk: 1",
    ],
];

/// Damages sound requests octet by octet; whatever the parser still takes walks through the rooms.
#[test]
fn damaged_requests_are_refused_or_served_and_never_fatal() {
    let mut world = World::new();
    let mut random = Random::new(0x5ca1ab1e);
    let mut served = 0;
    for round in 0..6_000_usize {
        let sound = testkit::request(&SOUND[round % SOUND.len()].join("\n"));
        let mut octets = sound.view().bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(octets.len() as u64) as usize;
            match random.below(4) {
                0 => octets[at] = random.below(256) as u8,
                1 => drop(octets.remove(at)),
                2 => octets.insert(at, *random.choose(b"<>;,\"@:%?=\r\n \0").expect("some")),
                _ => octets.truncate(octets.len() - at / 8),
            }
        }
        let parsed = OwnedMessage::parse(octets.into(), Framing::Datagram);
        let Some(message) = parsed.ok().filter(|it| it.view().is_request()) else { continue };
        served += 1;
        let (_, balanced) = world.balance(&message, &udp("192.0.2.1:5060"));
        let _ = world.serve(&balanced);
        let _ = world.register_blindly(&message);
    }
    assert!(served > 500, "only {served} were still messages");
}
