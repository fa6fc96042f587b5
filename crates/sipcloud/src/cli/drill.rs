//! The flags of `sipcloud drill`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::load::TransportChoice;
use super::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// What to play, in this order; `--list` tells what each is.
    #[arg(value_name = "NAME", value_enum)]
    pub names: Vec<DrillName>,
    /// Play all of them.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Say what there is to play.
    #[arg(long)]
    pub list: bool,
    /// Calls per second at the top of the load.
    #[arg(long, value_name = "CPS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// How long the top of the load is held, seconds; before and after it there is more.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// The longest ringing; others ring for a quarter, a half or a twentieth of it, and talk as long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "20s")]
    pub ring: Duration,
    /// Callers and callees over TCP or UDP.
    #[arg(long, value_enum, default_value_t = TransportChoice::Udp)]
    pub transport: TransportChoice,
    /// Callers send nothing twice: what was inside a process that is killed is then lost, and counted.
    #[arg(long)]
    pub no_retransmission: bool,
    /// Play with the cloud that runs in this directory, by users that are made and removed; without
    /// it each drill has a cloud of its own.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "network", "keep"])]
    pub data: Option<PathBuf>,
    /// What a cloud of its own is like, for example its store; the drill sets numbers of instances,
    /// capacities and the poll interval.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// First two octets of the addresses of a cloud of its own; without it a free one is looked for.
    #[arg(long, value_name = "A.B")]
    pub network: Option<String>,
    /// Keep the data directories of the clouds here, with their logs and journals.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// One JSON object per line in place of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrillName {
    ScaleOut,
    ScaleIn,
    OneFourOne,
    Upgrade,
    KillProxy,
    KillBalancer,
    KillManager,
    KillStoreNode,
    CutMetrics,
    SlowStore,
    DrainWithNoise,
}

impl DrillName {
    /// As it is given on the command line.
    pub(crate) fn text(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
