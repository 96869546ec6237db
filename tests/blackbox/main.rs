//! Black-box tests: the real binary, called as a runtime calls it, in throw-away namespaces.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod bridge;
mod bridge_vlan;
mod check;
mod child;
mod cli;
mod concurrency;
mod crash;
mod damage;
mod delegation;
mod deletion;
mod dhcp;
mod dhcp6;
mod dhcp_life;
mod doctor;
mod driver;
mod dummy;
mod engines;
mod failure;
mod faults;
mod gc;
mod harness;
mod host_device;
mod host_local;
mod host_local_files;
mod ipvlan;
mod loopback;
mod macvlan;
mod masquerade;
mod migration;
mod modules;
mod protocol;
mod ptp;
mod real_input;
mod reliability;
mod restore;
mod static_ipam;
mod tap;
mod trace;
mod vlan;
