//! `sipcloud store …`: the database itself: made, checked, copied into another.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use node_api::wire::StoreKind;
use store::{Blocking, UnixMillis};
use store_drivers::cassandra::{self, KeyspaceReport};
use store_drivers::copy::{CopyProgress, copy};
use store_drivers::{Driver, OpenError};

use crate::cli::{self, StoreChoice};
use crate::command::{configuration_of, explain, manager_of, open_data};
use crate::config::Config;
use crate::exit::Exit;
use crate::files;
use crate::show;

/// Longer than any single query may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(command: &cli::Store) -> Result<Option<Exit>> {
    match command {
        cli::Store::Init(place) => init(place),
        cli::Store::Check(place) => check(place),
        cli::Store::Migrate { from, to, place } => migrate(*from, *to, place),
    }
}

/// The data directory by its full name, and the configuration that counts for it.
fn open(place: &cli::StorePlace) -> Result<(PathBuf, Config)> {
    let data = open_data(&place.data.data)?;
    let config = match &place.config {
        Some(file) => Config::read(file)?,
        None => configuration_of(&data)?,
    };
    Ok((data, config))
}

fn init(place: &cli::StorePlace) -> Result<Option<Exit>> {
    let (data, mut config) = open(place)?;
    if config.store.kind == StoreKind::Memory {
        return Err(Exit::Usage.because("a store in memory is made by `sipcloud up`"));
    }
    config = config.checked()?;
    if config.store.kind == StoreKind::Cassandra {
        let options = config.cassandra_options(&data)?;
        print(&cassandra::init(&options, &config.replication()).map_err(explain_open)?);
    } else {
        open_store(&config, &data)?;
        println!("{} is ready", config.store_path(&data).display());
    }
    // From now on the other commands find this store, though no cloud ran yet.
    if manager_of(&data).is_err() {
        let running = files::running_configuration(&data);
        files::write_private(&running, config.to_toml()?.as_bytes())?;
    }
    Ok(None)
}

fn check(place: &cli::StorePlace) -> Result<Option<Exit>> {
    let (data, config) = open(place)?;
    if config.store.kind == StoreKind::Cassandra {
        let report = cassandra::check(&config.cassandra_options(&data)?).map_err(explain_open)?;
        print(&report);
        let all_up = report.nodes.iter().all(|node| node.is_up);
        return Ok(if all_up { None } else { Some(Exit::Failed) });
    }
    let path = config.store_path(&data);
    if !path.exists() {
        return Err(Exit::Unavailable.because(format!("there is no {}", path.display())));
    }
    open_store(&config, &data)?;
    println!("{} is a store of this program", path.display());
    Ok(None)
}

fn print(report: &KeyspaceReport) {
    let KeyspaceReport { keyspace, version, replication, nodes } = report;
    println!("keyspace {keyspace}, schema version {version}, replication: {replication}");
    for node in nodes {
        let state = if node.is_up { "up" } else { "down" };
        println!("node {}  {}  {state}", node.address, node.datacenter);
    }
}

fn migrate(from: StoreChoice, to: StoreChoice, place: &cli::StorePlace) -> Result<Option<Exit>> {
    if from == to {
        return Err(Exit::Usage.because("both stores are the same"));
    }
    let (data, config) = open(place)?;
    let of = |choice: StoreChoice| {
        let mut config = config.clone();
        config.store.kind = choice.kind();
        config
    };
    let (source, target) = (of(from), of(to));
    let path = source.store_path(&data);
    if source.store.kind != StoreKind::Cassandra && !path.exists() {
        return Err(Exit::Unavailable.because(format!("there is no {}", path.display())));
    }
    target.prepare_store(&data)?;
    let (mut source, mut target) = (open_store(&source, &data)?, open_store(&target, &data)?);
    let now = UnixMillis(sip_net::clock::unix_millis());
    let mut bar = |CopyProgress { what, done, total }| show::progress(what, done, total);
    let report = copy(&mut source, &mut target, now, &mut bar).map_err(explain)?;
    println!(
        "copied {} users and {} bindings; the target holds {} and {} of them",
        report.users, report.bindings, report.users_found, report.bindings_found,
    );
    Ok(if report.is_complete() { None } else { Some(Exit::Failed) })
}

fn open_store(config: &Config, data: &std::path::Path) -> Result<Blocking<Driver>> {
    let location = config.store_location(data)?;
    Blocking::open(PATIENCE, |wake| store_drivers::open(&location, wake)).map_err(explain_open)
}

fn explain_open(error: OpenError) -> anyhow::Error {
    Exit::Unavailable.because(error)
}
