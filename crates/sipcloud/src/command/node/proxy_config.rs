//! A node's file as the proxy role takes it.

use std::time::Duration;

use anyhow::Result;
use fleet::{FleetKeys, Incarnation};
use node_api::wire::NodeConfiguration;
use sip_core::digest::{Algorithm, DigestPolicy};
use sip_core::identity::{ForeignCallers, TrustedTrunk};
use sip_core::registrar::RegistrarPolicy;
use sip_transaction::{Limits, Timing};

/// # Errors
///
/// A value that only this role can judge: a key, a trunk, an algorithm.
pub(super) fn from_node(
    node: &NodeConfiguration,
    incarnation: Incarnation,
) -> Result<proxy::Config> {
    let to_usize = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let to_duration = |millis: u32| Duration::from_millis(u64::from(millis));
    let algorithms: Result<Vec<Algorithm>, _> =
        node.digest.algorithms.iter().map(|name| name.parse()).collect();
    let trusted_trunks: Result<Vec<TrustedTrunk>, _> =
        node.trusted_trunks.iter().map(|network| network.parse()).collect();
    let timers = &node.timers;
    let registration = &node.registration;
    Ok(proxy::Config {
        instance: node.instance,
        incarnation,
        listen: node.sip.internal,
        workers: node.workers.max(1),
        keys: FleetKeys::try_from(&node.keys)?,
        domains: node.domains.clone(),
        service_names: node.service_names.clone(),
        trusted_trunks: trusted_trunks?,
        foreign_callers: if node.foreign_callers {
            ForeignCallers::Admitted
        } else {
            ForeignCallers::Challenged
        },
        dialog_methods: node.digest.dialog_methods.clone(),
        digest: DigestPolicy {
            algorithms: algorithms?,
            nonce_lifetime: Duration::from_secs(u64::from(node.digest.nonce_lifetime_s)),
            ..DigestPolicy::default()
        },
        registrar: RegistrarPolicy {
            expires_default_s: registration.expires_default_s,
            expires_min_s: registration.expires_min_s,
            expires_max_s: registration.expires_max_s,
            contacts_max: usize::from(registration.contacts_max),
        },
        timing: Timing {
            t1: to_duration(timers.t1_ms),
            t2: to_duration(timers.t2_ms),
            t4: to_duration(timers.t4_ms),
        },
        timer_c: to_duration(timers.timer_c_ms),
        limits: Limits { transactions_max: to_usize(node.limits.transactions_max) },
        internal_mtu: to_usize(node.internal_mtu_bytes),
        receive_buffer_bytes: to_usize(node.limits.socket_buffer_bytes),
        name_servers: Vec::new(),
    })
}
