//! The tables of legacy iptables, which netlink does not tell: getsockopt(2) with `IPT_SO_GET_INFO` and
//! `IPT_SO_GET_ENTRIES` (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h,
//! linux/netfilter/x_tables.h). Nothing is changed.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Length of a table's name, with its NUL.
const NAME: usize = 32;
/// Hooks of a table.
const HOOKS: usize = 5;
/// `NF_INET_FORWARD`
const FORWARD: usize = 2;
/// `struct ipt_getinfo`: the name, a mask of hooks, two numbers for each hook, the number of entries and
/// their size.
const INFO_SIZE: usize = NAME + 4 * (1 + 2 * HOOKS + 2);
/// `struct ipt_get_entries` before its entries: the name and their size, aligned to 8.
const ENTRIES_HEADER: usize = 40;
/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; the same for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// No table is larger that anybody would look at.
const LARGEST: usize = 256 << 20;

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// iptables
    Ipv4,
    /// ip6tables
    Ipv6,
}

/// What is of interest of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Whether it drops what is forwarded and its rules say nothing about.
    pub drops_forwarded: bool,
    /// Names of the chains that were made by somebody.
    pub chains: Vec<String>,
    /// Entries other than policies and the heads and ends of chains.
    pub rules: usize,
}

impl Family {
    /// The program that manages the tables.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Ipv4 => "iptables",
            Self::Ipv6 => "ip6tables",
        }
    }

    const fn names_file(self) -> &'static str {
        match self {
            Self::Ipv4 => "/proc/thread-self/net/ip_tables_names",
            Self::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
        }
    }

    const fn level(self) -> libc::c_int {
        match self {
            Self::Ipv4 => libc::SOL_IP,
            Self::Ipv6 => libc::SOL_IPV6,
        }
    }

    /// Where in an entry the offsets of its target and of the next entry are, two bytes each
    /// (`target_offset` of `struct ipt_entry`, `struct ip6t_entry`).
    const fn offsets_at(self) -> usize {
        match self {
            Self::Ipv4 => 88,
            Self::Ipv6 => 140,
        }
    }

    /// Names of the tables that are in use in this thread's network namespace; none if the kernel has no
    /// legacy iptables. To ask for another would have the kernel make it.
    ///
    /// # Errors
    /// Those of open(2): who is not root there may not read it.
    pub fn tables(self) -> io::Result<Vec<String>> {
        match fs::read_to_string(self.names_file()) {
            Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(why) => Err(why),
        }
    }

    /// Reads the table of this name, one of [`tables`](Self::tables).
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; `EAGAIN` if it has changed meanwhile; `EBADMSG` if the kernel's answer
    /// makes no sense.
    pub fn read(self, name: &str) -> Result<Table, Errno> {
        let mut info = vec![0; INFO_SIZE];
        self.ask(GET_INFO, name, &mut info)?;
        let number = |at: usize| number(&info, NAME + 4 * at).ok_or(Errno::EBADMSG);
        // Behind the mask the hooks' entries, then where each policy is.
        let has_forward = number(0)? & (1 << FORWARD) != 0;
        let policy = has_forward.then(|| number(1 + HOOKS + FORWARD)).transpose()?;
        let size = number(2 + 2 * HOOKS)?;
        if size > LARGEST {
            return Err(Errno::EBADMSG);
        }
        let mut answer = vec![0; ENTRIES_HEADER + size];
        let size = u32::try_from(size).map_err(|_| Errno::EBADMSG)?;
        if let Some(bytes) = answer.get_mut(NAME..NAME + 4) {
            bytes.copy_from_slice(&size.to_ne_bytes());
        }
        self.ask(GET_ENTRIES, name, &mut answer)?;
        let entries = answer.get(ENTRIES_HEADER..).unwrap_or_default();
        self.decode(entries, policy).ok_or(Errno::EBADMSG)
    }

    /// Has the kernel fill `buffer`, at whose beginning the table's name goes.
    fn ask(self, option: libc::c_int, name: &str, buffer: &mut [u8]) -> Result<(), Errno> {
        let family = match self {
            Self::Ipv4 => AddressFamily::Inet,
            Self::Ipv6 => AddressFamily::Inet6,
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        if name.len() >= NAME {
            return Err(Errno::EINVAL);
        }
        if let Some(bytes) = buffer.get_mut(..name.len()) {
            bytes.copy_from_slice(name.as_bytes());
        }
        let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::EINVAL)?;
        let (fd, value) = (socket.as_raw_fd(), buffer.as_mut_ptr().cast());
        // SAFETY: the buffer outlives the call and has the length that is given.
        let got = unsafe { libc::getsockopt(fd, self.level(), option, value, &raw mut length) };
        Errno::result(got).map(drop)
    }

    /// Reads a table's entries; `policy` is where that of FORWARD is among them.
    fn decode(self, entries: &[u8], policy: Option<usize>) -> Option<Table> {
        let mut table = Table { drops_forwarded: false, chains: Vec::new(), rules: 0 };
        let mut at = 0;
        while at < entries.len() {
            let entry = entries.get(at..)?;
            let offsets = self.offsets_at();
            let target = usize::from(short(entry, offsets)?);
            let next = usize::from(short(entry, offsets + 2)?);
            if next == 0 {
                return None;
            }
            // `struct xt_entry_target`: its size, its name, a revision; then what it is about: a verdict for
            // the one without name, the name of a chain for one called ERROR.
            let target = entry.get(target..next)?;
            let name = target.get(2..31)?;
            let data = target.get(32..)?;
            if up_to_nul(name) == "ERROR" {
                let chain = up_to_nul(data);
                // The last entry of a table is such a one, too.
                if chain != "ERROR" {
                    table.chains.push(chain);
                }
            } else {
                table.rules += 1;
            }
            if policy == Some(at) {
                // Verdicts are told as -verdict - 1, of which NF_DROP is 0.
                table.drops_forwarded = number(data, 0)? == u32::MAX as usize;
            }
            at += next;
        }
        Some(table)
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
    usize::try_from(number).ok()
}

