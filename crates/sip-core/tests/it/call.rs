//! A registered phone is called through the tier, and hangs up: what one room writes the next one
//! must understand.

use md5::{Digest as _, Md5};
use sip_core::forwarding;
use sip_core::stateless::Verdict;
use sip_message::{Edits, HeaderName, OwnedMessage};

use crate::world::{Done, World, owned, udp};

const ALICE: &str = "192.0.2.1:5060";
const BOB: &str = "198.51.100.2:41000";

/// The field that answers a challenge.
fn credentials(challenge: &OwnedMessage, user: &str, method: &str, uri: &str) -> String {
    let view = challenge.view();
    let proxy = view.field(HeaderName::PROXY_AUTHENTICATE);
    let name = if proxy.is_some() { "Proxy-Authorization" } else { "Authorization" };
    let field = proxy.or_else(|| view.field(HeaderName::WWW_AUTHENTICATE)).expect("a challenge");
    let text = String::from_utf8_lossy(field.value).into_owned();
    let nonce = text.split("nonce=\"").nth(1).and_then(|it| it.split('"').next()).expect("a nonce");
    let hash = |text: String| {
        Md5::digest(text).iter().map(|octet| format!("{octet:02x}")).collect::<String>()
    };
    let ha1 = hash(format!("{user}:example.com:secret"));
    let ha2 = hash(format!("{method}:{uri}"));
    let response = hash(format!("{ha1}:{nonce}:00000001:c:auth:{ha2}"));
    format!(
        "{name}: Digest username=\"{user}\", realm=\"example.com\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c\""
    )
}

fn answered(done: Done, status: u16) -> OwnedMessage {
    let Done::Answered(message) = done else { panic!("it was not answered") };
    assert_eq!(message.view().status().map(|it| it.code()), Some(status));
    message
}

fn forwarded(done: Done) -> OwnedMessage {
    match done {
        Done::Forwarded(message) => message,
        Done::Answered(message) => panic!("{}", String::from_utf8_lossy(message.view().bytes())),
        Done::Absorbed => panic!("absorbed"),
    }
}

/// Bob registers; his binding's Path leads to him.
fn register(world: &mut World) {
    let register = |more: &str| {
        format!(
            "REGISTER sip:example.com SIP/2.0\nFrom: <sip:bob@example.com>;tag=b\n\
             To: <sip:bob@example.com>\nCall-ID: reg\nContact: <sip:bob@10.1.1.1:5070>\n{more}"
        )
    };
    let challenge = answered(world.request(&register(""), &udp(BOB)), 401);
    let field = credentials(&challenge, "bob", "REGISTER", "sip:example.com");
    let accepted = answered(world.request(&register(&field), &udp(BOB)), 200);
    assert_eq!(accepted.view().values(HeaderName::CONTACT).count(), 1);
    assert_eq!(world.rows.len(), 1);
}

