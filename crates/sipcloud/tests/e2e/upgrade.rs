//! Several managers over one cloud, and a cloud that goes over to another binary.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet::Tier;
use node_api::wire::{Event, EventKind, FleetStatus};

use crate::cloud::{Cloud, Data, PATIENCE, instances, kill, pids, tier};
use crate::load::{self, CALLERS};

const WITHIN: Duration = Duration::from_secs(60);

/// Short transactions, so that a drain ends within seconds; a quick eye for load.
const QUICK: &str = "timers.t1_ms = 100\nmanager.up_polls = 2\nmanager.down_polls = 3\n\
                     dns.ttl_s = 1\n";

/// Kills the manager that leads, which must be this one, and waits for the other's lead.
fn kill_leader(cloud: &Cloud<'_>, fleet: &FleetStatus) {
    let old = fleet.manager.pid;
    kill("KILL", old);
    cloud.wait("another leader", PATIENCE, |fleet| fleet.manager.leads && fleet.manager.pid != old);
}

/// Ends the killer also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the one who kills leaders has seen.
#[derive(Default, Debug)]
struct Struck {
    /// Behind which steps a leader was killed.
    behind: BTreeSet<String>,
    /// Those that another one had followed before the journal was read.
    passed: BTreeSet<String>,
}

/// The journal, of which each line is read once.
struct Journal {
    lines: std::io::BufReader<std::fs::File>,
    /// The line whose end is not written yet.
    unended: String,
}

impl Journal {
    fn open(data: &Data) -> Self {
        let file = std::fs::File::open(data.path().join("journal.jsonl")).expect("a journal");
        Self { lines: std::io::BufReader::new(file), unended: String::new() }
    }

    fn news(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while self.lines.read_line(&mut self.unended).expect("read") > 0 {
            if self.unended.ends_with('\n') {
                let line = std::mem::take(&mut self.unended);
                events.extend(serde_json::from_str::<Event>(&line));
            }
        }
        events
    }
}

/// The process that an event says leads from now on.
fn leader_of(event: &Event) -> Option<u32> {
    let is_lead = event.text.contains(" leads: process ");
    is_lead.then(|| event.text.split([' ', ',']).find_map(|word| word.parse().ok())).flatten()
}

/// Kills whoever leads as soon as the journal tells a step of a change behind which nobody has been
/// killed yet, until it is over.
fn kill_at_every_step(data: &Data, is_over: &AtomicBool) -> Struck {
    let mut journal = Journal::open(data);
    let mut struck = Struck::default();
    let mut leader = journal.news().iter().rev().find_map(leader_of);
    while !is_over.load(Ordering::Relaxed) {
        let mut steps = Vec::new();
        for event in journal.news() {
            if let Some(other) = leader_of(&event) {
                leader = Some(other);
                struck.passed.extend(steps.drain(..));
            }
            steps.extend(step_of(&event).filter(|step| !struck.behind.contains(step)));
        }
        if let Some(pid) = leader.take_if(|_| !steps.is_empty()) {
            kill("KILL", pid);
            struck.behind.extend(steps.pop());
        }
        struck.passed.extend(steps);
        std::thread::park_timeout(Duration::from_millis(2));
    }
    struck
}

/// A step of a change of the proxies: what was decided, what was done, and what an instance became.
/// What a new leader sees when it takes over is no step.
fn step_of(event: &Event) -> Option<String> {
    let text = &event.text;
    let step = match event.kind {
        EventKind::Decision => format!("decided {:?}", event.desired),
        // Without its number and who took it.
        EventKind::Act if text.contains(" published: ") => {
            let owners = text.split(": ").nth(1)?.split(" (").next()?;
            format!("published {owners}")
        }
        EventKind::Act => text.split(':').next()?.to_owned(),
        EventKind::Instance if text.contains(", was ") => text.clone(),
        EventKind::Instance if text == "gone" => text.clone(),
        _ => return None,
    };
    Some(step)
}

