//! What is played: the plan, the cloud, and the processes that make and take calls.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use load_client::Schedule;
use node_api::wire::Timers;
use sip_core::registrar::binding_id_of_contact;
use sip_net::clock;
use store::{Aor, CredentialKey, UnixMillis};
use store_drivers::admin::{Admin, Lifetime, NewRegistration};

use super::child::ChildProcess;
use super::sipp;
use crate::cli::{Evaluate, Generator, LastingStore, PolicyFlag};
use crate::command::{explain, open_data};
use crate::config::{Config, PolicyChoice};
use crate::exit::Exit;
use crate::files;

pub(super) const DOMAIN: &str = "evaluation.test";
pub(super) const CALLER: &str = "caller";
pub(super) const CALLEE: &str = "callee";
/// The most proxies of the paper's run, and of one whose policy leaves more room in each.
const PROXIES_MAX: u32 = 4;
const PROXIES_MAX_BY_DEFAULT: u32 = 8;
/// The paper's polls.
const POLL: Duration = Duration::from_secs(3);
/// Below this a busy machine would not answer in time.
const POLL_TIMEOUT_MIN_MS: u64 = 500;

pub(super) struct Experiment {
    pub(super) schedule: Schedule,
    /// How much faster than the plan says.
    pub(super) time_scale: f64,
    pub(super) policy: PolicyFlag,
    pub(super) generator: Generator,
    pub(super) store: LastingStore,
    /// Of the clock, not of the experiment.
    pub(super) boot_time: Duration,
    pub(super) t1: Duration,
    pub(super) config: Config,
    /// The cloud's data directory.
    pub(super) data: PathBuf,
    /// Known to this run alone.
    pub(super) password: String,
    plan_name: String,
}

impl Experiment {
    pub(super) fn new(arguments: &Evaluate, output: &Path) -> Result<Self> {
        let (plan, plan_name) = match &arguments.plan {
            None => (paper_plan(), "the paper's".to_owned()),
            Some(file) => (read_plan(file)?, file.display().to_string()),
        };
        let config = configuration(arguments).checked()?;
        let data = output.join("cloud");
        if data.exists() {
            fs::remove_dir_all(&data)
                .with_context(|| format!("cannot empty {}", data.display()))?;
        }
        let mut secret = [0_u8; 12];
        getrandom::fill(&mut secret)
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        Ok(Self {
            schedule: plan.faster(arguments.time_scale),
            time_scale: arguments.time_scale,
            policy: arguments.policy,
            generator: arguments.generator,
            store: arguments.store,
            boot_time: Duration::from_millis(config.local.boot_time_ms),
            t1: Duration::from_millis(u64::from(config.timers.t1_ms)),
            data: open_data(&data)?,
            password: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
            config,
            plan_name,
        })
    }

    pub(super) fn summary(&self) -> String {
        let minutes = self.schedule.duration().as_secs_f64() / 60.0;
        format!("{} calls in {minutes:.1} minutes, {}", self.schedule.calls(), self.caption())
    }

    /// One line below the figures.
    pub(super) fn caption(&self) -> String {
        let policy = match self.policy {
            PolicyFlag::Paper => "the paper's policy",
            PolicyFlag::Default => "the default policy",
        };
        let faster = match self.time_scale {
            1.0 => String::new(),
            scale => format!(", played {scale} times faster"),
        };
        let boot = match self.boot_time {
            Duration::ZERO => String::new(),
            wall => format!(", machines boot {:.0} s", wall.as_secs_f64() * self.time_scale),
        };
        let store = self.store_name();
        format!("{policy}, {} cps per proxy, store {store}{boot}{faster}", self.capacity())
    }

    pub(super) fn capacity(&self) -> u32 {
        self.config.proxies.capacity_cps
    }

