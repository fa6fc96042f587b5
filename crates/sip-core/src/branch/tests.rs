//! Who wrote a Via is told by its MACs; the format of both kinds is pinned.

use sip_message::{Framing, Index, parse};

use super::*;
use crate::golden::{check, earlier_ring, ring};

const CALL: ProxyBranch<'_> = ProxyBranch {
    call_id: b"a84b4c76e66710",
    from_tag: b"1928301774",
    cseq: 314_159,
    class: MethodClass::Invite,
    request_uri: b"sip:bob@example.test",
    target: b"0123456789abcdef",
    attempt: 0,
};

const RECEIVED: BalancerBranch<'_> = BalancerBranch {
    received_branch: b"z9hG4bK776asdhds",
    received_sent_by: Some(b"pc33.example.test:5062"),
    call_id: b"a84b4c76e66710",
    from_tag: b"1928301774",
    cseq: 314_159,
};

fn flow() -> Flow {
    Flow {
        listener: 1,
        transport: Transport::Udp,
        remote: "192.0.2.17:40000".parse().expect("an address"),
        connection: None,
    }
}

fn proxy_line(ring: &KeyRing, branch: &ProxyBranch<'_>, several: bool) -> String {
    let mut name = Vec::new();
    proxy_branch(ring, branch, &mut name);
    let via = ProxyVia {
        transport: Transport::Udp,
        sent_by: "127.0.20.3:5061".parse().expect("an address"),
        branch: &name,
        instance: InstanceId::proxy(3),
        incarnation: Incarnation(1_767_225_600),
        several,
    };
    let mut line = Vec::new();
    write_proxy_via(ring, &via, &mut line);
    String::from_utf8(line).expect("a Via of ours is text")
}

fn balancer_line(ring: &KeyRing, key_id: Option<u8>) -> String {
    let via = BalancerVia {
        transport: Transport::Tcp,
        sent_by: "[2001:db8::1]:5060".parse().expect("an address"),
        key_id,
        branch: RECEIVED,
        flow: &flow(),
        answered_to_source: false,
    };
    let mut line = Vec::new();
    write_balancer_via(ring, &via, &mut line);
    String::from_utf8(line).expect("a Via of ours is text")
}

/// What `ring` makes of a Via line.
fn read(ring: &KeyRing, line: &str) -> TierVia {
    let text = format!(
        "OPTIONS sip:example.test SIP/2.0\r\n{line}From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n\
         Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    let mut index = Index::new();
    let Ok(message) = parse(text.as_bytes(), &mut index, Framing::Datagram) else {
        return TierVia::Foreign;
    };
    message.top_via().map_or(TierVia::Foreign, |via| read_tier_via(ring, &via))
}

#[test]
fn vias_are_pinned() {
    let mut golden = String::new();
    golden.push_str(&proxy_line(&ring(), &CALL, false));
    golden.push_str(&proxy_line(&ring(), &CALL, true));
    let ack = ProxyBranch { class: MethodClass::AckTo2xx, ..CALL };
    golden.push_str(&proxy_line(&ring(), &ack, false));
    let bye = ProxyBranch { class: MethodClass::Other(b"BYE"), ..CALL };
    golden.push_str(&proxy_line(&ring(), &bye, false));
    golden.push_str(&proxy_line(&earlier_ring(), &CALL, false));
    golden.push_str(&balancer_line(&ring(), None));
    golden.push_str(&balancer_line(&ring(), Some(1)));
    check("branch.golden", &golden);
}

#[test]
fn a_proxys_via_tells_who_wrote_it() {
    for several in [false, true] {
        let found = read(&ring(), &proxy_line(&ring(), &CALL, several));
        let expected = ProxyIdentity {
            instance: InstanceId::proxy(3),
            incarnation: Incarnation(1_767_225_600),
            key_id: 2,
            several,
        };
        assert_eq!(found, TierVia::Proxy(expected));
    }
}

#[test]
fn a_balancers_via_tells_the_flow() {
    for key_id in [None, Some(1)] {
        let found = read(&ring(), &balancer_line(&ring(), key_id));
        assert_eq!(found, TierVia::Balancer { flow: flow() });
    }
}

#[test]
fn received_and_rport_beside_our_parameters_do_no_harm() {
    let line = balancer_line(&ring(), None).replace("\r\n", ";received=192.0.2.1;rport=9\r\n");
    assert_eq!(read(&ring(), &line), TierVia::Balancer { flow: flow() });
}

#[test]
fn any_proxy_computes_the_same_branch_and_every_field_counts() {
    let name = |branch: &ProxyBranch<'_>| {
        let mut out = Vec::new();
        proxy_branch(&ring(), branch, &mut out);
        out
    };
    assert_eq!(name(&CALL), name(&CALL));
    let others = [
        ProxyBranch { call_id: b"x", ..CALL },
        ProxyBranch { from_tag: b"x", ..CALL },
        ProxyBranch { cseq: 314_160, ..CALL },
        ProxyBranch { class: MethodClass::AckTo2xx, ..CALL },
        ProxyBranch { class: MethodClass::Other(b"BYE"), ..CALL },
        ProxyBranch { request_uri: b"sip:bob@192.0.2.4", ..CALL },
        ProxyBranch { target: b"x", ..CALL },
        ProxyBranch { attempt: 1, ..CALL },
    ];
    for other in others {
        assert_ne!(name(&CALL), name(&other), "{other:?}");
    }
}

