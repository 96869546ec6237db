//! Results: read in any version, printed in any other, read back. What the version can say must come
//! back, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb::cni::json::Node;
use plumb::cni::{CniResult, Error, Version};
use plumb_fuzz::check_error;

fn read(value: &serde_json::Value, default: Version) -> Result<CniResult, Error> {
    CniResult::read(&Node::root("prevResult", value), default)
}

/// What is left of a result that is told in `version`.
fn sayable(mut result: CniResult, version: Version) -> CniResult {
    if version < Version::V1_1_0 {
        for link in &mut result.interfaces {
            link.mtu = 0;
            link.socket_path.clear();
            link.pci_id.clear();
        }
    }
    if version < Version::V0_3_0 {
        result.interfaces.clear();
        let first = |v4| result.ips.iter().find(|ip| ip.address.address.is_ipv4() == v4).cloned();
        let ips: Vec<_> = [first(true), first(false)].into_iter().flatten().collect();
        let routes = |v4| result.routes.iter().filter(move |r| r.dst.address.is_ipv4() == v4);
        // Routes are told with the address of their family.
        let told = ips.iter().flat_map(|ip| routes(ip.address.address.is_ipv4()));
        result.routes = told.cloned().collect();
        result.ips = ips;
        result.ips.iter_mut().for_each(|ip| ip.interface = None);
    }
    result
}

fuzz_target!(|text: &[u8]| {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else { return };
    for from in Version::ALL {
        let result = match read(&value, from) {
            Ok(result) => result,
            Err(error) => {
                check_error(&error);
                continue;
            }
        };
        for to in Version::ALL {
            let text = result.to_json(to);
            let printed: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert_eq!(printed["cniVersion"], to.text());
            let back = read(&printed, Version::NEWEST).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!(back, sayable(result.clone(), to), "{from} to {to}: {text}");
            assert_eq!(back.to_json(to), text);
        }
    }
});
