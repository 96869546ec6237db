use serde_json::{Value, json};
use crate::harness::*;
#[test]
fn probe() {
    let host = Host::new();
    let conf = bridge_conf(&json!({"isDefaultGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": dual()}));
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&conf, &a).ok();
    for c in ["ADD", "DEL"] {
    let t = Call::new(&host, c, &conf).of(&b).with(Fault::Nothing);
    t.outcome.ok();
    eprintln!("{:?} {} {}", t.outcome.took, t.calls.len(), t.requests.len());
    for r in &t.requests { eprint!("{} ", r.object); }
    }
    let began = std::time::Instant::now();
    for _ in 0..10 { host.snapshot(); }
    eprintln!("snapshot {:?}", began.elapsed() / 10);
    for k in [1, 5, 9, 14] {
        let t = Call::new(&host, "ADD", &conf).of(&b).with(Fault::Refuse(k, nix::errno::Errno::EBUSY));
        eprintln!("{k} {:?} {}", t.hit, t.outcome.stdout);
        host.del(&conf, &b).ok();
    }
    for k in [20, 40, 60, 64] {
        let t = Call::new(&host, "ADD", &conf).of(&b).with(Fault::Fail(k, nix::errno::Errno::EIO));
        eprintln!("{k} {:?} {}", t.hit, t.outcome.stdout);
        host.del(&conf, &b).ok();
    }
    let t = Call::new(&host, "ADD", &conf).of(&b).with(Fault::Kill(80));
    eprintln!("{:?} {:?}", t.hit, t.outcome);
}
