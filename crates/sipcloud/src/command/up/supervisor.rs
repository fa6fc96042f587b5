//! The loop of `up`: keeps its managers running, says how the fleet does, ends it all at Ctrl-C.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::Tier;
use node_api::ManagerClient;
use node_api::wire::FleetStatus;
use provider_drivers::process::{self, Ended, ProcessIdentity, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::display::Display;
use super::stop::{self, Haste};
use super::{manager_log, tail};
use crate::command::manager::dns_address;
use crate::config::Config;
use crate::exit::Exit;
use crate::files::{self, ManagerFile};
use crate::program::Program;
use crate::secrets::Secrets;
use crate::signals::{EndSignals, hangup};

/// How often the manager is asked how the fleet does.
const TICK: Duration = Duration::from_millis(250);
/// How long the manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A manager that lived longer than this is restarted without delay.
const GOOD_LIFE: Duration = Duration::from_secs(5);
/// Between two restarts of a manager that dies young.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// A manager that dies young this often before the cloud was ever ready will not come up.
const EARLY_DEATHS_MAX: u32 = 3;
/// Without a call possible after this long, it is said what is missing.
const SLOW_START: Duration = Duration::from_secs(20);

/// Takes over what the operator's file says now, and writes it where the manager reads it.
pub(super) type Reread<'a> = Box<dyn Fn(&Config) -> Result<Config> + 'a>;

/// What is kept running.
pub(super) struct Cloud {
    /// By its full name.
    pub(super) data: PathBuf,
    pub(super) config: Config,
    pub(super) secrets: Secrets,
    /// One leads, the others stand by.
    pub(super) managers: u8,
}

pub(super) struct Supervisor<'a> {
    data: PathBuf,
    config: Config,
    secrets: Secrets,
    display: Display,
    managers: Vec<Manager>,
    managers_wanted: usize,
    early_deaths: u32,
    reread: Reread<'a>,
    /// SIGHUP came and the manager has not been told.
    is_reload_owed: bool,
    is_ready: bool,
    /// Ticks since the start, to tell when a start is slow.
    ticks: u32,
}

struct Manager {
    process: ProcessIdentity,
    lived: Duration,
}

enum Next {
    GoOn,
    Stop,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(cloud: Cloud, display: Display, reread: Reread<'a>) -> Result<Self> {
        let Cloud { data, config, secrets, managers } = cloud;
        let mut this = Self {
            data,
            config,
            secrets,
            display,
            managers: Vec::new(),
            managers_wanted: usize::from(managers),
            early_deaths: 0,
            reread,
            is_reload_owed: false,
            is_ready: false,
            ticks: 0,
        };
        this.start_missing_managers()?;
        Ok(this)
    }

    pub(super) async fn run(mut self) -> Result<Option<Exit>> {
        let mut end = EndSignals::new()?;
        let outcome = self.supervise(&mut end).await;
        if let Err(error) = &outcome {
            self.display.failed(&format!("{error:#}"));
        }
        self.stop(&mut end).await?;
        outcome.map(|()| None)
    }

