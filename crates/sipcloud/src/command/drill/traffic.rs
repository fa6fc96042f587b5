//! The calls of a drill: users of its own, callees that ring for long and short, and callers whose
//! calls are short, talk, or are cancelled early and late.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet::Tier;
use load_client::{
    CallKind, Mix, Mode, Plan, Registration, Report, Retransmission, Sample, Schedule, Service,
    Stop, Uas, UasCounters, UasOptions,
};

use super::stage::{Stage, serving};
use crate::cli;
use crate::command::load::guests::Guests;
use crate::exit::Exit;

const CALLER: &str = "drill-caller";
/// Registers in the middle of a drill, if it is asked to.
pub(super) const LATECOMER: &str = "drill-late";
/// Callees, and of how many parts of the longest ringing each one's is.
const CALLEES: [(&str, u32); 4] =
    [("drill-twentieth", 20), ("drill-quarter", 4), ("drill-half", 2), ("drill-whole", 1)];
/// The shortest that is granted, as phones behind a translator ask for: a balancer that leaves waits
/// until its phones have come to another one.
const CALLEES_EXPIRE: Duration = Duration::from_secs(60);
/// How long the callees may take to register.
const REGISTER_PATIENCE: Duration = Duration::from_secs(20);
/// On top of the longest call, for its repetitions.
const WIND_DOWN_MARGIN: Duration = Duration::from_secs(40);
const FAILURES_KEPT: usize = 50;

/// How clients find the balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the addresses that serve at the beginning.
    Addresses,
    /// By the service's name, again and again, where the cloud has its own DNS server.
    Name,
}

/// Running callees and callers.
pub(super) struct Traffic {
    callees: Uas,
    callers: JoinHandle<std::io::Result<Report>>,
    latest: Arc<Mutex<Option<Sample>>>,
    stop: Stop,
    balancers: Vec<SocketAddr>,
    /// The last to go: its users are removed from the store.
    guests: Guests,
}

impl Traffic {
    /// Registers the callees, then starts the callers.
    pub(super) fn begin(
        stage: &Stage,
        way: Way,
        schedule: Schedule,
        arguments: &cli::Drill,
    ) -> Result<Self> {
        let fleet = stage.fleet().context("the manager does not answer")?;
        let balancers: Vec<SocketAddr> =
            serving(&fleet, Tier::LoadBalancer).iter().map(|one| one.sip).collect();
        if balancers.is_empty() {
            return Err(Exit::Unavailable.because("no balancer is in service"));
        }
        let names = CALLEES.iter().map(|(name, _)| *name).chain([CALLER, LATECOMER]);
        let guests = Guests::invite(&stage.data, names)?;
        let service = service_of(stage).filter(|_| way == Way::Name);
        let transport = Some(arguments.transport.transport());
        let rings = CALLEES.iter().map(|(name, part)| ((*name).to_owned(), arguments.ring / *part));
        let callees = Uas::start(UasOptions {
            transport,
            users: CALLEES.iter().map(|(name, _)| guests.credentials(name)).collect(),
            registration: Some(Registration {
                service: service.clone(),
                expires: CALLEES_EXPIRE,
                ..Registration::at(balancers.clone())
            }),
            rings: rings.collect(),
            ..UasOptions::direct(
                CALLEES
                    .iter()
                    .map(|_| Ok(SocketAddr::new(stage.own_ip(230)?, 0)))
                    .collect::<Result<_>>()?,
                guests.realm(),
            )
        })
        .map_err(cannot_call)?;
        if !callees.wait_registered(CALLEES.len() as u64, REGISTER_PATIENCE) {
            return Err(Exit::Unavailable.because("the callees could not register"));
        }
        let plan = Plan {
            service,
            transport,
            users: vec![guests.credentials(CALLER)],
            mix: mix(arguments.ring),
            retransmission: if arguments.no_retransmission {
                Retransmission::Off
            } else {
                Retransmission::On
            },
            answer_within: arguments.ring * 2 + Duration::from_secs(40),
            wind_down: arguments.ring * 2 + WIND_DOWN_MARGIN,
            failures_kept_max: FAILURES_KEPT,
            ..Plan::figure_4(
                balancers.clone(),
                vec![SocketAddr::new(stage.own_ip(231)?, 0)],
                guests.realm(),
                schedule,
            )
        };
        let (latest, stop) = (Arc::new(Mutex::new(None)), Stop::new());
        let (board, told) = (Arc::clone(&latest), stop.clone());
        let callers = std::thread::Builder::new().name("callers".to_owned()).spawn(move || {
            load_client::run_uac(&plan, &told, |sample| {
                *board.lock().unwrap_or_else(PoisonError::into_inner) = Some(sample.clone());
            })
        })?;
        Ok(Self { callees, callers, latest, stop, balancers, guests })
    }

    /// What the callers have come to so far.
    pub(super) fn latest(&self) -> Option<Sample> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No new calls; those that live may end.
    pub(super) fn stop(&self) {
        self.stop.stop();
    }

    pub(super) fn is_over(&self) -> bool {
        self.callers.is_finished()
    }

    /// Starts one more callee, which registers now.
    pub(super) fn latecomer(&self, stage: &Stage) -> Result<Uas> {
        let local = vec![SocketAddr::new(stage.own_ip(232)?, 0)];
        Uas::start(UasOptions {
            users: vec![self.guests.credentials(LATECOMER)],
            registration: Some(Registration::at(self.balancers.clone())),
            ..UasOptions::direct(local, self.guests.realm())
        })
        .map_err(cannot_call)
    }

    /// Waits for the last call, and removes the users.
    pub(super) fn end(self) -> Result<(Report, UasCounters)> {
        self.stop.stop();
        let report = match self.callers.join() {
            Ok(report) => report.map_err(cannot_call)?,
            Err(_) => return Err(Exit::Software.because("the callers' thread panicked")),
        };
        Ok((report, self.callees.stop()))
    }
}

/// Of ten calls three are short, five talk, one is cancelled early and one late.
fn mix(ring: Duration) -> Mix {
    let [twentieth, quarter, half, whole] = CALLEES.map(|(name, _)| name.to_owned());
    let kind = |mode, percent, callees| CallKind { mode, percent, callees };
    let cancel = |ringing| Mode::CancelWhileRinging { ringing };
    let all = vec![twentieth.clone(), quarter.clone(), half.clone(), whole.clone()];
    Mix::of([
        kind(Mode::Complete { talk: Duration::ZERO }, 30, vec![twentieth]),
        kind(Mode::Complete { talk: ring }, 50, all),
        kind(cancel(ring / 10), 10, vec![quarter, half, whole.clone()]),
        kind(cancel(ring * 3 / 4), 10, vec![whole]),
    ])
}

/// The cloud's own DNS server, which leads to its balancers.
fn service_of(stage: &Stage) -> Option<Service> {
    let dns = &stage.config.dns;
    let ip = if dns.listen.is_empty() {
        let [first, second] = stage.config.network()?;
        std::net::IpAddr::from([first, second, 10, 250])
    } else {
        dns.listen.parse().ok()?
    };
    let name_servers = vec![SocketAddr::new(ip, dns.port)];
    let name = stage.config.service_name().to_owned();
    dns.enabled.then_some(Service { name, port: None, name_servers })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn cannot_call(error: std::io::Error) -> anyhow::Error {
    Exit::Unavailable.because(format!("no calls can be made: {error}"))
}
