//! The daemon's command line. It takes what the reference's takes, whose flags have one dash or two, a value
//! behind a space or behind `=`, and times as Go writes them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::ipam::dhcp::life::Timing;
use crate::ipam::dhcp::protocol;

/// Lease addresses from DHCP servers, for all containers of this node
///
/// The plugin "dhcp" asks this daemon over a unix socket for addresses, and it keeps them for as long as the
/// container lives: it renews leases in time, applies what a server changes to the container's interface, and
/// releases them when the plugin says so. A lease ends by itself when its namespace or its link vanishes. It
/// enters a container's network namespace only to open a socket there, or to change addresses.
///
/// Leases are kept in a directory, so the daemon can be restarted at any time, however it ended. What was leased
/// before the machine was started is forgotten.
///
/// It logs to standard error, a line of key=value pairs for each event.
#[derive(Parser, Debug)]
#[command(
    name = "dhcp daemon",
    bin_name = "dhcp daemon",
    version,
    max_term_width = 100,
    after_help = "\
Flags may be written with one dash, too, as the reference's are.
Times are written as 200ms, 10s, 1m30s or 2h.

Signals:
  SIGTERM, SIGINT  end; leases stay, and are renewed once the daemon is back
  SIGHUP           nothing: there is no configuration to read again; it says so

Socket activation: started by systemd with a socket (LISTEN_FDS=1), it serves that one.

Files:
  /run/cni/dhcp.sock  where the plugin asks; ipam.daemonSocketPath names another
  /run/cni/dhcp/      a file for each lease, and \"lock\", which the daemon holds

Examples:
  sudo dhcp daemon
  sudo dhcp daemon -pidfile /run/cni-dhcp.pid -timeout 5s
  sudo dhcp leases

Exit codes:
  0  it was told to end
  1  it can't serve, or can't go on; standard error says why
  2  the command line can't be understood"
)]
pub struct Options {
    /// Write the process's number to this file, an absolute path
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    pub pidfile: Option<PathBuf>,
    /// Look for the socket and for network namespaces below this directory: where the host's root is, seen from
    /// a container
    #[arg(long, value_name = "DIR")]
    pub hostprefix: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "PATH", default_value = protocol::SOCKET)]
    pub socketpath: PathBuf,
    /// Where to keep leases; if not told, the socket's path without .sock
    #[arg(long, value_name = "DIR")]
    pub statedir: Option<PathBuf>,
    /// Have servers answer by broadcast
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false",
        action = clap::ArgAction::Set
    )]
    pub broadcast: bool,
    /// How long a server that has offered an address may take to acknowledge it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub timeout: Duration,
    /// How long to wait at most before a message is sent again
    #[arg(long, value_name = "TIME", default_value = "62s", value_parser = time)]
    pub resendmax: Duration,
    /// How long to look for an address at all, when the plugin asks for one
    #[arg(long, value_name = "TIME", default_value = "208s", value_parser = time)]
    pub resendtimeout: Duration,
    /// How long to ask the network whether somebody uses an address already, before it is used
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = time)]
    pub probe: Duration,
}

impl Options {
    /// Reads the command line behind `daemon`. If it can't be understood, or asks for help, the process ends.
    #[must_use]
    pub fn read(arguments: &[OsString]) -> Self {
        let program = OsString::from("dhcp daemon");
        Self::parse_from(std::iter::once(program).chain(arguments.iter().map(with_two_dashes)))
    }

    /// Where to listen, seen from here.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.below_prefix(&self.socketpath)
    }

    /// Where to keep leases.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.statedir.clone().unwrap_or_else(|| {
            let socket = self.socket();
            if socket.extension().is_some_and(|extension| extension == "sock") {
                return socket.with_extension("");
            }
            let mut name = socket.into_os_string();
            name.push(".leases");
            name.into()
        })
    }

    /// A path of the host's, seen from here.
    #[must_use]
    pub fn below_prefix(&self, path: &std::path::Path) -> PathBuf {
        match &self.hostprefix {
            Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// How patient a lease's client is.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing {
            timeout: self.timeout,
            resend_max: self.resendmax,
            resend_timeout: self.resendtimeout,
            probe: self.probe,
        }
    }
}

/// `-flag` as `--flag`; `-h` and `-V` are clap's own.
fn with_two_dashes(argument: &OsString) -> OsString {
    let text = argument.as_encoded_bytes();
    if let [b'-', first, _, ..] = text
        && *first != b'-'
    {
        let mut long = OsString::from("-");
        long.push(argument);
        return long;
    }
    argument.clone()
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".to_owned()) }
}

/// A length of time as Go writes it (time.ParseDuration): numbers with units, one after the other.
fn time(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 1e9;
    let fault = || "expected a time such as 200ms, 10s or 1m30s".to_owned();
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(fault()),
        };
        seconds += number.parse::<f64>().map_err(|_| fault())? * factor;
        if behind.is_empty() {
            break;
        }
        rest = behind;
    }
    if seconds > LONGEST {
        return Err("that is too long".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::read(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_taken_as_the_reference_takes_them() {
        for dashes in ["-", "--"] {
            let read = options(&[
                &format!("{dashes}pidfile"),
                "/run/p",
                &format!("{dashes}socketpath=/run/x.sock"),
                &format!("{dashes}broadcast"),
                &format!("{dashes}timeout"),
                "5s",
            ]);
            assert_eq!(read.pidfile, Some("/run/p".into()));
            assert_eq!(read.socket(), PathBuf::from("/run/x.sock"));
            assert_eq!(read.state_directory(), PathBuf::from("/run/x"));
            assert!(read.broadcast);
            assert_eq!(read.timing().timeout, Duration::from_secs(5));
        }
        assert!(options(&["-broadcast=true"]).broadcast);
        assert!(!options(&["-broadcast=false"]).broadcast);
        assert!(!options(&[]).broadcast);
    }

    #[test]
    fn what_is_not_told_is_as_with_the_reference() {
        let read = options(&[]);
        assert_eq!(read.socket(), PathBuf::from("/run/cni/dhcp.sock"));
        assert_eq!(read.state_directory(), PathBuf::from("/run/cni/dhcp"));
        let timing = read.timing();
        let seconds =
            [timing.timeout, timing.resend_max, timing.resend_timeout].map(|t| t.as_secs());
        assert_eq!(seconds, [10, 62, 208]);
    }

    #[test]
    fn a_prefix_precedes_the_hosts_paths() {
        let read = options(&["-hostprefix", "/host"]);
        assert_eq!(read.socket(), PathBuf::from("/host/run/cni/dhcp.sock"));
        assert_eq!(read.state_directory(), PathBuf::from("/host/run/cni/dhcp"));
        let netns = read.below_prefix("/proc/1/ns/net".as_ref());
        assert_eq!(netns, PathBuf::from("/host/proc/1/ns/net"));
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("10s", 10_000),
            ("1m2s", 62_000),
            ("3m28s", 208_000),
            ("200ms", 200),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("1m0.5s", 60_500),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1 s", "10x", "1e9h", "99999999999h", ".s", "nan"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
