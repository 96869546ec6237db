//! The plugins that networks name, where a runtime looks for them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::finding::{Finding, Id};
use super::networks::Networks;
use crate::cli::call::variable;
use crate::cni::delegate::ITSELF;
use crate::plugins;

/// Where runtimes look that are not told otherwise.
const DIRECTORIES: &str = "/opt/cni/bin:/usr/lib/cni";
/// In every release of this program: the first bytes of an index of leases.
const OURS: &[u8] = b"PLUMBIX1";
/// In every plugin of the reference: the path of its packages.
const REFERENCE: &[u8] = b"github.com/containernetworking/plugins";

pub fn look(networks: &Networks) -> Vec<Finding> {
    let path = variable("CNI_PATH").unwrap_or_else(|| DIRECTORIES.to_owned());
    let mut findings = Vec::new();
    for name in named(networks) {
        let users = networks.with(|p| p.kind == name || p.ipam().as_deref() == Some(&name));
        let users = format!("network {}, {name}", users.unwrap_or_default());
        let is_ours = plugins::find(&name).is_some();
        match find(&path, &name) {
            None => findings.push(Finding::error(
                Id::PluginMissing,
                users,
                format_args!("there is no program {name} in {path}"),
                if is_ours {
                    "plumb install DIR puts it there; or set CNI_PATH to where the runtime looks"
                } else {
                    "install it, or set CNI_PATH to where the runtime looks"
                },
            )),
            Some(file) if is_ours && is_reference(&file) => findings.push(Finding::note(
                Id::PluginReference,
                users,
                format_args!("{} is the reference's, not plumb's", file.display()),
                "plumb install DIR puts plumb's in its place and keeps it for --uninstall",
            )),
            Some(_) => {}
        }
    }
    findings
}

/// Types of plugins, those of address management included.
fn named(networks: &Networks) -> BTreeSet<String> {
    let types =
        networks.plugins.iter().flat_map(|plugin| [Some(plugin.kind.clone()), plugin.ipam()]);
    types.flatten().collect()
}

fn find(path: &str, name: &str) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    path.split(':').map(|directory| Path::new(directory).join(name)).find(is_program)
}

/// Whether a file is a program of the reference. We name it too, so we are told first.
fn is_reference(file: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    if id(file).is_some_and(|id_of_file| id(Path::new(ITSELF)) == Some(id_of_file)) {
        return false;
    }
    let program = fs::read(file).unwrap_or_default();
    let has = |mark: &[u8]| program.windows(mark.len()).any(|bytes| bytes == mark);
    !has(OURS) && has(REFERENCE)
}
