//! `sipcloud status`: the fleet as the manager sees it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use fleet::WEIGHT_NORMAL;
use node_api::ManagerClient;
use node_api::wire::{FleetStatus, InstanceStatus, ManagerStatus, StoreTierStatus};

use crate::cli;
use crate::command::{MANAGER_PATIENCE, manager_of, small_runtime};
use crate::exit::Exit;
use crate::files::ManagerFile;
use crate::show;

pub(crate) fn run(arguments: &cli::Status) -> Result<Option<Exit>> {
    let manager = manager_of(&arguments.data.data)?;
    let runtime = small_runtime()?;
    let fleet =
        runtime.block_on(manager.fleet()).map_err(|error| Exit::Unavailable.because(error))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&fleet)?);
    } else {
        let standby = runtime.block_on(standby(&arguments.data.data, &fleet));
        print!("{}", table(&fleet, &standby)?);
    }
    Ok(None)
}

/// Managers that run beside this one.
async fn standby(data: &Path, fleet: &FleetStatus) -> Vec<ManagerStatus> {
    let mut others = Vec::new();
    for file in ManagerFile::running(data) {
        let client = ManagerClient::new(file.api, &file.token, MANAGER_PATIENCE);
        let asked = match client {
            Ok(client) => client.fleet().await.ok(),
            Err(_) => None,
        };
        others.extend(asked.map(|asked| asked.manager).filter(|it| it.pid != fleet.manager.pid));
    }
    others
}

fn table(fleet: &FleetStatus, standby: &[ManagerStatus]) -> Result<String> {
    let mut text = String::new();
    let manager = &fleet.manager;
    let generation = fleet
        .generation
        .map_or_else(|| "none".to_owned(), |number| format!("{}.{}", number.fence, number.counter));
    writeln!(
        text,
        "{}  manager pid {}  round {} every {} ms  membership {generation}{}{}",
        show::time(fleet.at_ms),
        manager.pid,
        manager.rounds_total,
        manager.poll_interval_ms,
        if manager.frozen { "  frozen" } else { "" },
        if manager.dry_run { "  dry run" } else { "" },
    )?;
    if !manager.leads {
        let leader = if manager.leader.is_empty() { "nobody" } else { &manager.leader };
        writeln!(text, "{} does not act; leads: {leader} {}", manager.name, manager.trouble)?;
    }
    for other in standby {
        writeln!(text, "{} stands by, pid {}", other.name, other.pid)?;
    }
    write_builds(&mut text, fleet)?;
    for tier in &fleet.tiers {
        writeln!(text, "{}", show::tier_line(tier))?;
        writeln!(text, "          {} wanted: {}", tier.desired, tier.reason)?;
    }
    if let Some(store) = &fleet.store {
        write_store(&mut text, store)?;
    }
    writeln!(
        text,
        "\n{:<12} {:<12} {:<22} {:>8} {:>6} {:>9} {:>8} {:>8}  note",
        "instance", "state", "sip", "cps", "cpu %", "memory", "calls", "transact",
    )?;
    for instance in &fleet.instances {
        let answers = if instance.answers { "" } else { "does not answer" };
        let weight = weight(instance);
        let notes = [weight.as_str(), instance.note.as_str(), answers];
        let note = notes.into_iter().filter(|one| !one.is_empty()).collect::<Vec<_>>().join(", ");
        writeln!(
            text,
            "{:<12} {:<12} {:<22} {:>8.1} {:>6.1} {:>9} {:>8} {:>8}  {}",
            instance.instance.to_string(),
            instance.state,
            instance.sip.to_string(),
            instance.load_cps,
            instance.cpu_percent,
            show::bytes(instance.rss_bytes),
            instance.calls_total,
            instance.server_transactions,
            note,
        )?;
    }
    Ok(text)
}

/// What is said of its share of the calls, unless that is an ordinary one.
fn weight(instance: &InstanceStatus) -> String {
    match (instance.weight, instance.weight_now) {
        (WEIGHT_NORMAL, None | Some(WEIGHT_NORMAL)) => String::new(),
        (weight, Some(now)) if now != weight => format!("weight {now} of {weight}"),
        (weight, _) => format!("weight {weight}"),
    }
}

/// Only while the fleet is mixed, as in the middle of an upgrade.
fn write_builds(text: &mut String, fleet: &FleetStatus) -> Result<()> {
    let mut builds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    builds.entry(&fleet.manager.build).or_default().push(fleet.manager.name.clone());
    for one in fleet.instances.iter().filter(|one| one.answers) {
        builds.entry(&one.build).or_default().push(one.instance.to_string());
    }
    if builds.len() > 1 {
        for (build, whose) in builds {
            let build = if build.is_empty() { "unknown" } else { build };
            writeln!(text, "build {build:<12}  {}", whose.join(" "))?;
        }
    }
    Ok(())
}

fn write_store(text: &mut String, store: &StoreTierStatus) -> Result<()> {
    let up = store.nodes.iter().filter(|node| node.is_up).count();
    let nodes = match store.nodes.len() {
        0 => String::new(),
        all => format!("  nodes up {up} of {all}"),
    };
    writeln!(
        text,
        "store     {}{nodes}  {:.1} queries/s  {:.1} failures/s  {:.2} ms",
        store.kind, store.queries_per_s, store.failures_per_s, store.latency_ms,
    )?;
    if !store.advice.is_empty() {
        writeln!(text, "          {}", store.advice)?;
    }
    for node in &store.nodes {
        let state = if node.is_up { "up" } else { "down" };
        writeln!(text, "          {}  {}  {state}", node.address, node.datacenter)?;
    }
    Ok(())
}
