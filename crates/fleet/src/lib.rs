//! Words of the fleet that every role uses: tiers, instances, rates, the membership and its keys.
//!
//! # Where it sits
//!
//! Floor 0. Everything above may use it; it uses nothing of ours.
//!
//! # Invariants
//!
//! - No I/O, no clock, no randomness: times and secrets are arguments.
//! - A [`Membership`] whose digest does not match its content is never accepted, nor is an older
//!   or an empty one.
//! - Secrets never reach a log: `Debug` of a key prints its id alone.
//!
//! # Reading order
//!
//! `tier` → `instance` (who) → `rate` and `observation` (what was seen) → `membership` (who owns
//! calls now) → `keys`.

mod instance;
mod keys;
mod membership;
mod observation;
mod rate;
mod tier;

pub use instance::{Incarnation, InstanceId, InstanceIdError, InstanceState};
pub use keys::{FleetKey, FleetKeys};
pub use membership::{
    BalancerMember, EARLIER_SETS_MAX, EarlierSet, GenerationNumber, Member, Members, Membership,
    ROWS_DEFAULT, ROWS_MAX, StaleGeneration, WEIGHT_MAX, WEIGHT_NORMAL,
};
pub use observation::Observation;
pub use rate::{CallRate, Poll};
pub use tier::Tier;
