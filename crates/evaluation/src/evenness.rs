//! How evenly proxies share the load: by the minute, and while one of them leaves.

use crate::record::{Part, Run, Sample};
use crate::statistics::{fair_max_over_mean, max_over_mean, median};

/// Minutes in which the same proxies were in service from end to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharing {
    pub proxies: usize,
    pub minutes: usize,
    /// Calls of the busiest proxy in units of the mean: in the median minute and in the worst.
    pub median: f64,
    pub worst: f64,
    /// What chance alone would make of the median minute.
    pub fair: f64,
}

/// By the number of proxies, two and more.
pub(crate) fn sharing(run: &Run) -> Vec<Sharing> {
    let minute_s = run.minute_s();
    let mut by_count: Vec<(usize, Vec<(f64, f64)>)> = Vec::new();
    let minutes = (run.duration_s() / minute_s).floor() as u32;
    for minute in 0..minutes {
        let begin = f64::from(minute) * minute_s;
        let Some(calls) = calls_of_steady(run, begin, begin + minute_s) else {
            continue;
        };
        let Some(uneven) = max_over_mean(&calls).filter(|_| calls.len() > 1) else {
            continue;
        };
        let entry = (uneven, calls.iter().sum::<f64>());
        match by_count.iter_mut().find(|(count, _)| *count == calls.len()) {
            Some((_, entries)) => entries.push(entry),
            None => by_count.push((calls.len(), vec![entry])),
        }
    }
    by_count.sort_by_key(|(count, _)| *count);
    by_count
        .into_iter()
        .filter_map(|(proxies, entries)| {
            let values: Vec<f64> = entries.iter().map(|(uneven, _)| *uneven).collect();
            let totals: Vec<f64> = entries.iter().map(|(_, total)| *total).collect();
            Some(Sharing {
                proxies,
                minutes: entries.len(),
                median: median(&values)?,
                worst: values.iter().copied().fold(0.0, f64::max),
                fair: fair_max_over_mean(proxies, median(&totals)?),
            })
        })
        .collect()
}

/// Calls of each proxy between two instants, if all that had any were in service throughout.
fn calls_of_steady(run: &Run, begin: f64, end: f64) -> Option<Vec<f64>> {
    let mut calls = Vec::new();
    let mut lengths = Vec::new();
    for (_, _, samples) in run.instances(&[Part::Proxy]) {
        let within: Vec<&&Sample> =
            samples.iter().filter(|it| it.at_s > begin && it.at_s <= end).collect();
        let in_service = within.iter().filter(|it| it.is_in_service()).count();
        if in_service != 0 && in_service != within.len() {
            return None;
        }
        if in_service > 0 {
            calls.push(total_calls(run, &within));
            lengths.push(in_service);
        }
    }
    // One that joined in between has fewer samples.
    lengths.windows(2).all(|pair| pair[0] == pair[1]).then_some(calls)
}

fn total_calls(run: &Run, samples: &[&&Sample]) -> f64 {
    samples.iter().map(|it| it.calls_per_s * run.sample_interval_s).sum()
}

/// How the others fared between two instants: the busiest in units of the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Busiest {
    pub calls: f64,
    pub network: f64,
    /// What chance alone would make of the calls.
    pub fair: f64,
    pub proxies: usize,
}

/// Of the proxies in service throughout, `leaving` excluded; `None` if fewer than two.
pub(crate) fn busiest(run: &Run, leaving: &str, begin: f64, end: f64) -> Option<Busiest> {
    let (mut calls, mut network) = (Vec::new(), Vec::new());
    for (_, name, samples) in run.instances(&[Part::Proxy]) {
        let within: Vec<&&Sample> =
            samples.iter().filter(|it| it.at_s > begin && it.at_s <= end).collect();
        if name == leaving || within.is_empty() || !within.iter().all(|it| it.is_in_service()) {
            continue;
        }
        calls.push(total_calls(run, &within));
        network.push(within.iter().filter_map(|it| it.network_bytes_per_s()).sum::<f64>());
    }
    if calls.len() < 2 {
        return None;
    }
    Some(Busiest {
        calls: max_over_mean(&calls)?,
        network: max_over_mean(&network)?,
        fair: fair_max_over_mean(calls.len(), calls.iter().sum()),
        proxies: calls.len(),
    })
}
