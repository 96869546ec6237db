//! What ADD has returned, kept for CHECK, DEL and GC: in the place and in the format of libcni, so that
//! cnitool and the runtimes that use libcni can delete what was added here, and the other way round.
//!
//! ```text
//! /var/lib/cni/results/NETWORK-CONTAINER-IFNAME
//! {"kind":"cniCacheV1","containerId":…,"config":BASE64 of the list,"ifName":…,"networkName":…,
//!  "netns":…,"cniArgs":[[KEY,VALUE],…],"capabilityArgs":{…},"result":{…}}
//! ```
//!
//! Releases of libcni before 0.8 kept the bare result under the same name, which is still understood.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::cni::Attachment;

/// Where the files are.
pub const DIRECTORY: &str = "/var/lib/cni/results";
/// What marks a file of this format.
const KIND: &str = "cniCacheV1";

/// What is kept of one attachment.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Whose it is.
    pub attachment: Attachment,
    /// `CNI_NETNS`; may be empty.
    pub netns: String,
    /// The network as a list, as it was when the attachment was made.
    pub config: String,
    /// What else the plugins were told.
    pub arguments: Arguments,
    /// What ADD has returned.
    pub result: Value,
}

/// What plugins are told beside their configuration, by whoever has the container attached.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Arguments {
    /// `CNI_ARGS`
    pub pairs: Vec<(String, String)>,
    /// What is known for each capability.
    pub capabilities: Map<String, Value>,
}

impl Entry {
    /// Reads what is kept of `attachment`; `None` if there is nothing.
    ///
    /// # Errors
    /// The file can't be read, for people.
    pub fn load(attachment: &Attachment) -> Result<Option<Self>, String> {
        let path = path_of(attachment);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(format!("cannot read {}: {why}", path.display())),
        };
        let document: Value = serde_json::from_slice(&text)
            .map_err(|why| format!("{}: not a JSON document: {why}", path.display()))?;
        if let Some(entry) = Self::decode(&document) {
            return Ok(Some(entry));
        }
        Ok(Some(Self {
            attachment: attachment.clone(),
            netns: sandbox_of(&document, &attachment.ifname),
            config: String::new(),
            arguments: Arguments::default(),
            result: document,
        }))
    }

    /// All attachments of `network` that something is kept of. What is no file of this format is none.
    ///
    /// # Errors
    /// The directory can't be read, for people.
    pub fn all_of(network: &str) -> Result<Vec<Self>, String> {
        let error = |why: io::Error| format!("cannot list {DIRECTORY}: {why}");
        let directory = match fs::read_dir(DIRECTORY) {
            Ok(directory) => directory,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(error(why)),
        };
        let mut entries = Vec::new();
        for file in directory {
            let path = file.map_err(error)?.path();
            let document = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let entry = document.as_ref().and_then(Self::decode);
            // A file under another name could not be removed by its own.
            entries.extend(entry.filter(|entry| {
                entry.attachment.network == network && path_of(&entry.attachment) == path
            }));
        }
        entries.sort_by_key(|entry| path_of(&entry.attachment));
        Ok(entries)
    }

    /// Keeps it, in place of what was kept before. At no moment is there half a file.
    ///
    /// # Errors
    /// It can't be written, for people.
    pub fn store(&self) -> Result<(), String> {
        let path = path_of(&self.attachment);
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(DIRECTORY)?;
            // No name of a network begins with a dot.
            let new = Path::new(DIRECTORY).join(format!(".plumb-{}", std::process::id()));
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(self.encode().to_string().as_bytes())?;
            fs::rename(&new, &path).inspect_err(|_| {
                let _ = fs::remove_file(&new);
            })
        };
        write().map_err(|why| format!("cannot write {}: {why}", path.display()))
    }

    /// Keeps no more of `attachment`. That nothing was kept is no error.
    ///
    /// # Errors
    /// The file can't be removed, for people.
    pub fn remove(attachment: &Attachment) -> Result<(), String> {
        let path = path_of(attachment);
        match fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {why}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn decode(document: &Value) -> Option<Self> {
        let text = |key: &str| document.get(key)?.as_str().map(str::to_owned);
        if text("kind")? != KIND {
            return None;
        }
        let name = |key: &str| text(key).filter(|text| !text.is_empty());
        let attachment = Attachment {
            network: name("networkName")?,
            container: name("containerId")?,
            ifname: name("ifName")?,
        };
        let pair = |pair: &Value| match pair.as_array()?.as_slice() {
            [key, value] => Some((key.as_str()?.to_owned(), value.as_str()?.to_owned())),
            _ => None,
        };
        let pairs = document.get("cniArgs").and_then(Value::as_array);
        let capabilities = document.get("capabilityArgs").and_then(Value::as_object);
        let result = document.get("result").cloned().unwrap_or_default();
        let netns = text("netns").unwrap_or_else(|| sandbox_of(&result, &attachment.ifname));
        let config = BASE64.decode(text("config").unwrap_or_default()).ok()?;
        Some(Self {
            attachment,
            netns,
            config: String::from_utf8(config).ok()?,
            arguments: Arguments {
                pairs: pairs.into_iter().flatten().filter_map(pair).collect(),
                capabilities: capabilities.cloned().unwrap_or_default(),
            },
            result,
        })
    }

    fn encode(&self) -> Value {
        let Attachment { network, container, ifname } = &self.attachment;
        let Arguments { pairs, capabilities } = &self.arguments;
        let mut document = json!({
            "kind": KIND,
            "containerId": container,
            "config": BASE64.encode(&self.config),
            "ifName": ifname,
            "networkName": network,
        });
        let optional = [
            ("netns", !self.netns.is_empty(), json!(self.netns)),
            ("cniArgs", !pairs.is_empty(), json!(pairs)),
            ("capabilityArgs", !capabilities.is_empty(), json!(capabilities)),
            ("result", !self.result.is_null(), self.result.clone()),
        ];
        if let Value::Object(members) = &mut document {
            let present = optional.into_iter().filter(|(_, present, _)| *present);
            members.extend(present.map(|(key, _, value)| (key.to_owned(), value)));
        }
        document
    }
}

