//! The location service and the credentials: the seam between the proxies and any database.
//!
//! # Where it sits
//!
//! Floor 1. The proxy role submits queries and receives completions; the drivers of floor 3 answer
//! them. `sip-core` uses only the words ([`Aor`], [`Binding`], [`Credential`]).
//!
//! # Invariants
//!
//! - Nothing waits here: a query is submitted, its completion arrives later, and each ticket gets
//!   exactly one, at overload and at the end too.
//! - Time is an argument. A row that has expired is still a row: only the caller decides what is
//!   live ([`Binding::is_live`]), since the registrar needs the CSeq of what was unregistered.
//! - A write with an older `updated_at` never replaces a newer row, whatever the order of arrival.
//! - No password is ever kept: only HA1s, and their `Debug` prints nothing of them.
//!
//! # Reading order
//!
//! `location` and `credential` (the words) → `query` (the seam) → `memory` (the smallest driver) →
//! `contract` (what every driver owes) → `lease` (which manager leads) → `ledger` (book-keeping they
//! share) → `blocking` (for the command line) → `health`, `limits`, `error`.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod blocking;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod credential;
pub mod error;
pub mod health;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod location;
pub mod memory;
pub mod query;

pub use blocking::Blocking;
pub use credential::{Credential, CredentialKey};
pub use error::StoreError;
pub use health::{Latencies, QueryKind, StoreCounters, StoreHealth};
pub use lease::{LeaseRow, LeaseStore, MemoryLease, Swapped};
pub use location::{Aor, Binding, BindingId, BindingKey, Registration, UnixMillis};
pub use memory::MemoryStore;
pub use query::{Answer, Completion, Query, Store, Ticket, Waited, Wake};
