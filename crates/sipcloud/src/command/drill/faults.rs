//! Drills of bad days: something is killed, stands still, or is talked to by strangers.

use std::time::Duration;

use fleet::{InstanceId, Tier};
use node_api::wire::{FleetStatus, InstanceStatus, StoreKind};
use store_drivers::sqlite::WriteLock;

use super::noise::Noise;
use super::scene::{Played, Scene, Unplayed, has_settled};
use super::stage::serving;
use super::store_node::StoreNode;

/// How long a killed node may be missing.
const TO_REPLACE: Duration = Duration::from_secs(60);
/// How long a drain may take beyond its longest call: 64·T1 for each change of owners, and polls.
const TO_DRAIN: Duration = Duration::from_secs(150);
/// How long the database stands still.
const STANDSTILL: Duration = Duration::from_secs(8);
const REGISTERS_WITHIN: Duration = Duration::from_secs(20);

pub(super) fn kill_proxy(scene: &mut Scene<'_>) -> Played {
    kill_one(scene, Tier::Proxy)
}

pub(super) fn kill_balancer(scene: &mut Scene<'_>) -> Played {
    kill_one(scene, Tier::LoadBalancer)
}

fn kill_one(scene: &mut Scene<'_>, tier: Tier) -> Played {
    let half = scene.seconds() / 2;
    scene.pass("calls that ring and talk", half.max(scene.arguments.ring))?;
    let fleet = scene.now()?;
    let serving_before = serving(&fleet, tier).len() as u32;
    let victim = last_of(&fleet, tier)?;
    let before = (victim.instance, victim.incarnation);
    if serving_before < 2 {
        let why = format!("{} is the only one of its tier", victim.instance);
        return Err(Unplayed::Skipped(why));
    }
    scene.may_be_lost = victim.server_transactions.max(in_flight(scene));
    let pid = scene.stage.kill(victim.instance).map_err(Unplayed::Skipped)?;
    scene.note(format!("kill -9 {} (process {pid})", victim.instance));
    scene.until("replacement", TO_REPLACE, |fleet| {
        let others = serving(fleet, tier);
        others.len() as u32 >= serving_before
            && others.iter().all(|it| it.answers && (it.instance, it.incarnation) != before)
    })?;
    scene.note("another one serves in its place".to_owned());
    scene.pass("calls after it", half.max(scene.arguments.ring))?;
    Ok(format!("{} was killed and replaced", victim.instance))
}

fn in_flight(scene: &Scene<'_>) -> u64 {
    scene.traffic.latest().map_or(0, |sample| sample.in_flight)
}

/// The instance of a tier that serves in the highest slot.
fn last_of(fleet: &FleetStatus, tier: Tier) -> Result<InstanceStatus, Unplayed> {
    let last = serving(fleet, tier).into_iter().max_by_key(|it| it.instance).cloned();
    last.ok_or_else(|| Unplayed::failed(format!("no {} serves", tier.name())))
}

/// The manager is killed while it makes a proxy, and again as soon as the next one has finished.
pub(super) fn kill_manager(scene: &mut Scene<'_>) -> Played {
    let before = scene.now()?;
    let (old, most) = (before.manager.pid, proxies_max(&before));
    let fleet = scene.until("growth", Duration::from_secs(90), |fleet| {
        fleet.instances.iter().filter(|it| it.instance.tier == Tier::Proxy).count() > 1
    })?;
    let pid = scene.stage.kill_manager().map_err(Unplayed::Skipped)?;
    scene.note(format!("kill -9 of the manager (process {pid}) while a proxy is made"));
    let fleet_then = adopted(scene, old, &fleet)?;
    scene.until("the proxy that was begun", TO_REPLACE, |fleet| {
        has_settled(fleet, Tier::Proxy, most)
    })?;
    scene.note(format!("the next manager (process {}) finished it", fleet_then.manager.pid));
    let settled = scene.now()?;
    let pid = scene.stage.kill_manager().map_err(Unplayed::Skipped)?;
    scene.note(format!("kill -9 of the manager (process {pid})"));
    let last = adopted(scene, fleet_then.manager.pid, &settled)?;
    scene.pass("calls under the third manager", scene.seconds() / 2)?;
    let now = scene.now()?;
    if !has_settled(&now, Tier::Proxy, most) {
        return Err(Unplayed::failed("the fleet did not stay as it was"));
    }
    Ok(format!("managers {old}, {}, {}: one fleet", fleet_then.manager.pid, last.manager.pid))
}

/// The next manager knows every process that the one before it had.
fn adopted(scene: &mut Scene<'_>, old: u32, before: &FleetStatus) -> Result<FleetStatus, Unplayed> {
    let pids: Vec<(InstanceId, u32)> = pids(before);
    scene.until("next manager", TO_REPLACE, |fleet| {
        let now = self::pids(fleet);
        fleet.manager.pid != old && pids.iter().all(|one| now.contains(one))
    })
}

fn pids(fleet: &FleetStatus) -> Vec<(InstanceId, u32)> {
    fleet.instances.iter().filter_map(|it| Some((it.instance, it.pid?))).collect()
}

fn proxies_max(fleet: &FleetStatus) -> u32 {
    super::scene::tier(fleet, Tier::Proxy).map_or(0, |tier| tier.instances_max)
}