/// The namespace that a result has the container's interface in; empty if it does not tell. libcni
/// up to 1.1 kept it nowhere else.
fn sandbox_of(result: &Value, ifname: &str) -> String {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let sandbox = |interface: &Value| {
        let is_own = interface.get("name").is_some_and(|name| name == ifname);
        interface.get("sandbox").filter(|_| is_own)?.as_str().map(str::to_owned)
    };
    interfaces.into_iter().flatten().find_map(sandbox).unwrap_or_default()
}

/// The file of an attachment. Its names must have been validated: they may lead nowhere else.
fn path_of(attachment: &Attachment) -> PathBuf {
    let Attachment { network, container, ifname } = attachment;
    Path::new(DIRECTORY).join(format!("{network}-{container}-{ifname}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            attachment: Attachment {
                network: "net".into(),
                container: "c1".into(),
                ifname: "eth0".into(),
            },
            netns: "/run/netns/c1".into(),
            config: r#"{"name":"net"}"#.into(),
            arguments: Arguments {
                pairs: vec![("IgnoreUnknown".into(), "1".into()), ("A".into(), "b".into())],
                capabilities: Map::from_iter([("mac".into(), "02:00:00:00:00:01".into())]),
            },
            result: json!({"cniVersion": "1.0.0"}),
        }
    }

    #[test]
    fn entries_are_written_as_libcni_writes_them_and_read_back() {
        let document = json!({
            "kind": "cniCacheV1",
            "containerId": "c1",
            "config": "eyJuYW1lIjoibmV0In0=",
            "ifName": "eth0",
            "networkName": "net",
            "netns": "/run/netns/c1",
            "cniArgs": [["IgnoreUnknown", "1"], ["A", "b"]],
            "capabilityArgs": {"mac": "02:00:00:00:00:01"},
            "result": {"cniVersion": "1.0.0"},
        });
        assert_eq!(entry().encode(), document);
        assert_eq!(Entry::decode(&document), Some(entry()));
    }

    #[test]
    fn what_is_absent_is_not_written() {
        let bare = Entry { netns: String::new(), arguments: Arguments::default(), ..entry() };
        let document = bare.encode();
        for key in ["netns", "cniArgs", "capabilityArgs"] {
            assert_eq!(document.get(key), None, "{document}");
        }
        assert_eq!(Entry::decode(&document), Some(bare));
    }

    #[test]
    fn the_namespace_follows_from_the_result_where_it_is_not_kept() {
        let mut entry = entry();
        entry.result = json!({"interfaces": [
            {"name": "br0"}, {"name": "eth0"}, {"name": "eth0", "sandbox": "/run/netns/x"},
        ]});
        let netns = |entry: &Entry, keep: bool| {
            let mut document = entry.encode();
            if !keep {
                document.as_object_mut().unwrap().remove("netns");
            }
            Entry::decode(&document).unwrap().netns
        };
        assert_eq!(netns(&entry, true), "/run/netns/c1");
        assert_eq!(netns(&entry, false), "/run/netns/x");
        entry.result = json!({"ips": []});
        assert_eq!(netns(&entry, false), "");
    }

    #[test]
    fn other_documents_are_no_entries() {
        for document in [
            json!({"cniVersion": "1.0.0", "ips": []}),
            json!({"kind": "other", "networkName": "n", "containerId": "c", "ifName": "e"}),
            json!({"kind": KIND, "networkName": "", "containerId": "c", "ifName": "e"}),
            json!({"kind": KIND, "networkName": "n", "containerId": "c", "ifName": "e", "config": "?"}),
            json!([]),
        ] {
            assert_eq!(Entry::decode(&document), None, "{document}");
        }
    }
}