/// Goal: while the proxies come and go under calls, the manager that leads is killed at every step of
/// the change that its journal tells; the one that stood by finishes it, no call fails and
/// nothing is left over.
///
/// Method: the journal is read all the time; whoever leads is killed right behind each line that says
/// something new. Where two lines were written before the first was read, it is behind the second; and
/// what a leader had done and not yet told when it died is no step of the journal at all.
#[test]
fn a_standby_finishes_what_a_killed_leader_began() {
    let data = Data::claim(162).with_users(&CALLERS);
    // A boot that lasts long enough to be caught in it.
    let config = format!("{QUICK}local.boot_time_ms = 2000\n");
    let cloud = data.up("--managers 2 --proxies 1..2 --capacity 25", &config);
    let _callees = load::direct_callees(&cloud);
    let schedule = "8@2s,8..40@2s,40@25s,40..8@2s,8@25s";
    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], schedule);
    let first = cloud.fleet().manager;
    assert!(first.leads);
    let is_over = AtomicBool::new(false);
    let struck = std::thread::scope(|scope| {
        let over = Over(&is_over);
        let killer = scope.spawn(|| kill_at_every_step(&data, &is_over));
        let running = load::start(plan);
        cloud.wait("growth", WITHIN, |fleet| tier(fleet, Tier::Proxy).in_service == 2);
        cloud.wait("the end of the drain", WITHIN, |fleet| {
            instances(fleet, Tier::Proxy).len() == 1 && tier(fleet, Tier::Proxy).in_service == 1
        });
        load::assert_no_call_failed(&running.join().expect("the callers"));
        drop(over);
        killer.join().expect("the killer")
    });
    println!("{struck:?}");
    let growth =
        ["decided Some(2)", "created", "ready", "in service", "published proxy-1, proxy-2"];
    let drain = ["decided Some(1)", "told to drain", "draining", "published proxy-1 owns"];
    for steps in [&growth[..], &drain[..]] {
        let is_of = |struck: &String| steps.iter().any(|step| struck.starts_with(step));
        assert!(struck.behind.iter().any(is_of), "{steps:?}: {struck:?}");
    }
    let fleet = cloud.wait("a leader", PATIENCE, |fleet| fleet.manager.leads);
    let kills = struck.behind.len() as u64;
    assert!(kills >= 4, "{struck:?}");
    assert!(fleet.manager.fence >= first.fence + kills, "{:?}", fleet.manager);

    let events = cloud.events();
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.number, number, "one story: {event:?}");
    }
}

/// Another build of the same program: what follows the last section of a binary does not matter.
fn other_build(data: &Data) -> PathBuf {
    let path = data.path().join("another");
    std::fs::copy(env!("CARGO_BIN_EXE_sipcloud"), &path).expect("copied");
    let mut file = std::fs::File::options().append(true).open(&path).expect("opened");
    file.write_all(b"another build").expect("written");
    path
}

fn builds(fleet: &FleetStatus, tier: Tier) -> BTreeSet<String> {
    instances(fleet, tier).iter().map(|it| it.build.clone()).collect()
}