    pub(super) fn store_name(&self) -> &'static str {
        match self.store {
            LastingStore::Sqlite => "SQLite",
            LastingStore::Cassandra => "Cassandra",
        }
    }

    /// For the report.
    pub(super) fn setting(&self) -> Vec<(String, String)> {
        let config = &self.config;
        let manager = &config.manager;
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let generator = match self.generator {
            Generator::Own => "the project's own load client",
            Generator::Sipp => "SIPp",
        };
        let rows = [
            ("program", format!("sipcloud {} ({build} build)", env!("CARGO_PKG_VERSION"))),
            ("machine", format!("{cores} cores for everything, the generator included")),
            ("plan", self.plan_name.clone()),
            ("played faster by", format!("{}", self.time_scale)),
            ("calls", "Figure 4: INVITE and BYE challenged, direct callee, UDP".to_owned()),
            ("retransmission", "none, on either side".to_owned()),
            ("generator", generator.to_owned()),
            ("store", format!("{}, credential cache off", self.store_name())),
            ("policy", format!("{:?}, {} cps per proxy", manager.policy, self.capacity())),
            ("polls", format!("every {} ms of the clock", manager.poll_interval_ms)),
            ("T1", format!("{} ms", config.timers.t1_ms)),
            ("boot of a machine", format!("{} ms of the clock", config.local.boot_time_ms)),
            ("balancers", "1".to_owned()),
            ("proxies", format!("1 to {}", config.proxies.instances_max)),
        ];
        rows.map(|(what, value)| (what.to_owned(), value)).to_vec()
    }

    /// The caller's password, and where the callee is.
    pub(super) fn fill_store(&self) -> Result<()> {
        self.config.prepare_store(&self.data).map_err(|error| {
            let remedy = "start a node with scripts/cassandra up, or use --store sqlite";
            Exit::Unavailable.because(format!("{error:#}; {remedy}"))
        })?;
        let mut store = Admin::open(&self.config.store_location(&self.data)?)
            .map_err(|error| Exit::Unavailable.because(format!("the store: {error}")))?;
        let user = CredentialKey { realm: DOMAIN.to_owned(), username: CALLER.to_owned() };
        store.put_user(&user, self.password.as_bytes()).map_err(explain)?;
        let contact = format!("sip:{CALLEE}@{}", self.callee_address());
        let registration = NewRegistration {
            aor: Aor::new(CALLEE.as_bytes(), DOMAIN.as_bytes()),
            id: binding_id_of_contact(contact.as_bytes())?,
            contact: contact.into_bytes(),
            q: 1_000,
            direct: true,
            lifetime: Lifetime::Permanent,
        };
        store.add_registration(&registration, UnixMillis(clock::unix_millis())).map_err(explain)
    }

    pub(super) fn start_cloud(&self) -> Result<ChildProcess> {
        let file = self.data.join("evaluate.toml");
        files::write_private(&file, self.config.to_toml()?.as_bytes())?;
        let mut command = self.own_program()?;
        command.args(["up", "--json", "--config"]).arg(&file).arg("--data").arg(&self.data);
        ChildProcess::start("the cloud", &mut command, &self.log("up")?)
    }

    pub(super) fn start_callees(&self) -> Result<ChildProcess> {
        let log = self.log("callees")?;
        if self.generator == Generator::Sipp {
            return sipp::start_callees(self, &log);
        }
        let mut command = self.own_program()?;
        command
            .args(["load", "uas", "--json", "--no-retransmission", "--domain", DOMAIN])
            .arg(format!("--local={}", self.callee_address()))
            .arg(format!("--t1={}ms", self.t1.as_millis()));
        ChildProcess::start("the callees", &mut command, &log)
    }

    /// The project's own callers.
    pub(super) fn start_callers(&self) -> Result<ChildProcess> {
        let mut command = self.own_program()?;
        command
            .args(["load", "uac", "--json", "--no-retransmission", "--domain", DOMAIN])
            .arg(format!("--target={}", self.balancer()))
            .arg(format!("--local={}", SocketAddr::new(self.address(31), 0)))
            .arg(format!("--user={CALLER}:{}", self.password))
            .arg(format!("--callee={CALLEE}"))
            .arg(format!("--schedule={}", self.schedule))
            .arg(format!("--t1={}ms", self.t1.as_millis()));
        ChildProcess::start("the callers", &mut command, &self.log("callers")?)
    }

    fn own_program(&self) -> Result<Command> {
        Ok(Command::new(std::env::current_exe().context("this program cannot find itself")?))
    }

    pub(super) fn log(&self, name: &str) -> Result<File> {
        Ok(files::open_log(&self.data.join(format!("{name}.log")), u64::MAX)?)
    }

    pub(super) fn balancer(&self) -> SocketAddr {
        SocketAddr::new(self.address(10), self.config.local.sip_port)
    }

    pub(super) fn callee_address(&self) -> SocketAddr {
        SocketAddr::new(self.address(30), self.config.local.sip_port)
    }

    /// The first address of a part of the cloud's network.
    pub(super) fn address(&self, third: u8) -> IpAddr {
        let [first, second] = self.config.network().unwrap_or([127, 0]);
        IpAddr::from([first, second, third, 1])
    }
}

/// 140 calls per second, 10 more every 90 s up to 760, then 60 less every 90 s down to none
/// (paper §4.1).
fn paper_plan() -> Schedule {
    let up = (0..=62).map(|step| 140 + 10 * step);
    let down = (1..=13).map(|step: i32| (760 - 60 * step).max(0));
    let steps: Vec<String> = up.chain(down).map(|rate| format!("{rate}@90s")).collect();
    steps.join(",").parse().unwrap_or_else(|_| Schedule::constant(140.0, Duration::from_secs(90)))
}

