//! Where it happens: hosts and pods, namespaces that exist only for this, and what is on the hosts already.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use plumb::cli::sandbox;
use plumb::nl::link::{Child, NewChild};
use plumb::nl::{Family, Socket, bridge_vlan, link};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contender::{Contender, Plugins, Scenario, Verb, Work};
use crate::floor::Floor;

/// Where host-local keeps its leases.
pub const LEASES: &str = "/var/lib/cni/networks";
/// The bridge that all networks of a host share.
pub const BRIDGE: &str = "crowd0";
/// The bridge of those that are in a VLAN.
pub const VLAN_BRIDGE: &str = "vlans0";
/// The device that a host has to give away.
pub const DEVICE: &str = "device";
/// Bridges hold at most 1,024 ports; a crowd is spread over several, this many to each.
const CROWD_PER_BRIDGE: usize = 500;
/// Calls of one caller in a row when there are many.
pub const PODS_PER_CALLER: usize = 3;
/// How many make a crowd at a time.
const MAKERS: usize = 2;

/// All contenders, ready.
pub struct Stage {
    pub contenders: Vec<Contender>,
    /// Debian's package of the reference with its version, or else its directory.
    pub reference: Option<String>,
    _programs: Programs,
}

/// Hosts with equally many attachments: made by Plumb where Plumb and the floor are measured, and by the
/// reference where that is, since what it leaves on a host is its own cost.
pub struct Crowd {
    pub present: usize,
    ours: Host,
    reference: Host,
}

impl Crowd {
    pub fn host(&self, contender: &Contender) -> &Host {
        match contender {
            Contender::Reference(_) => &self.reference,
            _ => &self.ours,
        }
    }
}

/// A host: a network namespace, with a `/proc` of its own. In a common one the kernel would look through
/// what has ever been asked of `/proc/sys/net` in all namespaces, and so let one contender's plugins pay for
/// what the other's have asked in each pod.
pub struct Host {
    netns: File,
    /// The mount namespace with that `/proc`.
    mounts: File,
    /// Index of [`BRIDGE`].
    pub bridge: u32,
    /// Those that are attached and detached.
    pub pods: Vec<Pod>,
}

impl Host {
    /// Moves this thread to the host, for good.
    pub fn enter(&self) -> Result<()> {
        // The directories are this thread's own, which entering a mount namespace asks for.
        unshare(CloneFlags::CLONE_FS).context("unshare")?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("setns")?;
        setns(&self.netns, CloneFlags::CLONE_NEWNET).context("setns")
    }
}

/// A container's network namespace.
pub struct Pod {
    pub name: String,
    pub path: PathBuf,
    /// Its number on its host.
    pub number: usize,
}

impl Stage {
    /// Moves this process into namespaces of its own, with copies of all programs.
    pub fn set(reference: &Path) -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let program = temporary.path().join("minimal");
        Floor::compile(&program)?;
        let minimal = fs::read(&program)?;
        let plumb = fs::read(env!("CARGO_BIN_EXE_plumb")).context("the plumb binary")?;
        let names = Scenario::plugins();
        let read = |name: &&'static str| Some((*name, fs::read(reference.join(name)).ok()?));
        let theirs: Vec<_> = names.iter().filter_map(read).collect();
        let package = package_of(&reference.join("bridge"));
        drop(temporary);

        sandbox::enter().map_err(|why| anyhow!(why))?;
        // What is mounted there later, pods, shows in the hosts' mount namespaces.
        mount(None::<&str>, "/run", None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
        let programs = Programs::new()?;
        let ours = programs.install("plumb", names.iter().map(|name| (*name, plumb.as_slice())))?;
        let floor = programs.install("floor", [("minimal", minimal.as_slice())])?;
        let mut contenders = vec![
            Contender::Plumb(Plugins { directory: ours }),
            Contender::Floor(Floor { program: floor.join("minimal") }),
        ];
        if theirs.iter().any(|(name, _)| *name == "bridge") {
            let theirs = theirs.iter().map(|(name, program)| (*name, program.as_slice()));
            let directory = programs.install("reference", theirs)?;
            contenders.insert(1, Contender::Reference(Plugins { directory }));
        } else {
            eprintln!(
                "without the reference plugins, since {} can't be read; \
                 Debian: apt-get install containernetworking-plugins iptables",
                reference.join("bridge").display()
            );
        }
        let has_reference = contenders.len() > 2;
        let name = package.unwrap_or_else(|| reference.display().to_string());
        let reference = has_reference.then_some(name);
        Ok(Self { contenders, reference, _programs: programs })
    }

