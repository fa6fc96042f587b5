//! `sipcloud upgrade`: every manager and node onto a new binary, one at a time, while calls go on.
//!
//! It keeps nothing: what is left to do follows from the builds that the fleet reports. So it may be
//! cut off and called again, and the manager that leads may change meanwhile.

mod progress;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::{InstanceId, InstanceState, Tier};
use node_api::wire::{FleetStatus, InstanceStatus};
use node_api::{ClientError, ManagerClient};
use provider_drivers::live_machines;
use provider_drivers::process::Signal;
use sip_net::clock;

use crate::cli::{self, TierChoice};
use crate::command::{MANAGER_PATIENCE, configuration_of, manager_of, small_runtime};
use crate::exit::Exit;
use crate::files::ManagerFile;
use crate::program::Program;
use progress::Progress;

/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// New instances that end in a row until it is their binary's fault.
const EARLY_DEATHS_MAX: usize = 3;

pub(crate) fn run(arguments: &cli::Upgrade) -> Result<Option<Exit>> {
    // Without a cloud there is nothing to upgrade.
    manager_of(&arguments.data.data)?;
    let data = arguments.data.data.canonicalize()?;
    let before = Program::of(&data)?;
    let program = match &arguments.binary {
        Some(file) => Program::install(&data, file)
            .map_err(|error| Exit::Usage.because(format!("{error:#}")))?,
        None => Program::install_own(&data)?,
    };
    expect_to_run(&program)?;
    let rollout = Rollout {
        is_one_address: configuration_of(&data)?.listen().is_some(),
        data,
        before,
        program,
        tiers: match arguments.tier {
            TierChoice::Proxies => vec![Tier::Proxy],
            TierChoice::Balancers => vec![Tier::LoadBalancer],
            TierChoice::All => vec![Tier::Proxy, Tier::LoadBalancer],
        },
        older_than_ms: if arguments.anew { clock::unix_millis() } else { 0 },
        patience: arguments.patience,
        progress: Progress::new(arguments.json),
        done: 0,
    };
    small_runtime()?.block_on(rollout.run())
}

/// What is no program of ours is told before anything is changed.
fn expect_to_run(program: &Program) -> Result<()> {
    let mut command = Command::new(&program.path);
    let said = command.arg("--version").stdin(Stdio::null()).output();
    let is_ours = said.as_ref().is_ok_and(|said| {
        said.status.success() && String::from_utf8_lossy(&said.stdout).starts_with("sipcloud ")
    });
    if is_ours {
        return Ok(());
    }
    let path = program.path.display();
    std::fs::remove_file(&program.path).ok();
    Err(Exit::Usage.because(format!("{path} is no sipcloud that runs here; nothing was changed")))
}

/// Why an instance was not replaced.
struct Stuck {
    why: String,
}

struct Rollout {
    data: PathBuf,
    before: Program,
    program: Program,
    tiers: Vec<Tier>,
    /// Instances made before this are replaced whatever they run, UNIX milliseconds.
    older_than_ms: u64,
    patience: Duration,
    progress: Progress,
    done: usize,
    /// Clients know one address: a balancer is replaced in its place.
    is_one_address: bool,
}

impl Rollout {
    async fn run(mut self) -> Result<Option<Exit>> {
        let build = self.program.build.clone();
        self.note(&format!("upgrade to build {build} begins")).await?;
        self.program.select(&self.data)?;
        self.progress.say("begins", &format!("upgrade to build {build}"));
        if let Err(stuck) = self.replace_managers().await? {
            return self.give_up(None, &stuck).await;
        }
        while let Some(next) = self.next().await? {
            if let Err(stuck) = self.replace(&next).await? {
                return self.give_up(Some(next.instance), &stuck).await;
            }
            self.done += 1;
            let text = format!("{} is replaced ({} done)", next.instance, self.done);
            self.progress.say("replaced", &text);
        }
        self.note(&format!("upgrade to build {build} is complete: {} replaced", self.done)).await?;
        self.progress.say("complete", &format!("all on build {build}"));
        Ok(None)
    }

