//! Over UDP: there and back, what is refused, who is skipped.

use node_api::server::NodeHandle;
use sip_message::StatusCode;

use crate::bed::{Bed, answer, field, forwarded, request};

const VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport\r\n";

#[test]
fn a_request_reaches_the_proxy_and_the_response_the_client() {
    let mut bed = Bed::new(31);
    let (client, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    bed.put(&[1]);
    client.send(request("INVITE", "one", VIA));
    let (arrived, source) = proxy.receive();
    assert_eq!(source, bed.balancer.internal(), "a member sees the internal address");
    assert_eq!(field(&arrived, "Max-Forwards"), "69");
    proxy.send(answer(&arrived, StatusCode::RINGING));
    let (returned, source) = client.receive();
    assert_eq!(source, bed.balancer.internal());
    assert!(returned.starts_with("SIP/2.0 180 "), "{returned}");
    assert_eq!(returned.matches("Via:").count(), 1, "{returned}");
}

#[test]
fn a_registered_client_is_reached_over_the_flow_of_its_path() {
    let mut bed = Bed::new(32);
    let (phone, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    bed.put(&[1]);
    // By the second listener: what is sent to the phone must come from there.
    phone.send_to(request("REGISTER", "reg", VIA), bed.at("10.1:5070"));
    let (registered, _) = proxy.receive();
    let path = field(&registered, "Path");
    assert!(path.ends_with(&format!("@{};lr;ob>", bed.balancer.internal())), "{path}");

    proxy.send(forwarded(&request("INVITE", "two", VIA), proxy.address(), path));
    let (invite, source) = phone.receive();
    assert_eq!(source, bed.at("10.1:5070"), "from the listener that the phone knows");
    assert!(field(&invite, "Via").starts_with(&format!("SIP/2.0/UDP {source};")), "{invite}");
    assert_eq!(field(&invite, "Route"), "", "{invite}");

    phone.send_to(answer(&invite, StatusCode::RINGING), source);
    let (returned, source) = proxy.receive();
    assert_eq!(source, bed.balancer.internal());
    assert!(field(&returned, "Via").contains(";sc-p="), "{returned}");
}

/// It may have taken the address of a dead one: a refusal would end what a repetition still saves.
#[test]
fn before_its_first_table_a_balancer_is_silent() {
    let mut bed = Bed::new(33);
    let (client, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    client.send(request("INVITE", "one", VIA));
    bed.put(&[1]);
    client.send(request("INVITE", "one", VIA));
    let (arrived, _) = proxy.receive();
    proxy.send(answer(&arrived, StatusCode::RINGING));
    let (first, _) = client.receive();
    assert!(first.starts_with("SIP/2.0 180 "), "no refusal before it: {first}");
}

#[test]
fn what_cannot_be_read_is_answered_or_dropped() {
    let mut bed = Bed::new(34);
    let (client, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    bed.put(&[1]);
    let good = request("INVITE", "one", VIA);
    let table = [
        (good.replace("CSeq: 1 INVITE", "CSeq: 1 BYE"), "SIP/2.0 400 "),
        (good.replacen("SIP/2.0", "SIP/7.0", 1), "SIP/2.0 505 "),
    ];
    for (text, expected) in table {
        client.send(&text);
        let (answer, _) = client.receive();
        assert!(answer.starts_with(expected), "{text} was answered by {answer}");
    }
    // Neither of these may cause anything; the request behind them shows that they are through.
    client.send(b"\r\n\r\n");
    client.send(b"\0\xff nothing of ours");
    client
        .send(String::from_utf8(answer(&good, StatusCode::OK)).expect("text").replace("CSeq", "X"));
    client.send(answer(&good, StatusCode::OK));
    client.send(request("INVITE", "the-next", VIA));
    proxy.hears_nothing_before("the-next");
}

#[test]
fn a_member_that_does_not_listen_is_skipped() {
    let mut bed = Bed::new(35);
    let client = bed.peer("30.1:5060");
    // The second member is in the table, and nobody is at its address.
    let proxy = bed.peer("20.1:5060");
    bed.put(&[1, 2]);
    // The living one hears the same probes: they are the clock here.
    let is_known = || bed.balancer.node().metrics().contains("_members{state=\"dead\"} 1\n");
    for _ in 0..500 {
        proxy.wait_for_probe();
        if is_known() {
            break;
        }
    }
    assert!(is_known(), "five hundred probes, and nothing learned");
    for number in 0..16 {
        client.send(request("INVITE", &format!("call-{number}"), VIA));
    }
    for _ in 0..16 {
        proxy.receive();
    }
}

#[test]
fn a_clients_own_marks_of_members_are_worth_nothing() {
    let mut bed = Bed::new(36);
    let (client, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    bed.put(&[1]);
    client.send(request("REGISTER", "reg", VIA));
    let path = field(&proxy.receive().0, "Path").to_owned();
    let forged = forwarded(&request("INVITE", "one", VIA), proxy.address(), &path);
    client.send(forged);
    let (refused, _) = client.receive();
    assert!(refused.starts_with("SIP/2.0 403 "), "{refused}");
}

#[test]
fn an_options_for_this_hop_is_answered_with_what_the_tier_understands() {
    let mut bed = Bed::new(37);
    let client = bed.peer("30.1:5060");
    bed.put(&[1]);
    let options = request("OPTIONS", "ping", VIA)
        .replacen("sip:bob@example.test", "sip:sip.example.test", 1)
        .replace("Max-Forwards: 70", "Max-Forwards: 0");
    client.send(options);
    let (answer, _) = client.receive();
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    assert!(field(&answer, "Allow").contains("INVITE"), "{answer}");
    assert!(field(&answer, "To").contains(";tag=sct"), "{answer}");
}
