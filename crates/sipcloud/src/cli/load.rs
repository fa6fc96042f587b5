//! The flags of `sipcloud load`.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use load_client::{Credentials, Mix, Schedule, Service, Transport};

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
    #[command(flatten)]
    pub to: Targets,
    /// Addresses to send from, in turn.
    #[arg(long = "local", value_name = "IP:PORT", default_value = "127.0.31.1:0")]
    pub local: Vec<SocketAddr>,
    /// Domain of callers and callees.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: String,
    /// Callers with their passwords, in turn.
    #[arg(long = "user", value_name = "USER:PASSWORD", required = true)]
    pub users: Vec<UserAndPassword>,
    /// Callees, in turn; --mix may name others for each kind of call.
    #[arg(long = "callee", value_name = "USER", required_unless_present = "mix")]
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
    /// Several kinds of calls with their shares in percent and, if they differ, their callees:
    /// talk=30@ann,talk/20s=50,cancel/2s=20@bob+carol. The time of a talk begins with its answer, that
    /// of a cancel with the ringing.
    #[arg(long, value_name = "KIND[/TIME]=PERCENT[@CALLEE+…],…", conflicts_with_all = ["talk", "cancel_after"])]
    pub mix: Option<Mix>,
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
    /// Register the users here, in turn; at another one when it is dead. Or a name (RFC 3263).
    #[arg(long = "register", value_name = "IP:PORT|NAME", requires = "users")]
    pub registrars: Vec<Place>,
    /// Name servers for a name; those of the system if there is none.
    #[arg(long = "dns", value_name = "IP:PORT")]
    pub name_servers: Vec<SocketAddr>,
    /// Without it what the name's NAPTR records prefer, and UDP for addresses.
    #[arg(long, value_enum)]
    pub transport: Option<TransportChoice>,
    /// How long to ring before answering.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub ring: Option<Duration>,
    /// How long one of the users rings instead.
    #[arg(long = "ring-of", value_name = "USER=DURATION", value_parser = parse_ring)]
    pub rings: Vec<(String, Duration)>,
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

/// Whom a load is for.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Where calls go, in turn; the next one is tried where one is dead. Or a name, whose NAPTR, SRV
    /// and address records lead there (RFC 3263).
    #[arg(long = "target", value_name = "IP:PORT|NAME", required = true)]
    pub targets: Vec<Place>,
    /// Name servers for a name; those of the system if there is none.
    #[arg(long = "dns", value_name = "IP:PORT")]
    pub name_servers: Vec<SocketAddr>,
    /// Without it what the name's NAPTR records prefer, and UDP for addresses.
    #[arg(long, value_enum)]
    pub transport: Option<TransportChoice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportChoice {
    Udp,
    Tcp,
}

impl TransportChoice {
    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Tcp => Transport::Tcp,
        }
    }
}

/// An address, or a name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Address(SocketAddr),
    Name { name: String, port: Option<u16> },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let wrong = || format!("{text:?} is neither IP:PORT nor a name");
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        // An address without its port is no name.
        let is_number = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if !is_name || is_number {
            return Err(wrong());
        }
        Ok(Self::Name { name: name.to_owned(), port })
    }
}

/// Addresses, or the one name.
pub(crate) fn split_places(
    places: &[Place],
    name_servers: &[SocketAddr],
) -> Result<(Vec<SocketAddr>, Option<Service>), String> {
    if let [Place::Name { name, port }] = places {
        let name_servers = name_servers.to_vec();
        return Ok((Vec::new(), Some(Service { name: name.clone(), port: *port, name_servers })));
    }
    let address = |place: &Place| match place {
        Place::Address(address) => Ok(*address),
        Place::Name { name, .. } => {
            Err(format!("{name} is a name, and a name leads to all its addresses: give it alone"))
        }
    };
    Ok((places.iter().map(address).collect::<Result<_, _>>()?, None))
}

fn parse_ring(text: &str) -> Result<(String, Duration), String> {
    match text.split_once('=') {
        Some((user, time)) if !user.is_empty() => Ok((user.to_owned(), parse_duration(time)?)),
        _ => Err("expected a user and a duration, as in bob=5s".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_addresses_or_one_name() {
        let place = |text: &str| text.parse::<Place>();
        let named = place("sipcloud.test").expect("a name");
        assert_eq!(named, Place::Name { name: "sipcloud.test".to_owned(), port: None });
        let address = place("127.0.10.1:5060").expect("an address");
        for wrong in ["", "127.0.10.1", "a b", "sipcloud.test:x", "[::1]"] {
            assert!(place(wrong).is_err(), "{wrong:?}");
        }
        let servers = ["127.0.10.250:5300".parse().expect("an address")];
        let (addresses, service) =
            split_places(std::slice::from_ref(&named), &servers).expect("a name alone");
        assert!(addresses.is_empty() && service.is_some_and(|it| it.name_servers == servers));
        let error = split_places(&[named, address], &[]).expect_err("a name among addresses");
        assert!(error.contains("alone"), "{error}");
    }
}