/// What leaves the balancer towards a client, and that it leaves over this flow.
fn to_client(world: &World, message: &OwnedMessage, client: &str) -> OwnedMessage {
    let mut proxy = udp(client);
    proxy.remote = world.proxy();
    let (verdict, message) = world.balance(message, &proxy);
    let Verdict::ToFlow { flow, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(flow, udp(client));
    message
}

#[test]
fn a_call_finds_the_phone_and_every_answer_finds_the_caller() {
    let mut world = World::new();
    register(&mut world);

    let uri = "sip:bob@example.com";
    let invite = |more: &str| {
        format!("INVITE {uri} SIP/2.0\nCall-ID: c\nContact: <sip:alice@{ALICE}>\n{more}")
    };
    let challenge = answered(world.request(&invite(""), &udp(ALICE)), 407);
    let field = credentials(&challenge, "alice", "INVITE", uri);
    let copy = forwarded(world.request(&invite(&field), &udp(ALICE)));
    let at_bob = to_client(&world, &copy, BOB);
    let view = at_bob.view();
    assert_eq!(view.request_uri_bytes(), b"sip:bob@10.1.1.1:5070");
    assert_eq!(view.routes().count(), 0, "the Path token was for the balancer");
    assert_eq!(view.all(HeaderName::PROXY_AUTHORIZATION).count(), 0, "it has done its work");
    assert_eq!(view.vias().count(), 4, "balancer, proxy, balancer, client");
    assert_eq!(view.max_forwards().map(|it| it.hops()), Some(67));

    // Bob's answer walks back the same way.
    let answer = testkit::response_to(&at_bob, 200, "bob1");
    let (verdict, answer) = world.balance(&answer, &udp(BOB));
    assert!(matches!(verdict, Verdict::ToMember { address, .. } if address == world.proxy()));
    let mut out = Vec::new();
    forwarding::write_response(&answer.view(), &mut Edits::new(), &mut out);
    let at_alice = to_client(&world, &owned(&out), ALICE);
    assert_eq!(at_alice.view().vias().count(), 1, "her own");

    // The route that Alice has learned leads her BYE to Bob; her credentials are asked again.
    let route = view.values(HeaderName::RECORD_ROUTE).next().expect("we stay on the route");
    let route = String::from_utf8_lossy(route.text).into_owned();
    hang_up(&mut world, &route, Side::Alice);
    hang_up(&mut world, &route, Side::Bob);
}

#[derive(Clone, Copy)]
enum Side {
    Alice,
    Bob,
}

fn hang_up(world: &mut World, route: &str, side: Side) {
    let (user, from, to, contact, own, other) = match side {
        Side::Alice => ("alice", "alice1", "bob1", "sip:bob@10.1.1.1:5070", ALICE, BOB),
        Side::Bob => ("bob", "bob1", "alice1", "sip:alice@192.0.2.1:5060", BOB, ALICE),
    };
    let bye = |more: &str| {
        format!(
            "BYE {contact} SIP/2.0\nCall-ID: c\nCSeq: 2 BYE\nFrom: <sip:x@example.com>;tag={from}\n\
             To: <sip:y@example.com>;tag={to}\nRoute: {route}\n{more}"
        )
    };
    let challenge = answered(world.request(&bye(""), &udp(own)), 407);
    let field = credentials(&challenge, user, "BYE", contact);
    let copy = forwarded(world.request(&bye(&field), &udp(own)));
    let arrived = to_client(world, &copy, other);
    assert_eq!(arrived.view().routes().count(), 0);
    assert_eq!(arrived.view().request_uri_bytes(), contact.as_bytes());

    let stranger = if user == "alice" { "bob" } else { "alice" };
    let challenge = answered(world.request(&bye(""), &udp(own)), 407);
    let field = credentials(&challenge, stranger, "BYE", contact);
    answered(world.request(&bye(&field), &udp(own)), 403);
}

#[test]
fn a_request_that_comes_back_to_us_is_a_loop() {
    let mut world = World::new();
    register(&mut world);
    let uri = "sip:bob@example.com";
    let invite = |more: &str| format!("INVITE {uri} SIP/2.0\nCall-ID: c\n{more}");
    let challenge = answered(world.request(&invite(""), &udp(ALICE)), 407);
    let field = credentials(&challenge, "alice", "INVITE", uri);
    let copy = forwarded(world.request(&invite(&field), &udp(ALICE)));

    // Bob's phone sends it straight back to where it was sent first.
    let returned = to_client(&world, &copy, BOB);
    let text = String::from_utf8_lossy(returned.view().bytes()).into_owned();
    let text = text
        .replace("sip:bob@10.1.1.1:5070", uri)
        .replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
    let (_, again) = world.balance(&owned(text.as_bytes()), &udp(BOB));
    let status = world.serve(&again).err().map(|reject| reject.status().code());
    assert_eq!(status, Some(482));
}

#[test]
fn options_to_the_tier_are_answered_without_a_name() {
    let mut world = World::new();
    let text = "OPTIONS sip:example.com SIP/2.0\nFrom: <sip:probe@elsewhere.net>;tag=p";
    let found = answered(world.request(text, &udp(ALICE)), 200);
    assert!(found.view().field(HeaderName::ALLOW).is_some());
}
