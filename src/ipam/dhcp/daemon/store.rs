//! The state directory: a file for each lease, so that a daemon finds what the one before it has leased.
//!
//! A file holds a JSON object and is named by a digest of the attachment's names and the family. It is written beside, and
//! renamed to its place, so that it is there whole or not at all. What is in `/run` has gone after a reboot; in
//! another place a file says of which boot it is.

use std::ffi::CStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde_json::{Value, json};

use crate::cni::conf::{interface_name_fault, is_identifier};
use crate::cni::json::Node;
use crate::cni::{Attachment, Code, Error};
use crate::ipam::dhcp::life::{Family, Lease};
use crate::ipam::dhcp::protocol::Wanted;
use crate::ipam::dhcp::terms::Terms;
use crate::net::Mac;
use crate::sha256;
use crate::sys::clock::Time;
use crate::sys::lock::{Kind, lock};

const LOCK: &str = "lock";
/// What the files of leases end with, and those that are not whole.
const LEASE: &str = ".lease";
const TEMPORARY: &str = ".new";
/// A lease's file is shorter; what is longer is none.
const LONGEST: u64 = 64 << 10;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What identifies a lease: a digest of the attachment's names and the family.
pub type Key = [u8; 16];

/// The key of an attachment's lease.
#[must_use]
pub fn key(attachment: &Attachment, family: Family) -> Key {
    let Attachment { network, container, ifname } = attachment;
    let family: &[u8] = match family {
        Family::V4 => b"ipv4",
        Family::V6 => b"ipv6",
    };
    let parts = [family, network.as_bytes(), container.as_bytes(), ifname.as_bytes()];
    sha256::digest_parts(&parts).first_chunk().copied().unwrap_or_default()
}

/// A lease as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Whose it is.
    pub attachment: Attachment,
    /// The path of the container's network namespace, and what it is told from others by.
    pub netns: String,
    /// See [`Inside::identity`](super::interface::Inside::identity).
    pub identity: u64,
    /// Index of the link.
    pub link: u32,
    /// Its link-layer address.
    pub mac: Mac,
    /// What was asked for.
    pub wanted: Wanted,
    /// Where the server's last answer came from.
    pub next_hop: Mac,
    /// What was granted.
    pub lease: Lease,
}

/// What a directory held.
#[derive(Debug)]
pub struct Loaded {
    /// Leases of this boot.
    pub records: Vec<Record>,
    /// Names of files that hold none, and why.
    pub refused: Vec<(String, String)>,
}

/// The directory, which no other daemon uses meanwhile.
#[derive(Debug)]
pub struct Store {
    directory: File,
    path: PathBuf,
    boot: String,
    _lock: File,
}