#[test]
fn a_branch_can_be_computed_as_the_earlier_key_made_it() {
    let mut then = Vec::new();
    proxy_branch(&earlier_ring(), &CALL, &mut then);
    let mut now = Vec::new();
    assert!(proxy_branch_with(&ring(), 1, &CALL, &mut now));
    assert_eq!(then, now);
    assert!(!proxy_branch_with(&ring(), 99, &CALL, &mut now), "that key is not accepted");
}

#[test]
fn a_balancers_branch_ignores_which_proxy_speaks() {
    let name = |branch: &BalancerBranch<'_>| {
        let mut out = Vec::new();
        assert!(balancer_branch(&ring(), None, branch, &mut out));
        out
    };
    let of_proxy = BalancerBranch { received_sent_by: None, ..RECEIVED };
    assert_ne!(name(&RECEIVED), name(&of_proxy));
    let others = [
        BalancerBranch { received_branch: b"z9hG4bK1", ..RECEIVED },
        BalancerBranch { received_sent_by: Some(b"192.0.2.9"), ..RECEIVED },
        BalancerBranch { call_id: b"x", ..RECEIVED },
        BalancerBranch { from_tag: b"x", ..RECEIVED },
        BalancerBranch { cseq: 1, ..RECEIVED },
    ];
    for other in others {
        assert_ne!(name(&RECEIVED), name(&other), "{other:?}");
    }
}

/// Every character of both kinds of Via is changed in turn: none of the changed ones is ours.
#[test]
fn a_tampered_via_is_foreign() {
    for line in [proxy_line(&ring(), &CALL, true), balancer_line(&ring(), None)] {
        let start = "Via: SIP/2.0/".len() + line["Via: SIP/2.0/".len()..].find(' ').expect("LWS");
        for at in start + 1..line.len() - 2 {
            for replacement in ['0', '1', 'a', 'f', 'Z', '.'] {
                let mut text = line.clone();
                text.replace_range(at..=at, &replacement.to_string());
                if text == line {
                    continue;
                }
                assert_eq!(read(&ring(), &text), TierVia::Foreign, "{text}");
            }
        }
    }
}

#[test]
fn parameters_of_one_via_are_worth_nothing_on_another() {
    let one = proxy_line(&ring(), &CALL, false);
    let other = proxy_line(&ring(), &ProxyBranch { cseq: 2, ..CALL }, false);
    let (identity_of_one, _) = one.split_once(";sc-p=").expect("a parameter");
    let (_, branch_of_other) = other.split_once(";sc-p=").expect("a parameter");
    let mixed = format!("{identity_of_one};sc-p={branch_of_other}");
    assert_eq!(read(&ring(), &mixed), TierVia::Foreign);
}

#[test]
fn a_via_signed_with_a_forgotten_key_is_foreign() {
    use fleet::{FleetKey, FleetKeys};
    let keys = FleetKeys { keys: vec![FleetKey { id: 9, secret: [9; 32] }], signing: 9 };
    let stranger = KeyRing::new(&keys).expect("one good key");
    assert_eq!(read(&ring(), &proxy_line(&stranger, &CALL, false)), TierVia::Foreign);
}
