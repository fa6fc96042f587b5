//! What the balancers notice by themselves: proxies that are killed or frozen, under datagrams and
//! under streams.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use fleet::Tier;
use load_client::{Registration, Report, Uas, UasOptions};

use crate::call::connect;
use crate::cloud::{Cloud, DOMAIN, Data, PATIENCE, eventually, instances, kill, pids, tier};
use crate::load::{self, CALLERS};
use crate::phone::Phone;

/// A call whose INVITE a proxy has acknowledged with 100 and not yet forwarded is known to that
/// process alone: a client over UDP has then stopped repeating. Of a hundred calls per second such a
/// moment, some milliseconds of each, catches one at most.
const LOST_INSIDE_MAX: u64 = 3;

/// Callees that are reached through the balancer.
fn registered_callees(cloud: &Cloud<'_>) -> Uas {
    let callees = Uas::start(UasOptions {
        users: vec![load::user("bob"), load::user("bill")],
        registration: Some(Registration::at(vec![cloud.balancer(1)])),
        ..UasOptions::direct(vec![cloud.data.address(30, 3, 0)], DOMAIN)
    })
    .expect("callees");
    assert!(callees.wait_registered(2, PATIENCE), "{:?}", callees.counters());
    callees
}

/// Load over two proxies; `signal` reaches one of them in the middle. Returns what became of the
/// calls, and the balancer's metrics once it skips a member.
fn strike(network: u8, signal: &str) -> (Report, String) {
    let data = Data::claim(network).with_users(&CALLERS).with_users(&["bob", "bill"]);
    let cloud = data.up("--proxies 2..2", "");
    let _callees = registered_callees(&cloud);
    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["bob", "bill"], "30@8s");
    let running = load::start(plan);
    let before = cloud.fleet();
    eventually(PATIENCE, || is_busy(&cloud).then_some(())).expect("calls");
    let victim = instances(&before, Tier::Proxy)[0].pid.expect("a process");
    kill(signal, victim);
    let metrics = wait_until_one_is_skipped(&cloud);
    let report = running.join().expect("the callers");
    println!("{report}");
    // The manager gives a process that is silent, and not dead, two dozen polls.
    cloud.wait("a replacement", 4 * PATIENCE, |fleet| {
        let now = instances(fleet, Tier::Proxy);
        now.iter().all(|it| it.pid != Some(victim)) && tier(fleet, Tier::Proxy).in_service == 2
    });
    (report, metrics)
}

/// The balancer's metrics once it holds a proxy dead.
fn wait_until_one_is_skipped(cloud: &Cloud<'_>) -> String {
    let is_death = |line: &str| {
        line.starts_with("sipcloud_balancer_member_transitions_total{to=\"dead\"")
            && !line.ends_with(" 0")
    };
    let skips = || Some(metrics(cloud)).filter(|metrics| metrics.lines().any(is_death));
    eventually(PATIENCE, skips).expect("the balancer skips a proxy")
}

/// Whether some dozens of calls have passed.
fn is_busy(cloud: &Cloud<'_>) -> bool {
    let metrics = metrics(cloud);
    let is_it = |line: &&str| line.starts_with("sipcloud_balancer_to_members_total{");
    let values = metrics.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<u64>().ok()).sum::<u64>() > 300
}