    async fn supervise(&mut self, end: &mut EndSignals) -> Result<()> {
        let (mut hangups, mut child_ended) = (hangup()?, signal(SignalKind::child())?);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                () = end.recv() => Next::Stop,
                _ = hangups.recv() => self.reload(),
                _ = child_ended.recv() => self.look_after_managers().await?,
                _ = ticks.tick() => self.tick().await?,
            };
            if matches!(next, Next::Stop) {
                return Ok(());
            }
        }
    }

    /// SIGHUP: nothing ends, whether the file is good or not.
    fn reload(&mut self) -> Next {
        match (self.reread)(&self.config) {
            Ok(config) => {
                self.config = config;
                self.is_reload_owed = true;
                self.pass_reload_on();
            }
            Err(error) => tracing::warn!("nothing changed: {error:#}"),
        }
        Next::GoOn
    }

    /// Tells the managers to read their file again, once they have begun to listen for that.
    fn pass_reload_on(&mut self) {
        let listening = ManagerFile::running(&self.data);
        let listens =
            |manager: &Manager| listening.iter().any(|file| file.process == manager.process);
        if !self.is_reload_owed || !self.managers.iter().all(listens) {
            return;
        }
        for manager in &self.managers {
            match manager.process.signal(Signal::Reload) {
                Ok(_) => tracing::info!("a manager was told to read its configuration again"),
                Err(error) => tracing::warn!(%error, "a manager cannot be told to reload"),
            }
        }
        self.is_reload_owed = false;
    }

    async fn tick(&mut self) -> Result<Next> {
        self.ticks += 1;
        for manager in &mut self.managers {
            manager.lived += TICK;
        }
        self.look_after_managers().await?;
        self.pass_reload_on();
        let fleet = match self.client() {
            Some(client) => client.fleet().await.ok(),
            None => None,
        };
        match fleet {
            Some(fleet) if self.is_ready => self.display.live(&fleet),
            Some(fleet) if self.can_take_calls(&fleet) => {
                self.is_ready = true;
                let dns = dns_address(&self.config);
                self.display.ready(&self.config, &balancers(&self.config, &fleet), dns);
            }
            other => self.say_if_slow(other.as_ref()),
        }
        Ok(Next::GoOn)
    }

    fn can_take_calls(&self, fleet: &FleetStatus) -> bool {
        let in_service = |tier: Tier| {
            let found = fleet.tiers.iter().find(|status| status.tier == tier.name());
            found.map_or(0, |status| status.in_service)
        };
        in_service(Tier::LoadBalancer) >= self.config.balancers.instances_min
            && in_service(Tier::Proxy) >= self.config.proxies.instances_min
    }

    fn say_if_slow(&mut self, fleet: Option<&FleetStatus>) {
        let is_now = TICK * self.ticks >= SLOW_START && TICK * (self.ticks - 1) < SLOW_START;
        if self.is_ready || !is_now {
            return;
        }
        let missing = fleet.map_or_else(
            || "the manager does not answer".to_owned(),
            |fleet| {
                let states = fleet.instances.iter().map(|it| {
                    format!("{} is {} {}", it.instance, it.state, it.note).trim().to_owned()
                });
                states.collect::<Vec<_>>().join(", ")
            },
        );
        let logs = self.data.display();
        self.display.say("slow", &format!("not ready yet: {missing}; logs are in {logs}"));
    }

    /// Takes exit codes, and starts a manager for each that is gone.
    async fn look_after_managers(&mut self) -> Result<Next> {
        let ended = process::reap_children();
        let is_gone = |manager: &Manager| {
            let has_ended = ended.iter().any(|ended| ended.pid == manager.process.pid);
            has_ended || !manager.process.is_alive()
        };
        let (gone, alive): (Vec<Manager>, Vec<Manager>) =
            std::mem::take(&mut self.managers).into_iter().partition(is_gone);
        self.managers = alive;
        for manager in &gone {
            let (pid, lived_long) = (manager.process.pid, manager.lived >= GOOD_LIFE);
            let end = ended.iter().find(|ended| ended.pid == pid);
            self.check_early_death(end, lived_long)?;
            if self.is_ready {
                tracing::warn!(pid, "a manager ended; calls go on, another one starts");
            }
            if !lived_long {
                tokio::time::sleep(RESTART_DELAY).await;
            }
        }
        self.start_missing_managers()?;
        Ok(Next::GoOn)
    }

    /// A manager that cannot start is not started for ever.
    fn check_early_death(&mut self, end: Option<&Ended>, lived_long: bool) -> Result<()> {
        let code = end.and_then(|ended| ended.exit_code);
        let is_configuration = code == Some(Exit::Configuration as i32);
        self.early_deaths = if lived_long { 0 } else { self.early_deaths + 1 };
        if self.is_ready || (self.early_deaths < EARLY_DEATHS_MAX && !is_configuration) {
            return Ok(());
        }
        let log = manager_log(&self.data);
        let exit = if is_configuration { Exit::Configuration } else { Exit::Unavailable };
        Err(exit.because(format!(
            "the manager cannot start; {} ends with:\n{}",
            log.display(),
            tail(&log, 5),
        )))
    }

    fn start_missing_managers(&mut self) -> Result<()> {
        while self.managers.len() < self.managers_wanted {
            self.start_manager()?;
        }
        Ok(())
    }

    fn start_manager(&mut self) -> Result<()> {
        let log = files::open_log(&manager_log(&self.data), self.config.local.log_bytes_max)
            .context("cannot open the manager's log")?;
        let mut command = Command::new(Program::of(&self.data)?.path);
        command
            .args(["manager", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // In a session of its own, so that Ctrl-C reaches it only through us.
        let child = process::in_own_session(&mut command)
            .spawn()
            .context("the manager cannot be started")?;
        let Some(process) = ProcessIdentity::of(child.id()) else {
            return Err(Exit::Unavailable.because("the manager ended at once"));
        };
        self.managers.push(Manager { process, lived: Duration::ZERO });
        Ok(())
    }

    /// The manager of ours that leads, once it has said where it answers.
    fn client(&self) -> Option<ManagerClient> {
        let is_ours = |file: &ManagerFile| {
            self.managers.iter().any(|manager| manager.process == file.process)
        };
        let file = ManagerFile::read(&self.data).filter(is_ours)?;
        ManagerClient::new(file.api, &self.secrets.manager_token, PATIENCE).ok()
    }

    /// Ends everything; a second signal while nodes drain ends them at once.
    async fn stop(&mut self, end: &mut EndSignals) -> Result<()> {
        self.display.say("stopping", "stopping; Ctrl-C again to stop at once");
        let grace = Duration::from_millis(self.config.local.stop_grace_ms);
        let managers: Vec<ProcessIdentity> =
            self.managers.drain(..).map(|manager| manager.process).collect();
        let drained = tokio::select! {
            stopped = stop::cloud(&self.data, managers.clone(), Haste::Drain { grace }) => {
                Some(stopped)
            }
            () = end.recv() => None,
        };
        match drained {
            Some(stopped) => stopped?,
            None => stop::cloud(&self.data, managers, Haste::Now).await?,
        }
        process::reap_children();
        self.display.say("stopped", "stopped");
        Ok(())
    }
}

/// Where clients reach the balancers that are in service.
fn balancers(config: &Config, fleet: &FleetStatus) -> Vec<SocketAddr> {
    let in_service = fleet.instances.iter().filter(|instance| {
        instance.instance.tier == Tier::LoadBalancer
            && instance.state == fleet::InstanceState::InService.as_str()
    });
    let seen_by_clients = |address: SocketAddr| {
        let ip: IpAddr = config.listen().unwrap_or_else(|| address.ip());
        SocketAddr::new(ip, address.port())
    };
    in_service.map(|instance| seen_by_clients(instance.sip)).collect()
}
