//! host-local's lease directory: calls among strangers who write any bytes into any file, against a
//! plain list of who holds what. No call may panic, no address be handed out twice; and whatever has
//! happened, once a stranger's change shows, all is released that is asked to be, and leased again.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plumb::cni::conf::is_identifier;
use plumb::cni::env::Command;
use plumb::cni::{Code, NetConf, Request};
use plumb::ipam::host_local;
use plumb_fuzz::{check_error, environment};
use serde_json::json;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Add(u8),
    Request(u8, u8),
    Del(u8),
    Check(u8),
    Status,
    Gc(u8),
    /// A stranger's file, whole.
    Write(File, &'a [u8]),
    /// Bytes of a file, in place: the directory does not tell.
    Overwrite(File, u16, &'a [u8]),
    Cut(File, u16),
    Remove(File),
    /// A directory where a file is expected.
    Occupy(File),
    /// An index of before is put back.
    Save,
    Restore,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum File {
    Lease(u8),
    Rotor(bool),
    Index,
    Lock,
}

/// What there is to lease: the host part of each address, in both sets.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=6;
const OWNERS: u8 = 5;

fn address(number: u8) -> IpAddr {
    let host = HOSTS.start() + number / 2 % 5;
    let text = if number % 2 == 0 { format!("10.1.0.{host}") } else { format!("fd01::{host}") };
    text.parse().unwrap()
}

impl File {
    fn path(self) -> PathBuf {
        DIRECTORY.join("net").join(match self {
            Self::Lease(number) => address(number).to_string(),
            Self::Rotor(number) => format!("last_reserved_ip.{}", u8::from(number)),
            Self::Index => "plumb.index".into(),
            Self::Lock => "lock".into(),
        })
    }
}

/// In memory: the index is brought to the disk at times.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let parent = Path::new("/dev/shm");
    let parent = if parent.is_dir() { parent.to_owned() } else { std::env::temp_dir() };
    parent.join(format!("plumb-fuzz-{}", std::process::id()))
});

