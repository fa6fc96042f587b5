//! How many calls come: segments of steps or ramps, repeated or not, with noise.

use fleet::CallRate;
use serde::Deserialize;

use crate::scenario::Scenario;

/// A load from `at_s` until the next segment: `cps`, and every `every_s` seconds `add_cps` more or
/// less, down to nothing.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    pub at_s: u64,
    pub cps: u32,
    #[serde(default)]
    pub add_cps: i64,
    #[serde(default = "one_second")]
    pub every_s: u64,
}

const fn one_second() -> u64 {
    1
}

/// Calls per second `elapsed_s` after the start, without noise.
pub(crate) fn offered(scenario: &Scenario, elapsed_s: u64) -> CallRate {
    let place_s = elapsed_s.checked_rem(scenario.load_repeats_s).unwrap_or(elapsed_s);
    let segment = scenario.load.iter().rev().find(|segment| segment.at_s <= place_s);
    let Some(segment) = segment else { return CallRate::ZERO };
    let steps = (place_s - segment.at_s) / segment.every_s.max(1);
    let change = segment.add_cps.saturating_mul(i64::try_from(steps).unwrap_or(i64::MAX));
    let cps = i64::from(segment.cps).saturating_add(change);
    CallRate::from_cps(u32::try_from(cps.max(0)).unwrap_or(u32::MAX))
}

/// Random numbers of a seed (SplitMix64): the same seed, the same numbers, on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `limit`; 0 if that is 0.
    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        // The bias is far below anything that is looked at here.
        match self.next().checked_rem(limit) {
            Some(rest) => rest,
            None => 0,
        }
    }

    /// Once in `count` times.
    pub(crate) const fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// `load`, up to `percent` more or less.
    pub(crate) fn around(&mut self, load: CallRate, percent: u32) -> CallRate {
        let half = u64::from(percent) * 10;
        let millis = 1_000_u64.saturating_sub(half) + self.below(2 * half + 1);
        CallRate::from_millicps(load.millicps().saturating_mul(millis) / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_ramps_and_repeats_are_what_they_say() {
        let text = "about = 'x'\nduration_s = 60\nload_repeats_s = 1000\nload = [
            { at_s = 0, cps = 140, add_cps = 10, every_s = 90 },
            { at_s = 500, cps = 100, add_cps = -3 },
        ]\n";
        let scenario = Scenario::parse(text).expect("good");
        let table = [(0, 140), (89, 140), (90, 150), (499, 190), (500, 100), (533, 1), (600, 0)];
        for (at_s, cps) in table {
            assert_eq!(offered(&scenario, at_s), CallRate::from_cps(cps), "at {at_s}");
            assert_eq!(offered(&scenario, 3_000 + at_s), CallRate::from_cps(cps), "at {at_s}");
        }
    }

    #[test]
    fn noise_stays_within_its_bounds() {
        let mut random = Random::new(7);
        let (mut least, mut most) = (u64::MAX, 0);
        for _ in 0..10_000 {
            let load = random.around(CallRate::from_cps(1_000), 5).cps();
            (least, most) = (least.min(load), most.max(load));
        }
        assert!((950..955).contains(&least) && (1_045..=1_050).contains(&most), "{least} {most}");
    }
}
