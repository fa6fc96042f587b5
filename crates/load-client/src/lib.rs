//! Phones by the thousand: callers and callees that put a load on a SIP service and say honestly
//! what became of every call.
//!
//! # Where it sits
//!
//! Floor 4, beside the roles that it tests: it uses the sockets of `sip-net`, the transactions of
//! `sip-transaction` and the words of `sip-message`, and knows nothing of the service under test
//! but its addresses. `sipcloud load`, the demo and the tests use it as a library.
//!
//! # Invariants
//!
//! - The load is open-loop: calls start when the [`Schedule`] says so, however slow the answers.
//! - A call succeeds only if its flow was followed to the end (100 and 180 may be missing); every
//!   other one is in the report with what was expected and what came.
//! - What this side lost itself (socket buffers, late starts) is counted apart from failed calls.
//! - One thread per [`run_uac`] and per [`Uas`]; nothing in it waits except for sockets and time.
//!
//! # Reading order
//!
//! `plan` (what a run is) → `mix` and `schedule` (which calls start when) → `destinations` (where
//! they go) → `uac` (one call after another) over
//! `uac/call` (what a call says) and `uac/flow` (what it makes of the answers) → `uas` and
//! `uas/registration` → `digest`, `text`, `endpoint` (the loop) over `connections`, `report`,
//! `latency`.

mod connections;
mod destinations;
mod digest;
mod endpoint;
mod latency;
mod mix;
mod plan;
mod report;
mod schedule;
mod text;
mod uac;
mod uas;

pub use connections::ConnectionCounts;
pub use destinations::Service;
pub use latency::Latency;
pub use mix::{CallKind, Mix, MixError, Mode};
pub use plan::{Challenge, Credentials, Plan, Retransmission, Stop};
pub use report::{Failure, KindCounts, OwnLosses, Report, Sample};
pub use schedule::{Schedule, ScheduleError};
pub use sip_message::Transport;
pub use sip_transaction::Timing;
pub use uac::run_uac;
pub use uas::{Registration, Uas, UasCounters, UasOptions};
