//! REGISTERs against rows: what is written, what is answered, what is refused.

use super::*;
use crate::testing::{names, request, with};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn aor() -> Aor {
    Aor::new(b"alice", b"example.com")
}

fn registered(fields: &[&str], rows: &[Binding], now: UnixMillis) -> Result<Registered, Reject> {
    registered_through(fields, rows, now, false)
}

/// `is_brief`: through a balancer on its way out.
fn registered_through(
    fields: &[&str],
    rows: &[Binding],
    now: UnixMillis,
    is_brief: bool,
) -> Result<Registered, Reject> {
    let mut all = vec![
        "To: <sip:alice@example.com>",
        "Call-ID: reg-1",
        "User-Agent: phone/1",
        "Path: <sip:token@127.0.10.1:5060;lr;ob>, <sip:edge@192.0.2.7;lr>",
    ];
    // Later fields replace earlier ones of the same name.
    for field in fields {
        let name = field.split(':').next();
        all.retain(|it| it.split(':').next() != name || name == Some("Contact"));
    }
    all.extend(fields);
    let received = Some("192.0.2.1:40000".parse().expect("an address"));
    with(&request("REGISTER sip:example.com", &all), |request| {
        let aor = aor();
        let registration = Registration { aor: &aor, rows, received, is_brief, now };
        register(&RegistrarPolicy::default(), request, registration)
    })
}

/// The rows after a REGISTER that must succeed.
fn rows_after(fields: &[&str], rows: &[Binding], now: UnixMillis) -> Vec<Binding> {
    let registered = registered(fields, rows, now).expect("accepted");
    let mut after = rows.to_vec();
    for upsert in registered.upserts {
        after.retain(|row| row.id != upsert.id);
        after.push(upsert);
    }
    after
}

