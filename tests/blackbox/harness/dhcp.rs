//! A network with a DHCP server on it, and the daemon that leases from it.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::host::{BIN, Host, Pod, patience};

/// What the daemon logs.
pub const LOG: &str = "/run/dhcp.log";
/// What the daemon keeps.
pub const STATE: &str = "/run/cni/dhcp";

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, usual: Duration, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + patience(usual);
    while !is_so() {
        assert!(Instant::now() < until, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with this.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// All that it has said on standard error, if that is a pipe and it is over.
    pub fn stderr(&mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    /// Sends a signal and waits for the end; the exit status, if it was not the signal that ended it.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace that the host's `eth0` leads to: 10.0.0.1/24 and fd00::1/64 on its own `eth0`.
pub fn lan(host: &Host) -> Pod<'_> {
    let lan = host.pod("lan");
    host.sh("ip link add eth0 type veth peer name eth0 netns lan; ip link set eth0 up");
    lan.sh("ip link set lo up; ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up
            ip addr add fd00::1/64 dev eth0 nodad");
    lan
}

/// dnsmasq as DHCP server of 10.0.0.10 to 10.0.0.250, with these arguments more. It logs to `/run/dnsmasq.log`,
/// which has what is asked for and sent.
pub fn dnsmasq(host: &Host, lan: &Pod<'_>, arguments: &[&str]) -> Running {
    let mut command = lan.command("/usr/sbin/dnsmasq");
    command.args([
        // It stays in the foreground, and who it is: in a user namespace it could be nobody else.
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=eth0",
        "--dhcp-authoritative",
        "--no-ping",
        "--dhcp-leasefile=/run/dnsmasq.leases",
        "--log-dhcp",
        "--log-facility=/run/dnsmasq.log",
    ]);
    if !arguments.iter().any(|argument| argument.starts_with("--dhcp-range")) {
        command.arg("--dhcp-range=10.0.0.10,10.0.0.250,1h");
    }
    host.sh(": > /run/dnsmasq.log");
    let server = Running::start(command.args(arguments).stderr(Stdio::null()));
    eventually("dnsmasq serves", Duration::from_secs(5), || {
        host.read("/run/dnsmasq.log").contains("DHCP, sockets bound")
            || host.read("/run/dnsmasq.log").contains("IP range")
    });
    server
}

/// Kea as DHCP server, whose leases last `seconds`, with these keys more for its subnet. It logs to
/// `/run/kea/kea.log`.
pub fn kea(host: &Host, lan: &Pod<'_>, seconds: u32, subnet: &Value) -> Running {
    let mut conf = json!({
        "subnet": "10.0.0.0/24",
        "pools": [{"pool": "10.0.0.10 - 10.0.0.250"}],
        "option-data": [{"name": "routers", "data": "10.0.0.1"}],
    });
    for (key, value) in subnet.as_object().unwrap() {
        conf[key] = value.clone();
    }
    let conf = json!({"Dhcp4": {
        "interfaces-config": {"interfaces": ["eth0"]},
        "valid-lifetime": seconds,
        "renew-timer": seconds * 2 / 5,
        "rebind-timer": seconds * 3 / 5,
        "authoritative": true,
        "lease-database": {"type": "memfile", "persist": true, "name": "/run/kea/leases.csv", "lfc-interval": 0},
        "subnet4": [conf],
        "loggers": [{
            "name": "kea-dhcp4",
            "severity": "DEBUG",
            "debuglevel": 50,
            "output_options": [{"output": "/run/kea/kea.log", "flush": true}],
        }],
    }});
    start_kea(host, lan, "kea-dhcp4", "DHCP4_STARTED", &conf)
}

pub fn start_kea(host: &Host, lan: &Pod<'_>, name: &str, ready: &str, conf: &Value) -> Running {
    host.sh("mkdir -p /run/kea /var/lib/kea; rm -f /run/kea/kea.log; : > /run/kea/kea.log");
    host.write("/run/kea/kea.conf", &conf.to_string());
    let mut command = lan.command(&format!("/usr/sbin/{name}"));
    for variable in ["KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR"] {
        command.env(variable, "/run/kea");
    }
    let server = Running::start(command.args(["-c", "/run/kea/kea.conf"]).stderr(Stdio::null()));
    eventually("Kea serves", Duration::from_secs(10), || {
        host.read("/run/kea/kea.log").contains(ready)
    });
    server
}

/// The daemon.
pub struct Daemon<'a> {
    host: &'a Host,
    running: Running,
}

impl<'a> Daemon<'a> {
    /// Starts it with these flags, and waits until it is ready. What it logs is added to [`LOG`].
    pub fn start(host: &'a Host, flags: &[&str]) -> Self {
        let daemon = Self::start_unready(host, flags);
        eventually("the daemon is ready", Duration::from_secs(5), || {
            daemon.log().rsplit("BEGIN").next().unwrap().contains("msg=\"ready\"")
        });
        daemon
    }

    pub fn start_unready(host: &'a Host, flags: &[&str]) -> Self {
        host.sh(&format!("echo BEGIN >> {LOG}"));
        let script = format!("exec {BIN}/dhcp daemon \"$@\" 2>>{LOG}");
        let mut command = host.command("sh");
        let running = Running::start(command.args(["-c", &script, "sh"]).args(flags));
        Self { host, running }
    }

    pub fn log(&self) -> String {
        self.host.read(LOG)
    }

    /// Lines of the log with all of these words.
    pub fn logged(&self, words: &[&str]) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    #[track_caller]
    pub fn awaits_log(&self, usual: Duration, words: &[&str]) {
        let until = Instant::now() + patience(usual);
        while self.logged(words).is_empty() {
            assert!(Instant::now() < until, "not logged: {words:?} in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        self.running.end(signal)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }
}

/// What `dhcp leases --json` lists.
pub fn leases(host: &Host) -> Vec<Value> {
    let printed = host.run(&format!("{BIN}/dhcp"), &["leases", "--json"]);
    let mut printed: Value = serde_json::from_str(&printed).unwrap();
    serde_json::from_value(printed["leases"].take()).unwrap()
}

/// The files of leases that the daemon keeps.
pub fn kept(host: &Host) -> Vec<String> {
    let names = host.sh(&format!("ls {STATE}"));
    names.lines().filter(|name| *name != "lock").map(str::to_owned).collect()
}
