//! What a configuration must hold beyond its types; every fault names its key and the remedy.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;

use store_drivers::CassandraOptions;

use super::{Config, Fault};

/// Everything that is wrong, in the order of the file.
pub(super) fn check(config: &Config) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    service(config, &mut faults);
    local(config, &mut faults);
    tiers(config, &mut faults);
    store(config, &mut faults);
    protocol(config, &mut faults);
    faults.0
}

struct Faults(Vec<Fault>);

impl Faults {
    fn unless(&mut self, holds: bool, key: &str, remedy: impl Display) {
        if !holds {
            self.0.push(Fault::of(key, remedy.to_string()));
        }
    }
}

fn service(config: &Config, faults: &mut Faults) {
    let service = &config.service;
    faults.unless(
        !service.domains.is_empty(),
        "service.domains",
        "name at least one domain, as in [\"example.org\"]",
    );
    for domain in &service.domains {
        faults.unless(
            is_host_name(domain),
            "service.domains",
            format_args!("{domain:?} is no domain; write it as in \"example.org\""),
        );
    }
    for trunk in &service.trusted_trunks {
        faults.unless(
            is_network(trunk),
            "service.trusted_trunks",
            format_args!("{trunk:?} is neither an address nor a network such as 192.0.2.0/24"),
        );
    }
}

fn local(config: &Config, faults: &mut Faults) {
    let local = &config.local;
    faults.unless(
        config.network().is_some_and(|[first, _]| first == 127),
        "local.network",
        format_args!("{:?} must be 127 and one more octet, as in \"127.0\"", local.network),
    );
    faults.unless(
        local.listen.is_empty() || config.listen().is_some_and(|ip| !ip.is_unspecified()),
        "local.listen",
        format_args!(
            "{:?} must be one address of this machine (clients are told this address, so that \
             0.0.0.0 will not do), or empty",
            local.listen,
        ),
    );
    faults.unless(
        local.listen.is_empty() || config.balancers.instances_max == 1,
        "balancers.instances_max",
        "must be 1 together with local.listen: one address has room for one balancer",
    );
    faults.unless(local.boot_time_ms <= 600_000, "local.boot_time_ms", "must be at most 600000");
    faults.unless(local.sip_port > 0, "local.sip_port", "must be above 0");
    faults.unless(local.control_port > 0, "local.control_port", "must be above 0");
    faults.unless(
        !config.dns.enabled || config.dns.port > 0,
        "dns.port",
        "must be above 0, or set dns.enabled = false",
    );
    faults.unless(
        config.dns.listen.is_empty() || config.dns.listen.parse::<IpAddr>().is_ok(),
        "dns.listen",
        format_args!("{:?} must be an address of this machine, or empty", config.dns.listen),
    );
    let manager = &config.manager;
    faults.unless(
        (100..=600_000).contains(&manager.poll_interval_ms),
        "manager.poll_interval_ms",
        "must be between 100 and 600000",
    );
    faults.unless(
        (10..=60_000).contains(&manager.poll_timeout_ms),
        "manager.poll_timeout_ms",
        "must be between 10 and 60000",
    );
    for (key, percent) in
        [("manager.up_percent", manager.up_percent), ("manager.down_percent", manager.down_percent)]
    {
        faults.unless((1..=100).contains(&percent), key, "must be between 1 and 100");
    }
    faults.unless(manager.up_polls > 0, "manager.up_polls", "must be at least 1");
    faults.unless(manager.down_polls > 0, "manager.down_polls", "must be at least 1");
    faults.unless(manager.launches_max > 0, "manager.launches_max", "must be at least 1");
}

fn tiers(config: &Config, faults: &mut Faults) {
    let balancers = &config.balancers;
    let proxies = &config.proxies;
    let slots = u32::from(provider_drivers::AddressPlan::SLOT_MAX);
    for (tier, min, max, capacity) in [
        ("balancers", balancers.instances_min, balancers.instances_max, balancers.capacity_cps),
        ("proxies", proxies.instances_min, proxies.instances_max, proxies.capacity_cps),
    ] {
        faults.unless(min > 0, &format!("{tier}.instances_min"), "must be at least 1");
        faults.unless(
            min <= max,
            &format!("{tier}.instances_max"),
            format_args!("must be at least {tier}.instances_min, which is {min}"),
        );
        faults.unless(
            max <= slots,
            &format!("{tier}.instances_max"),
            format_args!("must be at most {slots}: the loopback network has no more addresses"),
        );
        faults.unless(capacity > 0, &format!("{tier}.capacity_cps"), "must be at least 1");
    }
    faults.unless(
        (1..=64).contains(&proxies.workers),
        "proxies.workers",
        "must be between 1 and 64; each takes a port",
    );
}

