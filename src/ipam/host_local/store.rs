//! The lease directory: `<dataDir>/<network>/`, in the reference's format.
//!
//! | file | content |
//! | --- | --- |
//! | `10.1.0.2` | a lease: `containerID\r\nifname`; of old releases the container's ID alone |
//! | `last_reserved_ip.0` | the address that range set 0 has handed out last |
//! | `lock` | what the reference locks with flock(2) |
//! | `plumb.index` | ours, see [`index`](super::index) |
//!
//! The lease files are the truth. All work is done in a [`Session`], which holds two locks, always taken
//! in this order: the reference's, which keeps it and us from each other; and one of our own on the
//! index, which does not depend on a file of the reference's: where `lock` is removed while somebody
//! holds it, the index is still written by one at a time. Files are opened relative to the directory,
//! without following links; the directory itself may be one to another place.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::index::{BootId, Index, Stamp};
use super::range::{Range, RangeSet};
use crate::cni::conf::is_identifier;
use crate::cni::error::Errors;
use crate::cni::{Code, Error};
use crate::net::{from_bits, parse_ip};
use crate::sha256;
use crate::sys::again;
use crate::sys::lock::{self, Kind};
use crate::trace;

/// What the reference locks.
pub const LOCK: &str = "lock";
/// The index beside the leases.
pub const INDEX: &str = "plumb.index";
/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest name of a file, in bytes (linux/limits.h).
const NAME_MAX: usize = 255;
/// A lease file is shorter; what is longer is none.
const LEASE_MAX: usize = 4096;
/// How long sealing takes at most, in seconds.
const SEALING_MAX: u64 = 10;

/// Who holds a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner<'a> {
    /// `CNI_CONTAINERID`
    pub container: &'a str,
    /// `CNI_IFNAME`; empty in the lease files of old releases, which don't name it.
    pub ifname: &'a str,
}

impl Owner<'_> {
    fn key(self) -> u64 {
        let digest = sha256::digest_parts(&[self.container.as_bytes(), self.ifname.as_bytes()]);
        digest.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    fn content(self) -> String {
        format!("{}\r\n{}", self.container, self.ifname)
    }
}

/// The content of a lease file.
enum Lease {
    /// Held by this container and, but for old files, interface.
    Held { container: String, ifname: String },
    /// There is a file, but it names no holder: it is empty or torn.
    Torn,
    /// It can't be read, so the address is nobody's to give.
    Unreadable(Errno),
    /// There is none.
    Missing,
}

impl Lease {
    fn parse(content: &[u8]) -> Self {
        if content.len() > LEASE_MAX {
            return Self::Torn;
        }
        let text = std::str::from_utf8(content).unwrap_or_default();
        let (container, ifname) = text.split_once("\r\n").unwrap_or((text, ""));
        let (container, ifname) = (container.trim(), ifname.trim());
        if !is_identifier(container) {
            return Self::Torn;
        }
        Self::Held { container: container.to_owned(), ifname: ifname.to_owned() }
    }

    fn owner(&self) -> Option<Owner<'_>> {
        match self {
            Self::Held { container, ifname } => Some(Owner { container, ifname }),
            _ => None,
        }
    }
}

/// A lease as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// The address.
    pub address: IpAddr,
    /// Who holds it; empty if its file does not tell.
    pub container: String,
    /// By which interface; empty in the files of old releases.
    pub ifname: String,
    /// When its file was written.
    pub since: SystemTime,
}

/// An open lease directory.
#[derive(Debug)]
pub struct Store {
    directory: File,
    path: PathBuf,
    patience: Duration,
}

