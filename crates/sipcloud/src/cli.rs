//! The subcommands, their flags and their help: the interface that scripts lean on.

mod drill;
mod evaluate;
mod load;

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use node_api::wire::StoreKind;
use store::{Aor, CredentialKey};
use store_drivers::admin::{parse_aor, parse_user};

pub(crate) use drill::{Drill, DrillName};
pub(crate) use evaluate::{Evaluate, Generator, LastingStore, PolicyFlag};
pub(crate) use load::{Demo, Load, Uac, Uas, split_places};

/// An elastic SIP edge: balancers, proxies and a manager that keeps their number to the load.
#[derive(Debug, Parser)]
#[command(name = "sipcloud", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole cloud on this machine until Ctrl-C.
    ///
    /// Starts the manager, which starts balancers and proxies, each a process on a loopback
    /// address of its own, and prints one line `ready sip:IP:PORT …` when the first call can be
    /// made. Ctrl-C ends everything; users and registrations stay in the data directory.
    Up(Up),
    /// Run one balancer from its node file (the manager does this).
    Balancer(Node),
    /// Run one proxy from its node file (the manager does this).
    Proxy(Node),
    /// Run a manager of a data directory (`up` does this). A second one stands by.
    Manager(Manager),
    /// Show the fleet: load, capacity and state of every instance.
    Status(Status),
    /// Show the journal: every decision and act of the manager, with its reason.
    Events(Events),
    /// Take one instance out of service; it ends when its last transaction has.
    ///
    /// The manager puts another one in its place if the tier needs it.
    Drain(Drain),
    /// Give one proxy another share of the calls: 50 is half of an ordinary one's, 200 twice.
    ///
    /// The weight belongs to the slot: whatever machine has it, until another weight is given, also
    /// over a change of managers. 100 is the ordinary one. It counts as capacity too, so that the tier
    /// grows sooner if its proxies are lighter.
    Weight(Weight),
    /// Play a load and faults on virtual time: what the manager would do, and why.
    ///
    /// The manager's own controller runs against a cloud in memory: two days take a second. Exit
    /// code 1 means that a promise was broken, such as a shrinking on missing data.
    Simulate(Simulate),
    /// Put every instance onto a new binary, one after the other, while calls go on.
    ///
    /// The managers first, then the proxies, then the balancers. Each is replaced before it leaves.
    /// Stops at the first that does not come up; the same command again goes on where it stopped.
    Upgrade(Upgrade),
    /// Check a configuration file and say what is wrong with it.
    CheckConfig(CheckConfig),
    /// Add, change, list and remove users.
    #[command(subcommand)]
    User(User),
    /// List, add and remove registrations (bindings of addresses to contacts).
    #[command(subcommand)]
    Registration(Registration),
    /// Make, check or copy the database of users and registrations.
    #[command(subcommand)]
    Store(Store),
    /// Make calls: callers, callees, or both as the demonstration does.
    #[command(subcommand)]
    Load(Box<Load>),
    /// Play changes and faults under load, and say whether a call was lost.
    ///
    /// Each drill has a cloud of its own on this machine, or plays with the one of --data: a
    /// staging fleet. The exit code is 0 if all passed; those that cannot be played here are
    /// skipped, and say why.
    Drill(Box<Drill>),
    /// Repeat the paper's evaluation (its §4) on this machine, and report on it with figures.
    ///
    /// Runs a cloud of its own with one balancer and one to four proxies under the calls of Figure 4:
    /// 140 calls per second, 10 more every 90 s up to 760, then 60 less every 90 s; almost two hours,
    /// or a tenth of it with --time-scale 10. Ctrl-C ends it cleanly and still reports. The exit code
    /// is 1 if a call failed.
    Evaluate(Box<Evaluate>),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DataDirectory {
    /// Directory with everything that outlives a run: users, registrations, keys, journal.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Configuration file (TOML); `config/sipcloud.example.toml` shows every key.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataDirectory,
    /// One balancer listens on this address of the machine, so that phones elsewhere can register.
    ///
    /// Without it the balancers take 127.0.10.1, 127.0.10.2 and so on, which only this machine
    /// can reach.
    #[arg(long, value_name = "IP")]
    pub listen: Option<IpAddr>,
    /// How many balancers at least, and at most.
    #[arg(long, value_name = "MIN[..MAX]")]
    pub balancers: Option<InstanceRange>,
    /// How many proxies at least, and at most.
    #[arg(long, value_name = "MIN[..MAX]")]
    pub proxies: Option<InstanceRange>,
    /// Calls per second that one proxy is trusted with.
    #[arg(long, value_name = "CPS", value_parser = clap::value_parser!(u32).range(1..))]
    pub capacity: Option<u32>,
    /// Time between two rounds of the manager, for example 3s or 500ms.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub poll: Option<Duration>,
    /// Where users and registrations are kept; `memory` is gone when the cloud stops.
    #[arg(long, value_enum)]
    pub store: Option<StoreChoice>,
    /// How many managers: one leads, the others stand by and take over if it dies.
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=5))]
    pub managers: u8,
    /// One JSON object per line in place of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Node {
    /// The node file that the manager wrote.
    #[arg(long, value_name = "FILE")]
    pub node: PathBuf,
    /// Wait so long before anything else, as a machine does that has to boot.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub boot_time: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Manager {
    #[command(flatten)]
    pub data: DataDirectory,
    /// Configuration file; without it, what `up` left in the data directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub data: DataDirectory,
    /// Print the fleet as one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub data: DataDirectory,
    /// Only events with a number above this one.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
    /// Go on and print new events as they come.
    #[arg(long)]
    pub follow: bool,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The instance, for example proxy-2.
    pub instance: fleet::InstanceId,
    #[command(flatten)]
    pub data: DataDirectory,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Weight {
    /// The proxy, for example proxy-2.
    pub instance: fleet::InstanceId,
    /// Percent of an ordinary share, from 1 to 1000.
    #[arg(value_name = "PERCENT",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(fleet::WEIGHT_MAX)))]
    pub weight: u16,
    #[command(flatten)]
    pub data: DataDirectory,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A scenario file (TOML), or the name of a scenario that is built in.
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["all", "list", "random"])]
    pub scenario: Option<String>,
    /// Play every scenario that is built in.
    #[arg(long, conflicts_with_all = ["scenario", "list", "random"])]
    pub all: bool,
    /// List the scenarios that are built in.
    #[arg(long, conflicts_with_all = ["scenario", "random"])]
    pub list: bool,
    /// Play random loads with random faults, and look for broken promises.
    #[arg(long, conflicts_with = "scenario")]
    pub random: bool,
    /// Simulated hours of a random run.
    #[arg(long, value_name = "HOURS", default_value_t = 1_000, requires = "random")]
    pub hours: u64,
    /// Seed of a random run; the same seed, the same run.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "random")]
    pub seed: u64,
    /// Take policy and limits from this configuration, not from the scenario.
    #[arg(long, value_name = "FILE", conflicts_with = "random")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    pub data: DataDirectory,
    /// Which instances.
    #[arg(long, value_enum, default_value = "all")]
    pub tier: TierChoice,
    /// The binary to run from now on; without it the one that runs this command.
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Replace instances that run this binary already, too: a rolling restart. What holds from the
    /// start of a node, such as its keys or its configuration, then holds everywhere.
    #[arg(long)]
    pub anew: bool,
    /// How long a new instance may take to come into service, for example 2m.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub patience: Duration,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierChoice {
    Proxies,
    Balancers,
    All,
}

