use serde_json::{Value, json};

/// All versions of the specification that there are plugins for.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A configuration with these keys in addition or instead.
pub fn with(mut conf: Value, keys: &Value) -> Value {
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

/// A configuration of plugin bridge, for bridge `br0` of network `net`, with these keys in addition or
/// instead.
pub fn bridge_conf(keys: &Value) -> Value {
    let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0"});
    with(conf, keys)
}

/// `ipam` for one IPv4 address: `10.1.0.2`, `10.1.0.3`, …
pub fn ipv4() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]})
}

/// `ipam` for an address of each family: `10.1.0.2` and `fd01::2`, …
pub fn dual() -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd01::/64"}]],
    })
}
