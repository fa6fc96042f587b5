//! The samples as CSV.

use std::fmt::Write as _;

use crate::record::Run;

/// Each instance in each interval.
pub fn samples_csv(run: &Run) -> String {
    let mut out = String::from(
        "at_s,instance,state,cpu_percent,received_bytes_per_s,sent_bytes_per_s,cps,transactions,\
         generation,store_queries_per_s\n",
    );
    for it in &run.samples {
        writeln!(
            out,
            "{:.3},{},{},{},{},{},{:.2},{},{},{:.2}",
            it.at_s,
            cell(&it.instance),
            cell(&it.state),
            known(it.cpu_percent),
            known(it.received_bytes_per_s),
            known(it.sent_bytes_per_s),
            it.calls_per_s,
            it.transactions,
            cell(&it.generation),
            it.store_queries_per_s,
        )
        .ok();
    }
    out
}

/// Plan, callers and capacity in each interval.
pub fn calls_csv(run: &Run) -> String {
    let mut out = String::from(
        "at_s,wanted_cps,proxies_in_service,capacity_cps,made,succeeded,failed,generator_drops,\
         generator_late\n",
    );
    for it in &run.moments {
        let capacity = f64::from(it.in_service) * run.policy.capacity_each;
        let calls = it.calls;
        writeln!(
            out,
            "{:.3},{:.2},{},{capacity:.0},{},{},{},{},{}",
            it.at_s,
            it.wanted_cps,
            it.in_service,
            calls.made,
            calls.succeeded,
            calls.failed,
            calls.own_drops,
            calls.own_late,
        )
        .ok();
    }
    out
}

/// Each failed call with its time, its code and the nearest event.
pub fn failed_csv(run: &Run) -> String {
    let mut out = String::from(
        "at_s,unix_ms,call_id,expected,came,code,nearest_event_after_s,nearest_event\n",
    );
    for it in &run.failures {
        let (after, event) = match &it.nearest {
            Some((after, event)) => (format!("{after:.3}"), event.as_str()),
            None => (String::new(), ""),
        };
        writeln!(
            out,
            "{:.3},{},{},{},{},{},{after},{}",
            it.at_s,
            it.unix_ms,
            cell(&it.call_id),
            cell(&it.expected),
            cell(&it.came),
            code(&it.came),
            cell(event),
        )
        .ok();
    }
    out
}

/// The status code that a text begins with, if it does.
fn code(came: &str) -> &str {
    let first = came.split(' ').next().unwrap_or("");
    let is_code = first.len() == 3 && first.bytes().all(|byte| byte.is_ascii_digit());
    if is_code { first } else { "" }
}

fn known(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

/// Quoted if it has to be.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Failure, run_of_a_test};

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let run = run_of_a_test();
        for (table, rows) in
            [(samples_csv(&run), run.samples.len()), (calls_csv(&run), run.moments.len())]
        {
            let mut lines = table.lines();
            let cells = lines.next().expect("a head").split(',').count();
            assert_eq!(lines.clone().count(), rows);
            assert!(lines.all(|line| line.split(',').count() == cells));
        }
    }

    #[test]
    fn a_failed_call_is_told_with_its_code_and_quotes_survive() {
        let mut run = run_of_a_test();
        run.failures = vec![Failure {
            at_s: 1.5,
            unix_ms: 7,
            call_id: "5-a@127.0.0.1".to_owned(),
            expected: "180 or 200 to INVITE".to_owned(),
            came: "503 Service Unavailable".to_owned(),
            nearest: Some((-0.25, "proxy-2 \"left\", at last".to_owned())),
        }];
        let table = failed_csv(&run);
        let row = "1.500,7,5-a@127.0.0.1,180 or 200 to INVITE,503 Service Unavailable,503,-0.250,\
                   \"proxy-2 \"\"left\"\", at last\"";
        assert_eq!(table.lines().nth(1), Some(row));
        assert_eq!(code("nothing"), "");
    }
}
