//! What `up` prints: the ready line, the live lines, and the same as JSON.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use node_api::wire::FleetStatus;
use serde_json::json;

use crate::config::Config;
use crate::show;

/// How often figures are printed when nobody watches a terminal.
const LINES_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    /// Lines that are drawn anew in place.
    Terminal,
    Lines,
}

pub(super) struct Display {
    form: Form,
    /// Lines that stand below the cursor's line and are to be drawn over.
    drawn: usize,
    last_printed_ms: u64,
}

impl Display {
    pub(super) fn new(json: bool) -> Self {
        let form = match (json, io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal,
            (false, false) => Form::Lines,
        };
        Self { form, drawn: 0, last_printed_ms: 0 }
    }

    /// Says something once, above the live lines.
    pub(super) fn say(&mut self, kind: &str, text: &str) {
        if self.form == Form::Json {
            self.put(&json!({ "type": kind, "text": text }).to_string());
        } else {
            self.put(text);
        }
        self.drawn = 0;
    }

    /// Why the cloud ends by itself; as text it is told when the process ends.
    pub(super) fn failed(&mut self, why: &str) {
        if self.form == Form::Json {
            self.say("failed", why);
        }
    }

    /// The first call can be made.
    pub(super) fn ready(
        &mut self,
        config: &Config,
        balancers: &[SocketAddr],
        dns: Option<SocketAddr>,
    ) {
        let uris: Vec<String> = balancers.iter().map(|address| format!("sip:{address}")).collect();
        let domain = config.service_name();
        if self.form == Form::Json {
            let line = json!({
                "type": "ready",
                "sip": uris,
                "domain": domain,
                "domains": config.service.domains,
                "dns": dns,
            });
            self.put(&line.to_string());
            return;
        }
        let dns = dns.map_or_else(String::new, |dns| format!(" dns={dns}"));
        self.put(&format!("ready {} domain={domain}{dns}", uris.join(" ")));
        self.drawn = 0;
    }

    /// The fleet as of now; printed as often as suits who reads it.
    pub(super) fn live(&mut self, fleet: &FleetStatus) {
        let interval = match self.form {
            Form::Json | Form::Terminal => Duration::from_millis(fleet.manager.poll_interval_ms),
            Form::Lines => LINES_INTERVAL,
        };
        let since = Duration::from_millis(fleet.at_ms.saturating_sub(self.last_printed_ms));
        // A round that comes a little early is not skipped.
        if fleet.at_ms == self.last_printed_ms || since * 10 < interval * 9 {
            return;
        }
        self.last_printed_ms = fleet.at_ms;
        match self.form {
            Form::Json => {
                let tiers: Vec<_> = fleet.tiers.iter().map(show::tier_json).collect();
                let line = json!({ "type": "status", "at_ms": fleet.at_ms, "tiers": tiers });
                self.put(&line.to_string());
            }
            Form::Terminal => {
                self.clear();
                for tier in &fleet.tiers {
                    self.put(&show::tier_line(tier));
                }
                self.drawn = fleet.tiers.len();
            }
            Form::Lines => {
                for tier in &fleet.tiers {
                    self.put(&format!("{} {}", show::time(fleet.at_ms), show::tier_line(tier)));
                }
            }
        }
    }

    /// Moves back over the live lines and clears them.
    fn clear(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    /// A reader that has gone is no reason to stop the cloud.
    fn put(&self, line: &str) {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).ok();
    }
}
