//! How calls look on a terminal and to a script.

use load_client::{ConnectionCounts, KindCounts, Latency, OwnLosses, Report, Sample, UasCounters};
use serde_json::{Value, json};

pub(super) fn sample(sample: &Sample, as_json: bool) -> String {
    if as_json {
        return json!({
            "type": "sample",
            "at_ms": millis(sample.at),
            "rate_cps": sample.rate,
            "started": sample.started,
            "succeeded": sample.succeeded,
            "failed": sample.failed,
            "healed": sample.healed,
            "in_flight": sample.in_flight,
            "answer_ms": latency(&sample.answer_now),
            "own_losses": own_losses(&sample.own),
        })
        .to_string();
    }
    calls(sample)
}

/// The line of the callers.
pub(super) fn calls(sample: &Sample) -> String {
    format!(
        "calls     {:>5.0} s  wanted {:>6.1} cps  started {:>6}  succeeded {:>6}  failed {:>4}  in \
         flight {:>4}",
        sample.at.as_secs_f64(),
        sample.rate,
        sample.started,
        sample.succeeded,
        sample.failed,
        sample.in_flight,
    )
}

pub(super) fn report(report: &Report) -> Value {
    let failures: Vec<Value> = report
        .failures
        .iter()
        .map(|failure| {
            json!({
                "unix_ms": failure.unix_ms,
                "at_ms": millis(failure.at),
                "call_id": failure.call_id,
                "expected": failure.expected,
                "came": failure.came,
            })
        })
        .collect();
    json!({
        "type": "report",
        "duration_ms": millis(report.duration),
        "calls": report.started,
        "succeeded": report.succeeded,
        "failed": report.failed,
        "unfinished": report.unfinished,
        "healed": report.healed,
        "failed_over": report.failed_over,
        "longest_gap_ms": millis(report.longest_gap),
        "kinds": report.kinds.iter().map(kind).collect::<Vec<_>>(),
        "causes": report.causes,
        "connections": connections(&report.connections),
        "ringing_ms": latency(&report.ringing),
        "answer_ms": latency(&report.answer),
        "bye_ms": latency(&report.bye),
        "own_losses": own_losses(&report.own),
        "failures": failures,
    })
}

pub(super) fn listening(addresses: &[String], as_json: bool) -> String {
    if as_json {
        json!({ "type": "listening", "addresses": addresses }).to_string()
    } else {
        format!("listening on {}", addresses.join(", "))
    }
}

pub(super) fn callees(counters: &UasCounters, as_json: bool) -> String {
    let UasCounters { calls, answered, ended, refused, cancelled, unacknowledged, .. } = counters;
    if as_json {
        return json!({
            "type": "callees",
            "calls": calls,
            "answered": answered,
            "ended": ended,
            "refused": refused,
            "cancelled": cancelled,
            "unacknowledged": unacknowledged,
            "registered": counters.registered,
            "registration_failures": counters.registration_failures,
            "failed_over": counters.failed_over,
            "longest_unregistered_ms": millis(counters.longest_unregistered),
            "connections": connections(&counters.connections),
            "own_losses": own_losses(&counters.own),
        })
        .to_string();
    }
    format!(
        "calls {calls}  answered {answered}  ended {ended}  refused {refused}  cancelled \
         {cancelled}  without ACK {unacknowledged}",
    )
}

fn kind(counts: &KindCounts) -> Value {
    let KindCounts { kind, started, succeeded, failed, healed } = counts;
    json!({
        "kind": kind,
        "calls": started,
        "succeeded": succeeded,
        "failed": failed,
        "healed": healed,
    })
}

fn connections(counts: &ConnectionCounts) -> Value {
    json!({
        "opened": counts.opened,
        "lost": counts.lost,
        "reopened": counts.reopened,
        "longest_gap_ms": millis(counts.longest_gap),
    })
}

fn latency(latency: &Latency) -> Value {
    if latency.count() == 0 {
        return Value::Null;
    }
    let [p50, p95, p99, p999] =
        [50.0, 95.0, 99.0, 99.9].map(|percent| latency.percentile(percent).as_secs_f64() * 1_000.0);
    let max = latency.max().as_secs_f64() * 1_000.0;
    json!({ "p50": p50, "p95": p95, "p99": p99, "p999": p999, "max": max })
}

fn own_losses(own: &OwnLosses) -> Value {
    json!({
        "receive_drops": own.receive_drops,
        "send_drops": own.send_drops,
        "send_errors": own.send_errors,
        "unreadable": own.unreadable,
        "late_starts": own.late_starts,
        "lateness_max_ms": millis(own.lateness_max),
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
