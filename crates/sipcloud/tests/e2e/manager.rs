//! What dies and what stays: manager, proxies, secrets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::Tier;
use node_api::wire::{EventKind, FleetStatus};
use provider_drivers::process::ProcessIdentity;

use crate::call::connect;
use crate::cloud::{DOMAIN, Data, PASSWORD, PATIENCE, eventually, instances, kill, pids, tier};
use crate::load::{self, CALLERS};
use crate::phone::Phone;

/// Goal: calls do not notice that the manager is killed, twice; the next one adopts every machine,
/// makes none twice and forgets none.
#[test]
fn a_killed_manager_is_replaced_by_one_that_adopts_the_fleet() {
    let data = Data::claim(152).with_users(&CALLERS);
    let cloud = data.up("--balancers 2..2 --proxies 2..2", "");
    let _callees = load::direct_callees(&cloud);
    let before = cloud.fleet();
    let targets = vec![cloud.balancer(1), cloud.balancer(2)];
    let running = load::start(load::figure_4(&cloud, targets, &["trunk"], "25@8s"));
    let mut old = before.manager.pid;
    for _ in 0..2 {
        kill("KILL", old);
        let after = cloud.wait("a new manager", PATIENCE, |fleet| {
            let answering = fleet.instances.iter().filter(|it| it.answers);
            fleet.manager.pid != old && answering.count() == before.instances.len()
        });
        assert_eq!(pids(&after), pids(&before));
        old = after.manager.pid;
    }
    load::assert_no_call_failed(&running.join().expect("the callers"));
    assert_eq!(pids(&cloud.fleet()), pids(&before));
    let made = cloud
        .events()
        .into_iter()
        .filter(|event| event.kind == EventKind::Act && event.text.starts_with("created"));
    assert_eq!(made.count(), 4, "two balancers and two proxies were made, once");
}

/// Goal: a proxy that is killed is replaced, calls that it had set up go on and can be hung up by
/// either side, calls that ring can be picked up, and new calls work.
///
/// Method: calls held and calls ringing over two proxies; both are killed, one after the other.
#[test]
fn a_killed_proxy_is_replaced_and_its_calls_go_on() {
    let data = Data::claim(153).with_users(&["alice", "bob"]);
    let cloud = data.up("--proxies 2..2", "");
    let at = cloud.balancer(1);
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    assert_eq!(bob.register(at, 600).status(), Some(200));
    let mut calls = Vec::new();
    for _ in 0..8 {
        let call = alice.dial(at, "bob");
        let ringing = bob.ring();
        calls.push(connect(&mut alice, &mut bob, &call, &ringing, at));
    }
    let mut ringing = Vec::new();
    for _ in 0..4 {
        let call = alice.dial(at, "bob");
        ringing.push((call, bob.ring()));
    }
    let before = cloud.fleet();
    for proxy in instances(&before, Tier::Proxy) {
        kill("KILL", proxy.pid.expect("a process"));
        cloud.wait("a replacement", PATIENCE, |fleet| {
            let now = instances(fleet, Tier::Proxy);
            let is_gone = now.iter().all(|it| it.pid != proxy.pid);
            is_gone && now.len() == 2 && tier(fleet, Tier::Proxy).in_service == 2
        });
    }
    for (call, at_bob) in &ringing {
        calls.push(connect(&mut alice, &mut bob, call, at_bob, at));
    }
    for (number, (mut ours, mut theirs)) in calls.into_iter().enumerate() {
        if number % 2 == 0 {
            alice.hang_up(&mut ours, at, &mut bob);
        } else {
            bob.hang_up(&mut theirs, at, &mut alice);
        }
    }
    for _ in 0..4 {
        let call = alice.dial(at, "bob");
        let ringing = bob.ring();
        let (mut ours, _) = connect(&mut alice, &mut bob, &call, &ringing, at);
        alice.hang_up(&mut ours, at, &mut bob);
    }
}

