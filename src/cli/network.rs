//! A network as people configure it: one plugin's configuration, or a list of them (spec section 1).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::call::variable;
use crate::cni::json::Node;
use crate::cni::{NetConf, Version};
use crate::net::Cidr;

/// Where networks are configured, unless `NETCONFPATH` says otherwise.
pub const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// Extensions of files that hold lists, and of those that hold a single plugin's configuration.
const LISTS: [&str; 1] = ["conflist"];
const SINGLE: [&str; 2] = ["conf", "json"];

/// The directory of networks.
#[must_use]
pub fn configurations() -> PathBuf {
    variable("NETCONFPATH").unwrap_or_else(|| CONFIGURATIONS.to_owned()).into()
}

/// A network.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// `name`
    pub name: String,
    /// `cniVersion`, or the newest of `cniVersions` that we know; `None` if absent, which stands for
    /// 0.1.0.
    version: Option<String>,
    /// `disableCheck`: CHECK is not to be called.
    pub disable_check: bool,
    /// `disableGC`: GC is not to be called.
    pub disable_gc: bool,
    /// The plugins' configurations, in the order of ADD.
    pub plugins: Vec<Plugin>,
    /// The list as it was read; `None` if it was put together from several files, or a single plugin's.
    text: Option<String>,
}

/// One plugin of a network.
#[derive(Clone, PartialEq, Debug)]
pub struct Plugin {
    /// `type`
    pub name: String,
    conf: Map<String, Value>,
}

impl Network {
    /// The network that people mean by `name`: the file if it is a path, else the network of that name
    /// in `directory`.
    ///
    /// # Errors
    /// There is none, or it is faulty; for people.
    pub fn find(name: &str, directory: &Path) -> Result<Self, String> {
        if name.contains('/') {
            return Self::read(Path::new(name));
        }
        Self::find_in(directory, name)
    }

    /// Looks through the lists in `directory` and then through the single plugins' configurations, each
    /// in the order of their files' names, as libcni does. A file that can't be read is of interest only
    /// if none of the others is it.
    fn find_in(directory: &Path, name: &str) -> Result<Self, String> {
        let mut faults = Vec::new();
        let mut others = Vec::new();
        for extensions in [LISTS.as_slice(), &SINGLE] {
            for file in files(directory, extensions)? {
                match Self::read(&file) {
                    Ok(network) if network.name == name => return Ok(network),
                    Ok(network) => others.push(network.name),
                    Err(what) => faults.push(what),
                }
            }
        }
        let mut what = format!("there is no network {name:?} in {}", directory.display());
        if !others.is_empty() {
            what = format!("{what}, which has {}", others.join(", "));
        }
        for fault in faults {
            what = format!("{what}; {fault}");
        }
        Err(what)
    }

    /// All networks of `directory`, each as [`find`](Self::find) would have it, and what is wrong with files.
    ///
    /// # Errors
    /// The directory can't be read, for people.
    pub fn all_in(directory: &Path) -> Result<(Vec<Self>, Vec<String>), String> {
        let (mut networks, mut faults) = (Vec::<Self>::new(), Vec::new());
        for extensions in [LISTS.as_slice(), &SINGLE] {
            for file in files(directory, extensions)? {
                match Self::read(&file) {
                    Ok(network) if networks.iter().any(|other| other.name == network.name) => {}
                    Ok(network) => networks.push(network),
                    Err(what) => faults.push(what),
                }
            }
        }
        Ok((networks, faults))
    }

