//! `plumb restore`: the packet rules of all live attachments, put back after others have flushed them.
//!
//! ADDs and DELs go on meanwhile. Rules are put back for what was live when this looked; a DEL that had taken its
//! own rules away just before, and its link not yet, would leave them behind. So, once rules have been put
//! back, the calls that are at work at that moment are waited for ([`queue::await_calls`]): of their
//! attachments either all is there by then, or the link has gone. A call that begins later finds the rules
//! that were put back, and takes them away itself. Then all is looked at anew: rules that were put back for what
//! is not live any more, or has other addresses, go; and if any of that was to do, once more, since what went may
//! have been what an ADD has made in between. A call that can't open the queue is not waited for; should it leave
//! something that way, GC removes it, and an ADD that gets the address replaces it.

mod plan;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::network::{Network, configurations};
use super::{say, say_json};
use crate::cni::queue::{self, Turn};
use crate::cni::{Attachment, Error};
use crate::nl::{Socket, nft};
use crate::plugins::{forwarding, masquerade, spoof_check};

use masquerade::restore as masq;
use plan::Plan;
use spoof_check::restore as guard;

/// How often all is looked at, at most.
const ROUNDS: usize = 5;

/// Put back the packet rules of all attachments, as after `nft flush ruleset`
///
/// Looks at the host's links for attachments, whose aliases name them, and puts back what their networks'
/// configurations have in nf_tables, as far as it is missing: masquerading (ipMasq), and the check of link-layer
/// addresses (macspoofchk); and switches forwarding on where a gateway needs it. Addresses are those that
/// host-local's leases tell, else the configuration, else what the runtime has kept in /var/lib/cni/results, else
/// those that the container has. May be repeated, and run beside ADDs and DELs. Whose network is configured no
/// more, and not kept by the runtime either, is told, and the others are restored all the same.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb restore
  sudo plumb restore --dry-run             what is missing
  sudo plumb restore ./mynet.conflist      of this network only
  sudo plumb restore - < mynet.conflist
  sudo plumb restore --json | jq .elements

Environment:
  NETCONFPATH      directory of networks, instead of /etc/cni/net.d

docs/systemd/plumb-restore.service runs it after nftables.service and firewalld.service.

Exit codes:
  0  all rules are there (or with --dry-run, would be)
  1  something can't be told, or can't be put back; standard error says what
  2  the command line can't be understood")]
pub struct Options {
    /// Only this network, configured in FILE or, for -, on standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Change nothing, and say what is missing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What is done about what is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It is put back.
    Change,
    /// It is told.
    DryRun,
    /// It is no matter of this run any more.
    Last,
}

/// What was put back, or would be.
#[derive(Default)]
struct Restored {
    rules: usize,
    elements: usize,
    attachments: BTreeSet<String>,
    settings: Vec<&'static str>,
    masqueraded: Vec<masq::Wanted>,
    guarded: Vec<guard::Wanted>,
}

pub fn run(options: &Options) -> Result<i32, String> {
    let (networks, mut faults) = options.networks()?;
    let mut problems = Vec::new();
    let text = |error: Error| error.to_string();
    let _turn = if options.dry_run { None } else { Some(Turn::of_pass().map_err(text)?) };
    let mut rules = nft::open().map_err(|error| error.to_string())?;
    let mut restored = Restored::default();
    let mut plan = Plan::default();
    for round in 1..=ROUNDS {
        plan = options.plan(&networks)?;
        let went = restored.take_back(&mut rules, &plan).map_err(text)?;
        let (is_last, has_failed) = (round == ROUNDS, !problems.is_empty());
        // What is put back has to be looked at again.
        let mode = match () {
            () if options.dry_run => Mode::DryRun,
            () if is_last || has_failed => Mode::Last,
            () => Mode::Change,
        };
        let came = match restored.put_back(&mut rules, &plan, mode) {
            Ok(came) => came,
            Err(error) => {
                problems.push(error.to_string());
                true
            }
        };
        if options.dry_run || has_failed || !(went || came) {
            break;
        }
        if is_last {
            problems.push("other programs keep changing the same rules".to_owned());
        } else {
            queue::await_calls().map_err(text)?;
        }
    }
    problems.append(&mut faults);
    problems.append(&mut plan.unknown);
    if let Some(first) = plan.unconfigured.first() {
        let number = plan.unconfigured.len();
        let others = if number > 1 { format!(" and {} others", number - 1) } else { String::new() };
        problems.push(format!("{first}{others}: the network is not configured any more"));
    }
    report(options, &restored, &plan, &problems);
    Ok(i32::from(!problems.is_empty()))
}

impl Options {
    /// What is to be there, by these networks; of the one network only, if there is one given.
    fn plan(&self, networks: &[Network]) -> Result<Plan, String> {
        let is_asked_for =
            |name: &str| self.file.is_none() || networks.iter().any(|network| network.name == name);
        Plan::make(networks, is_asked_for)
    }

