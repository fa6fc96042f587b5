//! Users who lead to others, in a row, in a circle, and beside phones of their own.

use store::BindingId;

use super::*;
use crate::testing::{names, request, with};

const NOW: UnixMillis = UnixMillis(1_000_000);

/// A contact that the operator has provided.
fn contact(uri: &str, q: u16) -> Binding {
    let id = crate::registrar::binding_id_of_contact(uri.as_bytes()).unwrap_or(BindingId([0; 16]));
    Binding {
        id,
        contact: uri.as_bytes().to_vec(),
        path: Vec::new(),
        received: None,
        q,
        call_id: Vec::new(),
        cseq: 0,
        expires_at: UnixMillis::NEVER,
        updated_at: UnixMillis(1),
        user_agent: Vec::new(),
        instance: None,
        reg_id: None,
        direct: true,
    }
}

/// Request-URI and group of each target of a call to `sales`; or the status of the refusal.
fn found(contacts: &[(&str, &str, u16)]) -> Result<Vec<(String, u16)>, u16> {
    with(&request("INVITE sip:sales@example.com", &[]), |request| {
        let mut search = Search::new(Aor::new(b"sales", b"example.com"));
        while let Some(aor) = search.next().cloned() {
            let of_user = contacts.iter().filter(|(user, ..)| user.as_bytes() == aor.user());
            let rows: Vec<Binding> = of_user.map(|(_, uri, q)| contact(uri, *q)).collect();
            search.take(request, &rows, &names(), NOW).expect("a breadth");
        }
        let set = search.finish().map_err(|reject| reject.status().code())?;
        let slots: Vec<u16> = set.targets.iter().map(|target| target.slot).collect();
        let mut distinct = slots.clone();
        distinct.dedup();
        assert_eq!(slots, distinct, "every contact is a phone of its own");
        let text = |target: &Target| String::from_utf8_lossy(&target.request_uri).into_owned();
        Ok(set.targets.iter().map(|target| (text(target), target.group)).collect())
    })
}

#[test]
fn a_user_may_lead_to_others_and_never_in_a_circle() {
    let (phone, other) = ("sip:bob@192.0.2.1", "sip:ann@192.0.2.2");
    let chain: Vec<(String, String)> = (0..9)
        .map(|step| {
            let user = if step == 0 { "sales".to_owned() } else { format!("u{step}") };
            (user, format!("sip:u{}@example.com", step + 1))
        })
        .collect();
    let chain: Vec<_> = chain.iter().map(|(user, uri)| (user.as_str(), uri.as_str(), 0)).collect();
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str, u16)], Result<Vec<(&'a str, u16)>, u16>);
    let table: [Row<'_>; 8] = [
        ("nobody", &[], Err(480)),
        ("a phone", &[("sales", phone, 0)], Ok(vec![(phone, 0)])),
        (
            "another user",
            &[("sales", "sip:bob@example.com", 0), ("bob", phone, 0)],
            Ok(vec![(phone, 0)]),
        ),
        (
            "two at an address of the tier, and a phone first",
            &[
                ("sales", other, 1_000),
                ("sales", "sip:bob@127.0.10.1", 500),
                ("bob", phone, 0),
                ("bob", "sip:bob@192.0.2.3", 1_000),
            ],
            Ok(vec![(other, 0), ("sip:bob@192.0.2.3", 1), (phone, 1)]),
        ),
        ("one who is away", &[("sales", "sip:bob@example.com", 0)], Err(480)),
        ("itself", &[("sales", "sip:sales@example.com", 0)], Err(482)),
        (
            "a circle beside a phone",
            &[
                ("sales", "sip:bob@example.com", 0),
                ("bob", "sip:sales@example.com", 0),
                ("bob", phone, 0),
            ],
            Ok(vec![(phone, 0)]),
        ),
        ("a chain without end", &chain, Err(482)),
    ];
    for (name, contacts, expected) in table {
        let expected = expected.map(|targets| {
            targets.into_iter().map(|(uri, group)| (uri.to_owned(), group)).collect::<Vec<_>>()
        });
        assert_eq!(found(contacts), expected, "{name}");
    }
}
