//! What a balancer is told at its start; the door reads files, this crate only takes the result.

use std::net::SocketAddr;
use std::time::Duration;

use fleet::{FleetKeys, Incarnation, InstanceId};
use node_api::wire::{KeyError, NodeConfiguration};
use sip_net::stream::StreamLimits;

use crate::ledger::Timing;
use crate::probe::Probing;

/// Configuration of one balancer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which slot of the tier this is.
    pub instance: InstanceId,
    /// Start of this process; larger than that of any earlier process in the slot.
    pub incarnation: Incarnation,
    /// Towards proxies: UDP and TCP.
    pub internal: SocketAddr,
    /// Towards clients. It is listened on too, unless it is `internal` or no address of this
    /// machine (behind a translator).
    pub advertised: SocketAddr,
    /// More addresses to listen on for clients, each advertised as it is.
    pub extra: Vec<SocketAddr>,
    /// Threads, each with its own sockets; 0 means one per core.
    pub threads: usize,
    /// The fleet's keys, for MACs on branches, Vias and tokens.
    pub keys: FleetKeys,
    /// The names of the tier, for OPTIONS to it.
    pub service_names: Vec<String>,
    /// Longest message that goes by UDP between the tiers, in bytes.
    pub internal_mtu_bytes: usize,
    /// What is asked for as receive buffer of each UDP socket, in bytes.
    pub receive_buffer_bytes: usize,
    /// Bounds of the stream connections.
    pub stream_limits: StreamLimits,
    /// By which what is kept for peers on streams is repeated.
    pub timing: Timing,
    /// What is kept for them at most: bytes of requests, and as many of responses.
    pub kept_bytes_max: usize,
    /// Connections of clients closed per second while draining; zero: none.
    pub drain_streams_per_s: u32,
    /// How members are watched.
    pub probing: Probing,
}

impl Config {
    /// What a node's file says to a balancer.
    ///
    /// # Errors
    ///
    /// The keys are not usable. Not worth a retry.
    pub fn from_node(node: &NodeConfiguration, incarnation: Incarnation) -> Result<Self, KeyError> {
        let to_usize = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let to_duration = |millis: u32| Duration::from_millis(u64::from(millis));
        let stream_limits = StreamLimits {
            connections_max: to_usize(node.limits.streams_max),
            ..StreamLimits::default()
        };
        Ok(Self {
            instance: node.instance,
            incarnation,
            internal: node.sip.internal,
            advertised: node.sip.advertised,
            extra: node.sip.extra.clone(),
            threads: usize::from(node.workers),
            keys: FleetKeys::try_from(&node.keys)?,
            service_names: node.service_names.clone(),
            internal_mtu_bytes: to_usize(node.internal_mtu_bytes),
            receive_buffer_bytes: to_usize(node.limits.socket_buffer_bytes),
            stream_limits,
            timing: Timing {
                t1: to_duration(node.timers.t1_ms),
                t2: to_duration(node.timers.t2_ms),
                timer_c: to_duration(node.timers.timer_c_ms),
            },
            kept_bytes_max: to_usize(node.limits.kept_bytes_max),
            drain_streams_per_s: node.limits.drain_streams_per_s,
            probing: Probing {
                interval: to_duration(node.probing.interval_ms),
                suspect_missed: node.probing.suspect_missed,
                dead_missed: node.probing.dead_missed,
            },
        })
    }
}