impl Store {
    /// Opens the directory, which is made if there is none, and locks it.
    ///
    /// # Errors
    /// It can't be made or opened; another daemon uses it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let error = |what: &str, why: &dyn std::fmt::Display| {
            Error::io(format_args!("{what} state directory {:?}", path.display()), why)
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|why| error("make", &why))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(path, flags, Mode::empty());
        let directory = File::from(directory.map_err(|why| error("open", &why))?);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&directory, LOCK, flags, Mode::from_bits_truncate(0o600));
        let file = File::from(file.map_err(|why| error("open the lock of", &why))?);
        lock(&file, Kind::OpenFileDescription, Duration::ZERO).map_err(|errno| match errno {
            Errno::EINTR => {
                let msg = format!("another daemon keeps its leases in {:?}", path.display());
                Error::new(Code::Unavailable, msg)
            }
            errno => error("lock", &errno),
        })?;
        let boot = std::fs::read_to_string(BOOT_ID);
        let boot = boot.map_err(|why| Error::io(format_args!("read {BOOT_ID}"), why))?;
        Ok(Self { directory, path: path.to_owned(), boot: boot.trim().to_owned(), _lock: file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a lease.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep(&self, record: &Record) -> Result<(), Error> {
        let name = file_name(&record.attachment, Family::of(&record.wanted));
        let temporary = format!("{name}{TEMPORARY}");
        let content = self.encode(record).to_string();
        let write = || {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
            let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mode = Mode::from_bits_truncate(0o600);
            let mut file = File::from(openat(&self.directory, temporary.as_str(), flags, mode)?);
            file.write_all(content.as_bytes())?;
            renameat(&self.directory, temporary.as_str(), &self.directory, name.as_str())?;
            Ok(())
        };
        write().map_err(|why: io::Error| {
            let _ = self.remove(&temporary);
            self.error("write", &name, why)
        })
    }

    /// Forgets a lease of an attachment, if there is one.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn forget(&self, attachment: &Attachment, family: Family) -> Result<(), Error> {
        let name = file_name(attachment, family);
        self.remove(&name).map_err(|why| self.error("remove", &name, why))
    }

    /// Reads all leases. What is no lease of this boot's goes.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn load(&self) -> Result<Loaded, Error> {
        let error = |why| Error::io(format_args!("list {:?}", self.path.display()), why);
        let mut loaded = Loaded { records: Vec::new(), refused: Vec::new() };
        let copy =
            self.directory.as_fd().try_clone_to_owned().map_err(|why| error(why.to_string()))?;
        let mut directory = Dir::from_fd(copy).map_err(|why| error(why.to_string()))?;
        for entry in directory.iter() {
            let entry = entry.map_err(|why| error(why.to_string()))?;
            let Some(name) = lease_file(entry.file_name()) else { continue };
            let read = if name.ends_with(TEMPORARY) {
                Err("it was not written to its end".to_owned())
            } else {
                self.read(&name)
            };
            match read {
                Ok(record) => loaded.records.push(record),
                Err(why) => {
                    let _ = self.remove(&name);
                    loaded.refused.push((name, why));
                }
            }
        }
        Ok(loaded)
    }

    fn read(&self, name: &str) -> Result<Record, String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| errno.to_string())?);
        let mut content = Vec::new();
        file.take(LONGEST).read_to_end(&mut content).map_err(|why| why.to_string())?;
        let value: Value = serde_json::from_slice(&content).map_err(|why| why.to_string())?;
        let record = self.decode(&Node::root("", &value)).map_err(|error| error.msg)?;
        if file_name(&record.attachment, Family::of(&record.wanted)) != name {
            return Err("it is another attachment's".to_owned());
        }
        Ok(record)
    }

    fn encode(&self, record: &Record) -> Value {
        let Record { attachment, netns, identity, link, mac, wanted, next_hop, lease } = record;
        json!({
            "boot": self.boot,
            "network": attachment.network,
            "container": attachment.container,
            "ifname": attachment.ifname,
            "netns": netns,
            // As text: not every reader of JSON has 64 bits for a number.
            "identity": identity.to_string(),
            "link": link,
            "mac": mac.to_string(),
            "wanted": wanted.to_value(),
            "nextHop": next_hop.to_string(),
            "sinceMs": lease.since.since_boot().as_millis().to_string(),
            "terms": lease.terms.to_value(),
        })
    }

    fn decode(&self, node: &Node<'_>) -> Result<Record, Error> {
        let boot = text(node, "boot")?;
        if boot != self.boot {
            let msg = "the machine was started anew since";
            return Err(Error::new(Code::InvalidConfig, msg));
        }
        let mac = |key| required(node, key)?.parse("a MAC address", |text| text.parse().ok());
        let number = |key| required(node, key)?.parse("a number", |text| text.parse::<u64>().ok());
        let attachment = Attachment {
            network: text(node, "network")?,
            container: text(node, "container")?,
            ifname: text(node, "ifname")?,
        };
        check_names(&attachment)?;
        Ok(Record {
            attachment,
            netns: text(node, "netns")?,
            identity: number("identity")?,
            link: required(node, "link")?.integer(1..=u32::MAX)?,
            mac: mac("mac")?,
            wanted: Wanted::read(&required(node, "wanted")?)?,
            next_hop: mac("nextHop")?,
            lease: Lease {
                since: Time::after_boot(Duration::from_millis(number("sinceMs")?)),
                terms: Terms::read_json(&required(node, "terms")?)?,
            },
        })
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn error(&self, operation: &str, name: &str, why: impl std::fmt::Display) -> Error {
        Error::io(format_args!("{operation} {:?}", self.path.join(name).display()), why)
    }
}

