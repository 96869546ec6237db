//! Many callers attach and detach pods at random for a while; some calls are killed, garbage is collected now and then,
//! and another program leases addresses in the same directory. Every so often all stop, and what the kernel and
//! the lease directories hold is compared with what must be there.
//!
//! `pods` is the node as a runtime knows it, and its calls; `audit` the comparison; `figures` what is measured and
//! printed; `plot` the picture.

#![allow(clippy::print_stdout, reason = "this is a program for people")]
#![allow(clippy::indexing_slicing, reason = "pods, networks and keys are of its own making")]

mod audit;
mod figures;
mod plot;
mod pods;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use figures::Figures;
use pods::Node;

/// Attaches and detaches pods at random, with calls that are killed, garbage collections and a foreign lease
/// writer, and looks for what has leaked. Needs no privilege and touches nothing on the machine.
#[derive(Parser, Debug)]
#[command(name = "soak", bin_name = "cargo bench --bench soak --", max_term_width = 100)]
struct Options {
    /// For how long, in seconds
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// Callers at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    workers: usize,
    /// Pods, on three networks: two of bridge, one of ptp, all with ipMasq and both address families
    #[arg(long, value_name = "N", default_value_t = 200)]
    pods: usize,
    /// Of how many calls in a hundred are killed
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    kills: u8,
    /// Seconds between two audits
    #[arg(long, value_name = "S", default_value_t = 10)]
    audit: u64,
    /// Milliseconds between two garbage collections
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    gc: u64,
    /// The reference's host-local, which leases addresses in the same directory; none if it is not there
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/cni/host-local")]
    foreign: PathBuf,
    /// From which the callers' choices follow; what the kernel and the scheduler do is another each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Draw what has happened
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<PathBuf>,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "{} workers, {} pods, {} s, {} % of calls killed, seed {seed}",
        options.workers, options.pods, options.seconds, options.kills
    );
    let picture = options.picture.as_deref().map(std::path::absolute).transpose()?;
    let plumb = fs::read(env!("CARGO_BIN_EXE_plumb")).context("the plumb binary")?;
    let foreign = fs::read(&options.foreign).ok();
    // The directory that the picture goes to may be hidden from here on.
    let directory = picture.as_deref().and_then(|path| path.parent()).map(fs::File::open);
    let directory = directory.transpose().context("the picture's directory")?;

    plumb::cli::sandbox::enter().map_err(anyhow::Error::msg)?;
    install(&plumb, foreign.as_deref())?;
    if foreign.is_none() {
        println!("no foreign lease writer: {} can't be read", options.foreign.display());
    }
    let node = make_node(options.pods, seed)?;
    let figures = Figures::new();
    let faults = soak(&options, &node, &figures, foreign.is_some())?;

    figures.print();
    if let (Some(path), Some(directory)) = (picture, directory) {
        use std::os::fd::AsRawFd;
        let name = path.file_name().context("a picture needs a name")?;
        let visible = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        plot::draw(&visible.join(name), &figures)?;
        println!("drawn: {}", path.display());
    }
    for fault in &faults {
        println!("FAULT  {fault}");
    }
    ensure!(faults.is_empty(), "{} faults; seed {seed}", faults.len());
    println!("nothing leaked, no address twice, nobody lost");
    Ok(())
}

/// Puts the plugins where [`pods`] calls them.
fn install(plumb: &[u8], foreign: Option<&[u8]>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(pods::BIN)?;
    let mut programs = vec![("plumb", plumb)];
    programs.extend(foreign.map(|program| ("foreign", program)));
    for (name, program) in programs {
        let path = format!("{}/{name}", pods::BIN);
        fs::write(&path, program)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    for name in ["bridge", "ptp", "host-local"] {
        symlink("plumb", format!("{}/{name}", pods::BIN))?;
    }
    Ok(())
}

fn make_node(pods: usize, seed: u64) -> Result<Node> {
    let bar = progress(pods as u64, "network namespaces");
    for number in 0..pods {
        let made = Command::new("ip").args(["netns", "add", &pods::name_of(number)]).status()?;
        ensure!(made.success(), "ip netns add: {made}");
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Node::new(pods, seed))
}

/// Has all work until the time is over, audits in between and at the end, and returns what was wrong.
fn soak(
    options: &Options,
    node: &Node,
    figures: &Figures,
    with_foreign: bool,
) -> Result<Vec<String>> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    // Who works holds it shared; an audit has it alone.
    let at_work = RwLock::new(());
    let over = AtomicBool::new(false);
    let mut faults = Vec::new();
    let bar = progress(options.seconds, "soak");
    let work_until_over = |work: &mut dyn FnMut()| {
        while !over.load(Ordering::Relaxed) {
            let _working = at_work.read();
            work();
        }
    };
    let work_until_over = &work_until_over;
    thread::scope(|scope| {
        for number in 0..options.workers {
            scope.spawn(move || {
                let mut random = node.random(number);
                work_until_over(&mut || node.attach_or_detach(&mut random, options.kills, figures));
            });
        }
        if with_foreign {
            for number in 0..2 {
                scope.spawn(move || {
                    let mut random = node.random(options.workers + number);
                    work_until_over(&mut || node.lease_or_release(number, &mut random, figures));
                });
            }
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(options.gc));
                let _working = at_work.read();
                node.collect_garbage(figures);
            }
        });

        let mut next = Instant::now() + Duration::from_secs(options.audit);
        while Instant::now() < end && faults.is_empty() {
            thread::sleep(Duration::from_secs(1));
            bar.set_position(figures.elapsed().as_secs());
            bar.set_message(figures.line());
            if Instant::now() >= next {
                let _alone = at_work.write();
                faults = audit::run(node, figures);
                figures.audited(faults.len());
                next = Instant::now() + Duration::from_secs(options.audit);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    bar.finish_and_clear();
    faults.extend(node.faults());
    if faults.is_empty() {
        faults = audit::run(node, figures);
        node.detach_all(figures);
        faults.extend(audit::run(node, figures));
        faults.extend(audit::emptiness()?);
        faults.extend(node.faults());
        figures.audited(faults.len());
    }
    if figures.is_empty() {
        bail!("nothing was done");
    }
    Ok(faults)
}

fn progress(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:20} {bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new(length).with_prefix(what.to_owned());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
