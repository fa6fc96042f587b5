//! Drills of ordinary days: the fleet grows, shrinks, is renewed, and cannot be measured.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::CommandFactory as _;
use fleet::Tier;
use node_api::wire::{EventKind, FleetStatus};

use super::scene::{Played, Scene, Unplayed, has_settled, tier};
use super::stage::serving;
use crate::cli::Cli;

/// How long a change may take to begin, once the load asks for it.
const TO_GROW: Duration = Duration::from_secs(90);
/// How long a proxy may take to leave: its longest call, 64·T1 twice, and the windows of the policy.
const TO_SHRINK: Duration = Duration::from_secs(240);
/// How long the shares of a new set of owners are counted.
const TO_COUNT: Duration = Duration::from_secs(15);
/// A window of the policy, during which a fleet that could be polled would shrink.
const CUT: Duration = Duration::from_secs(45);
/// How long the renewal of all nodes may take.
const TO_UPGRADE: Duration = Duration::from_secs(600);

pub(super) fn scale_out(scene: &mut Scene<'_>) -> Played {
    let before = grows_at(scene)?;
    scene.until("further proxy", TO_GROW, |fleet| proxies(fleet) > before)?;
    let now = scene.proxies_now();
    scene.note(format!("{before} → {now} proxies"));
    scene.pass("calls among all", scene.seconds())?;
    Ok(format!("proxies {before} → {now}"))
}

pub(super) fn scale_in(scene: &mut Scene<'_>) -> Played {
    let before = grows_at(scene)?;
    scene.until("further proxy", TO_GROW, |fleet| proxies(fleet) > before)?;
    let most = scene.proxies_now();
    scene.note(format!("{most} proxies; now the load falls"));
    let until_fall = scene.seconds();
    scene.until("drain", until_fall + TO_SHRINK, |fleet| proxies(fleet) < most)?;
    scene.note("a proxy drains".to_owned());
    scene.until("end of the drained proxy", TO_SHRINK, |fleet| {
        has_settled(fleet, Tier::Proxy, before)
    })?;
    scene.note("it is gone".to_owned());
    scene.pass("calls among the others", TO_COUNT)?;
    Ok(format!("proxies {most} → {before}"))
}

pub(super) fn one_four_one(scene: &mut Scene<'_>) -> Played {
    let before = grows_at(scene)?;
    let most = tier(&scene.now()?, Tier::Proxy).map_or(0, |tier| tier.instances_max);
    let climb = Duration::from_secs(23);
    scene.until("top of the fleet", climb + TO_GROW + scene.seconds(), |fleet| {
        proxies(fleet) == most
    })?;
    scene.note(format!("{most} proxies"));
    let rest = scene.seconds();
    scene.until("return to the first proxy", rest + TO_SHRINK * 2, |fleet| {
        has_settled(fleet, Tier::Proxy, before)
    })?;
    scene.note(format!("{before} proxies, and the others are gone"));
    judge_shares(scene, before, most)
}

/// What moves at n → n+1 is 1/(n+1), and what leaves spreads evenly: by the balancers' counters.
fn judge_shares(scene: &Scene<'_>, before: u32, most: u32) -> Played {
    let mut worst: f64 = 0.0;
    for (phase, _) in scene.shares.phases() {
        let (max, chance) = (phase.max_over_fair(), phase.chance());
        worst = worst.max(max);
        if max > chance.max(1.1) {
            let why =
                format!("calls were spread unevenly: max/mean {max:.3}, by chance {chance:.3}");
            return Err(Unplayed::Failed(why));
        }
    }
    Ok(format!("proxies {before} → {most} → {before}; max/mean of their shares at most {worst:.3}"))
}

/// The proxies that serve now, if the load of this drill makes them more.
fn grows_at(scene: &mut Scene<'_>) -> Result<u32, Unplayed> {
    let fleet = scene.now()?;
    let Some(tier) = tier(&fleet, Tier::Proxy) else {
        return Err(Unplayed::failed("the manager knows no proxies"));
    };
    let percent = f64::from(scene.stage.config.manager.up_percent);
    let threshold = tier.capacity_cps * percent / 100.0;
    if tier.in_service >= tier.instances_max {
        let max = tier.instances_max;
        return Err(Unplayed::Skipped(format!("the fleet has its {max} proxies already")));
    }
    if f64::from(scene.arguments.rate) <= threshold {
        let why =
            format!("the fleet grows above {threshold:.0} calls per second; give --rate more");
        return Err(Unplayed::Skipped(why));
    }
    Ok(tier.in_service)
}

