//! Bindings: what is written is read, what is late changes nothing, what expired stays readable.

use std::time::Duration;

use super::{Check, Client, Fixture, NOW, alice, binding, client, later, read, write};
use crate::location::{Aor, Binding, BindingId, Registration, UnixMillis};
use crate::query::{Answer, Query};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_binding_is_read_as_it_was_written", a_binding_is_read_as_it_was_written),
    ("any_bytes_are_a_user_and_a_contact", any_bytes_are_a_user_and_a_contact),
    ("the_most_wanted_binding_comes_first", the_most_wanted_binding_comes_first),
    ("an_expired_binding_keeps_its_cseq", an_expired_binding_keeps_its_cseq),
    ("an_expiry_is_extended_and_shortened", an_expiry_is_extended_and_shortened),
    ("an_older_write_never_replaces_a_newer", an_older_write_never_replaces_a_newer),
    ("a_delayed_refresh_does_not_resurrect", a_delayed_refresh_does_not_resurrect),
    ("one_write_changes_all_its_rows", one_write_changes_all_its_rows),
    ("two_devices_at_once_are_both_there", two_devices_at_once_are_both_there),
    ("a_completed_write_is_seen_everywhere", a_completed_write_is_seen_everywhere),
    ("a_removed_binding_is_gone", a_removed_binding_is_gone),
    ("a_listing_holds_every_binding_once", a_listing_holds_every_binding_once),
];

