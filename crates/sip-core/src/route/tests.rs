//! What is taken off a route, and whom the request is then for.

use sip_message::Transport;
use store::{Aor, BindingId};

use super::*;
use crate::flow_token::{Flow, Reach, write_dialog_token, write_path};
use crate::golden::ring;
use crate::testing::{names, request, with};

fn flow() -> Flow {
    let remote = "192.0.2.1:5060".parse().expect("an address");
    Flow { listener: 0, transport: Transport::Udp, remote, connection: None }
}

fn token(binding: u8) -> DialogToken {
    let aor = Some(Aor::new(b"bob", b"example.com"));
    let callee = Side { reach: Reach::Direct, aor, binding: Some(BindingId([binding; 16])) };
    let caller = Side { reach: Reach::Direct, aor: None, binding: None };
    DialogToken { caller, callee, caller_tag_hash: tag_hash(b"call-1", b"from1") }
}

fn token_text(token: &DialogToken) -> String {
    let mut text = Vec::new();
    write_dialog_token(&ring(), token, &mut text);
    String::from_utf8(text).expect("base64")
}

fn path_text() -> String {
    let mut text = Vec::new();
    let balancer = "127.0.10.1:5060".parse().expect("an address");
    write_path(&ring(), &flow(), balancer, &mut text);
    String::from_utf8(text).expect("text")
}

/// What `preprocess` made of a request, in words that a table can hold.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    request_uri: String,
    left: Vec<String>,
    /// The first octet of the callee's binding in the token.
    token: Option<(u8, Party)>,
    addressee: Addressee,
}

fn preprocessed(start: &str, fields: &[&str]) -> Result<Found, Reject> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    with(&request(start, fields), |request| {
        let first = preprocess(request, &ring(), &names())?;
        let known = first.known_token();
        // Whoever looks again with the token that was found sees the same.
        let routed = preprocess_again(request, &ring(), &names(), known.as_ref())?;
        assert_eq!((&routed.dialog, routed.routes.len()), (&first.dialog, first.routes.len()));
        let token = routed.dialog.as_ref().map(|dialog| {
            let BindingId([binding, ..]) = dialog.token.callee.binding.expect("one");
            (binding, dialog.sender)
        });
        Ok(Found {
            request_uri: text(&routed.request_uri),
            left: routed.routes.iter().map(|route| text(route.text)).collect(),
            token,
            addressee: routed.addressee.clone(),
        })
    })
}

