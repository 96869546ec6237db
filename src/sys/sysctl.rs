//! Kernel settings under `/proc/sys/net`, of the network namespace that the thread is in.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use crate::trace;

/// Reads the setting `name`, `ipv4/ip_forward`, without the line end.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read(name: &str) -> io::Result<String> {
    let mut buffer = [0; 64];
    let path = path(name);
    let length = File::open(&path).and_then(|mut file| {
        loop {
            match file.read(&mut buffer) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        }
    });
    trace::file("read", &path, &length);
    let length = length?;
    let text = buffer.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(text).trim_end().to_owned())
}

/// Writes the setting `name`.
///
/// # Errors
/// Those of open(2) and write(2).
pub fn write(name: &str, value: &str) -> io::Result<()> {
    let path = path(name);
    let file = OpenOptions::new().write(true).open(&path);
    let outcome = file.and_then(|mut file| file.write_all(value.as_bytes()));
    trace::file("write", format_args!("{path} {value}"), &outcome);
    outcome
}

/// Writes the setting unless it has the value: what is right already may be read-only.
///
/// # Errors
/// Those of open(2), read(2) and write(2).
pub fn ensure(name: &str, value: &str) -> io::Result<()> {
    if read(name)? == value { Ok(()) } else { write(name, value) }
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}
