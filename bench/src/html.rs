//! The report as one page: plots as inline SVG, no scripts and nothing from elsewhere.

mod plot;

use std::fmt::Write;

use self::plot::{Line, Plot, Scale};
use crate::calibrator::NEAR_NS_MAX;
use crate::judge::Figure;
use crate::report::{Report, Summary, goal_text};
use crate::statistics::Spread;
use crate::step::{Kind, Place, Stage, Step};
use crate::subject::Subject;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;\
color:#1b1f24;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}\
table{border-collapse:collapse;font-size:.85rem;width:100%}\
td,th{border-bottom:1px solid #d5d9de;padding:.2rem .5rem;text-align:right}\
td:first-child,th:first-child{text-align:left}.reached{color:#116329}.missed{color:#a40e26;font-weight:600}\
svg{width:100%;height:auto}p.note{color:#57606a;font-size:.85rem}";

/// Text that is no markup.
fn text(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut page =
        String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">");
    let headline = text(&report.headline());
    page += &format!("<title>xtipc-bench</title><style>{STYLE}</style></head>\n<body>\n");
    page += &format!(
        "<h1>What xtipc costs</h1>\n<p>{headline}; {}</p>\n",
        text(&method(report))
    );
    if let Some(spread) = report.calibrations().filter(|_| !report.is_counted()) {
        page += &format!(
            "<p class=\"note\">Calibrator (a round trip through shared memory between the two processors) {:.0} ns ({:.0} to \
             {:.0}; others took {:.1} % of its time), {} rounds. Ratios are medians of pairs of one round. A pair is near if the calibrator said less than \
             {NEAR_NS_MAX:.0} ns before it, else far; pairs around which it moved are discarded.</p>\n",
            spread.median,
            spread.least,
            spread.most,
            100.0 * report.taken(),
            report.rounds.len()
        );
    }
    page += &ratios(report);
    for (title, place) in [
        ("Round trips between two nodes", Place::Apart),
        (
            "Round trips between two nodes on one processor",
            Place::Crowded,
        ),
        ("Round trips on one node", Place::Together),
        (
            "Round trips on one node and one processor",
            Place::OneProcessor,
        ),
    ] {
        page += &latencies(report, title, |step| {
            matches!(step.kind, Kind::RoundTrip | Kind::Paced) && step.place == place
        });
    }
    page += &latencies(report, "Urgent round trips beside loads", |step| {
        step.kind == Kind::Load
    });
    page += &by_size(report);
    page += &by_mtu(report);
    page += &by_senders(report);
    page += &beside_sockets(report);
    page += &costs(report);
    page += &all_steps(report);
    page += "</body>\n</html>\n";
    page
}

fn method(report: &Report) -> String {
    let facts = report.method.facts();
    facts
        .map(|(name, value)| format!("{name} {value}"))
        .join(", ")
}

fn ratios(report: &Report) -> String {
    let mut rows = String::new();
    for verdict in &report.verdicts {
        let ratio = verdict.ratio.map_or("-".into(), |ratio| {
            format!(
                "{:.3} ({:.3} to {:.3})",
                ratio.median, ratio.least, ratio.most
            )
        });
        let class = match verdict.passes() {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "",
        };
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{ratio}</td><td>{} / {} / {}</td><td class=\"{class}\">{}</td></tr>",
            text(&verdict.name),
            verdict.near,
            verdict.far,
            verdict.discarded,
            text(&goal_text(verdict).unwrap_or_default())
        );
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Ratios</h2>\n<table><tr><th>what</th><th>median (least to most)</th>\
         <th>near / far / discarded</th><th>goal</th></tr>\n{rows}</table>\n"
    )
}

/// Percentile curves: the histograms of all rounds together.
fn latencies(report: &Report, title: &str, kept: impl Fn(&Step) -> bool) -> String {
    let (unit, scale) = report.unit_of_times();
    let kept = report.summaries.iter().filter(|s| kept(&s.step));
    let lines = kept.map(|summary| {
        let mut counts = std::collections::BTreeMap::new();
        for figure in report.figures(summary.step) {
            if let Figure::Times(times) | Figure::Load { urgent: times, .. } = figure {
                for &(value, count) in &times.histogram {
                    *counts.entry(value).or_insert(0) += count;
                }
            }
        }
        // What the title says already.
        let name = summary.name.trim_start_matches("round trip ");
        Line {
            name: name.replace(" local", "").replace(", one processor", ""),
            points: percentile_curve(&counts, scale),
        }
    });
    Plot {
        title,
        x: ("percentile", Scale::Percentile),
        y: (unit, Scale::Logarithmic),
        lines: lines.collect(),
    }
    .to_html()
}

/// Points (part of the times above, time): the x of a percentile is the part above it.
fn percentile_curve(counts: &std::collections::BTreeMap<u64, u64>, scale: f64) -> Vec<(f64, f64)> {
    let total: u64 = counts.values().sum();
    let mut below = 0;
    let mut points = Vec::new();
    for (&value, &count) in counts {
        // From here on this value is the percentile.
        let above = (total - below) as f64 / total as f64;
        points.push((above, value as f64 / scale));
        below += count;
    }
    points
}

/// Lines of rates, one for each subject and stage, over what `x` picks of a step.
fn rates(
    report: &Report,
    kept: impl Fn(&Summary) -> bool,
    x: impl Fn(&Summary) -> f64,
    y: impl Fn(&Summary, f64) -> f64,
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for summary in report.summaries.iter().filter(|s| kept(s)) {
        let name = match (summary.step.subject, summary.step.stage) {
            (Subject::Xtipc, Stage::Single) => "xtipc, one message per packet".into(),
            (subject, _) => subject.to_string(),
        };
        let rates = report.figures(summary.step).filter_map(Figure::flow);
        let rate = Spread::of(rates.map(|flow| flow.messages_per_second));
        let Some(rate) = rate else { continue };
        let point = (x(summary), y(summary, rate.median));
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name,
                points: vec![point],
            }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines.retain(|line| line.points.len() > 1);
    lines
}

fn by_size(report: &Report) -> String {
    let kept = |s: &Summary| {
        let step = s.step;
        step.kind == Kind::Rate
            && step.place == Place::Apart
            && step.mtu == crate::step::MTU
            && step.copies == 1
    };
    let size = |s: &Summary| s.step.size as f64;
    let messages = Plot {
        title: "Messages per second by size",
        x: ("bytes of a message", Scale::Logarithmic),
        y: ("messages per second", Scale::Logarithmic),
        lines: rates(report, kept, size, |_, rate| rate),
    };
    let throughput = Plot {
        title: "Throughput by size",
        x: ("bytes of a message", Scale::Logarithmic),
        y: ("Gbit/s", Scale::Logarithmic),
        lines: rates(report, kept, size, |s, rate| rate * size(s) * 8e-9),
    };
    messages.to_html() + &throughput.to_html()
}

fn by_mtu(report: &Report) -> String {
    let kept = |s: &Summary| s.step.kind == Kind::Rate && s.step.size == crate::plan::LARGE;
    Plot {
        title: "Throughput of messages of 60,000 bytes by MTU",
        x: ("MTU", Scale::Logarithmic),
        y: ("Gbit/s", Scale::Linear),
        lines: rates(
            report,
            kept,
            |s| f64::from(s.step.mtu),
            |s, rate| rate * s.step.size as f64 * 8e-9,
        ),
    }
    .to_html()
}

fn by_senders(report: &Report) -> String {
    Plot {
        title: "Goodput by senders, each as fast as it can",
        x: ("senders", Scale::Linear),
        y: ("messages per second", Scale::Linear),
        lines: rates(
            report,
            |s| s.step.kind == Kind::Load,
            |s| s.step.copies as f64,
            |_, rate| rate,
        ),
    }
    .to_html()
}

/// A name, and what of which figures grows.
type Growing = (&'static str, Kind, fn(&Figure) -> Option<f64>);

/// How a figure grows with the number of something: the medians of the steps that have it.
fn growth(
    report: &Report,
    title: &str,
    (x, y): ((&str, Scale), (&str, Scale)),
    figures: &[Growing],
) -> String {
    let line = |&(name, kind, pick): &Growing| {
        let steps = report.summaries.iter().filter(|s| s.step.kind == kind);
        let points = steps.filter_map(|s| {
            let figures = report.figures(s.step).filter_map(pick);
            Some((s.step.copies as f64, Spread::of(figures)?.median))
        });
        Line {
            name: name.into(),
            points: points.collect(),
        }
    };
    let lines: Vec<_> = figures.iter().map(line).collect();
    // One point is no curve, and what is nothing has no logarithm.
    let lines = lines.into_iter().map(|mut line| {
        line.points
            .retain(|point| y.1 == Scale::Linear || point.1 > 0.0);
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        line
    });
    let lines = lines.filter(|line| line.points.len() > 1).collect();
    Plot { title, x, y, lines }.to_html()
}

fn costs(report: &Report) -> String {
    let memory = growth(
        report,
        "Memory that sockets, and peers with their links, add to a daemon",
        (
            ("sockets or peers", Scale::Logarithmic),
            ("KB", Scale::Logarithmic),
        ),
        &[
            ("sockets", Kind::Idle, |figure| {
                Some(figure.cost()?.added_bytes as f64 / 1e3)
            }),
            ("peers", Kind::Peers, |figure| {
                Some(figure.cost()?.added_bytes as f64 / 1e3)
            }),
        ],
    );
    let processor = growth(
        report,
        "Processor time of an idle daemon by peers",
        (("peers", Scale::Linear), ("ms per second", Scale::Linear)),
        &[("an idle daemon", Kind::Peers, |figure| {
            Some(1e3 * figure.cost()?.processor_share)
        })],
    );
    let engine = growth(
        report,
        "Cost by cluster size (simulated)",
        (
            ("nodes", Scale::Linear),
            ("µs of processor time per node and second", Scale::Linear),
        ),
        &[("an idle engine", Kind::Cluster, |figure| match figure {
            Figure::Share(share) => Some(1e6 * share),
            _ => None,
        })],
    );
    memory + &processor + &engine
}

/// Of the sleeping round trip.
fn beside_sockets(report: &Report) -> String {
    let (unit, scale) = report.unit_of_times();
    let kept = |s: &&Summary| s.step.times(1) == crate::plan::SLEEPING_XTIPC;
    let points = report.summaries.iter().filter(kept);
    let points = points.map(|s| (s.step.copies as f64, s.spread.median / scale));
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let lines = vec![Line {
        name: "p50, xtipc sleeping".into(),
        points,
    }];
    let several = lines[0].points.len() > 1;
    Plot {
        title: "Round trip beside other sockets of the node",
        x: ("sockets", Scale::Logarithmic),
        y: (unit, Scale::Linear),
        lines: if several { lines } else { Vec::new() },
    }
    .to_html()
}

fn all_steps(report: &Report) -> String {
    let mut rows = String::new();
    for summary in &report.summaries {
        let Spread {
            median,
            least,
            most,
            ..
        } = summary.spread;
        let (unit, scale) = match summary.step.kind {
            Kind::RoundTrip | Kind::Paced => report.unit_of_times(),
            Kind::Rate | Kind::Load => ("MB/s", 1e6),
            Kind::Idle | Kind::Peers | Kind::Cluster => ("% of a processor", 0.01),
        };
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{:.3}</td><td>{:.3} to {:.3}</td><td>{unit}</td></tr>",
            text(&summary.name),
            median / scale,
            least / scale,
            most / scale
        );
    }
    for (name, why) in &report.left_out {
        let (name, why) = (text(name), text(why));
        let _ = writeln!(
            rows,
            "<tr><td>{name}</td><td></td><td></td><td>{why}</td></tr>"
        );
    }
    format!(
        "<h2>All steps</h2>\n<table><tr><th>step</th><th>median</th><th>least to most</th><th>unit</th></tr>\n\
         {rows}</table>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrator::Calibration;
    use crate::environment::Environment;
    use crate::goals::COMPARISONS;
    use crate::judge::{Measured, PAIRS_MIN, Round};
    use crate::method::Method;
    use crate::plan::{SPINNING_TCP, SPINNING_XTIPC, UDP_RATE};
    use crate::rate::{Flow, Received, Sent};
    use crate::statistics::Times;
    use hdrhistogram::Histogram;

    fn report() -> Report {
        let mut nanoseconds = Histogram::new(3).unwrap();
        for time in 1..=2000 {
            nanoseconds.record(time * 10).unwrap();
        }
        let times = Figure::Times(Times::of(&nanoseconds));
        let flow = |messages| {
            let sent = Sent {
                messages,
                ..Sent::default()
            };
            let received = Received {
                messages,
                nanoseconds: 1_000_000,
                ..Received::default()
            };
            Figure::Flow(Flow::of(sent, received, 1, None).unwrap())
        };
        let steps = [
            (SPINNING_TCP, times.clone()),
            (SPINNING_XTIPC, times),
            (UDP_RATE, flow(1000)),
            (UDP_RATE.sized(1024), flow(900)),
        ];
        let measured = steps.clone().map(|(step, figure)| Measured {
            step,
            figure,
            calibration_after: Calibration::undisturbed(120.0),
        });
        let round = Round {
            calibration_before: Calibration::undisturbed(120.0),
            measured: measured.into(),
        };
        let steps = steps.map(|(step, _)| step).into();
        let environment = Environment::record([0, 1], None);
        let method = Method {
            burst_ms: 200,
            operations: None,
            policy: "adaptive".into(),
            bearer: None,
            debug_build: false,
        };
        let rounds = vec![round];
        let mut report = Report::new(environment, method, steps, rounds, &COMPARISONS, PAIRS_MIN);
        report.left_out = vec![("a <step>".into(), "no & never".into())];
        report
    }

    /// The names of all elements, each of which is closed where it was opened.
    fn elements(page: &str) -> Vec<&str> {
        let (mut open, mut seen) = (Vec::new(), Vec::new());
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("each tag ends");
            let name = tag.split([' ', '/']).find(|part| !part.is_empty());
            let name = name.expect("each tag has a name");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "closed before <{tag}>");
            } else if !tag.starts_with('!') && name != "meta" && !tag.ends_with('/') {
                open.push(name);
                seen.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new(), "never closed");
        seen
    }

    #[test]
    fn the_page_is_well_formed_and_stands_alone() {
        let page = page(&report());
        let elements = elements(&page);
        let plots = elements.iter().filter(|name| **name == "svg").count();
        assert_eq!(plots, 3, "latencies, messages and throughput by size");
        for foreign in ["http", "src=", "href", "<script", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("a &lt;step&gt;") && page.contains("no &amp; never"));
        assert!(
            !page.contains("NaN") && !page.contains("inf"),
            "numbers only"
        );
    }

    #[test]
    fn percentiles_fall_where_their_times_begin() {
        let counts = [(10, 90), (20, 9), (30, 1)].into_iter().collect();
        let curve = percentile_curve(&counts, 10.0);
        assert_eq!(curve, [(1.0, 1.0), (0.1, 2.0), (0.01, 3.0)]);
    }
}