/// Whatever kills `up` itself: the next one in the same directory adopts the nodes, whose calls never
/// stopped; with another configuration it clears them away and makes its own.
#[test]
fn a_cloud_that_was_killed_is_taken_over_by_the_next_one() {
    let data = Data::claim(160).with_users(&["alice", "bob"]);
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    let cloud = data.up("", "");
    let at = cloud.balancer(1);
    assert_eq!(bob.register(at, 600).status(), Some(200));
    let before = cloud.fleet();
    let call = alice.dial(at, "bob");
    let ringing = bob.ring();
    cloud.crash();
    let (mut ours, _) = connect(&mut alice, &mut bob, &call, &ringing, at);

    let cloud = data.up("", "");
    assert_eq!(pids(&cloud.fleet()), pids(&before), "adopted");
    alice.hang_up(&mut ours, at, &mut bob);
    cloud.crash();

    let cloud = data.up("--capacity 77", "");
    let after = cloud.fleet();
    assert_eq!(after.instances.len(), before.instances.len());
    assert!(pids(&after).iter().all(|it| !pids(&before).contains(it)), "{after:?}");
    for instance in &before.instances {
        let process = instance.pid.and_then(ProcessIdentity::of);
        assert_eq!(process, None, "{} is gone", instance.instance);
    }
    let call = alice.dial(at, "bob");
    let ringing = bob.ring();
    let (mut ours, _) = connect(&mut alice, &mut bob, &call, &ringing, at);
    alice.hang_up(&mut ours, at, &mut bob);
}

/// SIGHUP: the manager reads its configuration again and acts on it; what is wrong changes nothing.
#[test]
fn a_manager_takes_a_new_configuration_without_a_restart() {
    let data = Data::claim(161);
    let cloud = data.up("--proxies 1..3", "");
    let manager = cloud.fleet().manager.pid;
    let file = data.path().join("running.toml");
    let text = std::fs::read_to_string(&file).expect("written by the cloud");
    let (others, proxies) = text.split_once("[proxies]\ninstances_min = 1\n").expect("in it");
    for (minimum, expected) in [("-2", 1), ("2", 2)] {
        let changed = format!("{others}[proxies]\ninstances_min = {minimum}\n{proxies}");
        std::fs::write(&file, changed).expect("written");
        let rounds = cloud.fleet().manager.rounds_total;
        kill("HUP", manager);
        let fleet = cloud.wait("the new number", PATIENCE, |fleet| {
            let is_later = fleet.manager.rounds_total > rounds + 2;
            is_later && tier(fleet, Tier::Proxy).in_service == expected
        });
        assert_eq!(fleet.manager.pid, manager, "the same manager");
    }
}

/// An operator drains a proxy: another one takes its place, and it ends by itself.
#[test]
fn a_drained_proxy_is_replaced_and_ends() {
    let data = Data::claim(154).with_users(&CALLERS);
    let cloud = data.up("--proxies 2..3", "timers.t1_ms = 100");
    let _callees = load::direct_callees(&cloud);
    let before = cloud.fleet();
    let drained = instances(&before, Tier::Proxy)[0].pid;
    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], "25@6s");
    let running = load::start(plan);
    data.good("drain proxy-1", "");
    cloud.wait("a replacement", Duration::from_secs(30), |fleet| {
        let others = instances(fleet, Tier::Proxy).iter().all(|it| it.pid != drained);
        others && tier(fleet, Tier::Proxy).in_service == 2
    });
    load::assert_no_call_failed(&running.join().expect("the callers"));
}