fn up_to_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as the kernel lays it out: what is matched, where its parts are, counters, the target.
    fn entry(family: Family, target: &str, data: &[u8]) -> Vec<u8> {
        let before = if family == Family::Ipv4 { 112 } else { 168 };
        let mut entry = vec![0; before + 32];
        let length = u16::try_from(entry.len() + data.len()).unwrap();
        let at = family.offsets_at();
        entry[at..at + 2].copy_from_slice(&u16::try_from(before).unwrap().to_ne_bytes());
        entry[at + 2..at + 4].copy_from_slice(&length.to_ne_bytes());
        entry[before + 2..before + 2 + target.len()].copy_from_slice(target.as_bytes());
        entry.extend_from_slice(data);
        entry
    }

    fn named(name: &str) -> Vec<u8> {
        let mut data = name.as_bytes().to_vec();
        data.resize(32, 0);
        data
    }

    #[test]
    fn a_table_tells_its_policy_and_chains() {
        for family in [Family::Ipv4, Family::Ipv6] {
            for (verdict, drops) in [(-1_i32, true), (-2, false)] {
                let verdict = [verdict.to_ne_bytes(), [0; 4]].concat();
                let mut entries = entry(family, "", &verdict);
                entries.extend(entry(family, "ERROR", &named("CNI-0123")));
                entries.extend(entry(family, "MASQUERADE", &[0; 24]));
                entries.extend(entry(family, "ERROR", &named("ERROR")));
                let table = family.decode(&entries, Some(0)).unwrap();
                let expected =
                    Table { drops_forwarded: drops, chains: vec!["CNI-0123".into()], rules: 2 };
                assert_eq!(table, expected);
                for length in 1..entries.len() {
                    // Whatever is cut off, nothing is read behind it.
                    let _ = family.decode(&entries[..length], Some(0));
                }
            }
        }
        assert_eq!(Family::Ipv4.decode(&[0; 200], None), None, "an entry that ends nowhere");
    }
}