impl Store {
    /// Opens the directory of `network`; `None` if there is none.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(data_dir: &str, network: &str) -> Result<Option<Self>, Error> {
        let path = Path::new(data_dir).join(network);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = again(|| nix::fcntl::open(&path, flags, Mode::empty()));
        trace::file("open", path.display(), &opened);
        match opened {
            Ok(fd) => Ok(Some(Self { directory: File::from(fd), path, patience: PATIENCE })),
            // What is longer than a file's name may be can't be there either.
            Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
            Err(why) => {
                Err(Error::io(format_args!("open lease directory {}", path.display()), why.desc()))
            }
        }
    }

    /// Opens the directory of `network`, which is made if there is none.
    ///
    /// # Errors
    /// Those of open(2) and mkdir(2).
    pub fn create(data_dir: &str, network: &str) -> Result<Self, Error> {
        if let Some(store) = Self::open(data_dir, network)? {
            return Ok(store);
        }
        let path = Path::new(data_dir).join(network);
        // Or the directories above would be made for one that they can't hold.
        if network.len() > NAME_MAX {
            let why = Errno::ENAMETOOLONG.desc();
            return Err(Error::io(format_args!("create lease directory {}", path.display()), why));
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
        made.map_err(|why| {
            Error::io(format_args!("create lease directory {}", path.display()), why)
        })?;
        Self::open(data_dir, network)?.ok_or_else(|| {
            Error::io(format_args!("open lease directory {}", path.display()), "it has vanished")
        })
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All leases as they stand, for people to look at: nothing is locked, and nothing changed. What
    /// names no holder has an empty one.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn look(&self) -> Result<Vec<Sighting>, Error> {
        let mut found = Vec::new();
        for address in self.addresses()? {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            let file = fstatat(&self.directory, address.to_string().as_str(), flags);
            let (container, ifname) = match self.read_lease(address) {
                Lease::Held { container, ifname } => (container, ifname),
                Lease::Torn | Lease::Unreadable(_) => (String::new(), String::new()),
                Lease::Missing => continue,
            };
            let since = file.map_or(UNIX_EPOCH, |file| {
                UNIX_EPOCH + Duration::from_secs(file.st_mtime.try_into().unwrap_or(0))
            });
            found.push(Sighting { address, container, ifname, since });
        }
        found.sort_by_key(|lease| lease.address);
        Ok(found)
    }

    /// Waits for the directory's locks and begins to work in it.
    ///
    /// # Errors
    /// Code 11 if another holds a lock for too long; else those of open(2) and of the work of
    /// bringing the index up to date.
    pub fn lock(&self) -> Result<Session<'_>, Error> {
        let create = OFlag::O_RDWR | OFlag::O_CREAT;
        let lock_file = self.file(LOCK, create).map_err(|why| self.error("open", LOCK, why))?;
        self.acquire(&lock_file, Kind::Flock)?;
        let index_file = match self.file(INDEX, create) {
            Ok(file) => file,
            Err(why @ (Errno::ENOSPC | Errno::EDQUOT)) => self.spare_file(why.desc())?,
            Err(why) => return Err(self.error("open", INDEX, why)),
        };
        self.acquire(&index_file, Kind::OpenFileDescription)?;
        let index = Index::open(index_file).map_err(|why| self.error("read", INDEX, why))?;
        let (store, state, changed) = (self, State::Unknown, false);
        Ok(Session { store, index, state, changed, replaced: None, _lock: lock_file })
    }

    /// A file in memory for an index that has no room on the disk: leases must be released even then,
    /// and what makes room may well wait for that.
    fn spare_file(&self, why: impl std::fmt::Display) -> Result<File, Error> {
        self.warn(format_args!("cannot write {INDEX}: {why}"));
        let file = memfd_create(c"plumb.index", MFdFlags::MFD_CLOEXEC);
        file.map(File::from).map_err(|why| Error::io("create an index in memory", why))
    }

    fn acquire(&self, file: &File, kind: Kind) -> Result<(), Error> {
        lock::lock(file, kind, self.patience).map_err(|why| {
            let what = format!("lock lease directory {}", self.path.display());
            if why != Errno::EINTR {
                return Error::io(what, why.desc());
            }
            let holder = match lock::holder(file) {
                Some(pid) => format!("process {pid} has held it"),
                None => "another process has held it".to_owned(),
            };
            let msg = format!("cannot {what}: {holder} for more than {:?}", self.patience);
            Error::new(Code::TryAgainLater, msg)
        })
    }

    fn file(&self, name: &str, flags: OFlag) -> Result<File, Errno> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = again(|| openat(&self.directory, name, flags, mode));
        let action = if flags.contains(OFlag::O_EXCL) { "create" } else { "open" };
        trace::file(action, format_args!("{}/{name}", self.path.display()), &file);
        file.map(File::from)
    }

    fn read_lease(&self, address: IpAddr) -> Lease {
        let mut content = [0; LEASE_MAX + 1];
        // One call reads a regular file as far as the buffer goes.
        let read = self
            .file(&address.to_string(), OFlag::O_RDONLY)
            .and_then(|file| again(|| nix::unistd::read(&file, &mut content)));
        match read {
            Ok(length) => Lease::parse(content.get(..length).unwrap_or_default()),
            Err(Errno::ENOENT) => Lease::Missing,
            Err(errno) => Lease::Unreadable(errno),
        }
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        let outcome = unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir);
        trace::file("remove", format_args!("{}/{name}", self.path.display()), &outcome);
        outcome
    }

    /// Removes a lease that is nobody's. One that can't be removed must not keep others from being
    /// made: it stays, with a warning.
    fn discard(&self, address: IpAddr) -> bool {
        match self.remove(&address.to_string()) {
            Ok(()) | Err(Errno::ENOENT) => true,
            Err(why) => {
                self.warn(format_args!("cannot remove lease {address}: {}", why.desc()));
                false
            }
        }
    }

    /// What tells the leases of an earlier boot, in which the directory was sealed with `stamp`.
    fn earlier(&self, stamp: Stamp) -> Result<Earlier, Error> {
        Ok(if self.is_sealed(stamp)? { Earlier::All } else { Earlier::Before(boot_time()?) })
    }

    /// Addresses of all lease files.
    fn addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let error = |why: Errno| self.error("list leases in", "", why);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = again(|| Dir::openat(&self.directory, ".", flags, Mode::empty()));
        trace::file("list", self.path.display(), &directory);
        let directory = directory.map_err(error)?;
        let mut addresses = Vec::new();
        for entry in directory {
            let entry = entry.map_err(error)?;
            addresses.extend(entry.file_name().to_str().ok().and_then(parse_ip));
        }
        Ok(addresses)
    }

    /// Whether nobody has changed the directory since it was sealed with `stamp`.
    ///
    /// Every change of the entries sets both times of the directory to the same reading of the
    /// kernel's clock, whereas sealing sets the modification time alone. So where the two differ, the
    /// last change is no other than the sealing, however coarse the clock and wherever it is set. A
    /// modification time that was put back, as tar and rsync do, is far from the time of that.
    fn is_sealed(&self, stamp: Stamp) -> Result<bool, Error> {
        let metadata =
            self.directory.metadata().map_err(|why| self.error("look at directory", "", why))?;
        let changed = Stamp { seconds: metadata.ctime(), nanoseconds: metadata.ctime_nsec() };
        let distance = changed.seconds.abs_diff(stamp.seconds);
        let modified = Stamp { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() };
        Ok(modified == stamp && changed != stamp && distance <= SEALING_MAX)
    }

    fn error(&self, operation: &str, name: &str, why: impl std::fmt::Display) -> Error {
        Error::io(format_args!("{operation} {}", self.path.join(name).display()), why)
    }

    fn warn(&self, what: std::fmt::Arguments<'_>) {
        let line = format!("plumb: host-local: {}: {what}\n", self.path.display());
        // A unit test's own output is kept for the case that it fails.
        if cfg!(test) {
            eprint!("{line}");
        } else {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Which leases are of an earlier boot.
enum Earlier {
    /// All: nobody has changed the directory since.
    All,
    /// Those that were made before this boot began, by the clock as it is set now. A stranger may have
    /// made others since.
    Before(Stamp),
}

impl Earlier {
    fn covers(&self, store: &Store, address: IpAddr) -> bool {
        let Self::Before(began) = self else { return true };
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        fstatat(&store.directory, address.to_string().as_str(), flags).is_ok_and(|file| {
            Stamp { seconds: file.st_mtime, nanoseconds: file.st_mtime_nsec } < *began
        })
    }
}

/// What is known of the index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not yet looked at.
    Unknown,
    /// As far as it can tell, nobody else has changed the directory.
    Current,
    /// Built anew in this session.
    Rebuilt,
    /// It could not be kept up, so it must not be sealed.
    Lost,
}

/// Exclusive work in a lease directory, until it is dropped.
pub struct Session<'a> {
    store: &'a Store,
    index: Index,
    state: State,
    changed: bool,
    /// The index on the disk, with its lock, where the work is done on one in memory.
    replaced: Option<Index>,
    _lock: File,
}

