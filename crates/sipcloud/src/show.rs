//! How figures look on a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use node_api::wire::TierStatus;
use serde_json::json;

/// UNIX milliseconds as a date and a time of day in UTC.
pub(crate) fn time(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so that the
/// leap day is the last of its year; an era is 400 years.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// A size with the unit that suits it.
pub(crate) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        0 => "-".to_owned(),
        1..MIB => format!("{} KiB", bytes / KIB),
        _ => format!("{} MiB", bytes / MIB),
    }
}

/// A line that grows on a terminal; a script gets only the sum at the end.
pub(crate) fn progress(what: &str, done: usize, total: usize) {
    const WIDTH: usize = 40;
    let mut out = io::stderr();
    if !out.is_terminal() {
        return;
    }
    let filled = "#".repeat(done * WIDTH / total.max(1));
    let end = if done == total { "\n" } else { "" };
    // A terminal that is gone is no reason to stop.
    let _ = write!(out, "\r[{filled:<WIDTH$}] {done} of {total} {what}{end}");
    let _ = out.flush();
}

/// The live line of one tier.
pub(crate) fn tier_line(tier: &TierStatus) -> String {
    format!(
        "{:<9} load {:>7.1} cps  capacity {:>7.1} cps  in service {:>2}  starting {:>2}  draining \
         {:>2}{}",
        tier.tier,
        tier.load_cps,
        tier.capacity_cps,
        tier.in_service,
        tier.starting,
        tier.draining,
        if tier.silent > 0 { format!("  silent {}", tier.silent) } else { String::new() },
    )
}

/// The same for a script.
pub(crate) fn tier_json(tier: &TierStatus) -> serde_json::Value {
    json!({
        "tier": tier.tier,
        "load_cps": tier.load_cps,
        "capacity_cps": tier.capacity_cps,
        "in_service": tier.in_service,
        "booting": tier.starting,
        "draining": tier.draining,
        "desired": tier.desired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        let table = [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_709_251_199_999, "2024-02-29 23:59:59Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ];
        for (at_ms, expected) in table {
            assert_eq!(time(at_ms), expected);
        }
    }
}
