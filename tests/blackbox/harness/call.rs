use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::host::{BIN, Host, Pod};

/// A plugin's call as a runtime makes it.
#[derive(Clone)]
pub struct Call<'a> {
    host: &'a Host,
    plugin: String,
    prefix: Vec<String>,
    stdout: Option<String>,
    hook: Option<fn() -> io::Result<()>>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
}

impl<'a> Call<'a> {
    /// A call of the plugin that `conf` names, about no container yet.
    pub fn new(host: &'a Host, command: &str, conf: &Value) -> Self {
        let plugin = conf["type"].as_str().unwrap_or("bridge").to_owned();
        let call = Self {
            host,
            plugin,
            prefix: Vec::new(),
            stdout: None,
            hook: None,
            env: Vec::new(),
            stdin: conf.to_string().into_bytes(),
        };
        call.env("CNI_COMMAND", command).env("CNI_PATH", BIN)
    }

    /// The container is a pod of the same name, its interface `eth0`.
    #[must_use]
    pub fn of(self, pod: &Pod<'_>) -> Self {
        self.env("CNI_CONTAINERID", &pod.name)
            .env("CNI_NETNS", &pod.path())
            .env("CNI_IFNAME", "eth0")
    }

    /// The container has no namespace, which address management has no need of.
    #[must_use]
    pub fn attachment(self, container: &str, ifname: &str) -> Self {
        self.env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", "/run/netns/none")
            .env("CNI_IFNAME", ifname)
    }

    /// Another plugin than the one that the configuration names: by its name, or the path of a
    /// foreign one.
    #[must_use]
    pub fn plugin(mut self, name: &str) -> Self {
        name.clone_into(&mut self.plugin);
        self
    }

    /// Has the plugin run by another program, which is given it as the last of its arguments.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// What the plugin prints goes into this file.
    #[must_use]
    pub fn stdout(mut self, path: &str) -> Self {
        self.stdout = Some(path.to_owned());
        self
    }

    /// Has the process do this before it becomes the plugin.
    #[must_use]
    pub fn before_exec(mut self, hook: fn() -> io::Result<()>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a variable out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.env.retain(|(other, _)| other != name);
        self
    }

    /// Sends these bytes instead of the configuration.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    fn command(&self) -> Command {
        let plugin = Path::new(BIN).join(&self.plugin);
        let mut command = match self.prefix.split_first() {
            Some((program, arguments)) => {
                let mut command = self.host.command(program);
                command.args(arguments).arg(plugin);
                command
            }
            None => self.host.command(plugin),
        };
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(path) = &self.stdout {
            command.stdout(File::options().write(true).open(path).unwrap());
        }
        if let Some(hook) = self.hook {
            // SAFETY: the hooks of tests do no more than a few system calls.
            unsafe { command.pre_exec(hook) };
        }
        command
    }

    /// Starts the plugin and sends it its configuration.
    pub fn start(&self) -> Child {
        let mut child = self.start_with_stdin_open();
        drop(child.stdin.take());
        child
    }

    /// Starts the plugin, which has its configuration and waits for the end of standard input.
    pub fn start_with_stdin_open(&self) -> Child {
        let mut child = self.command().spawn().unwrap();
        // A plugin that reads nothing, or has been killed, closes the pipe.
        let _ = child.stdin.as_mut().unwrap().write_all(&self.stdin);
        child
    }

    /// Runs the plugin to its end.
    pub fn run(&self) -> Outcome {
        let began = Instant::now();
        let output = self.start().wait_with_output().unwrap();
        Outcome {
            took: began.elapsed(),
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What a plugin has answered.
#[derive(Debug)]
pub struct Outcome {
    pub took: Duration,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The result of a call that must have succeeded; `null` if nothing was printed.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.status.success(), "failed: {self:#?}");
        if self.stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.stdout).unwrap_or_else(|why| panic!("{why}: {self:#?}"))
    }

    /// The error object of a call that must have failed as the specification asks.
    #[track_caller]
    pub fn error(&self) -> Value {
        assert_eq!(self.status.code(), Some(1), "expected an error: {self:#?}");
        let error: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|why| panic!("{why}: {self:#?}"));
        assert!(error["code"].is_u64(), "{self:#?}");
        assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{self:#?}");
        error
    }

    /// Asserts an error of this code whose message and details contain all of `words`.
    #[track_caller]
    pub fn fails(&self, code: u64, words: &[&str]) -> Value {
        let error = self.error();
        assert_eq!(error["code"], code, "{self:#?}");
        let text = format!(
            "{} {}",
            error["msg"].as_str().unwrap(),
            error["details"].as_str().unwrap_or("")
        );
        for word in words {
            assert!(text.contains(word), "expected {word:?} in {text:?}");
        }
        error
    }
}

impl Host {
    /// ADD for a pod.
    pub fn add(&self, conf: &Value, pod: &Pod<'_>) -> Outcome {
        Call::new(self, "ADD", conf).of(pod).run()
    }

    /// DEL for a pod.
    pub fn del(&self, conf: &Value, pod: &Pod<'_>) -> Outcome {
        Call::new(self, "DEL", conf).of(pod).run()
    }

    /// CHECK for a pod, of what ADD returned.
    pub fn check(&self, conf: &Value, prev: &Value, pod: &Pod<'_>) -> Outcome {
        let mut conf = conf.clone();
        conf["prevResult"] = prev.clone();
        Call::new(self, "CHECK", &conf).of(pod).run()
    }

    /// GC, with these attachments to keep.
    pub fn gc(&self, conf: &Value, valid: &[(&str, &str)]) -> Outcome {
        let mut conf = conf.clone();
        let item = |(container, ifname): &(&str, &str)| json!({"containerID": container, "ifname": ifname});
        conf["cni.dev/valid-attachments"] = valid.iter().map(item).collect();
        Call::new(self, "GC", &conf).run()
    }

    /// STATUS.
    pub fn status(&self, conf: &Value) -> Outcome {
        Call::new(self, "STATUS", conf).run()
    }
}

/// Asserts that ADD fails with these words and leaves all as it was, on the host and in the pod; and that the
/// DEL which a runtime sends after it succeeds.
#[track_caller]
pub fn fails_without_a_trace(host: &Host, conf: &Value, pod: &Pod<'_>, code: u64, words: &[&str]) {
    let before = host.snapshot();
    let links = pod.ip("link show").as_array().unwrap().len();
    host.add(conf, pod).fails(code, words);
    host.snapshot().assert_same_but_for_rules(&before);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), links, "nothing new in the pod");
    host.del(conf, pod).ok();
    host.snapshot().assert_same_but_for_rules(&before);
}

/// The plugins' configurations of a network: a single one as it is, or those of a list.
pub fn network(text: &str) -> Vec<Value> {
    let conf: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"));
    let Some(plugins) = conf["plugins"].as_array() else { return vec![conf] };
    let complete = |plugin: &Value| {
        let mut plugin = plugin.clone();
        plugin["name"] = conf["name"].clone();
        plugin["cniVersion"] = conf["cniVersion"].clone();
        plugin
    };
    plugins.iter().map(complete).collect()
}
