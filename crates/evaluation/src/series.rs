//! Samples made ready to be drawn: means over even stretches, broken where there is nothing.

/// A stretch of a line: points that belong together.
pub(crate) type Stretch = Vec<(f64, f64)>;

/// Means of `points` over stretches of `width`, at their middles. Where more than `gap` lies between
/// two points, the line is broken. Points are in the order of x.
pub(crate) fn means(points: &[(f64, f64)], width: f64, gap: f64) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut current: Stretch = Vec::new();
    // Number of the stretch, sum of y, count.
    let mut open: Option<(f64, f64, f64)> = None;
    let mut last_x = f64::NEG_INFINITY;
    let close = |open: &mut Option<(f64, f64, f64)>, current: &mut Stretch| {
        if let Some((number, sum, count)) = open.take() {
            current.push(((number + 0.5) * width, sum / count));
        }
    };
    for (x, y) in points {
        let number = (x / width).floor();
        if x - last_x > gap && last_x.is_finite() {
            close(&mut open, &mut current);
            stretches.push(std::mem::take(&mut current));
        }
        match &mut open {
            Some((of, sum, count)) if *of == number => {
                *sum += y;
                *count += 1.0;
            }
            _ => {
                close(&mut open, &mut current);
                open = Some((number, *y, 1.0));
            }
        }
        last_x = *x;
    }
    close(&mut open, &mut current);
    stretches.push(current);
    stretches.retain(|stretch| !stretch.is_empty());
    stretches
}

/// A step function through `points`, up to `end`.
pub(crate) fn steps(points: &[(f64, f64)], end: f64) -> Stretch {
    let mut line = Stretch::new();
    for (x, y) in points {
        if let Some((_, before)) = line.last().copied() {
            if before == *y {
                continue;
            }
            line.push((*x, before));
        }
        line.push((*x, *y));
    }
    if let Some((_, last)) = line.last().copied() {
        line.push((end, last));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_stand_in_the_middle_and_a_gap_breaks_the_line() {
        let points = [(0.5, 1.0), (1.0, 3.0), (2.5, 4.0), (9.0, 5.0), (9.5, 7.0)];
        let lines = means(&points, 2.0, 3.0);
        assert_eq!(lines, [vec![(1.0, 2.0), (3.0, 4.0)], vec![(9.0, 6.0)]]);
        assert!(means(&[], 2.0, 3.0).is_empty());
    }

    #[test]
    fn steps_are_level_up_to_their_change() {
        let points = [(0.0, 1.0), (1.0, 1.0), (2.0, 2.0)];
        assert_eq!(steps(&points, 3.0), [(0.0, 1.0), (2.0, 1.0), (2.0, 2.0), (3.0, 2.0)]);
    }
}
