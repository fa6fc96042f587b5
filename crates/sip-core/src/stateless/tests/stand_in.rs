//! A balancer that stands in for another one, which is dead (protocol rule 23).

use super::*;

/// The second balancer of the fleet, which has one listener.
fn second() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.me = BalancerIdentity {
        instance: InstanceId::balancer(2),
        connections: 7,
        internal: address("127.0.10.2:5060"),
        listeners: vec![address("127.0.10.2:5060")],
    };
    fixture
}

/// A UDP client gets the answer from a listener that is there; a client on a stream over a new
/// connection alone: the number of the dead balancer's names a connection of somebody else here.
#[test]
fn a_response_under_another_balancers_via_goes_to_its_client() {
    let (first, second) = (Fixture::new(), second());
    let stream = tcp("203.0.113.9:41000");
    let listener = udp(0, "203.0.113.9:41000");
    let reopened = Some(address("203.0.113.9:5090"));
    let table = [
        (client(), Verdict::ToFlow { flow: listener, otherwise: None }),
        (
            stream,
            Verdict::ToFlow {
                flow: Flow { listener: 0, connection: None, ..stream },
                otherwise: reopened,
            },
        ),
    ];
    for (flow, expected) in table {
        let via = first.via_towards_proxies(&flow);
        let text = response(&format!("{via}{CLIENT_VIA}"));
        let (verdict, edited) = second.handle(&text, &udp(0, "127.0.20.1:5060"));
        assert_eq!((verdict, edited), (expected, text.replace(&via, "")));
    }
}

/// Goal: a callee takes a request, its repetition, its CANCEL and the ACK to its refusal through the
/// second balancer for what began through the first (RFC 3261 §17.2.3: branch and sent-by), and its
/// answers come to the second one.
#[test]
fn a_request_by_another_balancers_path_is_the_transaction_that_it_was() {
    let (first, second) = (Fixture::new(), second());
    let via = first.proxy_via("127.0.20.1:5060", INCARNATION);
    let flow = udp(0, "203.0.113.9:41000");
    let route = first.path(&flow, "127.0.10.1:5060");
    for method in ["INVITE", "CANCEL", "ACK"] {
        let text = request(method, &format!("{via}Route: {route}\r\n"));
        let source = udp(0, "127.0.20.1:5060");
        let (_, through_first) = first.handle(&text, &source);
        let (verdict, through_second) = second.handle(&text, &source);
        assert_eq!(verdict, Verdict::ToFlow { flow, otherwise: None }, "{method}");
        let asked = through_second.replacen(";rport\r\n", "\r\n", 1);
        assert_eq!(asked, through_first, "{method}: only rport is added");

        let ours =
            line(&through_second, "Via:").replace(";rport", ";received=127.0.10.2;rport=5060");
        let answer = response(&format!("{ours}{via}{CLIENT_VIA}"));
        let (verdict, _) = second.handle(&answer, &flow);
        assert!(matches!(verdict, Verdict::ToMember { member: 0, .. }), "{verdict:?}");
    }
}

/// The phone's connection ended with its balancer, and it has one to us now: what reaches it over that
/// one is the CANCEL of what came by the other. A connection that is not ours is nobody's.
#[test]
fn a_connection_of_ours_carries_what_began_through_another_balancer() {
    let (first, mut second) = (Fixture::new(), second());
    let via = first.proxy_via("127.0.20.1:5060", INCARNATION);
    let source = udp(0, "127.0.20.1:5060");
    let sent = |fixture: &Fixture, connection: StreamId| {
        let flow = Flow { connection: Some(connection), ..tcp("203.0.113.9:41000") };
        let route = first.path(&flow, "127.0.10.1:5060");
        fixture.handle(&request("CANCEL", &format!("{via}Route: {route}\r\n")), &source)
    };
    let (_, through_first) =
        sent(&first, StreamId { number: 5, incarnation: first.me.connections });
    let ours = StreamId { number: 8, incarnation: second.me.connections };
    let (verdict, through_second) = sent(&second, ours);
    let flow = Flow { listener: 0, connection: Some(ours), ..tcp("203.0.113.9:41000") };
    assert_eq!(verdict, Verdict::ToFlow { flow, otherwise: None });
    // The sent-by of a listener other than the first is not known to others.
    let branch = |text: &str| line(text, "Via:").split(';').nth(1).map(str::to_owned);
    assert_eq!(branch(&through_second), branch(&through_first));
    let advertised = second.directory.advertised(address("127.0.10.1:5060")).expect("known");
    assert!(line(&through_second, "Via:").contains(&format!("/TCP {advertised};")));

    second.me.connections += 1;
    let gone = (StatusCode::FLOW_FAILED, ReplyReason::OtherBalancersFlow);
    let (status, reason) = gone;
    assert_eq!(sent(&second, ours).0, Verdict::Reply { status, reason });
}

/// A balancer of which nothing is known any more is spoken for by the address in the Path.
#[test]
fn a_path_of_a_balancer_that_nobody_knows_is_followed_too() {
    let second = second();
    let via = second.proxy_via("127.0.20.1:5060", INCARNATION);
    let route = second.path(&client(), "127.0.10.77:5060");
    let text = request("INVITE", &format!("{via}Route: {route}\r\n"));
    let (verdict, edited) = second.handle(&text, &udp(0, "127.0.20.1:5060"));
    let flow = Flow { listener: 0, ..client() };
    assert_eq!(verdict, Verdict::ToFlow { flow, otherwise: None });
    assert!(line(&edited, "Via:").starts_with("Via: SIP/2.0/UDP 127.0.10.77:5060;"), "{edited}");
}

/// It has just taken the address of a dead one: neither a client nor a proxy hears a refusal.
#[test]
fn before_its_first_table_a_balancer_refuses_nothing() {
    let mut fixture = Fixture::new();
    fixture.directory = Directory::default();
    let via = fixture.proxy_via("127.0.20.1:5060", INCARNATION);
    let route = fixture.path(&client(), "127.0.10.1:5060");
    let table = [
        (request("INVITE", CLIENT_VIA), client()),
        (request("OPTIONS", &format!("{CLIENT_VIA}Max-Forwards: 0\r\n")), client()),
        (request("INVITE", &format!("{via}Route: {route}\r\n")), udp(0, "127.0.20.1:5060")),
    ];
    let ours = Fixture::new().via_towards_clients(&via);
    let answer = (response(&format!("{ours}{via}{CLIENT_VIA}")), tcp("203.0.113.9:41000"));
    for (text, source) in table.into_iter().chain([answer]) {
        assert_eq!(fixture.handle(&text, &source).0, Verdict::Drop(DropReason::NoTable), "{text}");
    }
}
