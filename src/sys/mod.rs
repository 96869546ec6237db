//! The other system calls: network namespaces, sysctls, file locks, taps, security contexts. Nothing in here
//! knows of CNI.

pub mod ifreq;
pub mod lock;
pub mod netns;
pub mod selinux;
pub mod sysctl;
pub mod tun;