/// Rule 14 and RFC 3261 §16.4, one flow a row.
#[test]
fn our_own_route_values_are_taken_off_and_nothing_else() {
    struct Row {
        name: &'static str,
        route: String,
        left: &'static [&'static str],
        token: Option<(u8, Party)>,
    }
    let ours = token_text(&token(7));
    let other = token_text(&token(8));
    let caller = Some((7, Party::Caller));
    #[rustfmt::skip]
    let table = [
        Row { name: "one token",                     route: format!("<sip:{ours}@127.0.10.1:5060;lr>"),                                                           left: &[], token: caller },
        Row { name: "a twin for each transport",     route: format!("<sip:{ours}@127.0.10.1;transport=tcp;lr>, <sip:{ours}@sip.example.net;lr>"),                  left: &[], token: caller },
        Row { name: "a token that names a lost address", route: format!("<sip:{ours}@192.0.2.77;lr>"),                                                            left: &[], token: caller },
        Row { name: "none, but it names the tier",   route: "<sip:sip.example.net;lr>".to_owned(),                                                                left: &[], token: None },
        Row { name: "a preloaded one, then a token", route: format!("<sip:127.0.10.1:5060;lr>,<sip:{ours}@127.0.10.1;lr>"),                                       left: &[], token: caller },
        Row { name: "a route beyond ours",           route: format!("<sip:{ours}@127.0.10.1;lr>, <sip:edge.elsewhere.net;lr>"),                                   left: &["<sip:edge.elsewhere.net;lr>"], token: caller },
        Row { name: "a stranger's first",            route: "<sip:edge.elsewhere.net;lr>, <sip:sip.example.net;lr>".to_owned(),                                     left: &["<sip:edge.elsewhere.net;lr>", "<sip:sip.example.net;lr>"], token: None },
        Row { name: "forged: its MAC does not hold", route: "<sip:AQEAAAAAAAAAAAAAAAA@127.0.10.1:5060;lr>".to_owned(),                                            left: &[], token: None },
    ];
    for row in table {
        let route = format!("Route: {}", row.route);
        let fields = [route.as_str(), "To: <sip:bob@example.com>;tag=to1"];
        let found = preprocessed("BYE sip:bob@192.0.2.9:5070", &fields).expect(row.name);
        assert_eq!(found.left, row.left, "{}", row.name);
        assert_eq!(found.token, row.token, "{}", row.name);
        assert_eq!(found.request_uri, "sip:bob@192.0.2.9:5070", "{}", row.name);
    }

    let twice = format!("Route: <sip:{ours}@127.0.10.1;lr>, <sip:{other}@127.0.10.1;lr>");
    let fields = [twice.as_str(), "To: <sip:bob@example.com>;tag=to1"];
    let found = preprocessed("BYE sip:bob@192.0.2.9", &fields).expect("readable");
    assert_eq!(found.left.len(), 1, "the token of another passage stays");
    assert_eq!(found.token, caller);
}

#[test]
fn the_tags_tell_which_side_sends_and_whether_the_token_is_of_this_dialog() {
    let route = format!("Route: <sip:{}@127.0.10.1;lr>", token_text(&token(7)));
    let (alice, bob) = ("<sip:alice@example.com>;tag=from1", "<sip:bob@example.com>;tag=to1");
    let table = [
        (alice, bob, "call-1", Some((7, Party::Caller))),
        (bob, alice, "call-1", Some((7, Party::Callee))),
        // What somebody has kept of another dialog is worth nothing in this one.
        (alice, bob, "call-2", None),
        (bob, "<sip:alice@example.com>;tag=other", "call-1", None),
    ];
    for (from, to, call_id, expected) in table {
        let fields = [("From", from), ("To", to), ("Call-ID", call_id)];
        let fields = fields.map(|(name, value)| format!("{name}: {value}"));
        let fields = [route.as_str(), &fields[0], &fields[1], &fields[2]];
        let found = preprocessed("BYE sip:x@192.0.2.9", &fields).expect("readable");
        assert_eq!(found.token, expected, "{from} {to} {call_id}");
    }
}

#[test]
fn a_token_opens_no_dialog() {
    let route = format!("Route: <sip:{}@127.0.10.1;lr>", token_text(&token(7)));
    let found = preprocessed("INVITE sip:bob@example.com", &[&route]).expect("readable");
    assert_eq!(found.token, None, "there is no To tag");
    assert_eq!(found.left, [""; 0], "but it is ours and goes");
    assert_eq!(found.addressee, Addressee::User { domain: "example.com".to_owned() });
}

#[test]
fn strict_routers_are_undone() {
    let start = format!("BYE sip:{}@127.0.10.1;lr", token_text(&token(7)));
    let fields = [
        "Route: <sip:edge.elsewhere.net;lr>, <sip:bob@192.0.2.9:5070>",
        "To: <sip:bob@example.com>;tag=to1",
    ];
    let found = preprocessed(&start, &fields).expect("readable");
    assert_eq!(found.request_uri, "sip:bob@192.0.2.9:5070");
    assert_eq!(found.left, ["<sip:edge.elsewhere.net;lr>"]);
    assert_eq!(found.token, Some((7, Party::Caller)));
}

