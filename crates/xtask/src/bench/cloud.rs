//! Our proxy: a whole cloud with one of them, which is called straight, over one of the stores.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::element::Element;
use super::load::{CALLEE, CALLER, DOMAIN, PASSWORD};
use super::process;

const DATABASE_NETWORK: &str = "127.0.44";
/// A minute.
const QUESTIONS_MAX: u32 = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreChoice {
    Memory,
    Sqlite,
    Cassandra,
    CassandraCached,
}

impl StoreChoice {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "SipCloud, memory",
            Self::Sqlite => "SipCloud, SQLite",
            Self::Cassandra => "SipCloud, Cassandra",
            Self::CassandraCached => "SipCloud, Cassandra, cache",
        }
    }

    fn keys(self) -> String {
        let database =
            format!("kind = \"cassandra\"\ncontact_points = [\"{DATABASE_NETWORK}.1\"]\n");
        match self {
            Self::Memory => "kind = \"memory\"\n".to_owned(),
            Self::Sqlite => "kind = \"sqlite\"\n".to_owned(),
            Self::Cassandra => database,
            Self::CassandraCached => {
                format!(
                    "{database}keyspace = \"sipcloud_cached\"\ncredential_cache_lifetime_s = 60\n"
                )
            }
        }
    }
}

/// One Cassandra node for all clouds that want it.
pub(super) struct Database {
    root: PathBuf,
    data: PathBuf,
}

impl Database {
    pub(super) fn start(root: &Path, folder: &Path) -> Result<Self> {
        let this = Self { root: root.to_owned(), data: folder.join("cassandra") };
        if !this.script(&["up"])? {
            bail!("scripts/cassandra up failed");
        }
        Ok(this)
    }

    fn script(&self, arguments: &[&str]) -> Result<bool> {
        let status = Command::new(self.root.join("scripts/cassandra"))
            .args(arguments)
            .args(["--network", DATABASE_NETWORK, "--data"])
            .arg(&self.data)
            .stdout(Stdio::null())
            .status()
            .context("scripts/cassandra")?;
        Ok(status.success())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.script(&["down", "--clean"]);
    }
}

pub(super) struct Cloud {
    choice: StoreChoice,
    child: Child,
    program: PathBuf,
    data: PathBuf,
    targets: Vec<SocketAddr>,
}

impl Cloud {
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        choice: StoreChoice,
        workers: u16,
        number: usize,
    ) -> Result<Self> {
        let network = format!("127.{}", 64 + number);
        let data = folder.join(format!("cloud-{number}"));
        let config = folder.join(format!("cloud-{number}.toml"));
        let text = format!(
            "[service]\ndomains = [\"{DOMAIN}\"]\n[local]\nnetwork = \"{network}\"\n\
             [balancers]\ninstances_max = 1\n[proxies]\ninstances_max = 1\nworkers = {workers}\n\
             [store]\n{}",
            choice.keys()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(folder.join(format!("cloud-{number}.log")))?;
        let child = Command::new(program)
            .arg("up")
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(&data)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the cloud does not start")?;
        let workers = (0..workers).map(|worker| format!("{network}.20.1:{}", 5060 + worker));
        let targets = workers.map(|text| text.parse()).collect::<Result<_, _>>()?;
        let cloud = Self { choice, child, program: program.to_owned(), data, targets };
        process::wait_for(QUESTIONS_MAX, || cloud.proxy_pid())
            .with_context(|| format!("{} has no proxy in service", choice.name()))?;
        for user in [CALLER, CALLEE] {
            cloud.add_user(user)?;
        }
        Ok(cloud)
    }

    /// The process of the proxy, once it is in service.
    fn proxy_pid(&self) -> Option<u32> {
        let output = Command::new(&self.program)
            .args(["status", "--json", "--data"])
            .arg(&self.data)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let instances = status["instances"].as_array()?;
        let proxy = instances.iter().find(|one| one["instance"] == "proxy-1")?;
        let is_ready = proxy["state"] == "in_service";
        proxy["pid"].as_u64().filter(|_| is_ready).and_then(|pid| u32::try_from(pid).ok())
    }

    fn add_user(&self, user: &str) -> Result<()> {
        let mut child = self
            .command(&["user", "add", &format!("{user}@{DOMAIN}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        writeln!(child.stdin.take().context("a pipe")?, "{PASSWORD}")?;
        if !child.wait()?.success() {
            bail!("user add failed");
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--data").arg(&self.data);
        command
    }
}

impl Element for Cloud {
    fn name(&self) -> &str {
        self.choice.name()
    }

    fn targets(&self) -> &[SocketAddr] {
        &self.targets
    }

    fn processes(&self) -> Vec<u32> {
        self.proxy_pid().into_iter().collect()
    }

    fn register(&self, callee: SocketAddr) -> Result<()> {
        let (aor, contact) = (format!("{CALLEE}@{DOMAIN}"), format!("sip:{CALLEE}@{callee}"));
        let mut add = self.command(&["registration", "add", &aor, &contact, "--direct"]);
        if !add.stdout(Stdio::null()).status()?.success() {
            bail!("registration add failed");
        }
        Ok(())
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
