//! The configuration as the manager takes it: policies, times, and what new nodes start from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::{CallRate, InstanceId};
use lsm::{JournalLimits, LsmConfiguration, NodeTemplate, Settings, StoreNews, StoreWatch};
use node_api::wire::{Control, NodeConfiguration, Origin, SipAddresses};
use provider_drivers::AddressPlan;
use scaling::{AdaptiveRule, PaperRule, Rule, ScalingPolicy, Timing};

use crate::config::{Config, PolicyChoice};
use crate::secrets::Secrets;

/// A local process that is not ready so long after its boot never will be.
const START_LIMIT: Duration = Duration::from_secs(30);
/// What a local process needs to start, until one was measured.
const BOOT_TIME: Duration = Duration::from_secs(3);

/// Everything the manager with this number is told. `data` is absolute.
pub(super) fn configuration(
    config: &Config,
    secrets: &Secrets,
    data: &Path,
    number: u8,
) -> Result<LsmConfiguration> {
    Ok(LsmConfiguration {
        settings: settings(config),
        template: template(config, secrets, data)?,
        listen: control_address(config, number)?,
        token: secrets.manager_token.clone(),
        journal: data.join("journal.jsonl"),
        journal_limits: JournalLimits::default(),
        wishes: data.join("wishes.json"),
        name: format!("manager-{number}"),
        store: StoreWatch {
            kind: config.store.kind,
            node_capacity_queries_per_s: config.store.node_capacity_queries_per_s,
            news: StoreNews::default(),
        },
    })
}

/// What may change while the manager runs.
pub(crate) fn settings(config: &Config) -> Settings {
    let balancers = &config.balancers;
    let proxies = &config.proxies;
    Settings {
        balancers: policy(
            config,
            balancers.capacity_cps,
            (balancers.instances_min, balancers.instances_max),
        ),
        proxies: policy(
            config,
            proxies.capacity_cps,
            (proxies.instances_min, proxies.instances_max),
        ),
        timing: timing(config),
        poll_timeout: Duration::from_millis(config.manager.poll_timeout_ms),
        is_dry_run: config.manager.dry_run,
        ..Settings::default()
    }
}

fn policy(config: &Config, capacity_cps: u32, (min, max): (u32, u32)) -> ScalingPolicy {
    let manager = &config.manager;
    let polls = |count: u16| NonZeroUsize::new(usize::from(count)).unwrap_or(NonZeroUsize::MIN);
    let rule = match manager.policy {
        PolicyChoice::Paper => Rule::Paper(PaperRule {
            threshold_percent: manager.up_percent,
            polls_needed: polls(manager.up_polls),
        }),
        PolicyChoice::Adaptive => Rule::Adaptive(AdaptiveRule {
            up_percent: manager.up_percent,
            up_polls: polls(manager.up_polls),
            down_percent: manager.down_percent,
            down_polls: polls(manager.down_polls),
            trend_polls: usize::from(manager.trend_polls),
            ..AdaptiveRule::default()
        }),
    };
    ScalingPolicy {
        capacity_each: CallRate::from_cps(capacity_cps),
        rule,
        instances_min: min,
        instances_max: max,
        launches_max: manager.launches_max,
        launch_interval: Duration::from_secs(manager.launch_interval_s),
        is_frozen: manager.freeze,
        ..ScalingPolicy::default()
    }
}

fn timing(config: &Config) -> Timing {
    let timers = &config.timers;
    // What a transaction can last (RFC 3261 §16.6 step 11, §17.2.1): it rings, then absorbs.
    let longest_ms = u64::from(timers.timer_c_ms) + 64 * u64::from(timers.t1_ms);
    let boot_time = Duration::from_millis(config.local.boot_time_ms);
    Timing {
        poll_interval: Duration::from_millis(config.manager.poll_interval_ms),
        boot_time: BOOT_TIME + boot_time,
        start_limit: START_LIMIT + boot_time,
        repeats: Duration::from_millis(64 * u64::from(timers.t1_ms)),
        proxy_drain_limit: Duration::from_millis(longest_ms),
        balancer_drain_limit: Duration::from_secs(config.balancers.drain_max_s),
        slow_start: Duration::from_secs(config.proxies.slow_start_s.into()),
        dns_ttl: Duration::from_secs(u64::from(config.dns.ttl_s)),
        ..Timing::default()
    }
}

