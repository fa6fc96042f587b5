//! The local provider with a small program in place of a node.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use provider::{MachineFile, MachineState};

use super::*;

/// A data directory and a program of one test; both are removed with it.
struct Bench {
    data: PathBuf,
}

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sipcloud-local-{}-{number}", std::process::id());
        let data = std::env::temp_dir().join(name);
        fs::create_dir_all(&data).expect("a folder for the test");
        Self { data }
    }

    /// A manager whose machines run `script`.
    fn manager(&self, script: &str) -> LocalCompute {
        let program = self.data.join("program");
        if !program.exists() {
            // A shell writes it: a file that this process has open to write, and that another
            // test's child inherits for a moment, cannot be executed.
            let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#;
            let mut shell = Command::new("sh");
            let status = shell.arg("-c").arg(write).arg(&program).arg(script).status();
            assert!(status.expect("a shell").success());
        }
        LocalCompute::new(LocalOptions {
            data: self.data.clone(),
            program,
            addresses: AddressPlan {
                network: [127, 3],
                sip_port: 5060,
                control_port: 8060,
                balancers_max: 2,
            },
            log_bytes_max: 1_000,
            terminate_grace: Duration::from_millis(300),
            boot_time: Duration::ZERO,
        })
        .expect("a manager")
    }

    fn folder(&self, instance: InstanceId) -> MachineFolder {
        MachineFolder::new(&self.data.join("instances"), instance)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for (_, process) in live_machines(&self.data).into_iter().flatten() {
            process.signal(Signal::Kill).ok();
        }
        fs::remove_dir_all(&self.data).ok();
    }
}

const LASTING: &str = "exec sleep 600";

fn request(instance: InstanceId, token: &str) -> MachineRequest {
    let file = MachineFile { name: NODE_FILE.to_owned(), content: b"{}".to_vec() };
    MachineRequest { instance, token: token.to_owned(), files: vec![file], arguments: Vec::new() }
}

#[tokio::test]
async fn the_contract_holds() {
    let bench = Bench::new();
    provider::contract::compute(&bench.manager(LASTING)).await;
}

/// Goal: a manager that starts anew finds its predecessor's machines. Method: two managers over
/// one directory, the first one gone.
#[tokio::test]
async fn another_manager_adopts_what_the_first_one_made() {
    let bench = Bench::new();
    let proxy = InstanceId::proxy(3);
    let first = bench.manager(LASTING);
    let id = first.create(&request(proxy, "t")).await.expect("made");
    drop(first);

    let second = bench.manager(LASTING);
    let listed = second.list().await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, listed[0].state), (&id, MachineState::Running));
    assert_eq!(listed[0].addresses.sip, "127.3.20.3:5060".parse().expect("an address"));
    assert!(listed[0].created_at_ms > 1_600_000_000_000);
    assert_eq!(second.create(&request(proxy, "t")).await.as_ref(), Ok(&id), "not made twice");

    second.terminate(&id).await.expect("terminated");
    assert!(live_machines(&bench.data).expect("listed").is_empty());
    assert!(!bench.folder(proxy).path().exists());
}

/// Goal: a manager killed between starting a process and writing its id down loses nothing.
/// Method: take the id out of the record of a running machine.
#[tokio::test]
async fn a_machine_without_a_written_id_is_found_and_stopped() {
    let bench = Bench::new();
    let proxy = InstanceId::proxy(1);
    let manager = bench.manager(LASTING);
    let id = manager.create(&request(proxy, "t")).await.expect("made");
    let folder = bench.folder(proxy);
    let record = folder.record().expect("written");
    folder.write_record(&MachineRecord { process: None, ..record }).expect("written");

    assert_eq!(manager.list().await.expect("listed")[0].state, MachineState::Running);
    manager.terminate(&id).await.expect("terminated");
    assert!(live_machines(&bench.data).expect("listed").is_empty());
}

/// Goal: what a manager that died had ended is gone, not broken: nobody makes up for it. Method: the
/// manager dies (its future is dropped) while the machine takes its time to stop.
#[tokio::test]
async fn a_machine_that_a_killed_manager_was_ending_is_gone_with_its_process() {
    let bench = Bench::new();
    let proxy = InstanceId::proxy(1);
    let first = bench.manager("trap 'sleep 0.1; exit 0' TERM\nwhile :; do sleep 0.05; done");
    let id = first.create(&request(proxy, "t")).await.expect("made");
    let cut = tokio::time::timeout(Duration::from_millis(30), first.terminate(&id)).await;
    assert!(cut.is_err(), "it was still stopping");
    assert_eq!(first.list().await.expect("listed")[0].state, MachineState::Running);
    drop(first);

    let second = bench.manager(LASTING);
    while !live_machines(&bench.data).expect("listed").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(second.list().await.expect("listed").is_empty(), "no dead machine to replace");
    let heir = second.create(&request(proxy, "t")).await.expect("the slot is free");
    assert_ne!(heir, id);
    second.terminate(&heir).await.expect("terminated");
    assert!(bench.data.join("logs/proxy-1.log").exists());
}

