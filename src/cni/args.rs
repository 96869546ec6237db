//! `CNI_ARGS`: `KEY=value` pairs separated by semicolons.

use super::error::{Code, Error};

/// What our plugins know of `CNI_ARGS`. Keys are case-sensitive, as in the reference.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Args {
    /// `MAC`: the container interface's address.
    pub mac: Option<String>,
    /// `IP`: an address to lease; for static several.
    pub ip: Option<String>,
    /// `GATEWAY`: gateways of static's addresses.
    pub gateway: Option<String>,
}

impl Args {
    /// Reads the value of `CNI_ARGS`.
    ///
    /// # Errors
    /// A pair is malformed, or unknown without `IgnoreUnknown=1`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let error = |what: String| Error::new(Code::InvalidEnvironment, what);
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| error(format!("CNI_ARGS: expected KEY=value, got {pair:?}")))?;
            match key {
                "MAC" => args.mac = Some(value.to_owned()),
                "IP" => args.ip = Some(value.to_owned()),
                "GATEWAY" => args.gateway = Some(value.to_owned()),
                "IgnoreUnknown" => {
                    ignore_unknown = match value.to_ascii_lowercase().as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => {
                            let msg = "CNI_ARGS: IgnoreUnknown: expected 1, true, 0 or false, got";
                            return Err(error(format!("{msg} {value:?}")));
                        }
                    }
                }
                _ => unknown.push(pair),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            return Err(error(format!(
                "CNI_ARGS: unknown args {unknown:?}; IgnoreUnknown=1 would have them ignored"
            )));
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_arguments_are_read() {
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=t;MAC=02:00:00:00:00:01;IP=10.0.0.7");
        let args = args.unwrap();
        assert_eq!(args.mac.as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(args.ip.as_deref(), Some("10.0.0.7"));
        assert_eq!(Args::parse("").unwrap(), Args::default());
    }

    #[test]
    fn malformed_and_unknown_pairs_are_named() {
        for (text, named) in [
            ("none", "\"none\""),
            ("IP=1=2", "\"IP=1=2\""),
            ("IP=1;", "\"\""),
            ("ip=10.0.0.1", "ip=10.0.0.1"),
            ("A=1;IgnoreUnknown=no", "IgnoreUnknown"),
        ] {
            let error = Args::parse(text).unwrap_err();
            assert_eq!(error.code, 4);
            assert!(error.msg.contains(named), "{text}: {}", error.msg);
        }
    }
}