pub(super) fn kill_store_node(scene: &mut Scene<'_>) -> Played {
    let node = store_node(scene)?;
    if node.nodes < 2 {
        let why = "the database has one node; without it no request can be answered".to_owned();
        return Err(Unplayed::Skipped(why));
    }
    scene.pass("calls before it", scene.seconds() / 4)?;
    node.kill().map_err(Unplayed::failed)?;
    scene.note(format!("kill -9 of {node}"));
    scene.pass("calls without it", scene.seconds() / 2)?;
    node.start_again().map_err(Unplayed::failed)?;
    scene.note("it starts again".to_owned());
    scene.until("whole cluster", Duration::from_secs(180), |fleet| {
        fleet.store.as_ref().is_some_and(|store| store.nodes.iter().all(|it| it.is_up))
    })?;
    scene.pass("calls after it", scene.seconds() / 4)?;
    Ok(format!("{node} was killed and came back"))
}

fn store_node(scene: &mut Scene<'_>) -> Result<StoreNode, Unplayed> {
    let kind = scene.stage.config.store.kind;
    if kind != StoreKind::Cassandra {
        let why = "the store is a file, which has no nodes; give --config with a Cassandra store";
        return Err(Unplayed::Skipped(why.to_owned()));
    }
    let fleet = scene.until("nodes of the database", TO_REPLACE, |fleet| {
        fleet.store.as_ref().is_some_and(|store| !store.nodes.is_empty())
    })?;
    let nodes = fleet.store.map(|store| store.nodes).unwrap_or_default();
    StoreNode::find(&nodes).map_err(Unplayed::Skipped)
}

pub(super) fn slow_store(scene: &mut Scene<'_>) -> Played {
    scene.pass("calls before it", scene.seconds() / 4)?;
    let what = if scene.stage.config.store.kind == StoreKind::Cassandra {
        let node = store_node(scene)?;
        node.stand_still(true).map_err(Unplayed::failed)?;
        scene.note(format!("{node} stands still"));
        let stood = scene.pass("calls while it stands still", STANDSTILL);
        node.stand_still(false).map_err(Unplayed::failed)?;
        stood?;
        format!("{node} stood still")
    } else {
        locked(scene)?;
        "no write was possible".to_owned()
    };
    scene.note("the database is back".to_owned());
    scene.pass("calls after it", scene.seconds() / 2)?;
    Ok(format!("for {} s {what}", STANDSTILL.as_secs()))
}

/// SQLite: nobody else may write. Calls only read; a phone that registers has to try again.
fn locked(scene: &mut Scene<'_>) -> Result<(), Unplayed> {
    let path = scene.stage.config.store_path(&scene.stage.data);
    let lock = WriteLock::take(&path, STANDSTILL).map_err(Unplayed::failed)?;
    scene.note(format!("{} is locked", path.display()));
    let late = scene.traffic.latecomer(scene.stage).map_err(Unplayed::failed)?;
    let stood = scene.pass("calls while nothing can be written", STANDSTILL);
    let refused = late.counters();
    drop(lock);
    stood?;
    if refused.registered > 0 {
        return Err(Unplayed::failed("a phone registered while the file was locked"));
    }
    if !late.wait_registered(1, REGISTERS_WITHIN) {
        return Err(Unplayed::failed("a phone could not register after the lock was gone"));
    }
    let failures = late.stop().registration_failures;
    scene.note(format!("a phone registered after {failures} failed attempts"));
    Ok(())
}

/// A proxy and a balancer drain while somebody without a password talks to them.
pub(super) fn drain_with_noise(scene: &mut Scene<'_>) -> Played {
    scene.pass("calls before it", scene.seconds() / 4)?;
    let mut gone = Vec::new();
    for tier in [Tier::Proxy, Tier::LoadBalancer] {
        let fleet = scene.now()?;
        let victim = last_of(&fleet, tier)?;
        if serving(&fleet, tier).len() < 2 {
            let why = format!("{} is the only one of its tier", victim.instance);
            return Err(Unplayed::Skipped(why));
        }
        let before = (victim.instance, victim.incarnation);
        let source = scene.stage.own_ip(233).map_err(Unplayed::failed)?;
        let noise = Noise::start(source, victim.sip).map_err(Unplayed::failed)?;
        let manager = scene.stage.manager().ok_or_else(|| Unplayed::failed("no manager"))?;
        scene
            .stage
            .ask(manager.drain(victim.instance, "sipcloud drill"))
            .map_err(Unplayed::failed)?;
        scene.note(format!("{} drains, and strangers send to it", victim.instance));
        let within = TO_DRAIN + scene.arguments.ring;
        scene.until("end of the drained node", within, |fleet| {
            fleet.instances.iter().all(|it| (it.instance, it.incarnation) != before)
        })?;
        scene.note(format!("it is gone, after {} messages of strangers", noise.stop()));
        gone.push(victim.instance.to_string());
        scene.until("another in its place", TO_REPLACE, |fleet| serving(fleet, tier).len() >= 2)?;
    }
    scene.pass("calls after it", scene.seconds() / 4)?;
    Ok(format!("{} ended in spite of the noise", gone.join(" and ")))
}