fn read_plan(file: &Path) -> Result<Schedule> {
    let show = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Exit::Usage.because(format!("cannot read {show}: {error}")))?;
    parse_plan(&text).map_err(|why| Exit::Usage.because(format!("{show}: {why}")))
}

fn parse_plan(text: &str) -> Result<Schedule, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let entries: Vec<&str> =
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|it| !it.is_empty()).collect();
    let schedule: Schedule =
        entries.join(",").parse().map_err(|error: load_client::ScheduleError| error.to_string())?;
    if schedule.calls() == 0 { Err("it makes no calls".to_owned()) } else { Ok(schedule) }
}

fn configuration(arguments: &Evaluate) -> Config {
    let scale = arguments.time_scale;
    let scaled =
        |duration: Duration| u64::try_from(duration.div_f64(scale).as_millis()).unwrap_or(u64::MAX);
    let timer = |standard: u32| (f64::from(standard) / scale).ceil() as u32;
    let mut config = Config::default();
    config.service.domains = vec![DOMAIN.to_owned()];
    config.local.network.clone_from(&arguments.network);
    config.local.boot_time_ms = arguments.boot_time.map_or(0, scaled);
    config.manager.poll_interval_ms = scaled(POLL);
    config.manager.poll_timeout_ms =
        config.manager.poll_interval_ms.clamp(POLL_TIMEOUT_MIN_MS, 1_000);
    config.manager.launch_interval_s = (config.manager.launch_interval_s as f64 / scale) as u64;
    config.proxies.instances_max = PROXIES_MAX_BY_DEFAULT;
    if arguments.policy == PolicyFlag::Paper {
        config.manager.policy = PolicyChoice::Paper;
        (config.manager.up_percent, config.manager.up_polls) = (85, 5);
        config.proxies.instances_max = PROXIES_MAX;
    }
    (config.balancers.instances_min, config.balancers.instances_max) = (1, 1);
    config.proxies.instances_min = 1;
    config.proxies.capacity_cps = arguments.capacity;
    config.store.kind = arguments.store.kind();
    // Tables of its own: a cluster may serve others.
    "sipcloud_evaluation".clone_into(&mut config.store.keyspace);
    config.store.contact_points = vec![arguments.contact_point.clone()];
    config.dns.enabled = false;
    let Timers { t1_ms, t2_ms, t4_ms, timer_c_ms } = Timers::default();
    config.timers = Timers {
        t1_ms: timer(t1_ms),
        t2_ms: timer(t2_ms),
        t4_ms: timer(t4_ms),
        timer_c_ms: timer(timer_c_ms).max(64 * timer(t1_ms)),
    };
    config
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(flags: &str) -> Config {
        let line = format!("sipcloud evaluate {flags}");
        let Command::Evaluate(arguments) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("{line} is not evaluate");
        };
        configuration(&arguments).checked().expect("it holds")
    }

    #[test]
    fn the_plan_is_the_paper_s() {
        let plan = paper_plan();
        assert_eq!(plan.calls(), 2_951_100, "2.9 million calls");
        assert_eq!(plan.duration(), Duration::from_secs(76 * 90), "around two hours");
        let rate_at = |minutes: u64| plan.rate_at(Duration::from_secs(60 * minutes + 1));
        assert_eq!(
            (rate_at(0), rate_at(93), rate_at(96), rate_at(113)),
            (140.0, 760.0, 640.0, 0.0)
        );
    }

    #[test]
    fn a_plan_has_lines_commas_and_comments() {
        let plan = parse_plan("# morning\n20@30s, 40@30s\n\n60..20@1m # evening\n");
        assert_eq!(plan.expect("a plan").to_string(), "20@30s,40@30s,60..20@60s");
        assert!(parse_plan("# nothing").is_err() && parse_plan("0@1m").is_err());
        assert!(parse_plan("20 for a while").expect_err("no plan").contains("RATE@DURATION"));
    }

    #[test]
    fn steps_polls_boots_and_timers_shrink_alike() {
        let paper = config("--boot-time 150s");
        assert_eq!((paper.manager.policy, paper.manager.up_percent), (PolicyChoice::Paper, 85));
        assert_eq!((paper.manager.poll_interval_ms, paper.manager.up_polls), (3_000, 5));
        assert_eq!((paper.timers, paper.local.boot_time_ms), (Timers::default(), 150_000));

        let faster = config("--boot-time 150s --time-scale 10 --policy default --store sqlite");
        assert_eq!(faster.manager.policy, PolicyChoice::Adaptive);
        assert_eq!((faster.manager.poll_interval_ms, faster.local.boot_time_ms), (300, 15_000));
        assert_eq!((faster.timers.t1_ms, faster.timers.timer_c_ms), (50, 18_000));
        config("--time-scale 30");
        config("--time-scale 7.3");
    }
}
