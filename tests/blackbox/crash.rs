//! Killed before any of its system calls, a call leaves only what the next DEL or GC removes; and it keeps
//! nobody from anything.
//!
//! Of each network ADD is walked twice, where it makes everything and where others are attached, and DEL once.
//! In the short form one thing is tried after each kill, in turn, and only of bridge all system calls are walked;
//! with `PLUMB_TEST_WALK=all` each of [`SEQUELS`] is tried, of all.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Call, Fault, Host, Pod, Snapshot};

/// Whether walks leave nothing out.
pub fn walks_all() -> bool {
    std::env::var("PLUMB_TEST_WALK").is_ok_and(|value| value == "all")
}

/// A network with a pool of four addresses a family.
pub struct Network {
    pub name: &'static str,
    pub conf: Value,
}

impl Network {
    fn new(plugin: &str, name: &'static str, is_dual: bool) -> Self {
        let range = |subnet: &str, start: &str, end: &str| json!([{"subnet": subnet, "rangeStart": start, "rangeEnd": end}]);
        let mut ranges = vec![range("10.1.0.0/16", "10.1.0.2", "10.1.0.5")];
        if is_dual {
            ranges.push(range("fd01::/64", "fd01::2", "fd01::5"));
        }
        let ipam = json!({"type": "host-local", "ranges": ranges});
        let mut conf = json!({"cniVersion": "1.1.0", "name": "net", "type": plugin, "ipam": ipam});
        let keys = match plugin {
            "bridge" => json!({"bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
                               "macspoofchk": is_dual, "portIsolation": is_dual}),
            "ptp" => json!({"ipMasq": true}),
            _ => json!({"master": "up0"}),
        };
        for (key, value) in keys.as_object().unwrap() {
            conf[key] = value.clone();
        }
        Self { name, conf }
    }

    pub fn bridge() -> Self {
        Self::new("bridge", "bridge, dual stack", true)
    }

    pub fn bridge_v4() -> Self {
        Self::new("bridge", "bridge, IPv4", false)
    }

    pub fn ptp() -> Self {
        Self::new("ptp", "ptp, dual stack", true)
    }

    pub fn ptp_v4() -> Self {
        Self::new("ptp", "ptp, IPv4", false)
    }

    pub fn macvlan() -> Self {
        Self::new("macvlan", "macvlan, dual stack", true)
    }

    pub fn macvlan_v4() -> Self {
        Self::new("macvlan", "macvlan, IPv4", false)
    }

    /// Whether an attachment has a link on the host, which takes the container's with it.
    fn is_paired(&self) -> bool {
        self.conf["type"] != "macvlan"
    }
}

/// Which call is walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walked {
    /// The first ADD of a host, which makes bridge, rules and lease directory.
    FirstAdd,
    /// An ADD beside another attachment.
    LaterAdd,
    /// A DEL beside another attachment.
    Del,
}

impl Walked {
    pub fn command(self) -> &'static str {
        if self == Self::Del { "DEL" } else { "ADD" }
    }
}

/// Where one call is walked.
pub struct Stage<'a> {
    pub network: &'a Network,
    pub walked: Walked,
    pub host: &'a Host,
    pub pod: Pod<'a>,
    pub other: Pod<'a>,
    witness: Option<(Pod<'a>, Value)>,
    before: Snapshot,
}

impl<'a> Stage<'a> {
    pub fn new(host: &'a Host, network: &'a Network, walked: Walked) -> Self {
        host.sh("ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up");
        let (pod, other) = (host.pod("a"), host.pod("b"));
        let witness = (walked != Walked::FirstAdd).then(|| {
            let witness = host.pod("witness");
            let result = host.add(&network.conf, &witness).ok();
            if network.conf["type"] == "bridge" && result["ips"][1].is_object() {
                // The kernel makes the route to an IPv6 address of its own a little later than the address.
                witness.must_reach("fd01::1");
            }
            (witness, result)
        });
        let before = host.snapshot();
        Self { network, walked, host, pod, other, witness, before }
    }

    pub fn call(&self) -> Call<'a> {
        Call::new(self.host, self.walked.command(), &self.network.conf).of(&self.pod)
    }

    /// All that the call needs.
    pub fn prepare(&self) {
        if self.walked == Walked::Del {
            self.host.add(&self.network.conf, &self.pod).ok();
        }
    }

    #[track_caller]
    pub fn del(&self, pod: &Pod<'_>) {
        self.host.del(&self.network.conf, pod).ok();
    }

    /// Asserts that the host is as it was, but for what all attachments share.
    #[track_caller]
    pub fn assert_clean(&self) {
        let now = self.host.snapshot();
        if self.walked == Walked::FirstAdd {
            now.assert_nothing_but_shared(&self.before, "br0");
        } else {
            now.assert_same_but_for_rules(&self.before);
        }
    }

    /// What has come since nothing was attached.
    pub fn left(&self) -> Vec<String> {
        self.host.snapshot().since(&self.before)
    }

    #[track_caller]
    pub fn assert_pod_is_empty(&self) {
        assert_eq!(self.pod.ip("link show").as_array().unwrap().len(), 1, "left in the pod");
    }

    /// Has the next ADD be the first again.
    pub fn reset(&self) {
        if self.walked == Walked::FirstAdd {
            let all = "ip link del br0 2>/dev/null || true; nft flush ruleset; rm -rf /var/lib/cni";
            self.host.sh(all);
        }
    }

    /// Asserts that the witness has lived through it all, and that the whole pool can be given.
    pub fn finish(self) {
        let Self { host, network, .. } = self;
        if let Some((witness, result)) = &self.witness {
            host.check(&network.conf, result, witness).ok();
        }
        let add = |number: usize| {
            let call = Call::new(host, "ADD", &network.conf).plugin("host-local");
            call.attachment(&format!("of-pool{number}"), "eth0").run()
        };
        let free = 4 - usize::from(self.witness.is_some());
        for number in 0..free {
            add(number).ok();
        }
        add(free).fails(11, &["no IP addresses available", "4 of 4 held"]);
    }
}