#[test]
fn a_path_token_on_a_clients_route_is_forbidden() {
    let forbidden = Err(Reject::Forbidden { why: Forbidden::PathToken });
    let alone = format!("Route: {}", path_text());
    let below = format!("Route: <sip:sip.example.net;lr>, {}", path_text());
    for route in [alone, below] {
        assert_eq!(preprocessed("INVITE sip:bob@example.com", &[&route]), forbidden, "{route}");
    }
}

#[test]
fn a_maddr_of_ours_goes_with_port_and_transport() {
    #[rustfmt::skip]
    let table = [
        ("sip:bob@elsewhere.net:5090;maddr=127.0.10.1;transport=tcp;x=y", "sip:bob@elsewhere.net;x=y"),
        ("sip:bob@example.com;maddr=sip.example.net",                     "sip:bob@example.com"),
        ("sip:bob@elsewhere.net:5090;maddr=192.0.2.99;transport=tcp",     "sip:bob@elsewhere.net:5090;maddr=192.0.2.99;transport=tcp"),
    ];
    for (received, expected) in table {
        let found = preprocessed(&format!("INVITE {received}"), &[]).expect("readable");
        assert_eq!(found.request_uri, expected);
    }
}

#[test]
fn the_addressee_is_a_user_the_tier_or_somebody_else() {
    let user = |domain: &str| Addressee::User { domain: domain.to_owned() };
    #[rustfmt::skip]
    let table = [
        ("INVITE sip:bob@Example.Org",       "",                                    user("example.org")),
        ("INVITE sip:bob@127.0.10.1:5060",   "",                                    user("example.com")),
        ("INVITE tel:+4930123",              "",                                    user("example.com")),
        ("OPTIONS sip:127.0.10.1",           "",                                    Addressee::Tier),
        ("OPTIONS sip:bob@example.com",      "",                                    user("example.com")),
        ("REGISTER sip:example.com",         "",                                    Addressee::Tier),
        ("REGISTER sip:alice@example.com",   "",                                    Addressee::Tier),
        ("REGISTER sip:elsewhere.net",       "",                                    Addressee::Foreign),
        ("INVITE sip:bob@elsewhere.net",     "",                                    Addressee::Foreign),
        ("INVITE sip:bob@example.com",       "Route: <sip:edge.elsewhere.net;lr>",  Addressee::Foreign),
        ("INVITE sip:bob@example.com",       "Route: <sip:sip.example.net;lr>",     user("example.com")),
    ];
    for (start, route, expected) in table {
        let fields: &[&str] = if route.is_empty() { &[] } else { &[route] };
        let found = preprocessed(start, fields).expect("readable");
        assert_eq!(found.addressee, expected, "{start} {route}");
    }
}

/// A known token speaks for the text that it was read from and for no other: not for that of another
/// passage, which stands behind it, and not for one in another request.
#[test]
fn a_known_token_speaks_for_its_own_text_alone() {
    let (ours, other) = (token_text(&token(7)), token_text(&token(8)));
    let known_of = |route: &str| {
        let fields = [route, "To: <sip:bob@example.com>;tag=to1"];
        with(&request("BYE sip:bob@192.0.2.9:5070", &fields), |request| {
            preprocess(request, &ring(), &names()).expect("routed").known_token()
        })
    };
    let alone = format!("Route: <sip:{ours}@127.0.10.1;lr>");
    let before_other = format!("{alone}, <sip:{other}@127.0.10.1;lr>");
    assert!(known_of(&before_other).is_none(), "the last text read is the other one's");
    let known = known_of(&alone).expect("found");

    let route = format!("Route: <sip:{other}@127.0.10.1;lr>");
    let fields = [route.as_str(), "To: <sip:bob@example.com>;tag=to1"];
    with(&request("BYE sip:bob@192.0.2.9:5070", &fields), |request| {
        let routed = preprocess_again(request, &ring(), &names(), Some(&known)).expect("routed");
        assert_eq!(routed.dialog.expect("a dialog").token, token(8));
    });
}
