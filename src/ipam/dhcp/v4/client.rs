//! The life of a lease (RFC 2131 section 4.4), without a system call.