    /// Reads the configuration in the file at `path`, and what belongs to it in the directory beside it
    /// that has the network's name.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|why| {
            format!("cannot read network configuration {}: {why}", path.display())
        })?;
        let at = |what: String| format!("{}: {what}", path.display());
        let (mut network, list) = Self::parse_header(&text).map_err(at)?;
        if let List::Open = list {
            let directory = path.parent().unwrap_or(Path::new("")).join(&network.name);
            network.append_from(&directory)?;
        }
        network.require_plugins().map_err(at)
    }

    /// Reads a configuration that stands alone.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_header(text)?.0.require_plugins()
    }

    fn parse_header(text: &str) -> Result<(Self, List), String> {
        let document: Value =
            serde_json::from_str(text).map_err(|why| format!("not a JSON document: {why}"))?;
        let Value::Object(mut object) = document else {
            return Err(format!("configuration: expected an object, got {document}"));
        };
        choose_version(&mut object)?;
        // What a plugin would refuse is refused here, in the same words.
        let checked = Value::Object(object.clone()).to_string();
        let conf = NetConf::parse(checked.as_bytes()).map_err(|error| error.to_string())?;
        let version = object.get("cniVersion").and_then(Value::as_str).map(str::to_owned);
        let mut network = Self {
            name: conf.name,
            version,
            disable_check: switch(&object, "disableCheck")?,
            disable_gc: switch(&object, "disableGC")?,
            plugins: Vec::new(),
            text: None,
        };
        let only_inlined = switch(&object, "loadOnlyInlinedPlugins")?;
        match object.get("plugins") {
            None if object.contains_key("type") => {
                network.plugins.push(Plugin::new(&object, "type")?);
                return Ok((network, List::Closed));
            }
            None if only_inlined => {
                return Err("plugins: expected a list, as loadOnlyInlinedPlugins is set".into());
            }
            None => {}
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
        network.text = Some(text.to_owned());
        Ok((network, if only_inlined { List::Closed } else { List::Open }))
    }

    /// Appends the plugins whose configurations are files of their own (since spec 1.1.0).
    fn append_from(&mut self, directory: &Path) -> Result<(), String> {
        for file in files(directory, &["conf"])? {
            let at = |what: String| format!("{}: {what}", file.display());
            let text = fs::read_to_string(&file).map_err(|why| at(why.to_string()))?;
            let conf: Map<String, Value> =
                serde_json::from_str(&text).map_err(|why| at(format!("not a plugin's: {why}")))?;
            self.plugins.push(Plugin::new(&conf, "type").map_err(at)?);
            self.text = None;
        }
        Ok(())
    }

    fn require_plugins(self) -> Result<Self, String> {
        if self.plugins.is_empty() {
            return Err("type: expected the name of a plugin, or plugins: a list of them".into());
        }
        Ok(self)
    }

    /// The version that its plugins are spoken to in.
    #[must_use]
    pub fn version(&self) -> Version {
        // An unknown one has been refused.
        let version = self.version.as_deref().and_then(Version::parse);
        version.unwrap_or(Version::V0_1_0)
    }

    /// The network as one list that stands alone.
    #[must_use]
    pub fn to_list(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        let plugins: Vec<_> = self.plugins.iter().map(|plugin| &plugin.conf).collect();
        let mut list = json!({"name": self.name, "plugins": plugins});
        let keys = [
            ("cniVersion", self.version.clone().map(Value::from)),
            ("disableCheck", self.disable_check.then_some(true.into())),
            ("disableGC", self.disable_gc.then_some(true.into())),
            ("loadOnlyInlinedPlugins", (plugins.len() > 1).then_some(true.into())),
        ];
        for (key, value) in keys {
            if let (Some(value), Value::Object(list)) = (value, &mut list) {
                list.insert(key.into(), value);
            }
        }
        list.to_string()
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

    /// The addresses that each of its containers would get, as the plugin for address management does not
    /// tell containers apart.
    #[must_use]
    pub fn static_addresses(&self) -> Vec<Cidr> {
        let addresses = |plugin: &Plugin| {
            let ipam = plugin.conf.get("ipam").filter(|ipam| ipam["type"] == "static")?;
            let addresses = ipam["addresses"].as_array()?.iter();
            Some(addresses.filter_map(|item| item["address"].as_str()?.parse().ok()).collect())
        };
        self.plugins.iter().find_map(addresses).unwrap_or_default()
    }

    /// Whether its addresses come from a DHCP server.
    #[must_use]
    pub fn asks_dhcp(&self) -> bool {
        let asks = |plugin: &Plugin| plugin.conf.get("ipam").is_some_and(|i| i["type"] == "dhcp");
        self.plugins.iter().any(asks)
    }

    /// The links of the host that its interfaces are on, as far as they are named.
    #[must_use]
    pub fn masters(&self) -> BTreeSet<String> {
        let on_host = |plugin: &&Plugin| plugin.conf.get("linkInContainer") != Some(&true.into());
        let plugins = self.plugins.iter().filter(on_host);
        plugins.filter_map(|plugin| plugin.master().map(str::to_owned)).collect()
    }

    /// The devices of the host that its containers are given, as far as they are named.
    #[must_use]
    pub fn devices(&self) -> BTreeSet<String> {
        self.plugins.iter().filter_map(|plugin| plugin.device().map(str::to_owned)).collect()
    }

    /// Whether its interfaces are VLANs, of which a link has one of each number.
    #[must_use]
    pub fn has_vlans(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.name == "vlan")
    }

    /// Whether its interfaces have nothing behind them.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.plugins.iter().any(|plugin| matches!(&*plugin.name, "dummy" | "tap"))
    }

    /// What `plugin` gets on standard input, with what the call adds to its configuration.
    #[must_use]
    pub fn request(&self, plugin: &Plugin, extra: &Extra<'_>) -> Vec<u8> {
        let mut conf = plugin.conf.clone();
        // What only a runtime may say, and what it is told in turn (spec section 3, "Deriving request
        // configuration from plugin configuration").
        conf.retain(|key, _| !key.starts_with("cni.dev/"));
        let capabilities = conf.remove("capabilities");
        conf.insert("name".into(), self.name.clone().into());
        if let Some(version) = &self.version {
            conf.insert("cniVersion".into(), version.clone().into());
        }
        if let Some(prev) = extra.prev {
            conf.insert("prevResult".into(), prev.clone());
        }
        let has =
            |name: &str| capabilities.as_ref().and_then(|c| c.get(name)) == Some(&true.into());
        let arguments = extra.capability_args.into_iter().flatten();
        let runtime_config: Map<_, _> = arguments
            .filter(|(name, _)| has(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !runtime_config.is_empty() {
            conf.insert("runtimeConfig".into(), runtime_config.into());
        }
        if let Some(ips) = extra.ips {
            conf.insert("args".into(), json!({"cni": {"ips": ips}}));
        }
        if let Some(master) = extra.master.filter(|_| plugin.master().is_some()) {
            conf.insert("master".into(), master.into());
        }
        if let Some(device) = extra.device.filter(|_| plugin.device().is_some()) {
            conf.insert("device".into(), device.into());
        }
        if let Some(valid) = extra.valid_attachments {
            // The second name was an early draft's, and is what some plugins look for.
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                conf.insert(key.into(), valid.clone());
            }
        }
        Value::Object(conf).to_string().into_bytes()
    }
}

