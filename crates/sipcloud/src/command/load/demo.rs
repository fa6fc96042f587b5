//! `sipcloud load demo`: calls through the cloud of a data directory, and how the fleet follows.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::{InstanceState, Tier};
use load_client::{Plan, Registration, Report, Sample, Uas, UasOptions};
use node_api::ManagerClient;
use node_api::wire::FleetStatus;
use serde_json::json;

use super::guests::Guests;
use super::story::Story;
use super::{Second, conclude, lines, stop_on_signal};
use crate::cli;
use crate::command::{configuration_of, manager_of, small_runtime};
use crate::config::Config;
use crate::exit::Exit;
use crate::show;

/// Users of the demonstration; they are removed when it ends.
const CALLER: &str = "demo-caller";
const CALLEES: [&str; 4] = ["demo-1", "demo-2", "demo-3", "demo-4"];
/// How long the callees may take to register.
const REGISTER_PATIENCE: Duration = Duration::from_secs(20);
/// How often the manager is asked how the fleet does.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// Lines are printed this far apart when nobody watches a terminal, seconds.
const LINES_INTERVAL_S: u64 = 5;

pub(super) fn run(arguments: &cli::Demo) -> Result<Option<Exit>> {
    let data = &arguments.data.data;
    let config = configuration_of(data)?;
    let manager = manager_of(data)?;
    let fleet = small_runtime()?
        .block_on(manager.fleet())
        .map_err(|error| Exit::Unavailable.because(error))?;
    let balancers = balancers(&fleet);
    if balancers.is_empty() {
        return Err(Exit::Unavailable.because("no balancer is in service"));
    }
    let guests = Guests::invite(data, CALLEES.into_iter().chain([CALLER]))?;
    let uas = start_callees(&config, &guests, &balancers)?;

    let mut story = Story::begin(manager.clone())?;
    let watch = Watch::start(manager)?;
    let mut screen = Screen::new(arguments.json);
    let plan = Plan {
        users: vec![guests.credentials(CALLER)],
        callees: CALLEES.map(str::to_owned).to_vec(),
        ..Plan::figure_4(
            balancers,
            vec![SocketAddr::new(own_ip(&config, 31)?, 0)],
            guests.realm(),
            arguments.schedule.clone(),
        )
    };
    let stop = stop_on_signal(Second::EndsTheProcess)?;
    let report = load_client::run_uac(&plan, &stop, |sample| {
        screen.draw(sample, watch.latest().as_ref());
    })
    .map_err(super::cannot_call)?;
    uas.stop();
    screen.see(watch.latest().as_ref());
    story.end();
    story.tell(&report, arguments.json);
    let exit = conclude(&report, arguments.json);
    screen.conclude(&report, watch.latest().as_ref());
    Ok(exit)
}

/// The balancers that are in service, as clients see them.
fn balancers(fleet: &FleetStatus) -> Vec<SocketAddr> {
    let in_service = fleet.instances.iter().filter(|instance| {
        instance.instance.tier == Tier::LoadBalancer
            && instance.state == InstanceState::InService.as_str()
    });
    in_service.map(|instance| instance.sip).collect()
}

fn start_callees(config: &Config, guests: &Guests, balancers: &[SocketAddr]) -> Result<Uas> {
    let options = UasOptions {
        users: CALLEES.map(|name| guests.credentials(name)).to_vec(),
        registration: Some(Registration::at(balancers.to_vec())),
        ..UasOptions::direct(vec![SocketAddr::new(own_ip(config, 30)?, 0)], guests.realm())
    };
    let uas = Uas::start(options).map_err(super::cannot_call)?;
    if !uas.wait_registered(CALLEES.len() as u64, REGISTER_PATIENCE) {
        return Err(Exit::Unavailable.because("the callees could not register"));
    }
    Ok(uas)
}

/// An address of the cloud's loopback network that is no node's.
fn own_ip(config: &Config, third: u8) -> Result<IpAddr> {
    let [first, second] = config.network().context("local.network is not two octets")?;
    Ok(IpAddr::from([first, second, third, 1]))
}

/// Asks the manager in the background: the callers never wait for it.
struct Watch {
    latest: Arc<Mutex<Option<FleetStatus>>>,
}

impl Watch {
    fn start(manager: ManagerClient) -> Result<Self> {
        let latest = Arc::new(Mutex::new(None));
        let board = Arc::clone(&latest);
        let runtime = small_runtime()?;
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        // A manager that is away is asked again; the last picture stays.
                        if let Ok(fleet) = manager.fleet().await {
                            *board.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet);
                        }
                        tokio::time::sleep(ASK_INTERVAL).await;
                    }
                });
            })
            .context("a thread cannot be started")?;
        Ok(Self { latest })
    }

    fn latest(&self) -> Option<FleetStatus> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The live lines: the callers, and each tier.
struct Screen {
    json: bool,
    is_terminal: bool,
    drawn: usize,
    proxies_max: u32,
    last_line_s: u64,
}

impl Screen {
    fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self { json, is_terminal, drawn: 0, proxies_max: 0, last_line_s: 0 }
    }

    fn see(&mut self, fleet: Option<&FleetStatus>) {
        self.proxies_max = self.proxies_max.max(proxies_in_service(fleet).unwrap_or(0));
    }

    fn draw(&mut self, sample: &Sample, fleet: Option<&FleetStatus>) {
        self.see(fleet);
        let tiers = fleet.map_or(&[][..], |fleet| &fleet.tiers);
        if self.json {
            let tiers: Vec<_> = tiers.iter().map(show::tier_json).collect();
            let line = lines::sample(sample, true);
            println!("{line}");
            println!("{}", json!({ "type": "tiers", "tiers": tiers }));
            return;
        }
        let second = sample.at.as_secs();
        if !self.is_terminal && second < self.last_line_s + LINES_INTERVAL_S {
            return;
        }
        self.last_line_s = second;
        if self.is_terminal && self.drawn > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn);
        }
        println!("{}", lines::calls(sample));
        for tier in tiers {
            println!("{}", show::tier_line(tier));
        }
        self.drawn = 1 + tiers.len();
        io::stdout().flush().ok();
    }

    /// The last line: what became of calls and proxies.
    fn conclude(&self, report: &Report, fleet: Option<&FleetStatus>) {
        let now = proxies_in_service(fleet);
        if self.json {
            let line = json!({
                "type": "demo",
                "calls": report.started,
                "failed": report.failed,
                "proxies_max": self.proxies_max,
                "proxies_now": now,
            });
            println!("{line}");
            return;
        }
        let now = now.map_or_else(|| "an unknown number".to_owned(), |now| now.to_string());
        println!(
            "\n{} calls made, {} failed; proxies went up to {} and are {now} now",
            report.started, report.failed, self.proxies_max,
        );
    }
}

fn proxies_in_service(fleet: Option<&FleetStatus>) -> Option<u32> {
    let tier = fleet?.tiers.iter().find(|tier| tier.tier == Tier::Proxy.name())?;
    Some(tier.in_service)
}
