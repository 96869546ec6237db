//! Throw-away machines for tests: the real binary, in namespaces of its own.
//!
//! A [`Host`] is a mount and a network namespace with an empty `/run` and `/var/lib`; a [`Pod`] is a
//! network namespace of that host. Whoever is not root gets a user namespace around it, so the tests
//! need no privilege. All of it goes with the host's last process, whatever becomes of the test.
//!
//! What the plugins have done is read back by other tools' eyes: `ip -j`, `nft -j`, ping, socat.

#![allow(dead_code, unused_imports, reason = "each test module uses a part")]

mod call;
mod conf;
pub mod dhcp;
mod fault;
mod host;
mod snapshot;
mod tracee;

pub use call::{Call, Outcome, fails_without_a_trace, network};
pub use conf::{VERSIONS, bridge_conf, dual, ipv4, with};
pub use fault::{Fault, Faulty, REFUSALS, Step, base_name};
pub use host::{BIN, Host, PLUMB, Pod, patience};
pub use snapshot::Snapshot;
pub use tracee::{Stop, Tracee};
