//! What the manager did while calls were made: its decisions, and what happened near a failed call.

use anyhow::{Context as _, Result};
use load_client::{Failure, Report};
use node_api::ManagerClient;
use node_api::wire::{Event, EventKind};
use serde_json::json;

use crate::command::small_runtime;
use crate::show;

/// Events that lie this far from a failure are told beside it.
const NEAR_MS: u64 = 2_000;
/// Failures that are told with what happened near them.
const FAILURES_MAX: usize = 20;

/// The part of the journal that was written meanwhile.
pub(super) struct Story {
    manager: ManagerClient,
    runtime: tokio::runtime::Runtime,
    after: u64,
    events: Vec<Event>,
}

impl Story {
    /// Remembers where the journal ends now.
    pub(super) fn begin(manager: ManagerClient) -> Result<Self> {
        let runtime = small_runtime().context("the journal cannot be read")?;
        let mut story = Self { manager, runtime, after: 0, events: Vec::new() };
        story.end();
        story.events.clear();
        Ok(story)
    }

    /// Reads what has been written since.
    pub(super) fn end(&mut self) {
        // Without a manager there is no story; the calls are reported all the same.
        while let Ok(page) = self.runtime.block_on(self.manager.events(self.after)) {
            let Some(last) = page.events.last() else {
                return;
            };
            self.after = last.number;
            self.events.extend(page.events);
        }
    }

    pub(super) fn tell(&self, report: &Report, as_json: bool) {
        let decisions = self.events.iter().filter(|event| event.kind == EventKind::Decision);
        if as_json {
            let decisions: Vec<&Event> = decisions.collect();
            println!("{}", json!({ "type": "decisions", "events": decisions }));
        } else {
            println!("\nwhat the manager decided, and why:");
            decisions.for_each(|event| println!("  {}", line(event)));
            println!();
        }
        for failure in report.failures.iter().take(FAILURES_MAX) {
            self.tell_failure(failure, as_json);
        }
    }

    fn tell_failure(&self, failure: &Failure, as_json: bool) {
        let is_near = |event: &&Event| event.at_ms.abs_diff(failure.unix_ms) <= NEAR_MS;
        let near: Vec<&Event> = self.events.iter().filter(is_near).collect();
        if as_json {
            let call_id = &failure.call_id;
            println!("{}", json!({ "type": "near_failure", "call_id": call_id, "events": near }));
            return;
        }
        println!("failed: {} {failure}", show::time(failure.unix_ms));
        if near.is_empty() {
            println!("  nothing happened near it");
        }
        near.iter().for_each(|event| println!("  {}", line(event)));
    }
}

fn line(event: &Event) -> String {
    let whom = match (&event.instance, &event.tier) {
        (Some(instance), _) => instance.to_string(),
        (None, Some(tier)) => tier.clone(),
        (None, None) => "fleet".to_owned(),
    };
    format!("{}  {whom:<11} {}", show::time(event.at_ms), event.text)
}
