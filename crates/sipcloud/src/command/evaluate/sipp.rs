//! SIPp as the generator: its rate is set through its control socket, its counters are read from
//! its file of statistics.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use evaluation::{Calls, Failure};
use load_client::Schedule;
use sip_net::clock;

use super::child::ChildProcess;
use super::experiment::{CALLEE, CALLER, DOMAIN, Experiment};
use crate::exit::Exit;

const CALLER_SCENARIO: &str = include_str!("../../../../../scripts/sipp/figure4-uac.xml");
const CALLEE_SCENARIO: &str = include_str!("../../../../../scripts/sipp/figure4-uas.xml");
const PORT: u16 = 5060;
/// Off the range in which SIPps that were told nothing look for one on every address.
const CONTROL_PORT: u16 = 8010;
/// Calls that live at once: by default so few that a slow answer holds back new calls; more than a
/// shell's limit of open files (1,024) SIPp does not take.
const CALLS_MAX: &str = "1000";
/// Of each socket's buffers; the kernel gives no more than its own limit.
const SOCKET_BYTES: &str = "4194304";
/// Failed calls that are told one by one.
const FAILURES_MAX: usize = 100_000;
/// Why a call failed, by SIPp's name of its counter.
const REASONS: &[(&str, &str)] = &[
    ("FailedUnexpectedMessage(C)", "an unexpected message"),
    ("FailedTimeoutOnRecv(C)", "nothing"),
    ("FailedCallRejected(C)", "a refusal"),
    ("FailedCannotSendMessage(C)", "an error while sending"),
];

pub(super) struct Sipp {
    child: ChildProcess,
    control: UdpSocket,
    control_address: SocketAddr,
    statistics: PathBuf,
    schedule: Schedule,
    local: SocketAddr,
    began: Instant,
    began_unix_ms: u64,
    /// Asked for last, calls per second.
    rate: Option<u32>,
    stopped_at: Option<Instant>,
    /// After it a call to which nothing came has failed.
    patience: Duration,
    has_ended: bool,
    calls: Calls,
    failures: Vec<Failure>,
    reasons: BTreeMap<&'static str, u64>,
}

pub(super) fn start_callees(experiment: &Experiment, log: &File) -> Result<ChildProcess> {
    let scenario = experiment.data.join("callee.xml");
    fs::write(&scenario, CALLEE_SCENARIO).context("cannot write SIPp's scenario")?;
    let mut command = sipp();
    command
        .args(["-sf", &text(&scenario), "-nr", "-nostdin"])
        .args(address(experiment.callee_address()));
    ChildProcess::start("SIPp", &mut command, log)
}