/// What a call adds to a plugin's configuration.
#[derive(Clone, Copy, Default, Debug)]
pub struct Extra<'a> {
    /// The result of the plugin before it, or of ADD.
    pub prev: Option<&'a Value>,
    /// What is known for each capability; a plugin gets what it declares.
    pub capability_args: Option<&'a Map<String, Value>>,
    /// `args.cni.ips`: the addresses that the container is to have, in place of those configured.
    pub ips: Option<&'a [String]>,
    /// `master`, where there is one, in place of the one that is configured.
    pub master: Option<&'a str>,
    /// `device`, where there is one, in place of the one that is configured.
    pub device: Option<&'a str>,
    /// What GC must keep.
    pub valid_attachments: Option<&'a Value>,
}

/// Whether plugins from a directory may be appended to a list.
enum List {
    Open,
    Closed,
}

impl Plugin {
    fn new(conf: &Map<String, Value>, place: &str) -> Result<Self, String> {
        match conf.get("type").and_then(Value::as_str) {
            Some(name) if !name.is_empty() && !name.contains('/') => {
                Ok(Self { name: name.into(), conf: conf.clone() })
            }
            _ => Err(format!("{place}: expected the name of a plugin")),
        }
    }

    fn master(&self) -> Option<&str> {
        self.named("master")
    }

    /// `device` of host-device.
    fn device(&self) -> Option<&str> {
        self.named("device").filter(|_| self.name == "host-device")
    }

    fn named(&self, key: &str) -> Option<&str> {
        self.conf.get(key).and_then(Value::as_str).filter(|name| !name.is_empty())
    }
}

/// Puts the newest version that we know out of `cniVersions` and `cniVersion` in the place of both.
fn choose_version(object: &mut Map<String, Value>) -> Result<(), String> {
    let Some(versions) = object.remove("cniVersions") else { return Ok(()) };
    let expected = || format!("cniVersions: expected a list of versions, got {versions}");
    let list = versions.as_array().ok_or_else(expected)?;
    let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
    let mut texts = texts.ok_or_else(expected)?;
    texts.extend(object.get("cniVersion").and_then(Value::as_str));
    let known = texts.iter().filter(|text| !text.is_empty()).filter_map(|t| Version::parse(t));
    let Some(newest) = known.max() else {
        return match texts.as_slice() {
            [] => Ok(()),
            _ => Err(format!("cniVersions: none of {} is known", texts.join(", "))),
        };
    };
    object.insert("cniVersion".into(), newest.text().into());
    Ok(())
}

