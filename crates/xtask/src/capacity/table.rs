//! What was found, as a table for people.

use std::fmt::Write as _;

use super::Figure;
use crate::rig::FAILED_SHARE_MAX;

pub(super) fn of(figures: &[Figure], seconds: u32) -> String {
    let mut text = format!(
        "Each part alone on one core; load, callers, callees and all other parts on the other cores. \
         Carried: the highest rate at which at most {:.1} % were lost or failed, in {seconds} s (INVITEs: \
         1 s) without repetition. By its CPU: what the whole core would carry at that cost.\n\n\
         | part | carried per second | of its core | by its CPU | what gave out |\n\
         |---|---|---|---|---|\n",
        FAILED_SHARE_MAX * 100.0
    );
    for Figure { part, unit, carried, busy, limit } in figures {
        let whole = carried / busy.max(0.001);
        let _ = writeln!(
            text,
            "| {part} | {carried:.0} {unit} | {:.0} % | {whole:.0} | {limit} |",
            busy * 100.0
        );
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_used_half_of_its_core_would_carry_twice_as_much() {
        let figure = Figure {
            part: "proxy".to_owned(),
            unit: "calls",
            carried: 500.0,
            busy: 0.5,
            limit: "the callers".to_owned(),
        };
        assert!(of(&[figure], 4).contains("| proxy | 500 calls | 50 % | 1000 | the callers |"));
    }
}