/// Goal: a process id that another process has now is not taken for the machine, nor hit.
/// Method: write the id of this test with a wrong start time into the record.
#[tokio::test]
async fn a_recycled_process_id_is_a_dead_machine() {
    let bench = Bench::new();
    let proxy = InstanceId::proxy(1);
    let manager = bench.manager(LASTING);
    let id = manager.create(&request(proxy, "t")).await.expect("made");
    let folder = bench.folder(proxy);
    let record = folder.record().expect("written");
    let machine = record.process.clone().expect("started");
    machine.signal(Signal::Kill).expect("ours");
    while machine.is_alive() {
        tokio::task::yield_now().await;
    }
    let own = ProcessIdentity::current().expect("alive");
    let recycled = ProcessIdentity { start_ticks: own.start_ticks + 1, ..own };
    folder.write_record(&MachineRecord { process: Some(recycled), ..record }).expect("written");

    assert_eq!(manager.list().await.expect("listed")[0].state, MachineState::Dead);
    manager.terminate(&id).await.expect("terminated, and this test lives");
    assert!(manager.list().await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_machine_that_ignores_sigterm_is_killed() {
    let bench = Bench::new();
    let manager = bench.manager("trap '' TERM\nwhile :; do sleep 1; done");
    let id = manager.create(&request(InstanceId::balancer(1), "t")).await.expect("made");
    manager.terminate(&id).await.expect("terminated");
    assert!(live_machines(&bench.data).expect("listed").is_empty());
}

/// The id of an earlier machine must not hit the one that has its slot now.
#[tokio::test]
async fn an_old_id_does_not_hit_the_heir_of_its_slot() {
    let bench = Bench::new();
    let manager = bench.manager(LASTING);
    let proxy = InstanceId::proxy(1);
    let old = manager.create(&request(proxy, "old")).await.expect("made");
    manager.terminate(&old).await.expect("terminated");
    for token in ["heir", "old"] {
        let heir = manager.create(&request(proxy, token)).await.expect("made");
        manager.terminate(&old).await.expect("already gone");
        assert_eq!(manager.list().await.expect("listed")[0].id, heir, "{token}");
        manager.terminate(&heir).await.expect("terminated");
    }
}

/// Two managers of one data directory: while one makes or removes a machine the other cannot.
#[tokio::test]
async fn two_managers_do_not_change_machines_at_once() {
    let bench = Bench::new();
    let (one, other) = (bench.manager(LASTING), bench.manager(LASTING));
    let proxy = request(InstanceId::proxy(1), "t");
    let changing = one.lock().await.expect("free");
    let refused = other.create(&proxy).await.expect_err("the other one is at it");
    assert!(refused.is_transient(), "{refused}");
    assert!(other.list().await.expect("looking is free").is_empty());
    drop(changing);
    let id = other.create(&proxy).await.expect("made");
    assert_eq!(one.create(&proxy).await, Ok(id.clone()), "not twice");
    one.terminate(&id).await.expect("terminated");
}

#[test]
fn clients_that_know_one_address_are_served_there_alone() {
    let plan = AddressPlan { network: [127, 3], sip_port: 1, control_port: 2, balancers_max: 1 };
    assert!(
        plan.of(InstanceId::balancer(1)).is_some() && plan.of(InstanceId::balancer(2)).is_none()
    );
    assert!(plan.of(InstanceId::proxy(249)).is_some() && plan.of(InstanceId::proxy(250)).is_none());
}

#[tokio::test]
async fn files_are_private_and_the_log_outlives_the_machine() {
    let bench = Bench::new();
    let manager = bench.manager("echo \"$@\"\nexec sleep 600");
    let proxy = InstanceId::proxy(2);
    let id = manager.create(&request(proxy, "t")).await.expect("made");
    let folder = bench.folder(proxy);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(folder.path()), 0o700);
    for file in [NODE_FILE, "machine.json", "log"] {
        assert_eq!(mode(&folder.path().join(file)), 0o600, "{file}");
    }
    let log = || fs::read_to_string(folder.path().join("log")).expect("there");
    while log().is_empty() {
        tokio::task::yield_now().await;
    }
    manager.terminate(&id).await.expect("terminated");
    let kept = fs::read_to_string(bench.data.join("logs/proxy-2.log")).expect("kept");
    assert_eq!(kept, "proxy --node node.json\n");
}

#[tokio::test]
async fn files_with_a_path_in_their_name_are_refused() {
    let bench = Bench::new();
    let manager = bench.manager(LASTING);
    for name in ["../evil", "a/b", "", "..", "machine.json", "log"] {
        let mut bad = request(InstanceId::proxy(1), "t");
        bad.files[0].name = name.to_owned();
        assert!(manager.create(&bad).await.is_err(), "{name:?}");
        assert!(manager.list().await.expect("listed").is_empty(), "{name:?} left nothing");
    }
}
