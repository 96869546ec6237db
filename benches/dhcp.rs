//! Many leases at once: how fast a daemon leases, and what it takes to keep leases. Plumb's daemon beside the
//! reference's, with the same server (dnsmasq) and the same links, in namespaces that exist only for it.
//!
//!     cargo bench --bench dhcp -- [--leases N] [--rounds N]
//!
//! Every lease has a link of its own, a macvlan, and every plugin's call is a process of its own, all started at
//! once. What is told is the median of the rounds.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");
const REFERENCE: &str = "/usr/lib/cni/dhcp";
/// How many links a container has, and a network: what one macvlan says to all, each of the others on its network
/// is given by the kernel, which has a queue for 1,000 packets (sysctl `net.core.netdev_max_backlog`).
const LINKS: usize = 10;
const NETWORK: usize = 500;
/// What a plugin is started with, and the configuration that it reads.
const CONF: &str =
    r#"{"cniVersion":"1.0.0","name":"bench","type":"macvlan","ipam":{"type":"dhcp"}}"#;

#[derive(Parser)]
struct Options {
    /// How many leases
    #[arg(long, default_value_t = 500)]
    leases: usize,
    /// How often each daemon is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure this daemon once, in the namespaces that the process is in
    #[arg(long, hide = true)]
    measure: Option<String>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The daemons: what they are called, the program, its flags.
const DAEMONS: [(&str, &str, &[&str]); 3] = [
    ("Plumb", PLUMB, &[]),
    ("Plumb, -probe=0", PLUMB, &["-probe=0"]),
    ("reference", REFERENCE, &[]),
];

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(name) = &options.measure {
        let measured = measure(name, options.leases)?;
        println!("{measured}");
        return Ok(());
    }
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); DAEMONS.len()];
    for round in 1..=options.rounds {
        for ((name, ..), results) in DAEMONS.iter().zip(&mut results) {
            eprintln!("round {round} of {}: {name}", options.rounds);
            results.push(in_namespaces(name, options.leases)?);
        }
    }
    println!("\n{} leases at once, medians of {} rounds:\n", options.leases, options.rounds);
    println!("| daemon | all leased after | per second | memory per lease | threads |");
    println!("| --- | --- | --- | --- | --- |");
    for ((name, ..), results) in DAEMONS.iter().zip(&results) {
        let median = |key: &str| {
            let mut values: Vec<_> = results.iter().filter_map(|r| r[key].as_f64()).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let seconds = median("seconds");
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let rate = options.leases as f64 / seconds;
        let (memory, threads) = (median("bytes"), median("threads"));
        println!("| {name} | {seconds:.1} s | {rate:.0} | {memory:.0} bytes | {threads:.0} |");
    }
    Ok(())
}

