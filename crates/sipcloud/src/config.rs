//! The configuration: one TOML file in, a checked [`Config`] out. Only here is the environment read.
//!
//! Every key has a default; `config/sipcloud.example.toml` shows them all.

mod check;
mod file;
mod store;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use node_api::wire::{Digest, Limits, Log, Probing, Registration, StoreKind, Timers};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;

pub(crate) use file::Fault;
pub(crate) use store::{Store, cache, location};

/// Overrides `log.filter` of every process.
const LOG_VARIABLE: &str = "SIPCLOUD_LOG";

/// Everything that an operator can say. Units end the names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub service: Service,
    pub local: Local,
    pub manager: Manager,
    pub balancers: Balancers,
    pub proxies: Proxies,
    pub store: Store,
    pub dns: Dns,
    pub timers: Timers,
    pub registration: Registration,
    pub digest: Digest,
    pub limits: Limits,
    pub probing: Probing,
    pub log: Log,
}

/// Whom the cloud serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    /// Domains whose users are served; the first one is also the name of the service in DNS.
    pub domains: Vec<String>,
    /// Sources that are never challenged: addresses or networks.
    pub trusted_trunks: Vec<String>,
    /// Whether callers of other domains reach registered users.
    pub foreign_callers: bool,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            domains: vec!["sipcloud.test".to_owned()],
            trusted_trunks: Vec::new(),
            foreign_callers: false,
        }
    }
}

/// Addresses and processes of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Local {
    /// First two octets of every loopback address of this cloud.
    pub network: String,
    /// Address of the machine on which one balancer listens; empty: loopback only.
    pub listen: String,
    pub sip_port: u16,
    /// Port of the nodes' and the manager's control interface.
    pub control_port: u16,
    /// How long a machine waits before it works, as those of a cloud do.
    pub boot_time_ms: u64,
    pub terminate_grace_ms: u64,
    /// How long the whole cloud may drain after Ctrl-C.
    pub stop_grace_ms: u64,
    pub log_bytes_max: u64,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            network: "127.0".to_owned(),
            listen: String::new(),
            sip_port: 5060,
            control_port: 8060,
            boot_time_ms: 0,
            terminate_grace_ms: 5_000,
            stop_grace_ms: 2_000,
            log_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// How the manager works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manager {
    pub poll_interval_ms: u64,
    /// How long a node may take to answer a poll.
    pub poll_timeout_ms: u64,
    pub policy: PolicyChoice,
    /// Share of a tier's capacity above which it grows (adaptive), or below and above which it
    /// changes (paper).
    pub up_percent: u8,
    /// Polls in a row that must be above.
    pub up_polls: u16,
    /// Share of the survivors' capacity below which a tier shrinks by one (adaptive).
    pub down_percent: u8,
    /// Polls in a row that must be below (adaptive).
    pub down_polls: u16,
    /// Polls that a forecast needs; zero: no forecast (adaptive).
    pub trend_polls: u16,
    /// Machines asked for within the interval, replacements included.
    pub launches_max: u32,
    pub launch_interval_s: u64,
    /// Decide and write the journal, but do nothing.
    pub dry_run: bool,
    /// Leave the number of instances as it is; broken ones are still replaced.
    pub freeze: bool,
}

