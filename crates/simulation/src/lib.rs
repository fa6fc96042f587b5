//! The fleet on virtual time: what the manager would do with a load, and with all that can go wrong.
//!
//! # Where it sits
//!
//! Floor 4. A scenario is a load and a list of faults; the manager's own [`scaling::step`] plays it
//! against a cloud in memory ([`provider::in_process`]) and nodes that are a few numbers each. What
//! it proves is thereby true of the manager. `sipcloud simulate` and the tests run it.
//!
//! # Invariants
//!
//! - Virtual time only: no clock, no socket, no disk; the same scenario and seed give the same story.
//! - The manager is not modelled: everything it knows passes [`scaling::Roster`],
//!   [`scaling::loads`] and [`scaling::poll`], everything it does comes from [`scaling::step`].
//! - Every plan is watched (`watch`): what must never happen is looked for in every round of every
//!   run, scenarios included.
//!
//! # Reading order
//!
//! `scenario` (what can be said) → `load` → `faults` (what goes wrong, and when) → `nodes` and
//! `world` (what exists) → `manager` (what sees it and acts) → `watch` (what must not happen) →
//! `story` (what is told) → `run` → `random`.

mod built_in;
mod faults;
mod load;
mod manager;
mod nodes;
mod random;
mod run;
mod scenario;
mod story;
mod watch;
mod world;

pub use built_in::built_in;
pub use random::{RandomOutcome, random};
pub use run::{Outcome, run};
pub use scenario::{Scenario, ScenarioError, Settings};
pub use watch::Violation;
