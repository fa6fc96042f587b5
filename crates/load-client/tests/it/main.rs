//! Callers against callees over real sockets, each test on loopback addresses of its own.

mod calls;
mod losses;
mod registration;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use load_client::{Challenge, Credentials, Plan, Report, Stop, Timing, UasOptions, run_uac};

/// Twenty-five times faster than the standard: 64·T1 is 1.28 s.
pub(crate) const FAST: Timing = Timing {
    t1: Duration::from_millis(20),
    t2: Duration::from_millis(160),
    t4: Duration::from_millis(100),
};

pub(crate) const REALM: &str = "example.com";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn users(count: usize) -> Vec<Credentials> {
    let user = |number| Credentials {
        user: format!("alice{number}"),
        password: format!("secret{number}"),
    };
    (0..count).map(user).collect()
}

/// Callees at `local` that challenge their callers themselves.
pub(crate) fn challenging(local: &str) -> UasOptions {
    UasOptions {
        users: users(3),
        challenge: Some(REALM.to_owned()),
        timing: FAST,
        ..UasOptions::direct(vec![address(local)], REALM)
    }
}

/// Figure 4 from `local` to `target`, by three users.
pub(crate) fn plan(local: &str, targets: &[SocketAddr], schedule: &str) -> Plan {
    let schedule = schedule.parse().expect("a schedule");
    Plan {
        users: users(3),
        callees: vec!["bob".to_owned(), "carol".to_owned()],
        timing: FAST,
        ..Plan::figure_4(targets.to_vec(), vec![address(local)], REALM, schedule)
    }
}

pub(crate) fn unchallenged(plan: Plan) -> Plan {
    Plan { challenge: Challenge::Allowed, ..plan }
}

pub(crate) fn run(plan: &Plan) -> Report {
    run_uac(plan, &Stop::new(), |_| {}).expect("the sockets can be bound")
}
