//! Response times: a histogram of fixed size whose buckets are at most 3 % wide.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u64 = 32;

/// How long something took, many times over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// By [`bucket`]; grows with the longest seen, at most 1,920 long.
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Latency {
    pub(crate) fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// What `percent` of all did not exceed (rounded up to the end of a bucket); zero if none was
    /// measured.
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(end_of(bucket as u64).min(self.max_us));
            }
        }
        Duration::ZERO
    }
}

/// Values below 32 have buckets of their own; above, each power of two has 32.
fn bucket(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let shift = us.ilog2() - STEPS.ilog2();
    (u64::from(shift) * STEPS + (us >> shift)) as usize
}

/// The largest value in a bucket.
fn end_of(bucket: u64) -> u64 {
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_ends_close_above_it() {
        let mut last = 0;
        for us in (0..2_000).chain((1..40).map(|power| 3 << power)) {
            let end = end_of(bucket(us) as u64);
            assert!(end >= us && end - us <= us / 32 + 1, "{us} in a bucket that ends at {end}");
            assert!(bucket(us) >= last || us < 2_000);
            last = bucket(us);
        }
    }

    #[test]
    fn percentiles_of_a_thousand_even_values() {
        let mut latency = Latency::default();
        for milliseconds in 1..=1_000 {
            latency.record(Duration::from_millis(milliseconds));
        }
        let p50 = latency.percentile(50.0).as_millis();
        let p99 = latency.percentile(99.0).as_millis();
        assert!((500..=517).contains(&p50) && (990..=1_000).contains(&p99), "{p50} {p99}");
        assert_eq!(latency.percentile(100.0), Duration::from_secs(1));
        assert_eq!(Latency::default().percentile(50.0), Duration::ZERO);
    }
}