/// A truth value, which may also be written as a string.
fn switch(object: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match object.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(format!("{key}: expected true or false, got {other}")),
    }
}

/// The files in `directory` with one of these extensions, by name; none if there is no directory.
///
/// # Errors
/// It can't be listed, for people.
pub fn files(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, String> {
    let error = |why: io::Error| format!("cannot list {}: {why}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(error(why)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|e| extensions.contains(&e)) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_hands_its_name_and_version_to_each_plugin() {
        let text =
            r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"b","x":1}]}"#;
        let network = Network::parse(text).unwrap();
        let request = |at: usize, prev| -> Value {
            let extra = Extra { prev, ..Extra::default() };
            serde_json::from_slice(&network.request(&network.plugins[at], &extra)).unwrap()
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
        let request = network.request(&network.plugins[0], &Extra::default());
        let sent: Value = serde_json::from_slice(&request).unwrap();
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
    fn a_plugin_gets_the_capability_arguments_that_it_declares_and_no_capabilities() {
        let text = r#"{"name":"n","plugins":[
            {"type":"a","capabilities":{"mac":true,"ips":false,"bandwidth":true},"cni.dev/x":1}]}"#;
        let network = Network::parse(text).unwrap();
        let args = json!({"mac": "02:00:00:00:00:01", "ips": ["10.0.0.1/8"], "aliases": {}});
        let valid = json!([]);
        let extra = Extra {
            capability_args: args.as_object(),
            valid_attachments: Some(&valid),
            ..Extra::default()
        };
        let sent: Value =
            serde_json::from_slice(&network.request(&network.plugins[0], &extra)).unwrap();
        let expected = json!({
            "type": "a", "name": "n", "runtimeConfig": {"mac": "02:00:00:00:00:01"},
            "cni.dev/valid-attachments": [], "cni.dev/attachments": [],
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_newest_known_of_several_versions_counts() {
        for (keys, expected) in [
            (r#""cniVersions":["0.4.0","1.0.0","9.0.0"]"#, Some("1.0.0")),
            (r#""cniVersions":["0.4.0"],"cniVersion":"1.1.0""#, Some("1.1.0")),
            (r#""cniVersions":["1.0.0"],"cniVersion":"9.0.0""#, Some("1.0.0")),
            (r#""cniVersions":[]"#, None),
        ] {
            let text = format!(r#"{{"name":"n",{keys},"plugins":[{{"type":"a"}}]}}"#);
            let network = Network::parse(&text).unwrap();
            assert_eq!(network.version.as_deref(), expected, "{keys}");
            let again = Network::parse(&network.to_list()).unwrap();
            assert_eq!(again, network, "the list stands for the network");
        }
    }

    #[test]
    fn switches_may_be_strings() {
        let read = |value: &str| {
            let keys = format!(r#""disableCheck":{value},"disableGC":{value}"#);
            Network::parse(&format!(r#"{{"name":"n",{keys},"plugins":[{{"type":"a"}}]}}"#))
        };
        for (value, expected) in
            [("true", true), ("false", false), (r#""True""#, true), (r#""false""#, false)]
        {
            let network = read(value).unwrap();
            assert_eq!((network.disable_check, network.disable_gc), (expected, expected));
        }
        assert!(read("1").unwrap_err().contains("disableCheck: expected true or false, got 1"));
    }

    #[test]
    fn a_single_plugins_network_can_be_told_as_a_list() {
        let network = Network::parse(r#"{"name":"n","cniVersion":"1.0.0","type":"a","x":1}"#);
        let list: Value = serde_json::from_str(&network.unwrap().to_list()).unwrap();
        let plugin = json!({"name": "n", "cniVersion": "1.0.0", "type": "a", "x": 1});
        assert_eq!(list, json!({"name": "n", "cniVersion": "1.0.0", "plugins": [plugin]}));
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
            (r#"{"name":"n","plugins":[{"type":"a/b"}]}"#, "plugins[0].type: expected"),
            (r#"{"name":"n","loadOnlyInlinedPlugins":true}"#, "plugins: expected a list"),
            (r#"{"name":"n","cniVersions":["9.0.0"],"type":"a"}"#, "none of 9.0.0 is known"),
            (r#"{"name":"n","cniVersions":"1.0.0","type":"a"}"#, "cniVersions: expected a list"),
            (r#"{"name":"n","plugins":[5]}"#, "plugins[0]: expected an object, got 5"),
        ] {
            let what = Network::parse(text).unwrap_err();
            assert!(what.contains(named), "{text}: {what}");
        }
    }
}
