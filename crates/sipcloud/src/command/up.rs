//! `sipcloud up`: the whole cloud on this machine.

mod display;
mod lock;
mod stop;
mod supervisor;

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use node_api::wire::StoreKind;
use provider_drivers::process;
use store_drivers::TemporaryFolder;
use store_drivers::admin::Admin;

use crate::cli::{self, InstanceRange};
use crate::command::manager::{control_address, dns_address};
use crate::command::{explain, open_data};
use crate::config::{self, Config};
use crate::exit::Exit;
use crate::files;
use crate::logging;
use crate::program::Program;
use crate::secrets::Secrets;

use display::Display;
use lock::Lock;
use supervisor::{Cloud, Supervisor};

pub(crate) fn run(arguments: &cli::Up) -> Result<Option<Exit>> {
    let configured =
        || with_flags(Config::read_or_default(arguments.config.as_deref())?, arguments).checked();
    let mut config = configured()?;
    let data = open_data(&arguments.data.data)?;
    let _lock = Lock::take(&data)?;
    let log = logging::start(&config.log)?;
    let secrets = Secrets::load_or_make(&data)?;
    let _memory = claim_memory(&config, &data)?;
    config.prepare_store(&data)?;
    serve_realms_of_users(&mut config, &data)?;

    process::adopt_orphans().context("the system does not let us keep track of our processes")?;
    stop::predecessor(&data, &config)?;
    expect_free_addresses(&config)?;
    Program::install_own(&data)?.select(&data)?;
    let running = files::running_configuration(&data);
    files::write_private(&running, config.to_toml()?.as_bytes())
        .with_context(|| format!("cannot write {}", running.display()))?;

    let display = Display::new(arguments.json);
    let runtime = super::small_runtime()?;
    let reread = |in_use: &Config| {
        // Without a file of the operator's the running one is the file to edit.
        if arguments.config.is_none() {
            return Ok(in_use.reloaded(&Config::read(&running)?));
        }
        let config = in_use.reloaded(&configured()?).checked()?;
        log.reload(&config.log)?;
        files::write_private(&running, config.to_toml()?.as_bytes())?;
        Ok(config)
    };
    let cloud = Cloud { data, config, secrets, managers: arguments.managers };
    runtime.block_on(Supervisor::new(cloud, display, Box::new(reread))?.run())
}

/// What is taken is told now, by name; a manager that stands by would wait for it.
fn expect_free_addresses(config: &Config) -> Result<()> {
    let control = control_address(config, 1)?;
    let remedy = "another cloud on this network? give this one its own: local.network";
    TcpListener::bind(control).map_err(|error| {
        Exit::Unavailable
            .because(format!("the manager cannot listen on {control}: {error}; {remedy}"))
    })?;
    if let Some(dns) = dns_address(config) {
        UdpSocket::bind(dns).map_err(|error| {
            Exit::Unavailable.because(format!(
                "the DNS server cannot listen on {dns}: {error}; set dns.port, or dns.enabled = false"
            ))
        })?;
    }
    Ok(())
}

fn with_flags(mut config: Config, arguments: &cli::Up) -> Config {
    if let Some(listen) = arguments.listen {
        config.local.listen = listen.to_string();
        // One address has room for one balancer, unless the operator says what cannot be.
        (config.balancers.instances_min, config.balancers.instances_max) = (1, 1);
    }
    if let Some(range) = arguments.balancers {
        let (min, max) = with_range(range, config.balancers.instances_max);
        (config.balancers.instances_min, config.balancers.instances_max) = (min, max);
    }
    if let Some(range) = arguments.proxies {
        let (min, max) = with_range(range, config.proxies.instances_max);
        (config.proxies.instances_min, config.proxies.instances_max) = (min, max);
    }
    if let Some(capacity) = arguments.capacity {
        config.proxies.capacity_cps = capacity;
    }
    if let Some(poll) = arguments.poll {
        config.manager.poll_interval_ms = u64::try_from(poll.as_millis()).unwrap_or(u64::MAX);
    }
    if let Some(store) = arguments.store {
        config.store.kind = store.kind();
    }
    config
}

/// Without a maximum the configured one stays, unless the minimum is above it.
fn with_range(range: InstanceRange, configured_max: u32) -> (u32, u32) {
    (range.min, range.max.unwrap_or(configured_max).max(range.min))
}

/// The folder of a store in memory; it is removed when this is dropped.
fn claim_memory(config: &Config, data: &Path) -> Result<Option<TemporaryFolder>> {
    if config.store.kind != StoreKind::Memory {
        return Ok(None);
    }
    let name = config::memory_folder(data);
    let folder = TemporaryFolder::claim(None, &name)
        .map_err(|error| Exit::Unavailable.because(format!("no store in memory: {error}")))?;
    Ok(Some(folder))
}

/// Whoever has users of a domain in the store serves it: an operator who added them said so.
fn serve_realms_of_users(config: &mut Config, data: &Path) -> Result<()> {
    if config.store.kind != StoreKind::Cassandra && !config.store_path(data).exists() {
        return Ok(());
    }
    let mut store = Admin::open(&config.store_location(data)?)
        .map_err(|error| Exit::Unavailable.because(format!("the store: {error}")))?;
    let mut realms: BTreeSet<String> =
        store.users(None).map_err(explain)?.into_iter().map(|user| user.realm).collect();
    let domains = &mut config.service.domains;
    realms.retain(|realm| !domains.iter().any(|domain| domain.eq_ignore_ascii_case(realm)));
    domains.extend(realms);
    Ok(())
}

/// The last lines of a file, for an error message.
fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn manager_log(data: &Path) -> PathBuf {
    data.join("manager.log")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(flags: &str) -> Config {
        let line = format!("sipcloud up {flags}");
        let Command::Up(up) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("{line} is not up");
        };
        with_flags(Config::default(), &up)
    }

    #[test]
    fn flags_override_the_file() {
        let config = config("--capacity 60 --poll 500ms --store memory --proxies 2..3");
        assert_eq!(config.proxies.capacity_cps, 60);
        assert_eq!(config.manager.poll_interval_ms, 500);
        assert_eq!(config.store.kind, StoreKind::Memory);
        assert_eq!((config.proxies.instances_min, config.proxies.instances_max), (2, 3));
    }

    #[test]
    fn a_minimum_alone_leaves_the_maximum_where_it_can() {
        let default_max = Config::default().proxies.instances_max;
        let proxies = |flags: &str| {
            let config = config(flags);
            (config.proxies.instances_min, config.proxies.instances_max)
        };
        assert_eq!(proxies("--proxies 2"), (2, default_max));
        assert_eq!(proxies("--proxies 20"), (20, 20));
    }

    #[test]
    fn one_address_has_one_balancer() {
        assert_eq!(config("--listen 192.0.2.1").balancers.instances_max, 1);
        let error = config("--listen 192.0.2.1 --balancers 2").checked().expect_err("no room");
        assert_eq!(Exit::of(&error), Exit::Configuration);
    }
}
