//! `plumb trace`: a plugin's conversation with the kernel.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cni::frame;
use crate::plugins::{self, ALL};
use crate::trace;

/// Run a plugin and show what it says to the kernel and what the kernel answers
///
/// The plugin is called as a runtime calls it: the environment says what to do (CNI_COMMAND,
/// CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH), the configuration comes on standard input, the
/// result goes to standard output. What is shown goes to standard error: every netlink message in the
/// kernel's own names, how long the kernel takes, and every file that is opened, each with the time since
/// the start, the process, and whether it happens on the host or in the container.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 \\
    CNI_PATH=/opt/cni/bin plumb trace bridge < mynet.conf
  CNI_COMMAND=STATUS CNI_PATH=/opt/cni/bin plumb trace --output status.txt host-local < mynet.conf

A plugin that a runtime starts does the same if the runtime's environment has PLUMB_TRACE=FILE. The
file is appended to, and must not be a symbolic link.")]
pub struct Options {
    /// The plugin
    #[arg(value_parser = PossibleValuesParser::new(ALL.map(|plugin| plugin.name)))]
    plugin: String,
    /// Append what is shown to this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<i32, String> {
    let Some(plugin) = plugins::find(&options.plugin) else {
        return Err(format!("there is no plugin {:?}", options.plugin));
    };
    if !frame::is_called() {
        return Err("CNI_COMMAND is not set; `plumb trace --help` has an example".to_owned());
    }
    let (file, name) = match &options.output {
        Some(path) => (trace::open(path), path.display().to_string()),
        None => {
            (io::stderr().as_fd().try_clone_to_owned().map(Into::into), "standard error".into())
        }
    };
    trace::begin(file.map_err(|why| format!("cannot open {name}: {why}"))?);
    Ok(frame::run(plugin))
}