fn contacts_of(registered: &Registered) -> Vec<String> {
    let contacts = registered.fields.iter().filter(|(name, _)| *name == "Contact");
    contacts.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

fn later(seconds: u64) -> UnixMillis {
    NOW.plus(Duration::from_secs(seconds))
}

/// Two registrars' clocks differ by ten seconds: the stamp goes ahead, the lifetime does not grow.
#[test]
fn no_lifetime_is_longer_than_it_was_asked_for() {
    let contact = "Contact: <sip:alice@192.0.2.1>;expires=120";
    let rows = rows_after(&["CSeq: 1 REGISTER", contact], &[], later(10));
    let found = registered(&["CSeq: 2 REGISTER", contact], &rows, NOW).expect("accepted");
    assert_eq!(contacts_of(&found), ["<sip:alice@192.0.2.1>;expires=120"]);
}

#[test]
fn a_contact_becomes_a_row_with_all_that_the_register_says() {
    let contact = "Contact: \"A\" <sip:alice@192.0.2.1:5070;x=y>;q=0.5;expires=120";
    let found = registered(&["CSeq: 7 REGISTER", contact], &[], NOW).expect("accepted");
    let [row] = found.upserts.as_slice() else { panic!("one row") };
    let expected = Binding {
        id: row.id,
        contact: b"sip:alice@192.0.2.1:5070;x=y".to_vec(),
        path: vec![
            b"<sip:token@127.0.10.1:5060;lr;ob>".to_vec(),
            b"<sip:edge@192.0.2.7;lr>".to_vec(),
        ],
        received: Some("192.0.2.1:40000".parse().expect("an address")),
        q: 500,
        call_id: b"reg-1".to_vec(),
        cseq: 7,
        expires_at: later(120),
        updated_at: NOW,
        user_agent: b"phone/1".to_vec(),
        instance: None,
        reg_id: None,
        direct: false,
    };
    assert_eq!(*row, expected);
    assert_eq!(contacts_of(&found), ["<sip:alice@192.0.2.1:5070;x=y>;expires=120;q=0.500"]);
    let date = found.fields.iter().find(|(name, _)| *name == "Date").expect("a date");
    assert_eq!(date.1, b"Tue, 14 Nov 2023 22:13:20 GMT");
}

/// RFC 3261 §10.3 steps 6 and 7: how long a contact lives.
#[test]
fn the_lifetime_is_the_parameter_else_the_field_else_the_default() {
    let too_brief = || Err(Reject::IntervalTooBrief { min_s: 60 });
    #[rustfmt::skip]
    let table: [(&str, &str, Result<u64, Reject>); 9] = [
        ("Contact: <sip:a@192.0.2.1>",                  "Expires:",          Ok(3_600)),
        ("Contact: <sip:a@192.0.2.1>",                  "Expires: 600",      Ok(600)),
        ("Contact: <sip:a@192.0.2.1>;expires=120",      "Expires: 600",      Ok(120)),
        ("Contact: <sip:a@192.0.2.1>;expires=60",       "Expires:",          Ok(60)),
        ("Contact: <sip:a@192.0.2.1>;expires=59",       "Expires: 600",      too_brief()),
        ("Contact: <sip:a@192.0.2.1>",                  "Expires: 1",        too_brief()),
        ("Contact: <sip:a@192.0.2.1>;expires=90000",    "Expires:",          Ok(86_400)),
        ("Contact: <sip:a@192.0.2.1>;expires=2147483647", "Expires:",        Ok(86_400)),
        ("Contact: <sip:a@192.0.2.1>;expires=soon",     "Expires: 600",      Ok(600)),
    ];
    for (contact, expires, expected) in table {
        let found = registered(&[contact, expires], &[], NOW).map(|it| {
            it.upserts.first().map(|row| row.expires_at.since(NOW).as_secs()).expect("one row")
        });
        assert_eq!(found, expected, "{contact} {expires}");
    }
}

#[test]
fn the_200_lists_every_live_binding_with_what_is_left() {
    let rows = rows_after(&["Contact: <sip:a@192.0.2.1>;expires=100;q=0.1"], &[], NOW);
    let fields = ["CSeq: 2 REGISTER", "Contact: <sip:a@192.0.2.2>, <sip:a@192.0.2.3>;expires=60"];
    let found = registered(&fields, &rows, later(40)).expect("accepted");
    let mut contacts = contacts_of(&found);
    contacts.sort();
    let expected = [
        "<sip:a@192.0.2.1>;expires=60;q=0.100",
        "<sip:a@192.0.2.2>;expires=3600",
        "<sip:a@192.0.2.3>;expires=60",
    ];
    assert_eq!(contacts, expected);

    let query = registered(&["CSeq: 3 REGISTER"], &rows, later(99)).expect("accepted");
    assert_eq!(query.upserts, [], "without a Contact it only asks");
    assert_eq!(contacts_of(&query), ["<sip:a@192.0.2.1>;expires=1;q=0.100"]);
    let query = registered(&["CSeq: 4 REGISTER"], &rows, later(100)).expect("accepted");
    assert_eq!(contacts_of(&query), [""; 0], "expired");
}

#[test]
fn equal_contacts_are_one_binding_and_flows_of_one_instance_are_two() {
    let instance = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";
    let flow =
        |host: &str, reg_id: &str| format!("Contact: <sip:a@{host}>;{instance};reg-id={reg_id}");
    #[rustfmt::skip]
    let table = [
        ("the same",                     "Contact: <sip:a@192.0.2.1>".to_owned(),     "Contact: <sip:a@192.0.2.1>".to_owned(),      1),
        ("equal by comparison",          "Contact: <sip:a@H.example.net>".to_owned(), "Contact: <sip:%61@h.EXAMPLE.net>".to_owned(), 1),
        ("another port",                 "Contact: <sip:a@192.0.2.1>".to_owned(),     "Contact: <sip:a@192.0.2.1:5070>".to_owned(), 2),
        ("another user, by case",        "Contact: <sip:a@192.0.2.1>".to_owned(),     "Contact: <sip:A@192.0.2.1>".to_owned(),      2),
        ("one flow from a new address",  flow("192.0.2.1", "1"),                      flow("192.0.2.99", "1"),                      1),
        ("two flows",                    flow("192.0.2.1", "1"),                      flow("192.0.2.1", "2"),                       2),
    ];
    for (name, first, second, expected) in table {
        let rows = rows_after(&["CSeq: 1 REGISTER", &first], &[], NOW);
        let rows = rows_after(&["CSeq: 2 REGISTER", &second], &rows, later(1));
        assert_eq!(rows.len(), expected, "{name}");
    }
}

#[test]
fn flows_are_answered_as_flows() {
    let instance = "+sip.instance=\"<urn:uuid:1>\";reg-id=1";
    let contact = format!("Contact: <sip:a@192.0.2.1;ob>;{instance}");
    let found = registered(&["Supported: path, outbound", &contact], &[], NOW).expect("accepted");
    assert!(found.fields.contains(&("Require", b"outbound".to_vec())));
    let expected = format!("<sip:a@192.0.2.1;ob>;expires=3600;{instance}");
    assert_eq!(contacts_of(&found), [expected]);

    let plain = registered(&["Contact: <sip:a@192.0.2.1>"], &[], NOW).expect("accepted");
    assert!(plain.fields.iter().all(|(name, _)| *name != "Require"));
}

/// RFC 3261 §10.3 step 7, and what a dead proxy may leave behind.
#[test]
fn a_late_register_is_refused_and_a_repeated_one_is_answered_again() {
    struct Row {
        name: &'static str,
        fields: &'static [&'static str],
        /// How many rows are written, or the refusal.
        expected: Result<usize, Reject>,
    }
    let first = ["CSeq: 5 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=600"];
    let rows = rows_after(&first, &[], NOW);
    #[rustfmt::skip]
    let table = [
        Row { name: "the same again",                 fields: &["CSeq: 5 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=600"], expected: Ok(0) },
        Row { name: "the next",                       fields: &["CSeq: 6 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=600"], expected: Ok(1) },
        Row { name: "an earlier one",                 fields: &["CSeq: 4 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=600"], expected: Err(Reject::RegisterOutOfOrder) },
        Row { name: "the same number, another life",  fields: &["CSeq: 5 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=700"], expected: Err(Reject::RegisterOutOfOrder) },
        Row { name: "the same number to remove",      fields: &["CSeq: 5 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=0"],   expected: Err(Reject::RegisterOutOfOrder) },
        Row { name: "an earlier one to remove all",   fields: &["CSeq: 4 REGISTER", "Contact: *", "Expires: 0"],               expected: Err(Reject::RegisterOutOfOrder) },
        Row { name: "a phone that restarted",         fields: &["CSeq: 1 REGISTER", "Call-ID: reg-2", "Contact: <sip:a@192.0.2.1>"], expected: Ok(1) },
        Row { name: "an earlier one, other contact",  fields: &["CSeq: 4 REGISTER", "Contact: <sip:a@192.0.2.2>"],             expected: Ok(1) },
    ];
    for row in table {
        let found = registered(row.fields, &rows, later(2)).map(|it| it.upserts.len());
        assert_eq!(found, row.expected, "{}", row.name);
    }
}

