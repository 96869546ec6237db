//! The node as a runtime knows it: its pods, what they should have, and the calls that change that.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use plumb::cni::queue::Collection;
use serde_json::{Value, json};

use crate::figures::{Figures, Kind};

/// Where the plugins are.
pub const BIN: &str = "/run/bin";
/// Where host-local keeps its leases.
pub const LEASES: &str = "/var/lib/cni/networks";
/// The interface of all pods.
const IFNAME: &str = "eth0";
const NETWORKS: usize = 3;
/// How many addresses a foreign writer holds at most.
const FOREIGN: usize = 20;

/// A network.
pub struct Network {
    pub name: &'static str,
    pub conf: Value,
    pub gateways: [String; 2],
}

/// What a pod has, as far as the runtime knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Detached,
    /// This is what ADD has returned.
    Attached(Value),
    /// A call has been killed: DEL or a garbage collection is due.
    Unknown,
    /// The runtime has forgotten it: only a garbage collection is to come.
    Forgotten,
}

/// All that is attached to this host, and who leases addresses.
pub struct Node {
    pub networks: [Network; NETWORKS],
    /// A call about a pod holds it.
    pub pods: Vec<Mutex<State>>,
    /// Of each foreign writer, the containers that it holds an address for.
    pub foreign: [Mutex<BTreeMap<String, IpAddr>>; 2],
    faults: Mutex<Vec<String>>,
    seed: u64,
}

pub fn name_of(pod: usize) -> String {
    format!("pod{pod}")
}

/// Whether garbage collections are told that a pod is valid though it is detached. From such a one they take
/// nothing, so what DEL has left of it is there for the audit to see; of the others, an ADD that begins behind the
/// list must survive by itself. On each network there are as many of both.
fn is_listed_when_detached(pod: usize) -> bool {
    (pod / NETWORKS).is_multiple_of(2)
}

fn kind_of(verb: &str) -> Kind {
    if verb == "ADD" { Kind::Add } else { Kind::Del }
}

