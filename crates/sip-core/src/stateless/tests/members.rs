//! Who is found at an address.

use super::*;

#[test]
fn an_owner_is_found_before_a_retired_worker_of_the_same_address() {
    let fixture = Fixture::new();
    let mut members = fixture.membership.members();
    members.retired = vec![Member { incarnation: Incarnation(3), ..members.proxies[1] }];
    let membership = Membership::new(GenerationNumber::default(), 1, members);
    let directory = Directory::new(&membership);
    let place = directory.at(address("127.0.20.2:5060")).expect("a member");
    assert_eq!((place.member, place.incarnation), (1, INCARNATION));
    assert_eq!(directory.len(), 4);
}

/// Goal: a proxy may send through a balancer that has not heard of it yet. The address that it sends from
/// is the one in its Via, and nobody else can write that Via.
#[test]
fn a_proxy_that_is_not_known_yet_is_told_by_its_via() {
    let fixture = Fixture::new();
    let newcomer = "127.0.20.77:5060";
    let via = fixture.proxy_via(newcomer, INCARNATION);
    let route = fixture.path(&client(), "127.0.10.1:5060");
    let text = request("INVITE", &format!("{via}Route: {route}\r\n"));
    let to_phone = Verdict::ToFlow { flow: client(), otherwise: None };
    assert_eq!(fixture.handle(&text, &udp(0, newcomer)).0, to_phone);

    let forbidden =
        Verdict::Reply { status: StatusCode::FORBIDDEN, reason: ReplyReason::PathFromStranger };
    assert_eq!(fixture.handle(&text, &udp(0, "192.0.2.66:5060")).0, forbidden, "copied");
    let moved = text.replace(newcomer, "192.0.2.66:5060");
    assert_eq!(fixture.handle(&moved, &udp(0, "192.0.2.66:5060")).0, forbidden, "forged");
}
