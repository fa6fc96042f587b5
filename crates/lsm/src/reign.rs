//! The change of leaders as the manager lives it: it takes over knowing nothing, and lets go of all.

use fleet::Tier;
use node_api::wire::{Event, EventKind, ManagerStatus};

use crate::journal::Journal;
use crate::lease::Duty;
use crate::observe::Observer;
use crate::reconcile::Manager;
use crate::report;

impl Manager {
    /// The fence to act with, if it may act now.
    pub(crate) async fn leading(&mut self) -> Option<u64> {
        match self.seams.leadership.duty() {
            Duty::Leads { fence } => {
                if self.reign != Some(fence) {
                    self.take_over(fence).await;
                }
                if std::mem::take(&mut self.is_pausing) {
                    self.say("the lease is renewed: acting again");
                }
                Some(fence)
            }
            Duty::Pauses => {
                if self.reign.is_some() && !std::mem::replace(&mut self.is_pausing, true) {
                    let why = self.seams.leadership.trouble();
                    self.say(format!(
                        "the lease cannot be renewed, nothing is done until it is: {why}"
                    ));
                    self.shared.sync_journal();
                }
                None
            }
            Duty::Follows => {
                if self.reign.take().is_some() {
                    self.stand_by().await;
                }
                None
            }
        }
    }

    /// A reign begins with what provider and nodes say; nothing is left of an earlier one, in which
    /// others may have led meanwhile.
    async fn take_over(&mut self, fence: u64) {
        if self.reign.is_some() {
            self.stand_by().await;
        }
        self.observer = Observer::default();
        self.polls.clear();
        self.memory = scaling::Memory::default();
        self.standings = None;
        self.backoff = crate::execute::Backoff::default();
        self.told.clear();
        self.blind = None;
        self.reign = Some(fence);
        // Before the journal begins: who reads that somebody leads is told so by the status too.
        self.report_standing();
        match Journal::open(&self.journal.0, self.journal.1) {
            Ok(journal) => self.shared.begin_journal(journal),
            // Its lines go to the log; leading matters more.
            Err(error) => tracing::error!(%error, "the journal cannot be opened"),
        }
        let (name, process) = (&self.name, std::process::id());
        self.say(format!("{name} leads: process {process}, fence {fence}"));
        if let Err(error) = self.shared.load_wishes() {
            self.fail(format!("what operators asked for cannot be read: {error}"));
        }
    }

    async fn stand_by(&mut self) {
        // The journal belongs to the other one by now.
        self.shared.end_journal();
        let leader = self.seams.leadership.leader();
        tracing::warn!(leader, "this manager leads no longer and stands by");
        self.is_pausing = false;
        self.seams.dns.leave().await;
    }

    /// Says goodbye; the nodes go on.
    pub(crate) async fn leave(&mut self) {
        let name = self.name.clone();
        self.say(format!("{name} stops, the nodes go on"));
        self.shared.sync_journal();
        self.shared.end_journal();
        self.seams.dns.leave().await;
    }

    /// What a manager that does not act says of itself; of the fleet it says what it knew last.
    pub(crate) fn report_standing(&self) {
        let manager = self.manager_status();
        self.shared.publish_manager(manager, self.reign.is_some());
    }

    pub(crate) fn manager_status(&self) -> ManagerStatus {
        let settings = &self.settings;
        let leadership = &self.seams.leadership;
        let poll = settings.timing.poll_interval;
        ManagerStatus {
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            rounds_total: self.rounds_total,
            poll_interval_ms: u64::try_from(poll.as_millis()).unwrap_or(u64::MAX),
            dry_run: settings.is_dry_run,
            frozen: settings.proxies.is_frozen && settings.balancers.is_frozen,
            name: self.name.clone(),
            leads: matches!(leadership.duty(), Duty::Leads { .. }),
            leader: leadership.leader(),
            fence: self.reign.unwrap_or(0),
            trouble: leadership.trouble(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: self.template.base.origin.build.clone(),
        }
    }

    pub(crate) fn say(&mut self, text: impl Into<String>) {
        let now_ms = self.seams.clock.unix_ms();
        self.tell(report::event(now_ms, EventKind::Manager, text));
    }

    fn fail(&mut self, text: impl Into<String>) {
        let now_ms = self.seams.clock.unix_ms();
        self.tell(report::event(now_ms, EventKind::Failure, text));
    }

    /// Into the journal, and into the log.
    pub(crate) fn tell(&mut self, event: Event) {
        let about = event.instance.map(|instance| instance.to_string());
        let about = about.or_else(|| event.tier.clone()).unwrap_or_else(|| "fleet".to_owned());
        match event.kind {
            EventKind::Failure => tracing::warn!(about, "{}", event.text),
            _ => tracing::info!(about, "{}", event.text),
        }
        // What an outlived leader has to say is no part of the fleet's story.
        if self.seams.leadership.is_undisputed() {
            self.shared.append(event);
        }
    }

    pub(crate) fn tell_advice(&mut self, now_ms: u64, advice: &str) {
        if self.advised == advice {
            return;
        }
        advice.clone_into(&mut self.advised);
        let text = if advice.is_empty() { "all is well with it again" } else { advice };
        let about = Some(Tier::Store.name().to_owned());
        self.tell(Event { tier: about, ..report::event(now_ms, EventKind::Manager, text) });
    }
}
