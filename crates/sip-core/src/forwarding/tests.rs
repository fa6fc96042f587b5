//! The copy that leaves, line by line.

use super::*;
use crate::golden::ring;
use crate::target::{TargetIdentity, TargetReach};
use crate::testing::{names, request, response, with};

const VIA: &[u8] = b"Via: SIP/2.0/UDP 127.0.20.1:5061;branch=z9hG4bKscpX;sc-p=Y\r\n";

fn target(uri: &str, routes: &[&str]) -> Target {
    Target {
        request_uri: uri.as_bytes().to_vec(),
        routes: routes.iter().map(|it| it.as_bytes().to_vec()).collect(),
        identity: TargetIdentity::RequestUri,
        aor: None,
        reach: TargetReach::Direct,
        attempt: 0,
        group: 0,
        slot: 0,
        is_refreshable: false,
        max_breadth: 60,
    }
}

/// The lines of the copy.
fn forwarded(bytes: &[u8], target: &Target, record_routes: &[&[u8]]) -> Vec<String> {
    with(bytes, |request| {
        let names = names();
        let routed = crate::route::preprocess(request, &ring(), &names).expect("routable");
        let forward = Forward { routed: &routed, target, record_routes, via: VIA, names: &names };
        let mut out = b"left over".to_vec();
        write(request, &forward, &mut Edits::new(), &mut out);
        lines(&out)
    })
}

fn lines(bytes: &[u8]) -> Vec<String> {
    // The copy must itself be sound.
    with(bytes, |_| ());
    String::from_utf8_lossy(bytes).split("\r\n").map(str::to_owned).collect()
}

fn lines_of(copy: &[String], name: &str) -> Vec<String> {
    let starts = |line: &&String| line.split(':').next() == Some(name);
    copy.iter().filter(starts).cloned().collect()
}

#[test]
fn a_copy_gets_via_route_and_record_route_and_keeps_the_rest_octet_for_octet() {
    let bytes = request(
        "INVITE sip:bob@example.com",
        &[
            "Via: SIP/2.0/UDP 127.0.10.1:5060;branch=z9hG4bKscbB;sc-b=C",
            "v:  SIP/2.0/UDP  192.0.2.1;branch=z9hG4bKclient;received=192.0.2.1",
            "Record-Route: <sip:edge.elsewhere.net;lr>",
            "X-Odd:   kept \t as it came  ",
        ],
    );
    let target = target("sip:bob@192.0.2.9:5070", &["<sip:token@127.0.10.1:5060;lr;ob>"]);
    let copy =
        forwarded(&bytes, &target, &[b"<sip:T@127.0.10.1;transport=tcp;lr>", b"<sip:T@t;lr>"]);
    let expected = [
        "INVITE sip:bob@192.0.2.9:5070 SIP/2.0",
        "Via: SIP/2.0/UDP 127.0.20.1:5061;branch=z9hG4bKscpX;sc-p=Y",
        "Record-Route: <sip:T@127.0.10.1;transport=tcp;lr>",
        "Record-Route: <sip:T@t;lr>",
        "Route: <sip:token@127.0.10.1:5060;lr;ob>",
        "Max-Forwards: 69",
        "From: \"Alice\" <sip:alice@example.com>;tag=from1",
        "To: <sip:bob@example.com>",
        "Call-ID: call-1",
        "CSeq: 1 INVITE",
        "Via: SIP/2.0/UDP 127.0.10.1:5060;branch=z9hG4bKscbB;sc-b=C",
        "v:  SIP/2.0/UDP  192.0.2.1;branch=z9hG4bKclient;received=192.0.2.1",
        "Record-Route: <sip:edge.elsewhere.net;lr>",
        "X-Odd:   kept \t as it came  ",
        "Content-Length: 0",
        "Max-Breadth: 60",
        "",
        "",
    ];
    assert_eq!(copy, expected);
}

#[test]
fn hops_and_breadth_are_counted_or_begun() {
    struct Row {
        fields: &'static [&'static str],
        hops: &'static str,
        breadth: &'static str,
    }
    #[rustfmt::skip]
    let table = [
        Row { fields: &["Max-Forwards: 10"],                    hops: "Max-Forwards: 9",  breadth: "Max-Breadth: 60" },
        Row { fields: &["Max-Forwards:"],                       hops: "Max-Forwards: 70", breadth: "Max-Breadth: 60" },
        Row { fields: &["Max-Forwards: 1", "Max-Breadth:  99"], hops: "Max-Forwards: 0",  breadth: "Max-Breadth:  60" },
    ];
    for row in table {
        let bytes = request("INVITE sip:bob@example.com", row.fields);
        let copy = forwarded(&bytes, &target("sip:bob@192.0.2.9", &[]), &[]);
        assert_eq!(lines_of(&copy, "Max-Forwards"), [row.hops]);
        assert_eq!(lines_of(&copy, "Max-Breadth"), [row.breadth]);
    }
    let ack =
        forwarded(&request("ACK sip:b@example.com", &[]), &target("sip:b@192.0.2.9", &[]), &[]);
    assert_eq!(lines_of(&ack, "Max-Breadth"), [""; 0], "an ACK does not fork");
}