fn network(name: &'static str, number: u8, keys: &Value) -> Network {
    let ranges = json!([[{"subnet": format!("10.{number}.0.0/16")}], [{"subnet": format!("fd0{number}::/64")}]]);
    let ipam = json!({"type": "host-local", "ranges": ranges});
    let mut conf = json!({"cniVersion": "1.1.0", "name": name, "ipMasq": true, "ipam": ipam});
    for (key, value) in keys.as_object().into_iter().flatten() {
        conf[key] = value.clone();
    }
    Network { name, conf, gateways: [format!("10.{number}.0.1"), format!("fd0{number}::1")] }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub fn new(pods: usize, seed: u64) -> Self {
        let bridge = |name| json!({"type": "bridge", "bridge": name, "isDefaultGateway": true});
        Self {
            networks: [
                network("soak-a", 0, &bridge("soak-a")),
                network("soak-b", 1, &bridge("soak-b")),
                network("soak-c", 2, &json!({"type": "ptp"})),
            ],
            pods: (0..pods).map(|_| Mutex::new(State::Detached)).collect(),
            foreign: Default::default(),
            faults: Mutex::default(),
            seed,
        }
    }

    /// The choices of one of the callers.
    pub fn random(&self, caller: usize) -> Rng {
        Rng::with_seed(self.seed.wrapping_add(caller as u64))
    }

    pub fn network_of(&self, pod: usize) -> &Network {
        &self.networks[pod % self.networks.len()]
    }

    /// What calls have answered that they must not.
    pub fn faults(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.faults))
    }

    fn fault(&self, what: String) {
        lock(&self.faults).push(what);
    }

    /// One call for a pod that nobody is busy with, as its state asks for.
    pub fn attach_or_detach(&self, random: &mut Rng, kills: u8, figures: &Figures) {
        let pod = random.usize(..self.pods.len());
        let mut state = match self.pods[pod].try_lock() {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => return thread::yield_now(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let verb = match *state {
            State::Detached => "ADD",
            // It may have been lost since ADD, which DEL would not notice.
            State::Attached(ref result) if random.u8(..3) == 0 => {
                return self.check(pod, result, figures);
            }
            State::Attached(_) => "DEL",
            State::Unknown if random.u8(..4) > 0 => "DEL",
            State::Unknown => {
                *state = State::Forgotten;
                return;
            }
            State::Forgotten => return,
        };
        let doomed = random.u8(..100) < kills;
        // While it starts, or anywhere up to its end, which is the later the more are at work.
        let most = match random.bool() {
            true => Duration::from_millis(3),
            false => figures.typical(kind_of(verb)).mul_f64(1.5),
        };
        let moment = most.mul_f64(random.f64());
        let fate = doomed.then_some(moment);
        *state = self.call(verb, pod, fate, figures);
    }

    /// Calls the plugin of a pod, and returns what is known afterwards. After a while the process is killed, if
    /// that is its fate.
    fn call(&self, verb: &str, pod: usize, fate: Option<Duration>, figures: &Figures) -> State {
        let network = self.network_of(pod);
        let began = Instant::now();
        let name = name_of(pod);
        let plugin = network.conf["type"].as_str().unwrap_or_default();
        let mut child = match start(plugin, verb, &name, &network.conf) {
            Ok(child) => child,
            Err(why) => {
                self.fault(format!("{plugin} can't be started: {why}"));
                return State::Unknown;
            }
        };
        if let Some(after) = fate {
            thread::sleep(after);
            let _ = child.kill();
        }
        let (status, output) = wait(child);
        if fate.is_some() && status.and_then(|status| status.signal()) == Some(9) {
            figures.count(Kind::Kill);
            return State::Unknown;
        }
        if !status.is_some_and(|status| status.success()) {
            self.fault(format!("{verb} of {name} on {}: {output}", network.name));
            return State::Unknown;
        }
        // Of one that was to be killed and has ended before, the time is that of the fate.
        if fate.is_none() {
            figures.add(kind_of(verb), began);
        }
        if verb == "DEL" {
            return State::Detached;
        }
        let result = serde_json::from_str(&output).unwrap_or_default();
        if addresses(&result).len() != 2 {
            self.fault(format!("ADD of {name} on {}: {output}", network.name));
        }
        State::Attached(result)
    }

    /// Sees whether a pod still has what ADD returned.
    fn check(&self, pod: usize, result: &Value, figures: &Figures) {
        let network = self.network_of(pod);
        let began = Instant::now();
        let name = name_of(pod);
        let plugin = network.conf["type"].as_str().unwrap_or_default();
        let mut conf = network.conf.clone();
        conf["prevResult"] = result.clone();
        let (success, output) = finish(start(plugin, "CHECK", &name, &conf));
        if !success {
            self.fault(format!("CHECK of {name} on {}: {output}", network.name));
        }
        figures.add(Kind::Check, began);
    }

    /// Leases or releases an address by the reference's host-local, in the first network's directory.
    pub fn lease_or_release(&self, writer: usize, random: &mut Rng, figures: &Figures) {
        let mut held = lock(&self.foreign[writer]);
        let network = &self.networks[0];
        let mut conf = network.conf.clone();
        conf["cniVersion"] = json!("1.0.0");
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.0.0.0/16"}]]);
        let release = held.len() >= FOREIGN || !held.is_empty() && random.bool();
        if release {
            let container = held.keys().next().cloned().unwrap_or_default();
            let (success, output) = finish(start("foreign", "DEL", &container, &conf));
            held.remove(&container);
            if !success {
                self.fault(format!("the foreign DEL of {container}: {output}"));
            }
        } else {
            let container = format!("foreign{writer}-{}", random.u32(..));
            let (success, output) = finish(start("foreign", "ADD", &container, &conf));
            match addresses(&serde_json::from_str(&output).unwrap_or_default()).first() {
                Some(address) if success => drop(held.insert(container, *address)),
                _ => self.fault(format!("the foreign ADD of {container}: {output}")),
            }
        }
        figures.count(Kind::Foreign);
        drop(held);
        thread::sleep(Duration::from_millis(random.u64(..100)));
    }

    /// Has each plugin collect what is attached no more, while others attach and detach.
    ///
    /// The list is made as a runtime must make it that goes on meanwhile, and as `plumb gc` does: the collection
    /// begins before, so that what is attached later is spared though it is not in the list. Of the pods that are
    /// detached when it is made, some are in the list ([`is_listed_when_detached`]).
    pub fn collect_garbage(&self, figures: &Figures) {
        let collection = Collection::begin();
        if let Err(error) = &collection {
            self.fault(format!("no collection can begin: {}", error.msg));
        }
        let mut forgotten = Vec::new();
        let mut valid: [Vec<Value>; NETWORKS] = Default::default();
        for (pod, state) in self.pods.iter().enumerate() {
            let is_valid = match state.try_lock().as_deref() {
                Ok(State::Forgotten) => {
                    forgotten.push(pod);
                    false
                }
                Ok(State::Detached) => is_listed_when_detached(pod),
                // What a call is about, which may have ended before the collection began, is known to the
                // runtime.
                Ok(State::Attached(_) | State::Unknown) | Err(_) => true,
            };
            if is_valid {
                valid[pod % self.networks.len()]
                    .push(json!({"containerID": name_of(pod), "ifname": IFNAME}));
            }
        }
        // Locked until the end: their calls don't tell garbage collections of themselves.
        let foreign = self.foreign.each_ref().map(lock);
        let containers = foreign.iter().flat_map(|held| held.keys());
        valid[0].extend(containers.map(|c| json!({"containerID": c, "ifname": IFNAME})));
        for (network, valid) in self.networks.iter().zip(valid) {
            let began = Instant::now();
            let mut conf = network.conf.clone();
            conf["cni.dev/valid-attachments"] = valid.into();
            let plugin = network.conf["type"].as_str().unwrap_or_default();
            let (success, output) = finish(start(plugin, "GC", "", &conf));
            if !success {
                self.fault(format!("GC of {}: {output}", network.name));
            }
            figures.add(Kind::Gc, began);
        }
        drop(collection);
        for pod in forgotten {
            *lock(&self.pods[pod]) = State::Detached;
        }
    }

    /// Detaches what is attached, by as many callers as a shutdown has.
    pub fn detach_all(&self, figures: &Figures) {
        thread::scope(|scope| {
            for first in 0..16 {
                scope.spawn(move || {
                    for pod in (first..self.pods.len()).step_by(16) {
                        let mut state = lock(&self.pods[pod]);
                        *state = self.call("DEL", pod, None, figures);
                    }
                });
            }
        });
        for held in &self.foreign {
            for container in std::mem::take(&mut *lock(held)).into_keys() {
                let (success, output) =
                    finish(start("foreign", "DEL", &container, &self.networks[0].conf_of_1_0()));
                if !success {
                    self.fault(format!("the foreign DEL of {container}: {output}"));
                }
            }
        }
    }
}

impl Network {
    /// For the reference, which knows no 1.1.0 in all releases.
    fn conf_of_1_0(&self) -> Value {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = json!("1.0.0");
        conf
    }
}

fn start(plugin: &str, verb: &str, container: &str, conf: &Value) -> io::Result<Child> {
    let mut command = Command::new(format!("{BIN}/{plugin}"));
    command.env_clear().env("CNI_COMMAND", verb).env("CNI_PATH", BIN);
    if verb != "GC" {
        command.env("CNI_CONTAINERID", container).env("CNI_IFNAME", IFNAME);
        command.env("CNI_NETNS", format!("/run/netns/{container}"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(conf.to_string().as_bytes()));
    // Who is killed reads nothing.
    drop(written);
    Ok(child)
}

/// How it has ended, and what it has printed.
fn wait(mut child: Child) -> (Option<ExitStatus>, String) {
    let mut output = String::new();
    if let Some(stdout) = &mut child.stdout {
        let _ = stdout.read_to_string(&mut output);
    }
    (child.wait().ok(), output)
}

/// Whether it has succeeded, and what it has printed.
fn finish(child: io::Result<Child>) -> (bool, String) {
    match child {
        Ok(child) => {
            let (status, output) = wait(child);
            (status.is_some_and(|status| status.success()), output)
        }
        Err(why) => (false, why.to_string()),
    }
}

/// `ips` of a result.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    result["ips"].as_array().into_iter().flatten().filter_map(address).collect()
}
