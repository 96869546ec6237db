//! The command line for people. Nothing in here is reached when a runtime calls a plugin.

mod cache;
mod call;
pub mod dhcp;
mod doctor;
mod driver;
mod install;
mod leases;
mod ls;
pub mod network;
mod ping;
mod plugins;
mod restore;
pub mod sandbox;
mod summary;
mod table;
mod trace;
mod trial;

use std::io::{self, Write};

use clap::{Parser, Subcommand};

/// The end of `--help`.
const NOTES: &str = "\
Examples:
  plumb try                     two throw-away pods on a bridge ping each other
  sudo plumb install            the plugins' names into /opt/cni/bin
  sudo plumb add mynet blue     attaches the namespace blue to a network of /etc/cni/net.d
  sudo plumb ls                 what is attached on this node
  sudo plumb doctor             what would go wrong on this node, and what to do
  plumb plugins                 what there is
  plumb trace bridge < my.conf  what a plugin and the kernel say to each other
  sudo plumb dhcp leases        what the daemon of plugin dhcp has leased

Exit codes:
  0  everything went well
  1  something failed; standard error says what
  2  the command line can't be understood

A plugin is the same program under another name: `plumb bridge` is what the hard link `bridge` in a
runtime's plugin directory is. It is called as the CNI specification says (environment CNI_COMMAND
and so on, configuration on standard input), and without CNI_COMMAND says what it is.";

/// The CNI plugins for Linux as one static binary.
#[derive(Parser, Debug)]
#[command(name = "plumb", bin_name = "plumb", version, after_help = NOTES, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Try(trial::Options),
    Add(driver::AddOptions),
    Check(driver::CheckOptions),
    Del(driver::DelOptions),
    Status(driver::StatusOptions),
    Gc(driver::GcOptions),
    Restore(restore::Options),
    Ls(ls::Options),
    Leases(leases::Options),
    Doctor(doctor::Options),
    Install(install::Options),
    Plugins(plugins::Options),
    Trace(trace::Options),
}

/// Does what the command line says, and returns the exit status.
#[must_use]
pub fn run() -> i32 {
    let outcome = match CommandLine::parse().command {
        Command::Try(options) => trial::run(&options),
        Command::Add(options) => driver::add(&options),
        Command::Check(options) => driver::check(&options),
        Command::Del(options) => driver::del(&options),
        Command::Status(options) => driver::status(&options),
        Command::Gc(options) => driver::gc(&options),
        Command::Restore(options) => restore::run(&options),
        Command::Ls(options) => ls::run(&options),
        Command::Leases(options) => leases::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Install(options) => install::run(&options),
        Command::Plugins(options) => plugins::run(&options),
        Command::Trace(options) => trace::run(&options),
    };
    match outcome {
        Ok(status) => status,
        Err(what) => {
            let _ = writeln!(io::stderr(), "plumb: {what}");
            1
        }
    }
}

/// Prints a line on standard output. Whoever has closed it does not want to read on.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a document for programs.
fn say_json(document: &serde_json::Value) {
    say(format_args!("{document:#}"));
}