    fn plugins(&self, of_reference: bool) -> Option<&Plugins> {
        self.contenders.iter().find_map(|contender| match contender {
            Contender::Plumb(plugins) if !of_reference => Some(plugins),
            Contender::Reference(plugins) if of_reference => Some(plugins),
            _ => None,
        })
    }

    /// Makes hosts with so many attachments each.
    pub fn make_crowds(&self, present: &[usize], callers: Option<usize>) -> Result<Vec<Crowd>> {
        let pods = callers.unwrap_or(1) * PODS_PER_CALLER;
        let make = |present: &usize| {
            let ours = make_host(&format!("ours{present}"), self.plugins(false), *present, pods)?;
            let reference = self.plugins(true);
            let crowd = if reference.is_some() { *present } else { 0 };
            let reference = make_host(&format!("reference{present}"), reference, crowd, pods)?;
            Ok(Crowd { present: *present, ours, reference })
        };
        present.iter().map(make).collect()
    }
}

/// Whether the kernel can do the work of a scenario. It loads the module of a kind of link if there is one. Asks
/// in this thread's network namespace.
pub fn kernel_can(scenario: &Scenario) -> Result<bool> {
    let mut socket = Socket::open(Family::Route)?;
    let told = match scenario.work {
        Work::Child(child) => link::probe(&mut socket, &[child.kind()]),
        Work::VlanPort => {
            link::probe(&mut socket, &["bridge"]).and_then(|()| bridge_vlan::probe(&mut socket))
        }
        _ => Ok(()),
    };
    match told {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.errno == Errno::EOPNOTSUPP => Ok(false),
        Err(refusal) => Err(refusal).context(scenario.name),
    }
}

/// The link on top of which a host's links of a kind are made. Each kind has its own, which some would not
/// share.
pub fn master_of(child: Child) -> String {
    format!("up-{}", child.kind())
}

/// Makes the masters of all kinds that the kernel knows, each with a first link on it, so that what is
/// measured neither makes the kernel begin with a master nor give it up.
fn make_masters() -> Result<()> {
    for scenario in Scenario::ALL {
        let Some(child) = scenario.child().filter(|child| *child != Child::Dummy) else { continue };
        if !kernel_can(scenario)? {
            continue;
        }
        let (kind, master) = (child.kind(), master_of(child));
        sandbox::make_segment(&master, &format!("far-{kind}"))?;
        let mut socket = Socket::open(Family::Route)?;
        let first = match child {
            Child::Vlan(id) => Child::Vlan(id + 1),
            other => other,
        };
        let below = link::index_of(&mut socket, &master)?;
        socket.execute(&[&NewChild {
            name: &format!("first-{kind}"),
            index: None,
            netns: None,
            master: below,
            mtu: None,
            mac: None,
            child: first,
        }])?;
    }
    Ok(())
}

