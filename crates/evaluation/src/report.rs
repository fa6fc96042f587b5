//! The report: how it was played, what came of the calls, and the paper's §4.2 point by point.

use std::fmt::Write as _;

use crate::findings::{Change, Departure, Findings};
use crate::record::Run;

/// Failed calls that are listed; all are in `failed.csv`.
const FAILURES_MAX: usize = 20;

/// The report of a run, as Markdown.
pub fn report(run: &Run) -> String {
    let findings = Findings::of(run);
    let mut out = String::from("# Evaluation\n\n");
    summary(&mut out, run, &findings);
    setting(&mut out, run);
    calls(&mut out, run);
    decisions(&mut out, run, &findings);
    capacity(&mut out, run, &findings);
    sharing(&mut out, &findings);
    departures(&mut out, &findings);
    cpu(&mut out, &findings);
    files(&mut out);
    out
}

fn line(out: &mut String, text: impl std::fmt::Display) {
    writeln!(out, "{text}").ok();
}

fn summary(out: &mut String, run: &Run, findings: &Findings) {
    let calls = run.calls;
    let last = run.moments.last().map_or(0, |moment| moment.in_service);
    let first = run.moments.first().map_or(0, |moment| moment.in_service);
    line(
        out,
        format_args!(
            "**{} calls made, {} failed; proxies {first} → {} → {last}.**",
            thousands(calls.made),
            thousands(calls.failed),
            findings.proxies_max(),
        ),
    );
    if run.is_cut_short {
        line(out, "\nThe run was ended before its plan was: what follows is a part of it.");
    }
    line(
        out,
        "\nTimes are the experiment's own: where it was played faster, a minute of it is a part of a \
         minute of the clock. Rates (calls, bytes, CPU) are per second of the clock, as in the paper.\n\n\
         ![Figure 5](figure-5.svg)\n\n![Figure 6](figure-6.svg)\n",
    );
}

fn setting(out: &mut String, run: &Run) {
    line(out, "## How it was played\n\n| what | value |\n|---|---|");
    for (what, value) in &run.setting {
        line(out, format_args!("| {what} | {} |", value.replace('|', "\\|")));
    }
    line(out, "");
}

fn calls(out: &mut String, run: &Run) {
    let calls = run.calls;
    line(out, "## Calls\n\n| calls | number |\n|---|---|");
    let rows = [
        ("made", calls.made),
        ("succeeded", calls.succeeded),
        ("failed", calls.failed),
        ("cut off at the end of the run", calls.unfinished),
        ("started late by the generator", calls.own_late),
        ("messages lost by the generator itself", calls.own_drops),
    ];
    for (what, number) in rows {
        line(out, format_args!("| {what} | {} |", thousands(number)));
    }
    line(
        out,
        "\nA call is good if Figure 4 was followed to its end; nothing was sent twice, so that each lost \
         message is a failed call. The paper made about 2.9 million calls and does not say how many \
         failed.\n",
    );
    if calls.own_drops > 0 {
        line(
            out,
            "The generator lost messages: calls that failed for it are not told apart from the \
             others, so that the number of failed calls is an upper bound.\n",
        );
    }
    if run.failures.is_empty() {
        return;
    }
    line(out, "| at | call | expected | came | nearest event |\n|---|---|---|---|---|");
    for failure in run.failures.iter().take(FAILURES_MAX) {
        let nearest = failure
            .nearest
            .as_ref()
            .map_or_else(String::new, |(after_s, text)| format!("{after_s:+.1} s: {text}"));
        let minute = clock(run.seconds(failure.at_s));
        let (call, expected, came) = (&failure.call_id, &failure.expected, &failure.came);
        line(out, format_args!("| {minute} | {call} | {expected} | {came} | {nearest} |"));
    }
    let more = run.failures.len().saturating_sub(FAILURES_MAX);
    if more > 0 {
        line(out, format_args!("\nand {more} more in `failed.csv`"));
    }
    line(out, "");
}

fn decisions(out: &mut String, run: &Run, findings: &Findings) {
    line(out, "## Launched and removed at which load\n");
    match run.policy.threshold {
        Some(share) => {
            let each = run.policy.capacity_each;
            let at = |n: f64| format!("{:.0}", share * each * n);
            line(
                out,
                format_args!(
                    "With {:.0} % of {each:.0} cps per proxy the number is due to change at {}, {} and {} \
                     cps (the paper: 170, 340 and 510), once five polls in a row are beyond.\n",
                    share * 100.0,
                    at(1.0),
                    at(2.0),
                    at(3.0),
                ),
            );
        }
        None => line(out, "This policy has no single threshold; the reasons are the manager's.\n"),
    }
    line(
        out,
        "| at | proxies | aggregate load | threshold | beyond it for | in effect after | reason |\n\
         |---|---|---|---|---|---|---|",
    );
    let cell = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0} {unit}"))
    };
    for Change { decision, threshold_cps, waited_s, took_s } in &findings.changes {
        line(
            out,
            format_args!(
                "| {} | {} → {} | {:.0} cps | {} | {} | {} | {} |",
                clock(run.seconds(decision.at_s)),
                decision.before,
                decision.desired,
                decision.load_cps,
                cell(*threshold_cps, "cps"),
                cell(*waited_s, "s"),
                cell(*took_s, "s"),
                decision.reason,
            ),
        );
    }
    line(
        out,
        "\n*Beyond it for*: how long the plan had asked for more (less, for a removal) than the threshold \
         when the manager decided. *In effect*: in the table, or out of it; – if it was \
         taken back before, or the run ended.\n",
    );
}

