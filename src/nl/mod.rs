//! Netlink: how everything here talks to the kernel.
//!
//! [`wire`] is the format, [`request`] what can be asked, [`socket`] the conversation. Then one file
//! per kernel object, with typed requests and what they are answered by: [`link`], [`bridge_vlan`], [`addr`],
//! [`route`], [`nft`] for packet rules, and [`nsid`]. [`monitor`] and [`watch`] are told of changes. [`pretty`] shows messages to people. Nothing in here
//! knows of CNI.

pub mod addr;
pub mod bridge_vlan;
pub mod error;
pub mod link;
pub mod monitor;
pub mod nft;
pub mod nsid;
pub mod pretty;
pub mod request;
pub mod route;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;
mod trace;
pub mod watch;
pub mod wire;

pub use error::Error;
pub use socket::{Family, Socket};
