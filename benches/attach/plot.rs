//! The pictures.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contender::{Extent, Scenario, Verb};
use crate::measure::Measured;
use crate::report::{beside, of_plumb};

/// Contenders with their colours, from top to bottom.
const CONTENDERS: [(&str, &str, RGBColor); 3] = [
    ("floor", "floor", RGBColor(176, 190, 197)),
    ("plumb", "Plumb", RGBColor(0, 121, 107)),
    ("reference", "reference", RGBColor(239, 108, 0)),
];
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(55, 71, 79);

/// One caller on an empty host: the operations that are measured to their full extent, side by side.
pub fn latency(path: &Path, all: &[Measured]) -> Result<()> {
    let own = of_plumb(all);
    let least = own.iter().map(|m| m.present).min();
    let rows: Vec<_> = own
        .into_iter()
        .filter(|m| m.callers == 1 && Some(m.present) == least)
        .filter(|m| m.scenario.extent == Extent::Full)
        .collect();
    draw_latency(path, all, &rows).map_err(|why| anyhow!("{}: {why}", path.display()))
}

fn draw_latency(path: &Path, all: &[Measured], rows: &[&Measured]) -> Result<(), String> {
    const LEFT: i32 = 270;
    const RIGHT: i32 = 820;
    const TOP: i32 = 78;
    const BAR: i32 = 13;
    let fail = |why: DrawingAreaErrorKind<std::io::Error>| why.to_string();
    let row_height = 3 * BAR + 16;
    let count = i32::try_from(rows.len()).map_err(|why| why.to_string())?;
    let bottom = TOP + count * row_height;
    let size = (900, (bottom + 40).cast_unsigned());
    let path = path.to_string_lossy().into_owned();
    let area = SVGBackend::new(&path, size).into_drawing_area();
    area.fill(&WHITE).map_err(fail)?;
    let text = |size: u32| (FONT, size).into_font().color(&INK);
    let right = |style: TextStyle<'static>| style.pos(Pos::new(HPos::Right, VPos::Center));
    let left = |style: TextStyle<'static>| style.pos(Pos::new(HPos::Left, VPos::Center));
    let middle = |style: TextStyle<'static>| style.pos(Pos::new(HPos::Center, VPos::Center));

    let title = "One call, from start to end: milliseconds, median (logarithmic)";
    area.draw(&Text::new(title, (20, 22), left(text(18)))).map_err(fail)?;
    for (at, (_, label, colour)) in (0..).zip(CONTENDERS) {
        let x = LEFT + at * 120;
        area.draw(&Rectangle::new([(x, 44), (x + 14, 58)], colour.filled())).map_err(fail)?;
        area.draw(&Text::new(label, (x + 20, 51), left(text(14)))).map_err(fail)?;
    }

    // From 0.1 ms to the first power of ten above all.
    let largest = all.iter().filter(|m| m.callers == 1).map(Measured::median).fold(1.0, f64::max);
    let decades = largest.log10().ceil() + 1.0;
    #[expect(clippy::cast_possible_truncation, reason = "pixels")]
    let x_of = |ms: f64| {
        let part = (ms.max(0.1).log10() + 1.0) / decades;
        LEFT + (f64::from(RIGHT - LEFT) * part).round() as i32
    };
    let mut tick = 0.1;
    while tick <= largest * 10.0 && x_of(tick) <= RIGHT {
        let x = x_of(tick);
        let line = PathElement::new([(x, TOP - 6), (x, bottom)], INK.mix(0.25));
        area.draw(&line).map_err(fail)?;
        area.draw(&Text::new(tick.to_string(), (x, bottom + 14), middle(text(13))))
            .map_err(fail)?;
        tick *= 10.0;
    }
    for (at, row) in (0..).zip(rows) {
        let y = TOP + at * row_height;
        let name = match row.verb {
            Verb::Version => row.scenario.to_string(),
            verb => format!("{verb} {}", row.scenario),
        };
        let name = Text::new(name, (LEFT - 10, y + 3 * BAR / 2), right(text(13)));
        area.draw(&name).map_err(fail)?;
        for (place, (contender, _, colour)) in (0..).zip(CONTENDERS) {
            let Some(measured) = beside(all, row, contender) else { continue };
            let (ms, y) = (measured.median(), y + place * BAR);
            let bar = Rectangle::new([(LEFT, y), (x_of(ms), y + BAR - 2)], colour.filled());
            area.draw(&bar).map_err(fail)?;
            let label = Text::new(number(ms), (x_of(ms) + 5, y + BAR / 2), left(text(12)));
            area.draw(&label).map_err(fail)?;
        }
    }
    area.present().map_err(fail)
}

fn number(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

/// One caller: ADD against how many attachments there are already.
pub fn crowd(path: &Path, all: &[Measured]) -> Result<()> {
    let most = all.iter().filter(|m| m.scenario.attaches()).map(|m| m.present).max();
    let most = most.filter(|most| *most > 0).context("the picture of crowds needs --present")?;
    draw_crowd(path, all, most).map_err(|why| anyhow!("{}: {why}", path.display()))
}

fn draw_crowd(path: &Path, all: &[Measured], most: usize) -> Result<(), String> {
    let path = path.to_string_lossy().into_owned();
    let area = SVGBackend::new(&path, (900, 380)).into_drawing_area();
    area.fill(&WHITE).map_err(|why| why.to_string())?;
    let title = (
        "ADD with so many attachments on the host, 500 to a bridge: milliseconds, median",
        (FONT, 18),
    );
    let area = area.titled(title.0, title.1).map_err(|why| why.to_string())?;
    let panes = area.split_evenly((1, 2));
    let shown =
        |s: &&Scenario| matches!(s.name, "bridge + host-local" | "bridge + host-local, ipMasq");
    for (pane, scenario) in panes.iter().zip(Scenario::ALL.iter().filter(shown)) {
        draw_pane(pane, all, scenario, most).map_err(|why| why.to_string())?;
    }
    area.present().map_err(|why| why.to_string())
}

fn draw_pane<B: DrawingBackend>(
    pane: &DrawingArea<B, plotters::coord::Shift>,
    all: &[Measured],
    scenario: &Scenario,
    most: usize,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let points = |contender: &str| {
        let mut points: Vec<_> = all
            .iter()
            .filter(|m| m.scenario == scenario && (m.verb, m.callers) == (Verb::Add, 1))
            .filter(|m| m.contender == contender)
            .map(|m| (m.present, m.median()))
            .collect();
        points.sort_by_key(|point| point.0);
        points
    };
    let highest = CONTENDERS.iter().flat_map(|c| points(c.0)).map(|p| p.1).fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(pane)
        .margin(14)
        .caption(scenario.to_string(), (FONT, 15))
        .x_label_area_size(38)
        .y_label_area_size(44)
        .build_cartesian_2d(0..most + most / 20, (0.5..highest * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("attachments present")
        .label_style((FONT, 13))
        .light_line_style(INK.mix(0.08))
        .bold_line_style(INK.mix(0.2))
        .draw()?;
    for (contender, label, colour) in CONTENDERS {
        let points = points(contender);
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(3)).point_size(4))?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.9))
        .border_style(INK.mix(0.2))
        .draw()
}
