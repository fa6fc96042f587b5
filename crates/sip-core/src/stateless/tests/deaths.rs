//! Responses under the Via of a proxy that is dead, started anew, or suspect (protocol rule 21).

use fleet::Incarnation;
use sip_message::Transport;

use super::*;

/// A response to a request that the proxy at `sent_by` sent to a phone; what becomes of it, and the
/// text that should have left if it goes to nobody but that proxy.
fn answer(fixture: &Fixture, sent_by: &str, incarnation: Incarnation) -> (Verdict, String, String) {
    let via = fixture.proxy_via(sent_by, incarnation);
    let ours = fixture.via_towards_clients(&via);
    let text = response(&format!("{ours}{via}{CLIENT_VIA}"));
    let (verdict, edited) = fixture.handle(&text, &client());
    (verdict, edited, text.replace(&ours, ""))
}

/// Another than the owner, and where it is.
fn another(fixture: &Fixture) -> (usize, String) {
    let owner = fixture.owner();
    let other = (0..3).find(|member| *member != owner).expect("three members");
    (other, fixture.directory.address(other).expect("a member").to_string())
}

/// Whoever gets a response that another has asked for learns over which flow it came: nothing else
/// in it says how its sender is reached.
#[test]
fn a_response_to_a_proxy_goes_to_it_or_to_the_owner_of_the_call() {
    let mut fixture = Fixture::new();
    let owner = fixture.owner();
    let (other, sent_by) = another(&fixture);
    let to_itself = |fixture: &Fixture, sent_by: &str, member: usize| {
        let (verdict, edited, unchanged) = answer(fixture, sent_by, INCARNATION);
        assert_eq!((verdict, edited), (fixture.member(member), unchanged));
    };
    to_itself(&fixture, &sent_by, other);
    to_itself(&fixture, "127.0.20.4:5060", 3);

    let flow = format!("X-SipCloud-Flow: {}\r\n", fixture.path(&client(), "127.0.10.1:5060"));
    let to_owner = |fixture: &Fixture, sent_by: &str, incarnation, why: &str| {
        let (verdict, edited, unchanged) = answer(fixture, sent_by, incarnation);
        assert_eq!(verdict, fixture.member(owner), "{why}");
        assert!(edited.contains(&flow), "{why}: {edited}");
        assert_eq!(edited.replace(&flow, ""), unchanged, "{why}");
    };
    to_owner(&fixture, &sent_by, Incarnation(6), "started anew");
    to_owner(&fixture, "127.0.20.77:5060", INCARNATION, "unknown");
    fixture.dead = vec![other];
    to_owner(&fixture, &sent_by, INCARNATION, "dead");
    fixture.dead = vec![0, 1, 2];
    let nobody = Verdict::Drop(DropReason::ResponseWithoutMember);
    assert_eq!(answer(&fixture, &sent_by, INCARNATION).0, nobody);
}

/// While nobody knows whether a proxy is dead, it is sent what is its own, and so is its heir: whom
/// the call would belong to if it, and every other suspect, were dead.
#[test]
fn a_response_to_a_suspect_goes_to_it_and_to_its_heir() {
    let mut fixture = Fixture::new();
    let owner = fixture.owner();
    let (other, sent_by) = another(&fixture);
    let address_of = |fixture: &Fixture, member| fixture.directory.address(member);
    let both = |fixture: &Fixture, member: usize, also: Option<usize>| Verdict::ToMember {
        member,
        address: address_of(fixture, member).expect("a member"),
        transport: Transport::Udp,
        also: also.and_then(|heir| address_of(fixture, heir)),
    };
    fixture.suspect = vec![other];
    let (verdict, edited, _) = answer(&fixture, &sent_by, INCARNATION);
    assert_eq!(verdict, both(&fixture, other, Some(owner)));
    let flow = fixture.path(&client(), "127.0.10.1:5060");
    assert!(edited.contains(&format!("X-SipCloud-Flow: {flow};suspect\r\n")), "{edited}");

    let at_owner = address_of(&fixture, owner).expect("a member").to_string();
    let second = {
        fixture.dead = vec![owner];
        let second = fixture.owner();
        fixture.dead.clear();
        second
    };
    let third = (0..3).find(|member| ![owner, second].contains(member)).expect("three");
    fixture.suspect = vec![owner];
    assert_eq!(answer(&fixture, &at_owner, INCARNATION).0, both(&fixture, owner, Some(second)));
    fixture.suspect = vec![owner, second];
    assert_eq!(answer(&fixture, &at_owner, INCARNATION).0, both(&fixture, owner, Some(third)));
    // Its heir may be dead too: then the heir's heir gets it as well.
    fixture.dead = vec![owner];
    fixture.suspect = vec![second];
    assert_eq!(answer(&fixture, &at_owner, INCARNATION).0, both(&fixture, second, Some(third)));
    fixture.dead.clear();
    fixture.suspect = vec![0, 1, 2];
    assert_eq!(answer(&fixture, &at_owner, INCARNATION).0, both(&fixture, owner, None));
}
