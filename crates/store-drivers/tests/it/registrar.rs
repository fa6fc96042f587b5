//! REGISTERs through two proxies on one store: what the registrar decides from what a driver keeps.
//! One suite for every driver, beside `store::contract`.

use std::convert::Infallible;
use std::time::Duration;

use sip_core::registrar::{self, Registered, RegistrarPolicy, Registration};
use sip_core::reject::Reject;
use store::contract::Fixture;
use store::{Answer, Aor, Binding, Blocking, Query, Store, UnixMillis};

use super::NOW;

/// A proxy as far as it registers: its own handle on the store, its own time of receipt.
struct Proxy(Blocking<Box<dyn Store>>);

/// One of the suite: its name, and what it asks of two proxies.
type Check = fn(&mut Proxy, &mut Proxy);

const CHECKS: [(&str, Check); 7] = [
    ("a_binding_expires_on_time_on_every_proxy", a_binding_expires_on_time_on_every_proxy),
    ("an_expiry_is_extended_and_shortened", an_expiry_is_extended_and_shortened),
    ("an_unregistered_device_is_gone_everywhere", an_unregistered_device_is_gone_everywhere),
    ("a_star_removes_every_device", a_star_removes_every_device),
    ("two_devices_register_at_the_same_moment", two_devices_register_at_the_same_moment),
    ("a_stale_cseq_is_refused_on_every_proxy", a_stale_cseq_is_refused_on_every_proxy),
    ("a_register_repeated_elsewhere_is_answered_again", a_register_repeated_elsewhere),
];

/// Runs it, each check on a fresh store; panics at the first breach.
pub(crate) fn run(fresh: &dyn Fn() -> Box<dyn Fixture>) {
    for (name, check) in CHECKS {
        println!("registrar: {name}");
        let fixture = fresh();
        check(&mut Proxy::on(&*fixture), &mut Proxy::on(&*fixture));
    }
}

impl Proxy {
    fn on(fixture: &dyn Fixture) -> Self {
        let open = |wake| Ok::<_, Infallible>(fixture.open(wake));
        let opened = Blocking::open(Duration::from_secs(20), open);
        Self(opened.unwrap_or_else(|never| match never {}))
    }

    fn rows(&mut self) -> Vec<Binding> {
        match self.0.ask(Query::Bindings { aor: alice() }) {
            Ok(Answer::Bindings(rows)) => rows,
            other => panic!("bindings were asked for: {other:?}"),
        }
    }

    /// What the registrar makes of a REGISTER with these fields and these rows.
    fn decide(rows: &[Binding], fields: &str, now: UnixMillis) -> Result<Registered, Reject> {
        let text =
            format!("REGISTER sip:example.com SIP/2.0\nTo: <sip:alice@example.com>\n{fields}");
        let request = testkit::request(&text);
        let aor = alice();
        let received = Some("192.0.2.1:40000".parse().expect("an address"));
        let registration = Registration { aor: &aor, rows, received, is_brief: false, now };
        registrar::register(&RegistrarPolicy::default(), &request.view(), registration)
    }

    fn write(&mut self, registered: Registered, now: UnixMillis) {
        let query = Query::Write { aor: alice(), upserts: registered.upserts, now };
        assert_eq!(self.0.ask(query), Ok(Answer::Done));
    }

    /// The whole walk of a REGISTER: how many rows it wrote, or why it was refused.
    fn register(&mut self, fields: &str, now: UnixMillis) -> Result<usize, Reject> {
        let registered = Self::decide(&self.rows(), fields, now)?;
        let written = registered.upserts.len();
        self.write(registered, now);
        Ok(written)
    }

    /// How many contacts a call would be sent to.
    fn live(&mut self, now: UnixMillis) -> usize {
        self.rows().iter().filter(|row| row.is_live(now)).count()
    }
}

fn alice() -> Aor {
    Aor::new(b"alice", b"example.com")
}

fn later(millis: u64) -> UnixMillis {
    NOW.plus(Duration::from_millis(millis))
}

/// The fields of a REGISTER of one of alice's devices.
fn of(device: u8, cseq: u32, expires: u32) -> String {
    format!(
        "Call-ID: device-{device}\nCSeq: {cseq} REGISTER\n\
         Contact: <sip:alice@192.0.2.{device}:5062>;expires={expires}\n",
    )
}

fn a_binding_expires_on_time_on_every_proxy(one: &mut Proxy, two: &mut Proxy) {
    assert_eq!(one.register(&of(1, 1, 120), NOW), Ok(1));
    assert_eq!(two.register(&of(2, 1, 60), later(500)), Ok(1));
    for (at, live) in [(500, 2), (60_499, 2), (60_500, 1), (119_999, 1), (120_000, 0)] {
        assert_eq!((one.live(later(at)), two.live(later(at))), (live, live), "after {at} ms");
    }
}

