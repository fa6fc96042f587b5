//! Over TCP: clients that connect, and messages too long for UDP.

use sip_message::StatusCode;

use crate::bed::{Bed, Stream, answer, field, forwarded, request};

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
