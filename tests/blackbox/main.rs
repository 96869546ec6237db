//! Black-box tests: the real binary, called as a runtime calls it, in throw-away namespaces.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bridge;
mod check;
mod cli;
mod concurrency;
mod failure;
mod harness;
mod masquerade;
mod real_input;
