//! The balancer as a pure function: messages in, verdicts and edited messages out.

use fleet::{
    BalancerMember, GenerationNumber, Incarnation, Member, Members, Membership, WEIGHT_NORMAL,
};
use sip_message::{Framing, Index, parse};

use super::*;
use crate::branch::{MethodClass, ProxyBranch, ProxyVia, proxy_branch, write_proxy_via};
use crate::flow_token::{StreamId, ToTag, to_tag, write_path};
use crate::golden::{earlier_ring, ring};

mod deaths;
mod members;
mod stand_in;
mod ways;

const INCARNATION: Incarnation = Incarnation(7);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A fleet of three proxies and a retired one, seen by the first of two balancers.
struct Fixture {
    ring: KeyRing,
    me: BalancerIdentity,
    membership: Membership,
    directory: Directory,
    selection: Selection,
    earlier: Vec<EarlierOwners>,
    dead: Vec<usize>,
    suspect: Vec<usize>,
}

impl Fixture {
    fn new() -> Self {
        let proxy = |slot: u16| Member {
            instance: InstanceId::proxy(slot),
            worker: 0,
            incarnation: INCARNATION,
            address: address(&format!("127.0.20.{slot}:5060")),
            weight: WEIGHT_NORMAL,
        };
        let balancer = |slot: u16| BalancerMember {
            instance: InstanceId::balancer(slot),
            incarnation: INCARNATION,
            internal: address(&format!("127.0.10.{slot}:5060")),
            advertised: address(&format!("127.0.10.{slot}:5060")),
        };
        let members = Members {
            proxies: vec![proxy(1), proxy(2), proxy(3)],
            retired: vec![proxy(4)],
            balancers: vec![balancer(1), balancer(2)],
            ..Members::default()
        };
        let membership = Membership::new(GenerationNumber::default(), 1 << 8, members);
        let ring = ring();
        let me = BalancerIdentity {
            instance: InstanceId::balancer(1),
            connections: 1,
            internal: address("127.0.10.1:5060"),
            listeners: vec![address("127.0.10.1:5060"), address("198.51.100.1:5070")],
        };
        Self {
            me,
            directory: Directory::new(&membership),
            selection: Selection::new(1 << 8, ring.selection_key(), &membership.proxies),
            membership,
            ring,
            earlier: Vec::new(),
            dead: Vec::new(),
            suspect: Vec::new(),
        }
    }

    /// What becomes of `text`: the verdict and the edited bytes.
    fn handle(&self, text: &str, source: &Flow) -> (Verdict, String) {
        let view = BalancerView {
            ring: &self.ring,
            me: &self.me,
            directory: &self.directory,
            selection: &self.selection,
            generation: self.membership.generation,
            earlier: &self.earlier,
            service_names: &["sip.example.test".to_owned()],
            internal_mtu_bytes: 1_400,
            is_dead: &|member| self.dead.contains(&member),
            is_suspect: &|member| self.suspect.contains(&member),
        };
        let mut index = Index::new();
        let framing = match source.transport {
            Transport::Udp => Framing::Datagram,
            _ => Framing::Stream,
        };
        let message = parse(text.as_bytes(), &mut index, framing)
            .unwrap_or_else(|malformed| panic!("{}: {text}", malformed.error));
        let mut edits = Edits::new();
        let verdict = handle(&view, &message, source, &mut edits);
        let mut out = Vec::new();
        edits.apply(message.bytes(), &mut out);
        (verdict, String::from_utf8(out).expect("the tests write text"))
    }

    fn owner(&self) -> usize {
        let is_dead = |member| self.dead.contains(&member);
        self.selection.owner(CALL_ID.as_bytes(), is_dead).expect("somebody is alive")
    }

    fn member(&self, member: usize) -> Verdict {
        let address = self.directory.address(member).expect("a member");
        Verdict::ToMember { member, address, transport: Transport::Udp, also: None }
    }

