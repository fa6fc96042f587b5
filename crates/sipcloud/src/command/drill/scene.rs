//! What a drill has at hand while it plays: the fleet as it is, time, the calls, and a screen.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use fleet::Tier;
use load_client::Stop;
use node_api::wire::{FleetStatus, InstanceStatus, TierStatus};
use serde_json::json;
use sip_net::clock;

use super::shares::Shares;
use super::stage::{Stage, serving};
use super::traffic::Traffic;
use crate::cli;

/// How often a line is printed when nobody watches a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often balancers are asked whom they gave calls to.
const SHARES_EVERY: Duration = Duration::from_secs(1);

/// Why a play has reached its end, or has not.
pub(super) type Played = Result<String, Unplayed>;

/// Why a play has not reached its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unplayed {
    Interrupted,
    Failed(String),
    Skipped(String),
}

impl Unplayed {
    pub(super) fn failed(why: impl std::fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }
}

/// One play.
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage,
    pub(super) traffic: &'a Traffic,
    pub(super) arguments: &'a cli::Drill,
    interrupted: &'a Stop,
    screen: Screen,
    fleet: Option<FleetStatus>,
    shares_at: Instant,
    pub(super) shares: Shares,
    pub(super) proxies_max: u32,
    /// What happened, for the report.
    pub(super) notes: Vec<String>,
    /// Calls that may be lost, because they were inside a process that was killed.
    pub(super) may_be_lost: u64,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        name: String,
        stage: &'a Stage,
        traffic: &'a Traffic,
        arguments: &'a cli::Drill,
        interrupted: &'a Stop,
    ) -> Self {
        let now = clock::now();
        let is_terminal = io::stdout().is_terminal();
        let screen = Screen { name, json: arguments.json, is_terminal, began: now, drawn_at: now };
        Self {
            stage,
            traffic,
            arguments,
            interrupted,
            screen,
            fleet: None,
            shares_at: now,
            shares: Shares::default(),
            proxies_max: 0,
            notes: Vec::new(),
            may_be_lost: 0,
        }
    }

    /// How long the middle of a play should last.
    pub(super) fn seconds(&self) -> Duration {
        Duration::from_secs(self.arguments.seconds)
    }

    /// Waits until the fleet is as `is_so` wants it.
    pub(super) fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut is_so: impl FnMut(&FleetStatus) -> bool,
    ) -> Result<FleetStatus, Unplayed> {
        let deadline = clock::now() + within;
        loop {
            self.look(what, deadline);
            if let Some(fleet) = self.fleet.as_ref().filter(|fleet| is_so(fleet)) {
                return Ok(fleet.clone());
            }
            if self.interrupted.is_stopped() {
                return Err(Unplayed::Interrupted);
            }
            if clock::now() >= deadline {
                let seen = self.fleet.as_ref().map_or_else(|| "no manager".to_owned(), in_short);
                let within = within.as_secs();
                return Err(Unplayed::Failed(format!("no {what} within {within} s: {seen}")));
            }
            self.stage.rest();
        }
    }

    /// Lets some time pass.
    pub(super) fn pass(&mut self, what: &str, time: Duration) -> Result<(), Unplayed> {
        let deadline = clock::now() + time;
        while clock::now() < deadline {
            self.look(what, deadline);
            if self.interrupted.is_stopped() {
                return Err(Unplayed::Interrupted);
            }
            self.stage.rest();
        }
        Ok(())
    }

    /// Waits until the last call has ended.
    pub(super) fn wind_down(&mut self) {
        self.traffic.stop();
        let deadline = clock::now() + self.arguments.ring * 2;
        while !self.traffic.is_over() {
            self.look("the last calls", deadline);
            self.stage.rest();
        }
        self.look("the end", deadline);
    }

    /// The fleet now.
    pub(super) fn now(&mut self) -> Result<FleetStatus, Unplayed> {
        self.until("answer of the manager", Duration::from_secs(10), |_| true)
    }

    pub(super) fn note(&mut self, text: String) {
        let at = clock::now().saturating_duration_since(self.screen.began).as_secs_f64();
        let text = format!("{at:>6.1} s  {text}");
        self.screen.say(&text);
        self.notes.push(text);
    }

    pub(super) fn proxies_now(&self) -> u32 {
        self.fleet.as_ref().map_or(0, |fleet| serving(fleet, Tier::Proxy).len() as u32)
    }

    fn look(&mut self, what: &str, deadline: Instant) {
        self.fleet = self.stage.fleet();
        let now = clock::now();
        self.proxies_max = self.proxies_max.max(self.proxies_now());
        if let Some(fleet) = self.fleet.as_ref().filter(|_| now >= self.shares_at) {
            self.shares_at = now + SHARES_EVERY;
            self.shares.look(self.stage, fleet);
        }
        self.screen.draw(now, what, deadline, self.traffic, self.fleet.as_ref());
    }
}

