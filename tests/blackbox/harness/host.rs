use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use super::snapshot::Snapshot;

/// Where a host's plugins are.
pub const BIN: &str = "/run/cni/bin";
/// What is under test.
pub const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");

/// Where a host has file systems of its own.
const HIDDEN: [&str; 2] = ["/run", "/var/lib"];

/// How long to wait for what takes less than `usual` on a machine that is its own. An emulated one says by
/// `PLUMB_TEST_PATIENCE` how many times as slow it is.
pub fn patience(usual: Duration) -> Duration {
    let factor = std::env::var("PLUMB_TEST_PATIENCE").ok();
    usual * factor.map_or(1, |factor| factor.parse().expect("PLUMB_TEST_PATIENCE"))
}

/// A machine of its own, as far as network, `/run` and `/var/lib` go.
pub struct Host {
    /// Holds the namespaces, until it is ended or the test is.
    holder: Child,
    namespaces: Vec<(File, CloneFlags)>,
}

impl Host {
    /// A host with nothing but a loopback interface, and Plumb's plugins in [`BIN`].
    pub fn new() -> Self {
        Self::in_namespaces(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
    }

    /// The machine that this runs on, as far as network goes: a guest, which is thrown away. Only there the
    /// kernel's devices are ours to give.
    pub fn of_guest() -> Self {
        assert!(Path::new("/run/guest").exists(), "this is for tests/lab/guest only");
        Self::in_namespaces(CloneFlags::CLONE_NEWNS)
    }

    fn in_namespaces(own: CloneFlags) -> Self {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let mut holder = Command::new("cat");
        holder.stdin(Stdio::piped()).stdout(Stdio::null());
        let prepare = move || {
            let mut flags = own;
            if !uid.is_root() {
                flags |= CloneFlags::CLONE_NEWUSER;
            }
            unshare(flags)?;
            if !uid.is_root() {
                std::fs::write("/proc/self/setgroups", "deny")?;
                std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
                std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
            }
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            // A checkout below what is about to be hidden, as CI agents have it, is to stay visible.
            let program_dir = Path::new(PLUMB).parent().unwrap();
            let mut visible = Vec::new();
            for path in [Path::new(env!("CARGO_MANIFEST_DIR")), program_dir] {
                if HIDDEN.iter().any(|hidden| path.starts_with(hidden)) {
                    visible.push((path, File::open(path)?));
                }
            }
            for path in HIDDEN {
                mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
            }
            for (path, directory) in visible {
                let source = format!("/proc/self/fd/{}", directory.as_raw_fd());
                std::fs::create_dir_all(path)?;
                mount(Some(&*source), path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the child is alone, and what it allocates is its own; the
        // allocator's locks are free, since glibc sees to that in fork(2).
        unsafe { holder.pre_exec(prepare) };
        let holder = holder.spawn().expect("cannot make namespaces for a test");

        let mut kinds = vec![("mnt", CloneFlags::CLONE_NEWNS), ("net", CloneFlags::CLONE_NEWNET)];
        if !uid.is_root() {
            kinds.insert(0, ("user", CloneFlags::CLONE_NEWUSER));
        }
        let open = |(name, kind)| {
            let path = format!("/proc/{}/ns/{name}", holder.id());
            (File::open(path).expect("the holder's namespaces"), kind)
        };
        let namespaces = kinds.into_iter().map(open).collect();
        let host = Self { holder, namespaces };
        let names = plumb::plugins::ALL.map(|plugin| plugin.name).join(" ");
        host.sh(&format!(
            "ip link set lo up; mkdir -p {BIN} /run/netns
             for name in {names}; do ln -s {PLUMB} {BIN}/$name; done"
        ));
        host
    }

    /// A pod, whose namespace is `/run/netns/NAME`.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.run("ip", &["netns", "add", name]);
        Pod { host: self, name: name.to_owned() }
    }

    /// `count` pods, called pod0, pod1, …
    pub fn pods(&self, count: usize) -> Vec<Pod<'_>> {
        (0..count).map(|number| self.pod(&format!("pod{number}"))).collect()
    }

    /// A program that will run on this host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(program, None)
    }

    fn command_in(&self, program: impl AsRef<OsStr>, pod: Option<PathBuf>) -> Command {
        let clone = |(file, kind): &(File, CloneFlags)| (file.try_clone().unwrap(), *kind);
        let namespaces: Vec<_> = self.namespaces.iter().map(clone).collect();
        let enter = move || {
            for (file, kind) in &namespaces {
                setns(file.as_fd(), *kind)?;
            }
            if let Some(pod) = &pod {
                setns(File::open(pod)?.as_fd(), CloneFlags::CLONE_NEWNET)?;
            }
            Ok::<_, io::Error>(())
        };
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        // SAFETY: as in `new`.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a program that must succeed, and returns what it prints.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        finish(self.command(program).args(args))
    }

    /// Runs a shell script that must succeed.
    pub fn sh(&self, script: &str) -> String {
        self.run("sh", &["-euc", script])
    }

    /// What `ip -j ARGS` tells.
    pub fn ip(&self, args: &str) -> Value {
        parse(&self.sh(&format!("ip -j -d {args}")))
    }

    /// What `nft -j ARGS` tells: its list of objects.
    pub fn nft(&self, args: &str) -> Vec<Value> {
        let mut answer = parse(&self.sh(&format!("nft -j {args}")));
        match answer["nftables"].take() {
            Value::Array(objects) => objects,
            _ => Vec::new(),
        }
    }

    /// The objects of one kind in the ruleset.
    pub fn ruleset(&self, kind: &str) -> Vec<Value> {
        self.nft("list ruleset")
            .into_iter()
            .filter_map(|mut o| Some(o.get_mut(kind)?.take()))
            .collect()
    }

    /// Comments of all elements of all sets.
    pub fn element_comments(&self) -> Vec<String> {
        let mut comments: Vec<_> = self
            .ruleset("set")
            .iter()
            .flat_map(|set| set["elem"].as_array().cloned().unwrap_or_default())
            .filter_map(|element| Some(element["elem"]["comment"].as_str()?.to_owned()))
            .collect();
        comments.sort();
        comments
    }

    /// A file's content, as this host sees it.
    pub fn read(&self, path: &str) -> String {
        self.run("cat", &[path])
    }

    /// Puts a file there.
    pub fn write(&self, path: impl AsRef<Path>, content: &str) {
        use std::io::Write;
        let mut child = self
            .command("tee")
            .arg(path.as_ref())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A file of this host's, open for reading and writing.
    pub fn open(&self, path: &str) -> File {
        let path = format!("/proc/{}/root{path}", self.holder.id());
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// A setting under `/proc/sys/net`.
    pub fn sysctl(&self, name: &str) -> String {
        self.read(&format!("/proc/sys/net/{name}")).trim().to_owned()
    }

    /// A foreign plugin for address management, called `scripted`. ADD prints `result`, and each call
    /// adds its command to `/run/scripted.log`.
    pub fn scripted_ipam(&self, result: &Value) {
        self.write("/run/scripted.result", &result.to_string());
        let script = "#!/bin/sh\necho $CNI_COMMAND >> /run/scripted.log\n\
                      [ $CNI_COMMAND != ADD ] || cat /run/scripted.result\n";
        self.write(format!("{BIN}/scripted"), script);
        self.sh(&format!("chmod 755 {BIN}/scripted"));
    }

    /// Names of the leases of a network.
    pub fn leases(&self, network: &str) -> Vec<String> {
        let script = format!("ls /var/lib/cni/networks/{network} 2>/dev/null || true");
        let names = self.sh(&script);
        let mut leases: Vec<_> = names
            .lines()
            .filter(|name| name.contains(['.', ':']) && name.parse::<std::net::IpAddr>().is_ok())
            .map(str::to_owned)
            .collect();
        leases.sort();
        leases
    }

    /// All that plugins could leave behind on this host.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A network namespace on a host.
pub struct Pod<'a> {
    host: &'a Host,
    /// Its name; also good for a container's ID.
    pub name: String,
}

impl Pod<'_> {
    /// What a runtime says in `CNI_NETNS`.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A program that will run in this pod.
    pub fn command(&self, program: &str) -> Command {
        self.host.command_in(program, Some(self.path().into()))
    }

    /// Runs a shell script that must succeed.
    pub fn sh(&self, script: &str) -> String {
        finish(self.command("sh").args(["-euc", script]))
    }

    /// A setting under `/proc/sys/net`, in this pod.
    pub fn sysctl(&self, name: &str) -> String {
        self.sh(&format!("cat /proc/sys/net/{name}")).trim().to_owned()
    }

    /// What `ip -j ARGS` tells in this pod.
    pub fn ip(&self, args: &str) -> Value {
        parse(&self.sh(&format!("ip -j -d {args}")))
    }

    /// Whether an address answers to one of two pings.
    pub fn reaches(&self, address: &str) -> bool {
        self.is_answered(address, Duration::from_secs(2))
    }

    fn is_answered(&self, address: &str, patience: Duration) -> bool {
        let deadline = patience.as_secs().to_string();
        let mut ping = self.command("ping");
        ping.args(["-n", "-q", "-c", "2", "-i", "0.2", "-w", &deadline, address]);
        ping.stdout(Stdio::null());
        // One answer is enough: ping's status says whether there was any.
        ping.stderr(Stdio::null()).status().unwrap().success()
    }

    /// Asserts that an address answers.
    #[track_caller]
    pub fn must_reach(&self, address: &str) {
        if !self.is_answered(address, patience(Duration::from_secs(2))) {
            let state = self.sh("ip addr; ip route; ip -6 route; ip neigh");
            let host = self.host.sh("ip addr; ip route; bridge link; nft list ruleset");
            panic!("{} does not reach {address}\n--- pod\n{state}\n--- host\n{host}", self.name);
        }
    }

    /// The addresses of one interface, with prefix, link-local ones left out.
    pub fn addresses(&self, ifname: &str) -> Vec<String> {
        let links = self.ip(&format!("addr show dev {ifname}"));
        let addresses = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
        addresses
            .iter()
            .filter(|a| a["scope"] == "global")
            .map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]))
            .collect()
    }
}

#[track_caller]
fn finish(command: &mut Command) -> String {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.unwrap_or_else(|why| panic!("cannot run {command:?}: {why}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn parse(text: &str) -> Value {
    // ip prints nothing where there is nothing to list.
    if text.trim().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}