fn capacity(out: &mut String, run: &Run, findings: &Findings) {
    line(
        out,
        "## Capacity\n\n| at | proxies in service | capacity | load asked for |\n|---|---|---|---|",
    );
    for step in &findings.steps {
        line(
            out,
            format_args!(
                "| {} | {} | {:.0} cps | {:.0} cps |",
                clock(run.seconds(step.at_s)),
                step.proxies,
                step.capacity_cps,
                step.wanted_cps
            ),
        );
    }
    let each = run.policy.capacity_each;
    line(
        out,
        format_args!(
            "\nThe load was above the capacity in service for {:.0} s of {:.0} s. A proxy had more than its \
             {each:.0} cps, as a mean over 60 s, for {:.0} s; the highest such mean was {:.1} cps.\n",
            findings.above_capacity_s,
            run.seconds(run.duration_s()),
            findings.proxy_above_s,
            findings.proxy_peak_cps,
        ),
    );
}

fn sharing(out: &mut String, findings: &Findings) {
    line(
        out,
        "## How evenly the proxies share the load\n\nCalls of the busiest proxy in units of the mean, by \
         the minute, in minutes without a change. The paper: the lines of all proxies \"merge to look \
         like one line\".\n",
    );
    if findings.sharing.is_empty() {
        return line(out, "There was no minute with two proxies or more.\n");
    }
    line(out, "| proxies | minutes | median | worst | by chance alone |\n|---|---|---|---|---|");
    for it in &findings.sharing {
        line(
            out,
            format_args!(
                "| {} | {} | {:.3} | {:.3} | {:.3} |",
                it.proxies, it.minutes, it.median, it.worst, it.fair
            ),
        );
    }
    line(
        out,
        "\n*By chance alone*: what a fair die would give as many calls on average; a keyed hash cannot be \
         more even.\n",
    );
}

fn departures(out: &mut String, findings: &Findings) {
    line(
        out,
        "## Spikes when a proxy leaves\n\nIn the paper a leaving proxy's load falls on one neighbour until it \
         is gone: with three left, that one has 1.5 times the mean; with two, 1.33 times. Below, the \
         busiest of those that stay, over the two minutes after the proxy left the table.\n",
    );
    if findings.departures.is_empty() {
        return line(out, "None left.\n");
    }
    line(
        out,
        "| leaves | empty after | others | busiest, calls | busiest, network | by chance alone |\n\
         |---|---|---|---|---|---|",
    );
    for Departure { instance, drained_s, others, .. } in &findings.departures {
        let drained = drained_s.map_or_else(|| "–".to_owned(), |drained| format!("{drained:.0} s"));
        let rest = others.map_or_else(
            || "one or none | – | – | –".to_owned(),
            |it| format!("{} | {:.3} | {:.3} | {:.3}", it.proxies, it.calls, it.network, it.fair),
        );
        line(out, format_args!("| {instance} | {drained} | {rest} |"));
    }
    line(out, "");
}

fn cpu(out: &mut String, findings: &Findings) {
    line(
        out,
        "## CPU over load\n\nThe paper: it \"rises linearly as the load increases\". A line through the means \
         of all minutes:\n",
    );
    if findings.cpu.is_empty() {
        return line(out, "There were too few minutes for a line.\n");
    }
    line(out, "| instance | CPU per call | idle | R² | minutes |\n|---|---|---|---|---|");
    for it in &findings.cpu {
        // One percent of a core for a call per second is 10 ms of CPU for a call.
        let micros = it.slope * 10_000.0;
        line(
            out,
            format_args!(
                "| {} | {micros:.0} µs | {:.1} % | {:.3} | {} |",
                it.what, it.intercept, it.r_squared, it.points
            ),
        );
    }
    line(out, "\n100 % is one core.\n");
}

fn files(out: &mut String) {
    line(
        out,
        "## Files\n\n\
         - `samples.csv`: each instance in each interval.\n\
         - `calls.csv`: plan, callers and capacity in each interval.\n\
         - `journal.jsonl`: what the manager decided and did, and why.\n\
         - `failed.csv`: each failed call with the nearest event of the journal.\n\
         - `figure-5.svg`, `figure-6.svg`, and the same as PNG.",
    );
}

/// Seconds as hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    format!("{}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
