//! What a proxy is told at its start; the door reads files, this crate only takes the result.

use std::net::SocketAddr;
use std::time::Duration;

use fleet::{FleetKeys, Incarnation, InstanceId};
use sip_core::digest::DigestPolicy;
use sip_core::identity::{ForeignCallers, TrustedTrunk};
use sip_core::registrar::RegistrarPolicy;
use sip_transaction::{Limits, Timing};

/// Configuration of one proxy: one process, one or more workers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which slot of the tier this is.
    pub instance: InstanceId,
    /// Start of this process; larger than that of any earlier process in the slot.
    pub incarnation: Incarnation,
    /// Address and port of worker 0 for UDP and TCP; worker n listens on port + n.
    pub listen: SocketAddr,
    /// Event loops, one per port; 1 or more.
    pub workers: u16,
    /// The fleet's keys, for MACs on branches, Vias and tokens.
    pub keys: FleetKeys,
    /// Domains served here: their users register and are authenticated.
    pub domains: Vec<String>,
    /// Names of the tier itself: those that DNS answers for.
    pub service_names: Vec<String>,
    /// Sources that are never challenged.
    pub trusted_trunks: Vec<TrustedTrunk>,
    /// Whether callers of foreign domains may reach registered users.
    pub foreign_callers: ForeignCallers,
    /// Methods that are challenged inside a dialog.
    pub dialog_methods: Vec<String>,
    pub digest: DigestPolicy,
    pub registrar: RegistrarPolicy,
    /// T1, T2, T4 (RFC 3261 appendix A).
    pub timing: Timing,
    /// Timer C: how long a branch may ring (RFC 3261 §16.6 step 11); more than three minutes.
    pub timer_c: Duration,
    /// Bounds of each worker's transaction layer.
    pub limits: Limits,
    /// Longest message that goes by UDP between the tiers, in bytes.
    pub internal_mtu: usize,
    /// Receive buffer of each worker's UDP socket, in bytes.
    pub receive_buffer_bytes: usize,
    /// Name servers for RFC 3263; empty means the system's.
    pub name_servers: Vec<SocketAddr>,
}
