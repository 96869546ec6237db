//! The environment that a runtime starts a plugin with (spec section 2, "Parameters").

use std::path::PathBuf;

use super::conf::{interface_name_fault, is_identifier};
use super::error::{Code, Error};

/// `CNI_COMMAND`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// See whether an attachment is as ADD left it.
    Check,
    /// Remove what belongs to no attachment any more.
    Gc,
    /// See whether ADD would work.
    Status,
    /// Tell the versions.
    Version,
}

impl Command {
    /// As it is written in `CNI_COMMAND`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const ALL: [Self; 6] =
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// Whether the command is about one attachment.
    #[must_use]
    pub const fn is_of_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// The parameters, validated as far as the command needs them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: Command,
    /// `CNI_CONTAINERID`; a container ID if the command is about an attachment.
    pub container: String,
    /// `CNI_NETNS`; may be empty for DEL.
    pub netns: String,
    /// `CNI_IFNAME`; an interface name if the command is about an attachment.
    pub ifname: String,
    /// `CNI_ARGS`, unread.
    pub args: String,
    /// `CNI_PATH`
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the namespace may be the plugin's own.
    pub netns_override: bool,
}

impl Environment {
    /// Reads the parameters through `variable`.
    ///
    /// # Errors
    /// Code 4: the command is unknown, or variables are missing (all are named) or malformed.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let error = |what: String| Error::new(Code::InvalidEnvironment, what);
        let value = |name: &str| variable(name).unwrap_or_default();
        let text = value("CNI_COMMAND");
        let command = Command::ALL.into_iter().find(|command| command.text() == text);
        let command = command.ok_or_else(|| error(format!("unknown CNI_COMMAND: {text}")))?;
        let environment = Self {
            command,
            container: value("CNI_CONTAINERID"),
            netns: value("CNI_NETNS"),
            ifname: value("CNI_IFNAME"),
            args: value("CNI_ARGS"),
            path: value("CNI_PATH")
                .split(':')
                .filter(|p| !p.is_empty())
                .map(PathBuf::from)
                .collect(),
            netns_override: matches!(
                value("CNI_NETNS_OVERRIDE").to_ascii_lowercase().as_str(),
                "1" | "true"
            ),
        };
        let of_attachment = command.is_of_attachment();
        let required = [
            ("CNI_CONTAINERID", of_attachment, environment.container.is_empty()),
            ("CNI_NETNS", of_attachment && command != Command::Del, environment.netns.is_empty()),
            ("CNI_IFNAME", of_attachment, environment.ifname.is_empty()),
            ("CNI_PATH", command != Command::Version, environment.path.is_empty()),
        ];
        let missing: Vec<_> = required
            .iter()
            .filter(|(_, required, empty)| *required && *empty)
            .map(|(name, ..)| *name)
            .collect();
        if !missing.is_empty() {
            return Err(error(format!("required env variables [{}] missing", missing.join(","))));
        }
        if of_attachment {
            environment.validate()?;
        }
        Ok(environment)
    }

    fn validate(&self) -> Result<(), Error> {
        if !is_identifier(&self.container) {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_CONTAINERID: expected a letter or digit, then letters, digits, '_', '.' \
                     or '-', got {:?}",
                    self.container
                ),
            ));
        }
        if let Some(fault) = interface_name_fault(&self.ifname) {
            let msg = format!(
                "CNI_IFNAME: expected an interface name, got {:?}, which {fault}",
                self.ifname
            );
            return Err(Error::new(Code::InvalidEnvironment, msg));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        let find =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Environment::read(find)
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let missing =
            |command: &str| read(&[("CNI_COMMAND", command)]).map(|_| ()).map_err(|e| e.msg);
        let names = |list: &str| Err(format!("required env variables [{list}] missing"));
        assert_eq!(missing("ADD"), names("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"));
        assert_eq!(missing("CHECK"), names("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"));
        assert_eq!(missing("DEL"), names("CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"));
        assert_eq!(missing("GC"), names("CNI_PATH"));
        assert_eq!(missing("STATUS"), names("CNI_PATH"));
        assert_eq!(missing("VERSION"), Ok(()));
        assert_eq!(missing("add"), Err("unknown CNI_COMMAND: add".into()));
    }

    #[test]
    fn values_are_validated_only_where_they_are_needed() {
        let podman = [
            ("CNI_COMMAND", "VERSION"),
            ("CNI_CONTAINERID", ""),
            ("CNI_IFNAME", "a/b"),
            ("CNI_NETNS", "dummy"),
            ("CNI_PATH", "dummy"),
        ];
        assert!(read(&podman).is_ok());
        for (container, ifname) in [("../c", "eth0"), ("c", "eth/0"), ("c", "..")] {
            let error = read(&[
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", container),
                ("CNI_IFNAME", ifname),
                ("CNI_PATH", "/opt/cni/bin"),
            ]);
            assert_eq!(error.unwrap_err().code, 4, "{container} {ifname}");
        }
    }
}
