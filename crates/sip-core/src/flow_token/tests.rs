//! Tokens give back what they were made of, or nothing.

use super::*;
use crate::golden::{check, earlier_ring, ring};

fn udp() -> Flow {
    Flow {
        listener: 0,
        transport: Transport::Udp,
        remote: "192.0.2.17:40000".parse().expect("an address"),
        connection: None,
    }
}

fn tcp() -> Flow {
    Flow {
        listener: 3,
        transport: Transport::Tcp,
        remote: "[2001:db8::17]:5061".parse().expect("an address"),
        connection: Some(StreamId { number: 70_000, incarnation: 1_767_225_600 }),
    }
}

fn dialog() -> DialogToken {
    DialogToken {
        caller: Side {
            reach: Reach::Flow { balancer: InstanceId::balancer(2), flow: tcp() },
            aor: Some(Aor::new(b"alice", b"example.test")),
            binding: Some(BindingId([7; 16])),
        },
        callee: Side { reach: Reach::Direct, aor: None, binding: None },
        caller_tag_hash: tag_hash(b"a84b4c76e66710", b"1928301774"),
    }
}

/// Balancers that began in the same second count their connections from one.
#[test]
fn connections_of_two_balancers_are_never_taken_for_one_another() {
    use std::collections::BTreeSet;
    let of =
        |slot| StreamId::incarnation_of(InstanceId::balancer(slot), Incarnation(1_795_636_029));
    let all: BTreeSet<u32> = (1..=u16::MAX).map(of).collect();
    assert_eq!(all.len(), usize::from(u16::MAX));
}

#[test]
fn a_dialog_token_says_nothing_to_those_who_carry_it() {
    let mut token = Vec::new();
    write_dialog_token(&ring(), &dialog(), &mut token);
    let octets = URL_SAFE_NO_PAD.decode(&token).expect("base64url");
    assert!(!octets.windows(5).any(|part| part == b"alice"), "the caller may be anonymous");
}

fn path_token(ring: &KeyRing, flow: &Flow) -> Vec<u8> {
    let mut token = Vec::new();
    write_path_token(ring, flow, &mut token);
    token
}

fn dialog_token(token: &DialogToken) -> Vec<u8> {
    let mut text = Vec::new();
    write_dialog_token(&ring(), token, &mut text);
    text
}

fn to_tag_text() -> Vec<u8> {
    let mut text = Vec::new();
    to_tag(&ring(), &TO_TAG, &mut text);
    text
}

const TO_TAG: ToTag<'_> = ToTag { call_id: b"a84b4c76e66710", from_tag: b"1928301774", cseq: 1 };

#[test]
fn tokens_are_pinned() {
    let balancer = "127.0.10.1:5060".parse().expect("an address");
    let mut golden = Vec::new();
    for (name, flow) in [("udp", udp()), ("tcp", tcp())] {
        golden.extend_from_slice(format!("path {name} ").as_bytes());
        write_path(&ring(), &flow, balancer, &mut golden);
        golden.push(b'\n');
    }
    golden.extend_from_slice(b"dialog ");
    write_dialog_token(&ring(), &dialog(), &mut golden);
    golden.extend_from_slice(b"\ndialog both ways ");
    let both = DialogToken {
        callee: Side {
            reach: Reach::Flow { balancer: InstanceId::balancer(1), flow: udp() },
            aor: Some(Aor::new(b"bob@home", b"Example.Test")),
            binding: None,
        },
        ..dialog()
    };
    write_dialog_token(&ring(), &both, &mut golden);
    golden.extend_from_slice(b"\nto-tag ");
    to_tag(&ring(), &TO_TAG, &mut golden);
    golden.push(b'\n');
    check("flow_token.golden", std::str::from_utf8(&golden).expect("tokens are text"));
}

#[test]
fn a_path_token_gives_back_its_flow() {
    for flow in [udp(), tcp()] {
        assert_eq!(read_path(&ring(), &path_token(&ring(), &flow)), Some(flow));
    }
}

#[test]
fn a_dialog_token_gives_back_both_sides() {
    let turned = DialogToken { caller: dialog().callee, callee: dialog().caller, ..dialog() };
    for token in [dialog(), turned] {
        assert_eq!(read_dialog_token(&ring(), &dialog_token(&token)), Some(token));
    }
}

#[test]
fn a_key_that_no_longer_signs_is_still_accepted() {
    let token = path_token(&earlier_ring(), &udp());
    assert_ne!(token, path_token(&ring(), &udp()), "they are signed with different keys");
    assert_eq!(read_path(&ring(), &token), Some(udp()));
}

/// Every character of every token is changed in turn: none of the changed ones is believed.
#[test]
fn a_tampered_token_is_refused() {
    let path = path_token(&ring(), &tcp());
    let dialog = dialog_token(&dialog());
    let tag = to_tag_text();
    for (name, original) in [("path", &path), ("dialog", &dialog), ("to-tag", &tag)] {
        for at in 0..original.len() {
            for replacement in [b'A', b'B', b'z', b'0', b'9', b'_', b'.', 0xff] {
                let mut text = original.clone();
                text[at] = replacement;
                if text == *original {
                    continue;
                }
                let is_believed = match name {
                    "path" => read_path(&ring(), &text).is_some(),
                    "dialog" => read_dialog_token(&ring(), &text).is_some(),
                    _ => is_our_to_tag(&ring(), &text, &TO_TAG),
                };
                assert!(!is_believed, "{name} with another character at {at}");
            }
        }
    }
}

#[test]
fn a_cut_or_lengthened_token_is_refused() {
    let path = path_token(&ring(), &udp());
    for length in 0..path.len() {
        assert_eq!(read_path(&ring(), &path[..length]), None, "{length} characters");
    }
    for more in [b"A".as_slice(), b"AA", b"AAAA", &[b'A'; 200]] {
        assert_eq!(read_path(&ring(), &[&path, more].concat()), None);
    }
}

#[test]
fn a_token_of_one_kind_is_no_token_of_another() {
    assert_eq!(read_dialog_token(&ring(), &path_token(&ring(), &udp())), None);
    assert_eq!(read_path(&ring(), &dialog_token(&dialog())), None);
}

#[test]
fn a_to_tag_belongs_to_one_request() {
    let tag = to_tag_text();
    assert!(is_our_to_tag(&ring(), &tag, &TO_TAG));
    let others = [
        ToTag { call_id: b"another", ..TO_TAG },
        ToTag { from_tag: b"another", ..TO_TAG },
        ToTag { cseq: 2, ..TO_TAG },
    ];
    for other in others {
        assert!(!is_our_to_tag(&ring(), &tag, &other), "{other:?}");
    }
}
