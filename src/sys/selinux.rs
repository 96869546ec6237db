//! SELinux: programs that run in another security context than ours (selinux(8), and `attr/exec` of proc(5)).

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, ExitStatus};

use crate::trace;

/// The file systems that the kernel knows; that of SELinux only if it is in use.
const FILE_SYSTEMS: &str = "/proc/filesystems";
/// The context in which this thread's next program will run.
const EXEC: &str = "/proc/thread-self/attr/exec";

/// Why a program has not run.
#[derive(Debug)]
pub enum Refusal {
    /// The kernel does not take the context.
    Context(io::Error),
    /// The program can't be executed in it.
    Program(io::Error),
}

/// Whether SELinux is in use here. Whether its file system is mounted does not matter: in the mount namespace of
/// a runtime that is itself in a container it need not be.
///
/// # Errors
/// Those of read(2): /proc is not mounted.
pub fn is_enabled() -> io::Result<bool> {
    let known = std::fs::read_to_string(FILE_SYSTEMS);
    trace::file("read", FILE_SYSTEMS, &known);
    let is_its = |line: &str| line.split_whitespace().next_back() == Some("selinuxfs");
    known.map(|known| known.lines().any(is_its))
}

/// Runs `program` in this context, to its end.
///
/// # Errors
/// It has not run.
pub fn run_in(context: &str, program: &mut Command) -> Result<ExitStatus, Refusal> {
    set_exec(context).map_err(Refusal::Context)?;
    let ended = program.spawn().and_then(|mut child| child.wait());
    // It would hold for the programs after this one, too.
    set_exec("\n").map_err(Refusal::Context)?;
    ended.map_err(Refusal::Program)
}

/// A line end alone takes back what was set before (`selinux_setprocattr`, security/selinux/hooks.c).
fn set_exec(context: &str) -> io::Result<()> {
    let file = File::options().write(true).open(EXEC);
    let outcome = file.and_then(|mut file| file.write_all(context.as_bytes()));
    trace::file("write", format_args!("{EXEC} {context:?}"), &outcome);
    outcome
}
