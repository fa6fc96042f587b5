//! `sipcloud manager`: the Load Scaling Manager with the local provider and the embedded DNS server.
//! Of several over one data directory one leads and the others stand by.

mod holder;
mod settings;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lsm::{Lease, Lsm, LsmError, StoreNews};
use node_api::wire::{StoreKind, StoreNode};
use provider::in_process::InProcessDns;
use provider::{ComputeProvider, DnsProvider};
use provider_drivers::process::ProcessIdentity;
use provider_drivers::{AddressPlan, LedDns, LocalCompute, LocalOptions};
use sip_net::clock;
use store_drivers::cassandra::{self, ClusterNode};

use crate::cli;
use crate::command::open_data;
use crate::config::Config;
use crate::exit::Exit;
use crate::files::{self, ManagerFile};
use crate::logging::{self, LogControl};
use crate::program::Program;
use crate::secrets::Secrets;
use crate::signals::{EndSignals, hangup};

pub(crate) use settings::{control_address, dns_address, settings};

/// Where releases without a lease kept the number of the last manager.
const FENCE_FILE: &str = "fence";
/// How long a turn of the lease may wait for the database: several turns fit into a lease.
const LEASE_PATIENCE: Duration = Duration::from_millis(500);

pub(crate) fn run(arguments: &cli::Manager) -> Result<Option<Exit>> {
    let data = open_data(&arguments.data.data)?;
    let file = arguments.config.clone().unwrap_or_else(|| files::running_configuration(&data));
    let config = Config::read_or_default(file.exists().then_some(file.as_path()))?;
    let log = logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(manage(&config, &data, &file, &log))
}

/// Manages until told to end; the nodes go on.
async fn manage(
    config: &Config,
    data: &Path,
    file: &Path,
    log: &LogControl,
) -> Result<Option<Exit>> {
    let (mut end, mut reload) = (EndSignals::new()?, hangup()?);
    let (mut lsm, found_at) = start(config, data).await?;
    let mut holds = lsm.holds();
    loop {
        if *holds.borrow_and_update() {
            found_at.write(data).context("cannot write where the manager answers")?;
            // The lease has a higher number by now.
            fs::remove_file(data.join(FENCE_FILE)).ok();
        }
        tokio::select! {
            () = end.recv() => break,
            _ = holds.changed() => {}
            _ = reload.recv() => match reload_settings(file, &lsm, log) {
                Ok(()) => tracing::info!("the configuration was read again"),
                Err(error) => tracing::warn!("nothing changed: {error:#}"),
            },
            () = lsm.ended() => {
                tracing::error!("the manager's loop ended; the manager ends so that it is replaced");
                return Ok(Some(Exit::Software));
            }
        }
    }
    lsm.stop().await;
    Ok(None)
}

/// Starts under the first number whose address is free; returns where it is found.
async fn start(config: &Config, data: &Path) -> Result<(Lsm, ManagerFile)> {
    let secrets = Secrets::load_or_make(data)?;
    let token = secrets.manager_token.clone();
    let program = Program::of(data)?;
    let process = ProcessIdentity::current().context("/proc does not tell about this process")?;
    let news = StoreNews::default();
    let compute: Arc<dyn ComputeProvider> = Arc::new(compute(config, data, &program)?);
    let dns = dns(config);
    let mut number = 1;
    let lsm = loop {
        let mut settings = settings::configuration(config, &secrets, data, number)?;
        settings.store.news = news.clone();
        settings.template.base.origin.build.clone_from(&program.build);
        let lease = lease(config, data, holder::holder(&settings.name, &process))?;
        match lsm::start(settings, lease, Arc::clone(&compute), Arc::clone(&dns)).await {
            Err(LsmError::Serve { source, .. })
                if source.kind() == ErrorKind::AddrInUse && number < AddressPlan::MANAGERS_MAX =>
            {
                number += 1;
            }
            started => break started.map_err(|error| Exit::Unavailable.because(error))?,
        }
    };
    watch_store(config, data, news)?;
    let found_at = ManagerFile { process, api: lsm.address(), token };
    found_at.write_own(data, number).context("cannot write where the manager answers")?;
    Ok((lsm, found_at))
}

fn lease(config: &Config, data: &Path, holder: String) -> Result<Lease> {
    Ok(Lease {
        store: store_drivers::open_lease(&config.store_location(data)?, LEASE_PATIENCE),
        holder,
        fence_min: fence_min(data),
        is_gone: Box::new(holder::is_gone),
    })
}

/// Above that of every manager before there was a lease, and of every one whose lease was lost with
/// its database: nodes refuse a lower one.
fn fence_min(data: &Path) -> u64 {
    let last = fs::read_to_string(data.join(FENCE_FILE)).ok();
    let last: u64 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    (clock::unix_millis() / 1_000).max(last.saturating_add(1))
}

/// Follows which nodes of the database are up, as long as the runtime lasts.
fn watch_store(config: &Config, data: &Path, news: StoreNews) -> Result<()> {
    if config.store.kind != StoreKind::Cassandra {
        return Ok(());
    }
    let options = config.cassandra_options(data)?;
    let interval = Duration::from_millis(config.manager.poll_interval_ms);
    tokio::spawn(cassandra::watch(options, interval, move |nodes| {
        let node = |node: ClusterNode| StoreNode {
            address: node.address,
            datacenter: node.datacenter,
            is_up: node.is_up,
        };
        news.set(nodes.into_iter().map(node).collect());
    }));
    Ok(())
}

fn compute(config: &Config, data: &Path, program: &Program) -> Result<LocalCompute> {
    let options = LocalOptions {
        data: data.to_owned(),
        program: program.path.clone(),
        addresses: settings::address_plan(config)?,
        log_bytes_max: config.local.log_bytes_max,
        terminate_grace: Duration::from_millis(config.local.terminate_grace_ms),
        boot_time: Duration::from_millis(config.local.boot_time_ms),
    };
    LocalCompute::new(options).context("cannot use the data directory")
}

/// The embedded server of the one that leads, or one that nobody can ask.
fn dns(config: &Config) -> Arc<dyn DnsProvider> {
    let first_serial = || u32::try_from(clock::unix_millis() / 1_000).unwrap_or(u32::MAX);
    match dns_address(config) {
        Some(listen) => Arc::new(LedDns::new(listen, first_serial)),
        None => Arc::new(InProcessDns::default()),
    }
}

/// What SIGHUP changes: policies, times, limits of the tiers, the log.
fn reload_settings(file: &Path, lsm: &Lsm, log: &LogControl) -> Result<()> {
    let config = Config::read(file)?;
    log.reload(&config.log)?;
    lsm.set_settings(settings::settings(&config));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory of a release that kept the number in a file: it goes on from there.
    #[test]
    fn the_fence_of_an_earlier_release_is_passed() {
        let data = files::test_directory("fence");
        fs::create_dir_all(&data).expect("made");
        let by_the_clock = fence_min(&data);
        assert!(by_the_clock > 1_600_000_000);
        fs::write(data.join(FENCE_FILE), "99999999999\n").expect("a clock that went back");
        assert_eq!(fence_min(&data), 100_000_000_000);
        fs::remove_dir_all(&data).expect("removed");
    }
}
