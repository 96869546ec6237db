//! Reads configuration out of a JSON document, with errors that name the place.
//!
//! Keys match as Go's `encoding/json` matches them: the exact one first, else one that differs in case;
//! engines rely on it. Of a repeated key the last counts, `null` is as if absent, unknown keys are
//! ignored.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::error::{Code, Error};
use crate::net::{Cidr, Mac, parse_ip};

/// How much of an offending value an error repeats, in bytes.
const SHOWN: usize = 100;

/// A value and where in the document it stands.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    value: &'a Value,
    place: Place<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Root(&'a str),
    Key(&'a Node<'a>, &'a str),
    Index(&'a Node<'a>, usize),
}

impl<'a> Node<'a> {
    /// The document's outermost value; `name` precedes the path of keys in errors, or is empty.
    #[must_use]
    pub fn root(name: &'a str, value: &'a Value) -> Self {
        Self { value, place: Place::Root(name) }
    }

    /// The member `key` of this object; `None` if it is absent or `null`.
    ///
    /// # Errors
    /// This is not an object.
    pub fn get(&'a self, key: &'a str) -> Result<Option<Self>, Error> {
        let Value::Object(members) = self.value else { return Err(self.wrong("an object")) };
        let value = members.get(key).or_else(|| {
            members.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
        });
        Ok(value.filter(|v| !v.is_null()).map(|value| Self { value, place: Place::Key(self, key) }))
    }

    /// The items of this list.
    ///
    /// # Errors
    /// This is not a list.
    pub fn items(&'a self) -> Result<impl Iterator<Item = Self>, Error> {
        let Value::Array(items) = self.value else { return Err(self.wrong("a list")) };
        let node = move |(index, value)| Self { value, place: Place::Index(self, index) };
        Ok(items.iter().enumerate().map(node))
    }

    /// The text of this string.
    ///
    /// # Errors
    /// This is not a string.
    pub fn text(&self) -> Result<&'a str, Error> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    /// This truth value.
    ///
    /// # Errors
    /// This is not a truth value.
    pub fn boolean(&self) -> Result<bool, Error> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// This integer.
    ///
    /// # Errors
    /// This is not an integer, or it is out of range.
    pub fn integer(&self, range: RangeInclusive<u32>) -> Result<u32, Error> {
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        if self.value.as_i64().is_none() && self.value.as_u64().is_none() {
            return Err(self.wrong(&expected()));
        }
        let value = self.value.as_u64().and_then(|value| u32::try_from(value).ok());
        value.filter(|value| range.contains(value)).ok_or_else(|| self.invalid(&expected()))
    }

    /// The value that this string denotes, by `parse`.
    ///
    /// # Errors
    /// This is not a string, or it does not denote what is `expected`.
    pub fn parse<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        parse(self.text()?).ok_or_else(|| self.invalid(expected))
    }

    /// The address that this string denotes.
    ///
    /// # Errors
    /// This is not a string, or not an address.
    pub fn ip(&self) -> Result<IpAddr, Error> {
        self.parse("an IP address", parse_ip)
    }

    /// The address with prefix that this string denotes.
    ///
    /// # Errors
    /// This is not a string, or not an address with prefix.
    pub fn cidr(&self) -> Result<Cidr, Error> {
        self.parse("an IP address with prefix length, such as 10.1.0.0/16", |text| {
            text.parse().ok()
        })
    }

    /// The link-layer address that this string denotes.
    ///
    /// # Errors
    /// This is not a string, or not an address that an interface can have.
    pub fn mac(&self) -> Result<Mac, Error> {
        let mac: Mac =
            self.parse("a MAC address, such as 02:00:5e:10:00:01", |text| text.parse().ok())?;
        if mac.is_assignable() { Ok(mac) } else { Err(self.invalid("a unicast MAC address")) }
    }

    /// The truth value of member `key`, false if it is absent.
    ///
    /// # Errors
    /// It is not a truth value.
    pub fn flag(&self, key: &str) -> Result<bool, Error> {
        self.get(key)?.map_or(Ok(false), |node| node.boolean())
    }

    /// The integer of member `key`.
    ///
    /// # Errors
    /// It is not an integer, or out of range.
    pub fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Error> {
        self.get(key)?.map(|node| node.integer(range)).transpose()
    }

    /// The string of member `key`.
    ///
    /// # Errors
    /// It is not a string.
    pub fn string(&self, key: &str) -> Result<Option<String>, Error> {
        self.get(key)?.map(|node| node.text().map(str::to_owned)).transpose()
    }

    /// What `each` makes of the items of member `key`; nothing if it is absent.
    ///
    /// # Errors
    /// It is not a list, or an item is refused.
    pub fn list<T>(
        &self,
        key: &str,
        mut each: impl FnMut(&Node<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        match self.get(key)? {
            Some(list) => list.items()?.map(|item| each(&item)).collect(),
            None => Ok(Vec::new()),
        }
    }

    /// An error about this value, which has the wrong type.
    #[must_use]
    pub fn wrong(&self, expected: &str) -> Error {
        let msg = format!("{}: expected {expected}, got {}", self, self.shown());
        Error::new(Code::Decode, msg)
    }

    /// An error about this value, which has the right type and can't be accepted all the same.
    #[must_use]
    pub fn invalid(&self, expected: &str) -> Error {
        Error::invalid(self, self.shown(), expected)
    }

    fn shown(&self) -> String {
        let mut text = self.value.to_string();
        if text.len() > SHOWN {
            text.truncate(text.floor_char_boundary(SHOWN));
            text.push('…');
        }
        text
    }
}

impl fmt::Display for Node<'_> {
    /// Where this value stands, `ipam.ranges[0][1].subnet`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Root("") => f.write_str("configuration"),
            Place::Root(name) => f.write_str(name),
            Place::Key(Node { place: Place::Root(""), .. }, key) => f.write_str(key),
            Place::Key(parent, key) => write!(f, "{parent}.{key}"),
            Place::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn keys_match_exactly_first_and_in_any_case_else() {
        let value =
            document(r#"{"IPMasq":true,"address":"a","Address":"b","mtu":null,"x":1,"x":2}"#);
        let root = Node::root("", &value);
        assert!(root.flag("ipMasq").unwrap());
        assert_eq!(root.string("address").unwrap().unwrap(), "a");
        assert_eq!(root.string("Address").unwrap().unwrap(), "b");
        assert_eq!(root.number("mtu", 0..=9).unwrap(), None);
        assert_eq!(root.number("x", 0..=9).unwrap(), Some(2), "the last of a repeated key counts");
        assert!(!root.flag("missing").unwrap());
    }

    #[test]
    fn errors_name_place_value_and_expectation() {
        let value = document(r#"{"ipam":{"ranges":[[{"subnet":"10.0.0.0/8"},{"subnet":5}]]}}"#);
        let root = Node::root("", &value);
        let ipam = root.get("ipam").unwrap().unwrap();
        let error = ipam
            .list("ranges", |set| {
                set.items()?
                    .map(|range| range.get("subnet")?.unwrap().cidr())
                    .collect::<Result<Vec<_>, _>>()
            })
            .unwrap_err();
        assert_eq!(error.msg, "ipam.ranges[0][1].subnet: expected a string, got 5");
        assert_eq!(error.code, Code::Decode as u32);
    }

    #[test]
    fn integers_are_integers_in_range() {
        for (text, code) in [
            ("1.5", Code::Decode),
            ("\"1\"", Code::Decode),
            ("true", Code::Decode),
            ("-1", Code::InvalidConfig),
            ("10", Code::InvalidConfig),
            ("99999999999", Code::InvalidConfig),
        ] {
            let value = document(&format!("{{\"n\":{text}}}"));
            let error = Node::root("", &value).number("n", 0..=9).unwrap_err();
            assert_eq!(error.code, code as u32, "{text}");
            assert_eq!(error.msg, format!("n: expected an integer from 0 to 9, got {text}"));
        }
    }

    #[test]
    fn a_huge_value_is_shown_cut() {
        let value = document(&format!("{{\"n\":\"{}\"}}", "ä".repeat(5000)));
        let error = Node::root("", &value).flag("n").unwrap_err();
        assert!(error.msg.len() < 200, "{}", error.msg.len());
    }
}
