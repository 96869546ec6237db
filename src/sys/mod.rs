//! The other system calls: network namespaces, sysctls, file locks, standard input and output. Nothing in
//! here knows of CNI.

pub mod lock;
pub mod netns;
pub mod stdio;
pub mod sysctl;
