//! Over TCP: clients that connect, and messages too long for UDP.

use std::time::Duration;

use load_balancer::Timing;
use node_api::server::NodeHandle;
use sip_message::StatusCode;

use crate::bed::{Bed, Stream, answer, field, forwarded, request, wait};

const VIA: &str = "Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1;rport\r\n";
const END: &str = "\r\n\r\n";

#[test]
fn a_stream_client_is_answered_on_its_connection() {
    let mut bed = Bed::new(41);
    let proxy = bed.peer("20.1:5060");
    bed.put(&[1]);
    let mut client = Stream::connect(bed.balancer.internal());
    client.send(request("INVITE", "one", VIA));
    let (arrived, _) = proxy.receive();
    proxy.send(answer(&arrived, StatusCode::RINGING));
    let returned = client.receive_until(END);
    assert!(returned.starts_with("SIP/2.0 180 "), "{returned}");
}

/// What came over a stream is not repeated by its sender: it is kept until there is somebody to ask.
#[test]
fn a_stream_client_that_comes_before_the_first_table_is_served_by_it() {
    let mut bed = Bed::new(49);
    let proxy = bed.peer("20.1:5060");
    let mut client = Stream::connect(bed.balancer.internal());
    client.send(request("INVITE", "one", VIA));
    wait("its arrival", || bed.balancer.node().metrics().contains("no_table\"} 1\n"));
    bed.put(&[1]);
    let (arrived, _) = proxy.receive();
    proxy.send(answer(&arrived, StatusCode::RINGING));
    let returned = client.receive_until(END);
    assert!(returned.starts_with("SIP/2.0 180 "), "{returned}");
}

/// The same for what a phone on a stream says once: its refusal waits for the first table.
#[test]
fn a_refusal_that_comes_before_the_first_table_is_kept_for_it() {
    let mut before = Bed::new(57);
    let proxy = before.peer("20.1:5060");
    before.put(&[1]);
    let mut phone = Stream::connect(before.balancer.internal());
    phone.send(request("REGISTER", "reg", VIA));
    let path = field(&proxy.receive().0, "Path").to_owned();
    proxy.send(forwarded(&request("INVITE", "two", VIA), proxy.address(), &path));
    let invite = phone.receive_until(END);

    let mut bed = hasty(58);
    let owner = bed.peer("20.1:5060");
    let mut again = Stream::connect(bed.balancer.internal());
    again.send(answer(&invite, StatusCode::BUSY_HERE));
    wait("its arrival", || bed.balancer.node().metrics().contains("no_table\"} 1\n"));
    bed.put(&[1]);
    let (arrived, _) = owner.receive();
    assert!(arrived.starts_with("SIP/2.0 486 "), "{arrived}");
}

#[test]
fn a_request_for_a_closed_connection_is_answered_430() {
    let mut bed = Bed::new(42);
    let proxy = bed.peer("20.1:5060");
    bed.put(&[1]);
    let mut phone = Stream::connect(bed.balancer.internal());
    phone.send(request("REGISTER", "reg", VIA));
    let (registered, _) = proxy.receive();
    let path = field(&registered, "Path").to_owned();

    let invite = forwarded(&request("INVITE", "two", VIA), proxy.address(), &path);
    proxy.send(&invite);
    let arrived = phone.receive_until(END);
    assert!(arrived.starts_with("INVITE "), "{arrived}");

    drop(phone);
    // The balancer learns of the end in its own time: until then the message is lost, not refused.
    loop {
        proxy.send(&invite);
        bed.peer("30.9:5060").send_to(request("BYE", "marker", VIA), proxy.address());
        let (first, _) = proxy.receive();
        if first.starts_with("SIP/2.0 430 ") {
            return;
        }
    }
}

#[test]
fn a_keep_alive_is_answered_by_an_empty_line() {
    let bed = Bed::new(43);
    let mut client = Stream::connect(bed.balancer.internal());
    client.send("\r\n\r\n");
    assert_eq!(client.receive_until("\r\n"), "\r\n");
}

#[test]
fn a_long_message_travels_to_the_proxy_by_tcp() {
    let mut bed = Bed::new(44);
    let listener = bed.listen_tcp("20.1:5060");
    let _member = bed.peer("20.1:5060");
    let client = bed.peer("30.1:5060");
    bed.put(&[1]);
    let long = format!("{}X-Long: {}\r\n", VIA.replace("TCP", "UDP"), "x".repeat(1_500));
    client.send(request("INVITE", "one", &long));
    let mut proxy = Stream::over(listener.accept().expect("a connection").0);
    assert_eq!(bed.balancer.node().status().streams_open, 0, "a proxy's holds no drain");
    let arrived = proxy.receive_until(END);
    assert!(field(&arrived, "Via").starts_with("SIP/2.0/TCP "), "{arrived}");

    // The answer comes back over the same connection and leaves by UDP, at any size.
    let mut reply = String::from_utf8(answer(&arrived, StatusCode::RINGING)).expect("text");
    reply = reply.replace("CSeq", &format!("X-Long: {}\r\nCSeq", "y".repeat(1_500)));
    proxy.send(reply);
    let (returned, _) = client.receive();
    assert!(returned.starts_with("SIP/2.0 180 ") && returned.contains("yyyy"), "{returned}");
}

