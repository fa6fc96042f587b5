//! Whoever makes the calls: the project's own load client, or SIPp; what became of them so far.

use std::time::Instant;

use anyhow::Result;
use evaluation::{Calls, Failure};
use serde_json::Value;
use sip_net::clock;

use super::child::ChildProcess;
use super::experiment::Experiment;
use super::sipp::Sipp;
use crate::cli::Generator;
use crate::exit::Exit;

pub(super) enum Callers {
    Own(Own),
    Sipp(Box<Sipp>),
}

/// `sipcloud load uac --json` in a process of its own.
pub(super) struct Own {
    child: ChildProcess,
    began_unix_ms: Option<u64>,
    calls: Calls,
    failures: Vec<Failure>,
    has_reported: bool,
    has_exited: bool,
    has_ended: bool,
}

impl Callers {
    pub(super) fn start(experiment: &Experiment) -> Result<Self> {
        if experiment.generator == Generator::Sipp {
            return Ok(Self::Sipp(Box::new(Sipp::start(experiment)?)));
        }
        Ok(Self::Own(Own {
            child: experiment.start_callers()?,
            began_unix_ms: None,
            calls: Calls::default(),
            failures: Vec::new(),
            has_reported: false,
            has_exited: false,
            has_ended: false,
        }))
    }

    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Own(own) => own.child.pid(),
            Self::Sipp(sipp) => sipp.pid(),
        }
    }

    /// Takes over what they have said since, and tells them what the plan wants now.
    pub(super) fn tick(&mut self, now: Instant) {
        match self {
            Self::Own(own) => own.tick(),
            Self::Sipp(sipp) => sipp.tick(now),
        }
    }

    /// No new calls; those that live may end.
    pub(super) fn stop(&mut self) {
        match self {
            Self::Own(own) => own.child.ask_to_end(),
            Self::Sipp(sipp) => sipp.stop(),
        }
    }

    pub(super) fn kill(&mut self) {
        match self {
            Self::Own(own) => own.child.kill(),
            Self::Sipp(sipp) => sipp.kill(),
        }
    }

    /// When the plan began; `None` until that is known.
    pub(super) fn began_unix_ms(&self) -> Option<u64> {
        match self {
            Self::Own(own) => own.began_unix_ms,
            Self::Sipp(sipp) => Some(sipp.began_unix_ms()),
        }
    }

    pub(super) fn calls(&self) -> Calls {
        match self {
            Self::Own(own) => own.calls,
            Self::Sipp(sipp) => sipp.calls(),
        }
    }

    pub(super) fn failures(&self) -> &[Failure] {
        match self {
            Self::Own(own) => &own.failures,
            Self::Sipp(sipp) => sipp.failures(),
        }
    }

    pub(super) fn have_ended(&self) -> bool {
        match self {
            Self::Own(own) => own.has_ended,
            Self::Sipp(sipp) => sipp.has_ended(),
        }
    }

    /// The plan makes no more calls, and they have not ended by themselves.
    pub(super) fn is_plan_over(&self) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Sipp(sipp) => sipp.is_stopped(),
        }
    }

    /// An end that was no end of a run is an error.
    pub(super) fn check(&self) -> Result<()> {
        let made_none = match self {
            Self::Own(own) => !own.has_reported,
            Self::Sipp(sipp) => sipp.calls().made == 0,
        };
        if made_none {
            return Err(Exit::Unavailable.because("the callers ended without a report"));
        }
        Ok(())
    }
}

impl Own {
    fn tick(&mut self) {
        // Its last lines may still be on their way when its end is seen for the first time.
        let had_exited = std::mem::replace(&mut self.has_exited, self.child.ended().is_some());
        while let Some(line) = self.child.next_line() {
            match line.get("type").and_then(Value::as_str) {
                Some("sample") => self.take_sample(&line),
                Some("report") => self.take_report(&line),
                _ => {}
            }
        }
        self.has_ended = self.has_exited && (self.has_reported || had_exited);
    }

    fn take_sample(&mut self, line: &Value) {
        let began = || clock::unix_millis().saturating_sub(number(line, "at_ms"));
        self.began_unix_ms.get_or_insert_with(began);
        self.calls = Calls { made: number(line, "started"), ..common(line) };
    }

    fn take_report(&mut self, line: &Value) {
        self.has_reported = true;
        self.calls = Calls {
            made: number(line, "calls"),
            unfinished: number(line, "unfinished"),
            ..common(line)
        };
        let text = |failure: &Value, key: &str| {
            failure.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let failures = line.get("failures").and_then(Value::as_array);
        let failure = |it: &Value| Failure {
            at_s: number(it, "at_ms") as f64 / 1_000.0,
            unix_ms: number(it, "unix_ms"),
            call_id: text(it, "call_id"),
            expected: text(it, "expected"),
            came: text(it, "came"),
            nearest: None,
        };
        self.failures = failures.into_iter().flatten().map(failure).collect();
    }
}

/// What a sample and a report have in common.
fn common(line: &Value) -> Calls {
    let own = line.get("own_losses").unwrap_or(&Value::Null);
    Calls {
        made: 0,
        succeeded: number(line, "succeeded"),
        failed: number(line, "failed"),
        unfinished: 0,
        own_drops: number(own, "receive_drops") + number(own, "send_drops"),
        own_late: number(own, "late_starts"),
    }
}

fn number(line: &Value, key: &str) -> u64 {
    line.get(key).and_then(Value::as_u64).unwrap_or(0)
}
