//! The store by itself, and the whole plugin against a model of what its directory should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::{UtimensatFlags, utimensat};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::cni::env::{Command, Environment};
use crate::cni::{NetConf, Request};
use crate::ipam::host_local;

const NETWORK: &str = "net";

/// A place for leases: in memory where there is one, since rebuilding an index waits for the disk.
fn data_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn request(command: Command, dir: &Path, owner: Owner<'_>, extra: &Value) -> Request {
    let mut conf = json!({
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "ipam": {
            "type": "host-local",
            "dataDir": dir.to_string_lossy(),
            "ranges": [
                [
                    {"subnet": "10.1.0.0/29"},
                    {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.16", "rangeEnd": "10.2.0.18", "gateway": "10.2.0.17"},
                ],
                [{"subnet": "fd00::/64", "rangeStart": "fd00::10", "rangeEnd": "fd00::15"}],
            ],
        },
    });
    conf.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    let env = Environment {
        command,
        container: owner.container.into(),
        netns: String::new(),
        ifname: owner.ifname.into(),
        args: String::new(),
        path: vec!["/opt/cni/bin".into()],
        netns_override: false,
    };
    let stdin = conf.to_string().into_bytes();
    let conf = NetConf::parse(&stdin).unwrap();
    Request::new(env, conf, stdin).unwrap()
}

fn open(dir: &TempDir) -> Store {
    Store::create(dir.path().to_str().unwrap(), NETWORK).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn recorded(store: &Store) -> Option<(BootId, Stamp)> {
    let file = File::options().read(true).write(true).open(store.path.join(INDEX)).ok()?;
    Index::open(file).unwrap().recorded()
}

fn is_sealed(store: &Store) -> bool {
    recorded(store).is_some_and(|(_, stamp)| store.is_sealed(stamp).unwrap())
}

/// Adds a lease as any program could.
fn foreign_lease(store: &Store, address: IpAddr, content: &str) -> bool {
    let path = store.path.join(address.to_string());
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.is_ok_and(|mut file| file.write_all(content.as_bytes()).is_ok())
}

const ALICE: Owner<'_> = Owner { container: "alice", ifname: "eth0" };
const BOB: Owner<'_> = Owner { container: "bob", ifname: "eth0" };

fn add(dir: &TempDir, owner: Owner<'_>) -> Result<Vec<IpAddr>, Error> {
    let leased = host_local::add(&request(Command::Add, dir.path(), owner, &Value::Null))?;
    Ok(leased.result.ips.iter().map(|ip| ip.address.address).collect())
}

fn del(dir: &TempDir, owner: Owner<'_>) -> Result<(), Error> {
    host_local::del(&request(Command::Del, dir.path(), owner, &Value::Null))
}

/// Has the index bear a stamp and leaves the directory as it is.
fn stamp_index(store: &Store, stamp: Stamp) {
    let mut session = store.lock().unwrap();
    session.update().unwrap();
    session.index.seal(stamp).unwrap();
}

#[test]
fn a_change_in_the_very_instant_of_the_seal_shows() {
    let dir = data_dir();
    add(&dir, ALICE).unwrap();
    let store = open(&dir);
    assert!(is_sealed(&store));
    // What if the kernel's clock gave a stranger the same nanosecond that the seal has?
    assert!(foreign_lease(&store, address("10.1.0.3"), "bob\r\neth0"));
    let metadata = store.directory.metadata().unwrap();
    let same = Stamp { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() };
    let file = File::options().read(true).write(true).open(store.path.join(INDEX)).unwrap();
    Index::open(file).unwrap().seal(same).unwrap();

    assert_eq!(recorded(&store).unwrap().1, same);
    assert!(!is_sealed(&store));
    let request = request(Command::Check, dir.path(), BOB, &Value::Null);
    let held = host_local::held(&request).unwrap();
    assert_eq!(held.iter().map(|cidr| cidr.address).collect::<Vec<_>>(), [address("10.1.0.3")]);
}

#[test]
fn a_modification_time_that_was_put_back_is_no_seal() {
    let dir = data_dir();
    add(&dir, ALICE).unwrap();
    let store = open(&dir);
    let long_ago = Stamp { seconds: 1_000_000_000, nanoseconds: 5 };
    stamp_index(&store, long_ago);
    let time = TimeSpec::new(long_ago.seconds, long_ago.nanoseconds);
    futimens(store.directory.as_fd(), &TimeSpec::UTIME_OMIT, &time).unwrap();
    assert!(!is_sealed(&store), "as tar would have restored directory and index");
    add(&dir, BOB).unwrap();
    assert!(is_sealed(&store));
}

#[test]
fn a_seal_that_was_not_finished_is_none() {
    let dir = data_dir();
    add(&dir, ALICE).unwrap();
    let store = open(&dir);
    let (_, stamp) = recorded(&store).unwrap();
    stamp_index(&store, Stamp { nanoseconds: (stamp.nanoseconds + 1) % 1_000_000_000, ..stamp });
    assert!(!is_sealed(&store), "killed between index and directory");
    let mut session = store.lock().unwrap();
    session.update().unwrap();
    session.rebuild().unwrap();
    drop(session);
    assert!(!is_sealed(&store), "killed between rebuilding and sealing");
    assert_eq!(recorded(&store), Some((boot_id().unwrap(), Stamp::NEVER)));
}

/// Every program that changes the directory through the kernel breaks the seal, a great many times as
/// fast as it can, within one tick of its clock and across.
#[test]
fn no_quick_change_goes_unseen() {
    let dir = data_dir();
    let store = open(&dir);
    let stranger = address("10.1.0.5");
    for round in 0..2000 {
        let mut session = store.lock().unwrap();
        session.update().unwrap();
        session.changed = true;
        session.finish();
        assert!(is_sealed(&store), "round {round}");
        if round % 2 == 0 {
            assert!(foreign_lease(&store, stranger, "bob\r\neth0"));
        } else {
            fs::remove_file(store.path.join(stranger.to_string())).unwrap();
        }
        assert!(!is_sealed(&store), "round {round}");
    }
}

#[test]
fn a_lock_that_is_not_given_up_is_an_error_that_names_the_holder() {
    let dir = data_dir();
    add(&dir, ALICE).unwrap();
    let store = Store { patience: Duration::from_millis(60), ..open(&dir) };
    let path = store.path.display();
    let locked = |name: &str, kind| {
        let file = File::options().read(true).write(true).open(store.path.join(name)).unwrap();
        lock::lock(&file, kind, Duration::ZERO).unwrap();
        file
    };
    let us = std::process::id();
    for (name, kind, holder) in [
        (LOCK, Kind::Flock, format!("process {us} has held it")),
        (INDEX, Kind::OpenFileDescription, "another process has held it".to_owned()),
    ] {
        let held = locked(name, kind);
        let error = store.lock().err().expect("the lock is held");
        assert_eq!(error.code, Code::TryAgainLater as u32);
        let expected = format!("cannot lock lease directory {path}: {holder} for more than 60ms");
        assert_eq!(error.msg, expected);
        drop(held);
        drop(store.lock().unwrap());
    }
}

/// An index of another boot, sealed, with leases as old as that: what a machine finds that has been
/// started again.
fn restart(store: &Store) {
    let mut session = store.lock().unwrap();
    session.update().unwrap();
    let mut entries = Vec::new();
    for address in store.addresses().unwrap() {
        entries.push((address, store.read_lease(address).owner().map(Owner::key)));
        let (name, long_ago) = (address.to_string(), TimeSpec::new(1_000_000_000, 0));
        let no_follow = UtimensatFlags::NoFollowSymlink;
        utimensat(&store.directory, name.as_str(), &long_ago, &long_ago, no_follow).unwrap();
    }
    session.index.rebuild([0xb0; 16], &entries).unwrap();
    session.changed = true;
    session.finish();
}

#[test]
fn what_was_leased_before_the_machine_started_is_not_taken_over_by_a_rebuild() {
    // Each is the first thing to happen after the start, and rebuilds the index.
    type First = fn(&TempDir, &Store);
    let firsts: [(&str, First); 4] = [
        ("a full range is asked after", |dir, _| {
            let request = request(Command::Status, dir.path(), BOB, &Value::Null);
            assert_eq!(host_local::status(&request), Ok(()), "there is room since the start");
        }),
        ("DEL finds a damaged index", |dir, store| {
            let file = File::options().write(true).open(store.path.join(INDEX)).unwrap();
            file.set_len(64).unwrap();
            del(dir, BOB).unwrap();
        }),
        ("DEL finds a stranger's change", |dir, store| {
            fs::remove_file(store.path.join("10.1.0.2")).unwrap();
            del(dir, BOB).unwrap();
        }),
        ("ADD", |dir, _| assert_eq!(add(dir, BOB).unwrap().len(), 2)),
    ];
    for (name, first) in firsts {
        let dir = data_dir();
        for number in 0..6 {
            add(&dir, Owner { container: &format!("old{number}"), ifname: "eth0" }).unwrap();
        }
        let store = open(&dir);
        restart(&store);
        first(&dir, &store);
        let old = |address: &IpAddr| match store.read_lease(*address) {
            Lease::Held { container, .. } => container.starts_with("old"),
            _ => false,
        };
        let left: Vec<_> = store.addresses().unwrap().into_iter().filter(old).collect();
        assert_eq!(left, [] as [IpAddr; 0], "{name}");
    }
}

/// After a power loss the index on the disk is older than the last leases.
#[test]
fn leases_younger_than_the_index_on_the_disk_are_old_after_a_restart() {
    let dir = data_dir();
    add(&dir, ALICE).unwrap();
    let store = open(&dir);
    restart(&store);
    assert!(foreign_lease(&store, address("10.1.0.5"), "lost\r\neth0"));
    let file = File::open(store.path.join("10.1.0.5")).unwrap();
    let before_the_boot = boot_time().unwrap().seconds - 1;
    futimens(&file, &TimeSpec::UTIME_OMIT, &TimeSpec::new(before_the_boot, 0)).unwrap();
    assert!(foreign_lease(&store, address("10.1.0.6"), "young\r\neth0"));
    add(&dir, BOB).unwrap();
    let mut left = store.addresses().unwrap();
    left.sort();
    assert_eq!(left, ["10.1.0.3", "10.1.0.6", "fd00::11"].map(address));
}

#[test]
fn what_is_no_lease_file_is_neither_followed_nor_waited_for() {
    let dir = data_dir();
    let store = open(&dir);
    let secret = dir.path().join("secret");
    fs::write(&secret, "alice\r\neth0").unwrap();
    let place = |name: &str| store.path.join(name);
    std::os::unix::fs::symlink(&secret, place("10.1.0.2")).unwrap();
    std::os::unix::fs::symlink("nowhere", place("10.1.0.3")).unwrap();
    fs::create_dir(place("10.1.0.4")).unwrap();
    nix::unistd::mkfifo(&place("10.1.0.5"), Mode::S_IRWXU).unwrap();
    fs::write(place("10.1.0.6"), "x".repeat(LEASE_MAX + 1)).unwrap();
    fs::write(place("fd00::10"), "").unwrap();
    fs::write(place("fd00::11"), [0; 12]).unwrap();
    fs::write(place("fd00::12"), [0xff; 12]).unwrap();
    fs::write(place("fd00::13"), "../../etc\r\neth0").unwrap();

    let mut session = store.lock().unwrap();
    assert!(session.held_by(ALICE).unwrap().is_empty(), "a link's target is no lease");
    session.finish();
    let mut left = store.addresses().unwrap();
    left.sort();
    assert_eq!(left, ["10.1.0.2", "10.1.0.3", "10.1.0.4"].map(address), "torn ones are removed");
    assert_eq!(add(&dir, ALICE).unwrap(), ["10.1.0.5", "fd00::10"].map(address));
    restart(&store);
    assert_eq!(add(&dir, BOB).unwrap(), ["10.1.0.6", "fd00::11"].map(address));
    assert!(place("10.1.0.4").is_dir(), "what can't be removed stays and does not get in the way");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "alice\r\neth0");
}

/// One thing that happens to a lease directory. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Del(usize),
    Gc(Vec<usize>),
    Status,
    /// ADD is killed: with an empty file, a whole one, the index up to date, all but the seal.
    KilledAdd(usize, u8),
    /// DEL is killed: before the index is up to date, or the seal is set.
    KilledDel(usize, u8),
    /// Another program leases an address; perhaps an old release, which does not name the interface.
    ForeignAdd(usize, usize, bool),
    ForeignDel(usize),
    Restart,
    /// Bytes of the index are overwritten.
    Damage(Vec<(usize, u8)>),
    /// The index is cut, or emptied.
    Cut(u64),
    /// The index has all addresses as held, or none.
    Mislead(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || 0..OWNERS.len();
    let step = prop_oneof![
        12 => owner().prop_map(Step::Add),
        6 => owner().prop_map(Step::Del),
        1 => prop::collection::vec(owner(), 0..6).prop_map(Step::Gc),
        1 => Just(Step::Status),
        2 => (owner(), 0_u8..4).prop_map(|(who, how)| Step::KilledAdd(who, how)),
        2 => (owner(), 0_u8..2).prop_map(|(who, how)| Step::KilledDel(who, how)),
        2 => (owner(), any::<usize>(), prop::bool::weighted(0.2))
            .prop_map(|(who, which, old)| Step::ForeignAdd(who, which, old)),
        2 => any::<usize>().prop_map(Step::ForeignDel),
        1 => Just(Step::Restart),
        1 => prop::collection::vec((0_usize..8000, any::<u8>()), 1..64).prop_map(Step::Damage),
        1 => (0_u64..8000).prop_map(Step::Cut),
        1 => any::<bool>().prop_map(Step::Mislead),
    ];
    prop::collection::vec(step, 1..60)
}

const OWNERS: [Owner<'_>; 10] = {
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"];
    let [x, y] = ["eth0", "eth1"];
    [
        Owner { container: a, ifname: x },
        Owner { container: b, ifname: x },
        Owner { container: c, ifname: x },
        Owner { container: d, ifname: x },
        Owner { container: e, ifname: x },
        Owner { container: a, ifname: y },
        Owner { container: b, ifname: y },
        Owner { container: c, ifname: y },
        Owner { container: d, ifname: y },
        Owner { container: e, ifname: y },
    ]
};

/// The addresses that each range set can give, in order, gateways left out.
const SETS: [&[&str]; 2] = [
    &["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.2.0.16", "10.2.0.18"],
    &["fd00::10", "fd00::11", "fd00::12", "fd00::13", "fd00::14", "fd00::15"],
];

/// What the directory should hold.
struct Model {
    dir: TempDir,
    store: Store,
    /// Container and interface; the interface is empty in a lease of an old release.
    leases: BTreeMap<IpAddr, (String, String)>,
    /// Leases of an earlier boot: they may go at any time.
    old: BTreeSet<IpAddr>,
    /// Files without a holder: they may go at any time.
    torn: BTreeSet<IpAddr>,
    /// The index's tables are damaged and it can't know: what it says may be wrong, so leases may be
    /// overlooked; but never given twice.
    misled: bool,
}

impl Model {
    fn new() -> Self {
        let dir = data_dir();
        let store = open(&dir);
        let (leases, old, torn) = Default::default();
        Self { dir, store, leases, old, torn, misled: false }
    }

    fn files(&self) -> BTreeMap<IpAddr, Option<(String, String)>> {
        let owner = |address| match self.store.read_lease(address) {
            Lease::Held { container, ifname } => Some((container, ifname)),
            _ => None,
        };
        self.store.addresses().unwrap().into_iter().map(|a| (a, owner(a))).collect()
    }

    /// Accepts that what may go at any time has gone, and demands that all else is as expected.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        let files = self.files();
        self.torn.retain(|address| files.contains_key(address));
        let gone: Vec<_> = self.old.iter().filter(|a| !files.contains_key(*a)).copied().collect();
        for address in gone {
            self.old.remove(&address);
            self.leases.remove(&address);
        }
        let mut expected: BTreeMap<_, _> =
            self.leases.iter().map(|(a, owner)| (*a, Some(owner.clone()))).collect();
        expected.extend(self.torn.iter().map(|address| (*address, None)));
        prop_assert_eq!(files, expected);
        Ok(())
    }

    fn forget_old(&mut self) {
        for address in std::mem::take(&mut self.old) {
            self.leases.remove(&address);
        }
    }

    fn held(&self, owner: Owner<'_>) -> Vec<IpAddr> {
        let of = |ifname: &str| -> Vec<IpAddr> {
            let holder = (owner.container.to_owned(), ifname.to_owned());
            self.leases.iter().filter(|(_, o)| **o == holder).map(|(a, _)| *a).collect()
        };
        let held = of(owner.ifname);
        if held.is_empty() { of("") } else { held }
    }

    /// Those that bear the owner's full name.
    fn held_by_name(&self, owner: Owner<'_>) -> Vec<IpAddr> {
        let held = self.held(owner);
        let named = |a: &IpAddr| self.leases.get(a).is_some_and(|(_, ifname)| !ifname.is_empty());
        held.into_iter().filter(named).collect()
    }

    /// The address that a set should give next.
    fn next(&self, number: usize) -> Option<IpAddr> {
        let rotor = fs::read_to_string(self.store.path.join(Rotor::name(number)));
        let set = SETS[number];
        let last = set.iter().position(|a| rotor.as_ref().is_ok_and(|text| text == a));
        let begin = last.map_or(0, |at| at + 1);
        let order = set[begin..].iter().chain(&set[..begin]).map(|text| address(text));
        order.into_iter().find(|address| !self.leases.contains_key(address))
    }

    fn add(&mut self, owner: Owner<'_>) -> Result<(), TestCaseError> {
        self.forget_old();
        let held = self.held_by_name(owner);
        let of_set =
            |number: usize, address: &IpAddr| SETS[number].contains(&&*address.to_string());
        let predicted = [0, 1].map(|number| {
            let known = held.iter().find(|a| of_set(number, a)).copied();
            known.or_else(|| self.next(number))
        });
        match add(&self.dir, owner) {
            Ok(leased) => {
                if !self.misled {
                    let predicted: Vec<_> = predicted.iter().flatten().copied().collect();
                    prop_assert_eq!(&leased, &predicted);
                }
                prop_assert_eq!(leased.len(), 2);
                for (number, address) in leased.iter().enumerate() {
                    prop_assert!(of_set(number, address), "{address} is not of set {number}");
                    self.torn.remove(address);
                    if held.contains(address) {
                        continue;
                    }
                    let holder = (owner.container.to_owned(), owner.ifname.to_owned());
                    let before = self.leases.insert(*address, holder);
                    prop_assert_eq!(before, None, "{} was held", address);
                }
            }
            Err(error) => {
                prop_assert_eq!(error.code, Code::TryAgainLater as u32, "{}", error);
                let full = |n: usize| SETS[n].iter().all(|a| self.leases.contains_key(&address(a)));
                prop_assert!(full(0) || full(1), "{}", error);
                if !self.misled {
                    prop_assert!(predicted.contains(&None), "{:?}: {}", predicted, error);
                }
            }
        }
        Ok(())
    }

    fn del(&mut self, owner: Owner<'_>) {
        del(&self.dir, owner).unwrap();
        let files = self.files();
        let held = self.held(owner);
        let expired = held.iter().all(|address| self.old.contains(address));
        for address in held {
            // A misled DEL may overlook a lease. A later one finds it, or GC does.
            if !self.misled || !files.contains_key(&address) {
                self.leases.remove(&address);
                self.old.remove(&address);
            }
        }
        // If they went as those of an earlier boot, then what names no interface was the owner's, too.
        if expired {
            for address in self.held(Owner { ifname: "", ..owner }) {
                if !files.contains_key(&address) {
                    self.leases.remove(&address);
                    self.old.remove(&address);
                }
            }
        }
    }

    fn gc(&mut self, keep: &[usize]) {
        let valid: Vec<_> = keep.iter().map(|number| OWNERS[*number]).collect();
        let items: Vec<_> =
            valid.iter().map(|o| json!({"containerID": o.container, "ifname": o.ifname})).collect();
        let extra = json!({"cni.dev/valid-attachments": items});
        host_local::gc(&request(Command::Gc, self.dir.path(), ALICE, &extra), &|_| false).unwrap();
        let kept = |(container, ifname): &(String, String)| {
            valid
                .iter()
                .any(|o| o.container == container && (o.ifname == ifname || ifname.is_empty()))
        };
        self.leases.retain(|_, owner| kept(owner));
        self.old.retain(|address| self.leases.contains_key(address));
    }

    fn status(&mut self) -> Result<(), TestCaseError> {
        let status =
            host_local::status(&request(Command::Status, self.dir.path(), ALICE, &Value::Null));
        let full = |n: usize| SETS[n].iter().all(|a| self.leases.contains_key(&address(a)));
        let any_old = !self.old.is_empty();
        match status {
            // Damage may make it see free addresses where there are none: only ADD finds out.
            Ok(()) => prop_assert!(self.misled || any_old || !full(0) && !full(1)),
            Err(error) => {
                prop_assert_eq!(error.code, Code::Unavailable as u32, "{}", error);
                self.compare()?;
                let full = |n: usize| SETS[n].iter().all(|a| self.leases.contains_key(&address(a)));
                prop_assert!(full(0) || full(1), "{}", error);
            }
        }
        Ok(())
    }

    fn killed_add(&mut self, owner: Owner<'_>, how: u8) {
        self.forget_old();
        let mut session = self.store.lock().unwrap();
        session.expire().unwrap();
        let holder = (owner.container.to_owned(), owner.ifname.to_owned());
        match how {
            0 | 1 => {
                drop(session);
                let Some(next) = self.next(0) else { return };
                let content = if how == 0 { String::new() } else { owner.content() };
                if !foreign_lease(&self.store, next, &content) {
                    return;
                }
                if how == 0 {
                    self.torn.insert(next);
                } else {
                    self.leases.insert(next, holder);
                }
            }
            _ => {
                let request = request(Command::Add, self.dir.path(), owner, &Value::Null);
                let config = host_local::config::Config::read(&request).unwrap();
                if !session.held_by(owner).unwrap().is_empty() {
                    return;
                }
                let Some(leased) = session.lease_next(owner, &config.sets[0], 0).unwrap() else {
                    return;
                };
                if how == 3 {
                    session.index.seal(Stamp { seconds: 9, nanoseconds: 9 }).unwrap();
                }
                self.torn.remove(&leased);
                assert_eq!(self.leases.insert(leased, holder), None, "{leased} was held");
            }
        }
    }

    fn killed_del(&mut self, owner: Owner<'_>, how: u8) {
        let Some(address) = self.held(owner).first().copied() else { return };
        if how == 0 {
            self.store.remove(&address.to_string()).unwrap();
        } else {
            self.store.lock().unwrap().release(address, owner).unwrap();
        }
        self.leases.remove(&address);
        self.old.remove(&address);
    }

    fn foreign_add(&mut self, owner: Owner<'_>, which: usize, of_old_release: bool) {
        let all: Vec<_> = SETS.iter().copied().flatten().collect();
        let address = address(all[which % all.len()]);
        let ifname = if of_old_release { "" } else { owner.ifname };
        let content = if of_old_release { owner.container.to_owned() } else { owner.content() };
        if foreign_lease(&self.store, address, &content) {
            self.leases.insert(address, (owner.container.to_owned(), ifname.to_owned()));
        }
    }

    fn foreign_del(&mut self, which: usize) {
        let all: Vec<_> = self.leases.keys().copied().collect();
        if let Some(address) = all.get(which % all.len().max(1)) {
            self.store.remove(&address.to_string()).unwrap();
            self.leases.remove(address);
            self.old.remove(address);
        }
    }

    fn restart(&mut self) {
        restart(&self.store);
        self.misled = false;
        self.old = self.files().into_keys().collect();
        self.leases.retain(|address, _| self.old.contains(address));
        self.torn.clear();
    }

    fn damage(&mut self, change: impl FnOnce(&File)) {
        let path = self.store.path.join(INDEX);
        let Ok(file) = File::options().write(true).open(path) else { return };
        change(&file);
        self.misled = true;
    }

    fn mislead(&mut self, full: bool) {
        let mut session = self.store.lock().unwrap();
        session.rebuild().unwrap();
        for text in SETS.iter().copied().flatten() {
            let entry = (address(text), None);
            if full { session.index.insert(entry) } else { session.index.remove(entry) }.unwrap();
        }
        session.changed = true;
        session.finish();
        self.misled = true;
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        // An index that is known to be out of date is rebuilt, and misleads nobody.
        self.misled &= is_sealed(&self.store);
        match step {
            Step::Add(who) => self.add(OWNERS[*who])?,
            Step::Del(who) => self.del(OWNERS[*who]),
            Step::Gc(keep) => self.gc(keep),
            Step::Status => self.status()?,
            Step::KilledAdd(who, how) => self.killed_add(OWNERS[*who], *how),
            Step::KilledDel(who, how) => self.killed_del(OWNERS[*who], *how),
            Step::ForeignAdd(who, which, old) => self.foreign_add(OWNERS[*who], *which, *old),
            Step::ForeignDel(which) => self.foreign_del(*which),
            Step::Restart => self.restart(),
            Step::Damage(bytes) => self.damage(|file| {
                for (at, byte) in bytes {
                    file.write_all_at(&[*byte], *at as u64).unwrap();
                }
            }),
            Step::Mislead(full) => self.mislead(*full),
            Step::Cut(length) => self.damage(|file| file.set_len(*length).unwrap()),
        }
        if recorded(&self.store).is_some_and(|(boot, _)| boot == boot_id().unwrap()) {
            self.compare()?;
            self.old.clear();
        }
        self.compare()
    }

    /// All owners give back what they hold, and nothing is left.
    fn end(mut self) -> Result<(), TestCaseError> {
        fs::write(self.store.path.join("x"), "").unwrap();
        fs::remove_file(self.store.path.join("x")).unwrap();
        // Twice: an owner's own leases, then those that don't name the interface.
        for owner in OWNERS.iter().chain(&OWNERS) {
            self.take(&Step::Del(OWNERS.iter().position(|o| o == owner).unwrap()))?;
        }
        prop_assert_eq!(self.files().len(), 0);
        for number in 0..6 {
            add(&self.dir, Owner { container: &format!("z{number}"), ifname: "eth0" }).unwrap();
        }
        prop_assert_eq!(add(&self.dir, ALICE).unwrap_err().code, Code::TryAgainLater as u32);
        Ok(())
    }
}

proptest! {
    /// No address is held twice, none lost, none refused while it is free, whatever happens in which
    /// order.
    #[test]
    fn a_model_of_the_directory_agrees(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step)?;
        }
        model.end()?;
    }
}
