//! What is told to who looks inside a plugin (`PLUMB_TRACE`, `plumb trace`): the messages that go to and
//! come from the kernel, and the files that are opened, as it happens.
//!
//! This is the one piece of state that belongs to the whole process, as the environment does that
//! switches it on: no plugin has to hand it on, and none can forget to. Switched off, it costs a look at
//! a variable in memory, and no system call.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

static TRACE: OnceLock<Trace> = OnceLock::new();

/// Where it is told, and since when.
#[derive(Debug)]
pub struct Trace {
    file: File,
    began: Instant,
    pid: u32,
    /// The network namespace that the process was started in.
    host: Option<Namespace>,
}

/// Device and inode.
type Namespace = (u64, u64);

/// The file at `path` for a trace, to append to. Nobody else may read it: it names what runs on the node.
///
/// # Errors
/// Those of open(2); `ELOOP` if the last part of the path is a symbolic link, which another may have
/// put there.
pub fn open(path: &Path) -> io::Result<File> {
    // A plugin must not wait for who reads from a FIFO.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// Begins to trace into the file that the variable `PLUMB_TRACE` names, if there is one. That it can't be
/// written is no reason for a plugin to fail.
pub fn begin_if_asked() {
    let Some(path) = std::env::var_os("PLUMB_TRACE").filter(|path| !path.is_empty()) else {
        return;
    };
    match open(Path::new(&path)) {
        Ok(file) => begin(file),
        Err(why) => {
            let path = OsStr::display(&path);
            let _ = writeln!(io::stderr(), "plumb: PLUMB_TRACE: cannot open {path}: {why}");
        }
    }
}

/// Begins to trace into `file`.
pub fn begin(file: File) {
    let (began, pid, host) = (Instant::now(), std::process::id(), namespace());
    // Who comes second finds it switched on, which is as good.
    let _ = TRACE.set(Trace { file, began, pid, host });
}

/// The trace; `None` if it is switched off.
#[must_use]
pub fn current() -> Option<&'static Trace> {
    TRACE.get()
}

/// Tells of an event that is no message.
pub fn note(event: fmt::Arguments<'_>) {
    if let Some(trace) = current() {
        trace.tell(trace.place(), &[event]);
    }
}

/// Tells of what is done to a file, and how it goes.
pub fn file<T, E: fmt::Display>(action: &str, path: impl fmt::Display, outcome: &Result<T, E>) {
    if let Some(trace) = current() {
        let place = trace.place();
        match outcome {
            Ok(_) => trace.tell(place, &[format_args!("{action} {path}")]),
            Err(why) => trace.tell(place, &[format_args!("{action} {path}: {why}")]),
        }
    }
}

impl Trace {
    /// The network namespace that the process is in now: `host` if it was started there.
    #[must_use]
    pub fn place(&self) -> &'static str {
        match namespace() {
            None => "?",
            now if now == self.host => "host",
            Some(_) => "container",
        }
    }

    /// Tells of events of this moment. They are written at once, so that processes which share a file
    /// don't mix, and before what they are about, so that it is known where one has come to an end.
    pub fn tell(&self, place: &str, events: &[impl fmt::Display]) {
        let ms = self.began.elapsed().as_secs_f64() * 1e3;
        let pid = self.pid;
        let mut text = String::new();
        for event in events {
            let begin = format!("{ms:9.3} ms {pid:7} {place:9} ");
            // What an event has more to tell stands below it.
            let indent = format!("\n{:1$}", "", begin.len());
            text.push_str(&begin);
            text.push_str(&event.to_string().replace('\n', &indent));
            text.push('\n');
        }
        // A full disk is no reason for a plugin to fail.
        let _ = (&self.file).write_all(text.as_bytes());
    }
}

fn namespace() -> Option<Namespace> {
    let metadata = std::fs::metadata("/proc/thread-self/ns/net").ok()?;
    Some((metadata.dev(), metadata.ino()))
}
