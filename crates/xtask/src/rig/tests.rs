//! Tests of the files that a bench shares: a bench is no place for tests.

use std::convert::Infallible;

use super::search::{Trial, highest};
use super::usage::{cpu_ns, memory_kib, tree};

struct Carries {
    rate: f64,
    most: f64,
}

impl Trial for Carries {
    fn rate(&self) -> f64 {
        self.rate
    }

    fn is_carried(&self) -> bool {
        self.rate <= self.most
    }
}

#[test]
fn the_highest_rate_is_found_within_the_precision() {
    for most in [70.0, 100.0, 777.0, 12_345.0] {
        let trial = |rate| Ok::<_, Infallible>(Carries { rate, most });
        let Ok((best, failed)) = highest(100.0, 0.05, trial);
        let best = best.expect("some rate works").rate;
        assert!(best <= most && most < failed.rate, "{best} {most} {}", failed.rate);
        assert!(best >= failed.rate * 0.95, "{best} {}", failed.rate);
    }
}

#[test]
fn one_failure_alone_does_not_count() {
    let mut trials = 0;
    let found = highest(100.0, 0.5, |rate| {
        trials += 1;
        // The third trial fails for a reason of its own.
        let most = if trials == 3 { 0.0 } else { 450.0 };
        Ok::<_, Infallible>(Carries { rate, most })
    });
    let Ok((best, _)) = found;
    assert_eq!(best.map(|best| best.rate), Some(400.0));
}

#[test]
fn this_process_has_used_time_and_memory() {
    let own = tree(std::process::id());
    assert!(own.contains(&std::process::id()) && cpu_ns(&own) > 0 && memory_kib(&own) > 0);
}
