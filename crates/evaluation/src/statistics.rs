//! A straight line through points, and small things about lists of numbers.

/// `y = intercept + slope · x`, and how much of the variance it explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
    pub(crate) r_squared: f64,
}

/// Least squares; `None` for fewer than three points or points above one another.
pub(crate) fn fit(points: &[(f64, f64)]) -> Option<Line> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if xx <= f64::EPSILON {
        return None;
    }
    let slope = xy / xx;
    // A level line through level points explains everything there is.
    let r_squared = if yy <= f64::EPSILON { 1.0 } else { xy * xy / (xx * yy) };
    Some(Line { slope, intercept: mean_y - slope * mean_x, r_squared })
}

/// The largest in units of the mean; `None` without values or if all are zero.
pub(crate) fn max_over_mean(values: &[f64]) -> Option<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean > 0.0).then(|| values.iter().copied().fold(0.0, f64::max) / mean)
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// What [`max_over_mean`] is on average when `total` calls are dealt to `bins` by chance alone.
pub(crate) fn fair_max_over_mean(bins: usize, total: f64) -> f64 {
    // Expected maximum of that many standard normal variables.
    const EXPECTED_MAX: [f64; 9] = [0.0, 0.0, 0.564, 0.846, 1.029, 1.163, 1.267, 1.352, 1.424];
    let deviations = EXPECTED_MAX.get(bins).copied().unwrap_or(1.5);
    let mean = total / bins as f64;
    if mean > 0.0 { 1.0 + deviations * ((1.0 - 1.0 / bins as f64) / mean).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_and_noise_lowers_r_squared() {
        let straight: Vec<(f64, f64)> =
            (0..50).map(|x| (f64::from(x), 3.0 + 0.5 * f64::from(x))).collect();
        let line = fit(&straight).expect("a line");
        assert!((line.slope - 0.5).abs() < 1e-9 && (line.intercept - 3.0).abs() < 1e-9, "{line:?}");
        assert!((line.r_squared - 1.0).abs() < 1e-9);

        let shaken: Vec<(f64, f64)> = straight
            .iter()
            .enumerate()
            .map(|(number, (x, y))| (*x, y + if number % 2 == 0 { 5.0 } else { -5.0 }))
            .collect();
        let line = fit(&shaken).expect("a line");
        assert!((0.5..0.9).contains(&line.r_squared), "{line:?}");
    }

    #[test]
    fn points_above_one_another_are_no_line() {
        assert_eq!(fit(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(fit(&[(1.0, 1.0), (2.0, 2.0)]), None);
    }

    #[test]
    fn chance_alone_makes_shares_uneven_and_more_calls_less_so() {
        assert_eq!(max_over_mean(&[30.0, 10.0]), Some(1.5));
        assert_eq!(max_over_mean(&[0.0, 0.0]), None);
        let (few, many) = (fair_max_over_mean(4, 1_000.0), fair_max_over_mean(4, 100_000.0));
        assert!((1.05..1.07).contains(&few) && (1.0..1.01).contains(&many), "{few} {many}");
    }
}
