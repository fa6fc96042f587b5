//! `sipcloud evaluate`: the paper's experiment, played and told in one command.

mod callers;
mod child;
mod experiment;
mod outcome;
mod progress;
mod sipp;
mod store_node;
mod watch;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sip_net::clock;
use tokio::time::MissedTickBehavior;

use crate::cli::{self, Generator};
use crate::command::small_runtime;
use crate::exit::Exit;
use crate::signals::EndSignals;

use callers::Callers;
use child::ChildProcess;
use experiment::Experiment;
use progress::Progress;
use watch::Watch;

/// Between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the cloud may take to come up, beside the boots of its machines.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the cloud may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// A second Ctrl-C is not needed to get out of a generator that does not end.
const WIND_DOWN_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(arguments: &cli::Evaluate) -> Result<Option<Exit>> {
    let output = prepare_output(&arguments.output)?;
    if arguments.generator == Generator::Sipp {
        sipp::check()?;
    }
    let experiment = Experiment::new(arguments, &output)?;
    experiment.fill_store()?;
    small_runtime()?.block_on(play(&experiment, &output))
}

/// The folder, by its full name; one with a report in it is not written over.
fn prepare_output(output: &Path) -> Result<std::path::PathBuf> {
    let show = output.display();
    if output.join("report.md").exists() {
        return Err(Exit::Usage.because(format!(
            "{show} holds a report already; remove it, or name another folder with --output"
        )));
    }
    fs::create_dir_all(output).with_context(|| format!("cannot make {show}"))?;
    output.canonicalize().with_context(|| format!("cannot find {show}"))
}

async fn play(experiment: &Experiment, output: &Path) -> Result<Option<Exit>> {
    let mut end = EndSignals::new()?;
    eprintln!("evaluate: {}; the folder is {}", experiment.summary(), output.display());
    let mut cloud = experiment.start_cloud()?;
    let started = async {
        let patience = START_PATIENCE + experiment.boot_time * 2;
        cloud.wait_for("ready", patience).await?;
        let mut callees = experiment.start_callees()?;
        if experiment.generator == Generator::Own {
            callees.wait_for("listening", START_PATIENCE).await?;
        }
        anyhow::Ok(callees)
    };
    let callees = tokio::select! {
        callees = started => callees,
        () = end.recv() => Err(Exit::Failed.because("ended before the first call")),
    };
    let outcome = match callees {
        Ok(callees) => measure(experiment, output, callees, &mut end).await,
        Err(error) => Err(error),
    };
    // The cloud ends whatever happened.
    let stopped = cloud.end(STOP_PATIENCE).await;
    let outcome = outcome
        .map_err(|error| error.context(format!("logs are in {}", experiment.data.display())))?;
    stopped?;
    if outcome.failed == 0 {
        fs::remove_dir_all(&experiment.data).ok();
    }
    let is_good = outcome.failed == 0 && !outcome.is_cut_short;
    Ok((!is_good).then_some(Exit::Failed))
}

/// What an exit code is made of.
struct Outcome {
    failed: u64,
    is_cut_short: bool,
}

/// Makes the calls, watches, and writes what there is to tell.
async fn measure(
    experiment: &Experiment,
    output: &Path,
    mut callees: ChildProcess,
    end: &mut EndSignals,
) -> Result<Outcome> {
    let mut callers = Callers::start(experiment)?;
    let mut watch = Watch::new(experiment, [callers.pid(), callees.pid()])?;
    let watched = watch_calls(experiment, &mut callers, &mut watch, end).await;
    callees.end(STOP_PATIENCE).await.ok();
    callers.kill();
    let is_cut_short = watched?;
    let run = outcome::run_of(experiment, watch, &callers, is_cut_short);
    outcome::write(&run, experiment, output)?;
    Ok(Outcome { failed: run.calls.failed, is_cut_short })
}

/// Returns whether the run was ended before its plan was.
async fn watch_calls(
    experiment: &Experiment,
    callers: &mut Callers,
    watch: &mut Watch,
    end: &mut EndSignals,
) -> Result<bool> {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::new(experiment);
    let mut is_cut_short = false;
    let mut winding_down = Duration::ZERO;
    loop {
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            () = end.recv() => false,
        };
        if !is_tick {
            if is_cut_short {
                return Ok(true);
            }
            progress.say("ending: the calls that live may end; Ctrl-C again to stop at once");
            is_cut_short = true;
            callers.stop();
            continue;
        }
        callers.tick(clock::now());
        let calls = callers.calls();
        if let Some(began) = callers.began_unix_ms() {
            let moment = watch.sample(began, calls).await;
            progress.draw(&moment, watch.starting());
        }
        if callers.have_ended() {
            callers.check()?;
            // A plan may end with no calls, to let proxies go.
            let seen_s = watch.moments.last().map_or(f64::INFINITY, |moment| moment.at_s);
            if is_cut_short || seen_s >= experiment.schedule.duration().as_secs_f64() {
                progress.finish();
                return Ok(is_cut_short);
            }
        }
        if is_cut_short || callers.is_plan_over() {
            winding_down += SAMPLE_INTERVAL;
        }
        if winding_down > WIND_DOWN_PATIENCE {
            progress.say("the callers do not end; they are killed");
            return Ok(true);
        }
    }
}