/// The answer was lost; before the REGISTER comes again its balancer begins to leave, or stays after
/// all. What was granted first may have reached the phone, so it is what the second answer says.
#[test]
fn a_register_repeated_when_its_balancer_begins_to_leave_is_answered_as_before() {
    let phone = "Contact: <sip:a@192.0.2.1>";
    for (expires, is_brief, granted) in [
        ("Expires: 600", false, 600),
        ("Expires:", false, 3_600),
        ("Expires: 600", true, 60),
        ("Expires:", true, 60),
    ] {
        let fields = ["CSeq: 5 REGISTER", phone, expires];
        let first = registered_through(&fields, &[], NOW, is_brief).expect("accepted");
        let rows = first.upserts;
        let again = registered_through(&fields, &rows, NOW, !is_brief).expect("repeated");
        assert_eq!(again.upserts, []);
        assert_eq!(contacts_of(&again), [format!("<sip:a@192.0.2.1>;expires={granted}")]);

        let other = ["CSeq: 5 REGISTER", phone, "Expires: 700"];
        let found = registered_through(&other, &rows, NOW, false);
        let is_told_apart = granted != 60;
        assert_eq!(found.is_err(), is_told_apart, "{expires} and 700");
    }
}

#[test]
fn unregistering_keeps_the_row_so_that_nothing_brings_it_back() {
    let rows = rows_after(&["CSeq: 1 REGISTER", "Contact: <sip:a@192.0.2.1>"], &[], NOW);
    let removals: [&[&str]; 2] = [
        &["CSeq: 3 REGISTER", "Contact: <sip:a@192.0.2.1>;expires=0"],
        &["CSeq: 3 REGISTER", "Contact: *", "Expires: 0"],
    ];
    for removal in removals {
        let found = registered(removal, &rows, later(5)).expect("accepted");
        assert_eq!(contacts_of(&found), [""; 0]);
        let rows = rows_after(removal, &rows, later(5));
        let [row] = rows.as_slice() else { panic!("the row is still there") };
        assert_eq!((row.cseq, row.is_live(later(5))), (3, false));

        let delayed = ["CSeq: 2 REGISTER", "Contact: <sip:a@192.0.2.1>"];
        let found = registered(&delayed, &rows, later(6));
        assert_eq!(found, Err(Reject::RegisterOutOfOrder), "a delayed refresh");
        let again = registered(removal, &rows, later(7)).expect("repeated");
        assert_eq!(again.upserts, []);
    }
}

