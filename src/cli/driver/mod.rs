//! `plumb add`, `check`, `del`, `status`, `gc`: a network's plugins called by hand, as cnitool calls them.
//!
//! Each command reads from top to bottom what it is about ([`options`], [`target`]), and then has the
//! plugins called ([`run`]).

mod options;
mod run;
mod target;

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::cache::{self, Arguments, Entry};
use super::call::{Call, SearchPath};
use super::network::{Extra, Network};
use super::{ls, summary};
use crate::cni::conf::is_identifier;
use crate::cni::env::Command;
use crate::cni::queue::Collection;
use crate::cni::{Attachment, Version};

pub use options::{AddOptions, CheckOptions, DelOptions, GcOptions, StatusOptions};
pub use target::has_gone;

use options::arguments;
use run::{Report, Run, Stopped};
use target::Target;

pub fn add(options: &AddOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let target = options.container.target(&network.name)?;
    if target.netns.is_empty() {
        return Err("expected NETNS, the container's network namespace".into());
    }
    let arguments = arguments(Arguments::default())?;
    let existed = Entry::load(&target.attachment)?.is_some() || target.has_interface();

    let mut report = Report::of(&target);
    let mut run = Run::new(&network, &target, &arguments, &mut report);
    let added = run.add().and_then(|result| {
        let entry = Entry {
            attachment: target.attachment.clone(),
            netns: target.netns.clone(),
            config: network.to_list(),
            arguments: arguments.clone(),
            result,
        };
        let stopped = |what| Stopped { what, prev: Some(entry.result.clone()) };
        entry.store().map_err(stopped).map(|()| entry.result)
    });
    let Attachment { container, ifname, network: name } = &target.attachment;
    let outcome = match added {
        Ok(result) => {
            let line = match summary::read_result(&result, network.version()) {
                Ok(result) => summary::of_result(ifname, &result),
                Err(error) => error.to_string(),
            };
            report.members.insert("result".into(), result);
            Ok(format!("attached {container} to {name}: {line}"))
        }
        Err(Stopped { what, .. }) if existed => {
            Err(format!("{what}; not rolled back, since {ifname} of {container} was there before"))
        }
        Err(Stopped { what, prev }) => Err(match run.del(prev.as_ref()) {
            Ok(()) => format!("{what}; rolled back"),
            Err(more) => format!("{what}; rolling it back: {more}"),
        }),
    };
    report.finish(&options.common, outcome)
}

pub fn check(options: &CheckOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = network.version();
    let target = options.container.target(&network.name)?;
    let Attachment { container, ifname, network: name } = &target.attachment;
    if version < Version::V0_4_0 {
        return Err(format!("network {name}: CNI {version} has no CHECK"));
    }
    if network.disable_check {
        let text = format!("not checked: network {name} sets disableCheck");
        return Report::of(&target).finish(&options.common, Ok(text));
    }
    let entry = Entry::load(&target.attachment)?.ok_or_else(|| {
        let directory = cache::DIRECTORY;
        format!("{container} is not attached to {name} by {ifname}: {directory} has nothing of it")
    })?;
    let target = target.clone().or_netns_of(&entry);
    let prev = result_as(&entry.result, version)?;
    let arguments = arguments(entry.arguments)?;
    let mut report = Report::of(&target);
    let checked = Run::new(&network, &target, &arguments, &mut report).check(&prev);
    let text = format!("{container} is attached to {name} by {ifname} as add has left it");
    report.finish(&options.common, checked.map(|()| text))
}

pub fn del(options: &DelOptions) -> Result<i32, String> {
    // Of a network that is not configured any more the name alone is known.
    let (network, name) = match options.common.network() {
        Ok(network) => (Ok(network.clone()), network.name),
        Err(what) if is_identifier(&options.common.network) => {
            (Err(what), options.common.network.clone())
        }
        Err(what) => return Err(what),
    };
    let target = options.container.target(&name)?;
    let entry = Entry::load(&target.attachment)?;
    let network = network.or_else(|what| match &entry {
        Some(entry) if !entry.config.is_empty() => Network::parse(&entry.config),
        _ => Err(what),
    })?;
    let (target, kept, prev) = match entry {
        Some(entry) => (target.or_netns_of(&entry), entry.arguments, Some(entry.result)),
        None => (target, Arguments::default(), None),
    };
    let mut report = Report::of(&target);
    let detached = detach(&network, &target, &arguments(kept)?, prev.as_ref(), &mut report);
    let Attachment { container, ifname, .. } = &target.attachment;
    let text = format!("detached {container} from {name}: {ifname}");
    report.finish(&options.common, detached.map(|()| text))
}

