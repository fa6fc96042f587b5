//! The live line: time, load, proxies, calls.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use evaluation::Moment;

use super::experiment::Experiment;

/// Lines are printed this far apart when nobody watches a terminal, seconds.
const LINES_INTERVAL_S: f64 = 10.0;

pub(super) struct Progress {
    is_terminal: bool,
    total: Duration,
    capacity_each: u32,
    last_line_s: f64,
}

impl Progress {
    pub(super) fn new(experiment: &Experiment) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            total: experiment.schedule.duration(),
            capacity_each: experiment.capacity(),
            last_line_s: f64::NEG_INFINITY,
        }
    }

    pub(super) fn draw(&mut self, moment: &Moment, starting: u32) {
        if !self.is_terminal && moment.at_s - self.last_line_s < LINES_INTERVAL_S {
            return;
        }
        self.last_line_s = moment.at_s;
        let line = self.line(moment, starting);
        let mut out = io::stderr().lock();
        // A reader that has gone is no reason to stop.
        if self.is_terminal {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()).ok();
        } else {
            writeln!(out, "{line}").ok();
        }
    }

    fn line(&self, moment: &Moment, starting: u32) -> String {
        let total_s = self.total.as_secs_f64();
        let starting =
            if starting > 0 { format!(" (+{starting} starting)") } else { String::new() };
        let calls = moment.calls;
        let own = match calls.own_drops {
            0 => String::new(),
            drops => format!("  {drops} lost by the generator"),
        };
        format!(
            "{} of {}, {} left  {:.0} cps  proxies {} for {} cps{starting}  {} made  {} failed{own}",
            clock(moment.at_s),
            clock(total_s),
            clock(total_s - moment.at_s),
            moment.wanted_cps,
            moment.in_service,
            moment.in_service * self.capacity_each,
            calls.made,
            calls.failed,
        )
    }

    /// Says something on a line of its own.
    pub(super) fn say(&self, text: &str) {
        self.finish();
        eprintln!("evaluate: {text}");
    }

    /// The live line stays as it is.
    pub(super) fn finish(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}

fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole / 3_600 {
        0 => format!("{}:{:02}", whole / 60, whole % 60),
        hours => format!("{hours}:{:02}:{:02}", whole / 60 % 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use evaluation::Calls;

    use super::*;

    #[test]
    fn the_line_says_what_is_left_and_what_was_lost() {
        let progress = Progress {
            is_terminal: true,
            total: Duration::from_secs(6_840),
            capacity_each: 200,
            last_line_s: 0.0,
        };
        let calls = Calls { made: 1_234, failed: 2, own_drops: 3, ..Calls::default() };
        let moment = Moment { at_s: 754.2, wanted_cps: 220.0, in_service: 2, calls };
        assert_eq!(
            progress.line(&moment, 1),
            "12:34 of 1:54:00, 1:41:26 left  220 cps  proxies 2 for 400 cps (+1 starting)  1234 made  \
             2 failed  3 lost by the generator"
        );
    }
}
