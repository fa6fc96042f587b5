//! What was measured, as a table for people.

use std::fmt::Write as _;

use super::population::{Costs, Loaded};
use super::{Line, Plan};

pub(super) fn subscribers(lines: &[Line], plan: &Plan) -> String {
    let mut text = format!(
        "{} calls per second for {} s through the balancer, then registrations at 200 per second, in {} \
         rounds in turns; each figure the median of the rounds, CPU of balancer + proxy + Cassandra; in \
         brackets the sum beside that of the fewest subscribers.\n\n\
         | store | subscribers | users; registrations loaded in | calls, failed | CPU per call | to the \
         200: p50, p99 | REGISTERs, failed | CPU per REGISTER |\n|---|---|---|---|---|---|---|---|\n",
        plan.rate, plan.seconds, plan.rounds
    );
    for line in lines {
        let fewest = lines.iter().find(|other| other.store == line.store).unwrap_or(line);
        let Loaded { users_s, registrations_s } = line.loaded;
        let median =
            |costs: &[Costs], of: fn(&Costs) -> f64| middle(costs.iter().map(of).collect());
        let _ = writeln!(
            text,
            "| {} | {} | {users_s:.1}; {registrations_s:.1} s | {} | {} | {:.2}, {:.2} ms | {} | {} |",
            line.store,
            line.count,
            numbers(&line.calls),
            costs(&line.calls, &fewest.calls),
            median(&line.calls, |it| it.answer_ms[0]),
            median(&line.calls, |it| it.answer_ms[1]),
            numbers(&line.registrations),
            costs(&line.registrations, &fewest.registrations),
        );
    }
    text + "\n"
}

fn numbers(costs: &[Costs]) -> String {
    let sum = |of: fn(&Costs) -> u64| costs.iter().map(of).sum::<u64>();
    format!("{}, {}", sum(|it| it.number), sum(|it| it.failed))
}

fn costs(own: &[Costs], fewest: &[Costs]) -> String {
    let median = |of: fn(&Costs) -> f64| middle(own.iter().map(of).collect());
    let all = |costs: &[Costs]| {
        middle(costs.iter().map(|it| it.balancer_us + it.proxy_us + it.database_us).collect())
    };
    format!(
        "{:.0} + {:.0} + {:.0} µs [{:.2} ×]",
        median(|it| it.balancer_us),
        median(|it| it.proxy_us),
        median(|it| it.database_us),
        all(own) / all(fewest)
    )
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_stands_beside_that_of_the_fewest_subscribers() {
        let cost = |proxy_us| Costs {
            number: 10,
            failed: 1,
            balancer_us: 100.0,
            proxy_us,
            database_us: 0.0,
            answer_ms: [1.0, 2.0],
        };
        let (few, many) = ([cost(300.0)], [cost(900.0), cost(300.0), cost(400.0)]);
        assert_eq!(costs(&many, &few), "100 + 400 + 0 µs [1.25 ×]");
        assert_eq!(numbers(&many), "30, 3");
    }
}
