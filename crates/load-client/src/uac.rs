//! The callers: who calls when, which answer is whose, and what the run came to.

mod call;
mod flow;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::time::{Duration, Instant};

use sip_message::{Message, Method, Reply, StatusCode, write_reply};
use sip_net::clock;
use sip_transaction::{ClientId, ClientVerdict, Event, Layer, Limits, Origin, Reliability, Timing};

use crate::destinations::Destinations;
use crate::endpoint::{Agent, Endpoint, Outbox, Way};
use crate::latency::Latency;
use crate::mix::CallKind;
use crate::plan::{Plan, Retransmission, Stop};
use crate::report::{Failure, GapMeter, KindCounts, OwnLosses, Report, Sample};
use call::{Asked, Call};

/// A call that starts later than this after its time is counted.
const LATE: Duration = Duration::from_millis(20);

/// Calls started in one turn; the others start in the next, after the sockets were read.
const STARTS_PER_TURN: usize = 32;

/// Client transactions at most: half a million calls within 64·T1.
const TRANSACTIONS_MAX: usize = 2_000_000;

/// Makes the calls of `plan` and tells what became of them. Returns when the last call has ended,
/// or some time (`Plan::wind_down`) after `stop`.
///
/// # Errors
///
/// A plan without targets, local addresses, users or callees; an address that cannot be bound; a
/// service whose name leads nowhere.
pub fn run_uac(plan: &Plan, stop: &Stop, mut on_sample: impl FnMut(&Sample)) -> io::Result<Report> {
    for (what, is_empty) in [
        ("target", plan.targets.is_empty() && plan.service.is_none()),
        ("local address", plan.local.is_empty()),
        ("user", plan.users.is_empty()),
        (
            "callee",
            plan.callees.is_empty() && plan.mix.kinds().iter().any(|it| it.callees.is_empty()),
        ),
    ] {
        if is_empty {
            let message = format!("the plan names no {what}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    let destinations = match &plan.service {
        Some(service) => Destinations::named(service, plan.transport)?,
        None => Destinations::fixed(&plan.targets, plan.transport),
    };
    let mut endpoint = Endpoint::bind(&plan.local, destinations.transport)?;
    let mut uac = Uac::new(plan, destinations, stop, &mut on_sample, clock::now());
    endpoint.run(&mut uac)?;
    let mut report = uac.into_report(clock::now(), endpoint.losses());
    report.connections = endpoint.connections();
    Ok(report)
}

/// All callers of one run.
struct Uac<'a> {
    plan: &'a Plan,
    destinations: Destinations,
    stop: &'a Stop,
    on_sample: &'a mut dyn FnMut(&Sample),
    layer: Layer<Way>,
    reliability: Reliability,
    /// Makes the identifiers of this run differ from those of others.
    run: String,
    calls: HashMap<u64, Call>,
    /// Whose request each client transaction is.
    owners: HashMap<ClientId, (u64, Asked)>,
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    began: Instant,
    next_call: u64,
    /// Start of the next call, if there is one.
    next_start: Option<Instant>,
    /// When the last call was started, once no more are.
    starts_ended: Option<Instant>,
    stopped_at: Option<Instant>,
    gaps: GapMeter,
    report: Report,
    second: Second,
}

/// What happened since the last sample.
struct Second {
    number: u32,
    started: u64,
    succeeded: u64,
    failed: u64,
    answer: Latency,
}

impl<'a> Uac<'a> {
    fn new(
        plan: &'a Plan,
        destinations: Destinations,
        stop: &'a Stop,
        on_sample: &'a mut dyn FnMut(&Sample),
        began: Instant,
    ) -> Self {
        // Over a "reliable" transport the layer repeats nothing, and otherwise does its work.
        let repeats = plan.retransmission == Retransmission::On;
        let reliability = if repeats && !destinations.transport.is_reliable() {
            Reliability::Unreliable
        } else {
            Reliability::Reliable
        };
        let kind_counts =
            |kind: &CallKind| KindCounts { kind: kind.to_string(), ..KindCounts::default() };
        let kinds = plan.mix.kinds().iter().map(kind_counts).collect();
        let limits = Limits { transactions_max: TRANSACTIONS_MAX };
        let run = format!("{:x}-{:x}", clock::unix_millis(), std::process::id());
        let mut uac = Self {
            plan,
            destinations,
            stop,
            on_sample,
            // Nobody attacks a load client through its own hash table.
            layer: Layer::new(plan.timing, limits, [0; 16]),
            reliability,
            run,
            calls: HashMap::new(),
            owners: HashMap::new(),
            alarms: BinaryHeap::new(),
            began,
            next_call: 0,
            next_start: None,
            starts_ended: None,
            stopped_at: None,
            gaps: GapMeter::default(),
            report: Report { kinds, ..Report::default() },
            second: Second {
                number: 1,
                started: 0,
                succeeded: 0,
                failed: 0,
                answer: Latency::default(),
            },
        };
        uac.plan_next_start();
        uac
    }

    fn timing(&self) -> Timing {
        self.plan.timing
    }

    fn plan_next_start(&mut self) {
        let is_last = self.plan.calls_max.is_some_and(|max| self.next_call >= max);
        let at = if is_last { None } else { self.plan.schedule.time_of(self.next_call) };
        self.next_start = at.map(|at| self.began + at);
    }

    /// Starts what is due.
    fn start_calls(&mut self, now: Instant, out: &mut Outbox) {
        for _ in 0..STARTS_PER_TURN {
            let Some(due) = self.next_start.filter(|due| *due <= now) else {
                return;
            };
            let lateness = now.saturating_duration_since(due);
            if lateness > LATE {
                self.report.own.late_starts += 1;
                self.report.own.lateness_max = self.report.own.lateness_max.max(lateness);
            }
            let number = self.next_call;
            self.next_call += 1;
            self.report.started += 1;
            self.second.started += 1;
            self.start_call(now, number, out);
            self.plan_next_start();
            if self.next_start.is_none() {
                self.starts_ended = Some(now);
            }
        }
    }

    /// A call has ended, one way or the other.
    fn end_call(&mut self, now: Instant, number: u64) {
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        // A failed call was counted when it failed.
        if call.has_failed {
            return;
        }
        self.report.succeeded += 1;
        self.second.succeeded += 1;
        self.gaps.mark(now, self.starts_ended);
        let healed = u64::from(call.was_repeated);
        self.report.healed += healed;
        if let Some(kind) = self.report.kinds.get_mut(call.kind) {
            kind.succeeded += 1;
            kind.healed += healed;
        }
    }

    /// The flow of a call was left. It may still have something to tidy up with its peer.
    fn fail(&mut self, now: Instant, number: u64, expected: &'static str, came: String) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut call.has_failed, true) {
            return;
        }
        self.report.failed += 1;
        self.second.failed += 1;
        self.report.count_cause(expected, &came);
        if let Some(kind) = self.report.kinds.get_mut(call.kind) {
            kind.failed += 1;
        }
        if self.report.failures.len() < self.plan.failures_kept_max {
            self.report.failures.push(Failure {
                unix_ms: clock::unix_millis(),
                at: now.saturating_duration_since(self.began),
                call_id: call.call_id.clone(),
                expected,
                came,
            });
        }
    }

    fn sample(&mut self, now: Instant, own: OwnLosses) {
        let end = self.began + Duration::from_secs(u64::from(self.second.number));
        if now < end {
            return;
        }
        let at = now.saturating_duration_since(self.began);
        let next = u32::try_from(at.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let second = std::mem::replace(
            &mut self.second,
            Second {
                number: next,
                started: 0,
                succeeded: 0,
                failed: 0,
                answer: Latency::default(),
            },
        );
        let Report { started, succeeded, failed, healed, .. } = self.report;
        let sample = Sample {
            at,
            rate: self.plan.schedule.rate_at(at),
            started,
            succeeded,
            failed,
            healed,
            in_flight: self.calls.len() as u64,
            started_now: second.started,
            succeeded_now: second.succeeded,
            failed_now: second.failed,
            answer_now: second.answer,
            own: self.with_lateness(own),
        };
        (self.on_sample)(&sample);
    }

    fn with_lateness(&self, own: OwnLosses) -> OwnLosses {
        let OwnLosses { late_starts, lateness_max, .. } = self.report.own;
        OwnLosses { late_starts, lateness_max, ..own }
    }

    fn into_report(mut self, now: Instant, own: OwnLosses) -> Report {
        self.report.own = self.with_lateness(own);
        self.gaps.mark(now, self.starts_ended);
        self.report.longest_gap = self.gaps.longest();
        self.report.duration = now.saturating_duration_since(self.began);
        self.report.unfinished = self.calls.values().filter(|call| !call.has_failed).count() as u64;
        self.report
    }

    fn handle_events(&mut self, now: Instant, out: &mut Outbox) {
        // Answering an event may cause another.
        loop {
            let events = out.take_events();
            if events.is_empty() {
                return;
            }
            for event in events {
                match event {
                    Event::ClientTimedOut(id) | Event::ClientTransportFailed(id) => {
                        if let Some((number, asked)) = self.owners.get(&id).copied() {
                            self.unanswered(now, number, asked, id, out);
                        }
                    }
                    Event::ClientTerminated(id) => {
                        self.owners.remove(&id);
                    }
                    Event::ServerTimedOut(_)
                    | Event::ServerTransportFailed(_)
                    | Event::ServerTerminated(_) => {}
                }
            }
        }
    }

    /// The call that a request of the callee belongs to.
    fn call_of(&self, request: &Message<'_>) -> Option<u64> {
        let call_id = std::str::from_utf8(request.call_id()).ok()?;
        let number = call_id.split('-').next()?.parse().ok()?;
        self.calls.get(&number).filter(|call| call.call_id == call_id)?;
        Some(number)
    }

    /// Callees of a load have nothing to ask; what comes all the same is answered and told.
    fn handle_request(&mut self, now: Instant, way: Way, request: &Message<'_>, out: &mut Outbox) {
        let status = match request.method() {
            None | Some(Method::Ack) => return,
            Some(Method::Bye | Method::Options) => StatusCode::OK,
            Some(_) => StatusCode::NOT_IMPLEMENTED,
        };
        let mut bytes = Vec::new();
        let reply = Reply { status, reason: None, to_tag: None, fields: &[], body: b"" };
        write_reply(request, &reply, &mut bytes);
        out.send(way, bytes.into());
        if let (Some(Method::Bye), Some(number)) = (request.method(), self.call_of(request)) {
            self.fail(now, number, "the callee to stay", "BYE of the callee".to_owned());
            self.end_call(now, number);
        }
    }

    /// Requests that wait for a peer which is gone go elsewhere. Where there is no elsewhere,
    /// repetition goes on over UDP: the peer may come back. What waits for a connection is lost.
    fn peer_gone(&mut self, now: Instant, way: Way, out: &mut Outbox) {
        self.destinations.avoid(now, way.to);
        let is_stream = self.destinations.transport.is_reliable();
        let mut waiting: Vec<ClientId> = Vec::new();
        for (id, (number, asked)) in &self.owners {
            let waits = self.layer.client_destination(*id) == Some(&way);
            if waits && (is_stream || self.other_way(now, *number, *asked).is_some()) {
                waiting.push(*id);
            }
        }
        for id in waiting {
            self.layer.client_transport_error(id, out);
        }
    }
}

impl Agent for Uac<'_> {
    fn handle_message(&mut self, now: Instant, way: Way, message: &Message<'_>, out: &mut Outbox) {
        if message.is_request() {
            return self.handle_request(now, way, message, out);
        }
        let key = self.layer.client_key(message);
        let Some(id) = self.layer.client_find(key) else {
            return;
        };
        self.destinations.answers(way.to);
        let verdict = self.layer.client_handle_response(now, id, message, out);
        if let (ClientVerdict::Deliver, Some((number, asked))) =
            (verdict, self.owners.get(&id).copied())
        {
            self.answered(now, number, asked, message, out);
        }
        self.handle_events(now, out);
    }

    fn handle_transport_error(&mut self, now: Instant, origin: Origin, out: &mut Outbox) {
        if let Origin::Client(id) = origin {
            self.layer.client_transport_error(id, out);
        }
        self.handle_events(now, out);
    }

    fn handle_undelivered(&mut self, now: Instant, message: &Message<'_>, out: &mut Outbox) {
        if let Some(id) = self.layer.client_find(self.layer.client_key(message)) {
            self.layer.client_transport_error(id, out);
        }
        self.handle_events(now, out);
    }

    fn handle_peer_gone(&mut self, now: Instant, way: Way, out: &mut Outbox) {
        self.peer_gone(now, way, out);
        self.handle_events(now, out);
    }

    fn handle_time(&mut self, now: Instant, own: OwnLosses, out: &mut Outbox) {
        if self.stopped_at.is_none() && self.stop.is_stopped() {
            self.stopped_at = Some(now);
            self.next_start = None;
            self.starts_ended.get_or_insert(now);
        }
        self.destinations.handle_time(now);
        out.begin_repeats();
        self.layer.handle_timeout(now, out);
        for id in out.end_repeats() {
            let call = self.owners.get(&id).and_then(|(number, _)| self.calls.get_mut(number));
            if let Some(call) = call {
                call.was_repeated = true;
            }
        }
        self.handle_events(now, out);
        while let Some(Reverse((at, number))) = self.alarms.peek().copied() {
            if at > now {
                break;
            }
            self.alarms.pop();
            self.alarm(now, at, number, out);
        }
        self.handle_events(now, out);
        if self.stopped_at.is_none() {
            self.start_calls(now, out);
        }
        self.sample(now, own);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
        [self.next_start, alarm, self.layer.poll_timeout()].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        if self.calls.is_empty() {
            return self.next_start.is_none();
        }
        self.stopped_at
            .is_some_and(|at| clock::now().saturating_duration_since(at) >= self.plan.wind_down)
    }
}
