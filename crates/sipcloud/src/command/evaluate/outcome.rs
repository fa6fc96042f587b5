//! What was seen, laid beside the manager's journal and written into the folder.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use evaluation::{Decision, Failure, Policy, Run};
use fleet::Tier;
use node_api::wire::{Event, EventKind};

use super::SAMPLE_INTERVAL;
use super::callers::Callers;
use super::experiment::Experiment;
use super::watch::Watch;
use crate::cli::PolicyFlag;

const JOURNAL: &str = "journal.jsonl";

/// Everything that the report needs.
pub(super) fn run_of(
    experiment: &Experiment,
    watch: Watch,
    callers: &Callers,
    is_cut_short: bool,
) -> Run {
    let began_unix_ms = callers.began_unix_ms().unwrap_or_default();
    let events = journal(&experiment.data);
    let at_s = |unix_ms: u64| (unix_ms as f64 - began_unix_ms as f64) / 1_000.0;
    let nearest = |failure: &Failure| {
        let distance = |event: &&Event| event.at_ms.abs_diff(failure.unix_ms);
        let event = events.iter().min_by_key(distance)?;
        Some((at_s(event.at_ms) - at_s(failure.unix_ms), tell(event)))
    };
    let failure = |it: &Failure| Failure { nearest: nearest(it), ..it.clone() };
    let paper = experiment.policy == PolicyFlag::Paper;
    Run {
        time_scale: experiment.time_scale,
        sample_interval_s: SAMPLE_INTERVAL.as_secs_f64(),
        policy: Policy {
            capacity_each: f64::from(experiment.capacity()),
            threshold: paper.then(|| f64::from(experiment.config.manager.up_percent) / 100.0),
        },
        caption: experiment.caption(),
        setting: experiment.setting(),
        plan: experiment.schedule.corners(),
        decisions: events.iter().filter_map(|event| decision(event, at_s(event.at_ms))).collect(),
        failures: callers.failures().iter().map(failure).collect(),
        calls: callers.calls(),
        samples: watch.samples,
        moments: watch.moments,
        is_cut_short,
    }
}

/// Of the proxies, while calls were made.
fn decision(event: &Event, at_s: f64) -> Option<Decision> {
    let is_of_proxies = event.tier.as_deref() == Some(Tier::Proxy.name());
    let (before, desired) = event.before.zip(event.desired)?;
    if event.kind != EventKind::Decision || !is_of_proxies || before == desired || at_s < 0.0 {
        return None;
    }
    let reason = event.text.split_once(": ").map_or(event.text.as_str(), |(_, why)| why);
    Some(Decision {
        at_s,
        before,
        desired,
        load_cps: event.load_millicps.unwrap_or_default() as f64 / 1_000.0,
        reason: reason.to_owned(),
    })
}

fn tell(event: &Event) -> String {
    match (&event.instance, &event.tier) {
        (Some(instance), _) => format!("{instance} {}", event.text),
        (None, Some(tier)) => format!("{tier} {}", event.text),
        (None, None) => event.text.clone(),
    }
}

/// A line that cannot be read, such as one being written, is passed over.
fn journal(data: &Path) -> Vec<Event> {
    let text = fs::read_to_string(data.join(JOURNAL)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The folder's files.
pub(super) fn write(run: &Run, experiment: &Experiment, output: &Path) -> Result<()> {
    let put = |name: &str, content: &[u8]| {
        let path = output.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    put("samples.csv", evaluation::samples_csv(run).as_bytes())?;
    put("calls.csv", evaluation::calls_csv(run).as_bytes())?;
    put("failed.csv", evaluation::failed_csv(run).as_bytes())?;
    put(JOURNAL, &fs::read(experiment.data.join(JOURNAL)).unwrap_or_default())?;
    let figures =
        [("figure-5", evaluation::figure_5(run)), ("figure-6", evaluation::figure_6(run))];
    for (name, svg) in figures {
        put(&format!("{name}.svg"), svg.as_bytes())?;
        put(&format!("{name}.png"), &evaluation::png(&svg)?)?;
    }
    // Last: a folder with a report is whole.
    put("report.md", evaluation::report(run).as_bytes())?;
    let (calls, proxies_max) = (run.calls, evaluation::Findings::of(run).proxies_max());
    println!(
        "{} calls made, {} failed; proxies went up to {proxies_max}; {}",
        calls.made,
        calls.failed,
        output.join("report.md").display(),
    );
    Ok(())
}
