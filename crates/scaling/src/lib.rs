//! How many instances a tier should have, which one goes, and what is to be done next.
//!
//! # Where it sits
//!
//! Floor 1. The manager makes a [`View`] of the world, calls [`step`] and does what the [`Plan`]
//! says; a simulation does the same. Uses only `fleet`.
//!
//! # Invariants
//!
//! - Pure: same view, same plan. No clock, no cloud, no log.
//! - Level-triggered: every action follows from what is, not from what was done. What a step
//!   remembers ([`Memory`]) may be lost at any time; the price is a wait begun anew.
//! - Silence is never evidence: who did not answer counts as idle when adding, as full when
//!   removing; nothing is removed while one in service does not answer; a list that misses a machine
//!   is no death.
//! - The last owner of calls is never withdrawn, and the last name never taken from the DNS.
//!
//! # Reading order
//!
//! `policy` → `decision` (how many) → `roster` and `load` (what is known) → `view` (what is seen) →
//! `doubts` (what balancers believe) → `lifecycle` (where an instance stands) → `retirement` (which
//! one goes, and when it may) → `controller` (what is done).

mod controller;
mod decision;
mod doubts;
mod lifecycle;
mod load;
mod plan;
mod policy;
mod retirement;
mod roster;
mod trend;
mod view;

pub use controller::step;
pub use decision::{Decision, Reason, TierView, decide};
pub use load::{Load, Report, loads, poll};
pub use plan::{Action, Cause, Plan, Standing, TierPlan, ZoneEntry};
pub use policy::{AdaptiveRule, PAPER, PaperRule, Rule, ScalingPolicy};
pub use retirement::Order;
pub use roster::{Listed, Roster, RoundKind};
pub use view::{
    Doubt, LeavingBalancer, MachineState, Memory, NodeView, Observed, Retiring, RetiringCause,
    Stray, TierInput, Timing, View,
};
