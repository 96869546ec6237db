//! Plumb: the CNI plugins for Linux as one static binary that speaks netlink itself.
pub mod cni;
pub mod ipam;
pub mod net;
pub mod nl;
pub mod plugins;
pub mod sha256;
pub mod sys;