/// Goal: a weight shares the calls at the next look, is shown, and is the next manager's too; one that
/// cannot be is refused with the reason.
#[test]
fn a_weight_shares_the_calls_and_outlives_the_manager() {
    let data = Data::claim(171).with_users(&CALLERS);
    let cloud = data.up("--managers 2 --proxies 2..2", "");
    let _callees = load::direct_callees(&cloud);
    println!("{}", data.good("weight proxy-2 25", ""));
    let is_weighed = |fleet: &FleetStatus| {
        let mut proxies = instances(fleet, Tier::Proxy).into_iter();
        let it = proxies.find(|it| it.instance.slot == 2);
        it.is_some_and(|it| (it.weight, it.weight_now) == (25, Some(25)))
    };
    let before = cloud.wait("the new share", PATIENCE, is_weighed);
    let shown = data.good("status", "");
    assert!(shown.contains("weight 25"), "{shown}");
    let refused = [("balancer-1 50", "only proxies"), ("proxy-9 50", "there is no proxy-9")];
    for (order, reason) in refused {
        let (is_success, _, errors) = data.run(&format!("weight {order}"), "");
        assert!(!is_success && errors.contains(reason), "{order}: {errors}");
    }
    kill("KILL", before.manager.pid);
    let after = cloud.wait("another leader", PATIENCE, |fleet| {
        fleet.manager.leads && fleet.manager.pid != before.manager.pid && is_weighed(fleet)
    });
    assert_eq!(pids(&after), pids(&before));

    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], "50@5s");
    let report = load::run(&plan);
    load::assert_no_call_failed(&report);
    let calls = |fleet: &FleetStatus| -> Vec<u64> {
        instances(fleet, Tier::Proxy).iter().map(|it| it.calls_total).collect()
    };
    let is_counted = |fleet: &FleetStatus| calls(fleet).iter().sum::<u64>() == report.started;
    let [first, second] = calls(&cloud.wait("the last poll", PATIENCE, is_counted))[..] else {
        panic!("two proxies")
    };
    // A fifth of 250, give or take five standard deviations.
    assert!((18..=82).contains(&second), "{first} and {second}");
}

#[test]
fn nobody_is_let_in_without_the_token_and_secrets_are_their_owners_alone() {
    let data = Data::claim(155);
    let cloud = data.up("", "");
    let fleet = cloud.fleet();
    let mut doors: Vec<(SocketAddr, &str)> = vec![(data.address(10, 250, 8060), "/v1/fleet")];
    doors.extend(fleet.instances.iter().map(|it| (it.control, "/v1/status")));
    assert_eq!(doors.len(), 3);
    for (address, path) in doors {
        for path in [path, "/metrics", "/live", "/ready"] {
            for token in ["", "Authorization: Bearer 0123\r\n", "Authorization: Basic eDp5\r\n"] {
                let answer = get(address, path, token);
                assert!(answer.starts_with("HTTP/1.1 401 "), "{address}{path}: {answer}");
            }
        }
    }
    // The program itself knows the words and no secret.
    let programs = data.path().join("bin");
    for file in files_below(data.path()).into_iter().filter(|it| !it.starts_with(&programs)) {
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        let text = std::fs::read(&file).unwrap_or_default();
        let is_secret = ["token", "secret"]
            .iter()
            .any(|word| text.windows(word.len()).any(|it| it == word.as_bytes()));
        assert!(!is_secret || mode & 0o077 == 0, "{} has mode {mode:o}", file.display());
    }
    let mode = std::fs::metadata(data.path()).expect("there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "the data directory is its owner's alone");
}

fn get(address: SocketAddr, path: &str, field: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{field}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// A store in memory lives in a folder outside the data directory; that goes with the cloud too.
#[test]
fn a_store_in_memory_serves_calls_and_goes_with_the_cloud() {
    let data = Data::claim(156);
    let cloud = data.up("--store memory", "");
    let at = cloud.balancer(1);
    let data = cloud.data;
    for user in ["alice", "bob"] {
        data.good(&format!("user add {user}@{DOMAIN}"), PASSWORD);
    }
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    assert_eq!(bob.register(at, 600).status(), Some(200));
    let call = alice.dial(at, "bob");
    let ringing = bob.ring();
    let (mut ours, _) = connect(&mut alice, &mut bob, &call, &ringing, at);
    alice.hang_up(&mut ours, at, &mut bob);
    let name = data.path().file_name().expect("a name").to_string_lossy().into_owned();
    cloud.stop();
    let is_gone = || {
        let mut left = std::fs::read_dir("/dev/shm").expect("listed").flatten();
        let is_ours = |it: std::fs::DirEntry| it.file_name().to_string_lossy().contains(&name);
        (!left.any(is_ours)).then_some(())
    };
    assert_eq!(eventually(Duration::from_secs(1), is_gone), Some(()));
}
