//! Where plumb keeps what is no lease: its lock, its results, the DHCP daemon's socket.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::finding::{Finding, Id};
use super::leases::{access, nearest};
use super::networks::Networks;
use crate::cli::cache;
use crate::cni::queue::QUEUE;

/// `__SO_ACCEPTCON`, in the flags of who listens.
const LISTENING: u32 = 1 << 16;

pub fn look(networks: &Networks) -> Vec<Finding> {
    let mut findings: Vec<_> = lock(Path::new(QUEUE)).into_iter().collect();
    findings.extend(results(Path::new(cache::DIRECTORY)));
    findings.extend(dhcp(networks));
    findings
}

fn lock(path: &Path) -> Option<Finding> {
    let place = if path.exists() { path } else { path.parent()? };
    let fault = match fs::metadata(place) {
        Err(why) => why.to_string(),
        Ok(metadata) if place == path && !metadata.is_file() => "it is no file".to_owned(),
        Ok(_) => access_to(place).err()?,
    };
    Some(Finding::error(
        Id::LockUnusable,
        path.display(),
        format_args!("{}: {fault}; every ADD and DEL locks it", place.display()),
        "let root write there; /run is a tmpfs as a rule",
    ))
}

fn access_to(place: &Path) -> Result<(), String> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    use nix::unistd::{AccessFlags, faccessat};
    let write = faccessat(AT_FDCWD, place, AccessFlags::W_OK, AtFlags::AT_EACCESS);
    write.map_err(|why| why.desc().to_owned())
}

fn results(directory: &Path) -> Option<Finding> {
    let place = nearest(directory);
    let fault = if place.is_dir() { access(&place).err()?.desc() } else { "it is no directory" };
    Some(Finding::warning(
        Id::ResultsUnusable,
        directory.display(),
        format_args!(
            "{}: {fault}; plumb add and runtimes that use libcni keep results there",
            place.display()
        ),
        "let root write there",
    ))
}

fn dhcp(networks: &Networks) -> Vec<Finding> {
    let mut users: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
    for plugin in &networks.plugins {
        if let Some(socket) = plugin.dhcp_socket() {
            users.entry(socket).or_default().push(&plugin.network);
        }
    }
    let listening = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
    let fault = |socket: &Path| match fs::metadata(socket) {
        Err(why) => Some(why.to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => Some("it is no socket".to_owned()),
        // To connect would start a daemon that waits for that.
        Ok(_) if !is_listened_at(&listening, socket) => Some("nobody listens".to_owned()),
        Ok(_) => None,
    };
    let finding = |(socket, networks): (PathBuf, Vec<&str>)| {
        let fault = fault(&socket)?;
        Some(Finding::error(
            Id::DhcpDaemonMissing,
            socket.display(),
            format_args!("{fault}; network {} asks the DHCP daemon there", networks.join(", ")),
            "start it: plumb dhcp daemon, or the units of docs/systemd",
        ))
    };
    users.into_iter().filter_map(finding).collect()
}

/// Whether somebody listens, by /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`. A path that
/// leads through links is as it was when the socket was made, so that only its end is compared.
fn is_listened_at(table: &str, socket: &Path) -> bool {
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, _, _, flags, _, _, _, path] = fields.as_slice() else { return false };
        let listens = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & LISTENING != 0);
        let same = Path::new(path) == socket
            || fs::canonicalize(path)
                .is_ok_and(|path| fs::canonicalize(socket).is_ok_and(|s| s == path));
        listens && same
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_stands_in_the_kernels_table() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 20 /nowhere/a.sock\n\
                     0000000000000000: 00000003 00000000 00000000 0001 03 21 /nowhere/b.sock\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 22 @/nowhere/c.sock\n";
        assert!(is_listened_at(table, Path::new("/nowhere/a.sock")));
        for other in ["/nowhere/b.sock", "/nowhere/c.sock", "/nowhere/d.sock"] {
            assert!(!is_listened_at(table, Path::new(other)), "{other}");
        }
    }
}