impl Session<'_> {
    /// Frees what was leased before the machine started: no container has lived through that.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn expire(&mut self) -> Result<(), Error> {
        match self.index.recorded() {
            Some((boot, _)) if boot == boot_id()? => Ok(()),
            _ => self.rebuild(),
        }
    }

    /// The addresses that `owner` holds. Leases of old releases, which don't name the interface, are not
    /// among them: they may be another interface's of the same container.
    ///
    /// # Errors
    /// The directory or a lease can't be read.
    pub fn held_by(&mut self, owner: Owner<'_>) -> Result<Vec<IpAddr>, Error> {
        let mut errors = Errors::default();
        let held = self.leases_of(owner, &mut errors)?;
        errors.into_result().map(|()| held)
    }

    /// The addresses that `owner` holds; if there are none, those that its container holds without an
    /// interface's name, which may be its.
    ///
    /// # Errors
    /// The directory or a lease can't be read.
    pub fn possibly_held_by(&mut self, owner: Owner<'_>) -> Result<Vec<IpAddr>, Error> {
        let mut errors = Errors::default();
        let (_, held) = self.holdings(owner, &mut errors)?;
        errors.into_result().map(|()| held)
    }

    /// Frees all addresses of [`possibly_held_by`](Self::possibly_held_by).
    ///
    /// # Errors
    /// The directory can't be read, or leases can't be read or removed; the others are.
    pub fn release_all(&mut self, owner: Owner<'_>) -> Result<(), Error> {
        let mut errors = Errors::default();
        let (holder, held) = self.holdings(owner, &mut errors)?;
        for address in held {
            errors.note(self.free(address, holder));
        }
        errors.into_result()
    }

    /// The addresses that `owner` holds, and as whom. What can't be read is noted.
    fn holdings<'o>(
        &mut self,
        owner: Owner<'o>,
        errors: &mut Errors,
    ) -> Result<(Owner<'o>, Vec<IpAddr>), Error> {
        let held = self.leases_of(owner, errors)?;
        if !held.is_empty() {
            return Ok((owner, held));
        }
        let legacy = Owner { ifname: "", ..owner };
        Ok((legacy, self.leases_of(legacy, errors)?))
    }

    /// The leases of just this `holder`. What can't be read is noted.
    fn leases_of(&mut self, holder: Owner<'_>, errors: &mut Errors) -> Result<Vec<IpAddr>, Error> {
        self.update()?;
        let mut noted = self.look_up(|index| index.addresses(holder.key()))?;
        noted.sort();
        noted.dedup();
        noted.retain(|address| match self.store.read_lease(*address) {
            Lease::Unreadable(why) => {
                let error = self.store.error("read lease", &address.to_string(), why.desc());
                errors.note(Err::<(), _>(error));
                false
            }
            lease => lease.owner() == Some(holder),
        });
        Ok(noted)
    }

    /// Leases the next free address of `set`, the `number`th of its network; `None` if all are held.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn lease_next(
        &mut self,
        owner: Owner<'_>,
        set: &RangeSet,
        number: usize,
    ) -> Result<Option<IpAddr>, Error> {
        self.update()?;
        let mut rotor = Rotor::open(self.store, number)?;
        while let Some((address, _)) = self.find_free(set, rotor.last)? {
            if self.create(address, owner)? {
                let turned = rotor.turn_to(self.store, address);
                self.keep_if(turned, address, owner)?;
                return Ok(Some(address));
            }
            // Someone holds it and the index does not know: it is out of date.
            if self.state != State::Rebuilt {
                self.rebuild()?;
                continue;
            }
            let noted = self.index.insert((address, None));
            noted.map_err(|why| self.store.error("write", INDEX, why))?;
        }
        Ok(None)
    }

    /// Leases this very address. False if another holds it, who is returned.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn lease_requested(
        &mut self,
        owner: Owner<'_>,
        address: IpAddr,
        number: usize,
    ) -> Result<Requested, Error> {
        self.update()?;
        if !self.create(address, owner)? {
            match self.store.read_lease(address) {
                lease if lease.owner() == Some(owner) => return Ok(Requested::HeldAlready),
                Lease::Held { container, .. } => return Ok(Requested::HeldBy(container)),
                Lease::Torn => {
                    self.rebuild()?;
                    if !self.create(address, owner)? {
                        return Ok(Requested::HeldBy("an unknown holder".into()));
                    }
                }
                Lease::Unreadable(_) | Lease::Missing => {
                    return Ok(Requested::HeldBy("an unknown holder".into()));
                }
            }
        }
        let rotor = Rotor::open(self.store, number);
        let turned = rotor.and_then(|mut rotor| rotor.turn_to(self.store, address));
        self.keep_if(turned, address, owner)?;
        Ok(Requested::Leased)
    }

    /// Gives a fresh lease back if what goes with it has failed: its caller will not know of it.
    fn keep_if(
        &mut self,
        outcome: Result<(), Error>,
        address: IpAddr,
        owner: Owner<'_>,
    ) -> Result<(), Error> {
        outcome.map_err(|error| match self.free(address, owner) {
            Ok(()) => error,
            Err(undo) => error.and(&undo),
        })
    }

    /// Frees an address that `owner` holds. What another holds stays.
    ///
    /// # Errors
    /// The lease can't be removed.
    pub fn release(&mut self, address: IpAddr, owner: Owner<'_>) -> Result<(), Error> {
        let lease = self.store.read_lease(address);
        if let Lease::Unreadable(why) = lease {
            return Err(self.store.error("read lease", &address.to_string(), why.desc()));
        }
        let Some(holder) = lease.owner() else { return Ok(()) };
        let legacy = Owner { ifname: "", ..owner };
        if holder != owner && holder != legacy {
            return Ok(());
        }
        self.free(address, holder)
    }

    /// Removes a lease that `holder` is known to hold.
    fn free(&mut self, address: IpAddr, holder: Owner<'_>) -> Result<(), Error> {
        let name = address.to_string();
        match self.store.remove(&name) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(why) => return Err(self.store.error("remove lease", &name, why.desc())),
        }
        self.changed = true;
        // The lease is gone, whatever becomes of the index.
        if self.index.remove((address, Some(holder.key()))).is_err() {
            self.state = State::Lost;
        }
        Ok(())
    }

    /// Frees all addresses whose holder `keep` does not want kept, and tells how many those were. The
    /// interface is empty for leases of old releases.
    ///
    /// # Errors
    /// The first lease that could not be removed; the others are.
    pub fn sweep(&mut self, keep: impl Fn(&str, &str) -> bool) -> Result<usize, Error> {
        self.update()?;
        let (mut freed, mut failure) = (0, None);
        for address in self.store.addresses()? {
            let lease = self.store.read_lease(address);
            let Some(owner) = lease.owner() else { continue };
            if keep(owner.container, owner.ifname) {
                continue;
            }
            match self.release(address, owner) {
                Ok(()) => freed += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(freed), Err)
    }

    /// Whether `set` has an address to give.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn has_free(&mut self, set: &RangeSet) -> Result<bool, Error> {
        self.update()?;
        Ok(self.find_free(set, None)?.is_some())
    }

    /// How many addresses of `set` are held.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn count_held(&self, set: &RangeSet) -> Result<usize, Error> {
        Ok(self.store.addresses()?.iter().filter(|a| set.range_of(**a).is_some()).count())
    }

    /// Ends the work: the index is current from here on, until somebody else changes the directory. If
    /// that can't be recorded it is rebuilt by who comes next.
    pub fn finish(mut self) {
        if self.changed
            && self.state != State::Lost
            && self.replaced.is_none()
            && let Err(why) = self.seal()
        {
            self.store.warn(format_args!("cannot seal {INDEX}: {why}"));
        }
    }

    fn seal(&mut self) -> io::Result<()> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
        self.index.seal(Stamp { seconds: now.tv_sec(), nanoseconds: now.tv_nsec() })?;
        futimens(self.store.directory.as_fd(), &TimeSpec::UTIME_OMIT, &now)?;
        Ok(())
    }

    /// Sees to it that the index can be believed.
    fn update(&mut self) -> Result<(), Error> {
        if self.state != State::Unknown {
            return Ok(());
        }
        if let Some((_, stamp)) = self.index.recorded()
            && self.store.is_sealed(stamp)?
        {
            self.state = State::Current;
            return Ok(());
        }
        self.rebuild()
    }

    /// Builds the index anew from the lease files, for this boot: so those of an earlier one go first,
    /// whatever the occasion. Torn ones go as well: nobody else could ever release them.
    fn rebuild(&mut self) -> Result<(), Error> {
        let boot = boot_id()?;
        let earlier = match self.index.recorded() {
            Some((recorded, _)) if recorded == boot => None,
            Some((_, stamp)) => Some(self.store.earlier(stamp)?),
            // The reference has been at work so far, or the index is damaged: the leases of this boot
            // are in use, and only their age tells them from others.
            None => Some(Earlier::Before(boot_time()?)),
        };
        let (mut entries, mut freed) = (Vec::new(), 0);
        for address in self.store.addresses()? {
            let expired = earlier.as_ref().is_some_and(|e| e.covers(self.store, address));
            if expired && self.store.discard(address) {
                freed += 1;
                continue;
            }
            let lease = self.store.read_lease(address);
            match &lease {
                Lease::Missing => {}
                Lease::Held { .. } => entries.push((address, lease.owner().map(Owner::key))),
                Lease::Unreadable(errno) => {
                    self.store.warn(format_args!("cannot read lease {address}: {}", errno.desc()));
                    entries.push((address, None));
                }
                Lease::Torn if self.store.discard(address) => {
                    self.store.warn(format_args!("released {address}: its file names no holder"));
                }
                Lease::Torn => entries.push((address, None)),
            }
        }
        if freed > 0 {
            self.store.warn(format_args!("released {freed} leases of an earlier boot"));
        }
        if let Err(why) = self.index.rebuild(boot, &entries) {
            let error = |why| self.store.error("write", INDEX, why);
            let spare = Index::open(self.store.spare_file(why)?).map_err(error)?;
            self.replaced = Some(std::mem::replace(&mut self.index, spare));
            self.index.rebuild(boot, &entries).map_err(error)?;
        }
        self.state = State::Rebuilt;
        self.changed = true;
        Ok(())
    }

    fn find_free<'s>(
        &mut self,
        set: &'s RangeSet,
        last: Option<IpAddr>,
    ) -> Result<Option<(IpAddr, &'s Range)>, Error> {
        loop {
            for round in set.rounds(last) {
                let family = round.range.start;
                let mut from = round.from;
                while let Some(free) = self.look_up(|i| i.next_free(family, from, round.to))? {
                    let address = from_bits(family, free);
                    if address != round.range.gateway {
                        return Ok(Some((address, round.range)));
                    }
                    match free.checked_add(1) {
                        Some(next) => from = next,
                        None => break,
                    }
                }
            }
            // That all are held is believed only of an index that has just been built.
            if self.state == State::Rebuilt {
                return Ok(None);
            }
            self.rebuild()?;
        }
    }

    /// Asks the index, which is rebuilt once if it proves to be damaged.
    fn look_up<T>(&mut self, ask: impl Fn(&Index) -> io::Result<T>) -> Result<T, Error> {
        let error = |why| self.store.error("read", INDEX, why);
        match ask(&self.index) {
            Err(_) if self.state != State::Rebuilt => {
                self.rebuild()?;
                ask(&self.index).map_err(|why| self.store.error("read", INDEX, why))
            }
            other => other.map_err(error),
        }
    }

    /// Creates a lease; false if there is one already.
    fn create(&mut self, address: IpAddr, owner: Owner<'_>) -> Result<bool, Error> {
        let name = address.to_string();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = match self.store.file(&name, flags) {
            Ok(file) => file,
            Err(Errno::EEXIST) => return Ok(false),
            Err(why) => return Err(self.store.error("create lease", &name, why.desc())),
        };
        if let Err(why) = file.write_all(owner.content().as_bytes()) {
            let _ = self.store.remove(&name);
            return Err(self.store.error("write lease", &name, why));
        }
        self.changed = true;
        if self.index.insert((address, Some(owner.key()))).is_err() {
            self.state = State::Lost;
        }
        Ok(true)
    }
}

