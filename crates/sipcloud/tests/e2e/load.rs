//! Load on a cloud: the project's own callers and callees.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use load_client::{Credentials, Plan, Report, Stop, Uas, UasOptions, run_uac};

use crate::cloud::{Cloud, DOMAIN, PASSWORD};

/// Users that call.
pub(crate) const CALLERS: [&str; 3] = ["anna", "arno", "anja"];

pub(crate) fn user(name: &str) -> Credentials {
    Credentials { user: name.to_owned(), password: PASSWORD.to_owned() }
}

/// Callees at a fixed address, made known as the binding of `trunk`.
pub(crate) fn direct_callees(cloud: &Cloud<'_>) -> Uas {
    let local = cloud.data.address(30, 2, 5060);
    cloud.data.good(&format!("registration add trunk@{DOMAIN} sip:trunk@{local} --direct"), "");
    Uas::start(UasOptions::direct(vec![local], DOMAIN)).expect("callees")
}

/// Figure 4 of the paper through these balancers.
pub(crate) fn figure_4(
    cloud: &Cloud<'_>,
    targets: Vec<SocketAddr>,
    callees: &[&str],
    schedule: &str,
) -> Plan {
    let local = vec![cloud.data.address(31, 1, 0), cloud.data.address(31, 2, 0)];
    let schedule = schedule.parse().expect("a schedule");
    Plan {
        users: CALLERS.map(user).to_vec(),
        callees: callees.iter().map(|it| (*it).to_owned()).collect(),
        ..Plan::figure_4(targets, local, DOMAIN, schedule)
    }
}

pub(crate) fn run(plan: &Plan) -> Report {
    run_uac(plan, &Stop::new(), |_| {}).expect("callers")
}

/// The same in the background.
pub(crate) fn start(plan: Plan) -> JoinHandle<Report> {
    std::thread::spawn(move || run(&plan))
}

pub(crate) fn assert_no_call_failed(report: &Report) {
    println!("{report}");
    assert!(report.started > 0 && report.failed + report.unfinished == 0, "{report}");
    assert_eq!(report.succeeded, report.started, "{report}");
}
