//! DHCPv4 as a client speaks it (RFC 2131), without a system call: bytes, packets and the time go in, packets
//! and what to do come out.
//!
//! [`message`] is the format of messages, [`frame`] what carries them, [`terms`] what a server grants; [`client`]
//! is the life of a lease.

pub mod client;
pub mod frame;
pub mod message;
pub mod terms;
