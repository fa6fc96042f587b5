//! The flags of `sipcloud evaluate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use node_api::wire::StoreKind;

use super::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// Folder for report, figures, samples and journal; made if need be.
    #[arg(long, value_name = "DIR", default_value = "evaluation")]
    pub output: PathBuf,
    /// Play it so many times faster: load steps, polls, boot times and T1 alike (1 to 30).
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_scale)]
    pub time_scale: f64,
    /// Another load than the paper's: a file with RATE@TIME entries, as in `140@90s` or
    /// `20..150@1m`, one per line or parted by commas; what follows a # is a comment.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Where users and registrations are kept; for cassandra a node must run (scripts/cassandra).
    #[arg(long, value_enum, default_value_t = LastingStore::Cassandra)]
    pub store: LastingStore,
    /// Node of the Cassandra cluster that is asked first.
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.40.1")]
    pub contact_point: String,
    /// How the manager decides: as the paper's does, or as ours does by default.
    #[arg(long, value_enum, default_value_t = PolicyFlag::Paper)]
    pub policy: PolicyFlag,
    /// Who makes the calls: the project's own load client, or SIPp.
    #[arg(long, value_enum, default_value_t = Generator::Own)]
    pub generator: Generator,
    /// How long a new machine boots; those of the paper took two to three minutes.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub boot_time: Option<Duration>,
    /// Calls per second that one proxy counts for.
    #[arg(
        long,
        value_name = "CPS",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub capacity: u32,
    /// First two octets of the loopback addresses of this cloud.
    #[arg(long, value_name = "127.N", default_value = "127.90")]
    pub network: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyFlag {
    Paper,
    Default,
}

/// A store that is filled before the cloud starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LastingStore {
    Sqlite,
    Cassandra,
}

impl LastingStore {
    pub(crate) fn kind(self) -> StoreKind {
        match self {
            Self::Sqlite => StoreKind::Sqlite,
            Self::Cassandra => StoreKind::Cassandra,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generator {
    Own,
    Sipp,
}

/// Beyond 30 the manager's polls would be closer than it can take.
fn parse_scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| (1.0..=30.0).contains(scale));
    scale.ok_or_else(|| format!("{text:?} is no number from 1 to 30"))
}