#[test]
fn a_stream_that_cannot_be_framed_is_answered_and_closed() {
    let bed = Bed::new(45);
    let mut client = Stream::connect(bed.balancer.internal());
    client.send(request("INVITE", "one", VIA).replace("Content-Length: 0", "Content-Length: -1"));
    let answer = client.receive_until(END);
    assert!(answer.starts_with("SIP/2.0 400 "), "{answer}");
    assert!(client.is_ended());
}

/// A balancer that repeats after 50 ms.
fn hasty(network: u8) -> Bed {
    Bed::with(network, |config| {
        config.timing = Timing { t1: Duration::from_millis(50), ..Timing::default() };
        config.drain_streams_per_s = 1_000;
    })
}

/// Goal: a request that came on a stream and was lost with its proxy reaches the owner of the
/// moment, though its sender repeats nothing.
#[test]
fn a_stream_clients_request_is_repeated_to_the_owner_of_the_moment() {
    let mut bed = hasty(46);
    let proxy = bed.peer("20.1:5060");
    bed.put(&[1]);
    let mut client = Stream::connect(bed.balancer.internal());
    client.send(request("INVITE", "one", VIA));
    let (first, _) = proxy.receive();
    assert_eq!(proxy.receive().0, first, "the same again");

    let heir = bed.peer("20.2:5060");
    drop(proxy);
    bed.put(&[2]);
    let (repeated, _) = heir.receive();
    assert_eq!(field(&repeated, "Via"), field(&first, "Via"), "the same branch");
    heir.send(answer(&repeated, StatusCode::OK));
    let returned = client.receive_until(END);
    assert!(returned.starts_with("SIP/2.0 200 "), "{returned}");
    let metrics = bed.balancer.node().metrics();
    assert!(metrics.contains("sipcloud_balancer_open_requests 0\n"), "{metrics}");
}

/// Goal: a refusal that a phone gives once on its stream reaches a proxy that has lost it, until
/// the ACK; the phone hears that ACK once, and the INVITE never again.
#[test]
fn a_refusal_from_a_stream_is_repeated_until_its_ack_and_then_replayed() {
    let mut bed = hasty(47);
    let proxy = bed.peer("20.1:5060");
    bed.put(&[1]);
    let mut phone = Stream::connect(bed.balancer.internal());
    phone.send(request("REGISTER", "reg", VIA));
    let path = field(&proxy.receive().0, "Path").to_owned();
    let from_proxy = |method: &str| forwarded(&request(method, "two", VIA), proxy.address(), &path);
    proxy.send(from_proxy("INVITE"));
    let invite = phone.receive_until(END);
    phone.send(answer(&invite, StatusCode::BUSY_HERE));
    let busy = || {
        let next = || proxy.receive().0;
        let is_of_this_call = |text: &String| !text.contains("Call-ID: reg");
        let text = std::iter::repeat_with(next).find(is_of_this_call).expect("endless");
        assert!(text.starts_with("SIP/2.0 486 "), "{text}");
    };
    busy();
    busy();

    for message in ["ACK", "ACK", "INVITE", "OPTIONS"] {
        proxy.send(from_proxy(message));
    }
    assert!(phone.receive_until(END).starts_with("ACK "));
    let next = phone.receive_until(END);
    assert!(next.starts_with("OPTIONS "), "no second ACK, no second INVITE: {next}");
    busy();
    let metrics = bed.balancer.node().metrics();
    assert!(metrics.contains("sipcloud_balancer_replayed_responses_total 1\n"), "{metrics}");
}

/// Goal: a drain closes connections of clients between transactions, not within.
#[test]
fn a_drain_closes_the_connections_of_clients_between_transactions() {
    let mut bed = hasty(48);
    let proxy = bed.peer("20.1:5060");
    bed.put(&[1]);
    let (mut idle, mut ringing) =
        (Stream::connect(bed.balancer.internal()), Stream::connect(bed.balancer.internal()));
    ringing.send(request("INVITE", "one", VIA));
    let (invite, _) = proxy.receive();
    proxy.send(answer(&invite, StatusCode::RINGING));
    assert!(ringing.receive_until(END).starts_with("SIP/2.0 180 "));
    let node = bed.balancer.node();
    wait("two streams", || node.status().streams_open == 2);

    node.drain(true);
    assert!(idle.is_ended());
    wait("one stream less", || node.status().streams_open == 1);
    proxy.send(answer(&invite, StatusCode::OK));
    assert!(ringing.receive_until(END).starts_with("SIP/2.0 200 "), "it was not closed");
    assert!(ringing.is_ended());
    wait("none left", || node.status().streams_open == 0);
}
