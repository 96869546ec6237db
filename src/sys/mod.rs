//! The other system calls: network namespaces, sysctls, file locks. Nothing in here knows of CNI.

pub mod lock;
pub mod netns;
pub mod sysctl;
