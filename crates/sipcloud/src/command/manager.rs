//! `sipcloud manager`: the Load Scaling Manager with the local provider and the embedded DNS server.

mod settings;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lsm::{Lsm, StoreNews};
use node_api::wire::{StoreKind, StoreNode};
use provider::in_process::InProcessDns;
use provider::{ComputeProvider, DnsProvider};
use provider_drivers::process::ProcessIdentity;
use provider_drivers::{EmbeddedDns, LocalCompute, LocalOptions};
use sip_net::clock;
use store_drivers::cassandra::{self, ClusterNode};

use crate::cli;
use crate::command::open_data;
use crate::config::Config;
use crate::exit::Exit;
use crate::files::{self, ManagerFile};
use crate::logging::{self, LogControl};
use crate::secrets::Secrets;
use crate::signals::{EndSignals, hangup};

pub(crate) use settings::{dns_address, settings};

/// Number of the last manager of a data directory.
const FENCE_FILE: &str = "fence";

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
    let mut lsm = start(config, data).await?;
    loop {
        tokio::select! {
            () = end.recv() => break,
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

async fn start(config: &Config, data: &Path) -> Result<Lsm> {
    let secrets = Secrets::load_or_make(data)?;
    let token = secrets.manager_token.clone();
    let settings = settings::configuration(config, &secrets, data, next_fence(data)?)?;
    watch_store(config, data, settings.store.news.clone())?;
    let compute: Arc<dyn ComputeProvider> = Arc::new(compute(config, data)?);
    let lsm = lsm::start(settings, compute, dns(config).await?)
        .await
        .map_err(|error| Exit::Unavailable.because(error))?;
    let process = ProcessIdentity::current().context("/proc does not tell about this process")?;
    ManagerFile { process, api: lsm.address(), token }
        .write(data)
        .context("cannot write where the manager answers")?;
    Ok(lsm)
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

fn compute(config: &Config, data: &Path) -> Result<LocalCompute> {
    let options = LocalOptions {
        data: data.to_owned(),
        program: std::env::current_exe().context("this program cannot find itself")?,
        addresses: settings::address_plan(config)?,
        log_bytes_max: config.local.log_bytes_max,
        terminate_grace: Duration::from_millis(config.local.terminate_grace_ms),
        boot_time: Duration::from_millis(config.local.boot_time_ms),
    };
    LocalCompute::new(options).context("cannot use the data directory")
}

/// The embedded server, or one that nobody can ask.
async fn dns(config: &Config) -> Result<Arc<dyn DnsProvider>> {
    let Some(listen) = dns_address(config) else {
        return Ok(Arc::new(InProcessDns::default()));
    };
    let first_serial = u32::try_from(clock::unix_millis() / 1_000).unwrap_or(u32::MAX);
    let server = EmbeddedDns::start(listen, first_serial).await.map_err(|error| {
        Exit::Unavailable.because(format!(
            "the DNS server cannot listen on {listen}: {error}; set dns.port, or dns.enabled = \
             false",
        ))
    })?;
    Ok(Arc::new(server))
}

/// What SIGHUP changes: policies, times, limits of the tiers, the log.
fn reload_settings(file: &Path, lsm: &Lsm, log: &LogControl) -> Result<()> {
    let config = Config::read(file)?;
    log.reload(&config.log)?;
    lsm.set_settings(settings::settings(&config));
    Ok(())
}

/// A number above that of every earlier manager: nodes refuse a generation of an older one.
///
/// The clock helps where the file was lost.
fn next_fence(data: &Path) -> Result<u64> {
    let path = data.join(FENCE_FILE);
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    let now_s = clock::unix_millis() / 1_000;
    let next = last.map_or(now_s, |last: u64| now_s.max(last.saturating_add(1)));
    files::write_private(&path, format!("{next}\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manager_has_a_higher_number() {
        let data = files::test_directory("fence");
        fs::create_dir_all(&data).expect("made");
        let first = next_fence(&data).expect("written");
        let second = next_fence(&data).expect("written");
        fs::write(data.join(FENCE_FILE), "99999999999").expect("a clock that went back");
        let third = next_fence(&data).expect("written");
        assert!(first < second && second < third, "{first} {second} {third}");
        fs::remove_dir_all(&data).expect("removed");
    }
}
