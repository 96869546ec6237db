//! What is written of the figures.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::contender::{Extent, Verb};
use crate::guest::Guest;
use crate::measure::{Measured, Round};
use crate::stage::Stage;

/// Under what the figures came about.
pub struct Conditions {
    date: String,
    kernel: String,
    processor: String,
    reference: Option<String>,
    command: String,
}

impl Conditions {
    pub fn read(stage: &Stage, arguments: impl Iterator<Item = String>) -> Self {
        let first_line = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok();
            let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
            text.unwrap_or_default()
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown processor", |(_, model)| model);
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let arguments: Vec<_> = arguments.filter(|a| a != "--bench").collect();
        Self {
            date: first_line("date", &["-u", "+%F"]),
            kernel: first_line("uname", &["-sr"]),
            processor: format!("{count} × {model}"),
            reference: stage.reference.clone(),
            command: format!("cargo bench --bench attach -- {}", arguments.join(" "))
                .trim()
                .to_owned(),
        }
    }
}

/// A ratio in each round: the median of rounds, and the extremes.
#[derive(Clone, Copy)]
pub struct Ratio {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2}–{:.2}]", self.median, self.least, self.most)
    }
}

/// The middle, between two if there are two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    f64::midpoint(middle((sorted.len().max(1) - 1) / 2), middle(sorted.len() / 2))
}

/// The value that is not exceeded by this part.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let at = ((sorted.len().max(1) - 1) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

impl Measured {
    fn times(&self) -> Vec<f64> {
        self.rounds.iter().flat_map(|round| round.times.iter().copied()).collect()
    }

    /// Milliseconds.
    pub fn median(&self) -> f64 {
        median(&self.times())
    }

    /// Milliseconds.
    pub fn p99(&self) -> f64 {
        quantile(&self.times(), 0.99)
    }

    /// Calls per second.
    pub fn rate(&self) -> f64 {
        median(&self.rounds.iter().map(|round| round.rate).collect::<Vec<_>>())
    }

    fn ratio(&self, to: &Self, of: impl Fn(&Round) -> f64) -> Ratio {
        let ratios: Vec<_> =
            self.rounds.iter().zip(&to.rounds).map(|(own, other)| of(own) / of(other)).collect();
        let part = |part| quantile(&ratios, part);
        Ratio { median: median(&ratios), least: part(0.0), most: part(1.0) }
    }

    /// How many times as long as another.
    pub fn time_ratio(&self, to: &Self) -> Ratio {
        self.ratio(to, |round| median(&round.times))
    }

    /// How many times as many calls per second as another.
    pub fn rate_ratio(&self, to: &Self) -> Ratio {
        self.ratio(to, |round| round.rate)
    }

    /// Whether another's figures are of the same condition.
    fn is_beside(&self, other: &Self) -> bool {
        let condition = |m: &Self| (m.scenario, m.verb, m.callers, m.present);
        condition(self) == condition(other)
    }
}

/// The figures of one contender beside those of `one`.
pub fn beside<'a>(all: &'a [Measured], one: &Measured, contender: &str) -> Option<&'a Measured> {
    all.iter().find(|other| other.contender == contender && other.is_beside(one))
}

/// Plumb's figures, in the order of scenarios, callers, verbs, crowds.
pub fn of_plumb(all: &[Measured]) -> Vec<&Measured> {
    let mut own: Vec<_> = all.iter().filter(|m| m.contender == "plumb").collect();
    own.sort_by_key(|m| (m.scenario.number(), m.callers, m.verb == Verb::Del, m.present));
    own
}

/// What a guest has told, as a table for a terminal.
pub fn text_of_guest(guest: &Guest) -> String {
    let mut text = format!("\nin a guest ({}, software emulation), ratios only\n", guest.kernel());
    for brief in guest.briefs() {
        let _ = write!(text, "  {:7} {:22}", brief.verb, brief.operation);
        if let Some(ratio) = brief.of_floor {
            let _ = write!(text, "  {ratio:.2} of the floor's time");
        }
        if let Some(ratio) = brief.faster_than_reference {
            let _ = write!(text, "  {ratio:.2} times faster than the reference");
        }
        text.push('\n');
    }
    text
}

