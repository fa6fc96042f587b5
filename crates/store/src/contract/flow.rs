//! The seam itself: every ticket gets exactly one completion, under load and at the end too.

use std::collections::BTreeMap;

use super::{Check, Client, Fixture, NOW, alice, binding, client, read};
use crate::error::StoreError;
use crate::health::{QueryKind, StoreHealth};
use crate::limits::QUERIES_IN_FLIGHT_MAX;
use crate::location::Aor;
use crate::query::{Answer, Completion, Query, Store as _, Ticket};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("every_ticket_gets_its_own_answer", every_ticket_gets_its_own_answer),
    ("too_many_queries_are_refused_at_once", too_many_queries_are_refused_at_once),
    ("a_closed_handle_owes_nothing", a_closed_handle_owes_nothing),
    ("queries_are_counted_by_kind", queries_are_counted_by_kind),
];

fn user(number: usize) -> Aor {
    Aor::new(format!("user-{number}").as_bytes(), b"example.com")
}

fn every_ticket_gets_its_own_answer(fixture: &dyn Fixture) {
    // Method: a thousand users with one binding each; then reads and writes in one go.
    let mut client = client(fixture);
    let mut expected = BTreeMap::new();
    for number in 0..1000 {
        let upserts = vec![binding(u8::try_from(number % 256).unwrap())];
        client.submit(Query::Write { aor: user(number), upserts, now: NOW });
    }
    for completion in drain(&mut client, 1000) {
        assert_eq!(completion.result, Ok(Answer::Done));
    }
    for number in 0..1000 {
        let rows = vec![binding(u8::try_from(number % 256).unwrap())];
        let ticket = client.submit(Query::Bindings { aor: user(number) });
        expected.insert(ticket, Ok(Answer::Bindings(rows)));
        let upserts = vec![binding(1)];
        let ticket = client.submit(Query::Write { aor: user(number + 1000), upserts, now: NOW });
        expected.insert(ticket, Ok(Answer::Done));
    }
    for completion in drain(&mut client, 2000) {
        let expected = expected.remove(&completion.ticket);
        assert_eq!(expected, Some(completion.result), "{:?}", completion.ticket);
    }
    assert_eq!(client.store().poll_completion(), None, "nothing comes twice");
    assert_eq!(client.store().counters().in_flight, 0);
}

fn too_many_queries_are_refused_at_once(fixture: &dyn Fixture) {
    // Method: ten more than the limit, without fetching a completion in between.
    let mut client = client(fixture);
    let aor = alice();
    for _ in 0..QUERIES_IN_FLIGHT_MAX + 10 {
        client.submit(Query::Bindings { aor: aor.clone() });
    }
    let completions = drain(&mut client, QUERIES_IN_FLIGHT_MAX + 10);
    let refused: Vec<Ticket> = completions
        .iter()
        .filter(|completion| completion.result == Err(StoreError::Overloaded))
        .map(|completion| completion.ticket)
        .collect();
    let first = QUERIES_IN_FLIGHT_MAX as u64 + 1;
    let last: Vec<Ticket> = (first..first + 10).map(Ticket).collect();
    assert_eq!(refused, last, "those beyond the limit, and no others");
    assert_eq!(client.store().counters().overloaded, 10);
    assert!(StoreError::Overloaded.is_transient());
    assert_eq!(read(&mut client, &alice()), [], "afterwards it serves again");
}

fn a_closed_handle_owes_nothing(fixture: &dyn Fixture) {
    let mut one = client(fixture);
    for number in 0..300 {
        one.submit(Query::Write { aor: user(number), upserts: vec![binding(1)], now: NOW });
        one.submit(Query::Bindings { aor: user(number) });
    }
    one.store().close();
    let after = one.submit(Query::Bindings { aor: alice() });
    let mut results = BTreeMap::new();
    while let Some(completion) = one.store().poll_completion() {
        let again = results.insert(completion.ticket, completion.result);
        assert_eq!(again, None, "{:?} has one completion", completion.ticket);
    }
    assert_eq!(results.len(), 601, "all of them are there as soon as it is closed");
    let refused = results.remove(&after);
    assert!(matches!(refused, Some(Err(StoreError::Unavailable { .. }))), "{refused:?}");
    // What it said is done is done.
    let mut two = client(fixture);
    for number in 0..300 {
        let said = results.get(&Ticket(1 + 2 * number)) == Some(&Ok(Answer::Done));
        let aor = user(usize::try_from(number).unwrap());
        assert_eq!(read(&mut two, &aor).len(), usize::from(said), "user {number}");
    }
}

fn queries_are_counted_by_kind(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let before = client.store().counters();
    for _ in 0..3 {
        read(&mut client, &alice());
    }
    super::write(&mut client, &alice(), &[binding(1)]);
    let counters = client.store().counters();
    let new = |kind| counters.queries_of(kind) - before.queries_of(kind);
    assert_eq!((new(QueryKind::Bindings), new(QueryKind::Write)), (3, 1));
    assert_eq!(counters.failures.iter().sum::<u64>(), 0);
    assert_eq!(client.store().health(), StoreHealth::Serving);
}

fn drain(client: &mut Client, count: usize) -> Vec<Completion> {
    let next = |place| {
        client.next_completion().unwrap_or_else(|| panic!("completion {place} of {count} came"))
    };
    let mut next = next;
    (0..count).map(&mut next).collect()
}
