//! The cloud that a drill plays with: one of its own, or the one that runs in a data directory.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::{InstanceId, InstanceState, Tier};
use load_client::Stop;
use node_api::wire::{FleetStatus, InstanceStatus};
use node_api::{ManagerClient, NodeClient};
use provider_drivers::process::{self, ProcessIdentity, Signal};
use sip_net::clock;

use super::spec::Shape;
use crate::cli;
use crate::command::{configuration_of, small_runtime};
use crate::config::Config;
use crate::exit::Exit;
use crate::files::{self, ManagerFile};
use crate::secrets::Secrets;

/// How long a cloud may take until its first call can be made, and until it has ended.
const START_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(30);
/// How long manager and nodes may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How often something that is waited for is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Second octets that are tried for a cloud of its own.
const NETWORKS: std::ops::Range<u8> = 200..250;

/// The cloud.
pub(super) struct Stage {
    pub(super) data: PathBuf,
    pub(super) config: Config,
    runtime: tokio::runtime::Runtime,
    own: Option<Own>,
}

/// A cloud that was started here.
struct Own {
    up: Child,
    folder: PathBuf,
    is_kept: bool,
}

impl Stage {
    /// The cloud that runs in `data`.
    pub(super) fn running(data: &Path) -> Result<Self> {
        let data = data
            .canonicalize()
            .map_err(|error| Exit::Unavailable.because(format!("{}: {error}", data.display())))?;
        let config = configuration_of(&data)?;
        let stage = Self { data, config, runtime: small_runtime()?, own: None };
        if stage.fleet().is_none() {
            let data = stage.data.display();
            return Err(Exit::Unavailable.because(format!("no cloud answers in {data}")));
        }
        Ok(stage)
    }

    /// A cloud of its own, ready for calls. `name` is part of its folder's name.
    pub(super) fn raise(
        name: &str,
        shape: &Shape,
        arguments: &cli::Drill,
        interrupted: &Stop,
    ) -> Result<Self> {
        let config = own_config(shape, arguments)?;
        let (folder, is_kept) = match &arguments.keep {
            Some(keep) => (keep.join(name), true),
            None => {
                let unique = format!("sipcloud-drill-{}-{name}", std::process::id());
                (std::env::temp_dir().join(unique), false)
            }
        };
        let data = folder.join("data");
        fs::remove_dir_all(&data).ok();
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let data = data.canonicalize()?;
        let file = folder.join("config.toml");
        files::write_private(&file, config.to_toml()?.as_bytes())?;
        let said = folder.join("up.log");
        let log = File::create(&said)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("up").arg("--config").arg(&file).arg("--data").arg(&data);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // In a session of its own: Ctrl-C ends the drill first, and the drill ends the cloud.
        let up = process::in_own_session(&mut command).spawn()?;
        let own = Some(Own { up, folder, is_kept });
        let mut stage = Self { data, config, runtime: small_runtime()?, own };
        stage.wait_ready(&said, interrupted)?;
        Ok(stage)
    }

    fn wait_ready(&mut self, said: &Path, interrupted: &Stop) -> Result<()> {
        let deadline = clock::now() + START_PATIENCE;
        loop {
            let text = fs::read_to_string(said).unwrap_or_default();
            if text.lines().any(|line| line.starts_with("ready ")) {
                return Ok(());
            }
            let ended =
                self.own.as_mut().is_some_and(|own| own.up.try_wait().ok().flatten().is_some());
            if ended || clock::now() >= deadline || interrupted.is_stopped() {
                let why = format!("the cloud did not come up:\n{}", text.trim_end());
                return Err(Exit::Unavailable.because(why));
            }
            self.rest();
        }
    }

    /// Lets a moment pass.
    pub(super) fn rest(&self) {
        self.runtime.block_on(async { tokio::time::sleep(LOOK).await });
    }

    /// What the manager says now; `None` while there is none.
    pub(super) fn fleet(&self) -> Option<FleetStatus> {
        self.runtime.block_on(self.manager()?.fleet()).ok()
    }

    pub(super) fn manager(&self) -> Option<ManagerClient> {
        let file = ManagerFile::read(&self.data)?;
        ManagerClient::new(file.api, &file.token, ANSWER_PATIENCE).ok()
    }

