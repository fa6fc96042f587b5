//! Clouds and names: the seam between the manager and whatever makes machines and serves DNS.
//!
//! # Where it sits
//!
//! Floor 1. The manager knows these traits; only the front door knows the drivers (floor 3).
//!
//! # Invariants
//!
//! - Every call may be repeated: the manager restarts from `list` alone (paper §3.5).
//! - One slot, one machine: a second machine in a slot is refused, the same request is answered
//!   with the same machine.
//! - The traits are cold seams: nothing on a call's way waits for them.
//!
//! # Reading order
//!
//! `compute` → `dns` → `in_process` (a cloud in memory) → `contract` (what drivers must hold).

mod compute;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod dns;
mod error;
pub mod in_process;

pub use compute::{
    Addresses, ComputeProvider, Machine, MachineFile, MachineId, MachineRequest, MachineState,
};
pub use dns::{DnsProvider, DnsTarget, Zone};
pub use error::ProviderError;
