//! One chart as SVG: two axes of y over time, lines, a legend, and marks below the axis of time.

use std::fmt::Write as _;

use crate::series::Stretch;

const WIDTH: f64 = 1_200.0;
const HEIGHT: f64 = 640.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 92.0;
/// Below the marks' strip stand the numbers of the axis and its name.
const BOTTOM: f64 = 112.0;
const TEXT: f64 = 15.0;
/// Of a letter of the font, on average and with some air, in units of its size.
const LETTER: f64 = 0.64;
const LEGEND_LINE: f64 = 24.0;
/// Marks closer than this would touch: the second one goes one row lower.
const MARK_DISTANCE: f64 = 34.0;
const MARK_ROW: f64 = 20.0;

/// Drawn with the font of the PNG where it is there, and with what comes close elsewhere.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) caption: String,
    pub(crate) x: Axis,
    pub(crate) left: Axis,
    pub(crate) right: Option<Axis>,
    pub(crate) lines: Vec<Line>,
    pub(crate) marks: Vec<Mark>,
    /// What the marks mean.
    pub(crate) marks_legend: &'static str,
}

/// From zero to `max`.
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) max: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) side: Side,
    pub(crate) colour: &'static str,
    /// As in SVG; empty: solid.
    pub(crate) dashes: &'static str,
    pub(crate) width: f64,
    pub(crate) stretches: Vec<Stretch>,
}

/// A triangle on the axis of time.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) is_up: bool,
    pub(crate) number: u32,
}

/// Where the plot is, in the drawing's own units.
struct Frame {
    top: f64,
    x_max: f64,
    left_max: f64,
    right_max: f64,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (value / self.x_max).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64, side: Side) -> f64 {
        let max = if side == Side::Left { self.left_max } else { self.right_max };
        let height = HEIGHT - BOTTOM - self.top;
        self.top + height * (1.0 - (value / max).clamp(0.0, 1.0))
    }

    fn bottom() -> f64 {
        HEIGHT - BOTTOM
    }
}

impl Chart {
    /// The drawing, on a white ground of its own.
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"{FONT}\" font-size=\"{TEXT}\" \
             fill=\"#222222\">\n<title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             fill=\"#ffffff\"/>\n",
            escaped(&self.title),
        );
        text(&mut svg, (LEFT, 30.0), "start", 19.0, &self.title);
        text(&mut svg, (LEFT, 52.0), "start", 13.0, &self.caption);
        let top = self.draw_legend(&mut svg);
        let frame = Frame {
            top,
            x_max: self.x.max,
            left_max: nice_end(self.left.max),
            right_max: self.right.as_ref().map_or(1.0, |axis| nice_end(axis.max)),
        };
        self.draw_axes(&mut svg, &frame);
        self.draw_marks(&mut svg, &frame);
        for line in &self.lines {
            draw_line(&mut svg, &frame, line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Returns where the plot may begin.
    fn draw_legend(&self, svg: &mut String) -> f64 {
        let (mut x, mut y) = (LEFT, 78.0);
        let mut place = |width: f64| {
            if x + width > WIDTH - RIGHT && x > LEFT {
                (x, y) = (LEFT, y + LEGEND_LINE);
            }
            let at = (x, y);
            x += width;
            at
        };
        for line in &self.lines {
            let width = 44.0 + text_width(&line.name, TEXT) + 18.0;
            let (x, y) = place(width);
            let (from, to, middle) = (x, x + 34.0, y - 5.0);
            writeln!(
                svg,
                "<path d=\"M{from:.1} {middle:.1}H{to:.1}\" {}/>",
                stroke(line.colour, line.width, line.dashes),
            )
            .ok();
            text(svg, (x + 42.0, y), "start", TEXT, &line.name);
        }
        if !self.marks.is_empty() {
            let width = 50.0 + text_width(self.marks_legend, TEXT);
            let (x, y) = place(width);
            triangle(svg, (x + 8.0, y - 5.0), true);
            triangle(svg, (x + 26.0, y - 5.0), false);
            text(svg, (x + 42.0, y), "start", TEXT, self.marks_legend);
        }
        y + 22.0
    }

    fn draw_axes(&self, svg: &mut String, frame: &Frame) {
        let (bottom, right) = (Frame::bottom(), WIDTH - RIGHT);
        let grid = stroke("#dddddd", 1.0, "");
        let middle = (frame.top + bottom) / 2.0;
        for value in ticks(frame.left_max, 6) {
            let y = frame.y(value, Side::Left);
            writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" {grid}/>").ok();
            text(svg, (LEFT - 10.0, y + 5.0), "end", TEXT, &number(value));
        }
        upright(svg, (26.0, middle), -90.0, &self.left.name);
        if let Some(axis) = &self.right {
            for value in ticks(frame.right_max, 6) {
                let y = frame.y(value, Side::Right);
                writeln!(svg, "<path d=\"M{right} {y:.1}h6\" {}/>", stroke("#222222", 1.2, ""))
                    .ok();
                text(svg, (right + 12.0, y + 5.0), "start", TEXT, &number(value));
            }
            upright(svg, (WIDTH - 20.0, middle), 90.0, &axis.name);
        }
        let numbers = bottom + 2.0 * MARK_ROW + 24.0;
        for value in ticks(self.x.max, 12) {
            let x = frame.x(value);
            writeln!(svg, "<path d=\"M{x:.1} {bottom}v6\" {}/>", stroke("#222222", 1.2, "")).ok();
            text(svg, (x, numbers), "middle", TEXT, &number(value));
        }
        text(svg, ((LEFT + right) / 2.0, HEIGHT - 14.0), "middle", TEXT, &self.x.name);
        let top = frame.top;
        let close = if self.right.is_some() { format!("V{top}") } else { String::new() };
        let line = stroke("#222222", 1.2, "");
        writeln!(svg, "<path d=\"M{LEFT} {top}V{bottom}H{right}{close}\" {line}/>").ok();
    }

    fn draw_marks(&self, svg: &mut String, frame: &Frame) {
        let bottom = Frame::bottom();
        let mut taken = [f64::NEG_INFINITY; 2];
        for mark in &self.marks {
            let x = frame.x(mark.x);
            let line = stroke("#888888", 1.0, "2 4");
            writeln!(svg, "<path d=\"M{x:.1} {}V{bottom}\" {line}/>", frame.top).ok();
            let free = taken.iter().position(|last| x - last >= MARK_DISTANCE);
            let row = free.unwrap_or(1);
            let y = bottom + MARK_ROW * (row as f64 + 0.5) + 4.0;
            triangle(svg, (x, y), mark.is_up);
            // Where even the second row is full, the triangle alone stays.
            if free.is_some() {
                text(svg, (x + 9.0, y + 5.0), "start", 13.0, &mark.number.to_string());
            }
            taken[row] = x;
        }
    }
}