impl Default for Manager {
    fn default() -> Self {
        Self {
            poll_interval_ms: 5_000,
            poll_timeout_ms: 1_000,
            policy: PolicyChoice::Adaptive,
            up_percent: 75,
            up_polls: 2,
            down_percent: 60,
            down_polls: 6,
            trend_polls: 12,
            launches_max: 10,
            launch_interval_s: 60,
            dry_run: false,
            freeze: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyChoice {
    /// Separate thresholds up and down, a forecast, several machines at once.
    Adaptive,
    /// One threshold of 85 %, five polls, one machine at a time (paper §4.1).
    Paper,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Balancers {
    pub instances_min: u32,
    pub instances_max: u32,
    /// Calls per second that one balancer is trusted with.
    pub capacity_cps: u32,
    /// Threads with a socket each; zero: one per core.
    pub threads: u16,
    /// How long a balancer that has left DNS may still be used, beyond the records' lifetime.
    pub drain_max_s: u64,
}

impl Default for Balancers {
    fn default() -> Self {
        Self {
            instances_min: 1,
            instances_max: 2,
            capacity_cps: 2_000,
            threads: 0,
            drain_max_s: 3_600,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Proxies {
    pub instances_min: u32,
    pub instances_max: u32,
    /// Calls per second that one proxy is trusted with.
    pub capacity_cps: u32,
    /// Event loops, each on a port of its own.
    pub workers: u16,
    /// Until a proxy that is new or returns takes its full share; zero: at once.
    pub slow_start_s: u16,
}

impl Default for Proxies {
    fn default() -> Self {
        Self { instances_min: 1, instances_max: 8, capacity_cps: 200, workers: 1, slow_start_s: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Dns {
    pub enabled: bool,
    /// Where the embedded server answers; empty: the manager's loopback address.
    pub listen: String,
    pub port: u16,
    pub ttl_s: u32,
}

impl Default for Dns {
    fn default() -> Self {
        Self { enabled: true, listen: String::new(), port: 5_300, ttl_s: 30 }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Every fault with its line, its key and the remedy, under the exit code for configuration.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Exit::Configuration.because(format!("cannot read {}: {error}", path.display()))
        })?;
        Self::parse(&text).map_err(|faults| file::report(path, &faults))
    }

    /// What an optional file says; without one the defaults.
    pub(crate) fn read_or_default(path: Option<&Path>) -> Result<Self> {
        path.map_or_else(|| Ok(Self::default()), Self::read)
    }

    /// The checked configuration that a text means, or everything that is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let config = file::parse(text)?;
        let faults = check::check(&config);
        if faults.is_empty() { Ok(config) } else { Err(file::locate(text, faults)) }
    }

    /// Checks what flags have changed.
    pub(crate) fn checked(self) -> Result<Self> {
        let faults = check::check(&self);
        if faults.is_empty() {
            return Ok(self);
        }
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Err(Exit::Configuration.because(faults.join("\n")))
    }

    /// This one with the keys of `newer` that may change while the cloud runs.
    pub(crate) fn reloaded(&self, newer: &Self) -> Self {
        let mut config = self.clone();
        config.manager = newer.manager.clone();
        config.balancers = Balancers { threads: self.balancers.threads, ..newer.balancers.clone() };
        config.proxies = Proxies { workers: self.proxies.workers, ..newer.proxies.clone() };
        config.log.filter.clone_from(&newer.log.filter);
        config
    }

    /// The same as a file that [`Self::read`] takes.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("the configuration cannot be written")
    }

    pub(crate) fn service_name(&self) -> &str {
        self.service.domains.first().map_or("", String::as_str)
    }

    /// The first two octets of the loopback network.
    pub(crate) fn network(&self) -> Option<[u8; 2]> {
        let (first, second) = self.local.network.split_once('.')?;
        Some([first.parse().ok()?, second.parse().ok()?])
    }

    /// The address for clients elsewhere, if there is one.
    pub(crate) fn listen(&self) -> Option<IpAddr> {
        self.local.listen.parse().ok()
    }

    /// Where the store's file is, if it is one; `memory` is a file in the memory of this machine.
    pub(crate) fn store_path(&self, data: &Path) -> PathBuf {
        match self.store.kind {
            StoreKind::Memory => Path::new("/dev/shm").join(memory_folder(data)).join(MEMORY_FILE),
            _ if self.store.path.as_os_str().is_empty() => data.join("store.db"),
            StoreKind::Sqlite | StoreKind::Cassandra => data.join(&self.store.path),
        }
    }
}

/// The file in the folder that [`memory_folder`] names.
const MEMORY_FILE: &str = "store.sqlite";

/// Name of the folder in `/dev/shm` that belongs to one data directory. `data` is absolute.
pub(crate) fn memory_folder(data: &Path) -> String {
    let name = data.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("sipcloud{name}")
}

/// The filter for this process's log.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(crate) fn log_filter(configured: &str) -> String {
    std::env::var(LOG_VARIABLE).unwrap_or_else(|_| configured.to_owned())
}

#[cfg(test)]
mod tests;
