//! One plot as SVG: axes with ticks, lines with points, a legend.

use std::fmt::Write;

use super::text;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 650.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 330.0;
/// Above it is the name of the axis.
const HEIGHT: f64 = 380.0;
const COLOURS: [&str; 10] = [
    "#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#57606a",
    "#bc4c00", "#3a3f45",
];

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
    /// Values are the part above a percentile: 0.01 is the 99th, and to the right of 0.1.
    Percentile,
}

/// Of one subject.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// See the module.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// Name and scale.
    pub(super) x: (&'a str, Scale),
    pub(super) y: (&'a str, Scale),
    pub(super) lines: Vec<Line>,
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.map(|value| scale.place(value)).collect();
        let mut low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let mut high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if scale == Scale::Linear {
            low = 0.0;
        }
        if high - low < 1e-9 {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let ticks = scale.ticks(low, high);
        Self {
            scale,
            low,
            high,
            ticks,
        }
    }

    /// From 0 to 1.
    fn part(&self, value: f64) -> f64 {
        (self.scale.place(value) - self.low) / (self.high - self.low)
    }
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
            Self::Percentile => -value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    /// Values and their names between two places.
    fn ticks(self, low: f64, high: f64) -> Vec<(f64, String)> {
        let decades = low.floor() as i32..=high.ceil() as i32;
        let all: Vec<(f64, String)> = match self {
            Self::Linear => {
                let step = nice_step(high - low);
                let count = ((high - low) / step).floor() as i32;
                let values = (0..=count).map(|n| low + f64::from(n) * step);
                values.map(|value| (value, number(value))).collect()
            }
            Self::Logarithmic => {
                let factors: &[f64] = if high - low < 2.5 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let values = decades.flat_map(|decade| {
                    factors
                        .iter()
                        .map(move |factor| factor * 10_f64.powi(decade))
                });
                values.map(|value| (value, number(value))).collect()
            }
            Self::Percentile => {
                let parts = [0.5].into_iter().chain((1..=6).map(|n| 10_f64.powi(-n)));
                let named = parts.map(|above| (above, format!("{}", 100.0 - 100.0 * above)));
                let digits = |name: String| name.chars().take(7).collect();
                named.map(|(above, name)| (above, digits(name))).collect()
            }
        };
        let inside = |value: f64| (low - 1e-9..=high + 1e-9).contains(&self.place(value));
        all.into_iter()
            .filter(|(value, _)| inside(*value))
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that some five of them make the span.
fn nice_step(span: f64) -> f64 {
    let decade = 10_f64.powf((span / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
    let fits = steps.into_iter().find(|step| span / step <= 6.0);
    fits.unwrap_or(10.0 * decade)
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v => format!("{}", (v * 1e4).round() / 1e4),
    }
}

impl Plot<'_> {
    /// Title and plot; nothing if there are no lines.
    pub(super) fn to_html(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().next().is_none() {
            return String::new();
        }
        let x = Axis::new(self.x.1, points().map(|point| point.0));
        let y = Axis::new(self.y.1, points().map(|point| point.1));
        let at = |point: &(f64, f64)| {
            (
                LEFT + x.part(point.0) * (RIGHT - LEFT),
                BOTTOM - y.part(point.1) * (BOTTOM - TOP),
            )
        };
        let height = HEIGHT.max(TOP + 22.0 * self.lines.len() as f64 + 20.0);
        let title = text(self.title);
        let mut svg = format!(
            "<h2>{title}</h2>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"system-ui,sans-serif\" font-size=\"12\">\n"
        );
        for (value, name) in &x.ticks {
            let place = LEFT + x.part(*value) * (RIGHT - LEFT);
            let _ = writeln!(
                svg,
                "<path d=\"M{place:.1} {TOP}V{BOTTOM}\" stroke=\"#e3e6ea\"/>\
                 <text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                BOTTOM + 18.0
            );
        }
        for (value, name) in &y.ticks {
            let place = BOTTOM - y.part(*value) * (BOTTOM - TOP);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {place:.1}H{RIGHT}\" stroke=\"#e3e6ea\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                LEFT - 6.0,
                place + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#57606a\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, RIGHT),
            BOTTOM + 40.0,
            text(self.x.0),
            f64::midpoint(TOP, BOTTOM),
            text(self.y.0)
        );
        for (number, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            // With more lines than colours the second ones are dashed.
            let dash = if number >= COLOURS.len() {
                "5 3"
            } else {
                "none"
            };
            let places: Vec<String> = line
                .points
                .iter()
                .map(at)
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" stroke-dasharray=\"{dash}\"/>",
                places.join(" ")
            );
            if line.points.len() <= 16 {
                for (x, y) in line.points.iter().map(at) {
                    let _ = writeln!(
                        svg,
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{colour}\"/>"
                    );
                }
            }
            let place = TOP + 12.0 + 22.0 * number as f64;
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {place:.1}h22\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-dasharray=\"{dash}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                RIGHT + 14.0,
                RIGHT + 42.0,
                place + 4.0,
                text(&line.name)
            );
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_inside_and_have_round_values() {
        let axis = Axis::new(Scale::Logarithmic, [3.0, 70.0].into_iter());
        let values: Vec<f64> = axis.ticks.iter().map(|tick| tick.0).collect();
        assert_eq!(values, [5.0, 10.0, 20.0, 50.0]);
        let axis = Axis::new(Scale::Linear, [1.0, 9.0].into_iter());
        assert_eq!(axis.ticks[0], (0.0, "0".into()));
        assert_eq!(axis.ticks.last().unwrap().0, 8.0);
        let axis = Axis::new(Scale::Percentile, [1.0, 0.0005].into_iter());
        let names: Vec<&str> = axis.ticks.iter().map(|tick| &*tick.1).collect();
        assert_eq!(names, ["50", "90", "99", "99.9"]);
    }

    #[test]
    fn a_plot_without_lines_is_nothing() {
        let plot = Plot {
            title: "none",
            x: ("x", Scale::Linear),
            y: ("y", Scale::Linear),
            lines: Vec::new(),
        };
        assert_eq!(plot.to_html(), "");
    }
}
