//! `plumb install`: the plugins' names in a runtime's plugin directory.
//!
//! All names are hard links of one copy of this binary, `DIR/plumb`. A file that a name displaces moves
//! to `DIR/.plumb-replaced` and comes back with `--uninstall`. Each name changes by rename(2), so at no
//! moment does a runtime find no plugin, or half of one.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use serde_json::json;

use super::{say, say_json};
use crate::plugins::ALL;

/// The copy of this binary that all names are links of.
const PROGRAM: &str = "plumb";
/// The copy while it is written, and until every name is a link of it.
const NEW_PROGRAM: &str = ".plumb-new";
/// A name's next file, just before it takes its place.
const NEW_NAME: &str = ".plumb-next";
/// Where displaced files are kept.
const REPLACED: &str = ".plumb-replaced";

/// Put the plugins into a runtime's plugin directory, or take them out again
///
/// Copies this binary to DIR/plumb and makes the plugins' names hard links of it. Whatever had such a
/// name before, the reference plugins for one, is kept in DIR/.plumb-replaced, and --uninstall puts it
/// back. Running containers are not touched: plumb takes over the reference plugins' leases, and its DEL
/// removes their links too.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb install                        into /opt/cni/bin
  sudo plumb install /usr/lib/cni           where Debian's packages look
  sudo plumb install --uninstall            as it was before
  plumb install --json /tmp/cni | jq -r '.installed[]'

Exit codes:
  0  done
  1  something failed; every name is either as before or as it is to be, so it can be tried again
  2  the command line can't be understood")]
pub struct Options {
    /// The runtime's plugin directory
    #[arg(value_name = "DIR", default_value = "/opt/cni/bin")]
    directory: PathBuf,
    /// Take the plugins out and put back what they had replaced
    #[arg(long)]
    uninstall: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<i32, String> {
    let path = &options.directory;
    if options.uninstall {
        let outcome = Directory::open(path)?.uninstall()?;
        outcome.report(path, options.json);
    } else {
        fs::create_dir_all(path)
            .map_err(|why| format!("cannot create directory {}: {why}", path.display()))?;
        let outcome = Directory::open(path)?.install()?;
        outcome.report(path, options.json);
    }
    Ok(0)
}

/// A plugin directory, locked against other installations.
struct Directory {
    path: PathBuf,
    file: File,
}

/// A file, whatever its name.
type Identity = (libc::dev_t, libc::ino_t);

impl Directory {
    fn open(path: &Path) -> Result<Self, String> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .map_err(|why| format!("cannot open directory {}: {why}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), file }),
            Err(TryLockError::WouldBlock) => {
                Err(format!("another installation is at work in {}", path.display()))
            }
            Err(TryLockError::Error(why)) => {
                Err(format!("cannot lock directory {}: {why}", path.display()))
            }
        }
    }

    fn install(&self) -> Result<Installed, String> {
        // Also names that an interrupted installation has made are ours.
        let ours: BTreeSet<_> =
            [PROGRAM, NEW_PROGRAM].into_iter().filter_map(|name| self.identity(name)).collect();
        self.copy_program()?;
        let mut replaced = Vec::new();
        for plugin in ALL {
            let name = plugin.name;
            let failed = |errno: Errno| self.error("install", name, errno);
            if self.identity(name).is_some_and(|found| !ours.contains(&found)) {
                self.keep(name)?;
                replaced.push(name);
            }
            self.remove(NEW_NAME).map_err(failed)?;
            self.link(NEW_PROGRAM, NEW_NAME).map_err(failed)?;
            self.rename(NEW_NAME, name).map_err(failed)?;
        }
        self.rename(NEW_PROGRAM, PROGRAM).map_err(|errno| self.error("install", PROGRAM, errno))?;
        self.sync()?;
        Ok(Installed { installed: ALL.map(|plugin| plugin.name).to_vec(), replaced })
    }

    fn uninstall(&self) -> Result<Uninstalled, String> {
        let ours: BTreeSet<_> =
            [PROGRAM, NEW_PROGRAM].into_iter().filter_map(|name| self.identity(name)).collect();
        let mut outcome = Uninstalled::default();
        for plugin in ALL {
            let name = plugin.name;
            let failed = |errno: Errno| self.error("uninstall", name, errno);
            let kept = format!("{REPLACED}/{name}");
            match self.identity(name) {
                Some(found) if !ours.contains(&found) => outcome.left_alone.push(name),
                _ if self.identity(&kept).is_some() => {
                    self.rename(&kept, name).map_err(failed)?;
                    outcome.restored.push(name);
                }
                Some(_) => {
                    self.remove(name).map_err(failed)?;
                    outcome.removed.push(name);
                }
                None => {}
            }
        }
        for name in [NEW_NAME, NEW_PROGRAM, PROGRAM] {
            self.remove(name).map_err(|errno| self.error("remove", name, errno))?;
        }
        // What is left in there was replaced by a name that has been taken by others since.
        let emptied = unlinkat(self.file.as_fd(), REPLACED, UnlinkatFlags::RemoveDir);
        match emptied {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(self.error("remove", REPLACED, errno)),
        }
        self.sync()?;
        Ok(outcome)
    }