/// Debian's package that a file is of, with its version.
fn package_of(file: &Path) -> Option<String> {
    let query = |arguments: &[&OsStr]| {
        let output = Command::new("dpkg-query").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let owner = query(&["--search".as_ref(), file.as_os_str()])?;
    let (package, _) = owner.split_once(':')?;
    query(&["--show".as_ref(), "--showformat=${Package} ${Version}".as_ref(), package.as_ref()])
}

/// Where the programs are: on a disk, as installed ones are. A tmpfs maps pages one by one, for which large
/// programs pay.
struct Programs {
    directory: TempDir,
}

impl Programs {
    /// To be called on the stage, which hides some directories.
    fn new() -> Result<Self> {
        let on_disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let place = if on_disk.is_dir() { on_disk } else { Path::new("/run") };
        Ok(Self { directory: tempfile::tempdir_in(place).context("a directory for programs")? })
    }

    fn install<'a>(
        &self,
        name: &str,
        programs: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<PathBuf> {
        let directory = self.directory.path().join(name);
        fs::create_dir(&directory)?;
        let mut first: Option<(&[u8], PathBuf)> = None;
        for (name, program) in programs {
            let path = directory.join(name);
            match &first {
                // Plumb is one program under many names.
                Some((same, old)) if *same == program => fs::hard_link(old, &path)?,
                _ => {
                    fs::write(&path, program)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                    first = Some((program, path));
                }
            }
        }
        Ok(directory)
    }
}

fn make_host(name: &str, plugins: Option<&Plugins>, present: usize, pods: usize) -> Result<Host> {
    let pod = |number: usize| {
        let name = format!("{name}-{number}");
        let path = sandbox::make_pod(&name)?;
        Ok(Pod { name, path, number })
    };
    let path = sandbox::make_pod(name)?;
    let netns = File::open(&path)?;
    let mut host = Host {
        netns,
        mounts: mounts_with_own_proc()?,
        bridge: 0,
        pods: (0..pods).map(pod).collect::<Result<_>>()?,
    };
    let Some(plugins) = plugins else { return Ok(host) };

    let progress = bar(present + 1, &format!("{present} attachments on host {name}"));
    let next = AtomicUsize::new(0);
    let attach = || {
        host.enter()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= present {
                return anyhow::Ok(());
            }
            let pod = pod(pods + number)?;
            plugins
                .call("bridge", Verb::Add, &crowd_conf(name, number / CROWD_PER_BRIDGE), &pod)
                .run()?;
            progress.inc(1);
        }
    };
    thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(attach)).collect();
        makers
            .into_iter()
            .try_for_each(|maker| maker.join().map_err(|_| anyhow!("a crowd's maker"))?)
    })?;
    // One that stays keeps the bridge's carrier, which else came and went with who is measured.
    let anchor = pod(pods + present)?;
    let conf = json!({"cniVersion": "1.0.0", "name": format!("{name}-anchor"), "type": "bridge", "bridge": BRIDGE});
    host.bridge = thread::scope(|scope| {
        let attach = || {
            host.enter()?;
            make_masters()?;
            sandbox::make_segment(DEVICE, "far-device")?;
            plugins.call("bridge", Verb::Add, &conf, &anchor).run()?;
            link::index_of(&mut Socket::open(Family::Route)?, BRIDGE)?.context("the crowd's bridge")
        };
        scope.spawn(attach).join().map_err(|_| anyhow!("the anchor's maker"))?
    })?;
    progress.finish_and_clear();
    Ok(host)
}

/// Makes a mount namespace with a `/proc` of its own.
fn mounts_with_own_proc() -> Result<File> {
    let make = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        // Who is not root may not, as the processes in it are not all its own; then it is shared.
        let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>);
        Ok(File::open("/proc/thread-self/ns/mnt")?)
    };
    thread::scope(|scope| scope.spawn(make).join().map_err(|_| anyhow!("a maker of mounts"))?)
}

fn crowd_conf(host: &str, number: usize) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": format!("{host}-crowd{number}"), "type": "bridge",
        "bridge": format!("crowd{number}"), "isGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "subnet": format!("10.{}.0.0/16", 100 + number),
                 "routes": [{"dst": "0.0.0.0/0"}]},
    })
}

/// Leases that a network has already, as either host-local would have written them.
pub fn fill_leases(network: &str, scenario: &Scenario, count: usize) -> Result<()> {
    if !scenario.leases() {
        return Ok(());
    }
    let directory = Path::new(LEASES).join(network);
    fs::create_dir_all(&directory)?;
    for number in 2..count + 2 {
        for (set, address) in scenario.addresses(number).iter().enumerate() {
            fs::write(directory.join(address), format!("lease-{number}\r\neth0"))?;
            fs::write(directory.join(format!("last_reserved_ip.{set}")), address)?;
        }
    }
    Ok(())
}

/// A progress bar on standard error.
pub fn bar(length: usize, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:50} {bar:30} {pos}/{len} {eta}");
    let bar = ProgressBar::new(length as u64).with_message(what.to_owned());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
