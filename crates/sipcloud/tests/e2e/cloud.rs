//! A cloud of a test's own, from its start to its end; one at a time on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet::Tier;
use node_api::wire::{Event, FleetStatus, InstanceStatus, TierStatus};
use provider_drivers::process;
use serde_json::Value;
use sip_net::clock;

pub(crate) const DOMAIN: &str = "sipcloud.test";
pub(crate) const PASSWORD: &str = "secret";
/// Nothing here takes this long unless it never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The data directory and the loopback network of one test.
pub(crate) struct Data {
    path: PathBuf,
    network: u8,
    _turn: MutexGuard<'static, ()>,
}

impl Data {
    /// The cloud will have the addresses 127.`network`.x.y.
    pub(crate) fn claim(network: u8) -> Self {
        // A test that failed has ended its cloud all the same.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("sipcloud-e2e-{network}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).expect("a folder");
        Self { path, network, _turn: turn }
    }

    pub(crate) fn with_users(self, users: &[&str]) -> Self {
        for user in users {
            self.good(&format!("user add {user}@{DOMAIN}"), PASSWORD);
        }
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An address of the test's network.
    pub(crate) fn address(&self, third: u8, fourth: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, self.network, third, fourth], port))
    }

    /// The standard output of a command that must succeed.
    pub(crate) fn good(&self, arguments: &str, input: &str) -> String {
        let (is_success, out, errors) = self.run(arguments, input);
        assert!(is_success, "sipcloud {arguments}: {errors}");
        out
    }

    /// Whether it succeeded, and what it said.
    pub(crate) fn run(&self, arguments: &str, input: &str) -> (bool, String, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sipcloud"))
            .args(arguments.split_whitespace())
            .arg("--data")
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that ends without reading is no fault of the test.
        writeln!(stdin, "{input}").ok();
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// A cloud that takes calls. `config` is added to the configuration of all tests.
    pub(crate) fn up(&self, flags: &str, config: &str) -> Cloud<'_> {
        let file = self.path.join("test.toml");
        let network = self.network;
        let text = format!(
            "local.network = \"127.{network}\"\nlocal.stop_grace_ms = 100\n\
             manager.poll_interval_ms = 500\n{config}\n"
        );
        std::fs::write(&file, text).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sipcloud"))
            .args(["up", "--json"])
            .args(flags.split_whitespace())
            .arg("--config")
            .arg(&file)
            .arg("--data")
            .arg(&self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test may have ended before the cloud.
                said.send(serde_json::from_str(&line).expect("a line of JSON")).ok();
            }
        });
        let cloud = Cloud { data: self, child, lines, is_crashed: false };
        cloud.next("ready");
        cloud
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs are in {}", self.path.display());
        } else {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// A running cloud. The end of it is a test of every test: nothing may be left.
pub(crate) struct Cloud<'a> {
    pub(crate) data: &'a Data,
    child: Child,
    lines: Receiver<Value>,
    is_crashed: bool,
}

impl Cloud<'_> {
    /// The next line of this type on its standard output.
    pub(crate) fn next(&self, kind: &str) -> Value {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line["type"] == kind => return line,
                Ok(_) => {}
                Err(error) => panic!("the cloud did not say {kind:?}: {error}"),
            }
        }
    }

    /// Where clients reach a balancer, counted from 1.
    pub(crate) fn balancer(&self, slot: u8) -> SocketAddr {
        self.data.address(10, slot, 5060)
    }

    pub(crate) fn dns(&self) -> SocketAddr {
        self.data.address(10, 250, 5300)
    }

    pub(crate) fn fleet(&self) -> FleetStatus {
        serde_json::from_str(&self.data.good("status --json", "")).expect("a fleet")
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let text = self.data.good("events --json", "");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    /// Waits for a fleet that is as `is_so` wants it.
    pub(crate) fn wait(
        &self,
        what: &str,
        within: Duration,
        is_so: impl Fn(&FleetStatus) -> bool,
    ) -> FleetStatus {
        let mut last = None;
        let found = eventually(within, || {
            // While a manager is replaced nobody answers.
            let (is_success, out, _) = self.data.run("status --json", "");
            let fleet = is_success.then(|| serde_json::from_str(&out).expect("a fleet"))?;
            if is_so(&fleet) {
                return Some(fleet);
            }
            last = Some(fleet);
            None
        });
        found.unwrap_or_else(|| panic!("{what} did not happen: {last:?}"))
    }

    /// Kills `up` alone; manager and nodes are left behind.
    pub(crate) fn crash(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
        self.is_crashed = true;
    }

    /// Ctrl-C, as at the end of every test.
    pub(crate) fn stop(self) {}

    fn interrupt(&mut self) -> Option<i32> {
        kill("INT", self.child.id());
        let ended = eventually(PATIENCE, || self.child.try_wait().expect("waited for"));
        if ended.is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        ended.and_then(|status| status.code())
    }
}

impl Drop for Cloud<'_> {
    fn drop(&mut self) {
        if self.is_crashed {
            return;
        }
        let code = self.interrupt();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(code, Some(0), "the cloud ends well after Ctrl-C");
        let left = processes_of(&self.data.path);
        assert!(left.is_empty(), "processes are left: {left:?}");
        let folder = self.data.path.join("instances");
        let folders = std::fs::read_dir(folder).map_or(0, Iterator::count);
        assert_eq!(folders, 0, "folders of instances are left");
    }
}

/// What `look` finds, or nothing within that time.
pub(crate) fn eventually<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = clock::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if clock::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(LOOK);
    }
}

pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(status.expect("kill").success(), "kill -s {signal} {pid}");
}

/// Processes that work in the directory or have it on their command line.
pub(crate) fn processes_of(data: &Path) -> Vec<String> {
    let mut pids: Vec<u32> = process::working_in(data).iter().map(|it| it.pid).collect();
    let name = data.to_str().expect("text");
    let command = |pid: u32| {
        let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.extend(all.filter(|pid| command(*pid).contains(name)));
    pids.iter().map(|pid| format!("{pid} {}", command(*pid))).collect()
}

pub(crate) fn tier(fleet: &FleetStatus, tier: Tier) -> &TierStatus {
    fleet.tiers.iter().find(|it| it.tier == tier.name()).expect("a tier")
}

pub(crate) fn instances(fleet: &FleetStatus, tier: Tier) -> Vec<&InstanceStatus> {
    fleet.instances.iter().filter(|it| it.instance.tier == tier).collect()
}

/// Every instance with its process.
pub(crate) fn pids(fleet: &FleetStatus) -> Vec<(String, Option<u32>)> {
    fleet.instances.iter().map(|it| (it.instance.to_string(), it.pid)).collect()
}
