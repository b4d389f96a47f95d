//! Integration tests of this crate, one binary for all of them: each module is one subject.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod audit;
mod check;
mod check_laws;
mod formats;
mod migrate_laws;
mod model;
mod readiness;
mod readiness_laws;
mod replay;
mod replay_laws;
