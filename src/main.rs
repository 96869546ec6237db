//! The program: a plugin if it is called by a plugin's name, the command line for people otherwise.
#![no_main]

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::AsFd;

use plumb::cni::frame;
use plumb::ipam::dhcp;
use plumb::plugins::tap;
use plumb::sys::stdio;
use plumb::{cli, plugins, trace};

/// The C library calls this, not Rust's runtime, which would set up what a plugin has no use for: a
/// dozen system calls, among them to read /proc/self/maps.
///
/// # Safety
/// `argv` must hold `argc` strings that end with NUL, as the C library's start-up code sees to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // A runtime that has gone must not end us half way: writing to it is to fail instead.
    // SAFETY: no handler is installed, the signal is only ignored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if stdio::reserve().is_err() {
        // Nothing is to be opened, and there may be nobody to tell.
        return 1;
    }
    let argument = |index: c_int| {
        if index >= argc {
            return "";
        }
        // SAFETY: argv has `argc` entries.
        let entry = unsafe { argv.add(index.unsigned_abs() as usize) };
        // SAFETY: as above; the entries live as long as the process.
        let text = unsafe { *entry };
        // SAFETY: each entry is a string that ends with NUL.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
    };
    let called = argument(0).rsplit('/').next().unwrap_or("");
    let by_name = plugins::find(called).map(|plugin| (plugin, 1));
    match by_name.or_else(|| plugins::find(argument(1)).map(|plugin| (plugin, 2))) {
        Some((plugin, next)) if plugin.name == dhcp::PLUGIN.name && argc > next => {
            cli::dhcp::run(next.unsigned_abs() as usize)
        }
        Some((plugin, _)) => {
            trace::begin_if_asked();
            frame::run(plugin)
        }
        None if called == tap::MAKER => {
            tap::make_for_parent(io::stdin().as_fd(), argument(1), argument(2))
        }
        None if frame::is_called() && argc < 2 => frame::refuse(called, &plugins::ALL),
        None => cli::run(),
    }
}
