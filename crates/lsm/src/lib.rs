//! The Load Scaling Manager: observe, decide, act, again and again (paper §3).
//!
//! # Where it sits
//!
//! Floor 4. Knows machines and names as the traits of `provider`, nodes through `node-api`; the
//! decisions are `scaling`'s. The front door gives it drivers.
//!
//! # Invariants
//!
//! - It owns nothing that it cannot rebuild from the provider's list and the nodes' answers, but what
//!   operators asked for, which is in a file: it may be killed at any moment, and calls do not notice
//!   (paper §3.5).
//! - What did not answer is unknown, never zero.
//! - Every decision and every act goes into the journal with its reason.
//! - A failed act is tried again in a later round, ever more slowly; none is remembered as done.
//! - It acts only while it holds the lease, with a margin; nodes obey no lower fence.
//! - When it stops, the nodes go on.
//!
//! # Reading order
//!
//! `config` → `lease` (whether it leads) → `observe` and `rates` (what is) → `wishes` (what people want)
//! → `reconcile` (the loop), `reign` (its beginning and end) → `execute` (what is done) → `journal`,
//! `report` and `store_tier` (what is told) → `service` (how it is started and asked).

mod clock;
mod config;
mod execute;
mod journal;
mod lease;
mod nodes;
mod observe;
mod rates;
mod reconcile;
mod reign;
mod report;
mod service;
mod store_tier;
mod wishes;

pub use clock::{Clock, SystemClock};
pub use config::{JournalLimits, LsmConfiguration, NodeTemplate, Settings};
pub use journal::Journal;
pub use lease::{IsGone, Keeper, Leadership, Lease};
pub use nodes::{HttpNodes, NodeAccess};
pub use reconcile::{Manager, Pace, Seams};
pub use service::{Lsm, LsmError, start, terminate_all};
pub use store_tier::{StoreNews, StoreWatch};