    /// Copies this binary to [`NEW_PROGRAM`], complete and on the disk before any name leads to it.
    fn copy_program(&self) -> Result<(), String> {
        let failed = |why: io::Error| self.error("write", NEW_PROGRAM, why);
        self.remove(NEW_PROGRAM).map_err(|errno| failed(errno.into()))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o755);
        let copy = nix::fcntl::openat(self.file.as_fd(), NEW_PROGRAM, flags, mode);
        let mut copy = File::from(copy.map_err(|errno| failed(errno.into()))?);
        let mut program = File::open("/proc/self/exe")
            .map_err(|why| format!("cannot read this binary (/proc/self/exe): {why}"))?;
        io::copy(&mut program, &mut copy).map_err(failed)?;
        // Whatever the umask: a runtime under another user must be able to start it.
        copy.set_permissions(fs::Permissions::from_mode(0o755)).map_err(failed)?;
        copy.sync_all().map_err(failed)
    }

    /// Puts a second link to the file that is about to be displaced into [`REPLACED`], in place of what
    /// an earlier installation has displaced: the newest is what goes back.
    fn keep(&self, name: &str) -> Result<(), String> {
        match nix::sys::stat::mkdirat(self.file.as_fd(), REPLACED, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(self.error("create", REPLACED, errno)),
        }
        let failed = |errno: Errno| self.error("keep", name, errno);
        self.remove(NEW_NAME).map_err(failed)?;
        self.link(name, NEW_NAME).map_err(failed)?;
        self.rename(NEW_NAME, &format!("{REPLACED}/{name}")).map_err(failed)
    }

    fn identity(&self, name: &str) -> Option<Identity> {
        let stat: FileStat = fstatat(self.file.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    fn link(&self, from: &str, to: &str) -> nix::Result<()> {
        linkat(self.file.as_fd(), from, self.file.as_fd(), to, AtFlags::empty())
    }

    fn rename(&self, from: &str, to: &str) -> nix::Result<()> {
        renameat(self.file.as_fd(), from, self.file.as_fd(), to)?;
        // Of two links to one file rename(2) does nothing and leaves both.
        self.remove(from)
    }

    fn remove(&self, name: &str) -> nix::Result<()> {
        match unlinkat(self.file.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn sync(&self) -> Result<(), String> {
        self.file.sync_all().map_err(|why| self.error("sync", "", why))
    }

    fn error(&self, operation: &str, name: &str, why: impl std::fmt::Display) -> String {
        format!("cannot {operation} {}: {why}", self.path.join(name).display())
    }
}

struct Installed {
    installed: Vec<&'static str>,
    replaced: Vec<&'static str>,
}

impl Installed {
    fn report(&self, path: &Path, json: bool) {
        let kept_in = path.join(REPLACED);
        if json {
            return say_json(&json!({
                "directory": path.to_string_lossy(), "installed": self.installed, "replaced": self.replaced,
                "keptIn": (!self.replaced.is_empty()).then(|| kept_in.to_string_lossy()),
            }));
        }
        say(format_args!("installed into {}: {}", path.display(), self.installed.join(", ")));
        if !self.replaced.is_empty() {
            let (names, kept) = (self.replaced.join(", "), kept_in.display());
            say(format_args!("replaced, and kept in {kept}: {names}"));
        }
    }
}

#[derive(Default)]
struct Uninstalled {
    removed: Vec<&'static str>,
    restored: Vec<&'static str>,
    /// Names that are not ours any more.
    left_alone: Vec<&'static str>,
}

impl Uninstalled {
    fn report(&self, path: &Path, json: bool) {
        let Self { removed, restored, left_alone } = self;
        if json {
            return say_json(&json!({
                "directory": path.to_string_lossy(), "removed": removed, "restored": restored, "leftAlone": left_alone,
            }));
        }
        let lines = [
            ("removed from", removed),
            ("put back into", restored),
            ("not plumb's, so left alone in", left_alone),
        ];
        for (what, names) in lines.into_iter().filter(|(_, names)| !names.is_empty()) {
            say(format_args!("{what} {}: {}", path.display(), names.join(", ")));
        }
        if removed.is_empty() && restored.is_empty() {
            say(format_args!("nothing of plumb's is in {}", path.display()));
        }
    }
}
