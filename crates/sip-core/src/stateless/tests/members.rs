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
