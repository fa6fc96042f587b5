//! Figures 5 and 6 of the paper, from the samples of a run.

use crate::chart::{Axis, Chart, Line, Mark, Side};
use crate::record::{Decision, Part, Run, Sample};
use crate::series::{means, steps};

/// Told apart by people who see colours differently, and by their dashes in print.
const PROXY_LOOKS: [(&str, &str); 8] = [
    ("#0072b2", ""),
    ("#d55e00", "9 4"),
    ("#009e73", "3 4"),
    ("#aa4499", "12 4 3 4"),
    ("#56b4e9", "6 3"),
    ("#b8860b", "2 3"),
    ("#7f4f24", "14 3"),
    ("#5c5c9e", "5 5"),
];
const BALANCER_COLOUR: &str = "#000000";
const STORE_COLOUR: &str = "#e69f00";
const CAPACITY_COLOUR: &str = "#777777";

/// Points of a line at most: more would be noise of single seconds.
const POINTS_MAX: f64 = 340.0;
/// What the figures show; the load's own processes are in the samples.
const SHOWN: [Part; 3] = [Part::Balancer, Part::Proxy, Part::Store];

/// Network I/O per instance on the left, total capacity in steps on the right, over time; as SVG.
pub fn figure_5(run: &Run) -> String {
    let lines = instance_lines(run, Sample::network_bytes_per_s);
    let (unit, size) = if largest(&lines) >= 1e6 { ("MB/s", 1e6) } else { ("kB/s", 1e3) };
    let mut lines = scaled(lines, 1.0 / size);
    let left = Axis { name: format!("network input and output, {unit}"), max: largest(&lines) };
    let capacity = capacity_line(run);
    let right_max = largest(std::slice::from_ref(&capacity));
    lines.push(capacity);
    let right = Axis { name: "total capacity, calls per second".to_owned(), max: right_max };
    let title = "Figure 5. Network I/O of each instance, and total capacity of the proxies";
    chart(run, title, left, Some(right), lines).svg()
}

/// CPU of each instance over time; as SVG.
pub fn figure_6(run: &Run) -> String {
    let lines = instance_lines(run, |sample| sample.cpu_percent);
    let left = Axis { name: "CPU, percent of one core".to_owned(), max: largest(&lines) };
    chart(run, "Figure 6. CPU utilisation of each instance", left, None, lines).svg()
}

fn chart(run: &Run, title: &str, left: Axis, right: Option<Axis>, lines: Vec<Line>) -> Chart {
    let mark = |decision: &Decision| Mark {
        x: run.minutes(decision.at_s),
        is_up: decision.is_launch(),
        number: decision.desired,
    };
    Chart {
        title: title.to_owned(),
        caption: run.caption.clone(),
        x: Axis {
            name: "time since the first call, minutes of the experiment".to_owned(),
            max: run.minutes(run.duration_s()).max(0.1),
        },
        left,
        right,
        lines,
        marks: run.decisions.iter().map(mark).collect(),
        marks_legend: "decision to launch, to remove: proxies wanted",
    }
}

fn instance_lines(run: &Run, value: impl Fn(&Sample) -> Option<f64>) -> Vec<Line> {
    let interval = run.minutes(run.sample_interval_s);
    let width = (run.minutes(run.duration_s()) / POINTS_MAX).max(interval * 1.5);
    let mut lines = Vec::new();
    let mut proxies = 0;
    for (part, name, samples) in run.instances(&SHOWN) {
        let points: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|sample| Some((run.minutes(sample.at_s), value(sample)?)))
            .collect();
        if points.is_empty() {
            continue;
        }
        let (colour, dashes) = match part {
            Part::Balancer => (BALANCER_COLOUR, ""),
            Part::Store => (STORE_COLOUR, ""),
            _ => {
                proxies += 1;
                PROXY_LOOKS[(proxies - 1) % PROXY_LOOKS.len()]
            }
        };
        lines.push(Line {
            name: name.to_owned(),
            side: Side::Left,
            colour,
            dashes,
            width: 1.8,
            stretches: means(&points, width, interval * 4.0),
        });
    }
    lines
}

fn capacity_line(run: &Run) -> Line {
    let points: Vec<(f64, f64)> = run
        .moments
        .iter()
        .map(|it| (run.minutes(it.at_s), f64::from(it.in_service) * run.policy.capacity_each))
        .collect();
    Line {
        name: "total capacity (right axis)".to_owned(),
        side: Side::Right,
        colour: CAPACITY_COLOUR,
        dashes: "",
        width: 3.0,
        stretches: vec![steps(&points, run.minutes(run.duration_s()))],
    }
}

fn largest(lines: &[Line]) -> f64 {
    let values = lines.iter().flat_map(|line| &line.stretches).flatten().map(|(_, y)| *y);
    values.fold(0.0, f64::max)
}

fn scaled(mut lines: Vec<Line>, factor: f64) -> Vec<Line> {
    for (_, y) in lines.iter_mut().flat_map(|line| &mut line.stretches).flatten() {
        *y *= factor;
    }
    lines
}
