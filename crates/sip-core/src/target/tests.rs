//! Order, breadth and ways of targets.

use std::time::Duration;

use sip_message::Transport;

use super::*;
use crate::flow_token::{DialogToken, Flow, Side};
use crate::testing::{names, request, with};

const NOW: UnixMillis = UnixMillis(1_000_000);

fn aor() -> Aor {
    Aor::new(b"bob", b"example.com")
}

fn binding(id: u8, q: u16, updated_ms: u64, instance: Option<&str>) -> Binding {
    Binding {
        id: BindingId([id; 16]),
        contact: format!("sip:bob@192.0.2.{id}?Subject=x").into_bytes(),
        path: vec![format!("<sip:token{id}@127.0.10.1:5060;lr;ob>").into_bytes()],
        received: None,
        q,
        call_id: b"reg".to_vec(),
        cseq: 1,
        expires_at: NOW.plus(Duration::from_secs(60)),
        updated_at: UnixMillis(updated_ms),
        user_agent: Vec::new(),
        instance: instance.map(|it| it.as_bytes().to_vec()),
        reg_id: None,
        direct: false,
    }
}

/// Binding, group and slot of each target of a request with these fields.
fn places(fields: &[&str], bindings: &[Binding]) -> Result<Vec<(u8, u16, u16)>, Reject> {
    with(&request("INVITE sip:bob@example.com", fields), |request| {
        let set = of_bindings(request, &aor(), bindings, NOW)?;
        let place = |target: &Target| {
            let TargetIdentity::Binding(BindingId([id, ..])) = target.identity else {
                panic!("a binding")
            };
            (id, target.group, target.slot)
        };
        Ok(set.targets.iter().map(place).collect())
    })
}

/// RFC 3261 §16.6 (falling q, equal at once) and protocol rule 16 (one phone, several flows).
#[test]
fn bindings_are_tried_by_q_and_flows_of_one_phone_one_after_the_other() {
    struct Row {
        name: &'static str,
        bindings: Vec<Binding>,
        expected: &'static [(u8, u16, u16)],
    }
    let phone = Some("<urn:uuid:1>");
    let other = Some("<urn:uuid:2>");
    #[rustfmt::skip]
    let table = [
        Row { name: "one",                          bindings: vec![binding(1, 1000, 1, None)],                                                              expected: &[(1, 0, 0)] },
        Row { name: "equal q at once, newest first", bindings: vec![binding(1, 1000, 1, None), binding(2, 1000, 2, None)],                                  expected: &[(2, 0, 0), (1, 0, 1)] },
        Row { name: "lower q later",                bindings: vec![binding(1, 500, 9, None), binding(2, 1000, 2, None)],                                    expected: &[(2, 0, 0), (1, 1, 1)] },
        Row { name: "flows of one phone",           bindings: vec![binding(1, 1000, 1, phone), binding(2, 1000, 3, phone), binding(3, 1000, 2, other)],      expected: &[(2, 0, 0), (1, 0, 0), (3, 0, 1)] },
        Row { name: "a phone counts by its newest", bindings: vec![binding(1, 1000, 1, phone), binding(2, 300, 3, phone), binding(3, 700, 2, other)],        expected: &[(3, 0, 0), (2, 1, 1), (1, 1, 1)] },
    ];
    for row in table {
        assert_eq!(places(&[], &row.bindings).as_deref(), Ok(row.expected), "{}", row.name);
    }
}

#[test]
fn expired_bindings_are_no_targets() {
    let mut expired = binding(1, 1000, 1, None);
    expired.expires_at = NOW;
    let none = Err(Reject::NotRegistered { aor: aor() });
    assert_eq!(places(&[], std::slice::from_ref(&expired)), none);
    assert_eq!(places(&[], &[]), none);
    assert_eq!(places(&[], &[expired, binding(2, 1000, 1, None)]), Ok(vec![(2, 0, 0)]));
}

/// RFC 5393 §5.3: what may not fork in parallel forks in turn, and 0 may not go anywhere.
#[test]
fn breadth_is_divided_among_parallel_branches() {
    let bindings: Vec<Binding> = (1..=3).map(|id| binding(id, 1000, u64::from(id), None)).collect();
    let shares = |field: &str| {
        let fields: &[&str] = if field.is_empty() { &[] } else { &[field] };
        with(&request("INVITE sip:bob@example.com", fields), |request| {
            let set = of_bindings(request, &aor(), &bindings, NOW)?;
            let share = |target: &Target| (target.group, target.max_breadth);
            Ok(set.targets.iter().map(share).collect::<Vec<_>>())
        })
    };
    #[rustfmt::skip]
    let table = [
        ("",                Ok(vec![(0, 20), (0, 20), (0, 20)])),
        ("Max-Breadth: 7",  Ok(vec![(0, 3), (0, 2), (0, 2)])),
        ("Max-Breadth: 2",  Ok(vec![(0, 1), (0, 1), (1, 2)])),
        ("Max-Breadth: 1",  Ok(vec![(0, 1), (1, 1), (2, 1)])),
        ("Max-Breadth: 0",  Err(Reject::BreadthExceeded)),
        ("Max-Breadth: x",  Err(Reject::BadRequest { what: "Max-Breadth" })),
    ];
    for (field, expected) in table {
        assert_eq!(shares(field), expected, "{field}");
    }
}