/// Has this program measure a daemon in namespaces of its own.
fn in_namespaces(name: &str, leases: usize) -> Result<Value> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let count = leases.to_string();
    command.arg(std::env::current_exe()?).args(["--leases", &count, "--measure", name]);
    let output = command.stderr(Stdio::inherit()).output().context("unshare(1)")?;
    ensure!(output.status.success(), "measuring {name} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(name: &str, leases: usize) -> Result<Value> {
    let (_, program, flags) = DAEMONS.iter().find(|(other, ..)| *other == name).context("who?")?;
    // Each plugin has a pipe.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    prepare(leases.div_ceil(LINKS))?;
    let plugin = if *program == PLUMB { "/run/bin/dhcp" } else { program };
    fs::create_dir_all("/run/bin")?;
    fs::copy(PLUMB, "/run/bin/dhcp")?;
    let networks = 0..leases.div_ceil(NETWORK);
    let range = |n| format!("--dhcp-range=10.{n}.0.10,10.{n}.200.250,255.255.0.0,1h");
    let ranges: Vec<_> = networks.map(range).collect();
    let mut server = shell(&format!(
        "exec ip netns exec lan dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface='eth*' --no-ping \
         --dhcp-authoritative --dhcp-lease-max=20000 --dhcp-leasefile=/run/leases {} --log-facility=/run/log",
        ranges.join(" ")
    ))
    .stderr(Stdio::null())
    .spawn()?;
    let mut daemon = Command::new(plugin);
    let mut daemon = daemon.arg("daemon").args(*flags).stderr(Stdio::null()).spawn()?;
    wait_for(|| Path::new("/run/cni/dhcp.sock").exists() && Path::new("/run/log").exists())?;

    fs::write("/run/conf", CONF)?;
    let start = |number: usize| {
        let (pod, link) = (number / LINKS, number % LINKS);
        Command::new(plugin)
            .env_clear()
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("p{pod}"))
            .env("CNI_NETNS", format!("/run/netns/p{pod}"))
            .env("CNI_IFNAME", format!("e{link}"))
            .env("CNI_PATH", "/run/bin")
            .stdin(fs::File::open("/run/conf")?)
            .stdout(Stdio::piped())
            .spawn()
    };
    // What a daemon has for the first it has for all.
    finish(start(0)?)?;
    let before = own_memory(&daemon)?;
    let began = Instant::now();
    let running: Vec<_> = (1..leases).map(start).collect::<Result<_, _>>()?;
    let addresses: HashSet<_> = running.into_iter().map(finish).collect::<Result<_>>()?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(addresses.len() == leases - 1, "{} addresses for {leases} leases", addresses.len());
    // Until what is only needed to lease has gone.
    std::thread::sleep(Duration::from_secs(2));
    let bytes = own_memory(&daemon)?.saturating_sub(before) / (leases as u64 - 1);
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.id()))?.count();
    for process in [&mut daemon, &mut server] {
        process.kill()?;
        process.wait()?;
    }
    Ok(json!({"seconds": seconds, "bytes": bytes, "threads": threads}))
}

/// Networks with a server's address on each, and containers with links on them.
fn prepare(pods: usize) -> Result<()> {
    let mut links = String::new();
    for pod in 0..pods {
        let network = pod * LINKS / NETWORK;
        for link in 0..LINKS {
            links += &format!(
                "link add link eth{network} name e{link} netns p{pod} type macvlan mode bridge\n"
            );
        }
    }
    let script = format!(
        "set -e; mount --make-rprivate /; mount -t tmpfs tmpfs /run; mkdir -p /run/netns /run/cni
         ip link set lo up; ip netns add lan; ip -n lan link set lo up
         for n in $(seq 0 {}); do
             ip link add eth$n type veth peer name eth$n netns lan; ip link set eth$n up
             ip -n lan link set eth$n up; ip -n lan addr add 10.$n.0.1/16 dev eth$n
         done
         for pod in $(seq 0 {}); do ip netns add p$pod; done",
        (pods * LINKS - 1) / NETWORK,
        pods - 1
    );
    let run = |script: &str| -> Result<()> {
        let status = shell(script).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "cannot prepare the network");
        Ok(())
    };
    run(&script)?;
    fs::write("/run/links", links)?;
    run("ip -batch /run/links")
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn wait_for(is_so: impl Fn() -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        ensure!(Instant::now() < until, "daemon or server does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Both are about to listen.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// The address that a plugin has printed.
fn finish(plugin: Child) -> Result<String> {
    let output = plugin.wait_with_output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "a plugin failed: {printed}");
    let result: Value = serde_json::from_str(&printed)?;
    let address = result.pointer("/ips/0/address").and_then(Value::as_str);
    Ok(address.context("no address")?.to_owned())
}

/// Memory that a process has of its own, in bytes: without its program, which is there as far as it was used.
fn own_memory(process: &Child) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find(|line| line.starts_with("RssAnon")).context("RssAnon")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("RssAnon")?.parse()?;
    Ok(kilobytes * 1024)
}
