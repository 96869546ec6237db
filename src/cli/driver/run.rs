//! The plugins of a network called in turn, and the account of it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::options::Common;
use super::target::Target;
use crate::cli::cache::Arguments;
use crate::cli::call::{Call, Failure, SearchPath};
use crate::cli::network::{Extra, Network, Plugin};
use crate::cli::{say, say_json, summary};
use crate::cni::env::Command;
use crate::cni::{Attachment, Version};

/// The plugins of a network, called about one attachment.
pub struct Run<'a> {
    network: &'a Network,
    target: &'a Target,
    pairs: String,
    capabilities: &'a Map<String, Value>,
    path: SearchPath,
    report: &'a mut Report,
}

/// An ADD that has ended half way.
pub struct Stopped {
    /// Why, for people.
    pub what: String,
    /// What the last plugin that succeeded has returned.
    pub prev: Option<Value>,
}

impl<'a> Run<'a> {
    pub fn new(
        network: &'a Network,
        target: &'a Target,
        arguments: &'a Arguments,
        report: &'a mut Report,
    ) -> Self {
        let Arguments { pairs, capabilities } = arguments;
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (pairs, path) = (pairs.join(";"), SearchPath::of_environment());
        Self { network, target, pairs, capabilities, path, report }
    }

    /// Calls ADD in turn, and returns what the last plugin returns.
    pub fn add(&mut self) -> Result<Value, Stopped> {
        let version = self.network.version();
        let mut prev: Option<Value> = None;
        for plugin in &self.network.plugins {
            let outcome = self.call(Command::Add, plugin, prev.as_ref()).and_then(|printed| {
                let what = |why: String| format!("{} has not printed a result: {why}", plugin.name);
                let result: Value =
                    serde_json::from_str(&printed).map_err(|why| what(why.to_string()))?;
                summary::read_result(&result, version).map_err(|error| what(error.to_string()))?;
                Ok(result)
            });
            match outcome {
                Ok(result) => prev = Some(with_version(result, version)),
                Err(what) => return Err(Stopped { what, prev }),
            }
        }
        Ok(prev.unwrap_or_default())
    }

    /// Calls CHECK in turn, as far as the first plugin that fails.
    pub fn check(&mut self, prev: &Value) -> Result<(), String> {
        let network = self.network;
        network
            .plugins
            .iter()
            .try_for_each(|plugin| self.call(Command::Check, plugin, Some(prev)).map(drop))
    }

    /// Calls DEL in reverse order. Goes on past a plugin that fails: what the others hold can be freed all the same.
    pub fn del(&mut self, prev: Option<&Value>) -> Result<(), String> {
        let network = self.network;
        let prev = prev.filter(|_| network.version() >= Version::V0_4_0);
        let calls = network.plugins.iter().rev();
        let failures: Vec<_> =
            calls.filter_map(|plugin| self.call(Command::Del, plugin, prev).err()).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    fn call(
        &mut self,
        command: Command,
        plugin: &Plugin,
        prev: Option<&Value>,
    ) -> Result<String, String> {
        let Target { attachment, netns } = self.target;
        let call = Call {
            command,
            container: &attachment.container,
            netns,
            ifname: &attachment.ifname,
            args: &self.pairs,
            path: &self.path,
        };
        let capability_args = Some(self.capabilities);
        let extra = Extra { prev, capability_args, ..Extra::default() };
        self.report.call(&call, self.network, plugin, &extra)
    }
}

/// A result that names its version, as those of 0.1.0 need not.
fn with_version(mut result: Value, version: Version) -> Value {
    if let Value::Object(members) = &mut result {
        members.entry("cniVersion").or_insert_with(|| version.text().into());
    }
    result
}

/// A plugin that has been called, and how it went.
struct Called {
    plugin: String,
    command: Command,
    took: Option<Duration>,
    failure: Option<Failure>,
}

/// What has been done, for people or for programs.
#[derive(Default)]
pub struct Report {
    network: String,
    calls: Vec<Called>,
    /// More for the document.
    pub members: Map<String, Value>,
}

impl Report {
    pub fn about(network: &str) -> Self {
        Self { network: network.to_owned(), ..Self::default() }
    }

    /// The account of an attachment.
    pub fn of(target: &Target) -> Self {
        let Attachment { network, container, ifname } = &target.attachment;
        let mut report = Self::about(network);
        for (key, value) in [("container", container), ("ifname", ifname), ("netns", &target.netns)]
        {
            report.members.insert(key.to_owned(), value.clone().into());
        }
        report
    }

    pub fn call(
        &mut self,
        call: &Call<'_>,
        network: &Network,
        plugin: &Plugin,
        extra: &Extra<'_>,
    ) -> Result<String, String> {
        let answer = call.run(&plugin.name, &network.request(plugin, extra));
        let failure = answer.outcome.as_ref().err().cloned();
        let (plugin, command, took) = (plugin.name.clone(), call.command, answer.took);
        self.calls.push(Called { plugin, command, took, failure });
        answer.outcome.map_err(|failure| failure.to_string())
    }

    /// Tells the outcome, and returns the exit status.
    pub fn finish(self, options: &Common, outcome: Result<String, String>) -> Result<i32, String> {
        let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
        if options.json {
            let call = |call: &Called| {
                json!({
                    "plugin": call.plugin, "command": call.command.text(),
                    "ms": call.took.map(milliseconds),
                    "error": call.failure.as_ref().map(Failure::to_json),
                })
            };
            let mut document = self.members;
            document.insert("network".into(), self.network.into());
            document.insert("ok".into(), outcome.is_ok().into());
            document.insert("plugins".into(), self.calls.iter().map(call).collect());
            let (Ok(text) | Err(text)) = &outcome;
            let key = if outcome.is_ok() { "text" } else { "error" };
            document.insert(key.into(), text.clone().into());
            say_json(&document.into());
            return Ok(i32::from(outcome.is_err()));
        }
        if let Ok(text) = &outcome {
            say(text);
        }
        if options.time {
            let width = self.calls.iter().map(|call| call.plugin.len()).max().unwrap_or(0);
            for Called { plugin, command, took, failure } in &self.calls {
                let took = took.map(|took| format!("{:.2} ms", milliseconds(took)));
                let failed = if failure.is_some() { "  FAILED" } else { "" };
                say(format_args!(
                    "{:6} {plugin:width$} {:>11}{failed}",
                    command.text(),
                    took.unwrap_or_default(),
                ));
            }
        }
        outcome.map(|_| 0)
    }
}