fn store(config: &Config, faults: &mut Faults) {
    let store = &config.store;
    faults.unless(
        !store.contact_points.is_empty(),
        "store.contact_points",
        "name at least one node, as in [\"192.0.2.9\"]",
    );
    faults.unless(
        CassandraOptions::is_keyspace_name(&store.keyspace),
        "store.keyspace",
        format_args!("{:?} must be small letters, digits and _, at most 48", store.keyspace),
    );
    faults.unless(
        store.user.is_empty() || !store.password_file.as_os_str().is_empty(),
        "store.password_file",
        "name the file with the password of store.user",
    );
    let has = |path: &Path| !path.as_os_str().is_empty();
    faults.unless(
        has(&store.tls_certificate_file) == has(&store.tls_key_file),
        "store.tls_key_file",
        "a certificate and its key come together",
    );
    faults.unless(
        has(&store.tls_ca_file) || !has(&store.tls_key_file),
        "store.tls_ca_file",
        "name the file with the authorities that sign the nodes' certificates",
    );
    faults.unless(store.query_timeout_ms > 0, "store.query_timeout_ms", "must be above 0");
    faults.unless(
        (store.query_timeout_ms..=3_000).contains(&store.query_deadline_ms),
        "store.query_deadline_ms",
        "must be between store.query_timeout_ms and 3000: then the proxy answers in any case",
    );
    faults.unless(
        store.node_capacity_queries_per_s > 0,
        "store.node_capacity_queries_per_s",
        "must be above 0",
    );
}

fn protocol(config: &Config, faults: &mut Faults) {
    let timers = &config.timers;
    faults.unless(
        (10..=500).contains(&timers.t1_ms),
        "timers.t1_ms",
        "must be between 10 and 500; below 500 only in a closed network (RFC 3261 §17.1.1.1)",
    );
    faults.unless(timers.t2_ms >= timers.t1_ms, "timers.t2_ms", "must not be below timers.t1_ms");
    faults.unless(timers.t4_ms >= timers.t1_ms, "timers.t4_ms", "must not be below timers.t1_ms");
    faults.unless(
        timers.timer_c_ms >= 64 * timers.t1_ms,
        "timers.timer_c_ms",
        "must not be below 64 times timers.t1_ms",
    );
    let registration = &config.registration;
    faults.unless(
        registration.expires_min_s <= registration.expires_default_s,
        "registration.expires_default_s",
        "must not be below registration.expires_min_s",
    );
    faults.unless(
        registration.expires_default_s <= registration.expires_max_s,
        "registration.expires_max_s",
        "must not be below registration.expires_default_s",
    );
    faults.unless(registration.contacts_max > 0, "registration.contacts_max", "must be at least 1");
    let digest = &config.digest;
    faults.unless(
        !digest.algorithms.is_empty(),
        "digest.algorithms",
        "name at least one of MD5, SHA-256, SHA-512-256",
    );
    for algorithm in &digest.algorithms {
        faults.unless(
            ["MD5", "SHA-256", "SHA-512-256"].contains(&algorithm.as_str()),
            "digest.algorithms",
            format_args!("{algorithm:?} is none of MD5, SHA-256, SHA-512-256"),
        );
    }
    faults.unless(digest.nonce_lifetime_s > 0, "digest.nonce_lifetime_s", "must be at least 1");
    faults.unless(config.limits.transactions_max > 0, "limits.transactions_max", "must be above 0");
    let probing = &config.probing;
    faults.unless(
        (10..=10_000).contains(&probing.interval_ms),
        "probing.interval_ms",
        "must be between 10 and 10000",
    );
    faults.unless(probing.suspect_missed > 0, "probing.suspect_missed", "must be at least 1");
    faults.unless(
        probing.dead_missed > probing.suspect_missed,
        "probing.dead_missed",
        "must be above probing.suspect_missed",
    );
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter);
    faults.unless(
        filter.is_ok(),
        "log.filter",
        format_args!(
            "{:?} is no filter; write a level (error, warn, info, debug, trace) or for example \
             \"info,proxy=debug\"",
            config.log.filter,
        ),
    );
}

/// Labels of letters, digits and hyphens; an IPv4 address is one as well.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 200 && name.split('.').all(is_label)
}

fn is_network(text: &str) -> bool {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (text, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return false;
    };
    let bits_max = if ip.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max))
}
