//! dhcp: addresses from a DHCP server on the container's network.
//!
//! A lease wants to be renewed for as long as the container lives, and the plugin's process ends at once. So
//! there is a [daemon](daemon), one for all leases of the node, and the plugin asks it over a unix socket
//! ([`protocol`]). What is said to DHCP servers is in [`v4`]: messages and a lease's life, without a system call.

pub mod daemon;
pub mod protocol;
pub mod v4;