pub fn status(options: &StatusOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = network.version();
    let mut report = Report::about(&network.name);
    let name = &network.name;
    if version < Version::V1_1_0 {
        let text = format!("{name} is not asked: CNI {version} has no STATUS");
        return report.finish(&options.common, Ok(text));
    }
    let path = SearchPath::of_environment();
    let call = Call::about_network(Command::Status, &path);
    let names: Vec<_> = network.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let outcome = network
        .plugins
        .iter()
        .try_for_each(|plugin| report.call(&call, &network, plugin, &Extra::default()).map(drop))
        .map(|()| format!("{name} is ready: {}", names.join(", ")));
    report.finish(&options.common, outcome)
}

pub fn gc(options: &GcOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = network.version();
    let name = &network.name;
    let mut report = Report::about(name);
    if network.disable_gc {
        let text = format!("nothing is removed: network {name} sets disableGC");
        return report.finish(&options.common, Ok(text));
    }
    // What is attached from here on, of which the list that follows knows nothing, the plugins leave alone.
    let _collection = Collection::begin().map_err(|error| error.msg)?;
    let kept = |attachment: &Attachment| {
        options.keep.iter().any(|(c, i)| (c, i) == (&attachment.container, &attachment.ifname))
    };
    let (stale, live): (Vec<_>, Vec<_>) = Entry::all_of(name)?
        .into_iter()
        .partition(|entry| !kept(&entry.attachment) && has_gone(&entry.netns));
    let mut valid = options.keep.clone();
    for entry in live.into_iter().filter(|entry| !kept(&entry.attachment)) {
        valid.push((entry.attachment.container, entry.attachment.ifname));
    }
    let is_known = |found: &Attachment| {
        valid.iter().any(|(c, i)| (c, i) == (&found.container, &found.ifname))
            || stale.iter().any(|entry| entry.attachment == *found)
    };
    let unknown: Vec<_> = ls::attached()?
        .into_iter()
        .map(|attached| attached.attachment)
        .filter(|found| found.network == *name && !is_known(found))
        .map(|found| format!("{}/{}", found.container, found.ifname))
        .collect();
    if !unknown.is_empty() && version >= Version::V1_1_0 && !options.force {
        return Err(format!(
            "network {name} has links on this host for {}, which {} does not name; a runtime may \
             know them: --keep keeps one, --force deletes them",
            unknown.join(", "),
            cache::DIRECTORY,
        ));
    }

    let mut failures = Vec::new();
    let mut deleted = Vec::new();
    for entry in stale {
        let label = format!("{}/{}", entry.attachment.container, entry.attachment.ifname);
        let target = Target { attachment: entry.attachment, netns: entry.netns };
        match detach(&network, &target, &entry.arguments, Some(&entry.result), &mut report) {
            Ok(()) => deleted.push(label),
            Err(what) => failures.push(format!("{label}: {what}")),
        }
    }
    let list: Value = valid
        .iter()
        .map(|(container, ifname)| json!({"containerID": container, "ifname": ifname}))
        .collect();
    if version >= Version::V1_1_0 {
        let path = SearchPath::of_environment();
        let call = Call::about_network(Command::Gc, &path);
        let extra = Extra { valid_attachments: Some(&list), ..Extra::default() };
        for plugin in &network.plugins {
            if let Err(what) = report.call(&call, &network, plugin, &extra) {
                failures.push(what);
            }
        }
    }
    let labels: Vec<_> = valid.iter().map(|(c, i)| format!("{c}/{i}")).collect();
    let outcome = if failures.is_empty() {
        let listed = |labels: &[String]| match labels {
            [] => "none".to_owned(),
            labels => labels.join(", "),
        };
        let mut text = format!(
            "{name}: kept {}; deleted of a namespace gone {}",
            listed(&labels),
            listed(&deleted)
        );
        if version < Version::V1_1_0 {
            let _ = write!(text, "; plugins are not asked, since CNI {version} has no GC");
        }
        Ok(text)
    } else {
        Err(failures.join("; "))
    };
    report.members.insert("kept".into(), labels.into());
    report.members.insert("deleted".into(), deleted.into());
    report.finish(&options.common, outcome)
}

/// Calls DEL with what ADD has returned, and forgets the attachment if all goes well.
fn detach(
    network: &Network,
    target: &Target,
    arguments: &Arguments,
    result: Option<&Value>,
    report: &mut Report,
) -> Result<(), String> {
    // Without it DEL still does what it can.
    let prev = result.and_then(|result| result_as(result, network.version()).ok());
    Run::new(network, target, arguments, report).del(prev.as_ref())?;
    Entry::remove(&target.attachment)
}

/// A kept result in the version that the network has now.
fn result_as(result: &Value, version: Version) -> Result<Value, String> {
    let own = result.get("cniVersion").and_then(Value::as_str);
    if own == Some(version.text()) {
        return Ok(result.clone());
    }
    let converted = summary::read_result(result, version).map(|result| result.to_json(version));
    let text = converted.map_err(|error| format!("what add has returned: {error}"))?;
    serde_json::from_str(&text).map_err(|why| format!("what add has returned: {why}"))
}
