//! The other system calls: the clock, network namespaces, sysctls, file locks, taps, security contexts, standard input and
//! output. Nothing in here knows of CNI.

pub mod clock;
pub mod lock;
pub mod netns;
pub mod selinux;
pub mod stdio;
pub mod sysctl;
pub mod tun;