#[test]
fn a_registered_phone_is_reached_by_its_path_and_a_trunk_directly() {
    let mut direct = binding(1, 1000, 1, None);
    direct.direct = true;
    direct.path = Vec::new();
    let table = [
        (binding(1, 1000, 1, None), TargetReach::Flow, "sip:token1@127.0.10.1:5060;lr;ob"),
        (direct, TargetReach::Direct, "sip:bob@192.0.2.1"),
    ];
    for (binding, reach, next_hop) in table {
        with(&request("INVITE sip:bob@example.com", &[]), |request| {
            let ring = crate::golden::ring();
            let routed = crate::route::preprocess(request, &ring, &names()).expect("routable");
            let set = of_bindings(request, &aor(), &[binding], NOW).expect("one");
            let [target] = set.targets.as_slice() else { panic!("one target") };
            assert_eq!(target.reach, reach);
            assert_eq!(target.next_hop(&routed), next_hop.as_bytes());
            assert_eq!(target.request_uri, b"sip:bob@192.0.2.1", "without its header part");
        });
    }
}

fn dialog(reach: Reach) -> InDialog {
    let side = |binding| Side { reach, aor: Some(aor()), binding };
    let token = DialogToken {
        caller: side(None),
        callee: side(Some(BindingId([1; 16]))),
        caller_tag_hash: 0,
    };
    InDialog { token, sender: Party::Caller }
}

/// Protocol rule 14.
#[test]
fn in_a_dialog_the_token_says_the_way_unless_a_route_is_left() {
    let flow = Flow {
        listener: 0,
        transport: Transport::Udp,
        remote: "192.0.2.9:5060".parse().expect("an address"),
        connection: None,
    };
    let flow = Reach::Flow { balancer: fleet::InstanceId::balancer(1), flow };
    let edge = "Route: <sip:edge.elsewhere.net;lr>";
    #[rustfmt::skip]
    let table = [
        ("its flow",        flow,          "",   "sip:minted@127.0.10.1;lr", TargetReach::Flow,   true),
        ("a direct side",   Reach::Direct, "",   "sip:bob@192.0.2.9",        TargetReach::Direct, false),
        ("a further Route", flow,          edge, "sip:edge.elsewhere.net;lr", TargetReach::Direct, false),
    ];
    for (name, reach, route, next_hop, expected, is_refreshable) in table {
        let fields: &[&str] = if route.is_empty() { &[] } else { &[route] };
        with(&request("BYE sip:bob@192.0.2.9", fields), |request| {
            let ring = crate::golden::ring();
            let routed = crate::route::preprocess(request, &ring, &names()).expect("routable");
            let path = Some(b"<sip:minted@127.0.10.1;lr>".to_vec());
            let set = of_dialog(request, &routed, &dialog(reach), path).expect("one");
            let [target] = set.targets.as_slice() else { panic!("one target") };
            assert_eq!(target.next_hop(&routed), next_hop.as_bytes(), "{name}");
            assert_eq!(target.reach, expected, "{name}");
            assert_eq!(target.is_refreshable, is_refreshable, "{name}");
            assert!(!set.has_several(), "{name}");
        });
    }
}

#[test]
fn a_lost_flow_is_replaced_by_the_present_binding_of_the_side() {
    let gone = Target {
        routes: vec![b"<sip:old@127.0.10.1;lr>".to_vec()],
        identity: TargetIdentity::Dialog { to: Party::Callee, binding: Some(BindingId([1; 16])) },
        ..Target::alone(b"sip:bob@192.0.2.9".to_vec(), TargetIdentity::RequestUri, 60)
    };
    let present = binding(1, 1000, 5, None);
    let found = refreshed(&gone, std::slice::from_ref(&present), NOW).expect("another path");
    assert_eq!(found.routes, present.path);
    assert_eq!(found.request_uri, gone.request_uri, "the remote target stays");
    assert_eq!((found.attempt, found.identity), (1, gone.identity));

    let by_contact = binding_id_of_contact(&present.contact).expect("a SIP URI");
    let identity = TargetIdentity::Dialog { to: Party::Caller, binding: Some(by_contact) };
    let caller = Target { identity, ..gone.clone() };
    let found = refreshed(&caller, std::slice::from_ref(&present), NOW);
    assert!(found.is_some(), "a caller is known by its contact");

    let same = Target { routes: present.path.clone(), ..gone.clone() };
    let mut expired = present.clone();
    expired.expires_at = NOW;
    assert_eq!(refreshed(&same, &[present], NOW), None, "no other way");
    assert_eq!(refreshed(&gone, &[expired], NOW), None, "gone for good");
    assert_eq!(refreshed(&gone, &[binding(2, 1000, 1, None)], NOW), None, "somebody else");
}

#[test]
fn target_identities_are_pinned_and_differ() {
    let id = BindingId([0xab; 16]);
    let dialog = |to, binding| TargetIdentity::Dialog { to, binding };
    let written = |identity: TargetIdentity| {
        let mut out = Vec::new();
        identity.write(&mut out);
        out
    };
    let octets = |front: &[u8]| [front, &[0xab; 16]].concat();
    let table = [
        (TargetIdentity::Binding(id), octets(b"B")),
        (dialog(Party::Caller, Some(id)), octets(b"D0")),
        (dialog(Party::Callee, Some(id)), octets(b"D1")),
        (dialog(Party::Callee, None), b"D1".to_vec()),
        (TargetIdentity::RequestUri, b"U".to_vec()),
    ];
    for (identity, expected) in table {
        assert_eq!(written(identity), expected, "{identity:?}");
    }
}
