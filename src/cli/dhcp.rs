//! `dhcp daemon` and `dhcp leases`: what the plugin dhcp is beside a plugin.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::json;

use super::{say, say_json, table};
use crate::ipam::dhcp::protocol::{Held, SOCKET};
use crate::ipam::dhcp::{daemon, leases};

/// Addresses from DHCP servers: the daemon that keeps leases, and what it keeps
#[derive(Parser, Debug)]
#[command(name = "dhcp", bin_name = "dhcp", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Keep leases for the plugin; `dhcp daemon --help` says how
    Daemon,
    Leases(LeasesOptions),
}

/// List the leases that the daemon keeps, and when they are renewed
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sudo dhcp leases
  sudo dhcp leases --json | jq -r '.leases[] | select(.phase == \"rebinding\") | .container'

Exit codes:
  0  listed, were it nothing
  1  the daemon can't be asked
  2  the command line can't be understood")]
struct LeasesOptions {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socketpath: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Does what the command line says from its `first` argument on, and returns the exit status.
#[must_use]
pub fn run(first: usize) -> i32 {
    let arguments: Vec<OsString> = std::env::args_os().skip(first).collect();
    // The daemon reads its flags itself, as the reference's.
    if let Some((command, flags)) = arguments.split_first()
        && command == "daemon"
    {
        return daemon::run(flags);
    }
    let program = std::iter::once(OsString::from("dhcp"));
    match CommandLine::parse_from(program.chain(arguments)).command {
        Command::Daemon => daemon::run(&[]),
        Command::Leases(options) => match list(&options) {
            Ok(()) => 0,
            Err(what) => {
                let _ = writeln!(io::stderr(), "dhcp: {what}");
                1
            }
        },
    }
}

fn list(options: &LeasesOptions) -> Result<(), String> {
    let leases = leases(&options.socketpath).map_err(|error| error.msg)?;
    if options.json {
        let leases: Vec<_> = leases.iter().map(Held::to_value).collect();
        say_json(&json!({"leases": leases}));
        return Ok(());
    }
    let headings =
        ["NETWORK", "CONTAINER", "INTERFACE", "ADDRESS", "SERVER", "PHASE", "RENEWS", "EXPIRES"];
    let mut rows = vec![headings.map(str::to_owned)];
    for held in leases {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let time = |seconds: Option<u64>| {
            seconds.map_or_else(|| "never".to_owned(), |seconds| format!("in {seconds} s"))
        };
        let (renews, expires) = match held.address.as_str() {
            "" => ("-".to_owned(), "-".to_owned()),
            _ => (time(held.renews_in), time(held.expires_in)),
        };
        rows.push([
            held.attachment.network,
            held.attachment.container,
            held.attachment.ifname,
            or_dash(held.address),
            or_dash(held.server),
            held.phase,
            renews,
            expires,
        ]);
    }
    table::lines(&rows).iter().for_each(say);
    Ok(())
}