/// All figures, as a table for a terminal.
pub fn text(conditions: &Conditions, all: &[Measured]) -> String {
    let mut text = format!(
        "{}, {}, {}\nreference: {}\n\
         milliseconds: median (99th percentile); ratios: median of rounds [least–most]\n",
        conditions.date,
        conditions.kernel,
        conditions.processor,
        conditions.reference.as_deref().unwrap_or("none"),
    );
    let mut title = String::new();
    for own in of_plumb(all) {
        let (scenario, callers) = (own.scenario, own.callers);
        let callers = if callers == 1 { "one caller".into() } else { format!("{callers} callers") };
        let next = format!("\n{scenario}, {callers}\n");
        if title != next {
            text.push_str(&next);
            title = next;
        }
        let _ = write!(text, "  {:7} present {:>5}", own.verb.to_string(), own.present);
        let figures = |m: &Measured| {
            if own.callers == 1 {
                format!("{} {:.2} ({:.2})", m.contender, m.median(), m.p99())
            } else {
                format!("{} {:.0}/s {:.1} ({:.1})", m.contender, m.rate(), m.median(), m.p99())
            }
        };
        let _ = write!(text, "  {:32}", figures(own));
        for contender in ["floor", "reference"] {
            let Some(other) = beside(all, own, contender) else { continue };
            let ratio =
                if own.callers == 1 { own.time_ratio(other) } else { own.rate_ratio(other) };
            let _ = write!(text, "  {:34} × {:20}", figures(other), ratio.to_string());
        }
        let same = |m: &&Measured| {
            let kind = (m.contender, m.scenario, m.verb, m.callers);
            kind == (own.contender, own.scenario, own.verb, own.callers)
        };
        let smallest = all.iter().filter(same).min_by_key(|m| m.present);
        if let Some(smallest) = smallest.filter(|smallest| smallest.present < own.present) {
            let growth = own.time_ratio(smallest);
            let _ = write!(text, "  {growth} of {} present", smallest.present);
        }
        text.push('\n');
    }
    text
}

