//! The proxy of a ringing call dies: what its caller says next goes through another.

use fleet::InstanceId;
use sip_message::{Framing, Index};

use super::phone::Phone;
use super::start_with;
use super::transport::binding_through;

/// The branch that a proxy wrote on top.
fn branch(message: &str) -> String {
    let mut index = Index::new();
    let parsed = sip_message::parse(message.as_bytes(), &mut index, Framing::Datagram);
    let via = parsed.expect("a message").top_via().expect("a Via");
    String::from_utf8_lossy(via.branch().expect("one")).into_owned()
}

/// The phone knows a CANCEL and an ACK by the branch of the INVITE, which died with its proxy: every
/// other one computes the same.
#[test]
fn the_cancel_and_the_ack_of_a_dead_proxys_call_reach_the_phone() {
    let mut edge = Phone::at("127.31.10.9:5060");
    let mut caller = Phone::at("127.31.10.3:5060");
    let (first, address) = start_with("127.31.10.1", binding_through(edge.address()), |_| {});
    let (second, other) = start_with("127.31.10.2", binding_through(edge.address()), |config| {
        config.instance = InstanceId { slot: 2, ..config.instance };
    });

    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    caller.send(address, &caller.invite(2, Some(&credentials)));
    let invite = edge.expect("INVITE");
    edge.answer(&invite, "180 Ringing");
    let ringing = caller.expect("180");
    first.stop();

    caller.send(other, &caller.cancel(2));
    let cancel = edge.expect("CANCEL");
    caller.expect("200");
    assert_eq!(branch(&cancel), branch(&invite));
    let routes = |text: &str| text.lines().filter(|it| it.starts_with("Route")).count();
    assert_eq!((routes(&cancel), routes(&invite)), (1, 1), "through the balancer of the INVITE");
    assert_eq!(edge.expect("CANCEL"), cancel, "until it is answered");
    edge.answer(&cancel, "200 OK");
    edge.answer(&cancel, "200 OK");

    caller.send(other, &caller.ack(2, &ringing, None));
    assert_eq!(branch(&edge.expect("ACK")), branch(&invite));
    second.stop();
}

/// The phone has never seen the INVITE: the caller would wait for its end in vain.
#[test]
fn a_cancel_of_what_died_with_its_proxy_ends_with_487() {
    let mut edge = Phone::at("127.31.14.9:5060");
    let mut caller = Phone::at("127.31.14.3:5060");
    let (proxy, address) = start_with("127.31.14.1", binding_through(edge.address()), |_| {});
    let invite = caller.invite(1, None);
    caller.send(address, &caller.cancel(1));
    let cancel = edge.expect("CANCEL");
    caller.expect("200");
    edge.answer(&cancel, "481 Call/Transaction Does Not Exist");
    let ended = caller.expect("487");
    assert!(ended.contains("CSeq: 1 INVITE\r\n"), "{ended}");
    let via = |text: &str| text.lines().find(|line| line.starts_with("Via")).map(str::to_owned);
    assert!(via(&ended).expect("a Via").starts_with(&via(&invite).expect("a Via")), "{ended}");
    caller.send(address, &caller.ack(1, &ended, None));
    proxy.stop();
}

/// Nobody is registered there, or somebody of another domain is meant.
#[test]
fn a_cancel_that_leads_to_no_phone_is_refused() {
    let edge = Phone::at("127.31.11.9:5060");
    let mut caller = Phone::at("127.31.11.3:5060");
    let (proxy, address) = start_with("127.31.11.1", binding_through(edge.address()), |_| {});
    for uri in ["sip:nobody@example.com", "sip:bob@elsewhere.test", "sip:example.com"] {
        caller.send(address, &caller.request("CANCEL", uri, "example.com"));
        caller.expect("481");
    }
    proxy.stop();
}
