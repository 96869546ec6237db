//! `plumb plugins`: what there is.

use clap::Args;
use serde_json::json;

use super::{say, say_json};
use crate::cni::Version;
use crate::plugins::ALL;

/// List the plugins that this binary is
///
/// Each is called by its name, as a hard or symbolic link to this binary or as `plumb NAME`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  plumb plugins\n  plumb plugins --json | jq -r '.plugins[].name'\n\n\
                  Exit codes:\n  0  done\n  2  the command line can't be understood"
)]
pub struct Options {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<i32, String> {
    let versions = Version::ALL.map(Version::text);
    if options.json {
        let plugins: Vec<_> =
            ALL.iter().map(|plugin| json!({"name": plugin.name, "about": plugin.about})).collect();
        say_json(&json!({"cniVersions": versions, "plugins": plugins}));
        return Ok(0);
    }
    let width = ALL.iter().map(|plugin| plugin.name.len()).max().unwrap_or(0);
    for plugin in ALL {
        say(format_args!("{:width$}  {}", plugin.name, plugin.about));
    }
    say(format_args!("\nCNI versions: {}", versions.join(", ")));
    Ok(0)
}
