//! The picture: calls per second over time, how long they took, and what audits found.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figures::{Event, Figures, Kind, percentile};

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(55, 71, 79);
const ADD: RGBColor = RGBColor(0, 121, 107);
const DEL: RGBColor = RGBColor(239, 108, 0);
/// Points of a line.
const POINTS: usize = 60;

/// Draws it.
pub fn draw(path: &Path, figures: &Figures) -> Result<()> {
    draw_all(path, figures).map_err(|why| anyhow!("{}: {why}", path.display()))
}

/// The calls of a kind in a stretch of time.
fn some(events: &[Event], kind: Kind, from: f64, to: f64) -> Vec<f64> {
    let mut took: Vec<_> = events
        .iter()
        .filter(|e| e.kind == kind && e.at >= from && e.at < to)
        .map(|e| e.took)
        .collect();
    took.sort_by(f64::total_cmp);
    took
}

fn draw_all(path: &Path, figures: &Figures) -> Result<(), String> {
    let fail = |why: DrawingAreaErrorKind<std::io::Error>| why.to_string();
    let (events, audits) = (figures.events(), figures.audits());
    let end = events.last().map_or(1.0, |event| event.at).max(1.0);
    let step = end / POINTS as f64;
    let line = |kind, value: &dyn Fn(&[f64]) -> f64| -> Vec<(f64, f64)> {
        (0..POINTS)
            .map(|at| {
                let (from, to) = (at as f64 * step, (at + 1) as f64 * step);
                ((from + to) / 2.0, value(&some(&events, kind, from, to)))
            })
            .collect()
    };
    let text = path.to_string_lossy().into_owned();
    let area = SVGBackend::new(&text, (900, 640)).into_drawing_area();
    area.fill(&WHITE).map_err(fail)?;
    let (upper, lower) = area.split_vertically(300);

    let rate = |took: &[f64]| took.len() as f64 / step;
    let rates = [("ADD", ADD, line(Kind::Add, &rate)), ("DEL", DEL, line(Kind::Del, &rate))];
    let faults: usize = audits.iter().map(|(_, faults)| faults).sum();
    let title = format!(
        "Calls per second; {} audits (ticks): {faults} leaks, doubles and losses",
        audits.len()
    );
    let marks: Vec<_> = audits.iter().map(|(at, faults)| (*at, *faults > 0)).collect();
    pane(&upper, &title, end, false, &rates, &marks).map_err(fail)?;

    let mut times = Vec::new();
    for (name, colour, kind) in [("ADD", ADD, Kind::Add), ("DEL", DEL, Kind::Del)] {
        times.push((name, colour, line(kind, &|took| percentile(took, 50))));
        times.push(("99 %", colour, line(kind, &|took| percentile(took, 99))));
    }
    pane(
        &lower,
        "Milliseconds of a call: median, and 99 % (upper line of a colour)",
        end,
        true,
        &times,
        &[],
    )
    .map_err(fail)?;
    area.present().map_err(fail)
}

type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

fn pane(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    end: f64,
    is_logarithmic: bool,
    lines: &[Line],
    marks: &[(f64, bool)],
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let most = lines.iter().flat_map(|line| &line.2).map(|point| point.1).fold(1.0, f64::max);
    let scale = |value: f64| if is_logarithmic { value.max(1.0).log10() } else { value };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end, 0.0..scale(most) * 1.1)?;
    let label = |value: &f64| {
        let value = if is_logarithmic { 10_f64.powf(*value) } else { *value };
        format!("{value:.0}")
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .axis_desc_style((FONT, 13))
        .x_desc("seconds; all are detached in the end")
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .y_label_formatter(&label)
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()?;
    for (at, is_faulty) in marks {
        let colour = if *is_faulty { RED } else { INK };
        let tick = [(*at, 0.0), (*at, scale(most) * 0.04)];
        chart.draw_series([PathElement::new(tick, colour.stroke_width(2))])?;
    }
    for (name, colour, points) in lines {
        let points = points.iter().map(|(at, value)| (*at, scale(*value)));
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        if *name != "99 %" {
            let colour = *colour;
            drawn.label(*name).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled())
            });
        }
    }
    let place = match is_logarithmic {
        true => SeriesLabelPosition::LowerMiddle,
        false => SeriesLabelPosition::UpperMiddle,
    };
    let mut legend = chart.configure_series_labels();
    legend.position(place).background_style(WHITE.filled()).border_style(INK.mix(0.3));
    legend.label_font((FONT, 13)).draw()
}