fn an_expiry_is_extended_and_shortened(one: &mut Proxy, two: &mut Proxy) {
    assert_eq!(one.register(&of(1, 1, 60), NOW), Ok(1));
    assert_eq!(two.register(&of(1, 2, 3_600), later(1_000)), Ok(1));
    for proxy in [&mut *one, &mut *two] {
        assert_eq!((proxy.live(later(60_000)), proxy.live(later(3_600_999))), (1, 1), "extended");
    }
    assert_eq!(one.register(&of(1, 3, 60), later(2_000)), Ok(1));
    for proxy in [&mut *one, &mut *two] {
        assert_eq!((proxy.live(later(61_999)), proxy.live(later(62_000))), (1, 0), "shortened");
        assert_eq!(proxy.rows().len(), 1, "in one row");
    }
}

fn an_unregistered_device_is_gone_everywhere(one: &mut Proxy, two: &mut Proxy) {
    assert_eq!(one.register(&of(1, 1, 3_600), NOW), Ok(1));
    assert_eq!(one.register(&of(2, 1, 3_600), NOW), Ok(1));
    // The refresh was decided on before and is written after: its stamp was fixed before.
    let delayed = Proxy::decide(&two.rows(), &of(1, 2, 3_600), later(100)).expect("accepted");
    assert_eq!(one.register(&of(1, 3, 0), later(200)), Ok(1));
    assert_eq!((one.live(later(200)), two.live(later(200))), (1, 1));
    two.write(delayed, later(100));
    assert_eq!((one.live(later(300)), two.live(later(300))), (1, 1), "it does not come back");
    assert_eq!(two.register(&of(1, 2, 3_600), later(300)), Err(Reject::RegisterOutOfOrder));
    assert_eq!(two.register(&of(1, 4, 3_600), later(400)), Ok(1), "but a new one is one");
    assert_eq!((one.live(later(400)), two.live(later(400))), (2, 2));
}

fn a_star_removes_every_device(one: &mut Proxy, two: &mut Proxy) {
    for device in 1..=5 {
        assert_eq!(one.register(&of(device, 7, 3_600), NOW), Ok(1));
    }
    let star = |call_id: &str, cseq| {
        format!("Call-ID: {call_id}\nCSeq: {cseq} REGISTER\nContact: *\nExpires: 0\n")
    };
    let stale = two.register(&star("device-3", 6), later(1));
    assert_eq!(stale, Err(Reject::RegisterOutOfOrder), "overtaken for one of them: for all");
    assert_eq!((one.live(later(1)), two.live(later(1))), (5, 5));
    assert_eq!(two.register(&star("device-3", 8), later(2)), Ok(5));
    assert_eq!((one.live(later(2)), two.live(later(2))), (0, 0));
}

fn two_devices_register_at_the_same_moment(one: &mut Proxy, two: &mut Proxy) {
    // Method: both proxies read before either writes, and both writes are on their way at once.
    for round in 1..=20 {
        let (at, cseq) = (later(u64::from(round)), round);
        let (rows_of_one, rows_of_two) = (one.rows(), two.rows());
        let first = Proxy::decide(&rows_of_one, &of(1, cseq, 3_600), at).expect("accepted");
        let second = Proxy::decide(&rows_of_two, &of(2, cseq, 3_600), at).expect("accepted");
        one.0.submit(Query::Write { aor: alice(), upserts: first.upserts, now: at });
        two.0.submit(Query::Write { aor: alice(), upserts: second.upserts, now: at });
        for proxy in [&mut *one, &mut *two] {
            let done = proxy.0.next_completion().expect("a completion");
            assert_eq!(done.result, Ok(Answer::Done), "round {round}");
        }
        for proxy in [&mut *one, &mut *two] {
            let rows = proxy.rows();
            let is_new = rows.iter().all(|row| row.cseq == cseq && row.is_live(at));
            assert!(rows.len() == 2 && is_new, "round {round}: {rows:?}");
        }
    }
}

fn a_stale_cseq_is_refused_on_every_proxy(one: &mut Proxy, two: &mut Proxy) {
    assert_eq!(one.register(&of(1, 5, 3_600), NOW), Ok(1));
    for proxy in [&mut *one, &mut *two] {
        for expires in [0, 60, 7_200] {
            let stale = proxy.register(&of(1, 4, expires), later(1_000));
            assert_eq!(stale, Err(Reject::RegisterOutOfOrder), "expires={expires}");
        }
    }
    let rows = two.rows();
    assert_eq!(rows.len(), 1);
    assert!(rows.iter().all(|row| row.cseq == 5 && row.expires_at == later(3_600_000)));
    // A phone that was restarted counts anew, under another Call-ID.
    let restarted = of(1, 1, 120).replace("device-1", "device-1-again");
    assert_eq!(two.register(&restarted, later(2_000)), Ok(1));
    assert_eq!(one.rows().len(), 1);
}

fn a_register_repeated_elsewhere(one: &mut Proxy, two: &mut Proxy) {
    assert_eq!(one.register(&of(1, 1, 3_600), NOW), Ok(1));
    assert_eq!(two.register(&of(1, 1, 3_600), later(500)), Ok(0), "nothing is written");
    let other = two.register(&of(1, 1, 60), later(500));
    assert_eq!(other, Err(Reject::RegisterOutOfOrder), "another content is no repetition");
    assert_eq!((one.live(later(3_599_999)), one.live(later(3_600_000))), (1, 0));
}
