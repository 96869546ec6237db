//! A network as people configure it: one plugin's configuration, or a list of them (spec section 1).

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cni::NetConf;
use crate::cni::json::Node;

/// A network.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// `name`
    pub name: String,
    /// `cniVersion`; `None` if absent, which stands for 0.1.0.
    pub version: Option<String>,
    /// The plugins' configurations, in the order of ADD.
    pub plugins: Vec<Plugin>,
}

/// One plugin of a network.
#[derive(Clone, PartialEq, Debug)]
pub struct Plugin {
    /// `type`
    pub name: String,
    conf: Map<String, Value>,
}

impl Network {
    /// Reads the configuration in the file at `path`.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|why| {
            format!("cannot read network configuration {}: {why}", path.display())
        })?;
        Self::parse(&text).map_err(|what| format!("{}: {what}", path.display()))
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|why| format!("not a JSON document: {why}"))?;
        // What a plugin would refuse is refused here, in the same words.
        let conf = NetConf::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        let Value::Object(object) = document else { return Err("expected an object".into()) };
        let version = object.get("cniVersion").and_then(Value::as_str).map(str::to_owned);
        let mut network = Self { name: conf.name, version, plugins: Vec::new() };
        match object.get("plugins") {
            None => network.plugins.push(Plugin::new(&object, "type")?),
            Some(Value::Array(list)) if !list.is_empty() => {
                for (index, item) in list.iter().enumerate() {
                    let at = format!("plugins[{index}]");
                    let Value::Object(item) = item else {
                        return Err(format!("{at}: expected an object, got {item}"));
                    };
                    network.plugins.push(Plugin::new(item, &format!("{at}.type"))?);
                }
            }
            Some(other) => return Err(format!("plugins: expected a list of plugins, got {other}")),
        }
        Ok(network)
    }

    /// Leaves out every `ipam.dataDir`, and says whether there was one.
    pub fn take_data_dirs(&mut self) -> bool {
        let mut any = false;
        let is = |name: &str, key: &String| key.eq_ignore_ascii_case(name);
        for plugin in &mut self.plugins {
            for (_, ipam) in plugin.conf.iter_mut().filter(|(key, _)| is("ipam", key)) {
                if let Value::Object(ipam) = ipam {
                    let before = ipam.len();
                    ipam.retain(|key, _| !is("dataDir", key));
                    any |= ipam.len() < before;
                }
            }
        }
        any
    }

    /// Whether a bridge of this network keeps its pods from reaching each other.
    #[must_use]
    pub fn isolates_ports(&self) -> bool {
        let isolates = |plugin: &Plugin| {
            let document = Value::Object(plugin.conf.clone());
            plugin.name == "bridge" && Node::root("", &document).flag("portIsolation") == Ok(true)
        };
        self.plugins.iter().any(isolates)
    }

    /// What `plugin` gets on standard input, with the result of the plugin before it, or of ADD.
    #[must_use]
    pub fn request(&self, plugin: &Plugin, prev: Option<&Value>) -> Vec<u8> {
        let mut conf = plugin.conf.clone();
        conf.insert("name".into(), self.name.clone().into());
        if let Some(version) = &self.version {
            conf.insert("cniVersion".into(), version.clone().into());
        }
        if let Some(prev) = prev {
            conf.insert("prevResult".into(), prev.clone());
        }
        Value::Object(conf).to_string().into_bytes()
    }
}

impl Plugin {
    fn new(conf: &Map<String, Value>, place: &str) -> Result<Self, String> {
        match conf.get("type").and_then(Value::as_str) {
            Some(name) if !name.is_empty() => Ok(Self { name: name.into(), conf: conf.clone() }),
            _ => Err(format!("{place}: expected the name of a plugin")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_hands_its_name_and_version_to_each_plugin() {
        let text =
            r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"b","x":1}]}"#;
        let network = Network::parse(text).unwrap();
        let request = |at: usize, prev| -> Value {
            serde_json::from_slice(&network.request(&network.plugins[at], prev)).unwrap()
        };
        assert_eq!(request(0, None), json!({"type": "a", "name": "n", "cniVersion": "1.0.0"}));
        let prev = json!({"ips": []});
        let expected =
            json!({"type": "b", "x": 1, "name": "n", "cniVersion": "1.0.0", "prevResult": prev});
        assert_eq!(request(1, Some(&prev)), expected);
    }

    #[test]
    fn a_single_plugin_is_sent_as_it_is() {
        let network = Network::parse(r#"{"name":"n","type":"bridge","mtu":1400}"#).unwrap();
        let sent: Value =
            serde_json::from_slice(&network.request(&network.plugins[0], None)).unwrap();
        assert_eq!(sent, json!({"name": "n", "type": "bridge", "mtu": 1400}));
    }

    #[test]
    fn what_a_trial_must_not_touch_is_taken_out_in_any_spelling() {
        let text = r#"{"name":"n","type":"bridge","IPAM":{"type":"host-local","datadir":"/x","dataDir":"/y"}}"#;
        let mut network = Network::parse(text).unwrap();
        assert!(network.take_data_dirs());
        assert_eq!(network.plugins[0].conf["IPAM"], json!({"type": "host-local"}));
        assert!(!network.take_data_dirs());
    }

    #[test]
    fn faults_are_named() {
        for (text, named) in [
            ("{", "not a JSON document"),
            ("[]", "expected an object"),
            (r#"{"type":"bridge"}"#, "missing network name"),
            (r#"{"name":"../x","type":"bridge"}"#, "name: expected a network name"),
            (r#"{"name":"n","cniVersion":"3.0.0","type":"bridge"}"#, "incompatible CNI versions"),
            (r#"{"name":"n"}"#, "type: expected the name of a plugin"),
            (r#"{"name":"n","plugins":[]}"#, "plugins: expected a list of plugins, got []"),
            (r#"{"name":"n","plugins":[{"type":"a"},{}]}"#, "plugins[1].type: expected"),
            (r#"{"name":"n","plugins":[5]}"#, "plugins[0]: expected an object, got 5"),
        ] {
            let what = Network::parse(text).unwrap_err();
            assert!(what.contains(named), "{text}: {what}");
        }
    }
}
