//! Where the load is going: a straight line through the last polls, if it is really one.

use std::time::Duration;

use fleet::{CallRate, Poll};

/// How many standard errors the slope must be above zero to be believed.
const SLOPE_ERRORS: f64 = 2.0;

/// The load `ahead` of the last poll, if it rises beyond what noise explains.
///
/// `None` also if an instance was silent in any of the polls: its return would look like a rise.
pub(crate) fn forecast(polls: &[Poll], interval: Duration, ahead: Duration) -> Option<CallRate> {
    if polls.len() < 3 || polls.iter().any(|poll| poll.silent > 0) {
        return None;
    }
    let count = as_f64(polls.len());
    let middle = (count - 1.0) / 2.0;
    let loads = || polls.iter().map(|poll| as_f64_u64(poll.at_least().millicps()));
    let mean = loads().sum::<f64>() / count;
    let (mut across, mut spread) = (0.0, 0.0);
    for (index, load) in loads().enumerate() {
        let x = as_f64(index) - middle;
        across += x * (load - mean);
        spread += x * x;
    }
    let slope = across / spread;
    let error_squares: f64 = loads()
        .enumerate()
        .map(|(index, load)| load - mean - slope * (as_f64(index) - middle))
        .map(|error| error * error)
        .sum();
    let slope_error = (error_squares / (count - 2.0) / spread).sqrt();
    if slope <= 0.0 || slope <= SLOPE_ERRORS * slope_error {
        return None;
    }
    let steps = ahead.as_secs_f64() / interval.as_secs_f64().max(0.001);
    let load = mean + slope * (middle + steps);
    // `as` saturates, which is what a forecast beyond all measure deserves.
    Some(CallRate::from_millicps(load.max(0.0) as u64))
}

fn as_f64(count: usize) -> f64 {
    count as f64
}

fn as_f64_u64(value: u64) -> f64 {
    value as f64
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