fn a_binding_is_read_as_it_was_written(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    assert_eq!(read(&mut client, &alice()), [], "an unknown address has no bindings");
    let full = Binding {
        path: vec![b"<sip:a@[2001:db8::1]:5060;lr>".to_vec(), b"<sip:b,c>".to_vec(), Vec::new()],
        received: Some("[2001:db8::7]:61000".parse().unwrap()),
        q: 0,
        cseq: u32::MAX,
        expires_at: UnixMillis::NEVER,
        instance: Some(b"\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"".to_vec()),
        reg_id: Some(u32::MAX),
        direct: true,
        ..binding(1)
    };
    let bare = Binding {
        path: Vec::new(),
        received: Some("192.0.2.9:5060".parse().unwrap()),
        call_id: Vec::new(),
        cseq: 0,
        expires_at: UnixMillis(0),
        updated_at: UnixMillis(0),
        user_agent: Vec::new(),
        instance: Some(Vec::new()),
        reg_id: Some(0),
        ..binding(2)
    };
    for (id, row) in [full, bare, binding(3)].into_iter().enumerate() {
        let aor = Aor::new(format!("user-{id}").as_bytes(), b"example.com");
        write(&mut client, &aor, std::slice::from_ref(&row));
        assert_eq!(read(&mut client, &aor), [row], "{aor}");
    }
}

fn any_bytes_are_a_user_and_a_contact(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let users: [&[u8]; 6] = [b"nul\0byte", b"nul", b"\xff\xfe", b"a@b", b"", b"';--"];
    for (place, user) in users.iter().enumerate() {
        let id = u8::try_from(place).unwrap();
        let contact = [b"sip:\0\xff\r\n", *user].concat();
        let path = vec![vec![0, 0xff, 0], contact.clone()];
        let call_id = vec![0x80; 300];
        let row = Binding { contact, path, call_id, user_agent: vec![0], ..binding(id) };
        write(&mut client, &Aor::new(user, b"example.com"), &[row]);
    }
    for (place, user) in users.iter().enumerate() {
        let rows = read(&mut client, &Aor::new(user, b"EXAMPLE.com"));
        assert_eq!(rows.len(), 1, "user {place} has one binding");
        assert_eq!(rows[0].contact, [b"sip:\0\xff\r\n", *user].concat());
        assert_eq!(rows[0].path, [vec![0, 0xff, 0], rows[0].contact.clone()]);
    }
    let long = Binding { contact: vec![b'x'; 60_000], ..binding(9) };
    write(&mut client, &alice(), std::slice::from_ref(&long));
    assert_eq!(read(&mut client, &alice()), [long], "a long contact is whole");
}

fn the_most_wanted_binding_comes_first(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let of = |id, q, seconds| Binding { q, updated_at: later(seconds), ..binding(id) };
    let rows = [of(1, 500, 0), of(2, 1000, 1), of(3, 1000, 2), of(4, 0, 9), of(5, 500, 0)];
    write(&mut client, &alice(), &rows);
    let order: Vec<u8> = read(&mut client, &alice()).iter().map(|row| row.id.0[0]).collect();
    assert_eq!(order, [3, 2, 1, 5, 4], "falling q, then the most recent, then the id");
}

fn an_expired_binding_keeps_its_cseq(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let gone = Binding { expires_at: NOW, cseq: 77, ..binding(1) };
    let live = Binding { expires_at: later(1), ..binding(2) };
    write(&mut client, &alice(), &[gone.clone(), live.clone()]);
    let rows = read(&mut client, &alice());
    assert_eq!(rows, [gone, live.clone()], "both are read");
    let live_rows: Vec<_> = rows.iter().filter(|row| row.is_live(NOW)).collect();
    assert_eq!(live_rows, [&live], "one is live");
    assert!(rows.iter().all(|row| !row.is_live(later(1))), "a second later none is");
    assert_eq!((live.seconds_left(NOW), live.seconds_left(later(2))), (1, 0));
    // Hours later, with other writes in between, the CSeq can still be compared.
    let now = later(23 * 3600);
    let other = Aor::new(b"bob", b"example.com");
    let query = Query::Write { aor: other, upserts: vec![binding(3)], now };
    assert_eq!(client.ask(query), Ok(Answer::Done));
    assert!(read(&mut client, &alice()).iter().any(|row| row.cseq == 77));
}

fn an_expiry_is_extended_and_shortened(fixture: &dyn Fixture) {
    let (mut one, mut two) = (client(fixture), client(fixture));
    for (step, seconds) in [(1, 60), (2, 7200), (3, 5), (4, 0), (5, 600)] {
        let row = Binding {
            expires_at: later(seconds),
            updated_at: UnixMillis(NOW.0 + step),
            cseq: u32::try_from(step).unwrap(),
            ..binding(1)
        };
        write(&mut one, &alice(), std::slice::from_ref(&row));
        assert_eq!(read(&mut two, &alice()), [row], "step {step}");
    }
}

fn an_older_write_never_replaces_a_newer(fixture: &dyn Fixture) {
    let (mut one, mut two) = (client(fixture), client(fixture));
    let at = |millis, cseq| Binding { updated_at: UnixMillis(millis), cseq, ..binding(1) };
    write(&mut one, &alice(), &[at(2000, 2)]);
    write(&mut two, &alice(), &[at(1999, 3), Binding { updated_at: UnixMillis(1), ..binding(2) }]);
    let rows = read(&mut one, &alice());
    assert!(rows.contains(&at(2000, 2)), "the older write changed nothing: {rows:?}");
    assert_eq!(rows.len(), 2, "but the other row of the same write is there");
    write(&mut two, &alice(), &[at(2000, 2)]);
    assert!(read(&mut one, &alice()).contains(&at(2000, 2)), "a repeated write is harmless");
    write(&mut two, &alice(), &[at(2001, 9)]);
    assert!(read(&mut one, &alice()).contains(&at(2001, 9)), "a newer one stands");
}

fn a_delayed_refresh_does_not_resurrect(fixture: &dyn Fixture) {
    // Method: device registers (1), refreshes (2), unregisters (3); the refresh arrives last, at
    // another proxy, with the timestamp it was given before.
    let (mut one, mut two) = (client(fixture), client(fixture));
    let at = |cseq: u32, expires_at| Binding {
        cseq,
        expires_at,
        updated_at: UnixMillis(NOW.0 + u64::from(cseq)),
        ..binding(1)
    };
    write(&mut one, &alice(), &[at(1, later(3600))]);
    write(&mut one, &alice(), &[at(3, NOW)]);
    write(&mut two, &alice(), &[at(2, later(3600))]);
    let rows = read(&mut one, &alice());
    assert_eq!(rows, [at(3, NOW)], "still unregistered, with the CSeq of the unregistration");
    let again = UnixMillis::of_write(NOW, rows.first().map(|row| row.updated_at));
    let row = Binding { updated_at: again, ..at(4, later(60)) };
    write(&mut two, &alice(), std::slice::from_ref(&row));
    assert_eq!(read(&mut one, &alice()), [row], "a new registration is one");
}

fn one_write_changes_all_its_rows(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let rows: Vec<_> = (0..20).map(binding).collect();
    write(&mut client, &alice(), &rows);
    assert_eq!(read(&mut client, &alice()).len(), 20);
    // `Contact: *` with `Expires: 0` (RFC 3261 §10.2.2).
    let expired = |row: Binding| Binding { expires_at: NOW, updated_at: later(1), cseq: 2, ..row };
    let all_gone: Vec<_> = rows.into_iter().map(expired).collect();
    write(&mut client, &alice(), &all_gone);
    let rows = read(&mut client, &alice());
    assert_eq!(rows.len(), 20, "every row stays");
    assert!(rows.iter().all(|row| !row.is_live(NOW) && row.cseq == 2), "and none is live");
    write(&mut client, &alice(), &[]);
    assert_eq!(read(&mut client, &alice()).len(), 20, "an empty write changes nothing");
}

fn two_devices_at_once_are_both_there(fixture: &dyn Fixture) {
    // Method: two handles submit before either has its completion, many times over.
    let (mut one, mut two) = (client(fixture), client(fixture));
    for round in 0..50 {
        let aor = Aor::new(format!("user-{round}").as_bytes(), b"example.com");
        let query = |id| Query::Write { aor: aor.clone(), upserts: vec![binding(id)], now: NOW };
        one.submit(query(1));
        two.submit(query(2));
        for client in [&mut one, &mut two] {
            let completion = client.next_completion().expect("a completion");
            assert_eq!(completion.result, Ok(Answer::Done), "round {round}");
        }
        for client in [&mut one, &mut two] {
            assert_eq!(read(client, &aor).len(), 2, "round {round}");
        }
    }
}

fn a_completed_write_is_seen_everywhere(fixture: &dyn Fixture) {
    let mut clients = [client(fixture), client(fixture), client(fixture)];
    for step in 1..=30_u64 {
        let row = Binding { updated_at: UnixMillis(NOW.0 + step), ..binding(1) };
        let writer = usize::try_from(step % 3).unwrap();
        write(&mut clients[writer], &alice(), std::slice::from_ref(&row));
        for client in &mut clients {
            assert_eq!(read(client, &alice()), std::slice::from_ref(&row), "step {step}");
        }
    }
}

fn a_removed_binding_is_gone(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    write(&mut client, &alice(), &[binding(1), binding(2)]);
    for time in ["first", "second"] {
        let query = Query::DeleteBinding { aor: alice(), id: BindingId([1; 16]) };
        assert_eq!(client.ask(query), Ok(Answer::Done), "the {time} time");
        assert_eq!(read(&mut client, &alice()), [binding(2)]);
    }
}

fn a_listing_holds_every_binding_once(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let mut expected = Vec::new();
    for user in 0..7_u8 {
        let aor = Aor::new(&[b'u', user], b"example.com");
        let rows: Vec<_> = (0..user)
            .map(|id| Binding { expires_at: NOW.minus(Duration::from_secs(1)), ..binding(id) })
            .collect();
        write(&mut client, &aor, &rows);
        expected.extend(rows.into_iter().map(|row| (aor.clone(), row.id)));
    }
    let mut listed = pages(&mut client);
    listed.sort();
    assert_eq!(listed, expected);
}

fn pages(client: &mut Client) -> Vec<(Aor, BindingId)> {
    let mut listed: Vec<Registration> = Vec::new();
    loop {
        let after = listed.last().map(Registration::key);
        match client.ask(Query::ListBindings { after, limit: 4 }) {
            Ok(Answer::Registrations(page)) => {
                let is_last = page.len() < 4;
                assert!(page.len() <= 4, "a page keeps its limit");
                listed.extend(page);
                if is_last {
                    return listed.into_iter().map(|row| (row.aor, row.binding.id)).collect();
                }
            }
            other => panic!("bindings were asked for: {other:?}"),
        }
    }
}