    /// The Via line of the proxy at `sent_by`.
    fn proxy_via(&self, sent_by: &str, incarnation: Incarnation) -> String {
        let mut branch = Vec::new();
        let fields = ProxyBranch {
            call_id: CALL_ID.as_bytes(),
            from_tag: b"88",
            cseq: 1,
            class: MethodClass::Invite,
            request_uri: b"sip:bob@example.test",
            target: b"bob's phone",
            attempt: 0,
        };
        proxy_branch(&self.ring, &fields, &mut branch);
        let via = ProxyVia {
            transport: Transport::Udp,
            sent_by: address(sent_by),
            branch: &branch,
            instance: InstanceId::proxy(1),
            incarnation,
            several: false,
        };
        let mut line = Vec::new();
        write_proxy_via(&self.ring, &via, &mut line);
        String::from_utf8(line).expect("text")
    }

    fn path(&self, flow: &Flow, balancer: &str) -> String {
        let mut text = Vec::new();
        write_path(&self.ring, flow, address(balancer), &mut text);
        String::from_utf8(text).expect("text")
    }
}

const CALL_ID: &str = "843817637684230@998sdasdh09";
const CLIENT_VIA: &str = "Via: SIP/2.0/UDP 192.0.2.7:5090;branch=z9hG4bKc1;rport\r\n";
const CORE: &str = "From: Alice <sip:alice@example.test>;tag=88\r\n\
                    To: Bob <sip:bob@example.test>\r\nCall-ID: 843817637684230@998sdasdh09\r\n";

fn client() -> Flow {
    udp(1, "203.0.113.9:41000")
}

fn udp(listener: u8, remote: &str) -> Flow {
    Flow { listener, transport: Transport::Udp, remote: address(remote), connection: None }
}

fn tcp(remote: &str) -> Flow {
    let connection = Some(StreamId { number: 5, incarnation: 6 });
    Flow { listener: 1, transport: Transport::Tcp, remote: address(remote), connection }
}

/// A request with these lines in front of the usual ones.
fn request(method: &str, lines: &str) -> String {
    format!(
        "{method} sip:bob@example.test SIP/2.0\r\n{lines}{CORE}CSeq: 1 {method}\r\n\
         X-Unknown :  kept  as it is\r\nContent-Length: 4\r\n\r\nbody"
    )
}

