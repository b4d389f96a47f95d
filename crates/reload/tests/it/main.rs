//! The crate from outside, on the real file system.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in test functions; here the helpers of the tests need them as well"
)]

mod common;
mod foreign_events;
mod lost_files;
mod open_writers;
mod reading;
mod trouble;
mod writers;
