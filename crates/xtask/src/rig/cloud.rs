//! A whole cloud of ours with one balancer and one proxy.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Rig;
use super::calls::{CALLEE, CALLER, DOMAIN, PASSWORD};
use super::element::Element;
use super::process::{self, Place, Running};

const START_TIME_MAX: Duration = Duration::from_secs(60);
const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);

/// What kind of cloud.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// For people.
    pub name: String,
    /// First two octets of its addresses.
    pub network: String,
    /// `[store]` of its configuration.
    pub store: String,
    pub workers: u16,
    /// Where the proxy runs, and where all the rest.
    pub proxy: Place,
    pub others: Place,
}

impl Plan {
    pub(crate) fn new(name: &str, number: usize, store: &str, workers: u16) -> Self {
        Self {
            name: name.to_owned(),
            network: format!("127.{}", 64 + number),
            store: store.to_owned(),
            workers,
            proxy: Place::Anywhere,
            others: Place::Anywhere,
        }
    }

    fn configuration(&self) -> String {
        format!(
            "[service]\ndomains = [\"{DOMAIN}\"]\n[local]\nnetwork = \"{}\"\n\
             [balancers]\ninstances_max = 1\n[proxies]\ninstances_max = 1\nworkers = {}\n\
             [store]\n{}",
            self.network, self.workers, self.store
        )
    }
}

pub(crate) struct Cloud {
    name: String,
    network: String,
    process: Running,
    program: PathBuf,
    data: PathBuf,
    targets: Vec<SocketAddr>,
    has_database: bool,
}

impl Cloud {
    /// Starts it and waits until calls can be made.
    pub(crate) fn start(rig: &Rig, plan: &Plan) -> Result<Self> {
        // A network is used again with another number of workers; what it knew must not be.
        let place = format!("{}-{}", plan.network, plan.workers);
        let data = rig.folder.join(&place);
        let config = rig.folder.join(format!("{place}.toml"));
        fs::write(&config, plan.configuration())?;
        let log_path = rig.folder.join(format!("{place}.log"));
        let log = fs::File::create(&log_path)?;
        let mut up = plan.others.command(&rig.program);
        up.arg("up").arg("--config").arg(&config).arg("--data").arg(&data);
        let process = Running::start(up.stdout(log.try_clone()?).stderr(log))?;
        let workers = (0..plan.workers).map(|worker| 5060 + worker);
        let targets = workers.map(|port| format!("{}.20.1:{port}", plan.network).parse());
        let targets = targets.collect::<Result<_, _>>()?;
        let (name, network) = (plan.name.clone(), plan.network.clone());
        let program = rig.program.clone();
        let has_database = plan.store.contains("cassandra");
        let mut cloud = Self { name, network, process, program, data, targets, has_database };
        cloud.wait_until_ready().with_context(|| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            format!("{} does not come up: {log}", plan.name)
        })?;
        plan.proxy.apply(cloud.pid_of("proxy-1").context("the proxy has gone")?)?;
        Ok(cloud)
    }

    /// The two users of Figure 4.
    pub(crate) fn add_users(&self) -> Result<()> {
        for user in [CALLER, CALLEE] {
            let mut child = self
                .command(&["user", "add", &format!("{user}@{DOMAIN}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            writeln!(child.stdin.take().context("a pipe")?, "{PASSWORD}")?;
            if !child.wait()?.success() {
                bail!("user add failed");
            }
        }
        Ok(())
    }

    /// Where the balancer listens.
    pub(crate) fn balancer(&self) -> Result<SocketAddr> {
        Ok(format!("{}.10.1:5060", self.network).parse()?)
    }

    /// The process of an instance, if it is in service.
    pub(crate) fn pid_of(&self, instance: &str) -> Option<u32> {
        let found = self.instance(instance)?;
        let is_ready = found["state"] == "in service";
        found["pid"].as_u64().filter(|_| is_ready).and_then(|pid| u32::try_from(pid).ok())
    }

    /// Server transactions of a proxy, as of the last poll.
    pub(crate) fn transactions_of(&self, proxy: &str) -> Option<u64> {
        self.instance(proxy)?["server_transactions"].as_u64()
    }

    /// What the manager says of an instance.
    fn instance(&self, name: &str) -> Option<Value> {
        let output =
            self.command(&["status", "--json"]).stderr(Stdio::null()).output().ok()?.stdout;
        let status: Value = serde_json::from_slice(&output).ok()?;
        status["instances"].as_array()?.iter().find(|one| one["instance"] == name).cloned()
    }

    /// `sipcloud` alone.
    pub(crate) fn program(&self) -> Command {
        Command::new(&self.program)
    }

    /// `sipcloud` with its data directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--data").arg(&self.data);
        command
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        process::wait_for(START_TIME_MAX, || {
            if self.process.has_ended() {
                return Some(Err(anyhow::anyhow!("it has ended")));
            }
            let is_ready = ["balancer-1", "proxy-1"].iter().all(|it| self.pid_of(it).is_some());
            is_ready.then_some(Ok(()))
        })?
    }
}

impl Element for Cloud {
    fn name(&self) -> &str {
        &self.name
    }

    fn targets(&self) -> &[SocketAddr] {
        &self.targets
    }

    fn processes(&self) -> Vec<u32> {
        self.pid_of("proxy-1").into_iter().collect()
    }

    fn register(&self, callee: SocketAddr) -> Result<()> {
        let (aor, contact) = (format!("{CALLEE}@{DOMAIN}"), format!("sip:{CALLEE}@{callee}"));
        let mut add = self.command(&["registration", "add", &aor, &contact, "--direct"]);
        process::run(&mut add, COMMAND_TIME_MAX).map(drop)
    }

    fn has_database(&self) -> bool {
        self.has_database
    }
}
