//! How long whole calls of the plugins take: one fresh process each, with environment, standard input
//! and output as a runtime makes them, in namespaces that exist only for this. Side by side, in
//! alternation: Plumb, the reference plugins, and the floor, which is what no plugin can do without.
//!
//! `stage` makes the hosts and pods, `contender` is who is measured doing what, `floor` the bare work,
//! `measure` how it is timed, `guest` the same under another kernel, `report` what is written of it, `plot` the
//! pictures.
//!
//! Another configuration is one more entry in [`Scenario::ALL`], and its bare work if that is of a new kind.

#![allow(clippy::print_stdout, reason = "this is a program for people")]

mod contender;
mod floor;
mod guest;
mod measure;
mod plot;
mod report;
mod stage;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use contender::Scenario;
use guest::Guest;
use measure::Effort;
use stage::Stage;

/// Times whole ADDs and DELs of Plumb beside the reference plugins and the floor. Needs no privilege and
/// touches nothing on the machine.
#[derive(Parser, Debug)]
#[command(name = "attach", bin_name = "cargo bench --bench attach --", max_term_width = 100)]
struct Options {
    /// Directory of the reference plugins, or of any others to compare with
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/cni")]
    reference: PathBuf,
    /// How many attachments are there already, and leases (for host-local: up to five times as many)
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0,500,2000")]
    present: Vec<usize>,
    /// How many callers at a time
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16")]
    callers: Vec<usize>,
    /// Rounds of alternation; the spread of ratios is that between rounds
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// Calls of each kind in a round, one caller; fewer of what is slow
    #[arg(long, value_name = "N", default_value_t = 20)]
    samples: usize,
    /// Only the configuration of this name, or all whose names contain it; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// A tenth of the effort, and no crowd
    #[arg(long)]
    quick: bool,
    /// Measure what this kernel lacks in a guest with another, by tests/lab/guest: as root
    #[arg(long)]
    guest: bool,
    /// Write the figures as JSON; "-": to standard output, instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write figures, pictures and the README's tables into the project
    #[arg(long)]
    publish: bool,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options.present = vec![0];
        options.rounds = options.rounds.min(3);
        options.samples = options.samples.min(7);
    }
    let effort = Effort { rounds: options.rounds, samples: options.samples };
    let is_asked_for = |scenario: &&Scenario| {
        let whole = |text: &String| Scenario::ALL.iter().any(|other| other.name == *text);
        let means = |text: &String| match whole(text) {
            true => scenario.name == *text,
            false => scenario.name.contains(text),
        };
        options.only.is_empty() || options.only.iter().any(means)
    };
    if options.guest {
        guest::set_up()?;
    }

    // Reached by descriptor: the stage hides what is below /run and /var/lib.
    let project = File::open(env!("CARGO_MANIFEST_DIR")).context("the project's directory")?;
    let here = File::open(".").context("the current directory")?;
    let visible =
        |directory: &File| PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));

    let stage = Stage::set(&options.reference)?;
    let (mut possible, mut lacking) = (Vec::new(), Vec::new());
    for scenario in Scenario::ALL.iter().filter(is_asked_for) {
        let can = stage::kernel_can(scenario)?;
        if can { &mut possible } else { &mut lacking }.push(scenario);
    }
    let mut measured = Vec::new();
    let crowds = stage.make_crowds(&options.present, options.callers.iter().copied().max())?;
    for scenario in possible {
        measured.extend(measure::scenario(&stage, &crowds, scenario, &options.callers, &effort)?);
    }
    let guest = match (lacking.is_empty(), options.guest) {
        (true, _) => None,
        (false, true) => Some(Guest::measure(&lacking, &options.reference, &effort)?),
        (false, false) => {
            let names: Vec<_> = lacking.iter().map(|scenario| scenario.name).collect();
            eprintln!("without {}, which this kernel lacks: --guest", names.join(", "));
            None
        }
    };

    let conditions = report::Conditions::read(&stage, std::env::args().skip(1));
    let json = report::json(&conditions, &measured, guest.as_ref());
    match &options.json {
        Some(path) if path.as_os_str() == "-" => println!("{json}"),
        other => {
            print!("{}", report::text(&conditions, &measured));
            if let Some(guest) = &guest {
                print!("{}", report::text_of_guest(guest));
            }
            if let Some(path) = other {
                let path = visible(&here).join(path);
                fs::write(path, format!("{json:#}\n")).context("the figures")?;
            }
        }
    }
    if options.publish {
        let root = visible(&project);
        fs::write(root.join("docs/benchmark.json"), format!("{json:#}\n"))
            .context("the figures")?;
        plot::latency(&root.join("docs/latency.svg"), &measured)?;
        plot::crowd(&root.join("docs/crowd.svg"), &measured)?;
        report::into_readme(&root.join("README.md"), &conditions, &measured, guest.as_ref())?;
    }
    Ok(())
}
