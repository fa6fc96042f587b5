//! The flags of `sipcloud load`.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use load_client::{Credentials, Schedule};

use super::{DataDirectory, parse_duration};

#[derive(Debug, Subcommand)]
pub(crate) enum Load {
    /// Callers: start calls when the schedule says so, and report what became of each.
    ///
    /// The exit code is 1 if a call failed.
    Uac(Uac),
    /// Callees: ring, answer and say goodbye until Ctrl-C; register first with --register.
    Uas(Uas),
    /// The paper's Figure 4 through the cloud of a data directory: its own users, callees and
    /// callers, a load that climbs and falls, and a live line per tier.
    Demo(Demo),
}

#[derive(Debug, Args)]
pub(crate) struct Uac {
    /// Where calls go, in turn; the next one is tried where one does not answer.
    #[arg(long = "target", value_name = "IP:PORT", required = true)]
    pub targets: Vec<SocketAddr>,
    /// Addresses to send from, in turn.
    #[arg(long = "local", value_name = "IP:PORT", default_value = "127.0.31.1:0")]
    pub local: Vec<SocketAddr>,
    /// Domain of callers and callees.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: String,
    /// Callers with their passwords, in turn.
    #[arg(long = "user", value_name = "USER:PASSWORD", required = true)]
    pub users: Vec<UserAndPassword>,
    /// Callees, in turn.
    #[arg(long = "callee", value_name = "USER", required = true)]
    pub callees: Vec<String>,
    /// Rates and times: 20@30s,20..150@1m is 20 calls per second for 30 s, then a climb to 150
    /// within a minute.
    #[arg(long, value_name = "RATE@TIME,…", default_value = "10@10s")]
    pub schedule: Schedule,
    /// End after so many calls.
    #[arg(long, value_name = "NUMBER")]
    pub calls: Option<u64>,
    /// How long a call lasts.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub talk: Option<Duration>,
    /// Cancel every call after it has rung so long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "talk")]
    pub cancel_after: Option<Duration>,
    /// Let requests pass that nobody challenges (a call then counts as good without a password).
    #[arg(long)]
    pub challenge_optional: bool,
    /// Send nothing twice: every lost message is a failed call.
    #[arg(long)]
    pub no_retransmission: bool,
    /// T1: half a second, less in a closed network; T2, T4 and all timers follow it.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub t1: Option<Duration>,
    /// Live lines and the report as JSON objects.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Uas {
    /// Addresses to listen on.
    #[arg(long = "local", value_name = "IP:PORT", default_value = "127.0.30.1:5060")]
    pub local: Vec<SocketAddr>,
    /// Domain of the callees.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: String,
    /// Callees with their passwords.
    #[arg(long = "user", value_name = "USER:PASSWORD")]
    pub users: Vec<UserAndPassword>,
    /// Register the users here.
    #[arg(long = "register", value_name = "IP:PORT", requires = "users")]
    pub registrars: Vec<SocketAddr>,
    /// How long to ring before answering.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub ring: Option<Duration>,
    /// Refuse every call with this status.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(300..700))]
    pub refuse_with: Option<u16>,
    /// Do not repeat the 200 until its ACK comes.
    #[arg(long)]
    pub no_retransmission: bool,
    /// T1: half a second, less in a closed network; T2, T4 and all timers follow it.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub t1: Option<Duration>,
    /// The counters at the end as a JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub data: DataDirectory,
    /// The load; the default climbs and falls within about three minutes.
    #[arg(
        long,
        value_name = "RATE@TIME,…",
        default_value = "20@10s,20..150@40s,150@20s,150..20@30s,20@80s"
    )]
    pub schedule: Schedule,
    /// Live lines and the report as JSON objects.
    #[arg(long)]
    pub json: bool,
}

/// `USER:PASSWORD`; never shown.
#[derive(Clone, Debug)]
pub(crate) struct UserAndPassword(pub Credentials);

impl FromStr for UserAndPassword {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                let (user, password) = (user.to_owned(), password.to_owned());
                Ok(Self(Credentials { user, password }))
            }
            _ => Err("expected a user and a password, as in alice:secret".to_owned()),
        }
    }
}