/// Goal: managers and proxies go over to another build under calls, of which none fails; the leader is
/// killed meanwhile. Then the balancers. Nothing of the old build is left, and the journal tells it.
#[test]
fn a_cloud_goes_over_to_another_build_under_calls() {
    let data = Data::claim(163).with_users(&CALLERS);
    let cloud = data.up("--managers 2 --balancers 1..1 --proxies 2..2", QUICK);
    let _callees = load::direct_callees(&cloud);
    let before = cloud.fleet();
    let binary = other_build(&data);
    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], "25@20s");
    let running = load::start(plan);
    let command = format!("upgrade --binary {}", binary.display());
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| data.good(&format!("{command} --tier proxies"), ""));
        let in_motion = cloud.wait("a drain", WITHIN, |fleet| {
            fleet.manager.build != before.manager.build
                && instances(fleet, Tier::Proxy).iter().any(|it| it.state == "draining")
        });
        kill_leader(&cloud, &in_motion);
        println!("{}", upgrade.join().expect("it ends"));
    });
    let proxies = cloud.fleet();
    let new = BTreeSet::from([proxies.manager.build.clone()]);
    assert_ne!(proxies.manager.build, before.manager.build);
    assert_eq!(builds(&proxies, Tier::Proxy), new);
    assert_eq!(tier(&proxies, Tier::Proxy).in_service, 2);
    assert_eq!(builds(&proxies, Tier::LoadBalancer), builds(&before, Tier::LoadBalancer));
    assert!(data.good("status", "").contains("build "), "a mixed fleet is shown");
    load::assert_no_call_failed(&running.join().expect("the callers"));

    println!("{}", data.good(&command, ""));
    let after = cloud.fleet();
    assert_eq!(builds(&after, Tier::LoadBalancer), new);
    assert!(pids(&after).iter().all(|it| !pids(&before).contains(it)), "{after:?}");
    assert!(data.good(&command, "").contains("all on build"), "nothing is left to do");
    println!("{}", data.good(&format!("{command} --anew"), ""));
    let restarted = cloud.fleet();
    let kept = pids(&restarted).into_iter().filter(|it| pids(&after).contains(it)).count();
    assert_eq!(kept, 0, "a rolling restart: {restarted:?}");
    let after = restarted;
    let plan = load::figure_4(
        &cloud,
        vec![instances(&after, Tier::LoadBalancer)[0].sip],
        &["trunk"],
        "10@2s",
    );
    load::assert_no_call_failed(&load::run(&plan));
    let told = |kind: EventKind, text: &str| {
        let events = cloud.events();
        events.iter().any(|event| event.kind == kind && event.text.contains(text))
    };
    assert!(told(EventKind::Manager, "is complete: 2 replaced"), "{:?}", cloud.events());
    assert!(told(EventKind::Act, "asked to drain: upgrade to build"));
}

/// Goal: a binary with which no node comes up changes nothing for calls, and the command says what to
/// do; with a good one it is made up for. One that is no program at all is refused at once.
#[test]
fn an_upgrade_that_fails_leaves_the_old_ones_in_service() {
    let data = Data::claim(164).with_users(&CALLERS);
    let cloud = data.up("--proxies 1..1", QUICK);
    let _callees = load::direct_callees(&cloud);
    let before = cloud.fleet();
    let script = |name: &str, text: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("changed");
        path
    };
    let nothing = script("nothing", "#!/bin/sh\nexit 3\n");
    let (is_success, _, errors) = data.run(&format!("upgrade --binary {}", nothing.display()), "");
    assert!(!is_success && errors.contains("nothing was changed"), "{errors}");

    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], "20@10s");
    let running = load::start(plan);
    let real = env!("CARGO_BIN_EXE_sipcloud");
    let bad = script(
        "bad",
        &format!(
            "#!/bin/sh\ncase \"$1\" in --version) echo sipcloud 9.9.9;; manager) exec {real} \"$@\";; \
             *) exit 1;; esac\n"
        ),
    );
    let (is_success, out, errors) =
        data.run(&format!("upgrade --tier proxies --binary {}", bad.display()), "");
    assert!(!is_success, "{out}");
    assert!(errors.contains("serves on") && errors.contains("upgrade` again"), "{errors}");
    let after = cloud.fleet();
    assert_eq!(after.manager.build, before.manager.build, "the managers went back");
    let old = pids(&before);
    assert!(old.iter().all(|it| pids(&after).contains(it)), "{after:?}");
    load::assert_no_call_failed(&running.join().expect("the callers"));

    let good = other_build(&data);
    data.good(&format!("upgrade --tier proxies --binary {}", good.display()), "");
    let mended = cloud.fleet();
    assert_eq!(builds(&mended, Tier::Proxy), BTreeSet::from([mended.manager.build.clone()]));
    assert_ne!(mended.manager.build, before.manager.build);
}