/// All figures, for programs. Times are milliseconds.
pub fn json(conditions: &Conditions, all: &[Measured], guest: Option<&Guest>) -> Value {
    let ratio =
        |r: Ratio| json!({"median": round(r.median), "min": round(r.least), "max": round(r.most)});
    let figures = |m: &Measured| {
        let to = |contender: &str| {
            let other = beside(all, m, contender).filter(|_| m.contender != contender)?;
            Some(json!({"time": ratio(m.time_ratio(other)), "rate": ratio(m.rate_ratio(other))}))
        };
        json!({
            "operation": m.scenario.to_string(), "verb": m.verb.to_string(), "callers": m.callers,
            "present": m.present, "contender": m.contender, "calls": m.times().len(),
            "median_ms": round(m.median()), "p99_ms": round(m.p99()), "per_second": round(m.rate()),
            "to_floor": to("floor"), "to_reference": to("reference"),
        })
    };
    json!({
        "date": conditions.date, "kernel": conditions.kernel, "processor": conditions.processor,
        "reference": conditions.reference, "command": conditions.command,
        "figures": all.iter().map(figures).collect::<Vec<_>>(),
        "guest": guest.map(|guest| &guest.figures),
    })
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Where the README's table begins and ends.
const MARKS: [&str; 2] =
    ["<!-- benchmark: written by --publish -->\n", "<!-- benchmark: end -->\n"];

/// Puts the README's table in place of the one before.
pub fn into_readme(
    path: &Path,
    conditions: &Conditions,
    all: &[Measured],
    guest: Option<&Guest>,
) -> Result<()> {
    let readme = fs::read_to_string(path)?;
    let (before, rest) =
        readme.split_once(MARKS[0]).context("README: no mark for the benchmark")?;
    let (_, after) = rest.split_once(MARKS[1]).context("README: no end mark for the benchmark")?;
    let table = overview(all, guest) + "\n" + &markdown(conditions, all);
    fs::write(path, [before, MARKS[0], &table, MARKS[1], after].concat())?;
    Ok(())
}

/// One operation in short.
pub struct Brief {
    pub operation: String,
    pub verb: String,
    /// Milliseconds; none where they mean nothing.
    pub ms: Option<f64>,
    pub of_floor: Option<f64>,
    pub faster_than_reference: Option<f64>,
}

impl Brief {
    fn of(all: &[Measured], own: &Measured) -> Self {
        Self {
            operation: own.scenario.to_string(),
            verb: own.verb.to_string(),
            ms: Some(own.median()),
            of_floor: beside(all, own, "floor").map(|f| own.time_ratio(f).median),
            faster_than_reference: beside(all, own, "reference").map(|r| r.time_ratio(own).median),
        }
    }
}

/// Every configuration on a line: one caller, on the first host; and what a guest has told.
fn overview(all: &[Measured], guest: Option<&Guest>) -> String {
    let mut table = String::from(
        "| one caller | ADD, ms | of the floor's time | times faster than the reference \
         | DEL, ms | of the floor's time | times faster than the reference |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let own = of_plumb(all);
    let least = own.iter().map(|m| m.present).min();
    let own: Vec<_> = own
        .into_iter()
        .filter(|m| m.callers == 1 && Some(m.present) == least)
        .map(|m| Brief::of(all, m))
        .collect();
    let of_guest = guest.map(Guest::briefs).unwrap_or_default();
    for (briefs, where_else) in [(&own, ""), (&of_guest, " (in the guest)")] {
        for add in briefs.iter().filter(|brief| brief.verb == Verb::Add.to_string()) {
            let is_del = |b: &&Brief| b.operation == add.operation && b.verb != add.verb;
            let del = briefs.iter().find(is_del);
            let number =
                |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
            let cells = |brief: Option<&Brief>| {
                let values = brief.map(|b| [b.ms, b.of_floor, b.faster_than_reference]);
                values.unwrap_or_default().map(number).join(" | ")
            };
            let (add_cells, del_cells) = (cells(Some(add)), cells(del));
            let _ =
                writeln!(table, "| {}{where_else} | {add_cells} | {del_cells} |", add.operation);
        }
    }
    if let Some(guest) = guest {
        let _ = write!(
            table,
            "\nIn the guest: {} under software emulation, for what the kernel below lacks. Only the ratios \
             mean something there.\n",
            guest.kernel(),
        );
    }
    table
}

fn markdown(conditions: &Conditions, all: &[Measured]) -> String {
    let mut table = String::from(
        "| one caller, ms | Plumb | reference | floor | of the floor's time | times faster than the reference |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    let own = of_plumb(all);
    let least = own.iter().map(|m| m.present).min();
    let at_least = || {
        let full = |m: &&&Measured| m.scenario.extent == Extent::Full;
        own.iter().filter(|m| Some(m.present) == least).filter(full)
    };
    for m in at_least().filter(|m| m.callers == 1) {
        let (floor, reference) = (beside(all, m, "floor"), beside(all, m, "reference"));
        let _ = writeln!(
            table,
            "| {}{} | {:.2} | {} | {} | {} | {} |",
            if m.verb == Verb::Version { String::new() } else { format!("{} ", m.verb) },
            m.scenario,
            m.median(),
            cell(reference, |r| format!("{:.2}", r.median())),
            cell(floor, |f| format!("{:.2}", f.median())),
            cell(floor, |f| m.time_ratio(f).to_string()),
            cell(reference, |r| r.time_ratio(m).to_string()),
        );
    }
    let callers = own.iter().map(|m| m.callers).max().unwrap_or(1);
    let _ = write!(
        table,
        "\n| {callers} callers, calls per second | Plumb | reference | floor | of the floor's rate | of the reference's |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for m in at_least().filter(|m| m.callers == callers && callers > 1) {
        let (floor, reference) = (beside(all, m, "floor"), beside(all, m, "reference"));
        let _ = writeln!(
            table,
            "| {}{} | {:.0} | {} | {} | {} | {} |",
            if m.verb == Verb::Version { String::new() } else { format!("{} ", m.verb) },
            m.scenario,
            m.rate(),
            cell(reference, |r| format!("{:.0}", r.rate())),
            cell(floor, |f| format!("{:.0}", f.rate())),
            cell(floor, |f| m.rate_ratio(f).to_string()),
            cell(reference, |r| m.rate_ratio(r).to_string()),
        );
    }
    let _ = write!(
        table,
        "\n| one caller, ms, with so many present (500 to a bridge) | {} |\n| --- | {} |\n",
        crowds(&own).iter().map(usize::to_string).collect::<Vec<_>>().join(" | "),
        crowds(&own).iter().map(|_| "---").collect::<Vec<_>>().join(" | "),
    );
    for m in at_least().filter(|m| m.callers == 1 && m.verb != Verb::Version) {
        for contender in ["plumb", "reference"] {
            let at = |present: &usize| {
                let found = all.iter().find(|other| {
                    (other.contender, other.present) == (contender, *present)
                        && (other.scenario, other.verb, other.callers) == (m.scenario, m.verb, 1)
                });
                cell(found, |m| format!("{:.2}", m.median()))
            };
            let cells: Vec<_> = crowds(&own).iter().map(at).collect();
            if beside(all, m, contender).is_some() {
                let _ = writeln!(
                    table,
                    "| {} {}, {} | {} |",
                    m.verb,
                    m.scenario,
                    if contender == "plumb" { "Plumb" } else { contender },
                    cells.join(" | ")
                );
            }
        }
    }
    let _ = write!(
        table,
        "\nMedians; ratios are the median of rounds and, in brackets, the least and the most. {}, {}, {}; \
         reference: {}. `{}`\n",
        conditions.date,
        conditions.kernel,
        conditions.processor,
        conditions.reference.as_deref().unwrap_or("none"),
        conditions.command,
    );
    table
}

fn crowds(own: &[&Measured]) -> Vec<usize> {
    let mut crowds: Vec<_> = own.iter().map(|m| m.present).collect();
    crowds.sort_unstable();
    crowds.dedup();
    crowds
}

fn cell(measured: Option<&Measured>, text: impl Fn(&Measured) -> String) -> String {
    measured.map_or_else(|| "–".to_owned(), text)
}
