//! The lease directories of host-local: whether they can be worked in, and what is in them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::finding::{Finding, Id, Severity, some};
use super::networks::Networks;
use crate::cli::leases::networks_in;
use crate::ipam::host_local::config::DATA_DIR;
use crate::ipam::host_local::index::Index;
use crate::ipam::host_local::range::RangeSet;
use crate::ipam::host_local::store::{INDEX, LOCK, Sighting, Store, boot_id};
use crate::net::parse_ip;

/// From how many hundredths of a pool on it is nearly exhausted.
const NEARLY_EXHAUSTED: u128 = 90;
/// Below how many hundredths that are free a disk is nearly full.
const NEARLY_FULL: u64 = 1;

pub fn look(networks: &Networks) -> Vec<Finding> {
    let mut findings = Vec::new();
    let directories = match directories(networks) {
        Ok(directories) => directories,
        Err(why) => return vec![Finding::unseen("leases", why)],
    };
    let places: BTreeSet<_> = directories
        .iter()
        .map(|(data_dir, name)| nearest(&Path::new(data_dir).join(name)))
        .collect();
    findings.extend(places.iter().filter_map(|place| unusable(place)));
    for place in &places {
        findings.extend(disk(place));
    }
    for (data_dir, name) in &directories {
        match Store::open(data_dir, name) {
            Ok(Some(store)) => findings.extend(contents(&store)),
            Ok(None) => {}
            Err(error) => findings.push(Finding::error(
                Id::LeaseDirectoryUnusable,
                Path::new(data_dir).join(name).display(),
                error.msg,
                "make it a directory that root can read and write",
            )),
        }
    }
    for plugin in &networks.plugins {
        let Some(Ok(config)) = plugin.pools() else { continue };
        let held = leases(&config.data_dir, &plugin.network);
        findings.extend(config.sets.iter().filter_map(|set| pool(&plugin.network, set, &held)));
    }
    findings
}

/// Data directory and network of each: of those that are configured, and all below the usual place.
fn directories(networks: &Networks) -> Result<BTreeSet<(String, String)>, String> {
    let there = networks_in(Path::new(DATA_DIR))?;
    let there = there.into_iter().map(|name| (DATA_DIR.to_owned(), name));
    let configured = networks.plugins.iter().filter_map(|plugin| {
        let config = plugin.pools()?.ok()?;
        Some((config.data_dir, plugin.network.clone()))
    });
    Ok(there.chain(configured).collect())
}

/// What is leased in a network; nothing where that can't be read, which is told of on its own.
pub fn leases(data_dir: &str, network: &str) -> Vec<Sighting> {
    let store = Store::open(data_dir, network).ok().flatten();
    store.and_then(|store| store.look().ok()).unwrap_or_default()
}

/// The directory itself, or the one above it that is there: in that it will be made.
pub fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Whether files can be made in a directory, as this process sees it.
pub fn access(directory: &Path) -> Result<(), Errno> {
    let flags = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, directory, flags, AtFlags::AT_EACCESS)
}

fn unusable(place: &Path) -> Option<Finding> {
    let subject = place.display();
    let metadata = fs::metadata(place).ok()?;
    if !metadata.is_dir() {
        let finding = "it is no directory, so there can be no leases in it";
        let advice = "remove it; host-local makes the directory";
        return Some(Finding::error(Id::LeaseDirectoryUnusable, subject, finding, advice));
    }
    match access(place) {
        Err(Errno::EROFS) => {
            let finding = "its file system is read-only, so no address can be leased or released";
            let advice = "mount it writable; if that happened by itself, see the kernel's log for disk errors";
            Some(Finding::error(Id::LeaseReadOnly, subject, finding, advice))
        }
        Err(why) => {
            let finding =
                format!("no file can be made in it ({}), so no address can be leased", why.desc());
            let advice = "make it root's, with mode 755";
            Some(Finding::error(Id::LeaseDirectoryUnusable, subject, finding, advice))
        }
        Ok(()) => mode(place, metadata.uid(), metadata.mode()),
    }
}

fn mode(place: &Path, owner: u32, mode: u32) -> Option<Finding> {
    let wrong = match () {
        () if owner != geteuid().as_raw() => format!("user {owner} owns it"),
        // Of a directory such as /tmp, where each can only remove what is his own, nothing can be lost.
        () if mode & 0o022 != 0 => format!("its mode is {:o}", mode & 0o7777),
        () => return None,
    };
    Some(Finding::warning(
        Id::LeaseDirectoryMode,
        place.display(),
        format_args!("{wrong}: others than root can release and take addresses"),
        format_args!("chown root: {0} && chmod 755 {0}", place.display()),
    ))
}

/// A disk without room for a lease.
fn disk(place: &Path) -> Option<Finding> {
    let room = statvfs(place).ok()?;
    if room.flags().contains(FsFlags::ST_RDONLY) {
        return None;
    }
    let space = shortage("space", room.blocks(), room.blocks_available());
    let inodes = shortage("inodes", room.files(), room.files_available());
    let (severity, what) = space.into_iter().chain(inodes).min_by_key(|(severity, _)| *severity)?;
    let finding = format!("{what}, and each lease is a file");
    let advice = "free some: look for logs and images (du -x); leases themselves take little";
    Some(Finding::of(severity, Id::LeaseDiskFull, place.display(), finding, advice))
}

/// How short of something a file system is; one without such a limit tells a total of 0.
fn shortage(what: &str, total: u64, available: u64) -> Option<(Severity, String)> {
    if total == 0 || available.saturating_mul(100) >= total.saturating_mul(NEARLY_FULL) {
        return None;
    }
    Some(match available {
        0 => (Severity::Error, format!("its file system has no {what} left")),
        _ => (
            Severity::Warning,
            format!("its file system has less than {NEARLY_FULL} % of its {what} left"),
        ),
    })
}

