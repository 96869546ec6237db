//! The CNI error object (spec section 5, "Error").

use std::fmt;

use super::print::Printer;
use super::version::Version;

/// Error codes of the specification, and the reference's 999 for all else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Code {
    /// `cniVersion` is unknown, or too old for the verb.
    IncompatibleVersion = 1,
    /// A key is known but can't be honoured.
    UnsupportedField = 2,
    /// An environment variable is missing or malformed.
    InvalidEnvironment = 4,
    /// A file or stream can't be read or written.
    Io = 5,
    /// Input is not JSON, or a key has the wrong type.
    Decode = 6,
    /// A value of the configuration is not acceptable.
    InvalidConfig = 7,
    /// `CNI_NETNS` is no network namespace, or the plugin's own.
    InvalidNetns = 8,
    /// The condition should clear up by itself.
    TryAgainLater = 11,
    /// STATUS: the plugin can't serve ADD requests.
    Unavailable = 50,
    /// Everything else, the kernel's refusals among them.
    Internal = 999,
}

/// An error on its way to the runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The kind of error; of a delegate's error its own code.
    pub code: u32,
    /// What failed, on which object, and why.
    pub msg: String,
    /// More, for who looks closer: the kernel's own words. May be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code: code as u32, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// A value of the configuration that is not acceptable: `path` names the key.
    pub fn invalid(path: impl fmt::Display, got: impl fmt::Display, expected: &str) -> Self {
        Self::new(Code::InvalidConfig, format!("{path}: expected {expected}, got {got}"))
    }

    /// A file that can't be read or written.
    pub fn io(operation: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::new(Code::Io, format!("cannot {operation}: {why}"))
    }

    /// A version that is not among ours.
    #[must_use]
    pub fn incompatible(version: &str) -> Self {
        let supported = Version::ALL.map(Version::text);
        Self::new(Code::IncompatibleVersion, "incompatible CNI versions")
            .with_details(format!("config is {version:?}, plugin supports {supported:?}"))
    }

    /// The same error as the answer to STATUS: code 50.
    #[must_use]
    pub fn unavailable(self) -> Self {
        Self { code: Code::Unavailable as u32, ..self }
    }

    /// The same error, said to be about `object`.
    #[must_use]
    pub fn of(self, object: impl fmt::Display) -> Self {
        Self { msg: format!("{object}: {}", self.msg), ..self }
    }

    /// Adds what else went wrong, of work that goes on after a failure.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.msg = format!("{}; {}", self.msg, other.msg);
        if !other.details.is_empty() {
            let separator = if self.details.is_empty() { "" } else { "; " };
            self.details = format!("{}{separator}{}", self.details, other.details);
        }
        self
    }

    /// The error object, as it is printed on standard output.
    #[must_use]
    pub fn to_json(&self, version: Version) -> String {
        let mut printer = Printer::new();
        printer.object(|p| {
            p.key("cniVersion").string(version.text());
            p.key("code").number(self.code);
            p.key("msg").string(&self.msg);
            if !self.details.is_empty() {
                p.key("details").string(&self.details);
            }
        });
        printer.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The first of the errors that cleaning up has met, with the others behind it.
#[derive(Default, Debug)]
pub struct Errors(Option<Error>);

impl Errors {
    /// Notes the error of a step, if it is one, and goes on.
    pub fn note<T>(&mut self, step: Result<T, impl Into<Error>>) -> Option<T> {
        match step {
            Ok(value) => Some(value),
            Err(error) => {
                let error = error.into();
                self.0 = Some(match self.0.take() {
                    Some(first) => first.and(&error),
                    None => error,
                });
                None
            }
        }
    }

    /// Whether no step has failed so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Success if no step failed.
    ///
    /// # Errors
    /// What the steps noted.
    pub fn into_result(self) -> Result<(), Error> {
        self.0.map_or(Ok(()), Err)
    }
}