fn file_name(attachment: &Attachment, family: Family) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(32 + LEASE.len());
    for byte in key(attachment, family) {
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(LEASE);
    name
}

/// The name of a file if it is a lease's, whole or not.
fn lease_file(name: &CStr) -> Option<String> {
    let name = name.to_str().ok()?;
    let whole = name.strip_suffix(TEMPORARY).unwrap_or(name);
    whole.ends_with(LEASE).then(|| name.to_owned())
}

fn check_names(attachment: &Attachment) -> Result<(), Error> {
    let Attachment { network, container, ifname } = attachment;
    let sound = is_identifier(network) && is_identifier(container);
    if sound && interface_name_fault(ifname).is_none() {
        return Ok(());
    }
    Err(Error::new(Code::InvalidConfig, "its names are no attachment's"))
}

fn required<'a>(node: &'a Node<'a>, key: &'a str) -> Result<Node<'a>, Error> {
    node.get(key)?.ok_or_else(|| Error::invalid(key, "nothing", "a value"))
}

fn text(node: &Node<'_>, key: &str) -> Result<String, Error> {
    required(node, key)?.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ipam::dhcp::terms::Times;

    fn record(family: Family) -> Record {
        let seconds = Duration::from_secs;
        let terms = Terms {
            address: "10.0.0.7/24".parse().unwrap(),
            server: "10.0.0.1".parse().unwrap(),
            server_id: vec![0, 1, 255],
            gateway: Some("10.0.0.1".parse().unwrap()),
            routes: Vec::new(),
            mtu: Some(1400),
            nameservers: vec!["10.0.0.53".parse().unwrap()],
            domain: None,
            search: vec!["example.org".to_owned()],
            times: Times { renew: seconds(10), rebind: seconds(20), expire: Some(seconds(30)) },
        };
        Record {
            attachment: Attachment {
                network: "net".into(),
                container: "c1".into(),
                ifname: "eth0".into(),
            },
            netns: "/run/netns/c1".into(),
            identity: u64::MAX,
            link: 3,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            wanted: Wanted { requested: vec![1, 3], priority: 7, probe: true, ..family.only() },
            next_hop: Mac([2, 0, 0, 0, 0, 2]),
            lease: Lease { terms, since: Time::after_boot(Duration::from_millis(1234)) },
        }
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_daemon_until_it_is_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let store = Store::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for family in Family::ALL {
            store.keep(&record(family)).unwrap();
            // Again, as when it is renewed.
            store.keep(&record(family)).unwrap();
        }
        drop(store);
        let store = Store::open(&path).unwrap();
        let mut found = store.load().unwrap();
        assert_eq!(found.refused, []);
        found.records.sort_by_key(|record| record.wanted.ipv6);
        assert_eq!(found.records, Family::ALL.map(record));
        let attachment = record(Family::V4).attachment;
        for _ in 0..2 {
            store.forget(&attachment, Family::V4).unwrap();
            assert_eq!(store.load().unwrap().records, [record(Family::V6)]);
        }
    }

    #[test]
    fn a_directory_has_one_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(error.msg.contains("another daemon"), "{}", error.msg);
        drop(store);
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn damage_of_any_kind_is_no_lease() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.keep(&record(Family::V4)).unwrap();
        let name = file_name(&record(Family::V4).attachment, Family::V4);
        let file = directory.path().join(&name);
        let whole = std::fs::read_to_string(&file).unwrap();
        let swapped = |from: &str, to: &str| whole.replace(from, to);
        for content in [
            String::new(),
            "[]".to_owned(),
            swapped("\"c1\"", "\"../c1\""),
            swapped("\"c1\"", "\"c2\""),
            swapped("10.0.0.7/24", "10.0.0.7"),
            swapped("\"link\":3", "\"link\":0"),
            swapped(&store.boot, "another"),
        ] {
            std::fs::write(&file, &content).unwrap();
            let found = store.load().unwrap();
            assert_eq!(found.records, [], "{content}");
            assert_eq!(found.refused.len(), 1, "{content}");
            assert!(!file.exists(), "it goes");
        }
        for cut in (0..whole.len()).step_by(7) {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(store.load().unwrap().records, [], "cut to {cut} bytes");
        }
    }
}