fn metrics(cloud: &Cloud<'_>) -> String {
    let secrets = std::fs::read_to_string(cloud.data.path().join("secrets.json")).expect("secrets");
    let secrets: serde_json::Value = serde_json::from_str(&secrets).expect("JSON");
    let token = secrets["node_token"].as_str().expect("a token");
    let control = cloud.data.address(10, 1, 8060);
    let mut stream = TcpStream::connect(control).expect("it listens");
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

fn assert_few_lost(report: &Report) {
    assert!(report.started >= 200, "{report}");
    assert!(report.failed + report.unfinished <= LOST_INSIDE_MAX, "{report}");
}

/// Goal: `kill -9` of a proxy under load is noticed from what the network gives back, and costs only
/// what was inside the process.
#[test]
fn a_proxy_killed_under_load_is_skipped_at_once() {
    let (report, metrics) = strike(186, "KILL");
    assert_few_lost(&report);
    let line = "sipcloud_balancer_member_transitions_total{to=\"dead\",reason=\"refused\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

/// Goal: a process that hangs sends no error; its silence is noticed all the same.
#[test]
fn a_proxy_frozen_under_load_is_suspect_and_skipped() {
    let (report, metrics) = strike(187, "STOP");
    assert_few_lost(&report);
    let line = "sipcloud_balancer_member_transitions_total{to=\"suspect\",reason=\"silent\"} 0\n";
    assert!(!metrics.contains(line), "{metrics}");
}

/// Goal: a proxy that was frozen until its balancer held it dead, and then goes on, has its calls back
/// without anybody's help: the manager makes two generations for it.
#[test]
fn a_proxy_that_was_held_dead_and_lives_gets_its_calls_back() {
    let data = Data::claim(190).with_users(&CALLERS);
    let cloud = data.up("--proxies 2..2", "");
    let _callees = load::direct_callees(&cloud);
    let before = cloud.fleet();
    let victim = instances(&before, Tier::Proxy)[0].pid.expect("a process");
    // One that never answered a probe is not doubted.
    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], "10@1s");
    load::assert_no_call_failed(&load::run(&plan));
    kill("STOP", victim);
    wait_until_one_is_skipped(&cloud);
    kill("CONT", victim);
    let line = "sipcloud_balancer_member_transitions_total{to=\"alive\",reason=\"generation\"} 1\n";
    let is_back = || metrics(&cloud).contains(line).then_some(());
    eventually(PATIENCE, is_back).expect("the balancer uses it again");
    cloud.wait("both in service", PATIENCE, |fleet| tier(fleet, Tier::Proxy).in_service == 2);
    assert_eq!(pids(&cloud.fleet()), pids(&before), "nobody was replaced");
    let told = |text: &str| cloud.events().iter().any(|event| event.text.contains(text));
    assert!(told("balancer-1 held it dead and it answers"), "{:?}", cloud.events());
    load::assert_no_call_failed(&load::run(&plan));
}

/// Goal: TCP clients, who send nothing twice, lose no call with a proxy. Method: the proxy dies just
/// after the INVITEs have left, some acknowledged with 100, some not yet read, some at the callee.
#[test]
fn no_call_of_a_stream_client_is_lost_with_a_proxy() {
    let data = Data::claim(188).with_users(&["alice", "bob"]);
    let cloud = data.up("--proxies 2..2", "");
    let at = cloud.balancer(1);
    let (mut alice, mut bob) = (Phone::tcp("alice", at), Phone::tcp("bob", at));
    assert_eq!(bob.register(at, 600).status(), Some(200));
    let before = cloud.fleet();
    let victim = instances(&before, Tier::Proxy)[0].pid.expect("a process");

    let dialled: Vec<_> = (0..8).map(|_| alice.dial(at, "bob")).collect();
    kill("KILL", victim);
    // A callee repeats its 200 until the ACK; this one does not, so no 200 may meet the dead proxy.
    wait_until_one_is_skipped(&cloud);
    let mut calls = Vec::new();
    for _ in &dialled {
        let ringing = bob.ring();
        let call = dialled.iter().find(|call| call.is_of(&ringing)).expect("one of ours");
        calls.push(connect(&mut alice, &mut bob, call, &ringing, at));
    }
    for (number, (mut ours, mut theirs)) in calls.into_iter().enumerate() {
        if number % 2 == 0 {
            alice.hang_up(&mut ours, at, &mut bob);
        } else {
            bob.hang_up(&mut theirs, at, &mut alice);
        }
    }
    // The manager gives a process that is silent, and not dead, two dozen polls.
    cloud.wait("a replacement", 4 * PATIENCE, |fleet| {
        let now = instances(fleet, Tier::Proxy);
        now.iter().all(|it| it.pid != Some(victim)) && tier(fleet, Tier::Proxy).in_service == 2
    });
}