/// What became of a request for one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requested {
    /// It is leased now.
    Leased,
    /// The same owner had leased it before.
    HeldAlready,
    /// Another container holds it.
    HeldBy(String),
}

/// The address that a range set handed out last, from which the next one is looked for, so that an
/// address rests as long as possible before it is used again.
struct Rotor {
    file: File,
    name: String,
    last: Option<IpAddr>,
    length: usize,
}

impl Rotor {
    fn name(number: usize) -> String {
        format!("last_reserved_ip.{number}")
    }

    fn open(store: &Store, number: usize) -> Result<Self, Error> {
        let name = Self::name(number);
        let error = |why| store.error("read", &name, why);
        let file = store
            .file(&name, OFlag::O_RDWR | OFlag::O_CREAT)
            .map_err(|why| error(io::Error::from(why)))?;
        let mut text = [0; 64];
        let length = loop {
            match file.read_at(&mut text, 0) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(error)?,
            }
        };
        let text = text.get(..length).unwrap_or_default();
        let last = std::str::from_utf8(text).ok().and_then(|text| parse_ip(text.trim()));
        Ok(Self { file, name, last, length })
    }

    /// The text is overwritten in place: to cut a file to nothing first makes some file systems write
    /// it to the disk at once.
    fn turn_to(&mut self, store: &Store, address: IpAddr) -> Result<(), Error> {
        let text = address.to_string();
        let written = self.file.write_all_at(text.as_bytes(), 0).and_then(|()| {
            if text.len() < self.length { self.file.set_len(text.len() as u64) } else { Ok(()) }
        });
        written.map_err(|why| store.error("write", &self.name, why))
    }
}

/// What identifies this boot: random_boot_id of proc_sys_kernel(5).
///
/// # Errors
/// /proc is not mounted.
pub fn boot_id() -> Result<BootId, Error> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let error = |why: io::Error| Error::io(format_args!("read {PATH}"), why);
    let mut text = [0; 36];
    let read = File::open(PATH).and_then(|mut file| file.read_exact(&mut text));
    trace::file("read", PATH, &read);
    read.map_err(error)?;
    let digits: Vec<_> = text.iter().filter_map(|b| char::from(*b).to_digit(16)).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = *pair;
        *byte = u8::try_from(high * 16 + low).unwrap_or(0);
    }
    Ok(id)
}

/// When this boot began, by the clock as it is set now.
fn boot_time() -> Result<Stamp, Error> {
    let read = |clock| clock_gettime(clock).map_err(|why| Error::io("read the clock", why.desc()));
    let began = read(ClockId::CLOCK_REALTIME)? - read(ClockId::CLOCK_BOOTTIME)?;
    Ok(Stamp { seconds: began.tv_sec(), nanoseconds: began.tv_nsec() })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