/// What is in a directory that should not be, or not like that.
fn contents(store: &Store) -> Vec<Finding> {
    let path = store.path();
    let (names, leases) = match (names(path), store.look()) {
        (Ok(names), Ok(leases)) => (names, leases),
        (Err(why), _) => return vec![Finding::unseen(path.display(), why)],
        (_, Err(error)) => return vec![Finding::unseen(path.display(), error.msg)],
    };
    let mut findings = Vec::new();
    let damaged: Vec<_> =
        leases.iter().filter(|l| l.container.is_empty()).map(|l| l.address.to_string()).collect();
    if !damaged.is_empty() {
        findings.push(Finding::warning(
            Id::LeaseFileDamaged,
            path.display(),
            format_args!("lease files name no holder or can't be read: {}", some(&damaged)),
            "nothing if they are empty or torn: such an address is free when others have run out; else remove \
             what is there",
        ));
    }
    let foreign: Vec<_> = names.into_iter().filter(|name| is_foreign(name)).collect();
    if !foreign.is_empty() {
        findings.push(Finding::note(
            Id::LeaseForeignFile,
            path.display(),
            format_args!("files that are no leases: {}", some(&foreign)),
            "remove them if nobody needs them; host-local takes no notice",
        ));
    }
    findings.extend(index(path, &leases));
    findings
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    let mut names: Vec<_> = fs::read_dir(path)?.map(name).collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

fn is_foreign(name: &str) -> bool {
    let is_rotor = |name: &str| {
        name.strip_prefix("last_reserved_ip.")
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    };
    parse_ip(name).is_none() && name != LOCK && name != INDEX && !is_rotor(name)
}

/// The index, which heals itself, and which boot the leases are of.
fn index(path: &Path, leases: &[Sighting]) -> Option<Finding> {
    let file = path.join(INDEX);
    let recorded = match File::open(&file) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.len() > 0) => {
            let Some((boot, _)) = Index::open(file).ok()?.recorded() else {
                return Some(Finding::note(
                    Id::LeaseIndexDamaged,
                    path.join(INDEX).display(),
                    "the index of the leases is damaged",
                    "nothing: the next call builds it anew from the lease files",
                ));
            };
            Some(boot)
        }
        _ => None,
    };
    let earlier = match (recorded, boot_id()) {
        (Some(boot), Ok(now)) if boot == now => 0,
        (Some(_), Ok(_)) => leases.len(),
        _ => leases.iter().filter(|lease| lease.since < boot_time()).count(),
    };
    (earlier > 0).then(|| {
        Finding::note(
            Id::LeaseEarlierBoot,
            path.display(),
            format_args!(
                "leases of an earlier boot, which no container has lived through: {earlier}"
            ),
            "nothing: the next ADD frees them",
        )
    })
}

fn boot_time() -> SystemTime {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split(['.', ' ']).next().and_then(|text| text.parse().ok()).unwrap_or(0);
    SystemTime::now().checked_sub(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn pool(network: &str, set: &RangeSet, leases: &[Sighting]) -> Option<Finding> {
    let is_in = |lease: &&Sighting| set.range_of(lease.address).is_some();
    let (held, capacity) = (leases.iter().filter(is_in).count() as u128, set.capacity());
    let subject = format!("network {network}, {set}");
    let advice =
        format!("plumb gc {network} frees what nobody holds any more; else make the range larger");
    if held >= capacity {
        let finding = format!("all {capacity} addresses are held, so the next ADD fails");
        return Some(Finding::error(Id::PoolExhausted, subject, finding, advice));
    }
    (held.saturating_mul(100) >= capacity.saturating_mul(NEARLY_EXHAUSTED)).then(|| {
        let finding = format!("{held} of {capacity} addresses are held");
        Finding::warning(Id::PoolNearlyExhausted, subject, finding, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::json::Node;
    use serde_json::json;

    #[test]
    fn a_pool_is_exhausted_by_what_is_in_its_range() {
        let range =
            json!([{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.19"}]);
        let set = RangeSet::read(&Node::root("r", &range)).unwrap();
        let id = |count: u8| {
            let lease = |n| Sighting {
                address: [10, 1, 0, n].into(),
                container: "c".into(),
                ifname: "eth0".into(),
                since: SystemTime::now(),
            };
            // One of another range does not count.
            let leases: Vec<_> = (0..count).map(|n| lease(10 + n)).chain([lease(200)]).collect();
            pool("n", &set, &leases).map(|finding| finding.id)
        };
        assert_eq!(
            [id(8), id(9), id(10)],
            [None, Some(Id::PoolNearlyExhausted), Some(Id::PoolExhausted)]
        );
    }

    #[test]
    fn a_disk_is_short_of_space_or_inodes_below_a_hundredth() {
        let severity = |total, available| shortage("space", total, available).map(|(s, _)| s);
        assert_eq!(severity(1000, 10), None);
        assert_eq!(severity(1000, 9), Some(Severity::Warning));
        assert_eq!(severity(1000, 0), Some(Severity::Error));
        assert_eq!(severity(0, 0), None, "no limit");
    }

    #[test]
    fn what_host_local_makes_is_not_foreign() {
        for name in ["10.1.0.2", "fd00::2", "lock", "plumb.index", "last_reserved_ip.0"] {
            assert!(!is_foreign(name), "{name}");
        }
        for name in ["10.1.0.2.bak", "last_reserved_ip.x", "README", ".tmp"] {
            assert!(is_foreign(name), "{name}");
        }
    }
}
