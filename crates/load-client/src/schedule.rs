//! When calls start: steps and ramps of a rate, and the instant of every single call.
//!
//! ```text
//! schedule = segment *("," segment)
//! segment  = rate [".." rate] "@" seconds "s"     20@30s   20..150@1m   0@500ms
//! ```

use std::str::FromStr;
use std::time::Duration;

/// Rates over time. Calls start evenly: the n-th when the area under the rate has reached n.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    segments: Vec<Segment>,
}

/// A stretch of time in which the rate moves evenly from one value to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    /// Calls per second.
    from: f64,
    to: f64,
    seconds: f64,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{segment}` is not RATE@DURATION or RATE..RATE@DURATION, as in 20@30s or 20..150@1m")]
pub struct ScheduleError {
    pub segment: String,
}

impl Schedule {
    /// One rate for some time.
    pub fn constant(calls_per_second: f64, duration: Duration) -> Self {
        let seconds = duration.as_secs_f64();
        let segment = Segment { from: calls_per_second, to: calls_per_second, seconds };
        Self { segments: vec![segment] }
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.segments.iter().map(|it| it.seconds).sum())
    }

    /// The same rates, each held for a shorter time: one part in `factor`, which is above zero.
    #[must_use]
    pub fn faster(&self, factor: f64) -> Self {
        let shorter = |it: &Segment| Segment { seconds: it.seconds / factor, ..*it };
        Self { segments: self.segments.iter().map(shorter).collect() }
    }

    /// The rate as a line: the corners of each stretch, seconds and calls per second.
    pub fn corners(&self) -> Vec<(f64, f64)> {
        let mut corners = Vec::new();
        let mut at = 0.0;
        for Segment { from, to, seconds } in &self.segments {
            corners.extend([(at, *from), (at + seconds, *to)]);
            at += seconds;
        }
        corners
    }

    /// How many calls it makes.
    pub fn calls(&self) -> u64 {
        // The n-th call (from 0) starts when the area is n; one that would start with the end of
        // the schedule does not belong to it.
        (self.segments.iter().map(Segment::area).sum::<f64>() - 1e-6).ceil().max(0.0) as u64
    }

    /// The rate at `elapsed`, in calls per second; 0 after the end.
    pub fn rate_at(&self, elapsed: Duration) -> f64 {
        let mut at = elapsed.as_secs_f64();
        for segment in &self.segments {
            if at < segment.seconds {
                return segment.from + (segment.to - segment.from) * at / segment.seconds;
            }
            at -= segment.seconds;
        }
        0.0
    }

    /// When the call of this number (from 0) starts; `None` after the last.
    pub fn time_of(&self, call: u64) -> Option<Duration> {
        if call >= self.calls() {
            return None;
        }
        let mut wanted = call as f64;
        let mut before = 0.0;
        for segment in &self.segments {
            if wanted < segment.area() {
                return Some(Duration::from_secs_f64(before + segment.when(wanted)));
            }
            wanted -= segment.area();
            before += segment.seconds;
        }
        // Rounding: the last call at the very end.
        Some(Duration::from_secs_f64(before))
    }
}

impl Segment {
    /// Calls in it.
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// When the area has reached `calls`: the root of `from·t + slope/2·t² = calls`.
    fn when(&self, calls: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * slope * calls).max(0.0).sqrt();
        // This form has no cancellation and holds for a slope of zero too.
        let divisor = self.from + root;
        if divisor > 0.0 { (2.0 * calls / divisor).min(self.seconds) } else { 0.0 }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let segments = text.split(',').map(segment).collect::<Result<_, _>>()?;
        Ok(Self { segments })
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, segment) in self.segments.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{}", segment.from)?;
            if segment.from != segment.to {
                write!(f, "..{}", segment.to)?;
            }
            write!(f, "@{}s", segment.seconds)?;
        }
        Ok(())
    }
}

fn segment(text: &str) -> Result<Segment, ScheduleError> {
    let text = text.trim();
    let parsed = text.split_once('@').and_then(|(rates, duration)| {
        let (from, to) = rates.split_once("..").unwrap_or((rates, rates));
        Some(Segment { from: rate(from)?, to: rate(to)?, seconds: seconds(duration)? })
    });
    parsed.ok_or_else(|| ScheduleError { segment: text.to_owned() })
}

fn rate(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0)
}

pub(crate) fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    // `ms` before `s` and `m`, for it ends in one and begins with the other.
    let (number, unit) = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let seconds = number.trim().parse::<f64>().ok()? * unit;
    (seconds.is_finite() && seconds > 0.0 && seconds < 1e9).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().expect("a schedule")
    }

    #[test]
    fn steps_make_as_many_calls_as_their_area() {
        let schedule = schedule("20@30s,150@60s,20@30s");
        assert_eq!(schedule.duration(), Duration::from_secs(120));
        assert_eq!(schedule.calls(), 600 + 9_000 + 600);
        assert_eq!(schedule.rate_at(Duration::from_secs(31)), 150.0);
        assert_eq!(schedule.rate_at(Duration::from_secs(121)), 0.0);
        assert_eq!(schedule.to_string(), "20@30s,150@60s,20@30s");
    }

    #[test]
    fn calls_of_a_step_are_evenly_spread() {
        let schedule = schedule("0@1s,10@2s");
        let times: Vec<_> =
            (0..20).map(|call| schedule.time_of(call).expect("within").as_millis()).collect();
        assert_eq!(times.first(), Some(&1_000));
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 100), "{times:?}");
        assert_eq!(schedule.time_of(20), None);
    }

    /// A ramp from 0 to 100 in 10 s: half of the area lies in the last 29 % of the time.
    #[test]
    fn a_ramp_starts_calls_ever_faster() {
        let schedule = schedule("0..100@10s");
        assert_eq!(schedule.calls(), 500);
        let middle = schedule.time_of(250).expect("within").as_secs_f64();
        assert!((middle - 50_f64.sqrt()).abs() < 1e-6, "{middle}");
        let mut last = Duration::ZERO;
        for call in 0..500 {
            let at = schedule.time_of(call).expect("within");
            assert!(at >= last && at < Duration::from_secs(10));
            last = at;
        }
    }

    #[test]
    fn a_faster_schedule_has_the_same_rates_for_a_shorter_time() {
        let faster = schedule("20@30s,20..60@1m").faster(10.0);
        assert_eq!(faster, schedule("20@3s,20..60@6s"));
        assert_eq!(faster.calls(), 60 + 240);
        assert_eq!(faster.corners(), [(0.0, 20.0), (3.0, 20.0), (3.0, 20.0), (9.0, 60.0)]);
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for text in ["", "20", "20@", "@3s", "20@3", "-1@3s", "20@0s", "x@3s", "1..@3s", "20@3s,"] {
            let error = text.parse::<Schedule>().expect_err(text);
            assert!(error.to_string().contains("RATE@DURATION"), "{error}");
        }
    }
}
