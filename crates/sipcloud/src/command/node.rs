//! `sipcloud balancer` and `sipcloud proxy`: one node from its file until it is told to end.

mod proxy_config;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::{Incarnation, Tier};
use node_api::NodeHandle;
use node_api::wire::NodeConfiguration;
use sip_net::clock;
use store_drivers::CredentialCache;
use tokio::signal::unix::Signal;

use crate::cli;
use crate::config;
use crate::exit::Exit;
use crate::logging::{self, LogControl};
use crate::signals::{EndSignals, hangup};

/// How often a draining node looks whether it is empty.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How often a serving node looks whether its threads still run.
const ALIVE_POLL: Duration = Duration::from_secs(1);

pub(crate) fn balancer(arguments: &cli::Node) -> Result<Option<Exit>> {
    run(Tier::LoadBalancer, arguments)
}

pub(crate) fn proxy(arguments: &cli::Node) -> Result<Option<Exit>> {
    run(Tier::Proxy, arguments)
}

fn run(tier: Tier, arguments: &cli::Node) -> Result<Option<Exit>> {
    let file = &arguments.node;
    let configuration = read(file)?;
    if configuration.instance.tier != tier {
        let instance = configuration.instance;
        return Err(
            Exit::Configuration.because(format!("{}: {instance} is no {tier}", file.display()))
        );
    }
    let log = logging::start(&configuration.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(async {
        if let Some(boot_time) = arguments.boot_time {
            tokio::time::sleep(boot_time).await;
        }
        serve(&configuration, file, &log).await
    })
}

fn read(file: &Path) -> Result<NodeConfiguration> {
    let fault = |what: String| Exit::Configuration.because(format!("{}: {what}", file.display()));
    let text = fs::read(file).map_err(|error| fault(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| fault(error.to_string()))
}

async fn serve(
    configuration: &NodeConfiguration,
    file: &Path,
    log: &LogControl,
) -> Result<Option<Exit>> {
    let (mut end, mut reload) = (EndSignals::new()?, hangup()?);
    let instance = configuration.instance;
    let incarnation = begin_incarnation().await;
    let role = Role::start(configuration, incarnation).map_err(|error| {
        Exit::Unavailable.because(format!("{instance} cannot start: {error:#}"))
    })?;
    let control = &configuration.control;
    let server =
        node_api::serve(control.listen, &control.token, &configuration.origin, role.handle())
            .await
            .map_err(|error| Exit::Unavailable.because(format!("{}: {error}", control.listen)))?;
    tracing::info!(%instance, %incarnation, sip = %configuration.sip.internal, "started");

    let is_whole = until_told_to_end(&role, &mut end, &mut reload, (file, log)).await;
    if is_whole {
        drain(&role, configuration, &mut end).await;
    }
    server.stop().await;
    role.stop();
    tracing::info!(%instance, "stopped");
    Ok(if is_whole { None } else { Some(Exit::Software) })
}

/// Serves until SIGTERM; `false` if a thread of the role has ended by itself.
async fn until_told_to_end(
    role: &Role,
    end: &mut EndSignals,
    reload: &mut Signal,
    (file, log): (&Path, &LogControl),
) -> bool {
    loop {
        tokio::select! {
            () = end.recv() => return true,
            _ = reload.recv() => {
                match read(file).and_then(|configuration| log.reload(&configuration.log)) {
                    Ok(()) => tracing::info!("the log filter was read again"),
                    Err(error) => tracing::warn!("nothing changed: {error:#}"),
                }
            }
            () = tokio::time::sleep(ALIVE_POLL) => {
                if !role.is_alive() {
                    tracing::error!("a thread has ended; the node ends so that it is replaced");
                    return false;
                }
            }
        }
    }
}

/// Takes no new calls and waits for the last transaction, a second signal or the deadline.
async fn drain(role: &Role, configuration: &NodeConfiguration, end: &mut EndSignals) {
    role.handle().drain(true);
    let timers = &configuration.timers;
    // What a transaction can last: it rings as long as timer C, then absorbs repeats for 64·T1.
    let longest_ms = u64::from(timers.timer_c_ms) + 64 * u64::from(timers.t1_ms);
    let empty = async {
        while !role.is_empty() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = empty => {}
        () = end.recv() => tracing::warn!("told twice to end: transactions are cut off"),
        () = tokio::time::sleep(Duration::from_millis(longest_ms)) => {
            tracing::warn!("the drain takes too long: transactions are cut off");
        }
    }
}

/// The next full second of UNIX time, once it has begun.
///
/// An earlier process in this slot had an earlier second, because it waited as well: so no two
/// share one, and nothing needs to be written down.
async fn begin_incarnation() -> Incarnation {
    let now_ms = clock::unix_millis();
    let second = now_ms / 1_000 + 1;
    tokio::time::sleep(Duration::from_millis(second * 1_000 - now_ms)).await;
    Incarnation(u32::try_from(second).unwrap_or(u32::MAX))
}

/// What runs in this process.
enum Role {
    Balancer(load_balancer::Running),
    Proxy(proxy::Running),
}

impl Role {
    fn start(configuration: &NodeConfiguration, incarnation: Incarnation) -> Result<Self> {
        match configuration.instance.tier {
            Tier::LoadBalancer => {
                let config = load_balancer::Config::from_node(configuration, incarnation)?;
                Ok(Self::Balancer(load_balancer::start(config)?))
            }
            Tier::Proxy => {
                let config = proxy_config::from_node(configuration, incarnation)?;
                let location = config::location(&configuration.store);
                let cache = config::cache(&configuration.store);
                let open = move |wake: store::Wake| {
                    let driver =
                        store_drivers::open(&location, wake).map_err(std::io::Error::other)?;
                    let store: Box<dyn store::Store> = match cache {
                        Some(cache) => Box::new(CredentialCache::new(driver, cache)),
                        None => Box::new(driver),
                    };
                    Ok(store)
                };
                Ok(Self::Proxy(proxy::start(config, Box::new(open))?))
            }
            Tier::Store => anyhow::bail!("the store is no node of ours"),
        }
    }

    fn handle(&self) -> Arc<dyn NodeHandle> {
        match self {
            Self::Balancer(running) => running.node(),
            Self::Proxy(running) => running.handle(),
        }
    }

    /// Whether nothing is begun that only this node could end.
    fn is_empty(&self) -> bool {
        let status = self.handle().status();
        status.server_transactions == 0 && status.streams_open == 0
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Balancer(running) => running.is_alive(),
            Self::Proxy(running) => running.is_alive(),
        }
    }

    fn stop(self) {
        match self {
            Self::Balancer(running) => running.stop(),
            Self::Proxy(running) => running.stop(),
        }
    }
}
