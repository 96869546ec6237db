//! Plumb: the CNI plugins for Linux as one static binary that speaks netlink itself.
pub mod net;
pub mod nl;
pub mod sha256;
pub mod cni;
pub mod sys;
pub mod ipam;
pub mod plugins;