#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    /// The file to check.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user; the password comes from a prompt, or from the first line of standard input.
    Add(UserName),
    /// Change a user's password.
    Passwd(UserName),
    /// List users.
    List {
        #[command(flatten)]
        data: DataDirectory,
        /// Only users of this realm.
        #[arg(long)]
        realm: Option<String>,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Remove a user; registrations stay until they expire.
    Remove(UserName),
    /// Add many users, or replace their passwords, from a file with lines USER@REALM,PASSWORD.
    ///
    /// Everything behind the first comma is the password; empty lines and those that begin with #
    /// are passed over. A line that cannot be read is named and nothing is written. The import may
    /// be repeated.
    Import {
        /// The file; - is standard input.
        file: PathBuf,
        #[command(flatten)]
        data: DataDirectory,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UserName {
    /// The user, as in alice@sipcloud.test; the part after the @ is the realm.
    #[arg(value_name = "USER@REALM", value_parser = parse_user)]
    pub user: CredentialKey,
    #[command(flatten)]
    pub data: DataDirectory,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Registration {
    /// List registrations, expired ones excluded.
    List {
        /// Only those of this address-of-record, as in bob@sipcloud.test.
        #[arg(value_name = "USER@DOMAIN", value_parser = parse_aor)]
        aor: Option<Aor>,
        #[command(flatten)]
        data: DataDirectory,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Add a contact that does not register by itself, such as a trunk.
    Add(RegistrationAdd),
    /// Add many such contacts from a file with lines USER@DOMAIN,CONTACT.
    ///
    /// Empty lines and those that begin with # are passed over. A line that cannot be read is named
    /// and nothing is written. The import may be repeated.
    Import {
        /// The file; - is standard input.
        file: PathBuf,
        /// As for `add`.
        #[arg(long, required = true)]
        direct: bool,
        /// How long they hold, for example 1h; without it for ever.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        data: DataDirectory,
    },
    /// Remove the registrations of an address-of-record, or one contact of it.
    Remove {
        /// The address-of-record, as in bob@sipcloud.test.
        #[arg(value_name = "USER@DOMAIN", value_parser = parse_aor)]
        aor: Aor,
        /// Only this contact.
        contact: Option<String>,
        #[command(flatten)]
        data: DataDirectory,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RegistrationAdd {
    /// The address-of-record, as in bob@sipcloud.test.
    #[arg(value_name = "USER@DOMAIN", value_parser = parse_aor)]
    pub aor: Aor,
    /// Where calls go, as in sip:bob@192.0.2.7:5060.
    pub contact: String,
    /// Reached from the proxies themselves and not through a balancer.
    ///
    /// Registrations that are added by hand have no connection at a balancer, so this is needed;
    /// it is a flag so that the command says what it does.
    #[arg(long, required = true)]
    pub direct: bool,
    /// How long it holds, for example 1h; without it for ever.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub expires: Option<Duration>,
    #[command(flatten)]
    pub data: DataDirectory,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Make the keyspace and its tables, or what of them is missing; safe to repeat, also while a
    /// cloud runs. Afterwards the other commands on this data directory use this store.
    Init(StorePlace),
    /// Say whether the store is there, has the right schema, and which of its nodes are up.
    Check(StorePlace),
    /// Copy users and registrations from one kind of store into another and count them there.
    ///
    /// Both may be in use. What is newer in the target stays, so that it can be repeated.
    Migrate {
        #[arg(long, value_enum)]
        from: StoreChoice,
        #[arg(long, value_enum)]
        to: StoreChoice,
        #[command(flatten)]
        place: StorePlace,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StorePlace {
    #[command(flatten)]
    pub data: DataDirectory,
    /// Configuration file; without it, what the data directory was last used with.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    Sqlite,
    Memory,
    Cassandra,
}

impl StoreChoice {
    pub(crate) fn kind(self) -> StoreKind {
        match self {
            Self::Sqlite => StoreKind::Sqlite,
            Self::Memory => StoreKind::Memory,
            Self::Cassandra => StoreKind::Cassandra,
        }
    }
}

/// `MIN` or `MIN..MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InstanceRange {
    pub min: u32,
    pub max: Option<u32>,
}

impl FromStr for InstanceRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| format!("{text:?} is no number of instances"))
        };
        let (min, max) = match text.split_once("..") {
            Some((min, max)) => (number(min)?, Some(number(max)?)),
            None => (number(text)?, None),
        };
        match max {
            _ if min == 0 => Err("at least one instance is needed".to_owned()),
            Some(max) if max < min => Err(format!("the maximum {max} is below the minimum {min}")),
            _ => Ok(Self { min, max }),
        }
    }
}

/// A number with one of the units ms, s, m, h.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write for example 500ms, 3s, 2m or 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: f64 = digits.parse().map_err(|_| wrong())?;
    let unit_s = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    let duration = Duration::try_from_secs_f64(amount * unit_s).map_err(|_| wrong())?;
    if duration.is_zero() { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges_read_as_minimum_and_maximum() {
        let range = |text: &str| text.parse::<InstanceRange>();
        assert_eq!(range("2"), Ok(InstanceRange { min: 2, max: None }));
        assert_eq!(range("1..4"), Ok(InstanceRange { min: 1, max: Some(4) }));
        for wrong in ["", "0", "3..2", "1..", "..2", "a", "-1", "0..3"] {
            assert!(range(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_need_a_known_unit() {
        let table = [("500ms", 500), ("3s", 3_000), ("3", 3_000), ("1.5s", 1_500), ("2m", 120_000)];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "s", "0s", "-1s", "3d", "3 s", "infs", "nans"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