fn draw_line(svg: &mut String, frame: &Frame, line: &Line) {
    for stretch in &line.stretches {
        let mut path = String::new();
        for (number, (x, y)) in stretch.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", frame.x(*x), frame.y(*y, line.side)).ok();
        }
        // A single point is a dot: a line of no length with round ends.
        if stretch.len() == 1 {
            path.push_str("h0.1");
        }
        writeln!(svg, "<path d=\"{path}\" {}/>", stroke(line.colour, line.width, line.dashes)).ok();
    }
}

fn stroke(colour: &str, width: f64, dashes: &str) -> String {
    let dashes =
        if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
    format!(
        "fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\" \
         stroke-linecap=\"round\"{dashes}"
    )
}

fn triangle(svg: &mut String, (x, y): (f64, f64), is_up: bool) {
    let (tip, base) = if is_up { (y - 6.0, y + 5.0) } else { (y + 6.0, y - 5.0) };
    let (left, right) = (x - 6.0, x + 6.0);
    let fill = if is_up { "#222222" } else { "#ffffff" };
    writeln!(
        svg,
        "<path d=\"M{x:.1} {tip:.1}L{left:.1} {base:.1}H{right:.1}Z\" fill=\"{fill}\" \
         stroke=\"#222222\" stroke-width=\"1.3\"/>"
    )
    .ok();
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, size: f64, content: &str) {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>",
        escaped(content)
    )
    .ok();
}

fn upright(svg: &mut String, (x, y): (f64, f64), degrees: f64, content: &str) {
    writeln!(
        svg,
        "<text transform=\"translate({x:.1} {y:.1}) rotate({degrees})\" \
         text-anchor=\"middle\">{}</text>",
        escaped(content)
    )
    .ok();
}

fn text_width(content: &str, size: f64) -> f64 {
    content.chars().count() as f64 * size * LETTER
}

fn escaped(content: &str) -> String {
    content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Round values from zero up to `max`, about so many.
fn ticks(max: f64, about: u32) -> Vec<f64> {
    let step = nice_step(max / f64::from(about));
    let count = (max / step + 1e-9).floor() as u32;
    (0..=count).map(|number| f64::from(number) * step).collect()
}

/// The next round value above, with a little air.
fn nice_end(max: f64) -> f64 {
    let step = nice_step(max / 6.0);
    ((max * 1.04) / step).ceil().max(1.0) * step
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn nice_step(least: f64) -> f64 {
    let least = if least.is_finite() && least > 0.0 { least } else { 0.1 };
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= least * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// Without digits that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(
            ticks(112.5, 12),
            [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0]
        );
        assert_eq!(nice_end(800.0), 1_000.0);
        assert_eq!(ticks(nice_end(800.0), 6), [0.0, 200.0, 400.0, 600.0, 800.0, 1_000.0]);
        assert_eq!(ticks(nice_end(0.43), 6).last(), Some(&0.5));
        assert_eq!(number(0.30000000000000004), "0.3");
        assert!(nice_end(0.0) > 0.0, "an empty run has axes too");
    }
}