/// RFC 3261 §16.6 steps 6 and 7, and what §16.4 took off.
#[test]
fn the_route_is_what_is_pushed_and_what_is_left() {
    struct Row {
        name: &'static str,
        route: &'static [&'static str],
        pushed: &'static [&'static str],
        request_uri: &'static str,
        expected: &'static [&'static str],
    }
    const BOB: &str = "sip:bob@192.0.2.9";
    #[rustfmt::skip]
    let table = [
        Row { name: "untouched",                   route: &["Route:  <sip:e.net;lr> , <sip:f.net;lr>"],                pushed: &[],                    request_uri: BOB,              expected: &["Route:  <sip:e.net;lr> , <sip:f.net;lr>"] },
        Row { name: "ours goes, with its line",    route: &["Route: <sip:sip.example.net;lr>"],                        pushed: &[],                    request_uri: BOB,              expected: &[] },
        Row { name: "ours goes, the rest stays",   route: &["Route: <sip:sip.example.net;lr>,<sip:e.net;lr>;x=y"],     pushed: &[],                    request_uri: BOB,              expected: &["Route: <sip:e.net;lr>;x=y"] },
        Row { name: "two lines, both ours",        route: &["Route: <sip:sip.example.net;lr>", "Route: <sip:127.0.10.1;lr>"], pushed: &["<sip:p@127.0.10.1;lr>"], request_uri: BOB, expected: &["Route: <sip:p@127.0.10.1;lr>"] },
        Row { name: "a strict router is next",     route: &["Route: <sip:strict.net>, <sip:f.net;lr>"],                pushed: &[],                    request_uri: "sip:strict.net", expected: &["Route: <sip:f.net;lr>", "Route: <sip:bob@192.0.2.9>"] },
        Row { name: "a strict router was pushed",  route: &[],                                                         pushed: &["<sip:strict.net>"],  request_uri: "sip:strict.net", expected: &["Route: <sip:bob@192.0.2.9>"] },
    ];
    for row in table {
        let bytes = request("MESSAGE sip:bob@elsewhere.net", row.route);
        let copy = forwarded(&bytes, &target(BOB, row.pushed), &[]);
        assert_eq!(lines_of(&copy, "Route"), row.expected, "{}", row.name);
        let start = format!("MESSAGE {} SIP/2.0", row.request_uri);
        assert_eq!(copy.first(), Some(&start), "{}", row.name);
    }
}

#[test]
fn private_fields_and_our_own_credentials_stay_here() {
    let bytes = request(
        "INVITE sip:bob@example.com",
        &[
            "X-SipCloud-Walk: 3",
            "x-sipcloud-stamp: 1.2",
            "X-SipCloudy: mine",
            "Proxy-Authorization: Digest username=\"alice\", realm=\"Example.COM\", nonce=\"n\", uri=\"u\", response=\"r\"",
            "Proxy-Authorization: Digest username=\"alice\", realm=\"elsewhere.net\", nonce=\"n\", uri=\"u\", response=\"r\"",
            "Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"n\", uri=\"u\", response=\"r\"",
        ],
    );
    let copy = forwarded(&bytes, &target("sip:bob@192.0.2.9", &[]), &[]);
    assert_eq!(lines_of(&copy, "X-SipCloud-Walk"), [""; 0]);
    assert_eq!(lines_of(&copy, "x-sipcloud-stamp"), [""; 0]);
    assert_eq!(lines_of(&copy, "X-SipCloudy"), ["X-SipCloudy: mine"]);
    assert_eq!(lines_of(&copy, "Authorization").len(), 1, "for the callee, not for us");
    let kept = lines_of(&copy, "Proxy-Authorization");
    assert!(matches!(kept.as_slice(), [one] if one.contains("elsewhere.net")), "{kept:?}");
}

#[test]
fn a_response_loses_our_via_and_private_fields_only() {
    let two =
        "Via: SIP/2.0/UDP 127.0.20.1;branch=z9hG4bKours, SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKc";
    let bytes = response("180 Ringing", &[two, "X-SipCloud-Seen: 1", "Contact: <sip:b@192.0.2.9>"]);
    let copy = with(&bytes, |response| {
        let mut out = Vec::new();
        write_response(response, &mut Edits::new(), &mut out);
        lines(&out)
    });
    let via = lines_of(&copy, "Via");
    assert!(
        matches!(via.as_slice(), [one] if one.ends_with("192.0.2.1;branch=z9hG4bKc")),
        "{via:?}"
    );
    assert_eq!(lines_of(&copy, "X-SipCloud-Seen"), [""; 0]);
    assert_eq!(lines_of(&copy, "Contact"), ["Contact: <sip:b@192.0.2.9>"]);
}

#[test]
fn challenges_of_all_branches_go_upstream_together() {
    let vias = ["Via: SIP/2.0/UDP 127.0.20.1;branch=z9hG4bKours", "Via: SIP/2.0/UDP 192.0.2.1"];
    let with_fields = |start, more: &str| response(start, &[vias[0], vias[1], more]);
    let best =
        with_fields("407 Proxy Authentication Required", "Proxy-Authenticate: Digest realm=\"a\"");
    let other = with_fields("401 Unauthorized", "WWW-Authenticate: Digest realm=\"b\"");
    let copy = with(&best, |best| {
        with(&other, |other| {
            let mut out = Vec::new();
            write_response_with_challenges(best, &[*other], &mut Edits::new(), &mut out);
            lines(&out)
        })
    });
    assert_eq!(copy.first().map(String::as_str), Some("SIP/2.0 407 Proxy Authentication Required"));
    assert_eq!(lines_of(&copy, "Proxy-Authenticate"), ["Proxy-Authenticate: Digest realm=\"a\""]);
    assert_eq!(lines_of(&copy, "WWW-Authenticate"), ["WWW-Authenticate: Digest realm=\"b\""]);
}
