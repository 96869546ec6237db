//! The daemon's log: a line for each event on standard error, `key=value` pairs (logfmt).

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

/// How much an event matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody may want to look.
    Warning,
    /// Something does not work.
    Error,
}

/// Logs an event.
pub fn log(level: Level, what: &str, fields: &[(&str, &dyn fmt::Display)]) {
    // In one write, so that lines of several processes don't mix. Whoever does not read the log misses it.
    let _ = io::stderr().write_all(line(level, what, fields).as_bytes());
}

fn line(level: Level, what: &str, fields: &[(&str, &dyn fmt::Display)]) -> String {
    let level = match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let mut line = format!("level={level} msg=\"{what}\"");
    for (key, value) in fields {
        let value = value.to_string();
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        let _ = if !value.is_empty() && value.chars().all(plain) {
            write!(line, " {key}={value}")
        } else {
            // What a server or a container chooses can't begin a line of its own.
            write!(line, " {key}={value:?}")
        };
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_whatever_is_logged() {
        let line = line(
            Level::Warning,
            "server refuses",
            &[("lease", &"net/c/eth0"), ("why", &"no \"x\"\nlevel=info"), ("none", &"")],
        );
        let expected = "level=warning msg=\"server refuses\" lease=net/c/eth0 \
                        why=\"no \\\"x\\\"\\nlevel=info\" none=\"\"\n";
        assert_eq!(line, expected);
    }
}
