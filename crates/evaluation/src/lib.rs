//! What an evaluation says: samples of a run in; answers, a report, tables and figures out.
//!
//! # Where it sits
//!
//! Floor 4, beside the roles, of which it knows nothing: `sipcloud evaluate` plays the experiment of
//! the paper's §4, fills a [`Run`] and writes down what this crate makes of it.
//!
//! # Invariants
//!
//! - Pure: no clock, no file, no randomness. The same run gives the same bytes.
//! - Every figure in the report and every line in the drawings comes from the samples of the run.
//! - Times of a run are seconds of the wall since its first call; what is shown is the experiment's
//!   own time, which [`Run::time_scale`] makes of them.
//!
//! # Reading order
//!
//! `record` (what was seen) → `findings` over `evenness`, `statistics` (what it means) → `report` and
//! `table` (as text) → `figures` over `series` and `chart` (as drawings) → `raster` (as PNG).

mod chart;
mod evenness;
mod figures;
mod findings;
mod raster;
mod record;
mod report;
mod series;
mod statistics;
mod table;

pub use figures::{figure_5, figure_6};
pub use findings::{CapacityStep, Change, CpuLine, Departure, Findings};
pub use raster::{RasterError, png};
pub use record::{Calls, Decision, Failure, Moment, Part, Policy, Run, Sample};
pub use report::report;
pub use table::{calls_csv, failed_csv, samples_csv};