/// What comes after a kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sequel {
    /// DEL; another one; and an ADD again.
    Del,
    /// First an ADD of another container.
    Other,
    /// GC in DEL's place.
    Gc,
    /// The container's namespace is gone.
    DelWithoutNetns,
}

const SEQUELS: [Sequel; 4] = [Sequel::Del, Sequel::Other, Sequel::Gc, Sequel::DelWithoutNetns];

impl Sequel {
    fn play(self, stage: &Stage<'_>) {
        let (host, conf, pod) = (stage.host, &stage.network.conf, &stage.pod);
        match self {
            Self::Del => {
                stage.del(pod);
                stage.assert_clean();
                stage.del(pod);
                let result = host.add(conf, pod).ok();
                host.check(conf, &result, pod).ok();
            }
            Self::Other => {
                let script =
                    "cd /var/lib/cni/networks/net 2>/dev/null && grep -lsx -e a.* * || true";
                let victims = host.sh(script);
                let result = host.add(conf, &stage.other).ok();
                for ip in result["ips"].as_array().unwrap() {
                    let address = ip["address"].as_str().unwrap().split('/').next().unwrap();
                    assert!(!victims.lines().any(|held| held == address), "{address} is doubled");
                }
                host.check(conf, &result, &stage.other).ok();
                stage.del(pod);
                host.check(conf, &result, &stage.other).ok();
                stage.del(&stage.other);
            }
            Self::Gc => {
                let valid: Vec<_> =
                    stage.witness.iter().map(|(pod, _)| (pod.name.as_str(), "eth0")).collect();
                host.gc(conf, &valid).ok();
                stage.assert_clean();
            }
            Self::DelWithoutNetns => {
                Call::new(host, "DEL", conf).of(pod).without("CNI_NETNS").run().ok();
                stage.assert_clean();
            }
        }
        // What is in the container goes with it, unless its other half has taken it away.
        if stage.network.is_paired() && matches!(self, Self::Gc | Self::DelWithoutNetns) {
            stage.assert_pod_is_empty();
        }
        stage.del(pod);
        stage.assert_pod_is_empty();
        stage.assert_clean();
    }
}

fn walk(network: &Network) {
    for walked in [Walked::FirstAdd, Walked::LaterAdd, Walked::Del] {
        let host = Host::new();
        let stage = Stage::new(&host, network, walked);
        let stride = if walks_all() || network.conf["type"] == "bridge" { 1 } else { 3 };
        let (mut calls, mut kills, began) = (0, 0, Instant::now());
        let mut reached = true;
        while reached {
            calls += stride;
            let turn = [SEQUELS[calls / stride % SEQUELS.len()]];
            for sequel in if walks_all() { &SEQUELS[..] } else { &turn[..] } {
                stage.prepare();
                let killed = stage.call().with(Fault::Kill(calls));
                reached = killed.hit.is_some();
                eprintln!("{walked:?}, call {calls}, {:?}, then {sequel:?}", killed.hit);
                if reached {
                    assert_eq!(killed.outcome.status.signal(), Some(libc::SIGKILL));
                    kills += 1;
                } else {
                    killed.outcome.ok();
                }
                sequel.play(&stage);
                stage.reset();
            }
        }
        let took = began.elapsed().as_secs_f64();
        eprintln!("walk: {}, {walked:?}: {kills} kills in {took:.1} s", network.name);
        assert!(calls > 50, "{calls}");
        stage.finish();
    }
}

#[test]
fn killed_before_any_system_call_bridge_leaves_nothing() {
    walk(&Network::bridge());
    if walks_all() {
        walk(&Network::bridge_v4());
    }
}

#[test]
fn killed_before_any_system_call_ptp_leaves_nothing() {
    walk(&Network::ptp());
    if walks_all() {
        walk(&Network::ptp_v4());
    }
}

#[test]
fn killed_before_any_system_call_macvlan_leaves_nothing() {
    walk(&Network::macvlan_v4());
    // Each ADD waits a second for duplicates of its IPv6 address.
    if walks_all() {
        walk(&Network::macvlan());
    }
}
