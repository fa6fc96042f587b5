//! Which way a request takes after its owner changed, by what the generation says.

use std::sync::Arc;

use fleet::EarlierSet;

use super::*;
use crate::handover::{self, Next};

/// Slots of owners, and whether repeats can come no more.
type Set<'a> = (&'a [u16], bool);

/// A fleet whose present owners are the proxies 1 to 3; `sets` owned the calls before.
fn fixture(sets: &[Set<'_>]) -> Fixture {
    let mut fixture = Fixture::new();
    let mut members = fixture.membership.members();
    let everybody: Vec<Member> = fixture.membership.every_proxy().copied().collect();
    let set = |(number, (slots, is_settled)): (u64, &Set<'_>)| EarlierSet {
        ended_with: GenerationNumber { fence: 1, counter: number },
        is_settled: *is_settled,
        // Slot 9 is nobody any more.
        proxies: slots
            .iter()
            .map(|&slot| Member {
                instance: InstanceId::proxy(slot),
                ..everybody[usize::from(slot - 1) % everybody.len()]
            })
            .collect(),
    };
    members.earlier = (1..).zip(sets).map(set).collect();
    let number = GenerationNumber { fence: 1, counter: 50 };
    fixture.membership = Membership::new(number, 1 << 8, members);
    let key = fixture.ring.selection_key();
    let owners = |set: &EarlierSet| {
        let selection = Arc::new(Selection::new(1 << 8, key, &set.proxies));
        EarlierOwners::new(set, selection, &fixture.membership)
    };
    fixture.earlier = fixture.membership.earlier.iter().map(owners).collect();
    fixture
}

/// The slots that `method` visits until nothing is left, `<` before those that it walks back to.
fn way(fixture: &Fixture, method: &str) -> String {
    let (verdict, text) = fixture.handle(&request(method, CLIENT_VIA), &client());
    visited(fixture, verdict, &text)
}

fn visited(fixture: &Fixture, verdict: Verdict, text: &str) -> String {
    let Verdict::ToMember { member, address, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(member, fixture.owner(), "calls count for the present owner");
    let mut index = Index::new();
    let message = parse(text.as_bytes(), &mut index, Framing::Datagram).expect("well-formed");
    let mut visited = slot_of(address);
    let mut here = address;
    loop {
        let read = handover::read(&fixture.ring, &message, here).expect("a way");
        assert_eq!(read.stamp, fixture.membership.generation);
        here = match read.next {
            Next::Nowhere => return visited,
            Next::On(next) => {
                visited.push_str(&format!(" {}", slot_of(next)));
                next
            }
            Next::Back(next) => {
                visited.push_str(&format!(" <{}", slot_of(next)));
                next
            }
        };
    }
}

fn slot_of(address: SocketAddr) -> String {
    let text = address.ip().to_string();
    text.rsplit('.').next().unwrap_or_default().to_owned()
}

/// Sets of one or two members, so that a reader sees who owned the call in each.
#[test]
fn earlier_owners_come_first_until_they_are_settled_and_then_only_for_what_walks_back() {
    let present = (fixture(&[]).owner() + 1) as u16;
    let [a, b] = [1, 2, 3].into_iter().filter(|slot| *slot != present).collect::<Vec<_>>()[..]
    else {
        panic!("three proxies");
    };
    let p = present;
    let table: &[(&str, &[Set<'_>], String, String)] = &[
        ("nothing before", &[], format!("{p}"), format!("{p}")),
        ("one change", &[(&[a], false)], format!("{a} {p}"), format!("{a} {p}")),
        ("the owner stayed", &[(&[p], false)], format!("{p}"), format!("{p}")),
        ("settled", &[(&[a], true)], format!("{p}"), format!("{p} <{a}")),
        (
            "two changes overlap, oldest first",
            &[(&[b], false), (&[a], false)],
            format!("{b} {a} {p}"),
            format!("{b} {a} {p}"),
        ),
        (
            "the older one is settled",
            &[(&[b], true), (&[a], false)],
            format!("{a} {p}"),
            format!("{a} {p} <{b}"),
        ),
        (
            "both settled: the newest first",
            &[(&[b], true), (&[a], true)],
            format!("{p}"),
            format!("{p} <{a} <{b}"),
        ),
        (
            "each once, also if it came back",
            &[(&[a], false), (&[b], false), (&[a], false), (&[p], false)],
            format!("{a} {b} {p}"),
            format!("{a} {b} {p}"),
        ),
        ("a retired one", &[(&[4], false)], format!("4 {p}"), format!("4 {p}")),
        ("one that is gone", &[(&[9], false)], format!("{p}"), format!("{p}")),
        ("gone, and who stood in", &[(&[9, a], false)], format!("{a} {p}"), format!("{a} {p}")),
    ];
    for (name, sets, others, walking_back) in table {
        let fixture = fixture(sets);
        for method in ["INVITE", "BYE", "REGISTER", "OPTIONS"] {
            assert_eq!(way(&fixture, method), *others, "{name}: {method}");
        }
        for method in ["CANCEL", "ACK"] {
            assert_eq!(way(&fixture, method), *walking_back, "{name}: {method}");
        }
    }
}

/// The caller of a dead proxy may have repeated its INVITE to any owner since, and may still ring: its
/// branch is there. A response that its proxy gets takes no way, and one of a call that was never
/// another's none either.
#[test]
fn a_response_of_a_dead_proxy_passes_every_earlier_owner_first() {
    let present = (fixture(&[]).owner() + 1) as u16;
    let [a, b] = [1, 2, 3].into_iter().filter(|slot| *slot != present).collect::<Vec<_>>()[..]
    else {
        panic!("three proxies");
    };
    let p = present;
    let table: &[(&[Set<'_>], String)] = &[
        (&[(&[a], false)], format!("{a} {p}")),
        (&[(&[a], true)], format!("{a} {p}")),
        (&[(&[b], true), (&[p], true), (&[a], false)], format!("{b} {a} {p}")),
    ];
    let answer = |fixture: &Fixture, sent_by: &str| {
        let via = fixture.proxy_via(sent_by, INCARNATION);
        let ours = fixture.via_towards_clients(&via);
        fixture.handle(&response(&format!("{ours}{via}{CLIENT_VIA}")), &client())
    };
    for (sets, expected) in table {
        let fixture = fixture(sets);
        let (verdict, text) = answer(&fixture, "127.0.20.77:5060");
        assert_eq!(visited(&fixture, verdict, &text), *expected);
        let (_, text) = answer(&fixture, "127.0.20.1:5060");
        assert!(!text.contains("X-SipCloud-Way"), "its proxy lives: {text}");
    }
    let (verdict, text) = answer(&fixture(&[(&[p], true)]), "127.0.20.77:5060");
    assert!(matches!(verdict, Verdict::ToMember { .. }));
    assert!(!text.contains("X-SipCloud-Way"), "{text}");
}

#[test]
fn a_dead_earlier_owner_is_passed_over() {
    let mut fixture = fixture(&[(&[4], false)]);
    fixture.dead = vec![3];
    assert_eq!(way(&fixture, "INVITE"), (fixture.owner() + 1).to_string());
}

/// A client cannot send its request a way of its own making.
#[test]
fn a_strangers_way_is_removed_at_the_edge() {
    let fixture = fixture(&[]);
    let lines = format!("{CLIENT_VIA}X-SipCloud-Way: 02 9.9 127.0.0.1:9/ 0011223344556677\r\n");
    let (_, text) = fixture.handle(&request("INVITE", &lines), &client());
    assert!(!text.contains("127.0.0.1:9"), "{text}");
    assert_eq!(text.matches("X-SipCloud-Way: ").count(), 1, "ours alone: {text}");
}