    /// The networks that attachments are looked up in, and what is wrong with configurations.
    fn networks(&self) -> Result<(Vec<Network>, Vec<String>), String> {
        match self.file.as_deref() {
            None => Network::all_in(&configurations()),
            Some(file) if file.as_os_str() == "-" => {
                let mut text = String::new();
                let read = io::stdin().read_to_string(&mut text);
                read.map_err(|why| format!("cannot read standard input: {why}"))?;
                Ok((vec![Network::parse(&text)?], Vec::new()))
            }
            Some(file) => Ok((vec![Network::read(file)?], Vec::new())),
        }
    }
}

impl Restored {
    /// Puts back what is missing, and says whether anything was.
    fn put_back(&mut self, rules: &mut Socket, plan: &Plan, mode: Mode) -> Result<bool, Error> {
        let masquerading = masq::missing(rules, &plan.masqueraded)?;
        let checks = guard::missing(rules, &plan.guarded)?;
        let counts = [masquerading.counts(), checks.counts()];
        let new_rules: usize = counts.iter().map(|(rules, _)| rules).sum();
        let elements: usize = counts.iter().map(|(_, elements)| elements).sum();
        if mode == Mode::Last {
            return Ok(new_rules + elements > 0);
        }
        self.rules += new_rules;
        self.elements += elements;
        self.settings.extend(forwarding::missing(&plan.forwarded));
        let labels = masquerading.elements.iter().map(|wanted| &wanted.label);
        let labels = labels.chain(checks.attachments.iter().map(|wanted| &wanted.label));
        self.attachments.extend(labels.cloned());
        self.masqueraded.extend_from_slice(&masquerading.elements);
        self.guarded.extend_from_slice(&checks.attachments);
        if mode == Mode::Change {
            masq::put(rules, &masquerading)?;
            guard::put(rules, &checks)?;
            forwarding::enable(&plan.forwarded)?;
        }
        Ok(new_rules + elements > 0)
    }

    /// Takes back what was put back earlier and is not wanted any more, and says whether there was any.
    fn take_back(&mut self, rules: &mut Socket, plan: &Plan) -> Result<bool, Error> {
        let mut any = false;
        let wanted: HashSet<_> = plan.masqueraded.iter().collect();
        let (keep, stale): (Vec<_>, Vec<_>) =
            self.masqueraded.drain(..).partition(|element| wanted.contains(element));
        self.masqueraded = keep;
        for element in stale {
            any = true;
            self.elements -= 1;
            masquerade::remove(rules, &element.label, &[element.address])?;
        }
        let wanted: HashSet<_> = plan.guarded.iter().collect();
        let (keep, stale): (Vec<_>, Vec<_>) =
            self.guarded.drain(..).partition(|check| wanted.contains(check));
        self.guarded = keep;
        for check in stale {
            any = true;
            self.elements -= 2;
            spoof_check::remove(rules, &check.link)?;
        }
        if any {
            let labels = self.masqueraded.iter().map(|element| &element.label);
            let labels = labels.chain(self.guarded.iter().map(|check| &check.label));
            self.attachments = labels.cloned().collect();
        }
        Ok(any)
    }

    fn networks(&self) -> usize {
        count_networks(self.attachments.iter().filter_map(|label| Attachment::from_label(label)))
    }
}

fn count_networks(attachments: impl Iterator<Item = Attachment>) -> usize {
    attachments.map(|attachment| attachment.network).collect::<BTreeSet<_>>().len()
}

fn report(options: &Options, restored: &Restored, plan: &Plan, problems: &[String]) {
    for what in problems {
        let _ = writeln!(io::stderr(), "plumb: {what}");
    }
    if options.json {
        let names = |label: &String| Attachment::from_label(label);
        let attachments: Vec<_> = restored
            .attachments
            .iter()
            .filter_map(names)
            .map(|Attachment { network, container, ifname }| {
                json!({"network": network, "container": container, "ifname": ifname})
            })
            .collect();
        say_json(&json!({
            "dryRun": options.dry_run, "rules": restored.rules, "elements": restored.elements,
            "attachments": attachments, "settings": restored.settings, "problems": problems,
        }));
        return;
    }
    if options.dry_run {
        for element in &restored.masqueraded {
            say(format_args!("missing: ipMasq {} of {}", element.address, element.label));
        }
        for check in &restored.guarded {
            say(format_args!("missing: macspoofchk {} of {}", check.mac, check.label));
        }
    }
    let verb = if options.dry_run { "would " } else { "" };
    for setting in &restored.settings {
        say(format_args!("{verb}set sysctl {setting} to 1"));
    }
    if restored.rules + restored.elements == 0 {
        say(format_args!(
            "nothing to restore: {} have all their rules",
            phrase(plan.attachments.len(), count_networks(plan.attachments.iter().cloned()))
        ));
        return;
    }
    let verb = if options.dry_run { "would restore" } else { "restored" };
    say(format_args!(
        "{verb} {} and {} of {}",
        counted(restored.rules, "rule"),
        counted(restored.elements, "element"),
        phrase(restored.attachments.len(), restored.networks())
    ));
}

/// `10 attachments in 2 networks`
fn phrase(attachments: usize, networks: usize) -> String {
    format!("{} in {}", counted(attachments, "attachment"), counted(networks, "network"))
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