/// One tier of the fleet.
pub(super) fn tier(fleet: &FleetStatus, tier: Tier) -> Option<&TierStatus> {
    fleet.tiers.iter().find(|one| one.tier == tier.name())
}

/// Exactly `count` proxies serve and none is on its way in or out.
pub(super) fn has_settled(fleet: &FleetStatus, of: Tier, count: u32) -> bool {
    let all = fleet.instances.iter().filter(|one| one.instance.tier == of);
    serving(fleet, of).len() as u32 == count && all.count() as u32 == count
}

/// For an error: every instance with its state.
fn in_short(fleet: &FleetStatus) -> String {
    let one = |it: &InstanceStatus| {
        let note = if it.note.is_empty() { String::new() } else { format!(" ({})", it.note) };
        format!("{} {}{note}", it.instance, it.state)
    };
    fleet.instances.iter().map(one).collect::<Vec<_>>().join(", ")
}

struct Screen {
    name: String,
    json: bool,
    is_terminal: bool,
    began: Instant,
    drawn_at: Instant,
}

impl Screen {
    fn say(&self, text: &str) {
        if !self.json {
            println!("{}{}: {text}", self.clear(), self.name);
        }
    }

    fn clear(&self) -> &'static str {
        if self.is_terminal { "\r\x1b[K" } else { "" }
    }

    fn draw(
        &mut self,
        now: Instant,
        what: &str,
        deadline: Instant,
        traffic: &Traffic,
        fleet: Option<&FleetStatus>,
    ) {
        if !self.is_terminal && now < self.drawn_at {
            return;
        }
        self.drawn_at = now + if self.json { SHARES_EVERY } else { LINE_EVERY };
        let left = deadline.saturating_duration_since(now).as_secs();
        let at = now.saturating_duration_since(self.began).as_secs();
        let proxies = fleet.map(|fleet| serving(fleet, Tier::Proxy).len());
        let sample = traffic.latest();
        let (rate, started, failed, healed, in_flight) = sample.map_or((0.0, 0, 0, 0, 0), |it| {
            (it.rate, it.started, it.failed, it.healed, it.in_flight)
        });
        if self.json {
            let line = json!({
                "type": "progress", "name": self.name, "at_s": at, "waits_for": what,
                "left_s": left, "rate_cps": rate, "proxies": proxies, "calls": started,
                "failed": failed, "healed": healed, "in_flight": in_flight,
            });
            println!("{line}");
            return;
        }
        let proxies = proxies.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let line = format!(
            "{}: {at:>3} s  {rate:>5.1} cps  proxies {proxies}  calls {started}  failed {failed}  \
             healed {healed}  in flight {in_flight}  {what}, at most {left} s",
            self.name
        );
        if self.is_terminal {
            print!("{}{line}", self.clear());
            io::stdout().flush().ok();
        } else {
            println!("{line}");
        }
    }
}
