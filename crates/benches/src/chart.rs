//! A line chart as SVG, written by hand: a few lines over linear x and logarithmic y.

use std::fmt::Write;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 280.0;
/// Space around the plot: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (52.0, 52.0, 12.0, 42.0);
const LEGEND_Y: f64 = 36.0;
const LEGEND_STEP: f64 = 88.0;
/// Told apart in colour and, printed in grey, in lightness.
const COLOURS: [&str; 4] = ["#7fb3e6", "#0b4f9e", "#f2a65a", "#b0410e"];

/// A line and its name in the legend.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Points, x ascending.
    pub points: Vec<(f64, f64)>,
}

/// One plot.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// At most as many as there are colours.
    pub lines: Vec<Line>,
}

/// The charts side by side, as an SVG document.
pub fn svg(charts: &[Chart]) -> String {
    let width = WIDTH * charts.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (at, chart) in charts.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", WIDTH * at as f64);
        chart.draw(&mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

impl Chart {
    fn draw(&self, out: &mut String) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
        // Whole decades; a latency of nothing would have no logarithm.
        let positive = || points().map(|(_, y)| y.max(1e-3));
        let low = positive().fold(f64::INFINITY, f64::min).min(1e6).log10().floor() as i32;
        let high = (positive().fold(1e-3, f64::max).log10().ceil() as i32).max(low + 1);
        let (left, top, right, bottom) = MARGIN;
        let x_of = |x: f64| left + x / x_max * (WIDTH - left - right);
        let share = |y: f64| (y.max(1e-3).log10() - f64::from(low)) / f64::from(high - low);
        let y_of = |y: f64| HEIGHT - bottom - share(y) * (HEIGHT - top - bottom);
        let text = |out: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
            let text = escape(text);
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
            );
        };
        text(out, left, 18.0, "start", &self.title);
        for decade in low..=high {
            let y = y_of(10f64.powi(decade));
            let x_end = WIDTH - right;
            let _ = writeln!(
                out,
                "<path d=\"M{left:.1} {y:.1}H{x_end:.1}\" stroke=\"#ddd\" fill=\"none\"/>"
            );
            text(out, left - 5.0, y + 4.0, "end", &10f64.powi(decade).to_string());
        }
        let step = tick(x_max);
        for number in 0..=(x_max / step) as u32 {
            let x = step * f64::from(number);
            text(out, x_of(x), HEIGHT - bottom + 15.0, "middle", &short(x));
        }
        text(out, x_of(x_max / 2.0), HEIGHT - 8.0, "middle", &self.x_label);
        text(out, left - 5.0, LEGEND_Y, "end", &self.y_label);
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let mut path = String::new();
            for (at, (x, y)) in line.points.iter().enumerate() {
                let verb = if at == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{verb}{:.1} {:.1}", x_of(*x), y_of(*y));
            }
            let _ = writeln!(
                out,
                "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"1.8\" fill=\"none\"/>"
            );
        }
        for (at, (line, colour)) in self.lines.iter().zip(COLOURS).enumerate() {
            let x = left + LEGEND_STEP * at as f64;
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {:.1}h12\" stroke=\"{colour}\" stroke-width=\"3\"/>",
                LEGEND_Y - 4.0
            );
            text(out, x + 15.0, LEGEND_Y, "start", &line.name);
        }
    }
}

/// A round step that divides the axis into four to ten.
fn tick(max: f64) -> f64 {
    let decade = 10f64.powf((max / 4.0).log10().floor());
    [5.0, 2.0, 1.0]
        .map(|factor| factor * decade)
        .into_iter()
        .find(|step| max / step >= 4.0)
        .unwrap_or(decade)
}

fn short(number: f64) -> String {
    if number >= 1000.0 { format!("{}k", number / 1000.0) } else { number.to_string() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lie_inside_the_plot_and_text_is_escaped() {
        let line = Line { name: "a<b".to_owned(), points: vec![(0.0, 0.1), (500.0, 90.0)] };
        let chart = Chart {
            title: "t".to_owned(),
            x_label: "x".to_owned(),
            y_label: "y".to_owned(),
            lines: vec![line],
        };
        let text = svg(&[chart.clone(), chart]);
        assert!(
            text.contains("a&lt;b") && !text.contains("NaN") && !text.contains("inf"),
            "{text}"
        );
        // The first point at the left end of the second decade line, the last at the right end.
        assert!(text.contains("d=\"M52.0 238.0L408.0 "), "{text}");
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (max, step) in [(100.0, 20.0), (47_000.0, 10_000.0), (120_000.0, 20_000.0), (4.0, 1.0)]
        {
            assert_eq!(tick(max), step, "{max}");
        }
    }
}
