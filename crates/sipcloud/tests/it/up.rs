//! A whole cloud of this test's own, from its start to its end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use super::{Data, output, sipcloud, write};

/// A running `up`; ended with the test, whatever comes.
struct Cloud {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Cloud {
    fn start(data: &Data, network: &str) -> Self {
        std::fs::create_dir_all(&data.path).expect("made");
        let config = data.path.join("test.toml");
        let text = format!("[local]\nnetwork = \"{network}\"\n[manager]\npoll_interval_ms = 500\n");
        write(&config, &text);
        let mut child = sipcloud("up --json --config")
            .arg(&config)
            .arg("--data")
            .arg(&data.path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// The next line of this type.
    fn next(&mut self, kind: &str) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.lines.read_line(&mut line).expect("a line");
            assert!(length > 0, "the cloud ended before it said {kind:?}");
            let value: Value = serde_json::from_str(&line).expect("JSON");
            if value["type"] == kind {
                return value;
            }
        }
    }

    fn signal(&self, signal: &str) {
        kill(signal, u64::from(self.child.id()));
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal("-INT");
            self.child.wait().ok();
        }
    }
}

fn kill(signal: &str, pid: u64) {
    let status = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(status.expect("kill").success(), "kill {signal} {pid}");
}

/// Processes that have the data directory on their command line or as their working directory.
fn processes_of(data: &Path) -> Vec<String> {
    let name = data.to_str().expect("text");
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let own = std::process::id().to_string();
    entries
        .filter(|entry| entry.file_name() != own.as_str())
        .filter_map(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let folder = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let is_ours = command.contains(name) || folder.starts_with(data);
            is_ours.then_some(command)
        })
        .collect()
}

/// Goal: the cloud comes up, survives its manager, refuses a second one on the same data, and
/// leaves nothing behind. Method: the binary itself, on a loopback network of this test.
#[test]
fn a_cloud_comes_up_outlives_its_manager_and_leaves_nothing() {
    let data = Data::new("up");
    let mut cloud = Cloud::start(&data, "127.79");
    let ready = cloud.next("ready");
    assert_eq!(ready["sip"][0], "sip:127.79.10.1:5060", "{ready}");
    assert_eq!(ready["dns"], "127.79.10.250:5300");

    let fleet =
        || -> Value { serde_json::from_str(&data.good("status --json", "")).expect("a fleet") };
    let before = fleet();
    let pids = |fleet: &Value| -> Vec<Value> {
        let instances = fleet["instances"].as_array().expect("instances");
        instances.iter().map(|instance| instance["pid"].clone()).collect()
    };
    assert_eq!(pids(&before).len(), 2, "one balancer, one proxy: {before}");

    // SIGHUP takes over what may change, and ends nothing.
    let file = data.path.join("test.toml");
    let text = std::fs::read_to_string(&file).expect("there");
    write(&file, &format!("{text}[proxies]\ninstances_max = 3\n"));
    cloud.signal("-HUP");
    let running = || std::fs::read_to_string(data.path.join("running.toml")).expect("there");
    while !running().contains("instances_max = 3") {
        cloud.next("status");
    }
    cloud.next("status");
    let reloaded = fleet();
    assert_eq!(reloaded["manager"]["pid"], before["manager"]["pid"], "the manager goes on");

    let second = data.run("up", "");
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(69), "{told}");
    assert!(told.contains(&cloud.child.id().to_string()), "names who runs: {told}");

    let manager = before["manager"]["pid"].as_u64().expect("a pid");
    kill("-KILL", manager);
    // The new manager adopts: the same processes, and figures go on.
    let after = loop {
        cloud.next("status");
        let now = fleet();
        let is_new = now["manager"]["pid"] != before["manager"]["pid"];
        if is_new && pids(&now).len() == 2 && !pids(&now).contains(&Value::Null) {
            break now;
        }
    };
    assert_eq!(pids(&after), pids(&before), "no machine made twice, none forgotten");
    assert!(!data.good("events", "").is_empty());

    data.good("user add alice@sipcloud.test", "secret\n");
    cloud.signal("-INT");
    cloud.next("stopped");
    assert_eq!(cloud.child.wait().expect("it ends").code(), Some(0));
    assert_eq!(processes_of(&data.path), Vec::<String>::new());
    assert_eq!(data.good("user list", ""), "alice@sipcloud.test\n", "users stay");
}

/// Goal: users of a store in memory are gone with the cloud, and the cloud says so in time.
#[test]
fn a_store_in_memory_ends_with_the_cloud() {
    let data = Data::new("memory");
    std::fs::create_dir_all(&data.path).expect("made");
    let config = data.path.join("test.toml");
    write(&config, "[local]\nnetwork = \"127.80\"\n[store]\nkind = \"memory\"\n");
    let mut child = sipcloud("up --config")
        .arg(&config)
        .arg("--data")
        .arg(&data.path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("ready "));
    assert!(ready.is_some_and(|line| line.starts_with("ready sip:127.80.10.1:5060 ")));

    data.good("user add alice@sipcloud.test", "secret\n");
    assert_eq!(data.good("user list", ""), "alice@sipcloud.test\n");

    kill("-TERM", u64::from(child.id()));
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let mut list = sipcloud("user list --data");
    let gone = output(list.arg(&data.path), "");
    assert_eq!(gone.status.code(), Some(69), "there is no store any more");
}
