//! Plumb: the CNI plugins for Linux as one static binary that speaks netlink itself.
//!
//! Dependencies point one way: [`cli`] and [`plugins`] use [`ipam`], that [`cni`], [`nl`] and [`sys`].
//! [`nl`] and [`sys`] know nothing of CNI, [`cni`] nothing of netlink.

pub mod cli;
pub mod cni;
pub mod ipam;
pub mod net;
pub mod nl;
pub mod plugins;
pub mod sha256;
pub mod sys;
pub mod trace;