    /// Runs what a client has been asked.
    pub(super) fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        self.runtime.block_on(question)
    }

    /// A client for the control interface of a node.
    pub(super) fn node(&self, control: SocketAddr) -> Result<NodeClient> {
        let secrets = Secrets::load_or_make(&self.data)?;
        Ok(NodeClient::new(control, &secrets.node_token, ANSWER_PATIENCE)?)
    }

    /// An address of the cloud's loopback network that is no node's.
    pub(super) fn own_ip(&self, third: u8) -> Result<IpAddr> {
        let [first, second] = self.config.network().context("local.network is not two octets")?;
        Ok(IpAddr::from([first, second, third, 1]))
    }

    /// Kills an instance by the process that the provider wrote down.
    ///
    /// # Errors
    ///
    /// Why it cannot be: the instance is no process of this machine, or is gone.
    pub(super) fn kill(&self, instance: InstanceId) -> Result<u32, String> {
        let path = self.data.join("instances").join(instance.to_string()).join("machine.json");
        let elsewhere = || format!("{instance} is no process of this machine ({})", path.display());
        let record = fs::read(&path).map_err(|_| elsewhere())?;
        let record: serde_json::Value =
            serde_json::from_slice(&record).map_err(|error| error.to_string())?;
        let process = record.get("process").cloned().unwrap_or_default();
        let process: ProcessIdentity = serde_json::from_value(process).map_err(|_| elsewhere())?;
        end_now(&process).map_err(|why| format!("{instance}: {why}"))
    }

    /// Kills the manager that leads.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub(super) fn kill_manager(&self) -> Result<u32, String> {
        let file = ManagerFile::read(&self.data).ok_or("no manager has been here")?;
        end_now(&file.process).map_err(|why| format!("the manager: {why}"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(mut own) = self.own.take() else {
            return;
        };
        if let Some(up) = ProcessIdentity::of(own.up.id()) {
            // Gone already is as good.
            let _ = up.signal(Signal::Terminate);
        }
        let deadline = clock::now() + END_PATIENCE;
        while own.up.try_wait().ok().flatten().is_none() {
            if clock::now() >= deadline {
                eprintln!("the cloud in {} did not end by itself", own.folder.display());
                own.up.kill().ok();
                own.up.wait().ok();
                break;
            }
            self.rest();
        }
        if !own.is_kept {
            fs::remove_dir_all(&own.folder).ok();
        }
    }
}

fn end_now(process: &ProcessIdentity) -> Result<u32, String> {
    match process.signal(Signal::Kill) {
        Ok(true) => Ok(process.pid),
        Ok(false) => Err(format!("process {} is gone already", process.pid)),
        Err(error) => Err(format!("process {}: {error}", process.pid)),
    }
}

/// The configuration of a cloud of its own.
fn own_config(shape: &Shape, arguments: &cli::Drill) -> Result<Config> {
    let mut config = Config::read_or_default(arguments.config.as_deref())?;
    config.local.network = match &arguments.network {
        Some(network) => network.clone(),
        None => free_network(&config)?,
    };
    config.local.listen = String::new();
    config.manager.poll_interval_ms = shape.poll_interval_ms;
    (config.proxies.instances_min, config.proxies.instances_max) = shape.proxies;
    config.proxies.capacity_cps = shape.capacity_cps;
    (config.balancers.instances_min, config.balancers.instances_max) = shape.balancers;
    // So that clients that know the name follow within the drill.
    config.dns.ttl_s = 2;
    config.checked()
}

/// A network on which no cloud's DNS server or balancer listens.
fn free_network(config: &Config) -> Result<String> {
    let is_free = |second: u8| {
        let at = |fourth, port| SocketAddr::from((Ipv4Addr::new(127, second, 10, fourth), port));
        [at(1, config.local.sip_port), at(250, config.dns.port)]
            .iter()
            .all(|address| UdpSocket::bind(address).is_ok())
    };
    let second = NETWORKS.into_iter().find(|second| is_free(*second));
    let second = second.context("no loopback network is free; name one with --network")?;
    Ok(format!("127.{second}"))
}

/// The instances of a tier that serve.
pub(super) fn serving(fleet: &FleetStatus, tier: Tier) -> Vec<&InstanceStatus> {
    let serves = |one: &&InstanceStatus| {
        one.instance.tier == tier && one.state == InstanceState::InService.as_str()
    };
    fleet.instances.iter().filter(serves).collect()
}