impl Sipp {
    pub(super) fn start(experiment: &Experiment) -> Result<Self> {
        let file = |name: &str| experiment.data.join(name);
        let (scenario, users) = (file("caller.xml"), file("users.csv"));
        fs::write(&scenario, CALLER_SCENARIO).context("cannot write SIPp's scenario")?;
        let password = &experiment.password;
        let user = format!(
            "SEQUENTIAL\n{CALLER};[authentication username={CALLER} password={password}]\n"
        );
        crate::files::write_private(&users, user.as_bytes())?;
        let statistics = file("statistics.csv");
        let local = SocketAddr::new(experiment.address(31), PORT);
        let control_address = SocketAddr::new(local.ip(), CONTROL_PORT);
        let first = experiment.schedule.rate_at(Duration::ZERO).round().max(1.0);
        let patience = 64 * experiment.t1;
        let mut command = sipp();
        command
            .args(["-sf", &text(&scenario), "-inf", &text(&users), "-nr", "-nostdin"])
            .args(["-key", "domain", DOMAIN, "-key", "callee", CALLEE])
            .args(address(local))
            .args(["-r", &first.to_string(), "-l", CALLS_MAX])
            .args(["-recv_timeout", &patience.as_millis().to_string()])
            .args(["-trace_stat", "-stf", &text(&statistics), "-fd", "1"])
            .args(["-trace_err", "-error_file", &text(&file("sipp-errors.log"))])
            .arg(experiment.balancer().to_string());
        let child = ChildProcess::start("SIPp", &mut command, &experiment.log("callers")?)?;
        Ok(Self {
            child,
            control: UdpSocket::bind(SocketAddr::new(local.ip(), 0))?,
            control_address,
            statistics,
            schedule: experiment.schedule.clone(),
            local,
            began: clock::now(),
            began_unix_ms: clock::unix_millis(),
            rate: Some(first as u32),
            stopped_at: None,
            patience,
            has_ended: false,
            calls: Calls::default(),
            failures: Vec::new(),
            reasons: BTreeMap::new(),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn began_unix_ms(&self) -> u64 {
        self.began_unix_ms
    }

    pub(super) fn calls(&self) -> Calls {
        self.calls
    }

    pub(super) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped_at.is_some()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill();
    }

    /// SIPp ends when its last call has.
    pub(super) fn stop(&mut self) {
        self.stopped_at.get_or_insert_with(clock::now);
        self.order("q");
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.has_ended = self.child.ended().is_some();
        self.read_statistics();
        self.calls.own_drops = self.calls.own_drops.max(socket_drops(self.local).unwrap_or(0));
        if self.has_ended {
            let calls = &mut self.calls;
            calls.unfinished = calls.made.saturating_sub(calls.succeeded + calls.failed);
            return;
        }
        let elapsed = now.saturating_duration_since(self.began);
        if let Some(stopped_at) = self.stopped_at {
            // The first one may not have been heard. A second one ends all calls: not before each
            // has had its time to fail.
            if now.saturating_duration_since(stopped_at) > self.patience {
                self.order("q");
            }
        } else if elapsed >= self.schedule.duration() {
            self.stop();
        } else {
            let rate = self.schedule.rate_at(elapsed).round() as u32;
            if self.rate != Some(rate) {
                self.order(&format!("cset rate {rate}"));
                self.rate = Some(rate);
            }
        }
    }

    /// A command that is lost shows as a rate that is not the plan's.
    fn order(&self, command: &str) {
        self.control.send_to(command.as_bytes(), self.control_address).ok();
    }

    fn read_statistics(&mut self) {
        let text = fs::read_to_string(&self.statistics).unwrap_or_default();
        let Some(last) = counters(&text) else {
            return;
        };
        let count = |name: &str| last.get(name).copied().unwrap_or(0);
        self.calls.made = count("TotalCallCreated");
        self.calls.succeeded = count("SuccessfulCall(C)");
        self.calls.failed = count("FailedCall(C)");
        for (name, came) in REASONS {
            let before = self.reasons.insert(name, count(name)).unwrap_or(0);
            for _ in before..count(name) {
                self.tell_failure(came);
            }
        }
        let told = self.failures.len() as u64;
        for _ in told..self.calls.failed {
            self.tell_failure("something that SIPp does not name");
        }
    }

    /// SIPp says how many failed in a second and why, but not which.
    fn tell_failure(&mut self, came: &str) {
        if self.failures.len() >= FAILURES_MAX || self.failures.len() as u64 >= self.calls.failed {
            return;
        }
        let unix_ms = clock::unix_millis();
        self.failures.push(Failure {
            at_s: unix_ms.saturating_sub(self.began_unix_ms) as f64 / 1_000.0,
            unix_ms,
            call_id: String::new(),
            expected: "the next message of Figure 4".to_owned(),
            came: came.to_owned(),
            nearest: None,
        });
    }
}

/// With sockets that hold what comes while it is busy; by itself it asks for room for a hundred messages.
fn sipp() -> Command {
    let mut command = Command::new("sipp");
    command.args(["-buff_size", SOCKET_BYTES]);
    command
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Where it listens, for SIP and for orders.
fn address(local: SocketAddr) -> [String; 8] {
    let (ip, port) = (local.ip().to_string(), local.port().to_string());
    let control = ["-ci".to_owned(), ip.clone(), "-cp".to_owned(), CONTROL_PORT.to_string()];
    let [ci, control_ip, cp, control_port] = control;
    ["-i".to_owned(), ip, "-p".to_owned(), port, ci, control_ip, cp, control_port]
}

/// The last whole row of the statistics, by the names of its columns.
fn counters(text: &str) -> Option<BTreeMap<&str, u64>> {
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let names = lines.next()?.trim_end().split(';');
    let values = lines.next_back()?.trim_end().split(';');
    Some(names.zip(values).filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect())
}

/// Datagrams that the kernel dropped because the socket's buffer was full (proc(5), net/udp).
fn socket_drops(local: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(local) = local else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_le_bytes(local.ip().octets()), local.port());
    let table = fs::read_to_string("/proc/net/udp").ok()?;
    let row = table.lines().find(|line| line.split_ascii_whitespace().nth(1) == Some(&wanted))?;
    row.split_ascii_whitespace().next_back()?.parse().ok()
}

/// Whether SIPp is there.
pub(super) fn check() -> Result<()> {
    let found = sipp().arg("-v").output();
    found.map(drop).map_err(|error| {
        Exit::Unavailable.because(format!("sipp: {error}; apt-get install sip-tester"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_row_counts() {
        let text = "StartTime;TotalCallCreated;FailedCall(C)\nx y;5;0\nx y;12;1\nx y;1";
        let counters = counters(text).expect("rows");
        assert_eq!((counters["TotalCallCreated"], counters["FailedCall(C)"]), (12, 1));
        assert_eq!(super::counters("StartTime;TotalCallCreated\n"), None);
    }
}
