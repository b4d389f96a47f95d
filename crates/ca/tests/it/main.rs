//! Integration tests of this crate, one binary for all of them: each module is one subject.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod crash;
mod profiles;
mod requests;
