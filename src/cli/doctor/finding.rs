//! What is found: how bad it is, what it is about, and what to do.

use serde_json::{Value, json};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// A call of a plugin will fail, or what is attached does not work.
    Error,
    /// It may fail, or will soon.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// All, the worst first.
    pub const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Note];

    /// As it is printed.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Declares the identifiers of findings, with the texts that programs see.
macro_rules! ids {
    ($($name:ident $text:literal,)*) => {
        /// Which finding it is; what programs tell findings by. `docs/doctor.md` explains each.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Id { $(#[doc = $text] $name,)* }

        impl Id {
            /// All of them, in the order of `docs/doctor.md`.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is printed.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

ids! {
    ConfigUnreadable "config-unreadable",
    ConfigInvalid "config-invalid",
    ConfigVersion "config-version",
    ConfigNameTwice "config-name-twice",
    ConfigSeveral "config-several",
    ConfigNone "config-none",
    PluginMissing "plugin-missing",
    PluginReference "plugin-reference",
    PluginRefuses "plugin-refuses",
    BridgeShared "bridge-shared",
    KernelOld "kernel-old",
    KernelFeature "kernel-feature",
    KernelUnknown "kernel-unknown",
    ForwardingOff "forwarding-off",
    ForwardDrop "forward-drop",
    LegacyIptables "legacy-iptables",
    LegacyCniChains "legacy-cni-chains",
    RpFilter "rp-filter",
    BridgeNfCall "bridge-nf-call",
    Ipv6Disabled "ipv6-disabled",
    ConntrackFull "conntrack-full",
    SubnetsClash "subnets-clash",
    SubnetOnHost "subnet-on-host",
    LeaseDirectoryUnusable "lease-directory-unusable",
    LeaseDirectoryMode "lease-directory-mode",
    LeaseDiskFull "lease-disk-full",
    LeaseReadOnly "lease-read-only",
    LeaseFileDamaged "lease-file-damaged",
    LeaseForeignFile "lease-foreign-file",
    LeaseIndexDamaged "lease-index-damaged",
    LeaseEarlierBoot "lease-earlier-boot",
    PoolExhausted "pool-exhausted",
    PoolNearlyExhausted "pool-nearly-exhausted",
    LeftoverLink "leftover-link",
    LinkWithoutLease "link-without-lease",
    LeaseWithoutLink "lease-without-link",
    ElementWithoutLink "element-without-link",
    ReferenceRules "reference-rules",
    LockUnusable "lock-unusable",
    ResultsUnusable "results-unusable",
    DhcpDaemonMissing "dhcp-daemon-missing",
    NotLookedAt "not-looked-at",
}

/// One thing that is or will be wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which it is.
    pub id: Id,
    /// How bad.
    pub severity: Severity,
    /// What it is about: a file, a network, a link, a setting.
    pub subject: String,
    /// What is, in a line.
    pub finding: String,
    /// What to do, in a line.
    pub advice: String,
}

impl Finding {
    /// An error.
    pub fn error(
        id: Id,
        subject: impl ToString,
        finding: impl ToString,
        advice: impl ToString,
    ) -> Self {
        Self::of(Severity::Error, id, subject, finding, advice)
    }

    /// A warning.
    pub fn warning(
        id: Id,
        subject: impl ToString,
        finding: impl ToString,
        advice: impl ToString,
    ) -> Self {
        Self::of(Severity::Warning, id, subject, finding, advice)
    }

    /// A note.
    pub fn note(
        id: Id,
        subject: impl ToString,
        finding: impl ToString,
        advice: impl ToString,
    ) -> Self {
        Self::of(Severity::Note, id, subject, finding, advice)
    }

    /// What could not be looked at, so that there may be more than was found.
    pub fn unseen(subject: impl ToString, why: impl ToString) -> Self {
        Self::note(Id::NotLookedAt, subject, why, "run plumb doctor as root on the host itself")
    }

    /// One of this severity.
    #[expect(clippy::needless_pass_by_value, reason = "texts of all kinds are taken")]
    pub fn of(
        severity: Severity,
        id: Id,
        subject: impl ToString,
        finding: impl ToString,
        advice: impl ToString,
    ) -> Self {
        // A finding is one line, whatever the kernel or a parser says.
        let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (finding, advice) = (line(finding.to_string()), line(advice.to_string()));
        Self { id, severity, subject: subject.to_string(), finding, advice }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id.text(), "severity": self.severity.text(), "subject": self.subject,
            "finding": self.finding, "advice": self.advice,
        })
    }
}

/// The first few of a list, and how many more there are.
pub fn some(items: &[String]) -> String {
    const SHOWN: usize = 3;
    match items.len().checked_sub(SHOWN) {
        None | Some(0) => items.join(", "),
        Some(more) => {
            let shown: Vec<_> = items.iter().take(SHOWN).cloned().collect();
            format!("{} and {more} more", shown.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_documented_and_no_other() {
        let document = include_str!("../../../docs/doctor.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: Vec<_> = rows.map(|(id, _)| id).collect();
        let ids: Vec<_> = Id::ALL.iter().map(|id| id.text()).collect();
        assert_eq!(documented, ids);
    }

    #[test]
    fn a_long_list_is_cut() {
        let list = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&list(3)), "0, 1, 2");
        assert_eq!(some(&list(5)), "0, 1, 2 and 2 more");
    }
}