#[test]
fn a_star_removes_all_but_only_with_expires_0_and_alone() {
    let two = ["Contact: <sip:a@192.0.2.1>, <sip:a@192.0.2.2>"];
    let mut rows = rows_after(&two, &[], NOW);
    let mut provided = rows.first().cloned().expect("a row");
    provided.id = BindingId([9; 16]);
    provided.direct = true;
    rows.push(provided);

    let star = ["CSeq: 2 REGISTER", "Contact: *", "Expires: 0"];
    let after = rows_after(&star, &rows, later(1));
    let live: Vec<_> = after.iter().filter(|row| row.is_live(later(1))).collect();
    assert!(matches!(live.as_slice(), [one] if one.direct), "the operator's stays");

    for wrong in [
        &["CSeq: 2 REGISTER", "Contact: *"] as &[&str],
        &["CSeq: 2 REGISTER", "Contact: *", "Expires: 60"],
    ] {
        let found = registered(wrong, &rows, later(1));
        assert!(matches!(found, Err(Reject::BadRequest { .. })), "{wrong:?}");
    }
}

#[test]
fn the_write_is_later_than_the_last_one_even_if_the_clock_is_not() {
    let rows = rows_after(&["CSeq: 1 REGISTER", "Contact: <sip:a@192.0.2.1>"], &[], later(10));
    let behind = registered(&["CSeq: 2 REGISTER", "Contact: <sip:a@192.0.2.1>"], &rows, NOW);
    let row = behind.expect("accepted").upserts.pop().expect("a row");
    assert_eq!(row.updated_at, UnixMillis(later(10).0 + 1));
}

#[test]
fn contacts_are_limited_and_refreshing_is_not() {
    let mut rows = Vec::new();
    for number in 1..=10 {
        let contact = format!("Contact: <sip:a@192.0.2.{number}>");
        rows = rows_after(&[&contact], &rows, NOW);
    }
    let eleventh = registered(&["Contact: <sip:a@192.0.2.11>"], &rows, NOW);
    assert_eq!(eleventh, Err(Reject::TooManyContacts { limit: 10 }));
    let refresh = registered(&["CSeq: 2 REGISTER", "Contact: <sip:a@192.0.2.1>"], &rows, NOW);
    assert!(refresh.is_ok());
    let swap = "Contact: <sip:a@192.0.2.1>;expires=0, <sip:a@192.0.2.11>";
    assert!(registered(&["CSeq: 2 REGISTER", swap], &rows, NOW).is_ok());
}

#[test]
fn contacts_that_make_no_sense_are_refused() {
    for contact in ["Contact: <mailto:a@example.com>", "Contact: <tel:+4930123>"] {
        let found = registered(&[contact], &[], NOW);
        assert!(matches!(found, Err(Reject::BadRequest { .. })), "{contact}");
    }
}

#[test]
fn an_escaped_nul_is_one_octet_of_many() {
    let contact = "Contact: <sip:%00@192.0.2.1>, <sip:%00%00@192.0.2.1>";
    let found = registered(&[contact], &[], NOW).expect("accepted");
    assert_eq!(found.upserts.len(), 2, "two contacts, not one of length zero");
    let to = "To: <sip:null-%00-null@example.com>";
    let aor =
        with(&request("REGISTER sip:example.com", &[to]), |request| aor_of(request, &names()));
    assert_eq!(aor, Ok(Aor::new(b"null-\0-null", b"example.com")));
}

#[test]
fn only_users_of_our_domains_can_be_registered() {
    for to in ["To: <sip:alice@elsewhere.net>", "To: <sip:example.com>"] {
        let found =
            with(&request("REGISTER sip:example.com", &[to]), |request| aor_of(request, &names()));
        assert_eq!(found, Err(Reject::NotFound), "{to}");
    }
}