fn response(lines: &str) -> String {
    format!(
        "SIP/2.0 180 Ringing\r\n{lines}From: <sip:alice@example.test>;tag=88\r\n\
         To: <sip:bob@example.test>;tag=99\r\nCall-ID: {CALL_ID}\r\nCSeq: 1 INVITE\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// The first line of `text` that begins with `name`.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.split_inclusive("\r\n").find(|line| line.starts_with(name)).unwrap_or_default()
}

#[test]
fn a_clients_request_goes_to_the_owner_and_only_its_edge_is_edited() {
    let fixture = Fixture::new();
    let text = request("INVITE", &format!("{CLIENT_VIA}Max-Forwards: 70\r\n"));
    let (verdict, edited) = fixture.handle(&text, &client());
    assert_eq!(verdict, fixture.member(fixture.owner()));
    let ours = line(&edited, "Via: SIP/2.0/UDP 127.0.10.1:5060;branch=z9hG4bKscb");
    let way = line(&edited, "X-SipCloud-Way: 02 0.0 - ");
    let expected = text
        .replace(
            CLIENT_VIA,
            &format!(
                "{ours}{way}Via: SIP/2.0/UDP 192.0.2.7:5090;branch=z9hG4bKc1;rport=41000;\
                 received=203.0.113.9\r\n"
            ),
        )
        .replace("Max-Forwards: 70", "Max-Forwards: 69");
    assert_eq!(edited, expected);
}

#[test]
fn an_invite_its_cancel_and_its_ack_share_owner_and_branch() {
    let fixture = Fixture::new();
    let pass = |method| {
        let (verdict, edited) = fixture.handle(&request(method, CLIENT_VIA), &client());
        (verdict, line(&edited, "Via:").to_owned())
    };
    let invite = pass("INVITE");
    assert_eq!(invite, pass("CANCEL"));
    assert_eq!(invite, pass("ACK"));
    assert_eq!(invite, pass("INVITE"), "a repeat");
    let other = fixture.handle(&request("BYE", &CLIENT_VIA.replace("c1", "c2")), &client()).1;
    assert_ne!(invite.1, line(&other, "Via:"), "another transaction");
}

#[test]
fn hops_are_counted_down_and_end_at_zero() {
    let fixture = Fixture::new();
    let to_tier = |lines: &str| {
        request("OPTIONS", lines).replacen("sip:bob@example.test", "sip:SIP.example.test", 1)
    };
    let answered = |status, reason| Verdict::Reply { status, reason };
    let hops = StatusCode::TOO_MANY_HOPS;
    let zero = format!("{CLIENT_VIA}Max-Forwards: 0\r\n");
    let table = [
        ("INVITE", request("INVITE", &zero), answered(hops, ReplyReason::TooManyHops)),
        ("ACK", request("ACK", &zero), Verdict::Drop(DropReason::Ack(ReplyReason::TooManyHops))),
        ("OPTIONS to a user", request("OPTIONS", &zero), answered(hops, ReplyReason::TooManyHops)),
        ("OPTIONS to us", to_tier(&zero), answered(StatusCode::OK, ReplyReason::Options)),
    ];
    for (name, text, expected) in table {
        assert_eq!(fixture.handle(&text, &client()).0, expected, "{name}");
    }
    let (_, edited) = fixture.handle(&request("INVITE", CLIENT_VIA), &client());
    assert_eq!(line(&edited, "Max-Forwards"), "Max-Forwards: 70\r\n", "it was missing");
    let one = format!("{CLIENT_VIA}Max-Forwards: 1\r\n");
    let (_, edited) = fixture.handle(&request("INVITE", &one), &client());
    assert_eq!(line(&edited, "Max-Forwards"), "Max-Forwards: 0\r\n");
}

#[test]
fn an_answer_repeats_the_edited_via_alone() {
    let fixture = Fixture::new();
    let text = request("INVITE", &format!("{CLIENT_VIA}Max-Forwards: 0\r\n"));
    let (_, edited) = fixture.handle(&text, &client());
    assert_eq!(edited, text.replace(";rport", ";rport=41000;received=203.0.113.9"));
}

#[test]
fn what_only_members_may_write_is_removed_at_the_edge() {
    let fixture = Fixture::new();
    let lines = "x-sipcloud-stamp: 1\r\nVia: SIP/2.0/UDP 192.0.2.7;received=1.2.3.4;SC-P=1.2.0.3;\
                 branch=z9hG4bKc1;sc-b=AAAA\r\nX-SipCloud-Way: a,\r\n b\r\n\
                 Via: SIP/2.0/UDP 192.0.2.8;branch=z9hG4bKlower;sc-p=kept\r\n";
    let (_, edited) = fixture.handle(&request("INVITE", lines), &client());
    let ours = line(&edited, "X-SipCloud-Way: 02 ").to_owned();
    let rest = edited.replace(&ours, "").to_lowercase();
    assert!(!ours.is_empty() && !rest.contains("x-sipcloud"), "{edited}");
    let vias: Vec<&str> = edited.split("\r\n").filter(|line| line.starts_with("Via:")).collect();
    assert_eq!(vias[1], "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKc1;received=203.0.113.9");
    assert_eq!(vias[2], "Via: SIP/2.0/UDP 192.0.2.8;branch=z9hG4bKlower;sc-p=kept");
}

#[test]
fn vias_in_one_compact_line_are_told_apart() {
    let fixture = Fixture::new();
    let lines = "v: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKc1;rport ,\r\n SIP/2.0/TCP 192.0.2.8\r\n";
    let (_, edited) = fixture.handle(&request("INVITE", lines), &client());
    let expected = "v: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKc1;rport=41000;received=203.0.113.9 \
                    ,\r\n SIP/2.0/TCP 192.0.2.8\r\n";
    assert!(edited.contains(expected), "{edited}");
}

#[test]
fn every_register_carries_a_path_on_top() {
    let fixture = Fixture::new();
    let lines = format!("{CLIENT_VIA}Path: <sip:edge.example.test;lr>\r\n");
    let (_, edited) = fixture.handle(&request("REGISTER", &lines), &client());
    let expected = format!("Path: {}\r\n", fixture.path(&client(), "127.0.10.1:5060"));
    assert_eq!(line(&edited, "Path:"), expected);
    assert!(edited.contains("Path: <sip:edge.example.test;lr>\r\n"), "{edited}");
    let (_, edited) = fixture.handle(&request("INVITE", CLIENT_VIA), &client());
    assert_eq!(line(&edited, "Path:"), "", "no other request does");
}

#[test]
fn a_dead_owner_is_passed_over_and_without_any_the_client_hears_503() {
    let mut fixture = Fixture::new();
    let text = request("INVITE", CLIENT_VIA);
    let first = fixture.owner();
    fixture.dead.push(first);
    let second = fixture.owner();
    assert_ne!(first, second);
    assert_eq!(fixture.handle(&text, &client()).0, fixture.member(second));
    fixture.dead = vec![0, 1, 2];
    let expected =
        Verdict::Reply { status: StatusCode::SERVICE_UNAVAILABLE, reason: ReplyReason::NoMember };
    assert_eq!(fixture.handle(&text, &client()).0, expected, "the retired one owns nothing");
    let expected = Verdict::Drop(DropReason::Ack(ReplyReason::NoMember));
    assert_eq!(fixture.handle(&request("ACK", CLIENT_VIA), &client()).0, expected);
}

#[test]
fn a_long_message_goes_to_the_member_by_tcp() {
    let fixture = Fixture::new();
    let long = format!("{CLIENT_VIA}X-Long: {}\r\n", "x".repeat(1_400));
    let (verdict, edited) = fixture.handle(&request("INVITE", &long), &client());
    let Verdict::ToMember { transport: Transport::Tcp, .. } = verdict else {
        panic!("{verdict:?}");
    };
    assert!(line(&edited, "Via:").starts_with("Via: SIP/2.0/TCP 127.0.10.1:5060;"), "{edited}");
    let answered = fixture.via_towards_proxies(&client());
    let (verdict, _) =
        fixture.handle(&response(&format!("{answered}{CLIENT_VIA}{long}")), &client());
    assert_eq!(verdict, Verdict::ToFlow { flow: client(), otherwise: None }, "UDP at any size");
}

impl Fixture {
    /// The Via line of the balancer on what the proxy that wrote `via` sends to a client.
    fn via_towards_clients(&self, via: &str) -> String {
        let route = self.path(&client(), "127.0.10.1:5060");
        let text = request("INVITE", &format!("{via}Route: {route}\r\n"));
        line(&self.handle(&text, &udp(0, "127.0.20.1:5060")).1, "Via:").to_owned()
    }

    /// The Via that we put on a request of `source`.
    fn via_towards_proxies(&self, source: &Flow) -> String {
        line(&self.handle(&request("INVITE", CLIENT_VIA), source).1, "Via:").to_owned()
    }
}

#[test]
fn a_path_token_is_for_members_alone() {
    let fixture = Fixture::new();
    let route = fixture.path(&client(), "127.0.10.1:5060");
    let lines = format!("{CLIENT_VIA}Route: {route}\r\n");
    let expected =
        Verdict::Reply { status: StatusCode::FORBIDDEN, reason: ReplyReason::PathFromStranger };
    assert_eq!(fixture.handle(&request("INVITE", &lines), &client()).0, expected);
    let expected = Verdict::Drop(DropReason::Ack(ReplyReason::PathFromStranger));
    assert_eq!(fixture.handle(&request("ACK", &lines), &client()).0, expected);
    let second = format!("{CLIENT_VIA}Route: <sip:sip.example.test;lr>, {route}\r\n");
    let (verdict, _) = fixture.handle(&request("INVITE", &second), &client());
    assert_eq!(verdict, fixture.member(fixture.owner()), "only the topmost would steer us");
}

#[test]
fn a_members_request_leaves_over_the_flow_of_its_path() {
    let fixture = Fixture::new();
    for flow in [client(), tcp("203.0.113.9:41000")] {
        let via = fixture.proxy_via("127.0.20.1:5060", INCARNATION);
        let route = fixture.path(&flow, "127.0.10.1:5060");
        let lines =
            format!("{via}Route: {route}, <sip:further.example.test;lr>\r\nMax-Forwards: 9\r\n");
        let text = request("INVITE", &lines);
        for source in [udp(0, "127.0.20.1:5060"), tcp("127.0.20.1:39000")] {
            let (verdict, edited) = fixture.handle(&text, &source);
            assert_eq!(verdict, Verdict::ToFlow { flow, otherwise: None });
            let ours = line(&edited, "Via:");
            let start = format!("Via: SIP/2.0/{} 198.51.100.1:5070;", flow.transport.as_str());
            assert!(ours.starts_with(&start), "the advertised address of its listener: {ours}");
            let expected = text
                .replace(&via, &format!("{ours}{via}"))
                .replace(&format!("{route}, "), "")
                .replace("Max-Forwards: 9", "Max-Forwards: 8");
            assert_eq!(edited, expected, "nothing else changes, the proxy's Via least of all");
        }
    }
}

/// The proxy acknowledges what we refused. The phone has seen no INVITE and must see no ACK.
#[test]
fn the_ack_to_a_refusal_of_ours_ends_here_and_another_goes_on() {
    let fixture = Fixture::new();
    let via = fixture.proxy_via("127.0.20.1:5060", INCARNATION);
    let route = fixture.path(&client(), "127.0.10.1:5060");
    let text = request("ACK", &format!("{via}Route: {route}\r\n"));
    let mut tag = b"To: <sip:bob@example.test>;tag=".to_vec();
    let answered = ToTag { call_id: CALL_ID.as_bytes(), from_tag: b"88", cseq: 1 };
    to_tag(&fixture.ring, &answered, &mut tag);
    let ours = text.replace(line(&text, "To:").trim_end(), &String::from_utf8_lossy(&tag));
    let decide = |text: &str| fixture.handle(text, &udp(0, "127.0.20.1:5060")).0;
    assert_eq!(decide(&ours), Verdict::Drop(DropReason::AckForUs));
    assert_eq!(decide(&text), Verdict::ToFlow { flow: client(), otherwise: None });
}

#[test]
fn a_members_request_is_refused_unless_it_names_a_flow_of_ours() {
    let fixture = Fixture::new();
    let via = fixture.proxy_via("127.0.20.1:5060", INCARNATION);
    let member = udp(0, "127.0.20.1:5060");
    let other = fixture.path(&tcp("203.0.113.9:41000"), "127.0.10.2:5060");
    let ours = fixture.path(&client(), "127.0.10.1:5060");
    let refused = |status, reason| Verdict::Reply { status, reason };
    let no_path = refused(StatusCode::FORBIDDEN, ReplyReason::NoPath);
    let table = [
        ("no Route", via.clone(), no_path),
        ("another Route", format!("{via}Route: <sip:192.0.2.1;lr>\r\n"), no_path),
        (
            "a Path below another Route",
            format!("{via}Route: <sip:192.0.2.1;lr>, {ours}\r\n"),
            no_path,
        ),
        (
            "another balancer's connection",
            format!("{via}Route: {other}\r\n"),
            refused(StatusCode::FLOW_FAILED, ReplyReason::OtherBalancersFlow),
        ),
        (
            "no hop left",
            format!("{via}Route: {ours}\r\nMax-Forwards: 0\r\n"),
            refused(StatusCode::TOO_MANY_HOPS, ReplyReason::TooManyHops),
        ),
        (
            "a Via without MAC",
            format!("{CLIENT_VIA}Route: {ours}\r\n"),
            Verdict::Drop(DropReason::MemberWithoutMac),
        ),
    ];
    for (name, lines, expected) in table {
        assert_eq!(fixture.handle(&request("INVITE", &lines), &member).0, expected, "{name}");
    }
    let stranger = udp(0, "127.0.20.9:5060");
    let lines = format!("{via}Route: {ours}\r\n");
    let expected = refused(StatusCode::FORBIDDEN, ReplyReason::PathFromStranger);
    assert_eq!(
        fixture.handle(&request("INVITE", &lines), &stranger).0,
        expected,
        "a proxy's Via from an address of no member is worth nothing"
    );
}

#[test]
fn a_flow_to_no_single_host_is_not_used() {
    let fixture = Fixture::new();
    let via = fixture.proxy_via("127.0.20.1:5060", INCARNATION);
    for remote in ["224.0.0.1:5060", "255.255.255.255:5060", "0.0.0.0:5060", "192.0.2.1:0"] {
        let route = fixture.path(&udp(0, remote), "127.0.10.1:5060");
        let text = request("INVITE", &format!("{via}Route: {route}\r\n"));
        let (verdict, _) = fixture.handle(&text, &udp(0, "127.0.20.1:5060"));
        assert_eq!(verdict, Verdict::Drop(DropReason::UnusableAddress), "{remote}");
    }
}

#[test]
fn a_response_to_a_client_takes_the_way_its_request_came() {
    let fixture = Fixture::new();
    let no_rport = CLIENT_VIA.replace(";rport", "");
    let no_port = no_rport.replace(":5090", "");
    let of_tls = no_port.replace("UDP", "TLS");
    let streamed = CLIENT_VIA.replace("UDP", "TCP");
    let stream = tcp("203.0.113.9:41000");
    let to = |remote: &str| Verdict::ToFlow { flow: udp(1, remote), otherwise: None };
    let reopened = Some(address("203.0.113.9:5090"));
    let table = [
        ("rport", client(), CLIENT_VIA, to("203.0.113.9:41000")),
        ("without rport the sent-by's port", client(), &no_rport, to("203.0.113.9:5090")),
        ("or 5060", client(), &no_port, to("203.0.113.9:5060")),
        ("or 5060 under a false flag", client(), &of_tls, to("203.0.113.9:5060")),
        ("a stream", stream, &streamed, Verdict::ToFlow { flow: stream, otherwise: reopened }),
    ];
    for (name, flow, via, expected) in table {
        let ours = fixture.via_towards_proxies(&flow);
        let text = response(&format!("{ours}{via}"));
        let (verdict, edited) = fixture.handle(&text, &udp(0, "127.0.20.1:5060"));
        assert_eq!(verdict, expected, "{name}");
        assert_eq!(edited, text.replace(&ours, ""), "{name}: only our Via is taken off");
    }
}

#[test]
fn a_response_that_is_not_ours_goes_nowhere() {
    let fixture = Fixture::new();
    let ours = fixture.via_towards_proxies(&client());
    let table = [
        ("a stranger's Via", format!("{CLIENT_VIA}{ours}"), DropReason::ResponseNotOurs),
        (
            "our Via with another sent-by",
            format!("{}{CLIENT_VIA}", ours.replace("127.0.10.1", "127.0.10.9")),
            DropReason::ResponseNotOurs,
        ),
        (
            "a proxy's Via",
            format!("{}{CLIENT_VIA}", fixture.proxy_via("127.0.20.1:5060", INCARNATION)),
            DropReason::ResponseNotOurs,
        ),
        ("nobody below us", ours.clone(), DropReason::ResponseForUs),
    ];
    for (name, lines, reason) in table {
        let (verdict, _) = fixture.handle(&response(&lines), &client());
        assert_eq!(verdict, Verdict::Drop(reason), "{name}");
    }
}

#[test]
fn our_via_is_taken_out_of_a_combined_line() {
    let fixture = Fixture::new();
    let ours = fixture.via_towards_proxies(&client());
    let (_, value) = ours.trim_end().split_once(": ").expect("a field");
    let theirs = "SIP/2.0/UDP 192.0.2.7:5090;branch=z9hG4bKc1;rport";
    let text = response(&format!("v:{value},{theirs}\r\n"));
    let (verdict, edited) = fixture.handle(&text, &udp(0, "127.0.20.1:5060"));
    assert_eq!(verdict, Verdict::ToFlow { flow: client(), otherwise: None });
    assert!(edited.contains(&format!("v:{theirs}\r\n")), "{edited}");
}

/// A call from client to callee and its answer back, each hop by the edited bytes of the last.
#[test]
fn a_call_finds_its_way_there_and_back() {
    let fixture = Fixture::new();
    let callee = udp(1, "203.0.113.77:5060");
    let path = fixture.path(&callee, "127.0.10.1:5060");

    let (verdict, at_proxy) = fixture.handle(&request("INVITE", CLIENT_VIA), &client());
    let Verdict::ToMember { address: proxy, .. } = verdict else { panic!("{verdict:?}") };
    let via = fixture.proxy_via(&proxy.to_string(), INCARNATION);
    let from_proxy = at_proxy.replacen("\r\n", &format!("\r\n{via}Route: {path}\r\n"), 1);

    let (verdict, at_callee) = fixture.handle(&from_proxy, &udp(0, &proxy.to_string()));
    assert_eq!(verdict, Verdict::ToFlow { flow: callee, otherwise: None });
    let vias: String =
        at_callee.split_inclusive("\r\n").filter(|line| line.starts_with("Via:")).collect();
    assert_eq!(vias.lines().count(), 4, "balancer, proxy, balancer, client: {vias}");

    let (verdict, back_at_proxy) = fixture.handle(&response(&vias), &callee);
    assert_eq!(verdict, fixture.member(fixture.owner()));
    assert!(back_at_proxy.contains(&format!("Ringing\r\n{via}")), "{back_at_proxy}");

    let from_proxy = back_at_proxy.replace(&via, "");
    let (verdict, at_client) = fixture.handle(&from_proxy, &udp(0, &proxy.to_string()));
    assert_eq!(verdict, Verdict::ToFlow { flow: client(), otherwise: None });
    assert_eq!(at_client.matches("Via:").count(), 1, "{at_client}");
    assert!(at_client.contains(";rport=41000;received=203.0.113.9\r\n"), "{at_client}");
}

/// The proxy signed before the key changed, its ACK or CANCEL comes after: the balancer's branch is
/// made with the key that the proxy's Via names, so both have the same.
#[test]
fn a_new_signing_key_changes_no_branch_over_a_proxys_via() {
    let mut fixture = Fixture { ring: earlier_ring(), ..Fixture::new() };
    let via = fixture.proxy_via("127.0.20.1:5060", INCARNATION);
    let route = fixture.path(&client(), "127.0.10.1:5060");
    let lines = format!("{via}Route: {route}\r\n");
    let pass = |fixture: &Fixture, method| {
        let text = request(method, &lines);
        let (verdict, edited) = fixture.handle(&text, &udp(0, "127.0.20.1:5060"));
        assert_eq!(verdict, Verdict::ToFlow { flow: client(), otherwise: None });
        line(&edited, "Via:").to_owned()
    };
    let before = pass(&fixture, "INVITE");
    fixture.ring = ring();
    assert_eq!(before, pass(&fixture, "CANCEL"));
    let text = response(&format!("{before}{via}"));
    assert_eq!(fixture.handle(&text, &client()).0, fixture.member(0), "and is still known");
}