    /// The next instance that runs another build: first one that is on its way out already.
    async fn next(&mut self) -> Result<Option<InstanceStatus>> {
        let mut waited = Duration::ZERO;
        loop {
            let fleet = self.fleet().await?;
            let left = self.left(&fleet);
            if let Some(next) = left.into_iter().next() {
                return Ok(Some(next));
            }
            let is_unheard = |one: &InstanceStatus| {
                self.tiers.contains(&one.instance.tier) && one.build.is_empty() && !one.answers
            };
            if !fleet.instances.iter().any(is_unheard) || waited >= self.patience {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
    }

    /// Instances of another build, tier by tier.
    fn left(&self, fleet: &FleetStatus) -> Vec<InstanceStatus> {
        let of_another = |one: &&InstanceStatus| {
            let is_heard = one.answers || !one.build.is_empty();
            let is_old = one.created_at_ms < self.older_than_ms;
            is_heard && (is_old || one.build != self.program.build)
        };
        let mut left = Vec::new();
        for tier in &self.tiers {
            let mut of_tier: Vec<InstanceStatus> = fleet
                .instances
                .iter()
                .filter(|one| one.instance.tier == *tier)
                .filter(of_another)
                .cloned()
                .collect();
            of_tier.sort_by_key(|one| (!is_draining(one), one.instance));
            left.append(&mut of_tier);
        }
        left
    }

    /// Asks for the drain of one instance and waits until it is gone.
    async fn replace(&mut self, old: &InstanceStatus) -> Result<Result<(), Stuck>> {
        let instance = old.instance;
        let is_in_place = self.is_one_address && instance.tier == Tier::LoadBalancer;
        let first = self.last_event().await?;
        let (mut waited, mut since_asked) = (Duration::ZERO, Duration::MAX);
        loop {
            let fleet = self.fleet().await?;
            let now = fleet
                .instances
                .iter()
                .find(|one| one.instance == instance && one.created_at_ms == old.created_at_ms);
            let Some(now) = now else { return Ok(self.expect_successor(old, first).await) };
            let total = self.done + self.left(&fleet).len();
            if is_draining(now) {
                let what = if now.note.is_empty() { "drains" } else { now.note.as_str() };
                self.progress.waits(self.done, total, instance, what);
            } else {
                // A new leader has not heard of it: it is asked again.
                if since_asked >= Duration::from_secs(2) {
                    self.ask(instance, is_in_place).await?;
                    since_asked = Duration::ZERO;
                }
                self.progress.waits(self.done, total, instance, "its replacement starts");
                if let Some(stuck) = self.stuck(instance, first, waited).await? {
                    return Ok(Err(stuck));
                }
                waited += LOOK;
            }
            tokio::time::sleep(LOOK).await;
            since_asked = since_asked.saturating_add(LOOK);
        }
    }

    async fn ask(&mut self, instance: InstanceId, is_in_place: bool) -> Result<()> {
        let build = self.program.build.clone();
        if is_in_place {
            // Its address is the only one that clients know; it drains and ends, and the next one
            // takes the address.
            self.note(&format!("{instance} is replaced in its place by build {build}")).await?;
            let machines = live_machines(&self.data)?;
            for (_, process) in machines.iter().filter(|(one, _)| *one == instance) {
                process.signal(Signal::Terminate)?;
            }
            return Ok(());
        }
        match self.leader()?.drain(instance, &format!("upgrade to build {build}")).await {
            Ok(_) => Ok(()),
            // Gone by now, or the leader changed: the next look tells.
            Err(ClientError::Refused { status: 404 | 409, .. }) => Ok(()),
            Err(error) if error.is_transient() => Ok(()),
            Err(error) => Err(Exit::Unavailable.because(error)),
        }
    }

    /// Whether the replacement cannot be expected any more.
    async fn stuck(
        &self,
        instance: InstanceId,
        first: u64,
        waited: Duration,
    ) -> Result<Option<Stuck>> {
        let deaths = self.early_deaths(instance, first).await?;
        let logs = self.data.join("logs").display().to_string();
        let why = if deaths >= EARLY_DEATHS_MAX {
            format!("its replacement ended {deaths} times at once; logs are in {logs}")
        } else if waited >= self.patience {
            let seconds = self.patience.as_secs();
            format!(
                "its replacement did not come into service within {seconds} s; logs are in {logs} and in instances/"
            )
        } else {
            return Ok(None);
        };
        Ok(Some(Stuck { why }))
    }

    /// After the old one is gone: the tier is whole again, on the new build.
    async fn expect_successor(&mut self, old: &InstanceStatus, first: u64) -> Result<(), Stuck> {
        let tier = old.instance.tier;
        let mut waited = Duration::ZERO;
        loop {
            let stuck = self.stuck(old.instance, first, waited).await;
            if let Ok(Some(stuck)) = stuck {
                return Err(stuck);
            }
            if let Ok(fleet) = self.fleet().await {
                let is_whole = fleet.instances.iter().any(|one| {
                    one.instance.tier == tier
                        && one.build == self.program.build
                        && one.created_at_ms >= self.older_than_ms
                        && one.state == InstanceState::InService.as_str()
                });
                if is_whole {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
    }

    /// Processes of the tier that ended since, the old one apart.
    async fn early_deaths(&self, instance: InstanceId, first: u64) -> Result<usize> {
        let events = match self.leader()?.events(first).await {
            Ok(page) => page.events,
            Err(error) if error.is_transient() => return Ok(0),
            Err(error) => return Err(Exit::Unavailable.because(error)),
        };
        let is_death = |text: &str| {
            let causes = [scaling::Cause::Dead, scaling::Cause::NeverReady];
            causes.iter().any(|cause| text == format!("terminated: {cause}"))
        };
        let deaths = events.iter().filter(|event| {
            let of_tier = event.instance.filter(|one| one.tier == instance.tier);
            of_tier.is_some_and(|one| one != instance) && is_death(&event.text)
        });
        Ok(deaths.count())
    }

    /// Managers that stand by first, then the one that leads, each after the one before is back.
    async fn replace_managers(&mut self) -> Result<Result<(), Stuck>> {
        let leader = ManagerFile::read(&self.data).map(|file| file.process);
        let mut managers = ManagerFile::running(&self.data);
        managers.sort_by_key(|file| Some(&file.process) == leader.as_ref());
        let wanted = managers.len();
        for old in managers {
            if self.build_of(&old).await.is_some_and(|build| build == self.program.build) {
                continue;
            }
            self.progress
                .say("manager", &format!("the manager of process {} ends", old.process.pid));
            old.process.signal(Signal::Terminate)?;
            let mut waited = Duration::ZERO;
            while old.process.is_alive() || !self.managers_are_back(wanted).await {
                if waited >= self.patience {
                    let why = "no manager came back: start one with `sipcloud manager --data`, \
                               unless `sipcloud up` does"
                        .to_owned();
                    return Ok(Err(Stuck { why }));
                }
                tokio::time::sleep(LOOK).await;
                waited += LOOK;
            }
        }
        Ok(Ok(()))
    }

    async fn managers_are_back(&self, wanted: usize) -> bool {
        let running = ManagerFile::running(&self.data);
        let mut answering = 0;
        for manager in &running {
            answering += usize::from(self.build_of(manager).await.is_some());
        }
        let leads = match self.leader() {
            Ok(leader) => leader.fleet().await.is_ok_and(|fleet| fleet.manager.leads),
            Err(_) => false,
        };
        answering >= wanted && leads
    }

    async fn build_of(&self, manager: &ManagerFile) -> Option<String> {
        let client = ManagerClient::new(manager.api, &manager.token, MANAGER_PATIENCE).ok()?;
        client.fleet().await.ok().map(|fleet| fleet.manager.build)
    }

    /// Everything stays as it is: what was to leave serves on, and what is made anew is of before.
    async fn give_up(
        mut self,
        instance: Option<InstanceId>,
        stuck: &Stuck,
    ) -> Result<Option<Exit>> {
        let build = self.program.build.clone();
        if let Some(instance) = instance {
            self.leader()?.keep(instance).await.ok();
        }
        self.before.select(&self.data)?;
        std::mem::swap(&mut self.program, &mut self.before);
        let whom = instance.map_or_else(|| "the manager".to_owned(), |one| one.to_string());
        let text = format!("upgrade to build {build} stopped at {whom}: {}", stuck.why);
        self.note(&text).await.ok();
        // Managers of before make nodes of before.
        self.replace_managers().await.ok();
        let before = &self.program.build;
        Err(Exit::Failed.because(format!(
            "{text}\n{} replaced before it go on; {whom} serves on, and new instances are made of \
             build {before} again. With a binary that works call `sipcloud upgrade` again: it goes \
             on from here",
            self.done,
        )))
    }

    /// The fleet as the leader sees it; another leader is waited for.
    async fn fleet(&self) -> Result<FleetStatus> {
        let mut waited = Duration::ZERO;
        loop {
            let why = match self.leader()?.fleet().await {
                Ok(fleet) if fleet.manager.leads && !fleet.instances.is_empty() => {
                    return Ok(fleet);
                }
                Ok(_) => "no manager leads".to_owned(),
                Err(error) => error.to_string(),
            };
            if waited >= self.patience {
                return Err(Exit::Unavailable.because(format!("{why}; call it again to go on")));
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
    }

    async fn last_event(&self) -> Result<u64> {
        let mut last = 0;
        loop {
            self.fleet().await?;
            let Ok(page) = self.leader()?.events(last).await else { continue };
            if page.events.is_empty() {
                return Ok(last);
            }
            last = page.last;
        }
    }

    async fn note(&self, text: &str) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            match self.leader()?.note(text).await {
                Ok(_) => return Ok(()),
                Err(error) if waited >= self.patience => {
                    return Err(Exit::Unavailable.because(error));
                }
                // Another one is about to lead.
                Err(_) => tokio::time::sleep(LOOK).await,
            }
            waited += LOOK;
        }
    }

    fn leader(&self) -> Result<ManagerClient> {
        manager_of(&self.data).context("the cloud has ended")
    }
}

fn is_draining(one: &InstanceStatus) -> bool {
    one.state == InstanceState::Draining.as_str()
}
