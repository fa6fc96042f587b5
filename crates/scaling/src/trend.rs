//! Where the load is going: a straight line through the last polls, if it is really one.

use std::time::Duration;

use fleet::{CallRate, Poll};

/// How many standard errors the slope must be above zero to be believed.
const SLOPE_ERRORS: f64 = 2.0;
/// The fewest polls that make a line.
const POLLS_MIN: usize = 3;

/// The load `ahead` of the last poll, if it rises beyond what noise explains.
///
/// Three shapes are held against the polls: a line, a level that then rises, and a level that jumped to
/// another one, before which nothing says where the load goes now. `None` also if an instance was
/// silent in any of the polls: its return would look like a rise.
pub(crate) fn forecast(polls: &[Poll], interval: Duration, ahead: Duration) -> Option<CallRate> {
    if polls.iter().any(|poll| poll.silent > 0) {
        return None;
    }
    let loads: Vec<f64> = polls.iter().map(|poll| poll.at_least().millicps() as f64).collect();
    let steps = ahead.as_secs_f64() / interval.as_secs_f64().max(0.001);
    let load = continued(&loads, (loads.len() / 2).max(POLLS_MIN), steps)?;
    // `as` saturates, which is what a forecast beyond all measure deserves.
    Some(CallRate::from_millicps(load.max(0.0).round() as u64))
}

/// The load so many `steps` after the last one, by at least `least` loads.
fn continued(loads: &[f64], least: usize, steps: f64) -> Option<f64> {
    if loads.len() < least {
        return None;
    }
    let line = Line::through(loads, |place| place as f64);
    let bend = bend(loads);
    let (jump, jump_errors) = jump(loads)?;
    let bend_errors = bend.as_ref().map_or(f64::INFINITY, |bend| bend.error_squares);
    // Both have a number more than the line to fit with, for which they have to be better by the
    // Bayesian information criterion.
    let count = loads.len() as f64;
    if line.error_squares * count.powf(-1.0 / count) <= jump_errors.min(bend_errors) {
        return line.after(steps);
    }
    if jump_errors <= bend_errors {
        return continued(loads.get(jump..)?, least, steps);
    }
    let [.., before, last] = loads else { return None };
    // It may be a jump in the middle of a poll: then it rises no more.
    bend.filter(|bend| last - before >= bend.slope / 2.0)?.after(steps)
}

/// A least-squares line through loads at some places.
struct Line {
    last_place: f64,
    at_zero: f64,
    slope: f64,
    slope_error: f64,
    error_squares: f64,
}

impl Line {
    /// Through three loads or more.
    fn through(loads: &[f64], place: impl Fn(usize) -> f64) -> Self {
        let count = loads.len() as f64;
        let places: Vec<f64> = (0..loads.len()).map(place).collect();
        let middle = places.iter().sum::<f64>() / count;
        let mean = loads.iter().sum::<f64>() / count;
        let both = || places.iter().zip(loads);
        let spread: f64 = places.iter().map(|x| (x - middle).powi(2)).sum();
        let slope = both().map(|(x, load)| (x - middle) * (load - mean)).sum::<f64>() / spread;
        let at_zero = mean - slope * middle;
        let error_squares: f64 = both().map(|(x, load)| (load - at_zero - slope * x).powi(2)).sum();
        let slope_error = (error_squares / (count - 2.0) / spread).sqrt();
        let last_place = places.last().copied().unwrap_or_default();
        Self { last_place, at_zero, slope, slope_error, error_squares }
    }

    /// Its load after so many steps, if it rises.
    fn after(&self, steps: f64) -> Option<f64> {
        let rises = self.slope > 0.0 && self.slope > SLOPE_ERRORS * self.slope_error;
        rises.then_some(self.at_zero + self.slope * (self.last_place + steps))
    }
}

/// The best level that then rises, for three loads or more.
fn bend(loads: &[f64]) -> Option<Line> {
    let last_corner = loads.len().checked_sub(POLLS_MIN + 1)?;
    let from = |corner: usize| Line::through(loads, |at| at.saturating_sub(corner) as f64);
    let better = |one: &Line, other: &Line| one.error_squares.total_cmp(&other.error_squares);
    (1..=last_corner).map(from).min_by(better)
}

/// The first load of the second of the best two levels, and what they leave unexplained.
fn jump(loads: &[f64]) -> Option<(usize, f64)> {
    let errors = |loads: &[f64]| {
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>()
    };
    let split = |after: usize| {
        let (before, from) = loads.split_at(after);
        (after, errors(before) + errors(from))
    };
    (1..loads.len()).map(split).min_by(|one, other| one.1.total_cmp(&other.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polls(cps: &[u32]) -> Vec<Poll> {
        cps.iter().map(|&cps| Poll::answered(cps)).collect()
    }

    #[test]
    fn only_a_real_rise_is_continued() {
        let five = Duration::from_secs(5);
        let table = [
            ("a straight rise", polls(&[100, 110, 120, 130]), Some(CallRate::from_cps(170))),
            ("flat", polls(&[100, 100, 100, 100]), None),
            ("falling", polls(&[130, 120, 110, 100]), None),
            ("noise", polls(&[100, 120, 95, 118, 99, 121]), None),
            ("too few", polls(&[100, 200]), None),
            ("a jump", polls(&[80, 82, 79, 81, 80, 160, 158, 161, 159, 162, 160, 161]), None),
            ("a jump just now", polls(&[80, 82, 79, 81, 80, 81, 79, 80, 82, 80, 81, 160]), None),
            (
                "a rise after a jump",
                polls(&[50, 50, 50, 50, 50, 50, 200, 210, 220, 230, 240, 250]),
                Some(CallRate::from_cps(290)),
            ),
            (
                "a level that rises now",
                polls(&[220, 220, 220, 220, 220, 220, 220, 220, 220, 385, 550, 715]),
                Some(CallRate::from_cps(1_375)),
            ),
            ("a jump within a poll", polls(&[80, 80, 80, 80, 80, 80, 80, 120, 160, 160]), None),
        ];
        for (name, polls, expected) in table {
            assert_eq!(forecast(&polls, five, Duration::from_secs(20)), expected, "{name}");
        }
    }

    #[test]
    fn a_silent_instance_forbids_a_forecast() {
        let mut polls = polls(&[100, 110, 120, 130]);
        polls[1].silent = 1;
        assert_eq!(forecast(&polls, Duration::from_secs(5), Duration::from_secs(20)), None);
    }
}
