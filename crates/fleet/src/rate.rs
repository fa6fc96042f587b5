//! Call rates and polls: the measure that the fleet scales by (paper §3.1).

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

/// Calls per second, in thousandths so that shares and averages stay exact. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallRate {
    millicps: u64,
}

impl CallRate {
    pub const ZERO: Self = Self { millicps: 0 };

    #[must_use]
    pub const fn from_cps(cps: u32) -> Self {
        Self { millicps: cps as u64 * 1_000 }
    }

    #[must_use]
    pub const fn from_millicps(millicps: u64) -> Self {
        Self { millicps }
    }

    /// `calls` within `elapsed_ms`; nothing when no time has passed.
    #[must_use]
    pub fn of(calls: u64, elapsed_ms: u64) -> Self {
        let scaled = u128::from(calls) * 1_000_000;
        let millicps = scaled.checked_div(u128::from(elapsed_ms)).unwrap_or(0);
        Self { millicps: u64::try_from(millicps).unwrap_or(u64::MAX) }
    }

    #[must_use]
    pub const fn millicps(self) -> u64 {
        self.millicps
    }

    /// Whole calls per second, the nearest.
    #[must_use]
    pub const fn cps(self) -> u64 {
        self.millicps.saturating_add(500) / 1_000
    }
}

impl fmt::Display for CallRate {
    /// `170 cps`, `12.5 cps`: one decimal at most.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.millicps.saturating_add(50) / 100;
        match tenths % 10 {
            0 => write!(f, "{} cps", tenths / 10),
            tenth => write!(f, "{}.{tenth} cps", tenths / 10),
        }
    }
}

impl Add for CallRate {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { millicps: self.millicps.saturating_add(other.millicps) }
    }
}

impl AddAssign for CallRate {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for CallRate {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { millicps: self.millicps.saturating_sub(other.millicps) }
    }
}

impl Mul<u32> for CallRate {
    type Output = Self;
    fn mul(self, factor: u32) -> Self {
        Self { millicps: self.millicps.saturating_mul(u64::from(factor)) }
    }
}

impl Div<u32> for CallRate {
    type Output = Self;
    /// Division by zero gives the largest rate: a share of nothing is full.
    fn div(self, divisor: u32) -> Self {
        Self { millicps: self.millicps.checked_div(u64::from(divisor)).unwrap_or(u64::MAX) }
    }
}

impl Sum for CallRate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        rates.fold(Self::ZERO, Add::add)
    }
}

/// What one round of asking a tier found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// Sum over the instances that answered in time, or that others know about.
    pub reported: CallRate,
    /// Instances in service of which nothing is known.
    pub silent: u32,
}

impl Poll {
    /// A round in which everybody answered.
    #[must_use]
    pub const fn answered(cps: u32) -> Self {
        Self { reported: CallRate::from_cps(cps), silent: 0 }
    }

    /// The least the tier can be carrying: the silent count as idle. Reason to add.
    #[must_use]
    pub const fn at_least(&self) -> CallRate {
        self.reported
    }

    /// The most it can be carrying: the silent count as full. Reason to remove.
    #[must_use]
    pub fn at_most(&self, capacity_each: CallRate) -> CallRate {
        self.reported + capacity_each * self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        let table =
            [(170_000, "170 cps"), (12_500, "12.5 cps"), (12_449, "12.4 cps"), (0, "0 cps")];
        for (millicps, expected) in table {
            assert_eq!(CallRate::from_millicps(millicps).to_string(), expected);
        }
    }

    #[test]
    fn a_rate_over_no_time_is_nothing_and_arithmetic_saturates() {
        assert_eq!(CallRate::of(5, 0), CallRate::ZERO);
        assert_eq!(CallRate::of(900, 5_000), CallRate::from_cps(180));
        let most = CallRate::from_millicps(u64::MAX);
        assert_eq!(most + most, most);
        assert_eq!(CallRate::ZERO - most, CallRate::ZERO);
    }
}