/// Goal: silence is never evidence. Every node is deaf while the load falls to an eighth.
pub(super) fn cut_metrics(scene: &mut Scene<'_>) -> Played {
    let before = grows_at(scene)?;
    let fleet = scene.until("further proxy", TO_GROW, |fleet| proxies(fleet) > before)?;
    let most = proxies(&fleet);
    scene.pass("top of the load", scene.seconds())?;
    let events = journal_end(scene);
    for instance in &fleet.instances {
        let client = scene.stage.node(instance.control).map_err(Unplayed::failed)?;
        scene.stage.ask(client.deafen(CUT)).map_err(Unplayed::failed)?;
    }
    scene.note(format!("for {} s no node answers the manager; the load falls", CUT.as_secs()));
    scene.until("silence", CUT / 3, |fleet| {
        tier(fleet, Tier::Proxy).is_some_and(|tier| tier.silent == most)
    })?;
    // The last of them hears again a moment after the first.
    scene.pass("a fleet that stays", CUT * 4 / 5)?;
    let fleet = scene.now()?;
    if !has_settled(&fleet, Tier::Proxy, most) {
        return Err(Unplayed::failed(format!("{} proxies serve, not {most}", proxies(&fleet))));
    }
    if let Some(text) = shrunk_since(scene, events) {
        return Err(Unplayed::failed(format!("the manager acted on silence: {text}")));
    }
    scene.note("nothing shrank and nothing was replaced".to_owned());
    scene.until("scale-in once polls are answered", TO_SHRINK * 2, |fleet| {
        has_settled(fleet, Tier::Proxy, before)
    })?;
    scene.note("with polls answered it shrank".to_owned());
    Ok(format!("{most} proxies stayed while unheard, then {most} → {before}"))
}

fn journal_end(scene: &Scene<'_>) -> u64 {
    let Some(manager) = scene.stage.manager() else {
        return 0;
    };
    let mut last = 0;
    while let Ok(page) = scene.stage.ask(manager.events(last)) {
        if page.events.is_empty() {
            break;
        }
        last = page.events.last().map_or(last, |event| event.number);
    }
    last
}

/// A decision since `after` to have fewer proxies, or an instance that failed.
fn shrunk_since(scene: &Scene<'_>, after: u64) -> Option<String> {
    let page = scene.stage.ask(scene.stage.manager()?.events(after)).ok()?;
    let acted = page.events.iter().find(|event| {
        let shrinks = matches!((event.before, event.desired), (Some(a), Some(b)) if b < a);
        (event.kind == EventKind::Decision && shrinks) || event.text.contains("failed")
    });
    acted.map(|event| event.text.clone())
}

/// Every node of both tiers is replaced by `sipcloud upgrade`.
pub(super) fn upgrade(scene: &mut Scene<'_>) -> Played {
    if Cli::command().find_subcommand("upgrade").is_none() {
        return Err(Unplayed::Skipped("this version has no `sipcloud upgrade`".to_owned()));
    }
    let before = lives(&scene.now()?);
    scene.pass("calls before it", scene.seconds() / 4)?;
    let program = std::env::current_exe().map_err(Unplayed::failed)?;
    let mut command = Command::new(program);
    command.args(["upgrade", "--anew", "--data"]).arg(&scene.stage.data);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Unplayed::failed)?;
    scene.note("sipcloud upgrade".to_owned());
    let waited = scene
        .until("end of the upgrade", TO_UPGRADE, |_| child.try_wait().ok().flatten().is_some());
    if waited.is_err() {
        child.kill().ok();
    }
    let status = child.wait().map_err(Unplayed::failed)?;
    waited?;
    if !status.success() {
        let mut said = String::new();
        if let Some(mut errors) = child.stderr.take() {
            io::Read::read_to_string(&mut errors, &mut said).ok();
        }
        return Err(Unplayed::failed(format!("the upgrade ended with {status}: {}", said.trim())));
    }
    scene.note("every node is a new one".to_owned());
    scene.pass("calls after it", scene.seconds() / 4)?;
    let after = lives(&scene.now()?);
    let kept = before.iter().filter(|life| after.contains(life)).count();
    if kept > 0 {
        return Err(Unplayed::failed(format!(
            "{kept} of {} nodes are still the old ones",
            before.len()
        )));
    }
    Ok(format!("{} nodes were replaced", before.len()))
}

/// Who lives in which slot.
fn lives(fleet: &FleetStatus) -> Vec<(String, Option<u32>)> {
    fleet.instances.iter().map(|it| (it.instance.to_string(), it.incarnation)).collect()
}

fn proxies(fleet: &FleetStatus) -> u32 {
    serving(fleet, Tier::Proxy).len() as u32
}