fn request(command: Command, owner: u8, extra: &serde_json::Value) -> Request {
    let mut conf = json!({
        "cniVersion": "1.1.0",
        "name": "net",
        "ipam": {
            "type": "host-local",
            "dataDir": *DIRECTORY,
            "ranges": [
                [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.6"}],
                [{"subnet": "fd01::/64", "rangeStart": "fd01::2", "rangeEnd": "fd01::6"}],
            ],
        },
    });
    conf.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    let mut env = environment(command);
    env.container = format!("c{}", owner % OWNERS);
    let stdin = conf.to_string().into_bytes();
    let conf = NetConf::parse(&stdin).unwrap();
    Request::new(env, conf, stdin).unwrap()
}

/// Who holds what, as far as no stranger has touched it.
#[derive(Default)]
struct Model {
    held: BTreeMap<IpAddr, u8>,
    saved: Option<Vec<u8>>,
}

impl Model {
    fn add(&mut self, owner: u8, extra: &serde_json::Value) {
        let owner = owner % OWNERS;
        match host_local::add(&request(Command::Add, owner, extra)) {
            Ok(leased) => {
                assert_eq!(leased.result.ips.len(), 2);
                for ip in &leased.result.ips {
                    let address = ip.address.address;
                    let before = self.held.insert(address, owner);
                    assert!(
                        before.is_none_or(|before| before == owner),
                        "{address} of c{} is handed out to c{owner}",
                        before.unwrap_or_default(),
                    );
                    assert!(before.is_none() || !leased.fresh.contains(&address));
                }
            }
            Err(error) => {
                check_error(&error);
                if error.msg.starts_with("no IP addresses available") {
                    assert!(is_full(0) || is_full(1), "{error}");
                }
            }
        }
        self.compare();
    }

    fn del(&mut self, owner: u8) {
        let owner = owner % OWNERS;
        match host_local::del(&request(Command::Del, owner, &json!({}))) {
            // A damaged index may hide leases of its; what is left must still be there.
            Ok(()) => self.held.retain(|address, who| *who != owner || is_whole(*address, owner)),
            Err(error) => {
                check_error(&error);
                self.held.retain(|address, who| *who != owner || is_whole(*address, owner));
            }
        }
        self.compare();
    }

    fn gc(&mut self, keep: u8) {
        let kept = |owner: u8| keep >> owner & 1 != 0;
        let valid: Vec<_> = (0..OWNERS)
            .filter(|owner| kept(*owner))
            .map(|owner| json!({"containerID": format!("c{owner}"), "ifname": "eth0"}))
            .collect();
        let valid = json!({"cni.dev/valid-attachments": valid});
        match host_local::gc(&request(Command::Gc, 0, &valid), &|_| false) {
            // It goes by the files, so it finds all.
            Ok(()) => self.held.retain(|_, owner| kept(*owner)),
            Err(error) => {
                check_error(&error);
                self.held.retain(|address, who| kept(*who) || is_whole(*address, *who));
            }
        }
        self.compare();
    }

    /// Nothing that is held is lost, and nothing that was released is still there.
    fn compare(&self) {
        for (address, owner) in &self.held {
            assert!(is_whole(*address, *owner), "{address} of c{owner} is lost");
        }
    }

    fn touched(&mut self, file: File) {
        if let File::Lease(number) = file {
            let address = address(number);
            let whole = (0..OWNERS).find(|owner| is_whole(address, *owner));
            match whole {
                // Somebody else has leased it, or it is still what it was.
                Some(owner) => drop(self.held.insert(address, owner)),
                None => drop(self.held.remove(&address)),
            }
        }
    }

    fn take(&mut self, step: &Step<'_>) {
        match *step {
            Step::Add(owner) => self.add(owner, &json!({})),
            Step::Request(owner, number) => {
                let asked = json!({"runtimeConfig": {"ips": [address(number).to_string()]}});
                self.add(owner, &asked);
            }
            Step::Del(owner) => self.del(owner),
            Step::Check(owner) => {
                let checked =
                    (host_local::PLUGIN.check)(&request(Command::Check, owner, &json!({})));
                // Who holds something that the index knows of passes; who holds nothing never does.
                if checked.is_ok() {
                    assert!(self.held.values().any(|holder| *holder == owner % OWNERS));
                }
                checked.err().iter().for_each(check_error);
            }
            Step::Status => {
                let status = host_local::status(&request(Command::Status, 0, &json!({})));
                if let Err(error) = status {
                    check_error(&error);
                    if error.code == Code::Unavailable as u32 {
                        assert!(is_full(0) || is_full(1), "{error}");
                    }
                }
            }
            Step::Gc(keep) => self.gc(keep),
            Step::Write(file, content) => {
                let _ = fs::remove_file(file.path());
                let _ = fs::write(file.path(), content);
                self.touched(file);
            }
            Step::Overwrite(file, at, bytes) => {
                use std::os::unix::fs::FileExt;
                if let Ok(open) = fs::File::options().write(true).open(file.path()) {
                    let _ = open.write_all_at(bytes, at.into());
                }
                self.touched(file);
            }
            Step::Cut(file, length) => {
                if let Ok(open) = fs::File::options().write(true).open(file.path()) {
                    let _ = open.set_len(length.into());
                }
                self.touched(file);
            }
            Step::Remove(file) => {
                let _ = fs::remove_file(file.path());
                self.touched(file);
            }
            Step::Occupy(file) => {
                let _ = fs::remove_file(file.path());
                let _ = fs::create_dir(file.path());
                self.touched(file);
            }
            Step::Save => self.saved = fs::read(File::Index.path()).ok(),
            Step::Restore => {
                if let Some(index) = &self.saved {
                    // In place, as a stranger who means it.
                    let _ = fs::write(File::Index.path(), index);
                }
            }
        }
    }

    /// A stranger's change that shows, and then everybody goes.
    fn end(mut self) {
        let _ = fs::create_dir_all(DIRECTORY.join("net"));
        let nuisance = DIRECTORY.join("net/nuisance");
        fs::write(&nuisance, "").unwrap();
        for file in [File::Index, File::Lock, File::Rotor(false), File::Rotor(true)] {
            let _ = fs::remove_dir(file.path());
        }
        for owner in 0..OWNERS {
            host_local::del(&request(Command::Del, owner, &json!({})))
                .unwrap_or_else(|e| panic!("{e}"));
            assert!(
                self.held.iter().all(|(address, who)| *who != owner || !is_whole(*address, owner))
            );
            self.held.retain(|_, who| *who != owner);
        }
        assert!(self.held.is_empty());
        // What strangers hold stays. An empty directory in place of a lease is in nobody's way.
        let free = |family: u8| {
            (0..5).any(|n| File::Lease(n * 2 + family).path().symlink_metadata().is_err())
        };
        if free(0) && free(1) {
            let again = host_local::add(&request(Command::Add, 0, &json!({})));
            again.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Whether each address of a set is held by somebody, whoever, or a directory is in its place. Files that
/// name nobody are in nobody's way.
fn is_full(set: u8) -> bool {
    (0..5).map(|number| File::Lease(number * 2 + set).path()).all(|path| {
        let content = fs::read(&path).unwrap_or_default();
        let content = std::str::from_utf8(&content).unwrap_or_default();
        let (container, _) = content.split_once("\r\n").unwrap_or((content, ""));
        path.is_dir() || content.len() <= 4096 && is_identifier(container.trim())
    })
}

/// Whether a lease is one of this owner's, as any program that knows the format reads it.
fn is_whole(address: IpAddr, owner: u8) -> bool {
    let path = DIRECTORY.join("net").join(address.to_string());
    let Ok(content) = fs::read_to_string(path) else { return false };
    let (container, ifname) = content.split_once("\r\n").unwrap_or((&content, ""));
    let whole = content.len() <= 4096 && container.trim() == format!("c{owner}");
    whole && ifname.trim() == "eth0"
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    let _ = fs::remove_dir_all(&*DIRECTORY);
    let mut model = Model::default();
    for step in steps.iter().take(64) {
        model.take(step);
    }
    model.end();
    let _ = fs::remove_dir_all(&*DIRECTORY);
});