fn template(config: &Config, secrets: &Secrets, data: &Path) -> Result<NodeTemplate> {
    // Instance and addresses are filled in for each slot.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], config.local.sip_port));
    let base = NodeConfiguration {
        instance: InstanceId::proxy(1),
        sip: SipAddresses { internal: nowhere, advertised: nowhere, extra: Vec::new() },
        workers: config.proxies.workers,
        control: Control { listen: nowhere, token: secrets.node_token.clone() },
        keys: secrets.fleet.clone(),
        domains: config.service.domains.clone(),
        service_names: vec![config.service_name().to_owned()],
        store: config.store_configuration(data)?,
        timers: config.timers,
        limits: config.limits,
        probing: config.probing,
        registration: config.registration,
        digest: config.digest.clone(),
        trusted_trunks: config.service.trusted_trunks.clone(),
        foreign_callers: config.service.foreign_callers,
        capacity_cps: config.proxies.capacity_cps,
        internal_mtu_bytes: 1_400,
        rows: fleet::ROWS_DEFAULT,
        log: config.log.clone(),
        origin: Origin::default(),
    };
    let advertised = config.listen().map_or_else(BTreeMap::new, |ip| {
        let address = SocketAddr::new(ip, config.local.sip_port);
        BTreeMap::from([(InstanceId::balancer(1), address)])
    });
    address_plan(config)?;
    Ok(NodeTemplate { base, balancer_threads: config.balancers.threads, advertised })
}

pub(super) fn address_plan(config: &Config) -> Result<AddressPlan> {
    let network = config.network().context("local.network is not two octets")?;
    let local = &config.local;
    Ok(AddressPlan {
        network,
        sip_port: local.sip_port,
        control_port: local.control_port,
        // Clients elsewhere know one address.
        balancers_max: config.listen().map_or(AddressPlan::SLOT_MAX, |_| 1),
    })
}

/// Where the interface of the manager with this number listens, counted from 1.
pub(crate) fn control_address(config: &Config, number: u8) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address_plan(config)?.manager_ip(number), config.local.control_port))
}

/// Where the embedded DNS server answers, if it is to.
pub(crate) fn dns_address(config: &Config) -> Option<SocketAddr> {
    let own = address_plan(config).ok()?.manager_ip(1);
    let ip = config.dns.listen.parse().unwrap_or(own);
    config.dns.enabled.then(|| SocketAddr::new(ip, config.dns.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_what_the_file_says() {
        let mut config = Config::default();
        config.local.listen = "192.0.2.7".to_owned();
        config.local.network = "127.4".to_owned();
        let data = crate::files::test_directory("settings");
        let secrets = Secrets::load_or_make(&data).expect("made");
        let made = configuration(&config, &secrets, &data, 2).expect("good");
        assert_eq!(made.listen, "127.4.10.251:8060".parse().expect("an address"));
        assert_eq!(made.name, "manager-2");
        let plan = address_plan(&config).expect("good");
        let balancer = InstanceId::balancer(1);
        let node = made.template.configuration(balancer, plan.of(balancer).expect("a slot"));
        assert_eq!(node.sip.internal, "127.4.10.1:5060".parse().expect("an address"));
        assert_eq!(node.sip.advertised, "192.0.2.7:5060".parse().expect("an address"));
        assert_eq!(node.store.path, data.join("store.db"));
        assert_eq!(dns_address(&config), "127.4.10.250:5300".parse().ok());
        std::fs::remove_dir_all(&data).expect("removed");
    }

    #[test]
    fn the_paper_is_one_key_away() {
        let mut config = Config::default();
        config.manager.policy = PolicyChoice::Paper;
        (config.manager.up_percent, config.manager.up_polls) = (85, 5);
        config.proxies.instances_max = 4;
        let made = settings(&config).proxies;
        assert_eq!((made.rule, made.instances_max), (scaling::PAPER.rule, 4));
    }
}
